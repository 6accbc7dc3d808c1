"""On a GPU: images a second, share of the bare step and memory of each way to train faster, alone and together.

python benchmarks/gpu.py [--batch 16] [--steps 30] [--output output]

EfficientNet-B4 U-Net at 512 px and resnet34 U-Net at 1024 px: fp32, TF32, fp16, bf16, channels_last, torch.compile and
device augmentation, each switched on alone and all together. The bare step is on a tensor that is already there;
"whole" has the loader beside it. Writes OUTPUT/gpu.json. About twenty minutes on one GPU.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import rendered
from timing import machine

import config
import model_dispatcher
from data.dataspec import DataSpec
from loading import augmentations, device_augmentations
from loading.cache import Cache, open_cache
from loading.datamodule import DataOrder, MaskDataModule, workers
from modeling.losses.loss_sum import Loss
from modeling.segmenter import Normalization
from tools.errors import UserError, command

NETWORKS = {"smp_unet_efficientnet-b4": 512, "smp_unet_resnet34": 1024}
WARMUP = 5  # steps that are not counted: cuDNN and the compiler try ways


@dataclass(frozen=True)
class Way:
    """Which of the switches are on. precision: 32 | tf32 | 16 | bf16."""

    precision: str = "32"
    channels_last: bool = False
    compiled: bool = False
    on_device: bool = False  # the augmentation


WAYS = {
    "fp32": Way(),
    "TF32": Way("tf32"),
    "fp16": Way("16"),
    "bf16": Way("bf16"),
    "channels_last": Way(channels_last=True),
    "torch.compile": Way(compiled=True),
    "device augmentation": Way(on_device=True),
    "fp16, channels_last": Way("16", channels_last=True),
    "fp16, channels_last, device augmentation": Way("16", channels_last=True, on_device=True),
    "all with fp16": Way("16", True, True, True),
    "all with bf16": Way("bf16", True, True, True),
}


class Training:
    """A network, its loss and its optimizer, under one way."""

    def __init__(self, name: str, way: Way, device: str) -> None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = way.precision == "tf32"
        torch.manual_seed(0)
        built = model_dispatcher.build(
            name, classes=1, channels=3, normalization=Normalization((0.5,) * 3, (0.2,) * 3), encoder_weights="none"
        )
        self.memory = torch.channels_last if way.channels_last else torch.contiguous_format
        self.network = built.to(device, memory_format=self.memory).train()
        self.step_network = torch.compile(self.network) if way.compiled else self.network
        self.loss, self.way, self.device = Loss("ce + dice", "binary", (0,), 1), way, device
        self.optimizer = torch.optim.AdamW(self.network.parameters())
        self.scaler = torch.amp.GradScaler(device, enabled=way.precision == "16")
        kinds = {"16": torch.float16, "bf16": torch.bfloat16}
        self.kind = kinds.get(way.precision)

    def step(self, images: torch.Tensor, masks: torch.Tensor) -> None:
        """images float in [0, 1] (N, 3, H, W), masks uint8 (N, 1, H, W), both on the device."""
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device, self.kind or torch.float16, enabled=self.kind is not None):
            logits = self.step_network(images.contiguous(memory_format=self.memory))
        self.scaler.scale(self.loss(logits.float(), masks)).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def bare(training: Training, batch: int, size: int, steps: int) -> float:
    """Images a second on a batch that is already there."""
    images = torch.rand(batch, 3, size, size, device=training.device)
    masks = (torch.rand(batch, 1, size, size, device=training.device) < 0.5).to(torch.uint8)
    for _ in range(WARMUP):
        training.step(images, masks)
    _wait(training.device)
    start = time.perf_counter()
    for _ in range(steps):
        training.step(images, masks)
    _wait(training.device)
    return batch * steps / (time.perf_counter() - start)


def whole(training: Training, loader: Any, augment: Any, batch: int, steps: int) -> float:
    """Images a second with the loader beside it, the transfer and, with `augment`, the device's augmentation."""
    done, start = 0, 0.0
    for epoch in range(1000):
        loader.batch_sampler.sampler.set_epoch(epoch)
        for index, part in enumerate(loader):
            images, masks = (part[name].to(training.device, non_blocking=True) for name in ("image", "mask"))
            if augment is not None:
                images, masks = augment(images, masks, (0, epoch, index))
            else:
                images = images.float().div_(255)
            training.step(images, masks)
            done += 1
            if done == WARMUP:
                _wait(training.device)
                start = time.perf_counter()
            if done == WARMUP + steps:
                _wait(training.device)
                return batch * steps / (time.perf_counter() - start)
    raise AssertionError("the loader is empty")


