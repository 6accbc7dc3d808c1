"""Every image and mask as the network's frame, decoded once into one file that processes map."""

import functools
import hashlib
import json
from pathlib import Path

import numpy as np

from data.dataspec import DataSpec
from formats import images
from formats.mask_reference import MaskReference
from tools import console, threads
from tools.errors import UserError
from tools.files import atomic_write, digest_of, sha256, write_json

_VERSION = 6  # of what is stored; raise it when the decoding or resizing changes


class Cache:
    """Images (h, w, C) and masks (K, h, w), as dataspec has them, in the network's frame, by row."""

    def __init__(self, path: Path) -> None:
        stored = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        self.path = path
        self.shapes: list[list[int]] = stored["shapes"]  # height, width
        self.channels: int = stored["channels"]
        self.planes: int = stored["planes"]
        # of the files, as bytes: the same on any computer, at any IMAGE_SIZE
        self.data_sha256: str = stored["data_sha256"]
        pixels = np.array([height * width for height, width in self.shapes], np.int64)
        self.offsets = np.concatenate([[0], np.cumsum(pixels * (self.channels + self.planes))])
        self._bytes: np.ndarray | None = None  # opened at first use, so that each worker opens its own

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Views of the file: uint8 image (h, w, C) and mask (K, h, w)."""
        if self._bytes is None:
            self._bytes = np.memmap(self.path, np.uint8, mode="r")
        height, width = self.shapes[row]
        start, end = self.offsets[row], self.offsets[row + 1]
        middle = start + height * width * self.channels
        image = self._bytes[start:middle].reshape(height, width, self.channels)
        return image, self._bytes[middle:end].reshape(self.planes, height, width)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_bytes": None}


def _mask_files(root: Path, reference: str, spec: DataSpec) -> list[Path]:
    return MaskReference.parse(reference).files(root, spec.scored_sources)


def _stamp(files: list[Path]) -> list[tuple[str, int, int]]:
    """Note what tells a changed file: name, size and time, of each."""
    stats = [(file.name, file.stat()) for file in files]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


class _Digests:
    """Hashes of the files behind a pair, each table of run lengths once."""

    def __init__(self, root: Path, spec: DataSpec) -> None:
        self.root, self.spec, self.table = root, spec, functools.cache(sha256)

    def of(self, pair: tuple[str, str]) -> str:
        image, mask = pair
        hashing = self.table if MaskReference.parse(mask).kind == "run_lengths" else sha256
        hashes = [sha256(file) for file in images.stored_files(self.root / image)]
        hashes += [hashing(file) for file in _mask_files(self.root, mask, self.spec)]
        return digest_of([*pair, *hashes])


def open_cache(
    folder: Path,
    root: Path,
    pairs: list[tuple[str, str]],
    size: tuple[int, int],
    resize: str,
    max_pixels: int,
    spec: DataSpec,
) -> Cache:
    """Open the cache of `pairs` (image, mask relative to `root`) in `folder`; made, on all cores, where there is none.

    Raises UserError for files that are missing or broken, all of them listed.
    """

    def stamps_of(pair: tuple[str, str]) -> list[object]:
        image, mask = pair
        return [pair, _stamp(images.stored_files(root / image)), _stamp(_mask_files(root, mask, spec))]

    with threads.pool() as pool:
        stamps = list(pool.map(stamps_of, pairs))
    meaning = {name: value for name, value in spec.as_json().items() if name not in ("mean", "std")}
    made_from = json.dumps([_VERSION, str(root.resolve()), size, resize, meaning, stamps])
    path = folder / f"{size[0]}x{size[1]}-{resize}-{hashlib.sha256(made_from.encode()).hexdigest()[:16]}.bin"
    if not _is_whole(path, len(pairs)):
        _build(path, root, pairs, size, resize, max_pixels, spec)
    return Cache(path)


def _is_whole(path: Path, rows: int) -> bool:
    """Return whether the cache's file is there and as long as its JSON says."""
    try:
        cache = Cache(path)
        return len(cache) == rows and path.stat().st_size == cache.offsets[-1]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _build(
    path: Path,
    root: Path,
    pairs: list[tuple[str, str]],
    size: tuple[int, int],
    resize: str,
    max_pixels: int,
    spec: DataSpec,
) -> None:
    digests = _Digests(root, spec)

    def read(pair: tuple[str, str]) -> tuple[np.ndarray, np.ndarray, str] | str:
        try:
            shape, (frame,) = spec.read_frames(root / pair[0], [(size, resize)], max_pixels)
            mask = spec.read_mask(root, pair[1], shape, max_pixels, pair[0])
        except UserError as error:
            return str(error)
        return frame, spec.to_network(mask, size, resize), digests.of(pair)

    shapes, problems, hashes = [], [], []
    with atomic_write(path) as temporary:
        with temporary.open("wb") as file, threads.pool() as pool:
            for block in range(0, len(pairs), 256):  # a block at a time, so that memory does not grow with the data
                results = pool.map(read, pairs[block : block + 256])
                for result in console.track(results, len(pairs[block : block + 256]), f"caching {block}/{len(pairs)}"):
                    if isinstance(result, str):
                        problems.append(result)
                        continue
                    for array in result[:2]:
                        file.write(np.ascontiguousarray(array).data)
                    shapes.append(result[0].shape[:2])
                    hashes.append(result[2])
        images.refuse_listed(
            problems, "broken or mismatched pairs:", "Repair or remove these files, then run make folds again."
        )
    stored = {
        "shapes": shapes,
        "channels": spec.channels,
        "planes": spec.planes,
        "data_sha256": digest_of(hashes),
    }
    write_json(path.with_suffix(".json"), stored)  # last: it says that the file is whole
