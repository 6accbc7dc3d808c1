"""A training that was killed, stopped or cut off goes on as if nothing had been: the same weights, bit for bit."""

import contextlib
import csv
import errno
import fcntl
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import linked
import settings
import train
from conftest import ROOT, TINY
from data import splits
from data.dataspec import DataSpec
from loading.datamodule import DataOrder, MaskDataModule
from metrics import overlap
from tools import locks, signals
from training import builders, callbacks, model_file

EACH_STEP = "CHECKPOINT_MINUTES=0.00001"
HARD = [
    "SCHEDULE=plateau", "PATIENCE=0", "THRESHOLD=1", "FREEZE_ENCODER=1", "AUGMENT_ON=device", "MIX=both",
    "BALANCE=strata", "CHECKPOINT=best",
]  # fmt: skip
SLOW = pytest.mark.slow
RAGGED = ["ACCUMULATE=3", "TRAIN_BATCH_SIZE=4", "OPTIMIZER=radam", "WORKERS=2", "CROP=16,32"]


def run_of(experiment):
    return Path("lightning_logs", experiment, "fold0_seed42")


def curves(experiment):
    import pandas as pd

    table = pd.read_csv(run_of(experiment) / "metrics.csv")
    names = [name for name in table if name.startswith(("train_loss", "valid_")) or name == "lr-AdamW"]
    return {name: table.dropna(subset=[name])[["epoch", "step", name]].values.tolist() for name in names}


def same(whole, cut):
    """The two experiments have equal weights and equal curves, to the last bit."""
    ours, theirs = (load_file(run_of(name) / "model.safetensors") for name in (cut, whole))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(value, ours[name]), name
    assert curves(cut) == curves(whole)
    about, other = (json.loads((run_of(name) / "model.json").read_text()) for name in (cut, whole))
    assert (about["steps"], about["epochs"], about["weights"]) == (other["steps"], other["epochs"], other["weights"])


class PowerCutError(BaseException):
    pass


class StruckAfter(callbacks.EpochLine):
    """Strikes between two steps, once `step` optimizer steps are done."""

    step = 0
    signal = 0

    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.global_step == self.step and index % trainer.accumulate_grad_batches == 0:
            if not self.signal:
                raise PowerCutError
            for _ in range(1 + (self.signal == signal.SIGHUP)):  # a terminal's, and then its shell's
                os.kill(os.getpid(), self.signal)


def struck(step, number=0):
    context = pytest.MonkeyPatch.context()
    kind = type("Struck", (StruckAfter,), {"step": step, "signal": number})

    class Patched:
        def __enter__(self):
            context.__enter__().setattr(callbacks, "EpochLine", kind)

        def __exit__(self, *error):
            return context.__exit__(*error)

    return Patched()


@pytest.mark.parametrize(
    ("extra", "steps"),
    [
        pytest.param([], (3, 4), marks=pytest.mark.main),
        (HARD, (1, 6)),
        (RAGGED, (3,)),
        pytest.param([], (1, 7), marks=SLOW),
        pytest.param(HARD, (4,), marks=SLOW),
        pytest.param(RAGGED, (2, 5), marks=SLOW),
    ],
    ids=["plain", "hard", "ragged", "plain, more", "hard, more", "ragged, more"],
)
def test_a_run_that_is_cut_off_at_any_step_goes_on_exactly(trained, extra, steps):
    arguments = [*TINY, "FOLD=0", EACH_STEP, *extra]
    assert not extra or train.main([*arguments, "EXPERIMENT=whole"]) == 0
    for resume, step in enumerate(steps):
        with struck(step), pytest.raises(PowerCutError):
            train.main([*arguments, "EXPERIMENT=cut", *(["RESUME=1"] if resume else [])])
        assert not (run_of("cut") / "model.json").exists()
        kept = torch.load(run_of("cut") / "checkpoints" / "last.ckpt", weights_only=True)
        assert kept["global_step"] == step
    assert train.main([*arguments, "EXPERIMENT=cut", "RESUME=1"]) == 0
    same("whole" if extra else "demo", "cut")


