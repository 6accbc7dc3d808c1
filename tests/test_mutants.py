"""Damaged files end in a sentence that names them, or in a correct result: no traceback, hang or swollen memory."""

import contextlib
import csv
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import model_dispatcher
import mutants
import submission
from conftest import TINY
from data import class_table, splits
from formats import annotations, images, rle, rle_table
from formats.mask_reference import MaskReference
from modeling import weights_source
from modeling.encoder_weights import load_encoder
from mutants import Subject
from prediction import predictor, shipped_model, submission_file
from tools import run_folders
from tools.errors import UserError
from tools.files import sha256, write_json
from training import checkpoints, precision_trial

RUN = Path("lightning_logs/demo/fold0_seed42")
SMALL = "smp_linknet_tu-test_resnet"
PIXELS = 1_000_000  # MAX_PIXELS of these readings
NOISE = np.random.default_rng(4).integers(0, 256, (48, 64, 3)).astype(np.uint8)
MASK = (NOISE[..., 0] > 128) * np.uint8(255)


def encoded(picture: np.ndarray, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, **options)
    return buffer.getvalue()


def read_picture(path: Path) -> None:
    """Refused, or all the pixels that its header promises; as a mask and class map too, unless that is refused."""
    picture = images.read_levels(path, PIXELS)
    assert picture.dtype in (np.uint8, np.uint16)
    assert picture.shape == (*images.read_size(path, PIXELS), 3)
    for read in (images.read_labels, images.read_mask):
        try:
            values = read(path, PIXELS)
        except UserError as error:
            assert path.name in str(error)
            continue
        assert values.shape == picture.shape[:2]
        assert read is not images.read_mask or values.max(initial=0) <= 1


def read_folds(path: Path) -> None:
    frame = splits.read(path)
    assert not frame["image"].duplicated().any()
    assert sorted(set(frame["kfold"]) - {-1}) == list(range(frame["kfold"].max() + 1))
    texts = frame[["image", "mask", "group", "stratum"]]
    assert texts.map(lambda cell: isinstance(cell, str) and cell.isprintable()).all(axis=None)


def read_run_lengths(path: Path) -> None:
    table = rle_table.read(path)
    for image_id in table.ids:
        for name in table.classes or ("",):
            mask = table.mask(image_id, name, (12, 10), rle.DIALECTS["uwmgi"])
            assert mask.shape == (12, 10)
            assert mask.max() <= 1


def read_class_table(path: Path) -> None:
    keys = class_table.read_class_table(path.parent)
    assert all(name.isprintable() and name for name in keys)
    assert len(set(keys.values())) == len(keys) > 0


def read_sample(path: Path) -> None:
    keys = [(f"id{number}", "") for number in range(4)]
    order = submission_file.check_ids(keys, path, rle.DIALECTS["tgs"], partial=False)
    assert sorted(order) == keys


def read_precision(path: Path) -> None:
    chosen = precision_trial.chosen(path.parent)
    assert chosen is not None and chosen.precision in ("32-true", "bf16-mixed")


def read_encoder(path: Path) -> None:
    found = weights_source.normalization("tu-test_resnet", path)
    assert found is None or all(part > 0 for part in found[0].std)
    encoder = model_dispatcher.build(SMALL).body.encoder
    load_encoder(encoder, path)
    assert all(torch.isfinite(value).all() for value in encoder.state_dict().values())


def shipped(place: Path, changed: str):
    """A reader of a run folder in which this one file is the mutant; the weights' hash is made to fit."""

    def read(path: Path) -> None:
        for name in {run_folders.MODEL, run_folders.WEIGHTS} - {changed}:
            shutil.copy(place / RUN / name, path.with_name(name))
        try:
            if changed == run_folders.WEIGHTS:
                about = json.loads(path.with_name(run_folders.MODEL).read_text())
                write_json(path.with_name(run_folders.MODEL), {**about, "weights_sha256": sha256(path)})
            asked = predictor.Predictor([shipped_model.load(path.parent)])
            ((image, probabilities),) = asked.predict([place / "input/demo/test.png"], PIXELS)
            assert probabilities.shape == (len(asked.spec.classes), *images.read_size(image))
            assert ((probabilities >= 0) & (probabilities <= 1)).all()
        finally:
            for name in {run_folders.MODEL, run_folders.WEIGHTS} - {changed}:
                path.with_name(name).unlink()

    return read


def submitted(place: Path):
    """A reader that puts a manifest into a prediction folder and types make submission."""

    def read(path: Path) -> None:
        said, folder = io.StringIO(), place / "output/demo/predictions/demo_fold0_seed42"
        kept = (folder / run_folders.MANIFEST).read_bytes()
        shutil.copy(path, folder / run_folders.MANIFEST)
        try:
            with contextlib.chdir(place), contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                code = submission.main([*TINY, "FOLD=0"])
        finally:
            (folder / run_folders.MANIFEST).write_bytes(kept)
        if code == 2:
            # what the manifest holds may be at fault with the folder's files, or the competition's ids
            raise UserError(f"{path}: {said.getvalue().removeprefix('error: ')}")
        rows = list(csv.reader((place / "output/demo/submission.csv").open(newline="")))
        assert code == 0
        assert len(rows) == 17

    return read


