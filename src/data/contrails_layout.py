"""The layout of Google's contrails: a folder a record, its bands as arrays and the mask that people drew together."""

from pathlib import Path

from data.annotated import TRAIN, VALID
from data.file_listing import child
from data.layout_match import LayoutMatch, Pair, Places

MASK = "human_pixel_masks.npy"


def find(places: Places) -> LayoutMatch | None:
    """Match train/<record>/band_*.npy with human_pixel_masks.npy beside them; validation/ is fold 0, train/ fold 1."""
    if places.masks:
        return None
    named = [(places.train, TRAIN)] if places.train else [(child(places.root, ("train",)), TRAIN)]
    named += [] if places.train else [(child(places.root, ("validation", "valid")), VALID)]
    pairs: list[Pair] = []
    alone, parts, bands = [], set(), set()
    for folder, part in named:
        for record in _records(folder):
            if (record / MASK).is_file():
                pairs.append(Pair(f"{places.below(record)}/band_{{z}}.npy", places.below(record / MASK), kfold=part))
                parts.add(part)
                bands.add(len(list(record.glob("band_*.npy"))))
            else:
                alone.append(f"{record}: no {MASK}")
    if not pairs:
        return None
    if len(parts) == 1:
        pairs = [Pair(pair.image, pair.mask) for pair in pairs]
    split = ", a split that came with the data: fold 0 holds out validation" * (len(parts) == 2)
    sentence = f"records of {max(bands)} bands, as of Google's contrails, below {places.train or places.root}{split}"
    return LayoutMatch("contrails", sentence, pairs, alone, dialect="contrails", channels=max(bands))


def _records(folder: Path | None) -> list[Path]:
    """List the folders of records, which hold bands."""
    inside = sorted(folder.iterdir()) if folder and folder.is_dir() else []
    return [record for record in inside if record.is_dir() and any(record.glob("band_*.npy"))]
