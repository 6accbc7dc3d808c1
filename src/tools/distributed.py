"""Several processes that train one fold together (DDP): this one's rank, work on rank zero, values of all ranks.

There is one for each device, started by `training.launch` here, by torchrun, or by SLURM's srun. Only rank zero writes.
Without such a group everything here answers as for a group of one.
"""

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from tools.errors import UserError

if TYPE_CHECKING:
    import torch
    from pytorch_lightning.plugins.environments import ClusterEnvironment

LOST = ("gloo", "nccl", "connection", "socket", "broken pipe", "distnetwork", "distbackend")


def environment() -> "ClusterEnvironment | None":
    """Return what started this process as one of several: torchrun (or `training.launch`) or SLURM, else None."""
    from pytorch_lightning.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    several = SLURMEnvironment.detect() and int(os.environ["SLURM_NTASKS"]) > 1  # a single task is no group
    return SLURMEnvironment(auto_requeue=False) if several else None


@contextlib.contextmanager
def group(devices: int, nodes: int, device: str) -> "Iterator[ClusterEnvironment | None]":
    """Join a group of devices x nodes processes; yield what started this one, None for a group of one.

    Raises UserError where another number of processes was started.
    """
    import torch
    import torch.distributed as dist

    size, env = devices * nodes, environment()
    if size == 1 and (env is None or env.world_size() == 1):
        yield None
        return
    if env is None or env.world_size() != size:
        started = env.world_size() if env else 1
        raise UserError(
            f"DEVICES={devices} x NODES={nodes} are {size} processes, and {started} "
            f"{'was' if started == 1 else 'were'} started. On each of {nodes} computers: torchrun --nnodes={nodes} "
            f"--nproc-per-node={devices} --rdzv-backend=c10d --rdzv-endpoint=HOST:29500 src/train.py FOLD=0 "
            f"DEVICES={devices} NODES={nodes}; or in a SLURM job: srun python src/train.py FOLD=0 ..."
        )
    os.environ.setdefault("MASTER_ADDR", env.main_address)
    os.environ.setdefault("MASTER_PORT", str(env.main_port))
    if device == "cuda":
        torch.cuda.set_device(env.local_rank())
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    # the others wait for rank zero, which may spend hours on a cache
    dist.init_process_group(backend, rank=env.global_rank(), world_size=size, timeout=datetime.timedelta(hours=24))
    try:
        yield env
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Return this process's rank; rank zero is the one that writes."""
    import torch.distributed as dist

    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """Return how many processes train together."""
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_initialized() else 1


def on_rank_zero(work: Callable[[], Any]) -> Any:
    """Call `work` on rank zero and return its result on every rank; the others wait. An error there ends them all.

    Only rank zero reports that error. The result is pickled, between processes of this one training.
    """
    import torch.distributed as dist

    if size() == 1:
        return work()
    box: list[Any] = [None, None]
    error: BaseException | None = None
    if rank() == 0:
        try:
            box = [work(), None]
        except BaseException as raised:  # raised again below, once the other ranks know of it
            error, box = raised, [None, type(raised).__name__]
    dist.broadcast_object_list(box, src=0)
    if error is not None:
        raise error
    if box[1] is not None:
        raise SystemExit(2)
    return box[0]


def largest(value: int, device: "torch.device") -> int:
    """Return the largest of the ranks' values."""
    import torch
    import torch.distributed as dist

    if size() == 1:
        return value
    there = torch.tensor(value, device=device)
    dist.all_reduce(there, op=dist.ReduceOp.MAX)
    return int(there)


def mean(value: float) -> float:
    """Return the mean of the ranks' values."""
    if size() == 1:
        return value
    return sum(all_gather(value)) / size()


def all_gather(value: Any) -> list[Any]:
    """Return the values of all ranks, in their order, on every rank."""
    import torch.distributed as dist

    if size() == 1:
        return [value]
    found: list[Any] = [None] * size()
    dist.all_gather_object(found, value)
    return found


def lost_another(error: BaseException) -> bool:
    """Return whether this is the error that a rank sees when another one has ended."""
    text = f"{type(error).__name__} {error}".lower()
    return size() > 1 and isinstance(error, RuntimeError) and any(word in text for word in LOST)
