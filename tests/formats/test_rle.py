"""Run lengths in every dialect, against loops over pixels, hand-written tables, pycocotools and SIIM-ACR's rules."""

import os
import threading

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp

from formats import rle, rle_table
from formats.mask_reference import MaskReference
from tools.errors import UserError

SHAPES = st.one_of(
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.tuples(st.just(1), st.integers(1, 20)),
    st.tuples(st.integers(1, 20), st.just(1)),
)
MASKS = st.one_of(
    stnp.arrays(np.uint8, SHAPES, elements=st.integers(0, 1)),
    stnp.arrays(np.uint8, SHAPES, elements=st.integers(0, 1), fill=st.just(1)),  # nearly full: first and last pixel set
    SHAPES.map(lambda shape: np.zeros(shape, np.uint8)),
    SHAPES.map(lambda shape: np.ones(shape, np.uint8)),
)
DIALECTS = st.sampled_from(list(rle.DIALECTS.values()))


def by_loop(mask, order):
    """Kaggle's definition, pixel by pixel."""
    runs, previous = [], 0
    for position, value in enumerate(mask.ravel(order=order), 1):
        if value and not previous:
            runs += [position, 0]
        if value:
            runs[-1] += 1
        previous = value
    return " ".join(map(str, runs))


def siim_decoded(text, width, height):
    """What SIIM-ACR's mask_functions.py says of its texts: walk on from the last run's end, on (width, height)."""
    canvas, position = [0] * (width * height), 0
    values = [int(value) for value in text.split()]
    for gap, length in zip(values[::2], values[1::2], strict=True):
        position += gap
        for _ in range(length):
            canvas[position] = 255
            position += 1
    return np.array(canvas).reshape(width, height)


def class_of(dialect):
    return "stomach" if dialect.has_classes else ""


@pytest.mark.main
@given(MASKS, st.sampled_from("CF"))
def test_encoding_is_the_definition_and_decoding_its_inverse(mask, order):
    text = rle.encode(mask, order)
    assert text == by_loop(mask, order)
    np.testing.assert_array_equal(rle.decode(text, mask.shape, order), mask)


@pytest.mark.main
@given(MASKS, DIALECTS)
def test_every_dialect_reads_what_it_writes(mask, dialect):
    text = rle.to_text(mask, dialect)
    assert (text == dialect.empty) == (not mask.any())
    decoded = rle.from_text(f" {text} ", mask.shape, dialect)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, mask)
    np.testing.assert_array_equal(rle.from_text("", mask.shape, dialect), mask * 0)


@given(MASKS)
@example(np.ones((1, 1), np.uint8))
def test_siim_agrees_with_the_competitions_own_decoder(mask):
    text = rle.to_text(mask, rle.DIALECTS["siim"])
    theirs = siim_decoded("" if text == "-1" else text, mask.shape[1], mask.shape[0])
    np.testing.assert_array_equal(theirs.T, mask * 255)


@given(MASKS)
def test_column_order_agrees_with_pycocotools(mask):
    coco = pytest.importorskip("pycocotools.mask")
    ours = np.array(rle.encode(mask, "F").split(), int).reshape(-1, 2)
    gaps, end = [], 0
    for start, length in ours:
        gaps += [int(start - 1 - end), int(length)]
        end = start - 1 + length
    gaps.append(int(mask.size - end))
    theirs = coco.frPyObjects({"size": list(mask.shape), "counts": gaps}, *mask.shape)
    np.testing.assert_array_equal(coco.decode(theirs), mask)
    assert coco.area(theirs) == ours[:, 1].sum()


@pytest.mark.main
def test_known_values():
    mask = np.array([[0, 1, 1], [1, 1, 0]], np.uint8)
    assert rle.encode(mask, "C") == "2 4"
    assert rle.encode(mask, "F") == "2 4"
    assert rle.encode(np.eye(3, dtype=np.uint8), "C") == "1 1 5 1 9 1"
    assert rle.encode(np.zeros((2, 2)), "C") == ""
    assert rle.encode(np.ones((2, 2)), "F") == "1 4"


