"""An experiment's config: its sections, the values they may have, and the YAML files and overrides they come from."""

from mult.config.load import build_data_config, load_config, load_data_config
from mult.config.schema import to_yaml
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
    "load_config",
    "load_data_config",
    "to_yaml",
]
