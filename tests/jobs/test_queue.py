"""The table of runs and its queue: by processes, as a SLURM array, as a cluster's task (test_ray.py has a real one)."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import cv
import inference
import settings
from conftest import ROOT, TINY
from jobs import fold_job, job_table, local_pool, pools, ray_pool
from jobs.status import Status
from tools import errors, hardware, run_folders
from tools.files import sha256

OWN = ["DATASET=demo", "WORKERS=0", "STEP_IMAGES=0", "LOGGER=none"]  # the rest an experiment knows by itself
RUN = Path("lightning_logs/demo/fold0_seed42")


def job(what, file="", log=""):
    return job_table.Job(f"{what}{file}", "queue_jobs", (what,), {"file": str(file)}, str(log))


def states(events):
    return [event.state for event in events]


def test_what_fails_is_reported_and_the_rest_is_done(workplace, capsys):
    log = workplace / "logs" / "one.log"
    table = [job("REFUSE"), job("RAISE", log=log), job("DIE=3", log=workplace / "die.log"), job("LEAVE")]
    table.append(job("TELL=1", "told.txt"))
    events = job_table.work_off(table, local_pool.Processes(["", ""]), Status(5))
    assert states(events) == [job_table.FAILED, job_table.FAILED, job_table.FAILED, job_table.LEFT, job_table.DONE]
    assert [event.text for event in events[:2]] == [
        "refused in a sentence",
        "RuntimeError: CUDA error: an illegal memory access",
    ]
    assert "ended with code 3 (doing DIE)" in events[2].text and events[3].text == "its time was up"
    assert "doing RAISE\nTraceback" in log.read_text()
    said = capsys.readouterr().out
    assert len(re.findall("started", said)) == 5 and "[1 of 5, 3 failed]" in said and str(log) in said


def test_the_time_is_the_whole_tables(workplace, capfd):
    table = [job("TELL=1", "first.txt"), job("TELL=1", "second.txt")]
    assert (
        states(job_table.work_off(table, local_pool.Processes([""]), Status(2), time.time() - 1))
        == [job_table.LEFT] * 2
    )
    assert not Path("first.txt").exists()
    assert (
        states(job_table.work_off(table, local_pool.Processes([""]), Status(2), time.time() + 120))
        == [job_table.DONE] * 2
    )
    first, second = (float(Path(name).read_text().split("MAX_MINUTES=")[1]) for name in ("first.txt", "second.txt"))
    assert 1 < second < first <= 2


def test_one_process_on_each_gpu(workplace, monkeypatch):
    monkeypatch.setattr(hardware, "choose_devices", lambda _: ["cuda:0", "cuda:1"])
    assert local_pool.places("auto") == (["0", "1"], "cuda:0 and cuda:1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-7a")
    assert local_pool.places("auto")[0] == ["5", "GPU-7a"]
    assert local_pool.places("auto", 3)[0] == ["5", "GPU-7a", "5"]
    pool = local_pool.Processes(["5", "GPU-7a"])
    job_table.work_off([job("TELL=1", "a.txt"), job("TELL=1", "b.txt")], pool, Status(2))
    assert [Path(name).read_text().split()[0] for name in ("a.txt", "b.txt")] == ["5", "GPU-7a"]


def test_cores_are_divided(monkeypatch):
    flags = SimpleNamespace(**dict.fromkeys(job_table.FLAGS, ""))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)))
    runner = pools.choose(SimpleNamespace(**{**vars(flags), "JOBS": "3"}), "cpu")
    assert (runner.at_once, runner.cores, runner.workers(-1), runner.workers(0)) == (3, 4, 4, 0)
    assert pools.choose(flags, "cpu").cores == 0


PARENT = """
import sys
sys.path[:0] = ["{src}", "{tests}"]
from jobs import job_table, local_pool
from jobs.status import Status
from tools.errors import command

@command
def main(argv=None):
    table = [job_table.Job(name, "queue_jobs", ("SLEEP=60",), {{"file": name}}) for name in ("a.txt", "b.txt", "c.txt")]
    job_table.work_off(table, local_pool.Processes(["", ""], preload=[]), Status(3))

