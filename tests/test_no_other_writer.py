"""files.py is the only module that writes a file: the calls by which another could are searched for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

EXCEPTIONS = {
    "mult/cli.py": {"open": "the null device, in place of a stream that was closed"},
    "mult/data/disk/stored.py": {"os.open": "to read, without waiting at a pipe"},
    "mult/runs/folder.py": {
        "open": "metrics.jsonl grows by a line a step",
        "os.truncate": "it is cut back to the checkpoint that training goes on from; the lock is emptied",
        "os.open": "the lock",
        "os.write": "the lock says who has it",
    },
    "scripts/soak.py": {
        "open": "the output of the processes that it starts",
        "image.write_bytes": "it damages a file on purpose",
    },
}
"""Who else writes what, and why."""

METHODS = {"write_text", "write_bytes", "tofile", "symlink_to", "hardlink_to", "save_file", "savetxt", "rename"}
SAVES = {"save", "savez", "savez_compressed"}
OUR_SAVES = ("checkpoints.save", "cache.save", "state.save")
"""Methods of ours of that name, which write with files.py."""
SYSTEM = {f"os.{name}" for name in ("open", "replace", "rename", "link", "symlink", "truncate", "write")}


def find_writes(source: str) -> Iterator[str]:
    """The calls that write a file; a save into what is called `file` is not one, since that is what `write_file` passes."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        name, is_method = called.rpartition(".")[2], isinstance(node.func, ast.Attribute)
        modes = [*node.args[0 if is_method else 1 :][:1], *(item.value for item in node.keywords if item.arg == "mode")]
        if (
            called in SYSTEM
            or called.startswith(("shutil.copy", "shutil.move"))
            or (is_method and name in METHODS)
            or (is_method and name in SAVES and not called.endswith(OUR_SAVES) and "file" not in map(ast.unparse, node.args))
            or (name == "open" and any(set(ast.literal_eval(mode)) & set("wax+") for mode in constants(modes)))
        ):
            yield called


def constants(values: list[ast.expr]) -> list[ast.Constant]:
    return [value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)]


SOURCES = [path for folder in ("mult", "scripts") for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_other_module_writes_a_file(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    if name != "mult/files.py":
        assert set(find_writes(path.read_text(encoding="utf-8"))) == set(EXCEPTIONS.get(name, {}))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("open(path, 'w')", ["open"]),
        ("open(path, mode='ab')", ["open"]),
        ("path.open('r+')", ["path.open"]),
        ("open(path)", []),
        ("open(path, 'rb')", []),
        ("open(path, newline='', encoding='utf-8-sig')", []),
        ("Image.open(path)", []),
        ("path.write_text(text)", ["path.write_text"]),
        ("write_text(path, text)", []),
        ("np.save(path, array)", ["np.save"]),
        ("write_file(path, lambda file: np.save(file, array))", []),
        ("image.save(path, 'PNG')", ["image.save"]),
        ("image.save(file, 'PNG')", []),
        ("torch.save(state, path)", ["torch.save"]),
        ("shutil.copyfile(a, b)", ["shutil.copyfile"]),
        ("os.replace(a, b)", ["os.replace"]),
        ("text.replace('a', 'b')", []),
        ("save(weights)", []),
        ("self.checkpoints.save(step, model)", []),
        ("os.truncate(path, 0)", ["os.truncate"]),
    ],
)
def test_a_write_is_found(source: str, expected: list[str]) -> None:
    assert list(find_writes(source)) == expected
