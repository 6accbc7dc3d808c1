"""A tiny demo data set, rendered once, and a fresh working folder for each test."""

import contextlib
import multiprocessing
import os
import shlex
import shutil
import signal
import sys
from pathlib import Path

import filelock
import hypothesis
import numpy as np
import pytest
from PIL import Image

import forked
import linked

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny networks wait for each other's threads more than they compute

# under nohup, or behind a shell's &, these would be ignored here and in all that the tests start
for number, action in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    signal.signal(number, action)

hypothesis.settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("untimed")
ROOT = Path(__file__).parents[1]
NUCLEI = Path(os.environ.get("MASKFOLD_NUCLEI", ROOT.parent / "shared" / "data" / "nuclei"))
TINY = [
    "DATASET=demo", "N_FOLDS=2", "MODEL_NAME=unet", "MAX_FEATURES=16", "ENCODER_WEIGHTS=none", "IMAGE_SIZE=32,64",
    "EPOCHS=2", "TRAIN_BATCH_SIZE=8", "LR=8e-3", "WORKERS=0", "AUGMENT=upright", "STEP_IMAGES=0", "PRECISION=32",
]  # fmt: skip
SMP = ["MODEL_NAME=smp_linknet_tu-test_resnet", "EPOCHS=1"]  # twice the layers of TINY's, and ten times the bytes


# whole files go to one process (--dist loadfile); those that take longest begin, so that none is left over at the end
LONG = ("queue", "ddp", "path", "search", "resume", "kernel", "doctor", "inference", "tasks", "report", "training")


def pytest_collection_modifyitems(items):
    place = {f"test_{name}": number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONG)))


@pytest.fixture(scope="session", autouse=True)
def quick(tmp_path_factory):
    """A python that has the imports done (see forked.py), which multiprocessing takes too; else the usual one."""
    if forked.ADDRESS not in os.environ:
        return sys.executable
    path = tmp_path_factory.mktemp("quick") / "python"
    path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -S {shlex.quote(forked.__file__)} "$@"\n')
    path.chmod(0o755)
    os.environ[forked.PYTHON] = str(path)  # for those that are forked from here
    multiprocessing.set_executable(str(path))
    return str(path)


@pytest.fixture(scope="session", autouse=True)
def _sources_stay():
    yield
    assert not linked.changed()


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Call `make(folder)` in the process of this run that comes first; returns the folder, which no test may change."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def made(name, make):
        place, begun = base / f"source_{name}", base / f"begun_{name}"
        with filelock.FileLock(base / f"{name}.lock"):
            if not place.is_dir():
                shutil.rmtree(begun, ignore_errors=True)  # its maker failed
                begun.mkdir()
                make(begun)
                begun.rename(place)
        return place

    return made


@pytest.fixture(scope="session")
def demo_source(once):
    """4 cars to train on and 1 to test, 16 views each, 96 x 64 pixels, in Carvana's layout."""
    from scenes import carvana

    return once("demo", lambda folder: carvana.render_data(folder / "demo", 42, 4, 1, 96)) / "demo"


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty working folder, as a clone has it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "input").mkdir()
    return tmp_path


@pytest.fixture
def demo_data(workplace, demo_source):
    """The working folder with the tiny demo below input/demo."""
    return linked.copy(demo_source, workplace / "input" / "demo")


@pytest.fixture(scope="session")
def folds_source(demo_source, once):
    """A working folder in which make folds was done on the tiny demo."""

    def make(place):
        import folds

        linked.copy(demo_source, place / "input" / "demo")
        with contextlib.chdir(place):
            assert folds.main(TINY) == 0

    return once("folds", make)


@pytest.fixture
def folds_table(demo_data, folds_source):
    """The tiny demo with its folds table made."""
    linked.copy(folds_source / "output", Path("output"))
    return Path("output/demo/train_folds.csv")


def cross_validate(*extra: str) -> None:
    """What make cv does on the tiny demo's two folds, in this process, which has its imports done."""
    import tester
    import train

    for fold in (0, 1):
        assert train.main([*TINY, *extra, f"FOLD={fold}"]) == 0
        assert tester.main([*TINY, *extra, f"FOLD={fold}"]) == 0
    assert tester.main([*TINY, *extra, "OOF=1"]) == 0


@pytest.fixture(scope="session")
def trained_source(folds_source, once):
    """A working folder in which both folds of the tiny demo are trained and scored."""

    def make(place):
        linked.copy(folds_source, place)
        with contextlib.chdir(place):
            cross_validate()

    return once("trained", make)


@pytest.fixture(scope="session")
def smp_source(folds_source, once):
    """The same by a network of smp, after one epoch: what is packed or shipped differs."""

    def make(place):
        linked.copy(folds_source, place)
        with contextlib.chdir(place):
            cross_validate(*SMP)

    return once("smp", make)


@pytest.fixture
def trained(trained_source, tmp_path, monkeypatch):
    """A copy of the trained working folder that the test may change."""
    monkeypatch.chdir(linked.copy(trained_source, tmp_path / "copy"))
    return tmp_path / "copy"


@pytest.fixture
def trained_by_smp(smp_source, tmp_path, monkeypatch):
    """The same by smp's network."""
    monkeypatch.chdir(linked.copy(smp_source, tmp_path / "copy"))
    return tmp_path / "copy"


@pytest.fixture(scope="session")
def trained_here(trained_source, tmp_path_factory):
    """A copy for all tests of this process that change nothing."""
    return linked.copy(trained_source, tmp_path_factory.mktemp("here") / "copy")


@pytest.fixture
def untouched(trained_here):
    """The trained working folder, for a test that changes nothing in it, such as one of refusals: it needs no copy."""
    with left_alone(trained_here):
        yield


@contextlib.contextmanager
def left_alone(place):
    """Be in this folder, and find its files afterwards as they were."""

    def files():
        return {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()}

    with contextlib.chdir(place):
        before = files()
        yield
        assert files() == before


def write_mask(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((mask * 255).astype(np.uint8)).save(path)


def write_instances(root: Path, count: int, seed: int = 0) -> None:
    """A small data set in the 2018 Data Science Bowl's layout: bright discs on dark noise, two test images."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:40, 0:48]
    for number in range(count + 2):
        folder = root / ("stage1_train" if number < count else "stage1_test") / f"id{number:02d}"
        image = random.integers(0, 60, (40, 48, 3)).astype(np.uint8)
        for part in range(1 + number % 3):
            disc = (y - random.integers(8, 32)) ** 2 + (x - random.integers(8, 40)) ** 2 <= (3 + number % 4) ** 2
            image[disc] = random.integers(150, 250, 3)
            if number < count:
                write_mask(folder / "masks" / f"{part}.png", disc)
        (folder / "images").mkdir(parents=True)
        Image.fromarray(image).convert("RGBA").save(folder / "images" / f"id{number:02d}.png")


@pytest.fixture
def refused(capsys):
    """Call a script's main and expect exit code 2 and a sentence with these words in it; returns the sentence."""

    def check(main, argv, *words):
        capsys.readouterr()
        code = main(argv)
        said = capsys.readouterr().err
        assert code == 2, said
        assert said.startswith("error: ")
        assert "Traceback" not in said
        for word in words:
            assert word in said, f"'{word}' is not in: {said}"
        return said

    return check
