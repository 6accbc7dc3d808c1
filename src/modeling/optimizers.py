"""Names -> optimizers and learning rate schedules, each a pure function of the step wherever it can be."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LinearLR, LRScheduler, ReduceLROnPlateau

OPTIMIZERS = ("adam", "adamw", "sgd", "radam", "nadam")
SCHEDULES = ("cosine", "restarts", "onecycle", "poly", "constant", "plateau")
POWER = 0.9  # of poly (Chen et al. 2017, DeepLab)
ONECYCLE_START = 1 / 25  # share of the peak that onecycle begins with (Smith and Topin 2019; torch's default)
PLATEAU_FACTOR = 0.5


@dataclass(frozen=True)
class Optimization:
    """The optimizer, and how large its steps are."""

    lr: float  # the peak, after the warm-up
    encoder_lr: float = 1.0  # the encoder's share of it
    optimizer: str = "adamw"  # one of OPTIMIZERS
    momentum: float = 0.9  # of sgd
    weight_decay: float = 1e-2  # not on norms and biases


@dataclass(frozen=True)
class Schedule:
    """How the learning rate changes from step to step."""

    name: str = "cosine"  # one of SCHEDULES
    warmup: float = 0.1  # share of all steps over which the rate rises
    cycles: int = 1  # of restarts
    patience: int = 2  # epochs without a better Dice before plateau halves the rate


def parameter_groups(network: nn.Module, optimization: Optimization) -> list[dict[str, Any]]:
    """Return the optimizer's groups: encoder (at its share of the rate) and the rest, each split by weight decay.

    Norms and biases (1-D) have no weight decay. The encoder is what the network's body calls `encoder`; a network
    without one has the rest only.
    """
    encoder = getattr(getattr(network, "body", network), "encoder", None)
    inside = {id(parameter) for parameter in encoder.parameters()} if encoder is not None else set()
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        groups.setdefault((id(parameter) in inside, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": optimization.lr * (optimization.encoder_lr if of_encoder else 1.0),
            "weight_decay": optimization.weight_decay if decayed else 0.0,
        }
        for (of_encoder, decayed), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def make_optimizer(
    optimization: Optimization, groups: list[dict[str, Any]], fusible: bool = True
) -> torch.optim.Optimizer:
    """Return the optimizer over `groups`; sgd's momentum is Nesterov's. `fusible`: one kernel may do the whole step.

    Weight decay is decoupled (Loshchilov and Hutter 2019) but for adam and sgd, where torch adds it to the gradient.
    """
    name, lr, momentum = optimization.optimizer, optimization.lr, optimization.momentum
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0)
    if name in ("radam", "nadam"):
        kind = torch.optim.RAdam if name == "radam" else torch.optim.NAdam
        return kind(groups, lr=lr, decoupled_weight_decay=True)
    # one pass over the memory takes half the time of a CPU's step; a GPU's is short as it is
    fused = (fusible and groups[0]["params"][0].device.type == "cpu") or None
    optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name](groups, lr=lr, fused=fused)
    optimizer.register_load_state_dict_pre_hook(lambda _, state: _as_today(state, fused))
    return optimizer


def _as_today(state: dict[str, Any], fused: bool | None) -> dict[str, Any]:
    """Return an optimizer's state with today's kernel: a run may go on on another device or in another precision."""
    return {**state, "param_groups": [{**group, "fused": fused} for group in state["param_groups"]]}


def factor(name: str, step: int, total: int, warmup: float, cycles: int = 1) -> float:
    """Return the share of the peak rate at optimizer step `step` of `total`, 0 to 1; of all schedules but plateau.

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


def make_schedule(schedule: Schedule, optimizer: torch.optim.Optimizer, total: int) -> LRScheduler:
    """Return what sets the rate at each of `total` steps; plateau's is its warm-up."""
    if schedule.name != "plateau":
        return LambdaLR(optimizer, lambda step: factor(schedule.name, step, total, schedule.warmup, schedule.cycles))
    rise = max(1, round(schedule.warmup * total))
    return LinearLR(optimizer, 1 / rise, total_iters=rise - 1)


def make_plateau(optimizer: torch.optim.Optimizer, patience: int) -> ReduceLROnPlateau:
    """Return what halves the rate whenever the Dice that its `step` is given has not risen for `patience` epochs.

    It multiplies the present rate, as the warm-up does, so they do not overwrite each other.
    """
    return ReduceLROnPlateau(optimizer, mode="max", factor=PLATEAU_FACTOR, patience=patience)
