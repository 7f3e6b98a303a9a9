"""Train a model: mult train --config rooms6 [section.key=value ...] [--resume]."""

from __future__ import annotations

import argparse

from mult.cli import exit_on_user_error
from mult.config import load_config
from mult.runs.folder import Run
from mult.runtime import distributed
from mult.runtime.signals import Signals
from mult.training.experiment import build_experiment
from mult.training.loop import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="a YAML of configs/")
    parser.add_argument("--resume", action="store_true", help="go on with the run in its folder")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    arguments = parser.parse_intermixed_args()
    with exit_on_user_error(), Signals() as signals:
        config = load_config(arguments.config, arguments.overrides)
        device = distributed.pick_device(config.run.device)
        run = Run(config)
        with distributed.process_group(device):
            with distributed.main_first():
                if distributed.is_main():
                    run.check(arguments.resume)
                experiment = build_experiment(config, resumes=run.has_checkpoint())
                if distributed.is_main():  # after building, which finds mistakes in the config: they leave no folder
                    run = Run.open(config, arguments.resume)
            results = train(experiment, run, device, signals)
            if distributed.is_main() and results is not None:
                where = f"all metrics: {run.folder}/eval/; checkpoints: {run.folder}/checkpoints/"
                print(f"look at {run.folder}/gallery.png; {where}")
