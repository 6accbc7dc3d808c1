"""A SLURM job array of a table: a file with one command line for each job, and the script that runs one of them."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import run_table
from jobs.run_table import Group
from tools.errors import UserError
from tools.files import digest_of, write_text
from tools.flags import is_on, whole_number

if TYPE_CHECKING:
    from tools.flags import Flags

_SCRIPT = """\
#!/bin/bash
# One element a line of {table}, at most {jobs} at a time. Where SLURM requeues one (a node died, a job
# of higher priority came), it goes on from its last checkpoint. Partition, account and time: sbatch --time=8:00:00 ...
#SBATCH --job-name={name}
#SBATCH --array=0-{last}%{jobs}
#SBATCH --ntasks=1
#SBATCH --cpus-per-task={cpus}
{gpus}#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={logs}
cd {here} || exit 2
line=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" {table})
[ -n "$line" ] || {{ echo "error: {table} has no line for SLURM_ARRAY_TASK_ID=$SLURM_ARRAY_TASK_ID" >&2; exit 2; }}
export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-{cpus}}}"
echo "$(hostname): $line"
eval "words=($line)"
exec {python} {cv} "${{words[@]}}"
"""


def write(folder: Path, lines: Sequence[Sequence[str]], *, name: str, jobs: int, gpus: int, cpus: int) -> Path:
    """Write the table (each line the words of one job of make cv) and the script; return the script's path."""
    words = [shlex.join(line) for line in lines]
    # a submitted array reads its own table when its elements start, so a later table never replaces an earlier one
    which = digest_of(words)[:8]
    table = folder / f"runs_{which}.txt"
    write_text(table, "".join(f"{line}\n" for line in words))
    script = _SCRIPT.format(
        table=shlex.quote(str(table.absolute())),
        logs=shlex.quote(f"{folder.absolute()}/%A_%a.log"),
        here=shlex.quote(str(Path.cwd())),
        python=shlex.quote(sys.executable),
        cv=shlex.quote(str(Path(__file__).parents[1] / "cv.py")),
        gpus=f"#SBATCH --gres=gpu:{gpus}\n" if gpus else "",
        name=name,
        last=len(lines) - 1,
        jobs=jobs,
        cpus=cpus,
    )
    path = folder / f"cv_{which}.sbatch"
    write_text(path, script)
    return path


def to_slurm(groups: list[Group], flags: "Flags") -> None:
    """Write the job array's script for the unfinished runs, and print how to submit it."""
    from jobs import pools

    if is_on(flags.OVERWRITE) or flags.RAY:
        other = "RAY=" if flags.RAY else "OVERWRITE=1"
        why = "has a queue of its own" if flags.RAY else "would throw away what a requeued element goes on from"
        raise UserError(f"SLURM=1 and {other}: {other} {why}; leave it out.")
    first, lines = groups[0].settings, []
    gpus = pools.gpus_of(flags)
    if gpus % 1:  # of NaN too
        if flags.GPUS:
            raise UserError(f"GPUS={flags.GPUS}: SLURM counts whole GPUs.")
        gpus = 0.0 if first.DEVICE == "cpu" else 1.0
    typed = [text for text in flags.overrides if text.partition("=")[0] not in ("EXPERIMENT", "SEED")]
    named = any(text.startswith("EXPERIMENT=") for text in flags.overrides)
    for group in groups:
        words = [f"RECIPE={flags.RECIPE}"] * bool(flags.RECIPE) + typed
        words += [f"EXPERIMENT={group.settings.EXPERIMENT}"] * named + [f"SEEDS={group.settings.SEED}"]
        lines += [[*words, f"FOLDS={fold}"] for fold in group.folds if not group.is_scored(fold)]
    if not lines:
        raise UserError("All of these runs are finished and scored; there is nothing to submit.")
    at_once, cpus = whole_number("JOBS", flags.JOBS, len(lines)), pools.cores_of(flags)
    folder = Path(first.OUTPUT, "slurm")
    run_table.announce(groups, "as a SLURM job array")
    script = write(folder, lines, name=f"{first.DATASET}-cv", jobs=at_once, gpus=int(gpus), cpus=cpus)
    print(f"{len(lines)} runs, an element each\nNext: sbatch {script}")
    print("The element that ends an experiment scores its folds together; the same make cv without SLURM=1 shows all.")
