"""make kernel-rehearsal: the kernel of output/kernel/ run here as Kaggle would run it, and its submission compared.

A tree like Kaggle's, a clean environment with the versions of Kaggle's image (and without smp), no network, and the
notebook's cells one after the other. It fails where something tries to download, writes outside of /kaggle/working,
needs a file that is not in the bundle, or gives other masks than inference here.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import images_to_predict
from formats import images, rle
from prediction import inference_job, submission_file, submission_job
from shipping import kernel_run
from shipping.kernel_build import MADE, PLACE
from tools.errors import UserError, listing
from tools.files import link, read_json

if TYPE_CHECKING:
    from settings import Settings

ENVIRONMENT = Path(".venv-kaggle")
REQUIREMENTS = Path(__file__).parents[2] / "requirements-kaggle.txt"
AT_HOME = "kernel-rehearsal"  # name of the prediction folder made here for the comparison
TOLERANCE = 1e-4  # of an image's pixels: another torch rounds differently, and a probability may cross the threshold
HALF_TOLERANCE = 1e-3  # where the weights themselves were rounded (HALF=1)
CELLS = """
import json, sys, time
for number, cell in enumerate(json.load(open(sys.argv[1]))["cells"]):
    code = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        print(f"\\n# {code.splitlines()[0].lstrip('# ')}", flush=True)
    else:
        start = time.monotonic()
        exec(compile(code, f"cell {number}", "exec"), globals())
        print(f"  [{time.monotonic() - start:.1f} s]", flush=True)
"""


def find_python() -> str:
    """Return a Python 3.12, as Kaggle has, where one works; else this one."""
    home = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for candidate in ("python3.12", *map(str, sorted(home.glob("versions/3.12*/bin/python")))):
        asked = shutil.which(candidate)
        if asked and subprocess.run([asked, "-c", ""], capture_output=True, check=False).returncode == 0:
            return asked
    return sys.executable


def environment(given: str) -> str:
    """Return the Python with Kaggle's versions: WITH, or that of .venv-kaggle, which is made if it is missing."""
    if given:
        found = shutil.which(given)
        if not found:
            raise UserError(f"WITH={given}: no such Python.")
        return os.path.abspath(found)  # noqa: PTH100 (a link to a Python has to stay one)
    ready = ENVIRONMENT / ".installed"
    if not ready.is_file() or ready.stat().st_mtime < REQUIREMENTS.stat().st_mtime:
        python = find_python()
        print(f"Installing {REQUIREMENTS.name} into {ENVIRONMENT} by {python}: about 5 GB, some minutes", flush=True)
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        pip = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet", "-r", str(REQUIREMENTS)]
        for typed in ([python, "-m", "venv", str(ENVIRONMENT)], pip):
            if subprocess.run(typed, check=False).returncode:
                raise UserError(f"{' '.join(typed)} failed; WITH=python names a Python that has Kaggle's versions.")
        ready.touch()
    return os.path.abspath(ENVIRONMENT / "bin" / "python")  # noqa: PTH100


def clean_environment(tree: Path, python: str) -> str:
    """Make an environment on top of that Python's packages, for pip to install into; return its Python.

    Raises UserError where that Python has smp: Kaggle's has not, and the kernel must bring it.
    """
    ask = "import sysconfig, importlib.util as u; print(sysconfig.get_path('purelib')); "
    ask += "print(u.find_spec('segmentation_models_pytorch') is not None)"
    asked = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False)
    try:
        below, has_smp = asked.stdout.split()
    except ValueError as error:
        raise UserError(f"{python} is no Python that works ({asked.stderr.strip()[-200:]}).") from error
    if has_smp == "True":
        raise UserError(
            f"{python} has segmentation_models_pytorch, which Kaggle's image lacks; pip uninstall it there."
        )
    subprocess.run([python, "-m", "venv", "--without-pip", str(tree / "venv")], check=True)
    site = next((tree / "venv" / "lib").glob("python3*/site-packages"))
    (site / "kaggle.pth").write_text(f"{below}\n", encoding="utf-8")
    return str(tree / "venv" / "bin" / "python")


def build_tree(tree: Path, about: dict[str, Any], settings: "Settings", mount: str, zipped: bool) -> None:
    """Make input/ (hard links or copies), working/, tmp/ and another user's home/ below `tree`."""
    if mount not in ("datasets", "plain"):
        raise UserError(f"MOUNT={mount}: expected datasets or plain.")
    base = tree / "input" / ("datasets" if mount == "datasets" else "")
    owner = about["dataset"].partition("/")[0] if mount == "datasets" else ""
    ours = base / owner / about["title"]
    _copy(PLACE / "dataset", ours)
    (ours / "dataset-metadata.json").unlink()
    slug = about["competition"] or settings.DATASET
    theirs = tree / "input" / ("competitions" if mount == "datasets" else "") / slug
    for path in sorted(Path(settings.INPUT).iterdir()):  # a prediction gets only what it may see, a training everything
        needed = "test_path" not in about or path.name == Path(about["test_path"]).parts[0]
        if path.is_dir() and needed:
            _copy(path, theirs / path.name)
        elif path.is_file():
            theirs.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, theirs / path.name)
    if zipped:
        for folder in [path for path in theirs.iterdir() if path.is_dir()]:
            shutil.make_archive(str(folder), "zip", folder.parent, folder.name)
            shutil.rmtree(folder)
    for name in ("working", "tmp", "home", "guard"):
        (tree / name).mkdir()
    for path in (tree / "input").rglob("*"):
        if path.is_dir():
            path.chmod(0o555)


