"""Holes are what the face mask rejects; they take a reference's detail, else a smooth surface."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extreme3d_fast.blending import blend_gradients
from extreme3d_fast.occlusion import fill_bump, find_holes, unfade

SIZE = 120
Y, X = (np.mgrid[:SIZE, :SIZE] + 0.5 - SIZE / 2).astype(np.float32)
RIPPLES = (0.4 * np.sin(X / 3) * np.cos(Y / 4)).astype(np.float32)
RADIUS = np.hypot(X, Y)
FACE = RADIUS < 50
SOLID = FACE.astype(np.float32)
FADING = np.clip((50 - RADIUS) / 12, 0, 1).astype(np.float32)  # as a face weight does
SLACK = 2e-3  # mm; of the solver


def test_reference_of_the_same_face_gives_it_back():
    hole = (RADIUS < 20) & FACE
    filled = fill_bump(np.where(hole, 9, RIPPLES * FADING), FADING, hole, RIPPLES)
    np.testing.assert_allclose(filled, RIPPLES * FADING, atol=SLACK)


@given(st.floats(-3, 3))
def test_only_the_slopes_of_a_reference_count(offset):
    hole = (RADIUS < 20) & FACE
    bump = RIPPLES * FADING
    filled = fill_bump(bump, FADING, hole, RIPPLES + np.float32(offset))
    np.testing.assert_allclose(filled, bump, atol=2 * SLACK)


def test_hole_at_the_border_of_the_face_fades_out():
    hole = (np.abs(Y) < 15) & FACE
    one = np.where(FACE, FADING, 0)
    np.testing.assert_allclose(fill_bump(one, FADING, hole), one, atol=SLACK)


def test_where_the_reference_shows_nothing_it_adds_nothing():
    hole = (RADIUS < 20) & FACE
    spikes = np.random.default_rng(0).normal(size=hole.shape)
    nowhere = np.zeros_like(hole)
    np.testing.assert_allclose(
        fill_bump(RIPPLES, SOLID, hole, spikes, nowhere),
        fill_bump(RIPPLES, SOLID, hole),
        atol=SLACK,
    )


def test_smooth_fill_has_no_extremes_of_its_own():
    hole = (RADIUS < 25) & FACE
    filled = fill_bump(np.where(hole, 9, RIPPLES), SOLID, hole)
    known = FACE & ~hole
    assert filled[hole].max() <= RIPPLES[known].max() + SLACK
    assert filled[hole].min() >= RIPPLES[known].min() - SLACK


def test_known_pixels_are_not_touched():
    hole = np.random.default_rng(0).random(FACE.shape) < 0.4
    filled = fill_bump(RIPPLES, FADING, hole, RIPPLES)
    assert np.array_equal(filled[~hole], RIPPLES[~hole])


def test_face_that_is_hidden_altogether_takes_the_reference_or_nothing():
    assert not fill_bump(RIPPLES, FADING, FACE)[FACE].any()
    filled = fill_bump(np.zeros_like(RIPPLES), FADING, FACE, RIPPLES)
    np.testing.assert_allclose(filled, RIPPLES * FADING, atol=SLACK)


def test_nothing_outside_the_face_is_filled():
    everywhere = np.ones_like(FACE)
    bump = np.full_like(RIPPLES, 5)
    assert (fill_bump(bump, FADING, everywhere)[~FACE] == 5).all()


def test_single_pixel_image_is_filled():
    assert fill_bump(np.ones((1, 1)), np.ones((1, 1)), np.ones((1, 1), bool)) == 0


@pytest.mark.parametrize("threads", [1, 3])
def test_window_of_the_holes_is_filled_as_the_whole_map_is(threads):
    rng = np.random.default_rng(0)
    hole = cv2.blur(rng.normal(size=FACE.shape), (9, 9)) > 0.15
    bump = RIPPLES * FADING
    unfaded, known = unfade(bump, FADING, hole, threads=threads)
    np.testing.assert_array_equal(known, ~hole & (FADING >= 0.1))
    weight = np.where(known, FADING, 1)
    np.testing.assert_array_equal(unfaded, np.where(known, bump, 0) / weight)
    unknown = hole & (FADING > 0)
    other, half = RIPPLES[:, ::-1], X > 3
    blended = blend_gradients(unfaded, known, known | unknown, other, half)
    filled = fill_bump(bump, FADING, hole, other, half, threads=threads)
    np.testing.assert_array_equal(filled, np.where(unknown, blended * FADING, bump))


def test_unknown_method_is_refused():
    with pytest.raises(ValueError, match="smooth"):
        find_holes(np.ones((5, 5), bool), np.ones((5, 5)), "magic")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"bump": np.full((5, 5), np.nan)}, ValueError),
        ({"bump": np.zeros(5)}, ValueError),
        ({"hole": np.ones((5, 5))}, TypeError),
        ({"weight": np.ones((4, 5))}, ValueError),
        ({"borrowed": np.full((5, 5), np.inf)}, ValueError),
        ({"valid": np.ones((5, 5), bool)}, ValueError),
    ],
)
def test_bad_fill_input_is_refused_by_name(change, error):
    good = {"bump": np.zeros((5, 5)), "weight": np.ones((5, 5)), "hole": np.zeros((5, 5), bool)}
    with pytest.raises(error, match=next(iter(change))):
        fill_bump(**{**good, **change})


def test_holes_are_the_rejected_part_of_the_face():
    weight = np.zeros((60, 60), np.float32)
    weight[10:50, 10:50] = 1
    mask = np.ones((60, 60), bool)
    mask[:, :20] = False
    occlusion = find_holes(mask, weight)
    expected = np.zeros((60, 60), bool)
    expected[10:50, 10:20] = True  # the margin is less than a pixel here
    assert np.array_equal(occlusion.hole, expected)
    assert occlusion.fraction == pytest.approx(0.25)
    assert not find_holes(mask, weight, "none").hole.any()


def holes_of_opencv(mask, weight):
    """Twin: what OpenCV's components and distances make of it."""
    scale = weight.shape[1] / 500
    face = weight > 0
    _, label, stats, _ = cv2.connectedComponentsWithStats((face & ~mask).view(np.uint8))
    large = stats[:, cv2.CC_STAT_AREA] >= 30 * scale**2
    large[0] = False
    grown = large[label]
    if not grown.any():
        return grown
    away = cv2.distanceTransform((~grown).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    grown = away <= 7 * scale
    islands = (face & ~grown).view(np.uint8)
    _, label, stats, _ = cv2.connectedComponentsWithStats(islands, connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < 1000 * scale**2
    return (grown | small[label]) & face


@pytest.mark.parametrize("shape", [(500, 500), (301, 257), (700, 1100)])
@pytest.mark.parametrize(("size", "share"), [(0.5, 0.1), (2, 0.2), (2, 0.6), (8, 0.2), (8, 0.9)])
def test_holes_are_those_of_opencv(shape, size, share):
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    radius = np.hypot(x / shape[1] - 0.5, y / shape[0] - 0.5)
    weight = np.clip((0.45 - radius) / 0.1, 0, 1)
    noise = cv2.GaussianBlur(np.random.default_rng(0).normal(size=shape), (0, 0), size)
    mask = noise > np.quantile(noise, share)
    occlusion = find_holes(mask, weight)
    np.testing.assert_array_equal(occlusion.hole, holes_of_opencv(mask, weight))
    assert occlusion.fraction == pytest.approx(weight[~mask].sum() / weight.sum(), rel=1e-5)


def test_face_that_touches_the_border_of_the_crop_has_holes_there():
    mask = np.ones((500, 500), bool)
    mask[:10, 490:] = False
    hole = find_holes(mask, np.ones((500, 500))).hole
    assert hole[:17, 490:].all()
    assert hole[:10, 483:].all()
    assert not hole[17:].any()
    assert not hole[:, :483].any()


def test_shards_between_holes_are_not_trusted():
    mask = np.zeros((500, 500), bool)
    mask[:200] = True  # the face
    mask[300:320, 300:320] = True  # a shard of a hat that passes for skin
    hole = find_holes(mask, np.ones((500, 500))).hole
    assert hole[220:].all()
    assert not hole[:180].any()


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
