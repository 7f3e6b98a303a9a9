"""What a report shows of a run, read from its folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mult.errors import UserError
from mult.evaluation.results import SavedEvaluation, read_evaluation
from mult.files import read_json
from mult.runs.folder import read_log


@dataclass(frozen=True)
class RunRecord:
    """A run's files: texts and numbers, no weights. evaluations: {stem of the file: evaluation}."""

    name: str
    folder: Path
    config: str
    provenance: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]]
    evaluations: Mapping[str, SavedEvaluation]

    def curve(self, split: str, key: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """(steps, values) of a number in the log, NaN where it was null."""
        lines = [line for line in self.log if line["split"] == split and key in line]
        values = [math.nan if line[key] is None else line[key] for line in lines]
        return np.array([line["step"] for line in lines], float), np.array(values, float)

    def keys(self, split: str) -> list[str]:
        """The names of the numbers that the log has of a split, in the order of their first line."""
        return list(dict.fromkeys(key for line in self.log if line["split"] == split for key in line))

    def splits(self) -> list[str]:
        """The splits that were evaluated while the run trained."""
        return list(dict.fromkeys(line["split"] for line in self.log if line["split"] != "train"))

    def by_severity(self, stem: str, kind: str) -> dict[float, SavedEvaluation]:
        """{severity: evaluation} of the images of the evaluation `stem` under one kind of corruption; 0 is no corruption."""
        evaluations = {0.0: self.evaluations[stem]}
        for other, evaluation in self.evaluations.items():
            corruption = evaluation.corruption
            if corruption is not None and corruption["kind"] == kind and other == f"{stem}-{kind}{corruption['severity']:g}":
                evaluations[float(corruption["severity"])] = evaluation
        return dict(sorted(evaluations.items()))


def read_run(folder: Path) -> RunRecord:
    """Raises UserError where there is no run, or a file of it cannot be read."""
    if not (folder / "config.yaml").is_file():
        raise UserError(f"report: got {folder}; expected the folder of a run, with config.yaml; give runs/<name>")
    provenance = folder / "provenance.json"
    paths = sorted((folder / "eval").glob("*.json"), key=lambda path: path.stem)
    return RunRecord(
        name=folder.resolve().name,
        folder=folder,
        config=(folder / "config.yaml").read_text(encoding="utf-8"),
        provenance=read_json(provenance) if provenance.exists() else {},
        log=read_log(folder / "metrics.jsonl"),
        evaluations={path.stem: read_evaluation(path) for path in paths},
    )


def choose_evaluation(runs: Sequence[RunRecord]) -> str | None:
    """The stem of the evaluation to look at closely: one that all runs have, of images without a corruption.

    One with arrays is preferred, then the test split.
    """
    evaluations = runs[0].evaluations
    common = [stem for stem in evaluations if all(stem in run.evaluations for run in runs)]
    plain = [stem for stem in common if evaluations[stem].corruption is None]
    ranked = sorted(plain, key=lambda stem: (not evaluations[stem].columns, not stem.endswith("-test"), stem))
    return ranked[0] if ranked else None
