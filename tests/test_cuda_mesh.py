"""Transforms, normals and masks on device arrays against the host's."""

from __future__ import annotations

import numpy as np
import pytest

from extreme3d_fast.device import Device
from extreme3d_fast.mesh import (
    erode_mask,
    rotate_vectors,
    transform_points,
    vertex_faces,
    vertex_normals,
)
from extreme3d_fast.mesh_io import Mesh

POSE = np.array([[0, -1, 0, 3], [1, 0, 0, -2], [0, 0, 1, 600], [0, 0, 0, 1]], np.float32)


@pytest.mark.parametrize("count", [0, 1, 255, 257])
def test_transforms_are_those_of_the_host(
    device: Device, rng: np.random.Generator, count: int
) -> None:
    points = rng.normal(0, 100, (count, 3)).astype(np.float32)
    for name, expected in (
        ("transform_points", transform_points),
        ("rotate_vectors", rotate_vectors),
    ):
        out = device.empty(points.shape)
        getattr(device.ops, name)(device.put(POSE), device.put(points), out, device.stream)
        np.testing.assert_allclose(device.get(out), expected(POSE, points), atol=1e-4)


def test_normals_are_those_of_the_host(device: Device, sphere: Mesh) -> None:
    table = vertex_faces(sphere.faces, len(sphere.vertices))
    area, out = device.empty(sphere.faces.shape), device.empty(sphere.vertices.shape)
    device.ops.vertex_normals(
        *map(device.put, (sphere.vertices, sphere.faces, *table)), area, out, device.stream
    )
    np.testing.assert_allclose(
        device.get(out), vertex_normals(sphere.vertices, sphere.faces), atol=1e-6
    )


def test_eroded_mask_is_the_hosts(device: Device, sphere: Mesh, rng: np.random.Generator) -> None:
    mask = rng.random(len(sphere.vertices)) < 0.9
    table = vertex_faces(sphere.faces, len(mask))
    out = device.empty(mask.shape, "uint8")
    device.ops.erode_mask(*map(device.put, (mask, sphere.faces, *table)), out, device.stream)
    np.testing.assert_array_equal(device.get(out, np.bool_), erode_mask(mask, sphere.faces))


def test_arrays_of_the_wrong_kind_are_refused(device: Device) -> None:
    points, out = device.put(np.zeros((4, 3), np.float32)), device.empty((3, 3))
    with pytest.raises(ValueError, match=r"out should have shape \(4, 3"):
        device.ops.transform_points(device.put(POSE), points, out, device.stream)
    with pytest.raises(TypeError):
        device.ops.transform_points(device.put(POSE), np.zeros((4, 3)), points, device.stream)
