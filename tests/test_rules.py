"""The rules of the architecture as tests: which way imports run, what no file may say, what a folder may hold.

Every rule is a function of a source text, and is shown to find what it forbids.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mult import TASKS, load_config
from mult.config import load_data_config

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "mult").rglob("*.py"))
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))

MAY_IMPORT: dict[str, set[str]] = {
    "__init__": {"config", "errors", "predict", "tasks"},
    "errors": set(),
    "__main__": {"commands"},
    "benchmark": {"config", "data", "errors", "evaluation", "files", "models", "runtime", "tasks"},
    "cli": {"errors"},
    "commands": {
        "build",
        "cli",
        "config",
        "data",
        "demo",
        "draw",
        "errors",
        "evaluation",
        "export",
        "files",
        "leaderboard",
        "models",
        "predict",
        "report",
        "runs",
        "runtime",
        "share",
        "suite",
        "tasks",
        "training",
    },
    "config": {"errors"},
    "files": {"errors"},
    "runtime": {"errors"},
    "losses": {"errors"},
    "metrics": {"errors", "runtime"},
    "labels": {"errors"},
    "draw": {"errors"},
    "models": {"errors", "files"},
    "tasks": {"draw", "losses", "metrics"},
    "data": {"errors", "files", "labels", "runtime", "tasks"},
    "runs": {"config", "errors", "files", "models", "runtime", "tasks"},
    "evaluation": {"draw", "errors", "files", "metrics", "runtime", "tasks"},
    "build": {"config", "data", "errors", "models", "runtime", "tasks"},
    "predict": {"data", "draw", "errors", "models", "runs", "tasks"},
    "demo": {"data", "draw", "errors", "models", "predict", "tasks"},
    "share": {"config", "data", "evaluation", "models", "runs", "tasks"},
    "export": {"data", "errors", "models", "tasks"},
    "leaderboard": {"config", "draw", "errors", "evaluation", "files", "runs", "tasks"},
    "suite": {"build", "config", "data", "errors", "evaluation", "files", "leaderboard", "runs", "training"},
    "report": {"build", "config", "data", "draw", "errors", "evaluation", "files", "metrics", "runs", "tasks"},
    "training": {
        "build",
        "config",
        "data",
        "draw",
        "errors",
        "evaluation",
        "files",
        "losses",
        "models",
        "runs",
        "runtime",
        "tasks",
    },
}
"""Room of mult (a file, or a folder whose files may import each other) -> the rooms it imports, no more and no fewer."""

DATA_MAY_IMPORT: dict[str, set[str]] = {
    "__init__": {"cocodoom", "nyu", "packed", "pascal", "replica", "rooms", "taskonomy"},
    "parallel": set(),
    "sample": set(),
    "disk": {"sample"},
    "batches": {"disk", "sample"},
    "taskonomy": {"disk", "sample"},
    "replica": {"disk", "sample", "taskonomy"},
    "nyu": {"disk", "sample"},
    "pascal": {"disk", "sample"},
    "cocodoom": {"disk", "parallel", "sample"},
    "rooms": {"disk", "parallel", "taskonomy"},
    "packed": {"batches", "parallel", "sample"},
    "prepare": {"disk", "parallel", "pascal", "rooms", "sample", "taskonomy"},
}
"""The same inside mult.data."""

TOP_LEVEL = {"mult", "configs", "scripts", "tests", "pyproject.toml", "README.md", "LICENSE"}
MAX_LINES = 350


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def in_mult(relative: str) -> Path:
    return ROOT / "mult" / relative


def each(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=name_of)


# --- Imports ---


def imported_rooms(source: str, path: Path, package: tuple[str, ...]) -> set[str]:
    """The rooms of a package, ("mult",) or ("mult", "data"), that a file at `path` imports anywhere but its own.

    Imports under TYPE_CHECKING and inside functions count too.
    """
    here = path.relative_to(ROOT).with_suffix("").parts
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = here[: len(here) - node.level] if node.level else ()
            module = (*above, *([node.module] if node.module else []))
            names += [".".join((*module, alias.name)) for alias in node.names]
    parts = [tuple(name.split(".")) for name in names]
    depth = len(package)
    rooms = {part[depth] if len(part) > depth else "__init__" for part in parts if part[:depth] == package}
    return rooms - {here[depth]}


def arrows(package: tuple[str, ...]) -> dict[str, set[str]]:
    """Each room of a package and all rooms that its files import."""
    found: dict[str, set[str]] = {}
    for path in sorted(ROOT.joinpath(*package).rglob("*.py")):
        room = path.relative_to(ROOT).with_suffix("").parts[len(package)]
        found.setdefault(room, set()).update(imported_rooms(path.read_text(encoding="utf-8"), path, package))
    return found


@pytest.mark.parametrize(
    ("package", "permitted"), [(("mult",), MAY_IMPORT), (("mult", "data"), DATA_MAY_IMPORT)], ids=["mult", "mult.data"]
)
def test_imports_are_those_permitted_and_every_permission_is_used(
    package: tuple[str, ...], permitted: dict[str, set[str]]
) -> None:
    assert arrows(package) == permitted


@pytest.mark.parametrize("permitted", [MAY_IMPORT, DATA_MAY_IMPORT], ids=["mult", "mult.data"])
def test_the_arrows_have_no_cycle(permitted: dict[str, set[str]]) -> None:
    done: set[str] = set()
    while ready := {room for room, needs in permitted.items() if room not in done and needs <= done}:
        done |= ready
    assert done == set(permitted)


@pytest.mark.parametrize(
    ("source", "relative", "expected"),
    [
        ("from mult import data", "tasks.py", {"data"}),
        ("from mult import losses, draw", "tasks.py", {"losses", "draw"}),
        ("import mult.data.rooms", "models/mult.py", {"data"}),
        ("from ..tasks import TASKS", "models/decoder.py", {"tasks"}),
        ("from .. import tasks", "models/decoder.py", {"tasks"}),
        ("from ...tasks import TASKS", "data/rooms/dataset.py", {"tasks"}),
        ("from .attention import Attention", "models/decoder.py", set()),
        ("from mult.models.attention import Attention", "models/decoder.py", set()),
        ("from . import train", "draw.py", {"train"}),
        ("import mult", "draw.py", {"__init__"}),
        ("def late():\n    from mult.training.loop import train", "metrics.py", {"training"}),
        ("if TYPE_CHECKING:\n    from mult.build import build_dataset", "losses.py", {"build"}),
        ("import multiprocessing, torch.nn", "losses.py", set()),
    ],
)
def test_an_import_is_found(source: str, relative: str, expected: set[str]) -> None:
    assert imported_rooms(source, in_mult(relative), ("mult",)) == expected


def test_an_import_between_datasets_is_found() -> None:
    source = "from mult.data.rooms.render import look_at\nfrom mult.tasks import TASKS\nfrom mult.data.nyu import forms"
    assert imported_rooms(source, in_mult("data/nyu/dataset.py"), ("mult", "data")) == {"rooms"}


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_mult_loads_nothing_heavy() -> None:
    heavy = {"torch", "torchvision", "timm", "numpy", "PIL", "skimage", "yaml"}
    loaded = run_python("import mult, sys; print(*sys.modules)").split()
    assert "mult" in loaded
    assert heavy.isdisjoint(loaded)


def test_public_names_are_there() -> None:
    kinds = run_python("import mult; print(*(type(getattr(mult, name)).__name__ for name in mult.__all__))").split()
    assert kinds == ["dict", "type", "type", "type", "function"]
    run_python("import mult\ntry: mult.nothing\nexcept AttributeError: pass\nelse: raise SystemExit('found nothing')")


def test_every_module_imports_without_the_extras() -> None:
    extras = ["OpenEXR", "h5py", "skimage", "scipy", "torchmetrics", "pytest", "matplotlib", "tensorboard", "torchjd"]
    extras += ["onnx", "onnxruntime", "onnxscript", "wandb", "trackio", "gradio"]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in MODULES]
    blocked = f"import sys\nfor name in {extras}: sys.modules[name] = None\n"
    run_python(blocked + "".join(f"import {name}\n" for name in names))


# --- What no file may say ---


def task_literals(source: str) -> set[str]:
    constants = (node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str) and value in TASKS}


def may_name_tasks(path: Path) -> bool:
    """The table of tasks, and what reads, derives, renders and checks labels: not how samples become batches."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:2] == ("mult", "tasks") or (
        parts[:2] == ("mult", "data") and parts[2] not in {"batches", "sample", "parallel"}
    )


