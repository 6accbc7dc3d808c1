"""What a layout is given and what it finds: places to look at, pairs of image and mask, and what has no partner."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.file_listing import relative


@dataclass(frozen=True)
class Pair:
    """One image and its mask's reference, both relative to INPUT."""

    image: str
    mask: str
    stratum: str = ""
    kfold: int | None = None  # where the data come with a split


@dataclass(frozen=True)
class LayoutMatch:
    """What a layout, or a table of the user's own, found, and a sentence that says it."""

    layout: str
    sentence: str
    pairs: list[Pair]
    alone: list[str] = field(default_factory=list)  # a line for each image or mask without a partner
    group: str = ""  # the regex that finds the group in an image's path, where the layout knows one
    dialect: str = ""  # of the submission
    form: dict[str, Any] = field(default_factory=dict)  # in what its rows differ from that dialect's, see formats/rle
    classes: tuple[str, ...] = ()  # where each has masks of its own
    channels: int = 3  # a stack's number of slices
    unmasked: list[str] = field(default_factory=list)  # the images of `alone` that have no mask
    notes: list[str] = field(default_factory=list)  # what else there is, and what was made of it
    tests: list[str] = field(default_factory=list)  # images to predict, relative to INPUT, where the names tell


@dataclass(frozen=True)
class Places:
    """Where to look: INPUT, and TRAIN_PATH and MASK_PATH where they are given."""

    root: Path
    train: Path | None
    masks: Path | None

    annotator: str = ""  # ANNOTATOR

    def below(self, path: Path) -> str:
        """Write a path relative to INPUT. Raises UserError where it lies outside."""
        return relative(path, str(self.root))
