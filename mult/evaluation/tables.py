"""A comparison as text: for a terminal, as GitHub's Markdown, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from mult.evaluation.compare import DELTA_M_LEGEND, LEGEND, MARKS, Cell, Comparison
from mult.evaluation.evaluate import Evaluation
from mult.evaluation.results import improvement, primary
from mult.tasks import TASKS

ARROWS = {"higher": "↑", "lower": "↓"}
DELTA_M = "Δm % ↑"


def _grid(comparison: Comparison) -> list[list[str]]:
    """A line a row, a column a task's primary metric."""
    primaries = {(cell.task, cell.metric): cell for cells in comparison.cells.values() for cell in cells if cell.is_primary}
    columns = [key for task in TASKS for key in primaries if key[0] == task]
    heads = [_head(primaries[key]) for key in columns]
    several = any(len(row.evaluations) > 1 for row in comparison.rows)
    grid = [["", *(["seeds"] if several else []), *heads, *([DELTA_M] if comparison.delta_m else [])]]
    for row in comparison.rows:
        line = [row.name, *([str(len(row.evaluations))] if several else [])]
        if not row.evaluations:
            grid.append([*line, f"missing: {row.missing}"])
            continue
        found = {(cell.task, cell.metric): cell for cell in comparison.cells[row.name]}
        for key in columns:
            line.append(_shown(found.get(key)))
        if comparison.delta_m:
            line.append(_shown_gain(comparison, row.name))
        grid.append(line)
    return grid


def _head(cell: Cell) -> str:
    return " ".join(filter(None, (cell.task, cell.metric, cell.unit, ARROWS[cell.better])))


def _shown(cell: Cell | None) -> str:
    if cell is None or cell.value is None:
        return "-"
    deviation = f" ± {cell.deviation:.2g}" if cell.deviation is not None else ""
    return f"{cell.value:.4g}{deviation} {MARKS[cell.mark]}".strip()


def _shown_gain(comparison: Comparison, row: str) -> str:
    """Delta m of a row [%] as text, with its deviation over seeds and its mark."""
    gain = comparison.delta_m.get(row)
    if gain is None:
        return "-"
    deviation = f" ± {gain.deviation:.2g}" if gain.deviation is not None else ""
    return f"{gain.mean:+.2f}{deviation} {MARKS[gain.mark]}".strip()


def _markdown_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _notes(comparison: Comparison) -> list[str]:
    """What the marks mean, which seeds of a row are missing, and why a task has no figure."""
    partly = [f"{row.name}, missing: {row.missing}" for row in comparison.rows if row.evaluations and row.missing]
    absent = dict.fromkeys(
        f"{row.name}, no {task}: {entries[TASKS[task].primary]['reason']}"
        for row in comparison.rows
        for one in row.evaluations
        for task, entries in one.file["tasks"].items()
        if entries[primary(TASKS[task], entries)]["value"] is None
    )
    own = [DELTA_M_LEGEND] if comparison.delta_m else []
    return [LEGEND.format(first="the first row", over=comparison.over), *own, *partly, *absent]


def _title(comparison: Comparison) -> str:
    head = comparison.head
    spoilt = "" if head["corruption"] is None else ", {kind} {severity:g}".format(**head["corruption"])
    return f"{head['dataset']}, {head['split']} split{spoilt}, {head['images']} images"


