"""The work of a Kaggle kernel that predicts: check the bundle, find images, fit the time budget, write submission.csv.

Shipped with the modules that it imports; runs on Kaggle's versions (torch 2.10, numpy 2.0, pillow 11), without
Lightning, albumentations or a network. The notebook calls `open_bundle`, then `test_images`, `choose_plan` and
`predict`; everything is written below /kaggle/working.
"""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from data import dataspec, images_to_predict
from formats import archives, rle
from prediction import postprocess, prediction_folders, resumable, submission_file
from tools.errors import UserError, listing
from tools.files import read_json, sha256

MARKER, CHECKSUMS = "maskfold.json", "checksums.json"
DEPTH = 4  # /kaggle/input/datasets/<owner>/<slug>/ and one folder below
_STARTED = time.monotonic()  # a few seconds after the notebook's first cells began
MOST_SAID = 20  # unreadable images that are named
SPARE = 0.9  # the share of the budget that is planned: later images may take longer than the first ones


@dataclass(frozen=True)
class Bundle:
    """The unpacked data set of a kernel; `about` is its maskfold.json."""

    folder: Path
    input: Path  # /kaggle/input
    working: Path  # /kaggle/working
    about: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """A way to predict the images: the models, the TTA, and whether that is what was planned at home."""

    models: tuple[str, ...]
    tta: str
    whole: bool

    def __str__(self) -> str:
        return f"{len(self.models)} model{'s'[: len(self.models) != 1]} ({', '.join(self.models)}), TTA={self.tta}"


def open_bundle(folder: Path, places: Path = Path("/kaggle/input"), working: Path = Path("/kaggle/working")) -> Bundle:
    """Return the bundle after comparing every file with its checksum. Raises UserError for a missing or changed one."""
    again = "Upload it again: kaggle datasets version -r zip -p dataset (without -r zip its folders are left out)"
    expected = read_json(folder / CHECKSUMS, again)
    problems = []
    for name, sha in expected.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif sha256(path) != sha:
            problems.append(f"{name} is another file")
    if problems:
        raise UserError(f"{folder} is not the bundle that was made:{listing(problems)}\n{again}")
    about = read_json(folder / MARKER, again)
    size = sum((folder / name).stat().st_size for name in expected)
    print(f"{folder}: {len(expected)} files, {size / 1e6:.1f} MB, each as it was when the bundle was made")
    _say_versions(about)
    return Bundle(folder, places, working, about)


def _say_versions(about: dict[str, Any]) -> None:
    import numpy as np
    import torch

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    print(
        f"Python {sys.version.split()[0]}, torch {torch.__version__}, numpy {np.__version__} "
        f"(at home: {about['versions']['python']}, {about['versions']['torch']}, {about['versions']['numpy']}); "
        f"{' and '.join(gpus) or 'no GPU'}, {os.cpu_count()} cores"
    )


def find_data(bundle: Bundle, *wanted: str) -> Path:
    """Return the folder below /kaggle/input that holds all `wanted` names; archives are unpacked first.

    Kaggle mounts a competition at competitions/<slug>, formerly at <slug>; a data set at datasets/<owner>/<slug>.
    """
    slug = bundle.about.get("competition", "")
    folders = [folder for folder in _folders(bundle.input) if not folder.is_relative_to(bundle.folder)]
    folders.sort(key=lambda folder: (slug not in folder.parts, len(folder.parts), folder.as_posix()))
    for folder in folders:
        missing = [name for name in wanted if not (folder / name).exists()]
        if not missing:
            return folder
        packed = {name: archive for name in missing if (archive := _archive(folder, name))}
        if len(packed) == len(missing):
            return _unpacked(bundle, folder, wanted, packed)
    there = [str(folder.relative_to(bundle.input)) for folder in folders]
    raise UserError(
        f"Nothing below {bundle.input} holds {' and '.join(wanted)}; there are:{listing(there)}\n"
        f"Add the competition {slug or '(its data)'} to the notebook's inputs."
    )


def _archive(folder: Path, name: str) -> Path | None:
    return next((path for end in archives.ENDINGS if (path := folder / f"{name}{end}").is_file()), None)


