"""make search: tries what a recipe names, goes on after a kill, refuses what cannot be compared, and measures anew."""

import contextlib
import io
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import folds
import linked
import report
import search
import settings
from conftest import ROOT, TINY, left_alone
from jobs import fold_job, job_table, search_space, trials
from reporting import search_section
from scoring import fold_scores
from tools import recipes, run_folders
from tools.errors import UserError
from training import callbacks
from training.fold_training import FoldTraining

BASE = [text for text in TINY if not text.startswith(("LR=", "EPOCHS="))]
RECIPE = """# small
EPOCHS = 1
LR = 5e-3
LOSS = dice

[search]
LR = 1e-3 .. 1e-2 log       # a factor is what counts
LOSS = dice | ce + dice     # both
ACCUMULATE = 1 .. 2
"""
SEARCH = [*BASE, "RECIPE=mine.cfg", "TRIALS=3", "SEEDS=43"]
FOLDER, WINNER = Path("output/demo/search_mine_best"), Path("lightning_logs/mine_best")


def in_process(settings, fold, label, log):
    """cv.run_fold in this process, which has its imports done."""
    with job_table.printing_to(log):
        return train_and_score(settings, fold)


def train_and_score(settings, fold):
    folder = run_folders.run_folder(settings.LOGS, settings.EXPERIMENT, fold, settings.SEED)
    try:
        if not (folder / run_folders.MODEL).is_file():
            FoldTraining(settings, fold, resume=run_folders.resumable(folder)).run()
        fold_scores.score_fold(settings, fold)
    except UserError as error:
        return str(error)
    return ""


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    monkeypatch.setattr(fold_job, "run_fold", in_process)


@pytest.fixture(scope="module")
def searched_source(demo_source, tmp_path_factory):
    """A working folder with a whole search of three trials and its winner's cross-validation."""
    place = tmp_path_factory.mktemp("searched")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(fold_job, "run_fold", in_process)
        linked.copy(demo_source, place / "input" / "demo")
        assert folds.main(TINY) == 0
        Path("mine.cfg").write_text(RECIPE, encoding="utf-8")
        with contextlib.redirect_stdout(io.StringIO()) as said:
            assert search.main([*SEARCH]) == 0
        Path("said.txt").write_text(said.getvalue(), encoding="utf-8")
    return place


@pytest.fixture
def searched_there(searched_source, tmp_path, monkeypatch):
    monkeypatch.chdir(linked.copy(searched_source, tmp_path / "copy"))


@pytest.fixture(scope="module")
def searched_here(searched_source, tmp_path_factory):
    """A copy for all tests that change nothing but the recipe."""
    return linked.copy(searched_source, tmp_path_factory.mktemp("searched_here") / "copy")


@pytest.fixture
def ready(folds_table):
    Path("mine.cfg").write_text(RECIPE, encoding="utf-8")


def table(folder=FOLDER):
    return pd.read_csv(folder / "trials.csv").drop(columns="minutes")


def test_a_search_keeps_scores_and_curves_and_measures_its_winner_under_new_seeds(searched_there, capsys):
    rows = table()
    assert list(rows["state"]) == ["complete"] * 3
    assert tuple(rows.loc[0, ["LR", "LOSS", "ACCUMULATE"]]) == (5e-3, "dice", 1)  # the recipe's own
    assert rows["LR"].between(1e-3, 1e-2).all() and rows["LR"].nunique() == 3
    for number, score in enumerate(rows["dice"]):
        run = FOLDER / "runs" / f"trial{number:04d}" / "fold0_seed42"
        assert score == pytest.approx(pd.read_csv(run / "val/scores.csv")["dice"].mean())
        assert (run / "metrics.csv").is_file()
        assert not list(run.rglob("*.ckpt")) and not list(run.rglob("*.safetensors")) and not list(run.rglob("*.png"))
    result = json.loads((FOLDER / "result.json").read_text())
    best = int(rows["dice"].idxmax())
    assert (result["winner"], result["score"]) == (best, rows["dice"].max())
    honest = result["honest"]
    assert set(honest["scores"]) == {"43"}
    for seed, score in honest["scores"].items():
        scores = pd.read_csv(WINNER / f"oof_seed{seed}" / "scores.csv")
        assert len(scores) == 64 and score == pytest.approx(scores["dice"].mean())
    assert honest["mean"] == pytest.approx(honest["scores"]["43"])
    trained = {path.parent.name for path in WINNER.glob("*/model.json")}
    assert trained == {"fold0_seed43", "fold1_seed43"}
    assert {path.name for path in Path("lightning_logs").iterdir() if path.is_dir()} == {"mine_best"}

    assert search.main(SEARCH) == 0  # nothing is left to do
    said = capsys.readouterr().out
    assert "Trained" not in said and f"{honest['mean']:.4f} out of fold, new seeds: report this one" in said
    assert f"dice {result['score']:.4f} on fold 0, which chose trial {best} of 3: not to be reported" in said


