"""How a competition lays its files out -> pairs of image and mask, by name, never by position.

Paths are POSIX and relative to INPUT; what a mask's reference may be says formats/mask_reference.py. A layout is one
function that returns a LayoutMatch or None, and one line in LAYOUTS.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data import coco_layout, contrails_layout, labelme_layout, yolo_layout
from data.file_listing import BESIDE, MASK_FOLDERS, child, existing_input, is_junk, keys_of, unique
from data.layout_choice import choose, nothing_found, without_unpaired
from data.layout_match import LayoutMatch, Pair, Places
from data.pairing import match
from formats import rle, rle_table
from formats.images import list_images
from formats.mask_reference import MaskReference
from tools.errors import UserError, alike, listing

if TYPE_CHECKING:
    from settings import Settings

IMAGE_FOLDERS = (
    "images", "image", "imgs", "img", "screenshots", "pictures", "frames", "train_images", "jpegimages", "train",
)  # fmt: skip
PARTS = ("train", "training", "valid", "val", "validation", "test", "testing")  # of data, not an image's own folder


def _carvana(places: Places) -> LayoutMatch | None:
    """Match train_hq/<car>_<view>.jpg with train_masks/<car>_<view>_mask.gif (carvana-image-masking-challenge)."""
    train = places.train or child(places.root, ("train_hq", "train"))
    masks = places.masks or child(places.root, ("train_masks",))
    if not (train and masks and train.is_dir() and masks.is_dir()):
        return None
    images_by_key, masks_by_key = _by_key(list_images(train), ""), _by_key(list_images(masks), "_mask")
    if not any(file.stem.endswith("_mask") for file in masks_by_key.values()):
        return None
    both = sorted(images_by_key.keys() & masks_by_key.keys())
    lone = [path for key, path in sorted(images_by_key.items()) if key not in masks_by_key]
    alone = [f"{path}: no mask" for path in lone]
    alone += [f"{path}: no image" for key, path in sorted(masks_by_key.items()) if key not in images_by_key]
    sentence = f"Carvana's layout: images in {train}, masks named <image>_mask in {masks}"
    pairs = [Pair(places.below(images_by_key[key]), places.below(masks_by_key[key])) for key in both]
    unmasked, group = list(map(places.below, lone)), r"^(?:.*/)?([^/]+)_\d{2}\.\w+$"
    return LayoutMatch("carvana", sentence, pairs, alone, group=group, dialect="carvana", unmasked=unmasked)


def _by_key(files: list[Path], ending: str) -> dict[str, Path]:
    """Map the stem without `ending` to the file; two files of one stem are refused."""
    return unique((file.stem.removesuffix(ending), file) for file in files)


def _instances(places: Places) -> LayoutMatch | None:
    """Match <id>/images/<id>.png with one file an object in <id>/masks/ (kaggle.com/c/data-science-bowl-2018)."""
    roots = [places.train] if places.train else [places.root / "stage1_train", places.root / "train", places.root]
    train = next((folder for folder in roots if any((own / "masks").is_dir() for own in _own_folders(folder))), None)
    if train is None or places.masks:  # its masks lie beside each image, nowhere else
        return None
    pairs, alone = [], []
    for folder in _own_folders(train):
        pictures = list_images(folder / "images") if (folder / "images").is_dir() else []
        objects = list_images(folder / "masks") if (folder / "masks").is_dir() else []
        if len(pictures) == 1 and objects:
            pairs.append(Pair(places.below(pictures[0]), places.below(folder / "masks")))
        elif pictures or objects:
            alone.append(
                f"{folder}: {len(pictures)} images and {len(objects)} masks; expected one image and at least one mask"
            )
    if len(pairs) < len(alone):  # images/ and masks/ one level deeper, or of other data: not this layout
        return None
    sentence = f"one folder per image with a mask per object, as in the 2018 Data Science Bowl: {train}"
    return LayoutMatch("instances", sentence, pairs, alone, dialect="dsb2018")


def _own_folders(root: Path) -> list[Path]:
    """List the folders in `root` that may be an image's own."""
    if not root.is_dir():
        return []
    return sorted(
        path for path in root.iterdir() if path.is_dir() and not is_junk(path.name) and path.name not in PARTS
    )


def _split(places: Places) -> LayoutMatch | None:
    """Match a split that came with the data: train/ and valid/ (or val/), each with images and masks in folders.

    Fold 0 validates on valid/, fold 1 on train/.
    """
    train, valid = child(places.root, ("train", "training")), child(places.root, ("valid", "val", "validation"))
    if not train or not valid or places.train or places.masks:
        return None
    matches = []
    for folder in (valid, train):
        pictures, masks = child(folder, IMAGE_FOLDERS), child(folder, MASK_FOLDERS)
        if not pictures or not masks:
            return None
        matches.append(match(places, pictures, masks))
    pairs = [
        Pair(pair.image, pair.mask, pair.stratum, fold) for fold, half in enumerate(matches) for pair in half.pairs
    ]
    held_out = matches[0]
    sentence = f"a split that came with the data: fold 0 holds out {valid} ({len(held_out.pairs)}), fold 1 {train}"
    alone = [line for half in matches for line in half.alone]
    classes = tuple(sorted({name for half in matches for name in half.classes}))
    unmasked = [image for half in matches for image in half.unmasked]
    return LayoutMatch("split", sentence, pairs, alone, classes=classes, channels=held_out.channels, unmasked=unmasked)


