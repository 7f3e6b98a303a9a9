"""What the report's tests share: a reader of pages, and runs that were written instead of trained."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mult.draw.html import VOID

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


@pytest.fixture
def read_page() -> Callable[[str], Reader]:
    return Reader


@pytest.fixture
def read_table() -> Callable[[str, str], list[list[str]]]:
    """The texts of the cells of the table whose caption begins so: `read_table(page, caption)`."""

    def read(text: str, caption: str) -> list[list[str]]:
        start = text.index(f"<caption>{html.escape(caption)}")
        body = text[start : text.index("</table>", start)]
        cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in re.findall(r"<tr>(.*?)</tr>", body)]
        return [[html.unescape(re.sub(r"<[^>]+>", "", cell)) for cell in row] for row in cells]

    return read


@pytest.fixture
def write_run() -> Callable[..., Path]:
    return _write_run


def _write_run(folder: Path, scale: float = 1.0, ids: tuple[str, ...] = ("a", EVIL, "c", "d")) -> Path:
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
                "miou": _entry(0.4321 / scale / worse, "higher", "", 0.1, interval=[0.3, 0.5], absent=["sofa"]),
                f"iou/{EVIL}": _entry(None, "higher", "", 0),
            },
            "depth_zbuffer": {"rmse": _entry(None, "lower", "m", 1.0)},
            "normal": {"mean": _entry(25.5 * scale * worse, "lower", "deg", 51.0, interval=[24.0, 27.25])},
        }
        facts = {
            "dataset": "rooms",
            "split": "val",
            "images": 4,
            "corruption": {"kind": "blur", "severity": 2.0} if blur else None,
            "metric_version": 2,
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


def _entry(value: float | None, better: str, unit: str, trivial: float, **more: Any) -> dict[str, Any]:
    if value is None:
        return {"value": None, "reason": "no valid pixel"}
    return {"value": value, "unit": unit, "better": better, "trivial": trivial, "pixels": 90, "images": 4, **more}
