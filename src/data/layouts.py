"""How a competition lays its files out -> one index table: image, mask, group, stratum, sorted by image.

Paths are POSIX and relative to INPUT; what a mask's reference may be says dataspec.py. A layout is one function that
returns what it found or None, and one line in LAYOUTS. Images and masks are paired by name, never by position.
"""

import bisect
import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from data import groups
from data.pairing import Found, Pair, Places, child, files_below, keys_of, match, stack, unique
from formats import rle_table
from formats.images import SUFFIXES, list_images
from tools.errors import UserError, listing
from tools.names import is_path

IMAGE_FOLDERS = (
    "images",
    "image",
    "imgs",
    "img",
    "screenshots",
    "pictures",
    "frames",
    "train_images",
    "jpegimages",
    "train",
)
MASK_FOLDERS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "segmentation", "segmentationclass"),
    *("groundtruth", "ground_truth", "gt", "train_masks", "train_labels", "trainannot"),
)
PARTS = ("train", "training", "valid", "val", "validation", "test", "testing")  # of data, not an image's own folder
TEST_FOLDERS = ("test_hq", "test/images", "test_images", "test", "stage1_test", "testing")
BESIDE = ("_mask", "_masks", "_label", "_labels", "_seg", "_gt")  # endings of a mask that lies beside its image


def _carvana(places: Places) -> Found | None:
    """train_hq/<car>_<view>.jpg, train_masks/<car>_<view>_mask.gif (kaggle.com/c/carvana-image-masking-challenge)."""
    train = places.train or child(places.root, ("train_hq", "train"))
    masks = places.masks or child(places.root, ("train_masks",))
    if not (train and masks and train.is_dir() and masks.is_dir()):
        return None
    images_by_key, masks_by_key = _by_key(list_images(train), ""), _by_key(list_images(masks), "_mask")
    if not any(file.stem.endswith("_mask") for file in masks_by_key.values()):
        return None
    both = sorted(images_by_key.keys() & masks_by_key.keys())
    alone = [f"{path}: no mask" for key, path in sorted(images_by_key.items()) if key not in masks_by_key]
    alone += [f"{path}: no image" for key, path in sorted(masks_by_key.items()) if key not in images_by_key]
    sentence = f"Carvana's layout: images in {train}, masks named <image>_mask in {masks}"
    pairs = [Pair(places.below(images_by_key[key]), places.below(masks_by_key[key])) for key in both]
    return Found("carvana", sentence, pairs, alone, group=r"^(?:.*/)?([^/]+)_\d{2}\.\w+$", dialect="carvana")


def _by_key(files: list[Path], ending: str) -> dict[str, Path]:
    """Stem without `ending` -> file; two files of one stem are refused."""
    return unique((file.stem.removesuffix(ending), file) for file in files)


def _instances(places: Places) -> Found | None:
    """<id>/images/<id>.png with one file an object in <id>/masks/ (kaggle.com/c/data-science-bowl-2018)."""
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
    return Found("instances", sentence, pairs, alone, dialect="dsb2018")


def _own_folders(root: Path) -> list[Path]:
    """The folders in `root` that may be an image's own."""
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != "." and path.name not in PARTS)


def _split(places: Places) -> Found | None:
    """train/ and valid/ (or val/), each with a folder of images and one of masks: a split that came with the data.

    Fold 0 validates on valid/, fold 1 on train/.
    """
    train, valid = child(places.root, ("train", "training")), child(places.root, ("valid", "val", "validation"))
    if not train or not valid or places.train or places.masks:
        return None
    parts = []
    for folder, fold in ((valid, 0), (train, 1)):
        names = child(folder, IMAGE_FOLDERS), child(folder, MASK_FOLDERS)
        if not names[0] or not names[1]:
            return None
        parts.append((match(places, names[0], names[1]), fold))
    pairs = [Pair(pair.image, pair.mask, pair.stratum, fold) for found, fold in parts for pair in found.pairs]
    first = parts[0][0]
    sentence = f"a split that came with the data: fold 0 holds out {valid} ({len(first.pairs)}), fold 1 {train}"
    alone = [line for found, _ in parts for line in found.alone]
    classes = tuple(sorted({name for found, _ in parts for name in found.classes}))
    return Found("split", sentence, pairs, alone, classes=classes, channels=first.channels)


