"""Predict: mult predict --ckpt RUN_OR_CHECKPOINT IMAGE_OR_FOLDER ... --out FOLDER.

Writes, for every image, at the image's own size:
  --format npz        <relative path>.npz with all maps in physical units, <relative path>_<task>.png, a picture of each, and
                      <relative path>_sheet.png, the image and all maps side by side;
  --format taskonomy  <task>/<relative path>_domain_<task>.png, the map in Taskonomy's encoding; a `_domain_rgb` at the end of
                      the image's name is dropped first, so that the rgb folder of a tree gives a tree of the same layout.
With --attention also <relative path>_attention_<task>.png: what the points of --at attend to, at each decoder stage, through
the task's query and key; with shared attention there is one such file, of the reference, whose maps all tasks share. Where the
reference is learned, it is ..._attention_learned.png, and says which task's map has the largest share.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from mult.cli import exit_on_user_error
from mult.data.disk.encodings import CLASSES, ENCODINGS, encode_prediction
from mult.data.disk.images import read_photograph
from mult.data.disk.photographs import ENDINGS, find_photographs
from mult.data.sample import BadFileError
from mult.draw import draw_attention_page, draw_contact_sheet, draw_map, paint_map
from mult.draw.layout import join_pictures
from mult.errors import UserError, pluralize
from mult.files import check_output, write_file
from mult.predict import Averaging, Maps, Predictor, attend, describe_source
from mult.runtime import distributed


def find_images(inputs: list[str], rename: Callable[[Path], Path]) -> tuple[dict[Path, Path], int]:
    """{name of the results: file} of every image given, or in a folder given; and how many pictures were left out."""
    pairs, left_out = [], 0
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            files, others = find_photographs(path)
            pairs += [(rename(file.relative_to(path).with_suffix("")), file) for file in files]
            left_out += others
        elif not path.exists():
            raise UserError(f"image: got {name}; expected an image or a folder of images; no such file")
        elif path.name.startswith("."):
            raise UserError(f"image: got {name}; expected a name that does not begin with a dot; rename it")
        else:
            pairs.append((rename(Path(path.stem)), path))
    repeated = sorted(str(name) for name, times in Counter(name for name, _ in pairs).items() if times > 1)
    if repeated:
        raise UserError(f"images: got {repeated[0]} more than once; expected names that differ; predict them in separate calls")
    if not pairs:
        endings = ", ".join(sorted(ENDINGS))
        raise UserError(f"images: got none in {', '.join(inputs)}; expected files ending in {endings}; check the folder")
    return dict(pairs), left_out


def check_out(out: Path, images: Mapping[Path, Path], is_tree: bool) -> None:
    """UserError for a folder that cannot be written to, and for a tree of labels in which images lie, maybe with labels."""
    if not is_tree:
        for name in images:
            check_output(out / f"{name}.npz", "--out")
        return
    check_output(out / "task" / "image.png", "--out")
    root = Path(os.path.realpath(out))
    inside = sorted(file for file in images.values() if root in Path(os.path.realpath(file)).parents)
    if inside:
        raise UserError(
            f"--out: got {out}, which holds {inside[0]}; expected a folder without images: labels may lie there; take another"
        )


def check_pictures(out: Path, images: Mapping[Path, Path], kinds: Sequence[str]) -> None:
    """UserError where a picture, <name>_<kind>.png, would replace an image."""
    files = {Path(os.path.realpath(file)) for file in images.values()}
    root = Path(os.path.realpath(out))
    for name in images:
        for kind in kinds:
            if (result := root / name.with_name(f"{name.name}_{kind}.png")) in files:
                raise UserError(
                    f"--out: got {out}, where {result} is an image that the results of {name} would replace; choose another"
                )


def read_images(predictor: Predictor, images: Mapping[Path, Path], failures: list[str]) -> Iterator[tuple[Path, Image.Image]]:
    """(name, image in RGB, upright) of those that can be read and predicted; adds why not to `failures` for the others."""
    for name, file in images.items():
        try:
            image = read_photograph(file)
        except BadFileError as error:
            failures.append(str(error))
            continue
        try:
            predictor.input_size(image)
        except UserError as error:
            failures.append(f"{file}: {error}")
            continue
        yield name, image


def predict(
    predictor: Predictor, images: Iterator[tuple[Path, Image.Image]], batch_size: int
) -> Iterator[tuple[Path, Image.Image, Maps]]:
    """(name, image, maps) in the order of the images, predicted in batches."""
    while batch := list(islice(images, batch_size)):
        maps = predictor.batch([image for _, image in batch])
        yield from ((name, image, values) for (name, image), values in zip(batch, maps, strict=True))


def end_without_memory(results: Iterable[Any]) -> Iterator[Any]:
    """The same results; UserError where memory runs out while one is made."""
    try:
        yield from results
    except (MemoryError, RuntimeError) as error:  # torch's own error is for the GPU alone
        if not isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise UserError(
            "images: got no memory for the maps of a batch; expected some; lower --batch-size, or make the images smaller"
        ) from error


class Arrays:
    """Writes <name>_<task>.png, <name>_sheet.png and then <name>.npz: the pictures are complete where there is an .npz."""

    CONTENT = "maps and pictures"

    def __init__(self, predictor: Predictor, out: Path) -> None:
        self.predictor, self.out = predictor, out

    @staticmethod
    def rename(name: Path) -> Path:
        return name

    def write(self, name: Path, image: Image.Image, maps: Maps) -> None:
        stem, photo, tasks, classes = self.out / name, to_array(image), self.predictor.tasks, self.predictor.classes
        painted = [paint_map(tasks[task], values, photo, classes.get(task)) for task, values in maps.items()]
        for each in painted:
            write_file(stem.with_name(f"{stem.name}_{each.task.name}.png"), partial(draw_map(each).save, format="PNG"))
        sheet = draw_contact_sheet(photo, painted)
        write_file(stem.with_name(f"{stem.name}_sheet.png"), partial(sheet.save, format="PNG"))
        arrays: dict[str, Any] = dict(maps)
        write_file(stem.with_name(f"{stem.name}.npz"), lambda file: np.savez_compressed(file, **arrays))

    def notes(self) -> list[str]:
        return []


class TaskonomyFiles:
    """Writes <task>/<name>_domain_<task>.png in Taskonomy's encodings; counts the values that these cannot hold."""

    CONTENT = "maps in Taskonomy's encodings"

    def __init__(self, predictor: Predictor, out: Path) -> None:
        self.out = out
        self.absent = {task: "Taskonomy has no such files" for task in predictor.tasks if task not in ENCODINGS}
        for task, names in predictor.classes.items():
            if tuple(names) != CLASSES:
                self.absent[task] = f"the model's classes are not Taskonomy's {len(CLASSES)}"
        self.tasks = [task for task in predictor.tasks if task not in self.absent]
        if not self.tasks:
            raise UserError(f"--format taskonomy: got a model of {self.absent}; expected a task it can hold; take --format npz")
        self.values, self.clipped = Counter[str](), Counter[str]()

    @staticmethod
    def rename(name: Path) -> Path:
        return name.with_name(name.name.removesuffix("_domain_rgb") or name.name)

    def write(self, name: Path, image: Image.Image, maps: Maps) -> None:
        encoded = {task: encode_prediction(task, maps[task]) for task in self.tasks}
        for task, (pixels, clipped) in encoded.items():
            self.values[task] += maps[task].size
            self.clipped[task] += clipped
            path = self.out / task / name.with_name(ENCODINGS[task].file_name(name.name))
            write_file(path, partial(Image.fromarray(pixels).save, format="PNG"))

    def notes(self) -> list[str]:
        notes = [f"{task}: not written, {reason}" for task, reason in self.absent.items()]
        for task, clipped in (+self.clipped).items():
            limits = "{:.4g} to {:.6g}".format(*ENCODINGS[task].limits or ())
            notes.append(f"{task}: {clipped} of {self.values[task]} values clipped to what the files hold, {limits}")
        return notes