def _copy(source: Path, target: Path) -> None:
    """Copy a tree as hard links, or as files where the disk has none; symbolic links in it are followed."""
    shutil.copytree(source, target, copy_function=lambda one, other: link(Path(one), Path(other)))


def can_unshare() -> bool:
    """Return whether this user can start a process in a network of its own, without access to any other."""
    if not shutil.which("unshare"):
        return False
    return subprocess.run(["unshare", "-r", "-n", "true"], capture_output=True, check=False).returncode == 0


def run_cells(tree: Path, python: str, page: Path, alone: bool) -> int:
    """Run the notebook's cells in one guarded process, show and log (tree/log.txt) its output; return its exit code."""
    places = {
        "log": str(tree / "guard" / "refused.txt"),
        "writable": [str(tree / "working"), str(tree / "tmp"), "/dev"],
    }
    prefix = str(Path(python).parents[1])
    closed = [str(Path(__file__).parents[2] / name) for name in ("src", "output", "lightning_logs", "input", ".venv")]
    closed += [str(Path.cwd() / name) for name in ("output", "lightning_logs", "input")]
    places |= {"forbidden": closed, "pip_too": [prefix]}
    shutil.copyfile(Path(__file__).with_name("kernel_guard.py"), tree / "guard" / "kernel_guard.py")
    setup = f"import json, kernel_guard\nkernel_guard.install(**json.loads({json.dumps(places)!r}))\n"
    (tree / "guard" / "sitecustomize.py").write_text(setup, encoding="utf-8")
    (tree / "guard" / "cells.py").write_text(CELLS, encoding="utf-8")
    shutil.copyfile(page, tree / "guard" / page.name)
    clean = {
        "PATH": f"{prefix}/bin:/usr/bin:/bin", "HOME": str(tree / "home"), "TMPDIR": str(tree / "tmp"),
        "PYTHONPATH": str(tree / "guard"), "PYTHONDONTWRITEBYTECODE": "1", "MASKFOLD_KAGGLE": str(tree),
        "LANG": "C.UTF-8", **{name: os.environ[name] for name in ("OMP_NUM_THREADS",) if name in os.environ},
    }  # fmt: skip
    typed = [*(["unshare", "-r", "-n"] if alone else []), python, str(tree / "guard" / "cells.py")]
    typed.append(str(tree / "guard" / page.name))
    with (tree / "log.txt").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            typed,
            cwd=tree / "working",
            env=clean,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        with process:
            for line in process.stdout or ():
                log.write(line)
                print(f"  | {line}", end="", flush=True)
    return process.returncode


def refuse_breaches(tree: Path, code: int) -> None:
    """Raise UserError where the kernel failed, or tried something that Kaggle forbids."""
    log = tree / "guard" / "refused.txt"
    tried = list(dict.fromkeys(log.read_text(encoding="utf-8").splitlines())) if log.is_file() else []
    if tried:
        raise UserError(f"The kernel tried what it must not; on Kaggle it would fail or mislead:{listing(tried)}")
    if code:
        last = (tree / "log.txt").read_text(encoding="utf-8").strip().splitlines()[-12:]
        raise UserError(f"The kernel failed with exit code {code}:{listing(last)}")


def compare(
    here: Path, there: Path, dialect: rle.Dialect, shapes: dict[str, tuple[int, int]], tolerance: float = TOLERANCE
) -> str:
    """Return how two submissions agree; `shapes`: id -> (H, W). Raises UserError where ids differ, or masks too much.

    Too much is more than two pixels and more than `tolerance` of the mask's pixels.
    """
    if there.is_file() and here.read_bytes() == there.read_bytes():
        return "its submission is, byte for byte, the one that inference makes here"
    found = [
        dict(submission_file.read_masks(path, dialect, lambda key: shapes[key[0]])) if path.is_file() else {}
        for path in (here, there)
    ]
    if list(found[0]) != list(found[1]):
        raise UserError(f"{there} has other ids, or the same in another order, than {here}.")
    differ = {key: int((mask != found[1][key]).sum()) for key, mask in found[0].items()}
    beyond = {key: count for key, count in differ.items() if count > max(2, tolerance * found[0][key].size)}
    some = f"{sum(count > 0 for count in differ.values())} of {len(differ)} masks differ"
    if beyond:
        worst = max(beyond, key=beyond.__getitem__)
        raise UserError(
            f"{there}: {some} from those of {here}, {' '.join(worst).strip()} in {beyond[worst]} pixels of "
            f"{found[0][worst].size}; at most {tolerance:.2%} (or two pixels) is rounding."
        )
    return (
        f"the same ids; {some}, by {sum(differ.values())} pixels in all, at most {tolerance:.2%} (or two) of any: "
        "another torch, or 16 bits, round otherwise"
    )


