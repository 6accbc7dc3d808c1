"""Tables of a report as texts: measures, classes, folds, strata, calibration, suspects, settings, provenance."""

import math
from datetime import datetime
from pathlib import Path
from typing import Any

from metrics import calibration
from reporting.evidence import Evidence
from reporting.numbers import NAMES, NOTHING, between, is_number, metric_name, number, said_rules, score_name
from tools import run_folders
from tools.files import read_json

Table = dict[str, Any]  # {"head": [...], "rows": [[...], ...], "left": how many columns are texts}
_KINDS = (("model", "networks"), ("constant", "constant mask"), ("ceiling", "ceiling"))


def table(head: list[str], rows: list[list[Any]], left: int = 1) -> Table:
    """Return a table for the page; its first `left` columns are texts, the others numbers."""
    return {"head": head, "rows": [[str(cell) for cell in row] for row in rows], "left": left}


def all_tables(evidence: Evidence, suspects_shown: int) -> dict[str, Table | None]:
    """Return the tables of all sections but the settings'; None where there is nothing to show."""
    return {
        "measures": measures_table(evidence),
        "further": further_table(evidence),
        "classes": classes_table(evidence),
        "folds": folds_table(evidence),
        "strata": strata_table(evidence),
        "reliability": reliability_table(evidence),
        "suspects": suspects_table(evidence, suspects_shown),
        "models": models_table(evidence),
    }


def measures_table(evidence: Evidence) -> Table:
    """Return Dice, IoU, precision and recall of the networks, with intervals, and of both references."""
    summary, rows = evidence.summary, []
    names = list(summary["model"]["image"])
    for kind, said in _KINDS:
        for of, title in (("image", "mean"), ("pooled", "pooled")):
            values = [_plain(summary[kind][of].get(name)) for name in names]
            rows.append([f"{said}, {title}", *values])
            found = summary.get("intervals", {}).get(of, {})
            if kind == "model" and any(is_number(part[0]) for part in found.values()):
                spans = [found.get(name, (math.nan, math.nan)) for name in names]
                rows.append(["95% interval", *(f"{low:.3f} to {high:.3f}" for low, high in spans)])
    return table(["", *(NAMES.get(name, name) for name in names)], rows)


def further_table(evidence: Evidence) -> Table | None:
    """Return METRIC, where the table above lacks it, and MEASURES; None where there is neither."""
    summary, rows = evidence.summary, []
    if summary["metric"] != "dice":
        score = summary["score"]
        rows.append([summary["metric"], number(evidence, score["model"]), between(evidence, score),
                     number(evidence, score.get("constant")), number(evidence, score.get("ceiling"))])  # fmt: skip
    for name, part in summary.get("measures", {}).items():
        rows.append([name, number(evidence, part["model"], of=name), between(evidence, part, name), NOTHING, NOTHING])
    return table(["measure", "networks", "95% interval", "constant mask", "ceiling"], rows) if rows else None


def _plain(value: object) -> str:
    return f"{value:.4f}" if is_number(value) else NOTHING


def classes_table(evidence: Evidence) -> Table | None:
    """Return a row for each class; None where there is only one."""
    parts = evidence.summary.get("classes", {})
    if len(parts) < 2:
        return None
    each, rows = evidence.summary["score"].get("classes", {}), []
    for name, part in parts.items():
        score, low, high = each.get(name, (None, None, None))
        others = {other: value for other, value in part["image"].items() if other != evidence.summary["metric"]}
        constant = evidence.summary["score"].get("constant_classes", {}).get(name)
        shown = [number(evidence, score), between(evidence, {"low": low, "high": high}), number(evidence, constant)]
        rows.append([name, *shown, *(_plain(value) for value in others.values())])
    names = [NAMES.get(other, other) for other in others]
    return table(["class", score_name(evidence), "95% interval", "constant mask", *names], rows)


def folds_table(evidence: Evidence) -> Table:
    """Return a row for each fold: images, groups, empty masks, foreground, score and, of several classes, images."""
    frame, rows, scores = evidence.by_image(), [], evidence.scores
    several = len(evidence.classes) > 1
    for fold in evidence.folds:
        part, own = frame[frame["kfold"] == fold], scores[scores["kfold"] == fold]
        shown = (own["tp"] + own["fn"] > 0).groupby(own["class"]).sum()
        rows.append([
            fold, len(part), part["group"].nunique(), int((part["area"] == 0).sum()), f"{part['area'].mean():.2%}",
            number(evidence, evidence.summary.get("folds", {}).get(str(fold))),
            *([shown.get(name, 0) for name in evidence.classes] if several else []),
        ])  # fmt: skip
    names = [f"shows {name}" for name in evidence.classes] if several else []
    return table(["fold", "images", "groups", "empty masks", "mean foreground", metric_name(evidence), *names], rows)