@pytest.mark.parametrize(
    ("name", "texts", "empty"),
    [
        ("carvana", [("x", "1 1 3 2")], [("x", "")]),
        ("dsb2018", [("x", "1 2"), ("x", "5 1")], [("x", "")]),
        ("tgs", [("x", "1 2 5 1")], [("x", "")]),
        ("airbus", [("x", "1 2"), ("x", "5 1")], [("x", "")]),
        ("siim", [("x", "0 2 2 1")], [("x", "-1")]),
        ("hubmap", [("x", "1 2 5 1")], [("x", "")]),
        ("uwmgi", [("x", "stomach", "1 1 3 2")], [("x", "stomach", "")]),
        ("contrails", [("x", "1 2 5 1")], [("x", "-")]),
        ("vesuvius", [("x", "1 1 3 2")], [("x", "")]),
    ],
)
def test_the_rows_of_each_dialect_by_hand(name, texts, empty):
    mask = np.array([[1, 0, 1], [1, 0, 0]], np.uint8)
    dialect = rle.DIALECTS[name]
    assert rle.rows("x", mask, dialect, class_of(dialect)) == texts
    assert rle.rows("x", mask * 0, dialect, class_of(dialect)) == empty
    assert len(texts[0]) == len(dialect.columns)


def test_every_dialect_stands_in_the_table_above_under_its_own_name():
    mark = test_the_rows_of_each_dialect_by_hand.pytestmark[0]
    assert [case[0] for case in mark.args[1]] == list(rle.DIALECTS)
    assert all(name == dialect.name for name, dialect in rle.DIALECTS.items())


def test_a_class_where_there_is_no_column_for_it_and_the_reverse_are_refused():
    mask = np.ones((2, 2), np.uint8)
    with pytest.raises(UserError, match=r"DIALECT=uwmgi .*needs a class"):
        rle.rows("x", mask, rle.DIALECTS["uwmgi"])
    with pytest.raises(UserError, match=r"DIALECT=tgs .*none for the class stomach"):
        rle.rows("x", mask, rle.DIALECTS["tgs"], "stomach")


BROKEN = [
    ("1", "pairs"),
    ("1 2 3", "pairs"),
    ("0 1", "count from 1"),
    ("1 0", "count from 1"),
    ("-3 2", "count from 1"),
    ("4 4", "beyond"),
    ("9 1", "beyond"),
    ("1 9223372036854775807", "beyond"),
    ("1 3 3 1", "overlap"),
    ("4 1 1 1", "overlap"),
    ("nan 1", "whole numbers"),
    ("1.5 1", "whole numbers"),
    ("99999999999999999999 1", "whole numbers"),
]


@pytest.mark.parametrize(("text", "word"), BROKEN)
def test_broken_run_lengths_are_refused(text, word):
    with pytest.raises(UserError, match=f"row 7: .*{word}"):
        rle.decode(text, (2, 3), "C", "row 7")
    with pytest.raises(UserError, match=f"row 7: .*{word}"):
        rle.from_text(text, (2, 3), rle.DIALECTS["vesuvius"], "row 7")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("-1 2", "count from 0"),
        ("0 0", "lengths from 1"),
        ("0 3 2 2", "beyond"),
        ("6 1", "beyond"),
        (" ".join(["9223372036854775807 9223372036854775807"] * 9), "beyond"),
        ("-", "whole numbers"),
        ("-1 ", None),
        ("0 6", None),
    ],
)
def test_broken_relative_run_lengths_are_refused(text, word):
    siim = rle.DIALECTS["siim"]
    if word is None:
        assert rle.from_text(text, (2, 3), siim).mean() in (0, 1)
        return
    with pytest.raises(UserError, match=f"row 7: .*{word}"):
        rle.from_text(text, (2, 3), siim, "row 7")


def test_another_dialects_sign_for_empty_is_refused():
    for name in rle.DIALECTS:
        for sign in {"-1", "-"} - {rle.DIALECTS[name].empty}:
            with pytest.raises(UserError):
                rle.from_text(sign, (2, 3), rle.DIALECTS[name])


@given(MASKS, DIALECTS)
def test_the_rows_of_an_image_are_disjoint_and_join_to_its_mask(mask, dialect):
    whole = np.zeros_like(mask)
    for row in rle.rows("id", mask, dialect, class_of(dialect)):
        part = rle.from_text(row[-1], mask.shape, dialect)
        assert row[0] == "id"
        assert not (whole & part).any()
        assert row[-1] == rle.to_text(part, dialect)  # runs that touch are one
        whole |= part
    np.testing.assert_array_equal(whole, mask)


def test_one_row_an_object_where_the_competition_wants_it():
    mask = np.array([[1, 0, 0, 1], [0, 1, 0, 1]], np.uint8)  # a diagonal pair is one object
    assert rle.rows("x", mask, rle.DIALECTS["dsb2018"]) == [("x", "1 1 4 1"), ("x", "7 2")]
    assert rle.rows("x", mask, rle.DIALECTS["carvana"]) == [("x", "1 1 4 1 6 1 8 1")]


# --- tables of run lengths


@pytest.fixture
def table(tmp_path):
    """Write a table and read it."""

    def write(text, name="train.csv"):
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return rle_table.read(path)

    return write


