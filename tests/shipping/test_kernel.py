"""The Kaggle kernel: what is taken along, what it does there, what it refuses, and the rehearsal's own eyes."""

import contextlib
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_images import tiff

import inference
import kaggle_kernel
import linked
import settings as settings_module
import submission
from conftest import ROOT, TINY, left_alone
from data.dataspec import DataSpec
from formats.rle import DIALECTS, formed
from modeling import weights_source
from prediction import resumable
from shipping import kernel_build, kernel_pages, kernel_push, kernel_rehearsal, kernel_run, kernel_training, wheels
from shipping import kernel_bundle as bundle_module
from tools.errors import UserError
from tools.files import sha256

KERNEL = Path("output/kernel")
ARGS = [*TINY, "COMPETITION=carvana-image-masking-challenge", "USER=someone"]


@pytest.fixture(scope="module")
def bundled_source(smp_source, tmp_path_factory):
    """The trained working folder with its kernel made, and its own submission."""
    place = linked.copy(smp_source, tmp_path_factory.mktemp("bundled") / "copy")
    with contextlib.chdir(place):
        assert kaggle_kernel.main(ARGS) == 0
        assert inference.main([*TINY, "MAPS=0"]) == 0
        assert submission.main(TINY) == 0
    return place


@pytest.fixture
def bundled(bundled_source, tmp_path, monkeypatch):
    monkeypatch.chdir(linked.copy(bundled_source, tmp_path / "copy"))


def kaggle(tree, mount="datasets", zipped=False):
    """Kaggle's tree with the bundle mounted; returns the bundle as the notebook opens it."""
    tree.mkdir()
    about = json.loads((KERNEL / "dataset" / "maskfold.json").read_text())
    kernel_rehearsal.build_tree(tree, about, settings_module.load(TINY), mount, zipped)
    (marker,) = (tree / "input").rglob("maskfold.json")
    return kernel_run.open_bundle(marker.parent, tree / "input", tree / "working")


def test_the_kernel_takes_along_what_it_needs_and_nothing_else(bundled):
    dataset = KERNEL / "dataset"
    sources = sorted(path.stem for path in (dataset / "source").rglob("*.py"))
    assert {"kernel_run", "predictor", "tta", "tiles", "unet", "submission_file"} <= set(sources)
    assert not {"settings", "config", "train", "trainer", "datamodule", "augmentations"} & set(sources)
    imported = set().union(*(bundle_module.imports_of(path) for path in (dataset / "source").rglob("*.py")))
    assert not {"pytorch_lightning", "albumentations", "kornia"} & {name.partition(".")[0] for name in imported}
    assert [path.name for path in (dataset / "wheels").iterdir()] == [
        f"segmentation_models_pytorch-{wheels.distribution_of('segmentation_models_pytorch').version}-py3-none-any.whl"
    ]
    assert sorted(path.name for path in (dataset / "models").iterdir()) == ["fold0_seed42", "fold1_seed42"]
    run = Path("lightning_logs/demo/fold0_seed42/model.safetensors")
    assert sha256(dataset / "models" / "fold0_seed42" / "model.safetensors") == sha256(run)
    sums = json.loads((dataset / "checksums.json").read_text())
    files = {path.relative_to(dataset).as_posix() for path in dataset.rglob("*") if path.is_file()}
    assert files - set(sums) == {"checksums.json", "dataset-metadata.json"}
    assert all(sha256(dataset / name) == sha for name, sha in sums.items())


def test_the_metadata_say_what_kaggles_client_asks_for(bundled):
    about = json.loads((KERNEL / "kernel" / "kernel-metadata.json").read_text())
    assert about["enable_internet"] is False and about["enable_gpu"] is True and about["is_private"] is True
    assert about["id"] == "someone/maskfold-demo-predict-kernel"
    assert kernel_pages.slug(about["title"]) == about["id"].partition("/")[2] and len(about["title"]) >= 5
    assert about["dataset_sources"] == ["someone/maskfold-demo-predict"]
    assert about["competition_sources"] == ["carvana-image-masking-challenge"]
    assert (KERNEL / "kernel" / about["code_file"]).is_file()
    data = json.loads((KERNEL / "dataset" / "dataset-metadata.json").read_text())
    assert data["id"] == about["dataset_sources"][0] and 6 <= len(data["title"]) <= 50 and len(data["licenses"]) == 1
    readme = (KERNEL / "README.md").read_text()
    assert "kaggle datasets create -r zip" in readme and "kaggle kernels push" in readme


