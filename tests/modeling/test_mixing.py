"""mixup and CutMix of a batch."""

import numpy as np
import pytest
import torch

from modeling import batch_mixing
from tools.errors import UserError


def batch(count=6, size=(20, 30), planes=1):
    """Images that are their sample's number everywhere, masks that are the number plus ten."""
    numbers = torch.arange(count).view(-1, 1, 1, 1)
    images = numbers.float().expand(count, 3, *size).clone()
    return images, (numbers + 10).to(torch.uint8).expand(count, planes, *size).clone()


def test_mixup_blends_images_and_keeps_both_masks():
    images, masks = batch()
    mixed = batch_mixing.mix(images, masks, "mixup", 0.4, (1, 0, 3))
    assert 0 < mixed.share < 1 and torch.equal(mixed.masks, masks)
    other = mixed.partners.float() - 10  # whom each sample met
    assert sorted(other[:, 0, 0, 0].tolist()) == list(range(6)) and not torch.equal(mixed.partners, masks)
    torch.testing.assert_close(mixed.images, mixed.share * images + (1 - mixed.share) * other)
    assert torch.equal(images, batch()[0])  # what came is as it was


@pytest.mark.parametrize("planes", [1, 3])
def test_cutmix_pastes_one_rectangle_of_image_and_mask(planes):
    images, masks = batch(planes=planes)
    found = set()
    for step in range(20):
        mixed = batch_mixing.mix(images, masks, "cutmix", 1.0, (1, 0, step))
        assert mixed.partners is None and mixed.share == 1 and mixed.masks.dtype == torch.uint8
        assert torch.equal(mixed.images[:, :1].expand(-1, planes, -1, -1) + 10, mixed.masks.float())
        for number, picture in enumerate(mixed.images[:, 0]):
            pasted = picture != number
            assert len(picture[pasted].unique()) <= 1
            rows, columns = pasted.any(1), pasted.any(0)
            assert torch.equal(pasted, rows[:, None] & columns[None])  # a product of two sets ...
            for inside in (rows, columns):
                assert inside.int().diff().abs().sum() <= 2  # ... each in one piece
            found.add((int(rows.sum()), int(columns.sum())))
    assert len(found) > 60  # each sample has its own


def test_cutmix_takes_its_share_of_the_area():
    images, masks = batch(400, (40, 40))
    spread = []
    for alpha in (0.2, 50.0):
        pasted = batch_mixing.mix(images, masks, "cutmix", alpha, (0, 0, 0)).images[:, 0] != images[:, 0]
        area = pasted.float().mean((1, 2))
        assert 0.25 < area.mean() < 0.42
        spread.append(area.std())
    # alpha = 50 is nearly always half of the area, sides s = 0.71, of which s - s^2 / 4 is within the borders
    assert abs(area.mean() - 0.34) < 0.02 and spread[1] < 0.13 < 0.25 < spread[0]


def test_labels_that_count_nowhere_are_pasted_too():
    images, masks = batch(2)
    masks[1] = 255
    mixed = batch_mixing.mix(images, masks, "cutmix", 1.0, (0, 0, 1))
    assert torch.equal(mixed.images[0, 0] == 1, mixed.masks[0, 0] == 255) and (mixed.masks[0] == 255).any()


@pytest.mark.parametrize("kind", batch_mixing.KINDS)
def test_a_key_decides_everything_and_touches_no_generator(kind):
    images, masks = batch()
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = [batch_mixing.mix(images, masks, kind, 0.5, (2, 1, step)) for step in range(8)]
    assert torch.equal(torch.get_rng_state(), state) and np.array_equal(np.random.get_state()[1], numpy_state)
    torch.manual_seed(99)
    again = [batch_mixing.mix(images, masks, kind, 0.5, (2, 1, step)) for step in range(8)]
    assert all(torch.equal(a.images, b.images) and a.share == b.share for a, b in zip(first, again, strict=True))
    assert len({mixed.images.numpy().tobytes() for mixed in first}) == 8


def test_both_is_one_or_the_other():
    images, masks = batch()
    kinds = [batch_mixing.mix(images, masks, "both", 0.5, (0, 0, step)).partners is None for step in range(60)]
    assert 15 < sum(kinds) < 45


@pytest.mark.parametrize("kind", batch_mixing.KINDS)
def test_one_alone_stays_as_it_is(kind):
    images, masks = batch(1)
    mixed = batch_mixing.mix(images, masks, kind, 1.0, (0, 0, 0))
    assert torch.equal(mixed.images, images) and torch.equal(mixed.masks, masks)
    assert mixed.partners is None and mixed.share == 1


def test_half_precision_stays_half():
    images, masks = batch()
    for kind in ("mixup", "cutmix"):
        assert batch_mixing.mix(images.half(), masks, kind, 1.0, (0, 0, 0)).images.dtype == torch.float16


@pytest.mark.parametrize(
    ("kind", "alpha", "words"),
    [("cutmux", 1.0, "cutmix"), ("mixup", 0.0, "above 0"), ("mixup", float("nan"), "above 0")],
)
def test_what_cannot_be_mixed_is_refused(kind, alpha, words):
    with pytest.raises(UserError, match=words):
        batch_mixing.mix(*batch(), kind, alpha, (0, 0, 0))
