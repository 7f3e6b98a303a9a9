"""The training loop, to be read from top to bottom.

A step first takes all its micro-batches and counts, for each task, the labelled pixels in all of them and on all processes.
Losses are divided by these counts, so that N processes times K micro-batches give the gradient of one large batch.
"""

from __future__ import annotations

import contextlib
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

from mult.data.sample import Batch
from mult.evaluation.results import Results
from mult.runs.folder import Run
from mult.runtime import distributed
from mult.runtime.determinism import resolve_deterministic, set_deterministic
from mult.runtime.malloc import reuse_freed_memory
from mult.runtime.signals import Signals, StoppedError
from mult.tasks import TASKS
from mult.training.average import update_average
from mult.training.experiment import Experiment, Objective
from mult.training.progress import Progress, measure_peak_memory_mib
from mult.training.state import TrainingState
from mult.training.validation import read_results, validate


def train(experiment: Experiment, run: Run, device: torch.device, signals: Signals | None = None) -> Results | None:
    """Train from the run's newest checkpoint, if it has one, to the last step; evaluate every `eval.every` steps.

    signals: entered already, so that those before the first step count; without, they are recorded from now on.
    Returns the last evaluation, or None where SIGTERM, SIGUSR1, SIGHUP or Ctrl-C asked for an end: after the step that runs,
    with a checkpoint. Raises FloatingPointError, with the task's name and the step, at the first loss or gradient that is not
    finite (with `optim.non_finite: skip` after too many of them), before it changes the weights.
    """
    config, optim, objectives = experiment.config, experiment.config.optim, experiment.objectives
    rank, world_size, is_main = distributed.rank(), distributed.world_size(), distributed.is_main()
    set_deterministic(resolve_deterministic(config.run.deterministic, device))

    # --- The state, and the network around the model ---
    state = TrainingState(experiment, run, device)
    model, balance, precision = state.model, state.balance, state.precision
    optimizer, schedule, scaler = state.optimizer, state.schedule, state.scaler
    if config.run.precision != state.precision_name and is_main:
        tqdm.write(f"run.precision: {config.run.precision} is {state.precision_name} on this {device.type}")
    if device.type == "cpu":
        reuse_freed_memory()
    model.set_grad_checkpointing(config.run.activation_checkpointing)
    if config.run.compile:
        # A task's own gradient is taken from a graph that the next one needs too, so no buffer of it may be given away.
        torch._functorch.config.donated_buffer = not (balance.reduces_gradients or config.balance.log_cosine_every)
        blocks = model.compile_blocks()
        if is_main:
            tqdm.write(f"{blocks} blocks will be compiled, each on its first use")
    network: Any = DistributedDataParallel(model, gradient_as_bucket_view=True) if world_size > 1 else model
    model.train()

    batches = iter(experiment.batches(state.step * optim.accumulate, rank, world_size))
    results: Results | None = None
    recording = contextlib.nullcontext(signals) if signals else Signals()
    with recording as signals, Progress(run, state.step, config.data.batch_size * optim.accumulate) as progress:
        while True:
            # --- Between two steps: save, evaluate, end ---
            is_stopping = signals.any_process()
            is_last = state.step == optim.steps
            evaluates = state.step != state.last_evaluated_step and (is_last or _is_multiple(state.step, config.eval.every))
            saves = is_stopping or evaluates or _is_multiple(state.step, config.run.checkpoint_every)
            if saves and state.step != state.last_saved_step:
                state.save()
            if evaluates and not is_stopping:
                try:
                    results = validate(experiment, state, progress, signals)
                except StoppedError:  # the resumed run evaluates this step
                    is_stopping = True
            if is_stopping:
                break
            if is_last:
                if results is None:  # an earlier process has done and evaluated all steps
                    results = read_results(state)
                    if is_main:
                        tqdm.write(f"{run.folder}: all {optim.steps} steps are done already; raise optim.steps to train on")
                return results

            # --- A step: images -> outputs -> losses -> gradients ---
            start = time.perf_counter()
            torch.manual_seed(_seed_of_step(config.run.seed, state.step, rank))
            micro_batches = [next(batches) for _ in range(optim.accumulate)]
            data_seconds = time.perf_counter() - start
            bad_counts = progress.list_bad_files([message for batch in micro_batches for message in batch["bad"]])
            # DistributedDataParallel averages gradients over processes; divided counts turn the average into the sum.
            counts = _count_labels(micro_batches, objectives, device) / world_size

            optimizer.zero_grad(set_to_none=True)
            balance.start_step(state.step)
            loss_sums = torch.zeros(len(objectives), device=device)
            for index, batch in enumerate(micro_batches):
                reduces = index == len(micro_batches) - 1 and not balance.reduces_gradients
                with contextlib.nullcontext() if reduces or world_size == 1 else network.no_sync():
                    with torch.autocast(device.type, precision, enabled=precision != torch.float32):
                        outputs = network(batch["image"].to(device, non_blocking=True))
                    task_losses = _compute_losses(outputs, batch, objectives, counts)
                    balance.backward(task_losses, scaler)
                loss_sums += torch.stack(list(task_losses.values())).detach() / world_size
            distributed.all_reduce_sum(loss_sums)
            # The CPU waits for the GPU here, once in a step, for the losses and the gradient's norm. A method that combines the
            # tasks' gradients needs the losses first, and waits again.
            norm = loss_sums.new_zeros(()) if balance.reduces_gradients else _measure_norm(model)
            *values, grad_norm = torch.cat([loss_sums, norm[None]]).tolist()
            losses = dict(zip(objectives, values, strict=True))
            state.step += 1

            # --- Gradients -> weights; a step that is not finite is left out, on all processes alike ---
            rate, scale, balance_log = optimizer.param_groups[0]["lr"], scaler.get_scale(), {}
            fault = next((f"the loss of {task} is {loss}" for task, loss in losses.items() if not math.isfinite(loss)), None)
            is_overflow = False
            if fault is None:
                balance_log = balance.finish_step(losses, scaler)
                if balance.reduces_gradients:
                    norm = _measure_norm(model)
                    grad_norm = float(norm)
                grad_norm /= scale
                is_overflow = scaler.is_enabled() and scale > 1 and not math.isfinite(grad_norm)
                if math.isfinite(grad_norm) or is_overflow:
                    scaler.unscale_(optimizer)
                    if optim.clip is not None:
                        nn.utils.clip_grads_with_norm_(model.parameters(), optim.clip, norm / scale)
                    scaler.step(optimizer)  # leaves out a step that overflows
                    scaler.update()
                else:
                    fault = f"the gradient's norm is {grad_norm}"
            if is_overflow:
                state.overflows += 1
                if is_main:
                    tqdm.write(_describe_overflow(state), file=sys.stderr)
            if fault is not None:
                if optim.non_finite == "stop" or state.skipped_steps == optim.max_skipped:
                    raise FloatingPointError(_describe_stop(fault, state))
                state.skipped_steps += 1
            schedule.step()
            if state.average is not None and optim.ema is not None:
                update_average(state.average, model, optim.ema, state.step)

            # --- The log ---
            line = {f"{task}/loss": loss for task, loss in losses.items()} | {"lr": rate, "grad_norm": grad_norm}
            line |= balance_log | bad_counts | {"seconds": time.perf_counter() - start, "data_seconds": data_seconds}
            line |= {"peak_memory_mib": measure_peak_memory_mib(device)}
            # JSON has no number for the others; a system may not tell its memory.
            line = {name: value for name, value in line.items() if value is not None and math.isfinite(value)}
            if is_overflow:
                line["overflows"] = state.overflows
            if fault is not None:
                line["skipped"] = state.skipped_steps
                if is_main:
                    skipped = f"{state.skipped_steps} of at most {optim.max_skipped}"
                    tqdm.write(f"step {state.step} left out, {skipped}: {fault}", file=sys.stderr)
            progress.log_step(state.step, losses, line)
    if is_main:
        signal = signals.received or "a signal to another process"
        tqdm.write(f"{signal}: stopped after step {state.step} of {optim.steps}; go on with --resume")
    return None