def _folders(top: Path) -> list[Path]:
    """Return folders below `top`, no deeper than data sets are mounted; folders of many files are not searched."""
    found, level = [], [top]
    for _ in range(DEPTH):
        level = [child for folder in level for child in _subfolders(folder)]
        found += level
    return found


def _subfolders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_dir())[:1000]


def _unpacked(bundle: Bundle, folder: Path, wanted: tuple[str, ...], packed: dict[str, Path]) -> Path:
    """Unpack the archives of an old competition, which Kaggle does not, below working, and copy its tables there."""
    target = bundle.working / ".unpacked"
    target.mkdir(parents=True, exist_ok=True)
    for table in folder.glob("*.csv"):
        shutil.copyfile(table, target / table.name)
    for name in wanted:
        if name not in packed or (target / name).exists():
            if not (target / name).exists():  # it lies unpacked beside the archives
                (target / name).symlink_to(folder / name)
            continue
        archive, room = packed[name], target / f".{name}"
        shutil.rmtree(room, ignore_errors=True)
        archives.unpack(archive, room, str(archive), archives.Unpacking.of(archive.stat().st_size, target))
        os.replace(room / name if (room / name).is_dir() else room, target / name)  # test_hq.zip may hold test_hq/
        shutil.rmtree(room, ignore_errors=True)
    return target


def test_images(bundle: Bundle) -> tuple[Path, list[str], Path | None]:
    """Return the folder of test images, their names in it, and sample_submission.csv where there is one."""
    wanted = bundle.about["test_path"]
    data = find_data(bundle, wanted)
    root, names = data / wanted, list[str]()
    if any(root.iterdir()):  # some competitions show no test image before they run the kernel
        root, names = images_to_predict.test_names(str(data), str(root), bundle.about["data"].get("stacked") is True)
    places = [data / name for name in (bundle.about["sample"], "sample_submission.csv") if name]
    sample = next((path for path in places if path.is_file()), None)
    print(f"{len(names)} test images in {root}; {sample or 'no sample_submission.csv to check the ids against'}")
    return root, names, sample


def plans(about: dict[str, Any]) -> list[Plan]:
    """Return the possible plans, best first: as planned at home; then without TTA; then with fewer and fewer folds."""
    models, tta = tuple(about["models"]), about["tta"]
    found = [Plan(models, tta, True)]
    if tta != "none":
        found.append(Plan(models, "none", False))
    return found + [Plan(models[:count], "none", False) for count in range(len(models) - 1, 0, -1)]


def _predictor(bundle: Bundle, plan: Plan) -> Any:
    from prediction import predictor, shipped_model
    from tools.hardware import choose_devices

    about, devices = bundle.about, choose_devices("auto")
    half: predictor.Half = "16" if devices[0].startswith("cuda") and about["half_safe"] else ""
    models = [shipped_model.load(bundle.folder / "models" / name, devices[0]) for name in plan.models]
    how = {"tta": plan.tta, "tta_mean": about["tta_mean"], "tile": about["tile"], "overlap": about["overlap"]}
    return predictor.Predictor(models, devices, about["batch_size"], half=half, **how)


def _keep(bundle: Bundle, plan: Plan, root: Path, names: list[str]) -> resumable.RunLengths:
    about = bundle.about
    maps = resumable.Maps(bundle.working / ".maskfold.partial", dataspec.from_json(about["data"], MARKER), root)
    dialect = rle.formed(about["dialect"], about.get("form", {}), MARKER)
    return resumable.RunLengths(maps, rules_of(about, plan), dialect, submission_file.image_ids(names, dialect), [])


def seconds_an_image(bundle: Bundle, plan: Plan, paths: list[Path], keep: resumable.RunLengths) -> float:
    """Return the seconds an image takes, measured after a first batch: decoding, network, resizing and run lengths."""
    predictor = _predictor(bundle, plan)
    batch = predictor.batch_size * len(predictor.devices)
    how = {"max_pixels": bundle.about["max_pixels"], "finish": keep, "unreadable": keep.unreadable}
    for _ in predictor.predict(paths[:batch], **how):
        pass
    timed = paths[: 4 * batch]
    start = time.monotonic()
    for _ in predictor.predict(timed, **how):
        pass
    return (time.monotonic() - start) / len(timed)


