"""What a result came from beside its settings: code, packages, computer. Said in each run folder's run.json."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from tools import run_folders
from tools.files import digest_of

# what can change a training's numbers
PACKAGES = (
    "torch", "torchvision", "pytorch-lightning", "segmentation-models-pytorch", "timm", "albumentations", "kornia",
    "opencv-python-headless", "pillow", "simplejpeg", "numpy", "pandas", "scikit-learn", "scipy", "safetensors",
)  # fmt: skip


def installed(name: str) -> str:
    """Return the version of a distribution, "" where it is not installed; nothing is imported."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def versions() -> dict[str, str]:
    """Return Python's version and those of `PACKAGES`."""
    return {"python": platform.python_version(), **{name: installed(name) for name in PACKAGES}}


def _git(*words: str) -> str:
    """Return what git says of the repository that this code lies in; "" outside of one, or without git."""
    try:
        done = subprocess.run(
            ["git", *words],
            check=False,
            cwd=Path(__file__).parents[1],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def code() -> dict[str, Any]:
    """Return the git commit, the files that differ from it, and a hash of how they differ (tracked ones in src/)."""
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".").splitlines()
    dirt = digest_of([_git("diff", "HEAD", "--", ".")])[:16] if changed else ""
    return {"commit": _git("rev-parse", "HEAD").strip(), "changed": [line[3:] for line in changed], "changes": dirt}


def computer(device: str, precision: str, devices: int) -> dict[str, Any]:
    """Return the kind of device, how many, in what precision, and the processors that rounding depends on."""
    import torch

    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    return {
        "device": device,
        "devices": devices,
        "precision": precision,
        "processor": name,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }


def of_today(device: str, precision: str, devices: int, data_sha256: str, folds_sha256: str) -> dict[str, Any]:
    """Return all of it, as run.json has it beside `fold` and `settings`."""
    return {
        "code": code(),
        "versions": versions(),
        "computer": computer(device, precision, devices),
        "data_sha256": data_sha256,
        "folds_sha256": folds_sha256,
    }


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return what differs between two `run.json`, one line each: code, packages, computer, data, folds."""
    lines = []
    for part in ("code", "versions", "computer"):
        before, after = then.get(part, {}), now.get(part, {})
        lines += [f"{part}: {line}" for line in run_folders.differences(before, after)]
    for name in ("data_sha256", "folds_sha256"):
        if then.get(name) != now.get(name):
            lines.append(f"{name}: {str(then.get(name))[:16]} there, {str(now.get(name))[:16]} now")
    before, after = (part.get("begun_from", {}).get("sha256") for part in (then, now))
    if before and after and before != after:
        lines.append(f"the weights that it began with: {before[:16]} there, {after[:16]} now")
    return lines