def test_a_kill_while_the_curves_are_written_again_loses_none(cut_off, monkeypatch):
    arguments = [*TINY, "FOLD=0", EACH_STEP, "LOGGER=none"]

    def cut(*_, **__):
        raise PowerCutError

    with monkeypatch.context() as patch, pytest.raises(PowerCutError):
        patch.setattr(csv, "DictWriter", cut)
        train.main([*arguments, "EXPERIMENT=cut", "RESUME=1"])
    assert train.main([*arguments, "EXPERIMENT=cut", "RESUME=1"]) == 0
    same("demo", "cut")
    assert [path.name for path in run_of("cut").glob("*metrics.csv")] == ["metrics.csv"]


def test_ctrl_c_hangup_and_sigterm_stop_at_the_next_step_and_minutes_in_time(trained, capsys):
    """The steps between two checkpoints are not lost: one is written where the training stops."""
    arguments = [*TINY, "FOLD=0", "EXPERIMENT=cut"]
    with struck(2, signal.SIGINT):
        assert train.main(arguments) == 130
    assert "Stopped in epoch 1 of 2, step 3. RESUME=1" in capsys.readouterr().out
    with struck(4, signal.SIGHUP), pytest.raises(SystemExit) as ended:
        train.main([*arguments, "RESUME=1"])
    assert ended.value.code == 128 + signal.SIGHUP
    assert "Stopped in epoch 2 of 2, step 5" in capsys.readouterr().out
    with struck(5, signal.SIGTERM), pytest.raises(SystemExit) as ended:
        train.main([*arguments, "RESUME=1"])
    assert ended.value.code == 128 + signal.SIGTERM
    assert "Stopped in epoch 2 of 2, step 6" in capsys.readouterr().out
    assert train.main([*arguments, "RESUME=1", "MAX_MINUTES=0.00001"]) == 0
    said = capsys.readouterr().out
    assert "because MAX_MINUTES=1e-05 are over in epoch 2 of 2, step 7" in said
    assert "Next: make train FOLD=0 RESUME=1" in said
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert train.main([*arguments, "RESUME=1"]) == 0
    same("demo", "cut")


def test_what_stopped_early_stays_stopped(folds_table, monkeypatch):
    """Killed after its last epoch's checkpoint and before it was shipped."""
    arguments = [*TINY, "FOLD=0", "EPOCHS=6", "EARLY_STOPPING=1", "THRESHOLD=1"]
    assert train.main([*arguments, "EXPERIMENT=whole"]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_file, "ship", lambda *_: (_ for _ in ()).throw(PowerCutError))
        with pytest.raises(PowerCutError):
            train.main([*arguments, "EXPERIMENT=cut"])
    assert train.main([*arguments, "EXPERIMENT=cut", "RESUME=1"]) == 0
    same("whole", "cut")


def test_the_best_weights_are_of_the_epoch_that_is_said(folds_table, monkeypatch, refused):
    """Cut off between a better epoch and its checkpoint; when it comes again, rounded otherwise, it is a worse one."""
    arguments, summarize = [*TINY, "FOLD=0", "CHECKPOINT=best"], overlap.summarize

    def dices(*given):
        left = iter(given)

        def scored(*counts):
            found = summarize(*counts)
            return {**found, "image": {**found["image"], "dice": next(left)}}

        monkeypatch.setattr(overlap, "summarize", scored)

    class Cut(callbacks.EpochLine):
        def on_train_epoch_end(self, trainer, module):
            if trainer.current_epoch == 1:
                raise PowerCutError

    dices(0.5, 0.1)
    assert train.main([*arguments, "EXPERIMENT=whole"]) == 0
    dices(0.5, 0.9)
    with monkeypatch.context() as patch, pytest.raises(PowerCutError):
        patch.setattr(callbacks, "EpochLine", Cut)
        train.main([*arguments, "EXPERIMENT=cut"])
    with monkeypatch.context() as patch:  # as a checkpoint was before it had the weights
        load = callbacks.BestWeights.load_state_dict
        old = lambda self, state: load(self, {name: state[name] for name in ("best", "epoch")})  # noqa: E731
        patch.setattr(callbacks.BestWeights, "load_state_dict", old)
        refused(train.main, [*arguments, "EXPERIMENT=cut", "RESUME=1"], "of older code", "OVERWRITE=1")
    dices(0.1)
    assert train.main([*arguments, "EXPERIMENT=cut", "RESUME=1"]) == 0
    same("whole", "cut")
    assert json.loads((run_of("cut") / "model.json").read_text())["weights"].startswith("epoch 1,")


