"""The tables of a page: the metrics of each evaluation, of one run with its baseline, or of several runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mult.draw.grid import Cell, Grid, render_html
from mult.draw.html import Html, join, tag
from mult.evaluation.compare import Comparison
from mult.evaluation.gain import DeltaM
from mult.evaluation.results import select_primary
from mult.evaluation.tables import ARROWS, DELTA_M_LEGEND, LEGEND, format_interval
from mult.metrics import relative_gain
from mult.report.curves import render_severities
from mult.report.read import RunRecord
from mult.tasks import TASKS

Marks = Mapping[tuple[str, str, str], str]
"""{(a run's folder, task, metric): the mark of its difference from the first run}."""


def render_results(runs: Sequence[RunRecord], comparisons: Mapping[str, Comparison], note: str) -> Html:
    """The tables of all evaluations, those of corrupted images to be opened, and the curves over severities."""
    stems = {stem: evaluation.corruption is not None for run in runs for stem, evaluation in run.evaluations.items()}
    plain, corrupted = (sorted(stem for stem in stems if stems[stem] == is_corrupted) for is_corrupted in (False, True))
    tables = {stem: _render_evaluation(runs, stem, comparisons.get(stem)) for stem in (*plain, *corrupted)}
    summary = tag("summary", f"evaluations of corrupted images: {len(corrupted)}")
    return join(
        tag("p", note) if note else "",
        *(tables[stem] for stem in plain),
        tag("details", summary, *(tables[stem] for stem in corrupted)) if corrupted else "",
        *(render_severities(runs, stem) for stem in plain),
    )


def _render_evaluation(all_runs: Sequence[RunRecord], stem: str, comparison: Comparison | None) -> Html:
    """The primary metrics in a table, and all metrics in one to be opened; of the runs that have this evaluation."""
    runs = [run for run in all_runs if stem in run.evaluations]
    names = f" of {', '.join(run.name for run in runs)}" if len(runs) < len(all_runs) else ""
    file = runs[0].evaluations[stem].file
    steps = dict.fromkeys(str(step) for run in runs if (step := run.evaluations[stem].weights["step"]) is not None)
    of_steps = f"; step {', '.join(steps)}" if steps else ""
    interval = f"intervals of 95 % over {file.get('interval_over', 'images')}"
    caption = f"{stem}{names}: {file.get('images', '?')} images; {interval}{of_steps}"
    heads = ["task", "metric", *(run.name for run in runs), "best constant"]
    if len(runs) == 1:
        heads = ["task", "metric", "value", "95 % interval", "best constant", "better by"]
    marks: Marks = {}
    if comparison is not None:
        marks = {
            (folder, one.task, one.metric): one.mark
            for folder, measurements in comparison.measurements.items()
            for one in measurements
        }
    tasks = [task for task in TASKS if any(task in run.evaluations[stem].tasks for run in runs)]
    rows, all_rows = (
        [row for task in tasks for row in _build_rows(runs, stem, task, marks, only_primary)] for only_primary in (True, False)
    )
    notes = []
    if comparison is not None and comparison.delta_m:
        rows.append(_build_delta_m_row([comparison.delta_m.get(str(run.folder)) for run in runs]))
        notes.append(tag("p", DELTA_M_LEGEND))
    if comparison is not None and len(runs) > 1:
        notes.append(tag("p", LEGEND.format(first=runs[0].name, over=comparison.over)))
    every = render_html(Grid(heads, all_rows), f"{stem}: all metrics")
    details = tag("details", tag("summary", f"all metrics of {stem}"), every)
    return join(render_html(Grid(heads, rows), caption), *notes, details)


def _build_rows(runs: Sequence[RunRecord], stem: str, task: str, marks: Marks, only_primary: bool) -> list[list[str | Cell]]:
    of_runs = [run.evaluations[stem].tasks.get(task, {}) for run in runs]
    first = next(entries for entries in of_runs if entries)
    rows = []
    for metric in [select_primary(TASKS[task], first)] if only_primary else list(first):
        entries = [of_run.get(metric, {}) for of_run in of_runs]
        marks_of_runs = [marks.get((str(run.folder), task, metric), "") for run in runs]
        rows.append([task, *_build_cells(metric, entries, marks_of_runs)])
    return rows


def _build_cells(metric: str, entries: Sequence[Mapping[str, Any]], marks: Sequence[str]) -> list[str | Cell]:
    """The cells of a row behind the task: an entry a run, {} where a run was not scored."""
    first = next((entry for entry in entries if entry.get("value") is not None), None)
    if first is None:
        reason = next((entry["reason"] for entry in entries if "reason" in entry), "not evaluated")
        return [metric, *[f"none: {reason}"] * len(entries), *["-"] * (3 if len(entries) == 1 else 1)]
    unit, trivial = first["unit"], first.get("trivial")
    name = f"{metric} {ARROWS[first['better']]}" + (f" [{unit}]" if unit else "")
    constant = "-" if trivial is None else f"{trivial:.4g}"
    if len(entries) == 1:
        gain = f"{relative_gain(first['value'], trivial, first['better']):+.1f} %" if trivial else "-"
        return [name, f"{first['value']:.4g}", format_interval(first), constant, gain]
    cells: list[str | Cell] = []
    for entry, mark in zip(entries, marks, strict=True):
        if entry.get("value") is None:
            cells.append(f"none: {entry['reason']}" if entry else "-")
        else:
            cells.append(Cell(f"{entry['value']:.4g}", mark, format_interval(entry)))
    return [name, *cells, constant]


def _build_delta_m_row(of_runs: Sequence[DeltaM | None]) -> list[str | Cell]:
    name = ["all tasks", "Δm ↑ [%]"]
    if len(of_runs) == 1 and of_runs[0] is not None:
        return [*name, Cell(_format_mean(of_runs[0]), of_runs[0].mark), _format_interval(of_runs[0]), "-", "-"]
    return [
        *name,
        *("-" if each is None else Cell(_format_mean(each), each.mark, _format_interval(each)) for each in of_runs),
        "-",
    ]


def _format_mean(delta_m: DeltaM) -> str:
    return f"{delta_m.mean:+.2f}"


def _format_interval(delta_m: DeltaM) -> str:
    return "{:+.2f} to {:+.2f}".format(*delta_m.interval) if delta_m.interval else "-"
