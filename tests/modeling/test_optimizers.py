"""Optimizers and schedules: groups, shapes of the curves, and that each of them really learns."""

import contextlib
import copy
import itertools
import math
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_lightning.callbacks import Callback
from torch import nn

import linked
import settings as settings_module
from conftest import TINY
from data import splits
from modeling import optimizers
from modeling.losses.loss_sum import Loss
from modeling.optimizers import Optimization, Schedule
from tools import hardware
from tools.errors import UserError
from training import builders
from training import trainer as trainer_module

BATCHES, CLIP = 3, 0.05


class Encoded(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.head = nn.Conv2d(4, 1, 1)

    def forward(self, x):
        return self.head(self.encoder(x))


def test_the_encoder_has_its_own_rate_and_norms_and_biases_are_not_decayed():
    groups = optimizers.parameter_groups(Encoded(), Optimization(1e-2, 0.1, weight_decay=0.5))
    seen = {(group["lr"], group["weight_decay"]): [p.ndim for p in group["params"]] for group in groups}
    assert seen == {(1e-2, 0.5): [4], (1e-2, 0.0): [1], (1e-3, 0.5): [4], (1e-3, 0.0): [1, 1, 1]}


def test_a_network_without_an_encoder_has_one_rate():
    groups = optimizers.parameter_groups(nn.Conv2d(3, 4, 3), Optimization(1e-2, 0.1))
    assert {group["lr"] for group in groups} == {1e-2}


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_each_optimizer_finds_the_bottom_of_a_bowl(name):
    point = nn.Parameter(torch.tensor([3.0, -2.0]))
    optimizer = optimizers.make_optimizer(
        Optimization(0.05, optimizer=name), [{"params": [point], "weight_decay": 0.0}]
    )
    for _ in range(300):
        optimizer.zero_grad()
        (point**2).sum().backward()
        optimizer.step()
    assert point.abs().max() < 0.3


@pytest.mark.parametrize("name", ["adamw", "radam", "nadam"])
def test_weight_decay_is_decoupled_from_the_gradient(name):
    point = nn.Parameter(torch.tensor([2.0]))
    optimizer = optimizers.make_optimizer(Optimization(0.5, optimizer=name), [{"params": [point], "weight_decay": 0.1}])
    point.grad = torch.zeros(1)
    optimizer.step()
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
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.8)
    warm = optimizers.make_schedule(Schedule("plateau", warmup=0.1), optimizer, 40)
    reduce = optimizers.make_plateau(optimizer, patience=1)
    rates = []
    for step in range(40):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        warm.step()
        if step % 10 == 9:
            reduce.step(0.5)  # never better
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])
    assert rates[25] == pytest.approx(0.8) and rates[-1] == pytest.approx(0.4)


@pytest.fixture(scope="module")
def parts(folds_source, tmp_path_factory):
    """Settings, data's meaning, a tiny network, and loaders of a few tiny batches, as make train has them."""
    with contextlib.chdir(linked.copy(folds_source, tmp_path_factory.mktemp("parts") / "copy")):
        small = ["IMAGE_SIZE=32", "TRAIN_BATCH_SIZE=2", "VALID_BATCH_SIZE=2", f"LIMIT={BATCHES}", "AUGMENT=none"]
        settings = settings_module.load([*TINY, *small, "LOGGER=none"])
        frame, spec = splits.read(Path(settings.TRAIN_FOLDS)), builders.data_spec(settings)
        data = builders.loaders(settings, spec, frame, *builders.fold_rows(settings, frame, "0"))
        torch.manual_seed(0)
        yield settings, spec, nn.Sequential(OrderedDict(body=Encoded())), data


class Seen(Callback):
    """The largest norm of a gradient that a step was made of; whether the encoder moved while it was frozen."""

    def __init__(self, frozen):
        self.norm, self.frozen, self.before, self.moved = 0.0, frozen, None, False

    def on_train_start(self, trainer, module):
        self.before = copy.deepcopy(module.network.body.encoder.state_dict())

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        gradients = [value.grad for value in module.parameters() if value.grad is not None]
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or batch_idx + 1 == BATCHES:
            self.norm = max(self.norm, float(nn.utils.get_total_norm(gradients)))
        now = module.network.body.encoder.state_dict()
        self.moved |= trainer.current_epoch < self.frozen and any(
            not torch.equal(now[name], value) for name, value in self.before.items()
        )


