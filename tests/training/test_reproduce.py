"""make reproduce: a run trained again from its own folder, and what is said of what differs."""

import json
import shutil
from pathlib import Path

from PIL import Image
from safetensors.torch import load_file, save_file

import reproduce
from tools.files import sha256, write_json

RUN = Path("lightning_logs/demo/fold0_seed42")
SAME = "The same weights, bit for bit: lightning_logs/demo_again/fold0_seed42/model.safetensors"


def test_a_run_is_trained_again_from_its_folder_alone(trained, capsys):
    """Without the folds table, the settings of the command line, and the experiment's other fold."""
    before = {path: path.read_bytes() for path in RUN.rglob("*") if path.is_file()}
    for suffix in (".csv", ".json"):
        Path("output/demo/train_folds").with_suffix(suffix).unlink()
    assert reproduce.main([f"RUN={RUN}"]) == 0
    said = capsys.readouterr().out
    assert "Nothing that matters differs" in said and SAME in said
    assert {path: path.read_bytes() for path in RUN.rglob("*") if path.is_file()} == before
    again = json.loads(Path("lightning_logs/demo_again/fold0_seed42/run.json").read_text())
    assert again["settings"]["EPOCHS"] == 2 and again["settings"]["LR"] == 8e-3


def test_what_differs_today_is_said_and_nothing_is_trained_with_check(trained, capsys):
    origin = json.loads((RUN / "run.json").read_text())
    origin["code"] |= {"commit": "1234567"}
    origin["versions"] |= {"torch": "1.0"}
    origin["computer"] |= {"processor": "abacus"}
    write_json(RUN / "run.json", origin)
    mask = sorted(Path("input/demo/train_masks").iterdir())[0]
    Image.new("1", Image.open(mask).size).save(mask)
    assert reproduce.main([f"RUN={RUN}", "CHECK=1"]) == 0
    said = capsys.readouterr().out
    for words in ("code: commit: 1234567 there", "versions: torch: 1.0 there", "processor: abacus", "data_sha256: "):
        assert words in said
    assert not Path("lightning_logs/demo_again").exists()


def test_other_weights_are_a_failure_where_nothing_differs_and_a_sentence_where_something_does(trained, capsys):
    weights = load_file(RUN / "model.safetensors")
    name = next(name for name in weights if name.endswith("weight"))
    weights[name] += 0.25
    save_file(weights, RUN / "model.safetensors")
    about = json.loads((RUN / "model.json").read_text())
    write_json(RUN / "model.json", {**about, "weights_sha256": sha256(RUN / "model.safetensors")})
    assert reproduce.main([f"RUN={RUN}"]) == 1
    assert "Nothing differs today, but the weights do: 1 of" in capsys.readouterr().err
    origin = json.loads((RUN / "run.json").read_text())
    origin["versions"] |= {"torch": "1.0"}
    write_json(RUN / "run.json", origin)
    assert reproduce.main([f"RUN={RUN}", "OVERWRITE=1"]) == 0
    assert "differ, by 0.25 at most" in capsys.readouterr().out


def test_what_cannot_be_reproduced_is_refused(trained, refused):
    refused(reproduce.main, [], "Which run?")
    refused(reproduce.main, ["RUN=lightning_logs/demo"], "run.json", "a run folder that make train wrote")
    refused(reproduce.main, [f"RUN={RUN}", "INTO=demo"], "is the run itself")
    refused(reproduce.main, [f"RUN={RUN}", "INTO=../x"], "folder's name")
    shutil.copytree(RUN, "lightning_logs/demo_overfit/fold0_seed42")
    origin = Path("lightning_logs/demo_overfit/fold0_seed42/run.json")
    origin.write_text(origin.read_text().replace('"OVERFIT": 0', '"OVERFIT": 8'))
    overfitted = [f"RUN={origin.parent}", "OVERWRITE=1"]
    refused(reproduce.main, [*overfitted, "INTO=demo"], "is the run itself")  # which OVERFIT calls demo_overfit
    refused(reproduce.main, [f"RUN={RUN}", "LR=3e-4"], "LR", "the run's own")
    (RUN / "train_folds.csv").write_text("image,mask\n")
    refused(reproduce.main, [f"RUN={RUN}"], "not the table that the run was trained on")
    (RUN / "train_folds.csv").unlink()
    refused(reproduce.main, [f"RUN={RUN}"], "train_folds.csv")
    origin = json.loads((RUN / "run.json").read_text())
    shutil.copytree("lightning_logs/demo/fold1_seed42", RUN, dirs_exist_ok=True)
    write_json(RUN / "run.json", {**origin, "settings": {**origin["settings"], "GONE": 1}})
    refused(reproduce.main, [f"RUN={RUN}"], "no longer has GONE", "commit")
    write_json(RUN / "run.json", {**origin, "settings": 3})
    refused(reproduce.main, [f"RUN={RUN}"], "'settings' is missing or of another kind")
