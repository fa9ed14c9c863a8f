"""Phong tessellation of the foundation's depth."""

import numpy as np
import trimesh

from extreme3d_fast.camera import Camera
from extreme3d_fast.rasterize import rasterize
from extreme3d_fast.smooth_depth import smooth_depth

CAMERA = Camera(400.0, 400.0, 64.0, 64.0, 128, 128)
RADIUS_MM, DISTANCE_MM = 50.0, 600.0


def sphere_in_camera():
    sphere = trimesh.creation.icosphere(subdivisions=3)
    outward = np.asarray(sphere.vertices, np.float32)
    flip = np.array([1, -1, -1], np.float32)  # head frame to camera frame
    return (
        outward * flip * RADIUS_MM + np.float32([0, 0, DISTANCE_MM]),
        outward * flip,
        sphere.faces.astype(np.int32),
    )


def true_depth():
    """Near intersection of each pixel's ray with the sphere."""
    y, x = (np.mgrid[:128, :128] + 0.5 - 64) / 400
    rays = np.stack([x, y, np.ones_like(x)], -1)
    a, b = (rays**2).sum(-1), rays[..., 2] * DISTANCE_MM
    with np.errstate(invalid="ignore"):
        return (b - np.sqrt(b**2 - a * (DISTANCE_MM**2 - RADIUS_MM**2))) / a


def test_facets_of_a_sphere_become_round():
    vertices, normals, faces = sphere_in_camera()
    raster = rasterize(vertices, faces, CAMERA)
    smooth = smooth_depth(raster, vertices, normals, faces)
    truth = true_depth()
    inside = np.isfinite(raster.depth) & (truth < DISTANCE_MM - 25)  # away from the silhouette
    flat_error = np.abs(raster.depth - truth)[inside].mean()
    smooth_error = np.abs(smooth - truth)[inside].mean()
    assert flat_error > 0.05  # the facets are there to begin with
    assert smooth_error < 0.35 * flat_error


def test_plane_stays_flat():
    vertices = np.float32([[-40, -40, 600], [-40, 40, 600], [40, 40, 600], [40, -40, 600]])
    normals = np.tile(np.float32([0, 0, -1]), (4, 1))
    faces = np.int32([[0, 1, 2], [0, 2, 3]])
    raster = rasterize(vertices, faces, CAMERA)
    smooth = smooth_depth(raster, vertices, normals, faces)
    assert np.isfinite(smooth).sum() > 1000
    np.testing.assert_allclose(smooth[np.isfinite(smooth)], 600, atol=1e-3)
    np.testing.assert_array_equal(np.isinf(smooth), np.isinf(raster.depth))


def test_result_does_not_depend_on_threads():
    vertices, normals, faces = sphere_in_camera()
    raster = rasterize(vertices, faces, CAMERA)
    one = smooth_depth(raster, vertices, normals, faces, threads=1)
    np.testing.assert_array_equal(one, smooth_depth(raster, vertices, normals, faces, threads=3))
