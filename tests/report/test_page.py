"""The page: well-formed, nothing unescaped, numbers as in the files, images of the right views; and in a browser."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mult import report
from mult.draw.html import tag
from mult.evaluation.compare import Comparison, Measurement
from mult.evaluation.gain import DeltaM
from mult.report import GalleryEntry, Picture, RankedView, RunRecord

ReadPage = Callable[[str], Any]
ReadTable = Callable[[str, str], list[list[str]]]
WriteRun = Callable[..., Path]
EVIL = "<script>alert('x')</script>\"&.png"


def make_entries(runs: int, number: int = 3) -> list[GalleryEntry]:
    rng = np.random.default_rng(0)
    entries = []
    for index in range(number):
        kinds = [("input", None), ("truth", None), *((kind, run) for run in range(runs) for kind in ("prediction", "error"))]
        pictures = []
        for kind, run in kinds:
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (16, 24, 3), np.uint8)).save(file, "JPEG")
            pictures.append(Picture(kind, run, file.getvalue(), (24, 16)))
        rank = ("best", "median", "worst")[index % 3]
        task = "normal" if index else "segment_semantic"
        view = RankedView(task, index, f"{index} {EVIL}", rank, "mean", "deg", (1.5,) * runs)
        entries.append(GalleryEntry(view, "error 0 to 60 deg", pictures))
    return entries


@pytest.fixture
def runs(write_run: WriteRun, tmp_path: Path) -> list[RunRecord]:
    return [report.read_run(write_run(tmp_path / name, scale)) for name, scale in (("one", 1.0), ("<i>two", 1.25))]


@pytest.mark.parametrize("number", [1, 2])
def test_the_page_is_whole_and_needs_nothing_else(read_page: ReadPage, runs: list[RunRecord], number: int) -> None:
    text = report.render_page(runs[:number], "rooms-val", make_entries(number))
    page = read_page(text)
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


def test_names_of_files_and_classes_are_shown_and_never_run(read_page: ReadPage, runs: list[RunRecord]) -> None:
    text = report.render_page(runs, "rooms-val", make_entries(2))
    page = read_page(text)
    assert "<script" not in text
    assert "<i>two" not in text
    assert "<b>bold" not in text
    shown = "\n".join(page.texts)
    assert f"0 {EVIL}" in shown
    assert "<i>two" in shown
    assert "run: {name: '<b>bold</b>'}" in shown
    assert any(EVIL in str(image["alt"]) for image in page.all("img"))
    assert tag("p", "<", title='"') == '<p title="&quot;">&lt;</p>'


def test_numbers_and_intervals_are_those_of_the_files(read_table: ReadTable, runs: list[RunRecord]) -> None:
    text = report.render_page(runs[:1], "rooms-val", "No images: none.")
    assert read_table(text, "rooms-val: 4 images; intervals of 95 % over images") == [
        ["task", "metric", "value", "95 % interval", "best constant", "better by"],
        ["segment_semantic", "miou ↑", "0.4321", "0.3 to 0.5", "0.1", "+332.1 %"],
        ["depth_zbuffer", "rmse", "none: no valid pixel", "-", "-", "-"],
        ["normal", "mean ↓ [deg]", "25.5", "24 to 27.25", "51", "+50.0 %"],
    ]
    assert ["segment_semantic", f"iou/{EVIL}", "none: no valid pixel", "-", "-", "-"] in read_table(
        text, "rooms-val: all metrics"
    )
    assert "No images: none." in text
    assert "0123abc" in text


def test_several_runs_stand_side_by_side_with_marks_and_delta_m(read_table: ReadTable, runs: list[RunRecord]) -> None:
    one, two = (str(run.folder) for run in runs)
    cells = [
        Measurement("segment_semantic", "miou", "", "higher", 0.3457, difference=-0.09, interval=(-0.2, 0.1)),
        Measurement("normal", "mean", "deg", "lower", 31.88, difference=6.4, interval=(5.0, 7.0)),
    ]
    comparison = Comparison({}, "images", (), {two: cells}, {one: DeltaM([3.214], (1.5, 4.25))})
    text = report.render_page(runs, "rooms-val", "No images: none.", {"rooms-val": comparison})
    assert read_table(text, "rooms-val: 4 images; intervals of 95 % over images") == [
        ["task", "metric", "one", "<i>two", "best constant"],
        ["segment_semantic", "miou ↑", "0.4321 0.3 to 0.5", "0.3457 0.3 to 0.5", "0.1"],
        ["depth_zbuffer", "rmse", "none: no valid pixel", "none: no valid pixel", "-"],
        ["normal", "mean ↓ [deg]", "25.5 24 to 27.25", "31.88 ▼ worse 24 to 27.25", "51"],
        ["all tasks", "Δm ↑ [%]", "+3.21 ▲ better +1.50 to +4.25", "-", "-"],
    ]
    assert "▼ worse than one: the 95 % interval of the paired difference, over images, excludes 0" in text
    assert "▼" not in report.render_page(runs, "rooms-val", "No images: none.")


def test_curves_against_steps_and_against_blur(read_page: ReadPage, runs: list[RunRecord]) -> None:
    page = read_page(report.render_page(runs, "rooms-val", "No images: none."))
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
    assert list(runs[0].by_severity("rooms-val", "blur")) == [0.0, 2.0]
    assert list(runs[0].by_severity("rooms-val", "noise")) == [0.0]


def test_confusion_and_cosines(read_table: ReadTable, runs: list[RunRecord]) -> None:
    text = report.render_page(runs[:1], "rooms-val", "No images: none.")
    assert read_table(text, "segment_semantic: of the pixels of each class (rows), the percent predicted") == [
        ["truth", "floor", EVIL],
        ["floor", "75", "25"],
        [EVIL, "25", "75"],
    ]
    assert "Neither there nor predicted: sofa." in text
    caption = "cosine between the gradients of two tasks on shared parameters, mean over 20 logged steps"
    assert read_table(text, caption) == [
        ["task", "depth_zbuffer", "normal"],
        ["depth_zbuffer", "1.00", "0.50"],
        ["normal", "0.50", "1.00"],
    ]


def test_the_same_files_give_the_same_bytes(runs: list[RunRecord]) -> None:
    entries = make_entries(2)
    again = [report.read_run(run.folder) for run in runs]
    assert report.render_page(runs, "rooms-val", entries) == report.render_page(again, "rooms-val", entries)


def test_a_run_without_evaluation_has_a_page_too(read_page: ReadPage, runs: list[RunRecord]) -> None:
    bare = replace(runs[0], evaluations={}, log=[])
    assert report.choose_evaluation([bare]) is None
    page = read_page(report.render_page([bare], None, "No images: the runs have no evaluation in common."))
    assert [link["href"] for link in page.all("a")] == ["#images", "#what-was-run"]


def test_the_test_split_comes_first(runs: list[RunRecord]) -> None:
    val = runs[0].evaluations["rooms-val"]
    assert report.choose_evaluation(runs) == "rooms-val"
    run = replace(runs[0], evaluations={**runs[0].evaluations, "rooms-test": val})
    assert report.choose_evaluation([run]) == "rooms-test"
    assert report.choose_evaluation([run, runs[1]]) == "rooms-val"
    run = replace(runs[0], evaluations={**runs[0].evaluations, "rooms-test": replace(val, columns={})})
    assert report.choose_evaluation([run]) == "rooms-val"


# --- In a browser ---

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the path")
def test_a_browser_draws_the_page_without_a_complaint(runs: list[RunRecord], tmp_path: Path) -> None:
    """One picture filled with one colour must arrive on the screen; the console must stay empty."""
    file = io.BytesIO()
    Image.new("RGB", (208, 208), (250, 0, 250)).save(file, "JPEG")
    entries = [
        replace(entry, pictures=[replace(picture, jpeg=file.getvalue(), size=(208, 208)) for picture in entry.pictures])
        for entry in make_entries(1)
    ]
    (tmp_path / "page.html").write_text(report.render_page(runs[:1], "rooms-val", entries))
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
