"""An experiment's config: its sections, the values they may have, and the YAML files and overrides they come from."""

from mult.config.load import build_data_config, load_config, load_data_config
from mult.config.sections import (
    BalanceConfig,
    Config,
    DataConfig,
    EvalConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    TaskConfig,
)
from mult.config.shipped import find_config
from mult.config.yaml_text import to_yaml

__all__ = [
    "BalanceConfig",
    "Config",
    "DataConfig",
    "EvalConfig",
    "ModelConfig",
    "OptimConfig",
    "RunConfig",
    "TaskConfig",
    "build_data_config",
    "find_config",
    "load_config",
    "load_data_config",
    "to_yaml",
]
