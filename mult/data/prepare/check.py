"""What is wrong with a dataset, before training starts (`mult check-data`): every file is read once.

The labels of some views are also tested for what they mean: see inspection.py.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from mult.data.parallel import map_with_progress
from mult.data.prepare.inspection import choose_runs, inspect_labels, judge_median_depth
from mult.data.prepare.progress import Problem, Progress, ViewReport
from mult.data.prepare.verdict import Verdict
from mult.data.sample import BadFileError, Reader, Sample
from mult.tasks import TASKS

MAX_LISTED = 1000
"""Problems, and as many warnings, that a report lists; all are counted."""
NOWHERE = torch.zeros(1, dtype=torch.bool)


@dataclass
class Report:
    """What `check` found in one split of a dataset; `problems` prevent training, `warnings` do not.

    views: of the split, of which `read` were read: all, or some that were drawn at random with the seed `seed`. tasks:
    {task: {"native", "derived", "valid"}}, the numbers of views with such labels and the mean fraction of valid pixels in
    them. buildings: {building: views}. counts: {kind of problem: number}. tested: how many views' labels were tested for what
    they mean: of these are all `verdicts` but that on the median depth.
    """

    split: str
    views: int
    read: int = 0
    seed: int | None = None
    buildings: dict[str, int] = field(default_factory=dict)
    tasks: dict[str, dict[str, float]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    median_depth_m: float | None = None
    tested: int = 0
    verdicts: list[Verdict] = field(default_factory=list)

    def can_train(self, skipping: bool = False) -> bool:
        """Whether training can start; `skipping` samples with bad files (`data.on_bad_file: skip`)."""
        are_right = not any(verdict.prevents_training for verdict in self.verdicts)
        return are_right and (not self.problems or (skipping and any(self.tasks[task]["valid"] for task in self.tasks)))


def check(
    open_views: Callable[[Sequence[str]], Reader],
    split: str,
    max_views: int | None = None,
    workers: int | None = 1,
    tested_views: int = 48,
    *,
    seed: int = 0,
    outdoors: bool = False,
    progress: Path | None = None,
) -> Report:
    """Read the views of a split, or `max_views` of them drawn at random, and test the labels of `tested_views`.

    The latter are runs of neighbours, as the tests need, whichever views were drawn.

    `open_views(tasks)` opens the split with labels of `tasks`. Files are read by `workers` processes, None: one a core. In
    the folder `progress` is kept what was read, until the end: an interrupted call goes on from there. Raises UserError for a
    dataset that cannot be opened at all.
    """
    tasks = open_views(()).available
    views = open_views(tasks)
    indices: Sequence[int] = range(len(views))
    report = Report(split, len(views))
    if max_views is not None and max_views < len(views):
        indices = array("q", sorted(np.random.default_rng(seed).choice(len(views), max_views, replace=False).tolist()))
        report.seed = seed
    report.tasks = {task: {"native": 0, "derived": 0, "valid": 0.0} for task in tasks}
    medians = array("d")
    counts = Counter[str]()
    done = Progress(progress, [split, len(views), tasks, seed, max_views], indices)
    check_view = partial(_check_view, views, [open_views((task,)) for task in tasks])
    for view in done.reports(lambda left: map_with_progress(check_view, left, workers, f"check {split}", "view", chunk=8)):
        report.read += 1
        for task, (is_derived, valid) in view.labels.items():
            entry = report.tasks[task]
            entry["derived" if is_derived else "native"] += 1
            entry["valid"] += valid
        for problems, listed in ((view.problems, report.problems), (view.warnings, report.warnings)):
            counts.update(problem.kind for problem in problems)
            listed += problems[: max(0, MAX_LISTED - len(listed))]
        if view.median_depth is not None:
            medians.append(view.median_depth)
    report.buildings = dict(Counter(map(views.group, range(len(views)))).most_common())
    report.counts = dict(counts.most_common())
    for entry in report.tasks.values():
        entry["valid"] /= max(1, entry["native"] + entry["derived"])
    if medians and views.metric_depth:
        report.median_depth_m = float(np.median(medians))
        report.verdicts.append(judge_median_depth(report.median_depth_m, outdoors))
    tested = choose_runs(views, tested_views)
    report.tested = len(tested)
    report.verdicts += inspect_labels(views, tested, workers)
    done.remove()
    return report


def space_evenly(length: int, maximum: int | None) -> list[int]:
    """At most `maximum` (None: all) of the indices below `length`, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, length - 1, min(length, maximum or length)).round().astype(int)).tolist()


def _check_view(views: Reader, views_of_each_task: Sequence[Reader], i: int) -> ViewReport:
    try:
        sample = views[i]
    except BadFileError:
        # It names the first bad file of the view; reading the tasks one by one names all.
        problems = dict.fromkeys(problem for each in views_of_each_task for problem in _find_bad_file(each, i))
        return ViewReport(i, {}, list(problems), [], None)
    labels = {}
    native = views.native(i)
    for task, valid in sample["valid"].items():
        if task in native or task in sample["derived"]:
            labels[task] = (task in sample["derived"], float(valid.float().mean()))
    median = None
    if sample["valid"].get("depth_zbuffer", NOWHERE).any():
        median = float(sample["targets"]["depth_zbuffer"][sample["valid"]["depth_zbuffer"]].median())
    return ViewReport(i, labels, [], list(_find_constants(sample)), median)


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
