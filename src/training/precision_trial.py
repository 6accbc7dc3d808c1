"""PRECISION=auto on a CPU: this very network's training step in 32 bits and in bf16, timed; the faster one is taken.

The choice is the experiment's: its first training on a CPU makes it, and its other folds, seeds and sessions keep it.
"""

import copy
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from modeling import optimizers
from tools import locks, run_folders
from tools.errors import UserError
from tools.files import read_json, write_json
from tools.hardware import NAMES
from training.trainer import Hardware

if TYPE_CHECKING:
    from lightning_module import SegmentationModule

CHOICE = "precision.json"  # in the experiment's folder
GAIN = 1.2  # bf16 is taken where a step in 32 bits takes so many times as long
SLOW = 3.0  # bf16 that takes so many times as long for one small image is not tried on more
SECONDS = 5.0  # of the whole trial
SMALL = (64, 64)
MULTIPLE = 32  # sides that every network takes
STEPS = 5  # at most, of each kind, beside the warm-up
Pass = Callable[[bool], float]  # in bf16? -> seconds; nan where what came out was no number


@dataclass(frozen=True)
class Trial:
    """What was timed: `images` of `size` at a time (0: one layer), in seconds an image."""

    images: int
    size: tuple[int, int]
    plain: float = math.nan
    bf16: float = math.nan
    finite: bool = True  # what bf16 gave
    warm: bool = False  # timed after a first step, which takes longer in whatever comes first

    @property
    def choice(self) -> str:
        return "bf16" if self.finite and self.warm and self.plain >= GAIN * self.bf16 else "32"

    @property
    def said(self) -> str:
        """The choice with its figures, in one line."""
        what = {0: "a convolution", 1: "an image"}.get(self.images, f"each of {self.images} images")
        took = f"{1000 * self.bf16:.0f} ms" if self.finite else "no numbers"
        return (
            f"{'bf16' if self.choice == 'bf16' else '32 bits'} by trial: {1000 * self.plain:.0f} ms in 32 bits and "
            f"{took} in bf16 for {what} of {self.size[0]} x {self.size[1]} px"
        )


def settle(folder: Path, anew: bool, trial: Callable[[], Trial]) -> Hardware:
    """Return the CPU with the precision that the experiment of a run folder has, after a trial where it has none yet.

    `anew`: nothing is left of what the experiment was. Raises UserError.
    """
    path = folder.parent / CHOICE
    with locks.exclusive(path, "It is timing bf16; start again.", patience=12 * SECONDS):
        known = None if anew else chosen(folder.parent, folder)
        if known:
            return known
        made = trial()
        write_json(path, {"precision": made.choice, "said": made.said})
        return Hardware("cpu", NAMES[made.choice], made.said)


def chosen(experiment: Path, run: Path | None = None) -> Hardware | None:
    """Return what an experiment trains with on a CPU: `run` itself, the choice that it wrote, or its other runs.

    None where it has not been trained on one. Raises UserError where the file is broken.
    """
    path, runs = experiment / CHOICE, sorted(experiment.glob(f"fold*_seed*/{run_folders.ORIGIN}"))
    if own := next((_of_run(file) for file in runs if file.parent == run), None):
        return own
    if not path.is_file():
        return next(filter(None, map(_of_run, runs)), None)
    about = read_json(path, "Remove it: the next training makes the choice again.", {"precision": str, "said": str})
    if about["precision"] not in ("32", "bf16"):
        raise UserError(f"{path}: precision {about['precision']} is neither 32 nor bf16. Remove it.")
    return Hardware("cpu", NAMES[about["precision"]], f"{about['said']}, once for {experiment}")


def _of_run(file: Path) -> Hardware | None:
    """Return what a run's run.json says, None where it ran elsewhere than on a CPU."""
    about: dict[str, Any] = read_json(file, "Remove that run's folder.", {"computer": dict})["computer"]
    if about.get("device") != "cpu" or about.get("precision") not in (NAMES["32"], NAMES["bf16"]):
        return None
    name = "bf16" if about["precision"] == NAMES["bf16"] else "32 bits"
    return Hardware("cpu", about["precision"], f"{name}, as {file.parent} began")


