"""Images -> the mean probabilities of shipped models, at the images' original size."""

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from formats import images
from formats.resize import from_network
from prediction import tiles
from prediction import tta as tta_module
from prediction.shipped_model import Model
from tools import run_folders, threads
from tools.errors import NotFiniteError, UserError

Decoded = tuple[Path, tuple[int, int], list[np.ndarray]]  # path, (H, W), a frame (h, w, channels) a geometry
Answered = tuple[Path, tuple[int, int], list[np.ndarray]]  # path, (H, W), probabilities (C, h, w) a model
Half = Literal["", "16", "bf16"]
KINDS = {"": torch.float32, "16": torch.float16, "bf16": torch.bfloat16}
BATCH_BYTES = 256 << 20  # of images at their own size, as answers come: large ones come in smaller batches
Finish = Callable[[Path, np.ndarray], Any]  # path, probabilities (C, H, W) -> what is kept
Unreadable = Callable[[Path, UserError], Any]  # path, why it cannot be read -> what takes its place


@dataclass(frozen=True)
class _Unread:
    """An image that cannot be read, in its place among the others, and why."""

    path: Path
    error: UserError


def _refuse_mixed_tables(models: list[Model]) -> None:
    tables = {model.about.get("folds_sha256") for model in models}
    if len(tables) > 1:
        folders = ", ".join(str(model.folder) for model in models)
        raise UserError(f"These models were trained on {len(tables)} different folds tables: {folders}.")
    if len({model.spec for model in models}) > 1:
        folders = ", ".join(str(model.folder) for model in models)
        raise UserError(f"These models do not agree on the data's task, classes or channels: {folders}.")


