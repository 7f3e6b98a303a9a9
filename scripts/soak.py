"""Interrupt trainings in many ways and check that they end with the same bits: python scripts/soak.py [--only CHECK ...].

Each check compares a disturbed run with one that nothing disturbed. `kills` sends SIGKILL to a run at random moments, every
other time while it writes a checkpoint; `pair` does so to two processes, to one of them or to both at once; `disk` lets the
disk of a run fill up (a small tmpfs: Linux, as root; skipped elsewhere); `loader` kills a worker of the data loader, and then
damages a file. All must go on with --resume and end with equal weights, equal state of the optimiser, and every line of
metrics.jsonl once.
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
from mult.files import is_temporary

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
"""A very small network with every kind of random draw, saved so often that many kills meet a half-written checkpoint."""

HANG_S = 600
"""Seconds after which a process that should have ended is taken to hang."""


@dataclass(frozen=True)
class Soak:
    """Where the runs are written, how long they are, and the generator that decides when they are killed."""

    config: str
    folder: Path
    steps: int
    kills: int
    random: random.Random

    def start(self, name: str, *settings: str, resume: bool = False, world_size: int = 1) -> list[subprocess.Popen[bytes]]:
        """One process or several, as srun would start them; their output goes to <name>.<rank>.log."""
        command = [sys.executable, str(ROOT / "scripts" / "train.py"), "--config", self.config, *SETTINGS]
        command += [f"data.root={self.folder}/rooms", f"run.output={self.folder}", f"run.name={name}", *settings]
        command += [f"optim.steps={self.steps}", *(["--resume"] if resume else [])]
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
        processes = []
        for rank in range(world_size):
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "RANK": str(rank)}
            environment |= {"WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            with open(self.log(name, rank), "wb") as log:
                processes.append(subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log))
        return processes

    def finish(self, name: str, *settings: str, resume: bool = False, world_size: int = 1) -> None:
        """Train to the last step."""
        statuses = [process.wait(HANG_S) for process in self.start(name, *settings, resume=resume, world_size=world_size)]
        require(statuses == [0] * world_size, f"{name}: ended with {statuses}; see {self.log(name, 0)}")

    def log(self, name: str, rank: int) -> Path:
        return self.folder / f"{name}.{rank}.log"

    def wait_for(self, condition: Callable[[], bool], processes: list[subprocess.Popen[bytes]]) -> bool:
        """Wait until the condition holds, True, or until a process ends, False."""
        while not condition():
            if any(process.poll() is not None for process in processes):
                return False
            time.sleep(0.002)
        return True


def require(condition: bool, failure: str) -> None:
    if not condition:
        sys.exit(f"soak: {failure}")


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without times and memory."""
    path = folder / "metrics.jsonl"
    read = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{key: value for key, value in line.items() if not key.endswith(("seconds", "_mib"))} for line in read]


