"""Two pictures, mirrored, turned, scaled or cropped, brought onto each other and compared block by block.

OpenCV's ORB and RANSAC beside it (1,000 keypoints, matched both ways, a similarity), on 29 November 2026: which of 210
copies, planted as in tests/test_audit.py, are surely found, and how many pairs of other pictures are called copies.
ORB was given the planted pairs, those that the audit nominates, and 800 at random; the audit had to find them.

                             rendered cars    nuclei           neu_seg
    the audit                210, 0 wrong     179, 0 wrong     190, 0 wrong
    ORB, 15 matches agree    210, 506 wrong   198, 0 wrong     199, 9 wrong
    ORB, 25 matches agree    210, 368 wrong   190, 0 wrong     195, 0 wrong
    CPU ms a pair            11 (ORB 12)      27 (ORB 14)      13 (ORB 15)

On nails the audit found 207 with none wrong in 77 ms, ORB 210 in 42 ms, and 12 (6) pairs that nobody looked at.
So ORB finds more of what compression has spoilt, but views of one object, which are what groups are about, are copies
to it: of the cars, up to 335 matches agree between two that are none, and only 71 copies have more.
"""

import cv2
import numpy as np

LONGEST = 1024  # pixels of the longer side, when compared
# Pictures that disagree so much when small are spared the comparison at full size. Planted copies that are sure
# ones reached 0.56 there; of 50 nominees among 20,000 blends of cars, all above 0.9 ended above 0.93, and
# copies.UNSURE is 0.75.
HOPELESS = 0.9
UPRIGHT = "the same picture"
VERSIONS = (
    (0, False, UPRIGHT),
    (0, True, "mirrored"),
    (1, False, "turned by 90"),
    (2, False, "turned by 180"),
    (3, False, "turned by 270"),
    (1, True, "mirrored and turned by 90"),
    (2, True, "mirrored and turned by 180"),
    (3, True, "mirrored and turned by 270"),
)


def gray(image: np.ndarray) -> np.ndarray:
    """Turn uint8 (H, W, C) or (H, W) into uint8 (H, W); three channels are RGB, of others the mean is taken."""
    if image.ndim == 2:
        return image
    if image.shape[2] == 3:
        return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return image[..., 0] if image.shape[2] == 1 else (image.mean(axis=2) + 0.5).astype(np.uint8)


def turned(image: np.ndarray, version: int) -> np.ndarray:
    """Return one of the eight mirrored and turned versions of (H, W[, C])."""
    turns, mirrored, _ = VERSIONS[version]
    return np.rot90(image[:, ::-1] if mirrored else image, turns)


