"""Check data before training: mult check-data --config YAML [section.key=value ...]
or mult check-data --dataset NAME --root ROOT [key=value ...] [--split train ...].

Reads every file once, or with --views those of so many views. Finds files that are missing, damaged, of a wrong size, mode or
range, and constant ones. Tests the labels of 48 views besides, runs of four neighbours throughout a split: the frame of the
normals, the scale and the kind of depth, the focal length, whether image and depth are of one view and lie one way, the formula
of the edges. Each test ends with right, WRONG (and why), not compared, or cannot tell.
Prints a table a split and writes OUT/check.json and a sheet of pictures a split, in place of those of an older check. Exit
status: 0 if training can start, 1 if not, 2 if a dataset cannot be opened. A call that was interrupted goes on where it was, if
repeated.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from mult.build import build_dataset, build_mixture, task_names
from mult.cli import exit_on_user_error, require_counts, require_used, separate_overrides
from mult.config import DataConfig, build_data_config, load_config
from mult.data import DATASETS
from mult.data.batches.hold_out import HELD_OUT
from mult.data.disk.splits import SPLITS
from mult.data.prepare.check import Report, check, space_evenly
from mult.data.sample import BadFileError, Sample
from mult.draw import draw_label_sheet
from mult.errors import UserError, pluralize
from mult.files import write_file, write_json
from mult.tasks import TASKS

MAX_PRINTED = 12
"""Problems, and buildings, of a split that are printed; the JSON has more."""
SHEET_ROWS = 4
_ANY = ("split", "views", "seed", "outdoors", "workers", "out", "overrides")
USED = {"config": ("config", *_ANY), "dataset": ("dataset", "root", *_ANY)}
"""The argument that tells a kind of call -> the arguments that such a call uses."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", help="a YAML to train with: the splits that it trains and evaluates on")
    parser.add_argument("--dataset", help="data.dataset of a config")
    parser.add_argument("--root", help="data.root of a config")
    parser.add_argument(
        "--split",
        nargs="+",
        metavar="SPLIT",
        help="train, val, test or, with hold_out, held_out; default: of a config its own, else all that have views",
    )
    parser.add_argument("--views", type=int, help="read so many of a split, drawn at random; default: all")
    parser.add_argument("--seed", type=int, help="of the draw of --views; default: 0")
    parser.add_argument("--outdoors", action="store_true", help="depth may be beyond that of rooms")
    parser.add_argument("--workers", type=int, help="processes; default: one a core")
    parser.add_argument("--out", default="check", help="the folder to write to")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_intermixed_args()
    arguments.split, overrides = separate_overrides(arguments.split)
    arguments.overrides += overrides
    with exit_on_user_error():
        check_options(arguments)
        out, reports, can_train = Path(arguments.out), [], True
        parts = list_splits(arguments)
        remove_findings(out)
        for number, (data, split) in enumerate(parts):
            name = f"{number}-{data.dataset}-{split}"
            state = hashlib.sha256(repr(data).encode()).hexdigest()[:16]
            report = check(
                partial(build_dataset, data, split=split),
                split,
                arguments.views,
                arguments.workers,
                seed=arguments.seed or 0,
                outdoors=arguments.outdoors,
                progress=out / "progress" / state,
            )
            can_start = report.can_train(skipping=data.on_bad_file == "skip")
            can_train &= can_start
            reports.append({"dataset": data.dataset, "root": data.root, "can_train": can_start, **asdict(report)})
            write_json(out / "check.json", reports)
            print("\n".join(format_report(data, report)))
            if (pictures := draw_sheet(data, split)) is not None:
                write_file(out / f"{name}.png", partial(pictures.save, format="PNG"))
                print(f"  pictures: {out / name}.png\n")
        if arguments.config is not None:  # raises unless the parts together have labels of each task, and one label space
            config = load_config(arguments.config, arguments.overrides)
            build_mixture([config.data, *config.data.mix], task_names(config))
        print(f"training {'can' if can_train else 'cannot'} start; all findings: {out / 'check.json'}")
        sys.exit(0 if can_train else 1)


