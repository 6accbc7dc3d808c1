"""Cache, order and randomness: the same batches whatever the workers, other ones in other epochs."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import preview
import settings
from conftest import TINY
from data import splits
from loading import augmentations, dataset
from loading.datamodule import DataOrder, MaskDataModule
from loading.samplers import epoch_order
from tools.errors import UserError
from training import builders


def open_demo(*overrides):
    loaded = settings.load([*TINY, *overrides])
    return loaded, builders.open_cache(loaded, splits.read(Path(loaded.TRAIN_FOLDS)), builders.data_spec(loaded))


def batches(cache, workers, epochs=2, augment="turns", rows=24):
    data = MaskDataModule(
        cache, np.arange(rows), np.arange(rows, rows + 5), DataOrder(1, train_batch_size=8, valid_batch_size=4),
        augment=augmentations.make(augment), num_workers=workers,
    )  # fmt: skip
    loader, seen = data.train_dataloader(), []
    for epoch in range(epochs):
        loader.batch_sampler.sampler.set_epoch(epoch)
        seen.append(list(loader))
    return seen


def equal(first, second):
    return all(
        torch.equal(a[key], b[key]) for a, b in zip(first, second, strict=True) for key in ("image", "mask", "row")
    )


def test_zero_one_and_two_workers_give_the_same_batches(folds_table):
    _, cache = open_demo()
    none, one, two = (batches(cache, workers) for workers in (0, 1, 2))
    for epoch in range(2):
        assert equal(none[epoch], one[epoch])
        assert equal(none[epoch], two[epoch])


def test_epochs_differ_in_order_and_in_augmentation_and_repeat_themselves(folds_table):
    _, cache = open_demo()
    first, second = batches(cache, 0)
    assert not torch.equal(torch.cat([batch["row"] for batch in first]), torch.cat([batch["row"] for batch in second]))
    by_row = [
        {int(row): image for batch in epoch for row, image in zip(batch["row"], batch["image"], strict=True)}
        for epoch in (first, second)
    ]
    changed = sum(not torch.equal(by_row[0][row], by_row[1][row]) for row in by_row[0])
    assert changed >= 20  # of 24; a sample may come out the same twice
    assert equal(first, batches(cache, 0, epochs=1)[0])


class OneImage:
    """A cache in which every row is the same picture, so that only augmentation tells samples apart."""

    shapes = [[32, 64]] * 40

    def __len__(self):
        return 40

    def __getitem__(self, row):
        return np.random.default_rng(0).integers(0, 256, (32, 64, 3)).astype(np.uint8), np.zeros((1, 32, 64), np.uint8)


def test_workers_do_not_repeat_each_others_augmentation():
    """albumentations' own generators replay one stream in every forked worker, and in every epoch."""
    seen = batches(OneImage(), 2, epochs=2, rows=32)
    samples_seen = [sample.numpy().tobytes() for epoch in seen for batch in epoch for sample in batch["image"]]
    assert len(samples_seen) == 64
    assert len(set(samples_seen)) >= 50  # a few draw nothing but the same quarter turn


@pytest.mark.parametrize("shape", [(48, 64), (64, 64)])
@pytest.mark.parametrize("name", ["flips", "upright", "turns"])
def test_augmentation_moves_image_and_mask_together(name, shape):
    augment = augmentations.make(name)
    mask = np.zeros(shape, np.uint8)
    mask[10:30, 20:50] = 1
    image = np.repeat(mask[..., None] * np.uint8(200), 3, axis=2)
    for row in range(40):
        picture, moved = augment(image, np.stack([mask, 1 - mask]), (0, 0, row))
        assert picture.shape == image.shape and moved.shape == (2, *shape)
        assert set(np.unique(moved)) <= {0, 1} and (moved.sum(0) == 1).mean() > 0.98
        assert ((picture[..., 0] > 90) != (moved[0] > 0)).mean() < 0.02


