"""The page: well-formed, nothing unescaped, numbers as in the files, images of the right views; and in a browser."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mult import TASKS, report
from mult.data import Taskonomy
from mult.draw import ERROR
from mult.draw.html import VOID, tag
from mult.errors import UserError
from mult.evaluation.compare import Cell, Comparison, Gain
from mult.files import read_arrays, write_arrays
from mult.predict import Predictor
from mult.report import Example, RunRecord, Shown, choose, image_values

Script = Callable[..., Any]
EVIL = "<script>alert('x')</script>\"&.png"


class Reader(HTMLParser):
    """Checks that tags are balanced, and collects elements and texts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), f"an attribute of {tag} twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))  # SVG's

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for element, attributes in self.elements if element == name]


def entry(value: float | None, better: str, unit: str, trivial: float, **more: Any) -> dict[str, Any]:
    if value is None:
        return {"value": None, "reason": "no valid pixel"}
    return {"value": value, "unit": unit, "better": better, "trivial": trivial, "pixels": 90, "images": 4, **more}


def write_run(folder: Path, scale: float = 1.0, ids: tuple[str, ...] = ("a", EVIL, "c", "d")) -> Path:
    """The files of a run that never was: three tasks, two evaluations, a log with gradients."""
    (folder / "eval").mkdir(parents=True)
    (folder / "config.yaml").write_text("run: {name: '<b>bold</b>'}\n")
    (folder / "provenance.json").write_text(json.dumps({"commit": "0123abc", "command": ["train.py", EVIL]}))
    log: list[dict[str, Any]] = []
    for step in range(1, 41):
        losses = {"normal/loss": scale / step, "depth_zbuffer/loss": 2 * scale / step, "lr": 1e-3}
        cosines = {"cosine/depth_zbuffer/normal": 0.25 if step % 2 else 0.75} if step <= 20 else {}
        log.append({"step": step, "split": "train", **losses, **cosines})
        if step % 10 == 0:
            log.append({"step": step, "split": "val", "normal/mean": 60 * scale - step, "depth_zbuffer/rmse": None})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log) + '{"step": 41, "spl')
    for blur in ("", "-blur2"):
        worse = 1.5 if blur else 1.0
        tasks = {
            "segment_semantic": {
                "miou": entry(0.4321 / scale / worse, "higher", "", 0.1, interval=[0.3, 0.5], absent=["sofa"]),
                f"iou/{EVIL}": entry(None, "higher", "", 0),
            },
            "depth_zbuffer": {"rmse": entry(None, "lower", "m", 1.0)},
            "normal": {"mean": entry(25.5 * scale * worse, "lower", "deg", 51.0, interval=[24.0, 27.25])},
        }
        facts = {
            "dataset": "rooms",
            "split": "val",
            "images": 4,
            "corruption": {"kind": "blur", "severity": 2.0} if blur else None,
            "metric_version": 1,
            "interval_over": "images",
            "tasks": tasks,
        }
        (folder / "eval" / f"rooms-val{blur}.json").write_text(json.dumps(facts))
    histogram = np.zeros(361, int)
    histogram[[10, 11, 50]] = 30, 50, 20
    columns = {
        "id": np.array(ids),
        "group": np.array(["", "", "", ""]),
        "normal/pixels": np.array([10, 20, 0, 5]),
        "normal/angle": np.array([300.0, 100, 0, 450]) * scale,
        "segment_semantic/pixels": np.array([10, 10, 10, 10]),
        "segment_semantic/hits": np.array([[5, 0, 0], [4, 4, 0], [1, 1, 0], [0, 0, 0]]),
        "segment_semantic/target": np.array([[5, 5, 0], [5, 5, 0], [5, 5, 0], [5, 5, 0]]),
        "segment_semantic/predicted": np.array([[10, 0, 0], [5, 5, 0], [5, 5, 0], [5, 5, 0]]),
        "total/segment_semantic/confusion": np.array([[30, 10, 0], [5, 15, 0], [0, 0, 0]]),
        "total/segment_semantic/classes": np.array(["floor", EVIL, "sofa"]),
        "total/normal/histogram": histogram,
        "total/normal/edges": ((np.arange(362) - 0.5) / 2).clip(0, 180),
    }
    np.savez_compressed(folder / "eval" / "rooms-val.npz", **columns)  # type: ignore[arg-type]
    return folder


