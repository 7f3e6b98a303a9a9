"""scripts/report.py on a real run: marks, images of the right views, and what cannot be shown or compared."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mult import TASKS, report
from mult.data import Taskonomy
from mult.data.disk.encodings import ENCODINGS
from mult.draw import ERROR
from mult.files import read_arrays, write_arrays
from mult.predict import Predictor

Script = Callable[..., Any]
ReadPage = Callable[[str], Any]
ReadTable = Callable[[str, str], list[list[str]]]
WriteRun = Callable[..., Path]


def test_the_script_marks_what_the_images_can_tell(
    read_table: ReadTable, script: Script, trained: Path, tmp_path: Path
) -> None:
    other, stem = tmp_path / "other", "taskonomy-val"
    shutil.copytree(trained, other, symlinks=True)
    columns = read_arrays(trained / "eval" / f"{stem}.npz")
    columns["normal/angle"] = columns["normal/angle"] * 1.5
    write_arrays(other / "eval" / f"{stem}.npz", columns)
    file: dict[str, Any] = json.loads((trained / "eval" / f"{stem}.json").read_text())
    file["tasks"]["normal"]["mean"]["value"] *= 1.5
    (other / "eval" / f"{stem}.json").write_text(json.dumps(file))
    (tmp_path / "single").mkdir()
    baseline = tmp_path / "single" / f"{stem}.json"  # as good as the first run
    shutil.copy(trained / "eval" / f"{stem}.json", baseline)
    shutil.copy(trained / "eval" / f"{stem}.npz", baseline.with_suffix(".npz"))
    ended = script("report", trained, other, "--out", tmp_path / "x.html", "--images", "0", "--baseline", baseline)
    assert ended.status == 0, ended.err
    text = (tmp_path / "x.html").read_text()
    rows = read_table(text, f"{stem}: 3 images; intervals of 95 % over images")
    assert [row[0] for row in rows if "▼ worse" in row[3]] == ["normal", "all tasks"]
    assert not [row for row in rows if "▲" in row[3]]
    assert rows[-1][:2] == ["all tasks", "Δm ↑ [%]"]
    assert rows[-1][2:4] == ["+0.00 +0.00 to +0.00", "-8.33 ▼ worse -8.33 to -8.33"]
    baseline.with_suffix(".npz").unlink()
    ended = script("report", trained, "--out", tmp_path / "alone.html", "--images", "0", "--baseline", baseline)
    assert ended.status == 0, ended.err
    rows = read_table((tmp_path / "alone.html").read_text(), f"{stem}: 3 images; intervals of 95 % over images")
    assert rows[-1] == ["all tasks", "Δm ↑ [%]", "+0.00", "-", "-", "-"]
    baseline.rename(tmp_path / "single" / "else.json")
    ended = script("report", trained, "--out", tmp_path / "y.html", "--baseline", tmp_path / "single" / "else.json")
    assert ended.status == 2
    assert (
        f"--baseline: got {tmp_path}/single/else.json; expected a JSON named as an evaluation of the runs: {stem}" in ended.err
    )
    assert not (tmp_path / "y.html").exists()


def decoded(source: str | None) -> np.ndarray:
    content = base64.b64decode(str(source).split(",", 1)[1])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def test_the_script_shows_the_views_that_the_columns_rank(
    read_page: ReadPage, script: Script, trained: Path, tree_root: Path, tmp_path: Path
) -> None:
    out = tmp_path / "page.html"
    ended = script("report", trained, "--out", out, "--images", 1)
    assert ended.status == 0, ended.err
    assert re.search(r"page\.html: 0\.\d MB with \d+ pictures", ended.out)
    page = read_page(out.read_text())
    run = report.read_run(trained)
    views = Taskonomy(tree_root, split="val")
    predictor = Predictor.from_checkpoint(trained / "checkpoints" / "last")  # what training evaluated last
    evaluation = run.evaluations["taskonomy-val"]
    entries = evaluation.tasks
    for task in ENCODINGS:
        values = evaluation.image_values(task, TASKS[task].primary)
        best = int(np.nanargmax(values) if entries[task][TASKS[task].primary]["better"] == "higher" else np.nanargmin(values))
        view = views[best]
        found = {
            kind: [image for image in page.all("img") if image["alt"] == f"{kind}: {task} of {view['id']}"]
            for kind in ("input", "truth", "prediction", "error")
        }
        assert [len(images) for images in found.values()] == [1, 1, 1, 1]
        record, target, valid = TASKS[task], view["targets"][task].numpy(), view["valid"][task].numpy()
        image = Image.fromarray((view["image"].permute(1, 2, 0) * 255).round().byte().numpy())
        prediction = predictor(image)[task]
        limits = record.colours.limits(target, valid)
        high = record.colours.error_high or ((limits[1] - limits[0]) / 4 if limits else 1.0)
        expected = {
            "input": np.asarray(image),
            "error": ERROR.paint(record.colours.error(prediction, target, valid), valid, (0, high)),
        }
        if not record.categorical:
            expected |= {
                "truth": record.colours.paint(target, valid, limits),
                "prediction": record.colours.paint(prediction, None, limits),
            }
        for kind, pixels in expected.items():
            shown = decoded(found[kind][0]["src"])
            size = (shown.shape[1], shown.shape[0])
            enlarged = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)).astype(int)
            assert max(size) == 208
            assert np.abs(shown - enlarged).mean() < 6, (task, kind)


def test_runs_on_other_images_are_not_compared(write_run: WriteRun, script: Script, tmp_path: Path) -> None:
    one, two = write_run(tmp_path / "one"), write_run(tmp_path / "two", ids=("a", "b", "c", "e"))
    ended = script("report", one, two, "--out", tmp_path / "x.html")
    assert ended.status == 2
    assert "got evaluations rooms-val of one and two on different images; expected the same; evaluate both" in ended.err
    assert not (tmp_path / "x.html").exists()


def test_images_of_another_dataset_need_their_config(script: Script, trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy, symlinks=True)
    path = copy / "eval" / "taskonomy-val.json"
    path.write_text(path.read_text().replace('"dataset": "taskonomy"', '"dataset": "elsewhere"'))
    assert script("report", copy).status == 0
    assert (
        "No images: taskonomy-val is not of the run&#x27;s own dataset, taskonomy. Name its config"
        in (copy / "report.html").read_text()
    )
    (copy / "eval" / "taskonomy-val.npz").unlink()
    assert script("report", copy).status == 0
    assert "No images: copy has no eval/taskonomy-val.npz, which says how good each is." in (copy / "report.html").read_text()


def test_a_dataset_that_has_changed_is_noticed(script: Script, trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy, symlinks=True)
    with np.load(copy / "eval" / "taskonomy-val.npz") as stored:
        columns = dict(stored)
    columns["id"] = columns["id"][::-1]
    np.savez_compressed(copy / "eval" / "taskonomy-val.npz", **columns)
    ended = script("report", copy)
    assert ended.status == 2
    assert re.search(r"report: got cedar.* as view 0 of .*; expected cedar.*, as in the evaluation; name the config", ended.err)


def test_no_pictures_of_another_step_beside_the_numbers(script: Script, trained: Path, tmp_path: Path) -> None:
    copy, stem = tmp_path / "copy", "taskonomy-val"
    shutil.copytree(trained, copy, symlinks=True)
    path = copy / "eval" / f"{stem}.json"
    file = json.loads(path.read_text())

    def page(**change: Any) -> str:
        path.write_text(json.dumps({name: value for name, value in (file | change).items() if value is not None}))
        ended = script("report", copy)
        assert ended.status == 0, ended.err
        return (copy / "report.html").read_text()

    nowhere = "No images: copy&#x27;s eval/taskonomy-val.json "
    assert f"{nowhere}does not say of which checkpoint it is." in page(step=None, weights=None)
    assert f"{nowhere}is of step 3, whose checkpoint is gone." in page(weights={"step": 3, "checksum": "0", "commit": None})
    assert f"{nowhere}is of other weights than the checkpoint of step 2." in page(weights=file["weights"] | {"step": 2})
    assert "step 2</caption>" in (copy / "report.html").read_text()
    assert "No images" not in page(weights=None)  # as the first version wrote it, with the step alone
    assert "step 4</caption>" in (copy / "report.html").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--images", "-1"], "--images: got -1; expected a number of images; 0 for none"),
        (["--eval", "rooms-test"], "--eval: got 'rooms-test'; expected an evaluation of every run: rooms-val, rooms-val-blur2"),
        (["second"], "--out: got none for 2 runs; expected a file; write e.g. --out comparison.html"),
    ],
)
def test_what_the_command_gets_wrong(
    write_run: WriteRun, script: Script, tmp_path: Path, options: list[str], message: str
) -> None:
    ended = script("report", write_run(tmp_path / "run"), *options)
    assert (ended.status, ended.err.count("error:")) == (2, 1)
    assert message in ended.err
