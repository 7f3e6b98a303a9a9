"""Where a run's numbers and pictures go besides its folder: TensorBoard, Weights & Biases and Trackio.

Each of these packages is an extra, under the name that `run.log` has for it, and is imported where it is used. It gets the
numbers of metrics.jsonl, the pictures and the config, and no file of a checkpoint. Only the main process has loggers.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Protocol

import numpy as np
from PIL import Image

from mult.config.sections import RunConfig
from mult.errors import UserError, suggest
from mult.files import write_text
from mult.runs.folder import Run


class Logger(Protocol):
    """The constructor starts the log of a run at `step`, the number of steps done, or goes on with the one that it has."""

    def __init__(self, run: Run, step: int) -> None: ...

    @staticmethod
    def check() -> None:
        """Raise ImportError without the package, and UserError for what else would fail in the constructor."""

    def add_scalars(self, step: int, scalars: Mapping[str, float]) -> None: ...

    def add_image(self, step: int, name: str, image: Image.Image) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in <run>/tensorboard; what an earlier process logged after `step` is dropped where they are read."""

    def __init__(self, run: Run, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=step + 1)

    @staticmethod
    def check() -> None:
        from torch.utils.tensorboard import SummaryWriter  # noqa: F401

    def add_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def add_image(self, step: int, name: str, image: Image.Image) -> None:
        self._writer.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of the project `mult`, or of $WANDB_PROJECT; its files are in <run>/wandb, with WANDB_MODE=offline for a later
    `wandb sync`.

    A resumed run has the id of the first process, and so goes on as one run. The number of steps is logged as the value "step",
    the x axis of all others. wandb's own counter only rises: it would drop the evaluation of a step whose training line is
    there already.
    """

    def __init__(self, run: Run, step: int) -> None:
        import wandb

        self._make_image = wandb.Image
        with _explain_wandb_error():
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "mult"),
                name=run.config.run.name,
                id=_identify(run),
                resume="allow",
                dir=str(run.folder),
                config=asdict(run.config),
                settings=wandb.Settings(console="off"),  # it would send the progress bars, line by line
            )
        self._run.define_metric("*", step_metric="step")

    @staticmethod
    def check() -> None:
        from wandb import login

        with _explain_wandb_error():
            login()  # asks for a key, if need be, while nobody waits for a training; offline it asks for nothing

    def add_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log({"step": step, **scalars})

    def add_image(self, step: int, name: str, image: Image.Image) -> None:
        self._run.log({"step": step, name: self._make_image(image.convert("RGB"))})

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """A run of the project `mult` in Trackio's own folder ($TRACKIO_DIR), or on $TRACKIO_SPACE_ID; `trackio show` draws it.

    Trackio resumes by name, and another folder may have a run of the same name, so an id is put behind it.
    """

    def __init__(self, run: Run, step: int) -> None:
        import trackio

        self._make_image, self._finish = trackio.Image, trackio.finish
        self._run = trackio.init(
            "mult", f"{run.config.run.name}-{_identify(run)}", resume="allow", config=asdict(run.config), embed=False
        )

    @staticmethod
    def check() -> None:
        from trackio import init  # noqa: F401

    def add_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log(dict(scalars), step=step)

    def add_image(self, step: int, name: str, image: Image.Image) -> None:
        self._run.log({name: self._make_image(image.convert("RGB"))}, step=step)

    def close(self) -> None:
        self._finish()


LOGGERS: dict[str, type[Logger]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "trackio": Trackio}
"""Name, in `run.log` and of the extra with the package -> the logger."""


def check_loggers(config: RunConfig) -> None:
    """Raise UserError for a name that is no logger's, for a package that is missing and for a service that takes no log."""
    for name in list_loggers(config):
        try:
            LOGGERS[name].check()
        except ImportError as error:
            raise UserError(
                f"run.log: got {name} without its package ({error}); expected it installed; "
                f'pip install "mult-dense[{name}]", or take {name} out of run.log and run.tensorboard'
            ) from error


def open_loggers(run: Run, step: int) -> list[Logger]:
    """The loggers of a run, of which `step` steps are done."""
    return [LOGGERS[name](run, step) for name in list_loggers(run.config.run)]


def list_loggers(config: RunConfig) -> list[str]:
    """Each logger once, also where `run.tensorboard` and `run.log` both ask for it. Raises UserError for another name."""
    names = list(dict.fromkeys([*(["tensorboard"] if config.tensorboard else []), *config.log]))
    for name in names:
        if name not in LOGGERS:
            remedy = suggest(name, LOGGERS, "leave it out")
            raise UserError(f"run.log: got {name!r}; expected some of {', '.join(LOGGERS)}; {remedy}")
    return names


def _identify(run: Run) -> str:
    """The id of a run at the services that know it by one; a run that starts over gets a new one."""
    path = run.folder / "logger_id"
    if not path.exists():
        write_text(path, secrets.token_hex(4))
    return path.read_text(encoding="utf-8")


@contextmanager
def _explain_wandb_error() -> Iterator[None]:
    import wandb

    try:
        yield
    except wandb.Error as error:  # no key, a wrong one, a project without the right to write, no network
        reason = " ".join(str(error).split())
        raise UserError(
            f"run.log: got wandb, which cannot log ({reason:.300}); expected a key and a network; `wandb login`, or "
            "WANDB_MODE=offline, or take it out"
        ) from error
