"""The sections of the data: how fast samples are read, and how the tree of a million views is opened."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from mult.benchmark.ratios import compare
from mult.benchmark.steps import REFERENCE, SIZE
from mult.data.batches.transforms import AugmentedDataset, TrainTransform
from mult.data.disk.encodings import ENCODINGS
from mult.data.packed import Packed
from mult.data.packed.write import pack
from mult.data.rooms.dataset import Rooms
from mult.data.taskonomy.dataset import Taskonomy
from mult.files import write_text
from mult.runtime.loader import Loader


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