def relation(first: np.ndarray, second: np.ndarray) -> str:
    """Say how `second` is `first`, to the pixel ("mirrored", ...), or "" where it is another picture."""
    for version, (_, _, name) in enumerate(VERSIONS):
        candidate = turned(second, version)
        few = slice(None, None, 1 + min(first.shape[:2]) // 16)  # tells nearly all apart, at once
        alike = candidate.shape == first.shape and np.array_equal(first[few, few], candidate[few, few])
        if alike and np.array_equal(first, candidate):
            return name
    return ""


def _window(image: np.ndarray, margins: np.ndarray, height: int, width: int) -> np.ndarray:
    """Cut out what of (H, W[, C]) lies between the margins, resampled to (height, width[, C])."""
    tall, wide = 1 - margins[0] - margins[1], 1 - margins[2] - margins[3]
    rows, columns = image.shape[:2]
    if height < 0.99 * rows * tall or width < 0.99 * columns * wide:  # linear interpolation alone would alias
        rows, columns = (
            max(1, min(side, round(want))) for side, want in ((rows, height / tall), (columns, width / wide))
        )
        image = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
    x, y = wide * columns / width, tall * rows / height
    matrix = np.array([[x, 0, margins[2] * columns + x / 2 - 0.5], [0, y, margins[0] * rows + y / 2 - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _refine(fixed: np.ndarray, moving: np.ndarray, margins: np.ndarray, steps: int) -> np.ndarray:
    """Fit by Gauss-Newton on pixels the margins of gray `moving` (H, W) at which it is `fixed` (h, w), float32."""
    height, width = fixed.shape
    u, v = (
        (np.arange(width, dtype=np.float32) + 0.5) / width,
        ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None],
    )
    for _ in range(steps):
        now = _window(moving, margins, height, width)
        down, along = np.gradient(now)
        down, along = down * height / (1 - margins[0] - margins[1]), along * width / (1 - margins[2] - margins[3])
        usable = (fixed > 3) & (fixed < 252) & (now > 3) & (now < 252)
        if usable.sum() < 50:
            break
        parts = np.stack([down * (1 - v), -down * v, along * (1 - u), -along * u, now, np.ones_like(now)]) * usable
        parts = parts.reshape(6, -1)
        normal = (parts @ parts.T).astype(np.float64)
        normal[np.diag_indices(6)] += 1e-3 * np.trace(normal[:4, :4]) / 4 * np.array([1, 1, 1, 1, 0, 0]) + 1e-3
        solved = np.linalg.solve(normal, (parts @ fixed.ravel()).astype(np.float64))
        change = np.clip(solved[:4] / max(solved[4], 0.2), -0.02, 0.02)
        margins = np.clip(margins + change, -0.05, 0.2)
        if np.abs(change).max() * max(height, width) < 0.02:
            break
    return margins


def _disagreement(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Average the worst twentieth of blocks, and say how contrast changed; of aligned float32 (h, w, C), blurred.

    A block's value is what remains of it after brightness and contrast are fitted over the picture, relative to the
    block's own deviation: about 1 where the two have nothing in common. Copies agree everywhere; two objects before the
    same background do not where the objects are.
    """
    height, width, channels = first.shape
    share = 24 / max(height, width)
    blocks = tuple(max(1, min(side // 4, round(side * share))) for side in (width, height))

    def means(values: np.ndarray) -> np.ndarray:
        return cv2.resize(values, blocks, interpolation=cv2.INTER_AREA)

    def variances(values: np.ndarray) -> np.ndarray:
        return np.maximum(means(values**2) - means(values) ** 2, 0)

    # compression removes what is faint beside the rest of the picture
    noise = np.clip(0.12 * first.std(), 2, 8)
    left, deviation, contrasts = np.zeros(blocks[::-1]), np.full(blocks[::-1], noise**2), []
    for channel in range(channels):
        one, two = np.ascontiguousarray(first[..., channel]), np.ascontiguousarray(second[..., channel])
        usable = (one > 3) & (one < 252) & (two > 3) & (two < 252)
        if usable.sum() < max(20, 0.02 * usable.size):
            return 9.0, 1.0
        here, there = one[usable], two[usable]
        contrast = np.mean((here - here.mean()) * (there - there.mean())) / max(there.var(), 1e-6)
        rest = one - contrast * two - (here.mean() - contrast * there.mean())
        # what was cut off at 0 or 255 may have been any amount beyond
        rest = np.where((one >= 252) | (two <= 3), np.maximum(rest, 0), rest)
        rest = np.where((one <= 3) | (two >= 252), np.minimum(rest, 0), rest)
        left += means(rest**2) / channels
        deviation += np.maximum(variances(one), contrast**2 * variances(two)) / channels
        contrasts.append(contrast)
    worst = np.sort(np.sqrt(left / deviation), axis=None)
    return float(worst[-max(1, len(worst) // 20) :].mean()), float(np.mean(contrasts))


def _at_most(image: np.ndarray, longest: int) -> np.ndarray:
    """Shrink the image (H, W) where a side is longer: each step of an alignment would shrink it again."""
    share = longest / max(image.shape)
    if share >= 1:
        return image
    height, width = (max(1, round(side * share)) for side in image.shape)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def _coarse_disagreement(fixed: np.ndarray, moving: np.ndarray, margins: np.ndarray) -> float:
    pair = fixed, _window(moving, margins, *fixed.shape)
    one, two = (cv2.GaussianBlur(part.astype(np.float32), (0, 0), 1.0)[..., None] for part in pair)
    return _disagreement(one, two)[0]


def compare(outer: np.ndarray, inner: np.ndarray, margins: np.ndarray) -> tuple[float, np.ndarray, float]:
    """Align uint8 (H, W, C) `inner`, the right way up, within `outer` -> disagreement, margins, contrast."""
    seen = (outer.shape[0] * (1 - margins[0] - margins[1]), outer.shape[1] * (1 - margins[2] - margins[3]))
    height, width = min(inner.shape[0], round(seen[0])), min(inner.shape[1], round(seen[1]))
    shrink = min(1, LONGEST / max(height, width))
    height, width = max(1, round(height * shrink)), max(1, round(width * shrink))
    moving, fixed = gray(outer).astype(np.float32), gray(inner).astype(np.float32)
    for longest, steps in ((128, 8), (480, 3)):
        size = min(1, longest / max(height, width))
        shape = max(1, round(width * size)), max(1, round(height * size))
        if min(shape) >= 8:
            small = cv2.resize(fixed, shape, interpolation=cv2.INTER_AREA)
            margins = _refine(small, _at_most(moving, 4 * longest), margins, steps)
            if size < 1 and _coarse_disagreement(small, moving, margins) > HOPELESS:
                return HOPELESS, margins, 1.0
    if outer.shape[2] != inner.shape[2] or outer.shape[2] > 4:  # cv2 resizes up to four channels
        outer, inner = gray(outer)[..., None], gray(inner)[..., None]
    pair = cv2.resize(inner, (width, height), interpolation=cv2.INTER_AREA), _window(outer, margins, height, width)
    one, two = (
        cv2.GaussianBlur(part.astype(np.float32), (0, 0), 1.0).reshape(height, width, -1) for part in pair
    )  # the blur takes away what resampling and compression change
    disagreement, contrast = _disagreement(one, two)
    return disagreement, margins, contrast