@each([path for path in MODULES + SCRIPTS if not may_name_tasks(path)])
def test_no_task_is_named_outside_its_record_and_readers(path: Path) -> None:
    assert task_literals(path.read_text(encoding="utf-8")) == set()


def test_a_task_name_is_found() -> None:
    assert task_literals("if task == 'normal': pass") == {"normal"}
    assert task_literals("names = {'a': ['reshading', \"edge_texture\"]}") == {"reshading", "edge_texture"}
    assert task_literals("normal = 'the normal of a surface'") == set()


def unsafe(source: str) -> Iterator[str]:
    """What could run code from a file, or hide that it could."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            roots = {module.split(".")[0] for module in modules}
            yield from roots & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {item.arg: ast.unparse(item.value) for item in node.keywords}
        if called in {"eval", "exec", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"}:
            yield called
        if called == "torch.load" and keywords.get("weights_only") != "True":
            yield called
        if keywords.get("allow_pickle", "False") != "False":
            yield "allow_pickle"


@each(MODULES + SCRIPTS)
def test_no_file_can_run_code_from_data(path: Path) -> None:
    assert list(unsafe(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("torch.load(path)", ["torch.load"]),
        ("torch.load(path, weights_only=False)", ["torch.load"]),
        ("torch.load(path, weights_only=True)", []),
        ("yaml.load(text, Loader=yaml.SafeLoader)", ["yaml.load"]),
        ("yaml.safe_load(text)", []),
        ("import pickle", ["pickle"]),
        ("from pickle import loads", ["pickle"]),
        ("np.load(path, allow_pickle=True)", ["allow_pickle"]),
        ("np.load(path)", []),
        ("eval(text)", ["eval"]),
        ("exec(text)", ["exec"]),
        ("model.eval()", []),
    ],
)
def test_an_unsafe_call_is_found(source: str, expected: list[str]) -> None:
    assert list(unsafe(source)) == expected


# Spelled in pieces: this file is searched too.
LEFTOVERS = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b|breakpoint\(\)|/(?:ho" r"me|wo" r"rk|ro" r"ot)/")


def repository_files() -> list[Path]:
    """The files that git has: what else lies in somebody's checkout (an environment, pictures) is theirs."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git repository")
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).exists()]