def test_a_search_says_a_line_a_trial_and_a_run_and_the_trainings_speak_into_files(searched_there):
    said = Path("said.txt").read_text()
    assert "epoch 1/1" not in said and "Trained fold" not in said
    assert re.findall(r"^trial (\d) \(.*\): dice 0\.\d{4} after", said, re.MULTILINE) == ["0", "1", "2"]
    assert re.findall(r"^fold (\d), seed 43: trained and scored after", said, re.MULTILINE) == ["0", "1"]
    logs = [FOLDER / "runs" / f"trial{number:04d}" / "fold0.log" for number in range(3)]
    logs += [Path(f"output/demo/cv/mine_best_fold{fold}_seed43.log") for fold in (0, 1)]
    assert all(log.read_text().count("epoch 1/1 ") == 1 for log in logs)


@pytest.mark.slow
def test_a_trial_in_a_process_of_its_own_speaks_into_its_file(ready):
    call = [sys.executable, str(ROOT / "src" / "search.py"), *SEARCH, "TRIALS=1", "VERIFY=0"]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    assert "epoch 1/1" not in done.stdout + done.stderr and "trial 0 (" in done.stdout
    assert "epoch 1/1 " in (FOLDER / "runs/trial0000/fold0.log").read_text()


def test_the_winner_is_a_recipe_with_its_reasons(searched_there):
    path = FOLDER / "winner.cfg"
    result = json.loads((FOLDER / "result.json").read_text())
    loaded = settings.load(names=str(path))
    trained = json.loads((WINNER / "fold0_seed43/model.json").read_text())["settings"]
    names = [name for part in ("data", "network", "training", "scoring") for name in settings.SECTIONS[part]]
    now = loaded.snapshot()
    assert {name: now[name] for name in names if name != "SEED"} == {n: trained[n] for n in names if n != "SEED"}
    assert f"LR = {result['values']['LR']}  # of 1e-3 .. 1e-2 log: a factor is what counts" in path.read_text()
    plain = settings.load(names="mine.cfg")
    assert (plain.LR, plain.ACCUMULATE, plain.EXPERIMENT) == (5e-3, 1, "mine")  # [search] is no setting


def test_the_report_shows_what_was_searched(searched_there):
    assert report.main([*BASE, f"RECIPE={FOLDER}/winner.cfg", "SEED=43"]) == 0
    page = Path("output/demo/report_mine_best_seed43.html").read_text()
    section = re.search(r'<section id="search">(.*?)</section>', page, re.DOTALL)[1]
    assert '<a href="#search">The search</a>' in page
    assert "3 trials were tried, by fold 0 of 0, 1." in section and "the one to report" in section
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", section)
    assert len(captions) == section.count("<svg") == 5  # history, importances, three constants
    assert captions[0].startswith("A dot a trial") and captions[1].startswith("What mattered")
    assert captions[2] == "LR = 1e-3 .. 1e-2 log: a factor is what counts."
    (FOLDER / "search.json").unlink()
    assert search_section.section(FOLDER) == {}


class PowerCutError(BaseException):
    pass