def test_several_rows_an_image_are_one_mask_and_ids_stay_text(table):
    read = table("ImageId,EncodedPixels\nb.png,1 1\n007,\nNA,2 1\n\nb.png,6 1\nb.png,-1\n")
    assert read.ids == ("b.png", "007", "NA")
    assert read.classes == ()
    assert read.columns == ("ImageId", "EncodedPixels")
    assert read.runs("b.png") == [(2, "1 1"), (6, "6 1")]  # the line of the file, the blank one counted
    tgs, carvana = rle.DIALECTS["tgs"], rle.DIALECTS["carvana"]
    assert read.mask("b.png", "", (2, 3), tgs).tolist() == [[1, 0, 0], [0, 0, 1]]
    assert read.mask("NA", "", (2, 3), carvana).tolist() == [[0, 1, 0], [0, 0, 0]]
    assert read.mask("NA", "", (2, 3), tgs).tolist() == [[0, 0, 0], [1, 0, 0]]
    assert read.runs("007") == []
    assert not read.mask("007", "", (2, 3), tgs).any()


@pytest.mark.parametrize("cell", ["", "nan", "NaN", "-1", " -1", "-", "1 0"])
def test_all_the_signs_for_an_empty_mask(table, cell):
    read = table(f"id,rle_mask\na,{cell}\nb,1 2\n")
    assert read.ids == ("a", "b")
    assert read.runs("a") == []


def test_classes_as_a_column(table):
    read = table("id,class,segmentation\na,stomach,1 1\na,bowel,\nb,bowel,2 2\na,spleen,3 1\nc,,\n")
    assert read.classes == ("bowel", "spleen", "stomach")
    assert read.runs("a", "stomach") == [(2, "1 1")]
    assert read.runs("a", "spleen") == [(5, "3 1")]
    assert read.runs("a", "bowel") == read.runs("b", "stomach") == read.runs("c") == []
    assert read.mask("a", "", (1, 3), rle.DIALECTS["uwmgi"]).tolist() == [[1, 0, 1]]
    with pytest.raises(UserError, match=r"no class liver; it has bowel, spleen, stomach"):
        read.runs("a", "liver")


@pytest.mark.parametrize("name", ["Image_Label", "ImageId_ClassId", "image_Class"])
def test_ids_joined_to_their_class_are_split_at_the_last_underscore(table, name):
    read = table(f"{name},EncodedPixels\na_1.jpg_Fish,1 1\na_1.jpg_Gravel,\n")
    assert (read.ids, read.classes) == (("a_1.jpg",), ("Fish", "Gravel"))
    assert read.runs("a_1.jpg", "Fish") == [(2, "1 1")]
    with pytest.raises(UserError, match=r"line 3: expected <image>_<class> for .*, got 'b.jpg'"):
        table(f"{name},EncodedPixels\na_Fish,1 1\nb.jpg,2 2\n")


def test_underscores_stay_in_an_ordinary_id(table):
    assert table("img,rle_mask\n0cdf_01.jpg,1 1\n").ids == ("0cdf_01.jpg",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is empty"),
        ("image,mask,kfold\na,b,0\n", "no columns .*it has image, mask, kfold"),
        ("id,rle\n", "no rows"),
        ("id,rle\n\n", "no rows"),
        ("id,rle\na,1 1\nb\n", "line 3: 1 cells, expected 2"),
        ("id,rle\na,1 1,2 2\n", "line 2: 3 cells, expected 2"),
        ("id,rle\n,1 1\n", "line 2: no id"),
        ("id,class,rle\na,,1 1\n", r"line 2 \(a\): run lengths, but no class"),
        (b"id,rle\n\xff\xfe,1 1\n", "UTF-8"),
    ],
)
def test_broken_tables_are_refused(table, text, words):
    with pytest.raises(UserError, match=rf"train.csv.*{words}"):
        table(text)


def test_a_missing_table_and_a_missing_id_are_refused(table, tmp_path):
    with pytest.raises(UserError, match=r"none.csv: No such file"):
        rle_table.read(tmp_path / "none.csv")
    with pytest.raises(UserError, match=r"has no id b; its ids look like a"):
        table("id,rle\na,1 1\n").runs("b")


def test_a_broken_mask_names_file_line_and_id(table):
    read = table("id,rle\na,1 1\na,9 9\n")
    with pytest.raises(UserError, match=r"train.csv, line 3 \(a\): a run ends beyond the 3 x 2 pixels"):
        read.mask("a", "", (2, 3), rle.DIALECTS["tgs"])


