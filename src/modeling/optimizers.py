"""Names -> optimisers and learning rate schedules, each a pure function of the step wherever it can be."""

import math
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LinearLR, ReduceLROnPlateau

OPTIMISERS = ("adam", "adamw", "sgd", "radam", "nadam")
SCHEDULES = ("cosine", "restarts", "onecycle", "poly", "constant", "plateau")
POWER = 0.9  # of poly (Chen et al. 2017, DeepLab)
ONECYCLE_START = 1 / 25  # share of the peak that onecycle begins with (Smith and Topin 2019; torch's default)
PLATEAU_FACTOR = 0.5


def parameter_groups(network: nn.Module, lr: float, encoder_lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Optimiser groups: encoder (at `encoder_lr` times `lr`) and the rest, each split by weight decay.

    Norms and biases (1-D) have no weight decay. The encoder is what the network's body calls `encoder`; a network
    without one has the rest only.
    """
    encoder = getattr(getattr(network, "body", network), "encoder", None)
    inside = {id(parameter) for parameter in encoder.parameters()} if encoder is not None else set()
    groups: dict[tuple[bool, bool], list] = {}
    for parameter in network.parameters():
        groups.setdefault((id(parameter) in inside, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": lr * (encoder_lr if of_encoder else 1.0),
            "weight_decay": weight_decay if decayed else 0.0,
        }
        for (of_encoder, decayed), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def make_optimiser(
    name: str, groups: list[dict[str, Any]], lr: float, momentum: float, fusible: bool = True
) -> torch.optim.Optimizer:
    """One of OPTIMISERS over `groups`; `momentum` is SGD's (Nesterov's). `fusible`: one kernel may do the whole step.

    Weight decay is decoupled (Loshchilov and Hutter 2019) but for adam and sgd, where torch adds it to the gradient.
    """
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0)
    if name in ("radam", "nadam"):
        kind = torch.optim.RAdam if name == "radam" else torch.optim.NAdam
        return kind(groups, lr=lr, decoupled_weight_decay=True)
    # one pass over the memory takes half the time of a CPU's step; a GPU's is short as it is
    fused = (fusible and groups[0]["params"][0].device.type == "cpu") or None
    optimiser = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name](groups, lr=lr, fused=fused)
    optimiser.register_load_state_dict_pre_hook(lambda _, state: _as_today(state, fused))
    return optimiser


def _as_today(state: dict[str, Any], fused: bool | None) -> dict[str, Any]:
    """An optimiser's state with today's choice of kernel: a run may go on on another device or in another precision."""
    return {**state, "param_groups": [{**group, "fused": fused} for group in state["param_groups"]]}


def factor(name: str, step: int, total: int, warmup: float, cycles: int = 1) -> float:
    """Share of the peak learning rate at optimiser step `step` of `total`, 0 to 1; all schedules but plateau.

    A rise over the share `warmup` (linear; onecycle's is a cosine from a 25th), then: cosine to zero; `restarts`, that
    cosine `cycles` times (Loshchilov and Hutter 2017); onecycle, a cosine to a 250,000th; poly, (1 - t)^0.9; constant.
    """
    rise = max(1, round(warmup * total))
    if step < rise:
        if name == "onecycle":
            return ONECYCLE_START + (1 - ONECYCLE_START) * 0.5 * (1 - math.cos(math.pi * step / rise))
        return (step + 1) / rise
    t = min(1.0, (step - rise) / max(1, total - rise))
    if name == "constant":
        return 1.0
    if name == "poly":
        return (1 - t) ** POWER
    if name == "restarts":
        t = 1.0 if t == 1.0 else t * cycles % 1.0
    low = ONECYCLE_START * 1e-4 if name == "onecycle" else 0.0
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * t))


def make_schedule(
    name: str, optimiser: torch.optim.Optimizer, total: int, *, warmup: float, cycles: int
) -> list[dict[str, Any]]:
    """Lightning's scheduler configuration for one of SCHEDULES over `total` steps; plateau's is its warm-up."""
    if name != "plateau":
        schedule = LambdaLR(optimiser, lambda step: factor(name, step, total, warmup, cycles))
        return [{"scheduler": schedule, "interval": "step"}]
    rise = max(1, round(warmup * total))
    return [{"scheduler": LinearLR(optimiser, 1 / rise, total_iters=rise - 1), "interval": "step"}]


def make_plateau(optimiser: torch.optim.Optimizer, patience: int) -> ReduceLROnPlateau:
    """Halves the rate whenever the Dice that `step` is given has not risen for `patience` epochs.

    It multiplies the present rate, as the warm-up does, so they do not overwrite each other.
    """
    return ReduceLROnPlateau(optimiser, mode="max", factor=PLATEAU_FACTOR, patience=patience)