class Predictor:
    """The mean probability of one or more models, image by image, in batches of equal size.

    devices: one, or several that share the batches ("cuda:0", "cuda:1"); each has the models by itself. half: "" for
    32 bits, or autocast to "16" (fp16, CUDA's) or "bf16". tta, tta_mean: the views that each model's answer is a mean
    over, by the names of tta.views, and the kind of mean (tta.MEANS). tile, overlap: see tiles.predict; 0 is the whole
    frame at once. Raises UserError for other names, and for models that do not go together.
    """

    def __init__(
        self,
        models: list[Model],
        devices: str | Sequence[str] = "cpu",
        batch_size: int = 8,
        half: Half = "",
        tta: str = "none",
        tta_mean: str = "probability",
        tile: int = 0,
        overlap: float = 0.25,
    ) -> None:
        _refuse_mixed_tables(models)
        tta_module.refuse_mean(tta_mean)
        tiles.refuse(tile, overlap)
        self.models, self.batch_size, self.half = models, batch_size, half
        self.devices = [devices] if isinstance(devices, str) else list(devices)
        self.tta, self.tta_mean, self.views = tta_module.canonical(tta), tta_mean, tta_module.views(tta)
        self.tile, self.overlap = tile, overlap
        self.spec = models[0].spec
        self.frames = list(dict.fromkeys((model.size, model.resize) for model in models))
        self._networks = [[_placed(model.network, device) for model in models] for device in self.devices]

    def about(self) -> dict[str, Any]:
        """Return how models are asked, JSON-ready: tta, tta_mean, tiles, each model's frame [height, width, resize].

        What is the same is said the same: d4+scales for scales+d4, of a single view no other mean than the default, and
        no tiles where every frame fits into one.
        """
        sizes = [[*model.size, model.resize] for model in self.models]
        mean = self.tta_mean if len(self.views) > 1 else tta_module.MEANS[0]
        fits = all(resize != "none" and max(size) <= self.tile for size, resize in self.frames)
        cut = {"tile": self.tile, "overlap": self.overlap} if self.tile and not fits else {}
        return {"tta": self.tta, "tta_mean": mean, "sizes": sizes, **cut}

    def predict(
        self,
        paths: Iterable[Path],
        max_pixels: int = 100_000_000,
        finish: Finish | None = None,
        part: int = 0,
        unreadable: Unreadable | None = None,
    ) -> Iterator[Any]:
        """Yield (path, probabilities float32 (C, H, W)) in order, or what `finish` makes of the two.

        Decoding runs ahead and `finish` behind, in threads, beside the network; no more than a few batches are in
        memory at a time, however many images there are. part: no batch goes beyond each so many images, because a
        network's last digits depend on the batch that an image is in. unreadable: what to yield in the place of an
        image that cannot be read; without it, such an image raises UserError.
        """
        with ExitStack() as stack:
            workers = [stack.enter_context(threads.pool(1)) for _ in self.devices]
            finishing = stack.enter_context(threads.pool())
            asked: deque[Future] = deque()
            done: deque[Future] = deque()

            def answered() -> None:
                for answer in asked.popleft().result():
                    if not isinstance(answer, _Unread):
                        path, shape, answers = answer
                        done.append(finishing.submit(self._finished, path, shape, answers, finish))
                    elif unreadable:
                        done.append(finishing.submit(unreadable, answer.path, answer.error))

            for number, batch in enumerate(self._batches(paths, max_pixels, part, strict=unreadable is None)):
                which = number % len(workers)
                asked.append(workers[which].submit(self._answers, self._networks[which], self.devices[which], batch))
                if len(asked) > len(workers):  # one at work and one waiting, of each device
                    answered()
                while len(done) > min(self.batch_size, len(batch)):
                    yield done.popleft().result()
            while asked:
                answered()
            while done:
                yield done.popleft().result()

    def _batches(
        self, paths: Iterable[Path], max_pixels: int, part: int, strict: bool
    ) -> Iterator[list[Decoded | _Unread]]:
        def decoded(path: Path) -> Decoded | _Unread:
            try:
                return path, *self.spec.read_frames(path, self.frames, max_pixels)
            except UserError as error:
                if strict:
                    raise
                return _Unread(path, error)

        paths, batch = list(paths), list[Decoded | _Unread]()
        for number, item in enumerate(threads.map_ahead(paths, decoded, self._in_flight(paths, max_pixels, strict))):
            read = _read([*batch, item])
            large = sum(height * width for _, (height, width), _ in read) * self.spec.channels > BATCH_BYTES
            full = large or len(batch) == self.batch_size or (part and number % part == 0)
            if batch and (full or not _same_frames(read)):
                yield batch
                batch = []
            batch.append(item)
        if batch:
            yield batch

    def _in_flight(self, paths: list[Path], max_pixels: int, strict: bool) -> int:
        """Return how many decoded images may wait: two batches; fewer of large ones, by the first that can be read."""
        for path in paths:
            try:
                height, width = images.read_size(path, max_pixels)
            except UserError:
                if strict:
                    raise
                continue
            return max(2, min(2 * self.batch_size, 2 * BATCH_BYTES // (height * width * self.spec.channels)))
        return 1

    def _answers(
        self, networks: list[torch.nn.Module], device: str, batch: list[Decoded | _Unread]
    ) -> list[Answered | _Unread]:
        """Return each image of the batch with each model's probabilities (C, h, w) in the model's frame."""
        read = _read(batch)
        if not read:
            return batch
        answers = [
            self._forward(model, network, device, np.stack([frames[self._frame_of(model)] for _, _, frames in read]))
            for model, network in zip(self.models, networks, strict=True)
        ]
        for model, answer in zip(self.models, answers, strict=True):
            if not np.isfinite(answer).all():  # as bytes they would be a mask like any other
                cure = "PRECISION=32 may help." if self.half else "Train it again."
                raise NotFiniteError(
                    f"{model.folder / run_folders.WEIGHTS} gives probabilities that are no numbers. {cure}"
                )
        places = iter(zip(*answers, strict=True))
        return [
            item if isinstance(item, _Unread) else (item[0], item[1], list(next(places)))  # in the images' order
            for item in batch
        ]

    def _frame_of(self, model: Model) -> int:
        return self.frames.index((model.size, model.resize))

    def _finished(self, path: Path, shape: tuple[int, int], answers: list[np.ndarray], finish: Finish | None) -> Any:
        mean = np.empty((len(self.spec.classes), *shape), np.float32)
        for number, (model, answer) in enumerate(zip(self.models, answers, strict=True)):
            for plane, probability in zip(mean, answer, strict=True):
                enlarged = from_network(probability, shape, model.size, model.resize, None if number else plane)
                if number:
                    np.add(plane, enlarged, out=plane)
        if len(self.models) > 1:
            mean /= len(self.models)
        return finish(path, mean) if finish else (path, mean)

    @torch.inference_mode()
    def _forward(self, model: Model, network: torch.nn.Module, device: str, frames: np.ndarray) -> np.ndarray:
        """Ask the network about uint8 (N, h, w, channels) -> float32 probabilities (N, C, h, w)."""

        def logits(x: Tensor) -> Tensor:
            with torch.autocast(torch.device(device).type, KINDS[self.half], enabled=bool(self.half)):
                return network(x).float()

        def probabilities(part: Tensor) -> Tensor:
            x = part.to(device).permute(0, 3, 1, 2).float().div_(255).contiguous(memory_format=torch.channels_last)
            try:
                return tta_module.predict(logits, x, self.spec.task, self.views, self.tta_mean)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # networks raise what they like
                self._refuse_fixed_size(model, network, x, error)
                raise

        def halved(part: Tensor) -> Tensor:
            try:
                return probabilities(part).cpu()
            except torch.OutOfMemoryError as error:
                if len(part) == 1:
                    raise UserError(
                        f"The memory of {device} does not hold one frame of {part.shape[1]} x {part.shape[2]} pixels; "
                        "TILE=512 predicts it in tiles, or a smaller one."
                    ) from error
                torch.cuda.empty_cache()
                return torch.cat([halved(half) for half in part.chunk(2)])

        x = torch.from_numpy(frames)
        if not self.tile or max(frames.shape[1:3]) <= self.tile:
            return halved(x).numpy()
        return tiles.predict(halved, x, self.tile, self.overlap, self.batch_size).numpy()

    def _refuse_fixed_size(self, model: Model, network: torch.nn.Module, x: Tensor, error: Exception) -> None:
        """Raise UserError where the model failed because it does not take images of the views' or the tiles' size."""
        size = tuple(x.shape[-2:])
        whole, cut = (tta_module.takes(network, (*x.shape[:2], *part)) for part in (model.size, size))
        if self.tile and whole and not cut:
            raise UserError(
                f"TILE={self.tile}: the model of {model.folder} takes images of {model.size[0]} x {model.size[1]} "
                "only, so its frame cannot be cut. Leave TILE out."
            ) from error
        refused = tta_module.refused_sizes(network, x.shape, self.views)
        if refused:
            sizes = ", ".join(f"{height} x {width}" for height, width in refused)
            raise UserError(
                f"TTA={self.tta}: the model of {model.folder} takes images of {x.shape[-2]} x {x.shape[-1]}, and does "
                f"not take the views of {sizes} (its encoder is for one size only). TTA=flips keeps the size."
            ) from error


def _placed(network: torch.nn.Module, device: str) -> torch.nn.Module:
    """Return the network on `device`; a device other than where it is gets a copy."""
    there = next((tensor.device for tensor in network.parameters()), torch.device(device))
    wanted = torch.device(device)
    same = there.type == wanted.type and (there.index or 0) == (wanted.index or 0)
    return network if same else copy.deepcopy(network).to(device)


def _read(batch: list[Decoded | _Unread]) -> list[Decoded]:
    """Return the images of a batch that could be read."""
    return [item for item in batch if not isinstance(item, _Unread)]


def _same_frames(read: list[Decoded]) -> bool:
    """Return whether images may share a batch: with RESIZE=none only those of equal size do."""
    return len({tuple(frame.shape for frame in frames) for _, _, frames in read}) <= 1
