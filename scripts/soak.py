"""Break a training again and again, and check that it ends with the same bits: python scripts/soak.py [--only CHECK ...].

The checks, each against a run that nothing disturbed: `kills` SIGKILLs a run at random moments, every other time while it
writes a checkpoint; `pair` does so to two processes, one of them or both at once; `disk` lets the disk of a run fill up (a
small tmpfs: Linux, as root; skipped elsewhere); `loader` kills a worker of the data loader, and then spoils a file. All must
go on with --resume and end with equal weights, equal state of the optimiser, and every line of metrics.jsonl once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mult.cli import exit_on_user_error
from mult.runs.checkpoint import last_step

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = (
    "data.batch_size=2",
    "data.workers=1",
    "data.image_size=[32, 40]",
    "model.window_size=4",
    "model.dropout=0.1",
    "model.backbone_args={embed_dim: 16, depths: [1, 1, 1, 1], num_heads: [1, 2, 4, 8], drop_path_rate: 0.1}",
    "optim.ema=0.9",
    "eval.every=10",
    "eval.images=1",
    "run.device=cpu",
    "run.checkpoint_every=1",
)
"""A very small network with all that is random, saved so often that many kills meet a checkpoint half-written."""

PATIENCE = 600
"""Seconds after which a process that should have ended is taken to hang."""


@dataclass(frozen=True)
class Soak:
    """Where and how long the runs are, and what decides when they are killed."""

    config: str
    folder: Path
    steps: int
    kills: int
    random: random.Random

    def start(self, name: str, *settings: str, resume: bool = False, world: int = 1) -> list[subprocess.Popen[bytes]]:
        """One process or several, as srun would start them; what they say goes to <name>.<rank>.log."""
        command = [sys.executable, str(ROOT / "scripts" / "train.py"), "--config", self.config, *SETTINGS]
        command += [f"data.root={self.folder}/rooms", f"run.output={self.folder}", f"run.name={name}", *settings]
        command += [f"optim.steps={self.steps}", *(["--resume"] if resume else [])]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        processes = []
        for rank in range(world):
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "RANK": str(rank)}
            environment |= {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            with open(self.log(name, rank), "wb") as log:
                processes.append(subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log))
        return processes

    def finish(self, name: str, *settings: str, resume: bool = False, world: int = 1) -> None:
        """Train to the end."""
        statuses = [process.wait(PATIENCE) for process in self.start(name, *settings, resume=resume, world=world)]
        check(statuses == [0] * world, f"{name}: ended with {statuses}; see {self.log(name, 0)}")

    def log(self, name: str, rank: int) -> Path:
        return self.folder / f"{name}.{rank}.log"

    def wait_for(self, happens: Callable[[], bool], processes: list[subprocess.Popen[bytes]]) -> bool:
        """Whether it happened before the processes ended."""
        while not happens():
            if any(process.poll() is not None for process in processes):
                return False
            time.sleep(0.002)
        return True


def check(holds: bool, otherwise: str) -> None:
    if not holds:
        sys.exit(f"soak: {otherwise}")


def lines(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what the clock and the machine say."""
    path = folder / "metrics.jsonl"
    read = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{key: value for key, value in line.items() if not key.endswith(("seconds", "_mib"))} for line in read]