def test_the_notebook_is_valid_python_and_readable(bundled):
    (page,) = (KERNEL / "kernel").glob("*.ipynb")
    book = json.loads(page.read_text())
    assert book["nbformat"] == 4 and len({cell["id"] for cell in book["cells"]}) == len(book["cells"])
    kinds = [cell["cell_type"] for cell in book["cells"]]
    assert kinds == ["markdown", *["markdown", "code"] * 6]
    for cell in book["cells"]:
        code = "".join(cell["source"])
        if cell["cell_type"] == "code":
            compile(code, "cell", "exec")
        assert max(map(len, code.splitlines())) < 200


@pytest.mark.parametrize(
    ("mount", "zipped"),
    [pytest.param("datasets", False, marks=pytest.mark.main), ("plain", False), ("datasets", True)],
)
def test_the_kernel_makes_the_submission_that_inference_makes_here(bundled, tmp_path, mount, zipped, capsys):
    bundle = kaggle(tmp_path / "kaggle", mount, zipped)
    root, names, sample = kernel_run.test_images(bundle)
    assert len(names) == 16 and sample.name == "sample_submission.csv"
    plan = kernel_run.choose_plan(bundle, root, names, 9)
    assert plan.whole and plan.models == ("fold0_seed42", "fold1_seed42")
    made = kernel_run.predict(bundle, plan, root, names, sample)
    assert made.read_bytes() == Path("output/demo/submission.csv").read_bytes()
    assert [path.name for path in bundle.working.iterdir()] == ["submission.csv"]
    assert "16 test images" in capsys.readouterr().out


def test_a_bundle_that_was_changed_or_lost_a_folder_is_refused(bundled, tmp_path):
    bundle = kaggle(tmp_path / "kaggle")
    path = bundle.folder / "source" / "prediction" / "tta.py"
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(UserError, match=r"tta\.py is another file"):
        kernel_run.open_bundle(bundle.folder)
    path.unlink()
    with pytest.raises(UserError, match=r"tta\.py is missing[\s\S]*-r zip"):
        kernel_run.open_bundle(bundle.folder)


def test_without_the_competitions_images_it_says_what_to_add(bundled, tmp_path):
    bundle = kaggle(tmp_path / "kaggle")
    shutil.rmtree(tmp_path / "kaggle" / "input" / "competitions")
    with pytest.raises(UserError, match=r"holds test_hq; there are[\s\S]*Add the competition carvana"):
        kernel_run.test_images(bundle)


def swap(path, data):
    path.unlink()  # the tree is of hard links
    path.write_bytes(data)


