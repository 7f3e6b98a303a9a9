"""Evaluations and comparisons of them as tables: for a terminal, as GitHub's Markdown, as CSV."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mult.draw.grid import Cell, Grid, render_csv, render_markdown, render_text
from mult.errors import pluralize
from mult.evaluation.compare import Comparison, Measurement, Row
from mult.evaluation.evaluate import Evaluation
from mult.evaluation.gain import DeltaM
from mult.evaluation.results import compute_improvement, select_primary
from mult.tasks import TASKS

ARROWS = {"higher": "↑", "lower": "↓"}
DELTA_M = "Δm % ↑"
LEGEND = "▲ better, ▼ worse than {first}: the 95 % interval of the paired difference, over {over}, excludes 0"
DELTA_M_LEGEND = "Δm: the mean over tasks of the gain on runs of that task alone; ▲ or ▼ where its own 95 % interval excludes 0"


# --- One evaluation ---


def format_evaluation(evaluation: Evaluation) -> str:
    """The primary metric of each task, its interval and its trivial baseline, for a terminal."""
    rows = []
    for task, entries in evaluation.results.items():
        metric = select_primary(TASKS[task], entries)
        entry = entries[metric]
        if entry["value"] is None:
            rows.append([task, metric, "-", "-", "-", entry["reason"]])
            continue
        gain = compute_improvement({task: entries})
        value, trivial = (f"{entry[key]:.4g}" if entry[key] is not None else "-" for key in ("value", "trivial"))
        unit = f" {entry['unit']}" if entry["unit"] else ""
        rows.append(
            [task, metric, value + unit, format_interval(entry), trivial + unit, "-" if gain is None else f"{gain:+.1f} %"]
        )
    heads = ["task", "metric", "value", f"95 % over {evaluation.interval_over}", "trivial", "better by"]
    return render_text(Grid(heads, rows))


def format_interval(entry: Mapping[str, object]) -> str:
    """An entry's interval, "low to high", or "-"."""
    ends = entry.get("interval")
    return " to ".join(f"{end:.4g}" for end in ends) if isinstance(ends, list) else "-"


# --- Several, compared ---


def format_comparison(comparison: Comparison) -> str:
    """For a terminal: primary metrics, then every difference of them with its interval."""
    lines = [_format_title(comparison), render_text(_build_grid(comparison)), *_list_notes(comparison)]
    for name, measurements in comparison.measurements.items():
        for one in measurements:
            if one.is_primary and one.difference is not None and one.interval is not None:
                low, high = one.interval
                lines.append(
                    f"{name}: {one.task} {one.metric} {one.difference:+.3g} ({low:+.3g} to {high:+.3g}) {one.mark}".rstrip()
                )
    for name, gain in comparison.delta_m.items():
        if gain.interval is not None:
            low, high = gain.interval
            lines.append(f"{name}: Δm {gain.mean:+.2f} % ({low:+.2f} to {high:+.2f}) {gain.mark}".rstrip())
    return "\n".join(lines)


def format_comparison_as_markdown(comparison: Comparison) -> str:
    """A GitHub table of the primary metrics."""
    table = render_markdown(_build_grid(comparison))
    return f"{_format_title(comparison)}\n\n{table}\n" + "  \n".join(_list_notes(comparison)) + "\n"


def format_comparison_as_csv(comparison: Comparison) -> str:
    """Every metric, a line each."""
    rows = []
    for row in comparison.rows:
        seeds = str(len(row.evaluations))
        for one in comparison.measurements.get(row.name, ()):
            numbers = _format_numbers(one.value, one.deviation, one.difference, one.interval)
            rows.append([row.name, seeds, one.task, one.metric, one.unit, one.better, *numbers, one.mark, ""])
        if gain := comparison.delta_m.get(row.name):
            numbers = _format_numbers(gain.mean, gain.deviation, None, gain.interval)
            rows.append([row.name, seeds, "", "delta_m", "%", "higher", *numbers, gain.mark, ""])
        if not row.evaluations:
            rows.append([row.name, seeds, *[""] * 10, row.missing])
    heads = ["run", "seeds", "task", "metric", "unit", "better"]
    heads += ["value", "deviation", "difference", "low", "high", "mark", "missing"]
    return render_csv(Grid(heads, rows))


