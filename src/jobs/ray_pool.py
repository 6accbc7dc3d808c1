"""Jobs as Ray core tasks: the same table on several computers, each job with its share of a GPU and its cores.

Only texts travel: NAME=value, paths, checksums. Ray sends src/ along, so that all nodes run the caller's code. A node
that shares the caller's storage (it sees a token file that the caller wrote) works there; from any other node the
folders that a job made come back as a tar through Ray's object store. When a node dies, its tasks start again on
others.
"""

import io
import math
import os
import shutil
import socket
import sys
import tarfile
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs import job_table
from jobs.job_table import Event, Job
from tools import run_folders
from tools.errors import UserError, first_line, listing
from tools.files import sha256, write_text

if TYPE_CHECKING:
    import ray

RETRIES = 3  # for a job whose node or process died
PATIENCE = 30  # seconds that a job has to end by itself after it is told to stop
SETUP = 180  # seconds that each node has for its first answer


@dataclass(frozen=True)
class Place:
    """Where tasks run: the caller's working folder, and what must lie at the same path on each node.

    `tables`: path -> sha256 of files that must be there and equal; `folders`: input folders; `token`: the file by which
    a node recognizes the caller's storage.
    """

    folder: str
    tables: dict[str, str]
    folders: tuple[str, ...]
    token: str


class Ray:
    """A pool (see job_table.Pool) on the Ray cluster at `address`; each job has `gpus` (NaN: one, where there are any).

    Raises UserError where there is no cluster, or a node of it lacks one of the `tables` or `folders`.
    """

    def __init__(
        self, address: str, *, gpus: float, cpus: int, logs: str, tables: list[str], folders: list[str]
    ) -> None:
        self.ray, self.place = _connect(address), _place(logs, tables, folders)
        self.said, self.stdout = io.StringIO(), sys.stdout
        try:
            self.gpus = float(self.ray.cluster_resources().get("GPU", 0) > 0) if math.isnan(gpus) else gpus
            self.cpus = cpus
            self.shared = self._probe()
            here = self._at(self.ray.get_runtime_context().get_node_id())
            self.news = self.ray.remote(num_cpus=0, scheduling_strategy=here)(_News).remote()
            self.running: dict[Any, Job] = {}
            self.by_label: dict[str, Job] = {}
            sys.stdout = self.said  # takes Ray's own messages about dead nodes; our events say it in a line
        except BaseException:
            self.close()
            raise

    def _at(self, node: str) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(node, soft=False)

    def _probe(self) -> bool:
        """Return whether all nodes that can run jobs share the caller's storage. Raises UserError if one lacks data."""
        able = [node for node in self.ray.nodes() if node["Alive"] and self._fits(node["Resources"])]
        self.nodes = [f"{node['NodeManagerAddress']} ({node['NodeID'][:6]})" for node in able]
        if not able:
            print(f"No node of the cluster has {self.needs} at present; the jobs wait for one (Ctrl-C ends that)")
            return False
        probe = self.ray.remote(num_cpus=0, max_retries=0)(_enter)
        asked = [probe.options(scheduling_strategy=self._at(node["NodeID"])).remote(self.place) for node in able]
        try:
            answers = self.ray.get(asked, timeout=SETUP)
        except self.ray.exceptions.RayError as error:
            raise UserError(f"A node of the Ray cluster did not answer: {first_line(error)}") from error
        lacking = [f"{node}: {problem}" for node, (problem, _) in zip(self.nodes, answers, strict=True) if problem]
        if lacking:
            raise UserError(
                "The data and the folds table must lie at the same path on each node as here; these lack something:"
                + listing(lacking)
            )
        return all(shared for _, shared in answers)

    def _fits(self, resources: dict[str, float]) -> bool:
        return resources.get("CPU", 0) >= self.cpus and resources.get("GPU", 0) >= self.gpus

    @property
    def needs(self) -> str:
        """Return what a job needs, in words."""
        return f"{self.gpus:g} GPUs and {self.cpus} cores" if self.gpus else f"{self.cpus} cores"

    def room(self) -> bool:
        """Return True: Ray has a queue of its own, and an autoscaler needs to see its length."""
        return True

    def start(self, job: Job, deadline: float) -> None:
        """Pass a job to Ray."""
        brought = b"" if self.shared else pack(job.brings)
        task = self.ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_calls=1, max_retries=RETRIES)(_task)
        reference = task.remote(self.place, job.as_dict(), deadline, self.gpus, brought, self.news)
        self.running[reference] = self.by_label[job.label] = job

    def wait(self, seconds: float) -> list[Event]:
        """Return the jobs that have started, with their nodes, and those that have ended."""
        ready, _ = self.ray.wait(list(self.running), timeout=seconds)
        events = [Event(self.by_label[label], job_table.STARTED, text) for label, text in self._news()]
        return events + [self._ended(reference) for reference in ready]

    def _news(self) -> list[tuple[str, str]]:
        try:
            return self.ray.get(self.news.take.remote(), timeout=SETUP)
        except self.ray.exceptions.RayError as error:
            raise UserError(f"The Ray cluster is gone ({first_line(error)}). The same command goes on.") from error

    def _ended(self, reference: "ray.ObjectRef") -> Event:
        job = self.running.pop(reference)
        try:
            state, text, node, packed = self.ray.get(reference)
            if packed:
                unpack(packed, job.takes, anew=job.flags.get("OVERWRITE") == "1")
        except self.ray.exceptions.RayError as error:
            return Event(job, job_table.FAILED, first_line(error))
        except (OSError, tarfile.TarError, UserError) as error:
            return Event(job, job_table.FAILED, f"what it made could not be brought home from {node} ({error})")
        where = f"on {node}" + (", brought home" if packed else "")
        return Event(job, state, f"{text} ({where})" if text else where)

    def stop(self) -> None:
        """Cancel running and waiting jobs; each one ends as at Ctrl-C."""
        for reference in self.running:
            self.ray.cancel(reference)
        if self.running:
            self.ray.wait(list(self.running), num_returns=len(self.running), timeout=PATIENCE)
        self.close()

    def close(self) -> None:
        """Leave the cluster."""
        sys.stdout = self.stdout
        Path(self.place.token).unlink(missing_ok=True)
        self.ray.shutdown()


