"""make doctor through its door: each trouble that is planted comes out in its line, and in the exit code."""

import json
import shutil
from collections import namedtuple
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import doctor
import folds
import model_dispatcher
from checkup import disk, environment, examination, memory, perfect, trial
from conftest import TINY, write_instances, write_mask
from data.dataspec import DataSpec
from formats import decode
from loading import augmentations
from modeling import segmenter
from scoring import score_rows

REPORT = Path("output/demo/doctor.json")
NAMES = Path("input/demo/train_hq")


@pytest.fixture
def demo_data(demo_data):
    """The tiny demo with 5 views of each of its 4 cars: 20 pairs."""
    for path in files_below(demo_data):
        if path.parent.name.startswith("train_") and int(path.stem.removesuffix("_mask")[-2:]) > 5:
            path.unlink()
    return demo_data


@pytest.fixture
def folds_table(demo_data):
    """The table of these."""
    assert folds.main(TINY) == 0
    return Path("output/demo/train_folds.csv")


@pytest.fixture(autouse=True)
def briefly(monkeypatch):
    """One timed step is enough here."""
    monkeypatch.setattr(trial, "ENOUGH_SECONDS", 0.0)
    monkeypatch.setattr(trial, "ENOUGH_STEPS", 1)


@pytest.fixture
def data_only(monkeypatch):
    """Without the training on trial, which has tests of its own."""
    monkeypatch.setattr(examination, "try_training", lambda *given: None)


@pytest.fixture
def check(capsys):
    """Call make doctor, expect this exit code; returns what it printed and, by name, what each check found."""

    def run(code, *extra):
        capsys.readouterr()
        assert doctor.main([*TINY, *extra]) == code, "".join(capsys.readouterr())
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        about = json.loads(REPORT.read_text()) if REPORT.is_file() else {"checks": []}
        return said.out + said.err, {part["check"].partition(",")[0]: part for part in about["checks"]}

    return run


def masks():
    return sorted(Path("input/demo/train_masks").iterdir())


def replaced(mask, values, **options):
    """The mask's file with other values in its place, as PNG or JPEG."""
    ending = options.pop("ending", ".png")
    mask.unlink()
    Image.fromarray(values.astype(np.uint8)).save(mask.with_suffix(ending), **options)
    return mask.with_suffix(ending)


def outline(mask):
    return np.array(Image.open(mask).convert("L")) > 0


def files_below(folder):
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


def test_healthy_data_are_green_before_and_after_make_folds_and_nothing_else_is_written(demo_data, check):
    before = files_below(".")
    said, found = check(0)
    assert files_below(".") == sorted([*before, REPORT])
    assert "Next: make folds" in said and "\x1b[" not in said
    assert "as make folds would make them" in found["folds"]["text"]
    assert {part["level"] for name, part in found.items() if name not in ("look-alikes", "versions")} == {"ok"}
    assert found["pairs"]["figures"]["pairs"] == 20 and "96 x 64 px (20)" in found["sizes"]["text"]
    assert "0/255 in 20" in found["mask values"]["text"]
    assert found["leaks"]["level"] == "ok" and "two epochs" in found["augmentation"]["text"]
    assert np.isfinite(found["step"]["figures"]["losses"]).all()
    assert found["time"]["figures"]["runs"] == 2
    assert found["time"]["figures"]["experiment_seconds"] == pytest.approx(
        2 * 2 * found["time"]["figures"]["epoch_seconds"], rel=0.01
    )
    assert folds.main(TINY) == 0
    again, found = check(0, "SEEDS=42,43,44")
    assert "Next: make cv" in again and "20 pairs in 2 folds" in found["folds table"]["text"]
    assert found["time"]["figures"]["runs"] == 6 and not Path("output/demo/cache").exists()


