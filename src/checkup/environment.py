"""What the training runs on: versions against requirements.txt, device and precision, cores, the encoder's weights."""

import importlib.util
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from checkup.findings import Finding, problem, warning
from tools import threads
from tools.errors import UserError
from training import weights_origin
from training.run_record import installed

if TYPE_CHECKING:
    from settings import Settings

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements.txt"
NEEDED = {  # what a training imports, by the names of PyPI
    "torch": "torch",
    "torchvision": "torchvision",
    "pytorch-lightning": "pytorch_lightning",
    "segmentation-models-pytorch": "segmentation_models_pytorch",
    "timm": "timm",
    "safetensors": "safetensors",
    "albumentations": "albumentations",
    "opencv-python-headless": "cv2",  # or another of OpenCV's packages
    "pillow": "PIL",
    "numpy": "numpy",
    "pandas": "pandas",
    "scikit-learn": "sklearn",
    "scipy": "scipy",
    "matplotlib": "matplotlib",
    "tqdm": "tqdm",
}
MALWARE = ((2, 6, 2), (2, 6, 3))  # of Lightning on PyPI (GHSA-w37p-236h-pfx3)
UNSAFE = (2, 6, 5)  # and older: a checkpoint can run code (CVE-2026-58659)
OLDEST_TORCH = (2, 10)  # that the code was run on
PYTHONS = ((3, 11), (3, 13))


