"""What stays together in one fold: rules, and hints from names."""

import itertools
import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import ROOT
from data import groups
from tools.errors import UserError

VIEWS = [f"train_hq/{car:012x}_{view:02d}.jpg" for car in range(9, 9000, 600) for view in range(1, 17)]


@pytest.mark.parametrize(
    ("rule", "images", "expected"),
    [
        ("none", ["a/1.png", "b.png"], ["a/1.png", "b.png"]),
        ("", ["a.png"], ["a.png"]),
        ("auto", ["a.png"], ["a.png"]),
        (r"([^/]+)_\d+\.", ["x/car_1.png", "y/car_2.png", "bus_1.png"], ["car", "car", "bus"]),
        ("folder", ["p1/a.png", "p1/b.png", "d/p2/a.png"], ["p1", "p1", "d/p2"]),
        ("folder:2", ["p1/s1/a.png", "p1/s2/a.png", "p2/s1/a.png"], ["p1", "p1", "p2"]),
        ("gap:5", ["f_15.png", "f_004.png", "f_9.png", "f_20.png"], ["f_15", "f_004", "f_004", "f_15"]),
        ("gap:5", ["v/f_1.png", "w/f_2.png", "v/f_3.png", "v/g_4.png"], ["v/f_1", "w/f_2", "v/f_1", "v/g_4"]),
        ("gap:2", ["f1_left.png", "f1_right.png", "f2_left.png"], ["f1_left", "f1_right", "f1_left"]),
        ("gap:0.5", ["1.png", "2.png"], ["1", "2"]),
        (
            "gap:60s",
            ["20240131235930.png", "20240201000030.png", "20240201000131.png"],
            ["20240131235930", "20240131235930", "20240201000131"],
        ),
        ("gap:60s", ["IMG_20231231_235959.jpg", "IMG_20240101_000010.jpg"], ["IMG_20231231_235959"] * 2),
        ("gap:1s", ["c_2024-02-28T23:59:59.png", "c_2024-02-29T00:00:01.png"],
         ["c_2024-02-28T23:59:59", "c_2024-02-29T00:00:01"]),
        ("gap:1s", ["2024-02-28_23-59-59.900.png", "2024-02-28_23-59-59.100.png", "2024-02-29_00-00-00.850.png"],
         ["2024-02-28_23-59-59.100"] * 3),
        ("gap:0.5s", ["20240131_235959_100.png", "20240131_235959_900.png"],
         ["20240131_235959_100", "20240131_235959_900"]),
        ("gap:5s", ["20200101_000000_20240131_235959.png", "20200101_000000_20240131_235957.png"],
         ["20200101_000000_20240131_235957"] * 2),
        ("gap:86400s", ["s/2024-02-28.png", "s/2024-02-29.png", "s/2024-03-02.png"],
         ["s/2024-02-28", "s/2024-02-28", "s/2024-03-02"]),
    ],
)  # fmt: skip
def test_rules(rule, images, expected):
    assert groups.assign(images, rule) == expected


def test_auto_takes_the_layouts_regex_and_leaves_a_miss_alone():
    images = ["a/car_01.png", "a/car_02.png", "a/other.png"]
    assert groups.assign(images, "auto", r"^(?:.*/)?([^/]+)_\d{2}\.\w+$") == ["car", "car", "a/other.png"]


@pytest.mark.parametrize(
    ("rule", "images", "words"),
    [
        ("x(", ["a.png"], ["no regular expression"]),
        ("a{99999999999999999999}(b)", ["a.png"], ["no regular expression"]),
        ("a", ["a.png"], ["exactly one (group)"]),
        ("(a)(b)", ["ab.png"], ["exactly one (group)"]),
        ("(x)", ["a.png", "x.png"], ["1 of 2 images", "a.png", "GROUP=none"]),
        ("(x)?a", ["a.png"], ["does not match", "a.png"]),
        ("folder", ["p/a.png", "b.png"], ["1 of 2 images", "b.png"]),
        ("folder:2", ["p/a.png"], ["p/a.png"]),
        ("folder", ["../a.png"], ["../a.png"]),
        ("folder", ["/a.png"], ["/a.png"]),
        ("folder:0", ["p/a.png"], ["folder:1"]),
        ("folder:x", ["p/a.png"], ["no rule", "folder:2"]),
        ("gap", ["1.png"], ["no rule", "gap:5"]),
        ("gap:-1", ["1.png"], ["no rule"]),
        ("gap:5", ["a.png", "1.png"], ["a number", "1 of 2", "a.png"]),
        ("gap:5", ["1" * 5000 + ".png"], ["a number"]),
        ("gap:5s", ["f_12.png"], ["a date and time", "f_12.png"]),
        ("gap:5s", ["20241399_250000.png"], ["20241399_250000.png"]),
        ("column:patient", ["a.png"], ["TABLE=file.csv", "GROUP=column:patient"]),
    ],
)
def test_refusals(rule, images, words):
    with pytest.raises(UserError) as error:
        groups.assign(images, rule)
    for word in words:
        assert word in str(error.value)


