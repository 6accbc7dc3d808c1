"""Losses against tables worked out by hand, and against smp, MONAI, torch and scipy."""

import functools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from modeling.losses import loss_sum
from modeling.losses.distances import _depth
from modeling.losses.target import Target
from tools import errors

# four pixels in a row; logits of the probabilities 0.8, 0.4, 0.4, 0.2 beside the truth 1, 1, 0, 0
P, Y = np.array([0.8, 0.4, 0.4, 0.2]), np.array([1, 1, 0, 0])
LOGITS = torch.tensor(np.log(P / (1 - P)), dtype=torch.float32).view(1, 1, 1, 4)
MASK = torch.tensor(Y, dtype=torch.uint8).view(1, 1, 1, 4)
CE = -np.log([0.8, 0.4, 0.6, 0.8])
# of them: tp 1.2, fp 0.6, fn 0.8, tn 1.4
DICE = 1 - (2 * 1.2 + 1) / (1.8 + 2 + 1)
GENERALIZED = 1 - 2 * (1.2 + 1.4) / (1.8 + 2 + 2.2 + 2)  # two pixels of each label weigh the same
TVERSKY = 1 - (1.2 + 1) / (1.2 + 1 + 0.3 * 0.6 + 0.7 * 0.8)
BY_HAND = {
    "ce": CE.mean(),
    "bce(positive_weight=5)": (CE * [5, 5, 1, 1]).mean(),
    "bce(smoothing=0.2)": (0.9 * CE - 0.1 * np.log([0.2, 0.6, 0.4, 0.2])).mean(),
    "topk(k=0.5)": (CE[1] + CE[2]) / 2,
    "topk(k=0.01)": CE[1],
    "focal": (CE * np.array([0.2, 0.6, 0.4, 0.2]) ** 2).mean(),
    "focal(gamma=1, alpha=0.25)": (CE * [0.2, 0.6, 0.4, 0.2] * np.array([0.25, 0.25, 0.75, 0.75])).mean(),
    "distance_ce": (CE * [1, 2, 2, 1]).mean(),
    "dice": DICE,
    "squared_dice": 1 - (2 * 1.2 + 1) / (0.64 + 0.16 + 0.16 + 0.04 + 2 + 1),
    "generalized_dice": GENERALIZED,
    "generalized_dice_v2": GENERALIZED,
    "penalty_dice(k=2)": GENERALIZED / (1 + 2 * (1 - GENERALIZED)),
    "iou": 1 - (1.2 + 1) / (1.8 + 2 - 1.2 + 1),
    "tversky": TVERSKY,
    "focal_tversky": TVERSKY**0.75,
    "asymmetric(beta=2)": 1 - (5 * 1.2 + 5) / (5 * 1.2 + 4 * 0.8 + 0.6 + 5),
    "sensitivity_specificity(sensitivity=0.3)": 0.3 * (0.04 + 0.36) / 2 + 0.7 * (0.16 + 0.04) / 2,
    "mcc": 1 - (2.2 * 2.4 - 0.6 * 0.8) / np.sqrt(2.8 * 3.0 * 3.0 * 3.2),
    "exp_log": 0.8 * (-np.log(1 - DICE)) ** 0.3 + 0.2 * (np.sqrt(2) * CE**0.3).mean(),
    # hinge errors 1 - 1.386, 1 + 0.405, 1 - 0.405, 1 - 1.386: the second, a miss, costs 1/2 of the IoU; the third,
    # after it a false positive, takes 1/2 to 1/3; the first and last are beyond their margins
    "lovasz": 1.405465 * 1 / 2 + 0.594535 * (1 / 2 - 1 / 3),
    # of the background: the second pixel is a false positive, 2/2 to 2/3; the third a miss, 2/3 to 1/3
    "symmetric_lovasz": (1.405465 * 1 / 2 + 0.594535 / 6 + 1.405465 / 3 + 0.594535 / 3) / 2,
    "boundary": (0.8 * -1 + 0.4 * 0 + 0.4 * 1 + 0.2 * 2) / 4,
    "hausdorff": (0.04 * 4 + 0.36 * 1 + 0.16 * 1 + 0.04 * 4) / 4,
    # alone the first pixel is predicted: 1, 1, 2 and 3 pixels to the other side of that
    "hausdorff(both=True)": (0.04 * (4 + 1) + 0.36 * (1 + 1) + 0.16 * (1 + 4) + 0.04 * (4 + 9)) / 4,
}


