"""A short example that uses an ONNX file without this repository, written for one model's images and rule."""

from data.dataspec import DataSpec
from prediction import postprocess
from prediction.postprocess import Rule
from tools.names import plain_name

_HEAD = '''"""{what} by {file}, which lies beside this file; it needs nothing else of where it was trained.

pip install numpy pillow onnxruntime
python {script} {arguments}
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image{ops}
'''
_WEIGHTS = """

def area(old, new):  # how much of each new pixel each old one covers
    return np.diff(np.clip(np.arange(old + 1) * new / old - np.arange(new)[:, None], 0, 1))


def linear(old, new):  # bilinear, between the pixels' centers
    centers = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    return np.clip(1 - abs(centers[:, None] - np.arange(old)), 0, 1)


def resized(planes, size, weights):
    return weights(planes.shape[1], size[0]) @ planes @ weights(planes.shape[2], size[1]).T


def halvings(old, new):  # how often both sides can be halved
    n = 0
    while all(side >> n & 1 == 0 and side >> n >= 2 * to for side, to in zip(old, new)):
        n += 1
    return n


def scaled(planes, size):  # blocks of 2 x 2 are averaged while it can be, what is left between is bilinear
    def halved(to):
        return np.floor(resized(planes, to, area) + 0.5)

    for _ in range(halvings(planes.shape[1:], size)):
        planes = halved([old // 2 for old in planes.shape[1:]])
    level = [new << max(0, (old // new).bit_length() - 1) for old, new in zip(planes.shape[1:], size)]
    planes = np.rint(resized(planes, level, linear))
    while level != list(size):
        level = [old // 2 if old > new else old for old, new in zip(level, size)]
        planes = halved(level)
    return planes.astype(np.uint8)


"""
_SESSION = """model = Path(__file__).with_name("{file}")
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
*paths, out = sys.argv[1:]
"""
_SIZE = "height, width = image.shape[:2]\n"
_OPENED = """picture = Image.open(paths[0])
width, height = picture.size if picture.getexif().get(274, 1) < 5 else picture.size[::-1]  # upright
"""
_HALVED = """if picture.mode in ("L", "RGB"):  # the decoder of a JPEG does the first halvings, as it did in training
    n = halvings((height, width), inner)
    picture.draft(picture.mode, (picture.width >> n, picture.height >> n))
"""
_RESIZED = "small = scaled(image.transpose(2, 0, 1), inner)\n"
_STRETCH = (
    "inner = {size}  # what the network sees: the whole image, stretched\n",
    """p = session.run(None, {{"images": small.transpose(1, 2, 0)[None]}})[0][0]  # probabilities (classes, h, w)
p = resized(p, (height, width), linear)
""",
)
_FIT = (
    """frame = {size}  # what the network sees: the whole image in its own aspect, the border repeated around it
scale = min(frame[0] / height, frame[1] / width)
inner = max(1, round(height * scale)), max(1, round(width * scale))
top, left = (frame[0] - inner[0]) // 2, (frame[1] - inner[1]) // 2
""",
    """sides = (0, 0), (top, frame[0] - inner[0] - top), (left, frame[1] - inner[1] - left)
p = session.run(None, {{"images": np.pad(small, sides, "edge").transpose(1, 2, 0)[None]}})[0][0]
p = resized(p[:, top : top + inner[0], left : left + inner[1]], (height, width), linear)
""",
)
_NONE = """p = session.run(None, {{"images": image[None]}})[0][0]  # probabilities (classes, h, w){fixed}
"""


def text(
    file: str, spec: DataSpec, rules: tuple[Rule, ...], *, size: tuple[int, int], resize: str, any_size: bool
) -> str:
    """Return the example's source for the ONNX file `file`; `size`: the network's frame, or the only accepted size."""
    several = spec.task == "multilabel" and len(spec.scored) > 1
    what = {"binary": "A mask", "multiclass": "A class map", "multilabel": "A mask a class"}[spec.task]
    names = "slice_0.png slice_1.png ..." if spec.stacked else "image.png"
    script = file.removesuffix(".onnx") + "_example.py"
    steps = _steps(spec, size, resize, "" if any_size else f"; of {size[0]} x {size[1]} only")
    return "".join(
        (
            _HEAD.format(
                what=what,
                file=file,
                script=script,
                arguments=f"{names} {'masks' if several else 'mask'}.png",
                ops=", ImageOps" if "ImageOps" in steps else "",
            ),
            "" if resize == "none" else _WEIGHTS,
            "\n" if resize == "none" else "",
            _SESSION.format(file=file),
            steps,
            _mask(spec, rules),
            _left_out(rules),
        )
    )