def _folders(places: Places) -> LayoutMatch | None:
    """Match images/** and masks/** of the same relative names; subfolders give the stratum."""
    roots = [places.root, places.root / "train", places.root / "training"]
    candidates = [(child(root, IMAGE_FOLDERS), child(root, MASK_FOLDERS)) for root in roots]
    if places.train or places.masks:
        both = (places.train or candidates[0][0], places.masks or candidates[0][1])
        candidates = [both]
    for train, masks in candidates:
        if train and masks and train.is_dir() and masks.is_dir() and train != masks:
            return match(places, train, masks)
    return None


def _beside(places: Places) -> LayoutMatch | None:
    """Match <name>.png with <name>_mask.png beside it, as game-UI screenshots and DeepGlobe's roads have it."""
    roots = [places.train] if places.train else [child(places.root, IMAGE_FOLDERS), places.root]
    if places.masks:
        return None
    for folder in filter(None, roots):
        files = {file.stem: file for file in list_images(folder)} if folder.is_dir() else {}
        ending = next((end for end in BESIDE if any(stem.endswith(end) for stem in files)), "")
        if not ending:
            continue
        drawn = {stem.removesuffix(ending): file for stem, file in files.items() if stem.endswith(ending)}
        pictures = {
            re.sub("_(sat|image|img)$", "", stem): file for stem, file in files.items() if not stem.endswith(ending)
        }
        both = sorted(pictures.keys() & drawn.keys())
        lone = [path for key, path in sorted(pictures.items()) if key not in drawn]
        alone = [f"{path}: no mask" for path in lone]
        alone += [f"{path}: no image" for key, path in sorted(drawn.items()) if key not in pictures]
        pairs = [Pair(places.below(pictures[key]), places.below(drawn[key])) for key in both]
        sentence = f"each mask beside its image, named <image>{ending}: {folder}"
        return LayoutMatch("beside", sentence, pairs, alone, unmasked=list(map(places.below, lone)))
    return None


def _holds_run_lengths(path: Path) -> bool:
    """Say whether a CSV has columns of ids and run lengths, and is no submission."""
    submission = any(word in path.name.lower() for word in ("sample", "submission"))
    return not submission and rle_table.find_columns(rle_table.read_header(path)) is not None


def _rle(places: Places) -> LayoutMatch | None:
    """Match a table of run lengths (ImageId,EncodedPixels or the like) with a folder of images."""
    if places.masks:
        return None
    tables = [path for path in sorted(places.root.glob("*.csv")) if path.is_file() and _holds_run_lengths(path)]
    train = places.train or child(places.root, ("train_images", "train_hq", "train", "train_v2", "images"))
    train = (child(train, ("images",)) if train else None) or train
    if not tables or not train:
        return None
    path = _training_table(tables)
    table, files = rle_table.read(path), list(keys_of(train).items())
    ids, alone = _ids_of_files(table, files, train)
    name = places.below(path)
    pairs = [
        Pair(places.below(file), str(MaskReference.of_run_lengths(name, ids[file])) if file in ids else "")
        for _, file in files
    ]
    unlisted = len(pairs) - len(ids)
    note = f"; {unlisted} images without a row in it have an empty mask" if unlisted else ""
    sentence = f"images in {train}{note}, run lengths in {path}"
    dialect = rle.DIALECTS[rle_table.guess_dialect(table.columns)]
    by_id = any(dialect.is_by_path(places.below(file)) for file in ids)
    group = r"(?:^|/)(case\d+)" if by_id and dialect.name == "uwmgi" else ""
    return LayoutMatch("rle", sentence, pairs if ids else [], alone, group, classes=table.classes)


def _training_table(tables: list[Path]) -> Path:
    """Choose the table of training masks. Raises UserError where several could be it."""
    if len(tables) == 1:
        return tables[0]
    named = [path for path in tables if path.stem in ("train", "train-rle", "train_masks")]
    if len(named) != 1:
        shown = listing([str(path) for path in tables])
        raise UserError(f"Which of these tables holds the training masks?{shown}\nCall that one train.csv.")
    return named[0]