def test_hidden_images_that_cannot_be_read_get_an_empty_mask_and_the_others_theirs(bundled, tmp_path, capsys):
    """All in one batch, by two models: cut, empty, a text, too large by its header, of other channels, not there."""
    bundle = kaggle(tmp_path / "kaggle")
    root, names, sample = kernel_run.test_images(bundle)
    *broken, gone = names[:6]
    head = b"IHDR" + (40_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    bomb = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + head + zlib.crc32(head).to_bytes(4, "big")
    bomb += bytes(4) + b"IDAT" + zlib.crc32(b"IDAT").to_bytes(4, "big")
    bands = tiff(tmp_path / "bands.tif", np.zeros((8, 8, 5), np.uint8)).read_bytes()
    bad = [(root / broken[0]).read_bytes()[:400], b"", b"hidden", bomb, bands]
    for name, data in zip(broken, bad, strict=True):
        swap(root / name, data)
    (root / gone).unlink()
    root, names, sample = kernel_run.test_images(bundle)
    plan = kernel_run.choose_plan(bundle, root, names, 9)
    made = kernel_run.predict(bundle, plan, root, names, sample)
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("6 of 16 images could not be read and have an empty mask: ")
    reasons = ("broken or cut off", "not an image", "not an image", "40000 x 40000", "5 channels", "no such file")
    for name, reason in zip([*broken, gone], reasons, strict=True):
        assert re.search(rf"{name} \([^)]*{reason}", said), said
    ours, theirs = (list(csv.reader(path.open())) for path in (made, Path("output/demo/submission.csv")))
    assert [row[0] for row in ours] == [row[0] for row in theirs]
    lost = {*broken, gone}
    assert all(row[1] == "" for row in ours if row[0] in lost) and all(row[1] for row in theirs)
    shapes = dict.fromkeys(names, (64, 96))
    for path, rows in ((Path("ours.csv"), ours), (Path("theirs.csv"), theirs)):
        path.write_text("".join(f"{','.join(row)}\n" for row in rows if row[0] not in lost))
    kernel_rehearsal.compare(Path("theirs.csv"), Path("ours.csv"), DIALECTS["carvana"], shapes)
    for name in names:
        swap(root / name, b"")
    with pytest.raises(UserError, match="None of the 15 images"):
        kernel_run.predict(bundle, plan, root, names, sample)


JOINED = formed("tgs", {"columns": ["Image_Label", "EncodedPixels"], "joined": True}, "")


@pytest.mark.parametrize("dialect", [*DIALECTS.values(), JOINED], ids=[*DIALECTS, "joined"])
def test_an_empty_mask_needs_no_size_in_any_dialect(tmp_path, dialect):
    spec = DataSpec(task="multiclass", classes=("background", "a", "b"), values=(0, 1, 2))
    spec = spec if dialect.has_classes else DataSpec()
    keep = resumable.RunLengths(resumable.Maps(tmp_path, spec, tmp_path), (), dialect, {"x": "sub/x.png"}, [])
    rows, maps, reason = keep.unreadable(tmp_path / "sub/x.png", UserError(f"{tmp_path}/sub/x.png: cut. Mend it."))
    classes = [("a",), ("b",)] if dialect.has_classes else [()]
    heads = [("x_a",), ("x_b",)] if dialect is JOINED else [("x", *name) for name in classes]
    assert (rows, maps, reason) == ([(*head, dialect.empty) for head in heads], [], "cut")


def test_images_that_the_sample_does_not_have_are_refused(bundled, tmp_path):
    bundle = kaggle(tmp_path / "kaggle")
    root, names, sample = kernel_run.test_images(bundle)
    plan = kernel_run.plans(bundle.about)[-1]
    lines = sample.read_text().splitlines()
    sample.unlink()
    sample.write_text("\n".join(lines[:-1]))
    with pytest.raises(UserError, match="have no id in it"):
        kernel_run.predict(bundle, plan, root, names, sample)
    sample.write_text("\n".join(lines).replace(".jpg", ""))  # ids of another kind are no images that are missing
    with pytest.raises(UserError, match="have no prediction"):
        kernel_run.predict(bundle, plan, root, names, sample)


def test_where_all_test_images_are_hidden_the_submission_is_empty(bundled, tmp_path):
    bundle = kaggle(tmp_path / "kaggle")
    root, _, sample = kernel_run.test_images(bundle)
    for path in root.iterdir():
        path.unlink()
    sample.unlink()
    sample.write_text("img,rle_mask\n")
    root, names, sample = kernel_run.test_images(bundle)
    plan = kernel_run.choose_plan(bundle, root, names, 9)
    assert kernel_run.predict(bundle, plan, root, names, sample).read_text() == "img,rle_mask\n"


def test_a_competition_with_other_samples_too_is_read_by_the_one_of_home(bundled, tmp_path):
    bundle = kaggle(tmp_path / "kaggle")
    _, _, sample = kernel_run.test_images(bundle)
    shutil.copyfile(sample, sample.with_name("stage2_sample_submission.csv"))
    assert kernel_run.test_images(bundle)[2] == sample
    sample.rename(sample.with_name("stage1_sample_submission.csv"))
    assert kernel_run.test_images(bundle)[2] is None  # two that nobody named: the ids go unchecked, and it says so


def test_names_on_kaggle_tell_folds_seeds_and_experiments_apart():
    flags = SimpleNamespace(USER="me", COMPETITION="")
    long = "unet_resnet34_512_flips_with_a_name_that_goes_on_and_on"
    about = [
        kernel_build.titled(flags, name, what)
        for name in (long, f"{long}_2", "x")
        for what in ("predict", "train-fold-0", "train-fold-1", "train-fold-0-seed-43")
    ]
    for key in ("title", "dataset", "kernel"):
        assert len({part[key] for part in about}) == len(about)
        assert all(6 <= len(part[key].rpartition("/")[2]) <= 50 for part in about)


def test_the_notebook_takes_no_other_version_of_its_bundle(bundled):
    (page,) = (KERNEL / "kernel").glob("*.ipynb")
    first = json.loads((KERNEL / "dataset" / "maskfold.json").read_text())["bundle"]
    assert first in page.read_text()
    (KERNEL / "back").mkdir()
    (KERNEL / "back" / "submission.csv").write_text("mine")
    assert kaggle_kernel.main([*ARGS, "THRESHOLD=0.9"]) == 0
    assert json.loads((KERNEL / "dataset" / "maskfold.json").read_text())["bundle"] != first
    assert first not in page.read_text()
    assert (KERNEL / "back" / "submission.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("times", "models", "tta"),
    [
        ([1, 1, 1], 2, "d4"),
        ([60_000, 1, 1], 2, "none"),
        ([60_000, 60_000, 1], 1, "none"),
        ([60_000, 60_000, 60_000], 1, "none"),  # not even that: the last is tried, aloud
    ],
)
def test_the_budget_leaves_out_tta_first_and_then_folds(bundled, tmp_path, monkeypatch, capsys, times, models, tta):
    bundle = kaggle(tmp_path / "kaggle")
    bundle.about.update(tta="d4", rules=[{**bundle.about["rules"][0], "threshold": 0.3}])
    left = iter(times)
    monkeypatch.setattr(kernel_run, "seconds_an_image", lambda *_: next(left))
    root, names, _ = kernel_run.test_images(bundle)
    plan = kernel_run.choose_plan(bundle, root, names, 9)
    assert (len(plan.models), plan.tta) == (models, tta)
    said = capsys.readouterr().out
    assert ("NOT ENOUGH TIME" in said) == (times[-1] > 1)
    threshold = kernel_run.rules_of(bundle.about, plan)[0].threshold
    assert threshold == (0.3 if plan.whole else 0.5)  # a rule is right only for what it was tuned on


def test_sixteen_bits_halve_the_models_and_keep_the_masks(bundled, tmp_path):
    size = sum(path.stat().st_size for path in (KERNEL / "dataset" / "models").rglob("*.safetensors"))
    assert kaggle_kernel.main([*ARGS, "HALF=1"]) == 0
    assert sum(path.stat().st_size for path in (KERNEL / "dataset" / "models").rglob("*.safetensors")) < 0.62 * size
    bundle = kaggle(tmp_path / "kaggle")
    root, names, sample = kernel_run.test_images(bundle)
    made = kernel_run.predict(bundle, kernel_run.plans(bundle.about)[0], root, names, sample)
    from formats import images, rle

    shapes = {name: images.read_size(root / name) for name in names}
    kernel_rehearsal.compare(Path("output/demo/submission.csv"), made, rle.DIALECTS["carvana"], shapes, 1e-3)


def test_weights_beyond_sixteen_bits_are_refused(bundled, refused):
    from safetensors.torch import load_file, save_file

    run = Path("lightning_logs/demo/fold0_seed42")
    state = load_file(run / "model.safetensors")
    name = next(name for name, value in state.items() if value.ndim == 4 and name != "mean" and name != "std")
    state[name][0] = 1e6
    save_file(state, run / "model.safetensors")
    about = json.loads((run / "model.json").read_text())
    about["weights_sha256"] = sha256(run / "model.safetensors")
    (run / "model.json").write_text(json.dumps(about))
    refused(kaggle_kernel.main, [*ARGS, "HALF=1", "FOLD=0"], name, "16 bits cannot hold")
    assert (KERNEL / "dataset" / "models" / "fold1_seed42").is_dir()  # the kernel of before is still there


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["COMPETITION=Carvana Challenge"], ["COMPETITION=", "address"]),
        (["HOURS=13"], ["HOURS=13", "12 hours"]),
        (["HOURS=long"], ["a number of hours"]),
        (["TEST_PATH=output"], ["lies outside of"]),
        (["FOLD=7"], ["fold7_seed42"]),
        (["TRAIN=1"], ["Which fold"]),
        (["TRAIN=1", "FOLD=0", "HOURS=8"], ["leave them out"]),
        (["TRAIN=1", "FOLD=0", "TRAIN_FOLDS=none.csv"], ["none.csv", "make folds"]),
        (["TRAIN=1", "FOLD=0", "MODEL_NAME=smp_unet_resnet18", "ENCODER_WEIGHTS=imagenet"], ["make weights"]),
        (["WHEELS=no_such_package"], ["no_such_package is not installed"]),
        (["WHEELS=numpy"], ["compiled code"]),
    ],
)
def test_what_would_fail_on_kaggle_is_refused_here(bundled_source, refused, given, words):
    with left_alone(bundled_source):
        refused(kaggle_kernel.main, [*ARGS, *given], *words)


