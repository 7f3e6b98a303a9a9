"""Which files in a folder are photographs: not hidden ones, not what mult wrote beside them, and not Taskonomy's labels."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from mult.tasks import TASKS

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm"}
_PICTURE = re.compile(rf"(.+?)_(?:sheet|(?:attention_)?(?:{'|'.join(TASKS)}))")
"""The stem of a picture of predictions, beside <stem of the image>.npz."""
_LABEL = re.compile(r"point_\d+_view_\d+_domain_(?!rgb$).+|.+_domain_(?!rgb$)\w+")
"""The stem of a file in Taskonomy's encodings."""


def find_photographs(folder: Path) -> tuple[list[Path], int]:
    """The photographs below a folder, linked folders among it, sorted; and how many pictures are left out as no photographs."""
    pictures = [path for path in _walk(folder) if path.suffix.lower() in ENDINGS and path.is_file()]
    photographs = [path for path in pictures if not _is_written(path)]
    return sorted(photographs), len(pictures) - len(photographs)


def _walk(folder: Path) -> Iterator[Path]:
    """The files below a folder whose names do not begin with a dot, as `._x.jpg` of some systems; each folder once."""
    seen = set()
    for name, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(name)
        if real in seen:  # a link to a folder above or beside
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        yield from (Path(name, each) for each in files if not each.startswith("."))


def _is_written(path: Path) -> bool:
    picture = _PICTURE.fullmatch(path.stem)
    is_prediction = picture is not None and path.with_name(f"{picture[1]}.npz").exists()
    return is_prediction or _LABEL.fullmatch(path.stem) is not None
