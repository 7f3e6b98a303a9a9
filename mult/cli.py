"""What all commands share: where they print, and how they end, with a message and an exit status."""

from __future__ import annotations

import argparse
import errno
import io
import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from mult.errors import UserError

_REMEDIES = {
    errno.ENOENT: "a file or folder of that name; check the path",
    errno.ENOTDIR: "a folder where its path has a file; choose another path",
    errno.EEXIST: "nothing of that name; choose another path",
    errno.EISDIR: "a file; give one in that folder or choose another path",
    errno.EACCES: "the right to read or write it; change its mode or choose another path",
    errno.EROFS: "a disk that can be written to; choose another path",
    errno.ENOSPC: "room on its disk; make room or choose another path",
    errno.EDQUOT: "room in the user's quota; make room or choose another path",
    errno.EFBIG: "a disk and a process limit that allow files of this size; choose another path",
    errno.ENAMETOOLONG: "a name that the file system takes; choose a shorter one",
}
"""What was expected, and what to do, for errors of the system about a path; the system says neither."""


_NO_READER = {errno.EPIPE, errno.EIO, errno.EBADF}
"""The errors of writing where nobody reads any more: a pipe's end, a terminal that hung up, a closed descriptor."""


class _Output(io.FileIO):
    """A descriptor to print to, which drops what nobody reads: `| head` and a lost terminal do not end a training."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _NO_READER:
                raise
            return len(data)


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Turn a user's mistake in the body into one message on stderr and exit status 2.

    A user's mistake is a `UserError`, or an error of the system about a path (no such file, no room on the disk). Training that
    diverged (FloatingPointError) and a data loader whose worker was killed end with status 1 and a message, Ctrl-C with 130.
    Any other exception keeps its traceback.

    In the body, stdout and stderr take any character, in UTF-8 where they are no terminal, and may be closed. A warning of mult
    is printed as a message, that of a library as Python does.
    """
    with _lenient_output(), _plain_warnings(), _exit_with_message():
        yield


@contextmanager
def _exit_with_message() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        _end(2, f"error: {_without_traceback(error)}")
    except OSError as error:
        if error.errno not in _REMEDIES or error.filename is None:
            raise
        _end(2, f"error: {error.filename}: got {error.strerror!r}; expected {_REMEDIES[error.errno]}")
    except FloatingPointError as error:
        _end(1, f"stopped: {error}")
    except RuntimeError as error:
        dead_worker = re.match(r"DataLoader worker \(pid.*", str(error))
        if dead_worker is None:
            raise
        _end(
            1,
            f"stopped: {dead_worker[0].rstrip('. ')}; expected it to run until the end; memory (RAM or /dev/shm) may have run "
            "out: lower data.workers or data.batch_size; a training goes on with --resume",
        )
    except KeyboardInterrupt:
        _end(130, "stopped: interrupted")


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print the UserWarnings of mult without the line of its code, which says nothing to a user."""
    show, own_code = warnings.showwarning, Path(__file__).parent

    def print_warning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if category is UserWarning and own_code in Path(filename).parents:
            tqdm.write(f"warning: {message}", file=sys.stderr)
        else:
            show(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.showwarning = print_warning
        yield


@contextmanager
def _lenient_output() -> Iterator[None]:
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(_reopen, before)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def _reopen(stream: Any) -> Any:
    """The stream with what `_lenient_output` adds; unchanged where it is no file's, as in a test or a notebook."""
    if stream is None:  # closed before the process began
        return open(os.devnull, "w", encoding="utf-8")
    try:
        output = _Output(stream.fileno(), "w", closefd=False)
    except OSError:
        return stream
    encoding = stream.encoding if stream.isatty() else "utf-8"
    return io.TextIOWrapper(
        io.BufferedWriter(output),
        encoding,
        errors="replace",  # of what a terminal lacks, and of bytes in a path that are no text
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def add_baselines(parser: argparse.ArgumentParser, effect: str) -> None:
    """The option --baseline of the commands that compare with single-task runs; `effect` is what giving it does."""
    parser.add_argument(
        "--baseline", nargs="+", default=[], type=Path, metavar="JSON", help=f"evaluations of single-task runs{effect}"
    )


def require_counts(arguments: argparse.Namespace, *names: str) -> None:
    """Raise UserError for an option of these names that is given a number below 1."""
    for name in names:
        if (number := getattr(arguments, name)) is not None and number < 1:
            raise UserError(f"--{name}: got {number}; expected a whole number above 0; leave it out for the default")


def require_used(
    arguments: argparse.Namespace, used: Mapping[str, Collection[str]], call: str, remedy: str = "leave it out"
) -> None:
    """Raise UserError for an option that is given and of which a call of the kind `call` makes no use.

    `used` says of each kind, named by the argument that tells it, which arguments it uses. An argument that is None, False or
    an empty list is not given: no other defaults tell whether it is.
    """
    for name, value in vars(arguments).items():
        if value is None or value is False or value == [] or name in used[call]:
            continue
        got = "it" if value is True else " ".join(map(str, value)) if isinstance(value, list) else value
        option, kind = name_option(name), name_option(call)
        others = [name_option(other) for other, names in used.items() if name in names and other != name]
        expected = f"it with {' or '.join(others)}" if others else f"either {option} or {kind}"
        raise UserError(f"{option}: got {got} beside {kind}, which makes no use of it; expected {expected}; {remedy}")


_WORDS = {"overrides": "key=value", "runs": "RUN_OR_JSON"}
"""Arguments of argparse's that a user writes without an option -> how messages call them."""


def name_option(argument: str) -> str:
    """How a user writes an argument of argparse's: `from_` would be a keyword without its end."""
    return _WORDS.get(argument, f"--{argument.rstrip('_').replace('_', '-')}")


def separate_overrides(words: list[str] | None) -> tuple[list[str] | None, list[str]]:
    """The names after an option that takes several, None where there are none, and the key=value words after these.

    argparse takes such overrides for names, too.
    """
    names = [word for word in words or () if "=" not in word]
    return names or None, [word for word in words or () if "=" in word]


def check_distinct(where: str, paths: Sequence[Path]) -> None:
    """Raise UserError where two paths are of one file or folder, which would be compared with itself."""
    counts = Counter(path.resolve() for path in paths)
    for path in paths:
        if counts[path.resolve()] > 1:
            raise UserError(f"{where}: got {path} {counts[path.resolve()]} times; expected it once; leave out the others")


def _end(status: int, message: str) -> None:
    # Not print, which would write into a progress bar.
    tqdm.write(message, file=sys.stderr)
    sys.exit(status)


def _without_traceback(error: UserError) -> str:
    """The error's message; where a worker of a DataLoader raised it, torch put the worker's traceback before it."""
    text = str(error)
    if not text.startswith("Caught "):
        return text
    return re.split(rf"\n(?:\w+\.)*{type(error).__name__}: ", text)[-1].strip()