def test_a_folder_that_is_not_ours_is_left_alone(trained, refused):
    KERNEL.mkdir(parents=True)
    (KERNEL / "thesis.txt").write_text("mine")
    refused(kaggle_kernel.main, ARGS, "not ours to replace")


def test_a_wheel_that_is_packed_again_installs_and_imports(tmp_path):
    path = wheels.pack("segmentation_models_pytorch", tmp_path / "wheels")
    assert path.read_bytes() == wheels.pack("segmentation_models_pytorch", tmp_path / "again").read_bytes()
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--quiet", "--target", tmp_path / "there"]
    subprocess.run([*pip, path], check=True)
    installed = {item.relative_to(tmp_path / "there") for item in (tmp_path / "there").rglob("*.py")}
    here = wheels.distribution_of("segmentation_models_pytorch")
    assert installed == {Path(str(file)) for file in here.files if file.suffix == ".py"}


GUARDED = """
import sys
sys.path.insert(0, {guard!r})
import kernel_guard
kernel_guard.install({log!r}, [{work!r}], [{closed!r}], [])
{code}
"""


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import socket; socket.create_connection(('192.0.2.1', 80), 1)", "192.0.2.1"),
        ("import urllib.request as u; u.urlopen('http://huggingface.co')", "huggingface.co"),
        ("import socket; socket.gethostbyname('huggingface.co')", "huggingface.co"),
        ("import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))", "datagram"),
        ("import os; os.link('{closed}/secret.txt', '{work}/mine.txt')", "a link to"),
        ("open('{outside}/a.txt', 'w')", "writing"),
        ("import pathlib; pathlib.Path('{outside}/b').mkdir()", "os.mkdir"),
        ("import os; os.rename('{work}/x', '{outside}/x')", "os.rename"),
        ("open('{closed}/secret.txt').read()", "not in the bundle"),
        ("try:\n    open('{outside}/c.txt', 'w')\nexcept OSError:\n    pass", "writing"),  # tried, and hidden
        ("open('{work}/ok.txt', 'w').write('1'); open('{outside}/there.txt').read()", ""),
    ],
)
def test_the_guard_sees_what_a_kernel_must_not_do(tmp_path, code, said):
    places = {name: str(tmp_path / name) for name in ("work", "outside", "closed")}
    for folder in places.values():
        Path(folder).mkdir()
    (tmp_path / "work" / "x").write_text("x")
    (tmp_path / "outside" / "there.txt").write_text("t")
    (tmp_path / "closed" / "secret.txt").write_text("s")
    log = tmp_path / "refused.txt"
    filled = GUARDED.format(
        guard=str(ROOT / "src" / "shipping"),
        log=str(log),
        code=code.format(**places),
        **{k: places[k] for k in ("work", "closed")},
    )
    done = subprocess.run([sys.executable, "-c", filled], capture_output=True, text=True, check=False)
    assert said in log.read_text()
    assert bool(log.read_text()) == bool(said)
    if not said:
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "work" / "ok.txt").read_text() == "1"


