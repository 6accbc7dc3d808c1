"""How often each training row comes, and by how many processes."""

from pathlib import Path
from typing import TYPE_CHECKING

from data.dataspec import DataSpec

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from loading.cache import Cache
    from settings import Settings


def processes(settings: "Settings", cache: "Cache", train_rows: "np.ndarray", valid_rows: "np.ndarray") -> int:
    """Return as many loader processes as WORKERS says and shared memory has room for; says where it has less."""
    from loading.datamodule import workers
    from tools.hardware import fitting_processes

    frames = [settings.CROP] if all(settings.CROP) else [cache.shapes[row] for row in train_rows]
    sample, held_out = (
        max((height * width for height, width in shapes), default=0) * (cache.channels + cache.planes)
        for shapes in (frames, [cache.shapes[row] for row in valid_rows])
    )
    count, why = fitting_processes(
        workers(settings.WORKERS),
        sample * min(settings.TRAIN_BATCH_SIZE, len(train_rows)),
        held_out * min(settings.VALID_BATCH_SIZE, len(valid_rows)),
    )
    if why:
        print(why, flush=True)
    return count


def row_weights(
    settings: "Settings", spec: DataSpec, frame: "pd.DataFrame", cache: "Cache", rows: "np.ndarray"
) -> "np.ndarray | None":
    """Return how often each training row comes, by BALANCE and FOREGROUND; None where each comes once."""
    import numpy as np

    from data.folds_table import stratum_labels
    from loading.samplers import balance_weights, foreground_weights, stratum_shares

    images_by_foreground = settings.FOREGROUND > 0 and not all(settings.CROP)  # with CROP the crops are placed by it
    if settings.BALANCE == "none" and not images_by_foreground:
        return None
    weights = np.ones(len(rows))
    if settings.BALANCE != "none":
        strata = stratum_labels(frame.iloc[rows], Path(settings.TRAIN_FOLDS))
        weights = balance_weights(strata, stratum_shares(settings.BALANCE, strata))
    if images_by_foreground:
        shown = np.array([spec.class_planes(cache[row][1]).any() for row in rows])
        weights = foreground_weights(weights, shown, settings.FOREGROUND)
    return weights