def of_step(module: "SegmentationModule", batch: int, size: tuple[int, int]) -> Trial:
    """Time a training step of `batch` images of `size`, within SECONDS or little more; `module` stays as it is.

    First one image of SMALL, which a CPU without units for bf16 shows to be slow. Where the whole step would take too
    long, fewer images are tried, then smaller ones.
    """
    with torch.random.fork_rng(devices=[]):
        tried = copy.deepcopy(module).eval()
        any_size = True
        try:
            guards = [_forward_pass(tried, SMALL), _training_pass(tried, 1, SMALL)]
            guards[1](False)  # what is imported and compiled at a first step, a training pays for anyway
        except (RuntimeError, AssertionError, ValueError):  # a network of one size: a layer stands for it
            any_size, guards = False, [_convolution_pass()]
        guarded = Trial(int(any_size), SMALL)
        deadline = time.perf_counter() + SECONDS
        for run in guards:
            small = _timed(run, guarded, deadline, 1)
            if not small.finite or small.bf16 > SLOW * small.plain or time.perf_counter() > deadline:
                return small
        images, frame = min(2, batch), size
        if any_size:  # as much as two steps of each take, or so
            a_pixel = small.plain / (SMALL[0] * SMALL[1])
            images, frame = _fitting(batch, size, (deadline - time.perf_counter()) / 6 / a_pixel)
        return _timed(_training_pass(tried.train(), images, frame), Trial(images, frame), deadline)


def _fitting(batch: int, size: tuple[int, int], pixels: float) -> tuple[int, tuple[int, int]]:
    """Return as many images as `pixels` holds, or two smaller ones: batch norms need more than one."""
    least, one = min(2, batch), size[0] * size[1]
    images = int(min(batch, max(least, pixels // one)))
    if pixels >= images * one:
        return images, size
    share = (pixels / (images * one)) ** 0.5
    height, width = (max(2 * MULTIPLE, int(side * share) // MULTIPLE * MULTIPLE) for side in size)
    return images, (min(height, size[0]), min(width, size[1]))


def _timed(run: Pass, about: Trial, deadline: float, most: int = STEPS) -> Trial:
    """Take turns in 32 bits and bf16, a warm-up each first, up to the deadline; seconds are medians, an image's."""
    taken: list[tuple[float, float]] = [(run(False), run(True))]
    while (
        len(taken) <= most
        and taken[-1][1] < 2 * SLOW * taken[-1][0]  # else it is clear; and not where one is no number
        and time.perf_counter() + sum(taken[-1]) < deadline
    ):
        taken.append((run(False), run(True)))
    plain, bf16 = zip(*(taken[1:] or taken), strict=True)
    finite = all(map(math.isfinite, bf16))
    seconds = [statistics.median(part) / max(1, about.images) if finite else math.nan for part in (plain, bf16)]
    return replace(about, plain=seconds[0], bf16=seconds[1], finite=finite, warm=len(taken) > 1)


def _images(module: "SegmentationModule", count: int, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random bytes (N, channels, H, W) and masks (N, planes, H, W), as the loader gives them."""
    spec = module.validation.spec
    images = torch.randint(0, 256, (count, spec.channels, *size), dtype=torch.uint8)
    return images, torch.randint(0, 2, (count, spec.planes, *size), dtype=torch.uint8)


def _forward_pass(module: "SegmentationModule", size: tuple[int, int]) -> Pass:
    images, _ = _images(module, 1, size)
    module.eval()

    def run(half: bool) -> float:
        start = time.perf_counter()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = module(images)
        return time.perf_counter() - start if torch.isfinite(logits).all() else math.nan

    return run


def _convolution_pass() -> Pass:
    layer, x = torch.nn.Conv2d(64, 64, 3, padding=1), torch.rand(1, 64, *SMALL)

    def run(half: bool) -> float:
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            layer(x).sum().backward()
        return time.perf_counter() - start

    return run


def _training_pass(module: "SegmentationModule", count: int, size: tuple[int, int]) -> Pass:
    """Return a step of the module's own loss and optimizer, which moves nothing: its rates are zero."""
    images, masks = _images(module, count, size)
    groups = optimizers.parameter_groups(module.network, module.optimization)
    optimizer = optimizers.make_optimizer(module.optimization, groups, fusible=False)
    for group in optimizer.param_groups:
        group["lr"] = 0.0

    def run(half: bool) -> float:
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = module.loss_of(module(images), masks)
        loss.backward()
        whole = all(bool(torch.isfinite(one.grad).all()) for one in module.parameters() if one.grad is not None)
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - start if whole and bool(torch.isfinite(loss)) else math.nan

    return run
