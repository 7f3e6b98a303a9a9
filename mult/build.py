"""Config -> datasets, model, objectives, optimiser, schedule: the only file that knows both sides."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from mult.config import Config, DataConfig, schema
from mult.data import NYU, Augmented, CocoDoom, EvalTransform, Replica, Rooms, Taskonomy, TrainTransform
from mult.data.batches.class_map import Mapped
from mult.data.batches.mixture import Mixture, label_spaces
from mult.data.batches.sampler import Shuffled
from mult.data.prepare.derive import why_absent
from mult.data.sample import Batch, EvalBatch, Reader, Sample, collate_eval, collate_train
from mult.losses import LOSSES, Count, Loss
from mult.models import MulT
from mult.runs.checkpoint import check_model
from mult.runs.folder import find_checkpoint
from mult.runtime import distributed
from mult.runtime.loader import Loader
from mult.tasks import TASKS
from mult.training import optimizer as optim
from mult.training.balance import Balance

DATASETS: dict[str, Callable[..., Reader]] = {
    "taskonomy": Taskonomy,
    "rooms": Rooms,
    "replica": Replica,
    "nyu": NYU,
    "cocodoom": CocoDoom,
}


@dataclass(frozen=True)
class Objective:
    """What training asks of one task: the loss on encoded targets, and what counts its denominator."""

    loss: Loss
    count: Count


@dataclass(frozen=True)
class Experiment:
    """Everything a training run is made of."""

    config: Config
    model: MulT
    objectives: dict[str, Objective]
    balance: Balance
    optimizer: Optimizer
    schedule: LambdaLR
    train_data: Mixture
    eval_data: Mixture

    def batches(self, start: int, rank: int, world: int) -> Iterable[Batch]:
        """This rank's micro-batches from number `start` to the end of training."""
        data, optim = self.config.data, self.config.optim
        transform = TrainTransform(data.image_size, data.augment, data.jitter)
        stop = optim.steps * optim.accumulate
        seed = self.config.run.seed
        weights = [part.weight for part in (data, *data.mix)]
        return Loader(
            Augmented(self.train_data, transform, seed),
            batch_sampler=Shuffled(self.train_data.lengths, weights, data.batch_size, seed, start, stop, rank, world),
            num_workers=data.workers,
            collate_fn=collate_train,
            pin_memory=torch.cuda.is_available(),
        )


def experiment(config: Config, resumes: bool = False) -> Experiment:
    """Build all that a config names. Raises ValueError for a name that means nothing and for parts that do not fit.

    resumes: a checkpoint's weights follow, so those of `run.init` need not be there any more.
    """
    tasks = task_names(config)
    objectives = {task: _objective(task, config.tasks[task].loss) for task in tasks}
    if config.model.reference is not None and config.model.reference not in tasks:
        raise ValueError(
            f"model.reference: got {config.model.reference!r}; expected one of {', '.join(tasks)}; name one of the config's "
            "tasks"
        )
    train_data = mixture([config.data, *config.data.mix], tasks)
    # A mixture is evaluated on its first dataset: scores of several at once would compare with nobody's.
    first = dataset(config.data, train_data.readers[0].tasks, config.eval.split)
    eval_data = Mixture([first], tasks, train_data.classes, train_data.skip_bad_files)
    torch.manual_seed(config.run.seed)
    model = build_model(config, train_data)
    model.encoder.check_size(config.data.image_size)
    if config.run.init is not None and not resumes:
        _start_from(model, config.run.init)
    model.encoder.requires_grad_(not config.optim.freeze_encoder)
    balance = optim.balance(config, model, len(train_data))
    optimizer = optim.optimizer(config, model, balance)
    return Experiment(
        config=config,
        model=model,
        objectives=objectives,
        balance=balance,
        optimizer=optimizer,
        schedule=LambdaLR(optimizer, optim.schedule(config.optim)),
        train_data=train_data,
        eval_data=eval_data,
    )


def task_names(config: Config) -> list[str]:
    """The config's tasks in the order of TASKS; ValueError for one that is not there."""
    for task in config.tasks:
        if task not in TASKS:
            remedy = _nearest(task, TASKS, "leave it out")
            raise ValueError(f"tasks: got {task!r}; expected some of {', '.join(TASKS)}; {remedy}")
    return [task for task in TASKS if task in config.tasks]


