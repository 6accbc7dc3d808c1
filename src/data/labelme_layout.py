"""The layout of LabelMe: a JSON an image, beside it or in a folder of its own."""

from pathlib import Path, PurePosixPath

from data.annotated import Gathered, Images, files_of, shown
from data.coco_layout import tried
from data.layout_match import LayoutMatch, Places
from formats import labelme, polygons
from formats.images import refuse_listed
from formats.mask_reference import MaskReference
from tools.errors import UserError

LOOKED_AT = 8  # JSONs that tell whether these are LabelMe's


def find(places: Places) -> LayoutMatch | None:
    """Match LabelMe's JSONs with the images that they name; an image beside them needs its JSON. Raises UserError."""
    if places.masks and not places.masks.is_dir():
        return None
    candidates = files_of(places.masks or places.root, ".json")
    if not any(labelme.is_labelme(tried(path)) for path in candidates[:LOOKED_AT]):
        return None
    files, broken, others = [], [], 0
    for path in candidates:
        try:
            files.append(labelme.read(path))
        except labelme.OtherError:
            others += 1
        except UserError as error:
            broken.append(str(error))
    refuse_listed(broken, "broken JSONs among LabelMe's:", "Repair them, or move them away.")
    images, found = Images(places), Gathered(places)
    used = set(filter(None, (_add(file, images, found) for file in files)))
    folders = {image.parent for image in used}
    found.alone += [f"{path}: no JSON" for path in images.files if path.parent in folders and path not in used]
    found.notes += [f"{others} other JSONs are passed over"] if others else []
    without = sum(file.without_area for file in files)
    found.notes += [f"{without} points and lines are left out: they have no area"] if without else []
    return found.match("labelme", f"LabelMe's JSONs in {shown({file.path.parent for file in files})}")


def _add(file: labelme.LabelmeFile, images: Images, found: Gathered) -> Path | None:
    """Add a JSON's image, and return it."""
    named = (images.find(name, file.path) for name in (file.image, PurePosixPath(file.image).name))
    image = next((one for one in named if isinstance(one, Path)), None)
    if image is None:
        found.alone.append(f"{file.path}: {file.image} {images.find(file.image, file.path)}")
        return None
    objects = {(one.label, one.group or number): one.label for number, one in enumerate(file.shapes)}
    rings = [one.ring for one in file.shapes if one.ring is not None]
    outside = 0 if file.size is None else sum(polygons.reaches_out(ring, file.size) for ring in rings)
    found.add(
        image, str(MaskReference.of_annotations("labelme", found.places.below(file.path))), objects.values(), outside
    )
    return image
