"""Curves: losses and metrics against the step, and metrics against the severity of a corruption."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mult.draw.chart import Line, draw_chart, draw_key, thin
from mult.draw.html import Html, join, tag
from mult.evaluation.results import select_primary
from mult.report.read import RunRecord
from mult.tasks import TASKS

SEVERITY_AXES = {"blur": "Gaussian blur, sigma in pixels"}
"""What the severity of a kind of corruption is, where it is not a number from 1 to 5."""


def render_training(runs: Sequence[RunRecord]) -> Html:
    """The loss of each task, and its primary metric on every split that was evaluated, against the step."""
    charts = []
    for task in TASKS:
        lines = [_build_line(run, place, "train", f"{task}/loss", is_thinned=True) for place, run in enumerate(runs)]
        if present := [line for line in lines if line]:
            charts.append(render_figure(f"{task}: training loss", "step", "loss", present))
        for split in dict.fromkeys(split for run in runs for split in run.splits()):
            metric = TASKS[task].primary
            lines = [_build_line(run, place, split, f"{task}/{metric}", is_thinned=False) for place, run in enumerate(runs)]
            if present := [line for line in lines if line and len(line.x) > 1]:  # a single evaluation is in the table
                levels = _find_trivial(runs, split, task)
                charts.append(render_figure(f"{task}: {metric}, {split} split", "step", metric, present, levels))
    return join(_render_key(runs), render_charts(charts)) if charts else Html("")


def render_severities(runs: Sequence[RunRecord], stem: str) -> Html:
    """Each task's primary metric against the severity of each kind of corruption that a run was evaluated under."""
    corruptions = [evaluation.corruption for run in runs for evaluation in run.evaluations.values()]
    parts = []
    for kind in dict.fromkeys(corruption["kind"] for corruption in corruptions if corruption is not None):
        charts = [chart for task in TASKS if (chart := _render_severity(runs, stem, kind, task))]
        if charts:
            parts.append(join(tag("h3", f"{stem} under {kind}"), _render_key(runs), render_charts(charts)))
    return join(*parts)


def render_figure(title: str, across: str, up: str, lines: Sequence[Line], levels: Sequence[tuple[str, float]] = ()) -> Html:
    """A chart with its title below it."""
    return tag("figure", Html(draw_chart(title, across, up, lines, levels)), tag("figcaption", title))


def render_charts(figures: Sequence[str]) -> Html:
    """Figures beside each other, as many as fit."""
    return tag("div", *figures, class_="grid")


def _render_key(runs: Sequence[RunRecord]) -> Html:
    return Html(draw_key([run.name for run in runs])) if len(runs) > 1 else Html("")


def _build_line(run: RunRecord, place: int, split: str, name: str, is_thinned: bool) -> Line | None:
    steps, values = run.curve(split, name)
    finite = np.isfinite(values)
    if not finite.any():
        return None
    steps, means, band = thin(steps[finite], values[finite]) if is_thinned else (steps, values, None)
    return Line(run.name, steps, means, band=band, place=place)


def _find_trivial(runs: Sequence[RunRecord], split: str, task: str) -> list[tuple[str, float]]:
    """The best constant's score, as a level of a chart, from the first evaluation of that split that has it."""
    for run in runs:
        for evaluation in run.evaluations.values():
            if evaluation.corruption is None and evaluation.file.get("split") == split:
                trivial = evaluation.tasks.get(task, {}).get(TASKS[task].primary, {}).get("trivial")
                if trivial is not None:
                    return [("best constant", trivial)]
    return []


def _render_severity(runs: Sequence[RunRecord], stem: str, kind: str, task: str) -> Html | None:
    """The chart of one task, of the runs that have at least two severities; None without any."""
    lines, name = [], ""
    for place, run in enumerate(runs):
        by_severity = run.by_severity(stem, kind) if stem in run.evaluations else {}
        entries_of = {
            severity: evaluation.tasks[task] for severity, evaluation in by_severity.items() if task in evaluation.tasks
        }
        points = {severity: entries[select_primary(TASKS[task], entries)] for severity, entries in entries_of.items()}
        points = {severity: entry for severity, entry in points.items() if entry["value"] is not None}
        if len(points) > 1:
            name = f"{task}, {select_primary(TASKS[task], next(iter(entries_of.values())))}"
            intervals = [entry.get("interval") for entry in points.values()]
            ends = np.array(intervals, float).T if all(intervals) else None
            values = np.array([entry["value"] for entry in points.values()])
            band = None if ends is None else (ends[0], ends[1])
            lines.append(Line(run.name, np.array(list(points)), values, band=band, place=place))
    return render_figure(f"{stem}: {name}", SEVERITY_AXES.get(kind, f"{kind}, severity"), name, lines) if lines else None