def test_a_kernel_that_tried_something_or_failed_is_no_success(tmp_path):
    (tmp_path / "guard").mkdir()
    (tmp_path / "log.txt").write_text("a\nboom\n")
    kernel_rehearsal.refuse_breaches(tmp_path, 0)
    with pytest.raises(UserError, match=r"exit code 1:\n  a\n  boom"):
        kernel_rehearsal.refuse_breaches(tmp_path, 1)
    (tmp_path / "guard" / "refused.txt").write_text("writing /root/x\n")
    with pytest.raises(UserError, match="writing /root/x"):
        kernel_rehearsal.refuse_breaches(tmp_path, 0)


def test_the_rehearsal_tells_rounding_from_another_mask(tmp_path):
    from formats import rle

    def written(name, *rows):
        (tmp_path / name).write_text("\n".join(["img,rle_mask", *rows]) + "\n")
        return tmp_path / name

    dialect, shapes = rle.DIALECTS["carvana"], {"a.jpg": (200, 200), "b.jpg": (200, 200)}
    here = written("here.csv", "a.jpg,1 100", "b.jpg,1 50")
    same = written("same.csv", "a.jpg,1 100", "b.jpg,1 50")
    near = written("near.csv", "a.jpg,1 101", "b.jpg,1 50")
    far = written("far.csv", "a.jpg,1 120", "b.jpg,1 50")
    other = written("other.csv", "b.jpg,1 50", "a.jpg,1 100")
    assert "byte for byte" in kernel_rehearsal.compare(here, same, dialect, shapes)
    assert "1 of 2 masks differ, by 1 pixels" in kernel_rehearsal.compare(here, near, dialect, shapes)
    for file, words in ((far, "a.jpg"), (other, "other ids"), (tmp_path / "none.csv", "other ids")):
        with pytest.raises(UserError, match=words):
            kernel_rehearsal.compare(here, file, dialect, shapes)


