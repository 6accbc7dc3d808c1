"""Recipes: files of NAME=value lines, each with a reason, and a [search] section that only make search reads."""

from pathlib import Path

from tools.errors import UserError, nearest

FOLDER = Path(__file__).parents[1] / "recipes"
SEARCH = "[search]"  # the line above the constants that make search may vary


def read(name: str) -> list[str]:
    """Return the NAME=value lines of src/recipes/<name>.cfg, or of the file where `name` ends in .cfg; no comments."""
    return [line for line, _ in parts(name)[0]]


def parts(name: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return the lines above and below [search], each with its comment. Raises UserError for an unknown recipe."""
    path = Path(name) if name.endswith(".cfg") else FOLDER / f"{name}.cfg"
    if not path.is_file():
        if name.endswith(".cfg"):
            raise UserError(f"There is no recipe file {name}.")
        known = sorted(file.stem for file in FOLDER.glob("*.cfg"))
        raise UserError(f"There is no recipe {name} in {FOLDER}.{nearest(name, known)} It has: {', '.join(known)}.")
    lines = (line.partition("#") for line in path.read_text(encoding="utf-8").splitlines())
    whole = [(line.strip(), comment.strip()) for line, _, comment in lines if line.strip()]
    at = next((number for number, (line, _) in enumerate(whole) if line == SEARCH), len(whole))
    return whole[:at], whole[at + 1 :]
