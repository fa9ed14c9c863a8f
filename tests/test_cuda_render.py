"""Shaded views on the device against the host's, of what the host's rasteriser found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from extreme3d_fast.camera import Camera
from extreme3d_fast.device import Device
from extreme3d_fast.head_model import HeadModel
from extreme3d_fast.mesh_io import Mesh
from extreme3d_fast.rasterize import rasterize
from extreme3d_fast.render import SUPERSAMPLE, VIEW_DISTANCE, Shading, render_meshes, view_of

GREEN = (3, 200, 90)


def shade(
    device: Device,
    renderer: Any,
    mesh: Mesh,
    view: tuple[Camera, NDArray[np.float32]],
    shading: Shading,
    room: int = 0,
) -> NDArray[np.uint8]:
    """A view drawn on the device, in arrays with room for some faces more."""
    camera, camera_from_head = view
    in_camera = mesh.vertices @ camera_from_head[:3, :3].T + camera_from_head[:3, 3]
    fine = Camera(*np.multiply(camera.pinhole, SUPERSAMPLE), *(2 * [SUPERSAMPLE * camera.width]))
    raster = rasterize(in_camera, mesh.faces, fine, cull_back_faces=False)
    faces = device.put(np.pad(mesh.faces, ((0, room), (0, 0)), constant_values=1 << 30))
    renderer.prepare(
        faces, device.put(np.int32([len(mesh.faces)])), len(mesh.vertices), device.stream
    )
    out = device.empty((camera.height, camera.width, 3), "uint8")
    arrays = (mesh.colors, *raster, np.float32(camera.pinhole))
    renderer.shade(
        device.put(np.float32(in_camera)),
        faces,
        *map(device.put, arrays),
        shading == "clay",
        GREEN,
        out,
        device.stream,
    )
    return device.get(out, np.uint8)


def compare(got: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    """The same but for what rounding decides: a last bit of vertices moves few samples to another
    face or another side of a threshold."""
    difference = np.abs(got.astype(int) - expected).max(axis=2)
    assert (difference <= 1).mean() > 0.995
    assert difference.mean() < 0.05


@pytest.fixture
def bowl(sphere: Mesh) -> Mesh:
    """The sphere without a lid: inner sides and a crease are to be seen."""
    keep = (sphere.vertices[sphere.faces][:, :, 2] < 40).all(axis=1)
    return Mesh(sphere.vertices, sphere.faces[keep], sphere.colors)


@pytest.mark.parametrize("shading", ["color", "clay"])
@pytest.mark.parametrize("size", [1, 63, 160])
def test_views_of_a_bowl_are_the_hosts(
    device: Device, bowl: Mesh, shading: Shading, size: int
) -> None:
    renderer = device.ops.Renderer(len(bowl.vertices), len(bowl.faces), size)
    view = view_of(bowl.vertices, 20, -15, size)
    got = shade(device, renderer, bowl, view, shading)
    expected = render_meshes(
        {"bowl": bowl}, yaw=20, pitch=-15, size=size, shading=shading, background=GREEN
    )
    compare(got, expected)


def test_faces_beyond_the_count_are_not_drawn_nor_felt(device: Device, bowl: Mesh) -> None:
    view = view_of(bowl.vertices, 0, 0, 64)
    renderer = device.ops.Renderer(len(bowl.vertices), len(bowl.faces) + 300, 64)
    got = shade(device, renderer, bowl, view, "clay", room=300)
    np.testing.assert_array_equal(got, shade(device, renderer, bowl, view, "clay"))


def test_order_of_threads_does_not_matter(device: Device, bowl: Mesh) -> None:
    view = view_of(bowl.vertices, 0, 0, 64)
    renderer = device.ops.Renderer(len(bowl.vertices), len(bowl.faces), 64)
    first = shade(device, renderer, bowl, view, "color")
    if device.kind == "host":
        device.ops.run_reversed(True)
    np.testing.assert_array_equal(shade(device, renderer, bowl, view, "color"), first)


def test_nothing_to_draw_is_background(device: Device) -> None:
    empty = Mesh(
        np.zeros((3, 3), np.float32), np.zeros((0, 3), np.int32), np.zeros((3, 3), np.uint8)
    )
    renderer = device.ops.Renderer(3, 0, 8)
    got = shade(device, renderer, empty, view_of(empty.vertices, 0, 0, 8), "clay")
    assert (got == GREEN).all()


def test_a_larger_renderer_draws_the_same(device: Device, bowl: Mesh) -> None:
    view = view_of(bowl.vertices, 10, 0, 48)
    exact = device.ops.Renderer(len(bowl.vertices), len(bowl.faces), 48)
    large = device.ops.Renderer(5000, 9999, 300)
    np.testing.assert_array_equal(
        shade(device, exact, bowl, view, "clay"), shade(device, large, bowl, view, "clay")
    )


def test_meshes_and_pictures_too_large_are_refused(device: Device, bowl: Mesh) -> None:
    view = view_of(bowl.vertices, 0, 0, 16)
    for sizes in ((10, 9999, 16), (9999, 10, 16), (9999, 9999, 15)):
        with pytest.raises(ValueError, match="has room for"):
            shade(device, device.ops.Renderer(*sizes), bowl, view, "clay")


@pytest.mark.parametrize("beyond", [0, 500])
def test_views_are_framed_as_on_the_host(
    device: Device, rng: np.random.Generator, beyond: int
) -> None:
    points = np.float32(rng.normal(0, 1, (1000, 3)) * [80, 120, 100] + [0, -30, 9])
    angles = [(0, 0), (35, -10), (-90, 20)]
    expected = np.stack([view_of(points, *angle, 64)[1] for angle in angles])
    stored = np.concatenate([points, np.full((beyond, 3), 1e6, np.float32)])
    out = device.empty((3, 4, 4))
    arrays = (stored, np.int32([1000]), np.ascontiguousarray(expected[:, :3, :3]))
    bounds = device.empty(7, "int32")
    device.ops.frame_views(*map(device.put, arrays), VIEW_DISTANCE, bounds, out, device.stream)
    # Last bits of a distance of 2 m.
    np.testing.assert_allclose(device.get(out), expected, atol=5e-4)


def test_a_view_of_one_point_has_a_finite_distance(device: Device) -> None:
    point = np.float32([[1, 2, 3]])
    _, expected = view_of(point, 0, 0, 64)
    out = device.empty((1, 4, 4))
    arrays = (point, np.int32([1]), expected[None, :3, :3].copy())
    bounds = device.empty(7, "int32")
    device.ops.frame_views(*map(device.put, arrays), VIEW_DISTANCE, bounds, out, device.stream)
    np.testing.assert_allclose(device.get(out)[0], expected, atol=1e-6)


@pytest.mark.parametrize("shading", ["color", "clay"])
def test_views_of_a_head_are_the_hosts(device: Device, head: Mesh, shading: Shading) -> None:
    renderer = device.ops.Renderer(len(head.vertices), len(head.faces), 200)
    got = shade(device, renderer, head, view_of(head.vertices, -30, 5, 200), shading)
    expected = render_meshes(
        {"head": head}, yaw=-30, pitch=5, size=200, shading=shading, background=GREEN
    )
    compare(got, expected)


@pytest.fixture(scope="module")
def head() -> Mesh:
    """The built-in head model."""
    model = HeadModel.load()
    vertices = model.vertices(np.zeros(99, np.float32), np.zeros(52, np.float32))
    return Mesh(np.float32(vertices), model.faces.copy(), model.colors.copy())
