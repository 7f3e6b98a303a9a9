"""The files that mult writes: each appears under its name whole and on the disk, or not at all; and the reading of them.

A file is written under a temporary name, `.mult-<machine>-<process>-<random>.tmp`, in the folder where it belongs, brought to
the disk, and renamed. No process removes the temporary file of one that may still live:

- of the same machine (one boot of one kernel, and one namespace of process ids: containers differ), it goes when no process
  has the id any more;
- of another machine, or where the system does not say which machine it is, it goes when it is a day old.

Text is UTF-8.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, TypeVar, cast
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
from numpy.typing import NDArray

from mult.errors import UserError

DAY_S = 24 * 60 * 60
"""The age at which the temporary file of an unknown process goes: longer than any file takes to be written."""

_TEMPORARY = re.compile(r"\.mult-(?P<machine>[0-9a-f]+)-(?P<process>\d+)-[0-9a-f]+\.tmp")

Content = TypeVar("Content")


# --- Writing ---


def write_file(path: Path, write: Callable[[BinaryIO], Any], *, durable: bool = True) -> None:
    """Let `write` fill a file, which then takes the name `path`; makes the folder, and replaces an older file.

    With `durable` the file is on the disk when this returns. Waiting for the disk takes milliseconds: without it, after a
    crash of the whole machine, the file may be missing or empty, which suits the many files that can be made again.

    Raises OSError, with `path` as its filename, where the disk does not take the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path.parent)
    temporary = path.with_name(_temporary_name())
    try:
        with open(temporary, "xb") as file:
            write(file)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise _about(path, temporary, error) from None
    except RuntimeError as error:
        # torch.save puts an error of its own in place of the system's.
        if isinstance(error.__context__, OSError):
            raise _about(path, temporary, error.__context__) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        sync(path.parent)


def write_text(path: Path, text: str) -> None:
    write_file(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an .npy."""
    # NumPy writes into a file by the C library, which loses the number of the system's error; into anything else by `write`.
    write_file(path, lambda file: np.save(cast(Any, SimpleNamespace(write=file.write)), array))


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a compressed .npz."""

    def write(file: BinaryIO) -> None:
        # As np.savez_compressed, which leaves the archive open where the disk is full, and a traceback when it is collected.
        with ZipFile(file, "w", ZIP_DEFLATED) as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)

    write_file(path, write)


def write_folder(path: Path, fill: Callable[[Path], Any]) -> None:
    """Let `fill` put files into a new folder, which then takes the name `path`, in place of an older folder.

    The folder around it must be there. Raises what `fill` raises, and OSError where the disk does not take the folder.
    """
    temporary = path.with_name(_temporary_name())
    try:
        temporary.mkdir()
        fill(temporary)
        for file in (*temporary.iterdir(), temporary):
            sync(file)
        remove_folder(path)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder, if it is there, so that nobody sees half of it under its name."""
    if path.is_dir():
        temporary = path.with_name(_temporary_name())
        os.replace(path, temporary)
        shutil.rmtree(temporary)


def write_link(path: Path, target: str) -> None:
    """Make `path` a symbolic link to `target`, in place of an older link."""
    temporary = path.with_name(_temporary_name())
    temporary.symlink_to(target)
    os.replace(temporary, path)
    sync(path.parent)


def is_temporary(path: Path) -> bool:
    """Whether a file is one that a process is writing, or was when it was killed."""
    return _TEMPORARY.fullmatch(path.name) is not None


def _about(path: Path, temporary: Path, error: OSError) -> OSError:
    """The error with the name that the user knows, where it has none or the temporary one."""
    if error.filename in (None, str(temporary)):
        error.filename, error.filename2 = str(path), None
    return error


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    if os.name == "nt":  # Windows opens no folder
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot do it for a folder
            raise
    finally:
        os.close(descriptor)


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Hold a lock, for which other processes wait; it ends with the process at the latest. Its empty file stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            import fcntl

            fcntl.lockf(file, fcntl.LOCK_EX)
        except (OSError, ImportError) as error:  # a file system without locks, and Windows
            warnings.warn(f"{path}: cannot be locked ({error}); write to this root by one process at a time", stacklevel=4)
        yield


# --- Temporary files ---


def _temporary_name() -> str:
    return f".mult-{_machine()}-{os.getpid()}-{secrets.token_hex(6)}.tmp"


def _machine() -> str:
    """Where a process id means one process: the boot of the kernel and the namespace; a random name where it is not known."""
    try:
        facts = Path("/proc/sys/kernel/random/boot_id").read_text() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return secrets.token_hex(6)
    return hashlib.sha256(facts.encode()).hexdigest()[:12]


@functools.cache
def _remove_stale(folder: Path) -> None:
    """Remove the temporary files in a folder whose processes ended; looks once a process and folder."""
    for path in folder.glob(".mult-*.tmp"):
        with suppress(OSError):  # another process was faster, or may remove it and this one may not
            if path.is_file() and _is_stale(path):
                path.unlink()


def _is_stale(path: Path) -> bool:
    parts = _TEMPORARY.fullmatch(path.name)
    if parts is None:
        return False
    if parts["machine"] == _machine():
        return not _lives(int(parts["process"]))
    return path.stat().st_mtime < time.time() - DAY_S


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def check_output(path: Path, where: str) -> None:
    """Raise UserError where no file can be written at `path`, which is found out before the work that would end in it.

    where: what the user gave it as, for the message.
    """
    if path.is_dir():
        raise UserError(f"{where}: got {path}, a folder; expected a file; give one in it")
    folder = next(folder for folder in (path.absolute().parent, *path.absolute().parents) if folder.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        reason = "may not be written to" if folder.is_dir() else "is a file"
        raise UserError(f"{where}: got {path}; expected a file in a folder; {folder} {reason}: choose another path")


# --- Reading ---


def read_file(path: Path, read: Callable[[BinaryIO], Content], kind: str, remedy: str) -> Content:
    """What `read` makes of a file that mult wrote. Raises UserError, naming it, where it is missing or `read` fails.

    `kind` is what the file should hold, such as "JSON", and `remedy` what to do if it does not.
    """
    try:
        with open(path, "rb") as file:
            return read(file)
    except Exception as error:  # damage ends in any: zlib.error, NotImplementedError, RecursionError, MemoryError, ...
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path}: cannot be read as {kind} ({reason:.200}); expected a file that mult wrote; {remedy}"
        ) from error


def read_json(path: Path, remedy: str = "it is missing or damaged: make it anew") -> dict[str, Any]:
    """The object in a JSON file. Raises UserError, naming the file, where it is missing, damaged or holds no object."""

    def read(file: BinaryIO) -> dict[str, Any]:
        value = json.loads(file.read().decode())
        if not isinstance(value, dict):
            raise ValueError(f"a {type(value).__name__} at the top level")
        return value

    return read_file(path, read, "JSON", remedy)


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays in an .npz. Raises UserError, naming the file, where it is missing or damaged."""

    def read(file: BinaryIO) -> dict[str, NDArray[Any]]:
        with np.load(file) as arrays:
            return dict(arrays)

    return read_file(path, read, "arrays", "evaluate again")


def map_array(path: Path) -> NDArray[Any]:
    """The array in an .npy, read-only, whose values stay on the disk until they are used. Raises as `read_arrays` does."""
    return read_file(path, lambda _: np.lib.format.open_memmap(path, mode="r"), "an array", "delete it: it is made anew")


# --- The cache ---


def cache_folder(root: Path) -> Path:
    """The folder for what mult remembers of a dataset's root, in $XDG_CACHE_HOME or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base, "mult", "index", hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16])
