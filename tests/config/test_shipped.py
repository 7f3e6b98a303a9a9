"""Configs and suites by name and by path."""

from __future__ import annotations

from pathlib import Path

import pytest

from mult.config import find_config, load_config
from mult.errors import UserError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def test_a_name_is_the_file_that_comes_with_mult(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config("rooms6").read_text() == (CONFIGS / "rooms6.yaml").read_text()
    assert find_config("smoke").read_text() == (CONFIGS / "smoke.yaml").read_text()
    assert find_config("smoke", "suite").read_text() == (CONFIGS / "suites" / "smoke.yaml").read_text()
    assert load_config("rooms6_long", ["run.seed=3"]) == load_config(CONFIGS / "rooms6_long.yaml", ["run.seed=3"])


def test_a_path_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rooms6").write_text("run: {name: own}")
    assert find_config("rooms6") == Path("rooms6")
    (tmp_path / "smoke").mkdir()  # a folder of that name is no file
    assert find_config("smoke").name == "smoke.yaml"


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("roms6", "config", r"config: got roms6; expected a YAML file, or a name among doom6, .*; did you mean 'rooms6'\?"),
        (
            "x/rooms6.yaml",
            "config",
            r"config: got x/rooms6\.yaml; expected a YAML file; no such .* give the name rooms6,",
        ),
        ("zzzzzz.yaml", "config", "config: got zzzzzz.yaml; expected .*; no such file, check the path"),
        (".", "config", r"config: got \.; expected a YAML file; it is a folder: give a file in it"),
        ("nyu4", "published", r"published: got nyu4; .*, or a name among nyud4, pascal5; did you mean 'nyud4'\?"),
        ("configs/published/nyud4.yaml", "published", "got configs/.*, or give the name nyud4, which comes with mult"),
        ("rooms6", "suite", "suite: got rooms6; expected a YAML file, or a name among ablation_decoder, .*smoke; no such"),
    ],
)
def test_neither_a_path_nor_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        find_config(name, kind)