def test_a_second_ctrl_c_stops_at_once(trained, capsys):
    class Twice(callbacks.EpochLine):
        def on_train_batch_start(self, trainer, module, batch, index):
            if trainer.global_step == 2:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks, "EpochLine", Twice)
        assert train.main([*TINY, "FOLD=0", "EXPERIMENT=cut"]) == 130
    assert "There was no checkpoint yet; start again" in capsys.readouterr().out


def test_the_deadline_leaves_time_for_validation_and_checkpoint():
    now = [100.0]
    deadline = signals.Deadline(60, start=90.0, clock=lambda: now[0])  # ends at 150
    assert deadline.fits("step", "validation")  # nothing is known yet
    deadline.took("step", 4)
    deadline.took("step", 1)
    deadline.took("checkpoint", 5)
    deadline.took("validation", 20)
    now[0] = 131.9
    assert deadline.fits("step") and not deadline.fits("step", "validation")
    now[0] = 132.1
    assert not deadline.fits("step")  # 2 x (4 + 5) seconds
    assert signals.Deadline(0).fits("step", "validation")


@pytest.fixture(scope="session")
def cut_source(trained_source, once):
    """The trained demo and a run of its settings, `cut`, that was cut off in its second epoch."""

    def make(place):
        linked.copy(trained_source, place)
        with contextlib.chdir(place), struck(6), pytest.raises(PowerCutError):
            train.main([*TINY, "FOLD=0", "EXPERIMENT=cut", EACH_STEP])

    return once("cut", make)


@pytest.fixture
def cut_off(cut_source, tmp_path, monkeypatch):
    """A copy of it; returns the folder of the checkpoints."""
    monkeypatch.chdir(linked.copy(cut_source, tmp_path / "copy"))
    return run_of("cut") / "checkpoints"


@pytest.mark.parametrize(
    "harm",
    ["cut", "flipped", "missing", "code", *(pytest.param(harm, marks=SLOW) for harm in ("empty", "text", "other"))],
)
def test_a_torn_checkpoint_is_recognized_and_the_one_before_is_used_aloud(cut_off, harm, capsys):
    last = cut_off / "last.ckpt"
    data = bytearray(last.read_bytes())
    if harm == "cut":
        last.write_bytes(data[: len(data) // 2])
    elif harm == "flipped":
        data[len(data) // 2] ^= 1
        last.write_bytes(data)
    elif harm == "missing":
        last.unlink()
    elif harm == "other":
        torch.save({"weights": torch.zeros(2)}, last)
    elif harm == "code":
        torch.save(StruckAfter, last)
    else:
        last.write_bytes(b"" if harm == "empty" else b"text")
    capsys.readouterr()
    assert train.main([*TINY, "FOLD=0", "EXPERIMENT=cut", "RESUME=1"]) == 0
    said = capsys.readouterr().out
    assert (
        f"last.ckpt is {'missing' if harm == 'missing' else 'torn'}" in said and "previous.ckpt, the one before" in said
    )
    same("demo", "cut")


def test_without_a_whole_checkpoint_there_is_nothing_to_resume(cut_off, refused):
    for name in ("last.ckpt", "previous.ckpt"):
        (cut_off / name).write_bytes(b"torn")
    before = sorted(run_of("cut").rglob("*"))
    refused(train.main, [*TINY, "FOLD=0", "EXPERIMENT=cut", "RESUME=1"], "last.ckpt is torn", "previous.ckpt is torn")
    assert sorted(run_of("cut").rglob("*")) == before
    (cut_off / "sha256.json").unlink()
    refused(train.main, [*TINY, "FOLD=0", "EXPERIMENT=cut", "RESUME=1"], "last.ckpt is not readable", "OVERWRITE=1")


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["LR=1e-4"], ["LR: 0.008 there, 0.0001 now"]),
        pytest.param(["MAX_FEATURES=32"], ["MAX_FEATURES: 16 there, 32 now"], marks=SLOW),
        pytest.param(["LIMIT=1"], ["LIMIT: 0 there, 1 now"], marks=SLOW),
    ],
)
def test_other_settings_are_refused_and_say_what_differs(cut_off, refused, extra, words):
    (run_of("cut").parent / "settings.json").unlink()  # the checkpoint knows by itself
    refused(train.main, [*TINY, "FOLD=0", "EXPERIMENT=cut", "RESUME=1", *extra], "belongs to another training", *words)


