"""What the tests of the demo share: a photograph that is turned by its EXIF orientation, and models to look at."""

from __future__ import annotations

from base64 import b64decode
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from mult import Predictor
from mult.demo.view import Model
from mult.draw import TokenAttention, draw_attention_page
from mult.models import MulT
from mult.share import load_to_share

SIZE = (70, 110)
"""(width, height) of the photograph, upright."""
PLACES = [(3, 100), (69, 0), (41, 57)]
"""Pixels (x, y) of it: none is another's mirror image or transposed."""


@pytest.fixture(scope="session")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JPEG of 110 x 70 pixels that a quarter turn brings upright."""
    y, x = np.mgrid[0:70, 0:110]
    image = Image.fromarray(np.stack([2 * x, 3 * y, 255 * ((x > 60) & (y < 30))], axis=-1).astype(np.uint8))
    exif = image.getexif()
    exif[274] = 6
    path = tmp_path_factory.mktemp("photograph") / "upright.jpg"
    image.save(path, exif=exif)
    return path


BACKBONE = {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8]}


@pytest.fixture(scope="session")
def pushed(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `mult push` writes it, of a model without attention, for the same tasks and classes as `trained`."""
    shared = load_to_share(trained)
    torch.manual_seed(3)
    model = MulT(shared.arguments["tasks"], decoder="fpn", backbone_args=BACKBONE)
    model.classes, model.origin = shared.classes, shared.origin
    folder = tmp_path_factory.mktemp("pushed") / "model"
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def models(trained: Path, pushed: Path) -> list[Model]:
    """A model with shared attention and one without attention."""
    return [Model("runs/a", Predictor.from_checkpoint(trained)), Model("b", Predictor.from_pretrained(pushed))]


def decode(address: str) -> NDArray[np.uint8]:
    """The pixels of a picture in an HTML page, which is written into its address."""
    return np.asarray(Image.open(BytesIO(b64decode(address.removeprefix("data:image/png;base64,")))))


def draw_expected_page(predictor: Predictor, path: Path, x: int, y: int, owner: str, limit: int) -> NDArray[np.uint8]:
    """The page of pixel (x, y), from the recorded maps: the token is found by counting the pixels of the network's input."""
    with Image.open(path) as file:
        image = Image.fromarray(np.rot90(np.asarray(file), -1))  # without the EXIF orientation
    height, width = predictor.input_size(image)
    stages = []
    for attention in predictor.attention(image):
        if attention.owner != owner:
            continue
        stride = attention.stride
        place = (int((y + 0.5) * height / image.height // stride), int((x + 0.5) * width / image.width // stride))
        weights, visible = attention.select(*place)
        covered = (height / stride, width / stride)
        stages.append(TokenAttention(stride, weights.numpy(), visible.numpy(), place, covered))
    shared = ", for all tasks" if len({each.owner for each in predictor.attention(image)}) == 1 else ""
    title = f"What ({x}, {y}) attends to: {owner}'s query and key{shared}"
    pixels: Any = np.asarray(image, np.float32).transpose(2, 0, 1) / 255
    return np.asarray(draw_attention_page(pixels, title, stages, limit=limit))
