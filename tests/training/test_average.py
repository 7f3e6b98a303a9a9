"""The moving average of the weights."""

from __future__ import annotations

import pytest
import torch

from mult.models import MulT
from mult.runs.folder import Run
from mult.training.experiment import build_experiment
from mult.training.loop import train
from tests.run_files import (
    Configured,
    find_differences,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize("backbone", ["swin", "with running statistics"])
def test_the_average_follows_the_weights(configured: Configured, backbone: str) -> None:
    overrides = ["optim.ema=0.25", "eval.every=1", "optim.steps=3", "run.keep=3"]
    if backbone != "swin":
        overrides += ["model.backbone=test_resnet", "model.backbone_args={}", "model.num_heads=1", "tasks={normal: 1}"]
    config = configured(*overrides)
    run = Run.open(config, resume=False)
    experiment = build_experiment(config)
    expected = {name: tensor.clone() for name, tensor in experiment.model.state_dict().items()}
    train(experiment, run, CPU)
    parameters = dict(experiment.model.named_parameters())
    for step in (1, 2, 3):
        checkpoint = run.folder / "checkpoints" / str(step)
        average = MulT.from_pretrained(checkpoint).state_dict()
        model = torch.load(checkpoint / "state.pt", weights_only=True)["model"]
        decay = min(0.25, (1 + step) / (10 + step))
        for name, value in model.items():
            # Statistics of the data are no weights: the newest ones are the best.
            expected[name] = decay * expected[name] + (1 - decay) * value if name in parameters else value
        assert max(float((average[name] - expected[name]).abs().max()) for name in expected) < 1e-6
        assert find_differences(average, model)
