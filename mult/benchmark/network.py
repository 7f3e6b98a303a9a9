"""The sections of the network on the CPU: its step, its memory, compiled, its predictions, its metrics."""

from __future__ import annotations

import multiprocessing
import resource
import statistics
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from mult.benchmark.ratios import compare, measure_seconds, print_row
from mult.benchmark.steps import CLASSES, SIZE, Place, Step, build_forward_pass, build_training_step
from mult.data.disk.encodings import ENCODINGS
from mult.evaluation.task_score import TaskScore
from mult.models import MulT
from mult.tasks import TASKS


def use_checkpointing(model: MulT) -> None:
    model.set_grad_checkpointing()


def free_gradients(model: MulT) -> None:
    """Free each gradient as soon as it is computed, so that a step's memory is that of the activations."""
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))


def measure_activation_bytes(recomputes: bool) -> int:
    """The memory that a step of six tasks adds to this process, which should be a new one."""

    def prepare(model: MulT) -> None:
        free_gradients(model)
        model.set_grad_checkpointing(recomputes)

    step = build_training_step(list(ENCODINGS), prepare)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def memory(pairs: int) -> None:
    """Activation checkpointing: the memory it saves and the time it takes."""
    sizes = []
    for recomputes in (False, True):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            sizes.append(process.submit(measure_activation_bytes, recomputes).result())
    usual, checkpointed = sizes
    print_row(
        "activation checkpointing: peak activation memory / without",
        0.6,
        f"{checkpointed / usual:6.3f}   (of {usual >> 20} MiB)",
    )
    six = list(ENCODINGS)
    ratio = compare(build_training_step(six, use_checkpointing), build_training_step(six), pairs, "checkpointing")
    print_row("activation checkpointing: step / without", 1.4, ratio)


def compiled(pairs: int) -> None:
    """torch.compile by block: the time of the first step, which compiles, and the ratio of the later ones."""
    six = list(ENCODINGS)
    eager, step = build_training_step(six), build_training_step(six, MulT.compile_blocks)
    first = measure_seconds(step)
    print(f"compiled blocks: the first step takes {first:.0f} s ({first / measure_seconds(eager):.0f} eager steps)")
    print(f"compiled blocks: step / eager {'':<36} {compare(step, eager, pairs, 'compiled')}")


def build_product(operations: float, size: int = 2048) -> Step:
    """A function that computes so many operations, rounded, as large float32 matrix products."""
    left, right = torch.rand(size, size), torch.rand(size, size)
    repeats = round(operations / (2 * size**3))

    def run() -> None:
        for _ in range(repeats):
            torch.mm(left, right)

    return run


def count_operations(step: Step) -> float:
    """The floating point operations of the step's matrix products, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def model(pairs: int) -> None:
    """A step of the joint model, against single-task models, its operations alone and independent attention."""
    six = list(ENCODINGS)
    paper = build_training_step(six)
    matrix = build_product(count_operations(paper))
    print_row("paper: step / its matrix operations at a large product's rate", 1.6, compare(paper, matrix, pairs, "matrix"))
    independent = build_training_step(six, attention="independent")
    print_row("paper: shared / independent attention", 1.0, compare(paper, independent, pairs, "independent"))
    del independent
    for decoder, bound in (("paper", 0.52), ("released", 0.48)):
        joint = paper if decoder == "paper" else build_training_step(six, decoder=decoder)
        singles = [build_training_step([task], decoder=decoder) for task in six]

        def each(singles: list[Step] = singles) -> None:
            for single in singles:
                single()

        print_row(f"{decoder}: six tasks / six single-task steps", bound, compare(joint, each, pairs, decoder))


def inference(pairs: int) -> None:
    """Images a second of six tasks, and the part of the time that is not matrix products."""
    for size in (224, 512):
        for batch in (1, 8):
            step = build_forward_pass(list(ENCODINGS), Place(batch, size))
            matrix = build_product(count_operations(step), 1024)
            step()
            matrix()
            times = [
                (measure_seconds(step), measure_seconds(matrix))
                for _ in tqdm(range(pairs), desc=f"{size}, {batch}", leave=False)
            ]
            rate = batch / statistics.median(seconds for seconds, _ in times)
            outside = 1 - statistics.median(products / seconds for seconds, products in times)
            print(f"inference, {size} pixels, batch {batch}: {rate:6.2f} images/s, {outside:4.0%} outside matrix products")


def metrics(pairs: int) -> None:
    """All metrics of six tasks and of their best constants, labels of 224 and 512 pixels, against the forward pass."""
    batch = 8
    step = build_forward_pass(list(ENCODINGS), Place(batch))
    for size in (SIZE, 512):
        generator = torch.Generator().manual_seed(0)
        batches = []
        for name in ENCODINGS:
            task = TASKS[name]
            channels = task.channels or CLASSES
            output = torch.rand(batch, channels, SIZE, SIZE, generator=generator)
            target = torch.rand(batch, channels, size, size, generator=generator) * 2 + 0.1
            target = target.argmax(1) if task.categorical else target / target.norm(dim=1, keepdim=True).clamp(min=1)
            names = [str(label) for label in range(CLASSES)] if task.categorical else None
            pixels = np.zeros(100, np.int64) if task.categorical else np.random.default_rng(0).random((100, channels))
            score = TaskScore(task, names, task.metric(names).fit_constants(pixels))
            batches.append((name, score, output, list(target), list(torch.ones(batch, 1, size, size, dtype=torch.bool))))

        @torch.inference_mode()
        def update(batches: list[Any] = batches) -> None:
            for _, score, output, targets, valid in batches:
                score.update(output, targets, valid)

        print_row(
            f"metrics of six tasks, labels of {size} / forward pass at {SIZE}", 0.15, compare(update, step, pairs, "metrics")
        )