def strata_table(evidence: Evidence, most: int = 20) -> Table | None:
    """Return how many images of each stratum each fold has, the largest strata first; None for a single stratum."""
    frame = evidence.found.table
    counts = frame.groupby(["stratum", "kfold"]).size().unstack(fill_value=0)
    if len(counts) < 2:
        return None
    counts = counts.loc[counts.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    rows = [[name or "(none)", *row] for name, row in zip(counts.index, counts.to_numpy().tolist(), strict=True)]
    if len(rows) > most:
        rest = counts.iloc[most:].sum().tolist()
        rows = [*rows[:most], [f"{len(counts) - most} smaller ones", *rest]]
    return table(["stratum", *(f"fold {fold}" for fold in counts.columns)], rows)


def reliability_table(evidence: Evidence) -> Table:
    """Return expected calibration error and Brier score, of all pixels and of the unsure ones, class by class."""
    rows = []
    for name, counts in zip(evidence.classes, evidence.counts, strict=True):
        unsure, pixels = calibration.unsure(counts), int(counts.sum())
        error, doubtful = calibration.calibration_error(counts), calibration.calibration_error(unsure)
        share = unsure.sum() / max(1, pixels)
        rows.append([name, f"{pixels:,}", _percent(error), _plain(calibration.brier(counts)), _percent(share),
                     _percent(doubtful)])  # fmt: skip
    low, high = calibration.UNSURE
    return table(["class", "pixels", "ECE", "Brier", f"pixels between {low:g} and {high:g}", "ECE of these"], rows)


def _percent(share: float) -> str:
    return f"{share:.2%}" if is_number(float(share)) else NOTHING


def suspects_table(evidence: Evidence, after: int, most: int = 100) -> Table | None:
    """Return the suspects after the first ones, which are shown as pictures; None where there are no more."""
    rows = [
        [item.image, item.region.label, item.region.network, item.fold, item.region.area, f"{item.region.radius:.1f}"]
        for item in evidence.suspects[after : after + most]
    ]
    return table(["image", "label", "network", "fold", "px", "radius, px"], rows, left=3) if rows else None


def settings_tables(values: dict[str, Any], defaults: dict[str, Any], sections: dict[str, list[str]]) -> dict[str, Any]:
    """Return what differs from config.py, and all settings under their headings.

    values: of the experiment's first model; defaults: config.py's for the same data set.
    """
    differ = [[name, _text(value), _text(defaults.get(name))] for name, value in values.items()
              if value != defaults.get(name)]  # fmt: skip
    everything = [
        {"heading": heading, "table": table(["constant", "value"], [[n, _text(values[n])] for n in there], left=2)}
        for heading, names in sections.items()
        if (there := [name for name in names if name in values])
    ]  # fmt: skip
    return {"differ": table(["constant", "this experiment", "config.py"], differ, left=3), "all": everything}


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else '""' if value == "" else str(value)


def models_table(evidence: Evidence) -> Table:
    """Return the models that made the predictions: fold, network, weights, training, hashes, code, versions."""
    rows = []
    for part in evidence.found.models:
        path = Path(part["folder"]) / run_folders.MODEL
        about = read_json(path, "") if path.is_file() else {}
        trained = datetime.fromtimestamp(path.stat().st_mtime).strftime("%Y-%m-%d %H:%M") if about else NOTHING
        versions = ", ".join(f"{name} {version}" for name, version in about.get("versions", {}).items())
        rows.append([
            part["folder"], about.get("network", {}).get("MODEL_NAME", NOTHING), part.get("weights", NOTHING),
            part["weights_sha256"][:12], trained, about.get("epochs", NOTHING), about.get("steps", NOTHING),
            about.get("minutes", NOTHING), (about.get("commit") or NOTHING)[:10], versions or NOTHING,
        ])  # fmt: skip
    head = ["run", "network", "weights", "sha256", "written", "epochs", "steps", "minutes", "code", "versions"]
    return table(head, rows, left=5)


def provenance(evidence: Evidence, written: datetime) -> list[tuple[str, str]]:
    """Return terms and values of everything that the numbers depend on."""
    found, summary = evidence.found, evidence.summary
    about = found.provenance
    sizes = ", ".join(f"{height} x {width} px ({resize})" for height, width, resize in about["sizes"])
    lines = [
        ("Experiment, seed", f"{found.experiment}, {found.seed}"),
        ("Images, masks", str(found.root)),
        ("Task", f"{found.spec.task}: {', '.join(found.spec.classes)}"),
        ("Folds table, sha256", about["folds_sha256"]),
        ("Scored on", f"{summary.get('images')} {summary.get('scored_on', '')}"),
        ("Decided by", summary["metric"]),
        (
            "Empty masks",
            f"{summary.get('empty_masks')}; an empty prediction on one: EMPTY={summary.get('empty_policy')}",
        ),
        ("From probability to mask", "; ".join(said_rules(summary["rules"], found.spec))),
        ("Test-time augmentation", f"{about['tta']}, mean of the {about['tta_mean']}"),
        ("Seen by the networks", sizes),
        ("Weights", found.weights),
        ("Begun from", found.origin),
        ("Report written", written.strftime("%Y-%m-%d %H:%M")),
    ]
    return [(term, str(value)) for term, value in lines]
