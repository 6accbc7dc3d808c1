"""make data: archives of strangers, unpacked whole or not at all."""

import io
import os
import shutil
import stat
import struct
import tarfile
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

import fetch
from conftest import write_instances
from formats import archives
from tools import console

PICTURE = b"not a picture, but bytes " * 40


def make_zip(path, files, compression=zipfile.ZIP_DEFLATED):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return path


def zipped(files):
    """An archive in memory, to lie in another."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files:
            archive.writestr(name, content)
    return buffer.getvalue()


def make_tar(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as tar:
        for name, content, kind in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "../../elsewhere"
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(content))
    return path


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


@pytest.fixture
def clean(workplace):
    """After the test input/ holds only what it held before, and nothing lies outside."""
    (workplace / "input" / "other").mkdir()
    (workplace / "input" / "other" / "kept.txt").write_text("kept")
    yield workplace
    assert names(workplace / "input") == ["other"]
    assert sorted({*names(workplace)} - {"input", "bin"}) in (["hostile.zip"], ["hostile.tar.gz"], [])


def test_a_competitions_archive_is_unpacked_found_and_the_next_command_named(workplace, capsys):
    write_instances(workplace / "made", 4)
    shutil.make_archive("bowl", "zip", "made")
    assert fetch.main(["ZIP=bowl.zip"]) == 0
    said = capsys.readouterr().out
    assert tree("input/bowl") == tree("made")
    assert "DATASET=bowl, after the archive; the next commands need it too." in said
    assert "2018 Data Science Bowl" in said and "4 pairs" in said
    assert "2 test images in input/bowl/stage1_test" in said
    assert said.endswith("Next: make folds DATASET=bowl\n")
    assert names("input") == ["bowl"]
    assert stat.S_IMODE(Path("input/bowl").stat().st_mode) == stat.S_IMODE(Path("made").stat().st_mode)


@pytest.mark.parametrize(("ending", "kind"), [(".tar", "tar"), (".tar.gz", "gztar"), (".tgz", "gztar")])
def test_tars_and_a_name_given(workplace, ending, kind, capsys):
    write_instances(workplace / "made", 2)
    Path(shutil.make_archive("b", kind, "made")).rename(f"bowl{ending}")
    assert fetch.main([f"ZIP=bowl{ending}", "DATASET=cells", "MASK_PATH=a b"]) == 0
    said = capsys.readouterr().out
    assert tree("input/cells") == tree("made")
    assert "after the archive" not in said
    assert said.endswith("Next: make folds DATASET=cells 'MASK_PATH=a b'\n")


def test_what_no_layout_knows_is_kept_and_table_named(workplace, capsys):
    make_zip(workplace / "odd one (1).zip", [("notes.txt", "x"), ("deep/er/x.png", PICTURE)])
    assert fetch.main(["ZIP=odd one (1).zip"]) == 0
    said = capsys.readouterr().out
    assert tree("input/odd-one-1") == ["deep/er/x.png", "notes.txt"]
    for words in ("deep/", "notes.txt", "TABLE=my.csv", "No test images", "Next: make folds DATASET=odd-one-1"):
        assert words in said


@pytest.mark.parametrize(
    "name", ["../out.png", "a/../../out.png", "/tmp/out.png", "C:/out.png", "C:out.png", "a\\..\\out.png", "a\nb.png",
             "a\x1b[2J.png", "..", "a/.."]
)  # fmt: skip
@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
def test_names_that_lead_out_are_refused(clean, refused, name, ending):
    path = clean / f"hostile{ending}"
    if ending == ".zip":
        make_zip(path, [("fine.png", PICTURE), (name, b"x")])
    else:
        make_tar(path, [("fine.png", PICTURE, tarfile.REGTYPE), (name, b"x", tarfile.REGTYPE)])
    said = refused(fetch.main, [f"ZIP={path.name}"], "leads out", repr(name), "nothing is unpacked")
    assert "\x1b" not in said


def test_a_name_with_a_nul_is_refused(clean, refused):
    make_zip(clean / "hostile.zip", [("fineXpng", PICTURE)])
    content = (clean / "hostile.zip").read_bytes().replace(b"fineXpng", b"fine\0png")
    (clean / "hostile.zip").write_bytes(content)
    refused(fetch.main, ["ZIP=hostile.zip"], "'fine\\x00png'")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE], ids=str
)
def test_links_and_devices_in_a_tar_are_refused(clean, refused, kind):
    make_tar(clean / "hostile.tar.gz", [("fine.png", PICTURE, tarfile.REGTYPE), ("bad", b"", kind)])
    refused(fetch.main, ["ZIP=hostile.tar.gz"], "'bad'", "link or a device")


def test_a_link_in_a_zip_is_refused(clean, refused):
    link = zipfile.ZipInfo("bad")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    make_zip(clean / "hostile.zip", [("fine.png", PICTURE), (link, "../../other")])
    refused(fetch.main, ["ZIP=hostile.zip"], "'bad'", "link or a device")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "twice", [("a.png", "a.png"), ("x/A.png", "x/a.PNG"), ("a/./b.png", "a//b.png"), ("\u00e9.png", "e\u0301.png")]
)
def test_a_name_twice_is_refused(clean, refused, twice):
    make_zip(clean / "hostile.zip", [(name, PICTURE) for name in twice])
    refused(fetch.main, ["ZIP=hostile.zip"], "twice")


def test_a_file_that_is_also_a_folder_is_refused(clean, refused):
    make_zip(clean / "hostile.zip", [("a", PICTURE), ("A/b.png", PICTURE)])
    refused(fetch.main, ["ZIP=hostile.zip"], "both as a file and as a folder")


def test_a_bomb_is_refused_by_its_headers(clean, refused, monkeypatch):
    monkeypatch.setattr(archives, "HONEST", 10**6)
    make_zip(clean / "hostile.zip", [(f"{part}.png", bytes(8 * 10**6)) for part in range(2)])
    monkeypatch.setattr(archives, "RATIO", 100)
    refused(fetch.main, ["ZIP=hostile.zip"], "zip bomb")


def test_a_bomb_of_tar_is_refused_before_it_is_read_to_its_end(clean, refused, monkeypatch):
    make_tar(clean / "hostile.tar.gz", [(f"{part}.png", bytes(4 * 10**6), tarfile.REGTYPE) for part in range(4)])
    monkeypatch.setattr(archives, "HONEST", 10**6)
    monkeypatch.setattr(archives, "RATIO", 100)
    read, seen = tarfile.TarFile.next, []
    monkeypatch.setattr(tarfile.TarFile, "next", lambda tar: seen.append(1) or read(tar))
    refused(fetch.main, ["ZIP=hostile.tar.gz"], "zip bomb")
    assert len(seen) <= 3


def test_a_bomb_within_is_refused(clean, refused, monkeypatch):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.png", bytes(8 * 10**6))
    make_zip(clean / "hostile.zip", [("inner.zip", inner.getvalue())])
    monkeypatch.setattr(archives, "HONEST", 10**6)
    monkeypatch.setattr(archives, "RATIO", 100)
    refused(fetch.main, ["ZIP=hostile.zip"], "inner.zip in hostile.zip", "zip bomb")


def test_bytes_are_counted_while_unpacking_because_headers_lie(clean, refused, monkeypatch):
    make_zip(clean / "hostile.zip", [("a.png", bytes(300_000))])
    monkeypatch.setattr(archives, "HONEST", 100_000)
    monkeypatch.setattr(archives, "RATIO", 1)
    monkeypatch.setattr(archives, "BLOCK", 40_000)
    honest = archives._zip_entries
    lying = lambda *args: (archives.Entry(entry.name, 10, entry.open) for entry in honest(*args))  # noqa: E731
    monkeypatch.setattr(archives, "_zip_entries", lying)
    refused(fetch.main, ["ZIP=hostile.zip"], "zip bomb")
    monkeypatch.setattr(archives, "HONEST", 10**6)
    refused(fetch.main, ["ZIP=hostile.zip"], "300000 bytes where 10 are promised")


def test_a_full_disk_is_foreseen(clean, refused, monkeypatch):
    make_zip(clean / "hostile.zip", [("a.png", bytes(3 * 10**6))])
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**10, 0, archives.SPARE + 2 * 10**6))
    refused(fetch.main, ["ZIP=hostile.zip"], "3 MB", "2 MB", "Make room")


def test_an_encrypted_zip_is_refused(clean, refused):
    make_zip(clean / "hostile.zip", [("a.png", PICTURE)])
    content = bytearray((clean / "hostile.zip").read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.index(mark) + offset
        struct.pack_into("<H", content, place, 1)
    (clean / "hostile.zip").write_bytes(content)
    refused(fetch.main, ["ZIP=hostile.zip"], "needs a password", "'a.png'")


@pytest.mark.parametrize("damage", ["cut", "byte", "deflate", "text", "empty", "method"])
def test_a_broken_zip_is_refused(clean, refused, damage):
    path = make_zip(
        clean / "hostile.zip",
        [("a.png", os.urandom(5000)), ("b.png", PICTURE)],
        zipfile.ZIP_DEFLATED if damage == "deflate" else zipfile.ZIP_STORED,
    )
    content = bytearray(path.read_bytes())
    content[2000] ^= 1 if damage == "byte" else 0
    content[35] |= 7 if damage == "deflate" else 0  # a kind of block that there is none of
    if damage == "method":
        struct.pack_into("<H", content, content.index(b"PK\x01\x02") + 10, 9)
    changed = {"cut": content[:4000], "text": b"<html>Sign in</html>", "empty": b""}
    path.write_bytes(changed.get(damage, content))
    refused(fetch.main, ["ZIP=hostile.zip"], "hostile.zip is no whole archive", "Download it again")


@pytest.mark.parametrize("damage", ["cut", "byte", "text", "checksum"])
def test_a_broken_tar_is_refused(clean, refused, damage):
    path = make_tar(clean / "hostile.tar.gz", [("a.png", os.urandom(50_000), tarfile.REGTYPE)])
    content = bytearray(path.read_bytes())
    content[{"byte": 9000, "checksum": -6}.get(damage, -1)] ^= 255 if damage in ("byte", "checksum") else 0
    changed = {"cut": content[:30_000], "text": b"<html>Sign in</html>"}
    path.write_bytes(changed.get(damage, content))
    refused(fetch.main, ["ZIP=hostile.tar.gz"], "hostile.tar.gz is no whole archive")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ["ZIP=", "COMPETITION="]),
        (["ZIP=a.zip", "COMPETITION=b"], ["one of these"]),
        (["ZIP=nowhere.zip"], ["is not there"]),
        (["ZIP=input"], ["is a folder"]),
        (["ZIP=notes.7z"], ["is no archive", ".tar.gz"]),
        (["COMPETITION=a b"], ["address"]),
        (["COMPETITION=-p"], ["address"]),
        (["ZIP=fine.zip", "DATASET=../x"], ["folder's name"]),
        (["ZIP=fine.zip", "INPUT=."], ["the folder we are in"]),
        (["ZIP=fine.zip", "OVERWRITE=maybe"], ["1 or 0"]),
        (["ZIPP=fine.zip"], ["Did you mean ZIP?"]),
        (["ZIP=empty.zip"], ["is empty"]),
    ],
)
def test_wrong_calls(workplace, refused, argv, words):
    make_zip(workplace / "fine.zip", [("a.png", PICTURE)])
    make_zip(workplace / "empty.zip", [(".DS_Store", "x")])
    (workplace / "notes.7z").write_text("x")
    refused(fetch.main, argv, *words)
    assert names("input") == []


def test_leftovers_of_macos_and_windows_stay_out(workplace, capsys):
    brought = ["a.png", "__MACOSX/._a.png", "x/.DS_Store", "x/Thumbs.db", "x/b.png", "x/._b.png"]
    make_zip(workplace / "x.zip", [(name, PICTURE) for name in brought])
    assert fetch.main(["ZIP=x.zip"]) == 0
    assert tree("input/x") == ["a.png", "x/b.png"]
    assert "2 files, 0.0 MB -> input/x; 4 files of macOS or Windows left out." in capsys.readouterr().out


def test_archives_within_are_unpacked_where_they_belong(workplace, capsys):
    deepest = zipped([("too deep.zip", zipped([("z.png", PICTURE)])), ("y.png", PICTURE)])
    make_zip(
        workplace / "x.zip",
        [
            ("train.zip", zipped([("train/a.png", PICTURE), ("__MACOSX/._a", b"x")])),
            ("stage1_test.zip", zipped([("id/images/id.png", PICTURE)])),
            ("train_masks.csv.zip", zipped([("train_masks.csv", "img,rle_mask\n")])),
            ("more/one.zip", zipped([("two.zip", deepest)])),
        ],
    )
    assert fetch.main(["ZIP=x.zip"]) == 0
    assert tree("input/x") == [
        "more/one/two/too deep.zip", "more/one/two/y.png", "stage1_test/id/images/id.png", "train/a.png",
        "train_masks.csv",
    ]  # fmt: skip
    said = capsys.readouterr().out
    assert "Unpacked from within: train.zip, stage1_test.zip, train_masks.csv.zip, two.zip, one.zip." in said
    assert "left packed: too deep.zip" in said


def test_the_room_of_an_archive_within_is_given_back(workplace, monkeypatch):
    make_zip(workplace / "x.zip", [(f"{name}.zip", zipped([("a.png", bytes(10**6))])) for name in "ab"])
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**10, 0, archives.SPARE + 35 * 10**5))
    assert fetch.main(["ZIP=x.zip"]) == 0
    assert tree("input/x") == ["a/a.png", "b/a.png"]


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ([("in.zip", zipped([("../../out.png", PICTURE)]))], "in.zip in hostile.zip"),
        ([("in.zip", b"a text")], "in.zip in hostile.zip is no whole archive"),
        ([("...zip", zipped([("other", PICTURE)]))], "no name but its ending"),
        ([("x/..zip", zipped([("other", PICTURE)]))], "no name but its ending"),
        ([("in/a.png", PICTURE), ("in.zip", zipped([("a.png", PICTURE)]))], "'a.png', which another"),
        ([("in", PICTURE), ("in.zip", zipped([("a/b.png", PICTURE)]))], "'a/b.png', which another"),
    ],
)
def test_an_archive_within_is_checked_as_the_outer_one(clean, refused, files, word):
    make_zip(clean / "hostile.zip", files)
    refused(fetch.main, ["ZIP=hostile.zip"], word)


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        (["set-main/images/a.png", "set-main/masks/a.png"], ["images/a.png", "masks/a.png"]),
        (["set-main/images/a.png", "readme.md"], ["readme.md", "set-main/images/a.png"]),
        (["one/a.png", "two/b.png"], ["one/a.png", "two/b.png"]),
        (["stage1_train/id/images/a.png"], ["stage1_train/id/images/a.png"]),
        (["set/set/a.png"], ["set/a.png"]),
    ],
)
def test_a_single_top_folder_is_left_out(workplace, inside, expected):
    make_zip(workplace / "x.zip", [(name, PICTURE) for name in inside])
    assert fetch.main(["ZIP=x.zip"]) == 0
    assert tree("input/x") == expected


def test_an_existing_folder_is_refused_or_replaced(workplace, refused):
    make_zip(workplace / "x.zip", [("new.png", PICTURE), ("b.png", PICTURE)])
    make_zip(workplace / "input/x/deep/old.zip", [])
    refused(fetch.main, ["ZIP=x.zip"], "input/x holds", "deep", "OVERWRITE=1", "DATASET=name")
    assert tree("input/x") == ["deep/old.zip"]
    assert fetch.main(["ZIP=x.zip", "OVERWRITE=1"]) == 0
    assert tree("input") == ["x/b.png", "x/new.png"]


def test_the_old_folder_stays_where_the_new_one_is_broken(workplace, refused):
    (workplace / "x.zip").write_text("a text")
    make_zip(workplace / "input/x/old.zip", [])
    refused(fetch.main, ["ZIP=x.zip", "OVERWRITE=1"], "no whole archive")
    assert tree("input") == ["x/old.zip"]


def test_a_link_as_target_is_refused(workplace, refused):
    make_zip(workplace / "x.zip", [("new.png", PICTURE)])
    (workplace / "elsewhere").mkdir()
    Path("input/x").symlink_to(workplace / "elsewhere")
    refused(fetch.main, ["ZIP=x.zip", "OVERWRITE=1"], "a link")


@pytest.mark.parametrize(
    ("typed", "extra"), [("input/x/x.zip", []), ("input/x/../x/x.zip", []), ("input/x/x.zip", ["OVERWRITE=1"])]
)
def test_an_archive_in_the_dataset_s_own_folder_stays(workplace, capsys, typed, extra):
    archive = make_zip(workplace / "input" / "x" / "x.zip", [("a.png", PICTURE), ("b.png", PICTURE)])
    (workplace / "input" / "x" / ".DS_Store").write_text("x")
    content = archive.read_bytes()
    assert fetch.main([f"ZIP={typed}", *extra]) == 0
    assert tree("input") == ["x/a.png", "x/b.png", "x/x.zip"]
    assert archive.read_bytes() == content
    assert "The archive stays where it was, input/x/x.zip." in capsys.readouterr().out


@pytest.mark.parametrize("moment", ["unpacking", "before the swap", "within the swap", "after the swap"])
def test_ctrl_c_leaves_nothing_half_done_and_loses_nothing(workplace, monkeypatch, moment):
    archive = make_zip(workplace / "input" / "x" / "x.zip", [("a.png", PICTURE), ("b.png", PICTURE)])
    content = archive.read_bytes()
    (workplace / "input" / "x" / "old.txt").write_text("old")

    def stopped(items, total, label):
        yield items[0]
        raise KeyboardInterrupt

    replace = os.replace

    def half(source, target):
        first, second = Path(target).name == "old", Path(source).name == "whole"
        if (moment == "before the swap" and first) or (moment == "within the swap" and second):
            raise KeyboardInterrupt
        replace(source, target)
        if moment == "after the swap" and second:
            raise KeyboardInterrupt

    if moment == "unpacking":
        monkeypatch.setattr(console, "track", stopped)
    monkeypatch.setattr(os, "replace", half)
    assert fetch.main(["ZIP=input/x/x.zip", "OVERWRITE=1"]) == 130
    new = ["x/a.png", "x/b.png", "x/x.zip"]
    assert tree("input") == (new if moment == "after the swap" else ["x/old.txt", "x/x.zip"])
    assert archive.read_bytes() == content
    assert names("input") == ["x"]


@pytest.fixture
def kaggle(clean, monkeypatch):
    """A client of Kaggle that does what the test tells it in shell."""

    def write(script):
        client = clean / "bin" / "kaggle"
        client.parent.mkdir(exist_ok=True)
        client.write_text(f'#!/bin/sh\necho "$@" > bin/typed\n{script}\n')
        client.chmod(0o755)
        monkeypatch.setenv("PATH", f"{client.parent}:{os.environ['PATH']}")
        return client.parent

    return write


@pytest.mark.parametrize("name", ["some-cells-2", "https://www.kaggle.com/competitions/some-cells-2/data"])
def test_a_competition_is_downloaded_and_unpacked(kaggle, clean, capsys, name):
    bin_folder = kaggle('cp bin/some-cells-2.zip "$6"; echo 100% >&2')
    make_zip(bin_folder / "some-cells-2.zip", [("a.png", PICTURE), ("test/b.png", PICTURE)])
    assert fetch.main([f"COMPETITION={name}"]) == 0
    said = capsys.readouterr()
    typed = (bin_folder / "typed").read_text().split()
    assert typed[:5] == ["competitions", "download", "-c", "some-cells-2", "-p"]
    assert "100%" in said.err
    assert "DATASET=some-cells-2, after the competition" in said.out
    assert said.out.endswith("Next: make folds DATASET=some-cells-2\n")
    assert tree("input/some-cells-2") == ["a.png", "test/b.png"]
    shutil.rmtree("input/some-cells-2")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo '403 Client Error: Forbidden for url' >&2; exit 1", ["403 Client Error", "competitions/cells/rules"]),
        ("echo 'Authentication required to call the Kaggle API.'; exit 1", ["Log in", "settings/api"]),
        ("echo '401 - Unauthorized'; exit 1", ["Log in"]),
        ("echo 'OSError: Could not find kaggle.json.'; exit 1", ["Log in"]),
        ("echo '404 Client Error'; exit 1", ["Is there a competition at"]),
        ("echo strange; exit 1", ["strange", "competitions/cells/data"]),
        ("exit 0", ["no archive of cells"]),
        ('touch "$6/a.csv"', ["no archive of cells"]),
        ('cp bin/kaggle "$6/cells.zip"; exit 1', ["no archive of cells"]),
        ('cp bin/kaggle "$6/cells.zip"', ["cells.zip is no whole archive"]),
    ],
)
def test_what_kaggle_refuses_comes_with_its_cure(kaggle, capsys, script, words):
    kaggle(script)
    assert fetch.main(["COMPETITION=cells"]) == 2
    said = capsys.readouterr().err
    assert "error: " in said and "Traceback" not in said
    for word in words:
        assert word in said


def test_without_the_client_the_page_is_named(clean, refused, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(fetch.sys, "executable", "/nowhere/python")
    refused(
        fetch.main, ["COMPETITION=cells"], "/nowhere/python -m pip install kaggle", "competitions/cells/data", "ZIP="
    )


def test_a_refusal_leaves_no_empty_input_folder_behind(workplace, refused):
    Path("input").rmdir()
    make_zip(Path("bad.zip"), [("../out.txt", "x")])
    refused(fetch.main, ["ZIP=bad.zip", "DATASET=bowl"])
    assert not Path("input").exists()
