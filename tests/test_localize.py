"""The search for a face by the pose network: with one that knows, it is found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from perfect_networks import PerfectPose

from extreme3d_fast.localize import LOOKS, MIN_CONFIDENCE, follow, localize
from extreme3d_fast.pose import HeadSquare

SHAPES = [(300, 300), (480, 640), (1200, 600)]
inside = st.floats(0.15, 0.85)


@given(
    shape=st.sampled_from(SHAPES),
    at=st.tuples(inside, inside),
    share=st.floats(0.12, 2.0),
    roll=st.floats(-3, 3),
)
def test_head_is_found_at_every_place_and_size(shape, at, share, roll):
    height, width = shape
    truth = HeadSquare(np.array(at) * [width, height], share * min(shape), roll)
    found = localize(np.zeros((*shape, 3), np.uint8), PerfectPose(truth, width))
    assert found is not None
    np.testing.assert_allclose(found.square.center, truth.center, atol=1e-6 * max(shape))
    assert found.square.side == pytest.approx(truth.side)
    assert found.square.roll == roll


def test_surest_of_two_is_taken(rng):
    photo = rng.integers(0, 256, (400, 400, 3)).astype(np.uint8)
    left = PerfectPose(HeadSquare(np.array([100.0, 200.0]), 120.0, 0.0), 400, confidence=0.9)
    right = PerfectPose(HeadSquare(np.array([300.0, 200.0]), 120.0, 0.0), 400, confidence=0.94)

    class Both(PerfectPose):
        def _look(self, scale, square):
            seen = (left._look(scale, square), right._look(scale, square))
            return max(seen, key=lambda estimate: estimate.confidence)

    found = localize(photo, Both(None, 400))
    assert found is not None
    assert found.square.center[0] == 300.0


@pytest.mark.parametrize("confidence", [MIN_CONFIDENCE - 0.01, MIN_CONFIDENCE])
def test_what_is_found_is_sure_enough(confidence):
    truth = HeadSquare(np.array([150.0, 150.0]), 150.0, 0.0)
    found = localize(
        np.zeros((300, 300, 3), np.uint8), PerfectPose(truth, 300, confidence=confidence)
    )
    assert (found is not None) == (confidence >= MIN_CONFIDENCE)


@pytest.mark.parametrize(
    "shape", [(1, 1), (2, 3), (23, 19), (1, 10_000), (10_000, 30), (30, 640), (123, 640)], ids=str
)
def test_nothing_is_found_where_nothing_is_whatever_the_shape(shape):
    network = PerfectPose(None, shape[1])
    assert localize(np.zeros((*shape, 3), np.uint8), network) is None
    assert network.looks < 1500  # a look costs about 5 ms


def test_large_photo_is_searched_small():
    class Witness(PerfectPose):
        seen: tuple[int, ...] = ()

        def estimate(self, photo, squares):
            self.seen = photo.shape
            return super().estimate(photo, squares)

    truth = HeadSquare(np.array([4000.0, 900.0]), 800.0, 0.5)
    network = Witness(truth, 6000)
    found = localize(np.zeros((3000, 6000, 3), np.uint8), network)
    assert max(network.seen) == 640
    assert found is not None
    np.testing.assert_allclose(found.square.center, truth.center)


def test_following_looks_where_the_last_look_said():
    asked = []

    class Halving:
        def estimate(self, photo, squares):
            (square,) = squares
            asked.append(square.side)
            half = HeadSquare(square.center, square.side / 2, 0.0)
            return PerfectPose(None, photo.shape[1])._look(1.0, half), None

    last = follow(np.zeros((9, 9, 3), np.uint8), Halving(), HeadSquare(np.zeros(2), 64.0, 0), LOOKS)
    assert asked == [64.0, 32.0, 16.0]
    assert last.square.side == 8.0
