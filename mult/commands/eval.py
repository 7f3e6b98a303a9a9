"""Evaluate a checkpoint: mult eval --ckpt RUN_OR_CHECKPOINT [--config DATA.yaml] [--split test]
[--blur 0,1,2,4] [--corrupt noise,brightness,contrast] [--baseline JSON ...] [--out FILE].

The data are the checkpoint's own unless a YAML with another `data` section is given: a whole config, or that section alone.
A task that these data do not label, or label by other classes, is null in the result, with the reason. Beside every JSON
lies an .npz of what each image contributed. Runs under torchrun as well.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mult.build import build_eval_batches, build_eval_dataset, describe_selection
from mult.cli import add_baselines, exit_on_user_error
from mult.config import load_data_config
from mult.data.batches.corruptions import CorruptedDataset, parse_corruptions
from mult.errors import UserError
from mult.evaluation import evaluate
from mult.evaluation.gain import compute_delta_m, estimate_delta_m_interval, format_delta_m, merge_baselines
from mult.evaluation.results import SavedEvaluation, comparability, read_evaluation
from mult.evaluation.tables import format_evaluation
from mult.files import check_output, read_json, write_arrays, write_json
from mult.runs.checkpoint import find_checkpoint, load_checkpoint, stands_for_run
from mult.runs.weights import find_run, identify_weights
from mult.runtime import distributed
from mult.runtime.determinism import resolve_deterministic, set_deterministic
from mult.runtime.precision import DTYPES, resolve_precision
from mult.runtime.workers import image_workers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", required=True, help="a run's folder (its best checkpoint) or a checkpoint's")
    parser.add_argument("--config", help="a YAML whose data section to evaluate on, instead of the checkpoint's own")
    parser.add_argument("--split", default="test")
    parser.add_argument("--blur", metavar="SIGMAS", help="blur the images by each of these sigmas, in pixels at the network")
    parser.add_argument("--corrupt", metavar="KINDS", help="corrupt them by noise, brightness, contrast, five severities each")
    add_baselines(parser, ", of each severity its own: prints delta_m")
    parser.add_argument(
        "--out",
        type=Path,
        help="the JSON to write (a suffix such as -blur2 is put in); by default eval/<dataset>-<split>.json in the run, which "
        "replaces that of an earlier best, and eval/<dataset>-<split>-step<N>.json for one of its checkpoints",
    )
    arguments = parser.parse_args()
    with exit_on_user_error():
        corruptions = parse_corruptions(arguments.blur, arguments.corrupt)
        if arguments.out:
            check_output(arguments.out, "--out")
            if arguments.out.suffix == ".npz":
                raise UserError(
                    f"--out: got {arguments.out}; expected another ending than that of the .npz beside it; write e.g. "
                    f"{arguments.out.with_suffix('.json')}"
                )
        baselines = [read_evaluation(path) for path in arguments.baseline]
        folder = find_checkpoint(arguments.ckpt)
        model, config = load_checkpoint(folder)
        data = load_data_config(arguments.config, defaults=config.data) if arguments.config is not None else config.data
        device = distributed.pick_device(config.run.device)
        set_deterministic(resolve_deterministic(config.run.deterministic, device))
        with distributed.process_group(device):
            with distributed.main_first():  # which renders or scans what the others then find
                views, absent = build_eval_dataset(data, model, arguments.split)
            constants = read_json(folder / "trivial.json")
            weights = identify_weights(folder)
            selected = describe_selection(config) if stands_for_run(folder) else "by hand"
            plain = arguments.out or _locate(Path(arguments.ckpt), folder, f"{data.dataset}-{arguments.split}", weights)
            as_json = {one: dataclasses.asdict(one) if one.severity else None for one in corruptions}
            singles, merged = {}, {}
            if baselines:
                for one in corruptions:
                    expected = comparability(data.dataset, arguments.split, len(views), as_json[one])
                    others = [as_json[other] for other in corruptions if other != one]  # the rest is merged, or refused
                    singles[one] = [single for single in baselines if single.corruption not in others]
                    merged[one] = merge_baselines(expected, views.tasks, singles[one])
            for corruption in corruptions:
                batches = build_eval_batches(
                    evaluate.views_of_this_process(CorruptedDataset(views, data.image_size, corruption, data.fit)),
                    data.image_size,
                    evaluate.batch_size_of_this_process(config.eval.batch_size or data.batch_size),
                    data.workers,
                    data.fit,
                )
                precision = DTYPES[resolve_precision(config.run.precision, device)]
                with image_workers(data.workers):
                    evaluation = evaluate.evaluate(
                        model.to(device), batches, views.tasks, views, constants, device, precision, absent
                    )
                if not distributed.is_main():
                    continue
                out = plain.with_name(f"{plain.stem}{corruption.suffix}{plain.suffix}")
                if not arguments.out and out.exists() and read_evaluation(out).weights != weights:
                    print(f"{out}: replaces the evaluation of other weights of this run")
                write_arrays(out.with_suffix(".npz"), evaluation.columns)
                file = evaluation.as_json(data.dataset, arguments.split, as_json[corruption])
                file |= {"fit": data.fit, "weights": weights, "selected": selected}
                write_json(out, file)
                print(format_evaluation(evaluation))
                if baselines:
                    ours = SavedEvaluation(out, file, evaluation.columns)
                    interval = estimate_delta_m_interval([ours], [singles[corruption]])
                    delta_m = compute_delta_m(evaluation.results, merged[corruption])
                    print(format_delta_m(delta_m, interval, evaluation.interval_over))
                print(f"checkpoint: {folder}; {len(views)} images of {out.stem}; all metrics: {out}")


def _locate(ckpt: Path, folder: Path, stem: str, weights: Mapping[str, Any]) -> Path:
    """The JSON to write by default: no two checkpoints of a run have the same.

    `stem`.json is that of the run, of its best checkpoint, and is replaced where the best is another by now. With the step in
    its name it is of one checkpoint: where `ckpt` is one, and where `stem`.json is what training wrote of another step.
    """
    path = find_run(folder) / "eval" / f"{stem}.json"
    of_training = read_json(path).get("step") if path.exists() else None
    if (ckpt / "checkpoints").is_dir() and of_training in (None, weights["step"]):
        return path
    return path if weights["step"] is None else path.with_name(f"{stem}-step{weights['step']}.json")