def _folders(places: Places) -> Found | None:
    """images/** and masks/** of the same relative names; subfolders give the stratum."""
    roots = [places.root, places.root / "train", places.root / "training"]
    candidates = [(child(root, IMAGE_FOLDERS), child(root, MASK_FOLDERS)) for root in roots]
    if places.train or places.masks:
        both = (places.train or candidates[0][0], places.masks or candidates[0][1])
        candidates = [both]
    for train, masks in candidates:
        if train and masks and train.is_dir() and masks.is_dir() and train != masks:
            return match(places, train, masks)
    return None


def _beside(places: Places) -> Found | None:
    """<name>.png with <name>_mask.png in the same folder, as game-UI screenshots and DeepGlobe's roads have it."""
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
        alone = [f"{path}: no mask" for key, path in sorted(pictures.items()) if key not in drawn]
        alone += [f"{path}: no image" for key, path in sorted(drawn.items()) if key not in pictures]
        pairs = [Pair(places.below(pictures[key]), places.below(drawn[key])) for key in both]
        return Found("beside", f"each mask beside its image, named <image>{ending}: {folder}", pairs, alone)
    return None


def _holds_run_lengths(path: Path) -> bool:
    """Whether a CSV has columns of ids and run lengths, and is no submission."""
    submission = any(word in path.name.lower() for word in ("sample", "submission"))
    return not submission and rle_table.find_columns(rle_table.read_header(path)) is not None


def _rle(places: Places) -> Found | None:
    """A table of run lengths (ImageId,EncodedPixels or the like) with a folder of images."""
    if places.masks:
        return None
    tables = [path for path in sorted(places.root.glob("*.csv")) if path.is_file() and _holds_run_lengths(path)]
    train = places.train or child(places.root, ("train_images", "train_hq", "train", "train_v2", "images"))
    if train and child(train, ("images",)):
        train = child(train, ("images",))
    if not tables or not train:
        return None
    if len(tables) > 1:
        named = [path for path in tables if path.stem in ("train", "train-rle", "train_masks")]
        if len(named) != 1:
            shown = listing([str(path) for path in tables])
            raise UserError(f"Which of these tables holds the training masks?{shown}\nCall that one train.csv.")
        tables = named
    path = tables[0]
    table, files = rle_table.read(path), keys_of(train)
    by_id: dict[str, list[Path]] = {}
    for key, file in files.items():
        for image_id in {file.name, file.stem, key, key + file.suffix}:
            by_id.setdefault(image_id, []).append(file)
    alone = [f"{path}: {image_id} is no image in {train}" for image_id in table.ids if image_id not in by_id]
    alone += [
        f"{path}: {image_id} is {' and '.join(map(str, by_id[image_id][:3]))}"
        for image_id in table.ids
        if len(by_id.get(image_id, [])) > 1
    ]
    ids: dict[Path, str] = {}
    for image_id in (image_id for image_id in table.ids if image_id in by_id):
        file = by_id[image_id][0]
        if ids.setdefault(file, image_id) != image_id:
            alone.append(f"{path}: {ids[file]} and {image_id} are both {file}")
    name = places.below(path)
    pairs = [
        Pair(places.below(file), rle_table.reference(name, ids[file]) if file in ids else "") for file in files.values()
    ]
    unlisted = len(pairs) - len(ids)
    note = f"; {unlisted} images without a row in it have an empty mask" if unlisted else ""
    dialect = rle_table.guess_dialect(rle_table.read_header(path))
    sentence = f"run lengths in {path}, by their columns {dialect}'s (make rle-check shows it), images in {train}{note}"
    return Found("rle", sentence, pairs if ids else [], alone, dialect=dialect, classes=table.classes)


