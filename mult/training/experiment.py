"""A config -> everything that a training run is made of: data, model, losses, balance method, optimiser and schedule."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from mult.build import build_dataset, build_mixture, build_model, check_data, check_selection, sketch_model, task_names
from mult.config import Config, TaskConfig
from mult.data.batches.mixture import Mixture
from mult.data.batches.sampler import ShuffledBatches
from mult.data.batches.transforms import AugmentedDataset, TrainTransform
from mult.data.sample import Batch, collate_train
from mult.errors import UserError, suggest
from mult.losses import LOSSES, TARGETS, Count, Loss, balanced_cross_entropy
from mult.models import MulT, resolve_reference
from mult.models.backbone import check_weights
from mult.runs.checkpoint import check_files, find_checkpoint
from mult.runtime import distributed
from mult.runtime.distributed import check_device_name
from mult.runtime.loader import Loader
from mult.tasks import TASKS
from mult.training.balance.balance import Balance
from mult.training.balance.choose import build_balance, find_method
from mult.training.loggers import check_loggers, list_loggers
from mult.training.optimizer import build_optimizer, find_encoder_rates
from mult.training.schedule import build_schedule


@dataclass(frozen=True)
class Objective:
    """The loss of a task on encoded targets, and the function that counts the loss's denominator."""

    loss: Loss
    count: Count


@dataclass(frozen=True)
class Experiment:
    """What a config names, built."""

    config: Config
    model: MulT
    objectives: dict[str, Objective]
    """Task -> its objective, in the order of TASKS."""
    balance: Balance
    optimizer: Optimizer
    schedule: LambdaLR
    train_data: Mixture
    eval_data: Mixture

    def batches(self, start: int, rank: int, world_size: int) -> Iterable[Batch]:
        """This process's micro-batches, from the number `start` to the end of training."""
        data, optim, seed = self.config.data, self.config.optim, self.config.run.seed
        transform = TrainTransform(data.image_size, data.fit, jitter=data.jitter, **asdict(data.augment))
        stop = optim.steps * optim.accumulate
        weights = [part.weight for part in (data, *data.mix)]
        return Loader(
            AugmentedDataset(self.train_data, transform, seed),
            batch_sampler=ShuffledBatches(
                self.train_data.lengths, weights, data.batch_size, seed, start, stop, rank, world_size
            ),
            num_workers=data.workers,
            collate_fn=collate_train,
            pin_memory=torch.cuda.is_available(),
        )


def build_experiment(config: Config, resumes: bool = False) -> Experiment:
    """Build all that a config names. Raises UserError for a name that means nothing and for parts that do not fit.

    resumes: the weights will come from a checkpoint of the run, so neither those of `model.pretrained` nor the checkpoint that
    `run.init` names are read.
    """
    if resumes:
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, pretrained=False))
    _check_names(config)
    if distributed.is_main():
        check_loggers(config.run)
    if config.run.init is not None and not resumes:
        find_checkpoint(config.run.init)
    tasks = task_names(config)
    objectives = {task: _build_objective(task, config.tasks[task]) for task in tasks}
    train_data = build_mixture([config.data, *config.data.mix], tasks, config.run.seed)
    # A mixture is evaluated on its first dataset, since scores over several could not be compared with published ones.
    eval_reader = build_dataset(config.data, train_data.readers[0].tasks, config.eval.split)
    eval_data = Mixture([eval_reader], tasks, train_data.classes, train_data.skip_bad_files)
    torch.manual_seed(config.run.seed)
    model = build_model(config, train_data)
    _check_image_size(config, model)
    if config.run.init is not None and not resumes:
        _load_initial_weights(model, config.run.init)
    if config.optim.freeze_encoder:
        model.encoder.freeze()
    balance = build_balance(config, model, len(train_data))
    optimizer = build_optimizer(config, model, balance)
    return Experiment(
        config=config,
        model=model,
        objectives=objectives,
        balance=balance,
        optimizer=optimizer,
        schedule=LambdaLR(optimizer, build_schedule(config.optim)),
        train_data=train_data,
        eval_data=eval_data,
    )


def check_config(config: Config) -> None:
    """Raise UserError for what would end `build_experiment` whatever the data, the weights and the machine are, in a second."""
    _check_names(config)
    check_device_name(config.run.device)
    list_loggers(config.run)
    find_method(config.balance)
    model = sketch_model(config)
    _check_image_size(config, model)
    find_encoder_rates(config.optim, model)


def _check_names(config: Config) -> None:
    """Raise UserError for names and options that mean nothing or do not go together, before any data is read, or rendered."""
    tasks, model = task_names(config), config.model
    for task in tasks:
        _build_objective(task, config.tasks[task])
    resolve_reference(tasks, model.reference, model.attention, model.decoder, model.skip)
    for data in (config.data, *config.data.mix):
        check_data(data, data.split)
    check_data(config.data, config.eval.split)
    check_selection(config)
    check_weights(model.backbone, model.pretrained)


def _check_image_size(config: Config, model: MulT) -> None:
    """Raise UserError for a backbone that takes no images of the config's size, or not in all their shapes."""
    model.encoder.check_size(config.data.image_size)
    if model.encoder.fixed_size is not None and config.data.fit == "short_side":
        raise UserError(
            f"data.fit: got short_side for {config.model.backbone}, which takes images of one size; expected pad or stretch; "
            "give data.fit=pad, or data.fit=stretch, which squeezes images of another shape in evaluation"
        )


def _load_initial_weights(model: MulT, path: str) -> None:
    """Load the weights of `run.init`, print which tasks start anew or are left out; UserError for a model that does not fit."""
    folder = find_checkpoint(path)
    check_files(folder)
    other = MulT.from_pretrained(folder)
    try:
        reasons = model.start_from(other)
    except UserError as error:
        raise UserError(
            f"run.init: the weights in {folder} do not fit this model ({error}); expected a run of the same model section; "
            "make it the same or leave run.init out"
        ) from error
    if distributed.is_main():
        left_out = [task for task in other.tasks if task not in model.tasks]
        parts = [f"weights from {folder}", *(f"{task} starts anew: {why}" for task, why in reasons.items())]
        parts += [f"left out, not among this run's tasks: {', '.join(left_out)}"] if left_out else []
        tqdm.write("; ".join(parts))


def _build_objective(task: str, config: TaskConfig) -> Objective:
    default = TASKS[task].loss.__name__
    name = config.loss or default
    if name not in LOSSES:
        remedy = suggest(name, LOSSES, f"leave it out for {default}")
        raise UserError(f"tasks.{task}.loss: got {name!r}; expected one of {', '.join(LOSSES)}; {remedy}")
    if TARGETS[name] != TARGETS[default]:
        expected = f"a loss for {TARGETS[default]}"
        raise UserError(f"tasks.{task}.loss: got {name!r}; expected {expected}; leave it out for {default}")
    loss, count = LOSSES[name]
    if config.positive_weight is not None:
        if loss is not balanced_cross_entropy:
            raise UserError(
                f"tasks.{task}.positive_weight: got {config.positive_weight} for {name}; expected it for "
                f"{balanced_cross_entropy.__name__} alone; leave it out"
            )
        loss = partial(loss, positive_weight=config.positive_weight)
    return Objective(loss, count)
