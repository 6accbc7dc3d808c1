"""Shipped models -> image -> probabilities at the original size. Reads only model.json and model.safetensors."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import dataspec
import images
import model_dispatcher
import runs
import tta as tta_module
from dataspec import DataSpec
from errors import UserError


@dataclass(frozen=True)
class Model:
    """One shipped network with its geometry; `about` is its model.json."""

    network: torch.nn.Module
    spec: DataSpec
    size: tuple[int, int]
    resize: str
    folder: Path
    about: dict[str, Any]


def load(folder: Path, device: str = "cpu") -> Model:
    """The model of a run folder, in eval mode on `device`. Raises UserError where it is broken or has been changed."""
    cure = "Train it again: make train ... OVERWRITE=1"
    about, weights = runs.read_model(folder), folder / runs.WEIGHTS
    if not weights.is_file():
        raise UserError(f"{weights}: no such file. {cure}")
    spec = dataspec.from_json(about["data"], str(folder / runs.MODEL))
    try:
        parts = about["network"]
        (height, width), resize, expected = parts["IMAGE_SIZE"], parts["RESIZE"], about["weights_sha256"]
        size = int(height), int(width)
        if resize not in images.RESIZES:
            raise ValueError(f"RESIZE {resize}")
        network = model_dispatcher.build(
            str(parts["MODEL_NAME"]),
            classes=len(spec.classes),
            channels=spec.channels,
            mean=tuple(map(float, parts["MODEL_MEAN"])),
            std=tuple(map(float, parts["MODEL_STD"])),
            max_features=int(parts.get("MAX_FEATURES", 512)),  # models of before it was a setting have no such network
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{folder / runs.MODEL} lacks or has a wrong value ({error}). {cure}") from error
    if runs.sha256(weights) != expected:
        raise UserError(
            f"{weights} is not the file that {runs.MODEL} beside it describes (cut off, or exchanged). {cure}"
        )
    try:
        network.load_state_dict(model_dispatcher.read_weights(weights))
    except RuntimeError as error:
        raise UserError(f"{weights} does not fit {parts['MODEL_NAME']}: {str(error)[:200]}") from error
    network.eval().to(device, memory_format=torch.channels_last)
    return Model(network, spec, size, resize, folder, about)


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

    half: 16-bit autocast, for CUDA only. tta, tta_mean: the views that each model's answer is a mean over, by the names
    of tta.views, and the kind of mean (tta.MEANS). Raises UserError for other names, and for models that do not go
    together.
    """

    def __init__(
        self,
        models: list[Model],
        device: str = "cpu",
        batch_size: int = 8,
        half: bool = False,
        tta: str = "none",
        tta_mean: str = "probability",
    ) -> None:
        _refuse_mixed_tables(models)
        tta_module.refuse_mean(tta_mean)
        self.models, self.device, self.batch_size, self.half = models, device, batch_size, half
        self.tta, self.tta_mean, self.views = tta_module.canonical(tta), tta_mean, tta_module.views(tta)
        self.spec = models[0].spec

    def about(self) -> dict[str, Any]:
        """How the models are asked, JSON-ready: tta, tta_mean and the [height, width, resize] of each model's frame.

        What is the same is said the same: d4+scales for scales+d4, and of a single view no other mean than the default.
        """
        sizes = [[*model.size, model.resize] for model in self.models]
        mean = self.tta_mean if len(self.views) > 1 else tta_module.MEANS[0]
        return {"tta": self.tta, "tta_mean": mean, "sizes": sizes}

    def predict(
        self, paths: Iterable[Path], max_pixels: int = 100_000_000
    ) -> Iterator[tuple[Path, np.ndarray, np.ndarray]]:
        """Yield (path, image uint8 (H, W, channels), probabilities float32 (C, H, W)) in order.

        Decoding runs ahead in threads; no more than a few batches are in memory at a time.
        """
        batch: list[tuple[Path, np.ndarray]] = []
        for path, image in _read_ahead(paths, self.spec, max_pixels, 2 * self.batch_size):
            if batch and (len(batch) == self.batch_size or not self._same_frame(batch[0][1], image)):
                yield from self._predict_batch(batch)
                batch = []
            batch.append((path, image))
        if batch:
            yield from self._predict_batch(batch)

    def _same_frame(self, first: np.ndarray, second: np.ndarray) -> bool:
        """Whether two images may share a batch: with RESIZE=none only equal sizes do."""
        return first.shape == second.shape or all(model.resize != "none" for model in self.models)

    def _predict_batch(self, batch: list[tuple[Path, np.ndarray]]) -> Iterator[tuple[Path, np.ndarray, np.ndarray]]:
        classes = len(self.spec.classes)
        sums = [np.zeros((classes, *image.shape[:2]), np.float32) for _, image in batch]
        for model in self.models:
            frames = [images.image_to_network(image, model.size, model.resize) for _, image in batch]
            probabilities = self._forward(model, np.stack(frames))
            for position, (_, image) in enumerate(batch):
                for index, probability in enumerate(probabilities[position]):
                    sums[position][index] += images.from_network(probability, image.shape[:2], model.size, model.resize)
        for (path, image), total in zip(batch, sums, strict=True):
            yield path, image, total / len(self.models)

    @torch.inference_mode()
    def _forward(self, model: Model, frames: np.ndarray) -> np.ndarray:
        """uint8 (N, h, w, channels) -> float32 probabilities (N, C, h, w)."""
        x = torch.from_numpy(frames).to(self.device).permute(0, 3, 1, 2).float().div_(255)
        x = x.contiguous(memory_format=torch.channels_last)
        try:
            answer = tta_module.predict(
                lambda view: self._logits(model, view), x, self.spec.task, self.views, self.tta_mean
            )
        except Exception as error:  # networks raise what they like
            self._refuse_fixed_size(model, x, error)
            raise
        return answer.cpu().numpy()

    def _logits(self, model: Model, x: Tensor) -> Tensor:
        """float32 (N, channels, h, w) in [0, 1] -> float32 logits (N, C, h, w)."""
        with torch.autocast(self.device, torch.float16, enabled=self.half):
            logits = model.network(x)
        return logits.float()

    def _refuse_fixed_size(self, model: Model, x: Tensor, error: Exception) -> None:
        """Raise UserError where the model failed because it does not take images of the views' sizes."""
        refused = tta_module.refused_sizes(model.network, x.shape, self.views)
        if refused:
            sizes = ", ".join(f"{height} x {width}" for height, width in refused)
            raise UserError(
                f"TTA={self.tta}: the model of {model.folder} takes images of {x.shape[-2]} x {x.shape[-1]}, and does "
                f"not take the views of {sizes} (its encoder is for one size only). TTA=flips keeps the size."
            ) from error


def _read_ahead(
    paths: Iterable[Path], spec: DataSpec, max_pixels: int, ahead: int
) -> Iterator[tuple[Path, np.ndarray]]:
    """Decode `paths` in threads, in order, at most `ahead` images before they are asked for."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting: deque = deque()
        for path in paths:
            waiting.append((path, pool.submit(spec.read_image, path, max_pixels)))
            if len(waiting) >= ahead:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()


def describe(models: list[Model]) -> list[dict[str, Any]]:
    """What a prediction folder's manifest says of its models."""
    keys = ("experiment", "fold", "seed", "weights", "weights_sha256", "folds_sha256")
    return [{"folder": str(model.folder), **{key: model.about.get(key) for key in keys}} for model in models]
