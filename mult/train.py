"""The training loop, to be read from top to bottom.

All that resuming needs is in `state` at the end of the loop: the step, and the weights and moments that depend on it. The
order of samples and every random draw are functions of (seed, step) or (seed, epoch, index), so no random state is saved.

A step takes all its micro-batches first, counts the valid pixels of each task in all of them and on all processes, and
divides by these counts: N processes times K micro-batches give the gradient of one big batch.
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from mult import build, distributed, draw, evaluate
from mult.data.sample import Batch, note_bad
from mult.models import MulT
from mult.runs import Run, find_checkpoint, read_json, write_arrays, write_json
from mult.tasks import TASKS

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def train(experiment: build.Experiment, run: Run, device: torch.device) -> evaluate.Results:
    """Train from the run's last checkpoint, if it has one, to the last step; evaluate and save every `eval.every` steps.

    Returns the last evaluation. Raises FloatingPointError, with the task's name and the step, at the first loss or gradient
    that is not finite, before it changes the weights.
    """
    config, objectives = experiment.config, experiment.objectives
    tasks, optim, seed = list(objectives), config.optim, config.run.seed
    precision = PRECISIONS[config.run.precision]
    rank, world = distributed.rank(), distributed.world()
    torch.use_deterministic_algorithms(config.run.deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs time, hides no bug here

    # --- what learns, and the average of it that is evaluated ---
    model = experiment.model.to(device)
    saved = run.last_state()
    if saved is None and config.run.init is not None:
        _load_weights(model, config.run.init)
    average = copy.deepcopy(model) if optim.ema is not None else None
    evaluated = average or model
    optimizer, schedule = experiment.optimizer, experiment.schedule
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)

    # --- where to start ---
    step, best = 0, -math.inf
    if saved is None:
        constants = evaluate.learn_constants(experiment.train_data, tasks, seed)
    else:
        folder, state = saved
        step, best = state["step"], state["best"]
        _load_weights(evaluated, folder)
        if average is not None:
            model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        scaler.load_state_dict(state["scaler"])
        constants = read_json(folder / "trivial.json")
    if distributed.is_main():
        run.cut_log(step)
        write_json(run.folder / "trivial.json", constants)
    network: Any = DistributedDataParallel(model) if world > 1 else model
    model.train()

    # --- the loop ---
    batches = iter(experiment.batches(step * optim.accumulate, rank, world))
    bar = tqdm(total=optim.steps, initial=step, desc="train", disable=not distributed.is_main(), smoothing=0.05)
    results: evaluate.Results = {}
    while step < optim.steps:
        begun = time.perf_counter()
        torch.manual_seed(int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0] >> 1))
        micro_batches = [next(batches) for _ in range(optim.accumulate)]
        waited = time.perf_counter() - begun
        skipped = _bad_samples(experiment, run, [text for batch in micro_batches for text in batch["bad"]])
        counts = _counts(micro_batches, objectives, device) / world  # DDP averages over processes where we want the sum

        optimizer.zero_grad(set_to_none=True)
        losses = torch.zeros(len(tasks), device=device)
        for index, batch in enumerate(micro_batches):
            is_last = index == len(micro_batches) - 1
            with contextlib.nullcontext() if is_last or world == 1 else network.no_sync():
                with torch.autocast(device.type, precision, enabled=precision != torch.float32):
                    outputs = network(batch["image"].to(device, non_blocking=True))
                parts = {}
                for task, count in zip(tasks, counts, strict=True):
                    target = TASKS[task].encode(batch["targets"][task].to(device, non_blocking=True))
                    valid = batch["valid"][task].to(device, non_blocking=True)
                    parts[task] = objectives[task].loss(outputs[task], target, valid, count)
                scaler.scale(experiment.balance(parts)).backward()
            losses += torch.stack(list(parts.values())).detach() / world
        values = dict(zip(tasks, distributed.add(losses).tolist(), strict=True))
        for task, value in values.items():
            if not math.isfinite(value):
                raise FloatingPointError(_not_finite(f"the loss of {task}", value, step + 1))

        scaler.unscale_(optimizer)
        norm = float(nn.utils.clip_grad_norm_(model.parameters(), optim.clip or math.inf))
        if not math.isfinite(norm) and not scaler.is_enabled():  # with loss scaling the scaler skips the step and goes on
            raise FloatingPointError(_not_finite("the gradient's norm", norm, step + 1))
        rate = schedule.get_last_lr()[0]
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
        step += 1
        if average is not None and optim.ema is not None:
            _average(average, model, min(optim.ema, (1 + step) / (10 + step)))  # a young average forgets faster

        bar.update()
        bar.set_postfix({task: f"{value:.3f}" for task, value in values.items()}, refresh=False)
        if distributed.is_main():
            seconds = time.perf_counter() - begun
            line = {f"{task}/loss": value for task, value in values.items()} | skipped
            run.log(step, "train", line | {"lr": rate, "grad_norm": norm, "seconds": seconds, "data_seconds": waited})

        # --- every so often: score, show, save ---
        if step == optim.steps or (config.eval.every and step % config.eval.every == 0):
            evaluation, skipped = _evaluate(experiment, run, evaluated, constants, device, precision)
            results = evaluation.results
            score = evaluate.improvement(results)
            is_best = score is not None and score > best
            best = score if score is not None and is_best else best
            if distributed.is_main():
                _report(experiment, run, step, evaluated, evaluation, skipped, device)
                state = {
                    "step": step,
                    "best": best,
                    "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(),
                    "scaler": scaler.state_dict(),
                }
                if average is not None:
                    state["model"] = model.state_dict()
                run.save(step, evaluated, state, constants, is_best)
            distributed.barrier()
    bar.close()
    return results


def _bad_samples(experiment: build.Experiment, run: Run, messages: list[str]) -> dict[str, int]:
    """How many samples all processes skipped for a bad file, for the log, if they may; the run lists the files."""
    if not experiment.train_data.skip_bad_files:
        return {}
    messages = distributed.gather_texts(messages)
    if distributed.is_main():
        run.list_bad_files(messages)
    return {"bad_samples": len(messages)}


def _counts(micro_batches: list[Batch], objectives: dict[str, build.Objective], device: torch.device) -> Tensor:
    """The denominators of the tasks' losses over all micro-batches of the step and all processes, (tasks,) float64."""
    counts = [sum(objective.count(batch["valid"][task]) for batch in micro_batches) for task, objective in objectives.items()]
    return distributed.add(torch.stack([torch.as_tensor(count, dtype=torch.float64) for count in counts]).to(device))


