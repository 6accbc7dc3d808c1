"""What the network runs on and in which precision: chosen from the hardware, and said with the reason."""

import torch

from errors import UserError


def choose_device(wanted: str = "auto") -> str:
    """cuda, mps or cpu. Raises UserError where the wanted one is not at hand."""
    have = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(device for device, there in have.items() if there)
    if not have[wanted]:
        here = ", ".join(device for device, there in have.items() if there)
        raise UserError(f"DEVICE={wanted}: torch {torch.__version__} finds none on this computer; it has {here}.")
    return wanted


def choose_devices(wanted: str = "auto") -> list[str]:
    """Every GPU of this computer where `wanted` comes to cuda, else the one device. Raises UserError as the above."""
    device = choose_device(wanted)
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] if device == "cuda" else [device]


def choose_precision(wanted: str, device: str) -> tuple[str, str]:
    """Lightning's name of the precision and the reason for it, in a few words.

    16 on a CPU would silently become bfloat16, twelve times slower than 32 where the CPU has no such units: it is
    refused.
    """
    if wanted == "auto":
        if device == "cuda":
            return "16-mixed", "16 bits: the GPU's fast units"
        return "32-true", f"32 bits: 16 is not faster on {device}"
    if wanted == "16" and device != "cuda":
        raise UserError(f"PRECISION=16 needs a CUDA GPU, and this runs on {device}; use PRECISION=auto or 32.")
    return {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true"}[wanted], f"PRECISION={wanted}"


def limit_threads(count: int) -> None:
    """Let torch compute in so many threads: several processes share the cores. OMP_NUM_THREADS may ask for fewer."""
    torch.set_num_threads(min(count, torch.get_num_threads()))
