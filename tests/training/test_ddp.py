"""Two processes on a CPU train one fold: the same samples, the same weights up to rounding, the same scores."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import rank
import train
from conftest import ROOT, TINY
from jobs import job_table
from lightning_module import SegmentationModule
from loading.samplers import RankBatches, ShapeBatches
from tools import locks
from tools.errors import UserError
from training import builders, launch

BOTH = [*TINY, "FOLD=0", "DEVICE=cpu", "OPTIMIZER=sgd", "LR=0.05", "MODEL_NAME=unet", "MAX_FEATURES=16", "LOGGER=none"]


def weights(experiment):
    return load_file(f"lightning_logs/{experiment}/fold0_seed42/model.safetensors")


def curves(experiment):
    return pd.read_csv(f"lightning_logs/{experiment}/fold0_seed42/metrics.csv")


def rows(world, number):
    lines = Path(f"rows_42_{world}_{number}.txt").read_text().splitlines()
    return [[int(part) for part in line.split()] for line in lines]


def test_two_ranks_are_one_device(folds_table, quick, monkeypatch):
    monkeypatch.setattr(sys, "executable", quick)
    arguments = [*BOTH, "ACCUMULATE=2"]
    undo = rank.patched()
    try:
        assert train.main([*arguments, "EXPERIMENT=one"]) == 0
    finally:
        undo()
    assert launch.run(ROOT / "tests" / "rank.py", [*arguments, "EXPERIMENT=two", "DEVICES=2"], 2) == 0
    alone, first, second = rows(1, 0), rows(2, 0), rows(2, 1)
    assert len(alone) == len(first) == len(second) == 2 * 4
    for one, a, b in zip(alone, first, second, strict=True):
        assert one[:2] == a[:2] == b[:2]  # epoch and batch
        assert one[2:] == a[2:] + b[2:] and len(a) == len(b)
    ours, theirs = weights("two"), weights("one")
    largest = max(float((ours[name] - theirs[name]).abs().max()) for name in theirs)
    assert largest < 1e-5
    for name in ("train_loss_epoch", "valid_loss"):
        assert curves("two")[name].dropna().tolist() == pytest.approx(curves("one")[name].dropna().tolist(), abs=1e-5)
    about = json.loads(Path("lightning_logs/two/fold0_seed42/model.json").read_text())
    assert about["steps"] == 4
    assert sorted(path.name for path in Path("lightning_logs/two").iterdir()) == ["fold0_seed42", "settings.json"]


@pytest.mark.slow
def test_the_score_of_equal_weights_is_equal_to_the_last_digit(folds_table):
    """32 held-out images in batches of 5 over three ranks; nothing is learned."""
    arguments = [*BOTH, "LR=0", "VALID_BATCH_SIZE=5", "EPOCHS=1", "EMA=0", "TRAIN_BATCH_SIZE=6"]
    undo = rank.patched()
    try:
        assert train.main([*arguments, "EXPERIMENT=one"]) == 0
    finally:
        undo()
    assert launch.run(ROOT / "tests" / "rank.py", [*arguments, "EXPERIMENT=three", "DEVICES=3"], 3) == 0
    for name in ("valid_loss", "valid_dice", "valid_iou", "valid_dice_pooled"):
        assert curves("three")[name].dropna().tolist() == curves("one")[name].dropna().tolist()
    assert all(torch.equal(value, weights("one")[name]) for name, value in weights("three").items())


def test_shares_of_a_batch_and_batches_of_a_validation():
    class Order(list):
        pass

    order = Order((0, row, 0) for row in range(11))
    shares = [list(RankBatches(order, 4, number, 2)) for number in (0, 1)]
    assert [[row for _, row, _ in batch] for batch in shares[0]] == [[0, 1], [4, 5]]
    assert [[row for _, row, _ in batch] for batch in shares[1]] == [[2, 3], [6, 7]]
    import numpy as np

    limited = [list(ShapeBatches(np.arange(9), [(8, 8)] * 9, 1, number, 2, 3)) for number in range(2)]
    assert limited == [[[(0, 0, 0)], [(0, 2, 0)]], [[(0, 1, 0)]]]  # three in all
    dealt = [list(ShapeBatches(np.arange(5), [(8, 8)] * 5, 2, number, 4)) for number in range(4)]
    first = [(0, 0, 0), (0, 1, 0)]
    assert dealt == [[first], [[(0, 2, 0), (0, 3, 0)]], [[(0, 4, 0)]], [first]]  # the last has none of its own


def test_what_cannot_be_divided_is_refused(folds_table, refused):
    refused(train.main, [*BOTH, "NODES=2"], "are 2 processes, and 1 was started", "torchrun --nnodes=2", "srun")
    refused(train.main, [*BOTH, "DEVICES=3"], "TRAIN_BATCH_SIZE=8 cannot be divided among 3 devices; 9 can")
    assert not Path("lightning_logs").exists()


def start(*words, **env):
    return subprocess.Popen(
        [sys.executable, str(ROOT / "src" / "train.py"), *BOTH, "DEVICES=2", "EPOCHS=40", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **env},
    )  # fmt: skip


def ranks_of(process):
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    return [int(line) for line in found.stdout.split()]


def after_a_checkpoint(process):
    last = Path("lightning_logs/demo/fold0_seed42/checkpoints/last.ckpt")
    end = time.monotonic() + 120
    while not last.exists():
        assert process.poll() is None and time.monotonic() < end, process.stderr.read()
        time.sleep(0.05)


@pytest.mark.slow
def test_a_killed_rank_ends_the_run_with_a_sentence_and_one_device_goes_on(folds_table, capsys):
    process = start("CHECKPOINT_MINUTES=0.00001")
    after_a_checkpoint(process)
    os.kill(ranks_of(process)[1], signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "Process 1 of 2 was killed by signal 9" in err and "RESUME=1" in err and "Traceback" not in err
    assert "4 images on each of 2 devices x 1 batches a step = 8 images a step, as on one" in out
    assert train.main([*BOTH, "EPOCHS=40", "RESUME=1", "MAX_MINUTES=0.000001"]) == 0
    said = capsys.readouterr().out
    assert "computer: devices: 2 there, 1 now" in said and "rounded otherwise" in said


def _one_of_two(number, port, arguments, patches):
    """In a forked process: train as torchrun would start it."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    own = {"RANK": str(number), "LOCAL_RANK": str(number), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test"}
    os.environ.update({**shared, **own})
    for place, name, value in patches[number]:
        setattr(place, name, value)
    with job_table.printing_to(f"rank{number}.log"):
        code = train.main(arguments)
    sys.exit(code)