def test_no_leftovers_and_no_path_of_one_machine() -> None:
    texts = {".py", ".md", ".yaml", ".toml", ".json", ".txt", ".csv", ""}
    found = {}
    for path in repository_files():
        if path.suffix in texts and (hits := LEFTOVERS.findall(path.read_text(encoding="utf-8"))):
            found[name_of(path)] = hits
    assert found == {}


def test_leftovers_are_found() -> None:
    assert LEFTOVERS.findall("# TO" + "DO: later") == ["TO" + "DO"]
    assert LEFTOVERS.findall("root: /ho" + "me/someone/data") == ["/ho" + "me/"]
    assert LEFTOVERS.findall("runs/framework/model.safetensors, XXXL") == []


PAGES = re.compile(r"[\w./-]*\w\.md\b")
WRITTEN = {"results.md", "comparison.md", "leaderboard.md"}
"""Pages that the commands write."""
WINGS = ("", "commands", "config", "data", "evaluation", "leaderboard", "metrics", "models", "report", "runs", "training")


def missing_pages(text: str, folder: Path) -> set[str]:
    """The pages that a text in `folder` cites and that lie neither there nor, by that path, in the repository."""
    cited = {page for page in PAGES.findall(text) if Path(page).name not in WRITTEN}
    return {page for page in cited if not (folder / page).is_file() and not (ROOT / page).is_file()}