def test_every_file_is_decoded_once(workplace, monkeypatch):
    write_instances(Path("input/cells"), 10)
    opened = []
    real = decode._decode
    monkeypatch.setattr(decode, "_decode", lambda path, *more: opened.append(path) or real(path, *more))
    given = [argument for argument in TINY if not argument.startswith("DATASET")]
    assert doctor.main([*given, "DATASET=cells", "METRIC=dsb2018"]) == 0
    trial = {str(path) for path in files_below("input/cells/stage1_train")}
    counts = pd.Series([str(path) for path in opened]).value_counts()
    assert set(counts.index) == {str(path) for path in files_below("input/cells")}
    # without a folds table masks are read once more, to find out what they mean; the trial decodes up to 16 rows again
    masks = counts.index.str.contains("/masks/")
    assert counts[masks].max() == 3 and counts[~masks].max() == 2 and set(counts.index[counts > 1]) <= trial
    about = json.loads(Path("output/cells/doctor.json").read_text())
    found = {part["check"]: part for part in about["checks"]}
    objects = len([path for path in files_below("input/cells/stage1_train") if path.parent.name == "masks"])
    assert found["tiny objects"]["figures"]["objects"] == objects
    assert 0.3 < found["ceiling"]["figures"]["dsb2018"] < 1


def test_broken_files_are_all_listed_and_the_others_are_looked_at(demo_data, check):
    pictures = sorted(NAMES.iterdir())
    for picture in pictures[:12]:
        picture.write_bytes(picture.read_bytes()[:1200])
    write_mask(masks()[15], np.ones((5, 5)))
    said, found = check(1)
    assert found["broken files"]["level"] == "problem" and len(found["broken files"]["items"]) == 13
    assert all(picture.name in said for picture in pictures[:12]) and masks()[15].name in said
    assert "of 7;" in found["masks"]["text"] and found["step"]["level"] == "ok"
    assert "failed: 1 problem, " in said


def test_nothing_that_can_be_read_is_exit_code_2(demo_data, data_only, check, refused):
    for picture in NAMES.iterdir():
        picture.write_bytes(b"no picture")
    assert "not one of 20 pairs can be read" in check(2)[0]
    refused(doctor.main, ["DATASET=nowhere"], "no such folder")
    refused(doctor.main, [*TINY, "SEEDS=a"], "SEEDS=a", "42,43,44")
    refused(doctor.main, [*TINY, "QUIK=1"], "Did you mean QUICK?")


def test_an_image_without_a_partner_is_a_problem(demo_data, data_only, check):
    alone = masks()[3]
    alone.unlink()
    said, found = check(1)
    assert found["partners"]["level"] == "problem" and alone.stem.removesuffix("_mask") in said
    assert found["pairs"]["figures"]["pairs"] == 19


def test_masks_smeared_by_jpeg_and_of_strange_values_are_warned_of(demo_data, data_only, check):
    smeared, seven, full, empty = masks()[:4]
    shown = outline(seven)
    smeared = replaced(smeared, outline(smeared) * 255, ending=".jpg", quality=60)
    seven = replaced(seven, shown * 7)
    replaced(full, np.full(shown.shape, 255))
    replaced(empty, np.zeros(shown.shape))
    said, found = check(0)
    values = found["mask values"]
    assert values["level"] == "warning"
    assert values["figures"] == {"0/255": 17, "smeared by JPEG": 1, "0/7": 1, "0": 1}
    assert any(smeared.name in item and "128" in item for item in values["items"])
    assert any(seven.name in item and "TASK=multiclass" in item for item in values["items"])
    assert len(values["items"]) == 2 and "nothing stops a training" in said
    assert found["masks"]["level"] == "warning" and "1 empty, 1 full of 20" in found["masks"]["text"]


def test_a_foreground_that_is_read_as_not_labeled_is_warned_of(demo_data, data_only, check):
    for value, mask in ((1, masks()[0]), (7, masks()[2])):  # 1, 7 and 255 look like classes, and 255 is IGNORE
        replaced(mask, outline(mask) * value)
    _, found = check(0)
    assert "classes 0, 1, 7; 255 is not labeled" in found["mask values"]["text"]
    assert found["masks"]["level"] == "warning" and "TASK=binary" in found["masks"]["text"]
    assert found["classes of the folds"]["level"] == "warning"
    shutil.rmtree("input/demo/test_hq")
    _, found = check(0, "TASK=binary")
    assert "TEST_PATH" in found["test images"]["text"] and found["test images"]["level"] == "warning"
    assert found["masks"]["level"] == "ok" and found["mask values"]["figures"] == {"0/255": 18, "0/1": 1, "0/7": 1}


