"""All that changes while a run trains, in one place, and how it is saved and resumed.

The order of samples and every random draw are functions of (seed, step) or (seed, epoch, index), so no random state is saved.
Which evaluations were done, and the best score, are read from metrics.jsonl.
"""

from __future__ import annotations

import copy
import math
import shutil
import sys
from collections.abc import Mapping
from typing import Any

import torch
from tqdm import tqdm

from mult.errors import UserError
from mult.evaluation.trivial import learn_constants
from mult.files import read_json, write_json
from mult.models import MulT
from mult.runs.checkpoint import Checkpoints
from mult.runs.folder import Run
from mult.runtime import distributed
from mult.runtime.precision import DTYPES, resolve_precision
from mult.training.experiment import Experiment


class TrainingState:
    """The state of a run on one process: of its newest checkpoint, or of step 0 where it has none.

    Raises UserError where all checkpoints are damaged, and where the disk has no room for another one.
    """

    def __init__(self, experiment: Experiment, run: Run, device: torch.device) -> None:
        config = experiment.config
        self.run, self.device = run, device
        self.precision_name = resolve_precision(config.run.precision, device)
        self.precision = DTYPES[self.precision_name]
        self.checkpoints = Checkpoints(run.folder / "checkpoints", run.config_yaml, config.run.keep)

        self.step = 0  # the number of steps done
        self.skipped_steps = 0  # of these, the ones whose loss or gradient was not finite
        self.overflows = 0  # and the ones that the scaler of fp16 left out
        self.last_saved_step = 0
        self.last_evaluated_step = 0
        self.best_score = -math.inf

        self.model = experiment.model.to(device)
        self.average = copy.deepcopy(self.model) if config.optim.ema is not None else None
        self.balance = experiment.balance.to(device)
        self.optimizer, self.schedule = experiment.optimizer, experiment.schedule
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == torch.float16)

        self._check_room()
        self._find_start()
        if self.step > 0:
            self._load()
        else:
            self.constants = learn_constants(experiment.train_data, list(experiment.objectives), config.run.seed)
        if distributed.is_main():
            write_json(run.folder / "trivial.json", self.constants)

    @property
    def evaluated_model(self) -> MulT:
        """The model that is evaluated and saved for prediction: the average of the weights, if the config asks for one."""
        return self.model if self.average is None else self.average

    def save(self) -> None:
        """Write a checkpoint of this step. All processes take the buffers that it holds, and so evaluate the same model."""
        for model in (self.model, self.average):
            if model is not None:
                distributed.broadcast_buffers(model)
        if distributed.is_main():
            counts = {"step": self.step, "skipped": self.skipped_steps, "overflows": self.overflows}
            state = counts | {"conditions": self._conditions()}
            state |= {name: part.state_dict() for name, part in self._parts().items()}
            self.run.sync_log()
            self.checkpoints.save(self.step, self.evaluated_model, state, self.constants)
        self.last_saved_step = self.step

    def _check_room(self) -> None:
        """Raise UserError, before the first step, where the disk has no room for one checkpoint.

        A checkpoint has the weights, and what the optimiser remembers: as much again for each of its moments.
        """
        if not distributed.is_main():
            return
        weights = sum(value.nbytes for value in self.model.state_dict().values())
        trained = sum(p.nbytes for group in self.optimizer.param_groups for p in group["params"])
        needed = weights * (1 if self.average is None else 2) + trained  # of moments, at least one
        free = shutil.disk_usage(self.run.folder).free
        if free < needed:
            raise UserError(
                f"run.output: got {free / 2**20:.0f} MiB of free space for {self.run.folder}; expected {needed / 2**20:.0f} "
                "MiB or more for a checkpoint; make room or choose another place"
            )

    def record_score(self, score: float | None) -> None:
        """Record that this step, which must be saved, was evaluated; point `best` at it if its score is the highest so far.

        With `eval.select: last` no checkpoint is the best one.
        """
        if self.run.config.eval.select == "last":
            if distributed.is_main():
                self.checkpoints.mark_best(None)
        elif score is not None and score > self.best_score:
            self.best_score = score
            if distributed.is_main():
                self.checkpoints.mark_best(self.step)
        self.last_evaluated_step = self.step

    def _parts(self) -> dict[str, Any]:
        """What a checkpoint holds beside the evaluated model, by its key in state.pt."""
        parts = {"optimizer": self.optimizer, "schedule": self.schedule, "scaler": self.scaler, "balance": self.balance}
        return parts if self.average is None else parts | {"model": self.model}

    def _find_start(self) -> None:
        """Find the newest whole checkpoint, cut metrics.jsonl back to its step, and read from it what was evaluated."""
        if distributed.is_main():
            self.step = self.checkpoints.recover() or 0
            scores = self.run.cut_log(self.step)
            self.last_evaluated_step = max(scores, default=0)
            self.best_score = max((score for score in scores.values() if score is not None), default=self.best_score)
        numbers = distributed.broadcast_numbers([self.step, self.last_evaluated_step, self.best_score])
        self.step, self.last_evaluated_step, self.best_score = int(numbers[0]), int(numbers[1]), numbers[2]
        self.last_saved_step = self.step

    def _load(self) -> None:
        folder, state = self.checkpoints.load(self.step)
        self.skipped_steps = state["skipped"]
        self.overflows = state.get("overflows", 0)  # the first version did not count them
        self.evaluated_model.load_state_dict(MulT.from_pretrained(folder).state_dict())
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        # The rates follow from the step, since optim.steps may differ from that of the checkpoint.
        rates = zip(self.optimizer.param_groups, self.schedule.base_lrs, self.schedule.lr_lambdas, strict=True)
        for group, base_rate, factor in rates:
            group["lr"] = base_rate * factor(self.step)
        self.constants = read_json(folder / "trivial.json")
        if distributed.is_main():
            _warn_of_differences(state["conditions"], self._conditions())

    def _conditions(self) -> dict[str, Any]:
        """What a resumed run must have in common with the one that was stopped, for its numbers to be equal to the bit."""
        return {
            "processes": distributed.world_size(),
            "threads": torch.get_num_threads(),
            "torch": str(torch.__version__),
            "device": self.device.type,
            "precision": self.precision_name,
            "deterministic": torch.are_deterministic_algorithms_enabled(),
        }


def _warn_of_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    differences = [
        f"{now[name]} {name} instead of {before.get(name)}" for name in now if before.get(name, now[name]) != now[name]
    ]
    if differences:
        tqdm.write(
            f"--resume: {', '.join(differences)}: the same samples and rates as before, but sums in another order and other "
            "draws of dropout and drop path: close to the run that was never stopped, not equal to the bit",
            file=sys.stderr,
        )
