"""Augmentation of batches by Kornia, compared with the CPU's."""

import pickle

import numpy as np
import pytest
import torch

from loading import augmentations, device_augmentations
from tools.errors import UserError

NAMES = [name for name in augmentations.STRENGTHS if name != "none"]


def batch(count=8, channels=3, size=(32, 48), values=(0, 1), planes=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, channels, *size), dtype=torch.uint8, generator=generator)
    choice = torch.randint(0, len(values), (count, planes, *size), generator=generator)
    return images, torch.tensor(values, dtype=torch.uint8)[choice]


def only(monkeypatch, name, *steps, **changes):
    """Leave nothing of a pipeline but these steps, always applied."""
    full = augmentations.STRENGTHS[name]
    kept = {step: {**full[step], **({"p": 1.0} if "p" in full[step] else {}), **changes} for step in steps}
    monkeypatch.setitem(augmentations.STRENGTHS, name, kept)


@pytest.mark.parametrize("size", [(32, 48), (40, 40)])
@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("name", NAMES)
def test_shapes_ranges_and_class_indices(name, channels, size):
    images, masks = batch(channels=channels, size=size, values=(0, 7, 255))
    augment = device_augmentations.make(name, True, channels)
    for step in range(3):
        pictures, moved = augment(images, masks, (0, 0, step))
        assert pictures.shape == images.shape and pictures.dtype == torch.float32
        assert pictures.min() >= 0 and pictures.max() <= 1 and pictures.max() > 0.5
        assert moved.shape == masks.shape and moved.dtype == torch.uint8
        assert set(moved.unique().tolist()) <= {0, 7, 255}


@pytest.mark.parametrize("name", NAMES)
def test_a_key_decides_everything_and_torchs_generators_stay(name):
    images, masks = batch()
    augment = device_augmentations.make(name, False, 3)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = [augment(images, masks, (1, 2, step)) for step in range(3)]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    other = pickle.loads(pickle.dumps(augment))
    for step in (2, 0, 1):
        pictures, moved = other(images, masks, (1, 2, step))
        assert torch.equal(pictures, first[step][0]) and torch.equal(moved, first[step][1])
    assert not torch.equal(first[0][0], first[1][0])


@pytest.mark.parametrize("name", NAMES)
def test_each_sample_draws_for_itself(name):
    images, masks = (part[:1].expand(40, -1, -1, -1) for part in batch(size=(24, 32)))
    pictures, _ = device_augmentations.make(name, False, 3)(images, masks, (0, 0, 0))
    different = len({picture.numpy().tobytes() for picture in pictures})
    assert different == 4 if name == "flips" else different > 12


@pytest.mark.parametrize("size", [(32, 48), (40, 40)])
@pytest.mark.parametrize("name", NAMES)
def test_image_and_mask_move_together(name, size, monkeypatch):
    full = augmentations.STRENGTHS[name]
    moving = {step: full[step] for step in full if step in augmentations.GEOMETRIC}
    monkeypatch.setitem(augmentations.STRENGTHS, name, moving)
    masks = torch.zeros(16, 2, *size, dtype=torch.uint8)
    masks[:, 0, 10:25, 8:30], masks[:, 1, 28:] = 1, 1
    pictures, moved = device_augmentations.make(name, False, 2)(masks * 255, masks, (0, 0, 3))
    assert torch.equal(moved > 0, pictures >= 0.5) and not torch.equal(moved, masks)
    labels = (masks[:, :1] * 7 + masks[:, 1:] * 255).contiguous()
    _, indices = device_augmentations.make(name, True, 2)(masks * 255, labels, (0, 0, 3))
    assert ((indices == 7) != (moved[:, :1] > 0)).float().mean() < 0.01  # nearest and one half differ at outlines
    assert set(indices.unique().tolist()) == {0, 7, 255}


def test_flips_are_exact():
    images, masks = batch(count=32)
    pictures, moved = device_augmentations.make("flips", True, 3)(images, masks, (0, 0, 0))
    ways = [(), (2,), (3,), (2, 3)]
    for index in range(32):
        one, label = images[index : index + 1], masks[index : index + 1]
        found = [way for way in ways if torch.equal(pictures[index], one.flip(way)[0].float() / 255)]
        assert len(found) == 1 and torch.equal(moved[index], label.flip(found[0])[0])


