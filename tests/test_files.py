"""files.py: a file is there whole or not at all, and nothing stays of a killed process."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mult import files
from mult.files import (
    is_temporary,
    map_array,
    read_arrays,
    read_json,
    remove_folder,
    write_array,
    write_arrays,
    write_file,
    write_folder,
    write_json,
    write_link,
    write_text,
)

ROOT = Path(__file__).resolve().parents[1]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may grow beyond so many bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# --- Whole or not at all ---


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    write_json(path, {"a": [1, None, "ü"]})
    assert read_json(path) == {"a": [1, None, "ü"]}
    write_text(path, "Grüße\n")
    assert path.read_bytes() == "Grüße\n".encode()
    arrays = {"rmse": np.arange(5.0), "names": np.array(["a", "ü"])}
    write_arrays(path, arrays)
    again = read_arrays(path)
    assert list(again) == list(arrays)
    assert all(np.array_equal(again[name], arrays[name]) for name in arrays)
    for array in (arrays["rmse"], np.asfortranarray(np.arange(6).reshape(2, 3)), np.zeros((0, 3))):
        write_array(path, array)
        assert np.array_equal(map_array(path), array)
    assert names(path.parent) == ["file"]


def test_a_file_has_the_mode_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_text(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_long_name_is_no_longer_while_it_is_written(tmp_path: Path) -> None:
    write_text(tmp_path / ("x" * 255), "")
    assert names(tmp_path) == ["x" * 255]


def test_a_file_that_cannot_be_made_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")

    def fail(file: Any) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_file(path, fail)
    assert read_json(path) == {"a": 1}
    assert names(tmp_path) == ["file.json"]


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_file(path, lambda file: file.write(bytes(9000))),
        lambda path: write_file(path, lambda file: torch.save({"a": torch.zeros(9000)}, file)),
        lambda path: write_text(path, "x" * 9000),
        lambda path: write_array(path, np.zeros(9000)),
        lambda path: write_arrays(path, {"a": np.random.default_rng(1).random(9000)}),
    ],
    ids=["bytes", "torch", "text", "array", "arrays"],
)
def test_a_full_disk_is_the_system_s_error_and_names_the_file(tmp_path: Path, write: Callable[[Path], None]) -> None:
    path = tmp_path / "file"
    with largest_file(8000), pytest.raises(OSError, match="File too large") as raised:
        write(path)
    assert raised.value.errno == errno.EFBIG
    assert raised.value.filename == str(path)
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_written_to_is_named_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as raised:
        write_text(tmp_path / "file" / "below" / "x", "")
    assert raised.value.filename.startswith(str(tmp_path / "file"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as other:
        write_text(tmp_path / "folder", "")
    assert other.value.filename == str(tmp_path / "folder")
    assert names(tmp_path) == ["file", "folder"]


def test_file_and_folder_are_on_the_disk_in_this_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a crash of the machine demands: the content before the name, and the name before the call returns."""
    steps = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        steps.append("folder" if path == tmp_path else "content" if path.read_bytes() == b"text" else "other")
        fsync(descriptor)

    def note_replace(source: Path, target: Path) -> None:
        steps.append("name")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    write_text(tmp_path / "file", "text")
    assert steps == ["content", "name", "folder"]


def test_a_folder_appears_whole_and_in_place_of_the_one_before(tmp_path: Path) -> None:
    target = tmp_path / "5"

    def fill(text: str) -> Callable[[Path], None]:
        def call(folder: Path) -> None:
            assert not target.exists() or names(target) == ["first"]
            write_text(folder / text, text)

        return call

    def fail(folder: Path) -> None:
        write_text(folder / "third", "")
        print(1 // 0)

    write_folder(target, fill("first"))
    write_folder(target, fill("second"))
    assert names(target) == ["second"]
    with pytest.raises(ZeroDivisionError):
        write_folder(target, fail)
    assert names(target) == ["second"]
    write_link(tmp_path / "last", "5")
    write_link(tmp_path / "last", "7")
    assert os.readlink(tmp_path / "last") == "7"
    remove_folder(target)
    remove_folder(target)
    assert names(tmp_path) == ["last"]


def test_many_writers_of_one_file_write_one_of_theirs(tmp_path: Path) -> None:
    """Threads of this process, which share its id, and another process."""
    path = tmp_path / "file"
    texts = [character * 100_000 for character in "abcd"]
    code = "from pathlib import Path; from mult.files import write_text\n"
    code += f"for _ in range(20): write_text(Path({str(path)!r}), 'd' * 100_000)"
    errors: list[BaseException] = []

    def work(text: str) -> None:
        try:
            for _ in range(20):
                write_text(path, text)
                assert path.read_text() in texts
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(text,)) for text in texts[:3]]
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as process:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert process.returncode == 0
    assert errors == []
    assert names(tmp_path) == ["file"]


# --- What a killed process left ---

HOLD = """
import sys, time
from pathlib import Path
from mult.files import write_file
def write(file):
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    sys.stdin.read()
write_file(Path(sys.argv[1]), write)
"""


def test_a_killed_writer_leaves_the_file_before_and_the_next_write_removes_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "before")
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        (temporary,) = (each for each in tmp_path.iterdir() if each != path)
        assert is_temporary(temporary)
        write_in_a_new_process(tmp_path / "other")
        assert temporary.read_bytes() == b"half"  # its writer lives
        process.kill()
        process.wait()
    assert path.read_text() == "before"
    assert temporary.exists()
    write_in_a_new_process(tmp_path / "other")
    assert names(tmp_path) == ["file", "other"]


def write_in_a_new_process(path: Path) -> None:
    code = "import sys; from pathlib import Path; from mult.files import write_text; write_text(Path(sys.argv[1]), '')"
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=True)


def ended_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def test_no_temporary_file_of_a_process_that_may_live_is_removed(tmp_path: Path) -> None:
    here, elsewhere, ended = files._machine(), "0123456789ab", ended_process()
    stays = [
        f".mult-{here}-{os.getpid()}-aa.tmp",
        f".mult-{here}-1-aa.tmp",  # of another user
        f".mult-{elsewhere}-{ended}-aa.tmp",
        f".mult-{elsewhere}-{os.getpid()}-aa.tmp",
        f".mult-{here}-{ended}.tmp",  # no name of ours
        f"mult-{here}-{ended}-aa.tmp",
        "notes.tmp",
        f".notes.{ended}.tmp",
    ]
    goes = [f".mult-{here}-{ended}-aa.tmp", f".mult-{elsewhere}-{ended}-bb.tmp"]
    for name in (*stays, *goes):
        (tmp_path / name).touch()
    old = (tmp_path / goes[1]).stat().st_mtime - files.DAY_S - 60
    for name in (goes[1], *stays[:2], *stays[4:]):
        os.utime(tmp_path / name, (old, old))
    write_text(tmp_path / "file", "")
    assert names(tmp_path) == sorted([*stays, "file"])
    assert [is_temporary(tmp_path / name) for name in (*stays, *goes)] == [True] * 4 + [False] * 4 + [True] * 2