def size(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.stat().st_size if path.exists() else 0


def is_same(one: Any, other: Any) -> bool:
    """Nested states, to the bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(is_same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


def compare(whole: Path, broken: Path) -> str:
    """Check that two runs ended alike; what was found, in words."""
    checkpoints = [folder / "checkpoints" / "last" for folder in (whole, broken)]
    weights = [(checkpoint / "model.safetensors").read_bytes() for checkpoint in checkpoints]
    check(weights[0] == weights[1], f"{broken}: other weights than {whole}")
    states = [torch.load(checkpoint / "state.pt", weights_only=True) for checkpoint in checkpoints]
    check(is_same(*states), f"{broken}: another state than {whole}")
    check(lines(whole) == lines(broken), f"{broken}/metrics.jsonl: other lines than {whole}")
    return f"weights, state and {len(lines(whole))} lines of metrics.jsonl equal to the bit"


def writing(folder: Path) -> bool:
    """Whether a checkpoint is being written."""
    return any(path.name.endswith(".tmp") for path in (folder / "checkpoints").glob(".*"))


def kill(soak: Soak, name: str, world: int, kills: int) -> str:
    """Kill a run so many times, then let it end; with several processes one, whose end must end the others, or all."""
    folder = soak.folder / name
    half_written = alone = 0
    for number in range(kills):
        processes = soak.start(name, resume=(folder / "config.yaml").exists(), world=world)
        begun = size(folder)
        if not soak.wait_for(lambda begun=begun: size(folder) > begun, processes):  # type: ignore[misc]
            check(begun > 0 or number == 0, f"{name}: ended by itself; see {soak.log(name, 0)}")
        if number % 2:
            soak.wait_for(lambda: writing(folder), processes)
            time.sleep(soak.random.uniform(0, 0.02))
        else:
            time.sleep(soak.random.uniform(0, 2))
        check(all(process.poll() is None for process in processes), f"{name}: done before kill {number + 1}; give more --steps")
        chosen = processes if world == 1 or soak.random.random() < 0.5 else [soak.random.choice(processes)]
        for process in chosen:
            process.kill()
        alone += len(chosen) < world
        for process in processes:
            process.wait(PATIENCE)
        half_written += writing(folder)
        check(
            all(process.returncode != 0 for process in processes), f"{name}: a process outlived the other as if all were well"
        )
    reached = max((line["step"] for line in lines_so_far(folder)), default=0)
    soak.finish(name, resume=True, world=world)
    detail = f", {alone} of one process alone, which ended the other" if world > 1 else ""
    return f"{kills} SIGKILLs{detail}, {half_written} with a checkpoint half-written, up to step {reached} of {soak.steps}"


def lines_so_far(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of a log whose last one may be cut short."""
    return [
        json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines(keepends=True) if line.endswith("\n")
    ]


def fill_disk(soak: Soak, whole: Path) -> str | None:
    """A run on a disk with room for two and a half checkpoints; None, with a word, where no such disk can be had."""
    taken = sum(path.stat().st_size for path in (whole / "checkpoints" / "last").resolve().iterdir())
    folder = soak.folder / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={int(2.5 * taken) + 300_000}", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        print("disk: skipped, since a tmpfs cannot be mounted here (Linux and root)")
        return None
    try:
        (process,) = soak.start("disk/run")
        status = process.wait(PATIENCE)
        said = [line for line in soak.log("disk/run", 0).read_text().splitlines() if "error:" in line]
        check(status == 2 and len(said) == 1, f"disk: ended with {status}; see {soak.log('disk/run', 0)}")
        last = last_step(folder / "run")
        subprocess.run(["mount", "-o", f"remount,size={9 * taken}", str(folder)], check=True)
        soak.finish("disk/run", resume=True)
        found = compare(whole, folder / "run")
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    return f"full in the checkpoint after step {last}, ended with status 2 and one message, went on; {found}"


def break_loader(soak: Soak) -> str:
    """A worker dies; then a file of the data is spoilt, and mended."""
    folder = soak.folder / "loader"
    (process,) = soak.start("loader", "data.workers=2")
    check(soak.wait_for(lambda: size(folder) > 0, [process]), f"loader: ended at once; see {soak.log('loader', 0)}")
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(soak.random.choice(workers)), signal.SIGKILL)
    begun = time.monotonic()
    status = process.wait(PATIENCE)
    waited = time.monotonic() - begun
    said = soak.log("loader", 0).read_text()
    check(status == 1 and said.count("stopped: DataLoader worker") == 1, f"loader: ended with {status}: {said[-2000:]}")

    image = sorted((soak.folder / "rooms").rglob("*domain_rgb.png"))[0]
    content = image.read_bytes()
    image.write_bytes(content[:100])
    try:
        (process,) = soak.start("loader", "data.workers=2", resume=True)
        status = process.wait(PATIENCE)
    finally:
        image.write_bytes(content)
    said = soak.log("loader", 0).read_text()
    check(status == 2 and said.count("error:") == 1 and image.name in said, f"loader: ended with {status}: {said[-2000:]}")
    soak.finish("loader", "data.workers=2", resume=True)
    return f"a killed worker ended the run after {waited:.0f} s with a message, a spoilt file by its name"


def main() -> None:
    checks = ("kills", "pair", "disk", "loader")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=checks, default=checks, help="default: all")
    parser.add_argument("--config", default=str(ROOT / "configs" / "smoke.yaml"), help="of a dataset of rooms")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    with exit_on_user_error():
        folder = tempfile.mkdtemp(prefix="soak")  # it stays where a check fails
        soak = Soak(arguments.config, Path(folder), arguments.steps, arguments.kills, random.Random(arguments.seed))
        whole = Path(folder) / "whole"
        if {"kills", "disk", "loader"} & set(arguments.only):
            soak.finish("whole")
        if "kills" in arguments.only:
            done = kill(soak, "kills", 1, arguments.kills)
            print(f"kills: {done}; {compare(whole, Path(folder) / 'kills')}", flush=True)
        if "pair" in arguments.only:
            soak.finish("whole_pair", world=2)
            done = kill(soak, "pair", 2, arguments.kills)
            print(f"pair: {done}; {compare(Path(folder) / 'whole_pair', Path(folder) / 'pair')}", flush=True)
        if "disk" in arguments.only and (found := fill_disk(soak, whole)):
            print(f"disk: {found}", flush=True)
        if "loader" in arguments.only:
            done = break_loader(soak)
            print(f"loader: {done}; {compare(whole, Path(folder) / 'loader')}", flush=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
