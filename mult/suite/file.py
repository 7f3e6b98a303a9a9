"""A suite's file: what it holds, and what of it is wrong, before any member is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mult.build import check_data
from mult.config import load_config, load_data_config, schema
from mult.config.yaml_text import read_yaml
from mult.data.batches.corruptions import parse_corruptions
from mult.data.disk.splits import SPLITS
from mult.errors import UserError, suggest
from mult.leaderboard.table import Published, read_published
from mult.runs.checkpoint import find_checkpoint
from mult.training.experiment import check_config


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """The options of eval.py for one evaluation, and the members it is for, None being all."""

    split: str = "test"
    config: str | None = None
    blur: str | None = None
    corrupt: str | None = None
    members: list[str] | None = None

    def stems(self, name: str) -> list[str]:
        """The names of the files, one a corruption."""
        return [name + corruption.suffix for corruption in parse_corruptions(self.blur, self.corrupt)]


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The content of a suite's file."""

    base: str
    seeds: list[int] = field(default_factory=lambda: [0])
    members: dict[str, list[str]]
    baselines: list[str] = field(default_factory=list)
    evaluate: dict[str, EvaluationPlan] = field(default_factory=lambda: {"test": EvaluationPlan()})
    published: str | None = None


def _check_plan(path: Path, name: str, plan: EvaluationPlan) -> None:
    """Raise UserError for an evaluation that `mult eval` would refuse, which is else found after a member is trained."""
    parse_corruptions(plan.blur, plan.corrupt)
    if not name or Path(name).name != name:
        raise UserError(f"{path}: evaluate: got {name!r}; expected the name of a file; leave out what is not")
    if plan.split not in SPLITS:
        remedy = suggest(plan.split, SPLITS, "choose one of them")
        raise UserError(f"{path}: evaluate.{name}.split: got {plan.split!r}; expected one of {', '.join(SPLITS)}; {remedy}")
    if plan.config is not None and not (path.parent / plan.config).is_file():
        raise UserError(
            f"{path}: evaluate.{name}.config: got {plan.config}; expected a YAML file beside the suite's; check the path"
        )


def read_suite(path: Path, seeds: Sequence[int] | None = None) -> tuple[Suite, Published | None]:
    """A suite and the published rows that it names. Raises UserError for what is wrong in a file of these."""
    suite = schema.read(Suite, read_yaml(path), str(path))
    assert isinstance(suite, Suite)
    suite = suite if seeds is None else replace(suite, seeds=list(seeds))
    if not suite.members or not suite.seeds or len(set(suite.seeds)) < len(suite.seeds):
        raise UserError(
            f"{path}: got {len(suite.members)} members and the seeds {suite.seeds}; expected at least one of each, none twice"
        )
    mentions = {"baselines": suite.baselines}
    for name, plan in suite.evaluate.items():
        _check_plan(path, name, plan)
        mentions[f"evaluate.{name}.members"] = plan.members or []
    for key, members in mentions.items():
        for member in members:
            if member not in suite.members:
                raise UserError(
                    f"{path}: {key}: got {member!r}; expected some of {', '.join(suite.members)}; add it to members"
                )
    folders = {name: Path(name) for name in suite.members}
    configs = {
        name: load_config(path.parent / suite.base, fill_in_folders(overrides, folders))
        for name, overrides in suite.members.items()
    }
    published = None if suite.published is None else read_published(path.parent / suite.published)
    for member, config in configs.items():
        if published is not None and config.data.dataset != published.dataset:
            raise UserError(
                f"{path}: published: got rows of {published.dataset}; expected {config.data.dataset}, which {member} is "
                "trained on; leave it out"
            )
    singles = {task for name in suite.baselines for task in configs[name].tasks}
    for member, config in configs.items():
        uncovered = [task for task in config.tasks if suite.baselines and task not in singles]
        if uncovered:
            raise UserError(
                f"{path}: baselines: got none of {', '.join(uncovered)}, which {member} has; expected a single-task member a "
                "task; add them, or leave baselines out"
            )
        if Path(member).name != member:
            raise UserError(f"{path}: members: got {member!r}; expected the name of a folder; leave out what is not")
    return suite, published


def check_members(suite: Suite, path: Path, folder: Path, extra: Sequence[str]) -> None:
    """Raise UserError for what `mult train` or `mult eval` would refuse of a member, whatever the data and the weights are.

    path: the suite's file. folder: where the runs are made. extra: overrides of every member.
    """
    runs = {member: folder / f"{member}-{suite.seeds[0]}" for member in suite.members}
    for member, overrides in suite.members.items():
        all_overrides = [*fill_in_folders(overrides, runs), *extra, f"run.seed={min(suite.seeds)}"]
        try:
            config = load_config(path.parent / suite.base, all_overrides)
            check_config(config)
            if config.run.init is not None and Path(config.run.init) not in runs.values():
                find_checkpoint(config.run.init)
            for plan in suite.evaluate.values():
                if member in (plan.members or suite.members):
                    other = plan.config and load_data_config(path.parent / plan.config, config.data)
                    check_data(other or config.data, plan.split)
        except UserError as error:
            raise UserError(f"member {member}: {error}") from error


def fill_in_folders(overrides: Sequence[str], runs: Mapping[str, Path]) -> list[str]:
    """Overrides with the members' folders in place of {name}; YAML's own braces stay."""
    filled = list(overrides)
    for member, run in runs.items():
        filled = [override.replace(f"{{{member}}}", str(run)) for override in filled]
    return filled
