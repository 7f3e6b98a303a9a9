"""The fixture of every test of a balance method."""

from __future__ import annotations

import pytest

from tests.training.balance.toy import Toy


@pytest.fixture
def toy() -> Toy:
    """Two gradients in conflict: their product is -1."""
    return Toy()
