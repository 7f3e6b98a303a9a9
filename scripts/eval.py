"""Evaluate a checkpoint: python scripts/eval.py --ckpt RUN_OR_CHECKPOINT [--config DATA.yaml] [--split test]
[--blur 0,1,2,4] [--corrupt noise,brightness,contrast] [--baseline JSON ...] [--out FILE].

The data are the checkpoint's own unless a YAML with another `data` section is given: a whole config, or that section alone.
A task that these data do not label, or label by other classes, is null in the result, with the reason. Beside every JSON
lies an .npz of what each image contributed. Runs under torchrun as well.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from mult.build import build_eval_batches, build_evaluable
from mult.cli import exit_on_user_error
from mult.config import load_data_config
from mult.data.batches.corruptions import Corrupted, parse
from mult.evaluation import evaluate
from mult.evaluation.gain import against, delta_m_interval, delta_m_line, merge_baselines
from mult.evaluation.results import Evaluated, header, load_baseline
from mult.evaluation.tables import table
from mult.files import read_json, write_arrays, write_json
from mult.runs.checkpoint import find_checkpoint, load_checkpoint
from mult.runtime import distributed
from mult.runtime.precision import DTYPES, chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", required=True, help="a run's folder (its best checkpoint) or a checkpoint's")
    parser.add_argument("--config", help="a YAML whose data section to evaluate on, instead of the checkpoint's own")
    parser.add_argument("--split", default="test")
    parser.add_argument("--blur", metavar="SIGMAS", help="blur the images by each of these sigmas, in pixels at the network")
    parser.add_argument("--corrupt", metavar="KINDS", help="spoil them by noise, brightness, contrast, five severities each")
    parser.add_argument(
        "--baseline",
        nargs="+",
        default=[],
        metavar="JSON",
        help="evaluations of single-task runs, of each severity its own: prints delta_m",
    )
    parser.add_argument(
        "--out", help="the JSON to write (a suffix such as -blur2 is put in); by default eval/<dataset>-<split>.json in the run"
    )
    arguments = parser.parse_args()
    with exit_on_user_error():
        corruptions = parse(arguments.blur, arguments.corrupt)
        baselines = [load_baseline(path) for path in arguments.baseline]
        folder = find_checkpoint(arguments.ckpt)
        model, config = load_checkpoint(folder)
        data = load_data_config(arguments.config, usual=config.data) if arguments.config else config.data
        device = distributed.pick_device(config.run.device)
        distributed.start(device)
        views, absent = build_evaluable(data, model, arguments.split)
        constants = read_json(folder / "trivial.json")
        plain = Path(arguments.out) if arguments.out else folder.parents[1] / "eval" / f"{data.dataset}-{arguments.split}.json"
        spoilt = {one: dataclasses.asdict(one) if one.severity else None for one in corruptions}
        singles, merged = {}, {}
        if baselines:
            for one in corruptions:
                ours = header(data.dataset, arguments.split, len(views), spoilt[one])
                others = [spoilt[other] for other in corruptions if other != one]  # what is of no severity is refused
                singles[one] = [single for single in baselines if single.file.get("corruption") not in others]
                files = {str(single.path): single.file for single in singles[one]}
                merged[one] = merge_baselines(ours, views.tasks, files)
        for corruption in corruptions:
            batches = build_eval_batches(
                evaluate.share(Corrupted(views, data.image_size, corruption)),
                data.image_size,
                config.eval.batch_size or data.batch_size,
                data.workers,
            )
            precision = DTYPES[chosen(config.run.precision, device)]
            evaluation = evaluate.evaluate(model.to(device), batches, views.tasks, views, constants, device, precision, absent)
            if not distributed.is_main():
                continue
            out = plain.with_name(f"{plain.stem}{corruption.suffix}{plain.suffix}")
            write_arrays(out.with_suffix(".npz"), evaluation.columns)
            file = evaluation.as_json(data.dataset, arguments.split, spoilt[corruption])
            write_json(out, file)
            print(table(evaluation))
            if baselines:
                its = Evaluated(out.stem, out, file, evaluation.columns)
                interval = delta_m_interval([its], [singles[corruption]])
                compared = against(evaluation.results, merged[corruption])
                print(delta_m_line(compared, interval, evaluation.interval_over))
            print(f"checkpoint: {folder}; {len(views)} images of {out.stem}; all metrics: {out}")
        distributed.stop()


if __name__ == "__main__":
    main()