def dataset(data: DataConfig, tasks: Iterable[str], split: str) -> Reader:
    """The dataset a config names, at the files' own size; ValueError for options it does not take."""
    kind = DATASETS[data.dataset]
    arguments: dict[str, Any] = {"split": split, "tasks": tuple(tasks)}
    known = inspect.signature(kind, eval_str=True).parameters
    taken = {name for name in known if name not in {"root", "subset", "max_depth_m", *arguments}}
    for name in data.options:
        if name not in taken:
            expected = ", ".join(sorted(taken)) or "none"
            remedy = _nearest(name, taken, "leave it out")
            raise ValueError(f"data.options: got {name!r} for {data.dataset}; expected {expected}; {remedy}")
    if data.max_depth_m is not None and "max_depth_m" not in known:
        raise ValueError(f"data.max_depth_m: got {data.max_depth_m} for {data.dataset}; expected none; leave it out")
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


def mixture(parts: Sequence[DataConfig], tasks: Sequence[str]) -> Mixture:
    """What to train on: of several datasets, each gives those of the tasks that it has labels of.

    Raises ValueError for a task that none labels and for two label spaces of one.
    """
    names = [f"{part.dataset} ({part.root})" for part in parts]
    if len(parts) == 1:
        readers = [dataset(parts[0], tasks, parts[0].split)]
    else:
        available = [dataset(part, (), part.split).available for part in parts]
        for task in tasks:
            if not any(task in there for there in available):
                raise ValueError(
                    f"data: got task {task}, of which none of {', '.join(names)} has labels; expected at least one that does; "
                    "leave the task out or add such a dataset"
                )
        readers = [
            dataset(part, [task for task in tasks if task in there], part.split)
            for part, there in zip(parts, available, strict=True)
        ]
    return Mixture(readers, tasks, label_spaces(readers, names), parts[0].on_bad_file == "skip")


def evaluable(data: DataConfig, model: MulT, split: str) -> tuple[Reader, dict[str, str]]:
    """The dataset with those of a model's tasks that it can score, and {task: why not} for the others.

    Raises ValueError where there is nothing to score.
    """
    plain = dataset(data, (), split)
    absent = {task: why_absent(plain, task) for task in model.tasks if task not in plain.available}
    views = dataset(data, [task for task in model.tasks if task not in absent], split)
    for task, classes in views.classes.items():
        if list(classes) != list(model.classes[task]):
            absent[task] = (
                f"the checkpoint's {len(model.classes[task])} classes ({', '.join(model.classes[task][:3])}, ...) are not the "
                f"{len(classes)} of {data.dataset} ({', '.join(classes[:3])}, ...)"
            )
    if absent.keys() >= set(model.tasks):
        reasons = "; ".join(f"{task}: {why}" for task, why in absent.items())
        raise ValueError(f"{data.root}: got nothing to score ({reasons}); expected at least one task; choose other data")
    kept = [task for task in views.tasks if task not in absent]
    return (views if len(kept) == len(views.tasks) else dataset(data, kept, split)), absent


def eval_batches(views: Any, image_size: tuple[int, int], batch_size: int, workers: int) -> Iterable[EvalBatch]:
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


def _start_from(model: MulT, path: str) -> None:
    """The weights of `run.init`; what it does not have is named; ValueError where it is another kind of model."""
    folder = find_checkpoint(path)
    other = MulT.from_pretrained(folder)
    check_model(folder)
    try:
        anew = model.start_from(other)
    except ValueError as error:
        raise ValueError(
            f"run.init: the weights in {folder} do not fit this model ({error}); expected a run of the same model section; "
            "make it the same or leave run.init out"
        ) from error
    if distributed.is_main():
        tqdm.write(f"weights from {folder}" + "".join(f"; {task} starts anew: {why}" for task, why in anew.items()))


def _objective(task: str, name: str | None) -> Objective:
    name = name or TASKS[task].loss.__name__
    if name not in LOSSES:
        remedy = _nearest(name, LOSSES, f"leave it out for {TASKS[task].loss.__name__}")
        raise ValueError(f"tasks.{task}.loss: got {name!r}; expected one of {', '.join(LOSSES)}; {remedy}")
    if (name == "cross_entropy") != TASKS[task].categorical:
        raise ValueError(
            f"tasks.{task}.loss: got {name!r}; expected a loss for {'classes' if TASKS[task].categorical else 'values'}; "
            f"leave it out for {TASKS[task].loss.__name__}"
        )
    return Objective(*LOSSES[name])


def _nearest(name: str, names: Iterable[str], remedy: str) -> str:
    """What to do about a name that means nothing: take the one that is nearly it, or else the `remedy`."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"did you mean {near[0]!r}?" if near else remedy
