"""Evaluate a checkpoint: mult eval --ckpt RUN_OR_CHECKPOINT [--config DATA.yaml] [data.root=PATH] [--split test]
[--blur 0,1,2,4] [--corrupt noise,brightness,contrast] [--baseline JSON ...] [--out FILE].

The data are the checkpoint's own unless a YAML with another `data` section is given: a whole config, or that section alone;
data.root, data.workers and data.batch_size can be given as words, too.
A task that these data do not label, or label by other classes, is null in the result, with the reason. Beside every JSON
lies an .npz of what each image contributed. Runs under torchrun as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mult.build import build_eval_batches, build_eval_dataset, describe_selection
from mult.cli import add_baselines, exit_on_user_error
from mult.config import Config, DataConfig, load_data_config
from mult.data.batches.corruptions import CorruptedDataset, Corruption, parse_corruptions
from mult.data.sample import Reader
from mult.errors import UserError, pluralize
from mult.evaluation import evaluate
from mult.evaluation.gain import compute_delta_m, estimate_delta_m_interval, format_delta_m, merge_baselines
from mult.evaluation.results import Entries, SavedEvaluation, comparability, read_evaluation
from mult.evaluation.tables import format_evaluation
from mult.files import check_output, read_json, write_arrays, write_json
from mult.models import MulT
from mult.runs.checkpoint import find_checkpoint, load_checkpoint, stands_for_run
from mult.runs.weights import find_run, identify_weights
from mult.runtime import distributed
from mult.runtime.determinism import resolve_deterministic, set_deterministic
from mult.runtime.precision import DTYPES, resolve_precision
from mult.runtime.workers import image_workers


@dataclass(frozen=True)
class Subject:
    """What is evaluated: the checkpoint in `folder`, on the `views` of one split of `data`."""

    folder: Path
    model: MulT
    config: Config
    constants: Mapping[str, Any]
    """The constant prediction of each task."""
    data: DataConfig
    split: str
    views: Reader
    absent: Mapping[str, str]
    """Task -> why it is not scored."""


def main() -> None:
    arguments = _parse_arguments()
    with exit_on_user_error():
        corruptions = parse_corruptions(arguments.blur, arguments.corrupt)
        if arguments.out:
            _check_out(arguments.out)
        baselines = [read_evaluation(path) for path in arguments.baseline]
        folder = find_checkpoint(arguments.ckpt)
        model, config = load_checkpoint(folder)
        source = folder / "config.yaml" if arguments.config is None else arguments.config
        data = load_data_config(source, config.data, arguments.overrides)
        device = distributed.pick_device(config.run.device)
        set_deterministic(resolve_deterministic(config.run.deterministic, device))
        with distributed.process_group(device):
            with distributed.main_first():  # which renders or scans what the others then find
                views, absent = build_eval_dataset(data, model, arguments.split)
            constants = read_json(folder / "trivial.json")
            subject = Subject(folder, model.to(device), config, constants, data, arguments.split, views, absent)
            weights = identify_weights(folder)
            plain = arguments.out or _locate(Path(arguments.ckpt), folder, f"{data.dataset}-{arguments.split}", weights)
            matched = _match_baselines(subject, baselines, corruptions)
            for corruption in corruptions:
                evaluation = _evaluate(subject, corruption, device)
                if not distributed.is_main():
                    continue
                out = plain.with_name(f"{plain.stem}{corruption.suffix}{plain.suffix}")
                if not arguments.out and out.exists() and read_evaluation(out).weights != weights:
                    print(f"{out}: replaces the evaluation of other weights of this run")
                saved = _save(subject, corruption, evaluation, weights, out)
                print(format_evaluation(evaluation))
                if corruption in matched:
                    print(_describe_gain(evaluation, saved, *matched[corruption]))
                print(f"checkpoint: {folder}; {pluralize(len(views), 'image')} of {out.stem}; all metrics: {out}")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", required=True, help="a run's folder (its best checkpoint) or a checkpoint's")
    parser.add_argument("--config", help="a YAML whose data section to evaluate on, instead of the checkpoint's own")
    parser.add_argument(
        "overrides", nargs="*", metavar="data.key=value", help="where that section's data are, or how they are read"
    )
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
    arguments = parser.parse_intermixed_args()
    words = [path for path in arguments.baseline if str(path).startswith("data.")]  # argparse takes them for files
    arguments.overrides += map(str, words)
    arguments.baseline = [path for path in arguments.baseline if path not in words]
    return arguments


def _check_out(out: Path) -> None:
    check_output(out, "--out")
    if out.suffix == ".npz":
        raise UserError(
            f"--out: got {out}; expected another ending than that of the .npz beside it; write e.g. {out.with_suffix('.json')}"
        )


def _as_json(corruption: Corruption) -> dict[str, Any] | None:
    return asdict(corruption) if corruption.severity else None


def _match_baselines(
    subject: Subject, baselines: Sequence[SavedEvaluation], corruptions: Sequence[Corruption]
) -> dict[Corruption, tuple[list[SavedEvaluation], dict[str, Entries]]]:
    """For each corruption its single-task evaluations, and these merged; none where no baseline is given.

    Raises UserError, before anything is evaluated, for baselines that do not fit.
    """
    matched = {}
    for corruption in corruptions if baselines else ():
        others = [_as_json(other) for other in corruptions if other != corruption]
        singles = [single for single in baselines if single.corruption not in others]  # merged, or refused
        expected = comparability(subject.data.dataset, subject.split, len(subject.views), _as_json(corruption))
        matched[corruption] = singles, merge_baselines(expected, subject.views.tasks, singles)
    return matched


def _evaluate(subject: Subject, corruption: Corruption, device: torch.device) -> evaluate.Evaluation:
    config, data, views = subject.config, subject.data, subject.views
    batches = build_eval_batches(
        evaluate.views_of_this_process(CorruptedDataset(views, data.image_size, corruption, data.fit)),
        data.image_size,
        evaluate.batch_size_of_this_process(config.eval.batch_size or data.batch_size),
        data.workers,
        data.fit,
    )
    precision = DTYPES[resolve_precision(config.run.precision, device)]
    with image_workers(data.workers):
        return evaluate.evaluate(
            subject.model, batches, views.tasks, views, subject.constants, device, precision, subject.absent
        )


def _save(
    subject: Subject, corruption: Corruption, evaluation: evaluate.Evaluation, weights: Mapping[str, Any], out: Path
) -> SavedEvaluation:
    """Write the JSON and the .npz."""
    write_arrays(out.with_suffix(".npz"), evaluation.columns)
    selected = describe_selection(subject.config) if stands_for_run(subject.folder) else "by hand"
    file = evaluation.as_json(subject.data.dataset, subject.split, _as_json(corruption))
    file |= {"fit": subject.data.fit, "weights": weights, "selected": selected}
    write_json(out, file)
    return SavedEvaluation(out, file, evaluation.columns)


def _describe_gain(
    evaluation: evaluate.Evaluation, saved: SavedEvaluation, singles: Sequence[SavedEvaluation], merged: Mapping[str, Entries]
) -> str:
    interval = estimate_delta_m_interval([saved], [singles])
    return format_delta_m(compute_delta_m(evaluation.results, merged), interval, evaluation.interval_over)


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
