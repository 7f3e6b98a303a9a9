"""What is wrong with a dataset, before training starts (`scripts/check_data.py`): every file is read once.

Stored labels are also compared with computed ones: see compare.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from mult.data.disk.derived import describe_implausible_depth
from mult.data.parallel import map_with_progress
from mult.data.prepare.compare import Comparison, compare
from mult.data.sample import BadFileError, Reader, Sample
from mult.tasks import TASKS

MAX_LISTED = 1000
"""Problems, and as many warnings, that a report lists; all are counted."""
NOWHERE = torch.zeros(1, dtype=torch.bool)


@dataclass(frozen=True)
class Problem:
    """One finding: its kind (that of a BadFileError, or "constant" or "scale") and a message that names the file or view."""

    kind: str
    text: str


@dataclass
class Report:
    """What `check` found in one split of a dataset; `problems` prevent training, `warnings` do not.

    views: of the split, of which `read` were read. tasks: {task: {"native", "derived", "valid"}}, the numbers of views with
    such labels and the mean fraction of valid pixels in them. buildings: {building: views}. counts: {kind of problem: number}.
    """

    split: str
    views: int
    read: int = 0
    buildings: dict[str, int] = field(default_factory=dict)
    tasks: dict[str, dict[str, float]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    median_depth_m: float | None = None
    comparisons: list[Comparison] = field(default_factory=list)

    def can_train(self, skipping: bool = False) -> bool:
        """Whether training can start; `skipping` samples with bad files (`data.on_bad_file: skip`)."""
        are_right = not any(comparison.is_right is False for comparison in self.comparisons)
        return are_right and (not self.problems or (skipping and any(self.tasks[task]["valid"] for task in self.tasks)))


@dataclass(frozen=True)
class _ViewReport:
    """What was found in one view: {task: (is derived, fraction of valid pixels)}, and its median depth, None without depth."""

    labels: Mapping[str, tuple[bool, float]]
    problems: Sequence[Problem]
    warnings: Sequence[Problem]
    median_depth: float | None


def check(
    open_views: Callable[[Sequence[str]], Reader],
    split: str,
    max_views: int | None = None,
    workers: int = 1,
    compared_views: int = 24,
) -> Report:
    """Read the views of a split, at most `max_views`, evenly spaced, and compare the labels of `compared_views` of them.

    `open_views(tasks)` opens the split with labels of `tasks`. Files are read by `workers` processes. Raises UserError for a
    dataset that cannot be opened at all.
    """
    tasks = open_views(()).available
    views = open_views(tasks)
    report = Report(split, len(views))
    report.tasks = {task: {"native": 0, "derived": 0, "valid": 0.0} for task in tasks}
    indices = space_evenly(len(views), max_views)
    medians: list[float] = []
    counts = Counter[str]()
    check_view = partial(_check_view, views, [open_views((task,)) for task in tasks])
    for view in map_with_progress(check_view, indices, workers, f"check {split}", "view", chunk=8):
        report.read += 1
        for task, (is_derived, valid) in view.labels.items():
            entry = report.tasks[task]
            entry["derived" if is_derived else "native"] += 1
            entry["valid"] += valid
        for problems, listed in ((view.problems, report.problems), (view.warnings, report.warnings)):
            counts.update(problem.kind for problem in problems)
            listed += problems[: max(0, MAX_LISTED - len(listed))]
        medians += [] if view.median_depth is None else [view.median_depth]
    report.buildings = dict(Counter(map(views.group, range(len(views)))).most_common())
    report.counts = dict(counts.most_common())
    for entry in report.tasks.values():
        entry["valid"] /= max(1, entry["native"] + entry["derived"])
    if medians and views.metric_depth:
        report.median_depth_m = float(np.median(medians))
        if implausible := describe_implausible_depth(report.median_depth_m):
            report.warnings.append(Problem("scale", f"{implausible}: is the depth scale right?"))
    report.comparisons = list(compare(views, space_evenly(len(views), compared_views)))
    return report


def space_evenly(length: int, maximum: int | None) -> list[int]:
    """At most `maximum` (None: all) of the indices below `length`, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, length - 1, min(length, maximum or length)).round().astype(int)).tolist()


def _check_view(views: Reader, views_of_each_task: Sequence[Reader], i: int) -> _ViewReport:
    try:
        sample = views[i]
    except BadFileError:
        # It names the first bad file of the view; reading the tasks one by one names all.
        problems = dict.fromkeys(problem for each in views_of_each_task for problem in _find_bad_file(each, i))
        return _ViewReport({}, list(problems), [], None)
    labels = {}
    native = views.native(i)
    for task, valid in sample["valid"].items():
        if task in native or task in sample["derived"]:
            labels[task] = (task in sample["derived"], float(valid.float().mean()))
    median = None
    if sample["valid"].get("depth_zbuffer", NOWHERE).any():
        median = float(sample["targets"]["depth_zbuffer"][sample["valid"]["depth_zbuffer"]].median())
    return _ViewReport(labels, [], list(_find_constants(sample)), median)


def _find_bad_file(views: Reader, i: int) -> Iterator[Problem]:
    try:
        views[i]
    except BadFileError as error:
        yield Problem(error.kind, str(error))


def _find_constants(sample: Sample) -> Iterator[Problem]:
    """Images and labels with one value everywhere: they can be read, but are probably placeholders."""
    image = sample["image"].flatten(1)
    if bool((image == image[:, :1]).all()):
        yield Problem(
            "constant", f"{sample['id']}: the image is of one colour; is it a placeholder? make it again or remove it"
        )
    for task, target in sample["targets"].items():
        valid = sample["valid"][task][0]
        if not valid.any():
            continue  # the report's fraction of valid pixels shows it
        values = target[..., valid].reshape(-1, int(valid.sum()))
        if not TASKS[task].categorical and values.shape[1] > 1 and bool((values == values[:, :1]).all()):
            text = f"{sample['id']}: {task} is of one value; is it a placeholder? make it again or remove it"
            yield Problem("constant", text)