LAYOUTS: dict[str, Callable[[Places], Found | None]] = {  # in the order in which they are tried
    "carvana": _carvana, "split": _split, "instances": _instances, "beside": _beside, "folders": _folders, "rle": _rle,
}  # fmt: skip
EXPECTED = {
    "carvana": "train_hq/<car>_<view>.jpg (or train/) and train_masks/<car>_<view>_mask.gif",
    "instances": "stage1_train/<id>/images/<id>.png and stage1_train/<id>/masks/*.png",
    "split": "train/ and valid/, each with images/ and masks/",
    "beside": "images/<name>.png and <name>_mask.png beside it (or in train/)",
    "folders": "images/**/<name>.png and masks/**/<name>.png, or masks/<class>/<name>.png",
    "rle": "train.csv with ImageId,EncodedPixels[,ClassId] and train_images/<ImageId>",
}


def _existing(input_path: str) -> Path:
    """INPUT as a path. Raises UserError where there is no such folder."""
    root = Path(input_path)
    if not root.is_dir():
        raise UserError(
            f"{root}: no such folder. Put the competition's files there (DATASET names the folder), "
            "unpack its archive by make data ZIP=file, or run make demo."
        )
    return root


def find(input_path: str, layout: str = "auto", train_path: str = "", mask_path: str = "") -> Found:
    """Find the layout of the training data below `input_path`, or use the one named.

    Raises UserError where no folder or no layout is there, an image or mask has no partner, or a path lies outside.
    """
    found = look(input_path, layout, train_path, mask_path)
    if found.alone:
        raise UserError(
            f"{input_path}: {len(found.alone)} without a partner:{listing(found.alone)}\n"
            "Add what is missing, or remove them."
        )
    if not found.pairs:
        raise UserError(f"{input_path}: {found.sentence}, but there is no pair of image and mask.")
    return found


def look(input_path: str, layout: str = "auto", train_path: str = "", mask_path: str = "") -> Found:
    """The same, with what has no partner in `alone`; UserError where there is no layout, or a path lies outside."""
    root = _existing(input_path)
    places = Places(root, Path(train_path) if train_path else None, Path(mask_path) if mask_path else None)
    names = list(LAYOUTS) if layout == "auto" else [layout]
    found = next(filter(None, (LAYOUTS[name](places) for name in names)), None)
    if found is None:
        have = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())[:12]
        expected = listing([f"{name}: {EXPECTED[name]}" for name in names])
        held = f"it holds {', '.join(have)}" if have else "it is empty"
        raise UserError(
            f"{root}: found no images with masks ({held}). Expected one of:{expected}\n"
            "TRAIN_PATH and MASK_PATH name other folders; TABLE=my.csv takes a list of your own."
        )
    return found


def table(found: Found, group: str = "auto"):  # noqa: ANN201 (a DataFrame; pandas is imported inside)
    """The index table of `found`: image, mask, group, stratum as texts, and kfold where the data come with a split.

    `group` is a rule of groups.assign.
    """
    import pandas as pd

    frame = pd.DataFrame({name: [getattr(pair, name) for pair in found.pairs] for name in ("image", "mask", "stratum")})
    frame.insert(2, "group", groups.assign(list(frame["image"]), group, found.group))
    if all(pair.kfold is not None for pair in found.pairs):
        frame["kfold"] = [str(pair.kfold) for pair in found.pairs]
    return check(frame.sort_values("image", ignore_index=True), "")


def classes_of(references: list[str], root: Path) -> tuple[str, ...]:
    """The classes that have masks of their own, by these references: those of a table, or what {class} stands for."""
    found: set[str] = set()

    @functools.cache
    def listed(folder: Path) -> list[str]:
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    for table in {rle_table.parse_reference(text)[0] for text in references if text.startswith("rle:")}:
        found |= set(rle_table.read(root / table).classes)
    for text in (text for text in references if "{class}" in text):
        before, _, after = text.partition("{class}")
        folder = (root / before) if before.endswith("/") else (root / before).parent
        start = "" if before.endswith("/") else Path(before).name
        ending = after.partition("/")[0]
        names = listed(folder)
        for entry in names[bisect.bisect_left(names, start) :]:
            if not entry.startswith(start):
                break
            name = entry[len(start) :].removesuffix(ending)
            if name in found or entry != f"{start}{name}{ending}":
                continue
            if (root / text.replace("{class}", name)).exists():
                found.add(name)
    unfit = [text for text in references if "{class}" in text]
    if unfit and not found:
        raise UserError(f"{root}: no file fits {unfit[0]}, whatever the class; paths are relative to INPUT.")
    return tuple(sorted(found))


