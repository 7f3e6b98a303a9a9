"""Metrics of dense predictions, pooled over a dataset in bounded memory, and delta_m, which compares two sets of them.

An accumulator holds sums and counts (`sums`, on the CPU) and divides once, in `compute`, so the numbers depend neither
on the batch size nor on the number of processes (which add up `sums`, tensor by tensor). Counts are int64 and exact,
other sums float64. Fractions are in [0, 1]; all thresholds are strict.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Kind = tuple[str | None, Literal["higher", "lower"]]
"""A metric's unit ("" a plain number, None the task's own) and which direction is better."""

Constant = int | NDArray[np.float64]
"""A constant prediction: a class id, or one number a channel (C,)."""


class Accumulator(ABC):
    """Sums of one task's errors over as many batches as come; PRIMARY is the metric that delta_m compares."""

    METRICS: Mapping[str, Kind]
    PRIMARY: str
    sums: dict[str, Tensor]

    def update(self, prediction: Tensor, target: Tensor, valid: Tensor) -> None:
        """Add a batch: decoded, at the target's size; (B, H, W) int64 or (B, C, H, W), valid (B, 1, H, W) bool.

        ValueError where shapes disagree.
        """
        expected_valid = (target.shape[0], 1, *target.shape[-2:])
        if prediction.shape != target.shape or valid.shape != expected_valid or valid.dtype != torch.bool:
            raise ValueError(
                f"{type(self).__name__}.update: got prediction {tuple(prediction.shape)}, target "
                f"{tuple(target.shape)}, valid {tuple(valid.shape)} {valid.dtype}; expected equal shapes and valid "
                f"(B, 1, H, W) torch.bool; resize the prediction to the target's size"
            )
        with torch.no_grad():
            for name, amount in self._measure(prediction, target, valid[:, 0]).items():
                self.sums[name] += amount.cpu()

    def merge(self, other: Accumulator) -> None:
        """Add what another accumulator of the same kind has seen."""
        if type(other) is not type(self) or other.METRICS != self.METRICS:
            raise ValueError(
                f"{type(self).__name__}.merge: got {type(other).__name__} with {sorted(other.METRICS)}; "
                f"expected {sorted(self.METRICS)}; merge accumulators of the same task and classes"
            )
        for name, amount in other.sums.items():
            self.sums[name] += amount

    def compute(self) -> dict[str, float | None]:
        """Every metric over all pixels so far; None where no pixel defines it."""
        return self._divide() if self.pixels else dict.fromkeys(self.METRICS)

    @property
    def pixels(self) -> int:
        """How many pixels have counted."""
        return int(self.sums["pixels"])

    def notes(self) -> dict[str, Any]:
        """What a reader of the numbers should know beside them, as JSON."""
        return {}

    @staticmethod
    @abstractmethod
    def constants(values: NDArray[Any]) -> dict[str, Constant]:
        """The trivial baseline: for each metric the best constant prediction of pixels `values` (N, C), N > 0."""

    @abstractmethod
    def _measure(self, prediction: Tensor, target: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """What a batch adds to `sums`; valid is (B, H, W)."""

    @abstractmethod
    def _divide(self) -> dict[str, float | None]:
        """The metrics from `sums`, of at least one pixel."""


class Segmentation(Accumulator):
    """mIoU, pixel accuracy and `iou/<class>` from one confusion matrix; pixels of class 255 are out.

    IoU = TP / (TP + FP + FN). A class in neither target nor prediction has none: its entry is None, the mean skips it
    and `notes()["absent"]` names it. `classes` are names in the order of their ids, or how many there are.
    """

    METRICS: Mapping[str, Kind] = {"miou": ("", "higher"), "pixel_accuracy": ("", "higher")}
    PRIMARY = "miou"

    def __init__(self, classes: int | Sequence[str]) -> None:
        self.classes = [str(i) for i in range(classes)] if isinstance(classes, int) else list(classes)
        repeated = [name for name, times in Counter(self.classes).items() if times > 1]
        if not self.classes or repeated:
            raise ValueError(
                f"Segmentation: got {len(self.classes)} classes, {repeated} more than once; "
                f"expected at least one, each once; give the dataset's class names"
            )
        self.METRICS = {**Segmentation.METRICS, **{f"iou/{name}": ("", "higher") for name in self.classes}}
        self.sums = {"confusion": torch.zeros(len(self.classes), len(self.classes), dtype=torch.int64)}

    @property
    def pixels(self) -> int:
        return int(self.sums["confusion"].sum())

    def notes(self) -> dict[str, Any]:
        confusion = self.sums["confusion"]
        absent = (confusion.sum(0) + confusion.sum(1) == 0).tolist()
        return {"absent": [name for name, is_absent in zip(self.classes, absent, strict=True) if is_absent]}

    @staticmethod
    def constants(values: NDArray[Any]) -> dict[str, Constant]:
        """The most frequent of class ids `values` (N,), for both metrics; it stands for the `iou/<class>` as well."""
        return dict.fromkeys(Segmentation.METRICS, int(np.bincount(values).argmax()))

    def _measure(self, prediction: Tensor, target: Tensor, valid: Tensor) -> dict[str, Tensor]:
        number = len(self.classes)
        counts = valid & (target != 255)
        pair = torch.stack([target[counts], prediction[counts]]).to(torch.int64)
        for name, ids in zip(("target", "prediction"), pair, strict=True):
            if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < number:
                raise ValueError(
                    f"Segmentation.update: got class ids {int(ids.min())} to {int(ids.max())} in the {name}; "
                    f"expected 0 to {number - 1} (255 = ignore in the target); map the {name} to the {number} classes"
                )
        confusion = torch.bincount(pair[0] * number + pair[1], minlength=number * number)
        return {"confusion": confusion.view(number, number)}

    def _divide(self) -> dict[str, float | None]:
        confusion = self.sums["confusion"]  # (target, prediction)
        hits = confusion.diagonal()
        unions = (confusion.sum(0) + confusion.sum(1) - hits).tolist()
        iou = [hit / union if union else None for hit, union in zip(hits.tolist(), unions, strict=True)]
        present = [value for value in iou if value is not None]
        return {
            "miou": sum(present) / len(present),
            "pixel_accuracy": int(hits.sum()) / self.pixels,
            **{f"iou/{name}": value for name, value in zip(self.classes, iou, strict=True)},
        }


class Depth(Accumulator):
    """Depth errors over valid pixels with target t > 0; delta_k is the fraction with max(p/t, t/p) < 1.25^k.

    A prediction that is not positive and finite fails every delta and is left out of log10 (base 10);
    `notes()["nonpositive"]` counts them. log10 is None where nothing else is predicted.
    """

    RATIOS: Mapping[str, float] = {"delta1": 1.25, "delta2": 1.25**2, "delta3": 1.25**3}
    METRICS: Mapping[str, Kind] = {
        "rmse": ("m", "lower"),
        "abs_rel": ("", "lower"),
        "log10": ("", "lower"),
        **dict.fromkeys(RATIOS, ("", "higher")),
        "l1": ("m", "lower"),
    }
    PRIMARY = "rmse"

    def __init__(self) -> None:
        self.sums = _zeros(("pixels", "positive", *self.RATIOS), ("squared", "absolute", "relative", "log10"))

    def notes(self) -> dict[str, Any]:
        return {"nonpositive": self.pixels - int(self.sums["positive"])}

    @staticmethod
    def constants(values: NDArray[Any]) -> dict[str, Constant]:
        depth = np.sort(values[values > 0]).astype(np.float64)
        median = np.array([np.median(depth)])
        # sum |c - t| / t is least at the median under weights 1 / t.
        weight = np.cumsum(1 / depth)
        constants: dict[str, Constant] = {
            "rmse": np.array([depth.mean()]),
            "l1": median,
            "log10": median,
            "abs_rel": np.array([depth[np.searchsorted(weight, weight[-1] / 2)]]),
        }
        # The constants within a ratio of a depth are an interval of its logarithm: the fullest window, and its middle.
        log_depth = np.log(depth)
        for name, limit in Depth.RATIOS.items():
            ends = np.searchsorted(log_depth, log_depth + 2 * math.log(limit), side="left")
            first = int((ends - np.arange(len(depth))).argmax())
            constants[name] = np.array([math.sqrt(depth[first] * depth[ends[first] - 1])])
        return constants

    def _measure(self, prediction: Tensor, target: Tensor, valid: Tensor) -> dict[str, Tensor]:
        counts = valid.unsqueeze(1) & (target > 0)
        predicted, true = prediction[counts].double(), target[counts].double()
        positive = (predicted > 0) & predicted.isfinite()
        ratio = torch.maximum(predicted / true, true / predicted)
        failing = ratio.where(positive, torch.inf)
        error = (predicted - true).abs()
        return {
            "pixels": counts.sum(),
            "positive": positive.sum(),
            **{name: (failing < limit).sum() for name, limit in self.RATIOS.items()},
            "squared": error.square().sum(),
            "absolute": error.sum(),
            "relative": (error / true).sum(),
            "log10": ratio.where(positive, 1.0).log10().sum(),
        }

    def _divide(self) -> dict[str, float | None]:
        sums, pixels = {name: amount.item() for name, amount in self.sums.items()}, self.pixels
        return {
            "rmse": math.sqrt(sums["squared"] / pixels),
            "abs_rel": sums["relative"] / pixels,
            "log10": sums["log10"] / sums["positive"] if sums["positive"] else None,
            **{name: sums[name] / pixels for name in self.RATIOS},
            "l1": sums["absolute"] / pixels,
        }


class Normals(Accumulator):
    """Angles between unit vectors, 2 atan2(|p - t|, |p + t|), in degrees; within_a is the fraction below a degrees.

    Nothing is normalised here. The median comes from a histogram whose bins are centred on the multiples of
    RESOLUTION_DEG: a middle angle is taken as its bin's centre, so it is within half of that; all else is exact.
    """

    RESOLUTION_DEG = 0.001
    LIMITS_DEG: Mapping[str, float] = {"within_11.25": 11.25, "within_22.5": 22.5, "within_30": 30.0}
    METRICS: Mapping[str, Kind] = {
        "mean": ("deg", "lower"),
        "median": ("deg", "lower"),
        "rmse": ("deg", "lower"),
        **dict.fromkeys(LIMITS_DEG, ("", "higher")),
    }
    PRIMARY = "mean"

    def __init__(self) -> None:
        self.sums = _zeros(("pixels", *self.LIMITS_DEG), ("angle", "squared"))
        self.sums["histogram"] = torch.zeros(round(180 / self.RESOLUTION_DEG) + 1, dtype=torch.int64)

    def notes(self) -> dict[str, Any]:
        return {"resolution_deg": self.RESOLUTION_DEG}

    @staticmethod
    def constants(values: NDArray[Any]) -> dict[str, Constant]:
        """The normalised mean vector, for every metric."""
        mean = values.mean(0, dtype=np.float64)
        return dict.fromkeys(Normals.METRICS, mean / np.linalg.norm(mean))

    def _measure(self, prediction: Tensor, target: Tensor, valid: Tensor) -> dict[str, Tensor]:
        predicted = prediction.movedim(1, 0)[:, valid].double()  # (3, N)
        true = target.movedim(1, 0)[:, valid].double()
        apart, together = (predicted - true).square().sum(0).sqrt(), (predicted + true).square().sum(0).sqrt()
        angle = torch.atan2(apart, together) * math.degrees(2)
        last = len(self.sums["histogram"]) - 1
        # A prediction that is not finite makes the mean NaN; the comparison keeps it out of the index.
        bins = (angle / self.RESOLUTION_DEG).round().where(angle < 180, last).long()
        return {
            "pixels": valid.sum(),
            **{name: (angle < limit).sum() for name, limit in self.LIMITS_DEG.items()},
            "angle": angle.sum(),
            "squared": angle.square().sum(),
            "histogram": torch.bincount(bins, minlength=last + 1),
        }

    def _divide(self) -> dict[str, float | None]:
        pixels = self.pixels
        middle = torch.tensor([(pixels + 1) // 2, pixels // 2 + 1])  # ranks from 1; the same if odd
        bins = torch.searchsorted(self.sums["histogram"].cumsum(0), middle)
        return {
            "mean": self.sums["angle"].item() / pixels,
            "median": bins.double().mean().item() * self.RESOLUTION_DEG,
            "rmse": math.sqrt(self.sums["squared"].item() / pixels),
            **{name: self.sums[name].item() / pixels for name in self.LIMITS_DEG},
        }


class Regression(Accumulator):
    """Mean absolute and root mean squared difference, the mean over channels, then over valid pixels."""

    METRICS: Mapping[str, Kind] = {"l1": (None, "lower"), "rmse": (None, "lower")}
    PRIMARY = "l1"

    def __init__(self) -> None:
        self.sums = _zeros(("pixels",), ("absolute", "squared"))

    @staticmethod
    def constants(values: NDArray[Any]) -> dict[str, Constant]:
        return {"l1": np.median(values, axis=0), "rmse": values.mean(0, dtype=np.float64)}

    def _measure(self, prediction: Tensor, target: Tensor, valid: Tensor) -> dict[str, Tensor]:
        error = prediction.movedim(1, 0)[:, valid].double() - target.movedim(1, 0)[:, valid].double()  # (C, N)
        absolute, squared = error.abs().mean(0).sum(), error.square().mean(0).sum()
        return {"pixels": valid.sum(), "absolute": absolute, "squared": squared}

    def _divide(self) -> dict[str, float | None]:
        absolute, squared = self.sums["absolute"].item(), self.sums["squared"].item()
        return {"l1": absolute / self.pixels, "rmse": math.sqrt(squared / self.pixels)}


def delta_m(results: Mapping[str, Any], baseline: Mapping[str, Any]) -> dict[str, Any]:
    """How much better than `baseline` in percent, positive = better: {"delta_m": the mean, "terms": {task: percent}}.

    The mean over tasks of s (M - B) / B, s = -1 where lower is better (Maninis et al. 2019, Vandenhende et al. 2021).
    M is a task's primary metric: the PRIMARY of the accumulator that has the metrics given. (CAGrad and Nash-MTL print
    the negative, over nine metrics.) Both arguments are {task: {metric: value}}, a value being a number or an
    evaluation's entry {"value": number, ...}; `baseline` holds the single-task models with the same encoder, and maybe
    more tasks. ValueError, by name, for a task without a baseline or a value, or with a baseline of 0.
    """
    if not results:
        raise ValueError('delta_m: got no task; expected {task: {metric: value}}; give the "tasks" of an evaluation')
    terms = {}
    for task, metrics in results.items():
        if task not in baseline:
            raise ValueError(f"delta_m: {task}: got no baseline; expected one; evaluate its single-task model")
        kind = _kind(task, metrics)
        ours = _value(f"{task} of the results", metrics, kind.PRIMARY)
        theirs = _value(f"{task} of the baseline", baseline[task], kind.PRIMARY)
        if theirs == 0:
            raise ValueError(f"delta_m: {task}: got a baseline of 0; expected another value; leave the task out")
        sign = 1 if kind.METRICS[kind.PRIMARY][1] == "higher" else -1
        terms[task] = 100 * sign * (ours - theirs) / theirs
    return {"delta_m": sum(terms.values()) / len(terms), "terms": terms}


def _kind(task: str, metrics: Mapping[str, Any]) -> type[Accumulator]:
    """The accumulator a task was measured by: the first that has its primary metric there and knows the others."""
    kinds: tuple[type[Accumulator], ...] = (Segmentation, Normals, Regression, Depth)
    given = {name for kind in kinds for name in kind.METRICS} & set(metrics)
    for kind in kinds:
        if kind.PRIMARY in given and given <= set(kind.METRICS):
            return kind
    raise ValueError(
        f"delta_m: {task}: got metrics {sorted(metrics)}; expected a primary one, {[kind.PRIMARY for kind in kinds]}, "
        f"and those beside it; give the task's entries of an evaluation"
    )


def _value(where: str, metrics: Mapping[str, Any], metric: str) -> float:
    entry = metrics.get(metric)
    value = entry["value"] if isinstance(entry, Mapping) else entry
    if value is None or not math.isfinite(value):
        raise ValueError(f"delta_m: {where}: got {value} for {metric}; expected a number; leave the task out of both")
    return float(value)


def _zeros(counts: Sequence[str], totals: Sequence[str]) -> dict[str, Tensor]:
    zeros = {name: torch.zeros((), dtype=torch.int64) for name in counts}
    return zeros | {name: torch.zeros((), dtype=torch.float64) for name in totals}
