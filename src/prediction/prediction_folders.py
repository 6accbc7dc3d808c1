"""Prediction folders: one 8-bit probability PNG an image and class at the original size, and a manifest.

The manifest says which models made it, how, and a fingerprint of the maps, so that others under it are recognized.
"""

import contextlib
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from data import dataspec
from data.dataspec import DataSpec
from formats import images
from prediction import postprocess
from tools import console, run_folders, threads
from tools.errors import UserError
from tools.files import digest_of, sha256, write_json
from tools.run_folders import MANIFEST

Item = TypeVar("Item")
Shown = tuple[str, np.ndarray, np.ndarray]  # of a contact sheet: name, image, probability maps
SHOWN = 12  # images of a contact sheet


def write_maps(maps: Iterable[tuple[str, np.ndarray]], spec: DataSpec, folder: Path, total: int, label: str) -> None:
    """Write the probability maps uint8 (C, H, W) of each image, by name, in threads."""
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(2) as pool:
        for name, p8 in console.track(maps, total, label):
            for file, plane in zip(map_paths(folder, name, spec), p8, strict=True):
                waiting.append(pool.submit(images.write_gray, file, plane))
            while len(waiting) > 32:
                waiting.popleft().result()  # a full disk is raised here
        for future in waiting:
            future.result()


def shown(folder: Path, names: Sequence[str], spec: DataSpec, root: Path, max_pixels: int) -> list[Shown]:
    """Read twelve of the images, spread over all: name, image, maps, for a contact sheet."""
    return [(name, spec.read_image(root / name, max_pixels), read_maps(folder, name, spec)) for name in spread(names)]


def spread(items: Sequence[Item], most: int = SHOWN) -> list[Item]:
    """Return `most` of the items, or all where there are fewer, evenly over the whole."""
    return [items[index] for index in sorted({index * len(items) // most for index in range(most)})] if items else []


def map_paths(folder: Path, image: str, spec: DataSpec) -> list[Path]:
    """Return the probability map of each class of `image`, in the classes' order."""
    names = spec.classes if len(spec.classes) > 1 else ("",)
    return [run_folders.prediction_path(folder, image, name) for name in names]


def read_maps(folder: Path, image: str, spec: DataSpec) -> np.ndarray:
    """Read the probability maps of `image`, uint8 (C, H, W).

    Raises UserError where they are missing or differ in size.
    """
    paths = map_paths(folder, image, spec)
    maps = [images.read_gray(path) for path in paths]
    for path, p8 in zip(paths, maps, strict=True):
        if p8.shape != maps[0].shape:
            raise UserError(f"{path}: {p8.shape}, but {paths[0]} has {maps[0].shape}. Run make inference again.")
    return np.stack(maps)


def partial_of(folder: Path) -> Path:
    """Return where a prediction folder is built, before it takes its place."""
    return folder.with_name(f".{folder.name}.partial")


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a new, empty folder for predictions, which takes the place of `folder` at the end; none after an error.

    What was there stays until then. Raises UserError where `folder` is not ours to replace.
    """
    run_folders.refuse_foreign(folder)
    partial = partial_of(folder)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
        run_folders.replace_folder(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # half a prediction is of no use
        raise


def distinct(manifests: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the models of several manifests, each once."""
    return list({model["weights_sha256"]: model for part in manifests for model in part["models"]}.values())


def write_manifest(
    folder: Path, root: str, names: list[str], spec: DataSpec, models: list[dict[str, Any]], how: dict[str, Any]
) -> dict[str, Any]:
    """Write and return manifest.json: `names` are the images below `root`, `how` the TTA and the networks' sizes."""
    manifest = {
        "root": root,
        "images": names,
        "data": spec.as_json(),
        "models": models,
        **how,
        "sizes": provenance(models, how)["sizes"],
        "maps_sha256": fingerprint(folder, names, spec),
    }
    write_json(folder / run_folders.MANIFEST, manifest)
    return manifest


def provenance(models: list[dict[str, Any]], how: dict[str, Any]) -> dict[str, Any]:
    """Return what a rule depends on, JSON-ready, of a manifest or of one that is to be written.

    Raises UserError where a manifest does not say it.
    """
    try:
        return {
            "folds_sha256": models[0]["folds_sha256"],
            "tta": how["tta"],
            "tta_mean": how["tta_mean"],
            **{key: how[key] for key in ("tile", "overlap") if key in how},  # whole frames say nothing of tiles
            "sizes": [list(size) for size in sorted({tuple(size) for size in how["sizes"]})],
            "models": sorted({model["weights_sha256"] for model in models}),
            "shares": {name: round(share, 6) for name, share in sorted(how.get("shares", {}).items())},
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{MANIFEST} was written by an earlier version of this program, or changed since: it lacks or has a "
            f"wrong value ({error}). Run make inference (or make tester) again."
        ) from error


def fingerprint(folder: Path, names: list[str], spec: DataSpec) -> str:
    """Hash all probability maps of a folder, as files, with their names -> sha256."""
    paths = [path for name in names for path in map_paths(folder, name, spec)]
    with threads.pool() as pool:
        hashed = zip(paths, pool.map(_sha_or_missing, paths), strict=True)
        return fingerprint_of((path.relative_to(folder), sha) for path, sha in hashed)


def fingerprint_of(files: Iterable[tuple[Path, str]]) -> str:
    """Hash the maps' paths below their folder with their sha256 -> the same."""
    return digest_of(f"{path.as_posix()} {sha}" for path, sha in files)


def _sha_or_missing(path: Path) -> str:
    return sha256(path) if path.is_file() else "missing"


def refuse_exchanged(folder: Path, manifest: dict[str, Any], again: str) -> None:
    """Raise UserError where the maps in `folder` are not those that its manifest was written for."""
    if "rows_sha256" in manifest:
        raise UserError(
            f"{folder} holds the masks' run lengths only (MAPS=0), and this needs probability maps. {again}, without "
            "MAPS=0."
        )
    if not isinstance(manifest.get("maps_sha256"), str) or not {"tta", "tta_mean", "sizes"} <= manifest.keys():
        raise UserError(f"{folder / run_folders.MANIFEST} was written by an earlier version of this program. {again}")
    spec = dataspec.from_json(manifest["data"], str(folder / run_folders.MANIFEST))
    if fingerprint(folder, manifest["images"], spec) != manifest["maps_sha256"]:
        raise UserError(
            f"{folder} holds other probability maps than those its {MANIFEST} describes: files were exchanged, "
            f"changed or lost since. {again}"
        )


def contact_sheet(path: Path, shown: list[Shown], spec: DataSpec, rules: tuple[postprocess.Rule, ...]) -> None:
    """Write images, probabilities and masks side by side, with a legend of several classes."""
    from tools import pictures

    rows = []
    for name, image, p8 in shown:
        masks = postprocess.to_masks(p8, spec.task, spec.scored, rules)
        picture = pictures.as_rgb(image)
        foreground = p8[list(spec.scored)].max(0)
        rows.append((f"{Path(name).name}   {masks.any(0).mean():.1%} foreground",
                     [picture, foreground, pictures.overlays(picture, masks)]))  # fmt: skip
    title = "probability" if len(spec.scored) == 1 else "highest probability of a class"
    pictures.sheet(path, rows, ["image", title, "mask"], legend=pictures.legend(spec.scored_names))