@pytest.mark.parametrize("name", ["flips", "upright", "turns"])
@pytest.mark.parametrize("channels", [1, 4, 5])
def test_augmentation_mixes_no_classes_and_takes_any_channels(name, channels):
    augment = augmentations.make(name, labels=True)
    labels = np.zeros((48, 64), np.uint8)
    labels[10:30, 20:50], labels[30:] = 7, 255
    image = np.repeat((labels[..., None] == 7) * np.uint8(200), channels, axis=2)
    for row in range(40):
        picture, moved = augment(image, labels[None], (0, 0, row))
        assert picture.shape == image.shape and moved.shape == (1, 48, 64)
        assert set(np.unique(moved)) <= {0, 7, 255}
        assert ((picture[..., 0] > 90) != (moved[0] == 7)).mean() < 0.03


def test_samples_stay_uint8_until_the_device(folds_table):
    _, cache = open_demo()
    samples = dataset.MaskDataset(cache, 0)
    batch = dataset.collate([samples[0, 3, 0], samples[0, 5, 0]])
    assert batch["image"].dtype == torch.uint8 and batch["image"].shape == (2, 3, 32, 64)
    assert batch["mask"].dtype == torch.uint8 and batch["mask"].shape == (2, 1, 32, 64)
    assert batch["row"].tolist() == [3, 5] and set(batch["mask"].unique().tolist()) == {0, 1}
    for place, row in enumerate((3, 5)):
        assert np.array_equal(batch["image"][place].permute(1, 2, 0), cache[row][0])
        assert np.array_equal(batch["mask"][place], cache[row][1])
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)  # nothing has to transpose it
    batch["image"].zero_()
    assert cache[3][0].any()  # a batch is no view of the cache


def test_the_order_is_a_pure_function():
    rows = np.array([3, 5, 8, 9, 11])
    assert sorted(epoch_order(1, 0, rows)) == sorted(rows)
    assert epoch_order(1, 4, rows).tolist() == epoch_order(1, 4, rows).tolist()
    assert len({tuple(epoch_order(1, epoch, rows)) for epoch in range(20)}) > 10


def test_the_cache_is_made_once_and_anew_where_a_file_changed(folds_table):
    _, cache = open_demo()
    before = cache.path.stat().st_mtime_ns
    _, again = open_demo()
    assert again.path == cache.path and again.path.stat().st_mtime_ns == before
    picture = Path("input/demo", splits.read(folds_table)["image"][0])
    Image.new("RGB", (96, 64), (255, 0, 0)).save(picture)
    os.utime(picture, ns=(1, 1))
    _, changed = open_demo()
    assert changed.path != cache.path
    assert (changed[0][0][..., 0] > 250).all()


def test_an_interrupted_cache_is_not_believed(folds_table):
    _, cache = open_demo()
    cache.path.with_suffix(".json").unlink()
    cache.path.write_bytes(b"half")
    _, again = open_demo()
    assert again[0][0].shape == (32, 64, 3) and again.path.stat().st_size > 4


@pytest.mark.parametrize(("resize", "shape"), [("stretch", (32, 64)), ("fit", (32, 64)), ("none", (64, 96))])
def test_each_way_of_resizing_gives_its_shape(folds_table, resize, shape):
    _, cache = open_demo(f"RESIZE={resize}")
    image, mask = cache[0]
    assert image.shape == (*shape, 3) and mask.shape == (1, *shape)


def test_folds_split_the_rows_and_always_train_on_minus_one():
    frame = pd.DataFrame({"kfold": [-1, 0, 0, 1, 1, 2]})
    train_rows, valid_rows = splits.split_rows(frame, "1")
    assert train_rows.tolist() == [0, 1, 2, 5] and valid_rows.tolist() == [3, 4]
    train_rows, valid_rows = splits.split_rows(frame, "full")
    assert len(train_rows) == 6 and len(valid_rows) == 0
    for wrong in ("3", "-1", "x", "1.0"):
        with pytest.raises(UserError, match="has 0, 1, 2"):
            splits.split_rows(frame, wrong)


def test_make_samples_draws_what_the_network_gets(folds_table, refused):
    assert preview.main([*TINY, "COUNT=3"]) == 0
    assert Image.open("output/demo/samples.png").size[0] > 1000
    refused(preview.main, [*TINY, "COUNT=none"], "not a number")
