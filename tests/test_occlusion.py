"""Holes are what the face mask rejects, and are filled by the harmonic membrane."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extreme3d_fast.errors import OcclusionUnavailable
from extreme3d_fast.occlusion import fill_bump, find_holes

SIZE = 320


def blob(seed, shape, density):
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.0)
    return smooth > np.quantile(smooth, 1 - density)


def test_plane_is_continued_exactly():
    y, x = np.mgrid[:60, :80].astype(np.float32)
    plane = 0.02 * x - 0.01 * y + 0.3
    hole = np.hypot(x - 40, y - 30) < 22
    filled = fill_bump(np.where(hole, np.float32(9), plane), ~hole, np.ones_like(hole))
    np.testing.assert_allclose(filled, plane, atol=1e-3)  # the solver's tolerance


@given(st.integers(0, 10**6))
def test_fill_has_no_extremes_of_its_own(seed):
    region = np.ones((40, 40), bool)
    known = ~blob(seed, (40, 40), 0.5)
    bump = np.random.default_rng(seed).normal(size=(40, 40)).astype(np.float32)
    filled = fill_bump(bump, known, region)
    slack = 2e-3  # the solver's tolerance
    assert filled[~known].max() <= bump[known].max() + slack
    assert filled[~known].min() >= bump[known].min() - slack


def test_fill_is_free_at_the_border_of_the_region():
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5 - SIZE / 2
    region = np.hypot(x, y) < 133
    hole = (np.abs(y) < 33) & region  # reaches the border left and right
    bump = np.where(region & ~hole, np.float32(1), np.float32(0))
    filled = fill_bump(bump, ~hole, region)
    np.testing.assert_allclose(filled[region], 1, atol=1e-3)
    assert not filled[~region].any()


def test_hole_without_any_known_pixel_becomes_zero():
    bump = np.full((30, 30), 5, np.float32)
    nothing, all_ = np.zeros((30, 30), bool), np.ones((30, 30), bool)
    assert not fill_bump(bump, nothing, all_).any()


def test_known_pixels_are_not_touched():
    rng = np.random.default_rng(0)
    bump = rng.normal(size=(50, 50)).astype(np.float32)
    known = rng.random((50, 50)) < 0.6
    filled = fill_bump(bump, known, np.ones_like(known))
    assert np.array_equal(filled[known], bump[known])


def test_single_pixel_image_is_filled():
    assert fill_bump(np.ones((1, 1)), np.zeros((1, 1), bool), np.ones((1, 1), bool)) == 0


def test_method_none_changes_nothing():
    bump = np.full((5, 5), 3, np.float32)
    out = fill_bump(bump, np.zeros((5, 5), bool), np.ones((5, 5), bool), "none")
    assert np.array_equal(out, bump)
    assert out is not bump


def test_reference_filling_says_that_it_is_not_there_yet():
    with pytest.raises(OcclusionUnavailable, match="available: smooth, none"):
        fill_bump(np.zeros((5, 5)), np.ones((5, 5), bool), np.ones((5, 5), bool), "reference")
    assert issubclass(OcclusionUnavailable, NotImplementedError)


def test_unknown_method_is_refused():
    with pytest.raises(ValueError, match="smooth, none"):
        find_holes(np.ones((5, 5), bool), np.ones((5, 5)), "magic")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"bump": np.full((5, 5), np.nan)}, ValueError),
        ({"bump": np.zeros(5)}, ValueError),
        ({"known": np.ones((5, 5))}, TypeError),
        ({"region": np.ones((4, 5), bool)}, ValueError),
    ],
)
def test_bad_fill_input_is_refused_by_name(change, error):
    good = {
        "bump": np.zeros((5, 5)),
        "known": np.ones((5, 5), bool),
        "region": np.ones((5, 5), bool),
    }
    with pytest.raises(error, match=next(iter(change))):
        fill_bump(**{**good, **change})


def test_holes_are_the_rejected_part_of_the_face():
    weight = np.zeros((60, 60), np.float32)
    weight[10:50, 10:50] = 1
    mask = np.ones((60, 60), bool)
    mask[:, :20] = False
    occlusion = find_holes(mask, weight, margin=0)
    expected = np.zeros((60, 60), bool)
    expected[10:50, 10:20] = True
    assert np.array_equal(occlusion.hole, expected)
    assert occlusion.fraction == pytest.approx(0.25)
    assert find_holes(mask, weight, margin=3).hole[30, 10:23].all()
    assert not find_holes(mask, weight, "none").hole.any()


def test_specks_are_not_holes():
    mask = np.ones((500, 500), bool)
    mask[30:33, 30:33] = False
    assert not find_holes(mask, np.ones((500, 500))).hole.any()


@pytest.mark.parametrize("size", [250, 500, 1000])
def test_margins_grow_with_the_crop(size):
    mask = np.ones((size, size), bool)
    mask[: size // 2] = False
    hole = find_holes(mask, np.ones((size, size))).hole
    assert np.count_nonzero(hole[:, 0]) / size == pytest.approx(0.514, abs=0.003)
