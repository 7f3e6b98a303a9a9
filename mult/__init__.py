"""MulT: one image in, six dense maps out, by one transformer with shared attention (Bhattacharjee et al., CVPR 2022).

The public names are imported on first use, so that `import mult` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mult.config import load_config
    from mult.errors import UserError
    from mult.predict import Predictor
    from mult.tasks import TASKS, Task

__all__ = ["TASKS", "Predictor", "Task", "UserError", "load_config"]
__version__: str
"""The version of the installed distribution, mult-dense; "not installed" for a checkout that is not."""

_HOME = {
    "TASKS": "mult.tasks",
    "Task": "mult.tasks",
    "Predictor": "mult.predict",
    "UserError": "mult.errors",
    "load_config": "mult.config",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _find_version()
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def _find_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("mult-dense")
    except PackageNotFoundError:
        return "not installed"
