"""The device that the network runs on and its precision: chosen by the hardware, and reported with the reason."""

import shutil
from pathlib import Path
from typing import Literal

from tools.errors import UserError

Precision = Literal["16-mixed", "bf16-mixed", "32-true"]  # Lightning's names
NAMES: dict[str, Precision] = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true"}  # by PRECISION's
SHARED = Path("/dev/shm")  # where the loader's processes put their batches; 64 MB in a container, unless asked for more


def choose_device(wanted: str = "auto") -> str:
    """Return cuda, mps or cpu. Raises UserError where the wanted one is not available."""
    import torch

    have = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(device for device, there in have.items() if there)
    if not have[wanted]:
        here = ", ".join(device for device, there in have.items() if there)
        raise UserError(f"DEVICE={wanted}: torch {torch.__version__} finds none on this computer; it has {here}.")
    return wanted


def choose_devices(wanted: str = "auto") -> list[str]:
    """Return every GPU of this computer for cuda, else the one device. Raises UserError as `choose_device` does."""
    import torch

    device = choose_device(wanted)
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] if device == "cuda" else [device]


def choose_precision(wanted: str, device: str) -> tuple[Precision, str]:
    """Return Lightning's name of the precision and the reason for it, in a few words.

    auto on a CPU is 32 here; a training tries bfloat16 first (training.precision_trial). Refuse 16 on a CPU, with
    UserError: it would silently become bfloat16, twelve times slower than 32 on a CPU without bfloat16 units.
    """
    if wanted == "auto":
        if device == "cuda":
            return "16-mixed", "16 bits: the GPU's fast units"
        return "32-true", "32 bits" if device == "cpu" else f"32 bits: 16 is not faster on {device}"
    if wanted == "16" and device != "cuda":
        raise UserError(f"PRECISION=16 needs a CUDA GPU, and this runs on {device}; use PRECISION=auto or 32.")
    return NAMES[wanted], f"PRECISION={wanted}"


def limit_threads(count: int) -> None:
    """Limit torch to `count` threads where several processes share the cores; OMP_NUM_THREADS may ask for fewer."""
    import torch

    torch.set_num_threads(min(count, torch.get_num_threads()))


def fitting_processes(wanted: int, train_batch: int, valid_batch: int) -> tuple[int, str]:
    """Return how many of the `wanted` loader processes /dev/shm has room for, and a sentence where that is fewer.

    Batch sizes are in bytes. Training and validation take turns; each process prepares two batches ahead, and one more
    is in use; held-out images get half the processes (loading.datamodule). Without room a process is killed (SIGBUS).
    """
    room = int(shutil.disk_usage(SHARED).free * 0.95) if wanted and SHARED.is_dir() else 0

    def needs(processes: int) -> int:
        return max((2 * processes + 1) * train_batch, (2 * max(1, processes // 2) + 1) * valid_batch)

    fitting = next((count for count in range(wanted, 0, -1) if needs(count) <= room), 0)
    if fitting == wanted:
        return wanted, ""
    instead = f"{fitting} work instead" if fitting else "images are loaded in the training process instead"
    return fitting, (
        f"{SHARED} has {room / 1e6:.0f} MB to spare, and batches of WORKERS={wanted} may need "
        f"{needs(wanted) / 1e6:.0f}: {instead}, with the same result. In Docker: --shm-size=1g"
    )