def check_options(arguments: argparse.Namespace) -> None:
    """UserError for options that are missing, that the call makes no use of, or that no check can have."""
    if arguments.config is None and (arguments.dataset is None or arguments.root is None):
        given = [f"--{name}" for name in ("dataset", "root") if getattr(arguments, name) is not None]
        raise UserError(f"check-data: got {''.join(given) or 'no data'}; expected --config or --dataset and --root; give it")
    call = "dataset" if arguments.config is None else "config"
    require_used(arguments, USED, call, "leave it out; data.dataset=NAME and data.root=ROOT change what a config reads")
    require_counts(arguments, "views", "workers")
    if arguments.seed is not None and arguments.views is None:
        raise UserError(f"--seed: got {arguments.seed} without --views; expected both; give the other, or leave it out")


def list_splits(arguments: argparse.Namespace) -> list[tuple[DataConfig, str]]:
    """The datasets and splits to check, which can all be opened; of a dataset without a config, those of SPLITS that it has."""
    if arguments.config is not None:
        config = load_config(arguments.config, arguments.overrides)
        parts = []
        for data in (config.data, *config.data.mix):
            evaluated = [config.eval.split] if data is config.data else []
            parts += [(data, split) for split in arguments.split or dict.fromkeys([data.split, *evaluated])]
        for data, split in parts:
            build_dataset(data, (), split)
        return parts
    data = build_data_config(arguments.dataset, arguments.root, arguments.overrides)
    present: list[str] = []
    absent: dict[str, UserError] = {}
    for split in arguments.split or SPLITS:
        try:
            build_dataset(data, (), split)
            present.append(split)
        except UserError as error:
            absent[split] = error
    if absent and (arguments.split or not present):
        raise next(iter(absent.values()))
    for split, reason in absent.items():
        tqdm.write(f"split {split} is not checked: {reason}")
    return [(data, split) for split in present]


def remove_findings(out: Path) -> None:
    """Remove what an older check wrote: its sheets would stand beside the new ones as if they were of the same data."""
    splits = "|".join((*SPLITS, HELD_OUT))
    for path in (out / "check.json", *out.glob("*.png")):
        if re.fullmatch(rf"check\.json|\d+-({'|'.join(DATASETS)})-({splits})\.png", path.name):
            path.unlink(missing_ok=True)


def draw_sheet(data: DataConfig, split: str) -> Image.Image | None:
    """The labels of the first views that can be read, of some evenly spaced ones; None if none of these can."""
    tasks = build_dataset(data, (), split).available
    views = build_dataset(data, tasks, split)
    samples: list[Sample] = []
    candidates = space_evenly(len(views), 8 * SHEET_ROWS)
    for i in (i for first in range(8) for i in candidates[first::8]):  # every eighth first, the others in place of bad ones
        with suppress(BadFileError):
            samples += [views[i]] if len(samples) < SHEET_ROWS else []
    return draw_label_sheet(samples, {task: TASKS[task] for task in tasks}, views.classes) if samples else None


def format_report(data: DataConfig, report: Report) -> Iterator[str]:
    """A split's report for the terminal."""
    part = "" if report.seed is None else f", {report.read} of them read, drawn at random with seed {report.seed}"
    yield (
        f"{data.dataset} ({data.root}), split {report.split}: {pluralize(report.views, 'view')} of "
        f"{pluralize(len(report.buildings), 'building')}{part}"
    )
    if report.median_depth_m is not None:
        yield f"  median depth {report.median_depth_m:.3g} m"
    yield f"  {'task':<20}{'own':>9}{'derived':>9}{'valid':>9}"
    for task, entry in report.tasks.items():
        yield f"  {task:<20}{entry['native']:>9.0f}{entry['derived']:>9.0f}{100 * entry['valid']:>8.1f}%"
    largest = [f"{name or '(none)'} {count}" for name, count in list(report.buildings.items())[:MAX_PRINTED]]
    more = f" and {len(report.buildings) - MAX_PRINTED} more" if len(report.buildings) > MAX_PRINTED else ""
    yield f"  views a building: {', '.join(largest)}{more}"
    if report.counts:
        yield f"  found: {', '.join(f'{count} {kind}' for kind, count in report.counts.items())}"
    for word, problems in (("error", report.problems), ("warning", report.warnings)):
        yield from (f"  {word}: {problem.kind}: {problem.text}" for problem in problems[:MAX_PRINTED])
    yield f"  labels of {pluralize(report.tested, 'view')}, in runs of neighbours, tested for what they mean:"
    for verdict in report.verdicts:
        word = verdict.state if verdict.state != "wrong" else "WRONG" if verdict.blocks else "warning"
        yield f"  {word}: {verdict.subject}: {verdict.text}"
