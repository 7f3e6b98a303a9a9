"""Store a dataset at the network's size, for fast reading:
mult pack --config YAML --out ROOT [section.key=value ...].

Views are shrunk until they just cover `data.image_size`; each is stored with the labels of all tasks of the config. Then train
with data.dataset=packed data.root=ROOT. A larger size here leaves the detail that training sees when it enlarges views
(`data.augment.scale`). Interrupted at any moment, the same call goes on.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

from mult.build import build_dataset, task_names
from mult.cli import exit_on_user_error, require_counts, separate_overrides
from mult.config import load_config
from mult.data.batches.hold_out import HELD_OUT
from mult.data.disk.splits import SPLITS
from mult.data.packed.write import pack
from mult.errors import UserError, pluralize


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="a YAML to train with")
    parser.add_argument("--out", required=True, type=Path, help="the pack's folder; what it already holds is kept")
    parser.add_argument("--split", nargs="+", help="default: those that the config trains and evaluates on")
    parser.add_argument("--workers", type=int, help="processes (default: one a processor)")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    arguments = parser.parse_intermixed_args()
    arguments.split, overrides = separate_overrides(arguments.split)
    with exit_on_user_error():
        require_counts(arguments, "workers")
        config = load_config(arguments.config, arguments.overrides + overrides)
        data = config.data
        if data.mix:
            raise UserError(
                "data: got a list of datasets; expected one, as a pack holds one; pack each by its own config and mix the packs"
            )
        if data.dataset == "packed":
            raise UserError(
                f"data.dataset: got a pack ({data.root}); expected what it was made from; pack that at another size"
            )
        chosen = arguments.split or [data.split]
        if HELD_OUT in chosen:
            raise UserError(
                f"split: got {HELD_OUT}, which is a part of the training split; expected whole splits; pack {SPLITS[0]}: with "
                "data.hold_out a training on the pack holds out the same views"
            )
        data = replace(data, hold_out=0.0)  # it is a function of the views' names: a training on the pack holds out the same
        evaluated = [config.eval.split] if not arguments.split and config.eval.split != HELD_OUT else []
        splits = dict.fromkeys([*chosen, *evaluated])
        readers = {split: build_dataset(data, task_names(config), split) for split in splits}
        source = {key: getattr(data, key) for key in ("dataset", "root", "subset", "max_depth_m", "options")}
        source["class_map"] = {task: {"to": each.to, "classes": each.classes} for task, each in (data.class_map or {}).items()}
        start = time.perf_counter()
        results = pack(
            readers,
            arguments.out,
            data.image_size,
            source,
            skip_bad_files=data.on_bad_file == "skip",
            workers=arguments.workers,
        )
        seconds = time.perf_counter() - start
        for split, done in results.items():
            counts = f"{done.present} there before, {done.bad} with a damaged file, {done.without_camera} without a camera"
            print(f"{arguments.out}, split {split}: {pluralize(done.views, 'view')}; {counts}")
        made = sum(done.views - done.present for done in results.values())
        print(f"{pluralize(made, 'view')} in {seconds:.0f} s; read it with: data.dataset=packed data.root={arguments.out}")
        print("what the pack holds already has to be left out: data.options={} data.class_map=null")
