"""The noise of depth and what it does to normals, against noise that is put there."""

from __future__ import annotations

import numpy as np
import pytest

from mult.data.prepare.measure import DepthFacts, measure, summarise
from mult.labels import normals_from_depth

CAMERA = (260.0, 240.0, 119.5, 79.5)
SIZE = (160, 240)


@pytest.mark.parametrize(("noise", "window"), [(0.002, 25), (0.0006, 25)])
def test_the_tilt_is_what_noise_does_to_normals(noise: float, window: int) -> None:
    distance_m = 1.8
    inverse = 1 / distance_m + np.random.default_rng(3).normal(0, noise, SIZE)
    depth_m, valid = 1 / inverse, np.ones(SIZE, np.bool_)
    facts = measure(depth_m, valid, CAMERA, valid)
    assert facts is not None
    assert facts.median_m == pytest.approx(distance_m, rel=0.01)
    assert 0.7 * noise < facts.noise_per_m < noise
    normal, mask = normals_from_depth(depth_m, CAMERA, valid)
    angles = np.degrees(np.arccos(np.clip(-normal[2][mask], -1, 1)))
    # Each pixel's normal is a mean over windows that contain it, so that it is off by less than one window's would be.
    assert 0.3 * facts.tilt_deg < np.sqrt((angles**2).mean()) < 1.3 * facts.tilt_deg


def test_clean_depth_has_neither() -> None:
    depth_m = np.full(SIZE, 2.0)
    depth_m[:40] = 0
    with_normal = depth_m > 0
    with_normal[40:46] = False
    facts = measure(depth_m, depth_m > 0, CAMERA, with_normal)
    assert facts is not None
    assert facts._replace(normal_share=None) == DepthFacts(2.0, 0.0, None, 0.0)
    assert facts.normal_share == pytest.approx(114 / 120)
    assert str(facts).endswith("95.0% of the pixels with depth have a normal")
    assert "sensor" not in str(facts)
    assert measure(depth_m, np.zeros(SIZE, np.bool_), CAMERA, None) is None


def test_several_are_summarised_by_medians() -> None:
    assert summarise([]) is None
    facts = [DepthFacts(1.0, 0.001, None, 0.1), DepthFacts(3.0, 0.002, 0.9, 0.3), DepthFacts(2.0, 0.004, 0.8, 0.2)]
    several = summarise(facts)
    assert several is not None
    assert several._replace(normal_share=None) == DepthFacts(2.0, 0.002, None, 0.2)
    assert several.normal_share == pytest.approx(0.85)
