"""The sections of a config as frozen dataclasses: every key, its type, its range and its default.

A key that no dataclass has is an error, in a file, in an override on the command line and in a dict alike. A name (of a task,
a dataset, a backbone, a kind of attention) is a plain string here, and is checked where the thing that it names is built.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePath
from typing import Annotated, Any, Literal

from mult.config import schema
from mult.config.schema import Rule
from mult.errors import UserError


def _is_relative(folder: str) -> bool:
    path = PurePath(folder)
    return folder != "" and not path.is_absolute() and ".." not in path.parts


Name = Annotated[str, Rule("a relative folder name without '..'", _is_relative)]
FilePath = Annotated[str, Rule("a string", expand=lambda path: os.path.expanduser(path) if isinstance(path, str) else path)]
"""A path, in which `~` is the user's home; the file need not be there."""
Names = Annotated[
    list[str], Rule("a name or a list of names", expand=lambda names: [names] if isinstance(names, str) else names)
]
Count = Annotated[int, Rule("an integer of at least 1", lambda n: n >= 1)]
CountOrZero = Annotated[int, Rule("an integer of at least 0", lambda n: n >= 0)]
Positive = Annotated[float, Rule("a number above 0", lambda x: x > 0)]
NonNegative = Annotated[float, Rule("a number of at least 0", lambda x: x >= 0)]
Fraction = Annotated[float, Rule("a number in [0, 1)", lambda x: 0 <= x < 1)]
ScaleRange = Annotated[
    tuple[Positive, Positive], Rule("[smallest, largest], two numbers above 0", lambda ends: ends[0] <= ends[1])
]
Size = Annotated[
    tuple[int, int],
    Rule(
        "one number of pixels or [height, width], each an integer of at least 32",
        holds=lambda size: min(size) >= 32,
        expand=lambda size: (size, size) if isinstance(size, int) else size,
    ),
]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where a run is written and what makes it repeatable."""

    name: Name
    output: FilePath = "runs"
    seed: CountOrZero = 0
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    """auto: bf16 where the device has instructions for it, else fp32; provenance.json says which."""
    deterministic: Literal["auto"] | bool = "auto"
    """Two runs are equal to the bit, on a GPU too, where it takes time. auto: true on the CPU, false elsewhere; provenance.json
    says which."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: about half the memory, a quarter more time."""
    compile: bool = False
    """torch.compile each block of encoder and decoders for training (needs a C++ compiler); evaluation runs uncompiled."""
    init: FilePath | None = None
    """A run or checkpoint whose weights to start from."""
    checkpoint_every: CountOrZero = 1000
    """Steps between checkpoints; there is one of every evaluated step as well. 0: only these."""
    keep: Count = 2
    """How many of the newest checkpoints are kept, besides the best."""
    log: Names = field(default_factory=list)
    """Loggers that get the numbers of metrics.jsonl and the gallery too: tensorboard, wandb, trackio. Each is an extra of that
    name. YAML may give one name alone."""
    tensorboard: bool = False
    """The same as tensorboard in `log`; where both have it, it is written once. Kept for configs that were before `log`."""


@dataclass(frozen=True, kw_only=True)
class ClassMapConfig:
    """Other names and numbers for a dataset's classes, such as those of a checkpoint."""

    to: str | list[str]
    """The label space: taskonomy, nyu13, nyu40, or the names of all classes in the order of their ids."""
    classes: dict[str, str | None]
    """Each class of the dataset -> a class of `to`, or null: pixels of that class do not count. No class may be left out."""


