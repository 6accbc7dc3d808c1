"""Constants, overrides, recipes and what make passes on."""

import dataclasses
import pickle
import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

import config
import settings
from conftest import ROOT
from tools import recipes
from tools.errors import UserError


def test_every_constant_has_a_section_and_survives_json():
    constants = {name for name in vars(config) if name.isupper()}
    assert constants == set(settings.DEFAULTS)
    assert list(settings.SECTIONS) == ["machine", "data", "network", "training", "scoring"]
    assert set(settings.load().snapshot()) == constants


def told(path):
    """NAME -> the words of the comment beside or above it, of config.py or of the class Settings."""
    found, above = {}, []
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.strip()
        if text.startswith("#"):
            above = [] if text.startswith("# ===") else [*above, *text[1:].split()]
        elif name := re.match(r"([A-Z][A-Z0-9_]*)(: | = )", text):
            beside = text.partition("  # ")[2].removesuffix("fmt: skip").split()
            found.setdefault(name[1], above + beside)
            above = []
        elif not text.startswith(("*", "]")):
            above = []
    return found


def test_the_class_says_what_config_says():
    of_config, of_class = told(ROOT / "src" / "config.py"), told(ROOT / "src" / "settings.py")
    for name, words in of_config.items():
        assert of_class[name] == words, name
    assert [field.name for field in dataclasses.fields(settings.Settings)] == list(of_config)


def test_overrides_keep_the_constants_type():
    loaded = settings.load(["LR=3e-4", "EPOCHS=2", "IMAGE_SIZE=384,512", "LOSS='bce + dice'", "WEIGHT_DECAY=0"])
    assert (loaded.LR, loaded.EPOCHS, loaded.IMAGE_SIZE, loaded.LOSS) == (3e-4, 2, (384, 512), "bce + dice")
    assert isinstance(loaded.WEIGHT_DECAY, float)
    assert settings.load(["IMAGE_SIZE=320"]).IMAGE_SIZE == (320, 320)
    assert settings.load(["IMAGE_SIZE=(320, 64)"]).IMAGE_SIZE == (320, 64)


def test_settings_are_frozen_and_travel_to_other_processes():
    loaded = settings.load(["SEED=7"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded.SEED = 8
    assert pickle.loads(pickle.dumps(loaded)) == loaded


def test_templates_are_filled_in_after_the_overrides():
    loaded = settings.load(["DATASET=nuclei", "OUTPUT=elsewhere/{DATASET}"])
    assert loaded.INPUT == "input/nuclei"
    assert loaded.TRAIN_FOLDS == "elsewhere/nuclei/train_folds.csv"
    assert settings.load([r"GROUP=^(\d{2})_"]).GROUP == r"^(\d{2})_"  # a regex's braces are its own


@pytest.mark.main
@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("LRR=1", ["LRR", "Did you mean LR?"]),
        ("epochs=1", ["Did you mean EPOCHS?"]),
        ("LR=fast", ["LR=fast is not a number"]),
        ("EPOCHS=2.5", ["whole number"]),
        ("EPOCHS=True", ["whole number"]),
        ("EPOCHS=0", ["out of range"]),
        ("IMAGE_SIZE=1,2,3", ["2 numbers"]),
        ("RESIZE=strech", ["Did you mean stretch?"]),
        ("LR=nan", ["LR"]),
        ("LR=1e999", ["not a number"]),
        ("INPUT={DATASETT}/x", ["DATASETT", "Did you mean DATASET?"]),
        ("INPUT={OUTPUT}", ["INPUT"]),
        ("EPOCHS", ["NAME=value"]),
    ],
)
def test_bad_overrides_are_refused_with_the_cure(override, words):
    overrides = [override, "OUTPUT={INPUT}"] if override == "INPUT={OUTPUT}" else [override]
    with pytest.raises(UserError) as error:
        settings.load(overrides)
    for word in words:
        assert word in str(error.value)


def test_a_former_name_keeps_what_it_meant(tmp_path):
    flags = {"FOLD": "which"}
    assert settings.command_line(["NORMALISE=auto"], "", flags)[0].NORMALIZE == "data"
    assert settings.load(["NORMALISE=measured"]).NORMALIZE == "measured"
    (tmp_path / "old.cfg").write_text("NORMALISE = constants  # as then\n")
    assert settings.load(names=f"{tmp_path}/old.cfg").NORMALIZE == "constants"


def test_recipes_lie_over_each_other_and_below_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "FOLDER", tmp_path)
    (tmp_path / "big.cfg").write_text("# a title\nEPOCHS = 9  # the reason\nLR = 1e-2\n\nLOSS = 0.5*bce + dice\n")
    (tmp_path / "quick.cfg").write_text("EPOCHS=1\n")
    loaded = settings.load(["LR=1"], "big,quick")
    assert (loaded.EPOCHS, loaded.LR, loaded.LOSS) == (1, 1.0, "0.5*bce + dice")
    with pytest.raises(UserError, match="Did you mean quick"):
        settings.load([], "quik")
    (tmp_path / "typo.cfg").write_text("EPOCH = 1\n")
    with pytest.raises(UserError, match=r"recipe typo: .*EPOCHS"):
        settings.load([], "typo")


def test_shipped_recipes_load():
    for path in (ROOT / "src" / "recipes").glob("*.cfg"):
        assert settings.load([], path.stem)


@given(st.floats(0.0, 100.0))
def test_any_number_in_range_comes_back(value):
    assert value == settings.load([f"LR={value!r}"]).LR


@given(st.text(max_size=30))
def test_any_text_is_a_value_or_a_sentence(text):
    for name in ("LR", "EPOCHS", "IMAGE_SIZE", "RESIZE"):
        try:
            loaded = settings.load([f"{name}={text}"])
        except UserError:
            continue
        assert isinstance(getattr(loaded, name), type(settings.DEFAULTS[name]))


def test_flags_are_given_with_or_without_dashes():
    flags = {"FOLD": "which"}
    for argv in (["FOLD=3", "LR=1"], ["--fold", "3", "LR=1"], ["LR=1", "--fold", "3"]):
        loaded, given = settings.command_line(argv, "", flags)
        assert (loaded.LR, given.FOLD, given.RECIPE) == (1.0, "3", "")
    with pytest.raises(UserError, match="FOLD: which"):
        settings.command_line(["FOLDD=1"], "", flags)


def test_make_forwards_every_variable_as_it_was_typed():
    odd = [r"GROUP=^(\w{2})$x'_", "LOSS=bce + dice", "FOLD=0", "LR=3e-4"]
    command = ["make", "-s", "-C", str(ROOT), "train", "VENV=", "PYTHON=printf '%s\\n'", *odd]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[0] == "src/train.py"
    assert sorted(said[1:]) == sorted(odd)


@pytest.mark.main
def test_make_alone_lists_every_target():
    said = subprocess.run(["make", "-s", "-C", str(ROOT)], capture_output=True, text=True, check=True).stdout
    phony = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith(".PHONY:"))
    for target in phony.removeprefix(".PHONY:").split():
        assert f"make {target} " in said