if __name__ == "__main__":
    sys.exit(main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_runs_on_when_the_queue_is_stopped(workplace, number):
    """Ctrl-C is passed on to what runs, and nobody outlives a queue that was killed."""
    Path("parent.py").write_text(PARENT.format(src=ROOT / "src", tests=ROOT / "tests"))
    with subprocess.Popen([sys.executable, "parent.py"], stderr=subprocess.PIPE, text=True) as parent:
        wait_for(lambda: all(Path(name).is_file() and Path(name).read_text() for name in ("a.txt", "b.txt")))
        parent.send_signal(number)
        code, said = parent.wait(180), parent.stderr.read()  # imports of torch, in several processes, on a busy machine
    wait_for(lambda: [Path(name).read_text() for name in ("a.txt", "b.txt")] == ["stopped"] * 2)
    assert not Path("c.txt").exists()
    if number == signal.SIGINT:
        assert (code, said) == (130, "stopped by Ctrl-C\n")


def wait_for(come):
    end = time.monotonic() + 60
    while not come():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def test_an_experiment_that_is_there_keeps_its_settings_and_finished_runs_are_skipped(trained, capfd):
    """AUGMENT, EPOCHS and all else that its first run fixed need not be typed again."""
    shutil.rmtree("lightning_logs/demo/fold1_seed42/val")
    shutil.rmtree("lightning_logs/demo/oof_seed42")
    before = Path("lightning_logs/demo/fold1_seed42/model.safetensors").stat().st_mtime_ns
    assert cv.main([*OWN, "EXPERIMENT=demo", "SEEDS=42"]) == 0
    said = capfd.readouterr().out
    assert "demo: as its first run fixed it (lightning_logs/demo/settings.json); folds 0, 1" in said
    assert "demo, fold 0, seed 42: finished already" in said and "[2 of 2] demo, fold 1, seed 42 finished" in said
    assert Path("lightning_logs/demo/fold1_seed42/model.safetensors").stat().st_mtime_ns == before
    score = json.loads(Path("lightning_logs/demo/oof_seed42/summary.json").read_text())["score"]["model"]
    assert re.search(rf"demo +42 +2 of 2 +{score:.4f}", said) and "Next: make leaderboard DATASET=demo" in said
    assert "fold 1: 32 held-out images" in Path("output/demo/cv/demo_fold1_seed42.log").read_text()


def test_a_table_of_experiments_and_seeds_as_a_slurm_array(trained, capfd, quick, monkeypatch):
    """One line a run that is not finished; one of them is run as SLURM would."""
    monkeypatch.setattr(sys, "executable", quick)
    call = [*TINY, "EXPERIMENT=demo,scratch", "SEEDS=42,7", "EPOCHS=2", "SLURM=1", "JOBS=3", "GPUS=0"]
    assert cv.main(call) == 0
    said = capfd.readouterr().out
    (script,), (table,) = (list(Path("output/demo/slurm").glob(end)) for end in ("cv_*.sbatch", "runs_*.txt"))
    lines = table.read_text().splitlines()
    ends = [re.search(r"EXPERIMENT=(\w+) SEEDS=(\d+) FOLDS=(\d)$", line).groups() for line in lines]
    assert ends == [("demo", "7", "0"), ("demo", "7", "1")] + [("scratch", s, f) for s in ("42", "7") for f in "01"]
    assert "scratch: recipe scratch; folds 0, 1" in said and "demo: as its first run fixed it" in said
    assert f"Next: sbatch {script}" in said
    text = script.read_text()
    assert "#SBATCH --array=0-5%3\n" in text and "--gres" not in text and "#SBATCH --requeue\n" in text
    subprocess.run(["bash", "-n", script], check=True)
    slurm = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "cv", "SLURM_NTASKS": "1"}
    slurm |= {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NODELIST": "n1"}
    done = run_script(script, slurm)
    assert done.returncode == 0, done.stderr
    assert Path("lightning_logs/demo/fold1_seed7/val/summary.json").is_file()
    assert "epoch 2/2" in done.stdout and re.search(r"demo +7 +1 of 2 +nan", done.stdout)
    beyond = run_script(script, {"SLURM_ARRAY_TASK_ID": "6"})
    assert beyond.returncode == 2 and "no line" in beyond.stderr


def run_script(script, variables):
    environment = {**os.environ, **variables}
    return subprocess.run(["bash", script], check=False, env=environment, capture_output=True, text=True)


def test_nothing_is_started_when_the_time_is_over(folds_table, capfd):
    assert cv.main([*TINY, "SEEDS=1,2", "MAX_MINUTES=0.000001"]) == 0
    said = capfd.readouterr().out
    assert "4 of 4 runs are left, and the same command goes on" in said and "demo, fold 1, seed 2: not started" in said
    assert not Path("lightning_logs/demo/fold0_seed1").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["EXPERIMENT=a,a"], ["names a twice"]),
        (["EXPERIMENT=a,,b"], ["EXPERIMENT=a,,b"]),
        (["EXPERIMENT=a,../b"], ["EXPERIMENT=../b", "folder's name"]),
        (["SEEDS=1,x"], ["SEED=x is not a whole number"]),
        (["SEEDS=1,+1"], ["names a seed twice"]),
        (["SEEDS=1,2", "SEED=3"], ["SEEDS="]),
        (["FOLDS=0,7"], ["FOLDS=0,7", "has the folds 0, 1"]),
        (["JOBS=0"], ["JOBS=0"]),
        (["GPUS=1"], ["GPUS= is for RAY="]),
        (["RAY=auto", "JOBS=2"], ["leave JOBS= out"]),
        (["RAY=auto", "GPUS=1.5"], ["GPUS=1.5"]),
        (["SLURM=1", "GPUS=0.5"], ["SLURM counts whole GPUs"]),
        (["SLURM=1", "OVERWRITE=1"], ["OVERWRITE=1", "requeued"]),
        (["EXPERIMENT=demo,b", "EPOCHS=7"], ["EPOCHS: 2 there, 7 now"]),
        (["EXPERIMENT=demo", "SEEDS=42", "SLURM=1"], ["nothing to submit"]),
        (["SHARDS=1"], ["config.py has no SHARDS"]),
    ],
)
def test_what_makes_no_table_is_refused(untouched, refused, words, said):
    refused(cv.main, [*TINY, *words], *said)