def test_the_eight_symmetries_of_a_square_are_equally_likely(monkeypatch):
    only(monkeypatch, "turns", "symmetry")
    images, masks = (part[:1].expand(400, -1, -1, -1) for part in batch(size=(16, 16)))
    pictures, moved = device_augmentations.make("turns", False, 3)(images, masks, (0, 0, 0))
    kinds, counts = np.unique((pictures * 255).round().numpy().reshape(400, -1), axis=0, return_counts=True)
    eight = [torch.rot90(turned, times, (1, 2)) for turned in (images[0], images[0].flip(2)) for times in range(4)]
    assert {kind.tobytes() for kind in kinds} == {kind.numpy().astype(np.float32).tobytes() for kind in eight}
    assert counts.min() > 25
    assert len(moved.unique(dim=0)) == 8


def test_what_is_erased_from_the_image_stays_in_the_mask(monkeypatch):
    only(monkeypatch, "strong", "erase")
    images, masks = torch.full((8, 3, 40, 40), 200, dtype=torch.uint8), torch.ones(8, 1, 40, 40, dtype=torch.uint8)
    pictures, moved = device_augmentations.make("strong", False, 3)(images, masks, (0, 0, 0))
    assert ((pictures == 0).flatten(1).any(1)).all() and moved.all()


def test_autocast_does_not_reach_it():
    images, masks = batch()
    augment = device_augmentations.make("strong", False, 3)
    plain, _ = augment(images, masks, (0, 0, 0))
    with torch.autocast("cpu", torch.bfloat16):
        mixed, _ = augment(images, masks, (0, 0, 0))
    assert mixed.dtype == torch.float32 and torch.equal(plain, mixed)


def test_what_comes_in_from_outside_is_reflected():
    images = torch.arange(0, 240, 6, dtype=torch.uint8).expand(24, 1, 40, 40).contiguous()
    images = images.clamp(min=60)  # nothing is darker, so a black border would be seen
    masks = torch.full((24, 1, 40, 40), 255, dtype=torch.uint8)
    for name in ("affine", "strong"):
        steps = [step for step in augmentations.STRENGTHS[name] if step in augmentations.GEOMETRIC]
        with pytest.MonkeyPatch.context() as patch:
            only(patch, name, *steps)
            pictures, moved = device_augmentations.make(name, True, 1)(images, masks, (0, 0, 0))
        assert pictures.min() > 59 / 255 and (moved == 255).all()


def both(name, images, masks):
    """A batch through the CPU's and the device's pipeline, as floats in [0, 1] and masks (N, K, H, W)."""
    channels = images.shape[1]
    cpu, device = augmentations.make(name), device_augmentations.make(name, False, channels)
    rows = [
        cpu(image.permute(1, 2, 0).numpy(), mask.numpy(), (0, 0, row))
        for row, (image, mask) in enumerate(zip(images, masks, strict=True))
    ]
    pictures = torch.from_numpy(np.stack([image for image, _ in rows])).permute(0, 3, 1, 2) / 255
    moved = torch.from_numpy(np.stack([mask for _, mask in rows]))
    return (pictures, moved), device(images, masks, (0, 0, 0))


def pose(mask):
    """Area, angle in degrees and center (y, x) of what is in a mask (H, W)."""
    y, x = torch.nonzero(mask, as_tuple=True)
    y, x = y.double(), x.double()
    angle = 0.5 * torch.atan2(2 * ((x - x.mean()) * (y - y.mean())).mean(), x.var() - y.var())
    return [len(y), float(angle.rad2deg()), float(y.mean()), float(x.mean())]