def as_torchrun(arguments, patches=((), ())):
    """Train in two processes that nobody watches; returns their exit codes and what each printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")  # of this process, which has the imports done
    ranks = [context.Process(target=_one_of_two, args=(n, port, [*arguments], patches)) for n in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
        process.kill()
    return [process.exitcode for process in ranks], [Path(f"rank{n}.log").read_text() for n in (0, 1)]


def test_under_torchrun_too_a_folder_that_is_taken_is_one_sentence(folds_table):
    with locks.exclusive(Path("lightning_logs/demo/fold0_seed42"), ""):
        codes, said = as_torchrun([*BOTH, "DEVICES=2"])
    assert codes == [2, 2]
    assert said[0].startswith("error: Another process is writing") and said[0].count("\n") == 1 and said[1] == ""


def test_who_ends_before_the_training_is_said_by_the_others(folds_table):
    dies = (builders, "loss", lambda *_: os._exit(9))
    codes, said = as_torchrun([*BOTH, "DEVICES=2"], ((), (dies,)))
    assert codes == [2, 9]
    assert said[0].splitlines()[-1].startswith(f"error: {launch.LOST}. RESUME=1") and "Traceback" not in said[0]


def notes(number):
    """The rows that a rank trained and validated on, and the sum of the network's buffers then."""
    found = [json.loads(line) for line in Path(f"notes{number}.txt").read_text().splitlines()]
    return [[(rows, buffers) for kind, rows, buffers in found if kind == wanted] for wanted in ("trained", "validated")]


def noting(name, kind):
    """A patch of the module's step that writes them."""
    step = getattr(SegmentationModule, name)

    def noted(self, batch, index):
        result = step(self, batch, index)
        buffers = sum(float(buffer.double().sum()) for buffer in self.network.buffers())
        with Path(f"notes{self.global_rank}.txt").open("a") as file:
            print(json.dumps([kind, batch["row"].tolist(), buffers]), file=file)
        return result

    return SegmentationModule, name, noted