@pytest.mark.main
@pytest.mark.parametrize("text", BY_HAND)
def test_values_by_hand(text):
    assert loss_sum.Loss(text)(LOGITS, MASK).item() == pytest.approx(BY_HAND[text], rel=1e-5)


def test_every_loss_has_a_value_by_hand():
    assert {text.split("(")[0] for text in BY_HAND} == set(loss_sum.LOSSES)


def test_values_of_one_class_a_pixel_by_hand():
    """Two pixels of class 0, one of class 1, one not labeled; three classes, every probability one third."""
    logits = torch.zeros(1, 3, 2, 2)
    logits[0, 2, 1, 1] = 50  # where nothing is labeled any prediction will do
    mask = torch.tensor([[[[0, 0], [1, 255]]]], dtype=torch.uint8)

    def value(text, scored=None):
        return loss_sum.Loss(text, "multiclass", scored)(logits, mask).item()

    each = np.log(3)
    assert value("ce") == pytest.approx(each)
    assert value("topk(k=0.6)") == pytest.approx(each)
    assert value("focal") == pytest.approx(each * (2 / 3) ** 2)
    assert value("distance_ce") == pytest.approx(each * (2 + 1 + 2) / 3)  # the deepest pixel of class 0 is the corner
    dice = [1 - (2 * n / 3 + 1) / (1 + n + 1) for n in (2, 1, 0)]  # a third of three pixels is 1
    assert value("dice") == pytest.approx(np.mean(dice))
    assert value("dice", (1, 2)) == pytest.approx(np.mean(dice[1:]))
    assert value("iou", (1,)) == pytest.approx(1 - (1 / 3 + 1) / (1 + 2 / 3 + 1))
    # weights 1/4, 1 and, for the label without a pixel, 1
    assert value("generalized_dice") == pytest.approx(1 - 2 * (2 / 3 / 4 + 1 / 3) / (3 / 4 + 2 + 1), abs=1e-6)
    # class 1 and the rest, which has twice its probability
    assert value("generalized_dice", (1,)) == pytest.approx(1 - 2 * (4 / 3 / 4 + 1 / 3) / (4 / 4 + 2), abs=1e-6)
    rare = 0.2 * each**0.3 * (2 * np.sqrt(3 / 2) + np.sqrt(3)) / 3
    assert value("exp_log", (1,)) == pytest.approx(0.8 * (-np.log(1 - dice[1])) ** 0.3 + rare)
    assert value("lovasz", (1,)) == pytest.approx(2 / 3)  # every step of the IoU: 1 from 2/3, or what remains at 1/3
    assert value("ce(weights=(1, 5, 1))") == pytest.approx(each)


def random_batch(task, classes, seed=0, size=16, number=4):
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(number, classes, size, size, generator=random) * 2
    if task == "multiclass":
        return logits, torch.randint(0, classes, (number, 1, size, size), generator=random).byte()
    return logits, (torch.rand(number, classes, size, size, generator=random) < 0.3).byte()


def mean_over_images(peer, logits, mask):
    return torch.stack([peer(logits[i : i + 1], mask[i : i + 1]) for i in range(len(logits))]).mean()


def planes_of(mask, classes):
    return (mask == torch.arange(classes).view(1, -1, 1, 1)).float()


