"""How predictions are wrong: confusion matrices, histograms of errors; and what tasks do to each other: the cosines of their
gradients, and whose attention leads where the reference is learned."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mult.draw import Scalar
from mult.draw.chart import Line, draw_key
from mult.draw.grid import Cell, Grid, render_html
from mult.draw.html import Html, join, tag
from mult.report.curves import render_charts, render_figure
from mult.report.read import RunRecord
from mult.tasks import TASKS

PERCENT = Scalar("viridis", 0.0, 100.0)
BLUE, WHITE, ORANGE = np.array([0, 114, 178]), np.array([255, 255, 255]), np.array([213, 94, 0])


def render_errors(runs: Sequence[RunRecord], stem: str | None) -> Html:
    """Of the evaluation `stem`: a histogram of errors a task, and, of a categorical task, a confusion matrix a run."""
    if stem is None:
        return Html("")
    columns_of = {
        place: run.evaluations[stem].columns
        for place, run in enumerate(runs)
        if stem in run.evaluations and run.evaluations[stem].columns
    }
    figures, matrices = [], []
    for task in TASKS:
        lines = []
        for place, columns in columns_of.items():
            counts = columns.get(f"total/{task}/histogram")
            if counts is not None and counts.sum():
                edges = columns[f"total/{task}/edges"]
                lines.append(Line(runs[place].name, edges, 100 * counts / counts.sum(), steps=True, place=place))
        if lines:
            what = TASKS[task].error_label or "error"
            figures.append(render_figure(f"{task}: {what}", what, "% of pixels a bin", lines))
        for place, columns in columns_of.items():
            confusion = columns.get(f"total/{task}/confusion")
            if confusion is not None:
                title = task if len(runs) == 1 else f"{task}, {runs[place].name}"
                matrices.append(_render_confusion(confusion, columns[f"total/{task}/classes"].tolist(), title))
    key = Html(draw_key([run.name for run in runs])) if len(columns_of) > 1 and figures else Html("")
    return join(key, render_charts(figures) if figures else "", *matrices)


def _render_confusion(confusion: NDArray[Any], classes: Sequence[str], title: str) -> Html:
    """Rows are the truth, in percent of its pixels; classes neither labelled nor predicted are named below the table."""
    present = np.flatnonzero(confusion.sum(0) + confusion.sum(1)).tolist()
    percent = 100 * confusion / np.maximum(confusion.sum(1), 1)[:, None]
    rows = [[classes[row], *(_build_percent_cell(percent[row, column]) for column in present)] for row in present]
    heads = ["truth", *(classes[column] for column in present)]
    caption = f"{title}: of the pixels of each class (rows), the percent predicted as each (columns)"
    absent = [name for index, name in enumerate(classes) if index not in present]
    note = tag("p", f"Neither there nor predicted: {', '.join(absent)}.") if absent else Html("")
    return join(render_html(Grid(heads, rows), caption, class_="matrix"), note)


def _build_percent_cell(value: float) -> Cell:
    text = "<1" if 0 < value < 0.5 else f"{value:.0f}"
    return Cell(text, colour=_to_rgb(PERCENT.paint(np.array([[value]]))[0, 0]))


def render_gradients(runs: Sequence[RunRecord]) -> Html:
    """The mean, over the steps that were logged, of the cosines between the tasks' gradients on shared parameters."""
    return join(*(_render_cosines(run, prefix=f"{run.name}: " if len(runs) > 1 else "") for run in runs))


def _render_cosines(run: RunRecord, prefix: str) -> Html:
    means, steps = {}, 0
    for name in run.keys("train"):
        if name.startswith("cosine/"):
            values = run.curve("train", name)[1]
            one, other = name.split("/")[1:]
            means[one, other] = means[other, one] = float(np.nanmean(values)) if np.isfinite(values).any() else np.nan
            steps = max(steps, len(values))
    tasks = [task for task in TASKS if any(task in pair for pair in means)]
    if not tasks:
        return Html("")
    cosines = {pair: 1.0 if pair[0] == pair[1] else means.get(pair, np.nan) for pair in product(tasks, tasks)}
    rows: list[list[str | Cell]] = [[one, *(_build_cosine_cell(cosines[one, other]) for other in tasks)] for one in tasks]
    caption = f"{prefix}cosine between the gradients of two tasks on shared parameters, mean over {steps} logged steps"
    return render_html(Grid(["task", *tasks], rows), caption, class_="matrix")


def render_reference(runs: Sequence[RunRecord]) -> Html:
    """Of the runs whose reference is learned: the share of each task's map in the one that all use, at the last evaluation."""
    return join(*(_render_shares(run, prefix=f"{run.name}: " if len(runs) > 1 else "") for run in runs))


def _render_shares(run: RunRecord, prefix: str) -> Html:
    lines = [line for line in run.log if any(name.startswith("reference/") for name in line)]
    if not lines:
        return Html("")
    shares = {tuple(name.split("/")[1:]): value for name, value in lines[-1].items() if name.startswith("reference/")}
    strides, tasks = (list(dict.fromkeys(name[place] for name in shares)) for place in (0, 1))
    table = np.array([[shares[stride, task] for task in tasks] for stride in strides])
    lines_of = {**{f"H/{stride}": row for stride, row in zip(strides, table, strict=True)}, "mean": table.mean(0)}
    rows: list[list[str | Cell]] = [
        [name, *map(_build_share_cell, row), tasks[int(row.argmax())]] for name, row in lines_of.items()
    ]
    caption = f"{prefix}percent of each task's map in the one that all use, by stage; step {lines[-1]['step']}"
    return render_html(Grid(["stage", *tasks, "leader"], rows), caption)


def _build_share_cell(share: float) -> Cell:
    return Cell(f"{100 * share:.1f}", colour=_mix_with_white(share))


def _build_cosine_cell(value: float) -> Cell:
    return Cell(f"{value:.2f}", colour=_mix_with_white(value)) if np.isfinite(value) else Cell("-")


def _mix_with_white(value: float) -> tuple[int, int, int]:
    """From blue at -1 over white at 0 to orange at 1."""
    return _to_rgb(np.rint(WHITE + abs(value) * ((ORANGE if value > 0 else BLUE) - WHITE)))


def _to_rgb(colour: NDArray[Any]) -> tuple[int, int, int]:
    red, green, blue = (int(channel) for channel in colour)
    return red, green, blue
