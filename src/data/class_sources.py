"""The classes of the data and ours: the same, unless CLASSES merged, renamed or left out some (see class_merge.py)."""

import functools

import numpy as np

IGNORED = 255  # the index of a pixel that counts nowhere
BACKGROUND = "background"  # the class that is predicted, but neither scored nor submitted
MOST_CLASSES = 250  # indices are bytes
NO_CLASS, UNLABELED = -1, -2  # what a class of the data may be instead of one of ours


class ClassSources:
    """What of a DataSpec is about its classes; the fields are declared there."""

    task: str
    classes: tuple[str, ...]
    values: tuple[int, ...]
    colors: tuple[tuple[int, int, int], ...]
    ignore: tuple[int, ...]
    merged: tuple[tuple[str, int], ...]

    @property
    def scored(self) -> tuple[int, ...]:
        """Return the indices of the classes that are scored and submitted: all but the background."""
        return tuple(index for index, name in enumerate(self.classes) if name != BACKGROUND)

    @property
    def scored_names(self) -> tuple[str, ...]:
        return tuple(self.classes[index] for index in self.scored)

    def sources_of(self, name: str) -> tuple[str, ...]:
        """Name the data's classes that the class `name` is made of."""
        index = self.classes.index(name)
        return tuple(source for source, place in self.merged if place == index) if self.merged else (name,)

    def planes_of(self, source: str) -> list[int]:
        """List the plane, of the scored classes, that the data's class `source` is in; none where it was left out."""
        return [plane for plane, name in enumerate(self.scored_names) if source in self.sources_of(name)]

    @property
    def scored_sources(self) -> tuple[str, ...]:
        """Name the data's classes that the scored classes are made of."""
        return tuple(source for name in self.scored_names for source in self.sources_of(name))

    @property
    def is_class_map(self) -> bool:
        """Say whether a mask that is one file holds values or colors of classes."""
        return self.task == "multiclass" or bool(self.values or self.colors)

    @property
    def leaves_out(self) -> bool:
        """Say whether some pixels may count nowhere."""
        unlabeled = bool(self.ignore) or any(place == UNLABELED for _, place in self.merged)
        return self.task == "multiclass" and unlabeled

    def class_values(self) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
        """Give a value or color for each class, and for what is not labeled, () where all is: to write a class map."""
        keys = [tuple(color) for color in self.colors] or [(value,) for value in self.values]
        if not self.merged:
            return keys, self.ignore
        places = [place for _, place in self.merged]
        unlabeled = self.ignore or (keys[places.index(UNLABELED)] if UNLABELED in places else ())
        return [keys[places.index(index)] for index in range(len(self.classes))], unlabeled

    @property
    def value_of_none(self) -> tuple[int, ...]:
        """Give a value or color that is of no class of ours, where classes need not cover an image."""
        keys = [tuple(color) for color in self.colors] or [(value,) for value in self.values]
        zero = (0,) * len(keys[0])
        out = [key for key, (_, place) in zip(keys, self.merged, strict=True) if place == NO_CLASS]
        return zero if zero in out or zero not in keys else out[0]

    @functools.cached_property
    def own_index(self) -> np.ndarray:
        """Make uint8 (256,): our index for the index of each of the data's classes."""
        nobodys = IGNORED if self.task == "multiclass" else MOST_CLASSES
        table = np.full(256, nobodys, np.uint8)
        for index, (_, place) in enumerate(self.merged):
            table[index] = place if place >= 0 else nobodys
        return table
