"""The parts of a divided prediction: side by side as <name>.shard1of4, ..., and joined to one folder, checked."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from data import dataspec
from formats import images, rle
from prediction import prediction_folders, resumable, submission_file
from tools import run_folders
from tools.errors import UserError, listing
from tools.files import digest_of, link, read_json, sha256, write_json

_OWN = ("images", "shard", "maps_sha256", "rows_sha256")  # what the parts differ in
_PLACES = ("folder", "root")  # where things lay on the computer that made a part


def shards_of(folder: Path) -> list[Path]:
    """List the parts of a prediction folder, in order.

    Raises UserError where there is none, one is missing or too many.
    """
    found = {}
    for path in _parts(folder):
        index, count = path.name.rpartition(".shard")[2].split("of")
        found[int(index), int(count)] = path
    again = "make inference SHARD=1/n makes the first"
    if not found:
        raise UserError(f"There are no parts {folder}.shard1of...; {again}.")
    counts = sorted({count for _, count in found})
    if len(counts) > 1:
        raise UserError(f"{folder}: parts of different wholes lie here, of {' and of '.join(map(str, counts))}.")
    missing = [str(index) for index in range(1, counts[0] + 1) if (index, counts[0]) not in found]
    if missing:
        raise UserError(
            f"{folder}: of {counts[0]} parts, {', '.join(missing)} is missing; SHARD={missing[0]}/{counts[0]}."
        )
    return [found[key] for key in sorted(found)]


def refuse_other_division(folder: Path, count: int) -> None:
    """Raise UserError, before the work, where parts of another division lie beside the prediction folder."""
    others = [path.name for path in _parts(folder) if not path.name.endswith(f"of{count}")]
    if others:
        raise UserError(f"{folder.parent} has parts of another division: {others[0]}. Move them away, or remove them.")


def _parts(folder: Path) -> list[Path]:
    found = folder.parent.glob(f"{folder.name}.shard*of*")
    return sorted(path for path in found if re.fullmatch(r"\.shard(\d+)of(\d+)", path.name.removeprefix(folder.name)))


def remove(folder: Path) -> None:
    """Remove the parts of a prediction folder, with what lies beside each under its name."""
    for path in _parts(folder):
        shutil.rmtree(path)
        for beside in (path.with_name(f"{path.name}.png"), path.with_name(f"{path.name}.log")):
            beside.unlink(missing_ok=True)


def is_done(folder: Path, about: dict[str, Any], keep: resumable.Keep, files: list[Path]) -> bool:
    """Return whether a part was finished just as it is wanted now, of `files` that have not changed since."""
    path, plan = folder / run_folders.MANIFEST, keep.about()
    if not path.is_file():
        return False
    kind = "maps_sha256" if plan.pop("keeps") == "maps" else "rows_sha256"
    wanted, there = json.loads(json.dumps({**about, **plan})), read_json(path, "")
    if kind not in there or any(there.get(name) != value for name, value in wanted.items()):
        return False
    own = [file for name in files for file in images.image_files(name)]
    return all(file.stat().st_mtime_ns <= path.stat().st_mtime_ns for file in own)


def read(folders: list[Path]) -> list[dict[str, Any]]:
    """Read the parts' manifests.

    Raises UserError where they do not belong together, or a part is not what it was.
    """
    manifests = []
    for index, folder in enumerate(folders, 1):
        again = f"Predict it again: make inference SHARD={index}/{len(folders)}"
        manifest = run_folders.read_manifest(folder, again)
        if not isinstance(manifest.get("shard"), dict) or manifest["shard"].get("of") != len(folders):
            raise UserError(f"{folder / run_folders.MANIFEST} is of no part. {again}")
        if "rows_sha256" not in manifest:
            prediction_folders.refuse_exchanged(folder, manifest, again)
        else:
            resumable.refuse_changed_rows(folder, manifest, again)
        manifests.append(manifest)
    first = _comparable(manifests[0])
    for folder, manifest in zip(folders, manifests, strict=True):
        other = _comparable(manifest)
        differ = sorted(key for key in {*first, *other} if first.get(key) != other.get(key))
        if differ:
            raise UserError(
                f"{folders[0]} and {folder} were not predicted alike; what differs: {', '.join(differ)}. "
                "Predict the odd one again with the same models and settings."
            )
    return manifests


def _comparable(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return what all parts share; folders may differ from computer to computer."""
    shared = {key: value for key, value in manifest.items() if key not in (*_OWN, *_PLACES)}
    models = [{key: value for key, value in model.items() if key not in _PLACES} for model in manifest["models"]]
    return {**shared, "models": models, "test images": manifest["shard"].get("all")}


def joined(manifests: list[dict[str, Any]]) -> list[str]:
    """Return all images in their order. Raises UserError where they are not those that were divided."""
    count = len(manifests)
    names: list[Any] = [None] * sum(len(part["images"]) for part in manifests)
    try:
        for index, part in enumerate(manifests):
            names[index::count] = part["images"]
    except ValueError:  # parts of lengths that no division gives
        names = []
    if digest_of(map(str, names)) != manifests[0]["shard"].get("all"):
        sizes = [f"part {index}: {len(part['images'])} images" for index, part in enumerate(manifests, 1)]
        raise UserError(f"The parts do not add up to the images that were divided:{listing(sizes)}")
    return names


def join(folder: Path) -> tuple[int, int]:
    """Make the prediction folder of its parts, which stay; returns how many parts and images. Raises UserError.

    The maps are linked, which takes no room.
    """
    run_folders.refuse_foreign(folder)
    folders = shards_of(folder)
    manifests = read(folders)
    names, first = joined(manifests), manifests[0]
    spec = dataspec.from_json(first["data"], str(folders[0] / run_folders.MANIFEST))
    about = {key: value for key, value in first.items() if key not in _OWN} | {"images": names}
    with prediction_folders.atomic_folder(folder) as partial:
        for part, manifest in zip(folders, manifests, strict=True):
            wanted = manifest["images"] if "maps_sha256" in manifest else prediction_folders.spread(manifest["images"])
            for name in wanted:
                for path in prediction_folders.map_paths(Path(), name, spec):
                    link(part / path, partial / path)
        if "maps_sha256" in first:
            about["maps_sha256"] = prediction_folders.fingerprint(partial, names, spec)
        else:
            rows = (row for part in folders for row in submission_file.rows_in(part / resumable.ROWS))
            dialect = rle.formed(first["dialect"], first.get("form", {}), str(folders[0] / run_folders.MANIFEST))
            submission_file.write(partial / resumable.ROWS, dialect, rows)
            about["rows_sha256"] = sha256(partial / resumable.ROWS)
        write_json(partial / run_folders.MANIFEST, about)
    return len(folders), len(names)