def make_examples(runs: int, number: int = 3) -> list[Example]:
    rng = np.random.default_rng(0)
    examples = []
    for index in range(number):
        kinds = [("input", None), ("truth", None), *((kind, run) for run in range(runs) for kind in ("prediction", "error"))]
        shown = []
        for kind, run in kinds:
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (16, 24, 3), np.uint8)).save(file, "JPEG")
            shown.append(Shown(kind, run, file.getvalue(), (24, 16)))
        rank = ("best", "median", "worst")[index % 3]
        task = "normal" if index else "segment_semantic"
        examples.append(Example(task, rank, f"{index} {EVIL}", "mean", "deg", (1.5,) * runs, "error 0 to 60 deg", shown))
    return examples


@pytest.fixture
def runs(tmp_path: Path) -> list[RunRecord]:
    return [report.read_run(write_run(tmp_path / name, scale)) for name, scale in (("one", 1.0), ("<i>two", 1.25))]


@pytest.mark.parametrize("number", [1, 2])
def test_the_page_is_whole_and_needs_nothing_else(runs: list[RunRecord], number: int) -> None:
    text = report.page(runs[:number], "rooms-val", make_examples(number))
    page = Reader(text)
    ids = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert ids
    assert set(ids.values()) == {1}
    assert {link["href"] for link in page.all("a")} <= {f"#{name}" for name in ids}
    assert len(page.all("a")) == 6
    images = page.all("img")
    assert len(images) == 3 * 4 * number + 3 + 1  # the legend: three classes, and the ball of normals
    assert all("alt" in image and str(image["src"]).startswith("data:image/") for image in images)
    assert all(image["alt"] for image in images if str(image["src"]).startswith("data:image/jpeg"))
    assert all(drawing.get("aria-label") or drawing.get("aria-hidden") for drawing in page.all("svg"))
    assert not page.all("script")
    assert not page.all("link")
    assert not re.search(r"https?://|url\(|@import|javascript:|\son\w+=", text)
    stops = [attributes for _, attributes in page.elements if attributes.get("tabindex") == "0"]
    assert len([stop for stop in stops if stop.get("class") == "stack"]) == 3 * number
    assert all(stop.get("aria-label") for stop in stops if stop.get("role") == "group")
    assert [radio["id"] for radio in page.all("input") if "checked" in radio] == ["view-beside"]


def test_names_of_files_and_classes_are_shown_and_never_run(runs: list[RunRecord]) -> None:
    text = report.page(runs, "rooms-val", make_examples(2))
    page = Reader(text)
    assert "<script" not in text
    assert "<i>two" not in text
    assert "<b>bold" not in text
    shown = "\n".join(page.texts)
    assert f"0 {EVIL}" in shown
    assert "<i>two" in shown
    assert "run: {name: '<b>bold</b>'}" in shown
    assert any(EVIL in str(image["alt"]) for image in page.all("img"))
    assert tag("p", "<", title='"') == '<p title="&quot;">&lt;</p>'


def rows_of(text: str, caption: str) -> list[list[str]]:
    """The texts of a table's cells."""
    start = text.index(f"<caption>{html.escape(caption)}")
    body = text[start : text.index("</table>", start)]
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in re.findall(r"<tr>(.*?)</tr>", body)]
    return [[html.unescape(re.sub(r"<[^>]+>", "", cell)) for cell in row] for row in cells]


