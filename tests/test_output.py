"""Where the commands print: pipes that nobody reads, closed descriptors, locales without the characters."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mult.files import read_json
from mult.runtime.signals import Signals

ROOT = Path(__file__).resolve().parents[1]
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
ASCII_OUTPUT = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
TIMEOUT_S = 300

PRINTS = """
import sys
from pathlib import Path
from tqdm import tqdm
from mult.cli import exit_on_user_error

with exit_on_user_error():
    for step in tqdm(range(3)):
        print("\\u00b1 \\u0394 " * 10000, flush=True)
        tqdm.write("\\u00fc")
        tqdm.write("\\u00fc" * 10000, file=sys.stderr)
        print("an error", file=sys.stderr)
    print("not flushed")
    Path(sys.argv[1]).write_text("done")
"""


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def run_into_no_reader(words: list[str], streams: str, **more: str) -> int:
    """Run a command, the named streams of which are pipes whose reading end is closed."""
    reading, writing = os.pipe()
    os.close(reading)
    targets: dict[str, Any] = {name: writing if name in streams else subprocess.DEVNULL for name in ("stdout", "stderr")}
    try:
        return subprocess.run(words, env=environment(**more), timeout=TIMEOUT_S, check=False, **targets).returncode
    finally:
        os.close(writing)


@pytest.mark.parametrize("streams", ["stdout", "stderr", "stdout and stderr"])
@pytest.mark.parametrize("more", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["", "unbuffered"])
def test_a_command_goes_on_when_nobody_reads(tmp_path: Path, streams: str, more: dict[str, str]) -> None:
    done = tmp_path / "done"
    assert run_into_no_reader([sys.executable, "-c", PRINTS, str(done)], streams, **more) == 0
    assert done.exists()


@pytest.mark.parametrize("closing", [">&-", "2>&-", ">&- 2>&-"])
def test_a_command_goes_on_without_streams(tmp_path: Path, closing: str) -> None:
    words = ["sh", "-c", f'exec "$0" -c "$1" "$2" {closing}', sys.executable, PRINTS, str(tmp_path / "done")]
    ended = subprocess.run(words, env=environment(), capture_output=True, timeout=TIMEOUT_S, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert (tmp_path / "done").exists()


def test_output_is_utf_8_in_any_locale(tmp_path: Path) -> None:
    words = [sys.executable, "-c", PRINTS, str(tmp_path / "done")]
    ended = subprocess.run(words, env=environment(**ASCII), capture_output=True, timeout=TIMEOUT_S, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.decode().startswith("± Δ ")
    assert "ü" in ended.stderr.decode()


@pytest.mark.skipif(os.name == "nt", reason="needs pseudo-terminals")
def test_a_terminal_gets_what_it_can_show(tmp_path: Path) -> None:
    controller, terminal = os.openpty()
    with os.fdopen(controller, "rb") as screen:
        words = [sys.executable, "-c", PRINTS.replace("10000", "3"), str(tmp_path / "done")]
        ended = subprocess.run(
            words, env=environment(**ASCII), stdout=terminal, stderr=subprocess.PIPE, timeout=TIMEOUT_S, check=False
        )
        os.close(terminal)
        assert ended.returncode == 0, ended.stderr[-2000:]
        assert screen.readline() == b"? ? ? ? ? ? \r\n"


def test_a_full_disk_is_no_lost_reader(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with open("/dev/full", "wb") as full:
        words = [sys.executable, "-c", PRINTS, str(tmp_path / "done")]
        ended = subprocess.run(words, env=environment(), stdout=full, stderr=subprocess.PIPE, timeout=TIMEOUT_S, check=False)
    assert ended.returncode != 0
    assert b"No space left" in ended.stderr


def test_a_training_that_nobody_watches_is_trained(config_file: Path, tmp_path: Path) -> None:
    """In a folder with an umlaut, printed by an encoding without."""
    words = [sys.executable, str(ROOT / "scripts" / "train.py"), "--config", str(config_file), f"run.output={tmp_path}/Läufe"]
    assert run_into_no_reader(words, "stdout and stderr", **ASCII_OUTPUT) == 0
    run = tmp_path / "Läufe" / "tiny"
    assert read_json(run / "eval" / "taskonomy-val.json")["step"] == 4
    for name, arguments in {"compare": [], "eval": ["--ckpt"], "report": ["--images", "0"]}.items():
        words = [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *arguments, str(run)]
        ended = subprocess.run(words, env=environment(**ASCII_OUTPUT), capture_output=True, timeout=TIMEOUT_S, check=False)
        assert ended.returncode == 0, ended.stderr.decode()[-2000:]


SIGNALLED = """
import os, runpy, sys
number, first = int(sys.argv[1]), True

def signal_once(event, arguments):
    global first
    if event == "open" and str(arguments[0]).endswith("splits.csv") and first:
        first = False
        os.kill(os.getpid(), number)

sys.addaudithook(signal_once)
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_before_the_first_step_ends_with_status_0(config_file: Path, tmp_path: Path, number: signal.Signals) -> None:
    """It comes when the splits of the dataset are read."""
    words = [sys.executable, "-c", SIGNALLED, str(int(number)), str(ROOT / "scripts" / "train.py")]
    words += ["--config", str(config_file), f"run.output={tmp_path}"]
    ended = subprocess.run(words, env=environment(), capture_output=True, encoding="utf-8", timeout=TIMEOUT_S, check=False)
    assert ended.returncode == 0, ended.stderr
    assert f"{number.name}: stopped after step 0 of 4" in ended.stdout


def test_nohup_keeps_its_meaning() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.received is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
