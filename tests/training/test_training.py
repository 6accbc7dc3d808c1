"""Losses, accumulation, schedule, and make train through its door."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

import model_dispatcher
import train
from conftest import SMP, TINY
from lightning_module import SegmentationModule
from modeling.losses import loss_sum
from modeling.optimizers import Optimization, Schedule
from modeling.segmenter import save_network
from training import callbacks

RUN = Path("lightning_logs/demo/fold0_seed42")


class Batches(torch.utils.data.Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, index):
        random = np.random.default_rng(index)
        return {
            "image": torch.from_numpy(random.integers(0, 256, (3, 8, 8)).astype(np.uint8)),
            "mask": torch.from_numpy((random.random((1, 8, 8)) < 0.4).astype(np.uint8)),
            "row": index,
        }


def train_small(batch, accumulate, epochs=2):
    """Weights after plain training of a network without batch statistics."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 1, 1))
    optimization, schedule = Optimization(0.05, weight_decay=0.0), Schedule(warmup=0.0)
    module = SegmentationModule(network, loss_sum.Loss("bce + dice"), optimization, schedule)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accumulate_grad_batches=accumulate,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(module, torch.utils.data.DataLoader(Batches(), batch_size=batch))
    return trainer.global_step, [parameter.detach().clone() for parameter in network.parameters()]


