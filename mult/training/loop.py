"""The training loop, to be read from top to bottom.

All that resuming needs is in `state` where it is saved: the step, how many were skipped, and the states of what learns. The
order of samples and every random draw are functions of (seed, step) or (seed, epoch, index), so no random state is saved.
Which evaluations are done, and which was the best, is read from the log.

A step takes all its micro-batches first, counts the valid pixels of each task in all of them and on all processes, and
divides by these counts: N processes times K micro-batches give the gradient of one big batch.
"""

from __future__ import annotations

import contextlib
import copy
import math
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from mult import draw
from mult.build import build_eval_batches
from mult.data import EvalTransform
from mult.data.sample import Batch, note_bad
from mult.errors import UserError
from mult.evaluation import evaluate
from mult.evaluation.results import Results, improvement
from mult.evaluation.tables import table
from mult.evaluation.trivial import learn_constants
from mult.files import read_json, write_arrays, write_json
from mult.models import MulT
from mult.runs.checkpoint import Checkpoints
from mult.runs.folder import Run
from mult.runtime import distributed
from mult.runtime.precision import DTYPES, chosen
from mult.runtime.signals import Interruptible, Signals, StoppedError
from mult.tasks import TASKS
from mult.training.experiment import Experiment, Objective
from mult.training.progress import Watch, peak_memory_mib


