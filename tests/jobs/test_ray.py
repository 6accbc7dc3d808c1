"""make cv on a real Ray cluster: two raylets beside a head on this computer, one of which is stopped mid-way."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import train
from conftest import ROOT, TINY

RUNS = [Path("lightning_logs", name, f"fold{fold}_seed42") for name in ("a", "b") for fold in (0, 1, 2)]
SMALL = ["EPOCHS=1", "N_FOLDS=3", "LOGGER=none"]


@pytest.fixture
def cluster():
    """A head without cores and two nodes of one core each."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80_000_000}
    found = Cluster(initialize_head=True, head_node_args=head)
    found.two = [found.add_node(num_cpus=1, object_store_memory=80_000_000) for _ in range(2)]
    yield found
    found.shutdown()


def lines_of(command):
    """Start a command; yields each line that it prints, and the process at last."""
    call = [sys.executable, *command]
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            print(f"{time.strftime('%T')} {line}", end="")
            yield line
        yield process.wait()


@pytest.mark.slow
def test_the_table_finishes_though_a_node_stops(demo_data, cluster):
    import folds

    assert folds.main([*TINY, *SMALL]) == 0
    assert train.main([*TINY, *SMALL, "EXPERIMENT=b", "LR=2e-3", "FOLD=0"]) == 0  # so that b is another than a
    call = [ROOT / "src" / "cv.py", *TINY, *SMALL, "EXPERIMENT=a,b", "SEEDS=42", f"RAY={cluster.address}", "CPUS=1"]
    call = [text for text in call if text != "LR=8e-3"] + ["WORKERS=0"]
    said, nodes, stopped, code = [], {}, None, None
    for line in lines_of(call):
        if isinstance(line, int):
            code = line
            break
        said.append(line)
        if found := re.search(r"\] (.*) started: on \S+ \((\w{6})\)", line):
            nodes[found[2]] = found[1]
        if stopped is None and len(nodes) == 2 and " finished after " in line:
            running = re.findall(r"\] (.*) started: (?:on|again on) \S+ \((\w{6})\)", "".join(said))
            ended = re.findall(r"\] (.*) finished after", "".join(said))
            stopped = next(node for label, node in running if label not in ended)
            node = next(node for node in cluster.two if node.node_id.startswith(stopped))
            cluster.remove_node(node, allow_graceful=False)
            print(f"{time.strftime('%T')} the node {stopped} was stopped")
    assert code == 0 and stopped is not None, "".join(said)
    again = re.findall(r"\] (.*) started: again on \S+ \((\w{6})\)", "".join(said))
    assert again and all(node != stopped for _, node in again)
    assert all((run / "model.json").is_file() and (run / "val" / "summary.json").is_file() for run in RUNS)
    assert len(re.findall(r" +[ab] +42 +3 of 3 +0\.\d", "".join(said))) == 2
    assert not list(Path("lightning_logs").glob(".storage_*"))
