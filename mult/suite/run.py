"""The members of a suite are trained and evaluated one after the other, and compared.

Each step is a process of its own, so that a member that fails does not stop the others; the tables say which is missing and
why. A second call repeats neither a run of the same config that reached its last step, nor an evaluation of that step with
the same options.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mult.config import find_config, load_config
from mult.errors import UserError
from mult.evaluation import compare
from mult.evaluation.gain import merge_baselines
from mult.evaluation.results import SavedEvaluation, read_evaluation
from mult.evaluation.tables import (
    format_comparison,
    format_comparison_as_csv,
    format_comparison_as_markdown,
    format_overview,
)
from mult.files import check_output, read_json, write_json, write_text
from mult.leaderboard.rows import build_row
from mult.leaderboard.table import Published, format_costs, format_leaderboard
from mult.runs.checkpoint import last_step
from mult.suite.file import EvaluationPlan, Suite, check_members, fill_in_folders, read_suite

PROGRAM = (sys.executable, "-m", "mult")
"""What runs a command in a process of its own."""

TAIL_BYTES = 4096
"""The end of a command's stderr that is kept, for the last line of one that failed."""


Missing = dict[tuple[str, str, int], str]
"""{(evaluation, member, seed): why it is missing}."""


def run_suite(
    path: Path,
    output: Path,
    extra: Sequence[str] = (),
    program: Sequence[str] = PROGRAM,
    seeds: Sequence[int] | None = None,
) -> tuple[str, int]:
    """Train and evaluate what is not done yet and write the tables to `output`/<suite's name>/.

    path: a suite's file, or the name of one of configs/suites/. Returns the tables as text, and how many of the evaluations
    (each of a member and a seed) are missing. extra: overrides of every member. program: runs the commands train, eval and
    report. seeds: in place of the file's. Raises KeyboardInterrupt on Ctrl-C and on SIGTERM, once the command that runs has
    ended.
    """
    path = find_config(path, "suite")
    suite, published = read_suite(path, seeds)
    folder = output / path.stem
    check_output(folder / "results.md", "--out")
    if (folder / "config.yaml").exists():
        raise UserError(
            f"--out: got {output}, where {folder} is the folder of a run; expected another place; give e.g. --out suites"
        )
    check_members(suite, path, folder, extra)
    missing: Missing = {}
    for seed in suite.seeds:
        runs = {member: folder / f"{member}-{seed}" for member in suite.members}
        for member, overrides in suite.members.items():
            own = [f"run.name={member}-{seed}", f"run.output={folder}", f"run.seed={seed}"]
            all_overrides = [*fill_in_folders(overrides, runs), *extra, *own]
            untrained = _train(path.parent / suite.base, all_overrides, runs[member], program)
            for name, plan in suite.evaluate.items():
                if member in (plan.members or suite.members):
                    why = untrained or _evaluate(plan, name, path.parent, runs[member], program)
                    missing |= {(name, member, seed): why} if why else {}
    title = " with ".join(filter(None, [path.stem, " ".join(extra)]))
    texts = _write_tables(suite, folder, title, missing, published)
    _write_report(suite, folder, program, missing)
    texts.append(f"tables: {folder}/results.md; curves of the first seed: {folder}/report.html")
    return "\n\n".join(texts), len(missing)


def _write_tables(suite: Suite, folder: Path, title: str, missing: Missing, published: Published | None) -> list[str]:
    """Write results.md, a CSV an evaluation and the leaderboard's rows; returns the tables for a terminal."""
    texts, tables, comparisons = [], [], {}
    for name, plan in suite.evaluate.items():
        for stem in plan.stems(name):
            rows = [_build_row(suite, folder, name, stem, member, missing) for member in plan.members or suite.members]
            if any(row.evaluations for row in rows):
                comparison = comparisons[stem] = compare.compare(rows)
                texts.append(f"{stem}: {format_comparison(comparison)}")
                tables.append(f"## {stem}\n\n{format_comparison_as_markdown(comparison)}")
                write_text(folder / f"{stem}.csv", format_comparison_as_csv(comparison))
                own = _write_rows(rows, folder / "rows" / stem)
                texts += [f"{stem}, cost:\n{format_costs(own)}", f"{stem}, leaderboard:\n{format_leaderboard(own, published)}"]
                tables.append(f"### {stem}: cost\n\n{format_costs(own, markdown=True)}")
                tables.append(f"### {stem}: leaderboard\n\n{format_leaderboard(own, published, markdown=True)}")
            else:
                reasons = "; ".join(f"{row.name}: {row.missing}" for row in rows)
                texts.append(f"{stem}: missing: {reasons}")
                tables.append(f"## {stem}\n\nMissing: {reasons}\n")
    overview = [format_overview(comparisons)] if len(comparisons) > 1 else []
    write_text(folder / "results.md", "\n".join([f"# {title}\n", *overview, *tables]))
    return texts


def _write_rows(rows: Sequence[compare.Row], folder: Path) -> list[dict[str, Any]]:
    """Write the JSON of each row that has an evaluation, also of those that a leaderboard refuses."""
    written = []
    for row in rows:
        if row.evaluations:
            written.append(build_row(row.name, row.evaluations, row.baselines))
            write_json(folder / f"{row.name}.json", written[-1])
    return written


