"""Optimisers and schedules: groups, shapes of the curves, and that each of them really learns."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from modeling import optimizers


class Encoded(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Conv2d(4, 1, 1)


def test_the_encoder_has_its_own_rate_and_norms_and_biases_are_not_decayed():
    groups = optimizers.parameter_groups(Encoded(), 1e-2, 0.1, 0.5)
    seen = {(group["lr"], group["weight_decay"]): [p.ndim for p in group["params"]] for group in groups}
    assert seen == {(1e-2, 0.5): [4], (1e-2, 0.0): [1], (1e-3, 0.5): [4], (1e-3, 0.0): [1, 1, 1]}


def test_a_network_without_an_encoder_has_one_rate():
    groups = optimizers.parameter_groups(nn.Conv2d(3, 4, 3), 1e-2, 0.1, 0.0)
    assert {group["lr"] for group in groups} == {1e-2}


@pytest.mark.parametrize("name", optimizers.OPTIMISERS)
def test_each_optimiser_finds_the_bottom_of_a_bowl(name):
    point = nn.Parameter(torch.tensor([3.0, -2.0]))
    optimiser = optimizers.make_optimiser(name, [{"params": [point], "weight_decay": 0.0}], 0.05, 0.9)
    for _ in range(300):
        optimiser.zero_grad()
        (point**2).sum().backward()
        optimiser.step()
    assert point.abs().max() < 0.3


@pytest.mark.parametrize("name", ["adamw", "radam", "nadam"])
def test_weight_decay_is_decoupled_from_the_gradient(name):
    point = nn.Parameter(torch.tensor([2.0]))
    optimiser = optimizers.make_optimiser(name, [{"params": [point], "weight_decay": 0.1}], 0.5, 0.9)
    point.grad = torch.zeros(1)
    optimiser.step()
    assert point.item() == pytest.approx(2 * (1 - 0.5 * 0.1))  # lr x decay, and nothing else


FACTORS = [  # schedule, step of 100 with a warm-up of a tenth, share of the peak
    ("cosine", 0, 0.1), ("cosine", 9, 1.0), ("cosine", 55, 0.5), ("cosine", 100, 0.0),
    ("constant", 0, 0.1), ("constant", 9, 1.0), ("constant", 100, 1.0),
    ("poly", 55, 0.5**0.9), ("poly", 100, 0.0),
    ("restarts", 10, 1.0), ("restarts", 25, 0.5), ("restarts", 40, 1.0), ("restarts", 70, 1.0), ("restarts", 100, 0.0),
    ("onecycle", 0, 0.04), ("onecycle", 5, 0.52), ("onecycle", 10, 1.0), ("onecycle", 100, 4e-6),
]  # fmt: skip


@pytest.mark.parametrize(("name", "step", "share"), FACTORS)
def test_schedules_at_chosen_steps(name, step, share):
    assert optimizers.factor(name, step, 100, 0.1, cycles=3) == pytest.approx(share, abs=1e-9)


@given(
    st.sampled_from([name for name in optimizers.SCHEDULES if name != "plateau"]),
    st.integers(1, 500), st.floats(0, 0.99), st.integers(1, 9), st.data(),
)  # fmt: skip
def test_a_share_is_never_negative_nor_above_the_peak(name, total, warmup, cycles, data):
    step = data.draw(st.integers(0, total + 3))
    assert 0 <= optimizers.factor(name, step, total, warmup, cycles) <= 1


def test_plateau_rises_and_is_halved_when_the_dice_stalls():
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.8)
    (warm,) = optimizers.make_schedule("plateau", optimiser, 40, warmup=0.1, cycles=1)
    reduce = optimizers.make_plateau(optimiser, patience=1)
    rates = []
    for step in range(40):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        warm["scheduler"].step()
        if step % 10 == 9:
            reduce.step(0.5)  # never better
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])
    assert rates[25] == pytest.approx(0.8) and rates[-1] == pytest.approx(0.4)
    assert warm["interval"] == "step"