def test_a_byte_order_mark_and_long_cells(table):
    long = " ".join(f"{start} 1" for start in range(1, 100_001, 2))
    read = table(f'\ufeffid,rle\na,"{long}"\n')
    assert read.columns == ("id", "rle")
    assert read.mask("a", "", (1000, 100), rle.DIALECTS["carvana"]).sum() == 50_000


def test_a_table_is_read_once_by_many_threads_and_again_when_it_changed(table, tmp_path, monkeypatch):
    path, opened = tmp_path / "train.csv", []
    path.write_text("id,rle\na,1 1\n")
    real = rle_table._rows
    monkeypatch.setattr(rle_table, "_rows", lambda path: opened.append(path) or real(path))
    threads = [threading.Thread(target=rle_table.read, args=(path,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == [path]
    path.write_text("id,rle\nb,1 1\n")
    os.utime(path, ns=(1, 1))
    assert rle_table.read(path).ids == ("b",)


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from(["x", "y"]), st.integers(0, 6)), min_size=1, max_size=12
    )
)
def test_scattered_rows_of_a_table_come_back_in_the_files_order(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("rows") / "scattered.csv"  # a name of its own: two may be written in a clock tick
    path.write_text("id,class,rle\n" + "".join(f"{i},{c},{f'{n} 1' * bool(n)}\n" for i, c, n in rows))
    read = rle_table.read(path)
    assert read.ids == tuple(dict.fromkeys(i for i, _, _ in rows))
    for image_id in read.ids:
        for class_name in ("", *read.classes):
            wanted = [
                (line, f"{n} 1")
                for line, (i, c, n) in enumerate(rows, 2)
                if i == image_id and n and class_name in ("", c)
            ]
            assert read.runs(image_id, class_name) == wanted


@pytest.mark.parametrize(
    ("header", "columns", "dialect"),
    [
        (["img", "rle_mask"], ("img", "", "rle_mask"), "carvana"),
        (["id", "rle_mask"], ("id", "", "rle_mask"), "tgs"),
        (["id", "class", "segmentation"], ("id", "class", "segmentation"), "uwmgi"),
        (["ImageId", "EncodedPixels"], ("ImageId", "", "EncodedPixels"), "airbus"),
        (["ImageId", " EncodedPixels"], ("ImageId", "", "EncodedPixels"), "siim"),
        (["id", "encoding"], ("id", "", "encoding"), "hubmap"),
        (["id", "predicted"], ("id", "", "predicted"), "hubmap"),
        (["record_id", "encoded_pixels"], ("record_id", "", "encoded_pixels"), "contrails"),
        (["Id", "Predicted"], ("Id", "", "Predicted"), "vesuvius"),
        (["ImageId", "ClassId", "EncodedPixels"], ("ImageId", "ClassId", "EncodedPixels"), "airbus"),
        (["id", "organ", "rle", "image_id "], ("image_id", "", "rle"), "airbus"),
        (["image", "mask", "group"], None, "airbus"),
        (["EncodedPixels"], None, "airbus"),
        ([], None, "airbus"),
    ],
)
def test_columns_and_dialect_of_a_header(header, columns, dialect):
    assert rle_table.find_columns(header) == columns
    assert rle_table.guess_dialect(header) == dialect


@pytest.mark.parametrize(
    ("text", "kind", "path", "files"),
    [
        ("", "empty", "", []),
        ("masks/a.png", "path", "masks/a.png", ["masks/a.png"]),
        ("masks", "path", "masks", ["masks/a.png", "masks/tumor"]),
        ("masks/{class}/a.png", "class_files", "masks/{class}/a.png", ["masks/tumor/a.png"]),
        ("rle:sub/train.csv#a#1.png", "run_lengths", "sub/train.csv", ["sub/train.csv"]),
    ],
)
def test_a_mask_s_reference_says_its_kind_and_its_files(tmp_path, text, kind, path, files):
    for name in ("masks/a.png", "masks/tumor/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    reference = MaskReference.parse(text)
    assert (str(reference), reference.kind, reference.path) == (text, kind, path)
    assert reference.files(tmp_path, ("liver", "tumor")) == [tmp_path / name for name in files]


def test_references_that_no_table_or_file_can_be_found_by_are_refused(tmp_path):
    assert MaskReference.of_run_lengths("sub/train.csv", "a#1") == MaskReference.parse("rle:sub/train.csv#a#1")
    with pytest.raises(UserError, match="rename it"):
        MaskReference.of_run_lengths("a#b.csv", "x")
    with pytest.raises(UserError, match="no such file"):
        MaskReference.parse("masks/a.png").files(tmp_path, ())
    for text in ("rle:train.csv", "rle:#x", "rle:train.csv#"):
        with pytest.raises(UserError, match="no reference"):
            MaskReference.parse(text)
