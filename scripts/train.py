"""Train a model: python scripts/train.py --config configs/rooms6.yaml [section.key=value ...] [--resume]."""

from __future__ import annotations

import argparse
from pathlib import Path

from mult import build, distributed
from mult.cli import exit_on_user_error
from mult.config import load_config, to_yaml
from mult.runs import Run, find_checkpoint
from mult.train import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="a YAML of configs/")
    parser.add_argument("--resume", action="store_true", help="go on with the run in its folder")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    arguments = parser.parse_intermixed_args()
    with exit_on_user_error():
        config = load_config(arguments.config, arguments.overrides)
        device = distributed.pick_device(config.run.device)
        folder, resolved = Path(config.run.output) / config.run.name, to_yaml(config)
        Run.check(folder, resolved, arguments.resume)
        if config.run.init is not None:
            find_checkpoint(config.run.init)  # before there is a folder
        experiment = build.experiment(config)
        distributed.start(device)
        if distributed.is_main():
            Run.open(folder, resolved, config.run.seed, arguments.resume)
        train(experiment, Run(folder, resolved), device)
        if distributed.is_main():
            print(f"look at {folder}/gallery.png; all metrics: {folder}/eval/; checkpoints: {folder}/checkpoints/")
        distributed.stop()


if __name__ == "__main__":
    main()
