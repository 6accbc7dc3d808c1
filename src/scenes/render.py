"""From what a user asked for to the demo's data on disk, rendered unless they are there already."""

import time
from pathlib import Path
from types import SimpleNamespace

from scenes import carvana, rendered_layouts
from scenes.writer import DONE, refuse_foreign
from tools.errors import UserError, nearest
from tools.files import read_json
from tools.flags import whole_number


def wanted_data(flags: SimpleNamespace) -> dict[str, int]:
    """Read what the flags ask for, as it is kept beside the data. Raises UserError for flags that do not fit."""
    wanted: tuple[tuple[str, int, int], ...]
    if flags.LAYOUT == "carvana":
        if flags.COUNT:
            raise UserError("COUNT is for the other layouts; Carvana's has CARS and TEST_CARS.")
        wanted = (("CARS", 20, 2), ("TEST_CARS", 5, 1), ("WIDTH", 959, 48))
    else:
        if flags.LAYOUT not in rendered_layouts.LAYOUTS:
            known = ["carvana", *rendered_layouts.LAYOUTS]
            raise UserError(f"LAYOUT={flags.LAYOUT} is none of: {', '.join(known)}.{nearest(flags.LAYOUT, known)}")
        for name in ("CARS", "TEST_CARS", "WIDTH"):
            if getattr(flags, name):
                raise UserError(f"{name} is for Carvana's layout; LAYOUT={flags.LAYOUT} has COUNT.")
        wanted = (("COUNT", rendered_layouts.COUNT, 8),)
    return {
        "seed": 42,
        **{name.lower(): whole_number(name, getattr(flags, name), default, low, None) for name, default, low in wanted},
    }


def render(root: Path, layout: str, wanted: dict[str, int], overwrite: bool) -> None:
    """Render the wanted data into `root`, unless they are there. Raises UserError where other data lie there."""
    refuse_foreign(root)
    have = read_json(root / DONE, f"Remove {root} and render it again.") if (root / DONE).is_file() else {}
    if not overwrite and have.items() >= {"layout": layout, **wanted}.items():
        print(f"{root} is there already, {have['count'] + have['test_count']} pictures.")
        return
    start = time.monotonic()
    if layout == "carvana":
        done = carvana.render_data(root, **wanted)
    else:
        done = rendered_layouts.write(layout, root, **wanted)
    print(f"Rendered {done['count'] + done['test_count']} pictures in {time.monotonic() - start:.0f} s -> {root}")
