"""How much main memory a training step takes, and how much there is."""

from collections.abc import Callable
from pathlib import Path

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def free() -> int | None:
    """Read how many bytes this process may still take, of the system or a container's limit; None where unknown."""
    if not MEMINFO.is_file():
        return None
    lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
    left = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = CGROUP / "memory.max", CGROUP / "memory.current"
    if limit.is_file() and used.is_file() and limit.read_text().strip().isdecimal():
        left = min(left, int(limit.read_text()) - int(used.read_text()))
    return left


def growth(work: Callable[[], object]) -> int | None:
    """Measure by how many bytes this process's memory rises at most while `work` runs; None where that is not known."""
    try:
        RESET.write_text("5")  # Linux: the peak begins anew (man 5 proc)
    except OSError:
        work()
        return None
    before = _kilobytes("VmRSS")
    work()
    return max(0, _kilobytes("VmHWM") - before) * 1024


def _kilobytes(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])
