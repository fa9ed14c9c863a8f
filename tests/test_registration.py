"""Registration and its inverse are exact, follow the sparse mesh, and keep the whole residual."""

import numpy as np
import pytest
import reference

from extreme3d_fast.camera import Camera
from extreme3d_fast.dense import compose_depth, dense_mesh
from extreme3d_fast.rasterize import rasterize
from extreme3d_fast.registration import Registration, recover_dense, register_dense

CAMERA = Camera(1000.0, 1000.0, 60.0, 60.0, 120, 120)


@pytest.fixture(scope="module")
def scene():
    """Sphere of 30 mm as foundation, a wavy bump, and its dense mesh; head frame = camera frame."""
    vertices, faces = reference.sphere(5, 30.0)
    vertices = vertices + np.float32([2, -3, 600])
    raster = rasterize(vertices, faces, CAMERA)
    x, y = np.meshgrid(np.arange(120) + 0.5, np.arange(120) + 0.5)
    dense = dense_mesh(compose_depth(raster.depth, np.sin(x / 5) * np.cos(y / 7)), CAMERA)
    return vertices, faces, raster, dense


def test_every_dense_vertex_is_registered_to_its_pixels_triangle(scene):
    vertices, faces, raster, dense = scene
    registration = register_dense(raster, dense, dense.vertices, vertices, faces)
    seen = dense.vertex_of_pixel >= 0
    np.testing.assert_array_equal(
        registration.triangle[dense.vertex_of_pixel[seen]], raster.triangle[seen]
    )
    assert (registration.triangle >= 0).all()


def test_round_trip_is_exact(scene):
    vertices, faces, raster, dense = scene
    registration = register_dense(raster, dense, dense.vertices, vertices, faces)
    again = recover_dense(registration, vertices, faces)
    np.testing.assert_allclose(
        again, dense.vertices, atol=1.3e-4
    )  # two float32 roundings at 600 mm


def test_weights_project_to_the_pixel_centre(scene):
    vertices, faces, raster, dense = scene
    registration = register_dense(raster, dense, dense.vertices, vertices, faces)
    p = vertices[:, :2].astype(float) / vertices[:, 2:] * 1000 + 60
    u, v = registration.uv.astype(float).T
    corner = p[faces[registration.triangle]]
    at = u[:, None] * corner[:, 0] + v[:, None] * corner[:, 1] + (1 - u - v)[:, None] * corner[:, 2]
    y, x = np.nonzero(dense.vertex_of_pixel >= 0)
    # Eq. 6, to the snapping of 1/512 px in each axis.
    np.testing.assert_allclose(at, np.stack([x, y], 1) + 0.5, atol=2.1e-3)


def test_residual_without_bump_is_the_perspective_term_alone(scene):
    vertices, faces, raster, _ = scene
    flat = dense_mesh(raster.depth, CAMERA)
    registration = register_dense(raster, flat, flat.vertices, vertices, faces)
    facing = (raster.triangle >= 0) & (raster.depth < 575)
    rows = flat.vertex_of_pixel[facing & (flat.vertex_of_pixel >= 0)]
    # Screen weights err by the relative depth range of a 1.5 mm facet, 1.5 / 600 of 1.5 mm;
    # snapping moves the facet by 1/512 px of 0.6 mm on slopes up to 1.2.
    assert np.abs(registration.residual[rows]).max() < 0.006


def test_recovery_follows_a_rigid_motion_of_position(scene):
    vertices, faces, raster, dense = scene
    registration = register_dense(raster, dense, dense.vertices, vertices, faces)
    moved = recover_dense(registration, vertices + np.float32([5, -7, 11]), faces)
    np.testing.assert_allclose(moved, dense.vertices + np.float32([5, -7, 11]), atol=3e-4)


def test_equals_numpy_twin(scene):
    vertices, faces, raster, dense = scene
    registration = register_dense(raster, dense, dense.vertices, vertices, faces)
    triangle, uv, residual = reference.register_dense(
        raster.triangle,
        raster.barycentric,
        dense.vertex_of_pixel,
        dense.vertices,
        vertices,
        faces,
    )
    np.testing.assert_array_equal(registration.triangle, triangle)
    np.testing.assert_array_equal(registration.uv, uv)
    np.testing.assert_allclose(registration.residual, residual, atol=1.3e-4)
    np.testing.assert_allclose(
        recover_dense(registration, vertices, faces),
        reference.recover_dense(triangle, uv, residual, vertices, faces),
        atol=1.3e-4,
    )


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_do_not_change_the_result(scene, threads):
    vertices, faces, raster, dense = scene
    one = register_dense(raster, dense, dense.vertices, vertices, faces)
    many = register_dense(raster, dense, dense.vertices, vertices, faces, threads=threads)
    for a, b in zip(one, many, strict=True):
        np.testing.assert_array_equal(a, b)


def test_vertex_without_a_triangle_is_marked(scene):
    vertices, faces, raster, dense = scene
    y, x = np.argwhere(dense.vertex_of_pixel == 50)[0]
    triangle = raster.triangle.copy()
    triangle[y, x] = -1
    registration = register_dense(
        raster._replace(triangle=triangle), dense, dense.vertices, vertices, faces
    )
    assert np.flatnonzero(registration.triangle < 0).tolist() == [50]
    assert np.isnan(recover_dense(registration, vertices, faces)).any(1).nonzero()[0].tolist() == [
        50
    ]


def test_empty_dense_mesh_registers_nothing(scene):
    vertices, faces, _, _ = scene
    raster = rasterize(vertices * np.float32([1, 1, -1]), faces, CAMERA)
    dense = dense_mesh(raster.depth, CAMERA)
    registration = register_dense(raster, dense, dense.vertices, vertices, faces)
    assert recover_dense(registration, vertices, faces).shape == (0, 3)


def test_bad_arguments_are_named(scene):
    vertices, faces, raster, dense = scene
    with pytest.raises(ValueError, match=r"raster\.triangle"):
        register_dense(raster, dense, dense.vertices, vertices, faces[:10])
    with pytest.raises(ValueError, match="vertex_of_pixel"):
        register_dense(raster, dense, dense.vertices[:10], vertices, faces)
    with pytest.raises(ValueError, match="faces"):
        register_dense(raster, dense, dense.vertices, vertices[:10], faces)
    with pytest.raises(ValueError, match=r"registration\.uv"):
        recover_dense(
            Registration(np.zeros(3, np.int32), np.zeros((2, 2)), np.zeros((3, 3))), vertices, faces
        )
