"""Every knob as frozen dataclasses; YAML -> Config and Config -> YAML.

The sections below are the whole vocabulary: a key that no dataclass names is an error, in a file, in an override on the
command line and in a dict alike. What a name stands for (a task, a backbone, the options of a dataset) is checked in
build.py, where the code it names is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

from mult.config import schema
from mult.config.merge import Tree, apply_override, load_file
from mult.config.schema import Rule
from mult.errors import UserError


def _is_relative(folder: str) -> bool:
    path = PurePath(folder)
    return folder != "" and not path.is_absolute() and ".." not in path.parts


Name = Annotated[str, Rule("a relative folder name without '..'", _is_relative)]
Count = Annotated[int, Rule("an integer of at least 1", lambda n: n >= 1)]
CountOrZero = Annotated[int, Rule("an integer of at least 0", lambda n: n >= 0)]
Positive = Annotated[float, Rule("a number above 0", lambda x: x > 0)]
NonNegative = Annotated[float, Rule("a number of at least 0", lambda x: x >= 0)]
Fraction = Annotated[float, Rule("a number in [0, 1)", lambda x: 0 <= x < 1)]
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
    output: str = "runs"
    seed: CountOrZero = 0
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    """auto: bf16 where the device has instructions for it, else fp32; which one is said and in the provenance."""
    deterministic: bool = True
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: about half the memory, a quarter more time."""
    compile: bool = False
    """torch.compile each block of encoder and decoders for training (needs a C++ compiler); evaluation runs uncompiled."""
    init: str | None = None
    """A run or checkpoint whose weights to start from."""
    checkpoint_every: CountOrZero = 1000
    """Steps between checkpoints, besides those that evaluations are of; 0: only those."""
    keep: Count = 2
    """The newest checkpoints kept, besides the best."""
    tensorboard: bool = False
    """Write what metrics.jsonl has, and the gallery, for TensorBoard too (extra `tensorboard`)."""


@dataclass(frozen=True, kw_only=True)
class ClassMapConfig:
    """A dataset's classes under the names and numbers of others, such as those that a checkpoint knows."""

    to: str | list[str]
    """The label space: taskonomy, nyu13, nyu40, or the names of all classes in the order of their ids."""
    classes: dict[str, str | None]
    """Each class of the dataset -> a class of `to`; null: ignored. None may be left out."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The images and how they are brought to the network."""

    dataset: Literal["taskonomy", "rooms", "replica", "nyu", "cocodoom"]
    root: str
    split: str = "train"
    subset: str = "tiny"
    image_size: Size
    """(height, width) at the network; YAML may give one number for a square."""
    batch_size: Count
    """Over all processes, a micro-step."""
    workers: CountOrZero = 2
    augment: bool = True
    """Training views are cropped and mirrored at random, their colours varied."""
    jitter: Fraction = 0.2
    """How far brightness, contrast and saturation vary: by factors of 1 - jitter to 1 + jitter."""
    max_depth_m: Positive | None = None
    """Depth beyond it is invalid; None: no cut-off."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the dataset itself."""
    class_map: ClassMapConfig | None = None
    """What segmentation is mapped to; None: the dataset's own classes."""
    on_bad_file: Literal["error", "skip"] = "error"
    """A missing or damaged file ends the training, or its sample counts nowhere: the file is listed in the run's
    bad_files.txt, and the log says how many samples a step lacked. No other sample takes its place."""
    weight: Positive = 1.0
    """How often the samples of a mixture come from this dataset: weight / sum of weights, kept exactly."""
    mix: list[DataConfig] = field(default_factory=list)
    """More datasets to train on. YAML gives them as a list, `data: [{...}, {...}]`, of which the first is the section
    itself. The others take from it what they leave out, but their root, weight, options and class_map; evaluation is on
    the first."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The arguments of MulT but `tasks`."""

    reference: str | None = None
    backbone: str = "swin_tiny_patch4_window7_224"
    pretrained: bool | str = False
    attention: Literal["shared", "independent", "self"] = "shared"
    decoder: Literal["paper", "released"] = "paper"
    window_size: Count = 7
    num_heads: Count | list[Count] | None = None
    drop_path: Fraction = 0.0
    dropout: Fraction = 0.0
    backbone_args: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """How much a task counts and, where it is not the task's own, by which loss of losses.py."""

    weight: NonNegative = 1.0
    loss: str | None = None


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """One optimiser, its learning rate over time, and how gradients become an update."""

    name: Literal["adamw", "muon"] = "adamw"
    """muon: momentum made orthogonal for weight matrices, scaled so that rates are AdamW's; AdamW for the rest."""
    lr: Positive
    weight_decay: NonNegative = 0.05
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    steps: Count
    warmup: CountOrZero = 0
    schedule: Literal["cosine", "constant", "poly", "onecycle"] = "cosine"
    """After `warmup`: half a cosine to 0, nothing, (1 - progress)^power, or torch's OneCycleLR with the warmup as its rise."""
    power: Positive = 0.9
    """Of the schedule poly."""
    encoder_lr: Positive | None = None
    """Of the encoder's last layer; None: lr."""
    layer_decay: Annotated[float, Rule("a number in (0, 1]", lambda x: 0 < x <= 1)] = 1.0
    """Each layer of the encoder, a block, learns at the rate of the one after it times this."""
    freeze_encoder: bool = False
    """The encoder keeps its weights and statistics, and drops no paths."""
    clip: Positive | None = 1.0
    """The largest norm of the gradient; None: not clipped."""
    accumulate: Count = 1
    """Micro-batches a step."""
    ema: Fraction | None = None
    """Decay of the running average of the weights; None: no average."""
    non_finite: Literal["stop", "skip"] = "stop"
    """At a loss or gradient that is not finite: end the training, or leave the step's update out and count it."""
    max_skipped: CountOrZero = 10
    """Steps of a whole run that `skip` may leave out; at one more, training ends."""


