"""Export a model for other programs: python scripts/export.py --ckpt RUN_OR_CHECKPOINT --out model.onnx [--size HEIGHT WIDTH].

Writes model.onnx (extra `onnx`) and, beside it, model.pt2, which torch.export.load reads; --out model.pt2 writes that alone.
The input is `images`, (batch, 3, height, width) float32, RGB in [0, 1]: any batch, one height and width. The outputs have the
names of the tasks and are maps in physical units at that size. The metadata has the size, how images come to it, units and
classes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from mult.cli import exit_on_user_error
from mult.errors import UserError
from mult.export import check_onnx, describe, measure_difference, to_onnx, trace
from mult.files import check_output, write_file
from mult.runs.checkpoint import load_checkpoint

BATCHES = (1, 3)
"""Numbers of images at which the file is compared with torch."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", required=True, help="a run's folder (its best checkpoint) or a checkpoint's")
    parser.add_argument("--out", required=True, type=Path, help="model.onnx, or model.pt2 for that alone")
    parser.add_argument("--size", nargs=2, type=int, metavar=("HEIGHT", "WIDTH"), help="of the images; default: as trained")
    arguments = parser.parse_args()
    with exit_on_user_error():
        out: Path = arguments.out
        if out.suffix not in (".onnx", ".pt2"):
            raise UserError(f"--out: got {out}; expected a name that ends in .onnx or .pt2; give it one of these endings")
        for path in (out, out.with_suffix(".pt2")):
            check_output(path, "--out")
        if arguments.size and min(arguments.size) < 32:
            raise UserError(f"--size: got {arguments.size}; expected at least 32 pixels a side; give a larger size")
        model, config = load_checkpoint(arguments.ckpt)
        height, width = arguments.size or config.data.image_size
        size = (height, width)
        if out.suffix == ".onnx":
            check_onnx(model.state_dict())
        metadata = describe(model, size, config.data.fit)
        program = trace(model, size)
        if out.suffix == ".onnx":
            content = to_onnx(program, model.tasks, metadata)
            for batch in BATCHES:
                differences = measure_difference(content, model, size, batch)
                print(f"largest difference from torch, batch of {batch}:", *(f"{t} {d:.1g}" for t, d in differences.items()))
            write_file(out, lambda file: file.write(content))
            print(f"{out}: {len(content) / 1e6:.1f} MB")
        out = out.with_suffix(".pt2")
        write_file(out, lambda file: torch.export.save(program, file, extra_files=metadata))
        print(f"{out}: {out.stat().st_size / 1e6:.1f} MB; images of {height} x {width}, any number of them")