@pytest.mark.parametrize("name", ["upright", "turns", "affine", "strong"])
def test_shift_scale_and_rotation_agree_with_the_cpus(name, monkeypatch):
    only(monkeypatch, name, "affine")
    strength = augmentations.STRENGTHS[name]["affine"]
    masks = torch.zeros(160, 1, 96, 96, dtype=torch.uint8)
    masks[:, :, 44:52, 36:60] = 1  # small enough that its reflection stays out of sight
    (_, cpu), (_, device) = both(name, masks * 255, masks)
    quantiles = []
    for moved in (cpu, device):
        poses = np.array([pose(mask) for mask in moved[:, 0]])
        quantiles.append(np.quantile(poses, [0.03, 0.5, 0.97], axis=0))
        low, high = strength["scale"]
        scale = np.sqrt(poses[:, 0] / (8 * 24))
        assert low - 0.06 < scale.min() < low + 0.12 and high - 0.15 < scale.max() < high + 0.06
        assert 0.9 * strength["rotate"] - 1 < np.abs(poses[:, 1]).max() < strength["rotate"] + 3
        assert 0.8 < np.abs(poses[:, 2:] - 47.5).max() / (strength["shift"] * 96) < 1.1
    spans = [0.4 * 8 * 24, 6, 2.5, 2.5]
    assert (np.abs(quantiles[0] - quantiles[1]) < spans).all()


def statistic(step, pictures):
    """A number for each sample that tells how strong the step was, from a batch of gray or of noise."""
    if step in ("blur", "noise"):
        return pictures.flatten(1).std(1)
    if step == "saturation":
        return pictures.std(1).flatten(1).mean(1)
    return (pictures == 0).flatten(1).float().mean(1) if step == "erase" else pictures.flatten(1).mean(1)


@pytest.mark.parametrize(
    ("name", "step", "channels"),
    [
        ("turns", "color", 1), ("turns", "color", 3), ("nails", "light", 5), ("strong", "gamma", 3),
        ("strong", "blur", 3), ("strong", "noise", 3), ("strong", "erase", 3), ("nails", "saturation", 3),
    ],
)  # fmt: skip
def test_colors_and_grain_agree_with_the_cpus(name, step, channels, monkeypatch):
    only(monkeypatch, name, step)
    images, masks = batch(160, channels, (32, 32))
    if step != "blur":
        color = [128] * channels if step != "saturation" else [180, 120, 60]
        images = torch.tensor(color, dtype=torch.uint8).view(1, -1, 1, 1).expand(160, -1, 32, 32).contiguous()
    (cpu, _), (device, _) = both(name, images, masks)
    theirs, ours = statistic(step, cpu).numpy(), statistic(step, device).numpy()
    spread = np.ptp(theirs)
    assert spread > 0.02
    assert abs(theirs.mean() - ours.mean()) < 0.12 * spread and 0.8 < np.ptp(ours) / spread < 1.25


def test_the_elastic_displacement_is_what_the_table_says(monkeypatch):
    only(monkeypatch, "strong", "elastic")
    ramp = torch.arange(100, dtype=torch.uint8) * 2
    images, masks = ramp.expand(8, 1, 100, 100).contiguous(), torch.zeros(8, 1, 100, 100, dtype=torch.uint8)
    for pictures, _ in both("strong", images, masks):
        moved = (pictures * 255 - images)[..., 25:75, 25:75] / 2  # pixels along x
        assert 0.7 < moved.square().mean().sqrt() / (0.02 * 100) < 1.3


def test_samples_that_draw_no_step_stay_as_they_are(monkeypatch):
    only(monkeypatch, "nails", "noise", p=0.3)
    images, masks = batch(200, size=(8, 8))
    pictures, _ = device_augmentations.make("nails", False, 3)(images, masks, (0, 0, 0))
    same = (pictures == images / 255).flatten(1).all(1).float().mean()
    assert 0.6 < same < 0.8


def test_none_and_a_typing_error():
    assert device_augmentations.make("none", False, 3) is None
    with pytest.raises(UserError, match=r"AUGMENT=flip:.*flips"):
        device_augmentations.make("flip", False, 3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")
def test_on_a_gpu_a_key_decides_everything_and_cudas_generator_stays():
    images, masks = (part.cuda() for part in batch())
    augment = device_augmentations.make("strong", False, 3)
    state = torch.cuda.get_rng_state()
    first = augment(images, masks, (0, 0, 0))
    assert first[0].is_cuda and first[1].is_cuda and torch.equal(torch.cuda.get_rng_state(), state)
    torch.cuda.manual_seed(3)
    again = augment(images, masks, (0, 0, 0))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