def choose_plan(bundle: Bundle, root: Path, names: list[str], hours: float) -> Plan:
    """Return the first of `plans` that fits into `hours`, by timing some of the images; decided once, for all images.

    Where none fits, return the last one, and print that.
    """
    if not names:
        print("No test image here: all are hidden. The submission has a head and no rows.", flush=True)
        return plans(bundle.about)[0]
    spread = [root / name for name in prediction_folders.spread(names, 64)]
    for plan in plans(bundle.about):
        left = hours * 3600 * SPARE - (time.monotonic() - _STARTED)
        seconds = seconds_an_image(bundle, plan, spread, _keep(bundle, plan, root, names))
        needs = seconds * len(names)
        print(f"{plan}: {seconds:.3f} s an image, {needs / 60:.1f} minutes of {left / 60:.0f}", flush=True)
        if needs <= left:
            break
    else:
        print("NOT ENOUGH TIME even for that; it is tried all the same. Train a smaller network.", flush=True)
    print(f"Chosen for all images: {plan}{'' if plan.whole else ', less than planned, to fit the time'}", flush=True)
    return plan


def rules_of(about: dict[str, Any], plan: Plan) -> tuple[postprocess.Rule, ...]:
    """Return the rules from probability to mask; a tuned rule holds only for all its models and the same TTA."""
    values = about["rules"] if plan.whole else about["plain_rules"]
    return tuple(postprocess.from_json(value, MARKER) for value in values)


def predict(bundle: Bundle, plan: Plan, root: Path, names: list[str], sample: Path | None) -> Path:
    """Predict all images; write and check /kaggle/working/submission.csv, with the ids of `sample`.

    A hidden image that cannot be read, or that `sample` names but is missing, gets an empty mask, and a line at the end
    says so: that loses one image's score instead of the whole submission. Raises UserError where it is true of all
    images.
    """
    about, keep = bundle.about, _keep(bundle, plan, root, names)
    if not plan.whole and about["rules"] != about["plain_rules"]:
        print("The tuned rule was tuned on more than this; the constants' rule (THRESHOLD, ...) takes its place.")
    keys = [(image_id, name) for image_id in keep.id_of.values() for name in keep.classes]
    absent = submission_file.absent(keys, sample, keep.dialect)
    order = submission_file.check_ids([*keys, *absent], sample, keep.dialect, partial=False)
    partial, target = keep.maps.folder, bundle.working / "submission.csv"
    predictor = _predictor(bundle, plan)

    def records(paths: list[Path], same: resumable.Keep) -> Iterator[list[Any]]:
        return predictor.predict(paths, about["max_pixels"], same, resumable.PART, keep.unreadable)

    work = {"bundle": about["bundle"], "plan": str(plan), **keep.about()}
    resumable.work(partial, work, root, names, records, keep)
    keep.manifest(partial, names)
    unread = {name: record[2] for name, record in resumable.records(partial, names) if len(record) > 2}
    if names and len(unread) == len(names):
        name, reason = next(iter(unread.items()))
        raise UserError(f"None of the {len(names)} images in {root} could be read, such as {name} ({reason}).")
    if absent:
        empty = (keep.dialect.cells(key, keep.dialect.empty) for key in absent)
        lines = chain(submission_file.rows_in(partial / resumable.ROWS), empty)
        submission_file.write(partial / resumable.ROWS, keep.dialect, lines)
    rows = submission_file.write_ordered(target, keep.dialect, partial / resumable.ROWS, order)
    shutil.rmtree(partial)
    shutil.rmtree(bundle.working / ".unpacked", ignore_errors=True)
    print(f"{rows} rows for {len(names)} images, read back -> {target}")
    say_unread(unread | {image_id: "no such file" for image_id, _ in absent}, len({key[0] for key in order}))
    return target


def say_unread(unread: dict[str, str], count: int) -> None:
    """Print which of `count` images have an empty mask, and why; of many only the first twenty."""
    if unread:
        said = [f"{name} ({reason})" for name, reason in unread.items()]
        more = f" and {len(said) - MOST_SAID:,} more" if len(said) > MOST_SAID else ""
        which = ", ".join(said[:MOST_SAID]) + more
        print(f"{len(said):,} of {count:,} images could not be read and have an empty mask: {which}", flush=True)
