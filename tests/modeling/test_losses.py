"""What every loss has in common, by name and by task, and the language of LOSS."""

import itertools
import re

import pytest
import torch

from modeling.losses import loss_sum
from tools.errors import UserError

TASKS = ("binary", "multiclass", "multilabel")
EVERY = [(name, task) for name in loss_sum.LOSSES for task in TASKS if (name, task) != ("bce", "multiclass")]
OVER_THE_BATCH = {"generalized_dice_v2", "dice(batch=True)"}
# 0 for a mask that is empty or full, or for a class that an image does not show, as their docstrings say
SILENT = re.compile(r"boundary|hausdorff|.*present")
OPTIONS = {
    "ce(smoothing=0.2)": TASKS,
    "ce(weights=(1, 2, 3))": ("multiclass", "multilabel"),
    "bce(positive_weight=5)": ("binary", "multilabel"),
    "bce(weights=(1, 0, 3), positive_weight=[2, 3, 4])": ("multilabel",),
    "topk(k=0.5)": TASKS,
    "focal(gamma=0.3)": TASKS,
    "focal(alpha=0.25)": ("binary", "multilabel"),
    "dice(batch=True)": TASKS,
    "focal_tversky(alpha=0.5, beta=0.5, gamma=3)": TASKS,
    "lovasz(present=True)": TASKS,
    "symmetric_lovasz(present=True)": TASKS,
    "hausdorff(both=True, exponent=1)": TASKS,
}
EVERY += [(text, task) for text, tasks in OPTIONS.items() for task in tasks]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads that wait for one another cost more than these few pixels."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def classes_of(task):
    return 1 if task == "binary" else 3