RULES = st.sampled_from(["auto", "none", "folder", "folder:2", "gap:5", "gap:60s", r"(\w)", r"(.*)_\d+", "column:x"])
PARTS = st.sampled_from(
    ["a", "f_12", "20240131_235959", "2024-02-30", "..", ".", "", " ", "٣", "1" * 100, "x.1", "p (2)"]
)
PRINTABLE = st.characters(blacklist_categories=("C",))
PATHS = st.one_of(
    st.text(PRINTABLE, min_size=1, max_size=30),
    st.lists(PARTS, min_size=1, max_size=4).map(lambda parts: "/".join(parts) or "x"),
)


@given(
    images=st.lists(PATHS, min_size=1, max_size=12, unique=True), rule=RULES, known=st.sampled_from(["", "(a)", "(x)?"])
)
def test_any_path_has_a_group_whatever_the_order_or_is_refused(images, rule, known):
    try:
        found = groups.assign(images, rule, known)
    except UserError:
        with pytest.raises(UserError):
            groups.assign(images[::-1], rule, known)
        return
    assert len(found) == len(images)
    assert all(isinstance(group, str) and group for group in found)
    assert groups.assign(images[::-1], rule, known) == found[::-1]


@given(numbers=st.lists(st.integers(0, 300), min_size=1, unique=True), gap=st.integers(0, 20))
def test_neighbors_share_a_group_exactly_where_the_gap_is_small(numbers, gap):
    found = dict(zip(numbers, groups.assign([f"f{number}.png" for number in numbers], f"gap:{gap}"), strict=True))
    order = sorted(numbers)
    for first, second in itertools.pairwise(order):
        assert (found[first] == found[second]) == (second - first <= gap)


HINTS = {
    "views": (VIEWS, 15),
    "views of few things": ([f"car{car}-{view}.jpg" for car in (1, 2, 3) for view in range(1, 5)], 3),
    "copies": ([f"{name}{end}.jpg" for name in ("roof", "wall", "door") for end in ("", " (2)", " (3)")], 3),
    "slices of patients": ([f"patient{p}_slice_{s:03d}.png" for p in range(5) for s in range(8)], 5),
    "one patient twice": (["case_01_a.png", "case_01_b.png", "case_02_a.png", "case_03_a.png"], 3),
    "uw-madison": (
        [f"case{c}/case{c}_day{d}/scans/slice_{s:04d}_266_266_1.50_1.50.png"
         for c in (12, 123) for d in (0, 20) for s in range(1, 6)], 2),
    "tcga": ([f"kaggle_3m/CS_{p}/TCGA_CS_{p}_19960909_{s}.tif" for p in (4941, 4942) for s in range(9)], 2),
    "letter and number": ([f"P{p:04d}-{s:04d}.png" for p in range(1, 8) for s in range(4)], 7),
    "videos": ([f"video{v}_f{f:04d}.png" for v in (1, 2, 3) for f in range(6)], 3),
    "volumes": ([f"BraTS20_Training_{v:03d}_slice_{s}.png" for v in range(5) for s in range(9)], 5),
    "frames of one film": ([f"frames/frame_{f:06d}.png" for f in range(123, 1123)], 11),
    "every tenth frame": ([f"clip_{f}.png" for f in range(0, 300, 10)], 3),
    "cut films": ([f"img_seq_{100 * cut + f:05d}.png" for cut in range(6) for f in range(12)], 6),
    "films in folders": ([f"{film}/frame_{f:03d}.png" for film in ("beach", "forest") for f in range(7)], 2),
    "frames of a split": (
        [f"{part}/images/frame_{f:03d}.png" for part, s in (("train", 0), ("valid", 80)) for f in range(s, s + 40)], 8),
    "scans": ([f"scan_{s}.png" for s in range(1, 40)], 4),
    "patients' folders": ([f"patient_{p:03d}/{s}.png" for p in (1, 2, 3) for s in "abc"], 3),
    "patients' folders, deep": ([f"X{p:03d}/images/{s}.png" for p in (1, 2, 3) for s in "abc"], 3),
    "hexadecimal folders": ([f"{p:08x}/{s}.png" for p in range(10**9, 2 * 10**9, 2 * 10**8) for s in "abc"], 5),
    "two eyes": ([f"Image_{child:02d}{side}.jpg" for child in range(1, 15) for side in "LR"], 14),
    "many slices": ([f"a{a}_{s:03d}.png" for a in range(9) for s in range(120)], 9),
}  # fmt: skip