CLIENT = """#!/bin/sh
echo "$@" >> {log}
case "$1 $2" in
  "datasets status") n=$(cat {log}.count 2>/dev/null || echo 0); echo $((n + 1)) > {log}.count
    [ "$n" = 0 ] && exit {status}; [ "$n" = 1 ] && echo running || echo ready ;;
  "kernels push") {push} ;;
  "kernels output") mkdir -p "$5"; cp {zip} "$5/" ;;
esac
"""


def fake_client(folder, monkeypatch, status=1, push="exit 0", archive="/dev/null"):
    (folder / "bin").mkdir(exist_ok=True)
    client, log = folder / "bin" / "kaggle", folder / "asked.txt"
    Path(f"{log}.count").unlink(missing_ok=True)
    monkeypatch.setattr(kernel_push, "PAUSE", 0)
    client.write_text(CLIENT.format(log=log, status=status, push=push, zip=archive))
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")
    return log


def test_push_uploads_the_data_set_and_the_notebook(bundled, tmp_path, monkeypatch, refused):
    log = fake_client(tmp_path, monkeypatch)
    assert kaggle_kernel.push([]) == 0
    asked = log.read_text().splitlines()
    assert asked[1:] == [
        "datasets create -r zip -p output/kernel/dataset",
        *["datasets status someone/maskfold-demo-predict"] * 2,  # until it is ready
        "kernels push -p output/kernel/kernel --accelerator NvidiaTeslaT4",
    ]
    log.unlink()
    fake_client(tmp_path, monkeypatch, status=0)
    assert kaggle_kernel.push(["MESSAGE=again"]) == 0
    assert "datasets version -r zip -p output/kernel/dataset -m again" in log.read_text()
    fake_client(tmp_path, monkeypatch, push="echo 403 - Forbidden; exit 0")
    refused(kaggle_kernel.push, [], "was refused", "403 - Forbidden", "Log in")
    fake_client(tmp_path, monkeypatch, push="echo 'not valid dataset sources: a/b. Kernel pushed'; exit 0")
    refused(kaggle_kernel.push, [], "was refused", "not valid dataset sources")
    monkeypatch.setattr(kernel_push, "PATIENCE", -1)
    fake_client(tmp_path, monkeypatch, status=0)
    refused(kaggle_kernel.push, [], "has not finished", "Later: kaggle kernels push")
    monkeypatch.setenv("PATH", "/nowhere")
    refused(kaggle_kernel.push, [], "Kaggle's client is not here", "pip install kaggle")


