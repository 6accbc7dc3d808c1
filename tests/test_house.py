"""The rules of the house: who may import whom, and that help comes at once."""

import ast
import importlib.util
import json
import subprocess
import sys

import pytest

from conftest import ROOT

SRC = ROOT / "src"
# Imports go down only. What stands at the top of src/ and in no list is a verb; verbs are above all.
FLOORS = [
    ("config",),
    ("tools",),
    ("settings",),
    ("formats",),
    ("data", "scenes"),
    ("loading", "modeling", "metrics"),
    ("model_dispatcher", "lightning_module"),
    ("training", "prediction"),
    ("scoring",),
    ("shipping", "checkup", "jobs"),
    ("reporting",),
]
FLOOR = {name: level for level, names in enumerate(FLOORS) for name in names}
FILES = {path.relative_to(SRC).with_suffix("").as_posix().replace("/", "."): path for path in sorted(SRC.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}
VERBS = sorted(name for name in TREES if "." not in name and name not in FLOOR and (SRC / f"{name}.py").is_file())
NO_TORCH = ("data", "metrics", "scenes")  # not in a function either; tools and formats have none at import
HEAVY = {"torch", "pandas", "sklearn", "matplotlib", "pytorch_lightning", "albumentations"}
HEAVY |= {"segmentation_models_pytorch"}


def room(name):
    """The folder or the top-level module that a dotted name lies in."""
    return name.partition(".")[0]


def imported(tree, anywhere=True):
    """Dotted names that a module imports, inside functions too; what only a type checker sees is left out."""
    names, waiting = set(), list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        waiting += ast.iter_child_nodes(node) if anywhere else []
    return names


def packages(tree, anywhere=True):
    return {room(name) for name in imported(tree, anywhere)}


@pytest.mark.main
def test_imports_go_down_only():
    known = {room(name) for name in TREES}
    up = []
    for name, tree in TREES.items():
        mine, level = room(name), FLOOR.get(room(name), len(FLOORS))
        for other in packages(tree) & known - {mine}:
            if FLOOR.get(other, len(FLOORS)) >= level and name != "demo":
                up.append(f"{name} imports {other}")
    assert not up


@pytest.mark.main
def test_only_verbs_load_settings_and_only_settings_reads_the_constants():
    for name, tree in TREES.items():
        assert "settings" not in packages(tree) or name in VERBS, name
        assert "config" not in packages(tree) or name == "settings", name


def test_a_folder_explains_itself_in_one_sentence_and_nothing_else():
    for path in SRC.rglob("__init__.py"):
        assert len(TREES[path.relative_to(SRC).with_suffix("").as_posix().replace("/", ".")].body) == 1, path
    for folder in {path.parent for path in FILES.values()} - {SRC}:
        assert (folder / "__init__.py").is_file(), folder


def test_floors_without_torch_stay_without():
    for name, tree in TREES.items():
        if room(name) in ("tools", "formats", *NO_TORCH):
            assert not {"torch", "pytorch_lightning"} & packages(tree, anywhere=room(name) in NO_TORCH), name


def test_what_a_kaggle_kernel_takes_along_never_imports_lightning():
    from shipping import kernel_bundle

    files = kernel_bundle.modules_of("shipping.kernel_run")
    taken = {path.relative_to(SRC).with_suffix("").as_posix().replace("/", ".") for path in files}
    assert "prediction.predictor" in taken and "model_dispatcher" in taken
    assert not {room(name) for name in taken} & {"training", "loading", "scoring", "settings", "config", "jobs"}
    for name in taken:
        assert "pytorch_lightning" not in packages(TREES[name]), name


def test_heavy_packages_wait_for_the_function_that_needs_them():
    for name in VERBS:
        assert not HEAVY & packages(TREES[name], anywhere=False), name


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
    for name in {room(name) for name in TREES}:
        assert name not in sys.stdlib_module_names, name


def test_help_needs_neither_torch_nor_pandas():
    """Each verb's help in a fork of a process that has imported nothing else."""
    code = """
import importlib, os, sys
import cv2, numpy, PIL.Image, scipy
sys.path.insert(0, "src")
for words in sys.argv[1:]:
    name, *action = words.split()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            importlib.import_module(name).main([*action, "--help"])
        except SystemExit:
            print("END", sorted({"torch", "pandas", "matplotlib"} & set(sys.modules)), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""
    actions = ["inference merge", "fetch weights", "preview summary", "export hub", "doctor batch", "doctor rle-check"]
    actions += [f"kaggle_kernel {name}" for name in ("rehearsal", "push", "fetch")]
    words = [*VERBS, *actions]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=True)
    helps = done.stdout.split("END")
    assert len(helps) == len(words) + 1, done.stderr[-500:]
    assert all("NAME=value" in text for text in helps[:-1])
    assert [(word, text.split("\n")[0]) for word, text in zip(words, helps[1:], strict=True) if text[:3] != " []"] == []
