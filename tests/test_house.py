"""The rules of the house: who may import whom, and that help comes at once."""

import ast
import importlib.util
import json
import subprocess
import sys

import pytest

from conftest import ROOT

KERNEL_MODEL = ("model_dispatcher", "unet", "backbones", "encoder_weights")
FLOORS = [
    {"config", "errors", "settings"},
    {
        *("console", "images", "decode", "tiff", "rle", "rle_table", "metrics", "postprocess", "pictures", "runs"),
        *("boards", "surfaces", "objects", "measures", "bootstrap", "variances", "verdict", "blending", "charts"),
        *("reliability", "suspects", "pseudolabels", "watershed", "locks", "stopping", "orphans"),
        *("dataspec", "groups", "archives", "threads", "submission_file", "wheels", "kernel_guard"),
        *("jobs", "job_status", "cluster", "slurm"),
    },
    {
        *("layouts", "pairing", "splits", "likeness", "spectra", "nomination", "audit", "examine", "leaks", "folds"),
        *("augmentations", "crops", "device_augmentations", "mixing", "dataset", "datamodule"),
    },
    {
        *("encoder_weights", "backbones", "unet", "model_dispatcher", "losses", "optimisers"),
        *("hardware", "processes", "runners"),
    },
    {
        *("lightning_module", "callbacks", "step_images", "trainer", "lr_finder", "assembly"),
        *("checkpoints", "provenance", "ranks", "launch", "shipping"),
        *("train", "reproduce", "lr", "batch"),
    },
    {
        *("tta", "tiles", "predictor", "predictions", "parts", "kernel_run", "rules", "scoring", "summaries"),
        *("shards",),
        *("outoffold", "tuning", "sweep"),
        *("inference", "tester", "tune"),
    },
    {
        *("experiments", "ensemble", "compare", "leaderboard", "report", "reporting"),
        *("export_onnx", "onnx_file", "onnx_example", "hub", "model_card"),
        *("kaggle_kernel", "bundle", "kernel_pages", "kernel_rehearsal", "kernel_push", "kernel_fetch"),
        *("pseudo", "labellers", "merge", "submission", "cv", "run_table", "weights", "samples", "summary", "smoke"),
        *("data", "rle_check", "kaggle_client", "doctor", "checkup"),
        *("search", "search_space", "trials", "trial_runs"),
        *("cars", "studio", "scenes", "scene_layouts", "demo"),
    },
]
SCRIPTS = {
    "folds", "train", "reproduce", "tester", "cv", "inference", "submission", "weights", "samples", "summary", "smoke",
    "demo", "data", "doctor", "rle_check", "lr", "batch", "tune", "ensemble", "compare", "leaderboard", "report",
    "export_onnx", "hub", "pseudo", "merge", "search",
    "kaggle_kernel", "kernel_rehearsal", "kernel_push", "kernel_fetch",
}  # fmt: skip
# a package counts as one module, whose imports are those of all its files
FILES = {path.stem: [path] for path in sorted((ROOT / "src").glob("*.py"))}
FILES |= {path.parent.name: sorted(path.parent.glob("*.py")) for path in (ROOT / "src").glob("*/__init__.py")}
MODULES = {name: ast.parse("\n".join(file.read_text() for file in files)) for name, files in FILES.items()}


def imported(tree, anywhere=True):
    """Names of the modules that a module imports, inside functions too."""
    nodes = ast.walk(tree) if anywhere else tree.body
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_every_module_has_its_floor_and_imports_go_downwards():
    floor = {name: level for level, names in enumerate(FLOORS) for name in names}
    assert set(floor) == set(MODULES)
    upwards = [
        f"{name} imports {other}"
        for name, tree in MODULES.items()
        for other in imported(tree)
        if other in floor and floor[other] > floor[name]
    ]
    assert not upwards


def test_only_scripts_read_the_settings_and_only_settings_the_constants():
    for name, tree in MODULES.items():
        assert "settings" not in imported(tree) or name in SCRIPTS, name
        assert "config" not in imported(tree) or name == "settings", name


def test_floors_without_torch_stay_without():
    with_torch = {"dataset", "augmentations", "datamodule", "device_augmentations", "mixing"}
    delivery = {"cars", "studio", "scenes", "scene_layouts", "data", "rle_check", "kaggle_client"}
    for name in (*FLOORS[0], *FLOORS[1], *(FLOORS[2] - with_torch), *delivery):
        assert not {"torch", "pytorch_lightning", "segmentation_models_pytorch"} & imported(MODULES[name]), name


def test_what_a_kaggle_kernel_takes_along_never_imports_lightning():
    for name in ("predictor", "tta", *KERNEL_MODEL, *FLOORS[1], "errors"):
        assert "pytorch_lightning" not in imported(MODULES[name]), name


def test_heavy_packages_wait_for_the_function_that_needs_them():
    for name in SCRIPTS:
        heavy = {
            "torch",
            "pandas",
            "sklearn",
            "matplotlib",
            "pytorch_lightning",
            "albumentations",
            "segmentation_models_pytorch",
        }
        assert not heavy & imported(MODULES[name], anywhere=False), name


def test_the_audit_never_passes_silence_for_safety(monkeypatch):
    place = importlib.util.spec_from_file_location("ci_audit", ROOT / ".ci" / "audit.py")
    ci_audit = importlib.util.module_from_spec(place)
    place.loader.exec_module(ci_audit)
    fine, bug = {"name": "a", "version": "1", "vulns": []}, {"id": "CVE-1", "fix_versions": ["2"]}
    for packages, words in (
        ([fine, {"name": "b", "skip_reason": "not found"}], "1 of 2 packages looked up, 0 known vulnerabilities; not"),
        ([{"name": "b", "skip_reason": "not found"}], "nothing was audited"),
        ([{**fine, "vulns": [bug]}], "1 known vulnerabilities\n  a 1: CVE-1, fixed in 2"),
        (None, "nothing was audited"),
    ):  # fmt: skip
        said = json.dumps({"dependencies": packages}) if packages else ""
        done = subprocess.CompletedProcess([], 1, said, "no network\n")
        monkeypatch.setattr(ci_audit.subprocess, "run", lambda *_, done=done, **__: done)
        assert words in ci_audit.report()


def test_no_module_shadows_a_package():
    for name in MODULES:
        assert name not in sys.stdlib_module_names, name


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_help_needs_neither_torch_nor_pandas(script):
    code = f"""
import sys
sys.path.insert(0, "src")
import {script}
try:
    {script}.main(["--help"])
except SystemExit:
    print(sorted({{"torch", "pandas", "matplotlib"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "NAME=value" in done.stdout
    assert done.stdout.endswith("[]\n"), done.stdout[-200:]