def masks(task, number=4, size=12):
    """Uint8 (number, K, size, size) with a disc in each plane, or a class map of three."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    centers = torch.arange(number).view(-1, 1, 1, 1) + torch.tensor([4, 5, 6]).view(1, 3, 1, 1)
    discs = ((y - centers) ** 2 + (x - 5) ** 2 <= 10).byte()
    if task == "multiclass":
        return (discs[:, :1] + discs[:, 2:]).contiguous()
    return discs[:, : classes_of(task)].contiguous()


def truth_of(mask, task):
    """1 where a class is, -1 elsewhere: float (N, C, H, W)."""
    planes = (mask == torch.arange(3).view(1, 3, 1, 1)) if task == "multiclass" else mask
    return planes.float() * 2 - 1


@pytest.mark.parametrize(("text", "task"), EVERY)
def test_a_better_prediction_has_a_lower_loss(text, task):
    loss, mask = loss_sum.Loss(text, task), masks(task)
    truth = truth_of(mask, task)
    values = [loss(share * truth, mask).item() for share in (12, 0.7, 0.2, -0.5, -2)]
    if "smoothing" in text:
        values = values[1:]  # it asks for less than certainty
    assert all(better < worse for better, worse in itertools.pairwise(values)), values
    missed = truth.clone()
    missed[:, :, :6] *= -1
    assert loss(12 * truth, mask) < loss(12 * missed, mask)
    if text in loss_sum.LOSSES and text != "boundary":  # what it is at its best is not 0 there
        assert values[0] == pytest.approx(0, abs=0.1 if text == "exp_log" else 2e-2)


@pytest.mark.parametrize(("text", "task"), EVERY)
def test_a_step_along_the_gradient_lowers_the_loss(text, task):
    loss, mask = loss_sum.Loss(text, task), masks(task)
    torch.manual_seed(0)
    logits = torch.randn(4, classes_of(task), 12, 12, requires_grad=True)
    before = loss(logits, mask)
    (slope,) = torch.autograd.grad(before, logits)
    assert loss(logits - 0.01 * slope / slope.norm(), mask) < before


@pytest.mark.parametrize(("text", "task"), EVERY)
def test_loss_and_gradient_are_finite_at_half_precisions_ends(text, task):
    loss, mask = loss_sum.Loss(text, task), masks(task, 4, 6)
    mask[0], mask[1] = 0, 1
    if task == "multiclass":
        mask[2] = 255
    random = torch.Generator().manual_seed(0)
    mixed = (torch.rand(4, classes_of(task), 6, 6, generator=random) > 0.5) * 12e4 - 6e4
    for logits in (mixed, *(torch.full_like(mixed, extreme) for extreme in (6e4, -6e4, 0.0))):
        leaf = logits.half().requires_grad_()
        got = loss(leaf, mask)
        got.backward()
        assert got.dtype == torch.float32 and got.ndim == 0
        assert torch.isfinite(got) and torch.isfinite(leaf.grad).all(), logits.flatten()[:3]


@pytest.mark.parametrize(("text", "task"), [pair for pair in EVERY if not SILENT.match(pair[0])])
def test_empty_and_full_masks_teach(text, task):
    for value in (0, 1):
        mask = torch.full((2, 1 if task == "multiclass" else classes_of(task), 6, 6), value, dtype=torch.uint8)
        logits = torch.zeros(2, classes_of(task), 6, 6, requires_grad=True)
        before = loss_sum.Loss(text, task)(logits, mask)
        (slope,) = torch.autograd.grad(before, logits)
        assert slope.norm() > 0
        assert loss_sum.Loss(text, task)(logits + truth_of(mask, task), mask) < before


@pytest.mark.parametrize("text", [text for text, task in EVERY if task == "multiclass"])
def test_what_is_not_labeled_does_not_count(text):
    loss, mask = loss_sum.Loss(text, "multiclass", (1, 2)), masks("multiclass")
    mask[:, :, 3:6, 2:7] = 255
    mask[3] = 255
    torch.manual_seed(0)
    logits = torch.randn(4, 3, 12, 12, requires_grad=True)
    before = loss(logits, mask)
    (slope,) = torch.autograd.grad(before, logits)
    ignored = (mask == 255).expand_as(logits)
    assert slope[ignored].abs().max() == 0 and slope[~ignored].abs().max() > 0
    other = torch.where(ignored, torch.randn_like(logits) * 100, logits)
    torch.testing.assert_close(loss(other, mask), before)
    assert loss(logits[3:], mask[3:]).item() == pytest.approx(0, abs=0.01)  # nothing at all is labeled


@pytest.mark.parametrize("text", [text for text, task in EVERY if task == "multiclass"])
def test_a_crop_is_worth_what_its_unlabeled_surroundings_leave(text):
    """Pixels that are not labeled are as if the image ended there."""
    mask, size = masks("multiclass"), 8
    logits = torch.randn(4, 3, 12, 12)
    mask[:, :, size:] = 255
    mask[..., size:] = 255
    loss = loss_sum.Loss(text, "multiclass", (1, 2))
    small = loss(logits[..., :size, :size], mask[..., :size, :size])
    torch.testing.assert_close(loss(logits, mask), small, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("text", "task"), EVERY)
def test_accumulated_batches_equal_the_large_one_unless_it_says_over_the_batch(text, task):
    loss, mask = loss_sum.Loss(text, task), masks(task, 6)
    mask[4] = 0
    if task == "multiclass":
        mask[1, :, :7] = mask[2, :, :, 3:] = 255  # so that images differ in how much of them is labeled
    torch.manual_seed(0)
    logits = torch.randn(6, classes_of(task), 12, 12)
    parts = torch.stack([loss(logits[i : i + 2], mask[i : i + 2]) for i in range(0, 6, 2)])
    same = torch.allclose(loss(logits, mask), parts.mean(), rtol=1e-5, atol=1e-6)
    assert same == (text not in OVER_THE_BATCH)
    assert ("over the batch" in loss_sum.LOSSES[text.split("(")[0]].__doc__) or same


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize("name", ["dice", "iou", "tversky", "mcc", "lovasz", "boundary", "hausdorff", "squared_dice"])
def test_scored_classes_alone_count(name, task):
    mask = masks(task)
    logits = torch.randn(4, 3, 12, 12)
    alone = [loss_sum.Loss(name, task, (index,))(logits, mask) for index in range(3)]
    torch.testing.assert_close(loss_sum.Loss(name, task, (1, 2))(logits, mask), (alone[1] + alone[2]) / 2)
    torch.testing.assert_close(loss_sum.Loss(name, task)(logits, mask), sum(alone) / 3)


def test_every_loss_says_its_source_and_how_it_is_written():
    table = loss_sum.describe()
    assert [name for name, _, _ in table] == list(loss_sum.LOSSES) and len(table) == 21
    for name, line, usage in table:
        assert re.search(r"\b(19|20)\d\d\b", loss_sum.LOSSES[name].__doc__), f"{name} cites nothing"
        assert line.endswith(".") and len(line) <= 120
        assert loss_sum.Loss(usage.replace("weights=(), ", "")).terms[0][1].func is loss_sum.LOSSES[name]
    assert ("focal", "focal(gamma=2, alpha=0)") in [(name, usage) for name, _, usage in table]


def test_a_sum_is_the_weighted_sum_of_its_terms():
    mask, logits = masks("binary"), torch.randn(4, 1, 12, 12)

    def value(text):
        return loss_sum.Loss(text)(logits, mask).item()

    assert value("0.5*dice + focal(gamma=1e+0)+2 * iou") == pytest.approx(
        0.5 * value("dice") + value("focal(gamma=1)") + 2 * value("iou")
    )
    assert value("tversky( alpha = 1 , beta = 1 )") == pytest.approx(value("iou"))
    assert value("focal(gamma=0)") == pytest.approx(value("ce"))


def test_a_loss_keeps_its_former_name():
    logits, mask = torch.randn(2, 1, 4, 4), torch.ones(2, 1, 4, 4, dtype=torch.uint8)
    now, then = (loss_sum.Loss(name)(logits, mask) for name in ("generalized_dice", "generalised_dice"))
    assert torch.equal(now, then)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dise", ["no loss 'dise'", "Did you mean dice?", "There are: ce, bce"]),
        ("bce +", ["no loss ''"]),
        ("", ["no loss ''"]),
        ("dice + dice)", ["parentheses"]),
        ("focal(gamma=2", ["parentheses"]),
        ("x*bce", ["no number above 0"]),
        ("0*bce", ["no number above 0"]),
        ("-1*bce", ["no number above 0"]),
        ("nan*bce", ["no number above 0"]),
        ("inf*dice", ["no number above 0"]),
        ("focal(gama=2)", ["no argument 'gama'", "Did you mean gamma?", "focal(gamma=2, alpha=0)"]),
        ("iou(x=1)", ["no argument 'x'", "takes none"]),
        ("focal(2)", ["not understood", "by name"]),
        ("focal(gamma=2)(alpha=1)", ["not understood"]),
        ("focal(gamma=2)dice", ["not understood"]),
        ("focal(gamma=2, gamma=3)", ["not understood"]),
        ("focal(**{'gamma': 2})", ["not understood"]),
        ("focal(gamma=open('x'))", ["not understood"]),
        ("focal(gamma=9**9)", ["not understood"]),
        ("focal(gamma=-1)", ["gamma=-1", "from 0 to 10"]),
        ("focal(gamma=1e999)", ["gamma=inf", "from 0 to 10"]),
        ("focal(gamma=True)", ["gamma=True", "a number"]),
        ("focal(gamma='2')", ["gamma='2'", "a number"]),
        ("focal(gamma=(1, 2))", ["gamma=(1, 2)", "a number"]),
        ("dice(batch=1)", ["batch=1", "True or False"]),
        ("topk(k=0)", ["k=0", "from 0.0001 to 1"]),
        ("ce(weights=2)", ["weights=2", "one a class"]),
        ("ce(weights=())", ["weights=()", "one a class"]),
        ("ce(weights=(0, 0))", ["not all 0"]),
        ("ce(weights=(1, 'a'))", ["one a class"]),
        ("bce(weights=(2,))", ["change nothing", "positive_weight"]),
        ("bce(positive_weight=(1, 2))", ["2 numbers", "expected 1"]),
    ],
)
def test_what_is_no_loss_is_refused_with_what_there_is(text, words):
    with pytest.raises(UserError) as error:
        loss_sum.Loss(text)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("text", "word"),
    [("ce(weights=(1, 2))", "expected 3"), ("bce + dice", "say ce"), ("focal(alpha=0.5)", "alpha"), ("ce(k=1)", "'k'")],
)
def test_what_does_not_fit_several_classes_is_refused_before_training(text, word):
    with pytest.raises(UserError, match=word):
        loss_sum.Loss(text, "multiclass", (1, 2), classes=3)
    loss_sum.Loss("ce(weights=(1, 2, 3)) + dice", "multiclass", (1, 2), classes=3)


def test_lengths_are_refused_by_the_first_batch_where_the_classes_are_not_known():
    loss = loss_sum.Loss("ce(weights=(1, 2))", "multilabel")
    with pytest.raises(UserError, match="expected 3"):
        loss(torch.zeros(4, 3, 12, 12), masks("multilabel"))
