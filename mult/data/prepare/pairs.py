"""Which files are the colour and the depth of one frame: by their names, or by time stamps.

Names are patterns such as `scans/*/color/frame-*.jpg`: `*` and `?` stand for text within a name, a folder `**` for any number
of folders. Two files are a pair if what the wildcards stand for is the same. What those of the folders stand for is the scene.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mult.errors import UserError, pluralize

RGB_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".tif", ".tiff", ".webp")
DEPTH_SUFFIXES = (".png", ".pgm", ".pfm", ".tif", ".tiff", ".npy", ".npz", ".h5", ".hdf5", ".exr")
Texts = tuple[str, ...]
Files = dict[tuple[Texts, Texts], Path]
"""{(what the wildcards of folders stand for, what those of the name stand for): file}."""


@dataclass(frozen=True)
class Frame:
    """A pair of files. `folders`, `names`: what the wildcards of the pattern stand for, in folders and in the file's name."""

    folders: Texts
    names: Texts
    rgb: Path
    depth: Path

    @property
    def scene(self) -> str:
        """The folders that the wildcards stand for, "" if there are none."""
        return "/".join(filter(None, self.folders))

    @property
    def id(self) -> str:
        """The frame's name below the root."""
        return "/".join(filter(None, (self.scene, "_".join(self.names))))


def find_files(root: Path, pattern: str, suffixes: Sequence[str] = ()) -> Files:
    """The files below `root` that a pattern means.

    A pattern that is a folder means all files of `suffixes` in it and its folders, and an ending `.*` any of them; such files
    are named without it. Hidden files are left out. Raises UserError, naming them, for two files of one key, and where there is
    no such folder.
    """
    if (root / pattern).is_dir():
        pattern = f"{pattern}/**/*"
    elif not _is_wild(pattern) and not (root / pattern).is_file():
        raise UserError(
            f"{root / pattern}: got neither a folder nor a file; expected a folder, or a pattern such as 'scene/*.png'; "
            "correct the path"
        )
    parts = Path(pattern).parts
    fixed = next((i for i, part in enumerate(parts) if _is_wild(part)), len(parts) - 1)
    base, rest = root.joinpath(*parts[:fixed]), parts[fixed:]
    # A name of any ending is told by what is before it: colour may be in jpg here and in png there.
    any_ending = rest[-1] == "*" or rest[-1].endswith(".*")
    expression = _compile([*rest[:-1], rest[-1].removesuffix(".*")])
    count = sum(1 if part == "**" else len(re.findall(r"[*?]", part)) for part in rest[:-1])  # of wildcards in folders
    files: Files = {}
    for path in sorted(base.glob("/".join(part.replace("[", "[[]") for part in rest))):
        relative = path.relative_to(base)
        matched = expression.fullmatch((relative.with_suffix("") if any_ending else relative).as_posix())
        if matched is None or not path.is_file() or any(part.startswith(".") for part in relative.parts):
            continue
        if any_ending and path.suffix.lower() not in suffixes:
            continue
        texts = [text.rstrip("/") for text in matched.groups()]
        key = tuple(texts[:count]), tuple(texts[count:])
        if key in files:
            raise UserError(f"{path}: got a second file beside {files[key].name}; expected one of each name; remove one")
        files[key] = path
    return files


def fill_in(pattern: str, frame: Frame) -> str:
    """A pattern with what a frame's wildcards stand for in place of its own: the file that belongs to the frame."""
    *folders, name = Path(pattern).parts
    texts = iter(frame.folders)
    filled = [_replace(folder, texts) for folder in folders]
    return str(Path(*filled, _replace(name, iter(frame.names))))


def pair_by_name(rgb: Files, depth: Files, where: str) -> list[Frame]:
    """The files of one key, in natural order (2 before 10); warns of those without a partner.

    Raises UserError where fewer than half of the files have one: then the names mean something else.
    """
    in_both = rgb.keys() & depth.keys()
    keys = sorted(in_both, key=lambda key: [_natural_key("/".join(texts)) for texts in key])
    _require_pairs(where, len(keys), list(rgb.values()), list(depth.values()))
    alone = [str(files[key]) for files in (rgb, depth) for key in files if key not in in_both]
    if alone:
        warnings.warn(
            f"{pluralize(len(alone), 'file')} without a partner of the same name left out, e.g. {min(alone)}", stacklevel=2
        )
    frames = [Frame(*key, rgb[key], depth[key]) for key in keys]
    same = next((frame for frame in frames if frame.rgb == frame.depth), None)
    if same is not None:
        raise UserError(
            f"{same.rgb}: got one file as colour and as depth; expected patterns that tell them apart; give for instance "
            "--rgb 'folder/*.color.png' --depth 'folder/*.depth.png'"
        )
    return frames