def _steps(spec: DataSpec, size: tuple[int, int], resize: str, fixed: str) -> str:
    """Return the lines from the files to the probabilities `p` at the image's size."""
    if resize == "none":
        return reading(spec) + _NONE.format(fixed=fixed)
    place, answer = (part.format(size=tuple(size)) for part in (_STRETCH if resize == "stretch" else _FIT))
    if spec.bits == 8 and not spec.stacked and spec.channels in (1, 3):
        return _OPENED + place + _HALVED + reading(spec, "picture") + _RESIZED + answer
    return reading(spec) + _SIZE + place + _RESIZED + answer


def reading(spec: DataSpec, opened: str = "Image.open(paths[0])") -> str:
    """Return the lines that read files `paths` into `image`, uint8 (H, W, channels); `opened`: opens the picture."""
    if spec.bits == 16:
        low, high = spec.window
        gray = "image = np.repeat(image, 3, 2)  # gray\n" if spec.channels == 3 and not spec.stacked else ""
        return (
            "image = np.dstack([np.asarray(Image.open(path)) for path in paths])"
            "  # Pillow reads 16 bits of gray files only\n"
            f"levels = (image.astype(float) - {low:g}) * {255 / (high - low)!r}  # 16 bits: the training's range\n"
            "image = image if image.dtype == np.uint8 else np.clip(np.rint(levels), 0, 255).astype(np.uint8)\n" + gray
        )
    if spec.stacked:
        return 'image = np.dstack([np.asarray(Image.open(path).convert("L")) for path in paths])\n'
    if spec.channels in (1, 3):
        mode, axis = ("RGB", "") if spec.channels == 3 else ("L", "[..., None]")
        return f'image = np.asarray(ImageOps.exif_transpose({opened}).convert("{mode}")){axis}\n'
    return f"image = np.asarray(Image.open(paths[0]))  # all {spec.channels} channels of the file\n"


def _mask(spec: DataSpec, rules: tuple[Rule, ...]) -> str:
    if spec.task == "multiclass":
        values = ", ".join(f"{index} {name}" for index, name in enumerate(spec.classes))
        return (
            f"# each pixel's likeliest class: {values}\n"
            "Image.fromarray(np.floor(p * 255 + 0.5).argmax(0).astype(np.uint8)).save(out)\n"
        )
    cuts = [(postprocess.level(rule.threshold) - 0.5) / 255 for rule in rules]
    if len(spec.scored) == 1:
        plane = f"(p[{spec.scored[0]}] >= {cuts[0]:.6g})"
        return f"Image.fromarray({plane}.astype(np.uint8) * 255).save(out)\n"
    classes = {
        plain_name(name): (index, cut) for name, index, cut in zip(spec.scored_names, spec.scored, cuts, strict=True)
    }
    table = ", ".join(f"{name!r}: ({index}, {cut:.6g})" for name, (index, cut) in classes.items())
    return (
        f"for name, (index, cut) in {{{table}}}.items():  # masks_<class>.png\n"
        '    path = Path(out).with_name(f"{Path(out).stem}_{name}.png")\n'
        "    Image.fromarray((p[index] >= cut).astype(np.uint8) * 255).save(path)\n"
    )


def _left_out(rules: tuple[Rule, ...]) -> str:
    """Return a note on what the rule does to objects and the example does not."""
    more = sorted({str(rule) for rule in rules if rule != Rule(threshold=rule.threshold)})
    said = "".join(f"# Not done here: {rule}.\n" for rule in more)
    return f"# The rule that was scored also looks at objects.\n{said}" if said else ""
