"""Rows of the table that need no network: loader, run lengths, thresholds, make folds."""

import contextlib
import io
import multiprocessing
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import plain
import simplejpeg
import torch
from PIL import Image
from timing import Row, extrapolated, in_turns, quietly

import config
import folds
from data.dataspec import DataSpec
from formats import images, rle
from loading import augmentations, cache
from loading.datamodule import DataOrder, MaskDataModule, workers
from metrics import overlap
from prediction import postprocess
from prediction.postprocess import Rule
from scoring import rule_sweep, rule_trials
from tools import threads

SIZE, BATCH = 512, 8
MOST = 100_000_000


def _each(task: Callable[[Any], Any], items: list[Any]) -> None:
    """On all cores, results thrown away as they come."""
    with ThreadPoolExecutor(threads.cores()) as pool:
        for _ in pool.map(task, items):
            pass


def _strictly(pair: tuple[Path, Path]) -> None:
    """The fastest strict decoders at hand: simplejpeg (libjpeg-turbo), of GIF Pillow, twice as fast as OpenCV."""
    simplejpeg.decode_jpeg(pair[0].read_bytes(), "RGB")
    np.array(Image.open(pair[1]))


def _plain_loader(pairs: list[tuple[Path, Path]], augment: Any = None) -> Any:
    return torch.utils.data.DataLoader(
        plain.Pairs(pairs, SIZE, augment),
        BATCH,
        shuffle=True,
        num_workers=workers(-1),
        persistent_workers=workers(-1) > 0,
        worker_init_fn=_one_thread,
    )


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


def _ours(cache: cache.Cache, augment: Any = None) -> Any:
    data = MaskDataModule(
        cache,
        np.arange(len(cache)),
        np.arange(0),
        DataOrder(0, BATCH, BATCH),
        augment=augment,
        num_workers=workers(-1),
    )
    return data.train_dataloader()


def _drained(loader: Any) -> None:
    for _ in loader:
        pass


def _cache(place: Path, root: Path, pairs: list[tuple[Path, Path]]) -> cache.Cache:
    names = [(str(image.relative_to(root)), str(mask.relative_to(root))) for image, mask in pairs]
    return cache.open_cache(place, root, names, (SIZE, SIZE), "stretch", MOST, DataSpec())


def loader_cold(place: Path, root: Path, pairs: list[tuple[Path, Path]], repeats: int) -> Row:
    """The first epoch: ours decodes into its cache and reads that, the plain one decodes in its workers."""
    number = count()

    def ours() -> None:
        folder = place / f"cache{next(number)}"
        with contextlib.redirect_stderr(io.StringIO()):
            _drained(_ours(_cache(folder, root, pairs)))
        shutil.rmtree(folder)

    tasks = {
        "limit": lambda: _each(_strictly, pairs),
        "ours": ours,
        "plain": lambda: extrapolated(lambda sample: _drained(_plain_loader(sample)), pairs, 160),
    }
    height, width = images.read_size(pairs[0][0])
    return Row(
        f"loader, {width} x {height} JPEG + GIF mask -> {SIZE} px, cold",
        in_turns(tasks, repeats),
        len(pairs),
        "samples",
        at_limit=0.8,
        note="files are in the system's memory; limit: the decoders alone, a thread a core; plain: a quarter of them",
    )