def train(experiment: Experiment, run: Run, device: torch.device) -> Results | None:
    """Train from the run's newest checkpoint, if it has one, to the last step; evaluate every `eval.every` steps.

    Returns the last evaluation, or None where SIGTERM, SIGUSR1 or Ctrl-C asked for an end: after the step that runs, with a
    checkpoint. Raises FloatingPointError, with the task's name and the step, at the first loss or gradient that is not
    finite (with `optim.non_finite: skip` after too many of them), before it changes the weights.
    """
    config, objectives = experiment.config, experiment.objectives
    tasks, optim, seed = list(objectives), config.optim, config.run.seed
    named = chosen(config.run.precision, device)
    precision = DTYPES[named]
    rank, world, is_main = distributed.rank(), distributed.world(), distributed.is_main()
    torch.use_deterministic_algorithms(config.run.deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs time, hides no bug here

    # --- where to start ---
    checkpoints = Checkpoints(run.folder / "checkpoints", run.config_yaml, config.run.keep)
    step, scored, best = _find_start(run, checkpoints)
    saved = step if step > 0 else None

    # --- what learns, and the average of it that is evaluated ---
    model, balance = experiment.model.to(device), experiment.balance.to(device)
    average = copy.deepcopy(model) if optim.ema is not None else None
    evaluated = average or model
    optimizer, schedule = experiment.optimizer, experiment.schedule
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    learning: dict[str, Any] = {"optimizer": optimizer, "schedule": schedule, "scaler": scaler, "balance": balance}
    if average is not None:
        learning["model"] = model

    skipped = 0
    conditions = {
        "processes": world,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "device": device.type,
        "precision": named,
    }
    if saved is None:
        constants = learn_constants(experiment.train_data, tasks, seed)
    else:
        folder, state = checkpoints.load(saved)
        skipped = state["skipped"]
        evaluated.load_state_dict(MulT.from_pretrained(folder).state_dict())
        for name, part in learning.items():
            part.load_state_dict(state[name])
        for group, base, factor in zip(optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
            group["lr"] = base * factor(step)  # optim.steps may have changed
        constants = read_json(folder / "trivial.json")
        if is_main:
            _say_what_differs(state["conditions"], conditions)
    if is_main:
        write_json(run.folder / "trivial.json", constants)
    if config.run.precision != named and is_main:
        tqdm.write(f"run.precision: {config.run.precision} is {named} on this {device.type}")
    model.set_grad_checkpointing(config.run.activation_checkpointing)
    if config.run.compile:
        tqdm.write(f"{model.compile_blocks()} blocks will be compiled, each on its first use")
    network: Any = DistributedDataParallel(model) if world > 1 else model
    model.train()

    # --- the loop ---
    batches = iter(experiment.batches(step * optim.accumulate, rank, world))
    results: Results = {}
    images = config.data.batch_size * optim.accumulate
    with Signals() as signals, Watch(run, step, images, is_main) as watch:
        while True:
            # --- every so often: save, score, show ---
            is_stopping = signals.any()
            is_due = step > 0 and (step == optim.steps or _is_multiple(step, config.eval.every)) and step != scored
            if step != (saved or 0) and (is_stopping or is_due or _is_multiple(step, config.run.checkpoint_every)):
                if is_main:
                    state = {"step": step, "skipped": skipped, "conditions": conditions}
                    state |= {name: part.state_dict() for name, part in learning.items()}
                    run.sync_log()
                    checkpoints.save(step, evaluated, state, constants)
                saved = step
            if is_due and not is_stopping:
                try:
                    evaluation, lacking = _evaluate(experiment, run, evaluated, constants, device, precision, signals)
                except StoppedError:  # to be done when the run goes on
                    is_stopping = True
                else:
                    results = evaluation.results
                    score = improvement(results)
                    if is_main:
                        if score is not None and score > best:
                            checkpoints.mark_best(step)
                        _report(experiment, run, watch, step, evaluated, evaluation, score, lacking, device)
                    scored, best = step, max(best, -math.inf if score is None else score)
            if is_stopping:
                break
            if step == optim.steps:
                return results

            # --- a step ---
            begun = time.perf_counter()
            torch.manual_seed(int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0] >> 1))
            micro_batches = [next(batches) for _ in range(optim.accumulate)]
            waited = time.perf_counter() - begun
            lacking = _bad_samples(experiment, run, [text for batch in micro_batches for text in batch["bad"]])
            counts = _counts(micro_batches, objectives, device) / world  # DDP averages over processes where we want the sum

            optimizer.zero_grad(set_to_none=True)
            balance.begin(step)
            losses = torch.zeros(len(tasks), device=device)
            for index, batch in enumerate(micro_batches):
                is_last = index == len(micro_batches) - 1
                is_synchronised = is_last and not balance.reduces
                with contextlib.nullcontext() if is_synchronised or world == 1 else network.no_sync():
                    with torch.autocast(device.type, precision, enabled=precision != torch.float32):
                        outputs = network(batch["image"].to(device, non_blocking=True))
                    parts = {}
                    for task, count in zip(tasks, counts, strict=True):
                        target = TASKS[task].encode(batch["targets"][task].to(device, non_blocking=True))
                        valid = batch["valid"][task].to(device, non_blocking=True)
                        parts[task] = objectives[task].loss(outputs[task], target, valid, count)
                    balance.add(parts, scaler)
                losses += torch.stack(list(parts.values())).detach() / world
            values = dict(zip(tasks, distributed.add(losses).tolist(), strict=True))

            step, rate, norm, balanced = step + 1, optimizer.param_groups[0]["lr"], math.nan, {}
            fault = next((f"the loss of {task} is {loss}" for task, loss in values.items() if not math.isfinite(loss)), None)
            if fault is None:
                balanced = balance.finish(values, scaler)
                scaler.unscale_(optimizer)
                norm = float(nn.utils.clip_grad_norm_(model.parameters(), optim.clip or math.inf))
                is_overflow = scaler.is_enabled() and scaler.get_scale() > 1  # then the scaler skips the step, and scales less
                if math.isfinite(norm) or is_overflow:
                    scaler.step(optimizer)
                else:
                    fault = f"the gradient's norm is {norm}"
                scaler.update()
            if fault is not None:  # on all processes alike: losses and gradients are of all
                if optim.non_finite == "stop" or skipped == optim.max_skipped:
                    raise FloatingPointError(_not_finite(fault, step, skipped))
                skipped += 1
            schedule.step()
            if average is not None and optim.ema is not None:
                _average(average, model, min(optim.ema, (1 + step) / (10 + step)))  # a young average forgets faster

            line = {f"{task}/loss": value for task, value in values.items()} | {"lr": rate, "grad_norm": norm}
            line |= balanced | lacking | {"seconds": time.perf_counter() - begun, "data_seconds": waited}
            line |= {"peak_memory_mib": peak_memory_mib(device)}
            if fault is not None and is_main:
                tqdm.write(f"step {step} left out, {skipped} of at most {optim.max_skipped}: {fault}", file=sys.stderr)
                line = {name: value for name, value in line.items() if math.isfinite(value)} | {"skipped": skipped}
            watch.step(step, values, line)
    if is_main:
        signal = signals.received or "a signal to another process"
        tqdm.write(f"{signal}: stopped after step {step} of {optim.steps}; go on with --resume")
    return None


def _find_start(run: Run, checkpoints: Checkpoints) -> tuple[int, int, float]:
    """The step to start from, the last one that was evaluated, and the best score so far; the log is cut back to the step."""
    step, scored, best = 0, 0, -math.inf
    if distributed.is_main():
        step = checkpoints.recover() or 0
        if step > run.config.optim.steps:
            raise UserError(
                f"optim.steps: got {run.config.optim.steps}, of which {step} are done; expected at least as many; raise it"
            )
        scores = run.cut_log(step)
        scored = max(scores, default=0)
        best = max((score for score in scores.values() if score is not None), default=best)
    start = distributed.from_main([step, scored, best])
    return int(start[0]), int(start[1]), start[2]