def test_numbers_and_intervals_are_those_of_the_files(runs: list[RunRecord]) -> None:
    text = report.page(runs[:1], "rooms-val", "No images: none.")
    assert rows_of(text, "rooms-val: 4 images; intervals of 95 % over images") == [
        ["task", "metric", "value", "95 % interval", "best constant", "better by"],
        ["segment_semantic", "miou ↑", "0.4321", "0.3 to 0.5", "0.1", "+332.1 %"],
        ["depth_zbuffer", "rmse", "none: no valid pixel", "-", "-", "-"],
        ["normal", "mean ↓ [deg]", "25.5", "24 to 27.25", "51", "+50.0 %"],
    ]
    assert ["segment_semantic", f"iou/{EVIL}", "none: no valid pixel", "-", "-", "-"] in rows_of(text, "rooms-val: all metrics")
    assert "No images: none." in text
    assert "0123abc" in text


def test_several_runs_stand_side_by_side_with_marks_and_delta_m(runs: list[RunRecord]) -> None:
    one, two = (str(run.folder) for run in runs)
    cells = [
        Cell("segment_semantic", "miou", "", "higher", 0.3457, difference=-0.09, interval=(-0.2, 0.1)),
        Cell("normal", "mean", "deg", "lower", 31.88, difference=6.4, interval=(5.0, 7.0)),
    ]
    comparison = Comparison({}, "images", (), {two: cells}, {one: Gain([3.214], (1.5, 4.25))})
    text = report.page(runs, "rooms-val", "No images: none.", {"rooms-val": comparison})
    assert rows_of(text, "rooms-val: 4 images; intervals of 95 % over images") == [
        ["task", "metric", "one", "<i>two", "best constant"],
        ["segment_semantic", "miou ↑", "0.4321 0.3 to 0.5", "0.3457 0.3 to 0.5", "0.1"],
        ["depth_zbuffer", "rmse", "none: no valid pixel", "none: no valid pixel", "-"],
        ["normal", "mean ↓ [deg]", "25.5 24 to 27.25", "31.88 ▼ worse 24 to 27.25", "51"],
        ["all tasks", "Δm ↑ [%]", "+3.21 ▲ better +1.50 to +4.25", "-", "-"],
    ]
    assert "▼ worse than one: the 95 % interval of the paired difference, over images, excludes 0" in text
    assert "▼" not in report.page(runs, "rooms-val", "No images: none.")


def test_the_script_marks_what_the_images_can_tell(script: Script, trained: Path, tmp_path: Path) -> None:
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
    rows = rows_of(text, f"{stem}: 3 images; intervals of 95 % over images")
    assert [row[0] for row in rows if "▼ worse" in row[3]] == ["normal", "all tasks"]
    assert not [row for row in rows if "▲" in row[3]]
    assert rows[-1][:2] == ["all tasks", "Δm ↑ [%]"]
    assert rows[-1][2:4] == ["+0.00 +0.00 to +0.00", "-8.33 ▼ worse -8.33 to -8.33"]
    baseline.with_suffix(".npz").unlink()
    ended = script("report", trained, "--out", tmp_path / "alone.html", "--images", "0", "--baseline", baseline)
    assert ended.status == 0, ended.err
    rows = rows_of((tmp_path / "alone.html").read_text(), f"{stem}: 3 images; intervals of 95 % over images")
    assert rows[-1] == ["all tasks", "Δm ↑ [%]", "+0.00", "-", "-", "-"]
    baseline.rename(tmp_path / "single" / "else.json")
    ended = script("report", trained, "--out", tmp_path / "y.html", "--baseline", tmp_path / "single" / "else.json")
    assert ended.status == 2
    assert (
        f"--baseline: got {tmp_path}/single/else.json; expected a JSON named as an evaluation of the runs: {stem}" in ended.err
    )
    assert not (tmp_path / "y.html").exists()