SMP = {
    "ce": lambda smp, mode: (
        smp.SoftCrossEntropyLoss(smooth_factor=0.0) if mode == "multiclass" else smp.SoftBCEWithLogitsLoss()
    ),
    "bce(positive_weight=3)": lambda smp, mode: smp.SoftBCEWithLogitsLoss(pos_weight=torch.tensor(3.0)),
    "dice": lambda smp, mode: smp.DiceLoss(mode, smooth=0.5),
    "iou": lambda smp, mode: smp.JaccardLoss(mode, smooth=1.0),
    "tversky(alpha=0.2, beta=0.9)": lambda smp, mode: smp.TverskyLoss(mode, smooth=1.0, alpha=0.2, beta=0.9),
    # its FocalLoss of several classes adds up a sigmoid each; the function beside it is of the softmax
    "focal(gamma=1.5)": lambda smp, mode: (
        functools.partial(smp._functional.softmax_focal_loss_with_logits, gamma=1.5)
        if mode == "multiclass"
        else smp.FocalLoss(mode, gamma=1.5)
    ),
    "focal(gamma=1.5, alpha=0.3)": lambda smp, mode: smp.FocalLoss(mode, gamma=1.5, alpha=0.3),
    "lovasz": lambda smp, mode: smp.LovaszLoss(mode, per_image=True),
}


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("text", SMP)
def test_smp_agrees(text, task):
    smp = pytest.importorskip("segmentation_models_pytorch").losses
    if task == "multiclass" and ("alpha=0.3" in text or text.startswith("bce")):
        with pytest.raises(errors.UserError):
            loss_sum.Loss(text, task, classes=3)
        return
    logits, mask = random_batch(task, 1 if task == "binary" else 3)
    peer = SMP[text](smp, task)
    if task == "multilabel":  # smp's Lovasz joins the classes of an image
        theirs = torch.stack([mean_over_images(peer, logits[:, [c]], mask[:, [c]].float()) for c in range(3)]).mean()
    else:
        theirs = mean_over_images(peer, logits, mask[:, 0].long() if task == "multiclass" else mask.float())
    torch.testing.assert_close(loss_sum.Loss(text, task)(logits, mask), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arguments", [{}, {"smoothing": 0.2}, {"weights": (1, 2, 5)}])
def test_torchs_cross_entropy_agrees_on_weights_and_smoothing(arguments):
    logits, mask = random_batch("multiclass", 3)
    mask[:, :, :3] = 255
    weights, smoothing = arguments.get("weights"), arguments.get("smoothing", 0.0)
    text = f"ce({', '.join(f'{key}={value}' for key, value in arguments.items())})"
    theirs = mean_over_images(
        lambda x, y: F.cross_entropy(
            x, y, torch.tensor(weights).float() if weights else None, ignore_index=255, label_smoothing=smoothing
        ),
        logits,
        mask[:, 0].long(),
    )
    torch.testing.assert_close(loss_sum.Loss(text, "multiclass")(logits, mask), theirs)


def test_weights_of_separate_classes_weigh_their_means():
    logits, mask = random_batch("multilabel", 3)
    alone = [loss_sum.Loss(f"bce(positive_weight={n})")(logits[:, [n - 1]], mask[:, [n - 1]]) for n in (1, 2, 3)]
    ours = loss_sum.Loss("bce(weights=[1, 4, 0], positive_weight=(1, 2, 3))", "multilabel")(logits, mask)
    torch.testing.assert_close(ours, (alone[0] + 4 * alone[1]) / 5)
    plain = [loss_sum.Loss("bce")(logits[:, [c]], mask[:, [c]]) for c in range(3)]
    ours = loss_sum.Loss("ce(weights=(1, 4, 2))", "multilabel", (1, 2))(logits, mask)
    torch.testing.assert_close(ours, (4 * plain[1] + 2 * plain[2]) / 6)


MONAI = {
    "dice": lambda m, activation: m.DiceLoss(**activation, smooth_nr=1, smooth_dr=1),
    "dice(batch=True)": lambda m, activation: m.DiceLoss(**activation, smooth_nr=1, smooth_dr=1, batch=True),
    "squared_dice": lambda m, activation: m.DiceLoss(**activation, smooth_nr=1, smooth_dr=1, squared_pred=True),
    # it doubles overlap and union
    "iou": lambda m, activation: m.DiceLoss(**activation, smooth_nr=2, smooth_dr=2, jaccard=True),
    "tversky": lambda m, activation: m.TverskyLoss(**activation, alpha=0.3, beta=0.7, smooth_nr=1, smooth_dr=1),
    "boundary": lambda m, activation: m.BoundaryLoss(**activation),
    "hausdorff(both=True)": lambda m, activation: m.HausdorffDTLoss(**activation, include_background=True),
    "hausdorff(both=True, exponent=1)": lambda m, activation: m.HausdorffDTLoss(
        **activation, include_background=True, alpha=1.0
    ),
}


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize("text", MONAI)
def test_monai_agrees(text, task):
    monai = pytest.importorskip("monai.losses")
    logits, mask = random_batch(task, 3)
    mask[0] = 0  # an image that lacks classes
    activation = {"softmax": True} if task == "multiclass" else {"sigmoid": True}
    if "boundary" in text:
        activation["include_background"] = True
    planes = planes_of(mask, 3) if task == "multiclass" else mask.float()
    theirs = MONAI[text](monai, activation)(logits, planes)
    torch.testing.assert_close(loss_sum.Loss(text, task)(logits, mask), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("over_batch", [False, True])
def test_monais_generalized_dice_agrees(over_batch):
    monai = pytest.importorskip("monai.losses")
    name = "generalized_dice_v2" if over_batch else "generalized_dice"
    logits, mask = random_batch("multiclass", 3)
    mask[0] = mask[0] % 2  # a class that an image lacks
    peer = monai.GeneralizedDiceLoss(softmax=True, batch=over_batch, smooth_nr=0, smooth_dr=0)
    torch.testing.assert_close(loss_sum.Loss(name, "multiclass")(logits, mask), peer(logits, planes_of(mask, 3)))
    logits, mask = random_batch("binary", 1)  # its foreground and background are two labels
    pair, both = torch.cat([logits.sigmoid(), (-logits).sigmoid()], 1), torch.cat([mask, 1 - mask], 1).float()
    peer = monai.GeneralizedDiceLoss(batch=over_batch, smooth_nr=0, smooth_dr=0)
    torch.testing.assert_close(loss_sum.Loss(name)(logits, mask), peer(pair, both))


def test_monais_and_smps_matthews_correlation_agree_once_two_right_pixels_are_added():
    monai = pytest.importorskip("monai.losses")
    smp = pytest.importorskip("segmentation_models_pytorch").losses
    logits, mask = random_batch("binary", 1)
    right = torch.tensor([1.0, 0.0]).expand(4, 1, 2)
    probability, truth = torch.cat([logits.sigmoid().flatten(2), right], 2), torch.cat([mask.flatten(2), right], 2)
    ours = loss_sum.Loss("mcc")(logits, mask)
    torch.testing.assert_close(ours, monai.MCCLoss(smooth_dr=0)(probability, truth), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours, mean_over_images(smp.MCCLoss(eps=0), probability, truth), rtol=1e-4, atol=1e-5)


def test_smps_lovasz_softmax_over_the_classes_that_are_present_agrees():
    smp = pytest.importorskip("segmentation_models_pytorch").losses
    logits, mask = random_batch("multiclass", 3)
    mask[0] = mask[0] % 2
    mask[1, :, 2:5] = 255
    ours = loss_sum.Loss("lovasz(present=True)", "multiclass")(logits, mask)
    peer = smp.LovaszLoss("multiclass", per_image=True, ignore_index=255)
    torch.testing.assert_close(ours, peer(logits, mask[:, 0].long()), rtol=1e-4, atol=1e-5)


def test_the_symmetric_lovasz_is_the_mean_of_both_sides():
    logits, mask = random_batch("binary", 1)
    hinge = loss_sum.Loss("lovasz")
    both = (hinge(logits, mask) + hinge(-logits, 1 - mask)) / 2
    torch.testing.assert_close(loss_sum.Loss("symmetric_lovasz")(logits, mask), both)
    assert not torch.isclose(hinge(logits, mask), both)


def test_the_lovasz_extension_keeps_its_digits_in_a_large_image():
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 1, 512, 512, generator=random)
    mask = (torch.rand(1, 1, 512, 512, generator=random) < 0.3).byte()
    order = (1 - logits.flatten() * (mask.flatten() * 2.0 - 1)).sort(descending=True)
    truth = mask.flatten()[order.indices].double().numpy()
    jaccard = 1 - (truth.sum() - truth.cumsum()) / (truth.sum() + (1 - truth).cumsum())
    expected = order.values.double().clamp(min=0).numpy() * np.diff(jaccard, prepend=0)
    assert loss_sum.Loss("lovasz")(logits, mask).item() == pytest.approx(expected.sum(), rel=1e-5)


def test_distances_agree_with_scipys_and_go_to_labeled_pixels_alone():
    ndimage = pytest.importorskip("scipy.ndimage")
    mask = random_batch("binary", 1, size=24)[1]
    mask[0, :, 4:20, 4:20] = 1
    depth = _depth(Target(mask, 1, "binary").planes, None)
    for got, plane in zip(depth[:, 0].numpy(), mask[:, 0].numpy(), strict=True):
        expected = ndimage.distance_transform_edt(plane) + ndimage.distance_transform_edt(1 - plane)
        np.testing.assert_allclose(got, expected, rtol=1e-5)
    row = torch.tensor([[[[1, 1, 255, 0, 0]]]], dtype=torch.uint8)
    target = Target(row, 2, "multiclass")
    assert _depth(target.planes[:, 1:], target.valid)[0, 0, 0, [0, 1, 3, 4]].tolist() == [3, 2, 2, 3]