@dataclass(frozen=True, kw_only=True)
class BalanceConfig:
    """How the losses of the tasks become one update. The weights of `tasks` multiply those of every method."""

    method: str = "fixed"
    """fixed, uncertainty, dwa, gradnorm, or an aggregator of TorchJD as it spells it (PCGrad, CAGrad, MGDA, NashMTL, ...)."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of the method: the classes of optim.py, or the arguments of TorchJD's class; numbers a task are {task: number}."""
    log_cosine_every: CountOrZero = 0
    """Steps between measurements of the tasks' gradients, for methods that do not take them anyway; 0: never. One costs a
    backward pass a task."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """When to evaluate, and on what."""

    every: CountOrZero = 0
    """Steps between evaluations; 0: only at the end."""
    split: str = "val"
    batch_size: Count | None = None
    """None: the training's."""
    images: CountOrZero = 4
    """Rows of the gallery's images."""


PER_BATCH = ("image_size", "batch_size", "workers", "augment", "jitter", "on_bad_file")
"""Keys of DataConfig that all datasets of a mixture share, since their samples come in one batch."""


def _first_of_mixture(data: Any) -> Any:
    """The short form [first, *others] as the first section, with the others in its `mix`."""
    if isinstance(data, list) and data and all(isinstance(section, Mapping) for section in data):
        return {**data[0], "mix": data[1:]}
    return data


NamedTask = Annotated[
    TaskConfig, Rule("a section", expand=lambda task: task if isinstance(task, Mapping) else {"weight": task})
]
TaskTable = Annotated[dict[str, NamedTask], Rule("at least one task and its weight", lambda tasks: len(tasks) > 0)]


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole experiment."""

    run: RunConfig
    data: Annotated[DataConfig, Rule("a section or a list of sections", expand=_first_of_mixture)]
    """One dataset, or a list of them to mix."""
    model: ModelConfig = field(default_factory=ModelConfig)
    tasks: TaskTable
    """Name -> weight and loss; YAML may give the weight alone."""
    optim: OptimConfig
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any], source: str = "config") -> Config:
        """Check nested plain values and make a Config of them; `source` is what messages call their origin.

        Raises UserError for an unknown or missing key, a wrong type and a value out of range.
        """
        if "data" in tree:
            tree = {**tree, "data": _complete_mixture(tree["data"])}
        config = schema.read(cls, tree, source)
        assert isinstance(config, cls)
        _check_mixture(config.data, source)
        return config


def _complete_mixture(data: Any) -> Any:
    """A `data` section, or a list of them, whose later datasets have what they leave out from the first."""
    data = _first_of_mixture(data)
    if not isinstance(data, Mapping) or not isinstance(data.get("mix"), list | tuple):
        return data
    common = {key: value for key, value in data.items() if key not in ("root", "weight", "options", "class_map", "mix")}
    return {**data, "mix": [{**common, **part} if isinstance(part, Mapping) else part for part in data["mix"]]}


def _check_mixture(data: DataConfig, source: str) -> None:
    for number, part in enumerate(data.mix):
        for key in PER_BATCH:
            if getattr(part, key) != getattr(data, key):
                raise UserError(
                    f"{source}: data.mix.{number}.{key}: got {getattr(part, key)}; expected {getattr(data, key)}, as the first "
                    "dataset has, since all share a batch; leave it out"
                )
        if part.mix:
            raise UserError(f"{source}: data.mix.{number}.mix: got a mixture in a mixture; expected one list; join them")


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, the files it derives from (`base:`, relative to the file that says so), then the overrides.

    Mappings merge key by key; other values replace, and so does the whole of a child's `tasks`. An override is
    `section.key=value` with the value in YAML; it may reach into mappings (`data.options.views=10`,
    `tasks.<name>=0.5`, `tasks.<name>.loss=l1`), and a mapping as the value replaces what was there.

    Raises UserError for a missing file and for anything that is wrong in one.
    """
    tree = load_file(Config, Path(path))
    for override in overrides:
        tree = apply_override(Config, tree, override)
    return Config.from_dict(tree, str(path))


def load_data_config(path: str | Path, usual: DataConfig) -> DataConfig:
    """The `data` section of a YAML that may hold nothing else; what a network is fed with (`image_size`, `batch_size`,
    `workers`) is as `usual` where the section does not say.

    Raises UserError for a missing file and for anything that is wrong in it, in any section.
    """
    tree = load_file(Config, Path(path))
    if "data" not in tree:
        found = ", ".join(tree) or "nothing"
        raise UserError(f"{path}: got {found}; expected a data section; say what to read in data.dataset and data.root")
    unsaid = {name: getattr(usual, name) for name in ("image_size", "batch_size", "workers")}
    data = schema.read(DataConfig, _complete_mixture(unsaid | tree["data"]), f"{path}: data")
    assert isinstance(data, DataConfig)
    _check_mixture(data, str(path))
    return data


def read_data(dataset: str, root: str, overrides: Sequence[str] = ()) -> DataConfig:
    """The section `data` of a config that names only its dataset; an override is `key=value` or `options.key=value`.

    Raises UserError for what is wrong in one.
    """
    # No default of the library's: whoever has no config brings no image to a network.
    tree: Tree = {"data": {"dataset": dataset, "root": root, "image_size": 224, "batch_size": 1}}
    for override in overrides:
        tree = apply_override(Config, tree, f"data.{override}")
    data = schema.read(DataConfig, tree["data"], "data")
    assert isinstance(data, DataConfig)
    return data


def to_yaml(config: Config) -> str:
    """Write out every value of a config; loading the text gives an equal Config."""
    return schema.write_yaml(config)
