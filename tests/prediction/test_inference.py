"""Inference at scale: tiles, parts that survive a kill, shards, several devices, and the submission alone."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import nn

import inference
import submission
from conftest import ROOT, TINY
from prediction import predictor, resumable, shipped_model, tiles
from tools import hardware, locks
from tools.errors import UserError

PREDICTIONS = Path("output/demo/predictions")
ONE = PREDICTIONS / "demo_fold0_seed42"


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}


def test_a_call_that_is_killed_goes_on_and_ends_with_the_same_maps(trained, monkeypatch, capsys):
    monkeypatch.setattr(resumable, "PART", 4)
    assert inference.main([*TINY, "FOLD=0", "VALID_BATCH_SIZE=3"]) == 0
    whole, manifest = files_of(ONE), (ONE / "manifest.json").read_text()
    shutil.rmtree(ONE)
    kept, seen = resumable.Maps.__call__, []

    def stops(self, path, probabilities):
        seen.append(path)
        if len(seen) == 11:
            raise KeyboardInterrupt
        return kept(self, path, probabilities)

    monkeypatch.setattr(resumable.Maps, "__call__", stops)
    assert inference.main([*TINY, "FOLD=0", "VALID_BATCH_SIZE=3"]) == 130
    assert not ONE.exists()
    seen.clear()
    monkeypatch.setattr(resumable.Maps, "__call__", lambda *args: (seen.append(args[1]), kept(*args))[1])
    capsys.readouterr()
    assert inference.main([*TINY, "FOLD=0", "VALID_BATCH_SIZE=3"]) == 0
    assert "8 of 16 images were predicted before a stop" in capsys.readouterr().out
    assert len(seen) == 8
    assert files_of(ONE) == whole
    assert (ONE / "manifest.json").read_text() == manifest
    assert sorted(path.name for path in ONE.iterdir() if path.is_file() and path.suffix == ".json") == ["manifest.json"]


def test_parts_of_other_images_or_models_or_that_are_torn_are_done_again(trained, monkeypatch, capsys):
    monkeypatch.setattr(resumable, "PART", 4)
    names = sorted(path.name for path in Path("input/demo/test_hq").iterdir())
    partial, root = Path("partial"), Path("input/demo/test_hq")
    asked = []

    class Keep:
        def there(self, name, record):
            return record == [name]

    def predict(paths, keep):
        asked.extend(path.name for path in paths)
        return iter([[path.name] for path in paths])

    def again(plan="a"):
        asked.clear()
        resumable.work(partial, {"plan": plan}, root, names, predict, Keep())
        return list(asked)

    assert again() == names
    assert again() == []
    assert [name for name, _ in resumable.records(partial, names)] == names
    os.utime(root / names[5], (1, 1))
    assert again() == names[4:8]
    (partial / "parts" / "00002.json").write_text('{"stamp": "')
    assert again() == names[8:12]
    found = json.loads((partial / "parts" / "00000.json").read_text())
    (partial / "parts" / "00000.json").write_text(json.dumps({**found, "records": [["lost"]] * 4}))
    assert again() == names[:4]
    assert again("b") == names
    assert "starting anew" in capsys.readouterr().out


@pytest.mark.slow
def test_a_process_that_is_killed_loses_nothing(trained):
    """SIGKILL at three moments; the process that goes on ends with the maps of one that was never stopped."""
    code = "import sys, inference; from prediction import resumable; resumable.PART = 2; "
    code += "sys.exit(inference.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *TINY, "FOLD=0", "VALID_BATCH_SIZE=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run(command, check=True, env=environment)
    whole = files_of(ONE)
    shutil.rmtree(ONE)
    partial = PREDICTIONS / ".demo_fold0_seed42.partial"
    for wanted in (1, 3, 5):
        with subprocess.Popen(command, env=environment) as process:
            end = time.monotonic() + 60
            while len(list(partial.glob("parts/0*.json"))) < wanted and time.monotonic() < end:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
    subprocess.run(command, check=True, env=environment)
    assert files_of(ONE) == whole


def test_the_submission_alone_is_the_one_of_the_maps(trained, refused):
    assert inference.main([*TINY, "FOLD=0"]) == 0
    assert submission.main([*TINY, "FOLD=0"]) == 0
    expected = Path("output/demo/submission.csv").read_bytes()
    assert inference.main([*TINY, "FOLD=0", "MAPS=0"]) == 0
    assert len(files_of(ONE)) == 12  # those of the contact sheet
    assert submission.main([*TINY, "FOLD=0"]) == 0
    assert Path("output/demo/submission.csv").read_bytes() == expected
    refused(submission.main, [*TINY, "FOLD=0", "THRESHOLD=0.3"], "other rules", "MAPS=0")
    refused(submission.main, [*TINY, "FOLD=0", "DIALECT=hubmap"], "carvana")
    with (ONE / "rows.csv").open("a") as file:
        file.write("car,1 2\n")
    refused(submission.main, [*TINY, "FOLD=0"], "rows.csv", "is not the file")


def test_what_the_submission_would_refuse_is_refused_before_the_work(trained, refused):
    sample = Path("input/demo/sample_submission.csv")
    sample.write_text("img,rle_mask\nno_such.jpg,1 1\n")
    refused(inference.main, [*TINY, "FOLD=0", "MAPS=0"], "have no prediction", "no_such.jpg")
    assert not ONE.exists()


@pytest.mark.parametrize("way", ["MAPS=1", "MAPS=0"])
def test_shards_that_are_merged_give_the_submission_of_the_whole(trained, refused, way):
    sample = Path("input/demo/sample_submission.csv")
    ids = [line.partition(",")[0].replace(".jpg", "_foreground") for line in sample.read_text().splitlines()[1:]]
    if way == "MAPS=0":  # <image>_<class>, as some competitions have it, whatever the dialect's own columns are
        sample.write_text("\n".join(["Image_Label,EncodedPixels", *(f"{name},1 1" for name in ids)]))
    assert inference.main([*TINY, "FOLD=0", way, "VALID_BATCH_SIZE=1"]) == 0
    assert submission.main([*TINY, "FOLD=0"]) == 0
    if way == "MAPS=0":
        rows = [line.partition(",") for line in Path("output/demo/submission.csv").read_text().splitlines()]
        assert rows[0][0] == "Image_Label"
        assert [row[0] for row in rows[1:]] == ids
    expected, whole = Path("output/demo/submission.csv").read_bytes(), files_of(ONE)
    shutil.rmtree(ONE)
    refused(inference.merge, [*TINY, "FOLD=0"], "no parts")
    for shard in (3, 1):
        assert inference.main([*TINY, "FOLD=0", way, f"SHARD={shard}/3", "VALID_BATCH_SIZE=1"]) == 0
    refused(inference.merge, [*TINY, "FOLD=0"], "2 is missing", "SHARD=2/3")
    refused(submission.main, [*TINY, "NAME=demo_fold0_seed42.shard1of3"], "one part of 3", "make merge")
    assert inference.main([*TINY, "FOLD=0", way, "SHARD=2/3", "VALID_BATCH_SIZE=1"]) == 0
    assert inference.merge([*TINY, "FOLD=0"]) == 0
    assert submission.main([*TINY, "FOLD=0"]) == 0
    assert Path("output/demo/submission.csv").read_bytes() == expected
    if way == "MAPS=1":
        assert files_of(ONE) == whole


def test_parts_that_do_not_belong_together_are_refused(trained, refused):
    for shard in (1, 2):
        assert inference.main([*TINY, "FOLD=0", f"SHARD={shard}/2"]) == 0
    second = PREDICTIONS / "demo_fold0_seed42.shard2of2"
    manifest = json.loads((second / "manifest.json").read_text())
    fewer = {**manifest, "images": manifest["images"][:-2]}
    for changed, words in (
        ({**manifest, "tta": "flips"}, ["not predicted alike", "tta"]),
        (fewer, ["other probability maps"]),
        ({**manifest, "shard": {**manifest["shard"], "all": "0" * 64}}, ["test images"]),
    ):
        (second / "manifest.json").write_text(json.dumps(changed))
        refused(inference.merge, [*TINY, "FOLD=0"], *words)
    (second / "manifest.json").write_text(json.dumps(manifest))
    first = PREDICTIONS / "demo_fold0_seed42.shard1of2"
    shutil.rmtree(second)
    shutil.copytree(first, second)  # the same part twice
    refused(inference.merge, [*TINY, "FOLD=0"], "do not add up")
    assert not ONE.exists()
    assert inference.main([*TINY, "FOLD=0", "SHARD=1/3"]) == 0
    refused(inference.merge, [*TINY, "FOLD=0"], "different wholes")


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3"])
def test_a_shard_is_a_part_of_a_whole(trained, refused, text):
    refused(inference.main, [*TINY, "FOLD=0", f"SHARD={text}"], "SHARD=", "1/4")


def test_more_shards_than_images(trained, refused):
    refused(inference.main, [*TINY, "FOLD=0", "SHARD=17/17"], "only 16 images")


def test_two_calls_do_not_write_the_same_folder(trained, refused):
    partial = PREDICTIONS / ".demo_fold0_seed42.partial"
    with locks.exclusive(partial, ""):
        refused(inference.main, [*TINY, "FOLD=0", "TTA=flips"], "Another process", "NAME=")
        assert not partial.exists()
    assert inference.main([*TINY, "FOLD=0"]) == 0
    assert [path.name for path in PREDICTIONS.iterdir() if path.name.startswith(".")] == []


def test_a_kill_while_the_folder_takes_its_place_loses_nothing(trained, monkeypatch, capsys):
    assert inference.main([*TINY, "FOLD=0"]) == 0
    before = files_of(ONE)
    replace, calls = os.replace, []

    def stops(source, target):
        if Path(target) == ONE:
            calls.append(target)
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", stops)
    assert inference.main([*TINY, "FOLD=0"]) == 130
    assert calls
    monkeypatch.setattr(os, "replace", replace)
    assert inference.main([*TINY, "FOLD=0"]) == 0
    assert "16 of 16 images were predicted before a stop" in capsys.readouterr().out
    assert files_of(ONE) == before
    assert [path.name for path in PREDICTIONS.iterdir() if path.name.startswith(".")] == []


def test_a_tile_that_holds_the_whole_frame_is_the_whole_frame(trained):
    run = Path("lightning_logs/demo/fold0_seed42")
    model = dataclasses.replace(shipped_model.load(run), size=(40, 72))  # no multiples of 32
    paths = sorted(Path("input/demo/test_hq").iterdir())[:3]
    whole, tiled = (predictor.Predictor([model], tta="flips", tile=tile) for tile in (0, 96))
    assert whole.about() == tiled.about()
    for (_, a), (_, b) in zip(whole.predict(paths), tiled.predict(paths), strict=True):
        np.testing.assert_array_equal(a, b)


def test_large_images_come_in_smaller_batches_and_a_full_memory_halves_them(trained, monkeypatch):
    model = shipped_model.load(Path("lightning_logs/demo/fold0_seed42"))
    paths = sorted(Path("input/demo/test_hq").iterdir())
    expected = [answer for _, answer in predictor.Predictor([model], batch_size=8).predict(paths)]
    seen, ask = [], model.network.forward

    def small(x):
        seen.append(len(x))
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return ask(x)

    monkeypatch.setattr(model.network, "forward", small)
    answers = [answer for _, answer in predictor.Predictor([model], batch_size=8).predict(paths)]
    assert seen == [8, 4, 2, 2, 4, 2, 2] * 2
    np.testing.assert_allclose(answers, expected, atol=1e-5)
    seen.clear()
    monkeypatch.setattr(predictor, "BATCH_BYTES", 96 * 64 * 3 * 2)  # two of the demo's images
    assert len(list(predictor.Predictor([model], batch_size=8).predict(paths))) == 16
    assert set(seen) == {2}
    monkeypatch.setattr(model.network, "forward", lambda x: small(torch.cat([x, x, x])))
    with pytest.raises(UserError, match="does not hold one frame of 32 x 64 pixels; TILE="):
        list(predictor.Predictor([model], batch_size=8).predict(paths))


def test_several_devices_give_what_one_does(trained):
    run = Path("lightning_logs/demo/fold0_seed42")
    files = sorted(Path("input/demo/test_hq").iterdir())
    one = list(predictor.Predictor([shipped_model.load(run)], "cpu", 3).predict(files))
    two = list(predictor.Predictor([shipped_model.load(run)], ["cpu", "cpu"], 3).predict(files))
    assert [path for path, _ in one] == [path for path, _ in two] == files
    for (_, a), (_, b) in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_broken_image_ends_the_work_and_what_was_done_stays(trained, refused, monkeypatch):
    monkeypatch.setattr(resumable, "PART", 2)
    files = sorted(Path("input/demo/test_hq").iterdir())
    files[-1].write_bytes(b"\xff\xd8\xff" + b"0" * 50)
    refused(inference.main, [*TINY, "FOLD=0", "VALID_BATCH_SIZE=1"], files[-1].name)
    assert list((PREDICTIONS / ".demo_fold0_seed42.partial" / "parts").iterdir())


class Local(nn.Module):
    """A network of small receptive field (5 pixels to each side), with zeros beyond the border as smp's have them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 5, padding=2), nn.ReLU(), nn.Conv2d(4, 2, 7, padding=3))

    def forward(self, x):
        return self.layers(x.permute(0, 3, 1, 2).float() / 255).sigmoid()


