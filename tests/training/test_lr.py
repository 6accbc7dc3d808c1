"""The learning rate range test and the search for the largest batch, as functions and by make lr and make batch."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import doctor
import find_lr
from conftest import TINY
from lightning_module import SegmentationModule
from modeling.losses import loss_sum
from modeling.optimizers import Optimization, Schedule
from tools.errors import UserError
from training import batch_size, lr_range_test
from training.trainer import Hardware, Update

RATES = np.geomspace(1e-7, 1, 100)


def curve(noise=0.0, fall=0.5):
    """A loss that falls by `fall` around 1e-4, lies low up to 1e-2, and then rises without end."""
    decades = np.log10(RATES)
    losses = 1 - fall / (1 + np.exp(-4 * (decades + 4))) + np.exp(3 * (decades + 1.2))
    return losses + np.random.default_rng(0).normal(0, noise, len(RATES)) if noise else losses


@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_the_suggestion_lies_where_the_loss_falls_and_the_other_a_tenth_below_its_lowest(noise):
    result = lr_range_test.conclude(RATES.tolist(), curve(noise).tolist(), None)
    assert 3e-5 < result.suggestion < 3e-3
    assert result.tenth == pytest.approx(RATES[int(np.argmin(result.smoothed[10:])) + 10] / 10)
    assert len(result.smoothed) == 100 and result.diverged_at is None


@pytest.mark.parametrize("losses", [curve(0.03, fall=0.0), np.ones(100), np.linspace(1, 2, 100), np.ones(3)])
def test_a_loss_that_never_clearly_falls_suggests_nothing(losses):
    result = lr_range_test.conclude(RATES[: len(losses)].tolist(), losses.tolist(), None)
    assert result.suggestion is None and result.tenth is None


def test_the_smoothed_loss_by_hand():
    assert lr_range_test.smooth([2.0]) == pytest.approx([2.0])  # not drawn towards zero
    assert lr_range_test.smooth([2.0, 4.0]) == pytest.approx([2.0, (0.9 * 2 + 4) / 1.9])
    assert lr_range_test.smooth([3.0] * 50) == pytest.approx([3.0] * 50)


def test_it_stops_at_four_times_the_best_also_below_zero():
    smoothed = lr_range_test.Smoothed()
    assert not any(smoothed.add(1.0) for _ in range(50))
    assert not smoothed.add(30.0)  # the mean is 3.9
    assert smoothed.add(5.0 + 0.3 / 0.1)
    below = lr_range_test.Smoothed()
    assert not any(below.add(-1.0) for _ in range(50))


@pytest.mark.parametrize(("rate", "text"), [(3.21e-4, "3.2e-4"), (0.0996, "1.0e-1"), (1.0, "1.0e0")])
def test_a_rate_is_typed_with_two_digits(rate, text):
    assert lr_range_test.typed(rate) == text and float(text) == pytest.approx(rate, rel=0.05)


class Batches(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        image = np.random.default_rng(index).integers(0, 256, (3, 8, 8)).astype(np.uint8)
        return {
            "image": torch.from_numpy(image),
            "mask": torch.from_numpy((image[:1] > 127).astype(np.uint8)),
            "row": index,
        }


def module_of(loss="ce", **given):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1))
    return SegmentationModule(network, loss_sum.Loss(loss), Optimization(0.01, **given))


LOADER = torch.utils.data.DataLoader(Batches(), batch_size=4)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_rates_rise_exponentially_by_the_optimizer_step_and_the_network_is_put_back(accumulate, monkeypatch):
    used, module = [], module_of()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    step = torch.optim.AdamW.step

    def spy(self, *arguments, **named):
        used.append([group["lr"] for group in self.param_groups])
        return step(self, *arguments, **named)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    result = lr_range_test.range_test(module, LOADER, lowest=1e-5, highest=0.1, steps=21, update=Update(accumulate))
    assert [rates[0] for rates in used] == pytest.approx(np.geomspace(1e-5, 0.1, 21))
    assert result.rates == [rates[0] for rates in used] and len(result.losses) == 21
    assert result.losses[0] > min(result.losses)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_group_keeps_its_share_of_the_rate_whatever_the_schedule(monkeypatch):
    used, step = [], torch.optim.AdamW.step

    class Body(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 1, 1)

        def forward(self, x):
            return self.head(self.encoder(x))

    def spy(self, *arguments, **named):
        used.append({group["lr"] for group in self.param_groups})
        return step(self, *arguments, **named)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    module = SegmentationModule(Body(), loss_sum.Loss("ce"), Optimization(0.01, 0.1), Schedule("plateau"))
    lr_range_test.range_test(module, LOADER, lowest=1e-3, highest=1e-2, steps=2)
    assert [sorted(rates) for rates in used] == [pytest.approx([1e-4, 1e-3]), pytest.approx([1e-3, 1e-2])]


def test_a_loss_that_explodes_ends_the_test_and_is_said():
    result = lr_range_test.range_test(module_of(optimizer="sgd"), LOADER, lowest=1e-2, highest=1e6, steps=60)
    assert result.diverged_at is not None and result.diverged_at < 1e6
    assert len(result.losses) < 60 and all(math.isfinite(loss) for loss in result.losses)


def test_a_loss_that_is_no_number_ends_the_test_too(monkeypatch):
    calls = []

    def nan(logits, target, scored):
        calls.append(1)
        return logits.mean() * (float("nan") if len(calls) > 5 else 1.0)

    module = module_of()
    module.loss.forward = lambda logits, mask: nan(logits, mask, None)
    result = lr_range_test.range_test(module, LOADER, lowest=1e-7, highest=1e-3, steps=20)
    assert len(result.losses) == 5 and result.diverged_at == pytest.approx(np.geomspace(1e-7, 1e-3, 20)[5])


def test_another_error_is_not_taken_for_a_divergence(monkeypatch):
    module = module_of()

    def broken(*_):
        raise UserError("something else")

    monkeypatch.setattr(module, "training_step", broken)
    with pytest.raises(UserError, match="something else"):
        lr_range_test.range_test(module, LOADER, steps=5)


def test_make_lr_writes_a_curve_and_ends_with_the_line_to_type(folds_table, capsys):
    assert find_lr.main([*TINY, "FOLD=0", "STEPS=20"]) == 0
    said = capsys.readouterr().out.strip().splitlines()
    lines = Path("output/demo/lr_demo_fold0.csv").read_text().splitlines()
    assert lines[0] == "learning_rate,loss,smoothed" and 10 < len(lines) <= 21
    assert float(lines[1].split(",")[0]) == pytest.approx(1e-7)
    assert Path("output/demo/lr_demo_fold0.png").stat().st_size > 10_000
    assert re.fullmatch(r"make train FOLD=0 LR=\d\.\de-?\d+", said[-1]) or said[-1].startswith("No clear suggestion")
    assert not Path("lightning_logs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["STEPS=5"], ["STEPS=5", "20 or more"]),
        (["STEPS=many"], ["STEPS=many"]),
        (["FOLD=9"], ["FOLD=9", "has 0, 1"]),
        (["TRAIN_FOLDS=nowhere.csv"], ["make folds"]),
        (["EXPERIMENT=../x"], ["folder's name"]),
    ],
)
def test_make_lr_refuses_bad_input(folds_table, refused, arguments, words):
    refused(find_lr.main, [*TINY, *arguments], *words)


@given(st.integers(1, 5000), st.integers(0, 6000))
def test_the_largest_that_fits_is_found_in_few_tries(limit, memory):
    asked = []

    def fits(size):
        assert 1 <= size <= limit
        asked.append(size)
        return size <= memory

    assert batch_size.largest(fits, limit) == min(memory, limit)
    assert len(asked) <= 2 * math.log2(limit) + 3 and len(set(asked)) == len(asked)
    assert max(asked) <= max(1, 2 * memory)


def test_a_batch_of_a_gpu_is_asked_for_on_a_gpu_only(folds_table, refused):
    refused(doctor.batch, [*TINY, "DEVICE=cpu"], "CUDA GPU", "runs on cpu")


def test_only_a_lack_of_memory_is_too_large():
    emptied = []

    def failing(error):
        def step():
            raise error

        return step

    empty = lambda: emptied.append(1)  # noqa: E731
    assert batch_size.fits_memory(lambda: None, empty)
    assert not batch_size.fits_memory(failing(torch.OutOfMemoryError("CUDA out of memory. Tried")), empty)
    assert not batch_size.fits_memory(failing(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")), empty)
    with pytest.raises(RuntimeError, match="shape"):
        batch_size.fits_memory(failing(RuntimeError("a wrong shape")), empty)
    assert len(emptied) == 3


def test_make_batch_searches_by_real_steps(folds_table, capsys, monkeypatch):
    """With a pretended GPU whose memory holds 5 images, and the steps on the CPU."""
    from tools import hardware

    tried, real = [], batch_size.train_steps

    def step(module, images, update, hardware, ema):
        if len(images["image"]) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        tried.append(tuple(images["image"].shape))
        before = [parameter.clone() for parameter in module.parameters()]
        real(module, images, update, Hardware(), ema)
        assert all(torch.equal(one, other) for one, other in zip(before, module.parameters(), strict=True))

    monkeypatch.setattr(hardware, "choose_device", lambda wanted: "cuda")
    monkeypatch.setattr(batch_size, "train_steps", step)
    assert doctor.batch([*TINY, "FOLD=0"]) == 0
    said = capsys.readouterr().out.strip().splitlines()
    assert {(4, 3, 32, 64), (5, 3, 32, 64)} <= set(tried)
    assert "is 5." in said[-2] and said[-1] == "make train FOLD=0 TRAIN_BATCH_SIZE=4"