def test_curves_against_steps_and_against_blur(runs: list[RunRecord]) -> None:
    page = Reader(report.page(runs, "rooms-val", "No images: none."))
    titles = [str(drawing["aria-label"]) for drawing in page.all("svg") if drawing.get("class") == "chart"]
    assert titles == [
        "rooms-val: segment_semantic, miou",
        "rooms-val: normal, mean",
        "depth_zbuffer: training loss",
        "normal: training loss",
        "normal: mean, val split",
        "normal: angle between prediction and truth, deg",
    ]
    steps, values = runs[0].curve("val", "normal/mean")
    assert (steps.tolist(), values.tolist()) == ([10, 20, 30, 40], [50, 40, 30, 20])
    assert np.isnan(runs[0].curve("val", "depth_zbuffer/rmse")[1]).all()
    assert list(runs[0].against("rooms-val", "blur")) == [0.0, 2.0]
    assert list(runs[0].against("rooms-val", "noise")) == [0.0]


def test_confusion_and_cosines(runs: list[RunRecord]) -> None:
    text = report.page(runs[:1], "rooms-val", "No images: none.")
    assert rows_of(text, "segment_semantic: of the pixels of each class (rows), the percent predicted") == [
        ["truth", "floor", EVIL],
        ["floor", "75", "25"],
        [EVIL, "25", "75"],
    ]
    assert "Neither there nor predicted: sofa." in text
    caption = "cosine between the gradients of two tasks on shared parameters, mean over 20 logged steps"
    assert rows_of(text, caption) == [
        ["task", "depth_zbuffer", "normal"],
        ["depth_zbuffer", "1.00", "0.50"],
        ["normal", "0.50", "1.00"],
    ]


def test_the_same_files_give_the_same_bytes(runs: list[RunRecord]) -> None:
    examples = make_examples(2)
    again = [report.read_run(run.folder) for run in runs]
    assert report.page(runs, "rooms-val", examples) == report.page(again, "rooms-val", examples)


def test_a_run_without_evaluation_has_a_page_too(runs: list[RunRecord]) -> None:
    bare = replace(runs[0], evaluations={}, columns={}, log=[])
    assert report.default_evaluation([bare]) is None
    page = Reader(report.page([bare], None, "No images: the runs have no evaluation in common."))
    assert [link["href"] for link in page.all("a")] == ["#images", "#what-was-run"]


def test_the_test_split_comes_first(runs: list[RunRecord]) -> None:
    evaluations = {**runs[0].evaluations, "rooms-test": runs[0].evaluations["rooms-val"]}
    assert report.default_evaluation(runs) == "rooms-val"
    both = {**runs[0].columns, "rooms-test": runs[0].columns["rooms-val"]}
    run = replace(runs[0], evaluations=evaluations, columns=both)
    assert report.default_evaluation([run]) == "rooms-test"
    assert report.default_evaluation([run, runs[1]]) == "rooms-val"
    assert report.default_evaluation([replace(run, columns=runs[0].columns)]) == "rooms-val"


def test_metrics_of_single_images(runs: list[RunRecord]) -> None:
    columns = runs[0].columns["rooms-val"]
    np.testing.assert_allclose(image_values(columns, "normal", "mean"), [30, 5, np.nan, 90])
    # Image 0: the first class 5 / 10, the second 0 / 5; the third is nowhere and does not count.
    np.testing.assert_allclose(image_values(columns, "segment_semantic", "miou"), [0.25, 4 / 6, 1 / 9, 0])