@pytest.mark.parametrize("shape", [(64, 96), (160, 224), (97, 131), (32, 300)])
@torch.no_grad()
def test_tiles_equal_the_whole_where_the_network_looks_no_further(shape):
    network, x = Local().eval(), torch.randint(0, 256, (2, *shape, 3), dtype=torch.uint8)
    blended = tiles.predict(network, x, 64, 0.5, 3)
    whole = network(tiles._padded(x))[..., : shape[0], : shape[1]]
    torch.testing.assert_close(blended, whole, atol=1e-6, rtol=0)
    if max(shape) > 64:
        hard = tiles.predict(network, x, 64, 0.0, 3)
        assert (hard - whole).abs().max() > 0.01  # the same test sees what blending is for


@torch.no_grad()
def test_blended_tiles_show_no_seam():
    """A network that answers darker towards a tile's edges: hard cuts jump there, blended ones do not."""

    def darker(x):
        height, width = x.shape[1:3]
        y, z = (torch.linspace(0, torch.pi, side).sin() for side in (height, width))
        return (0.5 + 0.5 * torch.outer(y, z)).expand(len(x), 1, height, width)

    x = torch.zeros(1, 256, 256, 3, dtype=torch.uint8)

    def jump(answer):
        return float((answer[..., 1:] - answer[..., :-1]).abs().max())

    assert jump(tiles.predict(darker, x, 128, 0.0)[..., 40:-40, 40:-40]) < 0.03  # a smooth dark line, no jump ...
    slanted = lambda x: darker(x) * torch.linspace(0, 1, x.shape[2])  # noqa: E731
    assert jump(tiles.predict(slanted, x, 128, 0.0)) > 0.3  # ... but here one
    assert jump(tiles.predict(slanted, x, 128, 0.5)) < 0.1


