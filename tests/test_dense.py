"""The dense mesh covers continuous depth, tears at jumps, and numbers its vertices by pixel."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from extreme3d_fast.camera import Camera
from extreme3d_fast.dense import compose_depth, dense_mesh
from extreme3d_fast.mesh import face_normals, mesh_report

CAMERA = Camera(100.0, 110.0, 6.0, 4.5, 12, 9)
SHAPE = (9, 12)


def test_bump_is_added_and_background_stays_background():
    depth = np.float32([[500, np.inf], [600, 700]])
    bump = np.float32([[1.5, 3], [-2, 0]])
    assert compose_depth(depth, bump).tolist() == [[501.5, np.inf], [598, 700]]


def test_plane_gives_one_vertex_a_pixel():
    mesh = dense_mesh(np.full(SHAPE, 300.0), CAMERA)
    assert mesh.vertices.shape == (9 * 12, 3)
    assert mesh.faces.shape == (2 * 8 * 11, 3)
    np.testing.assert_array_equal(mesh.vertex_of_pixel, np.arange(9 * 12).reshape(SHAPE))
    # Pixel (3, 2) has its centre at (3.5, 2.5): x = (3.5 - 6) / 100 * 300.
    np.testing.assert_allclose(
        mesh.vertices[2 * 12 + 3], [-7.5, (2.5 - 4.5) / 110 * 300, 300], rtol=1e-6
    )


def test_faces_turn_to_the_camera():
    mesh = dense_mesh(np.full(SHAPE, 300.0), CAMERA)
    np.testing.assert_allclose(
        face_normals(mesh.vertices, mesh.faces), [[0, 0, -1]] * 176, atol=1e-6
    )
    rng = np.random.default_rng(0)
    holes = np.where(rng.random(SHAPE) < 0.3, np.inf, 300.0)  # three-pixel blocks of every kind
    mesh = dense_mesh(holes, CAMERA)
    assert (face_normals(mesh.vertices, mesh.faces)[:, 2] < -0.999).all()


def test_step_is_not_bridged():
    depth = np.full(SHAPE, 300.0)
    depth[:, 6:] = 330.0  # 30 mm over a pixel of 3 mm: slope 10
    mesh = dense_mesh(depth, CAMERA)
    sides = (mesh.vertices[mesh.faces][:, :, 2] > 315).sum(1)
    assert set(sides) == {0, 3}
    assert mesh_report(mesh.vertices, mesh.faces).components == 2
    assert len(mesh.faces) == 2 * 2 * 8 * 5
    assert len(dense_mesh(depth, CAMERA, max_slope=11.0).faces) == 2 * 8 * 11


@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
def test_tear_depends_on_the_slope_not_on_the_distance(scale):
    depth = np.full(SHAPE, 300.0)
    depth[:, 6:] = 330.0
    assert len(dense_mesh(depth * scale, CAMERA).faces) == 2 * 2 * 8 * 5


@pytest.mark.parametrize(
    ("missing", "face"),
    [(0, [0, 1, 2]), (1, [0, 1, 2]), (2, [0, 2, 1]), (3, [0, 2, 1])],
)
def test_three_pixels_give_one_triangle(missing, face):
    depth = np.full(4, 300.0)
    depth[missing] = np.inf
    mesh = dense_mesh(depth.reshape(2, 2), Camera(100.0, 100.0, 1.0, 1.0, 2, 2))
    assert len(mesh.vertices) == 3
    assert len(mesh.faces) == 1
    assert face_normals(mesh.vertices, mesh.faces)[0, 2] < 0
    assert mesh.vertex_of_pixel.ravel()[missing] == -1
    assert sorted(mesh.faces[0]) == sorted(face)


def test_block_is_cut_along_the_smaller_step():
    camera = Camera(100.0, 100.0, 1.0, 1.0, 2, 2)
    main = dense_mesh(np.float32([[301, 300], [304, 301]]), camera)
    assert all({0, 3} <= set(t) for t in main.faces.tolist())
    other = dense_mesh(np.float32([[300, 301], [301, 304]]), camera)
    assert all({1, 2} <= set(t) for t in other.faces.tolist())


@settings(max_examples=40)
@given(st.integers(0, 2**31))
def test_equals_numpy_twin(seed):
    rng = np.random.default_rng(seed)
    depth = np.float32(300 + rng.normal(0, 12, SHAPE))
    depth[rng.random(SHAPE) < 0.25] = np.inf
    mesh = dense_mesh(depth, CAMERA, max_slope=6.0)
    vertices, faces, vertex_of_pixel = reference.dense_mesh(depth, CAMERA, 6.0)
    np.testing.assert_allclose(mesh.vertices, vertices, rtol=1e-6)
    np.testing.assert_array_equal(mesh.faces, faces)
    np.testing.assert_array_equal(mesh.vertex_of_pixel, vertex_of_pixel)
    report = mesh_report(mesh.vertices, mesh.faces)
    assert report.unreferenced_vertices == report.inconsistent_edges == 0
    assert report.non_manifold_edges == 0


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_do_not_change_the_result(threads):
    rng = np.random.default_rng(1)
    camera = Camera(900.0, 900.0, 150.0, 150.0, 300, 310)
    depth = np.float32(600 + rng.normal(0, 2, (310, 300)))
    depth[rng.random(depth.shape) < 0.1] = np.inf
    for one, many in zip(
        dense_mesh(depth, camera), dense_mesh(depth, camera, threads=threads), strict=True
    ):
        np.testing.assert_array_equal(one, many)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1)])
@pytest.mark.parametrize("value", [300.0, np.inf])
def test_single_rows_and_columns_have_no_mesh(shape, value):
    camera = Camera(100.0, 100.0, 1.0, 1.0, shape[1], shape[0])
    mesh = dense_mesh(np.full(shape, value), camera)
    assert mesh.vertices.shape == mesh.faces.shape == (0, 3)
    assert (mesh.vertex_of_pixel == -1).all()


def test_depth_that_is_no_surface_is_ignored():
    for bad in (np.nan, np.inf, -np.inf, -5.0, 0.0):
        depth = np.full(SHAPE, 300.0)
        depth[4, 5] = bad
        mesh = dense_mesh(depth, CAMERA)
        assert mesh.vertex_of_pixel[4, 5] == -1
        assert mesh_report(mesh.vertices, mesh.faces).is_valid


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="depth"):
        dense_mesh(np.zeros((3, 3)), CAMERA)
    with pytest.raises(ValueError, match="max_slope"):
        dense_mesh(np.zeros(SHAPE), CAMERA, max_slope=np.nan)
    with pytest.raises(ValueError, match="bump"):
        compose_depth(np.zeros((3, 3)), np.zeros((3, 4)))
    with pytest.raises(ValueError, match="bump"):
        compose_depth(np.zeros((1, 1)), np.full((1, 1), np.nan))