def _connect(address: str) -> Any:
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "RAY= needs Ray: pip install -r requirements-cluster.txt, on each node. Without it make cv uses this "
            "computer's devices."
        ) from error
    try:
        code = {"working_dir": str(Path(__file__).parents[1]), "excludes": ["**/__pycache__"]}
        ray.init(address, runtime_env=code, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise UserError(
            f"RAY={address}: no Ray cluster answers there ({first_line(error)}). ray start --head on one computer "
            "makes one, ray start --address=... on the others joins it; see docs/scale.md."
        ) from error
    return ray


def _place(logs: str, tables: list[str], folders: list[str]) -> Place:
    token = Path(logs).absolute() / f".storage_{uuid.uuid4().hex}"
    write_text(token, token.name)
    return Place(str(Path.cwd()), {table: sha256(Path(table)) for table in tables}, tuple(folders), str(token))


class _News:
    """An actor beside the caller that is told which job has started where."""

    def __init__(self) -> None:
        self.begun: set[str] = set()
        self.news: list[tuple[str, str]] = []

    def started(self, label: str, node: str) -> None:
        """Record that a job has started, perhaps again."""
        self.news.append((label, f"again on {node}" if label in self.begun else f"on {node}"))
        self.begun.add(label)

    def take(self) -> list[tuple[str, str]]:
        """Return what was recorded since the last call."""
        news, self.news = self.news, []
        return news


def _enter(place: Place) -> tuple[str, bool]:
    """Go to the caller's folder on this node; return what is missing there, and whether it is the caller's storage."""
    try:
        os.chdir(place.folder)
        for table, sha in place.tables.items():
            if sha256(Path(table)) != sha:
                return f"{Path(table).absolute()} is another one than the caller's", False
        for folder in place.folders:
            next(Path(folder).iterdir(), None)
    except OSError as error:
        return f"{error.strerror}: {error.filename}", False
    token = Path(place.token)
    return "", token.is_file() and token.read_text(encoding="utf-8") == token.name


def _task(
    place: Place, job: dict[str, Any], deadline: float, gpus: float, brought: bytes, news: "ray.actor.ActorHandle"
) -> tuple[str, str, str, bytes]:
    """Run one job in a Ray worker; return its state, the reason if not done, the node, and packed results or b""."""
    import ray

    node = f"{socket.gethostname()} ({ray.get_runtime_context().get_node_id()[:6]})"
    news.started.remote(job["label"], node)  # no waiting: Ray would give this task's cores to others meanwhile
    if not gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray hides no GPU from a task that asked for none
    state, text, packed = carry_out(place, job, deadline, brought, node)
    return state, text, node, packed


def carry_out(place: Place, job: dict[str, Any], deadline: float, brought: bytes, node: str) -> tuple[str, str, bytes]:
    """Run a job on a node, for the first time or again; return state, reason and packed results.

    The results are b"" where the caller shares the storage, or where the job failed.
    """
    problem, shared = _enter(place)
    if problem:
        return job_table.FAILED, problem, b""
    call = f"call {Path(place.token).name}"
    if _was_begun(job["log"], call):
        job = {**job, "flags": _of_retry(job)}
    elif not shared:
        unpack(brought, job["brings"])
    with job_table.printing_to(job["log"]):
        print(f"--- {job['label']}: {time.strftime('%F %T')} on {node}, {call}", flush=True)
        state, text = job_table.perform(job, deadline)
    return state, text, b"" if shared or state == job_table.FAILED else pack(job["takes"])


def _was_begun(log: str, call: str) -> bool:
    """Return whether this call's job was tried before, as far as this node can see."""
    path = Path(log)
    return path.is_file() and call in path.read_text(encoding="utf-8", errors="replace")


def _of_retry(job: dict[str, Any]) -> dict[str, str]:
    """Return the job's flags, without OVERWRITE where the first try left a checkpoint to continue from."""
    begun = any(run_folders.resumable(Path(path)) for path in job["takes"])
    return {name: value for name, value in job["flags"].items() if name != "OVERWRITE" or not begun}


def pack(paths: Sequence[str]) -> bytes:
    """Return files and folders as a tar, each under its number; missing ones are left out."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for number, path in enumerate(paths):
            if Path(path).exists():
                archive.add(path, str(number))
    return packed.getvalue()


def unpack(packed: bytes, paths: Sequence[str], anew: bool = False) -> None:
    """Write back what `pack` took of the same paths: a folder replaces an existing one, a file only with `anew`.

    Raises UserError where the tar holds anything else, and OSError or TarError where it is incomplete.
    """
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        members = archive.getmembers()
        foreign = [member.name for member in members if not _is_of(member.name, len(paths))]
        if foreign:
            raise UserError(f"{foreign[0]} is nothing that was packed")
        for number, path in enumerate(map(Path, paths)):
            own = [member for member in members if member.name.split("/")[0] == str(number)]
            if own and not (own[0].isfile() and path.exists() and not anew):
                _put(archive, own, path)


def _is_of(name: str, count: int) -> bool:
    return (first := name.partition("/")[0]).isdecimal() and int(first) < count


def _put(archive: tarfile.TarFile, members: list[tarfile.TarInfo], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as whole:
        archive.extractall(whole, members, filter="data")
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(Path(whole, members[0].name), path)
