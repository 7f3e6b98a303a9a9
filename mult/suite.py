"""One YAML of overrides of one config -> many runs, trained and evaluated one after the other, and their tables.

    base: ../rooms6.yaml            # relative to the suite's file
    seeds: [0, 1, 2]
    members: {shared: [], independent: [model.attention=independent]}       # name -> overrides; the first is compared with
    evaluate: {test: {split: test}, blurred: {split: test, blur: "1,2,4"}}  # name -> what eval.py is told

Optional: `baselines`, the members that are single-task runs, which gives the others delta_m against those of the same seed;
an evaluation's `config` (a YAML of a data section, relative to the suite's file), `corrupt`, and `members`, the only ones it
is for. `{name}` in an override is the folder of that member's run of the same seed, for run.init.

Each step is a process of its own, so a member that fails leaves the others standing; the tables say which is missing and
why. What is done is not done again: a run of the same config at its last step, an evaluation of it that was told the same.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mult.config import load_config, schema
from mult.data.batches.corruptions import parse
from mult.errors import UserError
from mult.evaluation import compare
from mult.evaluation.results import Evaluated, load
from mult.evaluation.tables import as_csv, as_markdown, as_text, overview
from mult.files import read_json, write_json, write_text

TAIL = 4096
"""Bytes of what a script said that are kept, for the last line of one that failed."""


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """What eval.py is told."""

    split: str = "test"
    config: str | None = None
    blur: str | None = None
    corrupt: str | None = None
    members: list[str] | None = None

    def stems(self, name: str) -> list[str]:
        """The names of the evaluations, one a corruption."""
        return [name + corruption.suffix for corruption in parse(self.blur, self.corrupt)]


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The content of a suite's file."""

    base: str
    seeds: list[int] = field(default_factory=lambda: [0])
    members: dict[str, list[str]]
    baselines: list[str] = field(default_factory=list)
    evaluate: dict[str, Evaluate] = field(default_factory=lambda: {"test": Evaluate()})


def read_suite(path: Path) -> Suite:
    """Raises UserError where there is no such file and for what is wrong in it."""
    if not path.is_file():
        raise UserError(f"suite: got {path}; expected a YAML file; see configs/suites/")
    suite = schema.read(Suite, schema.parse_yaml(path.read_text(encoding="utf-8"), str(path)), str(path))
    assert isinstance(suite, Suite)
    if not suite.members or not suite.seeds or len(set(suite.seeds)) < len(suite.seeds):
        raise UserError(
            f"{path}: got {len(suite.members)} members and the seeds {suite.seeds}; expected at least one of each, none twice"
        )
    named = {"baselines": suite.baselines}
    for name, asked in suite.evaluate.items():
        parse(asked.blur, asked.corrupt)
        named[f"evaluate.{name}.members"] = asked.members or []
    for key, members in named.items():
        for member in members:
            if member not in suite.members:
                raise UserError(
                    f"{path}: {key}: got {member!r}; expected some of {', '.join(suite.members)}; add it to members"
                )
    folders = {name: Path(name) for name in suite.members}
    configs = {
        name: load_config(path.parent / suite.base, _told(overrides, folders)) for name, overrides in suite.members.items()
    }
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
    return suite


def run_suite(path: Path, scripts: Path, output: Path, extra: Sequence[str] = ()) -> tuple[str, int]:
    """Train and evaluate what is not done; returns the tables, which are in `output`/<suite's name>/ as well, and how many of
    the evaluations (each of a member and a seed) are missing.

    scripts: where train.py, eval.py and report.py are. extra: overrides of every member. Raises KeyboardInterrupt on Ctrl-C
    and on SIGTERM, once the script that runs has ended as it does.
    """
    suite, folder = read_suite(path), output / path.stem
    missing: dict[tuple[str, str, int], str] = {}  # (evaluation, member, seed): why
    for seed in suite.seeds:
        runs = {member: folder / f"{member}-{seed}" for member in suite.members}
        for member, overrides in suite.members.items():
            told = [*_told(overrides, runs), *extra, f"run.name={member}-{seed}", f"run.output={folder}", f"run.seed={seed}"]
            untrained = _train(path.parent / suite.base, told, runs[member], scripts)
            for name, asked in suite.evaluate.items():
                if member in (asked.members or suite.members):
                    why = untrained or _evaluate(asked, name, path.parent, runs[member], scripts)
                    missing |= {(name, member, seed): why} if why else {}
    texts, tables, comparisons = [], [], {}
    for name, asked in suite.evaluate.items():
        for stem in asked.stems(name):
            rows = [_row(suite, folder, name, stem, member, missing) for member in asked.members or suite.members]
            if any(row.evaluations for row in rows):
                comparison = comparisons[stem] = compare.compare(rows)
                texts.append(f"{stem}: {as_text(comparison)}")
                tables.append(f"## {stem}\n\n{as_markdown(comparison)}")
                write_text(folder / f"{stem}.csv", as_csv(comparison))
            else:
                said = "; ".join(f"{row.name}: {row.missing}" for row in rows)
                texts.append(f"{stem}: missing: {said}")
                tables.append(f"## {stem}\n\nMissing: {said}\n")
    title = " with ".join(filter(None, [path.stem, " ".join(extra)]))
    of_all = [overview(comparisons)] if len(comparisons) > 1 else []
    write_text(folder / "results.md", "\n".join([f"# {title}\n", *of_all, *tables]))
    trained = [folder / f"{member}-{suite.seeds[0]}" for member in suite.members]
    if shown := [str(run) for run in trained if (run / "eval").is_dir()]:
        stems = [stem for name, asked in suite.evaluate.items() for stem in asked.stems(name)]
        singles = [str(one.path) for stem in stems for ones in _baselines(suite, folder, stem, suite.seeds[:1]) for one in ones]
        more = ["--baseline", *singles] if singles else []
        if missing:
            reasons = dict.fromkeys(f"{member}, seed {seed}: {why}" for (_, member, seed), why in missing.items())
            more += ["--note", f"Missing: {'; '.join(reasons)}"]
        _call(scripts / "report.py", *shown, "--images", "0", "--out", str(folder / "report.html"), *more)
    texts.append(f"tables: {folder}/results.md; curves of the first seed: {folder}/report.html")
    return "\n\n".join(texts), len(missing)


