"""The message for an error of the system at a write into a run's folder."""

from __future__ import annotations

import errno
from pathlib import Path

from mult.errors import UserError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def explain_write_error(error: OSError, path: Path, run: Path, room: str, remaining: str) -> UserError:
    """What to tell the user of an error at writing `path` into the folder `run` of a run that trains.

    room: what a full disk should have. remaining: what the run goes on from.
    """
    if not run.is_dir():
        return UserError(
            f"{run}: got no folder, since it was removed or moved while the run trained; expected it to stay there; put it "
            "back and go on with --resume, or start the run anew"
        )
    expected, remedy = (room, "make room") if error.errno in _FULL else ("a disk that can be written to", "see to the disk")
    return UserError(
        f"{path}: cannot be written ({error.strerror or error}); expected {expected}; {remaining}; {remedy} and go on with "
        "--resume"
    )
