"""What the scripts share: a user's mistake ends in one message and exit status 2, a programming error in its traceback."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Turn a ValueError, OSError or ImportError from the body into `error: message` on stderr and exit status 2.

    By the rules of the library these three say what was got, what was expected and what to do. A FloatingPointError, training
    that diverged, and a data loader whose worker died end with status 1, Ctrl-C with 130. Anything else is a bug of ours.
    (`tqdm.write` clears the progress bars first.)
    """
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        tqdm.write(f"error: {_message(error)}", file=sys.stderr)
        sys.exit(2)
    except FloatingPointError as error:
        tqdm.write(f"stopped: {error}", file=sys.stderr)
        sys.exit(1)
    except RuntimeError as error:
        died = re.match(r"DataLoader worker \(pid.*", str(error))
        if died is None:
            raise
        tqdm.write(
            f"stopped: {died[0].rstrip('. ')}; expected it to live; memory (RAM or /dev/shm) may have run out: lower "
            "data.workers or data.batch_size; a training goes on with --resume",
            file=sys.stderr,
        )
        sys.exit(1)
    except KeyboardInterrupt:
        tqdm.write("stopped: interrupted", file=sys.stderr)
        sys.exit(130)


_EXPECTED = {
    errno.ENOENT: "a file or folder of that name; check the path",
    errno.ENOTDIR: "a folder where its path has a file; choose another path",
    errno.EEXIST: "nothing of that name; choose another path",
    errno.EISDIR: "a file; give one in that folder or choose another path",
    errno.EACCES: "the right to read or write it; change its mode or choose another path",
    errno.EROFS: "a disk that can be written to; choose another path",
    errno.ENOSPC: "room on its disk; make room or choose another path",
    errno.EDQUOT: "room in the user's quota; make room or choose another path",
    errno.ENAMETOOLONG: "a name that the file system takes; choose a shorter one",
}
"""Of the system's own errors, which say neither: what was expected and what to do."""


def _message(error: Exception) -> str:
    """What an error says; of one that a worker of a DataLoader raised, which holds the worker's traceback as text, the end."""
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        expected = _EXPECTED.get(error.errno, "a file system that takes it; choose another path")
        return f"{error.filename}: got {error.strerror!r}; expected {expected}"
    text = str(error)
    if not text.startswith("Caught "):
        return text
    return re.split(rf"\n(?:\w+\.)*{type(error).__name__}: ", text)[-1].strip()