def _write_report(suite: Suite, folder: Path, program: Sequence[str], missing: Missing) -> None:
    """Write the page of the first seed's runs, if any was evaluated."""
    first_runs = [folder / f"{member}-{suite.seeds[0]}" for member in suite.members]
    runs = [str(run) for run in first_runs if (run / "eval").is_dir()]
    if not runs:
        return
    stems = [stem for name, plan in suite.evaluate.items() for stem in plan.stems(name)]
    of_stems = [_read_baselines(suite, folder, stem, suite.seeds[:1]) for stem in stems]
    singles = [str(single.path) for of_seeds in of_stems for of_seed in of_seeds for single in of_seed]
    options = ["--baseline", *singles] if singles else []
    if missing:
        reasons = dict.fromkeys(f"{member}, seed {seed}: {why}" for (_, member, seed), why in missing.items())
        options += ["--note", f"Missing: {'; '.join(reasons)}"]
    _call(program, "report", *runs, "--images", "0", "--out", str(folder / "report.html"), *options)


def _build_row(suite: Suite, folder: Path, name: str, stem: str, member: str, missing: Missing) -> compare.Row:
    reasons = {seed: missing.get((name, member, seed)) for seed in suite.seeds}
    seeds = [seed for seed, why in reasons.items() if why is None]
    missing_seeds = [f"seed {seed}: {why}" for seed, why in reasons.items() if why]
    evaluations = [read_evaluation(_locate(folder, member, seed, stem)) for seed in seeds]
    baselines = () if member in suite.baselines else _read_baselines(suite, folder, stem, seeds)
    try:
        for evaluation, singles in zip(evaluations, baselines, strict=False):
            merge_baselines(evaluation.comparability, evaluation.tasks_with_value(), singles)
    except UserError as error:  # a single-task run that learnt nothing ends no suite
        return compare.Row(member, evaluations, "; ".join([*missing_seeds, f"Δm: {error}"]))
    return compare.Row(member, evaluations, "; ".join(missing_seeds), baselines)


def _locate(folder: Path, member: str, seed: int, stem: str) -> Path:
    return folder / f"{member}-{seed}" / "eval" / f"{stem}.json"


def _read_baselines(suite: Suite, folder: Path, stem: str, seeds: Sequence[int]) -> Sequence[Sequence[SavedEvaluation]]:
    """For each seed the single-task evaluations; none at all where one is missing, which the rows report."""
    of_seeds = [[_locate(folder, member, seed, stem) for member in suite.baselines] for seed in seeds]
    if not suite.baselines or not all(path.exists() for paths in of_seeds for path in paths):
        return ()
    return [[read_evaluation(path) for path in paths] for paths in of_seeds]


def _train(base: Path, overrides: Sequence[str], run: Path, program: Sequence[str]) -> str | None:
    """Train a run to its last step, or go on with it; returns why it is not finished, None if it is."""
    try:
        config = load_config(base, overrides)
        is_begun = (run / "config.yaml").exists()
        if is_begun and load_config(run / "config.yaml") == config and last_step(run) == config.optim.steps:
            return None
    except UserError as error:
        return str(error)
    why = _call(program, "train", "--config", str(base), *overrides, *(["--resume"] if is_begun else []))
    if why is None and last_step(run) != config.optim.steps:
        return f"train stopped at step {last_step(run)} of {config.optim.steps}"
    return why


def _evaluate(plan: EvaluationPlan, name: str, folder: Path, run: Path, program: Sequence[str]) -> str | None:
    """Evaluate a run as it is now; returns why there is no such evaluation, None if there is. folder: of the suite's file."""
    out, record = run / "eval" / f"{name}.json", run / "evaluated" / f"{name}.json"
    options: dict[str, str | None] = {
        "--split": plan.split,
        "--config": None if plan.config is None else str(folder / plan.config),
        "--blur": plan.blur,
        "--corrupt": plan.corrupt,
    }
    arguments = [part for option, value in options.items() if value is not None for part in (option, value)]
    data = None if plan.config is None else (folder / plan.config).read_text(encoding="utf-8")
    done = {"step": last_step(run), "told": arguments, "data": data}  # the keys are those of existing suites
    files = [out.with_name(f"{stem}.json") for stem in plan.stems(name)]
    if record.exists() and read_json(record) == done and all(file.exists() for file in files):
        return None
    why = _call(program, "eval", "--ckpt", str(run), "--out", str(out), *arguments)
    if why is None:
        write_json(record, done)
    return why


def _call(program: Sequence[str], name: str, *arguments: str) -> str | None:
    """Run a command and pass its stderr on; returns the last line of it if the command fails, else None."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    tail, before = b"", signal.signal(signal.SIGTERM, interrupt)
    try:
        with subprocess.Popen([*program, name, *arguments], stderr=subprocess.PIPE) as child:
            assert child.stderr is not None
            try:
                while part := os.read(child.stderr.fileno(), TAIL_BYTES):
                    sys.stderr.buffer.write(part)
                    sys.stderr.flush()
                    tail = (tail + part)[-TAIL_BYTES:]
            except KeyboardInterrupt:
                child.send_signal(signal.SIGTERM)  # Ctrl-C in a terminal reaches the child too, a scheduler's signal does not
                child.communicate()
                raise
    finally:
        signal.signal(signal.SIGTERM, before)
    if child.returncode == 0:
        return None
    lines = tail.decode(errors="replace").replace("\r", "\n").strip().splitlines()
    return f"{name} ended with status {child.returncode}: {lines[-1].removeprefix('error: ') if lines else 'no message'}"
