"""Pictures drawn on the device against the host's, from meshes to pixels."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from extreme3d_fast.device import Device
from extreme3d_fast.device_views import DeviceMesh, ViewRenderer
from extreme3d_fast.head_model import HeadModel
from extreme3d_fast.mesh_io import Mesh, merged
from extreme3d_fast.render import Shading, render_meshes, turntable_sheet

GREEN = (3, 200, 90)


@pytest.fixture(scope="module")
def head() -> dict[str, Mesh]:
    """The built-in head model, its eyes and teeth as meshes of their own."""
    model = HeadModel.load()
    vertices = np.float32(model.vertices(np.zeros(99, np.float32), np.zeros(52, np.float32)))
    ranges = zip(model.part_names, model.part_vertex_range, strict=True)
    return {
        name: Mesh(
            vertices[begin:end], model.part_faces[name] - np.int32(begin), model.colors[begin:end]
        )
        for name, (begin, end) in ranges
    }


def assert_same(got: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    """But for few pixels: a last bit of vertices moves samples to another face."""
    assert got.shape == expected.shape
    difference = np.abs(got.astype(int) - expected).max(axis=-1)
    assert (difference <= 2).mean() >= 0.999


@pytest.mark.parametrize("shading", ["color", "clay"])
@pytest.mark.parametrize(("yaw", "pitch"), [(0, 0), (-50, 15), (160, -30)])
def test_views_of_a_head_are_the_hosts(
    device: Device, head: dict[str, Mesh], shading: Shading, yaw: float, pitch: float
) -> None:
    got, expected = (
        render(head, yaw=yaw, pitch=pitch, size=200, shading=shading, background=GREEN)
        for render in (ViewRenderer(device).render_meshes, render_meshes)
    )
    assert_same(got, expected)


def test_sheet_is_the_hosts(
    device: Device, head: dict[str, Mesh], portrait: NDArray[np.uint8]
) -> None:
    yaws = (-90.0, 0.0, 45.0)
    got = ViewRenderer(device).turntable_sheet(head, portrait, yaws=yaws, size=120)
    assert_same(got, turntable_sheet(head, portrait, yaws=yaws, size=120))


def test_views_in_one_call_are_those_of_single_calls(device: Device, sphere: Mesh) -> None:
    views = ViewRenderer(device)
    angles = [(0.0, 0.0), (90.0, 0.0), (10.0, -40.0)]
    together = views.render_views({"sphere": sphere}, angles, size=40)
    for picture, (yaw, pitch) in zip(together, angles, strict=True):
        single = views.render_meshes({"sphere": sphere}, yaw=yaw, pitch=pitch, size=40)
        np.testing.assert_array_equal(picture, single)


def test_a_mesh_in_device_memory_is_drawn_as_from_the_host(device: Device, sphere: Mesh) -> None:
    views = ViewRenderer(device)
    there = DeviceMesh(*(device.put(array) for array in sphere))
    np.testing.assert_array_equal(
        views.render_meshes(there, yaw=20, size=50),
        views.render_meshes({"sphere": sphere}, yaw=20, size=50),
    )


def test_meshes_and_pictures_of_any_size_come_in_any_order(device: Device, sphere: Mesh) -> None:
    half = sphere._replace(faces=sphere.faces[::2])
    two = merged({"one": sphere, "other": sphere._replace(vertices=sphere.vertices + 99)})
    views = ViewRenderer(device)
    for mesh, size in ((half, 30), (two, 64), (sphere, 64), (sphere, 17), (two, 90)):
        np.testing.assert_array_equal(
            views.render_meshes({"mesh": mesh}, size=size),
            ViewRenderer(device).render_meshes({"mesh": mesh}, size=size),
        )


def test_no_faces_make_an_empty_picture(device: Device, sphere: Mesh) -> None:
    none = sphere._replace(faces=np.zeros((0, 3), np.int32))
    got = ViewRenderer(device).render_meshes({"none": none}, size=20, background=GREEN)
    assert (got == GREEN).all()


def test_what_cannot_be_drawn_is_refused(device: Device, sphere: Mesh) -> None:
    views = ViewRenderer(device)
    meshes = {"sphere": sphere}
    with pytest.raises(ValueError, match="size"):
        views.render_meshes(meshes, size=0)
    with pytest.raises(ValueError, match="yaw"):
        views.render_meshes(meshes, yaw=np.nan)
    with pytest.raises(ValueError, match="background"):
        views.render_meshes(meshes, background=(0, 0, 300))
    empty = Mesh(
        np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32), np.zeros((0, 3), np.uint8)
    )
    with pytest.raises(ValueError, match="vertex"):
        views.render_meshes({"empty": empty})
