"""make folds through its door: layouts, groups, balance, leaks, a user's own table."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.model_selection import StratifiedGroupKFold

import folds
from conftest import NUCLEI, TINY, write_instances, write_mask
from data import splits

TABLE = Path("output/demo/train_folds.csv")


def read(path=TABLE):
    return pd.read_csv(path, dtype=str, keep_default_na=False)


@pytest.mark.main
def test_carvanas_layout_is_found_with_its_cars_as_groups(demo_data, capsys):
    assert folds.main(TINY) == 0
    said = capsys.readouterr().out
    assert "Carvana's layout" in said and "64 pairs" in said
    assert said.count("<->") == 5
    frame = read()
    assert list(frame) == ["image", "mask", "group", "stratum", "kfold"]
    assert list(frame["image"]) == sorted(frame["image"])
    assert frame.groupby("group")["kfold"].nunique().tolist() == [1, 1, 1, 1]
    assert frame["kfold"].value_counts().to_dict() == {"0": 32, "1": 32}
    assert all(
        Path(mask).stem == f"{Path(image).stem}_mask" for image, mask in zip(frame["image"], frame["mask"], strict=True)
    )
    about = json.loads(TABLE.with_suffix(".json").read_text())
    assert about["layout"] == "carvana" and len(about["balance"]) == 2
    assert Image.open("output/demo/folds.png").size[0] > 500


def test_one_folder_an_image_is_found_with_its_masks(workplace, capsys):
    write_instances(Path("input/cells"), 10)
    assert folds.main(["DATASET=cells", "N_FOLDS=3"]) == 0
    frame = read("output/cells/train_folds.csv")
    assert len(frame) == 10
    assert frame["mask"][3] == "stage1_train/id03/masks"
    assert sorted(frame["kfold"].value_counts()) == [3, 3, 4]
    assert json.loads(Path("output/cells/train_folds.json").read_text())["dialect"] == "dsb2018"


@pytest.mark.main
def test_the_same_seed_gives_the_same_bytes_whatever_the_order_of_the_files(demo_data, workplace):
    folds.main(TINY)
    first = TABLE.read_bytes()
    shutil.rmtree("output")
    entries = sorted(Path("input/demo/train_hq").iterdir(), reverse=True)
    for path in entries:  # another order in the directory
        path.rename(path.with_suffix(".moved"))
        path.with_suffix(".moved").rename(path)
    folds.main(TINY)
    assert TABLE.read_bytes() == first
    ours = list(read()["kfold"])

    def dealt(seed):
        assert folds.main([*TINY, f"FOLDS_SEED={seed}", "OVERWRITE=1"]) == 0
        return list(read()["kfold"])

    assert any(dealt(seed) != ours for seed in range(2, 8))  # the seed does something


def test_what_has_no_partner_is_listed_and_stops(demo_data, refused):
    masks = sorted((demo_data / "train_masks").iterdir())
    masks[0].unlink()
    shutil.copy(
        demo_data / "train_hq" / f"{masks[1].stem.removesuffix('_mask')}.jpg", demo_data / "train_hq" / "new_01.jpg"
    )
    refused(folds.main, TINY, "2 without a partner", masks[0].stem.removesuffix("_mask"), "new_01.jpg")
    assert not TABLE.exists()


def test_everything_broken_is_listed_at_once(demo_data, refused):
    pictures, masks = sorted((demo_data / "train_hq").iterdir()), sorted((demo_data / "train_masks").iterdir())
    pictures[0].write_bytes(pictures[0].read_bytes()[:1500])
    pictures[1].write_bytes(b"")
    write_mask(masks[2], np.ones((5, 5)))
    Image.fromarray(np.arange(64 * 96, dtype=np.uint8).reshape(64, 96)).save(masks[3].with_suffix(".png"))
    masks[3].unlink()
    names = [path.name for path in (pictures[0], pictures[1], masks[2])]
    refused(folds.main, TINY, "4 broken or mismatched pairs", *names, masks[3].stem, "grays between the two levels")
    assert not Path("output").exists()


def test_twenty_alike_are_one_sentence_with_a_count(demo_data, refused):
    masks = sorted((demo_data / "train_masks").iterdir())
    for mask in masks[1:]:
        write_mask(mask, np.ones((5, 5)))
    said = refused(folds.main, TINY, f"{len(masks) - 1} broken", f"And {len(masks) - 2} more alike", masks[1].name)
    assert said.count("5 x 5") == 1


def test_empty_masks_only_are_refused(workplace, refused):
    write_instances(Path("input/cells"), 4)
    for mask in Path("input/cells").glob("*/*/masks/*.png"):
        write_mask(mask, np.zeros((40, 48)))
    refused(folds.main, ["DATASET=cells", "N_FOLDS=2"], "all 4 masks are empty")


@pytest.mark.main
def test_an_image_mirrored_into_another_fold_is_refused_and_can_be_tied(demo_data, refused, capsys):
    folds.main(TINY)
    frame = read()
    source = frame[frame["kfold"] == "0"].iloc[0]
    shutil.rmtree("output")
    for number, turn in enumerate([Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180]):
        for column, folder, name in (
            ("image", "train_hq", f"copy{number}_01.png"),
            ("mask", "train_masks", f"copy{number}_01_mask.png"),
        ):
            Image.open(demo_data / source[column]).convert("RGB" if column == "image" else "L").transpose(turn).save(
                demo_data / folder / name
            )
    table = Path("own.csv")
    pairs = [(f"train_hq/copy{n}_01.png", f"train_masks/copy{n}_01_mask.png") for n in range(2)]
    rows = [*frame[["image", "mask", "kfold"]].itertuples(index=False, name=None), *((*pair, "1") for pair in pairs)]
    pd.DataFrame(rows, columns=["image", "mask", "kfold"]).to_csv(table, index=False)
    said = refused(
        folds.main, [*TINY, "TABLE=own.csv"], "images lie in two folds", source["image"], "copy0_01.png", "one fold in"
    )
    assert "mirrored" in said
    assert not TABLE.exists()
    assert folds.main([*TINY, "TIE=1"]) == 0
    tied = read()
    same = tied[tied["image"].isin([source["image"], *(pair[0] for pair in pairs)])]
    assert same["group"].nunique() == 1 and same["kfold"].nunique() == 1


@pytest.mark.main
def test_a_group_in_two_folds_is_refused(folds_table, refused):
    frame = read()
    frame.loc[0, "kfold"] = "1" if frame["kfold"][0] == "0" else "0"
    frame.to_csv(TABLE, index=False)
    refused(folds.main, TINY, "1 groups lie in more than one fold", frame["group"][0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda frame: frame.drop(columns="mask"), ["no column mask"]),
        (lambda frame: frame.assign(kfold="x"), ["own.csv: kfold", "whole number"]),
        (lambda frame: frame.assign(kfold="9" * 30), ["whole number"]),
        (lambda frame: frame.head(0), ["has no rows"]),
        (lambda frame: frame.assign(mask=""), ["all 64 masks are empty"]),
        (
            lambda frame: frame.assign(image=["train_hq", *frame["image"][1:]]),
            ["train_hq: a folder, expected an image"],
        ),
        (lambda frame: frame.assign(kfold=frame["kfold"].replace("1", "2")), ["without a gap"]),
        (lambda frame: pd.concat([frame, frame.head(1)]), ["listed twice"]),
        (lambda frame: frame.assign(image=["../../etc/passwd", *frame["image"][1:]]), ["relative to INPUT", "passwd"]),
        (lambda frame: frame.assign(image=["nowhere.jpg", *frame["image"][1:]]), ["nowhere.jpg: no such file"]),
    ],
)
def test_a_broken_table_of_ones_own_ends_in_a_sentence(folds_table, refused, change, words):
    change(read()).to_csv("own.csv", index=False)
    refused(folds.main, [*TINY, "TABLE=own.csv", "OVERWRITE=1"], *words)


def test_a_table_of_ones_own_is_taken_over_with_its_folds(demo_data):
    images = sorted(path.name for path in (demo_data / "train_hq").iterdir())
    rows = [
        {
            "image": f"train_hq/{name}",
            "mask": f"train_masks/{name[:-4]}_mask.gif",
            "kfold": "-1" if i < 16 else str(i // 16 % 2),
        }
        for i, name in enumerate(images)
    ]
    TABLE.parent.mkdir(parents=True)
    pd.DataFrame(rows).to_csv(TABLE, index=False)
    assert folds.main(TINY) == 0
    assert list(read()["kfold"]) == [row["kfold"] for row in rows]
    assert folds.main(TINY) == 0  # and stays


def test_folds_that_pandas_wrote_as_decimals_are_folds(folds_table):
    before = read()["kfold"]
    read().assign(kfold=before + ".0").to_csv("own.csv", index=False)
    assert folds.main([*TINY, "TABLE=own.csv", "OVERWRITE=1"]) == 0
    assert read()["kfold"].equals(before)


def test_a_tie_does_not_move_an_image_to_another_fold(workplace, refused):
    write_instances(Path("input/cells"), 8)
    arguments = ["DATASET=cells", "N_FOLDS=2", "TIE=1"]
    assert folds.main(arguments) == 0
    before = read("output/cells/train_folds.csv").set_index("image")["kfold"]
    first = next(name for name, fold in before.items() if fold == "0").split("/")[1]
    other = next(name for name, fold in before.items() if fold == "1").split("/")[1]
    folder = Path("input/cells/stage1_train")
    shutil.copy(
        folder / first / "images" / f"{first}.png", folder / other / "images" / f"{other}.png"
    )  # now they are tied
    refused(folds.main, arguments, "images in folds", "OVERWRITE=1")
    assert read("output/cells/train_folds.csv").set_index("image")["kfold"].equals(before)
    assert folds.main([*arguments, "OVERWRITE=1"]) == 0


def test_another_table_does_not_replace_the_one_that_is_there(folds_table, refused):
    before = folds_table.read_bytes()
    read().assign(kfold=read()["kfold"].map({"0": "1", "1": "0"})).to_csv("own.csv", index=False)
    refused(folds.main, [*TINY, "TABLE=own.csv"], "made otherwise", "OVERWRITE=1")
    assert folds_table.read_bytes() == before
    assert folds.main([*TINY, "TABLE=own.csv", "OVERWRITE=1"]) == 0
    assert folds_table.read_bytes() != before


def test_a_column_of_ones_own_table_groups(demo_data):
    images = sorted(path.name for path in (demo_data / "train_hq").iterdir())
    rows = [
        {"image": f"train_hq/{name}", "mask": f"train_masks/{name[:-4]}_mask.gif", "day": str(i % 5)}
        for i, name in enumerate(images)
    ]
    pd.DataFrame(rows).to_csv("own.csv", index=False)
    assert folds.main([*TINY, "TABLE=own.csv", "GROUP=column:day"]) == 0
    assert set(read()["group"]) == set("01234")
    assert (read().groupby("group")["kfold"].nunique() == 1).all()


@pytest.mark.parametrize(
    ("group", "words"),
    [
        ("(", ["no regular expression"]),
        ("x", ["exactly one (group)"]),
        ("(nothing)", ["does not match 64 of 64"]),
        ("column:day", ["TABLE="]),
    ],
)
def test_a_group_that_cannot_be_is_refused(demo_data, refused, group, words):
    refused(folds.main, [*TINY, f"GROUP={group}"], *words)


def test_more_folds_than_groups_are_refused(demo_data, refused):
    refused(folds.main, [*TINY, "N_FOLDS=5"], "only 4 groups", "N_FOLDS=4")
    assert folds.main([*TINY, "GROUP=none", "N_FOLDS=7"]) == 0
    assert read()["kfold"].nunique() == 7


def test_new_images_leave_the_old_ones_where_they_were(workplace, capsys):
    write_instances(Path("input/cells"), 9)
    arguments = ["DATASET=cells", "N_FOLDS=3"]
    folds.main(arguments)
    before = read("output/cells/train_folds.csv").set_index("image")["kfold"]
    shutil.rmtree("input/cells")
    write_instances(Path("input/cells"), 15)
    assert folds.main(arguments) == 0
    assert "6 new images" in capsys.readouterr().out
    after = read("output/cells/train_folds.csv").set_index("image")["kfold"]
    assert after[before.index].equals(before)
    assert after.value_counts().max() - after.value_counts().min() <= 2


def test_a_table_that_runs_were_trained_on_is_not_replaced(workplace, refused):
    write_instances(Path("input/cells"), 9)
    arguments = ["DATASET=cells", "N_FOLDS=3"]
    folds.main(arguments)
    run = Path("lightning_logs/x/fold0_seed42")
    run.mkdir(parents=True)
    shutil.copy("output/cells/train_folds.csv", run)
    refused(folds.main, [*arguments, "FOLDS_SEED=1"], "made otherwise", "OVERWRITE=1")
    shutil.rmtree("input/cells")
    write_instances(Path("input/cells"), 12)
    refused(folds.main, arguments, "would change", str(run))
    assert folds.main([*arguments, "OVERWRITE=1"]) == 0


def one_hot(strata):
    return (np.array(strata)[:, None] == np.unique(strata)).astype(float)


def test_images_that_show_a_rare_class_are_spread_over_the_folds():
    """Five classes, each in 5 to 30 of 100 images, often together: no fold is without one of them."""
    for seed in range(10):
        random = np.random.default_rng(seed)
        shown = np.zeros((100, 5))
        for index, count in enumerate((5, 8, 10, 20, 30)):
            shown[random.choice(100, count, replace=False), index] = 1
        features = np.concatenate([np.ones((100, 1)), shown], axis=1)
        assigned = splits.assign(np.ones(100), features, 5, seed)
        per_fold = np.array([shown[assigned == fold].sum(0) for fold in range(5)])
        assert per_fold.min() >= 1
        assert (per_fold.max(0) - per_fold.min(0)).max() <= 3
        assert np.bincount(assigned).tolist() == [20] * 5


@given(
    st.lists(st.tuples(st.integers(1, 9), st.floats(0, 1)), min_size=12, max_size=60),
    st.integers(2, 6),
    st.integers(0, 99),
)
def test_assignment_fills_every_fold_evenly(groups, n_folds, seed):
    sizes, areas = np.array([size for size, _ in groups]), np.array([area for _, area in groups])
    strata = splits.strata(areas, [""] * len(groups), n_folds)
    features = one_hot(strata) * sizes[:, None]
    assigned = splits.assign(sizes, features, n_folds, seed)
    assert assigned.tolist() == splits.assign(sizes, features, n_folds, seed).tolist()
    counts = np.bincount(assigned, weights=sizes, minlength=n_folds)
    assert set(assigned) == set(range(n_folds))
    assert counts.max() - counts.min() <= 2 * sizes.max()


def test_strata_are_as_even_as_sklearns():
    random = np.random.default_rng(0)
    ours, theirs = [], []
    for seed in range(20):
        areas = random.beta(1, 5, 60)
        sizes = np.full(60, 16)
        strata = splits.strata(areas, [""] * 60, 5)
        member = np.repeat(np.arange(60), sizes)
        assigned = splits.assign(sizes, one_hot(strata) * sizes[:, None], 5, seed)
        ours.append(np.std([areas[assigned == fold].mean() for fold in range(5)]))
        peer = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(member, np.array(strata)[member], member)
        theirs.append(np.std([areas[member[valid]].mean() for _, valid in peer]))
    assert np.mean(ours) <= np.mean(theirs) * 1.05


@pytest.mark.skipif(not NUCLEI.is_dir(), reason="the nuclei are not here")
def test_the_real_nuclei_make_folds(workplace, capsys):
    shutil.unpack_archive(NUCLEI / "stage1_train.zip", "input/nuclei/stage1_train")
    assert folds.main(["DATASET=nuclei"]) == 0
    assert "160 pairs" in capsys.readouterr().out
    assert read("output/nuclei/train_folds.csv")["kfold"].value_counts().tolist() == [32] * 5
