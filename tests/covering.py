"""A covering array: few rows in which every two values of every two columns meet."""

import itertools
from collections.abc import Mapping, Sequence


def rows(values: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Return rows, each a value of every column, so that any two values of two columns stand together in one.

    Greedy: a row begins with a pair that has not met yet, and each further column takes what meets most of those that
    have not; the column of most values decides first. The same values always give the same rows.
    """
    names = sorted(values, key=lambda name: (-len(values[name]), name))
    cells = {name: [(name, value) for value in values[name]] for name in names}
    left = {
        (one, other) for first, second in itertools.combinations(names, 2) for one in cells[first]
        for other in cells[second]
    }  # fmt: skip
    by_cell: dict[tuple[str, str], set[tuple[str, str]]] = {cell: set() for name in names for cell in cells[name]}
    for one, other in left:
        by_cell[one].add(other)
        by_cell[other].add(one)
    used = dict.fromkeys(by_cell, 0)
    made = []
    while any(by_cell.values()):
        first = max(by_cell, key=lambda cell: (len(by_cell[cell]), cell))
        row = {first[0]: first}
        for name in [name for name in names if name != first[0]]:
            met = set(row.values())
            row[name] = min(cells[name], key=lambda cell: (-len(by_cell[cell] & met), used[cell], cell))
        for one, other in itertools.permutations(row.values(), 2):
            by_cell[one].discard(other)
        for cell in row.values():
            used[cell] += 1
        made.append({name: row[name][1] for name in values})
    return made
