"""Visible vertices move along their rays by the bump at their projection; all others stay."""

import numpy as np
import pytest
import reference

from extreme3d_fast.camera import Camera
from extreme3d_fast.dense import compose_depth
from extreme3d_fast.rasterize import rasterize
from extreme3d_fast.sparse import sparse_from_dense

CAMERA = Camera(200.0, 200.0, 20.0, 15.0, 40, 30)
SHAPE = (30, 40)
ALL = np.ones(SHAPE, bool)


def at_pixels(xy, z=500.0):
    xy = np.asarray(xy, float)
    return np.column_stack([(xy - [CAMERA.cx, CAMERA.cy]) / CAMERA.fx * z, np.full(len(xy), z)])


def scattered(seed, n=400):
    rng = np.random.default_rng(seed)
    return at_pixels(rng.uniform(-5, 45, (n, 2)), 500.0)


def test_constant_bump_moves_every_visible_vertex_by_it():
    vertices = at_pixels(np.random.default_rng(0).uniform([0, 0], [40, 30], (100, 2)))
    seen = np.arange(100) % 2 == 0
    out, moved = sparse_from_dense(vertices, seen, np.full(SHAPE, 2.5), ALL, CAMERA)
    np.testing.assert_array_equal(moved, seen)
    np.testing.assert_allclose(out[seen], vertices[seen] * (502.5 / 500), rtol=1e-6)
    np.testing.assert_array_equal(out[~seen], vertices[~seen].astype(np.float32))


def test_positive_bump_is_deeper():
    out, _ = sparse_from_dense(at_pixels([[20, 15]]), [True], np.full(SHAPE, 3.0), ALL, CAMERA)
    np.testing.assert_allclose(out, [[0, 0, 503]], atol=1e-4)


def test_linear_bump_is_sampled_exactly_between_pixel_centres():
    x, y = np.meshgrid(np.arange(40) + 0.5, np.arange(30) + 0.5)
    bump = 0.2 * x - 0.1 * y
    xy = np.random.default_rng(1).uniform([0.5, 0.5], [39.5, 29.5], (100, 2))
    out, moved = sparse_from_dense(at_pixels(xy), np.ones(100, bool), bump, ALL, CAMERA)
    assert moved.all()
    # float32 depth of 500 mm: 6e-5 mm; float32 bump weights: less.
    np.testing.assert_allclose(out[:, 2] - 500, 0.2 * xy[:, 0] - 0.1 * xy[:, 1], atol=2e-4)


def test_unknown_pixels_take_no_part():
    bump = np.zeros(SHAPE)
    valid = np.ones(SHAPE, bool)
    bump[:, :20], valid[:, 20:] = 4.0, False
    bump[:, 20:] = np.nan
    # Weight on the known column 19: 0.6, 0.5, 0.4.
    out, moved = sparse_from_dense(
        at_pixels([[19.9, 15], [20.0, 15], [20.1, 15]]), [1, 1, 1], bump, valid, CAMERA
    )
    assert moved.tolist() == [True, True, False]
    np.testing.assert_allclose(out[:, 2], [504, 504, 500], atol=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_equals_numpy_twin(seed):
    rng = np.random.default_rng(seed)
    vertices, seen = scattered(seed), rng.random(400) < 0.8
    bump, valid = rng.normal(0, 3, SHAPE), rng.random(SHAPE) < 0.7
    out, moved = sparse_from_dense(vertices, seen, bump, valid, CAMERA)
    want, want_moved = reference.sparse_from_dense(vertices, seen, bump, valid, CAMERA)
    np.testing.assert_array_equal(moved, want_moved)
    np.testing.assert_allclose(out, want, atol=2e-4)


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_do_not_change_the_result(threads):
    vertices = scattered(3, 40_000)
    bump = np.random.default_rng(3).normal(0, 3, SHAPE)
    seen = np.ones(len(vertices), bool)
    one = sparse_from_dense(vertices, seen, bump, ALL, CAMERA)
    many = sparse_from_dense(vertices, seen, bump, ALL, CAMERA, threads=threads)
    np.testing.assert_array_equal(one[0], many[0])
    np.testing.assert_array_equal(one[1], many[1])


def test_moved_vertex_lies_on_the_detailed_depth():
    vertices, faces = reference.sphere(6, 40.0)
    vertices = vertices + np.float32([0, 0, 600])
    camera = Camera(1500.0, 1500.0, 100.0, 100.0, 200, 200)
    raster = rasterize(vertices, faces, camera)
    x, y = np.meshgrid(np.arange(200) + 0.5, np.arange(200) + 0.5)
    bump = 0.8 * np.sin(x / 9) * np.cos(y / 11)
    detailed = compose_depth(raster.depth, bump)
    front = vertices[:, 2] < 570
    out, _ = sparse_from_dense(vertices, front, bump, raster.triangle >= 0, camera)
    p = out[front, :2] / out[front, 2:] * 1500.0 + 100.0 - 0.5
    i, t = np.floor(p).astype(int), p - np.floor(p)
    z = sum(
        detailed[i[:, 1] + b, i[:, 0] + a]
        * (t[:, 0] if a else 1 - t[:, 0])
        * (t[:, 1] if b else 1 - t[:, 1])
        for a in (0, 1)
        for b in (0, 1)
    )
    # Bilinear depth of a 40 mm sphere between 0.4 mm pixels: sagitta below 0.01 mm.
    assert np.abs(out[front, 2] - z).max() < 0.02


def test_vertices_that_cannot_be_projected_stay():
    bad = np.float32([[0, 0, 0], [0, 0, -500], [np.nan, 0, 500], [0, 0, np.nan], [3e38, 0, 2]])
    out, moved = sparse_from_dense(bad, np.ones(5, bool), np.ones(SHAPE), ALL, CAMERA)
    assert not moved.any()
    np.testing.assert_array_equal(out, bad)


def test_bad_arguments_are_named():
    v = at_pixels([[20, 15]])
    with pytest.raises(ValueError, match="visible"):
        sparse_from_dense(v, [True, True], np.zeros(SHAPE), ALL, CAMERA)
    with pytest.raises(ValueError, match="bump"):
        sparse_from_dense(v, [True], np.zeros((3, 3)), ALL, CAMERA)
    with pytest.raises(ValueError, match="bump"):
        sparse_from_dense(v, [True], np.full(SHAPE, np.nan), ALL, CAMERA)
    with pytest.raises(TypeError, match="valid"):
        sparse_from_dense(v, [True], np.zeros(SHAPE), ALL * 0.5, CAMERA)
