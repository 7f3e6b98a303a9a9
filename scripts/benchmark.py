"""Measure speed and memory as ratios within one run: python scripts/benchmark.py [--pairs 10] [--SECTION ...].

A step is forward, losses and backward of a Swin-T MulT at 224 pixels, batch 2, in float32, without the optimiser. The two sides
of a ratio are measured in turns, so that a change of the machine's speed affects both; the result is the median over the pairs.
Counted in operations, six tasks cost 0.476 of six single-task steps, and shared attention 0.943 of independent attention.
Without --SECTION the model is measured; --help describes the other sections. With --device cuda a table of steps on a GPU,
in bfloat16 unless it says otherwise, is measured instead, in some minutes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from mult.cli import exit_on_user_error
from mult.config import load_config
from mult.data.batches.transforms import AugmentedDataset, TrainTransform
from mult.data.disk.encodings import ENCODINGS
from mult.data.packed import Packed
from mult.data.packed.write import pack
from mult.data.rooms.dataset import Rooms
from mult.data.taskonomy.dataset import Taskonomy
from mult.errors import UserError
from mult.evaluation.task_score import TaskScore
from mult.files import write_text
from mult.models import MulT
from mult.runtime.loader import Loader
from mult.runtime.speed import Speed, measure_product_rate, measure_speed
from mult.tasks import TASKS

CLASSES, SIZE, BATCH = 17, 224, 2
REFERENCE = str(load_config("taskonomy6").model.reference)
Step = Callable[[], None]


@dataclass(frozen=True)
class Place:
    """On which device, in which type (by autocast) and on how large a batch a step runs."""

    batch: int = BATCH
    size: int = SIZE
    device: torch.device = torch.device("cpu")  # noqa: RUF009
    dtype: torch.dtype = torch.float32

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)


def build_network(tasks: Sequence[str], place: Place, **arguments: Any) -> MulT:
    torch.manual_seed(0)
    reference = REFERENCE if REFERENCE in tasks and arguments.get("decoder") != "fpn" else None
    return MulT({task: TASKS[task].channels or CLASSES for task in tasks}, reference, **arguments).to(place.device)


def build_training_step(
    tasks: Sequence[str], prepare: Callable[[MulT], Any] = lambda model: None, place: Place = Place(), **arguments: Any
) -> Step:
    """A function that runs one step of a model of these tasks on random data; `prepare` is called with the model first."""
    model = build_network(tasks, place, **arguments)
    prepare(model)
    shape = (place.batch, place.size, place.size)
    images = torch.rand(place.batch, 3, *shape[1:]).to(place.device)
    valid = torch.ones(place.batch, 1, *shape[1:], dtype=torch.bool, device=place.device)
    targets: dict[str, Tensor] = {}
    for task in tasks:
        channels = TASKS[task].channels
        target = (
            torch.randint(CLASSES, shape)
            if channels is None
            else TASKS[task].encode(torch.rand(place.batch, channels, *shape[1:]))
        )
        targets[task] = target.to(place.device)

    def step() -> None:
        with place.autocast():
            outputs = model(images)
        model.zero_grad(set_to_none=True)
        torch.stack([TASKS[task].loss(outputs[task], targets[task], valid) for task in tasks]).sum().backward()

    return step


def measure_seconds(run: Step) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare(ours: Step, theirs: Step, pairs: int, name: str) -> str:
    """The median over `pairs` of time(ours) / time(theirs), with the range, after one uncounted run of each."""
    ours()
    theirs()
    ratios = [measure_seconds(ours) / measure_seconds(theirs) for _ in tqdm(range(pairs), desc=name, leave=False)]
    return f"{statistics.median(ratios):6.3f}   ({min(ratios):.3f} to {max(ratios):.3f})"


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


def print_row(name: str, bound: float, value: str) -> None:
    print(f"{name:<64} {bound:5.2f}   {value}", flush=True)


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


def build_forward_pass(tasks: Sequence[str], place: Place, **arguments: Any) -> Step:
    """A function that predicts these tasks for a batch of images, as evaluation does."""
    network = build_network(tasks, place, **arguments).eval()
    images = torch.rand(place.batch, 3, place.size, place.size).to(place.device)

    @torch.inference_mode()
    def step() -> None:
        with place.autocast():
            network(images)

    return step


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


def data(pairs: int) -> None:
    """Samples a second of six tasks in one process: 512 -> 256 against decoding the same files with Pillow, and from a pack."""
    with tempfile.TemporaryDirectory() as folder:
        views = Rooms(folder, "train", tuple(ENCODINGS), buildings=4, views=8, size=512)
        keys = [(0, index) for index in range(len(views))]
        samples = Loader(AugmentedDataset(views, TrainTransform((256, 256)), seed=0), batch_size=None, sampler=keys)
        files = [file for building in views.buildings for file in Path(folder).glob(f"*/{building}/*.png")]

        def load(samples: Loader = samples) -> None:
            for _ in samples:
                pass

        def decode() -> None:
            for file in files:
                with Image.open(file) as image:
                    np.asarray(image)

        ratio = compare(decode, load, pairs, "data")
        print(f"{'data: decoding alone / samples of six tasks, 512 -> 256':<59} at least 0.70   {ratio}")

        root, transform = Path(folder, "pack"), TrainTransform((SIZE, SIZE))
        pack({"train": views}, root, (SIZE, SIZE), {"dataset": "rooms", "max_depth_m": None}, workers=1)
        tree, packed = (
            Loader(AugmentedDataset(each, transform, seed=0), batch_size=None, sampler=keys) for each in (views, Packed(root))
        )
        ratio = compare(lambda: load(tree), lambda: load(packed), pairs, "packed")
        print(f"{'data: samples/s of a pack / of its tree, 512 -> 224':<59} at least 8.00   {ratio}")


INDEXED_VIEWS = 1_000_000


def index(pairs: int) -> None:
    """The index of a tree of a million views, image and one task, in 500 buildings, whose files are empty."""
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder, "tree"), Path(folder, "cache")
        os.environ["XDG_CACHE_HOME"] = str(cache)
        for building in tqdm(range(500), desc="a tree", leave=False):
            for domain in ("rgb", REFERENCE):
                (root / domain / f"b{building:03d}").mkdir(parents=True)
                for view in range(INDEXED_VIEWS // 500):
                    os.mknod(root / domain / f"b{building:03d}" / f"point_{view}_view_0_domain_{domain}.png")
        write_text(root / "splits.csv", "id,train,val,test\n" + "".join(f"b{number:03d},1,0,0\n" for number in range(500)))

        def walk() -> None:
            folders = [os.fspath(root)]
            while folders:
                with os.scandir(folders.pop()) as entries:
                    folders += [entry.path for entry in entries if entry.is_dir()]

        def scan() -> None:
            shutil.rmtree(cache, ignore_errors=True)
            Taskonomy(root, tasks=(REFERENCE,))

        ratio = compare(walk, scan, pairs, "index")
        print(f"{'index: bare walk / first scan of a million views':<59} at least 0.50   {ratio}")
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            seconds, memory_bytes, pickle_bytes = process.submit(_open_cached, root).result()
        print(
            f"index: a second start takes {seconds:.2f} s, {memory_bytes >> 20} MiB; a worker is sent {pickle_bytes >> 10} KiB"
        )


def _open_cached(root: Path) -> tuple[float, int, int]:
    """Seconds, bytes of memory and bytes of pickle of a reader whose index is cached, in this process, which should be new."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    views = Taskonomy(root, tasks=(REFERENCE,))
    seconds = time.perf_counter() - start
    for i in range(0, len(views), 100):
        views.name(i)
    return (
        seconds,
        (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024,
        len(ForkingPickler.dumps(views)),
    )


@dataclass(frozen=True)
class Case:
    """A row of the table of a GPU: what it is called, what runs, and what was measured on one H100 with the first version.

    `are_single`: a model a task, one after the other, in place of one model.
    """

    name: str
    batch: int
    first_version: str = ""
    trains: bool = True
    tasks: tuple[str, ...] = tuple(ENCODINGS)
    are_single: bool = False
    dtype: torch.dtype = torch.bfloat16
    arguments: dict[str, Any] = field(default_factory=dict)

    def build(self, size: int, device: torch.device) -> Step:
        """A function that runs one step, or one prediction."""
        place = Place(self.batch, size, device, self.dtype)

        def build_one(tasks: Sequence[str]) -> Step:
            if self.trains:
                return build_training_step(tasks, place=place, **self.arguments)
            return build_forward_pass(tasks, place, **self.arguments)

        parts = [build_one([task]) for task in self.tasks] if self.are_single else [build_one(self.tasks)]

        def step() -> None:
            for part in parts:
                part()

        return step


SWIN_L = {"backbone": "swin_large_patch4_window7_224"}
CASES = (
    Case("Swin-T, step", 32, "171.7 ms, 6731 kernels, busy 98.6 ms, 13.4 GiB"),
    Case("Swin-T, step, batch 8", 8, "238.8 ms, 6322 kernels, busy 36.7 ms, 4.1 GiB"),
    Case("Swin-T, step, float32", 32, "231.7 ms, 19.8 GiB", dtype=torch.float32),
    Case("Swin-T, step, decoder released", 32, "218.8 ms, 12.1 GiB", arguments={"decoder": "released"}),
    Case("Swin-T, step, attention independent", 32, "305.8 ms, 14.9 GiB", arguments={"attention": "independent"}),
    Case("Swin-T, step, one task", 32, "130.2 ms, 4.7 GiB", tasks=(REFERENCE,)),
    Case("Swin-T, step, six single models", 32, are_single=True),
    Case("Swin-T, step, decoder fpn", 32, arguments={"decoder": "fpn"}),
    Case("Swin-L, step", 32, "341.5 ms, 8374 kernels, busy 195.4 ms, 30.8 GiB", arguments=SWIN_L),
    Case("Swin-L, step, six single models", 32, are_single=True, arguments=SWIN_L),
    Case("Swin-L, step, decoder fpn", 32, arguments=SWIN_L | {"decoder": "fpn"}),
    Case("Swin-T, inference, batch 1", 1, "53.2 ms, 2435 kernels, busy 5.9 ms, 0.7 GiB", trains=False),
    Case("Swin-T, inference", 32, "60.6 ms, 1.9 GiB", trains=False),
    Case("Swin-T, inference, six single models", 32, trains=False, are_single=True),
    Case("Swin-T, inference, decoder fpn", 32, trains=False, arguments={"decoder": "fpn"}),
    Case("Swin-L, inference, batch 1", 1, trains=False, arguments=SWIN_L),
    Case("Swin-L, inference", 32, trains=False, arguments=SWIN_L),
    Case("Swin-L, inference, six single models", 32, trains=False, are_single=True, arguments=SWIN_L),
    Case("Swin-L, inference, decoder fpn", 32, trains=False, arguments=SWIN_L | {"decoder": "fpn"}),
)


def measure_cases(cases: Sequence[Case], device: torch.device, steps: int, size: int = SIZE, product_size: int = 8192) -> None:
    """Print a row a case as soon as it is measured; a step is forward, losses and backward, six tasks, batch 32."""
    products = {}
    for dtype in dict.fromkeys(case.dtype for case in cases):
        products[dtype] = measure_product_rate(device, dtype, product_size)
        print(f"a product of {product_size} x {product_size} in {dtype}: {products[dtype] / 1e12:.1f} TFLOP/s")
    columns = f"{'ms':>8}{'images/s':>10}{'TFLOP/s':>9}{'of product':>12}{'kernels':>9}{'waits':>7}{'busy':>6}{'GiB':>6}"
    print(f"{'six tasks, batch 32, bfloat16':<38}{columns}   first version, on one H100")
    for case in cases:
        step = case.build(size, device)
        speed = measure_speed(step, device, steps)
        print(f"{case.name:<38}{format_speed(speed, case.batch, products[case.dtype])}   {case.first_version}", flush=True)
        del step  # before the next one's memory is measured


def format_speed(speed: Speed, batch: int, product_rate: float) -> str:
    busy = "-" if speed.busy_seconds is None else f"{speed.busy_seconds / speed.seconds:.0%}"
    peak = "-" if speed.peak_bytes is None else f"{speed.peak_bytes / 2**30:.1f}"
    return (
        f"{1e3 * speed.seconds:8.1f}{batch / speed.seconds:10.1f}{speed.rate / 1e12:9.2f}{speed.rate / product_rate:12.1%}"
        f"{speed.kernels:9}{speed.waits:7}{busy:>6}{peak:>6}"
    )


def find_gpu(name: str) -> torch.device:
    """Raises UserError where torch has no such GPU."""
    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if name not in (["cuda", *gpus] if gpus else []):
        expected = f"cuda or one of {', '.join(gpus)}" if gpus else "a GPU that torch can use, of which this machine has none"
        raise UserError(f"--device: got {name}; expected {expected}; leave it out to measure on the CPU")
    return torch.device(gpus[0] if name == "cuda" else name)


SECTIONS: dict[str, Callable[[int], None]] = {
    "model": model,
    "memory": memory,
    "compile": compiled,
    "inference": inference,
    "metrics": metrics,
    "data": data,
    "index": index,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10)
    for name, section in SECTIONS.items():
        parser.add_argument(f"--{name}", action="store_true", help=section.__doc__)
    parser.add_argument("--device", help="cuda or cuda:N: measure the table of a GPU")
    arguments = parser.parse_args()
    if arguments.device is not None:
        with exit_on_user_error():
            device = find_gpu(arguments.device)
            torch.cuda.set_device(device)
            print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, median of {arguments.pairs} steps")
            measure_cases(CASES, device, arguments.pairs)
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} cores, {arguments.pairs} pairs")
    print(f"{'what':<64} at most  measured: median (range)")
    for section in [SECTIONS[name] for name in SECTIONS if getattr(arguments, name)] or [model]:
        section(arguments.pairs)


if __name__ == "__main__":
    main()