def measure(name: str, way: Way, cache: Cache, size: int, batch: int, steps: int, device: str) -> dict[str, Any]:
    """One row; "error" where a way does not work on this hardware or does not fit."""
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    augment = device_augmentations.make(config.AUGMENT, False, 3) if way.on_device else None
    data = MaskDataModule(
        cache,
        np.arange(len(cache)),
        np.arange(0),
        DataOrder(0, batch, batch),
        augment=None if way.on_device else augmentations.make(config.AUGMENT),
        num_workers=workers(-1),
    )
    try:
        training = Training(name, way, device)
        limit = bare(training, batch, size, steps)
        reached = whole(training, data.train_dataloader(), augment, batch, steps)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        return {"error": " ".join(str(error).split())[:160]}
    peak = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else float("nan")
    return {"bare": limit, "whole": reached, "share": reached / limit, "gigabytes": peak}


def text(found: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Markdown, a table a network."""
    parts = []
    for name, rows in found.items():
        parts.append(f"**{name}, {NETWORKS[name]} px**\n")
        parts.append("| way | images/s | of the bare step | x fp32 | GB |\n|" + " --- |" * 5)
        first = rows["fp32"].get("whole", float("nan"))
        for way, row in rows.items():
            if "error" in row:
                parts.append(f"| {way} | {row['error']} | | | |")
                continue
            cells = f"{row['whole']:.1f} | {row['share']:.2f} | {row['whole'] / first:.2f} | {row['gigabytes']:.1f}"
            parts.append(f"| {way} | {cells} |")
        parts.append("")
    return "\n".join(parts)


@command
def main(arguments: list[str] | None = None) -> None:
    """Measure every way of both networks, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--sizes", type=int, nargs=2, help="other sizes of the two networks, to try it out")
    parser.add_argument("--ways", nargs="+", choices=WAYS)
    parser.add_argument(
        "--cpu", action="store_true", help="to try it out, with small --sizes; the figures mean nothing"
    )
    parser.add_argument("--output", type=Path, default=Path("output"))
    given = parser.parse_args(arguments)
    device = "cpu" if given.cpu else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("There is no GPU here: this benchmark is for one. --cpu --sizes 64 64 only tries it out.")
    NETWORKS.update(dict(zip(NETWORKS, given.sizes or NETWORKS.values(), strict=True)))
    found: dict[str, dict[str, dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        pairs = sorted(rendered.competition(Path(folder, "in"), given.images, 1280, 1918))
        names = [tuple(str(path.relative_to(Path(folder, "in"))) for path in pair) for pair in pairs]
        for name, size in NETWORKS.items():
            cache = open_cache(Path(folder), Path(folder, "in"), names, (size, size), "stretch", 10**8, DataSpec())
            found[name] = {}
            for label in dict.fromkeys(["fp32", *(given.ways or WAYS)]):
                found[name][label] = measure(name, WAYS[label], cache, size, given.batch, given.steps, device)
                print(f"{name}, {size} px, {label}: {found[name][label]}", flush=True)
    given.output.mkdir(parents=True, exist_ok=True)
    about = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "batch": given.batch, "networks": found}
    (given.output / "gpu.json").write_text(json.dumps(about, indent=1) + "\n")
    print(f"\n{text(found)}\n-> {given.output / 'gpu.json'}")


if __name__ == "__main__":
    sys.exit(main())