EVERY_TASK = ""
"""The key in `class_map` that stands for all tasks of classes."""
ClassMaps = Annotated[
    dict[str, ClassMapConfig],
    Rule("a mapping of tasks", expand=lambda maps: {EVERY_TASK: maps} if isinstance(maps, Mapping) and "to" in maps else maps),
]


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What is random in a training image. A label that a change would make wrong (of edges, say, by other colours) is left out
    where the change is made, and half of such images are not changed: mult/data/batches/transforms.py."""

    crop: bool = True
    """Crop at a random place, not in the middle."""
    flip: bool = True
    """Mirror every second image, left to right."""
    scale: ScaleRange = (1.0, 1.25)
    """The range of a factor by which images are enlarged on top of `fit`; depth is divided by it."""
    colours: Literal["jitter", "photometric", "none"] = "jitter"
    """jitter: by `data.jitter`. photometric: brightness, contrast, saturation, hue as in SSD (mult/data/batches/colours.py)."""


_NO_AUGMENTATION = AugmentConfig(crop=False, flip=False, scale=(1.0, 1.0), colours="none")
Augment = Annotated[
    AugmentConfig,
    Rule(
        "true, false or a section",
        expand=lambda value: asdict(AugmentConfig() if value else _NO_AUGMENTATION) if isinstance(value, bool) else value,
    ),
]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The images, and how they become the network's input."""

    dataset: str
    root: FilePath
    split: str = "train"
    hold_out: Fraction = 0.0
    """This share of `split` is not trained on: it is the split `held_out`, of whole scenes where the dataset names some."""
    subset: str = "tiny"
    image_size: Size
    """(height, width) of the network's input, in pixels; YAML may give one number for a square."""
    fit: Literal["short_side", "stretch", "pad"] = "short_side"
    """How images come to that size (mult/data/batches/fit.py). short_side: scaled until they cover it, their proportions kept;
    training crops the rest. stretch: evaluation and prediction squeeze them. pad: scaled down until they fit, black around."""
    batch_size: Count
    """Images a micro-batch, over all processes."""
    workers: CountOrZero = 2
    augment: Augment = AugmentConfig()
    """What is random in a training image; YAML may give true for the defaults and false for none of it."""
    jitter: Fraction = 0.2
    """With `augment.colours: jitter`, the range of factors of brightness, contrast and saturation: 1 - jitter to 1 + jitter."""
    max_depth_m: Positive | None = None
    """Depth beyond it is invalid; None: no cut-off."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the dataset itself."""
    class_map: ClassMaps | None = None
    """Task -> other classes for it; a task that is not here, and all with None, have the dataset's own. YAML may give {to,
    classes} alone, for every task of classes that the dataset labels."""
    on_bad_file: Literal["error", "skip"] = "error"
    """error: a missing or damaged file ends the training. skip: its sample is left out, without another in its place; the run's
    bad_files.txt lists the file, and the log has the number of samples that a step lacks."""
    labels: Literal["all", "one", "random"] = "all"
    """Which labels a training image keeps: all, those of one task, or of a random part of the tasks; a function of run.seed
    and the image's id (mult/data/batches/partial_labels.py). Evaluation has all."""
    weight: Positive = 1.0
    """The share of a mixture's samples that comes from this dataset is exactly weight / sum of weights."""
    mix: list[DataConfig] = field(default_factory=list)
    """More datasets to train on. YAML gives a list, `data: [{...}, {...}]`, whose first entry is the section itself. A key that
    another entry leaves out is as in the first, except root, weight, options and class_map. Evaluation is on the first."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The arguments of `mult.models.MulT`, except `tasks`; mult/models/README.md explains them."""

    reference: str | None = None
    """The task whose query and key all tasks share, or `learned`: a mix of the maps of all, by shares that are learnt."""
    backbone: str = "swin_tiny_patch4_window7_224"
    pretrained: bool | FilePath = False
    attention: str = "shared"
    decoder: str = "paper"
    skip: str = "none"
    window_size: Count = 7
    num_heads: Count | list[Count] | None = None
    drop_path: Fraction = 0.0
    dropout: Fraction = 0.0
    backbone_args: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """The weight of a task's loss and the name of that loss in losses.py; None: the task's own."""

    weight: NonNegative = 1.0
    loss: str | None = None
    positive_weight: Annotated[float, Rule("a number in (0, 1)", lambda x: 0 < x < 1)] | None = None
    """What a positive pixel weighs in balanced_cross_entropy; a negative one weighs the rest to 1. None: the loss's own."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimiser, its learning rate over time, and how gradients become an update."""

    name: Literal["adamw", "muon"] = "adamw"
    """muon: orthogonalised momentum for weight matrices, scaled so that AdamW's learning rates fit; AdamW for the rest."""
    lr: Positive
    weight_decay: NonNegative = 0.05
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    steps: Count
    warmup: CountOrZero = 0
    schedule: Literal["cosine", "constant", "poly", "onecycle"] = "cosine"
    """The learning rate after `warmup`: half a cosine to 0, constant, or (1 - progress)^power (poly); onecycle is torch's
    OneCycleLR, whose rise takes the steps of the warmup."""
    power: Positive = 0.9
    """The exponent of the schedule poly."""
    encoder_lr: Positive | None = None
    """The learning rate of the encoder's last layer; None: lr."""
    layer_decay: Annotated[float, Rule("a number in (0, 1]", lambda x: 0 < x <= 1)] = 1.0
    """The learning rate of each block of the encoder is that of the next one times this."""
    freeze_encoder: bool = False
    """Do not train the encoder: its weights and batch statistics stay, and drop path is off in it. The pyramid of a plain ViT,
    which is never pretrained, learns."""
    clip: Positive | None = 1.0
    """The norm to which a larger gradient is scaled down; None: none is."""
    accumulate: Count = 1
    """Micro-batches a step."""
    ema: Fraction | None = None
    """Decay of the running average of the weights, which is what is evaluated and saved; None: no average."""
    non_finite: Literal["stop", "skip"] = "stop"
    """At a loss or gradient that is not finite: end the training, or skip the step's update and count it."""
    max_skipped: CountOrZero = 10
    """How many updates of a run `skip` may skip; at one more, training ends."""


