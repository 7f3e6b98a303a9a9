"""How predictions are wrong: confusion matrices, histograms of errors; and how tasks pull apart: cosines of their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mult.draw import Scalar
from mult.draw.chart import Line, chart, key
from mult.draw.html import Html, join, table, tag
from mult.report.read import RunRecord
from mult.tasks import TASKS

SHARES = Scalar("viridis", 0.0, 100.0)
BLUE, WHITE, ORANGE = np.array([0, 114, 178]), np.array([255, 255, 255]), np.array([213, 94, 0])


def error_section(runs: Sequence[RunRecord], stem: str | None) -> Html:
    """Of the evaluation `stem`: a histogram of errors a task, and a confusion matrix a run of what has classes."""
    having = [(place, run) for place, run in enumerate(runs) if stem in run.columns]
    charts, matrices = [], []
    for task in TASKS:
        lines = [line for place, run in having if (line := _histogram(run, place, str(stem), task))]
        if lines:
            what = TASKS[task].errors or "error"
            title = f"{task}: {what}"
            charts.append(tag("figure", Html(chart(title, what, "% of pixels a bin", lines)), tag("figcaption", title)))
        for _, run in having:
            confusion = run.columns[str(stem)].get(f"total/{task}/confusion")
            if confusion is not None:
                names = run.columns[str(stem)][f"total/{task}/classes"].tolist()
                matrices.append(_confusion(confusion, names, task if len(runs) == 1 else f"{task}, {run.name}"))
    names = Html(key([run.name for run in runs])) if len(having) > 1 and charts else Html("")
    return join(names, tag("div", *charts, class_="grid") if charts else "", *matrices)


def _histogram(run: RunRecord, place: int, stem: str, task: str) -> Line | None:
    columns = run.columns[stem]
    counts = columns.get(f"total/{task}/histogram")
    if counts is None or not counts.sum():
        return None
    return Line(run.name, columns[f"total/{task}/edges"], 100 * counts / counts.sum(), steps=True, place=place)


def _confusion(confusion: NDArray[Any], names: Sequence[str], of: str) -> Html:
    """Rows are the truth, in percent of its pixels; classes that are nowhere are left out, and named."""
    present = np.flatnonzero(confusion.sum(0) + confusion.sum(1)).tolist()
    totals = confusion.sum(1)
    share = 100 * confusion / np.maximum(totals, 1)[:, None]
    rows = [
        [names[row], *(_cell(share[row, column], SHARES.paint(np.array([[share[row, column]]]))[0, 0]) for column in present)]
        for row in present
    ]
    caption = f"{of}: of the pixels of each class (rows), the percent predicted as each (columns)"
    absent = [name for index, name in enumerate(names) if index not in present]
    note = tag("p", f"Neither there nor predicted: {', '.join(absent)}.") if absent else Html("")
    return join(table(["truth", *(names[column] for column in present)], rows, caption, class_="matrix"), note)


def gradient_section(runs: Sequence[RunRecord]) -> Html:
    """The mean, over the steps that were logged, of the cosines between the tasks' gradients on what they share."""
    return join(*(_cosines(run, several=len(runs) > 1) for run in runs))


def _cosines(run: RunRecord, several: bool) -> Html:
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
    cells = {pair: 1.0 if pair[0] == pair[1] else means.get(pair, np.nan) for pair in product(tasks, tasks)}
    rows = [[one, *(_cosine(cells[one, other]) for other in tasks)] for one in tasks]
    whose = f"{run.name}: " if several else ""
    caption = f"{whose}cosine between the gradients of two tasks on shared parameters, mean over {steps} logged steps"
    return table(["task", *tasks], rows, caption, class_="matrix")


def _cosine(value: float) -> Html:
    if not np.isfinite(value):
        return tag("td", "-")
    colour = WHITE + abs(value) * ((ORANGE if value > 0 else BLUE) - WHITE)
    return _cell(value, np.rint(colour), digits=2)


def _cell(value: float, colour: NDArray[Any], digits: int = 0) -> Html:
    red, green, blue = (int(channel) for channel in colour)
    ink = "#000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 110 else "#fff"
    text = f"{value:.{digits}f}" if digits or not 0 < value < 0.5 else "<1"
    return tag("td", text, style=f"background:rgb({red},{green},{blue});color:{ink}")
