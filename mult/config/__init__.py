"""TODOC"""

from mult.config.sections import (
    BalanceConfig,
    Config,
    DataConfig,
    EvalConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    TaskConfig,
    load_config,
    load_data_config,
    read_data,
    to_yaml,
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
    "load_config",
    "load_data_config",
    "read_data",
    "to_yaml",
]
