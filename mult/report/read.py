"""What a report shows of a run, read from its folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mult.errors import UserError
from mult.evaluation.results import read_evaluation
from mult.files import read_arrays, read_json


@dataclass(frozen=True)
class RunRecord:
    """A run's files: texts and numbers, no weights. evaluations: {stem of the file: JSON}; columns: {stem: arrays}."""

    name: str
    folder: Path
    config: str
    provenance: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]]
    evaluations: Mapping[str, Mapping[str, Any]]
    columns: Mapping[str, Mapping[str, NDArray[Any]]]

    def curve(self, split: str, key: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """(steps, values) of a figure in the log, NaN where it was null."""
        lines = [line for line in self.log if line["split"] == split and key in line]
        values = [math.nan if line[key] is None else line[key] for line in lines]
        return np.array([line["step"] for line in lines], float), np.array(values, float)

    def keys(self, split: str) -> list[str]:
        """The figures that the log has of a split, in the order of their first line."""
        return list(dict.fromkeys(key for line in self.log if line["split"] == split for key in line))

    def splits(self) -> list[str]:
        return list(dict.fromkeys(line["split"] for line in self.log if line["split"] != "train"))

    def against(self, stem: str, kind: str) -> dict[float, Mapping[str, Any]]:
        """{severity: evaluation} of the images of the evaluation `stem` under one kind of corruption, 0 being as they are."""
        found = {0.0: self.evaluations[stem]}
        for other, evaluation in self.evaluations.items():
            spoilt = corruption(evaluation)
            if spoilt is not None and spoilt["kind"] == kind and other == f"{stem}-{kind}{spoilt['severity']:g}":
                found[float(spoilt["severity"])] = evaluation
        return dict(sorted(found.items()))


def corruption(evaluation: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """{"kind", "severity"} of what was done to the images before they were looked at; None for nothing."""
    found: Mapping[str, Any] | None = evaluation.get("corruption")
    return found


def read_run(folder: Path) -> RunRecord:
    """Raises UserError where there is no run, or a file of it cannot be read."""
    if not (folder / "config.yaml").is_file():
        raise UserError(f"report: got {folder}; expected the folder of a run, with config.yaml; give runs/<name>")
    provenance = folder / "provenance.json"
    evaluations = {
        path.stem: read_evaluation(path) for path in sorted((folder / "eval").glob("*.json"), key=lambda path: path.stem)
    }
    columns = {stem: folder / "eval" / f"{stem}.npz" for stem in evaluations}
    return RunRecord(
        name=folder.resolve().name,
        folder=folder,
        config=(folder / "config.yaml").read_text(),
        provenance=read_json(provenance) if provenance.exists() else {},
        log=_log(folder / "metrics.jsonl"),
        evaluations=evaluations,
        columns={stem: read_arrays(path) for stem, path in columns.items() if path.exists()},
    )


def default_evaluation(runs: Sequence[RunRecord]) -> str | None:
    """The evaluation to look at closely, of those that all runs have: the test split, else the one the images are kept of."""
    common = [stem for stem in runs[0].evaluations if all(stem in run.evaluations for run in runs)]
    plain = [stem for stem in common if corruption(runs[0].evaluations[stem]) is None]
    first = sorted(plain, key=lambda stem: (stem not in runs[0].columns, not stem.endswith("-test"), stem))
    return first[0] if first else None


def _log(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a last line that a crash cut short is not one."""
    if not path.exists():
        return []
    whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    try:
        return [json.loads(line) for line in whole]
    except UserError as error:
        raise UserError(
            f"{path}: got a line that is no JSON ({error}); expected an object a line; the file is damaged"
        ) from error