def pinned(path: Path = REQUIREMENTS) -> dict[str, str]:
    """Read the version of each `name==version` line; {} without the file."""
    if not path.is_file():
        return {}
    found = re.findall(r"^([\w.-]+)==([^\s#]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {name.lower(): version for name, version in found}


def _numbers(version: str) -> tuple[int, ...]:
    """Turn 2.15.0+cpu into (2, 15, 0)."""
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def lightning() -> Finding:
    """Say whether Lightning is one that may be imported at all; looked up before anything imports it."""
    have = {name: installed(name) for name in ("pytorch-lightning", "lightning")}
    bad = [f"{name} {version}" for name, version in have.items() if _numbers(version) in MALWARE]
    cure = "pip install 'pytorch-lightning>=2.6.6'"
    if bad:
        return problem(
            "Lightning",
            f"{' and '.join(bad)} was malware on PyPI (GHSA-w37p-236h-pfx3): it runs code of a stranger when it is "
            f"imported. Remove it, change the passwords and tokens of this account, and {cure}. Not imported here.",
        )
    version = have["pytorch-lightning"]
    if not version:
        return problem("Lightning", f"pytorch-lightning is not installed: {cure}")
    if _numbers(version) <= UNSAFE:
        return warning(
            "Lightning", f"{version}: a checkpoint of a stranger can run code (CVE-2026-58659, up to 2.6.5): {cure}"
        )
    return Finding("Lightning", f"{version}, neither malware (2.6.2, 2.6.3) nor open to CVE-2026-58659 (up to 2.6.5)")


def versions(settings: "Settings") -> Iterator[Finding]:
    """Compare Python and the packages with requirements.txt."""
    python = platform.python_version()
    supported = PYTHONS[0] <= _numbers(python)[:2] <= PYTHONS[1]
    spoken = " to ".join(".".join(map(str, version)) for version in PYTHONS)
    yield Finding("Python", python) if supported else warning("Python", f"{python}; the tests run on {spoken}")
    needed = dict(NEEDED)
    needed |= {"tensorboard": "tensorboard"} if settings.LOGGER == "tensorboard" else {}
    needed |= {"wandb": "wandb"} if settings.LOGGER == "wandb" else {}
    needed |= {"kornia": "kornia"} if settings.AUGMENT_ON == "device" else {}
    missing = [name for name, module in needed.items() if importlib.util.find_spec(module) is None]
    if missing:
        yield problem("packages", f"not installed: {', '.join(missing)}. pip install {' '.join(missing)}")
    have, pins = {name: installed(name) for name in needed}, pinned()
    shown = ("torch", "segmentation-models-pytorch", "albumentations")
    said = ", ".join(f"{name} {have[name]}" for name in shown if have[name])
    differ = [
        f"{name} {version}, requirements.txt has {pins[name]}"
        for name, version in have.items()
        if version and name in pins and _numbers(version) != _numbers(pins[name])
    ]
    if not pins:
        yield warning(
            "versions", f"{said}; there is no {REQUIREMENTS.name} to compare them with", figures={"installed": have}
        )
    elif differ:
        yield warning(
            "versions", f"{said}; {len(differ)} differ from those that the tests run with", differ, {"installed": have}
        )
    else:
        yield Finding("versions", f"{said}: all as in requirements.txt", figures={"installed": have})
    if have["torch"] and _numbers(have["torch"])[:2] < OLDEST_TORCH:
        yield warning("torch", f"{have['torch']} is older than {'.'.join(map(str, OLDEST_TORCH))}, the oldest tried")


def device(settings: "Settings") -> Iterator[Finding]:
    """Report the device, the precision with its reason, cores and workers."""
    import torch

    from loading.datamodule import workers
    from tools.hardware import choose_device, choose_precision

    try:
        chosen = choose_device(settings.DEVICE)
        precision, reason = choose_precision(settings.PRECISION, chosen)
        if chosen == "cpu" and settings.PRECISION == "auto":
            reason = "until a training tries bf16, once for the experiment (see precision below)"
    except UserError as error:
        yield problem("device", str(error))
        return
    if chosen == "cuda":
        about = torch.cuda.get_device_properties(0)
        name = f"{about.name}, {about.total_memory / 1e9:.0f} GB"
        yield Finding("device", f"{name}; precision {precision}: {reason}", figures={"device": chosen})
    else:
        here = f"{chosen}; precision {precision}: {reason}"
        what = "no GPU was found" if settings.DEVICE == "auto" and chosen == "cpu" else f"DEVICE={settings.DEVICE}"
        yield Finding("device", f"{here}; {what}", figures={"device": chosen})
    cores, allowed, count = os.cpu_count() or 1, _allowed_cores(), workers(settings.WORKERS)
    text = f"{cores}" + (f", of which this process may use {allowed:g}" if allowed < cores else "")
    text += f"; {count} loader processes (WORKERS={settings.WORKERS})"
    if count > allowed + 0.5:
        yield warning("cores", f"{text}: more than cores, they wait for each other. WORKERS={max(1, int(allowed))}")
    else:
        yield Finding("cores", text, figures={"cores": cores, "allowed": allowed, "workers": count})


def _allowed_cores() -> float:
    """Cores that the affinity mask and a container's quota leave."""
    cores = float(threads.cores())
    quota = Path("/sys/fs/cgroup/cpu.max")  # cgroup v2: "200000 100000" is two cores, "max 100000" all
    if quota.is_file():
        allowed, _, period = quota.read_text().strip().partition(" ")
        if allowed.isdecimal() and period.isdecimal():
            cores = min(cores, int(allowed) / int(period))
    return cores


def encoder_weights(settings: "Settings") -> Finding:
    """Say whether the encoder's weights are here; nothing is downloaded, the server is asked for 1.5 s at most."""
    import model_dispatcher
    from modeling import encoder_weights as weights
    from modeling import weights_source

    name = "encoder weights"
    if settings.INIT:
        return Finding(
            name, f"INIT={settings.INIT}: the whole network begins as its models, whatever ENCODER_WEIGHTS say"
        )
    try:
        _, encoder = model_dispatcher.parse(settings.MODEL_NAME)
        if settings.ENCODER_WEIGHTS == "none":
            return Finding(name, "ENCODER_WEIGHTS=none: random ones, nothing is fetched")
        if settings.ENCODER_WEIGHTS != "imagenet":
            file = _existing(settings.ENCODER_WEIGHTS)
            return _with_origin(name, f"{file}, {len(weights.read_weights(file))} tensors", file, settings.LOGS)
        if not encoder:
            raise UserError("ENCODER_WEIGHTS=imagenet: MODEL_NAME=unet has none; say ENCODER_WEIGHTS=none.")
        source = weights_source.find(encoder, settings.WEIGHTS)
        if source.kind == "packed":
            weights.read_weights(source.place)
            return _with_origin(name, f"ImageNet's of {encoder}: {source.said}", source.place, settings.LOGS)
        if source.kind == "package":
            weights_source.read_package(encoder)
        if source.kind != "hub":
            return Finding(name, f"ImageNet's of {encoder}: {source.said}")
    except UserError as error:
        return problem(name, str(error))
    if weights.hub_is_offline() and not encoder.startswith("tv-"):
        what = "are not in the hub's cache, and HF_HUB_OFFLINE keeps it offline"
        return problem(name, weights.ways_out(encoder, source.place, what))
    return warning(
        name,
        f"ImageNet's of {encoder} are not packed here; the training fetches them, and needs the network when it starts."
        " make weights packs them.",
    )


def _with_origin(name: str, text: str, file: Path, logs: str) -> Finding:
    origin = weights_origin.of_file(file, logs)
    if weights_origin.is_unknown(origin):
        return warning(name, f"{text}; {origin}: whatever is scored will be marked so")
    return Finding(name, f"{text}; {origin}")


def _existing(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise UserError(f"ENCODER_WEIGHTS={text}: no such file; expected imagenet, none, or a .safetensors or .pth.")
    return path
