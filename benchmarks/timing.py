"""Ways of doing one thing, timed in turns in one run, and the table of their ratios."""

import contextlib
import io
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Task = Callable[[], Any]  # returns the seconds that count as a float, where these are not all of the call's


def in_turns(tasks: dict[str, Task], repeats: int) -> dict[str, list[float]]:
    """Seconds of each task, `repeats` times; every other round backwards, so that a busier machine slows all alike."""
    spent: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(repeats):
        for name in list(tasks) if turn % 2 == 0 else reversed(tasks):
            start = time.perf_counter()
            seconds = tasks[name]()
            spent[name].append(seconds if isinstance(seconds, float) else time.perf_counter() - start)
    return spent


def extrapolated(task: Callable[[Any], Any], items: Sequence[Any], count: int) -> float:
    """Seconds that `task` would take for all items, by those of `count` of them, evenly spread."""
    sample = items[:: max(1, len(items) // count)]
    start = time.perf_counter()
    task(sample)
    return (time.perf_counter() - start) * len(items) / len(sample)


def quietly(command: Any, words: list[str], what: str = "") -> None:
    """A command's own main in this process, `command` its module; SystemExit with what it said where it fails."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = command.main(words)
    if code:
        raise SystemExit(f"{what or command.__name__} ended with {code}:\n{said.getvalue()[-2000:]}")


@dataclass
class Row:
    """One row of the table. `spent`: seconds of "ours", and of "plain" and "limit" where there are such.

    count: what is done in that time, in `unit`; at_limit, at_plain: the aims, the least share of the limit's speed and
    the least multiple of the plain way's. made_of: parts of ours, in seconds.
    """

    work: str
    spent: dict[str, list[float]]
    count: float = 1
    unit: str = ""
    at_limit: float | None = None
    at_plain: float | None = None
    note: str = ""
    made_of: dict[str, float] = field(default_factory=dict)

    def ratio(self, other: str) -> tuple[float, float, float] | None:
        """Ours against another's: median, lowest and highest speed ratio over the turns."""
        if other not in self.spent:
            return None
        pairs = [theirs / ours for theirs, ours in zip(self.spent[other], self.spent["ours"], strict=True)]
        return float(np.median(pairs)), min(pairs), max(pairs)

    def reached(self) -> bool | None:
        """Whether the aims are; None without any."""
        aims = [("limit", self.at_limit), ("plain", self.at_plain)]
        got = [self.ratio(name)[0] >= aim for name, aim in aims if aim is not None]  # type: ignore[index]
        return all(got) if got else None

    def as_json(self) -> dict[str, Any]:
        """All figures: seconds as they were measured, and the ratios as (median, lowest, highest)."""
        ratios = {name: self.ratio(name) for name in ("limit", "plain") if name in self.spent}
        aims = {"of_limit": self.at_limit, "times_plain": self.at_plain}
        return {
            "work": self.work,
            "count": self.count,
            "unit": self.unit,
            "seconds": self.spent,
            "speed_against": ratios,
            "aims": aims,
            "reached": self.reached(),
            "made_of": self.made_of,
            "note": self.note,
        }


def _figure(row: Row, name: str) -> str:
    """A rate, or seconds where nothing is counted."""
    if name not in row.spent:
        return ""
    seconds = float(np.median(row.spent[name]))
    if not row.unit:
        return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1000 * seconds:.1f} ms"
    return f"{row.count / seconds:.3g} {row.unit}/s"


def _ratio(row: Row, name: str) -> str:
    found = row.ratio(name)
    return "" if found is None else f"{found[0]:.2f} ({found[1]:.2f} to {found[2]:.2f})"


def _aim(row: Row) -> str:
    parts = [f">= {row.at_limit:.2g} of the limit"] if row.at_limit is not None else []
    parts += [f">= {row.at_plain:g} x plain"] if row.at_plain is not None else []
    said = {True: "reached: ", False: "NOT reached: ", None: ""}[row.reached()]
    return said + ", ".join(parts)


def table(rows: list[Row]) -> str:
    """Markdown: ours, the plain way's, the limit's, and the speed ratios as median (lowest to highest)."""
    head = ("work", "ours", "plain way", "limit", "of the limit", "x plain", "aim")
    lines = [head, ("---",) * len(head)]
    for row in rows:
        cells = [_figure(row, name) for name in ("ours", "plain", "limit")]
        lines.append((row.work, *cells, _ratio(row, "limit"), _ratio(row, "plain"), _aim(row)))
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    notes = [f"- {row.work}: {row.note}" for row in rows if row.note]
    for row in rows:
        if row.made_of:
            parts = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in row.made_of.items())
            notes.append(f"- {row.work} is made of: {parts}")
    return text + ("\n\n" + "\n".join(notes) if notes else "")


def machine() -> dict[str, Any]:
    """What it ran on: processor, cores, memory in GiB, accelerator, versions of Python and torch."""
    import torch

    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):  # noqa: PTH110
        with open("/proc/cpuinfo") as file:  # noqa: PTH123
            models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
        name = models[0] if models else name
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "processor": name,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(pages / 2**30, 1),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