def test_other_data_and_another_folds_checkpoint_are_refused(cut_off, refused, capsys):
    shutil.copytree(cut_off, run_of("cut").with_name("fold1_seed42") / "checkpoints")
    refused(train.main, [*TINY, "FOLD=1", "EXPERIMENT=cut", "RESUME=1"], "fold: 0 there, 1 now")
    # the machine may differ, and code that changed is said
    origin = run_of("cut") / "run.json"
    origin.write_text(origin.read_text().replace('"torch": "', '"torch": "0.'))
    capsys.readouterr()
    assert train.main([*TINY, "FOLD=0", "EXPERIMENT=cut", "RESUME=1", "WORKERS=1", "MAX_MINUTES=0.00001"]) == 0
    assert "versions: torch: 0." in capsys.readouterr().out
    # one pixel of one mask, at the same size and time
    mask = sorted(Path("input/demo/train_masks").iterdir())[3]
    from PIL import Image

    times = mask.stat()
    picture = Image.open(mask).convert("1")
    picture.putpixel((0, 0), 255 - picture.getpixel((0, 0)))
    picture.save(mask)
    os.utime(mask, ns=(times.st_atime_ns, times.st_mtime_ns))
    shutil.rmtree("output/demo/cache")
    refused(train.main, [*TINY, "FOLD=0", "EXPERIMENT=cut", "RESUME=1"], "data_sha256: ")