@pytest.mark.parametrize("kind", HINTS)
def test_hints(kind):
    images, count = HINTS[kind]
    hint = groups.hint(images)
    assert hint is not None
    assert "no group is set" in hint.sentence
    found = groups.assign(images, hint.rule)
    assert len(set(found)) == count
    assert groups.hint(images[::-1]) == hint
    if not re.match("folder|gap", hint.rule):
        assert re.compile(hint.rule).groups == 1


NO_HINTS = {
    "one prefix, counted": [f"img_{number:04d}.png" for number in range(1, 671)],
    "one short prefix": [f"img_{number}.png" for number in range(1, 60)],
    "counted": [f"{number}.png" for number in range(1, 613)],
    "hexadecimal": [f"{number * 2654435761 % 2**40:010x}.png" for number in range(1, 200)],
    "uuid": [f"550e8400-e29b-41d4-a716-{number:012d}.png" for number in range(100)],
    "names": [f"{name}.jpg" for name in ("cat", "tree", "oslo", "red car", "x9", "b-side", "q_a")],
    "isic": [f"ISIC_{number:07d}.jpg" for number in range(0, 3000, 7)],
    "nuclei": [f"stage1_train/{number:064x}/images/{number:064x}.png" for number in range(50)],
    "voc": [f"JPEGImages/20{year:02d}_{number:06d}.jpg" for year in range(7, 13) for number in range(32, 900, 41)],
    "pets": [f"{name}_{number}.jpg" for name in ("Abyssinian", "english_setter", "pug") for number in range(1, 200, 3)],
    "classes counted": [f"{name}_{number}.jpg" for name in ("cat", "dog", "cow", "fly") for number in range(1, 30)],
    "folders of a split": [f"{part}/images/{number}.png" for part in ("train", "valid", "test") for number in range(9)],
    "four class folders": [f"{name}/{number}.png" for name in ("car", "bus", "bike", "van") for number in range(9)],
    "numbered class folders": [f"class_{label}/{number}.png" for label in range(4) for number in range(9)],
    "birds": [f"{bird:03d}.{name}/{n}.jpg" for bird, name in enumerate(["Albatross", "Auk", "Jay"]) for n in range(9)],
    "parts of a download": [f"part{part}/{part}{number:03d}.png" for part in range(1, 5) for number in range(9)],
    "one image a patient": [f"patient_{patient:03d}.png" for patient in range(30)],
    "coco": [f"{number:012d}.jpg" for number in range(139, 90000, 317)],
    "dicom ids": [f"1.2.276.0.7230010.3.1.4.8323329.{n}.151787{n}.{n * n}.png" for n in range(1000, 1100)],
    "sites": [f"site{site}_{number:03d}.jpg" for site in (1, 2, 3) for number in range(100)],
    "many classes counted": [f"{name * 3}_{number}.jpg" for name in "abcdefghij" for number in range(1, 61)],
    "scattered scans": [f"scan_{number * number * 7919 % 997}.png" for number in range(60)],
    "far frames": [f"frame_{number}.png" for number in range(0, 2000, 50)],
    "few scans": ["scan_3.png", "scan_77.png", "scan_1234.png", "scan_5555.png"],
    "one": ["frame_01.png"],
    "none": [],
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_HINTS)
def test_no_false_alarm(kind):
    assert groups.hint(NO_HINTS[kind]) is None


@given(st.lists(PATHS, max_size=12, unique=True))
def test_a_hint_always_holds(images):
    hint = groups.hint(images)
    if hint:
        assert 1 < len(set(groups.assign(images, hint.rule))) < len(images)


def test_a_rule_names_only_the_words_that_occur():
    assert groups.hint(HINTS["slices of patients"][0]).rule == r"(?i:(?:^|[/_ .-])(patient[-_ ]?\d+))"


def test_the_sentence_counts_views_and_things():
    assert groups.hint(VIEWS).sentence == (
        "Names look like 16 views of one thing (000000000009_01.jpg to 000000000009_16.jpg; 15 such groups), "
        "and no group is set: views of one thing in two folds make the score a fiction."
    )


@pytest.mark.parametrize("kind", HINTS)
def test_a_proposed_rule_survives_make_and_the_shell(kind):
    rule = groups.hint(HINTS[kind][0]).rule
    typed = f"make --silent folds VENV= PYTHON=echo GROUP='{rule}'"
    done = subprocess.run(["bash", "-c", typed], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"src/folds.py GROUP={rule}\n"