def _share(cache: cache.Cache, augment: Any, rows: range, together: Any, spent: Any) -> None:
    """One process's rows, copied and augmented; its seconds go to `spent`, from when all are ready."""
    images_masks = [tuple(np.array(part) for part in cache[row]) for row in rows[:16]]
    together.wait()
    start = time.perf_counter()
    for row in rows:
        image, mask = images_masks[row // rows.step % len(images_masks)]
        augment(image.copy(), mask.copy(), (0, 0, row))
    spent[rows.start] = time.perf_counter() - start


def loader_later(place: Path, root: Path, pairs: list[tuple[Path, Path]], repeats: int) -> Row:
    """A later epoch, workers running, the default augmentation on both sides."""
    with contextlib.redirect_stderr(io.StringIO()):
        cache = _cache(place / "cache", root, pairs)
    augment = augmentations.make(config.AUGMENT)
    loaders = {"ours": _ours(cache, augment), "plain": _plain_loader(pairs, augment)}
    for loader in loaders.values():
        _drained(loader)  # workers start, pages are read
    processes, context = max(1, workers(-1)), multiprocessing.get_context("fork")

    def limit() -> float:
        together, spent = context.Barrier(processes), context.Array("d", processes)
        running = [
            context.Process(target=_share, args=(cache, augment, range(n, len(pairs), processes), together, spent))
            for n in range(processes)
        ]
        for process in running:
            process.start()
        for process in running:
            process.join()
        return max(spent)

    tasks = {
        "limit": limit,
        "ours": lambda: _drained(loaders["ours"]),
        "plain": lambda: _drained(loaders["plain"]),
    }
    return Row(
        f"the same, later epochs, AUGMENT={config.AUGMENT} on both sides",
        in_turns(tasks, repeats),
        len(pairs),
        "samples",
        at_limit=0.8,
        at_plain=4,
        note="limit: a copy in memory and the augmentation, in as many processes, nothing sent between them",
    )


def run_lengths(pairs: list[tuple[Path, Path]], repeats: int) -> list[Row]:
    """One mask to text and back, from a C-ordered array, in Carvana's order; pycocotools has its own, compressed."""
    from pycocotools import mask as coco

    mask = images.read_mask(pairs[0][1])
    text, coded = rle.encode(mask, "C"), coco.encode(np.asfortranarray(mask))
    assert np.array_equal(rle.decode(text, mask.shape, "C"), mask) and text == plain.encode(mask)
    assert np.array_equal(plain.decode(text, mask.shape), mask) and np.array_equal(coco.decode(coded), mask)
    often = 20  # of the fast ones, within a turn

    def repeated(task: Callable[[], Any], times: int) -> Callable[[], float]:
        def run() -> float:
            start = time.perf_counter()
            for _ in range(times):
                task()
            return (time.perf_counter() - start) / times

        return run

    size = f"{mask.shape[1]} x {mask.shape[0]}"
    encoding = {
        "limit": repeated(lambda: coco.encode(np.asfortranarray(mask)), often),
        "ours": repeated(lambda: rle.encode(mask, "C"), often),
        "plain": repeated(lambda: plain.encode(mask), 1),
    }
    decoding = {
        "limit": repeated(lambda: np.ascontiguousarray(coco.decode(coded)), often),
        "ours": repeated(lambda: rle.decode(text, mask.shape, "C"), often),
        "plain": repeated(lambda: plain.decode(text, mask.shape), 1),
    }
    aims = {"at_limit": 1 / 1.5, "at_plain": 30.0}
    note = "limit: pycocotools, its copy from and to a C-ordered mask included"
    return [
        Row(f"run lengths: encode {size}", in_turns(encoding, repeats), note=note, **aims),
        Row(f"run lengths: decode {size}", in_turns(decoding, repeats), note=note, **aims),
    ]


def thresholds(place: Path, pairs: list[tuple[Path, Path]], repeats: int) -> Row:
    """Dice of an image set at each of make tune's thresholds."""
    chosen, maps = pairs[:24], place / "maps"
    for number, (_, path) in enumerate(chosen):
        soft = cv2.GaussianBlur(images.read_mask(path) * np.float32(255), (0, 0), 25)
        images.write_gray(maps / f"{number}.png", soft.round().astype(np.uint8))
    files = [(maps / f"{number}.png", mask) for number, (_, mask) in enumerate(chosen)]
    rules = tuple(Rule(threshold) for threshold in rule_trials.FINE)

    def read(pair: tuple[Path, Path]) -> tuple[np.ndarray, np.ndarray]:
        return images.read_gray(pair[0]), images.read_mask(pair[1])

    def ours(pair: tuple[Path, Path]) -> np.ndarray:
        p8, truth = read(pair)
        return rule_sweep.counts_by_rule(p8, truth, None, rules)

    def loop(pair: tuple[Path, Path]) -> np.ndarray:
        p8, truth = read(pair)
        masks = (p8 >= postprocess.level(rule.threshold) for rule in rules)
        return np.array([list(overlap.count(mask, truth).values()) for mask in masks])

    assert np.array_equal(ours(files[0]), loop(files[0]))
    tasks = {
        "limit": lambda: _each(read, files),
        "ours": lambda: _each(ours, files),
        "plain": lambda: _each(loop, files),
    }
    return Row(
        f"scoring {len(rules)} thresholds, {len(files)} maps and masks",
        in_turns(tasks, repeats),
        len(files),
        "images",
        at_limit=0.5,
        note="limit: reading maps and masks once; plain: each threshold's mask compared, files read once too",
    )


def make_folds(place: Path, root: Path, pairs: list[tuple[Path, Path]]) -> Row:
    """The command with its leak audit, imports done, against decoding."""

    def ours() -> None:
        quietly(folds, ["DATASET=bench", f"INPUT={root}", f"OUTPUT={place / 'folds'}", f"LOGS={place}"])

    def strictly(pair: tuple[Path, Path]) -> None:
        images.read_image(pair[0])
        images.read_mask(pair[1])

    def one_by_one(pairs: list[tuple[Path, Path]]) -> None:
        for image, mask in pairs:
            np.array(Image.open(image).convert("RGB"))
            np.array(Image.open(mask).convert("L"))

    others = {
        "limit": lambda: extrapolated(lambda sample: _each(strictly, sample), pairs, 500),
        "plain": lambda: extrapolated(one_by_one, pairs, 50),
    }
    before, once, after = in_turns(others, 1), in_turns({"ours": ours}, 1), in_turns(others, 1)
    spent = {name: before[name] + after[name] for name in others} | {"ours": once["ours"] * 2}
    height, width = images.read_size(pairs[0][0])
    return Row(
        f"make folds, {len(pairs):,} masks of {width} x {height}, leak audit included",
        spent,
        len(pairs),
        "pairs",
        at_limit=1 / 1.25,
        note="ours: once, the others before and after it; limit: strictly decoding once on all cores (500 pairs, "
        "extrapolated); plain: decoding one by one (50, extrapolated)",
    )
