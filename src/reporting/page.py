"""The page of make report: its sections, warnings and headline."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoring import blind_baseline
from tools import run_folders

if TYPE_CHECKING:
    from reporting.evidence import Evidence
    from settings import Settings

TEMPLATE = "page.html.jinja"
TITLES = {
    "numbers": "The number to believe",
    "beside": "What stands beside it",
    "folds": "Folds and balance",
    "curves": "Learning curves",
    "search": "The search",  # where make search chose the settings
    "spread": "Folds and groups",
    "reliability": "Are the probabilities true?",
    "area": "Score and mask area",
    "examples": "Worst, median, best",
    "labels": "Labels worth a second look",
    "settings": "Settings",
    "provenance": "Provenance",
}
TRAINED = ("machine", "data", "network", "training")  # sections of the settings; those of scoring are in the provenance
FEW_GROUPS = 10
SUSPECTS = 12  # this many are shown as pictures, the next ones in a table
FLATTERED = "chosen on this fold"  # part of the name of weights of CHECKPOINT=best


def warnings(evidence: "Evidence", believed: dict[str, Any]) -> list[str]:
    """Return what a reader must know before believing the number."""
    summary, said = evidence.summary, []
    if FLATTERED in evidence.found.weights:
        said.append("The epoch was chosen on the fold that is reported (CHECKPOINT=best): every number here flatters.")
    beside = {"constant": summary["score"].get("constant"), **(evidence.tuned.get("crossfitted") or summary["score"])}
    if no_better := blind_baseline.said(beside, summary["higher_is_better"]):
        said.append(no_better)
    if believed["interval"] and summary["groups"] < FEW_GROUPS:
        units = "groups" if summary["groups"] < summary["images"] else "images"
        said.append(f"There are {summary['groups']} {units} only, so the interval is a rough one.")
    return said


def headline(evidence: "Evidence", believed: dict[str, Any], metric: str, units: str) -> str:
    """Return the number to believe and its interval, in a sentence."""
    summary = evidence.summary
    groups = f" of {summary['groups']} groups" if summary["groups"] < summary["images"] else ""
    how = "cut by rules that were chosen on the other folds" if evidence.tuned else "cut as the settings say"
    interval = (
        f" Over all {units} of this kind it lies at {believed['interval']}, with 95% confidence."
        if believed["interval"]
        else ""
    )
    return (
        f"On {summary['images']} images{groups}, each predicted by a network that was not trained on it, "
        f"{evidence.found.experiment} reaches a {metric} of {believed['value']}, its masks {how}.{interval}"
    )


def empty_said(summary: dict[str, Any], classes: int) -> str:
    """Return how many masks are empty, and how they count, in words."""
    policy = {"one": "counts as 1", "zero": "counts as 0", "skip": "is left out"}[summary["empty_policy"]]
    of = f" of {summary['images']} x {classes}" if classes > 1 else f" of {summary['images']}"
    return (
        f"{summary['empty_masks']}{of} masks are empty; {summary['empty_and_predicted_empty']} of them are predicted "
        f"empty, which {policy} (EMPTY={summary['empty_policy']})."
    )


def settings_of(evidence: "Evidence", settings: "Settings") -> dict[str, Any]:
    """Return the tables of the settings that the first network was trained with."""
    from reporting import tables

    folder = Path(evidence.found.models[0]["folder"])
    trained = run_folders.read_model(folder).get("settings", {}) if (folder / run_folders.MODEL).is_file() else {}
    sections = {name: settings.sections()[name] for name in TRAINED}
    names = [name for part in sections.values() for name in part if name in trained]
    usual = settings.defaults()["DATASET"]
    dataset = trained.get("DATASET", usual)
    defaults = settings.fresh(f"DATASET={dataset}").snapshot()
    defaults["DATASET"] = usual
    return tables.settings_tables({name: trained[name] for name in names}, defaults, sections)


def context(evidence: "Evidence", settings: "Settings") -> dict[str, Any]:
    """Return all values that the template shows."""
    from reporting import numbers, search_section, tables

    search = search_section.section(Path(settings.OUTPUT, f"search_{settings.EXPERIMENT}"))
    found, summary = evidence.found, evidence.summary
    estimates, metric = numbers.numbers(evidence), numbers.metric_name(evidence)
    believed = next(part for part in estimates if part["strong"])
    units = "groups" if summary["groups"] < summary["images"] else "images"
    return {
        "experiment": found.experiment,
        "seed": found.seed,
        "dataset": settings.DATASET,
        "metric": metric,
        "units": units,
        "titles": {part: title for part, title in TITLES.items() if part != "search" or search},
        "search": search,
        "numbers": estimates,
        "believed": believed,
        "headline": headline(evidence, believed, metric, units),
        "warnings": warnings(evidence, believed),
        "tuned": bool(evidence.tuned),
        "optimism": numbers.number(evidence, evidence.tuned.get("optimism")),
        "rules": "; ".join(numbers.said_rules(summary["rules"], found.spec)),
        "empty_said": empty_said(summary, len(evidence.classes)) if summary["empty_masks"] else "",
        "tables": tables.all_tables(evidence, SUSPECTS),
        "settings": settings_of(evidence, settings),
        "provenance": tables.provenance(evidence, datetime.now()),
        **drawn(evidence, settings),
    }


def drawn(evidence: "Evidence", settings: "Settings") -> dict[str, Any]:
    """Return those values that have pictures: charts, examples and suspects, with the texts of their sections."""
    from reporting import evidence as evidence_module
    from reporting import examples, figures
    from reporting.label_errors import SURE
    from tools import pictures

    found = evidence.found
    curves = evidence_module.learning_curves(settings.LOGS, found.experiment, found.seed, evidence.folds)
    return {
        "figures": figures.draw(evidence, curves),
        "without_curves": sorted(set(evidence.folds) - set(curves)) if curves else [],
        "ensemble": len(set(found.folders.values())) == 1,
        "legend": [{"name": name, "color": f"rgb{color}"} for name, color in pictures.legend(evidence.classes)],
        "examples": examples.examples(evidence, settings.MAX_PIXELS),
        "suspects": examples.suspects(evidence, settings.MAX_PIXELS, SUSPECTS),
        "suspect_count": len(evidence.suspects),
        "image_count": len(found.table),
        "sure": SURE,
    }


def render(values: dict[str, Any]) -> str:
    """Return the page's text; every value is escaped, except the charts, which are SVG."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template(TEMPLATE).render(values)
