"""splits.csv: what is accepted and what is refused, by the only parser, and that several processes lose no line."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from mult.data.disk.splits import check_building, published_list, read_splits, record_building, write_splits
from mult.errors import UserError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "splits.csv"


def test_every_building_has_its_split(path: Path) -> None:
    path.write_text("id,train,val,test\nalder,1,0,0\n\nbirch,0,0,1\ncedar,0,1,0\n")
    assert read_splits(path) == {"alder": "train", "birch": "test", "cedar": "val"}


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_order_of_columns_other_columns_and_a_byte_order_mark_do_not_matter(path: Path, newline: str) -> None:
    lines = ["val,note,id,test,train", '0,"a, b",alder,0,1', "1,,birch,0,0"]
    path.write_bytes(("\ufeff" + newline.join(lines) + newline).encode())
    assert read_splits(path) == {"alder": "train", "birch": "val"}
    check_building(path, "cedar", "test")
    record_building(path, "cedar", "test")
    assert path.read_text() == "\n".join([*lines, "0,,cedar,1,0"]) + "\n"
    assert read_splits(path) == {"alder": "train", "birch": "val", "cedar": "test"}


def test_a_new_file_is_written(path: Path) -> None:
    check_building(path, "alder", "train")
    assert not list(path.parent.iterdir())
    record_building(path, "alder", "train")
    record_building(path, "birch", "test")
    assert path.read_text() == "id,train,val,test\nalder,1,0,0\nbirch,0,0,1\n"
    other = path.with_name("other.csv")
    write_splits(other, {"alder": "train", "birch": "test"})
    assert other.read_text() == path.read_text()


def test_a_building_keeps_its_split(path: Path) -> None:
    record_building(path, "alder", "train")
    written = path.stat().st_mtime_ns
    record_building(path, "alder", "train")
    assert path.stat().st_mtime_ns == written
    for function in (check_building, record_building):
        message = r"splits\.csv: got building 'alder' for split 'val'; expected 'train', in which it is there, .*; name another"
        with pytest.raises(UserError, match=message):
            function(path, "alder", "val")
        with pytest.raises(UserError, match=r"^split: got 'tran'; expected one of train, val, test; did you mean 'train'\?$"):
            function(path, "birch", "tran")
    assert read_splits(path) == {"alder": "train"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"got the columns \[\]; expected id,train,val,test; write them as the file's first line"),
        ("building,split\nalder,train\n", r"got the columns \['building', 'split'\]; expected id,train,val,test"),
        ("id,train,val,test,train\nalder,1,0,0,0\n", r"got the columns \[.*\]; expected id,train,val,test"),
        ("id,train,val,test\nalder,true,0,0\n", r"alder: train: got 'true'; expected 0 or 1; correct the line"),
        ("id,train,val,test\nalder,1,0\n", r"alder,1,0: got 3 values; expected 4; correct the line"),
        ("id,train,val,test\nalder,1,0,0,0\n", r"alder,1,0,0,0: got 5 values; expected 4; correct the line"),
        ("id,train,val,test\nalder,1,0,1\n", r"alder: got the splits train, test; expected one; mark one of train, val, test"),
        (
            "id,train,val,test\nalder,0,0,0\n",
            r"alder: got the splits \(none\); expected one; mark one of .* or remove the line",
        ),
        ("id,train,val,test\nalder,1,0,0\nbirch,1,0,0\nalder,1,0,0\n", r"alder: got more than one line; expected one a build"),
        ("id,train,val,test\nalder,1,0,0\nalder,0,0,1\n", r"alder: got more than one line; .*; remove the others"),
    ],
)
def test_what_is_unclear_is_refused_by_name(path: Path, text: str, message: str) -> None:
    path.write_text(text)
    for function in (
        read_splits,
        lambda path: check_building(path, "cedar", "val"),
        lambda path: record_building(path, "c", "val"),
    ):
        with pytest.raises(UserError, match=rf"splits\.csv: {message}"):
            function(path)
    assert path.read_text() == text


@pytest.mark.parametrize("content", ["id,train,val,test\nalder,1,0,0\n".encode("utf-16"), b"\xff\xfe\xfa"])
def test_what_is_no_csv_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"splits\.csv: got "):
        read_splits(path)


@pytest.mark.parametrize("name", ["taskonomy_tiny", "taskonomy_medium", "taskonomy_full", "taskonomy_fullplus", "replica"])
def test_published_lists_are_accepted(name: str) -> None:
    assert set(read_splits(published_list(name)).values()) == {"train", "val", "test"}


def test_processes_lose_no_line_of_each_other(path: Path) -> None:
    buildings = {f"building_{number:02d}": ("train", "val", "test")[number % 3] for number in range(60)}
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.starmap(record_building, [(path, building, split) for building, split in buildings.items()], chunksize=1)
    assert read_splits(path) == buildings
    assert sorted(each.name for each in path.parent.iterdir()) == [".splits.csv.lock", "splits.csv"]