FORMATS: dict[str, type[Arrays | TaskonomyFiles]] = {"npz": Arrays, "taskonomy": TaskonomyFiles}


def parse_points(text: str) -> list[tuple[float, float]]:
    """X,Y[:X,Y...] -> points, as fractions of the image's width and height."""
    points = []
    for point in text.split(":"):
        try:
            x, y = (float(number) for number in point.split(","))
        except ValueError:
            x = y = -1.0
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise UserError(
                f"--at: got {point!r}; expected X,Y in [0, 1], fractions of width and height; write e.g. --at 0.5,0.5"
            )
        points.append((x, y))
    return points


def parse_heads(text: str, predictor: Predictor) -> list[int]:
    """I[,I...] -> heads, each of which some stage has."""
    number = max(made.heads for made in predictor.model.decoder.query_keys().values())
    heads = text.split(",")
    if not all(head.isdecimal() and int(head) < number for head in heads):
        raise UserError(
            f"--heads: got {text!r}; expected numbers from 0 to {number - 1}, as the widest stage has; write e.g. 0,1"
        )
    return [int(head) for head in heads]


def to_array(image: Image.Image) -> NDArray[np.float32]:
    """An RGB image -> (3, H, W) in [0, 1]."""
    return np.asarray(image, np.float32).transpose(2, 0, 1) / 255