def pictures() -> list[Subject]:
    palette = Image.fromarray(MASK).convert("P")
    gif = io.BytesIO()
    palette.save(gif, "GIF")
    array = io.BytesIO()
    np.save(array, NOISE)
    return [
        Subject("png", "a.png", encoded(NOISE, "PNG"), read_picture),
        Subject("png_mask", "a.png", encoded(MASK, "PNG", optimize=True), read_picture),
        Subject("jpeg", "a.jpg", encoded(NOISE, "JPEG"), read_picture),
        Subject("jpeg_progressive", "a.jpg", encoded(NOISE, "JPEG", progressive=True), read_picture),
        Subject("gif", "a.gif", gif.getvalue(), read_picture),
        Subject("tiff", "a.tif", encoded(NOISE, "TIFF", compression="tiff_lzw"), read_picture),
        Subject("npy", "a.npy", array.getvalue(), read_picture),
    ]


def read_annotations(source: str):
    """A reader of one image's objects, or of the classes' names of YOLO's."""

    def read(path: Path) -> None:
        where = MaskReference.of_annotations(
            source, path.name if path.suffix != ".yaml" else "a.txt", "7" * (source == "coco")
        )
        if path.suffix == ".yaml":
            path.with_name("a.txt").write_text("1 0.1 0.1 0.9 0.1 0.5 0.8")
        for name, mask in annotations.objects(path.parent, where, (12, 10)):
            assert name in annotations.classes(path.parent, where)
            assert mask.shape == (12, 10)
            assert mask.max() <= 1

    return read