def at_home(settings: "Settings", about: dict[str, Any], tree: Path) -> tuple[Path, dict[str, tuple[int, int]]]:
    """Return the submission that inference makes here with the same models, and each image's size by its id."""
    target = tree / "home_submission.csv"
    folds = ",".join(model.partition("_")[0].removeprefix("fold") for model in about["models"])
    print("\nmake inference", flush=True)
    inference_job.predict(settings, inference_job.Wanted(folds, AT_HOME, maps=False))
    print("\nmake submission", flush=True)
    submission_job.write(dataclasses.replace(settings, SUBMISSION=str(target)), folds, AT_HOME)
    root, names = images_to_predict.test_names(
        settings.INPUT, str(Path(settings.INPUT) / about["test_path"]), about["data"].get("stacked") is True
    )
    ids = submission_file.image_ids(names, rle.formed(about["dialect"], about["form"], kernel_run.MARKER))
    return target, {image_id: images.read_size(root / image, settings.MAX_PIXELS) for image_id, image in ids.items()}


def made_with() -> list[str]:
    """Return the NAME=value that the kernel of output/kernel/ was made with. Raises UserError where there is none."""
    return read_json(PLACE / MADE, "Make the kernel first: make kernel EXPERIMENT=x", {"settings": list})["settings"]


def rehearse(settings: "Settings", python: str, mount: str, zipped: bool) -> None:
    """Run the kernel as Kaggle would, by `python` ("": Kaggle's versions, installed), and compare. Raises UserError.

    settings: those that it was made with; mount: datasets or plain; zipped: the competition's folders are zips.
    """
    about = read_json(PLACE / "dataset" / kernel_run.MARKER, "Make the kernel first: make kernel EXPERIMENT=x")
    pages = sorted((PLACE / "kernel").glob("*.ipynb"))
    if len(pages) != 1:
        raise UserError(f"{PLACE / 'kernel'} holds {len(pages)} notebooks, expected one. Make it again: make kernel")
    python, alone, start = environment(python), can_unshare(), time.monotonic()
    tree = Path(tempfile.mkdtemp(prefix=".rehearsal-", dir=Path.cwd()))  # on the same disk, for links instead of copies
    try:
        build_tree(tree, about, settings, mount or "datasets", zipped)
        own = clean_environment(tree, python)
        net = "a network namespace without a way out" if alone else "a guard on every Python's sockets (no namespaces)"
        print(f"{about['kernel']} in {tree}, by {python}; kept from the network by {net}", flush=True)
        code = run_cells(tree, own, pages[0], alone)
        shutil.copyfile(tree / "log.txt", PLACE / "rehearsal.txt")
        refuse_breaches(tree, code)
        said = check_training(tree, about) if "words" in about else check_prediction(tree, about, settings)
    finally:
        for path in tree.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
        shutil.rmtree(tree, ignore_errors=True)
    print(
        f"Rehearsed in {time.monotonic() - start:.0f} s: nothing was downloaded, nothing written outside of working/, "
        f"nothing needed that is not in the bundle; {said}. Its log -> {PLACE / 'rehearsal.txt'}\n"
        f"Next: what {PLACE / 'README.md'} says, or make kernel-push"
    )


def check_prediction(tree: Path, about: dict[str, Any], settings: "Settings") -> str:
    """Compare the kernel's submission with ours; return the outcome in words."""
    made = tree / "working" / "submission.csv"
    left = sorted(path.name for path in (tree / "working").iterdir())
    if left != ["submission.csv"]:
        raise UserError(f"The kernel left {', '.join(left)} in working/; expected submission.csv alone.")
    ours, shapes = at_home(settings, about, tree)
    folder = inference_job.prediction_folder(settings, "", AT_HOME)
    shutil.rmtree(folder)
    inference_job.picture_of(folder).unlink()
    tolerance = HALF_TOLERANCE if about["stored_half"] else TOLERANCE
    return compare(ours, made, rle.formed(about["dialect"], about["form"], kernel_run.MARKER), shapes, tolerance)


def check_training(tree: Path, about: dict[str, Any]) -> str:
    """Check that the run folder is packed, and keep the archive; return the outcome in words."""
    made = tree / "working" / f"{about['title']}.zip"
    if not made.is_file():
        raise UserError(f"The kernel made no {made.name}.")
    kept = PLACE / "rehearsed" / made.name  # not where kernel-fetch puts Kaggle's output
    kept.parent.mkdir(exist_ok=True)
    shutil.copyfile(made, kept)
    return f"the run folder is packed, {made.stat().st_size / 1e6:.1f} MB (make kernel-fetch ZIP={kept})"
