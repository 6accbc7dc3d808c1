"""One ONNX file of several networks, from bytes to probabilities, and the proof that it computes what they compute.

Input `images`: uint8 (N, h, w, channels) in the network's frame. Output `probabilities`: float32 (N, C, h, w), the mean
over the networks. What comes before (the resize) and after (the mask's rule) stands in the file's metadata.
"""

import contextlib
import ctypes
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from formats.resize import image_to_network
from modeling.frame_sizes import DIVISOR
from modeling.segmenter import Segmenter
from prediction import tta
from prediction.shipped_model import Model
from tools.errors import UserError

if TYPE_CHECKING:
    import onnxruntime

INPUT, OUTPUT = "images", "probabilities"
TOLERANCE = 1e-4  # of a probability; other orders of summation change a trained network by a tenth of it at most
OPSET = 18
INSTALL = "pip install onnx==1.23.2 onnxruntime==1.31.1 onnxscript==0.7.2"


@dataclass(frozen=True)
class Way:
    """A way to write the file: torch's tracing exporter, which takes seconds, or torch.export, which takes a minute."""

    any_size: bool
    tracing: bool

    def __str__(self) -> str:
        return f"{'any' if self.any_size else 'fixed'} size, {'tracing' if self.tracing else 'torch.export'}"


WAYS = (Way(any_size=True, tracing=True), Way(any_size=False, tracing=True), Way(any_size=False, tracing=False))


class Graph(nn.Module):
    """The file's computation: bytes / 255, each network with its own normalization, activation, mean of probabilities.

    `any_size`: pad to the networks' multiples by an index that depends on the image's size. The networks' own padding
    is decided in Python, and a trace would keep the padding of the traced size.
    """

    def __init__(self, networks: list[Segmenter], task: str, any_size: bool) -> None:
        super().__init__()
        self.segmenters, self.task, self.any_size = networks, task, any_size
        self.registered = nn.ModuleList(networks)  # an exporter looks for their weights here

    def forward(self, images: Tensor) -> Tensor:
        """Return probabilities float32 (N, C, h, w) of images uint8 (N, h, w, channels)."""
        x = images.permute(0, 3, 1, 2).float() / 255
        parts = [self._probabilities(network, x) for network in self.segmenters]
        return sum(parts[1:], parts[0]) / len(parts)

    def _probabilities(self, network: Segmenter, x: Tensor) -> Tensor:
        logits = _padded(network, x) if self.any_size else network(x)
        return logits.softmax(1) if self.task == "multiclass" else logits.sigmoid()


def _padded(network: Segmenter, x: Tensor) -> Tensor:
    """Return a Segmenter's logits for x of any size, its border repeated up to multiples of what it takes."""
    height, width = x.shape[-2:]
    rows, columns = (
        torch.arange(side + (-side) % divisor, device=x.device).clamp(max=side - 1)
        for side, divisor in zip((height, width), network.frames.divisor, strict=True)
    )
    x = (x - network.mean) / network.std
    return network.of_padded(x.index_select(2, rows).index_select(3, columns))[..., :height, :width]


def packages() -> tuple[Any, Any]:
    """Return onnx and onnxruntime. Raises UserError with the command that installs them."""
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise UserError(f"make onnx needs the packages onnx and onnxruntime ({error}): {INSTALL}") from error
    return onnx, onnxruntime


def open_session(path: Path) -> Any:
    """Return an onnxruntime session on the CPU."""
    _, onnxruntime = packages()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # a size that the graph refuses raises an exception; the log line is not needed
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def ask(session: "onnxruntime.InferenceSession", frames: np.ndarray) -> np.ndarray:
    """Return probabilities float32 (N, C, h, w) of frames uint8 (N, h, w, channels), by onnxruntime."""
    return session.run([OUTPUT], {INPUT: np.ascontiguousarray(frames)})[0]


