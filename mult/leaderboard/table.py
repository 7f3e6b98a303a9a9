"""The table of a leaderboard: rows that are not refused, published ones beside them, and why the others are not in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mult.config import find_config, schema
from mult.config.yaml_text import read_yaml
from mult.draw.grid import Grid, render_markdown, render_text
from mult.errors import UserError, pluralize, suggest
from mult.evaluation.tables import ARROWS, DELTA_M
from mult.leaderboard.check import find_refusals
from mult.tasks import TASKS

COST_HEADS = ("parameters, M", "operations an image, G", "seconds a step", "peak memory, GiB", "device")
PUBLISHED = "as published"
CONDITIONS = ("dataset", "split", "corruption", "images", "image_ids", "metric_version")
"""What must be equal in two rows of one table."""


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """A row of others: the page that it was seen on, and {task: its primary metric, in our units}."""

    name: str
    page: str
    values: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Published:
    """The content of a file of configs/published/: rows of one dataset's benchmark, and how many images it evaluates on."""

    dataset: str
    images: int
    rows: list[PublishedRow]


def read_published(path: Path) -> Published:
    """The rows of a file, or of the one of configs/published/ of that name, such as "nyud4".

    Raises UserError where there is neither, and for what is wrong in it.
    """
    path = find_config(path, "published")
    published = schema.read(Published, read_yaml(path), str(path))
    assert isinstance(published, Published)
    for row in published.rows:
        if not row.page:
            raise UserError(f"{path}: {row.name}: got no page; expected the one that the row was seen on; leave the row out")
        for task in row.values:
            if task not in TASKS:
                remedy = suggest(task, TASKS, "leave it out")
                raise UserError(f"{path}: {row.name}: got {task!r}; expected some of {', '.join(TASKS)}; {remedy}")
    return published


def format_leaderboard(rows: Sequence[Mapping[str, Any]], published: Published | None = None, markdown: bool = False) -> str:
    """A table for each set of rows of the same images and conditions, the refused ones below it with their reasons, counted."""
    render = render_markdown if markdown else render_text
    refusals = [(row, reasons) for row in rows if (reasons := find_refusals(row))]
    accepted = [row for row in rows if not find_refusals(row)]
    parts = []
    for group in _group(accepted) or ([[]] if published else []):
        is_benchmark = published is not None and (
            not group or (group[0]["dataset"], group[0]["images"]) == (published.dataset, published.images)
        )
        beside = published.rows if published is not None and is_benchmark else []
        parts += [_format_title(group[0])] if group else []
        parts += [render(_build_grid(group, beside)).rstrip("\n")]
        if published is not None and not is_benchmark:
            parts.append(f"Published rows are of {published.images} images of {published.dataset}: none stands beside these.")
        pages = {row.page: [other.name for other in beside if other.page == row.page] for row in beside}
        lines = [f"{PUBLISHED}, seen on {page}: {'; '.join(names)}" for page, names in pages.items()]
        parts += [_join(lines, markdown)] if lines else []
    lines = [f"{len(refusals)} of {len(rows)} rows refused" + (":" if refusals else "")]
    lines += [f"{row['name']}: {'; '.join(reasons)}" for row, reasons in refusals]
    return "\n\n".join([*parts, _join(lines, markdown)]) + "\n"


def format_costs(rows: Sequence[Mapping[str, Any]], markdown: bool = False) -> str:
    """What each row costs, refused or not."""
    grid = Grid(
        ["", "seeds", "selected", *COST_HEADS],
        [[row["name"], str(len(set(row["seeds"]))), "/".join(row["selected"]), *_format_cost(row["cost"])] for row in rows],
    )
    return render_markdown(grid) if markdown else render_text(grid)


def _group(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(repr([row.get(key) for key in CONDITIONS]), []).append(row)
    return list(groups.values())


def _format_title(row: Mapping[str, Any]) -> str:
    corruption = ", {kind} {severity:g}".format(**row["corruption"]) if row.get("corruption") else ""
    images = pluralize(row["images"], "image")
    return f"{row['dataset']}, {row['split']} split{corruption}, {images}, metric version {row['metric_version']}"


def _build_grid(rows: Sequence[Mapping[str, Any]], published: Sequence[PublishedRow]) -> Grid:
    scored = {task for row in rows for task in row["tasks"]} or {task for other in published for task in other.values}
    tasks = [task for task in TASKS if task in scored]
    heads = {task: _format_head(task, rows) for task in tasks}
    lines = []
    for row in rows:
        values = [_format_value(row["tasks"].get(task, {"value": None})) for task in tasks]
        gain = row.get("delta_m")
        delta_m = "-" if gain is None else f"{gain['value']:+.2f}{_format_deviation(gain)}"
        how = [str(len(set(row["seeds"]))), "/".join(row["selected"])]
        lines.append([row["name"], *values, delta_m, *how, *_format_cost(row["cost"])])
    for other in published:
        values = [f"{other.values[task]:.4g}" if task in other.values else "-" for task in tasks]
        lines.append([other.name, *values, "-", "-", PUBLISHED, *["-"] * len(COST_HEADS)])
    return Grid(["", *heads.values(), DELTA_M, "seeds", "selected", *COST_HEADS], lines)


def _format_head(task: str, rows: Sequence[Mapping[str, Any]]) -> str:
    entry = next((row["tasks"][task] for row in rows if row["tasks"].get(task, {}).get("value") is not None), None)
    if entry is None:
        return f"{task} {TASKS[task].primary}"
    return " ".join(part for part in (task, entry["metric"], entry["unit"], ARROWS[entry["better"]]) if part)


def _format_value(entry: Mapping[str, Any]) -> str:
    return "-" if entry["value"] is None else f"{entry['value']:.4g}{_format_deviation(entry)}"


def _format_deviation(entry: Mapping[str, Any]) -> str:
    return "" if entry.get("deviation") is None else f" ± {entry['deviation']:.2g}"


def _format_cost(cost: Mapping[str, Any]) -> Iterator[str]:
    for key, scale in (("parameters", 1e6), ("operations_per_image", 1e9), ("seconds_per_step", 1), ("peak_memory_mib", 1024)):
        yield "-" if cost.get(key) is None else f"{cost[key] / scale:.4g}"
    yield str(cost.get("device") or "-")


def _join(lines: Sequence[str], markdown: bool) -> str:
    return ("  \n" if markdown else "\n").join(lines)
