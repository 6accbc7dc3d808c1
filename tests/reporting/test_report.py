"""make report: the page is whole, needs nothing from outside, says what the files say; its parts on known arrays."""

import functools
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import folds
import leaderboard
import report
import settings as settings_module
import tune
from conftest import TINY, write_mask
from data import dataspec, splits
from metrics import calibration
from prediction import chosen_rule, prediction_folders
from reporting import charts, evidence, label_errors
from reporting import page as page_module
from scoring import blind_baseline, gathered_scores, out_of_fold, score_rows
from tools import run_folders
from tools.files import sha256, write_json
from training import preparation

X = ["DATASET=x", "N_FOLDS=2", "IMAGE_SIZE=32", "ENCODER_WEIGHTS=none", "EPOCHS=3"]
PAGE, OOF = Path("output/x/report_x_seed42.html"), Path("lightning_logs/x/oof_seed42")
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Parsed(HTMLParser):
    """A page's elements, closed in order; its ids, links, sources, the text of each section and of each suspect."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.sources, self.sections, self.names = [], [], [], [], {}, []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        assert tag != "script"
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes["href"]] if "href" in attributes else []
        self.sources += [attributes["src"]] if "src" in attributes else []
        if tag == "section":
            self.sections[attributes["id"]] = ""
        if "title" in attributes:
            self.names.append((list(self.sections)[-1], attributes["title"]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.sections and "section" in self.open and "style" not in self.open:
            self.sections[list(self.sections)[-1]] += text


def read_page(path=PAGE) -> Parsed:
    """The page, after what holds for each of them."""
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    page = Parsed(text)
    assert page.sources and all(source.startswith("data:image/") for source in page.sources)
    assert len(set(page.ids)) == len(page.ids)
    assert page.links and {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert list(page.sections) == [part for part in page_module.TITLES if part != "search"]
    assert not re.search(r"\bnan\b", re.sub(r'data:image/[^"]+', "", text), re.IGNORECASE)
    return page


def write_model(settings, table: Path, spec, fold: int) -> tuple[Path, dict]:
    """A run folder as training leaves it, with weights that nobody loads."""
    run = run_folders.run_folder(settings.LOGS, settings.EXPERIMENT, str(fold), settings.SEED)
    run.mkdir(parents=True)
    write_json(run.parent / run_folders.SETTINGS, preparation.fixed_settings(settings))
    (run / run_folders.WEIGHTS).write_bytes(bytes([fold]))
    (run / "metrics.csv").write_text(
        "epoch,step,train_loss_epoch,valid_dice,valid_loss\n0,3,0.9,,\n0,3,,0.5,0.8\n1,7,0.7,,\n1,7,,0.7,0.6\n"
    )
    about = {
        "experiment": settings.EXPERIMENT, "fold": str(fold), "seed": settings.SEED, "overfit": 0,
        "data": spec.as_json(), "network": {"MODEL_NAME": settings.MODEL_NAME}, "weights": "last epoch",
        "weights_sha256": sha256(run / run_folders.WEIGHTS), "folds_sha256": sha256(table), "epochs": 3, "steps": 9,
        "minutes": 0.5, "commit": "abc", "versions": {"torch": "2"}, "settings": settings.snapshot(),
    }  # fmt: skip
    write_json(run / run_folders.MODEL, about)
    return run, about


def fabricate(arguments, predict, table_of="") -> None:
    """A cross-validated experiment without training: `predict(row number, mask (K, H, W)) -> uint8 (C, H, W)`."""
    assert folds.main([*arguments, *([table_of] if table_of else [])]) == 0
    settings = settings_module.load(arguments)
    table, root = Path(settings.TRAIN_FOLDS), Path(settings.INPUT)
    frame, spec = splits.read(table), dataspec.read(table.with_suffix(".json"))
    for fold in sorted(set(frame["kfold"]) - {-1}):
        run, about = write_model(settings, table, spec, fold)
        held_out = frame[frame["kfold"] == fold]
        for number, image, mask in zip(held_out.index, held_out["image"], held_out["mask"], strict=True):
            maps = predict(number, spec.read_pair(root, image, mask)[1])
            for path, plane in zip(prediction_folders.map_paths(run / "val", image, spec), maps, strict=True):
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(plane).save(path)
        how = {"tta": "none", "tta_mean": "probability", "sizes": [(32, 32, "stretch")]}
        models = [{"folder": str(run), **about}]
        prediction_folders.write_manifest(run / "val", settings.INPUT, list(held_out["image"]), spec, models, how)
    found, scale = out_of_fold.read(settings), score_rows.scale(settings.METRIC, settings.MEASURES, settings.EMPTY)
    pairs = found.pairs(10**6)
    constants = blind_baseline.by_fold(pairs.of(frame), scale, found.folders)
    rules, rows = chosen_rule.configured(settings, spec), []
    how = {"size": (32, 32), "resize": "stretch", "rules": rules, "scale": scale}
    for fold, part in found.table.groupby("kfold"):
        maps = functools.partial(found.maps, fold=fold)
        rows += score_rows.rows(pairs.of(part), maps, constants[fold], **how)
    gathered_scores.publish(settings, found, pd.DataFrame(rows).sort_values("image", ignore_index=True), scale, rules)


def write_discs(count: int, empty=(), flipped=(), name="p{}") -> None:
    """Bright discs on dark noise; the masks of some are empty, or say foreground for background and vice versa."""
    random, (y, x) = np.random.default_rng(0), np.mgrid[0:40, 0:48]
    for number in range(count):
        mask = (y - random.integers(12, 28)) ** 2 + (x - random.integers(12, 36)) ** 2 <= random.integers(4, 10) ** 2
        mask &= number not in empty
        picture = (random.integers(0, 60, (40, 48, 3)) + 150 * mask[..., None]).astype(np.uint8)
        file = f"{name.format(number)}.png"
        Path("input/x/images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(Path("input/x/images", file))
        write_mask(Path("input/x/masks", file), ~mask if number in flipped else mask)


def sure(mask: np.ndarray) -> np.ndarray:
    """A network that is right, and sure of it."""
    return np.where(mask > 0, 252, 3).astype(np.uint8)


def test_a_cross_validated_experiment_gets_its_page(trained, capsys):
    assert report.main(TINY) == 0
    path = Path("output/demo/report_demo_seed42.html")
    assert str(path) in capsys.readouterr().out
    page, text = read_page(path), path.read_text()
    assert "no better than" not in text and "CHECKPOINT=best" not in text
    summary = json.loads(Path("lightning_logs/demo/oof_seed42/summary.json").read_text())
    assert f'<div class="value">{summary["score"]["model"]:.4f}</div>' in text
    assert f"{summary['score']['constant']:.4f}" in page.sections["beside"]
    assert "make tune EXPERIMENT=demo SEED=42" in page.sections["numbers"]
    for fold in (0, 1):
        assert f"{summary['folds'][str(fold)]:.4f}" in page.sections["folds"]
        assert f"fold {fold}" in page.sections["curves"]
        sha = run_folders.read_model(Path(f"lightning_logs/demo/fold{fold}_seed42"))["weights_sha256"]
        assert sha[:12] in page.sections["provenance"]
    assert "MODEL_NAMEunetsmp_unet_tu-tf_efficientnet_lite0" in page.sections["settings"].replace("\n", "")
    assert "All 4 groups" in page.sections["spread"]
    assert path.stat().st_size < 5e6


def test_a_wrong_label_is_a_candidate_and_a_right_one_is_not(workplace):
    write_discs(8, flipped=[5], empty=[1])
    fabricate(X, lambda number, mask: sure(1 - mask if number == 5 else mask))
    assert report.main(X) == 0
    page = read_page()
    assert [name for section, name in page.names if section == "labels"] == ["images/p5.png"]
    assert "1 of 8 images" in page.sections["labels"] and "not verdicts" in page.sections["labels"]
    worst = [name for section, name in page.names if section == "examples"]
    assert worst[0] == "images/p5.png" and len(worst) == len(set(worst)) == 8
    assert "1 of 8 masks are empty; 1 of them are predicted empty, which counts as 1" in page.sections["area"]


def test_after_tuning_the_cross_fitted_number_is_the_headline(workplace, refused):
    write_discs(8)
    fabricate(X, lambda number, mask: np.where(mask > 0, 252, 140 + 4 * number).astype(np.uint8))
    assert tune.main(X) == 0
    tuned = json.loads((OOF / "tuned.json").read_text())
    assert tuned["crossfitted"]["score"] > tuned["untuned"]["score"] + 0.1
    assert report.main(X) == 0
    text = PAGE.read_text()
    assert f'<div class="value">{tuned["crossfitted"]["score"]:.4f}</div>' in text
    numbers = read_page().sections["numbers"]
    for kind in ("untuned", "crossfitted", "tuned"):
        assert f"{tuned[kind]['score']:.4f}" in numbers
    assert f"optimism: {tuned['optimism']:.4f}" in numbers and "make tune" not in numbers
    rule = tuned["untuned"]["rules"][0]
    for part, key, other in ((tuned["provenance"], "tta", "d4"), (tuned, "metric", "iou"), (rule, "threshold", 0.4)):
        before, part[key] = part[key], other
        (OOF / "tuned.json").write_text(json.dumps(tuned))
        refused(report.main, X, "not of the same", "make tune EXPERIMENT=x SEED=42")
        part[key] = before


def test_empty_masks_that_are_skipped_have_no_score_and_are_counted(workplace):
    write_discs(8, empty=[1, 2, 6])
    arguments = [*X, "EMPTY=skip"]
    fabricate(arguments, lambda number, mask: sure(mask))
    assert report.main(arguments) == 0
    page = read_page()
    said = "3 of 8 masks are empty; 3 of them are predicted empty, which is left out"
    assert said in page.sections["area"]
    shown = {name for section, name in page.names if section == "examples"}
    assert "images/p1.png" not in shown and "images/p0.png" in shown


def test_nothing_but_empty_masks_is_held_out(workplace):
    write_discs(6, empty=range(4))
    rows = [f"images/p{number}.png,masks/p{number}.png,{number % 2 if number < 4 else -1}" for number in range(6)]
    Path("my.csv").write_text("\n".join(["image,mask,kfold", *rows]))
    arguments = [*X, "EMPTY=skip"]
    fabricate(arguments, lambda number, mask: sure(mask), "TABLE=my.csv")
    assert report.main(arguments) == 0
    page = Parsed(PAGE.read_text(encoding="utf-8"))
    assert "no image has a score" in page.sections["area"] and "No image has a score" in page.sections["examples"]
    assert "4 of 4 masks are empty" in page.sections["area"]


def test_classes_with_names_that_look_like_html(workplace):
    """Several classes, unlabeled pixels, and names of images and classes that have to be escaped."""
    random = np.random.default_rng(0)
    (Path("input/x/images")).mkdir(parents=True)
    (Path("input/x/masks")).mkdir()
    for number in range(8):
        labels = np.zeros((40, 48), np.uint8)
        labels[4:20, 4:20], labels[22:36, 10:40] = 1, 2
        labels[:, 44:] = 255
        Image.fromarray(random.integers(0, 255, (40, 48, 3)).astype(np.uint8)).save(f"input/x/images/p<b>&{number}.png")
        if number == 3:
            labels[22:36, 10:40] = 1  # a wrong label: the network says 2
        Image.fromarray(labels).save(f"input/x/masks/p<b>&{number}.png")
    Path("input/x/classes.csv").write_text("name,value\nbackground,0\nred<b>&$x$,1\nblue,2\n")

    def predict(number, mask):
        truth = mask[0].copy()
        if number == 3:
            truth[22:36, 10:40] = 2
        return np.stack([sure(truth == index) for index in range(3)])

    fabricate(X, predict)
    assert report.main(X) == 0
    text, page = PAGE.read_text(), read_page()
    assert "red<b>" not in text and "p<b>" not in text
    assert "red&lt;b&gt;&amp;$x$" in text and "p&lt;b&gt;&amp;3.png" in text
    assert [name for section, name in page.names if section == "labels"] == ["images/p<b>&3.png"]
    assert "the label says red<b>&$x$, the network blue" in page.sections["labels"]
    counts, _ = evidence.survey(out_of_fold.read(settings_module.load(X)), 10**6)
    assert counts.sum() == 2 * 8 * 40 * 44 and counts[:, 252, 1].sum() == counts[:, 128:, 1].sum() > 0
    assert counts[:, :128, 1].sum() == 14 * 30  # where the label is wrong
    assert "the likeliest class" in page.sections["numbers"] and "threshold" not in page.sections["numbers"]
    assert "shows blue" in page.sections["folds"] and "Class by class" in page.sections["beside"]


def test_a_metric_of_which_less_is_better(workplace):
    write_discs(8)
    arguments = [*X, "METRIC=hd95", "MEASURES=boundary_iou"]
    shifted = {number: 6 if number == 4 else 1 for number in range(8)}
    fabricate(arguments, lambda number, mask: np.roll(sure(mask), shifted[number], 2))
    assert report.main(arguments) == 0
    page = read_page()
    assert next(name for section, name in page.names if section == "examples") == "images/p4.png"
    summary = json.loads((OOF / "summary.json").read_text())
    assert f'<div class="value">{summary["score"]["model"]:.2f} px</div>' in PAGE.read_text()
    boundary = f"boundary_iou{summary['measures']['boundary_iou']['model']:.4f}"  # no px of the METRIC's
    assert boundary in page.sections["beside"].replace("\n", "") and "HD95" in page.sections["examples"]


def test_what_is_not_cross_validated_or_changed_since_is_refused(workplace, refused):
    refused(report.main, X, "make cv EXPERIMENT=x SEED=42")
    write_discs(8)
    fabricate(X, lambda number, mask: sure(mask))
    refused(report.main, [*X, "EXPERIMENT=y"], "make cv EXPERIMENT=y", "Experiments that have one: x")
    summary = json.loads((OOF / "summary.json").read_text())
    summary["provenance"]["tta"] = "flips"
    (OOF / "summary.json").write_text(json.dumps(summary))
    refused(report.main, X, "other predictions", "make oof EXPERIMENT=x")
    (OOF / "summary.json").write_text("{}")
    refused(report.main, X, "summary.json", "make oof")


def test_a_best_epoch_and_a_network_that_is_no_better_than_nothing_are_said(workplace):
    write_discs(8)
    fabricate(X, lambda number, mask: np.zeros((1, 40, 48), np.uint8))
    for fold in (0, 1):
        manifest = Path(f"lightning_logs/x/fold{fold}_seed42/val/manifest.json")
        about = json.loads(manifest.read_text())
        about["models"][0]["weights"] = "epoch 2, chosen on this fold"
        manifest.write_text(json.dumps(about))
    assert report.main(X) == 0
    text = PAGE.read_text()
    assert "no better than a constant mask" in text and "CHECKPOINT=best" in text


def write_rare_class() -> None:
    """8 class maps: blue in each, red in the first of either fold alone."""
    for number in range(8):
        labels = np.zeros((40, 48), np.uint8)
        labels[4 + 2 * number : 20 + 2 * number, 4:20] = 2
        labels[4:36, 30:40] = number < 2
        write_mask(Path(f"input/x/images/p{number}.png"), np.random.default_rng(number).random((40, 48)))
        Image.fromarray(labels).save(Path("input/x/masks", f"p{number}.png"))
    Path("input/x/classes.csv").write_text("name,value\nbackground,0\nred,1\nblue,2\n")


def test_a_class_that_is_never_found_is_no_better_than_its_empty_mask_wherever_its_score_is(workplace, capsys):
    Path("input/x/masks").mkdir(parents=True)
    write_rare_class()
    fabricate(X, lambda number, mask: np.stack([sure(mask[0] != 2), sure(mask[0] > 2), sure(mask[0] == 2)]))
    sentence = (
        "This is no better than a constant mask, which ignores the image: red 0.7500 against 0.7500, with not a pixel"
    )
    oof = capsys.readouterr().out
    assert sentence in oof and "dice on the training images: the empty one for red)" in oof
    score = json.loads((OOF / "summary.json").read_text())["score"]
    assert score["classes"]["red"][0] == score["constant_classes"]["red"] == 0.75
    assert score["constant"] == pytest.approx(np.mean(list(score["constant_classes"].values())))
    assert leaderboard.main(X) == 0 and f"x, seed 42: {sentence}" in capsys.readouterr().out
    assert tune.main(X) == 0 and sentence in capsys.readouterr().out
    assert leaderboard.main(X) == report.main(X) == 0
    assert f"x, seed 42: {sentence}" in capsys.readouterr().out and sentence in PAGE.read_text()
    for file, key in (("summary.json", "score"), ("tuned.json", "crossfitted")):  # as an earlier version wrote them
        found = json.loads((OOF / file).read_text())
        for name in ("constant_classes", "unpredicted", "absent", "constant_empty", *(["constant"] * (key != "score"))):
            del found[key][name]
        (OOF / file).write_text(json.dumps(found))
    assert leaderboard.main(X) == report.main(X) == 0
    assert "no better than" not in capsys.readouterr().out + PAGE.read_text()


def test_reliability_against_counts_by_hand():
    p8 = np.array([[[0, 0, 0, 0, 255, 255, 128, 128]]], np.uint8)
    truth = np.array([[[0, 0, 0, 1, 1, 1, 1, 0]]], bool)
    counts = calibration.count(p8, truth)
    assert counts.shape == (1, 256, 2) and counts.sum() == 8
    assert counts[0, 0].tolist() == [3, 1] and counts[0, 255].tolist() == [0, 2] and counts[0, 128].tolist() == [1, 1]
    mean, observed, pixels = calibration.curve(counts[0], bins=15)
    assert pixels.tolist() == [4, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 2]
    assert observed[[0, 7, 14]].tolist() == [0.25, 0.5, 1] and np.isnan(observed[1])
    assert mean[7] == pytest.approx(128 / 255)
    assert calibration.calibration_error(counts[0]) == pytest.approx((4 * 0.25 + 2 * (128 / 255 - 0.5)) / 8)
    assert calibration.brier(counts[0]) == pytest.approx((1 + (128 / 255) ** 2 + (127 / 255) ** 2) / 8)
    assert calibration.unsure(counts[0]).sum() == 2
    half = calibration.count(p8, truth, labeled=np.array([[1, 1, 1, 1, 0, 0, 0, 0]], bool))
    assert half.sum() == 4 and half[0, 255].sum() == 0


def test_suspects_are_regions_and_no_seams():
    spec = dataspec.DataSpec()
    mask = np.zeros((1, 60, 60), np.uint8)
    mask[0, 10:40, 10:40] = 1
    p8 = sure(mask)
    assert label_errors.find(p8, mask, spec) == []
    p8[0, 8:10, 8:42] = 252  # two pixels along the outline
    assert label_errors.find(p8, mask, spec) == []
    p8[0, 45:55, 45:52] = 252
    p8[0, 20:26, 20:26] = 3
    found = label_errors.find(p8, mask, spec)
    assert [(region.label, region.network) for region in found] == [
        ("no foreground", "foreground"), ("foreground", "no foreground")
    ]  # fmt: skip
    assert found[0].box == (45, 45, 10, 7) and found[0].area == 70 and found[1].area == 36
    assert 3 <= found[0].radius <= 4 and found[0].size == pytest.approx(found[0].radius / 60)
    whole = label_errors.find(sure(1 - mask), mask, spec)
    assert [(region.area, region.box) for region in whole] == [(900, (10, 10, 30, 30)), (2700, (0, 0, 60, 60))]
    assert whole[1].radius < 15  # the image's border ends a region
    p8[p8 == 252] = 240  # not sure any more
    assert [region.label for region in label_errors.find(p8, mask, spec)] == ["foreground"]


def test_unlabeled_pixels_are_no_suspects():
    spec = dataspec.DataSpec("multiclass", ("background", "a"), values=(0, 1), ignore=(255,))
    mask = np.full((1, 30, 30), dataspec.IGNORED, np.uint8)
    p8 = np.stack([sure(np.zeros((30, 30))), sure(np.ones((30, 30)))])
    assert label_errors.find(p8, mask, spec) == []
    mask[:] = 0
    assert [(region.label, region.network) for region in label_errors.find(p8, mask, spec)] == [("background", "a")]


def test_charts_are_themed_and_have_ids_of_their_own():
    drawn = [charts.lines(name, [charts.Line("a<b>&$x$", [1, 2], [3, 4]), charts.Line("c", [1], [2], 1)], "x & y", "y")
             for name in ("one", "two")]  # fmt: skip
    for svg in drawn:
        assert "http" not in svg and "a&lt;b&gt;&amp;$x$" in svg and "x &amp; y" in svg
        assert "var(--c0)" in svg and "var(--ink)" in svg and "#0a0" not in svg
        used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg))
        assert used and used <= set(re.findall(r'\bid="([^"]+)"', svg))
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in drawn]
    assert not ids[0] & ids[1]
    many = charts.by_area("many", [("an image", np.arange(1, 2001.0), np.ones(2000))], "y")
    assert "data:image/png" in many and len(many) < 60_000