def _is_multiple(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _seed_of_step(seed: int, step: int, rank: int) -> int:
    """The seed of dropout and drop path, different at every step and on every process."""
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0]) >> 1


def _count_labels(micro_batches: list[Batch], objectives: Mapping[str, Objective], device: torch.device) -> Tensor:
    """The denominators of the tasks' losses over all micro-batches of the step and all processes, (tasks,) float64."""
    counts = [sum(objective.count(batch["valid"][task]) for batch in micro_batches) for task, objective in objectives.items()]
    on_cpu = torch.stack([torch.as_tensor(count, dtype=torch.float64) for count in counts])
    return distributed.all_reduce_sum(on_cpu.to(device, non_blocking=True))


def _compute_losses(
    outputs: Mapping[str, Tensor], batch: Batch, objectives: Mapping[str, Objective], counts: Tensor
) -> dict[str, Tensor]:
    """Task -> its loss on a micro-batch, divided by the count of the whole step."""
    losses = {}
    for (task, objective), count in zip(objectives.items(), counts, strict=True):
        target = TASKS[task].encode(batch["targets"][task].to(count.device, non_blocking=True))
        valid = batch["valid"][task].to(count.device, non_blocking=True)
        losses[task] = objective.loss(outputs[task], target, valid, count)
    return losses


def _measure_norm(model: nn.Module) -> Tensor:
    """The norm of all gradients as one vector, on their device."""
    return nn.utils.get_total_norm([parameter.grad for parameter in model.parameters() if parameter.grad is not None])


def _describe_overflow(state: TrainingState) -> str:
    return (
        f"step {state.step} left out: a gradient overflows in fp16, number {state.overflows} of the run; "
        f"the losses are scaled by {state.scaler.get_scale():g} from now on"
    )


def _describe_stop(fault: str, state: TrainingState) -> str:
    after = f" after {state.skipped_steps} skipped steps" if state.skipped_steps else ""
    return (
        f"{fault} at step {state.step}{after}; training stopped before the weights changed; the last checkpoint stands; "
        "try a lower optim.lr or a longer optim.warmup, or run.precision=fp32"
    )