def test_two_ranks_validate_limit_batches_in_all_with_rank_zeros_statistics(folds_table):
    patches = (noting("training_step", "trained"), noting("validation_step", "validated"))
    limited = ["LIMIT=3", "VALID_BATCH_SIZE=4", "EMA=0.5", "PROFILER=simple"]
    codes, said = as_torchrun([*BOTH, *limited, "DEVICES=2"], (patches, patches))
    assert codes == [0, 0], said
    (trained, validated), (others_trained, others_validated) = notes(0), notes(1)
    assert len(trained) == len(others_trained) == 2 * 3  # epochs x LIMIT
    assert all(one != other for (_, one), (_, other) in zip(trained, others_trained, strict=True))  # each its share's
    assert [len(rows) for rows, _ in validated + others_validated] == [4] * (2 * 3)
    assert len({row for rows, _ in validated + others_validated for row in rows}) == 3 * 4
    first, second = ({buffers for _, buffers in part} for part in (validated, others_validated))
    assert first == second and len(first) == 2  # epochs
    run = Path("lightning_logs/demo/fold0_seed42")
    (profile,) = run.glob("*profile*")  # of rank zero
    assert "validation_step" in profile.read_text()


RANK = """
import os, signal, subprocess, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tools import locks
from training import launch
call = [sys.argv[1], "rank"]
if sys.argv[2] == "make":
    launch.run(Path(__file__), call, 2)
if sys.argv[2] == "torchrun":
    for rank in ("0", "1"):
        env = {**os.environ, "RANK": rank, "TORCHELASTIC_RUN_ID": "test"}
        ranks = subprocess.Popen([sys.executable, __file__, *call], env=env, start_new_session=True)
    ranks.wait()
launch.PATIENCE = 0.5
launch.end_with_parent()
if os.environ["RANK"] == "1":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # too busy to hear
with locks.exclusive(Path("run" + os.environ["RANK"]), ""):
    time.sleep(60)
"""


def free_within(seconds, *folders):
    """Wait until nobody holds these folders' locks."""
    end = time.monotonic() + seconds
    for folder in folders:
        while True:
            try:
                with locks.exclusive(Path(folder), ""):
                    break
            except UserError:
                assert time.monotonic() < end, folder
                time.sleep(0.02)


@pytest.mark.parametrize(
    ("who", "number"), [("make", signal.SIGKILL), ("make", signal.SIGHUP), ("torchrun", signal.SIGKILL)]
)
def test_ranks_end_with_who_started_them_however_it_ends(workplace, who, number):
    Path("rank.py").write_text(RANK)
    call = [sys.executable, "rank.py", str(ROOT / "src"), who]
    process = subprocess.Popen(call, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 20
    while not all(Path(f".run{rank}.lock").exists() for rank in (0, 1)):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(number)
    free_within(10, "run0", "run1")
    assert process.wait(timeout=10) == (-number if number == signal.SIGKILL else 1)
    process.stderr.close()


@pytest.mark.slow
def test_a_launcher_that_is_killed_takes_its_ranks_along_and_they_leave_a_checkpoint(folds_table, capsys):
    process = start()
    after_a_checkpoint(process)
    process.kill()
    process.communicate(timeout=60)  # its pipes end with the ranks
    free_within(20, "lightning_logs/demo/fold0_seed42")
    assert train.main([*BOTH, "EPOCHS=40", "RESUME=1", "MAX_MINUTES=0.000001"]) == 0


@pytest.mark.slow
def test_ctrl_c_stops_both_at_the_same_step(folds_table):
    process = start()
    after_a_checkpoint(process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Stopped in epoch" in out and "Traceback" not in err


@pytest.mark.slow
def test_what_another_rank_says_is_shown(folds_table, monkeypatch):
    monkeypatch.setenv("DIES", "1")
    with pytest.raises(UserError, match=r"Process 1 of 2 ended with code 2 \(something is wrong here"):
        launch.run(ROOT / "tests" / "rank.py", [*BOTH, "DEVICES=2"], 2)