def log_size(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.stat().st_size if path.exists() else 0


def is_same(one: Any, other: Any) -> bool:
    """Whether nested states are equal to the bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(is_same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


def compare(undisturbed: Path, disturbed: Path) -> str:
    """Check that two runs ended alike; returns a sentence for the report."""
    checkpoints = [folder / "checkpoints" / "last" for folder in (undisturbed, disturbed)]
    weights = [(checkpoint / "model.safetensors").read_bytes() for checkpoint in checkpoints]
    require(weights[0] == weights[1], f"{disturbed}: other weights than {undisturbed}")
    states = [torch.load(checkpoint / "state.pt", weights_only=True) for checkpoint in checkpoints]
    require(is_same(*states), f"{disturbed}: another state than {undisturbed}")
    require(read_lines(undisturbed) == read_lines(disturbed), f"{disturbed}/metrics.jsonl: other lines than {undisturbed}")
    return f"weights, state and {len(read_lines(undisturbed))} lines of metrics.jsonl equal to the bit"


def is_writing(folder: Path) -> bool:
    """Whether a checkpoint is being written."""
    return any(is_temporary(path) for path in (folder / "checkpoints").glob("*"))


def kill(soak: Soak, name: str, world_size: int, kills: int) -> str:
    """Kill a run `kills` times, then let it end. Of several processes, kill one, which must end the others, or all of them."""
    folder = soak.folder / name
    half_written = alone = 0
    for number in range(kills):
        processes = soak.start(name, resume=(folder / "config.yaml").exists(), world_size=world_size)
        size_at_start = log_size(folder)
        if not soak.wait_for(lambda size=size_at_start: log_size(folder) > size, processes):  # type: ignore[misc]
            require(size_at_start > 0 or number == 0, f"{name}: ended by itself; see {soak.log(name, 0)}")
        if number % 2:
            soak.wait_for(lambda: is_writing(folder), processes)
            time.sleep(soak.random.uniform(0, 0.02))
        else:
            time.sleep(soak.random.uniform(0, 2))
        require(
            all(process.poll() is None for process in processes), f"{name}: ended before kill {number + 1}; give more --steps"
        )
        victims = processes if world_size == 1 or soak.random.random() < 0.5 else [soak.random.choice(processes)]
        for process in victims:
            process.kill()
        alone += len(victims) < world_size
        for process in processes:
            process.wait(HANG_S)
        half_written += is_writing(folder)
        require(all(process.returncode != 0 for process in processes), f"{name}: a process ended with 0 without its peer")
    last_step = max((line["step"] for line in read_complete_lines(folder)), default=0)
    soak.finish(name, resume=True, world_size=world_size)
    detail = f", {alone} of one process alone, which ended the other" if world_size > 1 else ""
    return f"{kills} SIGKILLs{detail}, {half_written} with a checkpoint half-written, up to step {last_step} of {soak.steps}"


def read_complete_lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of a log but the last one, if it is cut short."""
    return [
        json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines(keepends=True) if line.endswith("\n")
    ]


def fill_disk(soak: Soak, undisturbed: Path) -> str | None:
    """Train on a disk with room for two and a half checkpoints; None, with a message, where no tmpfs can be mounted."""
    checkpoint_size = sum(path.stat().st_size for path in (undisturbed / "checkpoints" / "last").resolve().iterdir())
    folder = soak.folder / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={int(2.5 * checkpoint_size) + 300_000}", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        print("disk: skipped, since a tmpfs cannot be mounted here (Linux and root)")
        return None
    try:
        (process,) = soak.start("disk/run")
        status = process.wait(HANG_S)
        errors = [line for line in soak.log("disk/run", 0).read_text().splitlines() if "error:" in line]
        require(status == 2 and len(errors) == 1, f"disk: ended with {status}; see {soak.log('disk/run', 0)}")
        last = int(os.readlink(folder / "run" / "checkpoints" / "last"))
        subprocess.run(["mount", "-o", f"remount,size={9 * checkpoint_size}", str(folder)], check=True)
        soak.finish("disk/run", resume=True)
        comparison = compare(undisturbed, folder / "run")
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    return f"full in the checkpoint after step {last}, ended with status 2 and one message, went on; {comparison}"


def break_loader(soak: Soak) -> str:
    """Kill a worker; then damage a file of the data, and mend it."""
    folder = soak.folder / "loader"
    (process,) = soak.start("loader", "data.workers=2")
    require(soak.wait_for(lambda: log_size(folder) > 0, [process]), f"loader: ended at once; see {soak.log('loader', 0)}")
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(soak.random.choice(workers)), signal.SIGKILL)
    start = time.monotonic()
    status = process.wait(HANG_S)
    seconds = time.monotonic() - start
    output = soak.log("loader", 0).read_text()
    require(status == 1 and output.count("stopped: DataLoader worker") == 1, f"loader: ended with {status}: {output[-2000:]}")

    image = sorted((soak.folder / "rooms").rglob("*domain_rgb.png"))[0]
    content = image.read_bytes()
    image.write_bytes(content[:100])
    try:
        (process,) = soak.start("loader", "data.workers=2", resume=True)
        status = process.wait(HANG_S)
    finally:
        image.write_bytes(content)
    output = soak.log("loader", 0).read_text()
    named = output.count("error:") == 1 and image.name in output
    require(status == 2 and named, f"loader: ended with {status}: {output[-2000:]}")
    soak.finish("loader", "data.workers=2", resume=True)
    return f"a killed worker ended the run after {seconds:.0f} s with a message, a damaged file with its name"


def main() -> None:
    checks = ("kills", "pair", "disk", "loader")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=checks, default=checks, help="default: all")
    parser.add_argument("--config", default=str(ROOT / "configs" / "smoke.yaml"), help="of a dataset of rooms")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    arguments = parser.parse_args()
    with exit_on_user_error():
        folder = tempfile.mkdtemp(prefix="soak")  # kept if a check fails
        soak = Soak(arguments.config, Path(folder), arguments.steps, arguments.kills, random.Random(arguments.seed))
        undisturbed = Path(folder) / "undisturbed"
        if {"kills", "disk", "loader"} & set(arguments.only):
            soak.finish("undisturbed")
        if "kills" in arguments.only:
            report = kill(soak, "kills", 1, arguments.kills)
            print(f"kills: {report}; {compare(undisturbed, Path(folder) / 'kills')}", flush=True)
        if "pair" in arguments.only:
            soak.finish("undisturbed_pair", world_size=2)
            report = kill(soak, "pair", 2, arguments.kills)
            print(f"pair: {report}; {compare(Path(folder) / 'undisturbed_pair', Path(folder) / 'pair')}", flush=True)
        if "disk" in arguments.only and (disk_report := fill_disk(soak, undisturbed)):
            print(f"disk: {disk_report}", flush=True)
        if "loader" in arguments.only:
            report = break_loader(soak)
            print(f"loader: {report}; {compare(undisturbed, Path(folder) / 'loader')}", flush=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
