"""From the sections of a config to datasets, batches and the model: here a YAML key becomes a class and its arguments.

Only this file and training/experiment.py, which adds losses, optimiser and schedule, know both configs and what they build.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, cast

import torch

import mult.data
from mult.config import Config, DataConfig, schema
from mult.config.sections import EVERY_TASK
from mult.data.batches.class_map import ClassMapDataset
from mult.data.batches.fit import Fit
from mult.data.batches.hold_out import HELD_OUT, PartOfSplit
from mult.data.batches.mixture import Mixture, merge_label_spaces
from mult.data.batches.partial_labels import PartialLabels
from mult.data.batches.transforms import EvalTransform
from mult.data.disk.derived import explain_absence
from mult.data.disk.splits import SPLITS, check_split_name
from mult.data.sample import EvalBatch, Reader, Sample, collate_eval
from mult.errors import UserError, suggest
from mult.models import MulT
from mult.runtime.loader import Loader
from mult.tasks import TASKS


def task_names(config: Config) -> list[str]:
    """The config's tasks in the order of TASKS; UserError for a name that is not there."""
    for task in config.tasks:
        if task not in TASKS:
            remedy = suggest(task, TASKS, "leave it out")
            raise UserError(f"tasks: got {task!r}; expected some of {', '.join(TASKS)}; {remedy}")
    return [task for task in TASKS if task in config.tasks]


def build_dataset(data: DataConfig, tasks: Iterable[str], split: str) -> Reader:
    """The dataset that a config names, with labels of `tasks`, images and labels at the files' own size.

    With `data.hold_out` the split `held_out` is a part of `data.split`, which has the other views alone. Raises UserError for a
    dataset that is not in mult.data.DATASETS, for options that it does not take and for a split that it does not have.
    """
    dataset_class, arguments = _resolve_dataset(data, split)
    own_split = data.split if split == HELD_OUT else split
    dataset: Reader = dataset_class(data.root, split=own_split, tasks=tuple(tasks), **arguments)
    if data.hold_out and split in (data.split, HELD_OUT):
        dataset = cast(Reader, PartOfSplit(dataset, data.hold_out, split == HELD_OUT))
    for key, class_map in (data.class_map or {}).items():
        for task in dataset.classes if key == EVERY_TASK else [key]:
            dataset = cast(Reader, ClassMapDataset(dataset, task, class_map.to, class_map.classes))
    return dataset


def check_data(data: DataConfig, split: str) -> None:
    """Raise UserError as `build_dataset` does, for what is wrong whatever the files hold."""
    _resolve_dataset(data, split)


def _resolve_dataset(data: DataConfig, split: str) -> tuple[Any, dict[str, Any]]:
    """The class of a dataset and its arguments other than root, split and tasks."""
    if split == HELD_OUT and not data.hold_out:
        raise UserError(f"split: got {HELD_OUT!r} without data.hold_out; expected a share; give e.g. data.hold_out=0.1")
    if data.hold_out:
        check_split_name(split, (*SPLITS, HELD_OUT))
    dataset_class = _find_dataset_class(data)
    return dataset_class, _dataset_arguments(data, dataset_class)


def _find_dataset_class(data: DataConfig) -> Any:
    names = mult.data.DATASETS
    if data.dataset not in names:
        remedy = suggest(data.dataset, names, "choose one of them")
        raise UserError(f"data.dataset: got {data.dataset!r}; expected one of {', '.join(names)}; {remedy}")
    return getattr(mult.data, names[data.dataset])


def evaluates_on_benchmark(config: Config) -> bool:
    """Whether a training is evaluated on images that a benchmark compares on, by which no checkpoint may be chosen."""
    return config.eval.split in _find_dataset_class(config.data).benchmark_splits


def check_selection(config: Config) -> None:
    """Raise UserError where a training would look at a benchmark's images before its last step, or choose by them."""
    if evaluates_on_benchmark(config) and (config.eval.every or config.eval.select != "last"):
        raise UserError(
            f"eval: got split {config.eval.split} of {config.data.dataset}, every {config.eval.every}, select "
            f"{config.eval.select}; expected every 0 and select last, since the benchmark compares on these images; give "
            f"eval.every=0 eval.select=last, or choose by a part of the training split: data.hold_out=0.1 eval.split={HELD_OUT}"
        )


def describe_selection(config: Config) -> str:
    """By what a run's checkpoint was chosen: "last", "val", or "test" for a benchmark's images (runs of the first version)."""
    return "test" if config.eval.select == "val" and evaluates_on_benchmark(config) else config.eval.select


_FROM_SECTION = ("subset", "max_depth_m", "image_size")
"""Keys of a data section that are arguments of the datasets which have parameters of these names."""