def draw_attention(
    predictor: Predictor, image: Image.Image, points: list[tuple[float, float]], heads: list[int] | None
) -> dict[str, Image.Image]:
    """{the maps' owner, a task or what `map_owners` calls a mix: page with every point}."""
    maps, size, shares = predictor.attention(image), predictor.input_size(image), predictor.model.reference_shares()
    of_points = [attend(maps, size, point, shares) for point in points]
    photo, pages = to_array(image), {}
    owners = list(of_points[0])
    for owner in owners:
        source = describe_source(owner, owners, shares)
        titles = [f"What the point at {x:g}, {y:g} attends to: {source}" for x, y in points]
        drawn = [draw_attention_page(photo, title, of[owner], heads) for title, of in zip(titles, of_points, strict=True)]
        pages[owner] = join_pictures(drawn, 1)
    return pages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", required=True, help="a run's folder (its best checkpoint) or a checkpoint's")
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER")
    parser.add_argument("--out", required=True)
    parser.add_argument("--format", choices=FORMATS, default="npz", help="what to write (see above)")
    parser.add_argument("--tta", choices=get_args(Averaging), default="none", help="flip: average over the mirror image too")
    parser.add_argument("--attention", action="store_true", help="draw the attention maps too")
    parser.add_argument("--at", metavar="X,Y[:X,Y...]", default="0.5,0.5", help="whose attention: fractions of width, height")
    parser.add_argument("--heads", metavar="I[,I...]", help="heads to draw; by default the 4 sharpest of each stage")
    parser.add_argument("--batch-size", type=int, default=8, help="images a pass through the network")
    arguments = parser.parse_intermixed_args()
    with exit_on_user_error():
        if arguments.batch_size < 1:
            raise UserError(f"--batch-size: got {arguments.batch_size}; expected a whole number above 0; 1 takes least memory")
        points = parse_points(arguments.at)
        form, out = FORMATS[arguments.format], Path(arguments.out)
        images, left_out = find_images(arguments.images, form.rename)
        check_out(out, images, is_tree=form is TaskonomyFiles)
        predictor = Predictor.from_checkpoint(arguments.ckpt, distributed.pick_device("auto"), arguments.tta)
        if arguments.attention:
            predictor.check_attention()
        heads = parse_heads(arguments.heads, predictor) if arguments.heads else None
        if form is Arrays:
            kinds = [*predictor.tasks, "sheet", *(f"attention_{owner}" for owner in predictor.map_owners())]
            check_pictures(out, images, kinds)
        files, failures = form(predictor, out), list[str]()
        predicted = predict(predictor, read_images(predictor, images, failures), arguments.batch_size)
        for name, image, maps in end_without_memory(tqdm(predicted, total=len(images), desc="predict", unit="image")):
            pages = draw_attention(predictor, image, points, heads) if arguments.attention else {}
            try:
                files.write(name, image, maps)
                for owner, page in pages.items():
                    path = (out / name).with_name(f"{name.name}_attention_{owner}.png")
                    write_file(path, partial(page.save, format="PNG"))
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                failures.append(
                    f"{images[name]}: got a name that is too long for its results; expected a shorter one; rename it"
                )
        done = f"{len(images) - len(failures)} of {len(images)} images predicted; {form.CONTENT}: {out}/"
        notes = [f"{pluralize(left_out, 'picture')} left out: predictions and labels are no photographs"] if left_out else []
        print(done, *notes, *files.notes(), sep="\n")
        if failures:
            print("error: not predicted:", *failures, sep="\n  ", file=sys.stderr)
            sys.exit(2)
