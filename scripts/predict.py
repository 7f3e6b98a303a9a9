"""Predict: python scripts/predict.py --ckpt RUN_OR_CHECKPOINT IMAGE_OR_FOLDER ... --out FOLDER.

Writes, for every image, <relative path>.npz with all maps in physical units at the image's own size, and
<relative path>_<task>.png, a picture of each.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from mult import distributed
from mult.cli import exit_on_user_error
from mult.data.index import write_atomically
from mult.draw import picture
from mult.predict import Predictor, as_rgb

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm"}


def find_images(inputs: list[str]) -> list[tuple[Path, Path]]:
    """(file, path to name its results by) of every image given, or found under a folder given."""
    found = []
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.suffix.lower() in ENDINGS)
            found += [(file, file.relative_to(path)) for file in files]
        elif path.exists():
            found.append((path, Path(path.name)))
        else:
            raise ValueError(f"image: got {name}; expected an image or a folder of images; no such file")
    names = [relative.with_suffix("") for _, relative in found]
    twice = sorted(str(name) for name, times in Counter(names).items() if times > 1)
    if twice:
        raise ValueError(f"images: got {twice[0]} more than once; expected names that differ; predict them in separate calls")
    if not found:
        known = ", ".join(sorted(ENDINGS))
        raise ValueError(f"images: got none in {', '.join(inputs)}; expected files ending in {known}; check the folder")
    return found


def write(predictor: Predictor, image: Image.Image, stem: Path) -> None:
    """<stem>_<task>.png and then <stem>.npz: an .npz says that the pictures are there too."""
    maps: dict[str, Any] = predictor(image)
    stem.parent.mkdir(parents=True, exist_ok=True)
    shown = np.asarray(as_rgb(image), np.float32).transpose(2, 0, 1) / 255
    for task, values in maps.items():
        drawn = picture(predictor.tasks[task], values, shown, predictor.classes.get(task))
        write_atomically(stem.with_name(f"{stem.name}_{task}.png"), partial(drawn.save, format="PNG"))
    write_atomically(stem.with_name(f"{stem.name}.npz"), lambda file: np.savez_compressed(file, **maps))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt", required=True, help="a run's folder (its best checkpoint) or a checkpoint's")
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_intermixed_args()
    with exit_on_user_error():
        images, out = find_images(arguments.images), Path(arguments.out)
        predictor = Predictor.from_checkpoint(arguments.ckpt, distributed.pick_device("auto"))
        failed = []
        for file, relative in tqdm(images, desc="predict"):
            try:
                with Image.open(file) as image:
                    upright = ImageOps.exif_transpose(image)  # loads it, and turns it as viewers show it
            except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
                failed.append(f"{file} ({error})")
                continue
            write(predictor, upright, out / relative.with_suffix(""))
        print(f"{len(images) - len(failed)} of {len(images)} images predicted; maps and pictures: {out}/")
        if failed:
            print("error: not readable as images:", *failed, sep="\n  ", file=sys.stderr)
            sys.exit(2)


if __name__ == "__main__":
    main()