def pair_by_time(rgb: Path, depth: Path, folders: Texts, limit_s: float) -> list[Frame]:
    """Pairs of the files in two lists of lines `time file`, as TUM's rgb.txt and depth.txt: nearest first, each file once.

    Files are named relative to their list. No pair is further apart than `limit_s`. Raises UserError as `pair_by_name` does.
    """
    colours, depths = (_read_table(path, 2) for path in (rgb, depth))
    times, files = np.array([float(row[0]) for row in depths]), [depth.parent / row[1] for row in depths]
    order = np.argsort(times)
    in_order, candidates = times[order], []
    for i, (text, _) in enumerate(colours):
        low, high = np.searchsorted(in_order, [float(text) - limit_s, float(text) + limit_s])
        candidates += [(abs(times[j] - float(text)), i, int(j)) for j in order[low : high + 1]]
    partner: dict[int, int] = {}
    taken: set[int] = set()
    for gap, i, j in sorted(candidates):
        if gap <= limit_s and i not in partner and j not in taken:
            partner[i] = j
            taken.add(j)
    _require_pairs(f"{rgb}, {depth}", len(partner), [rgb.parent / row[1] for row in colours], files)
    return [_frame(folders, rgb.parent / colours[i][1], files[partner[i]]) for i in sorted(partner)]


def read_pairs(path: Path, folders: Texts, limit_s: float) -> list[Frame]:
    """The pairs of a file of lines `time colour time depth`, as TUM's associate.py writes it; files relative to it.

    Raises UserError for a pair further apart than `limit_s`, for a file that is in two pairs and for a missing file.
    """
    rows = _read_table(path, 4)
    frames = []
    for rgb_time, rgb, depth_time, depth in rows:
        if abs(float(rgb_time) - float(depth_time)) > limit_s:
            raise UserError(
                f"{path}: got {rgb} and {depth}, {abs(float(rgb_time) - float(depth_time)):.3g} s apart; expected at most "
                f"{limit_s} s; remove the line or raise --max-gap"
            )
        frames.append(_frame(folders, path.parent / rgb, path.parent / depth))
    for files in ([frame.rgb for frame in frames], [frame.depth for frame in frames]):
        repeated = next((file for file, before in zip(sorted(files)[1:], sorted(files), strict=False) if file == before), None)
        if repeated is not None:
            raise UserError(f"{path}: got {repeated} in two pairs; expected each file once; remove one of the lines")
    return frames


def _frame(folders: Texts, rgb: Path, depth: Path) -> Frame:
    for file in (rgb, depth):
        if not file.is_file():
            raise UserError(f"{file}: got no such file, which a list of frames names; expected it there; fetch it again")
    return Frame(folders, (rgb.stem,), rgb, depth)


def _read_table(path: Path, columns: int) -> list[list[str]]:
    """The rows of a text file, without comments; the first and, of four columns, the third are times."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: got no list of files ({error}); expected text; correct the path") from error
    rows = [line.replace(",", " ").split() for line in lines if line.strip() and not line.startswith("#")]
    for row in rows:
        if len(row) != columns or not all(re.fullmatch(r"-?\d+(\.\d*)?([eE][-+]?\d+)?", text) for text in row[::2]):
            expected = "time colour time depth" if columns == 4 else "time file"
            raise UserError(f"{path}: got the line {' '.join(row)!r}; expected '{expected}'; correct the file")
    if not rows:
        raise UserError(f"{path}: got no line; expected one a frame; fetch it again")
    return rows


def _require_pairs(where: str, pairs: int, rgb: Sequence[Path], depth: Sequence[Path]) -> None:
    if pairs == 0 or 4 * pairs < len(rgb) + len(depth):
        examples = [min(files).name if files else "none" for files in (rgb, depth)]
        raise UserError(
            f"{where}: got {len(rgb)} files of colour (e.g. {examples[0]}) and {len(depth)} of depth (e.g. {examples[1]}), of "
            f"which {pairs} are pairs; expected pairs of at least half of the files; give patterns with a * where the frame's "
            "name is (--rgb 'scene/frame-*.color.png' --depth 'scene/frame-*.depth.png'), or a list of pairs (--pairs)"
        )


def _is_wild(text: str) -> bool:
    return "*" in text or "?" in text


def _compile(parts: Sequence[str]) -> re.Pattern[str]:
    """A pattern of which each wildcard is a group."""
    expression = ""
    for i, part in enumerate(parts):
        if part == "**":
            expression += "((?:[^/]+/)*)"
            continue
        pieces = {"*": "([^/]*)", "?": "([^/])"}
        expression += "".join(pieces.get(piece, re.escape(piece)) for piece in re.split(r"([*?])", part))
        expression += "/" if i < len(parts) - 1 else ""
    return re.compile(expression)


def _replace(part: str, texts: Iterator[str]) -> str:
    return next(texts, "") if part == "**" else re.sub(r"[*?]", lambda _: next(texts, ""), part)


def _natural_key(text: str) -> list[tuple[str, int]]:
    return [(letters, int(digits or -1)) for letters, digits in re.findall(r"(\D*)(\d*)", text)]
