"""Shape from shading: its two linear solves against twins and closed forms, then whole pictures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.linalg import spsolve

from extreme3d_fast import _core
from extreme3d_fast.camera import Camera
from extreme3d_fast.shading import MAX_RELIEF, shape_from_shading

# === Albedo ===


def albedo_by_spsolve(ratio, confidence, link_x, link_y):
    h, w = ratio.shape
    index = np.arange(h * w).reshape(h, w)
    i = np.concatenate([index[:, :-1].ravel(), index[:-1].ravel()])
    j = np.concatenate([index[:, 1:].ravel(), index[1:].ravel()])
    links = np.concatenate([link_x[:, :-1].ravel(), link_y[:-1].ravel()]).astype(np.float64)
    edges = sparse.coo_matrix((links, (i, j)), (h * w, h * w))
    laplacian = sparse.csgraph.laplacian(edges + edges.T)
    matrix = laplacian + sparse.diags(confidence.ravel().astype(np.float64) + 1e-6)
    return spsolve(matrix.tocsc(), (confidence * ratio).ravel().astype(np.float64)).reshape(h, w)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (37, 50), (64, 33)])
def test_albedo_is_the_direct_solution(shape):
    rng = np.random.default_rng(1)
    ratio = rng.normal(size=shape).astype(np.float32)
    confidence = np.where(rng.random(shape) < 0.7, 1, 0.02).astype(np.float32)
    links = [(200 * rng.random(shape) ** 8).astype(np.float32) for _ in range(2)]
    albedo, _, residual = _core.solve_albedo(ratio, confidence, *links, 1e-6)
    assert residual < 1e-4  # what float32 reaches
    np.testing.assert_allclose(
        albedo, albedo_by_spsolve(ratio, confidence, *links), rtol=0, atol=1e-3
    )


def test_albedo_of_two_tones_without_links_between_is_the_two_tones():
    ratio = np.zeros((40, 60), np.float32)
    ratio[:, 30:] = -0.8
    link_x = np.full_like(ratio, 100)
    link_x[:, 29] = 0
    albedo = _core.solve_albedo(ratio, np.ones_like(ratio), link_x, np.full_like(ratio, 100), 1e-6)
    np.testing.assert_allclose(albedo[0], ratio, atol=1e-3)


def test_albedo_of_blocks_that_are_cut_off_from_each_other():
    """Where links all but vanish the solution jumps, and parts of it hang on small masses."""
    rng = np.random.default_rng(4)
    side = 96
    part = np.repeat(np.repeat(rng.integers(0, 9, (24, 24)), 4, 0), 4, 1)
    links = []
    for axis in (1, 0):
        link = np.full((side, side), 211.0, np.float32)
        same = np.diff(part, axis=axis) == 0
        inside = (slice(None), slice(-1)) if axis == 1 else (slice(-1),)
        link[inside] *= np.where(same, 1, 1e-4)
        links.append(link)
    ratio = (-0.2 * part + 0.1 * rng.normal(size=part.shape)).astype(np.float32)
    confidence = (rng.random(part.shape) < 0.8).astype(np.float32)
    albedo, iterations, residual = _core.solve_albedo(ratio, confidence, *links, 1e-4)
    assert residual <= 1e-4
    assert iterations < 120
    want = albedo_by_spsolve(ratio, confidence, *links)
    known = confidence > 0
    assert np.sqrt(np.square((albedo - want)[known]).mean()) < 1e-3


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_albedo_refuses_numbers_that_mean_nothing(bad):
    good = np.ones((8, 8), np.float32)
    spoilt = good.copy()
    spoilt[3, 3] = bad
    with pytest.raises(ValueError, match="finite"):
        _core.solve_albedo(spoilt, good, good, good, 1e-3)
    with pytest.raises(ValueError, match="negative"):
        _core.solve_albedo(good, -good, good, good, 1e-3)


# === Relief ===


def reduced(a):
    """Every second pixel of the image filtered with (1 4 6 4 1) / 16, edges repeated."""
    for axis in (0, 1):
        p = np.pad(a, [(2, 2) if k == axis else (0, 0) for k in (0, 1)], mode="edge")
        n = a.shape[axis]
        parts = [np.take(p, np.arange(k, k + n), axis) for k in range(5)]
        a = sum(t * q for t, q in zip(np.array([1, 4, 6, 4, 1]) / 16, parts, strict=True))
        a = np.take(a, np.arange(0, n, 2), axis)
    return a


def expanded(a, shape):
    for axis in (1, 0):
        last, i = a.shape[axis] - 1, np.arange(shape[axis])
        at, after = i // 2, np.minimum(i // 2 + 1, last)
        here, following, before = (np.take(a, k, axis) for k in (at, after, np.maximum(at - 1, 0)))
        odd = (i % 2 == 1)[:, None] if axis == 0 else i % 2 == 1
        a = np.where(odd, (here + following) / 2, (before + 6 * here + following) / 8)
    return a


def operators(shape, mm):
    """Sparse d/dx, d/dy (central, 0 outside) and the 5-point Laplacian of an image."""

    def second(n):
        return sparse.diags([np.ones(n - 1), np.ones(n - 1)], [1, -1], (n, n))

    def first(n):
        return sparse.diags([np.ones(n - 1), -np.ones(n - 1)], [1, -1], (n, n)) / 2

    h, w = shape
    rows, columns = sparse.identity(h), sparse.identity(w)
    lap = sparse.kron(rows, second(w)) + sparse.kron(second(h), columns)
    lap = lap - 4 * sparse.identity(h * w)
    return sparse.kron(rows, first(w)) / mm, sparse.kron(first(h), columns) / mm, lap


def relief_twin(detail, confidence, sx, sy, region, mm, ambient, ridge, stiffness):
    octaves = [(detail, confidence, sx, sy, region.astype(float), mm)]
    while len(octaves) < 5 and min(octaves[-1][0].shape) >= 32:
        r, c, x, y, inside, size = octaves[-1]
        weight = reduced(c)
        r = np.where(weight > 1e-3, reduced(r * c) / np.maximum(weight, 1e-3), 0)
        inside = (reduced(inside) > 0.5).astype(float)
        octaves.append((r, weight, reduced(x), reduced(y), inside, 2 * size))
    total = None
    for k in reversed(range(len(octaves))):
        r, c, x, y, inside, size = octaves[k]
        if k + 1 < len(octaves):
            r = r - expanded(octaves[k + 1][0], r.shape)
        dx, dy, lap = operators(r.shape, size)
        forward = sparse.diags(x.ravel()) @ dx + sparse.diags(y.ravel()) @ dy
        forward = forward + ambient * 0.8 / size * lap
        at = np.flatnonzero(inside.ravel())
        weighted = forward.T @ sparse.diags(c.ravel())
        matrix = weighted @ forward + ridge * sparse.identity(r.size)
        matrix = matrix + stiffness / size**2 * (lap.T @ lap)
        part = np.zeros(r.size)
        part[at] = spsolve(matrix.tocsc()[at][:, at], (weighted @ r.ravel())[at])
        part = part.reshape(r.shape)
        total = part if total is None else (expanded(total, r.shape) + part) * inside
    return total


def relief(detail, confidence, sx, sy, region, mm, **changed):
    settings = {"ambient": 0.5, "ridge": 0.01, "stiffness": 0.02, **changed}
    arrays = [np.ascontiguousarray(a, np.float32) for a in (detail, confidence, sx, sy)]
    return _core.relief_from_shading(
        *arrays, region.astype(np.uint8), mm, *settings.values(), 1e-5, 2000
    )[0]


@pytest.mark.parametrize("shape", [(20, 31), (64, 64), (71, 98)])
def test_relief_is_the_direct_solution(shape):
    rng = np.random.default_rng(2)
    detail = cv2.GaussianBlur(rng.normal(size=shape), (0, 0), 1.5)
    confidence = (cv2.GaussianBlur(rng.normal(size=shape), (0, 0), 6) > -0.03).astype(float)
    sx, sy = (0.6 * cv2.GaussianBlur(rng.normal(size=shape), (0, 0), 9) * 20 for _ in range(2))
    region = np.ones(shape, bool)
    region[: shape[0] // 4, : shape[1] // 3] = False
    got = relief(detail, confidence, sx, sy, region, 0.55)
    want = relief_twin(detail, confidence, sx, sy, region, 0.55, 0.5, 0.01, 0.02)
    assert np.abs(want).max() > 0.05
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-3 * np.abs(want).max())
    assert not got[~region].any()


@pytest.mark.parametrize("wave", [3.0, 6.0, 12.0])
def test_dark_lines_become_hollows_of_their_depth(wave):
    """cos(ωx) of depth 1 mm darkens by ambient · ω: from the shade the depth comes back."""
    mm, side = 0.5, 256
    omega = 2 * np.pi / wave
    hollow = np.cos(omega * mm * np.arange(side))[None].repeat(side, 0)
    detail = -0.5 * omega * hollow
    flat = np.zeros_like(detail)
    got = relief(detail, flat + 1, flat, flat, np.ones_like(detail, bool), mm)
    inner = (slice(64, -64), slice(64, -64))
    gain = (got[inner] * hollow[inner]).sum() / np.square(hollow[inner]).sum()
    assert 0.9 < gain < 1.25  # |ω| is approximate by an octave
    assert np.corrcoef(got[inner].ravel(), hollow[inner].ravel())[0, 1] > 0.98


def test_slopes_towards_the_light_are_slopes():
    """Without ambient light, shading is the derivative along the light."""
    mm, side = 0.5, 192
    y, x = np.mgrid[:side, :side] * mm
    bump = np.exp(-((x - 48) ** 2 + (y - 48) ** 2) / (2 * 5.0**2))
    detail = 0.8 * np.gradient(bump, mm, axis=1)
    flat = np.zeros_like(bump)
    got = relief(
        detail, flat + 1, flat + 0.8, flat, np.ones_like(bump, bool), mm, ambient=0.05, ridge=1e-4
    )
    assert np.corrcoef(np.gradient(got, axis=1).ravel(), detail.ravel())[0, 1] > 0.98


def test_relief_is_linear_and_turns_with_the_picture():
    rng = np.random.default_rng(3)
    detail = cv2.GaussianBlur(rng.normal(size=(64, 64)), (0, 0), 2)
    flat, region = np.zeros_like(detail), np.ones_like(detail, bool)
    one = relief(detail, flat + 1, flat + 0.4, flat, region, 0.5)
    np.testing.assert_allclose(
        relief(3 * detail, flat + 1, flat + 0.4, flat, region, 0.5), 3 * one, atol=1e-4
    )
    turned = relief(detail.T, flat + 1, flat, flat + 0.4, region, 0.5)
    np.testing.assert_allclose(turned.T, one, atol=1e-4)


def test_bad_arrays_are_refused():
    good = [np.zeros((8, 8), np.float32) for _ in range(4)]
    inside = np.ones((8, 8), np.uint8)
    with pytest.raises(ValueError, match="confidence"):
        _core.relief_from_shading(
            good[0], good[0][:4], *good[:2], inside, 1.0, 0.5, 0.01, 0.0, 1e-3, 9
        )
    with pytest.raises(ValueError, match="mm_per_pixel"):
        _core.relief_from_shading(*good, inside, 0.0, 0.5, 0.01, 0.0, 1e-3, 9)
    with pytest.raises(TypeError):
        _core.solve_albedo(*[g.astype(np.float64) for g in good], 1e-3)


# === Pictures ===

SIDE, FX = 240, 1000.0
CAMERA = Camera(FX, FX, SIDE / 2, SIDE / 2, SIDE, SIDE)
MM = 0.6


def picture(bump, albedo=1.0, light=(-0.3, -0.4, -0.87)):
    """A round cap of a head with relief `bump` (mm), lit from a side and from all round."""
    y, x = (np.mgrid[:SIDE, :SIDE] - SIDE / 2) * MM
    r2 = (x**2 + y**2) / 90.0**2
    depth = np.where(r2 < 0.5, MM * FX + 90 * (1 - np.sqrt(np.maximum(1 - r2, 0))), np.inf)
    weight = np.clip((0.45 - r2) * 12, 0, 1)
    surface = np.where(np.isfinite(depth), depth, 650) + bump
    zy, zx = np.gradient(surface, MM)
    cosine = (zx * light[0] + zy * light[1] - light[2]) / np.sqrt(1 + zx**2 + zy**2)
    hollow = np.asarray(bump) - cv2.GaussianBlur(np.asarray(bump, float), (0, 0), 3 / MM)
    linear = 0.45 * albedo * np.exp(-0.3 * hollow) * (0.35 + 0.65 * np.clip(cosine, 0, 1))
    code = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    rgb = np.rint(255 * np.clip(code, 0, 1))[..., None] * [1.0, 0.84, 0.74]
    return rgb.astype(np.uint8), weight.astype(np.float32), depth.astype(np.float32)


def fold(depth=1.2, width=1.6):
    y, x = (np.mgrid[:SIDE, :SIDE] - SIDE / 2) * MM
    return depth * np.exp(-((y - 6 * np.sin(x / 25)) ** 2) / (2 * width**2)) * (np.abs(x) < 30)


def test_a_fold_is_found_where_it_is():
    truth = fold()
    image, weight, depth = picture(truth)
    got = shape_from_shading(image, weight, depth, CAMERA)
    inner = weight > 0.9
    assert np.corrcoef(got[inner], truth[inner])[0, 1] > 0.6
    middle = got[(truth > 1.0) & inner].mean() - got[(truth < 0.01) & inner].mean()
    assert 0.4 < middle < 3


def test_a_smooth_head_has_no_relief():
    image, weight, depth = picture(np.zeros((SIDE, SIDE)))
    got = shape_from_shading(image, weight, depth, CAMERA)
    assert np.abs(got[weight > 0.5]).max() < 0.25
    assert not got[weight == 0].any()
    assert np.isfinite(got).all()


def test_a_wide_patch_of_another_colour_is_albedo():
    y, x = (np.mgrid[:SIDE, :SIDE] - SIDE / 2) * MM
    patch = np.hypot(x, y) < 14
    image, weight, depth = picture(np.zeros((SIDE, SIDE)))
    image = np.where(patch[..., None], image * [0.72, 0.5, 0.5], image).astype(np.uint8)
    got = shape_from_shading(image, weight, depth, CAMERA)
    fold_image, *_ = picture(fold())
    real = shape_from_shading(fold_image, weight, depth, CAMERA)
    inner = weight > 0.9
    assert got[inner].std() < 0.5 * real[inner].std()


def test_what_the_mask_rejects_leaves_no_trace():
    truth = np.zeros((SIDE, SIDE))
    image, weight, depth = picture(truth)
    seen = np.ones((SIDE, SIDE), bool)
    covered = image.copy()
    covered[100:130, 60:180] = [30, 40, 200]
    seen[100:130, 60:180] = False
    clean = shape_from_shading(image, weight, depth, CAMERA, seen)
    got = shape_from_shading(covered, weight, depth, CAMERA, seen)
    np.testing.assert_allclose(got, clean, atol=0.02)


@pytest.mark.parametrize("level", [0, 255])
def test_black_and_white_pictures_have_no_relief(level):
    _, weight, depth = picture(np.zeros((SIDE, SIDE)))
    image = np.full((SIDE, SIDE, 3), level, np.uint8)
    assert not shape_from_shading(image, weight, depth, CAMERA).any()


def test_relief_is_limited():
    rng = np.random.default_rng(0)
    image, weight, depth = picture(np.zeros((SIDE, SIDE)))
    noise = cv2.GaussianBlur(rng.normal(size=(SIDE, SIDE)), (0, 0), 4) * 900 + 128
    image = np.clip(noise, 0, 255).astype(np.uint8)[..., None].repeat(3, 2)
    got = shape_from_shading(image, weight, depth, CAMERA)
    assert np.isfinite(got).all()
    assert np.abs(got).max() <= MAX_RELIEF


def test_exposure_does_not_matter():
    truth = fold()
    image, weight, depth = picture(truth)
    darker, *_ = picture(truth, albedo=0.6)
    got = shape_from_shading(darker, weight, depth, CAMERA)
    want = shape_from_shading(image, weight, depth, CAMERA)
    assert np.abs(got - want).max() < 0.1 * np.abs(want).max()


def test_mirrored_pictures_have_mirrored_relief():
    image, weight, depth = picture(fold() + np.roll(fold(0.5), 25, 0))
    want = shape_from_shading(image, weight, depth, CAMERA)
    flipped = [np.ascontiguousarray(a[:, ::-1]) for a in (image, weight, depth)]
    got = shape_from_shading(*flipped, CAMERA)[:, ::-1]
    assert np.sqrt(np.square(got - want).mean()) < 0.1 * np.sqrt(np.square(want).mean())


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_crop_size_does_not_matter(scale):
    image, weight, depth = picture(fold(width=2.4))
    want = shape_from_shading(image, weight, depth, CAMERA)
    side = round(scale * SIDE)

    def resized(a, way=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR):
        return cv2.resize(a, (side, side), interpolation=way)

    far = np.where(np.isfinite(depth), depth, 0)
    small = np.where(resized(weight) > 0, resized(far), np.inf).astype(np.float32)
    camera = Camera(scale * FX, scale * FX, side / 2, side / 2, side, side)
    got = shape_from_shading(resized(image), resized(weight), small, camera)
    got = cv2.resize(got, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    inner = weight > 0.9
    assert np.corrcoef(got[inner], want[inner])[0, 1] > 0.9
    assert 0.7 < got[inner].std() / want[inner].std() < 1.4


def test_bad_input_is_refused_by_name():
    image, weight, depth = picture(np.zeros((SIDE, SIDE)))
    with pytest.raises(ValueError, match="`depth` should be mm"):
        shape_from_shading(image, weight, depth / 1e6, CAMERA)
    with pytest.raises(ValueError, match="`weight`"):
        shape_from_shading(image, weight + 1, depth, CAMERA)
    with pytest.raises(ValueError, match="`depth`"):
        shape_from_shading(image, weight, np.where(weight > 0, np.nan, depth), CAMERA)
    with pytest.raises(TypeError, match="`image`"):
        shape_from_shading(image.astype(np.float32), weight, depth, CAMERA)
    with pytest.raises(ValueError, match="face_mask"):
        shape_from_shading(image, weight, depth, CAMERA, np.ones((3, 3), bool))


def test_no_face_no_relief():
    image = np.zeros((50, 50, 3), np.uint8)
    depth = np.full((50, 50), np.inf, np.float32)
    camera = Camera(100, 100, 25, 25, 50, 50)
    assert not shape_from_shading(image, np.zeros((50, 50), np.float32), depth, camera).any()