def write(path: Path, models: list[Model], picture: np.ndarray) -> Way:
    """Write the networks' file in the first way proven on `picture`, uint8 (H, W, channels); return that way.

    Proven means that onnxruntime agrees with the networks for batches of one, two and three and, for any size, on the
    picture at four other sizes. Raises UserError where no way works, with the reason of each.
    """
    packages()
    model, reasons = models[0], []
    size = picture.shape[:2] if model.resize == "none" else model.size
    one_size_only = any(model.network.frames.only for model in models)
    for way in WAYS:
        if way.any_size and one_size_only:
            continue
        try:
            _export(path, models, _frames(picture, size, 2), way)
            _prove(path, models, picture, [size, *(_other_sizes(size) if way.any_size else ())])
        except UserError:
            raise
        except Exception as error:  # exporters, onnxruntime and networks raise anything; the next way is tried
            reasons.append(f"{way}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
            print(f"  not by {reasons[-1]}", flush=True)
        else:
            return way
    raise UserError(
        f"This network cannot be written as ONNX by torch {torch.__version__}. Nothing was left. The ways that were "
        "tried:" + "".join(f"\n  {reason}" for reason in reasons)
    )


def _export(path: Path, models: list[Model], frames: np.ndarray, way: Way) -> None:
    if not way.tracing:
        try:
            import onnxscript  # noqa: F401 (torch's second exporter imports it)
        except ImportError as error:
            raise UserError(
                f"This network needs torch's second ONNX exporter, and that onnxscript: {INSTALL}"
            ) from error
    graph = Graph([model.network for model in models], models[0].spec.task, way.any_size).eval()
    axes = {0: "batch", 1: "height", 2: "width"} if way.any_size else {0: "batch"}
    moved = {0: 0, 1: 2, 2: 3}  # the input has its channels last
    how: dict[str, Any] = {"dynamo": not way.tracing}
    if way.tracing:
        how["dynamic_axes"] = {INPUT: axes, OUTPUT: {moved[axis]: name for axis, name in axes.items()}}
    else:
        how |= {"dynamic_shapes": ({0: torch.export.Dim("batch")},), "external_data": False, "verbose": False}
    with _quiet():
        torch.onnx.export(
            graph,
            (torch.from_numpy(frames),),
            str(path),
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            **how,
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' warnings, and the graph that the tracing one prints on failure; its exception is kept.

    The graph is printed from C++, past sys.stdout, so the process's own output is redirected.
    """
    before, libc = logging.root.manager.disable, ctypes.CDLL(None if os.name == "posix" else "msvcrt")
    logging.disable(logging.WARNING)
    sys.stdout.flush()
    libc.fflush(None)
    kept = os.dup(1)
    try:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere, warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            os.dup2(nowhere.fileno(), 1)
            with contextlib.redirect_stdout(nowhere):
                yield
    finally:
        libc.fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
        logging.disable(before)


def _frames(picture: np.ndarray, size: tuple[int, int], count: int) -> np.ndarray:
    """Return a batch of the picture at `size`, each as it is or flipped: uint8 (count, h, w, channels)."""
    frame = image_to_network(picture, size, "stretch")
    views = frame, frame[::-1], frame[:, ::-1]
    return np.stack([views[index % 3] for index in range(count)])


def _other_sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Return other sizes: turned, larger, smaller, and one whose sides are no multiples of 32."""
    height, width = size
    small = max(DIVISOR, height // 2), max(DIVISOR, width // 2)
    turned = (width, height) if width != height else (height + DIVISOR, width)
    return [turned, (height + 2 * DIVISOR, width + DIVISOR), small, (small[0] + 5, small[1] + 19)]


def _prove(path: Path, models: list[Model], picture: np.ndarray, sizes: list[tuple[int, int]]) -> None:
    """Raise ArithmeticError where the file disagrees with the networks; onnxruntime's own errors pass through."""
    session = open_session(path)
    for number, size in enumerate(sizes):
        for count in (1, 2, 3) if number == 0 else (1,):
            frames = _frames(picture, size, count)
            expected, found = by_torch(models, frames), ask(session, frames)
            if found.shape != expected.shape:
                raise ArithmeticError(f"{count} x {size[0]} x {size[1]}: {found.shape} for {expected.shape}")
            largest = float(np.abs(found - expected).max())
            if not largest <= TOLERANCE:  # NaN is no agreement
                raise ArithmeticError(f"{largest:.2g} off the network's probability at {size[0]} x {size[1]}")


@torch.inference_mode()
def by_torch(models: list[Model], frames: np.ndarray) -> np.ndarray:
    """Return the same as `ask`, by the networks themselves, each with its own padding."""
    x = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    views = tta.views("none")
    parts = [tta.predict(model.network, x, model.spec.task, views).numpy() for model in models]
    return np.mean(parts, axis=0)


def describe(path: Path, values: dict[str, Any]) -> None:
    """Write `values` into the file's metadata, texts as they are and the rest as JSON; check the file."""
    onnx, _ = packages()
    model = onnx.load(str(path))
    onnx.helper.set_model_props(
        model, {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    )
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