def test_a_killed_search_goes_on_as_if_it_had_not_been(ready, searched_source, monkeypatch):
    """Cut in a trial's training, between its training and its scoring, and between its end and its tidying."""

    def cut(folder):
        if folder.name == "trial0001":
            raise PowerCutError

    arguments = [*SEARCH, "TRIALS=2", "VERIFY=0"]
    for place, name, at in ((callbacks.EpochLine, "on_train_epoch_end", 1), (fold_scores, "score_fold", 2)):
        calls, whole = [], getattr(place, name)

        def late(*args, _whole=whole, _calls=calls, _at=at):
            _calls.append(args)
            if len(_calls) == _at:
                raise PowerCutError
            return _whole(*args)

        with monkeypatch.context() as patch:
            patch.setattr(place, name, late)
            with pytest.raises(PowerCutError):
                search.main(arguments)
        states = [trial.state for trial in journal().all()]
        assert states == ["COMPLETE"] * (at - 1) + ["RUNNING"]
    with monkeypatch.context() as patch:
        patch.setattr(search.trial_runs, "tidy", cut)
        with pytest.raises(PowerCutError):
            search.main(arguments)
    assert list(FOLDER.rglob("*.ckpt"))
    with (FOLDER / "journal.log").open("a") as file:
        file.write('{"op_code": 4, "wor')  # half a line, as a full disk leaves it
    assert search.main(arguments) == 0
    pd.testing.assert_frame_equal(table(), table(searched_source / FOLDER).head(2))
    assert not list(FOLDER.rglob("*.ckpt"))
    assert json.loads((FOLDER / "result.json").read_text())["honest"] is None
    assert not WINNER.exists()


def journal(folder=FOLDER):
    space = [search_space.from_json(one) for one in json.loads((folder / "search.json").read_text())["space"]]
    return trials.Trials(folder, space, True, 42)


def test_what_is_asked_next_depends_on_the_trials_alone(tmp_path):
    """Fifteen trials in one go, and in as many processes as trials: random ones, then TPE's."""
    space = [
        search_space.Parameter("LR", "", low=1e-4, high=1e-2, log=True),
        search_space.Parameter("LOSS", "", options=("dice", "ce + dice")),
        search_space.Parameter("EPOCHS", "", low=1, high=9, whole=True),
    ]

    def score(trial):
        return -abs(math.log(float(trial.values["LR"]) / 2e-3)) + 0.1 * int(trial.values["EPOCHS"])

    def walk(name, seed, again):
        study = trials.Trials(tmp_path / name, space, True, seed)
        for number in range(15):
            study = trials.Trials(tmp_path / name, space, True, seed) if again else study
            begun = study.begin()
            study.end(begun, score(begun), "" if number != 4 else "it failed", 0.1)
        return study.all()

    one, other, third = walk("one", 42, False), walk("other", 42, True), walk("third", 7, False)
    assert str(one) == str(other)  # NaN is no score, and equal to nothing
    assert [trial.values for trial in one] != [trial.values for trial in third]
    assert one[4].state == "FAIL" and one[4].problem == "it failed"
    first = [trial.values for trial in one[:9]]
    assert [min(float(part["LR"]) for part in first) < 3e-4, max(float(part["LR"]) for part in first) > 3e-3] == [
        True
    ] * 2
    assert {part["LOSS"] for part in first} == {"dice", "ce + dice"} and len({part["EPOCHS"] for part in first}) >= 6
    late, early = (sum(score(trial) for trial in part) / 5 for part in (one[10:], one[:5]))
    assert late > early  # TPE learned something


def test_less_is_better_where_the_measure_says_so_and_the_first_wins_a_tie(tmp_path):
    space = [search_space.Parameter("LR", "", low=1e-4, high=1e-2, log=True)]
    for higher, best in ((True, 1), (False, 0)):
        study = trials.Trials(tmp_path / str(higher), space, higher, 42)
        assert study.best() is None
        for score in (0.1, 0.3, 0.2, 0.3, 0.1):
            study.end(study.begin(), score, "", 0.1)
        assert study.best().number == best
        assert study.study.best_trial.value == study.best().score  # Optuna's own opinion


