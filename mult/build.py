"""Config -> datasets, model, objectives, optimiser, schedule: the only file that knows both sides."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, cast

from mult.config import Config, DataConfig, schema
from mult.config.schema import _nearest
from mult.data import NYU, CocoDoom, EvalTransform, Replica, Rooms, Taskonomy
from mult.data.batches.class_map import Mapped
from mult.data.batches.mixture import Mixture, label_spaces
from mult.data.disk.derived import why_absent
from mult.data.sample import EvalBatch, Reader, Sample, collate_eval
from mult.errors import UserError
from mult.models import MulT
from mult.runtime.loader import Loader
from mult.tasks import TASKS

DATASETS: dict[str, Callable[..., Reader]] = {
    "taskonomy": Taskonomy,
    "rooms": Rooms,
    "replica": Replica,
    "nyu": NYU,
    "cocodoom": CocoDoom,
}


def task_names(config: Config) -> list[str]:
    """The config's tasks in the order of TASKS; UserError for one that is not there."""
    for task in config.tasks:
        if task not in TASKS:
            remedy = _nearest(task, TASKS, "leave it out")
            raise UserError(f"tasks: got {task!r}; expected some of {', '.join(TASKS)}; {remedy}")
    return [task for task in TASKS if task in config.tasks]


def build_dataset(data: DataConfig, tasks: Iterable[str], split: str) -> Reader:
    """The dataset a config names, at the files' own size; UserError for options it does not take."""
    kind = DATASETS[data.dataset]
    arguments: dict[str, Any] = {"split": split, "tasks": tuple(tasks)}
    known = inspect.signature(kind, eval_str=True).parameters
    taken = {name for name in known if name not in {"root", "subset", "max_depth_m", *arguments}}
    for name in data.options:
        if name not in taken:
            expected = ", ".join(sorted(taken)) or "none"
            remedy = _nearest(name, taken, "leave it out")
            raise UserError(f"data.options: got {name!r} for {data.dataset}; expected {expected}; {remedy}")
    if data.max_depth_m is not None and "max_depth_m" not in known:
        raise UserError(f"data.max_depth_m: got {data.max_depth_m} for {data.dataset}; expected none; leave it out")
    for name in ("subset", "max_depth_m"):
        if name in known:
            arguments[name] = getattr(data, name)
    options = {
        name: schema.read_value(known[name].annotation, value, data.dataset, f"data.options.{name}")
        for name, value in data.options.items()
    }
    reader = kind(data.root, **arguments, **options)
    if data.class_map is None:
        return reader
    return cast(Reader, Mapped(reader, data.class_map.to, data.class_map.classes))


def build_mixture(parts: Sequence[DataConfig], tasks: Sequence[str]) -> Mixture:
    """What to train on: of several datasets, each gives those of the tasks that it has labels of.

    Raises UserError for a task that none labels and for two label spaces of one.
    """
    names = [f"{part.dataset} ({part.root})" for part in parts]
    if len(parts) == 1:
        readers = [build_dataset(parts[0], tasks, parts[0].split)]
    else:
        available = [build_dataset(part, (), part.split).available for part in parts]
        for task in tasks:
            if not any(task in there for there in available):
                raise UserError(
                    f"data: got task {task}, of which none of {', '.join(names)} has labels; expected at least one that does; "
                    "leave the task out or add such a dataset"
                )
        readers = [
            build_dataset(part, [task for task in tasks if task in there], part.split)
            for part, there in zip(parts, available, strict=True)
        ]
    return Mixture(readers, tasks, label_spaces(readers, names), parts[0].on_bad_file == "skip")


def build_evaluable(data: DataConfig, model: MulT, split: str) -> tuple[Reader, dict[str, str]]:
    """The dataset with those of a model's tasks that it can score, and {task: why not} for the others.

    Raises UserError where there is nothing to score.
    """
    plain = build_dataset(data, (), split)
    absent = {task: why_absent(plain, task) for task in model.tasks if task not in plain.available}
    views = build_dataset(data, [task for task in model.tasks if task not in absent], split)
    for task, classes in views.classes.items():
        if list(classes) != list(model.classes[task]):
            absent[task] = (
                f"the checkpoint's {len(model.classes[task])} classes ({', '.join(model.classes[task][:3])}, ...) are not the "
                f"{len(classes)} of {data.dataset} ({', '.join(classes[:3])}, ...)"
            )
    if absent.keys() >= set(model.tasks):
        reasons = "; ".join(f"{task}: {why}" for task, why in absent.items())
        raise UserError(f"{data.root}: got nothing to score ({reasons}); expected at least one task; choose other data")
    kept = [task for task in views.tasks if task not in absent]
    return (views if len(kept) == len(views.tasks) else build_dataset(data, kept, split)), absent


def build_eval_batches(views: Any, image_size: tuple[int, int], batch_size: int, workers: int) -> Iterable[EvalBatch]:
    """Views in order, images brought to `image_size`, targets as they are; `views` is a dataset or a part of one."""
    collate = partial(_collate_resized, EvalTransform(image_size))
    return Loader(views, batch_size=batch_size, num_workers=workers, collate_fn=collate)


def _collate_resized(transform: EvalTransform, samples: Sequence[Sample]) -> EvalBatch:
    return collate_eval([transform(sample) for sample in samples])


def build_model(config: Config, data: Mixture) -> MulT:
    """MulT for the config's tasks; a categorical task gets as many outputs as the dataset has classes."""
    channels = {task: TASKS[task].channels or len(data.classes[task]) for task in data.tasks}
    model = MulT(channels, **dataclasses.asdict(config.model))
    model.classes = {task: list(names) for task, names in data.classes.items()}
    return model
