"""Recipes: every file loads, lays over others from left to right, and names its experiment."""

import json
from pathlib import Path

import pytest

import demo
import settings
from loading import augmentations
from tools import constants, recipes
from tools.errors import UserError
from training import model_file

NAMES = sorted(path.stem for path in recipes.FOLDER.glob("*.cfg"))
PLAIN = {"WARMUP": 0.0, "EMA": 0.0}  # what the tutorials have not, and our defaults have
NAILS = {
    **PLAIN, "MODEL_NAME": "smp_unet_timm-efficientnet-b4", "ENCODER_WEIGHTS": "imagenet", "LOSS": "symmetric_lovasz",
    "OPTIMIZER": "adamw", "LR": 1e-4, "SCHEDULE": "cosine", "EPOCHS": 300, "TRAIN_BATCH_SIZE": 16,
    "FREEZE_ENCODER": 1, "GRADIENT_CLIP": 5.0, "AUGMENT": "hands",
}  # fmt: skip
TUTORIALS = {  # as their texts say, and not as our recipes do
    "carvana_fp16": {
        **PLAIN, "MODEL_NAME": "smp_unet_resnet34", "IMAGE_SIZE": (1024, 1024), "LOSS": "iou", "OPTIMIZER": "adam",
        "LR": 1e-3, "WEIGHT_DECAY": 0.0, "SCHEDULE": "constant", "GRADIENT_CLIP": 0.0, "ACCUMULATE": 64, "N_FOLDS": 5,
        "AUGMENT": "carvana",
    },
    "nails": {**NAILS, "AUGMENT_ON": "cpu"},
    "nails_kornia": {**NAILS, "AUGMENT_ON": "device"},
    "nails_tf": {
        **PLAIN, "MODEL_NAME": "smp_unet_efficientnet-b4", "IMAGE_SIZE": (384, 384), "OPTIMIZER": "radam", "LR": 1e-3,
        "WEIGHT_DECAY": 0.0, "SCHEDULE": "constant", "GRADIENT_CLIP": 0.0, "LOSS": "dice + focal(gamma=2,alpha=0.25)",
        "MODEL_MEAN": (0.0, 0.0, 0.0), "MODEL_STD": (1.0, 1.0, 1.0), "BALANCE": "strata", "THRESHOLD": 0.5,
    },
    "ui_overfit": {
        **PLAIN, "MODEL_NAME": "unet", "MAX_FEATURES": 256, "IMAGE_SIZE": (256, 256), "LOSS": "bce",
        "OPTIMIZER": "adam", "LR": 1e-3, "SCHEDULE": "constant", "GRADIENT_CLIP": 0.0, "TRAIN_BATCH_SIZE": 4,
        "EPOCHS": 5, "SEED": 4747, "OVERFIT": 100, "PROFILER": "simple",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_loads_and_gives_each_line_its_reason_or_stands_below_one(name):
    loaded = settings.load(names=name)
    text = (recipes.FOLDER / f"{name}.cfg").read_text(encoding="utf-8")
    assert text.startswith("# ") and len(recipes.read(name)) >= 4
    assert loaded.EXPERIMENT != "demo" or name == "demo"


@pytest.mark.parametrize("name", TUTORIALS)
def test_the_tutorials_settings_are_theirs(name):
    loaded = settings.load(names=name)
    assert {key: getattr(loaded, key) for key in TUTORIALS[name]} == TUTORIALS[name]


def test_carvanas_and_the_hands_augmentation_are_the_tutorials():
    carvana, hands = augmentations.strengths("carvana"), augmentations.strengths("hands")
    assert list(carvana) == ["affine"] and carvana["affine"]["p"] == 0.9
    assert (carvana["affine"]["scale"], carvana["affine"]["rotate"]) == ((0.9, 1.1), 15.0)
    assert carvana["affine"]["shift"] == 0.0625
    assert (hands["affine"]["scale"], hands["affine"]["rotate"]) == ((0.8, 1.2), 30.0)
    assert "vertical" not in hands and hands["affine"]["shift"] == 0


def test_nails_kornia_differs_from_nails_in_the_place_of_augmentation_only():
    one, other = (
        settings.load(names="nails").snapshot(),
        settings.load(names="nails_kornia").snapshot(),
    )
    assert {name for name in one if one[name] != other[name]} == {"AUGMENT_ON", "EXPERIMENT"}


def test_recipes_lie_over_each_other_and_the_command_line_over_all():
    loaded = settings.load(["LR=0.5"], "nails,quick")
    assert (loaded.LOSS, loaded.MODEL_NAME, loaded.LR) == ("symmetric_lovasz", "smp_unet_tu-resnet10t", 0.5)
    assert settings.load(names="quick,nails").MODEL_NAME == "smp_unet_timm-efficientnet-b4"


@pytest.mark.parametrize(
    ("recipes", "overrides", "experiment"),
    [
        ("", [], "demo"),
        ("nails", [], "nails"),
        ("nails,quick", [], "nails_quick"),
        ("nails", ["EXPERIMENT=mine"], "mine"),
        ("demo,layouts", ["DATASET=x"], "x"),
        ("ui_overfit", [], "ui_overfit"),
        ("ui_overfit,quick", [], "ui_overfit_quick_overfit"),
        ("", ["OVERFIT=3"], "demo_overfit"),
    ],
)
def test_a_recipe_names_its_experiment(recipes, overrides, experiment):
    assert experiment == settings.load(overrides, recipes).EXPERIMENT


def test_a_copy_of_a_recipe_is_an_experiment_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "FOLDER", tmp_path)
    (tmp_path / "mine.cfg").write_text("# my own\nLOSS = dice  # only that\n", encoding="utf-8")
    assert (settings.load(names="mine").LOSS, settings.load(names="mine").EXPERIMENT) == ("dice", "mine")
    (tmp_path / "broken.cfg").write_text("LOS = dice\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"recipe broken: config.py has no LOS. Did you mean LOSS\?"):
        settings.load(names="broken")
    with pytest.raises(UserError, match=r"no recipe mime .* Did you mean mine\?"):
        settings.load(names="mime")


def test_the_demo_knows_the_layout_of_every_tutorial_and_lays_quick_over_it():
    no_tutorials = {
        "carvana_better",
        "nails_better",
        "ui_overfit_better",
        "demo",
        "layouts",
        "quick",
        "quick_unet",
        "quick_carvana",
        "search",
        "smoke",
        "stages",
        "dino",
    }
    assert set(demo.RECIPES) == set(NAMES) - no_tutorials
    assert all(over.startswith("quick") for _, over in demo.RECIPES.values())


def test_the_documentation_lists_every_loss_and_name_as_the_code_has_it():
    from modeling.losses import loss_sum

    text = (recipes.FOLDER.parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
    for _, about, signature in loss_sum.describe():
        assert f"| `{signature}` | {about} |" in text
    for constant in ("OPTIMIZER", "SCHEDULE", "AUGMENT"):
        missing = [
            name for name in constants.choices(settings.HINTS[constant]) if f"`{name}`" not in text and name != "none"
        ]
        assert not missing, (constant, missing)


def test_a_tutorials_demo_walks_the_whole_path_under_its_recipe(workplace, capsys):
    small = ["IMAGE_SIZE=32,32", "EPOCHS=1", "WORKERS=0", "MODEL_NAME=smp_linknet_tu-test_resnet", "COUNT=12"]
    assert demo.main(["RECIPE=nails_tf", *small]) == 0
    said = capsys.readouterr().out
    assert "make train FOLD=0 RECIPE=nails_tf,quick" in said and "DATASET=demo_folders" in said
    about = json.loads(Path("lightning_logs/nails_tf_quick/fold0_seed42/model.json").read_text(encoding="utf-8"))
    chosen = about["settings"]
    assert (chosen["OPTIMIZER"], chosen["LOSS"], chosen["BALANCE"]) == (
        "radam",
        "dice + focal(gamma=2,alpha=0.25)",
        "strata",
    )
    assert Path("lightning_logs/nails_tf_quick/fold0_seed42/steps.gif").is_file()
    assert Path("output/demo_folders/submission.csv").is_file()


def test_the_overfit_demo_ends_with_its_training_scores(workplace, capsys, monkeypatch):

    monkeypatch.setattr(model_file, "OVERFIT_DICE", 0.0)  # test_modes.py holds the test itself
    small = ["IMAGE_SIZE=32,32", "EPOCHS=1", "MODEL_NAME=smp_linknet_tu-test_resnet", "COUNT=8", "WORKERS=0"]
    assert demo.main(["RECIPE=ui_overfit", *small, "STEP_IMAGES=0", "OVERFIT=4", "TRAIN_BATCH_SIZE=4"]) == 0
    said = capsys.readouterr().out
    assert "submits nothing" in said and "4 training images (OVERFIT)" in said
    assert "make inference" not in said and not Path("output/demo_ui/submission.csv").exists()