def table_dialect(frame, root: Path) -> str:  # noqa: ANN001 (a DataFrame)
    """The dialect of the first table of run lengths that a mask refers to, "" where there is none."""
    tables = [rle_table.parse_reference(text)[0] for text in frame["mask"] if text.startswith("rle:")]
    return rle_table.guess_dialect(rle_table.read_header(root / tables[0])) if tables else ""


def check(frame, where: str):  # noqa: ANN001, ANN201 (a DataFrame)
    """The same table, or UserError: an image twice, images of one stem, paths that climb, names that no table holds."""
    if (frame["image"] == "").any():
        raise UserError(f"{where}{int((frame['image'] == '').sum())} rows have no image.")
    for column in ("image", "mask"):
        bad = [repr(path) for path in frame[column] if _leads_out(path)]
        if bad:
            raise UserError(f"{where}{column}: expected printable paths relative to INPUT:{listing(bad)}")
    refuse_odd_names([text for column in ("image", "mask", "group", "stratum") for text in frame[column]], where)
    refuse_twins(list(frame["image"]), where)
    return frame


def refuse_odd_names(names: Iterable[str], where: str) -> None:
    """Refuse what a table cannot hold, or a spreadsheet would run: control characters, and =1+1 as a name or an id."""
    odd = [repr(name) for name in dict.fromkeys(names) if name and not is_path(name)]
    if odd:
        raise UserError(
            f"{where}these names hold control characters, or begin like a formula (=, +, @); rename them:{listing(odd)}"
        )


def _leads_out(reference: str) -> bool:
    """Whether a path, or that of the table that it names, may lie outside INPUT or cannot be kept in a table."""
    path = rle_table.parse_reference(reference)[0] if reference.startswith(rle_table.PREFIX) else reference
    return path.startswith(("/", "~")) or ".." in Path(path).parts or not reference.isprintable()


def refuse_twins(names: list[str], where: str) -> None:
    """Refuse names that are equal, or differ in the file ending only: their predictions would have one name."""
    stems = [name.removesuffix(Path(name).suffix) for name in names]
    count = Counter(stems)
    twice = sorted(name for name, stem in zip(names, stems, strict=True) if count[stem] > 1)
    if twice:
        raise UserError(f"{where}these images are listed twice, or differ in the file ending only:{listing(twice)}")


def test_names(input_path: str, test_path: str = "", stacked: bool = False) -> tuple[Path, list[str]]:
    """The folder of test images, and each one's name in it, sorted. Raises UserError also for names that clash."""
    folder, files = test_images(input_path, test_path, stacked)
    names = [path.relative_to(folder).as_posix() for path in files]
    refuse_odd_names(names, f"{folder}: ")
    refuse_twins(names, f"{folder}: ")
    return folder, names


def test_images(input_path: str, test_path: str = "", stacked: bool = False) -> tuple[Path, list[Path]]:
    """The folder of test images and every image below it, masks left out; a stack is one path, a_{z}.png.

    Raises UserError where there is none.
    """
    if test_path:
        folder: Path | None = Path(test_path)
    else:
        root = _existing(input_path)
        folder = next((root / name for name in TEST_FOLDERS if (root / name).is_dir()), None)
    if folder is None or not folder.is_dir():
        raise UserError(f"{test_path or input_path}: no test images there; TEST_PATH=folder names theirs.")
    files = [path for path in files_below(folder) if path.parent.name.lower() not in MASK_FOLDERS]
    stems = {path.stem for path in files}
    files = [
        path
        for path in files
        if not any(path.stem.endswith(end) and path.stem.removesuffix(end) in stems for end in BESIDE)
    ]
    if not files:
        raise UserError(f"{folder}: no images there (endings: {' '.join(sorted(SUFFIXES))}).")
    if stacked:
        lone = [str(path) for path in files if "{z}" not in stack(path.as_posix())]
        if lone:
            raise UserError(f"{folder}: the model takes stacks of slices, <id>_<z>; these are none:{listing(lone)}")
        files = list({Path(stack(path.as_posix())) for path in files})
    return folder, sorted(files)
