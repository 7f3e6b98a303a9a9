"""Evaluations as files: what a damaged one is refused for, and the metrics of each image."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mult import TASKS
from mult.errors import UserError
from mult.evaluation.results import Results, SavedEvaluation, compute_improvement, read_results


def of(task: str, **change: Any) -> Callable[[dict[str, Any]], None]:
    return lambda file: file["tasks"][task][TASKS[task].primary].update(change)


DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "a text for a number": (of("normal", value="20"), r"tasks\.normal\.mean {'value': '20'"),
    "not a number": (of("normal", value=float("nan")), r"tasks\.normal\.mean {'value': nan"),
    "no reason": (of("reshading", value=None), r"tasks\.reshading\.l1 {'value': None"),
    "a direction": (of("reshading", better="left"), r"tasks\.reshading\.l1 "),
    "half an interval": (of("normal", interval=[1.0]), r"tasks\.normal\.mean "),
    "an entry": (lambda file: file["tasks"]["normal"].update(mean=3), r"tasks\.normal\.mean 3;"),
    "a task": (lambda file: file["tasks"].update(normals={}), r"tasks\.normals, which is no task;"),
    "no primary metric": (lambda file: file["tasks"]["normal"].pop("mean"), r"tasks\.normal, which lacks its primary metric;"),
    "weights": (lambda file: file.update(weights={"step": "4"}), "weights {'step': '4'}"),
    "a corruption": (lambda file: file.update(corruption="blur"), "corruption 'blur';"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_evaluation_is_refused(trained: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "val.json"
    file: dict[str, Any] = read_results(trained / "eval" / "taskonomy-val.json")
    spoil, message = DAMAGES[damage]
    spoil(file)
    path.write_text(json.dumps(file))
    with pytest.raises(UserError, match=rf"val\.json: got {message}.*expected an evaluation as eval\.py writes it; .*again"):
        read_results(path)


def test_metrics_of_single_images() -> None:
    entry = {"value": 1.0, "unit": "", "better": "lower"}
    columns = {
        "normal/pixels": np.array([10, 20, 0, 5]),
        "normal/angle": np.array([300.0, 100, 0, 450]),
        "segment_semantic/pixels": np.array([10, 10, 10, 10]),
        "segment_semantic/hits": np.array([[5, 0, 0], [4, 4, 0], [1, 1, 0], [0, 0, 0]]),
        "segment_semantic/target": np.array([[5, 5, 0], [5, 5, 0], [5, 5, 0], [5, 5, 0]]),
        "segment_semantic/predicted": np.array([[10, 0, 0], [5, 5, 0], [5, 5, 0], [5, 5, 0]]),
        "total/segment_semantic/classes": np.array(["floor", "wall", "sofa"]),
    }
    file = {"tasks": {"normal": {"mean": entry}, "segment_semantic": {"miou": entry}}}
    evaluation = SavedEvaluation(Path("x.json"), file, columns)
    np.testing.assert_allclose(evaluation.image_values("normal", "mean"), [30, 5, np.nan, 90])
    # Image 0: the first class 5 / 10, the second 0 / 5; the third is nowhere and does not count.
    np.testing.assert_allclose(evaluation.image_values("segment_semantic", "miou"), [0.25, 4 / 6, 1 / 9, 0])


def test_the_improvement_is_the_mean_gain_on_the_trivial_baselines() -> None:
    """20 deg in place of 40 is 50 % better, 0.3 in place of 0.2 is 50 % better, 5 in place of 4 is 25 % worse."""
    results: Results = {
        "normal": {"mean": {"value": 20.0, "trivial": 40.0, "better": "lower"}},
        "segment_semantic": {"miou": {"value": 0.3, "trivial": 0.2, "better": "higher"}},
        "reshading": {"l1": {"value": 5.0, "trivial": 4.0, "better": "lower"}},
        "edge_texture": {"l1": {"value": 5.0, "trivial": None, "better": "lower"}},
        "keypoints2d": {"l1": {"value": None, "reason": "no valid pixel"}},
    }
    assert compute_improvement(results) == pytest.approx((50 + 50 - 25) / 3)
