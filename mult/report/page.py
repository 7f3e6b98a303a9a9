"""The page: summary, curves, images, errors, gradients, and what was run, each a section."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import numpy as np

from mult.draw.chart import Line, chart, key, thinned
from mult.draw.html import Html, join, table, tag
from mult.evaluation.compare import DELTA_M_LEGEND, LEGEND, MARKS, Comparison, Gain
from mult.evaluation.results import primary
from mult.report.diagnostics import error_section, gradient_section
from mult.report.examples import Example
from mult.report.gallery import gallery_section
from mult.report.read import RunRecord, corruption
from mult.tasks import TASKS

Marks = Mapping[tuple[str, str, str], str]
"""{(a run's folder, task, metric): the mark of its difference from the first run}, where there is one."""


def page(
    runs: Sequence[RunRecord],
    stem: str | None,
    examples: Sequence[Example] | str,
    comparisons: Mapping[str, Comparison] = MappingProxyType({}),
    note: str = "",
) -> str:
    """One self-contained HTML page of one run, or of several side by side.

    stem: the evaluation whose errors and images are shown (see `default_evaluation`). examples: its images, or why there are
    none. comparisons: by the evaluation's name, of rows named by the runs' folders. note: a text above the results. The same
    arguments give the same bytes.
    """
    title = "mult: " + ", ".join(run.name for run in runs)
    sections = {
        "Results": join(
            tag("p", note) if note else "",
            *(_results(runs, name, comparisons.get(name)) for name in _stems(runs, spoilt=False)),
            _spoilt(runs, comparisons),
            _severity(runs),
        ),
        "Training": _training(runs),
        "Images": gallery_section(runs, stem, examples),
        "Errors": error_section(runs, stem),
        "Gradients": gradient_section(runs),
        "What was run": join(*map(_provenance, runs)),
    }
    shown = {name: content for name, content in sections.items() if content}
    links = [tag("a", name, href=f"#{_anchor(name)}") for name in shown]
    body = [tag("header", tag("h1", title), tag("nav", *links, aria_label="sections"))]
    body += [tag("section", tag("h2", name), content, id=_anchor(name)) for name, content in shown.items()]
    head = tag("head", tag("meta", charset="utf-8"), _viewport(), tag("title", title), tag("style", _style()))
    return "<!DOCTYPE html>\n" + tag("html", head, tag("body", tag("main", *body)), lang="en") + "\n"


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _viewport() -> Html:
    return tag("meta", name="viewport", content="width=device-width, initial-scale=1")


@cache
def _style() -> Html:
    return Html(files("mult.report").joinpath("style.css").read_text())


# --- Results ---


def _stems(runs: Sequence[RunRecord], spoilt: bool) -> list[str]:
    """The evaluations that a run has of corrupted images, or of the images as they are."""
    found = {(stem, corruption(facts) is not None) for run in runs for stem, facts in run.evaluations.items()}
    return sorted(stem for stem, is_spoilt in found if is_spoilt == spoilt)


def _tasks(runs: Sequence[RunRecord], stem: str) -> list[str]:
    found = {task for run in runs if stem in run.evaluations for task in run.evaluations[stem]["tasks"]}
    return [task for task in TASKS if task in found]


def _results(runs: Sequence[RunRecord], stem: str, comparison: Comparison | None) -> Html:
    """The primary metrics in a table, and all the others in one to be opened; of the runs that have this evaluation."""
    having = [run for run in runs if stem in run.evaluations]
    whose = f" of {', '.join(run.name for run in having)}" if len(having) < len(runs) else ""
    runs, facts = having, having[0].evaluations[stem]
    caption = f"{stem}{whose}: {facts.get('images', '?')} images; intervals of 95 % over {facts.get('interval_over', 'images')}"
    head, tasks = _head(runs), _tasks(runs, stem)
    marks = {} if comparison is None else _marks(comparison)
    rows, every = ([row for task in tasks for row in _rows(runs, stem, task, marks, brief)] for brief in (True, False))
    notes = []
    if comparison is not None and comparison.delta_m:
        rows.append(_gain_row([comparison.delta_m.get(str(run.folder)) for run in runs]))
        notes.append(tag("p", DELTA_M_LEGEND))
    if comparison is not None and len(runs) > 1:
        notes.append(tag("p", LEGEND.format(first=runs[0].name, over=comparison.over)))
    more = tag("details", tag("summary", f"all metrics of {stem}"), table(head, every, f"{stem}: all metrics"))
    return join(table(head, rows, caption), *notes, more)


def _marks(comparison: Comparison) -> Marks:
    return {
        (folder, cell.task, cell.metric): _marked(cell.mark)
        for folder, cells in comparison.cells.items()
        for cell in cells
        if cell.mark
    }


def _spoilt(runs: Sequence[RunRecord], comparisons: Mapping[str, Comparison]) -> Html:
    """The tables of corrupted images, to be opened."""
    stems = _stems(runs, spoilt=True)
    if not stems:
        return Html("")
    summary = tag("summary", f"evaluations of corrupted images: {len(stems)}")
    return tag("details", summary, *(_results(runs, stem, comparisons.get(stem)) for stem in stems))


def _head(runs: Sequence[RunRecord]) -> list[str]:
    if len(runs) == 1:
        return ["task", "metric", "value", "95 % interval", "best constant", "better by"]
    return ["task", "metric", *(run.name for run in runs), "best constant"]


def _rows(runs: Sequence[RunRecord], stem: str, task: str, marks: Marks, only_primary: bool) -> list[list[str]]:
    of_runs = [run.evaluations[stem]["tasks"].get(task, {}) for run in runs]
    first = next(entries for entries in of_runs if entries)
    metrics = [primary(TASKS[task], first)] if only_primary else list(first)
    return [
        _row(
            task,
            metric,
            [entries.get(metric, {}) for entries in of_runs],
            [marks.get((str(run.folder), task, metric), "") for run in runs],
        )
        for metric in metrics
    ]


def _row(task: str, metric: str, entries: Sequence[Mapping[str, Any]], marks: Sequence[str]) -> list[str]:
    known = [entry for entry in entries if entry.get("value") is not None]
    if not known:
        reason = next((entry["reason"] for entry in entries if "reason" in entry), "not evaluated")
        return [
            task,
            metric,
            *([f"none: {reason}"] + ["-"] * 3 if len(entries) == 1 else [f"none: {reason}"] * len(entries) + ["-"]),
        ]
    unit, sign = known[0]["unit"], 1 if known[0]["better"] == "higher" else -1
    arrow = "↑" if sign > 0 else "↓"
    trivial = known[0].get("trivial")
    constant = "-" if trivial is None else f"{trivial:.4g}"
    named = f"{metric} {arrow}" + (f" [{unit}]" if unit else "")
    if len(entries) == 1:
        value = entries[0]["value"]
        gain = f"{100 * sign * (value - trivial) / trivial:+.1f} %" if trivial else "-"
        return [task, named, f"{value:.4g}", _interval(entries[0]), constant, gain]
    cells: list[str] = []
    for entry, mark in zip(entries, marks, strict=True):
        if entry.get("value") is None:
            cells.append(f"none: {entry['reason']}" if entry else "-")
            continue
        cells.append(_cell(f"{entry['value']:.4g}", mark, _interval(entry)))
    return [task, named, *cells, constant]


def _gain_row(gains: Sequence[Gain | None]) -> list[str]:
    shown = [
        None
        if gain is None
        else (f"{gain.mean:+.2f}", _marked(gain.mark), "{:+.2f} to {:+.2f}".format(*gain.interval) if gain.interval else "-")
        for gain in gains
    ]
    named = ["all tasks", "Δm ↑ [%]"]
    if len(shown) == 1 and shown[0] is not None:
        value, mark, interval = shown[0]
        return [*named, value + mark, interval, "-", "-"]
    return [*named, *("-" if one is None else _cell(*one) for one in shown), "-"]


def _cell(value: str, mark: str, interval: str) -> Html:
    return tag("td", tag("strong", value, mark) if mark else value, tag("small", f" {interval}"))


def _marked(mark: str) -> str:
    return f" {MARKS[mark]} {mark}" if mark else ""


def _interval(entry: Mapping[str, Any]) -> str:
    return " to ".join(f"{end:.4g}" for end in entry.get("interval") or ()) or "-"


ACROSS = {"blur": "Gaussian blur, sigma in pixels"}
"""What a kind of corruption's severity is, where it is not a number from 1 to 5."""


def _severity(runs: Sequence[RunRecord]) -> Html:
    """Each task's primary metric against the severity of each kind of corruption that a run was evaluated under."""
    evaluations = [facts for run in runs for facts in run.evaluations.values()]
    kinds = dict.fromkeys(spoilt["kind"] for facts in evaluations if (spoilt := corruption(facts)) is not None)
    found = []
    for stem in _stems(runs, spoilt=False):
        for kind in kinds:
            charts = [drawn for task in _tasks(runs, stem) if (drawn := _severity_chart(runs, stem, kind, task))]
            if charts:
                found.append(join(tag("h3", f"{stem} under {kind}"), _key(runs), _grid(charts)))
    return join(*found)


def _severity_chart(runs: Sequence[RunRecord], stem: str, kind: str, task: str) -> Html | None:
    lines, named = [], ""
    for place, run in enumerate(runs):
        swept = run.against(stem, kind) if stem in run.evaluations else {}
        points = {severity: facts["tasks"].get(task, {}) for severity, facts in swept.items()}
        entries = {severity: of_task[primary(TASKS[task], of_task)] for severity, of_task in points.items() if of_task}
        known = {severity: entry for severity, entry in entries.items() if entry["value"] is not None}
        if len(known) > 1:
            named = f"{task}, {primary(TASKS[task], points[0.0])}"
            band = [entry.get("interval") for entry in known.values()]
            ends = np.array(band, float).T if all(band) else None
            y = np.array([entry["value"] for entry in known.values()])
            around = None if ends is None else (ends[0], ends[1])
            lines.append(Line(run.name, np.array(list(known)), y, band=around, place=place))
    return _figure(f"{stem}: {named}", ACROSS.get(kind, f"{kind}, severity"), named, lines) if lines else None


# --- Training ---


def _training(runs: Sequence[RunRecord]) -> Html:
    """The loss of each task, and its primary metric on every split that was evaluated, against the step."""
    charts = []
    for task in TASKS:
        lines = [_line(run, place, "train", f"{task}/loss", thin=True) for place, run in enumerate(runs)]
        if drawn := [line for line in lines if line]:
            charts.append(_figure(f"{task}: training loss", "step", "loss", drawn))
        for split in dict.fromkeys(split for run in runs for split in run.splits()):
            metric = TASKS[task].primary
            lines = [_line(run, place, split, f"{task}/{metric}", thin=False) for place, run in enumerate(runs)]
            if drawn := [line for line in lines if line and len(line.x) > 1]:  # of one evaluation the table says all
                charts.append(_figure(f"{task}: {metric}, {split} split", "step", metric, drawn, _trivial(runs, split, task)))
    return join(_key(runs), _grid(charts)) if charts else Html("")


def _line(run: RunRecord, place: int, split: str, name: str, thin: bool) -> Line | None:
    steps, values = run.curve(split, name)
    finite = np.isfinite(values)
    if not finite.any():
        return None
    steps, means, band = thinned(steps[finite], values[finite]) if thin else (steps, values, None)
    return Line(run.name, steps, means, band=band, place=place)


def _trivial(runs: Sequence[RunRecord], split: str, task: str) -> list[tuple[str, float]]:
    """The best constant's score, as a level, from the evaluation of that split."""
    for run in runs:
        plain = [facts for facts in run.evaluations.values() if corruption(facts) is None]
        for facts in (facts for facts in plain if facts.get("split") == split):
            trivial = facts["tasks"].get(task, {}).get(TASKS[task].primary, {}).get("trivial")
            if trivial is not None:
                return [("best constant", trivial)]
    return []


def _figure(title: str, across: str, up: str, lines: Sequence[Line], levels: Sequence[tuple[str, float]] = ()) -> Html:
    return tag("figure", Html(chart(title, across, up, lines, levels)), tag("figcaption", title))


def _grid(charts: Sequence[str]) -> Html:
    return tag("div", *charts, class_="grid")


def _key(runs: Sequence[RunRecord]) -> Html:
    return Html(key([run.name for run in runs])) if len(runs) > 1 else Html("")


# --- What was run ---


def _provenance(run: RunRecord) -> Html:
    facts = json.dumps(run.provenance, indent=2, ensure_ascii=False)
    return join(
        tag("h3", run.name),
        tag("details", tag("summary", "config"), tag("pre", run.config, tabindex="0")),
        tag("details", tag("summary", "provenance"), tag("pre", facts, tabindex="0")),
    )
