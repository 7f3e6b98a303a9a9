"""Predict: python scripts/predict.py --ckpt RUN_OR_CHECKPOINT IMAGE_OR_FOLDER ... --out FOLDER.

Writes, for every image, at the image's own size:
  --format npz        <relative path>.npz with all maps in physical units, and <relative path>_<task>.png, a picture of each;
  --format taskonomy  <task>/<relative path>_domain_<task>.png, the map in Taskonomy's encoding; a `_domain_rgb` at the end of
                      the image's name is dropped first, so that the rgb folder of a tree gives a tree of the same layout.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from mult import distributed
from mult.cli import exit_on_user_error
from mult.data.encodings import CLASSES, ENCODINGS, encode_prediction
from mult.data.index import write_atomically
from mult.draw import picture
from mult.predict import Averaging, Maps, Predictor, as_rgb

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm"}


def find_images(inputs: list[str], rename: Callable[[Path], Path]) -> dict[Path, Path]:
    """{name of the results: file} of every image given, or found under a folder given."""
    found = []
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.suffix.lower() in ENDINGS)
            found += [(rename(file.relative_to(path).with_suffix("")), file) for file in files]
        elif path.exists():
            found.append((rename(Path(path.stem)), path))
        else:
            raise ValueError(f"image: got {name}; expected an image or a folder of images; no such file")
    twice = sorted(str(name) for name, times in Counter(name for name, _ in found).items() if times > 1)
    if twice:
        raise ValueError(f"images: got {twice[0]} more than once; expected names that differ; predict them in separate calls")
    if not found:
        known = ", ".join(sorted(ENDINGS))
        raise ValueError(f"images: got none in {', '.join(inputs)}; expected files ending in {known}; check the folder")
    return dict(found)


def read(images: Mapping[Path, Path], failed: list[str]) -> Iterator[tuple[Path, Image.Image]]:
    """(name, image turned as viewers show it) of those that can be read; adds the others, with the reason, to `failed`."""
    for name, file in images.items():
        try:
            with Image.open(file) as image:
                upright = ImageOps.exif_transpose(image)  # loads it
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
            failed.append(f"{file} ({error})")
            continue
        yield name, upright


def predict(
    predictor: Predictor, images: Iterator[tuple[Path, Image.Image]], batch_size: int
) -> Iterator[tuple[Path, Image.Image, Maps]]:
    """(name, image, maps) in the order of the images, predicted in batches."""
    while batch := list(islice(images, batch_size)):
        maps = predictor.batch([image for _, image in batch])
        yield from ((name, image, values) for (name, image), values in zip(batch, maps, strict=True))


class Arrays:
    """<name>_<task>.png and then <name>.npz: an .npz says that the pictures are there too."""

    CONTENT = "maps and pictures"

    def __init__(self, predictor: Predictor, out: Path) -> None:
        self.predictor, self.out = predictor, out

    @staticmethod
    def rename(name: Path) -> Path:
        return name

    def write(self, name: Path, image: Image.Image, maps: Maps) -> None:
        stem = self.out / name
        shown = np.asarray(as_rgb(image), np.float32).transpose(2, 0, 1) / 255
        for task, values in maps.items():
            drawn = picture(self.predictor.tasks[task], values, shown, self.predictor.classes.get(task))
            write_atomically(stem.with_name(f"{stem.name}_{task}.png"), partial(drawn.save, format="PNG"))
        arrays: dict[str, Any] = dict(maps)
        write_atomically(stem.with_name(f"{stem.name}.npz"), lambda file: np.savez_compressed(file, **arrays))

    def notes(self) -> list[str]:
        return []


class TaskonomyFiles:
    """<task>/<name>_domain_<task>.png in Taskonomy's encodings; counts the values that these cannot hold."""

    CONTENT = "maps in Taskonomy's encodings"

    def __init__(self, predictor: Predictor, out: Path) -> None:
        self.out = out
        self.absent = {task: "Taskonomy has no such files" for task in predictor.tasks if task not in ENCODINGS}
        for task, names in predictor.classes.items():
            if tuple(names) != CLASSES:
                self.absent[task] = f"the model's classes are not Taskonomy's {len(CLASSES)}"
        self.tasks = [task for task in predictor.tasks if task not in self.absent]
        if not self.tasks:
            raise ValueError(
                f"--format taskonomy: got a model of {self.absent}; expected a task it can hold; take --format npz"
            )
        self.values, self.clipped = Counter[str](), Counter[str]()

    @staticmethod
    def rename(name: Path) -> Path:
        return name.with_name(name.name.removesuffix("_domain_rgb") or name.name)

    def write(self, name: Path, image: Image.Image, maps: Maps) -> None:
        coded = {task: encode_prediction(task, maps[task]) for task in self.tasks}
        for task, (pixels, clipped) in coded.items():
            self.values[task] += maps[task].size
            self.clipped[task] += clipped
            path = self.out / task / name.with_name(f"{name.name}_domain_{ENCODINGS[task].ending}.png")
            write_atomically(path, partial(Image.fromarray(pixels).save, format="PNG"))

    def notes(self) -> list[str]:
        notes = [f"{task}: not written, {reason}" for task, reason in self.absent.items()]
        for task, clipped in (+self.clipped).items():
            held = "{:.4g} to {:.6g}".format(*ENCODINGS[task].limits or ())
            notes.append(f"{task}: {clipped} of {self.values[task]} values clipped to what the files hold, {held}")
        return notes


FORMATS: dict[str, type[Arrays | TaskonomyFiles]] = {"npz": Arrays, "taskonomy": TaskonomyFiles}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", required=True, help="a run's folder (its best checkpoint) or a checkpoint's")
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER")
    parser.add_argument("--out", required=True)
    parser.add_argument("--format", choices=FORMATS, default="npz", help="what to write (see above)")
    parser.add_argument("--tta", choices=get_args(Averaging), default="none", help="flip: average over the mirror image too")
    parser.add_argument("--batch-size", type=int, default=8, help="images a pass through the network")
    arguments = parser.parse_intermixed_args()
    with exit_on_user_error():
        if arguments.batch_size < 1:
            raise ValueError(f"--batch-size: got {arguments.batch_size}; expected a whole number above 0; 1 takes least memory")
        form, out = FORMATS[arguments.format], Path(arguments.out)
        images = find_images(arguments.images, form.rename)
        predictor = Predictor.from_checkpoint(arguments.ckpt, distributed.pick_device("auto"), arguments.tta)
        files, failed = form(predictor, out), list[str]()
        predicted = predict(predictor, read(images, failed), arguments.batch_size)
        for name, image, maps in tqdm(predicted, total=len(images), desc="predict", unit="image"):
            files.write(name, image, maps)
        done = f"{len(images) - len(failed)} of {len(images)} images predicted; {form.CONTENT}: {out}/"
        print(done, *files.notes(), sep="\n")
        if failed:
            print("error: not readable as images:", *failed, sep="\n  ", file=sys.stderr)
            sys.exit(2)


if __name__ == "__main__":
    main()