def _evaluate(
    experiment: build.Experiment, run: Run, model: nn.Module, constants: Any, device: torch.device, precision: torch.dtype
) -> tuple[evaluate.Evaluation, dict[str, int]]:
    """The evaluation split, each view on one process, with no view twice; and how many were skipped (`_bad_samples`)."""
    config, views = experiment.config, experiment.eval_data
    batches = build.eval_batches(
        evaluate.share(views), config.data.image_size, config.eval.batch_size or config.data.batch_size, config.data.workers
    )
    bad: list[str] = []
    noting = note_bad(batches, bad)
    evaluation = evaluate.evaluate(model, noting, list(experiment.objectives), views, constants, device, precision)
    return evaluation, _bad_samples(experiment, run, bad)


def _report(
    experiment: build.Experiment,
    run: Run,
    step: int,
    model: MulT,
    evaluation: evaluate.Evaluation,
    skipped: dict[str, int],
    device: torch.device,
) -> None:
    """The evaluation as a file, a line of the log, a table on the terminal and the gallery."""
    config, views = experiment.config, experiment.eval_data
    split = config.eval.split
    values = {
        f"{task}/{metric}": entry["value"]
        for task, entries in evaluation.results.items()
        for metric, entry in entries.items()
        if "/" not in metric  # per-class entries are in the JSON
    }
    run.log(step, split, values | skipped)
    path = run.folder / "eval" / f"{config.data.dataset}-{split}.json"
    write_arrays(path.with_suffix(".npz"), evaluation.columns)
    write_json(path, evaluation.as_json(config.data.dataset, split) | skipped | {"step": step})
    lacking = "".join(f", {count} of them skipped: see bad_files.txt" for count in skipped.values() if count)
    tqdm.write(f"step {step}, {split} split, {len(views)} images{lacking}\n{evaluate.table(evaluation)}")
    if config.eval.images:
        chosen = np.unique(np.linspace(0, len(views) - 1, config.eval.images).round().astype(int))
        samples = evaluate.predictions(model, [views[int(i)] for i in chosen], config.data.image_size, device)
        names = next(iter(views.classes.values()), None)
        draw.gallery(samples, {task: TASKS[task] for task in experiment.objectives}, names).save(run.folder / "gallery.png")


@torch.no_grad()
def _average(average: MulT, model: MulT, decay: float) -> None:
    """average <- decay * average + (1 - decay) * model; statistics of the data (batch norm's) are taken as they are."""
    for kept, new in zip(average.parameters(), model.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)
    for statistic, newest in zip(average.buffers(), model.buffers(), strict=True):
        statistic.copy_(newest)


def _load_weights(model: MulT, path: Any) -> None:
    """Another checkpoint's weights into this model; ValueError where they do not fit."""
    folder = find_checkpoint(path)
    try:
        model.load_state_dict(MulT.from_pretrained(folder).state_dict())
    except RuntimeError as error:
        raise ValueError(
            f"run.init: the weights in {folder} do not fit this model ({str(error).splitlines()[1].strip()}, ...); "
            "expected a run of the same model section and tasks"
        ) from error


def _not_finite(what: str, value: float, step: int) -> str:
    return (
        f"{what} is {value} at step {step}; training stopped before the weights changed; the last checkpoint stands; "
        "try a lower optim.lr or a longer optim.warmup, or run.precision=fp32"
    )
