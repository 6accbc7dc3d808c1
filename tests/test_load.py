"""Much, large and full: what a night brings. Each works, or says why it does not and works once that is mended."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import apart
import folds
import inference
import submission
import tester
import train
from conftest import TINY, write_mask
from formats import images
from tools import hardware

COMMON = [argument for argument in TINY if not argument.startswith(("DATASET", "EPOCHS"))] + ["DATASET=x", "EPOCHS=1"]
RUN = Path("lightning_logs/demo/fold0_seed42")


def write_pairs(names, size=(24, 32), root=Path("input/x"), test=()):
    """Noise with a bright rectangle for each name, its mask, and test images without."""
    for number, name in enumerate([*names, *test]):
        random = np.random.default_rng(number)
        coarse = random.integers(0, 120, (*(min(side, 900) for side in size), 3), np.uint8)
        enlarged = np.repeat(np.repeat(coarse, -(-size[0] // 900), 0), -(-size[1] // 900), 1)
        picture = enlarged[: size[0], : size[1]].copy()
        mask = np.zeros(size, bool)
        top, left = (int(random.integers(0, max(1, side // 2))) for side in size)
        mask[top : top + max(1, size[0] // 3), left : left + max(1, size[1] // 3)] = True
        picture[mask] += 120
        folder = root / ("images" if number < len(names) else "test")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{name}.png", compress_level=1)
        if number < len(names):
            write_mask(root / "masks" / f"{name}.png", mask)


def whole_path(*extra):
    """From the folds to a submission; returns its rows."""
    for main, more in (
        (folds.main, []), (train.main, ["FOLD=0"]), (tester.main, ["FOLD=0"]), (inference.main, ["FOLD=0"]),
        (submission.main, ["FOLD=0", "DIALECT=tgs"]),
    ):  # fmt: skip
        assert main([*COMMON, *extra, *more]) == 0
    return pd.read_csv("output/x/submission.csv", dtype=str, keep_default_na=False)


def test_long_names_of_every_script_and_images_of_one_pixel(workplace):
    long = "ä" + "x" * 192 + " Ω名🙂-_."  # 200 characters, 212 bytes of the 255 that a file system takes
    assert len(long) == 200
    write_pairs([f"{long}{n}"[-200:] for n in range(4)], test=[f"{long}{n}"[-200:] for n in (4, 5)])
    write_pairs(["p0", "p1", "p2"], size=(1, 1), test=["p3"])
    rows = whole_path("RESIZE=fit")
    assert sorted(rows["id"]) == sorted(["p3", *(f"{long}{n}"[-200:] for n in (4, 5))])


def test_a_fold_of_one_image_and_a_class_that_no_mask_has(workplace, capsys):
    write_pairs("abcd", test="e")
    Path("input/x/classes.csv").write_text("name,value\nbackground,0\nbright,255\nnever,7\n")
    Path("own.csv").write_text(
        "image,mask,kfold\n" + "".join(f"images/{n}.png,masks/{n}.png,{int(n > 'a')}\n" for n in "abcd")
    )
    assert folds.main([*COMMON, "TABLE=own.csv"]) == 0
    assert "No mask shows never" in capsys.readouterr().out
    for fold in (0, 1):  # one image held out; one image to train on
        assert train.main([*COMMON, f"FOLD={fold}"]) == 0
        assert tester.main([*COMMON, f"FOLD={fold}"]) == 0
    assert tester.main([*COMMON, "OOF=1"]) == 0
    scores = pd.read_csv("lightning_logs/x/oof_seed42/scores.csv")
    assert sorted(scores["class"].unique()) == ["bright", "never"]
    assert scores["image"].nunique() == 4


def test_a_class_in_one_image_is_said_to_be_held_out_once_only(workplace, capsys):
    write_pairs("abcd")
    Path("input/x/classes.csv").write_text("name,value\nbackground,0\nbright,255\nrare,7\n")
    mask = np.array(Image.open("input/x/masks/a.png"))
    mask[0, 0] = 7
    Image.fromarray(mask).save("input/x/masks/a.png")
    assert folds.main(COMMON) == 0
    assert "1 of 2 folds hold out an image with rare" in capsys.readouterr().out


def test_a_read_only_input_is_enough(demo_data):
    def job():
        apart.read_only(Path("input"))
        with pytest.raises(OSError, match="Read-only"):
            Path("input/x").write_text("")
        assert folds.main(TINY) == 0
        assert train.main([*TINY, "EPOCHS=1", "FOLD=0"]) == 0
        assert tester.main([*TINY, "EPOCHS=1", "FOLD=0"]) == 0
        assert inference.main([*TINY, "FOLD=0"]) == 0
        return submission.main([*TINY, "FOLD=0"])

    ended = apart.run(job)
    assert ended.code == 0, ended.said


def test_a_read_only_output_is_a_sentence(demo_data):
    def job():
        Path("output").mkdir()
        apart.read_only(Path("output"))
        return folds.main(TINY)

    ended = apart.run(job)
    assert ended.code == 2, ended.said
    assert "error: Read-only file system" in ended.said


def grow(place: str, room: int) -> None:
    """Leave `room` KiB free on the tmpfs at `place`."""
    free = os.statvfs(place)
    used = (free.f_blocks - free.f_bavail) * free.f_frsize // 1024
    apart.mount("-o", f"remount,size={used + room}k", place)


def onto_a_small_disk(place: str) -> None:
    """Move a folder onto a tmpfs of its own."""
    if not Path(place).exists():
        apart.tmpfs(Path(place), "200M")
        return
    shutil.move(place, f"{place}.old")
    apart.tmpfs(Path(place), "200M")
    shutil.copytree(f"{place}.old", place, dirs_exist_ok=True)


def full(place: str, room: int, main, argv: list[str], again: list[str] = []) -> apart.Ended:  # noqa: B006
    """Run a command on a disk of `room` KiB, then again with space; what is left between must be whole."""

    def job():
        onto_a_small_disk(place)
        grow(place, room)
        before = set(Path(place).rglob("*"))
        code = main(argv)
        for path in set(Path(place).rglob("*")) - before:
            torn = path.is_file() and (
                (path.name.startswith(".") and ".partial" not in path.name) or not path.stat().st_size
            )
            print(f"{'torn' if torn else 'left'}: {path} {path.stat().st_size}")
        print(f"the first time: {code}", flush=True)
        grow(place, 200_000)
        return main([*argv, *again]) if code else 97

    ended = apart.run(job)
    assert "the first time: 2" in ended.said, ended.said
    assert ended.code == 0, ended.said
    assert "No space left on device" in ended.said
    assert "Traceback" not in ended.said, ended.said
    assert "torn:" not in ended.said, ended.said
    return ended


@pytest.mark.parametrize("room", [4, 12, 24])
def test_a_full_disk_under_the_folds_table(demo_data, room):
    ended = full("output", room, folds.main, TINY)
    assert "Make room" in ended.said
    assert ("left: output/demo/train_folds.csv" in ended.said) == (room > 8)


def test_a_full_disk_under_the_cache(folds_table):
    ended = full("output", 200, train.main, [*TINY, "FOLD=0", "EPOCHS=1"])
    assert "left: output/demo/cache/" not in ended.said


@pytest.mark.parametrize("fits", ["nothing", "the first checkpoint", "both checkpoints"])
def test_a_full_disk_under_the_checkpoints(trained, fits):
    checkpoint, model = ((RUN / name).stat().st_size >> 10 for name in ("checkpoints/last.ckpt", "model.safetensors"))
    shutil.rmtree("lightning_logs")
    room, resume = {
        "nothing": (checkpoint // 2, []),
        "the first checkpoint": (checkpoint * 3 // 2, ["RESUME=1"]),
        "both checkpoints": (checkpoint * 2 + model // 2, ["RESUME=1"]),
    }[fits]
    ended = full("lightning_logs", room, train.main, [*TINY, "FOLD=0"], resume)
    assert (f"left: {RUN}/checkpoints/last.ckpt" in ended.said) == bool(resume)
    assert f"left: {RUN}/model.safetensors" not in ended.said


@pytest.mark.parametrize("room", [0, 60, 110])
def test_a_full_disk_under_the_predictions(trained, room):
    ended = full("output", room, inference.main, [*TINY, "FOLD=0"])
    assert "left: output/demo/predictions/demo_fold0_seed42/" not in ended.said


@pytest.mark.parametrize("room", [0, 4])
def test_a_full_disk_under_the_submission(trained, room):
    assert inference.main([*TINY, "FOLD=0"]) == 0
    ended = full("output", room, submission.main, [*TINY, "FOLD=0"])
    assert "left: output/demo/submission.csv" not in ended.said


def test_a_small_dev_shm_gets_fewer_processes(monkeypatch):
    room = 64 << 20
    monkeypatch.setattr(hardware.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(room, 0, room))
    assert hardware.fitting_processes(4, 100, 100) == (4, "")
    for batch, left in ((8 << 20, 3), (20 << 20, 1), (30 << 20, 0)):
        count, why = hardware.fitting_processes(4, batch, batch)
        assert count == left
        assert "/dev/shm has 64 MB to spare" in why
        assert "--shm-size" in why


@pytest.mark.slow
def test_four_workers_at_512_pixels_and_64_mb_of_shared_memory(demo_data):
    def job():
        apart.tmpfs(Path("/dev/shm"), "64M")
        assert folds.main(TINY) == 0
        return train.main([*TINY, "FOLD=0", "IMAGE_SIZE=512", "WORKERS=4", "EPOCHS=1", "VALID_BATCH_SIZE=16"])

    ended = apart.run(job)
    assert ended.code == 0, ended.said
    assert "work instead" in ended.said


@pytest.mark.slow
def test_images_of_12000_by_9000_pixels(workplace, refused, capsys):
    write_pairs("abcd", size=(9_000, 12_000), test="e")
    refused(folds.main, COMMON, "a.png: 12000 x 9000 pixels, more than MAX_PIXELS=100000000")
    start = time.monotonic()
    rows = whole_path("MAX_PIXELS=120000000")
    assert len(rows) == 1
    assert images.read_gray(Path("output/x/predictions/x_fold0_seed42/e.png")).shape == (9_000, 12_000)
    with capsys.disabled():
        print(f"\n12,000 x 9,000 px: {time.monotonic() - start:.0f} s for four to train on and one to predict")


@pytest.mark.slow
def test_20_000_files_in_one_folder(workplace, capsys):
    write_pairs([f"{n:05d}" for n in range(20_000)], size=(12, 16), test=[f"t{n:05d}" for n in range(20_000)])
    took = {}
    for main, more in (
        (folds.main, []), (train.main, ["FOLD=0", "TRAIN_BATCH_SIZE=256", "VALID_BATCH_SIZE=256"]),
        (inference.main, ["FOLD=0", "VALID_BATCH_SIZE=256"]), (submission.main, ["FOLD=0", "DIALECT=tgs"]),
    ):  # fmt: skip
        start = time.monotonic()
        assert main([*COMMON, *more]) == 0
        took[main.__module__] = round(time.monotonic() - start)
    assert len(pd.read_csv("output/x/submission.csv")) == 20_000
    with capsys.disabled():
        print(f"\n20,000 images, 20,000 masks, 20,000 test images: seconds {took}")