@hypothesis.given(st.integers(1, 60), st.integers(1, 20), st.floats(0, 0.75))
def test_tiles_cover_each_line_and_weigh_it(side, tile, overlap):
    side, tile = 32 * side, 32 * min(side, tile)
    total = torch.zeros(side)
    for start in tiles.starts(side, tile, overlap):
        assert start % 32 == 0 and 0 <= start <= side - tile
        total[start : start + tile] += tiles.weights(start, side, tile, overlap)
    assert total.min() > 0.99


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("TILE=100", "multiple of 32"),
        ("TILE=64 OVERLAP=0.9", "OVERLAP"),
        ("TILE=32 OVERLAP=0.5", "less than 32 pixels"),
    ],
)
def test_tiles_of_other_sizes_are_refused(trained, refused, text, word):
    refused(inference.main, [*TINY, "FOLD=0", *text.split()], word)
    with pytest.raises(UserError):
        tiles.refuse(64, 0.8)


def test_tiles_through_the_real_door_are_part_of_how_it_was_predicted(trained, refused):
    assert inference.main([*TINY, "FOLD=0", "TILE=32", "OVERLAP=0"]) == 0
    manifest = json.loads((ONE / "manifest.json").read_text())
    assert (manifest["tile"], manifest["overlap"]) == (32, 0.0)
    tiled = files_of(ONE)
    assert inference.main([*TINY, "FOLD=0", "TILE=64"]) == 0  # the frame of 32 x 64 fits into one
    assert "tile" not in json.loads((ONE / "manifest.json").read_text())
    whole = files_of(ONE)
    assert inference.main([*TINY, "FOLD=0"]) == 0
    assert files_of(ONE) == whole != tiled


def test_every_gpu_of_the_computer_is_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert hardware.choose_devices("auto") == hardware.choose_devices("cuda") == ["cuda:0", "cuda:1"]
    assert hardware.choose_devices("cpu") == ["cpu"]
