"""The benchmarks' own arithmetic, and that their plain ways do the same work as ours. No time is asserted."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import ROOT
from formats import rle

sys.path.append(str(ROOT / "benchmarks"))  # last: some files there are called as in src/

import plain
import timing


def test_tasks_take_turns_and_may_say_what_counts():
    order = []
    tasks = {"ours": lambda: order.append("ours"), "limit": lambda: order.append("limit") or 2.5}
    spent = timing.in_turns(tasks, 3)
    assert order == ["ours", "limit", "limit", "ours", "ours", "limit"]
    assert spent["limit"] == [2.5] * 3 and all(0 <= seconds < 1 for seconds in spent["ours"])


def test_a_sample_stands_for_all(monkeypatch):
    taken, clock = [], iter([10.0, 13.0])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    assert timing.extrapolated(taken.extend, range(1000), 100) == 30.0  # 3 seconds for a tenth
    assert taken == list(range(0, 1000, 10))


def test_ratios_are_of_speeds_turn_by_turn_and_aims_are_judged_by_the_median():
    spent = {"ours": [2.0, 1.0, 4.0], "limit": [1.0, 1.0, 1.0], "plain": [20.0, 4.0, 16.0]}
    row = timing.Row("work", spent, 8, "images", at_limit=0.5, at_plain=4)
    assert row.ratio("limit") == (0.5, 0.25, 1.0) and row.ratio("plain") == (4.0, 4.0, 10.0)
    assert row.reached() is True
    assert timing.Row("work", spent, at_limit=0.51).reached() is False
    assert timing.Row("work", {"ours": [1.0]}).reached() is None
    text = timing.table([row, timing.Row("slow", spent, at_limit=0.9, made_of={"this": 1.5})])
    assert "| work | 4 images/s | 0.5 images/s | 8 images/s | 0.50 (0.25 to 1.00) | 4.00 (4.00 to 10.00) |" in text
    assert "reached: >= 0.5 of the limit, >= 4 x plain" in text and "NOT reached: >= 0.9" in text
    assert "- slow is made of: this 1.50 s" in text


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_the_plain_run_lengths_are_ours(height, width, seed):
    mask = (np.random.default_rng(seed).random((height, width)) < 0.5).astype(np.uint8)
    assert plain.encode(mask) == rle.encode(mask, "C")
    np.testing.assert_array_equal(plain.decode(plain.encode(mask), mask.shape), mask)


@pytest.mark.slow
def test_a_row_is_measured_printed_and_written(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks/bench.py"), "ONLY=thresholds"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "output/benchmarks.json").read_text())
    assert len(found["rows"]) == 1 and len(found["rows"][0]["seconds"]["ours"]) == 5
    assert found["machine"]["cores"] > 0 and "| scoring 49 thresholds" in done.stdout
    wrong = subprocess.run([*command[:2], "ONLY=nothing"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert wrong.returncode == 2 and "no such row" in wrong.stderr


@pytest.mark.slow
def test_the_check_for_a_gpu_checks_itself_on_a_cpu(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks/gpu_check.py"), "--cpu", "--data", "none"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    found = json.loads((tmp_path / "output/gpu_check.json").read_text())
    assert len(found["checks"]) == 6 and all(one["fine"] for one in found["checks"])
    assert {(row["network"], row["precision"]) for row in found["speed"]} == {
        (f"smp_unet_{encoder}", kind) for encoder in ("tu-tf_efficientnet_lite0", "resnet34") for kind in ("32", "bf16")
    }


def test_a_command_that_fails_ends_the_benchmark_with_what_it_said(workplace):
    import folds

    with pytest.raises(SystemExit, match=r"folds ended with 2:\n(?s:.*)input/nothing"):
        timing.quietly(folds, ["INPUT=input/nothing"])