def test_ray_that_is_not_there_is_a_sentence(trained, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    refused(cv.main, [*TINY, "SEEDS=1", "RAY=auto"], "pip install -r requirements-cluster.txt")


def test_a_node_without_our_storage_gets_what_a_run_goes_on_from_and_gives_back_what_it_made(trained, monkeypatch):
    """A task on a computer of its own: another folder, with the data at the same path and no run folders."""
    shutil.rmtree("lightning_logs/demo/fold1_seed42/val")
    loaded = settings.load([*TINY, "EXPERIMENT=demo"])
    run = fold_job.job_of(loaded, "1", False, log="output/demo/cv/demo_fold1.log")
    brought = ray_pool.pack(run.brings)
    node = Path("node").absolute()
    for name in ("input", "output"):
        shutil.copytree(name, node / name)
    place = ray_pool.Place(str(node), {loaded.TRAIN_FOLDS: sha256(Path(loaded.TRAIN_FOLDS))}, ("input/demo",), "t")
    home = Path.cwd()
    state, text, packed = ray_pool.carry_out(place, run.as_dict(), 0.0, brought, "node 1")
    assert (state, text, Path.cwd()) == (job_table.DONE, "", node)
    monkeypatch.chdir(home)
    weights = Path("lightning_logs/demo/fold1_seed42/model.safetensors").read_bytes()
    ray_pool.unpack(packed, run.takes)
    assert Path("lightning_logs/demo/fold1_seed42/val/summary.json").is_file()
    assert Path("lightning_logs/demo/fold1_seed42/model.safetensors").read_bytes() == weights  # scored, not trained
    Path(loaded.TRAIN_FOLDS).write_text("image,mask\n")
    (node / loaded.TRAIN_FOLDS).write_text("image,mask,other\n")
    state, text, packed = ray_pool.carry_out(place, run.as_dict(), 0.0, brought, "node 1")
    monkeypatch.chdir(home)
    assert state == job_table.FAILED and "is another one than the caller's" in text and packed == b""


def test_a_retry_goes_on_rather_than_begin_anew(workplace, monkeypatch):
    """OVERWRITE=1 is of the first try; a checkpoint that this call made is gone on from."""
    flags = []
    monkeypatch.setitem(sys.modules, "cv", SimpleNamespace(perform=lambda _, given: flags.append(given) or ""))
    token, folder = Path("token").absolute(), Path("logs/a/fold0_seed1")
    token.write_text("token")
    place = ray_pool.Place(str(workplace), {}, (), str(token))
    run = job_table.Job("a", "cv", (), {"FOLD": "0", "OVERWRITE": "1"}, "a.log", (), (str(folder),)).as_dict()
    ray_pool.carry_out(place, run, 0.0, b"", "node 1")
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").write_text("")
    ray_pool.carry_out(place, run, 0.0, b"", "node 2")
    assert flags == [{"FOLD": "0", "OVERWRITE": "1"}, {"FOLD": "0"}]


def test_a_tar_brings_only_what_was_packed(workplace):
    for name in ("a/b/c.txt", "s.json"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    packed = ray_pool.pack(["a/b", "s.json", "nothing"])
    Path("a/b/c.txt").unlink()
    Path("a/b/old.txt").write_text("of before")
    Path("s.json").write_text("mine")
    ray_pool.unpack(packed, ["a/b", "s.json", "nothing"])
    assert [path.name for path in Path("a/b").iterdir()] == ["c.txt"] and Path("s.json").read_text() == "mine"
    with pytest.raises(errors.UserError, match="nothing that was packed"):
        ray_pool.unpack(packed, ["a/b"])
    with pytest.raises(ray_pool.tarfile.TarError):
        ray_pool.unpack(packed[:700], ["a/b", "s.json", "nothing"])


def test_inference_in_shards_is_the_undivided_one(trained, refused):
    assert inference.main([*TINY, "FOLD=0", "NAME=whole"]) == 0
    image = sorted(Path("input/demo/test_hq").iterdir())[5]
    kept = image.read_bytes()
    image.write_bytes(kept[:500])
    call = [*TINY, "FOLD=0", "NAME=parts", "SHARDS=2", "JOBS=2"]
    refused(inference.main, call, "1 of 2 parts failed", "part 2 of 2", image.name)
    image.write_bytes(kept)
    refused(inference.main, [*TINY, "FOLD=0", "NAME=parts", "SHARDS=3"], "another division")
    place = Path("output/demo/predictions")
    first = run_folders.read_manifest(place / "parts.shard1of2", "")["images"][0]
    kept = run_folders.prediction_path(place / "parts.shard1of2", first).stat().st_ino
    assert inference.main(call) == 0
    assert run_folders.prediction_path(place / "parts", first).stat().st_ino == kept  # linked, not predicted again
    whole, parts = (run_folders.read_manifest(place / name, "") for name in ("whole", "parts"))
    assert parts["images"] == whole["images"] and "shard" not in parts
    for name in whole["images"]:
        one, other = (
            np.asarray(Image.open(run_folders.prediction_path(place / of, name))) for of in ("whole", "parts")
        )
        assert np.abs(one.astype(int) - other).max() <= 1  # batches differ (docs/ship.md)
    assert not list(place.glob("parts.shard*"))
    refused(inference.main, [*TINY, "FOLD=0", "JOBS=2"], "JOBS= is for SHARDS=n")
    refused(inference.main, [*TINY, "FOLD=0", "SHARDS=2", "SHARD=1/2"], "give one of the two")