def trained_for_two_epochs(parts, folder, *, precision, clip, accumulate=1, ema=0.0, frozen=0, resume_from=None):
    settings, spec, network, data = parts
    module = builders.module(
        settings, spec, copy.deepcopy(network), Loss(settings.LOSS, spec.task, spec.scored, len(spec.classes))
    )
    device, seen = hardware.choose_device(), Seen(frozen)
    trainer = trainer_module.make(
        folder,
        trainer_module.Length(2, BATCHES),
        update=trainer_module.Update(accumulate, clip),
        hardware=trainer_module.Hardware(device, hardware.choose_precision(precision, device)[0]),
        weights=trainer_module.Weights(ema, frozen),
        reports=trainer_module.Reports("none", hooks=(seen,)),
        resuming=trainer_module.Resuming(resume_from),
    )
    trainer.fit(module, datamodule=data, ckpt_path=resume_from)
    return trainer, module, seen


def options(name, whole):
    """Clipping, accumulation, average, frozen encoder: each with each, or four of the sixteen.

    In the four, of an optimizer each meets each but accumulation and freezing, which do in the next optimizer's.
    """
    for clip, accumulate, ema, frozen in itertools.product((0, CLIP), (1, 2), (0, 0.99), (0, 1)):
        bits = (clip > 0, accumulate > 1, ema > 0)
        if whole or (sum(bits) % 2 == 0 and (accumulate + frozen + len(name)) % 2 == 0):
            yield {"clip": clip, "accumulate": accumulate, "ema": ema, "frozen": frozen}


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("precision", ["32", "bf16", "16"])
@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_every_optimizer_with_clipping_accumulation_average_and_frozen_encoder(parts, name, precision, whole, tmp_path):
    cuda = hardware.choose_device() == "cuda"
    if precision == "16" and not cuda:
        with pytest.raises(UserError, match="PRECISION=16 needs a CUDA GPU"):
            hardware.choose_precision(precision, hardware.choose_device())
        return
    parts = (replace(parts[0], OPTIMIZER=name), *parts[1:])
    for chosen in options(name, whole):
        said, clip = f"{name} {precision} {chosen}", chosen["clip"]
        trainer, module, seen = trained_for_two_epochs(parts, tmp_path / said, precision=precision, **chosen)
        assert trainer.global_step == 2 * math.ceil(BATCHES / chosen["accumulate"]), said
        assert all(torch.isfinite(value).all() for value in module.state_dict().values()), said
        assert (seen.norm <= CLIP * 1.01) == bool(clip), said  # other steps are larger by far
        assert not seen.moved, said
        group = trainer.optimizers[0].param_groups[0]
        if name.startswith("adam"):
            assert bool(group["fused"]) == (not cuda and (precision == "32" or not clip)), said


@pytest.mark.parametrize(("then", "now"), [("32", "bf16"), ("bf16", "32")])
def test_a_training_goes_on_in_another_precision(parts, then, now, tmp_path):
    """The state of a fused step is read by one that is not, and the other way round; each keeps its own kernel."""
    trained_for_two_epochs(parts, tmp_path, precision=then, clip=CLIP)
    last = tmp_path / "checkpoints" / "last.ckpt"
    state = torch.load(last, weights_only=True)["optimizer_states"][0]
    (fresh,) = trained_for_two_epochs(parts, tmp_path / "other", precision=now, clip=CLIP)[0].optimizers
    fresh.load_state_dict(state)
    assert state["param_groups"][0]["fused"] == (then == "32" or None)
    assert fresh.param_groups[0]["fused"] == (now == "32" or None)
    assert {int(value["step"]) for value in fresh.state.values()} == {2 * BATCHES}
    for parameter in fresh.state:
        parameter.grad = torch.ones_like(parameter)
    fresh.step()
    assert {int(value["step"]) for value in fresh.state.values()} == {2 * BATCHES + 1}
