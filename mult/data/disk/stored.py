"""The bytes of a dataset's file: read again where the system, not the file, is at fault, and checked where they have checksums.

A file that is missing or damaged is a `BadFileError`, which `data.on_bad_file: skip` leaves out. That the system has no
descriptor left, or that a file server lost its place, says nothing about the file: these are tried again a few times and are
then a `UserError`, so that no sample is left out for them.
"""

from __future__ import annotations

import errno
import os
import stat
import time
import zlib
from pathlib import Path

from mult.data.sample import BadFileError
from mult.errors import UserError

WAITS_S = (0.1, 0.4, 1.5)
"""Before each further attempt: as long as other processes take to close files, or a file server to answer again."""
_REMEDIES = {
    errno.EMFILE: "allow more open files (ulimit -n), or lower data.workers",
    errno.ENFILE: "close files in other programs, or lower data.workers",
    errno.ESTALE: "let the file server recover, or mount it again",
    errno.ETIMEDOUT: "let the file server recover, or mount it again",
    errno.EAGAIN: "let other programs end",
    errno.ENOMEM: "lower data.workers or data.batch_size",
}
"""What to do where the system is at fault."""

_PNG = b"\x89PNG\r\n\x1a\n"


def read_stored(path: Path, remedy: str) -> bytes:
    """The bytes of a file, of a PNG with every checksum verified.

    Raises BadFileError, naming the file, if it is missing, a folder, pipe or device, not readable, or a damaged PNG; `remedy`
    says what to do about those. Raises UserError with the system's word where the system fails after several attempts.
    """
    for wait_s in (*WAITS_S, None):
        try:
            content = _read(path)
            check_png(content)
            return content
        except OSError as error:
            if error.errno not in _REMEDIES:
                kind = "missing" if isinstance(error, FileNotFoundError | NotADirectoryError) else "damaged"
                raise bad_file(path, error.strerror or str(error), remedy, kind) from error
            if wait_s is None:
                raise UserError(
                    f"{path}: got {error.strerror!r} from the system in {len(WAITS_S) + 1} attempts; expected to open and read "
                    f"it; {_REMEDIES[error.errno]}; the file itself may be sound"
                ) from error
            time.sleep(wait_s)
        except ValueError as error:
            raise bad_file(path, str(error), remedy) from error
    raise AssertionError("the last attempt returns or raises")


def bad_file(path: Path, reason: object, remedy: str, kind: str = "damaged") -> BadFileError:
    """The error about a file that cannot be read, for a reason, on one line."""
    said = " ".join(str(reason).split()) or type(reason).__name__
    return BadFileError(f"{path}: got a file that cannot be read ({said:.300}); {remedy}", kind)


def check_png(content: bytes) -> None:
    """ValueError for a PNG of which a chunk is cut or fails its CRC-32; other contents pass.

    Pillow checks the chunks of the header alone: a flipped bit in the compressed pixels mostly changes the picture and nothing
    else. On pictures of 512 x 512 pixels this takes a few percent of the time that decoding takes.
    """
    if not content.startswith(_PNG):
        return
    view, start, name = memoryview(content), len(_PNG), b""
    while name != b"IEND":
        end = start + 12 + int.from_bytes(view[start : start + 4], "big")
        if end > len(view):
            raise ValueError(f"the PNG ends within the chunk at byte {start}")
        name = bytes(view[start + 4 : start + 8])
        if zlib.crc32(view[start + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise ValueError(f"the checksum of the PNG's chunk at byte {start} is wrong")
        start = end


def _read(path: Path) -> bytes:
    with open(path, "rb", opener=_open_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is no regular file")
        return file.read()


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting for a program at the other end of a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