@pytest.mark.main
@pytest.mark.parametrize(("batch", "accumulate", "large"), [(2, 5, 10), (1, 4, 4), (2, 2, 4), (2, 4, 8)])
def test_accumulation_is_the_large_batch_the_ragged_last_window_included(batch, accumulate, large):
    steps, weights = train_small(batch, accumulate)
    expected_steps, expected = train_small(large, 1)
    assert steps == expected_steps
    for ours, theirs in zip(weights, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_average_follows_the_weights_and_keeps_counters_whole():
    average = callbacks.AveragedWeights(0.9)._kwargs["multi_avg_fn"]
    for seen, decay in ((0, 0.1), (5, 0.4), (10_000, 0.9)):  # the first ones count most
        means, news = [torch.zeros(2), torch.ones(3)], [torch.ones(2), torch.full((3,), 2.0)]
        average(means, news, torch.tensor(seen))
        assert means[0].tolist() == pytest.approx([1 - decay] * 2)
        assert means[1].tolist() == pytest.approx([2 - decay] * 3)
    counters = [torch.tensor(3), torch.tensor(4)]
    average(counters, [torch.tensor(5), torch.tensor(6)], torch.tensor(7))
    assert counters == [5, 6]


def curves(run=RUN):
    import pandas as pd

    return pd.read_csv(run / "metrics.csv")


@pytest.mark.main
def test_a_trained_run_holds_all_that_follows_needs(trained):
    about = json.loads((RUN / "model.json").read_text())
    assert about["network"] == {
        "MODEL_NAME": "unet", "MAX_FEATURES": 16, "IMAGE_SIZE": [32, 64], "INPUT_SIZE": [32, 64], "RESIZE": "stretch",
        "MODEL_MEAN": [0.485, 0.456, 0.406], "MODEL_STD": [0.229, 0.224, 0.225],
    }  # fmt: skip
    assert about["data"]["task"] == "binary" and about["data"]["classes"] == ["foreground"]
    assert about["weights"] == "last epoch, moving average 0.99" and about["epochs"] == 2
    assert about["steps"] == 2 * (32 // 8)
    for name in (
        "train_folds.csv",
        "hparams.yaml",
        "metrics.csv",
        "run.json",
        "train_folds.json",
        "checkpoints/last.ckpt",
        "checkpoints/previous.ckpt",
    ):
        assert (RUN / name).is_file(), name
    told = yaml.safe_load((RUN / "hparams.yaml").read_text())  # no tags of Python
    assert (told["fold"], told["EPOCHS"], told["LOSS"], told["lr"]) == ("0", 2, "ce + dice", told["LR"])
    assert told["folds_sha256"] == about["folds_sha256"] and told["classes"] == ["foreground"]
    assert list(RUN.glob("events.out.tfevents.*"))
    assert "mean" in load_file(RUN / "model.safetensors")
    assert {"train_loss_epoch", "valid_dice", "valid_loss"} <= set(curves().columns)


def test_a_checkpoint_loads_without_running_code(trained):
    state = torch.load(RUN / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 8


def test_full_trains_on_every_image_and_validates_on_none(folds_table, capsys):
    assert train.main([*TINY, "EPOCHS=1", "FOLD=full"]) == 0
    assert "64 images to train on, 0 held out" in capsys.readouterr().out
    assert json.loads(Path("lightning_logs/demo/foldfull_seed42/model.json").read_text())["fold"] == "full"


def test_the_best_epoch_is_kept_where_asked_and_said(folds_table):
    assert train.main([*TINY, "EPOCHS=3", "FOLD=0", "CHECKPOINT=best", "EXPERIMENT=b", "LR=0.02"]) == 0
    run = Path("lightning_logs/b/fold0_seed42")
    dices = curves(run)["valid_dice"].dropna().tolist()
    weights = json.loads((run / "model.json").read_text())["weights"]
    assert weights == f"epoch {int(np.argmax(dices)) + 1}, chosen on this fold"
    kept = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]["BestWeights"]["weights"]
    shipped = load_file(run / "model.safetensors")
    assert kept.keys() == shipped.keys() and all(torch.equal(value, kept[name]) for name, value in shipped.items())


def test_early_stopping_stops(folds_table):
    assert train.main([*TINY, "EPOCHS=6", "FOLD=0", "EARLY_STOPPING=1", "LR=1e-9", "EMA=0", "WARMUP=0.9"]) == 0
    assert json.loads((RUN / "model.json").read_text())["epochs"] < 6


def test_a_loss_that_is_no_number_ends_the_run_with_a_sentence(folds_table, refused, monkeypatch):
    monkeypatch.setitem(loss_sum.LOSSES, "bce", lambda logits, *_: logits.sum() * float("nan"))
    refused(train.main, [*TINY, "FOLD=0", "LOSS=bce"], "The loss became nan at epoch 0, batch 0", "lower LR")
    assert not (RUN / "model.json").exists()


def test_an_existing_run_is_neither_overwritten_nor_resumed_unasked(trained, refused):
    before = (RUN / "model.safetensors").read_bytes()
    refused(train.main, [*TINY, "FOLD=0"], "holds a run already", "RESUME=1", "OVERWRITE=1")
    refused(train.main, [*TINY, "FOLD=0", "RESUME=1", "OVERWRITE=1"], "give one of them")
    refused(train.main, [*TINY, "FOLD=0", "RESUME=1", "EXPERIMENT=new"], "no checkpoints/last.ckpt")
    assert (RUN / "model.safetensors").read_bytes() == before


def test_folds_of_one_experiment_share_their_settings(trained, refused):
    shutil.rmtree("lightning_logs/demo/fold1_seed42")
    refused(train.main, [*TINY, "FOLD=1", "LR=1e-4"], "LR: 0.008 there, 0.0001 now", "EXPERIMENT=name")
    assert not Path("lightning_logs/demo/fold1_seed42/model.json").exists()
    assert (
        train.main([*TINY, "FOLD=1", "VALID_BATCH_SIZE=16", "EPOCHS=2", "PROFILER=simple"]) == 0
    )  # the machine may differ
    assert list(Path("lightning_logs/demo/fold1_seed42").glob("*profile*.txt"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["Which fold?"]),
        (["FOLD=7"], ["FOLD=7", "has 0, 1"]),
        (["FOLD=00"], ["FOLD=00"]),
        (["FOLD=0", "LOSS=dise"], ["Did you mean dice"]),
        (["FOLD=0", "TASK=multilabel"], ["TASK=multilabel", "says binary", "make folds"]),
        (["FOLD=0", "IN_CHANNELS=4"], ["IN_CHANNELS=4", "says 3"]),
        (["FOLD=0", "MODEL_NAME=smp_unet_resnet43"], ["resnet34"]),
        (["FOLD=0", "MODEL_NAME=smp_unet"], ["smp_<architecture>_<encoder>"]),
        (["FOLD=0", "PRECISION=16", "DEVICE=cpu"], ["needs a CUDA GPU"]),
        (["FOLD=0", "EXPERIMENT=../x"], ["folder's name"]),
        (["FOLD=full", "CHECKPOINT=best"], ["validates on nothing"]),
        (["FOLD=0", "EPOCH=2"], ["Did you mean EPOCHS"]),
        (["FOLD=0", "TRAIN_FOLDS=nowhere.csv"], ["nowhere.csv", "make folds"]),
        (["FOLD=0", "RECIPE=demos"], ["Did you mean demo"]),
    ],
)
def test_bad_input_is_refused_before_any_training(folds_table, refused, arguments, words):
    refused(train.main, [*TINY, *arguments], *words)
    assert not Path("lightning_logs").exists()


def test_a_file_that_went_missing_is_named(folds_table, refused):
    gone = sorted(Path("input/demo/train_hq").iterdir())[5]
    gone.unlink()
    refused(train.main, [*TINY, "FOLD=0"], gone.name, "make folds")


def test_images_of_several_sizes_need_a_resize(workplace, refused):
    from PIL import Image

    from conftest import write_instances, write_mask
    from folds import main as make_folds

    write_instances(Path("input/cells"), 6)
    Image.new("RGB", (64, 32)).save("input/cells/stage1_train/id00/images/id00.png")
    for mask in Path("input/cells/stage1_train/id00/masks").iterdir():
        write_mask(mask, np.ones((32, 64)))
    arguments = [*TINY[2:], "DATASET=cells", "N_FOLDS=2", "EPOCHS=1", "FOLD=0"]
    assert make_folds(arguments[:-1]) == 0
    refused(train.main, [*arguments[:-1], "FOLD=full", "RESIZE=none"], "2 different sizes", "CROP=256", "RESIZE=fit")
    assert train.main([*arguments, "RESIZE=fit", "EXPERIMENT=fit"]) == 0
    assert train.main([*arguments, "RESIZE=none", "TRAIN_BATCH_SIZE=1", "VALID_BATCH_SIZE=1", "EXPERIMENT=own"]) == 0


def test_what_was_killed_before_it_was_shipped_ships_the_averaged_weights(trained, capsys):
    expected = load_file(RUN / "model.safetensors")
    (RUN / "model.safetensors").unlink()
    (RUN / "model.json").unlink()
    assert train.main([*TINY, "FOLD=0", "RESUME=1"]) == 0
    shipped = load_file(RUN / "model.safetensors")
    assert all(torch.equal(value, shipped[name]) for name, value in expected.items())
    before = (RUN / "model.safetensors").stat().st_mtime_ns
    assert train.main([*TINY, "FOLD=0", "RESUME=1"]) == 0
    assert "finished already" in capsys.readouterr().out
    assert (RUN / "model.safetensors").stat().st_mtime_ns == before


def test_what_stopped_before_its_first_epoch_starts_again_without_a_word(trained):
    shutil.rmtree("lightning_logs/demo/fold1_seed42")
    Path("lightning_logs/demo/fold1_seed42").mkdir()
    Path("lightning_logs/demo/fold1_seed42/metrics.csv").write_text("left over")
    assert train.main([*TINY, "FOLD=1"]) == 0


def test_a_batch_that_batch_norm_cannot_take_is_refused_first(folds_table, refused):
    small = [argument for argument in TINY if not argument.startswith(("IMAGE_SIZE", "TRAIN_BATCH"))]
    refused(train.main, [*small, *SMP, "FOLD=0", "IMAGE_SIZE=32", "TRAIN_BATCH_SIZE=1"], "in batches of one image")
    assert not Path("lightning_logs").exists()


def test_nothing_but_empty_masks_under_skip_is_refused(workplace, refused):
    from conftest import write_instances, write_mask
    from folds import main as make_folds

    write_instances(Path("input/cells"), 4)
    rows = ["image,mask,kfold"]
    for number in range(4):
        stem = f"stage1_train/id{number:02d}"
        rows.append(f"{stem}/images/id{number:02d}.png,{stem}/masks,{number % 2}")
        for mask in Path("input/cells", stem, "masks").iterdir():
            if number % 2 == 0:
                write_mask(mask, np.zeros((40, 48)))
    Path("own.csv").write_text("\n".join(rows))
    arguments = [*TINY[2:], "DATASET=cells", "EMPTY=skip"]
    assert make_folds([*arguments, "TABLE=own.csv"]) == 0
    refused(train.main, [*arguments, "FOLD=0"], "all their masks are empty")


def test_images_are_normalized_as_the_weights_were_and_an_older_experiment_keeps_its_own(folds_table, capsys):
    packed = Path("input/weights/tu-test_resnet.safetensors")
    encoder = model_dispatcher.build("smp_linknet_tu-test_resnet").body.encoder
    save_network(encoder, packed, {"origin": "imagenet", "mean": "0.1,0.2,0.3", "std": "0.5,0.5,0.5"})
    words = [*TINY, *SMP, "ENCODER_WEIGHTS=imagenet", "LIMIT=1"]
    constants = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    for number, (more, expected) in enumerate((
        ([], ([0.1, 0.2, 0.3], [0.5] * 3)),
        (["NORMALIZE=data"], constants),
        (["NORMALISE=auto"], constants),  # as it was called
        (["MODEL_STD=0.25"], (constants[0], [0.25] * 3)),
        (["ENCODER_WEIGHTS=none"], constants),
    )):  # fmt: skip
        assert train.main([*words, *more, f"EXPERIMENT=n{number}", "FOLD=0"]) == 0
        network = json.loads(Path(f"lightning_logs/n{number}/fold0_seed42/model.json").read_text())["network"]
        assert (network["MODEL_MEAN"], network["MODEL_STD"]) == expected, more
    assert f"from {packed}; normalized as {packed.name} says (mean 0.1, 0.2, 0.3" in capsys.readouterr().out

    shared = Path("lightning_logs/n1/settings.json")  # as older code left it
    shared.write_text(shared.read_text().replace('"NORMALIZE": "data"', '"NORMALISE": "auto"'))
    assert train.main([*words, "EXPERIMENT=n1", "FOLD=1"]) == 0
    network = json.loads(Path("lightning_logs/n1/fold1_seed42/model.json").read_text())["network"]
    assert (network["MODEL_MEAN"], network["MODEL_STD"]) == constants