def as_text(comparison: Comparison) -> str:
    """For a terminal: primary metrics, then every difference of them with its interval."""
    grid = _grid(comparison)
    full = [line for line in grid if len(line) == len(grid[0])]
    widths = [max(len(line[i]) for line in full) for i in range(len(grid[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)).rstrip() for line in grid]
    lines = [_title(comparison), *lines, *_notes(comparison)]
    for name, cells in comparison.cells.items():
        for cell in cells:
            if cell.is_primary and cell.difference is not None and cell.interval is not None:
                low, high = cell.interval
                lines.append(
                    f"{name}: {cell.task} {cell.metric} {cell.difference:+.3g} ({low:+.3g} to {high:+.3g}) {cell.mark}".rstrip()
                )
    for name, gain in comparison.delta_m.items():
        if gain.interval is not None:
            low, high = gain.interval
            lines.append(f"{name}: Δm {gain.mean:+.2f} % ({low:+.2f} to {high:+.2f}) {gain.mark}".rstrip())
    return "\n".join(lines)


def as_markdown(comparison: Comparison) -> str:
    """A GitHub table of the primary metrics."""
    grid = _grid(comparison)
    grid[1:1] = [["---"] * len(grid[0])]
    table = "".join(_markdown_line([*line, *[""] * (len(grid[0]) - len(line))]) for line in grid)
    return f"{_title(comparison)}\n\n{table}\n" + "  \n".join(_notes(comparison)) + "\n"


def overview(comparisons: Mapping[str, Comparison]) -> str:
    """A GitHub table of several, by name: a line a comparison and row, a column a primary metric."""
    lines = {}
    for name, comparison in comparisons.items():
        for row, cells in comparison.cells.items():
            lines[name, row] = {_head(cell): _shown(cell) for cell in cells if cell.is_primary}
            if row in comparison.delta_m:
                lines[name, row][DELTA_M] = _shown_gain(comparison, row)
    places = {task: place for place, task in enumerate([*TASKS, DELTA_M.split()[0]])}
    heads = sorted({head for line in lines.values() for head in line}, key=lambda head: (places[head.split()[0]], head))
    table = [["", "", *heads], ["---"] * (len(heads) + 2)]
    table += [[*key, *(line.get(head, "-") for head in heads)] for key, line in lines.items()]
    for name, comparison in comparisons.items():
        absent = [row for row in comparison.rows if not row.evaluations]
        table += [[name, row.name, f"missing: {row.missing}", *[""] * (len(heads) - 1)] for row in absent]
    return "".join(_markdown_line(line) for line in table)


def as_csv(comparison: Comparison) -> str:
    """Every metric, a line each."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ("run", "seeds", "task", "metric", "unit", "better", "value", "deviation", "difference", "low", "high", "mark")
    writer.writerow((*head, "missing"))
    for row in comparison.rows:
        number = len(row.evaluations)
        for cell in comparison.cells.get(row.name, ()):
            ends = cell.interval or ("", "")
            numbers = [cell.value, cell.deviation, cell.difference, *ends]
            shown = ["" if value in (None, "") else repr(value) for value in numbers]
            writer.writerow([row.name, number, cell.task, cell.metric, cell.unit, cell.better, *shown, cell.mark, ""])
        if gain := comparison.delta_m.get(row.name):
            numbers = [gain.mean, gain.deviation, None, *(gain.interval or ("", ""))]
            shown = ["" if value in (None, "") else repr(value) for value in numbers]
            writer.writerow([row.name, number, "", "delta_m", "%", "higher", *shown, gain.mark, ""])
        if not number:
            writer.writerow([row.name, 0, *[""] * 10, row.missing])
    return text.getvalue()


def table(evaluation: Evaluation) -> str:
    """The primary metric of each task, its interval and its trivial baseline, for a terminal."""
    rows = [("task", "metric", "value", f"95 % over {evaluation.interval_over}", "trivial", "better by")]
    for task, entries in evaluation.results.items():
        metric = primary(TASKS[task], entries)
        entry = entries[metric]
        if entry["value"] is None:
            rows.append((task, metric, "-", "-", "-", entry["reason"]))
            continue
        gain = improvement({task: entries})
        value, trivial = (f"{entry[key]:.4g}" if entry[key] is not None else "-" for key in ("value", "trivial"))
        unit = f" {entry['unit']}" if entry["unit"] else ""
        between = " to ".join(f"{end:.4g}" for end in entry.get("interval", ())) or "-"
        rows.append((task, metric, value + unit, between, trivial + unit, "-" if gain is None else f"{gain:+.1f} %"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