def test_push_asks_whose_kernel_it_is(trained, refused, monkeypatch, tmp_path):
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "none"))
    assert kaggle_kernel.main([*TINY, "FOLD=0"]) == 0
    refused(kaggle_kernel.push, [], "USER=name")
    assert "Replace YOUR-NAME" in (KERNEL / "README.md").read_text()
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "kaggle.json").write_text('{"username": "Anna", "key": "1"}')
    assert kernel_build.owner("") == "Anna"


def test_a_training_kernel_takes_the_default_networks_weights_along(folds_table, tmp_path, monkeypatch, capsys):
    default = [f"{name}={settings_module.DEFAULTS[name]}" for name in ("MODEL_NAME", "ENCODER_WEIGHTS")]
    argv = [*TINY, *default, "EPOCHS=1", "TRAIN=1", "FOLD=1", "COMPETITION=carvana-image-masking-challenge", "USER=me"]
    assert kaggle_kernel.main(argv) == 0
    bundle = kaggle(tmp_path / "kaggle", zipped=True)
    words = kernel_training.lay_out(bundle)
    import train

    with contextlib.chdir(bundle.working), monkeypatch.context() as on_kaggle:
        on_kaggle.setattr(weights_source.Package, "installed", lambda self: None)
        capsys.readouterr()
        assert train.main(words) == 0
        model = json.loads(next(Path("lightning_logs").glob("*/fold1_seed42/model.json")).read_text(encoding="utf-8"))
    assert "ImageNet weights from input/weights/tu-tf_efficientnet_lite0.safetensors" in capsys.readouterr().out
    assert model["network"]["MODEL_MEAN"] == model["network"]["MODEL_STD"] == [0.5, 0.5, 0.5]


def test_a_fold_trained_in_a_kernel_comes_home(trained, tmp_path, refused, monkeypatch):
    """With what it began as: Kaggle has no other runs."""
    second = [*TINY, "INIT=demo", "EXPERIMENT=second", "EPOCHS=1"]
    argv = [*second, "TRAIN=1", "FOLD=1", "COMPETITION=carvana-image-masking-challenge", "USER=me"]
    assert kaggle_kernel.main(argv) == 0
    source = KERNEL / "dataset" / "source"
    assert {"train", "tester", "trainer", "loss_sum"} <= {path.stem for path in source.rglob("*.py")}
    packed = {path.name.partition("-")[0] for path in (KERNEL / "dataset" / "wheels").iterdir()}
    assert packed == {"filelock", "segmentation_models_pytorch"}
    bundle = kaggle(tmp_path / "kaggle", zipped=True)
    words = kernel_training.lay_out(bundle)
    assert "FOLD=1" in words and "EPOCHS=1" in words
    import tester
    import train

    with contextlib.chdir(bundle.working):
        assert train.main(words) == 0
    packed = kernel_training.bring_back(bundle)
    assert [path.name for path in bundle.working.iterdir()] == [packed.name]
    refused(kaggle_kernel.fetch, [f"ZIP={tmp_path}/none.zip"], "no such file")
    shutil.copytree(packed.parent, KERNEL / "back")  # as an earlier call left it
    fake_client(tmp_path, monkeypatch, archive="/dev/null")  # "Kernel is still running", and no file of that name
    refused(kaggle_kernel.fetch, [], "has no maskfold-second-train-fold-1.zip")
    log = fake_client(tmp_path, monkeypatch, archive=packed)
    assert kaggle_kernel.fetch([]) == 0
    assert "kernels output me/maskfold-second-train-fold-1-kernel -p output/kernel/back" in log.read_text()
    assert tester.main([*second, "FOLD=1"]) == 0  # the folds table, the settings and the model belong together
    about = json.loads(Path("lightning_logs/second/fold1_seed42/model.json").read_text())
    assert about["weights_origin"] == "demo, fold 1, seed 42"
    refused(kaggle_kernel.fetch, [f"ZIP={packed}"], "there already", "OVERWRITE=1")
    assert kaggle_kernel.fetch([f"ZIP={packed}", "OVERWRITE=1"]) == 0
    assert train.main([*second, "FOLD=0"]) == 0  # the other fold, trained here, is of the same experiment