def test_no_file_cites_a_page_that_is_not_there() -> None:
    found = {}
    for path in repository_files():
        if path.suffix in {".py", ".md", ".yaml", ".toml"} and path != Path(__file__).resolve():
            found[name_of(path)] = missing_pages(path.read_text(encoding="utf-8"), path.parent)
    assert {name: pages for name, pages in found.items() if pages} == {}


def test_a_missing_page_is_found() -> None:
    assert missing_pages("see paper" + ".md, and mult/data/README.md", ROOT / "mult") == {"paper" + ".md"}
    assert missing_pages("README.md has it", ROOT / "configs") == set()


@pytest.mark.parametrize("wing", WINGS)
def test_every_wing_says_what_it_is_for(wing: str) -> None:
    text = (ROOT / "mult" / wing / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) > 80
    assert max(map(len, text.splitlines())) < 200


# --- What a file and a folder may hold ---


@each(MODULES)
def test_no_file_is_too_long(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_no_file_is_a_drawer() -> None:
    names = {path.stem for path in MODULES + SCRIPTS}
    assert len(names) > 1
    assert names.isdisjoint({"utils", "util", "common", "helpers", "helper", "misc"})


def test_top_level_holds_only_what_it_should() -> None:
    names = {path.relative_to(ROOT).parts[0] for path in repository_files()}
    assert {name for name in names if not name.startswith(".")} == TOP_LEVEL


def unguarded(source: str) -> list[str]:
    """The top-level statements of a script that do something when it is imported."""
    definitions = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    found = []
    for node in ast.parse(source).body:
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_guard = isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
        if not (isinstance(node, definitions) or is_text or is_guard):
            found.append(ast.unparse(node))
    return found


@each(SCRIPTS)
def test_scripts_do_nothing_when_imported(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert unguarded(source) == []
    assert '__name__ == "__main__"' in source


def test_an_unguarded_script_is_found() -> None:
    guarded = '"""Doc."""\nimport sys\nN = 3\ndef main(): ...\nif __name__ == "__main__":\n    main()\n'
    assert unguarded(guarded) == []
    assert unguarded(guarded + "main()\n") == ["main()"]
    assert unguarded("if sys.argv: main()") != []


@each(CONFIGS)
def test_every_config_loads(path: Path) -> None:
    if path.stem.startswith("eval_"):  # a data section alone, for eval.py
        load_data_config(path, defaults=load_config(ROOT / "configs" / "rooms6.yaml").data)
        return
    config = load_config(path)
    assert set(config.tasks) <= set(TASKS)
    assert config.model.reference is None or config.model.reference in config.tasks


def test_there_is_something_to_check() -> None:
    assert MODULES
    assert SCRIPTS
    assert CONFIGS


# --- What the distribution holds ---


def test_the_distribution_has_every_package_and_every_config() -> None:
    """Named one by one in pyproject.toml, since configs/ lies outside mult/ in a checkout and inside it when installed."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r"^packages = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert found
    listed = re.findall(r'^ {4}"([\w.]+)",', found[1], re.MULTILINE)
    packages = {".".join(path.relative_to(ROOT).parent.parts) for path in MODULES if path.name == "__init__.py"}
    configs = {path.relative_to(ROOT).parent for path in (ROOT / "configs").rglob("*.yaml")}
    assert sorted(listed) == sorted(packages | {f"mult.{'.'.join(folder.parts)}" for folder in configs})


# --- README and CI say the same ---


def ci_commands(script: str) -> list[str]:
    return [line.removeprefix("step ").strip() for line in script.splitlines() if line.startswith("step ")]


def test_ci_runs_the_readme_test_command() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r'pip install -e "\.\[test\]" && ([^\n`]+)', readme)
    assert found, 'README.md lacks the test command, pip install -e ".[test]" && ...'
    assert found[1].strip() in ci_commands((ROOT / ".ci" / "run").read_text(encoding="utf-8"))


def test_ci_commands_are_read() -> None:
    assert ci_commands('set -e\nstep ruff check\n# step nothing\nstep pytest\necho "step x"\n') == [
        "ruff check",
        "pytest",
    ]
