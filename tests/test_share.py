"""A model to hand over: what it carries, its card, that it predicts as the run's does, and that nothing is uploaded unasked."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mult import Predictor, UserError
from mult.data import DATASETS, LICENCES
from mult.models import MulT

Script = Callable[..., Any]


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run to change."""
    shutil.copytree(trained, tmp_path / "run", symlinks=True)
    return tmp_path / "run"


def picture() -> Image.Image:
    y, x = np.mgrid[0:61, 0:90]
    return Image.fromarray(np.stack([x * 2, y * 4, (x > 30) * 200], axis=-1).astype(np.uint8))


def test_the_folder_predicts_as_the_run_does(script: Script, run: Path, tmp_path: Path) -> None:
    config = (run / "checkpoints" / "best" / "config.yaml").read_text()
    assert "image_size: [48, 40]" in config
    out = tmp_path / "model"
    ended = script("push", "--ckpt", run, "--out", out)
    assert ended.status == 0, ended.err
    assert {path.name for path in out.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    expected = Predictor.from_checkpoint(run)(picture())
    predictor = Predictor.from_pretrained(out)
    assert predictor.transform.size == (48, 40)
    for task, values in predictor(picture()).items():
        assert np.array_equal(values, expected[task])
    origin = json.loads((out / "config.json").read_text())["origin"]
    assert origin["config_sha256"] == hashlib.sha256(config.encode()).hexdigest()
    assert (origin["fit"], origin["units"]["depth_zbuffer"]) == ("short_side", "m")
    assert str(run.parent) not in (out / "config.json").read_text()  # no path of this machine


def test_a_model_of_the_hub_is_found_by_its_name(
    script: Script, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the hub's cache, laid out as huggingface_hub does, since tests have no network."""
    cached = tmp_path / "models--someone--model"
    assert script("push", "--ckpt", trained, "--out", cached / "snapshots" / ("1" * 40)).status == 0
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("1" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    maps = Predictor.from_pretrained("someone/model")(picture())
    assert np.array_equal(maps["normal"], Predictor.from_checkpoint(trained)(picture())["normal"])


def test_fit_and_depth_limit_are_the_run_s(script: Script, run: Path, tmp_path: Path) -> None:
    checkpoint = (run / "checkpoints" / "best").resolve()
    text = (checkpoint / "config.yaml").read_text()
    changed = text.replace("fit: short_side", "fit: pad").replace("max_depth_m: null", "max_depth_m: 7.5")
    assert changed != text
    (checkpoint / "config.yaml").write_text(changed)
    (checkpoint / "manifest.json").unlink()  # it holds the file as it was
    assert script("push", "--ckpt", checkpoint, "--out", tmp_path / "model").status == 0
    assert Predictor.from_pretrained(tmp_path / "model").transform.fit == "pad"
    assert "depth up to 7.5 m" in (tmp_path / "model" / "README.md").read_text()


def test_the_card_has_the_scores_of_these_weights_and_no_placeholder(script: Script, run: Path, tmp_path: Path) -> None:
    path = run / "eval" / "taskonomy-val.json"
    evaluation = json.loads(path.read_text())
    entry = evaluation["tasks"]["depth_zbuffer"]["rmse"]
    entry |= {"value": 0.7301, "trivial": 1.2502, "interval": [0.7003, 0.7604]}
    path.write_text(json.dumps(evaluation))
    other = evaluation | {"weights": evaluation["weights"] | {"checksum": "0" * 64}, "split": "other"}
    (run / "eval" / "taskonomy-other.json").write_text(json.dumps(other))
    blurred = evaluation | {"corruption": {"kind": "blur", "severity": 2}, "split": "blurred"}
    (run / "eval" / "taskonomy-blurred.json").write_text(json.dumps(blurred))
    assert script("push", "--ckpt", run, "--out", tmp_path / "model").status == 0
    card = (tmp_path / "model" / "README.md").read_text()
    assert "| depth_zbuffer | rmse, lower is better | 0.7301 m | 0.7003 to 0.7604 | 1.25 m |" in card
    assert "| depth_zbuffer | 1 | m |" in card
    assert f"- taskonomy: {LICENCES['taskonomy']}" in card
    assert "license: other" in card
    assert "images of 48 x 40 pixels" in card
    assert "split other" not in card
    assert "split blurred" not in card
    assert "More Information" not in card

    shutil.rmtree(run / "eval")
    ended = script("push", "--ckpt", run, "--out", tmp_path / "bare")
    assert "no evaluation of these weights, and so no score on the card" in ended.out
    bare = (tmp_path / "bare" / "README.md").read_text()
    assert "These weights were not evaluated." in bare
    assert "0.7301" not in bare


def test_the_example_on_the_card_runs(script: Script, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script("push", "--ckpt", run, "--out", tmp_path / "model").status == 0
    picture().save(tmp_path / "photo.jpg")
    example = (tmp_path / "model" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert len(example.splitlines()) == 5
    example = example.replace("this folder or its name on the hub", str(tmp_path / "model"))
    exec(compile(example.replace("photo.jpg", str(tmp_path / "photo.jpg")), "card", "exec"), {})
    assert "'depth_zbuffer': (1, 61, 90)" in capsys.readouterr().out


@pytest.mark.parametrize("answer", ["", "n\n", "\n", "maybe\n"])
def test_without_a_yes_nothing_is_uploaded(
    script: Script, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    ended = script("push", "--ckpt", trained, "--out", tmp_path / "model", "--to", "someone/model")
    assert ended.status == 0  # with an upload it would be 2: tests have no network
    *files, question, end = ended.out.splitlines()
    assert [line.split("/")[-1] for line in files] == ["README.md", "config.json", "model.safetensors"]
    assert question.startswith("upload these 3 files, and nothing else, to someone/model on the hub (public if it is new)?")
    assert end == "nothing was uploaded"


def test_a_hub_that_does_not_take_it_is_one_message(
    script: Script, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    ended = script("push", "--ckpt", trained, "--out", tmp_path / "model", "--to", "someone/model")
    assert ended.status == 2
    assert ended.err.startswith("error: --to: got someone/model, which the hub did not take (")
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_what_cannot_be_written_is_refused_first(script: Script, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for arguments, message in (
        (["--out", tmp_path / "there"], f"--out: got {tmp_path / 'there'}, which is there; expected a new folder"),
        (["--out", tmp_path / "new", "--to", "model"], "--to: got 'model'; expected USER/NAME"),
    ):
        ended = script("push", "--ckpt", trained, *arguments)
        assert ended.status == 2
        assert ended.err.startswith(f"error: {message}")
    assert list(tmp_path.iterdir()) == [tmp_path / "there"]


def test_a_model_that_says_no_size_or_is_nowhere_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="image_size None and fit None; expected what `mult push` writes"):
        Predictor.from_pretrained(trained / "checkpoints" / "best")
    model = MulT.from_pretrained(trained / "checkpoints" / "best")
    for number, origin in enumerate(({"image_size": [8, 48], "fit": "pad"}, {"image_size": [48, 48], "fit": "no"})):
        folder = tmp_path / str(number)
        model.save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text()) | {"origin": origin}
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(UserError, match="expected what `mult push` writes"):
            Predictor.from_pretrained(folder)
        (folder / "config.json").write_text(json.dumps(config | {"origin": ["no", "mapping"]}))
        with pytest.raises(UserError, match="incomplete description"):
            Predictor.from_pretrained(folder)
    for name in ("someone/nothing", "no such folder"):
        with pytest.raises(UserError, match=f"model: got {name}, no folder, and not on the hub"):
            Predictor.from_pretrained(name)


def test_every_dataset_has_a_licence() -> None:
    assert LICENCES.keys() == DATASETS.keys()
    assert all(LICENCES.values())