def _say_what_differs(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = [f"{now[name]} {name} instead of {before.get(name)}" for name in now if before.get(name) != now[name]]
    if changed:
        tqdm.write(
            f"--resume: {', '.join(changed)}: the same samples and rates as before, but sums in another order and other draws "
            "of dropout and drop path: close to the run that was never stopped, not equal to the bit",
            file=sys.stderr,
        )


def _is_multiple(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _bad_samples(experiment: Experiment, run: Run, messages: list[str]) -> dict[str, int]:
    """How many samples all processes skipped for a bad file, for the log, if they may; the run lists the files."""
    if not experiment.train_data.skip_bad_files:
        return {}
    messages = distributed.gather_texts(messages)
    if distributed.is_main():
        run.list_bad_files(messages)
    return {"bad_samples": len(messages)}


def _counts(micro_batches: list[Batch], objectives: dict[str, Objective], device: torch.device) -> Tensor:
    """The denominators of the tasks' losses over all micro-batches of the step and all processes, (tasks,) float64."""
    counts = [sum(objective.count(batch["valid"][task]) for batch in micro_batches) for task, objective in objectives.items()]
    return distributed.add(torch.stack([torch.as_tensor(count, dtype=torch.float64) for count in counts]).to(device))


def _evaluate(
    experiment: Experiment,
    run: Run,
    model: nn.Module,
    constants: Any,
    device: torch.device,
    precision: torch.dtype,
    signals: Signals,
) -> tuple[evaluate.Evaluation, dict[str, int]]:
    """The evaluation split, each view on one process, with no view twice, and how many were left out (`_bad_samples`).

    Raises StoppedError when a signal came.
    """
    config, views = experiment.config, experiment.eval_data
    size = config.eval.batch_size or config.data.batch_size
    batches = build_eval_batches(evaluate.share(views), config.data.image_size, size, config.data.workers)
    most = math.ceil(math.ceil(len(views) / distributed.world()) / size)
    bad: list[str] = []
    shown = note_bad(Interruptible(batches, most, signals), bad)
    with _eagerly(config.run.compile):
        evaluation = evaluate.evaluate(model, shown, list(experiment.objectives), views, constants, device, precision)
    return evaluation, _bad_samples(experiment, run, bad)


def _eagerly(is_compiled: bool) -> contextlib.AbstractContextManager[Any]:
    """Compiled blocks run uncompiled: an evaluation's last batch and its pictures have shapes of their own to compile for."""
    return torch.compiler.set_stance("force_eager") if is_compiled else contextlib.nullcontext()


def _report(
    experiment: Experiment,
    run: Run,
    watch: Watch,
    step: int,
    model: MulT,
    evaluation: evaluate.Evaluation,
    score: float | None,
    lacking: dict[str, int],
    device: torch.device,
) -> None:
    """The evaluation as a file, a table on the terminal, the gallery and, when these are done, a line of the log."""
    config, views = experiment.config, experiment.eval_data
    split = config.eval.split
    values = {
        f"{task}/{metric}": entry["value"]
        for task, entries in evaluation.results.items()
        for metric, entry in entries.items()
        if "/" not in metric  # per-class entries are in the JSON
    }
    path = run.folder / "eval" / f"{config.data.dataset}-{split}.json"
    write_arrays(path.with_suffix(".npz"), evaluation.columns)
    write_json(path, evaluation.as_json(config.data.dataset, split) | lacking | {"step": step})
    left_out = "".join(f", {count} of them skipped: see bad_files.txt" for count in lacking.values() if count)
    tqdm.write(f"step {step}, {split} split, {len(views)} images{left_out}\n{table(evaluation)}")
    if config.eval.images:
        chosen = np.unique(np.linspace(0, len(views) - 1, config.eval.images).round().astype(int))
        with _eagerly(config.run.compile):
            transform = EvalTransform(config.data.image_size)
            samples = evaluate.predictions(model, [views[int(i)] for i in chosen], transform, device)
        names = next(iter(views.classes.values()), None)
        watch.picture(step, "gallery", draw.gallery(samples, {task: TASKS[task] for task in experiment.objectives}, names))
    watch.log(step, split, values | lacking | {"improvement": score})


@torch.no_grad()
def _average(average: MulT, model: MulT, decay: float) -> None:
    """average <- decay * average + (1 - decay) * model; statistics of the data (batch norm's) are taken as they are."""
    for kept, new in zip(average.parameters(), model.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)
    for statistic, newest in zip(average.buffers(), model.buffers(), strict=True):
        statistic.copy_(newest)


def _not_finite(what: str, step: int, skipped: int) -> str:
    before = f" after {skipped} skipped steps" if skipped else ""
    return (
        f"{what} at step {step}{before}; training stopped before the weights changed; the last checkpoint stands; "
        "try a lower optim.lr or a longer optim.warmup, or run.precision=fp32"
    )