def annotated() -> list[Subject]:
    ring = [1.0, 1.0, 8.5, 1.0, 8.0, 9.0]
    rows = [
        {"id": 1, "image_id": 7, "category_id": 2, "segmentation": [ring], "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 2, "segmentation": {"size": [12, 10], "counts": [5, 20, 95]}},
    ]
    coco = {
        "images": [{"id": 7, "file_name": "é.png", "height": 12, "width": 10}],
        "annotations": rows, "categories": [{"id": 2, "name": "car"}],
    }  # fmt: skip
    shapes = [{"label": "car", "points": np.reshape(ring, (3, 2)).tolist(), "group_id": 1, "shape_type": "polygon"},
              {"label": "car", "points": [[2, 2], [5, 6]], "shape_type": "circle"}]  # fmt: skip
    labelme = {"shapes": shapes, "imagePath": "é.png", "imageHeight": 12, "imageWidth": 10}
    lines = "0 0.1 0.1 0.9 0.1 0.5 0.8\n1 0.2 0.2 0.4 0.2 0.4 0.7 0.2 0.5\n"
    return [
        Subject("coco_json", "a.json", json.dumps(coco).encode(), read_annotations("coco")),
        Subject("labelme_json", "a.json", json.dumps(labelme).encode(), read_annotations("labelme")),
        Subject("yolo_txt", "a.txt", lines.encode(), read_annotations("yolo")),
        Subject("yolo_yaml", "data.yaml", b"names:\n  0: car\n  1: road\n", read_annotations("yolo")),
    ]


def tables() -> list[Subject]:
    folds = "image,mask,group,stratum,kfold\n" + "".join(
        f"images/é{n}.png,masks/é{n}.png,g{n // 2},area{n % 3},{n // 2 % 2}\n" for n in range(12)
    )
    lengths = "id,class,segmentation\n" + "".join(f"a{n // 2},c{n % 2},{1 + n} 5 {30 + n} 4\n" for n in range(12))
    classes = b"name,r,g,b\nroad,128,64,128\ncar,0,0,142\nvoid,0,0,0\n"
    precision = b'{"precision": "bf16", "said": "bf16 by trial: 200 ms in 32 bits and 100 ms in bf16"}'
    sample = "id,rle_mask\n" + "".join(f"id{n},1 1\n" for n in range(4))
    return [
        Subject("folds_csv", "train_folds.csv", folds.encode(), read_folds),
        Subject("rle_csv", "train.csv", lengths.encode(), read_run_lengths),
        Subject("classes_csv", "classes.csv", classes, read_class_table),
        Subject("precision_json", precision_trial.CHOICE, precision, read_precision),
        Subject("sample_csv", "sample_submission.csv", sample.encode(), read_sample),
    ]  # fmt: skip


def as_last_checkpoint(place: Path):
    """Reads a file as make train RESUME=1 does, where no list of checksums tells it from the whole one."""

    def read(path: Path):
        folder = place / "checkpoints"
        folder.mkdir(exist_ok=True)
        shutil.copyfile(path, folder / run_folders.LAST)
        found = checkpoints.choose(folder)
        checkpoints.refuse_another_run(found, checkpoints.identity(place / RUN / "checkpoints" / run_folders.LAST))

    return read


def models(place: Path) -> list[Subject]:
    encoder = model_dispatcher.build(SMALL).body.encoder.state_dict()
    Image.fromarray(NOISE).save(place / "input/demo/test.png")
    save_file(encoder, place / "encoder.safetensors", {"mean": "0.5,0.5,0.5", "std": "0.5,0.5,0.5"})
    torch.save(encoder, place / "encoder.pth")
    whole = {
        name: (place / RUN / name).read_bytes()
        for name in (run_folders.MODEL, run_folders.WEIGHTS, "checkpoints/last.ckpt")
    }
    return [
        Subject("model_json", run_folders.MODEL, whole[run_folders.MODEL], shipped(place, run_folders.MODEL)),
        Subject("safetensors", run_folders.WEIGHTS, whole[run_folders.WEIGHTS], shipped(place, run_folders.WEIGHTS)),
        Subject("encoder_safetensors", "e.safetensors", (place / "encoder.safetensors").read_bytes(), read_encoder),
        Subject("encoder_pth", "e.pth", (place / "encoder.pth").read_bytes(), read_encoder),
        Subject("checkpoint", "last.ckpt", whole["checkpoints/last.ckpt"], as_last_checkpoint(place)),
    ]


@pytest.fixture
def all_subjects(trained):
    """Every kind of file that comes from elsewhere or from an earlier run, whole."""
    import inference

    assert inference.main([*TINY, "FOLD=0"]) == 0
    manifest = Path("output/demo/predictions/demo_fold0_seed42/manifest.json").read_bytes()
    place = Path.cwd()
    return [
        *pictures(),
        *annotated(),
        *tables(),
        *models(place),
        Subject("manifest", run_folders.MANIFEST, manifest, submitted(place)),
    ]


def check(subjects: list[Subject], numbers, folder: Path) -> list[mutants.Outcome]:
    found = mutants.outcomes(subjects, numbers, folder)
    faults = [str(outcome) for outcome in found if outcome.fault]
    assert not faults, f"{len(faults)} of {len(found)} (again: MUTANTS=name:number):\n" + "\n".join(faults)
    return found


def test_the_whole_files_are_read(all_subjects, tmp_path):
    found = check(all_subjects, [0], tmp_path / "mutants")
    assert not [str(outcome) for outcome in found if outcome.refused]


def test_some_mutants_end_in_a_sentence_or_a_correct_result(all_subjects, tmp_path):
    found = check(all_subjects, range(1, 5), tmp_path / "mutants")
    assert len(found) >= 60
    assert 0 < sum(outcome.refused for outcome in found) < len(found)


@pytest.mark.slow
def test_a_thousand_mutants_end_in_a_sentence_or_a_correct_result(all_subjects, tmp_path, capsys):
    subjects, numbers = all_subjects, range(5, 80)
    if wanted := os.environ.get("MUTANTS"):
        name, _, number = wanted.partition(":")
        subjects, numbers = [subject for subject in subjects if subject.name == name], [int(number)]
    found = check(subjects, numbers, tmp_path / "mutants")
    with capsys.disabled():
        for subject in subjects:
            own = [outcome.refused for outcome in found if outcome.subject == subject.name]
            print(f"\n{subject.name}: {len(own)} mutants, {sum(own)} refused, {len(own) - sum(own)} read", end="")


def test_the_loop_sees_what_it_looks_for(tmp_path, monkeypatch):
    """A reader that fails in each of the ways: none of them passes for a sentence."""

    def traceback(_):
        raise KeyError("x")

    def nameless(_):
        raise UserError("something is wrong")

    def swollen(path):
        np.ones(mutants.MEMORY * 7, np.uint8)  # the kernel may take idle pages back meanwhile, and hide a part of it

    def greedy(path):
        try:
            np.ones(1 << 45, np.uint8)
        except MemoryError as error:
            raise UserError(f"{path}: {type(error).__name__}") from error

    def endless(_):
        while True:
            pass

    readers = {
        "KeyError": traceback, "does not name": nameless, "MB": swollen, "MemoryError": greedy, "hangs": endless,
        "exit 7": lambda _: os._exit(7), "": lambda _: None,
    }  # fmt: skip
    monkeypatch.setattr(mutants, "SECONDS", 3)
    monkeypatch.setattr(mutants, "MEMORY", 32 << 20)
    subjects = [Subject(f"s{n}", "a.bin", b"abc", read) for n, read in enumerate(readers.values())]
    for words, outcome in zip(readers, mutants.outcomes(subjects, [1], tmp_path), strict=True):
        assert words in outcome.fault
        assert bool(words) == bool(outcome.fault)


def test_a_number_always_makes_the_same_mutant():
    subject = pictures()[0]
    assert mutants.make(subject, 0) == subject.data
    made = [mutants.make(subject, number) for number in range(1, 200)]
    assert made == [mutants.make(subject, number) for number in range(1, 200)]
    assert len(set(made)) > 150
