"""The pool that runs a table of jobs, by a command's flags JOBS, RAY, GPUS and CPUS."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.job_table import Pool
from jobs.local_pool import Processes, cores_each, places
from jobs.ray_pool import Ray
from tools.errors import UserError
from tools.flags import whole_number

if TYPE_CHECKING:
    from tools.flags import Flags

CORES = 2  # for each job on a cluster, without CPUS=


@dataclass(frozen=True)
class Runner:
    """Where jobs run, how many at once (0: as many as the cluster takes), and on how many cores each (0: on all)."""

    flags: Any
    devices: tuple[str, ...]
    words: str
    at_once: int
    cores: int

    def pool(self, *, logs: str, tables: list[str], folders: list[str]) -> Pool:
        """Return a started pool. Raises UserError: no cluster, or a node that lacks one of `tables` or `folders`."""
        if not self.flags.RAY:
            return Processes(self.devices, self.cores)
        return Ray(self.flags.RAY, gpus=gpus_of(self.flags), cpus=self.cores, logs=logs, tables=tables, folders=folders)

    def workers(self, wanted: int) -> int:
        """Return WORKERS for each job; -1 divides the cores among the jobs."""
        from loading.datamodule import workers

        return workers(wanted, self.cores) if self.cores else wanted


def choose(flags: "Flags", device: str) -> Runner:
    """Return the runner that the flags ask for; `device`: the settings' DEVICE. Raises UserError if flags clash."""
    cpus, at_once = cores_of(flags), whole_number("JOBS", flags.JOBS, 0)
    gpus_of(flags)
    if flags.RAY and device == "cpu" and not flags.GPUS:
        flags.GPUS = "0"
    if flags.RAY:
        if at_once:
            raise UserError("RAY= decides by GPUS= and CPUS= how many run at a time; leave JOBS= out.")
        return Runner(flags, (), f"on the Ray cluster at {flags.RAY}", 0, cpus)
    for name in ("GPUS", "CPUS"):
        if getattr(flags, name):
            raise UserError(f"{name}= is for RAY= and SLURM=1; on one computer JOBS= says how many run at a time.")
    devices, words = places(device, at_once)
    count = f"{len(devices)} at a time" if len(devices) > 1 else "one at a time"
    return Runner(flags, tuple(devices), f"on {words}, {count}", len(devices), cores_each(len(devices)))


def cores_of(flags: "Flags") -> int:
    """Return CPUS as a number. Raises UserError where it is no whole number."""
    return whole_number("CPUS", flags.CPUS, CORES)


def gpus_of(flags: "Flags") -> float:
    """Return GPUS, NaN where it is not given. Raises UserError unless it is 0, a fraction of one, or a whole number."""
    if not flags.GPUS:
        return math.nan
    try:
        gpus = float(flags.GPUS)
    except ValueError:
        gpus = -1.0
    if not 0 <= gpus <= 1000 or (gpus > 1 and gpus % 1):
        raise UserError(f"GPUS={flags.GPUS}: expected 0, a part of a GPU such as 0.5, or a whole number of them.")
    return gpus