@pytest.mark.parametrize(
    ("values", "higher", "most", "expected"),
    [
        ([3, 1, 2, np.nan, 5, 4, 0], False, 1, [("best", 6), ("median", 2), ("worst", 4)]),
        (
            [3, 1, 2, np.nan, 5, 4, 0],
            True,
            2,
            [("best", 4), ("best", 5), ("median", 0), ("median", 2), ("worst", 1), ("worst", 6)],
        ),
        ([1, 1, 1], False, 2, [("best", 0), ("median", 1), ("worst", 2)]),
        ([2, 7], False, 2, [("best", 0), ("worst", 1)]),
        ([7], True, 2, [("best", 0)]),
        ([np.nan], True, 2, []),
    ],
)
def test_best_median_and_worst(values: list[float], higher: bool, most: int, expected: list[tuple[str, int]]) -> None:
    assert choose(np.array(values, float), higher, most) == expected


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: (folder / "config.yaml").unlink(),
            r"report: got .*; expected the folder of a run, with config\.yaml; give",
        ),
        (lambda folder: (folder / "eval" / "rooms-val.json").write_text("{"), r"rooms-val\.json: cannot be read as JSON"),
        (
            lambda folder: (folder / "eval" / "x.json").write_text("[]"),
            r"x\.json: got no evaluation; expected the JSON that eval\.py",
        ),
        (
            lambda folder: (folder / "metrics.jsonl").write_text("no\n"),
            r"metrics\.jsonl: got a line that is no JSON .*; expected an",
        ),
        (lambda folder: (folder / "eval" / "rooms-val.npz").write_text("x"), r"rooms-val\.npz: cannot be read as arrays"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, damage: Callable[[Path], Any], message: str) -> None:
    folder = write_run(tmp_path / "run")
    damage(folder)
    with pytest.raises(UserError, match=message):
        report.read_run(folder)


# --- From a real run ---


def decoded(source: str | None) -> np.ndarray:
    content = base64.b64decode(str(source).split(",", 1)[1])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def test_the_script_shows_the_views_that_the_columns_rank(
    script: Script, trained: Path, tree_root: Path, tmp_path: Path
) -> None:
    out = tmp_path / "page.html"
    ended = script("report", trained, "--out", out, "--images", 1)
    assert ended.status == 0, ended.err
    assert re.search(r"page\.html: 0\.\d MB with \d+ pictures", ended.out)
    page = Reader(out.read_text())
    run = report.read_run(trained)
    views = Taskonomy(tree_root, split="val")
    predictor = Predictor.from_checkpoint(trained / "checkpoints" / "last")  # what training evaluated last
    entries = run.evaluations["taskonomy-val"]["tasks"]
    for task in TASKS:
        values = image_values(run.columns["taskonomy-val"], task, TASKS[task].primary)
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


def test_runs_on_other_images_are_not_compared(script: Script, tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--images", "-1"], "--images: got -1; expected a number of images; 0 for none"),
        (["--eval", "rooms-test"], "--eval: got 'rooms-test'; expected an evaluation of every run: rooms-val, rooms-val-blur2"),
        (["second"], "--out: got none for 2 runs; expected a file; write e.g. --out comparison.html"),
    ],
)
def test_what_the_command_gets_wrong(script: Script, tmp_path: Path, options: list[str], message: str) -> None:
    ended = script("report", write_run(tmp_path / "run"), *options)
    assert (ended.status, ended.err.count("error:")) == (2, 1)
    assert message in ended.err


# --- In a browser ---

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the path")
def test_a_browser_draws_the_page_without_a_complaint(runs: list[RunRecord], tmp_path: Path) -> None:
    """One picture filled with one colour must arrive on the screen; the console must stay empty."""
    file = io.BytesIO()
    Image.new("RGB", (208, 208), (250, 0, 250)).save(file, "JPEG")
    examples = [
        replace(example, pictures=[replace(picture, jpeg=file.getvalue(), size=(208, 208)) for picture in example.pictures])
        for example in make_examples(1)
    ]
    (tmp_path / "page.html").write_text(report.page(runs[:1], "rooms-val", examples))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"]
    command = [str(CHROMIUM), *flags, f"--user-data-dir={tmp_path / 'browser'}", "--window-size=1000,4000"]
    command += [f"--screenshot={tmp_path / 'page.png'}", (tmp_path / "page.html").as_uri()]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert "CONSOLE" not in ended.stderr
    with Image.open(tmp_path / "page.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert (np.abs(pixels - (250, 0, 250)).max(-1) < 12).sum() > 12 * 60 * 60
    assert len(np.unique(pixels[:400].reshape(-1, 3), axis=0)) > 3  # the heading and the table above are drawn as well