def test_a_training_longer_than_a_session_goes_on_in_the_next_one(trained, tmp_path, capsys, refused):
    """Stopped in time, packed, fetched, taken along again: the weights of the uninterrupted run."""
    import tester
    import train

    expected = Path("lightning_logs/demo/fold1_seed42/model.safetensors").read_bytes()
    shutil.rmtree("lightning_logs/demo/fold1_seed42")
    argv = [*TINY, "TRAIN=1", "FOLD=1", "COMPETITION=carvana-image-masking-challenge", "USER=me"]
    for session, minutes in enumerate(("MAX_MINUTES=0.00001", "CHECKPOINT_MINUTES=5")):
        assert kaggle_kernel.main([*argv, minutes]) == 0
        bundle = kaggle(tmp_path / f"kaggle{session}")
        words = kernel_training.lay_out(bundle)
        assert ("RESUME=1" in words) == (session == 1)
        assert ("MAX_MINUTES=690.0" in words) == (session == 1)
        with contextlib.chdir(bundle.working):
            for script in kernel_training.scripts(bundle):
                assert {"train.py": train, "tester.py": tester}[script].main(words) == 0
                words = [word for word in words if word != "RESUME=1"]
        packed = kernel_training.bring_back(bundle)
        capsys.readouterr()
        assert kaggle_kernel.fetch([f"ZIP={packed}"]) == 0
        said = capsys.readouterr().out
        assert ("not finished" in said and "make kernel TRAIN=1 FOLD=1" in said) == (session == 0)
    assert Path("lightning_logs/demo/fold1_seed42/model.safetensors").read_bytes() == expected
    assert Path("lightning_logs/demo/fold1_seed42/val/summary.json").is_file()
    refused(kaggle_kernel.fetch, [f"ZIP={packed}"], "there already", "OVERWRITE=1")


def test_a_run_folder_that_is_not_whole_is_not_taken_home(trained, tmp_path, refused):
    run = Path("lightning_logs/demo/fold0_seed42")
    shutil.copytree("lightning_logs", tmp_path / "packed" / "lightning_logs")
    weights = tmp_path / "packed" / run / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    shutil.rmtree(tmp_path / "packed" / "lightning_logs" / "demo" / "fold1_seed42")
    made = shutil.make_archive(str(tmp_path / "run"), "zip", tmp_path / "packed")
    shutil.rmtree(run)
    refused(kaggle_kernel.fetch, [f"ZIP={made}"], "is not the file that model.json describes")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    refused(kaggle_kernel.fetch, [f"ZIP={tmp_path}/empty.zip"], "0 run folders")
    assert not run.exists() and not list(Path("lightning_logs").glob(".fetched"))


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["MOUNT=plain", "ZIPPED=1"]])
def test_the_whole_rehearsal(bundled, more, capsys):
    """Under Kaggle's versions, without a network; MASKFOLD_KAGGLE_PYTHON names a Python that has them."""
    given = os.environ.get("MASKFOLD_KAGGLE_PYTHON", "")
    shared = ROOT / ".venv-kaggle"
    if not given:
        Path(".venv-kaggle").symlink_to(shared)
        shared.mkdir(exist_ok=True)
    assert kaggle_kernel.rehearse([*([f"WITH={given}"] if given else []), *more]) == 0
    assert "Rehearsed in" in capsys.readouterr().out
    assert "16 rows for 16 images" in (KERNEL / "rehearsal.txt").read_text()