def test_objects_too_small_for_the_size_are_counted_and_lower_the_ceiling(demo_data, data_only, check):
    for mask in masks():
        dots = np.zeros((64, 96))
        dots[5:20, 5:30] = dots[40, 40] = dots[50, 71] = 255
        replaced(mask, dots)
    _, found = check(0, "IMAGE_SIZE=32,32")
    tiny = found["tiny objects"]
    assert tiny["level"] == "warning" and tiny["figures"] == {"objects": 60, "vanished": 40}
    low = found["ceiling"]["figures"]["dice"]
    _, found = check(0, "IMAGE_SIZE=64,96")
    assert found["tiny objects"]["figures"] == {"objects": 60, "vanished": 0}
    assert low < found["ceiling"]["figures"]["dice"] == 1


@pytest.mark.parametrize("resize", ["stretch", "fit", "none"])
def test_a_perfect_network_s_mask_is_that_of_the_tester_and_its_objects_are_components(resize):
    random, spec, scale = np.random.default_rng(1), DataSpec(), score_rows.scale("dice", "", "one")
    shapes = [(96, 120), (90, 60), (64, 64), (33, 7), (1, 1), (200, 150)]
    for height, width in shapes * 8:
        mask = (random.random((1, height, width)) < random.choice([0.0, 0.01, 0.1, 1.0])).astype(np.uint8)
        for _ in range(random.integers(0, 5)):
            place = int(random.integers(width)), int(random.integers(height))
            cv2.circle(mask[0], place, int(random.integers(1, 12)), 1, -1)
        frame = perfect.Frame((int(random.integers(1, 99)), int(random.integers(1, 99))), resize)
        drawn = score_rows.redrawn(mask, spec, frame.size, resize)[0]
        (ceiling,) = perfect.against(mask, spec, None, frame, scale)
        counts, value, objects, vanished = ceiling.counts, ceiling.value, ceiling.objects, ceiling.vanished
        truth = mask[0] > 0
        wanted = [(truth & drawn).sum(), (~truth & drawn).sum(), (truth & ~drawn).sum(), (~truth & ~drawn).sum()]
        assert np.abs(np.array(counts) - wanted).max() <= max(1, 0.005 * mask.size)  # ties fall as they round
        assert value == pytest.approx(scale.measure.from_counts(*counts, empty="one"))
        labels = cv2.connectedComponents(mask[0], connectivity=8)[1]
        gone = set(labels[truth].tolist()) - set(labels[truth & drawn].tolist())
        assert objects == labels.max() and abs(vanished - len(gone)) <= 1


def test_a_picture_mirrored_into_another_fold_is_a_leak(folds_table, data_only, check):
    table = pd.read_csv(folds_table, dtype=str)
    source, other = table[table["kfold"] == "0"].iloc[0], table[table["kfold"] == "1"].iloc[0]
    for column in ("image", "mask"):
        path = Path("input/demo", other[column])
        mirrored = Image.open(Path("input/demo", source[column])).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        mirrored.save(path, **({"quality": 95} if column == "image" else {}))
    _, found = check(1)
    assert found["leaks"]["level"] == "problem"
    assert any(source["image"] in item and other["image"] in item for item in found["leaks"]["items"])


def test_quick_looks_at_a_sample_and_says_so_on_each_line(demo_data, check, monkeypatch):
    monkeypatch.setattr(examination, "SAMPLE", 8)
    said, found = check(0, "QUICK=1")
    of_sample = [line for line in said.splitlines() if "a sample of 8 of 20" in line]
    assert len(of_sample) >= 9 and "0 full of 8" in found["masks"]["text"]
    assert "a sample of at most 8" in next(line for line in said.splitlines() if "test images" in line)
    assert json.loads(REPORT.read_text())["quick"] is True
    assert found["disk"]["figures"]["needed_bytes"] == pytest.approx(8.7e5, rel=0.01)  # of all 20 pairs


def test_an_output_that_cannot_be_written_is_a_problem_and_a_read_only_input_is_none(demo_data, check, monkeypatch):
    Path("output").write_text("a file where the folder should be")
    monkeypatch.setattr(disk.os, "access", lambda path, mode: False)
    said, _ = check(1)
    assert "output/demo cannot be written" in said and "doctor.json could not be written" in said
    assert "ok       LOGS" in said and "input/demo is read-only, which is fine" in said


