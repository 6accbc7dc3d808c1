"""Pictures of a report: images with truth, prediction and errors, and suspect regions, as data within the page."""

import base64
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from prediction import postprocess
from reporting.evidence import Evidence, Suspect
from reporting.numbers import number, score_name, short
from tools import pictures

SIDE = 300  # px: the longer side of a picture in the page
QUALITY = 82
DARK = 128  # a picture with no brighter pixel is brightened
MARK = (230, 0, 180)  # RGB of a region's frame: no class, and seldom a subject, has this color


def data_uri(picture: np.ndarray) -> str:
    """Return RGB uint8 (H, W, 3) as a JPEG in data:image/jpeg;base64,..."""
    _, coded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(coded.tobytes()).decode()


def _frame(shape: tuple[int, int]) -> tuple[int, int]:
    """Return the size (h, w) at which something of `shape` (H, W) is shown: its longer side is SIDE."""
    scale = SIDE / max(shape)
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def brightened(picture: np.ndarray) -> np.ndarray:
    """Return a dark picture with its brightest parts made white, so that it is visible; others unchanged."""
    brightest = float(np.quantile(picture, 0.998))
    if not 0 < brightest < DARK:
        return picture
    return np.minimum(picture * (255 / brightest), 255).astype(np.uint8)


def scaled(picture: np.ndarray) -> np.ndarray:
    """Return RGB (H, W, 3) at the size at which it is shown."""
    height, width = _frame(picture.shape[:2])
    method = cv2.INTER_AREA if height < picture.shape[0] else cv2.INTER_CUBIC
    return cv2.resize(picture, (width, height), interpolation=method)


def scaled_masks(masks: np.ndarray) -> np.ndarray:
    """Return 0/1 (S, H, W) as bool (S, h, w) at the size shown: true where at least half of a pixel is covered."""
    height, width = _frame(masks.shape[1:])
    method = cv2.INTER_AREA if height < masks.shape[1] else cv2.INTER_LINEAR
    planes = [cv2.resize(plane.astype(np.float32), (width, height), interpolation=method) for plane in masks]
    return np.stack(planes) >= 0.5


def example(evidence: Evidence, image: str, fold: int, mask: str, max_pixels: int) -> list[dict[str, str]]:
    """Return four pictures of one image (image, truth, prediction, errors), each a title and a data URI."""
    spec = evidence.found.spec
    pixels, truth_mask = spec.read_pair(evidence.found.root, image, mask, max_pixels)
    rules = tuple(postprocess.from_json(rule, "summary.json") for rule in evidence.summary["rules"])
    predicted = postprocess.to_masks(evidence.found.maps(image, fold), spec.task, spec.scored, rules)
    picture = scaled(brightened(pictures.as_rgb(pixels)))
    truth, predicted = scaled_masks(spec.class_planes(truth_mask)), scaled_masks(predicted)
    cells = {"image": picture, "truth": pictures.overlays(picture, truth)}
    cells["prediction"] = pictures.overlays(picture, predicted)
    if (labeled := spec.labeled(truth_mask)) is not None:
        inside = scaled_masks(labeled[None])
        truth, predicted = truth & inside, predicted & inside
    cells["errors"] = pictures.errors(picture, truth, predicted)
    return [{"title": title, "uri": data_uri(cell)} for title, cell in cells.items()]