def format_overview(comparisons: Mapping[str, Comparison]) -> str:
    """A GitHub table of several comparisons, by name: a line a comparison and row, a column a primary metric."""
    columns: dict[str, None] = {}
    for task in TASKS:
        heads = {
            _format_head(one)
            for comparison in comparisons.values()
            for measurements in comparison.measurements.values()
            for one in measurements
            if one.is_primary and one.task == task
        }
        columns |= dict.fromkeys(sorted(heads))
    if any(comparison.delta_m for comparison in comparisons.values()):
        columns[DELTA_M] = None
    rows: list[list[str | Cell]] = []
    for name, comparison in comparisons.items():
        for row, measurements in comparison.measurements.items():
            cells = _build_cells([one for one in measurements if one.is_primary], comparison.delta_m.get(row))
            rows.append([name, row, *(cells.get(head, "-") for head in columns)])
    for name, comparison in comparisons.items():
        rows += [[name, row.name, f"missing: {row.missing}"] for row in comparison.rows if not row.evaluations]
    return render_markdown(Grid(["", "", *columns], rows))


def _format_title(comparison: Comparison) -> str:
    conditions = comparison.conditions
    corruption = "" if conditions["corruption"] is None else ", {kind} {severity:g}".format(**conditions["corruption"])
    return f"{conditions['dataset']}, {conditions['split']} split{corruption}, {pluralize(conditions['images'], 'image')}"


def _build_grid(comparison: Comparison) -> Grid:
    """A line a row, a column a task's primary metric."""
    primaries = [one for measurements in comparison.measurements.values() for one in measurements if one.is_primary]
    columns = list(dict.fromkeys(_format_head(one) for task in TASKS for one in primaries if one.task == task))
    columns += [DELTA_M] if comparison.delta_m else []
    has_seeds = any(len(row.evaluations) > 1 for row in comparison.rows)
    rows: list[list[str | Cell]] = []
    for row in comparison.rows:
        start: list[str | Cell] = [row.name, *([str(len(row.evaluations))] if has_seeds else [])]
        cells = _build_cells(comparison.measurements.get(row.name, ()), comparison.delta_m.get(row.name))
        rows.append(
            [*start, *(cells.get(head, "-") for head in columns)] if row.evaluations else [*start, _format_missing(row)]
        )
    return Grid(["", *(["seeds"] if has_seeds else []), *columns], rows)


def _format_missing(row: Row) -> str:
    return f"missing: {row.missing}"


def _build_cells(measurements: Iterable[Measurement], gain: DeltaM | None) -> dict[str, Cell]:
    """{head of the column: cell} of a row."""
    cells = {_format_head(one): Cell(f"{one.value:.4g}{_format_deviation(one)}", one.mark) for one in measurements}
    if gain is not None:
        cells[DELTA_M] = Cell(f"{gain.mean:+.2f}{_format_deviation(gain)}", gain.mark)
    return cells


def _format_head(measurement: Measurement) -> str:
    parts = (measurement.task, measurement.metric, measurement.unit, ARROWS[measurement.better])
    return " ".join(part for part in parts if part)


def _format_deviation(measured: Measurement | DeltaM) -> str:
    return f" ± {measured.deviation:.2g}" if measured.deviation is not None else ""


def _list_notes(comparison: Comparison) -> list[str]:
    """What the marks mean, which seeds of a row are missing, and why a task has no value."""
    incomplete = [f"{row.name}, {_format_missing(row)}" for row in comparison.rows if row.evaluations and row.missing]
    without_value = dict.fromkeys(
        f"{row.name}, no {task}: {entries[TASKS[task].primary]['reason']}"
        for row in comparison.rows
        for evaluation in row.evaluations
        for task, entries in evaluation.tasks.items()
        if entries[select_primary(TASKS[task], entries)]["value"] is None
    )
    of_delta_m = [DELTA_M_LEGEND] if comparison.delta_m else []
    return [LEGEND.format(first="the first row", over=comparison.over), *of_delta_m, *incomplete, *without_value]


def _format_numbers(
    value: float, deviation: float | None, difference: float | None, interval: tuple[float, float] | None
) -> list[str]:
    return ["" if number is None else repr(number) for number in (value, deviation, difference, *(interval or (None, None)))]
