"""A SLURM job array of a table: a file with a line of words for each job, and the script that runs one line of it."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import runs

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
    """Write the table (each line the words of one job of make cv) and the script; returns the script's path."""
    words = [shlex.join(line) for line in lines]
    # an array that was submitted reads its own table when its elements start, whatever was written since
    which = runs.digest_of(words)[:8]
    table = folder / f"runs_{which}.txt"
    runs.write_text(table, "".join(f"{line}\n" for line in words))
    script = _SCRIPT.format(
        table=shlex.quote(str(table.absolute())),
        logs=shlex.quote(f"{folder.absolute()}/%A_%a.log"),
        here=shlex.quote(str(Path.cwd())),
        python=shlex.quote(sys.executable),
        cv=shlex.quote(str(Path(__file__).with_name("cv.py"))),
        gpus=f"#SBATCH --gres=gpu:{gpus}\n" if gpus else "",
        name=name,
        last=len(lines) - 1,
        jobs=jobs,
        cpus=cpus,
    )
    path = folder / f"cv_{which}.sbatch"
    runs.write_text(path, script)
    return path