def chosen(evidence: Evidence, worst: int = 8, middle: int = 3, best: int = 3) -> dict[str, list[Any]]:
    """Choose the images to show: rows of `Evidence.by_image` by score, each image once; without a score none.

    Return {"worst": [...], "median": [...], "best": [...]}; with few images the worst come first.
    """
    ascending = evidence.summary["higher_is_better"]
    table = evidence.by_image().dropna(subset=["score"]).sort_values("score", ascending=ascending, kind="stable")
    rows = list(table.itertuples(index=False))
    last = rows[worst:][-best:][::-1]
    between = rows[worst : len(rows) - len(last)]
    start = max(0, min(len(rows) // 2 - middle // 2 - worst, len(between) - middle))
    return {"worst": rows[:worst], "median": between[start : start + middle], "best": last}


def examples(evidence: Evidence, max_pixels: int) -> list[dict[str, Any]]:
    """Return the chosen images with their pictures and captions, kind by kind; kinds without images are left out."""
    table = evidence.found.table
    mask_of = dict(zip(table["image"], table["mask"], strict=True))
    grouped = evidence.summary["groups"] < evidence.summary["images"]
    shown = []
    for kind, rows in chosen(evidence).items():
        items = [
            {
                "name": short(Path(row.image).name),
                "path": row.image,
                "said": f"{score_name(evidence)} {number(evidence, row.score)}",
                "fold": row.kfold,
                "group": short(row.group) if grouped else "",
                "area": row.area,
                "cells": example(evidence, row.image, row.kfold, mask_of[row.image], max_pixels),
            }
            for row in rows
        ]
        shown += [{"kind": kind, "rows": items}] if items else []
    return shown


def window(box: tuple[int, int, int, int], shape: tuple[int, int]) -> tuple[slice, slice]:
    """Return a square around a region's box (top, left, height, width), three times as wide, within `shape`."""
    top, left, height, width = box
    side = max(3 * max(height, width), 48)
    slices = []
    for start, length, limit in ((top, height, shape[0]), (left, width, shape[1])):
        first = max(0, min(start + length // 2 - side // 2, limit - side))
        slices.append(slice(first, min(first + side, limit)))
    return slices[0], slices[1]


def suspect(evidence: Evidence, item: Suspect, mask: str, max_pixels: int) -> list[dict[str, str]]:
    """Return four pictures of a suspect: the image with the place marked, then the place, its label, its probability.

    The region's own box is marked on the last three.
    """
    spec, found = evidence.found.spec, evidence.found
    pixels, truth_mask = spec.read_pair(found.root, item.image, mask, max_pixels)
    rows, columns = window(item.region.box, pixels.shape[:2])
    picture = brightened(pictures.as_rgb(pixels))
    place = scaled(np.ascontiguousarray(picture[rows, columns]))
    truth = scaled_masks(spec.class_planes(truth_mask)[:, rows, columns])
    p8 = found.maps(item.image, item.fold)[list(spec.scored)][:, rows, columns]
    size = rows.stop - rows.start, columns.stop - columns.start
    top, left, height, width = item.region.box
    box = (top - rows.start, left - columns.start, height, width)
    close = {
        "the place": place,
        "label": pictures.overlays(place, truth),
        "network's probability": scaled(pictures.heat(p8 / 255)),
    }
    cells = {"image": marked(scaled(picture), (rows.start, columns.start, *size), picture.shape[:2], 2)}
    cells |= {title: marked(cell, box, size, 1) for title, cell in close.items()}
    return [{"title": title, "uri": data_uri(cell)} for title, cell in cells.items()]


def marked(shown: np.ndarray, box: tuple[int, int, int, int], shape: tuple[int, int], line: int) -> np.ndarray:
    """Return `shown` (h, w, 3), a picture of `shape` (H, W), with its `box` (top, left, height, width) framed."""
    scale = shown.shape[1] / shape[1]
    top, left, height, width = box
    corners = (round(left * scale), round(top * scale)), (round((left + width) * scale), round((top + height) * scale))
    return cv2.rectangle(np.ascontiguousarray(shown), *corners, MARK, line)


def suspects(evidence: Evidence, max_pixels: int, most: int) -> list[dict[str, Any]]:
    """Return the first suspects with their pictures and the values of their captions."""
    table = evidence.found.table
    mask_of = dict(zip(table["image"], table["mask"], strict=True))
    return [
        {
            "name": short(Path(item.image).name),
            "path": item.image,
            "fold": item.fold,
            "label": item.region.label,
            "network": item.region.network,
            "area": item.region.area,
            "radius": item.region.radius,
            "others": item.others,
            "cells": suspect(evidence, item, mask_of[item.image], max_pixels),
        }
        for item in evidence.suspects[:most]
    ]