@pytest.mark.slow
def test_what_the_checkpoints_take_is_what_a_training_writes(folds_table, check):
    import train

    _, found = check(0, "FOLD=0")
    assert train.main([*TINY, "FOLD=0"]) == 0
    run = Path("lightning_logs/demo/fold0_seed42")
    last = (run / "checkpoints" / "last.ckpt").stat().st_size
    written = (
        3 * last
        + (run / "model.safetensors").stat().st_size
        + next(Path("output/demo/cache").glob("*.bin")).stat().st_size
    )
    assert found["disk"]["figures"]["needed_bytes"] == pytest.approx(written, rel=0.2)
    _, found = check(0)
    assert found["experiment"]["level"] == "warning" and "finished fold 0" in found["experiment"]["text"]
    _, found = check(1, "LR=1e-4")
    assert found["experiment"]["level"] == "problem" and "LR: 0.008 there" in found["experiment"]["text"]


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_an_augmentation_that_is_frozen_is_a_problem(demo_data, check, monkeypatch, workers):
    real = augmentations.Augmentation.__call__
    monkeypatch.setattr(
        augmentations.Augmentation, "__call__", lambda self, image, mask, key: real(self, image, mask, (1,))
    )
    _, found = check(1, f"WORKERS={workers}")
    items = found["augmentation"]["items"]
    assert "two epochs get the same samples" in items and "every sample of an epoch is augmented alike" in items
    assert ("two loader processes draw the same random numbers" in items) == (workers == 2)


@pytest.mark.slow
def test_an_augmentation_of_the_process_s_own_numbers_does_not_repeat(demo_data, check, monkeypatch):
    real, random = augmentations.Augmentation.__call__, np.random.default_rng()
    monkeypatch.setattr(
        augmentations.Augmentation,
        "__call__",
        lambda self, image, mask, key: real(self, image, mask, (int(random.integers(1 << 30)),)),
    )
    _, found = check(1)
    assert "a resumed run differs" in found["augmentation"]["items"][0]


@pytest.mark.slow
def test_the_device_s_augmentation_is_tried_too(demo_data, check, monkeypatch):
    from loading import device_augmentations

    _, found = check(0, "AUGMENT_ON=device")
    assert "on the device" in found["augmentation"]["text"]
    real = device_augmentations.make

    def frozen(*given, **named):
        augment = real(*given, **named)
        return lambda images, masks, key: augment(images, masks, (0, 0, 0))

    monkeypatch.setattr(device_augmentations, "make", frozen)
    _, found = check(1, "AUGMENT_ON=device")
    assert found["augmentation"]["items"] == ["two epochs get the same batch", "two steps get the same batch"]


def test_too_little_disk_and_a_network_that_gives_no_numbers_are_problems(demo_data, check, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: usage(10**9, 10**9, 100_000))
    real = segmenter.Segmenter.forward
    monkeypatch.setattr(segmenter.Segmenter, "forward", lambda self, images: real(self, images) * float("nan"))
    said, found = check(1, "WORKERS=1")
    assert found["disk"]["level"] == "problem" and "100 kB are free" in found["disk"]["text"]
    assert found["disk"]["figures"]["needed_bytes"] > 20 * 32 * 64 * 4
    assert found["shared memory"]["level"] == "warning" and "--shm-size=1g" in said
    assert found["step"]["level"] == "problem" and "The loss became nan" in found["step"]["text"]
    assert "RESUME" not in said and "time" not in found and "failed: 2 problems" in said


@pytest.mark.slow
def test_gradients_that_are_no_numbers_are_a_problem(demo_data, check, monkeypatch):
    real = segmenter.Segmenter.forward

    def forward(self, images):
        logits = real(self, images)
        if logits.requires_grad:
            logits.register_hook(lambda gradient: gradient * float("inf"))
        return logits

    monkeypatch.setattr(segmenter.Segmenter, "forward", forward)
    _, found = check(1)
    assert found["step"]["level"] == "problem" and "gradients are not finite" in found["step"]["text"]


def test_what_the_training_would_refuse_the_doctor_says(demo_data, check, monkeypatch):
    _, found = check(1, "ENCODER_WEIGHTS=weights.pth", "MODEL_NAME=smp_nothing_resnet18")
    assert "no architecture nothing" in found["encoder weights"]["text"] and found["network"]["level"] == "problem"
    monkeypatch.setattr(examination, "try_training", lambda *given: None)
    _, found = check(1, "N_FOLDS=7")
    assert "only 4 groups" in found["folds"]["text"] and "no folds" in found["training"]["text"]
    _, found = check(1, "FREEZE_ENCODER=5", "ENCODER_WEIGHTS=weights.pth", "FOLD=0")
    assert "would never train the encoder" in found["settings"]["text"]
    assert "no such file" in found["encoder weights"]["text"]