def _ids_of_files(
    table: rle_table.RleTable, files: list[tuple[str, Path]], train: Path
) -> tuple[dict[Path, str], list[str]]:
    """Find the id of each image file, with or without folder and ending, and list ids of no image or of several."""
    by_id: dict[str, list[Path]] = {}
    dialect = rle.DIALECTS[rle_table.guess_dialect(table.columns)]
    for key, file in files:
        for image_id in {file.name, file.stem, key, key + file.suffix, dialect.id_of(key + file.suffix)}:
            by_id.setdefault(image_id, []).append(file)
    alone = [f"{table.path}: {image_id} is no image in {train}" for image_id in table.ids if image_id not in by_id]
    alone += [
        f"{table.path}: {image_id} is {' and '.join(map(str, by_id[image_id][:3]))}"
        for image_id in table.ids
        if len(by_id.get(image_id, [])) > 1
    ]
    ids: dict[Path, str] = {}
    for image_id in (image_id for image_id in table.ids if image_id in by_id):
        file = by_id[image_id][0]
        if ids.setdefault(file, image_id) != image_id:
            alone.append(f"{table.path}: {ids[file]} and {image_id} are both {file}")
    return ids, alone


LAYOUTS: dict[str, Callable[[Places], LayoutMatch | None]] = {  # in the order in which they are tried
    "carvana": _carvana, "split": _split, "instances": _instances, "beside": _beside, "folders": _folders, "rle": _rle,
    "coco": coco_layout.find, "yolo": yolo_layout.find, "labelme": labelme_layout.find,
    "contrails": contrails_layout.find,
}  # fmt: skip
EXPECTED = {
    "carvana": "train_hq/<car>_<view>.jpg (or train/) and train_masks/<car>_<view>_mask.gif",
    "instances": "stage1_train/<id>/images/<id>.png and stage1_train/<id>/masks/*.png",
    "split": "train/ and valid/, each with images/ and masks/",
    "beside": "images/<name>.png and <name>_mask.png beside it (or in train/)",
    "folders": "images/**/<name>.png and masks/**/<name>.png, or masks/<class>/<name>.png",
    "solved": "images and masks whose names differ by words, such as photo/<name>.jpg and outline/<name>_a.png",
    "rle": "train.csv with ImageId,EncodedPixels[,ClassId] and train_images/<ImageId>",
    "coco": "annotations/instances_*.json (or any COCO JSON with polygons) and its images",
    "yolo": "images/**/<name>.jpg, labels/**/<name>.txt with polygons, data.yaml",
    "contrails": "train/<record>/band_08.npy, ... and human_pixel_masks.npy",
    "labelme": "<name>.jpg and <name>.json of LabelMe beside it",
}


@dataclass(frozen=True)
class Wanted:
    """Where to look for a layout, and which: constants of config.py."""

    input_path: str
    layout: str = "auto"
    train_path: str = ""
    mask_path: str = ""
    annotator: str = ""
    unpaired: str = "refuse"

    @classmethod
    def of(cls, settings: "Settings") -> "Wanted":
        """Take them of the settings."""
        paths = settings.INPUT, settings.LAYOUT, settings.TRAIN_PATH, settings.MASK_PATH
        return cls(*paths, settings.ANNOTATOR, settings.UNPAIRED)


def find(wanted: Wanted) -> LayoutMatch:
    """Find the layout of the training data, or use the one named.

    Raises UserError where no folder or no layout is there, two readings are as likely, an image or mask has no partner
    (UNPAIRED says what then), or a path lies outside.
    """
    matched = match_layout(wanted)
    if matched.alone:
        ways = "UNPAIRED=skip leaves them out"
        ways += ", UNPAIRED=empty gives each image without a mask an empty one" if matched.unmasked else ""
        raise UserError(
            f"{wanted.input_path}: {len(matched.alone)} without a partner:{listing(alike(matched.alone))}\n"
            f"Add what is missing, or remove them; {ways}; TABLE=my.csv takes a list of your own."
        )
    if not matched.pairs:
        raise UserError(f"{wanted.input_path}: {matched.sentence}, but there is no pair of image and mask.")
    return matched


def match_layout(wanted: Wanted) -> LayoutMatch:
    """Do the same, but keep what has no partner in `alone`."""
    root, open_layout = existing_input(wanted.input_path), wanted.layout == "auto"
    train, masks = (Path(path) if path else None for path in (wanted.train_path, wanted.mask_path))
    places = Places(root, train, masks, wanted.annotator)
    names = [*LAYOUTS, "solved"] if open_layout else [wanted.layout]
    known = [functools.partial(LAYOUTS[name], places) for name in names if name in LAYOUTS]
    matched = choose(known, places, solving="solved" in names)
    if matched is None:
        said = "" if open_layout else f"LAYOUT={wanted.layout}: "
        raise nothing_found(root, {name: EXPECTED[name] for name in names}, said)
    left_over = matched.alone and matched.pairs and wanted.unpaired != "refuse"
    return without_unpaired(matched, wanted.unpaired) if left_over else matched
