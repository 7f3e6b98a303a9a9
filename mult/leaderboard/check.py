"""Which rows are refused, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mult.errors import UserError
from mult.evaluation.results import METRIC_VERSION
from mult.files import read_json
from mult.tasks import TASKS

FORMAT_VERSION = 1
"""Changes when the keys of a row do."""
MIN_SEEDS = 3
SELECTIONS = ("last", "val")
"""How a checkpoint may be selected; mult/evaluation/README.md has the others."""

_TYPES: Mapping[str, type] = {
    "name": str,
    "dataset": str,
    "split": str,
    "images": int,
    "metric_version": int,
    "image_ids": str,
    "seeds": list,
    "selected": list,
    "selected_on": list,
    "early_looks": int,
    "differences": list,
    "tasks": dict,
    "cost": dict,
    "runs": list,
    "config": dict,
}


def read_row(path: Path) -> dict[str, Any]:
    """Read a row's JSON. Raises UserError, naming the file and the key, for one that `mult compare --row` did not write."""
    row = read_json(path, "write the row again by `mult compare --row`")
    faults = [f"{key} {row.get(key)!r}" for key, kind in _TYPES.items() if not isinstance(row.get(key), kind)]
    if row.get("format_version") != FORMAT_VERSION:
        faults.insert(0, f"format_version {row.get('format_version')!r}")
    if not faults:
        faults = [f"tasks.{task}" for task, entry in row["tasks"].items() if task not in TASKS or not _is_entry(entry)]
        faults += [f"runs {run!r}" for run in row["runs"] if not isinstance(run, dict) or "weights" not in run]
    if faults:
        raise UserError(
            f"{path}: got {faults[0][:200]}; expected a row of format version {FORMAT_VERSION}; write it again by "
            "`mult compare --row`"
        )
    return row


def find_refusals(row: Mapping[str, Any]) -> list[str]:
    """Why a row cannot stand beside others; none where it can."""
    refusals = []
    seeds = set(row["seeds"])
    if len(seeds) < MIN_SEEDS:
        refusals.append(f"got {len(seeds)} seeds ({', '.join(map(str, sorted(seeds)))}); expected at least {MIN_SEEDS}")
    selected = [how for how in row["selected"] if how not in SELECTIONS]
    if selected:
        how = " and ".join({"test": "on test images", "None": "in an unknown way"}.get(how, how) for how in selected)
        refusals.append(f"got a checkpoint selected {how}; expected the last one, or the best on held-out images")
    elif "val" in row["selected"] and row["split"] in row["selected_on"]:
        refusals.append(f"got a checkpoint selected on the split {row['split']}, which the row is of; expected another")
    if row["early_looks"]:
        refusals.append(
            f"got {row['early_looks']} evaluations on the split {row['split']} before the last step; expected none: nothing "
            "may be chosen by it"
        )
    if row["metric_version"] != METRIC_VERSION:
        refusals.append(f"got metric version {row['metric_version']}; expected {METRIC_VERSION}: evaluate again")
    quick = [entry["metric"] for entry in row["tasks"].values() if entry.get("quick")]
    if quick:
        refusals.append(f"got the quick form of {', '.join(quick)}; expected the full one: evaluate by eval.py")
    if row["differences"]:
        refusals.append(f"got runs that differ in {', '.join(row['differences'])}; expected one config but for the seed")
    checksums = [run["weights"].get("checksum") for run in row["runs"]]
    if None in checksums:
        refusals.append("got an evaluation that does not say of which weights it is; expected their checksum: evaluate again")
    elif len(set(checksums)) < len(checksums):
        refusals.append("got the same weights twice; expected a run a seed")
    return refusals


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("metric"), str):
        return False
    value = entry.get("value")
    if value is None:
        return isinstance(entry.get("reason"), str)
    return isinstance(value, int | float) and math.isfinite(value) and entry.get("better") in ("higher", "lower")