@dataclass(frozen=True, kw_only=True)
class BalanceConfig:
    """How the losses of the tasks become one update. Every method multiplies its own weights by those of `tasks`."""

    method: str = "fixed"
    """A method of mult/training/balance/, or an aggregator of TorchJD under its name there (PCGrad, CAGrad, MGDA, ...)."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the method (mult/training/README.md), or the arguments of TorchJD's class; where an option has a number for
    each task, it is {task: number}."""
    log_cosine_every: CountOrZero = 0
    """Steps between measurements of the cosines between the tasks' gradients, for methods that do not compute these gradients
    themselves; 0: never. A measurement costs one backward pass for each task."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """When training evaluates, and on what."""

    every: CountOrZero = 0
    """Steps between evaluations; 0: only at the end."""
    split: str = "val"
    select: Literal["last", "val"] = "val"
    """Which checkpoint a run's folder stands for. val: the one that was best on `split`. last: the one of the last step. On a
    split that a benchmark compares on (NYU's and Pascal's val and test) only last, evaluated once, is allowed."""
    batch_size: Count | None = None
    """Views a batch, over all processes; None: as in training."""
    quick: bool = False
    """Take less time for the training's own evaluations: odsF with 24 thresholds instead of 99, as the file says; at most as
    high, and not to be compared with the full form, which eval.py has."""
    images: CountOrZero = 4
    """How many images the gallery shows."""


PER_BATCH = ("image_size", "fit", "batch_size", "workers", "augment", "jitter", "on_bad_file")
"""Keys that must be equal in all datasets of a mixture, because one batch has samples of several."""


def _first_of_mixture(data: Any) -> Any:
    """A list of sections as the first of them, with the others in its `mix`."""
    if isinstance(data, list) and data and all(isinstance(section, Mapping) for section in data):
        return {**data[0], "mix": data[1:]}
    return data


NamedTask = Annotated[
    TaskConfig, Rule("a section", expand=lambda task: task if isinstance(task, Mapping) else {"weight": task})
]
TaskTable = Annotated[dict[str, NamedTask], Rule("at least one task and its weight", lambda tasks: len(tasks) > 0)]


@dataclass(frozen=True, kw_only=True)
class Config:
    """All of an experiment."""

    run: RunConfig
    data: Annotated[DataConfig, Rule("a section or a list of sections", expand=_first_of_mixture)]
    """One dataset, or a list of datasets to mix."""
    model: ModelConfig = field(default_factory=ModelConfig)
    tasks: TaskTable
    """Task -> its weight and loss; YAML may give the weight alone."""
    optim: OptimConfig
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any], source: str = "config") -> Config:
        """Check nested plain values and make a Config of them; `source` says in messages where they come from.

        Raises UserError for an unknown or missing key, a wrong type and a value out of range.
        """
        if "data" in tree:
            tree = {**tree, "data": complete_mixture(tree["data"])}
        config = schema.read(cls, tree, source)
        assert isinstance(config, cls)
        check_mixture(config.data, source)
        if config.optim.warmup > config.optim.steps:
            raise UserError(
                f"{source}: optim.warmup: got {config.optim.warmup} of {config.optim.steps} steps; expected at most all "
                "of them; lower it"
            )
        return config


def complete_mixture(data: Any) -> Any:
    """A `data` section, or a list of them, with the keys that later datasets leave out copied from the first."""
    data = _first_of_mixture(data)
    if not isinstance(data, Mapping) or not isinstance(data.get("mix"), list | tuple):
        return data
    common = {key: value for key, value in data.items() if key not in ("root", "weight", "options", "class_map", "mix")}
    return {**data, "mix": [{**common, **part} if isinstance(part, Mapping) else part for part in data["mix"]]}


def check_mixture(data: DataConfig, source: str) -> None:
    """Raise UserError where a key of PER_BATCH differs between the datasets of a mixture, or a mixture is in a mixture."""
    for number, part in enumerate(data.mix):
        for key in PER_BATCH:
            if getattr(part, key) != getattr(data, key):
                raise UserError(
                    f"{source}: data.mix.{number}.{key}: got {getattr(part, key)}; expected {getattr(data, key)}, as the first "
                    "dataset has, since all share a batch; leave it out"
                )
        if part.mix:
            raise UserError(f"{source}: data.mix.{number}.mix: got a mixture in a mixture; expected one list; join them")