@pytest.mark.slow
def test_a_batch_that_memory_does_not_hold_is_not_tried(demo_data, check, monkeypatch):
    monkeypatch.setattr(memory, "free", lambda: 20_000_000)
    monkeypatch.setattr(memory, "growth", lambda work: 11_000_000)
    said, found = check(1, "TRAIN_BATCH_SIZE=40")
    assert found["memory"]["level"] == "problem" and "not tried" in said and "time" not in found
    monkeypatch.setattr(memory, "growth", lambda work: (work(), 2_000_000)[1])
    _, found = check(0, "TRAIN_BATCH_SIZE=8")
    assert found["memory"]["figures"] == {"peak_bytes": 2_000_000, "free_bytes": 20_000_000}


def test_versions_are_looked_up_before_anything_is_imported(demo_data, data_only, check, monkeypatch):
    real = environment.installed

    def pretend(**versions):
        monkeypatch.setattr(environment, "installed", lambda name: versions.get(name.replace("-", "_"), real(name)))

    pretend(pytorch_lightning="2.6.3")
    said, found = check(1)
    assert found["Lightning"]["level"] == "problem" and "malware" in found["Lightning"]["text"]
    assert "Lightning is not to be imported" in found["training"]["text"] and "step" not in found
    pretend(pytorch_lightning="2.6.5", torch="2.9.0")
    assert environment.lightning().level == "warning" and "CVE-2026-58659" in environment.lightning().text
    said = {finding.check: finding for finding in environment.versions(doctor.settings_module.load(TINY))}
    assert said["torch"].level == "warning" and len(said["versions"].items) == 2


def test_weights_that_are_not_here_are_looked_for_and_not_fetched(demo_data, check, monkeypatch):
    import fetch
    from modeling import encoder_weights

    wanted = [argument for argument in TINY if not argument.startswith(("ENCODER", "MODEL"))]
    model = ["MODEL_NAME=smp_linknet_resnet18", "ENCODER_WEIGHTS=imagenet"]
    settings = doctor.settings_module.load([*wanted, *model])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(Path("nothing").absolute()))
    missing = environment.encoder_weights(settings)
    assert missing.level == "problem" and "Four ways out" in missing.text and "hub's cache" in missing.text
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for proxy in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
    missing = environment.encoder_weights(settings)
    assert missing.level == "problem" and "cannot be reached" in missing.text
    network = model_dispatcher.build("smp_linknet_resnet18")
    packed = encoder_weights.packed_weights("resnet18", settings.WEIGHTS)
    from modeling.segmenter import save_network

    save_network(network.body.encoder, packed)
    unsure = environment.encoder_weights(settings)
    assert unsure.level == "warning" and "origin unknown" in unsure.text
    save_network(network.body.encoder, packed, {"origin": "imagenet"})  # as make weights does
    assert environment.encoder_weights(settings).level == "ok"
    packed.write_bytes(b"cut off")
    assert environment.encoder_weights(settings).level == "problem"
    assert fetch.weights is not None


def test_colors_are_for_a_terminal(capsys):
    from checkup.findings import Finding, Report, problem

    class Terminal:
        def __init__(self):
            self.text = ""

        def isatty(self):
            return True

        def write(self, text):
            self.text += text

        def flush(self):
            pass

    stream = Terminal()
    Report(stream).take("data", [Finding("a", "fine"), problem("b", "not")])
    assert "\x1b[32mok" in stream.text and "\x1b[31mproblem" in stream.text


def test_test_images_that_are_missing_broken_or_of_another_size_are_warned_of(demo_data, data_only, check):
    tests = sorted(Path("input/demo/test_hq").iterdir())
    tests[0].write_bytes(tests[0].read_bytes()[:900])
    Image.open(tests[1]).resize((480, 320)).save(tests[1])
    _, found = check(0)
    assert found["test images"]["level"] == "warning" and tests[0].name in found["test images"]["items"][0]
    assert found["test sizes"]["level"] == "warning" and "1 of 15" in found["test sizes"]["text"]