def _row(
    suite: Suite, folder: Path, name: str, stem: str, member: str, missing: Mapping[tuple[str, str, int], str]
) -> compare.Row:
    reasons = {seed: missing.get((name, member, seed)) for seed in suite.seeds}
    whole = [seed for seed, why in reasons.items() if why is None]
    return compare.Row(
        member,
        [load(folder / f"{member}-{seed}", stem) for seed in whole],
        "; ".join(f"seed {seed}: {why}" for seed, why in reasons.items() if why),
        () if member in suite.baselines else _baselines(suite, folder, stem, whole),
    )


def _told(overrides: Sequence[str], runs: Mapping[str, Path]) -> list[str]:
    """Overrides with the members' folders in place of their names; YAML has braces as well, which stay."""
    told = list(overrides)
    for member, run in runs.items():
        told = [override.replace(f"{{{member}}}", str(run)) for override in told]
    return told


def _baselines(suite: Suite, folder: Path, stem: str, seeds: Sequence[int]) -> Sequence[Sequence[Evaluated]]:
    """For each seed the single-task evaluations; nothing where one is missing, for the rows say which."""
    of_seeds = [[folder / f"{member}-{seed}" / "eval" / f"{stem}.json" for member in suite.baselines] for seed in seeds]
    if not suite.baselines or not all(path.exists() for paths in of_seeds for path in paths):
        return ()
    return [[load(path) for path in paths] for paths in of_seeds]


def _train(base: Path, overrides: Sequence[str], run: Path, scripts: Path) -> str | None:
    """Why there is no finished run; None if there is."""
    try:
        config = load_config(base, overrides)
        is_begun = (run / "config.yaml").exists()
        if is_begun and load_config(run / "config.yaml") == config and _step(run) == config.optim.steps:
            return None
    except UserError as error:
        return str(error)
    why = _call(scripts / "train.py", "--config", str(base), *overrides, *(["--resume"] if is_begun else []))
    if why is None and _step(run) != config.optim.steps:
        return f"train.py stopped at step {_step(run)} of {config.optim.steps}"
    return why


def _step(run: Path) -> int:
    last = run / "checkpoints" / "last"
    return int(os.readlink(last)) if last.is_symlink() else 0


def _evaluate(asked: Evaluate, name: str, beside: Path, run: Path, scripts: Path) -> str | None:
    """Why there is no evaluation of the run as it is; None if there is."""
    out, record = run / "eval" / f"{name}.json", run / "evaluated" / f"{name}.json"
    options: dict[str, str | None] = {
        "--split": asked.split,
        "--config": None if asked.config is None else str(beside / asked.config),
        "--blur": asked.blur,
        "--corrupt": asked.corrupt,
    }
    told = [part for option, value in options.items() if value is not None for part in (option, value)]
    data = None if asked.config is None else (beside / asked.config).read_text()
    done = {"step": _step(run), "told": told, "data": data}
    files = [out.with_name(f"{stem}.json") for stem in asked.stems(name)]
    if record.exists() and read_json(record) == done and all(file.exists() for file in files):
        return None
    why = _call(scripts / "eval.py", "--ckpt", str(run), "--out", str(out), *told)
    if why is None:
        write_json(record, done)
    return why


def _call(script: Path, *arguments: str) -> str | None:
    """Run a script, what it says being seen; the last line of that if it fails."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    tail, before = b"", signal.signal(signal.SIGTERM, interrupt)
    try:
        with subprocess.Popen([sys.executable, str(script), *arguments], stderr=subprocess.PIPE) as child:
            assert child.stderr is not None
            try:
                while said := os.read(child.stderr.fileno(), TAIL):
                    sys.stderr.buffer.write(said)
                    sys.stderr.flush()
                    tail = (tail + said)[-TAIL:]
            except KeyboardInterrupt:
                child.send_signal(signal.SIGTERM)  # a terminal's Ctrl-C has reached it already, a scheduler's signal has not
                child.communicate()
                raise
    finally:
        signal.signal(signal.SIGTERM, before)
    if child.returncode == 0:
        return None
    lines = tail.decode(errors="replace").replace("\r", "\n").strip().splitlines()
    return f"{script.name} ended with status {child.returncode}: {lines[-1].removeprefix('error: ') if lines else 'no message'}"