def _dataset_arguments(data: DataConfig, dataset_class: type) -> dict[str, Any]:
    """The keys of _FROM_SECTION and data.options, as far as the class has parameters of these names."""
    parameters = inspect.signature(dataset_class, eval_str=True).parameters
    options = parameters.keys() - {"root", "split", "tasks", *_FROM_SECTION}
    for name in data.options:
        if name not in options:
            expected = ", ".join(sorted(options)) or "none"
            remedy = suggest(name, options, "leave it out")
            raise UserError(f"data.options: got {name!r} for {data.dataset}; expected {expected}; {remedy}")
    if data.max_depth_m is not None and "max_depth_m" not in parameters:
        raise UserError(f"data.max_depth_m: got {data.max_depth_m} for {data.dataset}; expected none; leave it out")
    arguments = {name: getattr(data, name) for name in _FROM_SECTION if name in parameters}
    for name, value in data.options.items():
        arguments[name] = schema.read_value(parameters[name].annotation, value, data.dataset, f"data.options.{name}")
    return arguments


def build_mixture(parts: Sequence[DataConfig], tasks: Sequence[str], seed: int = 0) -> Mixture:
    """The training dataset of one or several parts, each of which gives those of the tasks that it has labels of.

    seed: draws the labels that a part with `data.labels: one` or `random` keeps.

    Raises UserError for a task that no part labels and for a task whose classes differ between parts.
    """
    names = [f"{part.dataset} ({part.root})" for part in parts]
    if len(parts) == 1:
        readers = [build_dataset(parts[0], tasks, parts[0].split)]
    else:
        available = [build_dataset(part, (), part.split).available for part in parts]
        for task in tasks:
            if not any(task in labelled for labelled in available):
                raise UserError(
                    f"data: got task {task}, of which none of {', '.join(names)} has labels; expected at least one that does; "
                    "leave the task out or add such a dataset"
                )
        readers = [
            build_dataset(part, [task for task in tasks if task in labelled], part.split)
            for part, labelled in zip(parts, available, strict=True)
        ]
    label_spaces = merge_label_spaces(readers, names)
    partly_labelled = [
        reader if part.labels == "all" else cast(Reader, PartialLabels(reader, part.labels, seed))
        for part, reader in zip(parts, readers, strict=True)
    ]
    return Mixture(partly_labelled, tasks, label_spaces, parts[0].on_bad_file == "skip")


def build_eval_dataset(data: DataConfig, model: MulT, split: str) -> tuple[Reader, dict[str, str]]:
    """The dataset with those of the model's tasks that can be evaluated on it, and {task: why it cannot} for the others.

    Raises UserError where none can be.
    """
    dataset = build_dataset(data, (), split)
    absent = {task: explain_absence(dataset, task) for task in model.tasks if task not in dataset.available}
    dataset = build_dataset(data, [task for task in model.tasks if task not in absent], split)
    for task, classes in dataset.classes.items():
        if list(classes) != list(model.classes[task]):
            absent[task] = (
                f"the checkpoint's {len(model.classes[task])} classes ({', '.join(model.classes[task][:3])}, ...) are not the "
                f"{len(classes)} of {data.dataset} ({', '.join(classes[:3])}, ...)"
            )
    if absent.keys() >= set(model.tasks):
        reasons = "; ".join(f"{task}: {why}" for task, why in absent.items())
        raise UserError(f"{data.root}: got nothing to score ({reasons}); expected at least one task; choose other data")
    tasks = [task for task in dataset.tasks if task not in absent]
    return (dataset if len(tasks) == len(dataset.tasks) else build_dataset(data, tasks, split)), absent


def build_eval_batches(
    dataset: Any, image_size: tuple[int, int], batch_size: int, workers: int, fit: Fit = "short_side"
) -> Iterable[EvalBatch]:
    """Batches of a dataset, or of a part of one, in its order: images as `fit` says, targets at their own size."""
    collate = partial(_collate_fitted, EvalTransform(image_size, fit))
    pin_memory = torch.cuda.is_available()
    return Loader(dataset, batch_size=batch_size, num_workers=workers, collate_fn=collate, pin_memory=pin_memory)


def _collate_fitted(transform: EvalTransform, samples: Sequence[Sample]) -> EvalBatch:
    return collate_eval([transform(sample) for sample in samples])


def build_model(config: Config, data: Mixture) -> MulT:
    """MulT for the tasks of the training data; a categorical task gets as many output channels as the data have classes."""
    channels = {task: TASKS[task].channels or len(data.classes[task]) for task in data.tasks}
    model = MulT(channels, **dataclasses.asdict(config.model))
    model.classes = {task: list(names) for task, names in data.classes.items()}
    return model


def sketch_model(config: Config) -> MulT:
    """The model of a config with the shapes of its weights and no numbers, without data: to see whether it can be built.

    A categorical task has two classes in it.
    """
    channels = {task: TASKS[task].channels or 2 for task in task_names(config)}
    arguments = {**dataclasses.asdict(config.model), "pretrained": False}
    try:
        with torch.device("meta"):
            return MulT(channels, **arguments)
    except (UserError, RuntimeError):  # the config's fault, or a backbone that needs numbers as it is built
        return MulT(channels, **arguments)
