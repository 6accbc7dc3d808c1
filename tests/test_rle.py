"""Run lengths in both orders, against pycocotools and a loop over pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp

import rle
from errors import UserError

MASKS = stnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 1))


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


@given(MASKS, st.sampled_from("CF"))
def test_encoding_is_the_definition_and_decoding_its_inverse(mask, order):
    text = rle.encode(mask, order)
    assert text == by_loop(mask, order)
    np.testing.assert_array_equal(rle.decode(text, mask.shape, order), mask)


@given(MASKS)
def test_column_order_agrees_with_pycocotools(mask):
    from pycocotools import mask as coco

    ours = np.array(rle.encode(mask, "F").split(), int).reshape(-1, 2)
    gaps, end = [], 0
    for start, length in ours:
        gaps += [int(start - 1 - end), int(length)]
        end = start - 1 + length
    gaps.append(int(mask.size - end))
    theirs = coco.frPyObjects({"size": list(mask.shape), "counts": gaps}, *mask.shape)
    np.testing.assert_array_equal(coco.decode(theirs), mask)
    assert coco.area(theirs) == ours[:, 1].sum()


def test_known_values():
    mask = np.array([[0, 1, 1], [1, 1, 0]], np.uint8)
    assert rle.encode(mask, "C") == "2 4"
    assert rle.encode(mask, "F") == "2 4"
    assert rle.encode(np.eye(3, dtype=np.uint8), "C") == "1 1 5 1 9 1"
    assert rle.encode(np.zeros((2, 2)), "C") == ""
    assert rle.encode(np.ones((2, 2)), "F") == "1 4"


@pytest.mark.parametrize(
    ("text", "word"),
    [
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
    ],
)
def test_broken_run_lengths_are_refused(text, word):
    with pytest.raises(UserError, match=f"row 7: .*{word}"):
        rle.decode(text, (2, 3), "C", "row 7")


@given(MASKS, st.sampled_from(list(rle.DIALECTS.values())))
def test_the_rows_of_an_image_are_disjoint_and_join_to_its_mask(mask, dialect):
    whole = np.zeros_like(mask)
    rows = rle.rows("id", mask, dialect)
    for image_id, text in rows:
        part = rle.decode(text, mask.shape, dialect.order)
        assert image_id == "id"
        assert not (whole & part).any()
        assert text == rle.encode(part, dialect.order)  # runs that touch are one
        whole |= part
    np.testing.assert_array_equal(whole, mask)


def test_one_row_an_object_where_the_competition_wants_it():
    mask = np.array([[1, 0, 0, 1], [0, 1, 0, 1]], np.uint8)  # a diagonal pair is one object
    assert rle.rows("x", mask, rle.DIALECTS["dsb2018"]) == [("x", "1 1 4 1"), ("x", "7 2")]
    assert rle.rows("x", mask, rle.DIALECTS["carvana"]) == [("x", "1 1 4 1 6 1 8 1")]
    assert rle.rows("x", mask * 0, rle.DIALECTS["dsb2018"]) == [("x", "")]
