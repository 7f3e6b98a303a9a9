"""Evaluate a checkpoint: python scripts/eval.py --ckpt RUN_OR_CHECKPOINT [--config DATA.yaml] [--split test] [--out FILE].

The data are the checkpoint's own unless a YAML with another `data` section is given: a whole config, or that section alone.
Beside the JSON lies an .npz of what each image contributed. Runs under torchrun as well.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mult import build, distributed, evaluate
from mult.cli import exit_on_user_error
from mult.config import load_data_config
from mult.predict import load_checkpoint
from mult.runs import find_checkpoint, read_json, write_arrays, write_json
from mult.train import PRECISIONS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt", required=True, help="a run's folder (its best checkpoint) or a checkpoint's")
    parser.add_argument("--config", help="a YAML whose data section to evaluate on, instead of the checkpoint's own")
    parser.add_argument("--split", default="test")
    parser.add_argument(
        "--baseline", nargs="+", default=[], metavar="JSON", help="evaluations of single-task runs: prints delta_m"
    )
    parser.add_argument("--out", help="the JSON to write; by default eval/<dataset>-<split>.json in the run")
    arguments = parser.parse_args()
    with exit_on_user_error():
        folder = find_checkpoint(arguments.ckpt)
        model, config = load_checkpoint(folder)
        data = load_data_config(arguments.config, usual=config.data) if arguments.config else config.data
        device = distributed.pick_device(config.run.device)
        distributed.start(device)
        views = build.dataset(data, model.tasks, arguments.split)
        batches = build.eval_batches(
            evaluate.share(views), data.image_size, config.eval.batch_size or data.batch_size, data.workers
        )
        constants = read_json(folder / "trivial.json")
        evaluation = evaluate.evaluate(
            model.to(device), batches, model.tasks, views, constants, device, PRECISIONS[config.run.precision]
        )
        out = Path(arguments.out) if arguments.out else folder.parents[1] / "eval" / f"{data.dataset}-{arguments.split}.json"
        if distributed.is_main():
            write_arrays(out.with_suffix(".npz"), evaluation.columns)
            write_json(out, evaluation.as_json(data.dataset, arguments.split))
            print(evaluate.table(evaluation))
            if arguments.baseline:
                against = evaluate.against(evaluation.results, [read_json(Path(path)) for path in arguments.baseline])
                print(json.dumps(against, indent=2))
            print(f"checkpoint: {folder}; {len(views)} images of {data.dataset}, {arguments.split} split; all metrics: {out}")
        distributed.stop()


if __name__ == "__main__":
    main()