def test_two_runs_cannot_share_a_folder(trained, refused, monkeypatch):
    """Whoever holds the lock, another process included; a killed one holds nothing, nor do its workers."""
    code = (
        "import sys, time, os; sys.path.insert(0, sys.argv[1]); import pathlib; from tools import locks\n"
        "with locks.exclusive(pathlib.Path(sys.argv[2]), ''):\n"
        "    os.fork() or time.sleep(60)\n"
        "    print('locked', flush=True)\n"
        "    time.sleep(60)\n"
    )
    run = run_of("demo")
    call = [sys.executable, "-c", code, str(ROOT / "src"), str(run)]
    child = subprocess.Popen(call, stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert child.stdout.readline() == b"locked\n"
        refused(train.main, [*TINY, "FOLD=0", "OVERWRITE=1"], "Another process is writing", "EXPERIMENT=name")
    finally:
        child.kill()
        child.wait()
    assert (run / "model.json").is_file()
    try:
        with locks.exclusive(run, ""):  # its forked child lives on
            pass
    finally:
        os.killpg(child.pid, signal.SIGKILL)
    assert not list(run.parent.glob(".*.lock"))
    for code in (errno.ENOLCK, errno.ENOSYS):
        monkeypatch.setattr(fcntl, "flock", mock.Mock(side_effect=OSError(code, os.strerror(code))))
        refused(train.main, [*TINY, "FOLD=0", "OVERWRITE=1"], "file system has no locks", "LOGS=folder")


def _train(arguments, log):
    """In a process of its own, in a group of its own, as a terminal starts it."""
    os.setsid()
    with Path(log).open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(train.main(arguments))


FORKS = multiprocessing.get_context("fork")  # of this process, which has the imports done


def killed_at_random(seed, arguments, experiment, number, whole):
    """Train, killed after a random time, resumed and killed until it is through; returns how often it was killed.

    `whole`: seconds that the uninterrupted run takes.
    """
    chance, kills = random.Random(seed), 0
    while not (run_of(experiment) / "model.json").is_file():
        resume = ["RESUME=1"] if checkpoints_of(experiment) else []
        child = FORKS.Process(target=_train, args=([*arguments, f"EXPERIMENT={experiment}", *resume], "log.txt"))
        child.start()
        child.join(chance.uniform(0.1, 0.33) * whole if kills < 3 else 120)
        if child.exitcode is None:
            # as a terminal or a cluster does it: to the whole group, which is there as soon as the process has begun
            own = number != signal.SIGKILL and os.getpgid(child.pid) == child.pid
            (os.killpg if own else os.kill)(child.pid, number)
            kills += 1
            child.join(60)
        assert child.exitcode in (0, -number, 128 + number), Path("log.txt").read_text()
    return kills


KEPT = []


def _keep_a_loader():
    """Ends while a loader is still held, as an error's traceback may hold it."""
    cache, rows = (
        builders.open_cache(settings.load(TINY), splits.read(Path("output/demo/train_folds.csv")), DataSpec()),
        np.arange(4),
    )
    data = MaskDataModule(cache, rows, rows[:0], DataOrder(0, 2, 2), num_workers=2)
    KEPT.append(iter(data.train_dataloader()))
    next(KEPT[0])


def alive(pid):
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def until(true, seconds):
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    return true()


def test_a_process_that_still_holds_a_loader_ends(folds_table):
    child = FORKS.Process(target=_keep_a_loader)
    child.start()
    child.join(20)
    code = child.exitcode
    child.kill()
    assert code == 0


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_no_loader_process_outlives_a_killed_training(folds_table):
    child = FORKS.Process(target=_train, args=([*TINY, "FOLD=0", "WORKERS=2", "EPOCHS=50", "LOGGER=none"], "log.txt"))
    child.start()
    children = Path(f"/proc/{child.pid}/task/{child.pid}/children")
    try:
        assert until(lambda: len(children.read_text().split()) >= 2, 60)
        workers = [int(line) for line in children.read_text().split()]
        time.sleep(0.5)  # they have begun
    finally:
        os.kill(child.pid, signal.SIGKILL)
    assert until(lambda: not any(alive(pid) for pid in workers), 2.5)


def checkpoints_of(experiment):
    from tools import run_folders

    return run_folders.resumable(run_of(experiment))


def kill_test(seeds, extra, numbers):
    arguments = [*TINY, "FOLD=0", EACH_STEP, "EPOCHS=3", "LOGGER=none", *extra]
    start = time.monotonic()
    child = FORKS.Process(target=_train, args=([*arguments, "EXPERIMENT=whole"], "log.txt"))
    child.start()
    child.join()
    assert child.exitcode == 0, Path("log.txt").read_text()
    whole, kills = time.monotonic() - start, 0
    for seed in seeds:
        kills += killed_at_random(seed, arguments, f"cut{seed}", numbers[seed % len(numbers)], whole)
        same("whole", f"cut{seed}")
    return kills


def test_a_run_that_is_killed_at_random_goes_on_exactly(folds_table):
    assert kill_test([1], ["WORKERS=2"], [signal.SIGKILL]) == 3


@pytest.mark.slow
@pytest.mark.parametrize("extra", [[], HARD, RAGGED], ids=["plain", "hard", "ragged"])
def test_twenty_runs_that_are_killed_at_random_go_on_exactly(folds_table, extra):
    kills = kill_test(range(7), ["EPOCHS=6", *extra], [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    print(f"{kills} kills of {extra}")
    assert kills >= 14


@pytest.mark.parametrize("workers", [pytest.param(1, marks=SLOW), 4])
def test_the_number_of_workers_changes_no_weight(trained, workers):
    assert train.main([*TINY, "FOLD=0", "EXPERIMENT=other", f"WORKERS={workers}"]) == 0
    same("demo", "other")
