"""Which weights a number is of: the step, the checksum of the file, and the commit of the code that trained them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from mult.errors import UserError
from mult.files import read_json
from mult.runs.checkpoint import MODEL_FILES, compute_checksum


def identify_weights(checkpoint: Path) -> dict[str, Any]:
    """{"step", "checksum", "commit"} of a checkpoint's folder.

    checksum: SHA-256 of its model.safetensors. step: None for a folder that training did not write. commit: that with which its
    run was started (runs/provenance.py), None where that is not known.
    """
    step, checksum, commit = None, None, None
    with suppress(UserError, KeyError, TypeError):
        manifest = read_json(checkpoint / "manifest.json")
        step, checksum = manifest["step"], manifest["sha256"][MODEL_FILES[0]]
    with suppress(UserError):
        commit = read_json(find_run(checkpoint) / "provenance.json").get("commit")
    return {"step": step, "checksum": checksum or compute_checksum(checkpoint / MODEL_FILES[0]), "commit": commit}


def find_run(checkpoint: Path) -> Path:
    """The folder of the run that a checkpoint's folder, <run>/checkpoints/<step>, is in; else that folder itself."""
    return checkpoint.parents[1] if checkpoint.parent.name == "checkpoints" else checkpoint
