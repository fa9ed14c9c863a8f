"""Gradient-domain blending: closed forms, theorems and a direct sparse solution."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.sparse.linalg import spsolve

from extreme3d_fast.blending import blend_gradients

SHAPE = (37, 42)
SHARE = 1e-4  # the default tolerance: of the range of values and guidance
FREE_PULL = 1e-3
RIGHT = ((slice(None), slice(0, -1)), (slice(None), slice(1, None)))
BELOW = ((slice(0, -1), slice(None)), (slice(1, None), slice(None)))


def direct_blend(values, known, region, guidance=None, guided=None):
    """Twin: one row of least squares a pair of neighbours, solved by a sparse factorisation."""
    unknown = region & ~known
    n = np.count_nonzero(unknown)
    if guidance is None:
        guided = np.zeros_like(region)
    elif guided is None:
        guided = np.ones_like(region)
    g = np.where(guided, 0.0 if guidance is None else guidance, 0.0)
    index = np.full(region.shape, n)  # columns: the unknowns, then what is known
    index[unknown] = np.arange(n)
    rows, offset = [], []
    for a, b in (RIGHT, BELOW):
        pair = region[a] & region[b] & (unknown[a] | unknown[b])
        step = np.where(guided[a] & guided[b], g[a] - g[b], 0.0)[pair]
        fixed = [np.where(unknown[s], 0.0, values[s])[pair] for s in (a, b)]
        rows.append((index[a][pair], index[b][pair]))
        offset.append(step - fixed[0] + fixed[1])
    i, j = (np.concatenate([r[k] for r in rows]) for k in (0, 1))
    m = len(i)
    at, one = np.arange(m), np.ones(m)
    steps = sparse.coo_matrix((one, (at, i)), (m, n + 1)) - sparse.coo_matrix(
        (one, (at, j)), (m, n + 1)
    )
    normal = (steps.T @ steps).tocsr()
    part = sparse.csgraph.connected_components(normal[:n, :n], directed=False)[1]
    anchored = np.isin(part, part[np.abs(normal[:n, n].toarray().ravel()) > 0])
    pull = np.where(anchored, 0.0, FREE_PULL)
    matrix = normal[:n, :n] + sparse.diags(pull)
    right = (steps.T @ np.concatenate(offset))[:n] + pull * g[unknown]
    out = np.asarray(values, np.float64).copy()
    if n:
        out[unknown] = spsolve(matrix.tocsc(), right)
    return out


def blob(rng, share, shape=SHAPE, size=2.0):
    smooth = cv2.GaussianBlur(rng.normal(size=shape), (0, 0), size)
    return smooth > np.quantile(smooth, 1 - share)


def noise(rng, shape=SHAPE):
    return rng.normal(size=shape).astype(np.float32)


def span(*maps):
    return sum(float(np.ptp(m)) for m in maps if m is not None)


def ramp(shape=SHAPE):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (0.02 * x - 0.05 * y + 0.3).astype(np.float32)


def disc(radius=11, shape=SHAPE):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.hypot(x - shape[1] // 2, y - shape[0] // 2) < radius


EVERYWHERE = np.ones(SHAPE, bool)

# === Closed forms ===


def test_membrane_continues_a_ramp():
    values = np.where(disc(), np.float32(9), ramp())
    got = blend_gradients(values, ~disc(), EVERYWHERE)
    np.testing.assert_allclose(got, ramp(), atol=SHARE * span(ramp()))


@pytest.mark.parametrize("seed", range(3))
def test_guidance_that_agrees_with_the_known_pixels_is_reproduced(seed):
    rng = np.random.default_rng(seed)
    truth, region = noise(rng), blob(rng, 0.8)
    known = ~blob(rng, 0.5) & region
    values = np.where(known, truth, np.float32(5))
    got = blend_gradients(values, known, region, truth)
    reached = region & np.isclose(direct_blend(values, known, region, truth), truth, atol=1e-6)
    np.testing.assert_allclose(got[reached], truth[reached], atol=SHARE * span(truth))


def test_an_offset_between_guidance_and_values_is_spread_as_a_membrane():
    rng = np.random.default_rng(3)
    guidance, offset, hole = noise(rng), ramp() * 4, disc()
    got = blend_gradients(guidance + offset, ~hole, EVERYWHERE, guidance)
    np.testing.assert_allclose(
        got - guidance, offset, atol=SHARE * span(guidance, offset)
    )  # the membrane of a ramp is the ramp


def test_a_step_of_the_guidance_counts_only_between_guided_pixels():
    values, hole = np.zeros((1, 12), np.float32), np.zeros((1, 12), bool)
    hole[0, 2:] = True  # free at the right end
    guidance = np.arange(12, dtype=np.float32)[None]
    guided = np.arange(12)[None] >= 5
    got = blend_gradients(values, ~hole, np.ones_like(hole), guidance, guided)
    np.testing.assert_allclose(got[0], [0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6], atol=12 * SHARE)


def test_a_hole_at_the_border_of_the_region_ends_level():
    """In a strip that is known at one end only, the membrane is constant."""
    values = np.full((9, 40), 3, np.float32)
    region = np.zeros((9, 40), bool)
    region[3:6, 5:30] = True
    known = np.zeros_like(region)
    known[:, :8] = True
    got = blend_gradients(np.where(known & region, values, 0), known, region)
    np.testing.assert_allclose(got[region], 3, atol=1e-5)
    assert not got[~region].any()


def test_what_meets_nothing_known_is_the_guidance_itself():
    rng = np.random.default_rng(0)
    guidance, nothing = noise(rng), np.zeros(SHAPE, bool)
    got = blend_gradients(np.full(SHAPE, 7, np.float32), nothing, EVERYWHERE, guidance)
    np.testing.assert_allclose(got, guidance, atol=SHARE * span(guidance))
    assert not blend_gradients(np.full(SHAPE, 7, np.float32), nothing, EVERYWHERE).any()


def test_single_pixels_are_blended():
    one, no = np.ones((1, 1), bool), np.zeros((1, 1), bool)
    assert blend_gradients(np.ones((1, 1)), no, one) == 0
    assert blend_gradients(np.ones((1, 1)), no, one, np.full((1, 1), 4.0)) == pytest.approx(4)
    assert blend_gradients(np.ones((1, 1)), no, no) == 1
    assert blend_gradients(np.ones((0, 5)), np.ones((0, 5), bool), np.ones((0, 5), bool)).size == 0


# === Theorems ===


@given(st.integers(0, 10**6))
def test_membrane_has_no_extremes_of_its_own(seed):
    rng = np.random.default_rng(seed)
    region, hole, values = blob(rng, 0.8), blob(rng, 0.5), noise(rng)
    met = region & ~hole & cv2.dilate((region & hole).view(np.uint8), np.ones((3, 3))).astype(bool)
    assume(met.any())
    everywhere = direct_blend(values, ~hole, region) != 0  # holes that meet nothing are 0
    got = blend_gradients(values, ~hole, region)[region & hole & everywhere]
    slack = SHARE * span(values)
    assert got.size == 0 or got.max() <= max(values[met].max(), 0) + slack
    assert got.size == 0 or got.min() >= min(values[met].min(), 0) - slack


@given(st.integers(0, 10**6))
def test_blending_is_linear_in_values_and_guidance(seed):
    rng = np.random.default_rng(seed)
    region, known = blob(rng, 0.8), ~blob(rng, 0.4)
    (v, w), (g, h) = (noise(rng), noise(rng)), (noise(rng), noise(rng))
    both = blend_gradients(2 * v - w, known, region, 2 * g - h)
    apart = 2 * blend_gradients(v, known, region, g) - blend_gradients(w, known, region, h)
    np.testing.assert_allclose(both, apart, atol=2 * SHARE * span(2 * v - w, 2 * g - h))


def test_a_constant_added_to_the_guidance_changes_nothing():
    rng = np.random.default_rng(1)
    values, guidance, known = noise(rng), noise(rng), ~disc()
    one = blend_gradients(values, known, EVERYWHERE, guidance)
    other = blend_gradients(values, known, EVERYWHERE, guidance + 8)
    np.testing.assert_allclose(one, other, atol=2e-5)  # rounding of guidance + 8


@given(st.integers(0, 10**6))
def test_mirrored_and_turned_maps_have_mirrored_and_turned_blends(seed):
    rng = np.random.default_rng(seed)
    maps = noise(rng), ~blob(rng, 0.4), blob(rng, 0.8), noise(rng), blob(rng, 0.7)
    one = blend_gradients(*maps)
    for change in (np.fliplr, np.flipud, np.transpose):
        np.testing.assert_allclose(
            blend_gradients(*(change(m) for m in maps)),
            change(one),
            atol=2 * SHARE * span(maps[0], maps[3]),
        )


def test_same_input_gives_the_same_bits():
    rng = np.random.default_rng(2)
    maps = noise(rng), ~blob(rng, 0.4), blob(rng, 0.8), noise(rng)
    assert np.array_equal(blend_gradients(*maps), blend_gradients(*maps))


# === Twin ===


@settings(max_examples=60)
@given(
    st.integers(0, 10**6),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.floats(0.02, 1.0),
    st.floats(0.2, 1.0),
    st.sampled_from(["membrane", "guided", "partly"]),
    st.sampled_from([0.01, 2.0, 6.0]),
)
def test_blend_equals_a_direct_solution(seed, shape, holes, area, guide, size):
    rng = np.random.default_rng(seed)
    region, known = blob(rng, area, shape, 4.0), ~blob(rng, holes, shape, size)
    values = noise(rng, shape)
    guidance = None if guide == "membrane" else noise(rng, shape)
    guided = blob(rng, 0.6, shape) if guide == "partly" else None
    got = blend_gradients(values, known, region, guidance, guided)
    want = direct_blend(values, known, region, guidance, guided)
    np.testing.assert_allclose(got, want, atol=SHARE * max(span(values, guidance), 1))
    same = ~(region & ~known)
    assert np.array_equal(got[same], values[same])


@pytest.mark.parametrize("guide", ["membrane", "guided", "partly"])
@pytest.mark.parametrize("place", ["inside", "side", "band", "corner", "islands", "free"])
def test_large_holes_equal_a_direct_solution(place, guide):
    rng = np.random.default_rng(5)
    size = 200
    y, x = np.mgrid[:size, :size] - size / 2
    region = (x / 80) ** 2 + (y / 95) ** 2 < 1
    wobble = cv2.GaussianBlur(rng.normal(size=(size, size)), (0, 0), 6) * 80
    hole = {
        "inside": np.hypot(x, y) + wobble < 50,
        "side": x + wobble < -10,
        "band": np.abs(y) + wobble < 30,
        "corner": (x < 0) & (y < 0),
        "islands": (np.hypot(x, y) < 60) & (wobble < 12),
        "free": np.ones_like(region),
    }[place]
    if place == "corner":
        region = np.ones_like(region)
    values, guidance = (
        cv2.GaussianBlur(noise(rng, (size, size)), (0, 0), 10) * 10 + noise(rng, (size, size)) / 9
        for _ in range(2)
    )
    maps = values, ~hole, region
    if guide != "membrane":
        maps += (guidance + 2, np.abs(x) < 40 if guide == "partly" else None)
    limits = span(values[region]) + (span(guidance[region]) if guide != "membrane" else 0)
    np.testing.assert_allclose(blend_gradients(*maps), direct_blend(*maps), atol=SHARE * limits)


def test_a_smaller_tolerance_gives_smaller_errors():
    rng = np.random.default_rng(7)
    values, known = noise(rng), ~disc(15)
    want = direct_blend(values, known, EVERYWHERE)
    coarse = np.abs(blend_gradients(values, known, EVERYWHERE, tolerance=0.1) - want).max()
    fine = np.abs(blend_gradients(values, known, EVERYWHERE, tolerance=1e-6) - want).max()
    assert fine < 5e-6 < coarse


def test_values_far_from_zero_keep_their_digits():
    rng = np.random.default_rng(8)
    values = noise(rng)
    far = values + np.float32(1000)
    want = direct_blend(far, ~disc(), EVERYWHERE)
    np.testing.assert_allclose(blend_gradients(far, ~disc(), EVERYWHERE), want, atol=2e-4)


# === Hostile input ===


def test_numbers_that_are_not_used_may_be_anything():
    rng = np.random.default_rng(9)
    values, guidance, hole = noise(rng), noise(rng), disc()
    region = disc(15)
    guided = disc(8)
    want = blend_gradients(values, ~hole, region, guidance, guided)
    values[hole | ~region] = np.nan
    guidance[~(guided & region)] = np.inf
    got = blend_gradients(values, ~hole, region, guidance, guided)
    assert np.array_equal(got[region], want[region])
    assert np.isnan(got[~region]).all()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"values": np.full((5, 5), np.nan)}, ValueError),
        ({"values": np.full((5, 5), np.inf)}, ValueError),
        ({"values": np.zeros(5)}, ValueError),
        ({"values": np.zeros((5, 5), complex)}, TypeError),
        ({"known": np.ones((5, 5))}, TypeError),
        ({"known": np.ones((5, 4), bool)}, ValueError),
        ({"region": np.ones((4, 5), bool)}, ValueError),
        ({"region": np.ones((5, 5), np.float32)}, TypeError),
        ({"guidance": np.full((5, 5), np.nan)}, ValueError),
        ({"guidance": np.zeros((5, 6))}, ValueError),
        ({"guidance": np.full((5, 5), "a")}, TypeError),
        ({"guided": np.ones((5, 5))}, TypeError),
        ({"guided": np.ones((2, 5), bool)}, ValueError),
        ({"guided": np.ones((5, 5), bool), "guidance": None}, ValueError),
        ({"tolerance": 0}, ValueError),
        ({"tolerance": np.nan}, ValueError),
    ],
)
def test_bad_input_is_refused_by_name(change, error):
    good = {
        "values": np.zeros((5, 5)),
        "known": np.eye(5, dtype=bool),
        "region": np.ones((5, 5), bool),
        "guidance": np.zeros((5, 5)),
    }
    with pytest.raises(error, match=f"`{next(iter(change))}`"):
        blend_gradients(**{**good, **change})