def test_a_trial_that_fails_is_said_and_the_search_goes_on(ready, capsys, refused):
    text = RECIPE.replace("LR = 1e-3", "MODEL_NAME = smp_unet_nonesuch | smp_linknet_tu-test_resnet\nLR = 1e-3")
    Path("mine.cfg").write_text(text.replace("LOSS = dice\n", "LOSS = dice\nMODEL_NAME = smp_unet_nonesuch\n", 1))
    base = [one for one in BASE if not one.startswith("MODEL_NAME")]
    arguments = [*base, "RECIPE=mine.cfg", "VERIFY=0"]
    refused(search.main, [*arguments, "TRIALS=1"], "All 1 trials failed", "nonesuch", "another NAME=")
    assert search.main([*arguments, "TRIALS=4"]) == 0
    said = capsys.readouterr().out
    rows = table()
    assert rows.loc[0, "state"] == "fail" and "nonesuch" in rows.loc[0, "problem"]
    assert "(all of it: output/demo/search_mine_best/runs/trial0000/fold0.log)" in rows.loc[0, "problem"]
    assert set(rows["state"]) == {"fail", "complete"}
    assert "nothing honest has been measured yet" in said and "failed" in said


def test_a_search_stops_when_its_minutes_are_over_and_goes_on(ready, capsys):
    assert search.main([*SEARCH, "VERIFY=0", "MAX_MINUTES=0.0001"]) == 0
    assert "MAX_MINUTES=0.0001 are over: 0 of 3 trials have ended" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "extra", "words"),
    [
        ("", "", ["FOLDS=1"], ["FOLDS: ['0'] there, ['1'] now", "another NAME="]),
        ("", "", ["EMA=0.5"], ["EMA: 0.99 there, 0.5 now"]),
        ("", "", ["THRESHOLD=0.4"], ["THRESHOLD: 0.5 there, 0.4 now"]),
        ("", "", ["SEED=7"], ["SEED: 42 there, 7 now"]),
        ("1e-2 log", "2e-2 log", [], ["[search] LR: 1e-3 .. 1e-2 log there, 1e-3 .. 2e-2 log now"]),
        ("", "", ["SEEDS=42,44"], ["42 is the seed that the search chooses with"]),
        ("", "", ["SEEDS=a"], ["each once"]),
        ("", "", ["TRIALS=0"], ["from 1 to 10000"]),
        ("", "", ["TRIAL=3"], ["Did you mean TRIALS?"]),
        ("", "", ["FOLDS=7"], ["has 0, 1, and no 7"]),
        ("", "", ["NAME=a/b"], ["folder's name"]),
        ("", "", ["OVERFIT=4"], ["OVERFIT"]),
        ("", "", ["CHECKPOINT=best"], ["CHECKPOINT=best"]),
        ("", "", ["NAME=new", "ENCODER_WEIGHTS=gone.pth"], ["gone.pth"]),
        ("", "", ["METRIC=dise"], ["Did you mean dice?"]),
        ("ce + dice ", "ce + dise ", [], ["Did you mean dice?"]),
        ("[search]\n", "[search]\nSEED = 1 .. 5\n", [], ["SEED is not searched: the best of many seeds is luck"]),
        ("[search]\n", "[search]\nTHRESHOLD = 0.3 .. 0.7\n", [], ["THRESHOLD is not searched", "make tune"]),
        ("[search]\n", "[search]\nWORKERS = 0 | 1\n", [], ["WORKERS is not searched"]),
        ("[search]\n", "[search]\nN_FOLDS = 2 .. 5\n", [], ["N_FOLDS is not searched", "another split"]),
        ("[search]\n", "[search]\nCHECKPOINT = last | best\n", [], ["CHECKPOINT is not searched"]),
        ("[search]", "[serach]", [], ["expected NAME=value, got '[serach]'"]),
        (RECIPE[RECIPE.index("[search]") :], "", [], ["leaves nothing to search"]),
        ("", "", ["LR=3e-3", "LOSS=dice", "ACCUMULATE=1"], ["leaves nothing to search"]),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_trained(searched_here, refused, old, new, extra, words):
    (searched_here / "mine.cfg").write_text(RECIPE.replace(old, new, 1) if old else RECIPE)
    with left_alone(searched_here):
        refused(search.main, [*SEARCH, *extra], *words)


def test_another_folds_table_another_owner_and_another_winner_are_refused(searched_there, refused, capsys):
    Path("lightning_logs/taken").mkdir()
    refused(search.main, [*SEARCH, "NAME=taken"], "lightning_logs/taken is there already", "another NAME=")
    refused(search.main, [*BASE], "Which recipe?", "RECIPE=search")
    path = WINNER / "settings.json"
    fixed = json.loads(path.read_text())
    path.write_text(json.dumps({**fixed, "LR": 0.009}))
    refused(search.main, SEARCH, "the cross-validation of another winner", "LR: 0.009 there")
    path.write_text(json.dumps(fixed))
    folds_csv = Path("output/demo/train_folds.csv")
    folds_csv.write_text(folds_csv.read_text() + "\n")
    refused(search.main, SEARCH, "folds_sha256")
    shutil.rmtree(WINNER)
    (FOLDER / "search.json").unlink()
    refused(search.main, SEARCH, "search.json is missing")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("LR = 1e-4 .. 1e-2 log", {"low": 1e-4, "high": 1e-2, "log": True, "whole": False}),
        ("LR=1e-4..1e-2", {"low": 1e-4, "high": 1e-2, "log": False}),
        ("WEIGHT_DECAY = 0 .. 0.1", {"low": 0.0, "high": 0.1}),
        ("EPOCHS = 10 .. 40", {"low": 10, "high": 40, "whole": True}),
        ("LOSS = ce + dice | focal(gamma=2) + dice", {"options": ("ce + dice", "focal(gamma=2) + dice")}),
        ("IMAGE_SIZE = 256 | 384,512", {"options": ("256", "384,512")}),
        ("EMA = 0 | 0.99", {"options": ("0", "0.99")}),
        ("LRR = 1e-4 .. 1e-2", "config.py has no LRR. Did you mean LR?"),
        ("LR", "expected NAME = low .. high"),
        ("LR =", "expected NAME = low .. high"),
        ("LR = 1e-3", "neither a range nor a choice"),
        ("LR = 1e-2 .. 1e-4", "the lower bound first"),
        ("LR = 1e-4 .. 1e-2 lgo", "neither a range nor a choice"),
        ("LR = 0 .. 1e-2 log", "begins above 0"),
        ("LR = 1 .. 1000", "out of range: expected 0.0 to 100.0"),
        ("LR = a .. b", "LR=a is not a number"),
        ("EPOCHS = 1.5 .. 4", "not a whole number"),
        ("IMAGE_SIZE = 128 .. 256", "no single number"),
        ("OPTIMIZER = adam .. sgd", "no single number"),
        ("OPTIMIZER = adam | adamv", "Did you mean adam"),
        ("EMA = 0 | 0.0", "0.0 stands there twice"),
        ("EMA = 0 | ", "nothing between two bars"),
    ],
)
def test_the_grammar_of_a_search_section(line, expected):
    def parsed():
        found, _ = search_space.read({"x": ([], [(line, "why")])}, [], settings.SECTIONS)
        ((name, (text, reason)),) = found.items()
        return search_space.parameter(name, text, reason, settings.Settings.value_of)

    if isinstance(expected, str):
        with pytest.raises(UserError, match=re.escape(expected)):
            parsed()
    else:
        one = parsed()
        assert {key: getattr(one, key) for key in expected} == expected
        assert one.reason == "why" and search_space.from_json(json.loads(json.dumps(one.as_json()))) == one


def test_sections_lie_over_each_other_and_a_given_value_is_not_searched():
    recipes = {
        "a": ([], [("LR = 1e-4 .. 1e-2", ""), ("LOSS = dice | ce", ""), ("EMA = 0 | 0.9", "")]),
        "b": ([("LOSS = dice", "")], [("LR = 1e-3 .. 1e-2", "closer")]),
    }
    found, given = search_space.read(recipes, ["EMA=0.5", "SEED=3"], settings.SECTIONS)
    assert found == {"LR": ("1e-3 .. 1e-2", "closer")}
    assert given == ["LOSS", "EMA"]
    with pytest.raises(UserError, match="LR stands there twice"):
        search_space.read({"a": ([], [("LR = 1 .. 2", ""), ("LR = 1 .. 3", "")])}, [], settings.SECTIONS)


def test_the_recipe_that_is_shipped_can_be_searched():
    values, section = recipes.parts("search")
    found, given = search_space.read({"search": (values, section)}, [], settings.SECTIONS)
    assert len(found) >= 4 and not given and all(comment for _, comment in section)
    for name, (text, reason) in found.items():
        search_space.parameter(name, text, reason, settings.Settings.value_of)
        assert name in (*settings.SECTIONS["network"], *settings.SECTIONS["training"])
