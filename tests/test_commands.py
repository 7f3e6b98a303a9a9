"""The command `mult` and its doors in scripts/: which commands there are, what a misspelt one gets, what loads torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mult.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(path.stem for path in (ROOT / "mult" / "commands").glob("*.py") if path.stem != "__init__")


def run(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=cwd, check=False)


def test_every_module_is_a_command_with_a_door() -> None:
    assert sorted(name.replace("-", "_") for name in COMMANDS) == MODULES
    for module in MODULES:
        source = (ROOT / "scripts" / f"{module}.py").read_text(encoding="utf-8")
        assert f"from mult.commands.{module} import main\n" in source
        assert len(source.splitlines()) == 6


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_mult_lists_the_commands_without_torch(arguments: list[str]) -> None:
    code = (
        "import sys; from mult.commands import main; main(); "
        "heavy = {'torch', 'numpy', 'PIL', 'timm', 'yaml'} & {*sys.modules}; "
        "assert not heavy, heavy"
    )
    ended = run("-c", code, *arguments)
    assert ended.returncode == 0, ended.stderr
    assert [line.split()[0] for line in ended.stdout.splitlines() if line.startswith("  ")] == list(COMMANDS)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("trian", "did you mean 'train'?"), ("make_rooms", "did you mean 'make-rooms'?"), ("xyz", "`mult --help` lists them")],
)
def test_a_misspelt_command_says_which_is_near(name: str, remedy: str) -> None:
    ended = run("-m", "mult", name, "--config", "x")
    assert ended.returncode == 2
    assert ended.stderr == f"error: command: got {name!r}; expected one of {', '.join(COMMANDS)}; {remedy}\n"


def test_a_command_and_its_door_are_the_same() -> None:
    of_command, of_door = run("-m", "mult", "make-rooms", "--help"), run("scripts/make_rooms.py", "--help")
    assert of_command.returncode == of_door.returncode == 0, of_command.stderr
    assert "usage: mult make-rooms [-h] --out OUT" in of_command.stdout
    assert of_command.stdout.split("--out", 1)[1].split() == of_door.stdout.split("--out", 1)[1].split()


def test_a_wrong_argument_of_a_command_ends_with_its_usage() -> None:
    ended = run("-m", "mult", "make-rooms", "--outt", "x")
    assert ended.returncode == 2
    assert "mult make-rooms: error: " in ended.stderr
