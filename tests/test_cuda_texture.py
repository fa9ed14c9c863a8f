"""Colours on the device against the host's: of the head model, the final mesh and the parts."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from extreme3d_fast import reconstructor as host
from extreme3d_fast.camera import Camera
from extreme3d_fast.dense import DenseMesh
from extreme3d_fast.device import Device
from extreme3d_fast.mesh import rotate_vectors, transform_points, vertex_normals
from extreme3d_fast.mesh_io import Mesh
from extreme3d_fast.paint import paint_mesh
from extreme3d_fast.rasterize import pixels_of_vertices, vertex_visibility
from extreme3d_fast.reconstructor import Reconstructor
from extreme3d_fast.registration import Registration
from extreme3d_fast.texture import vertex_colors
from extreme3d_fast.zipper import ZipperedMesh

SIZE = 96
CAMERA = Camera(300.0, 290.0, 50.0, 46.0, SIZE, SIZE)
PINHOLE = np.float32(CAMERA.pinhole)


class Head:
    """A sphere 400 mm before the camera, of which the photo shows what `shown` says."""

    def __init__(self, sphere: Mesh, rng: np.random.Generator) -> None:
        self.faces = sphere.faces
        self.vertices = 0.5 * sphere.vertices * np.float32([1, -1, -1]) + np.float32([0, 0, 400])
        reflected = sphere.vertices * np.float32([-1, 1, 1])
        distance = np.linalg.norm(sphere.vertices[:, None] - reflected, axis=-1)
        self.mirror = distance.argmin(axis=0).astype(np.int32)
        self.fallback = rng.integers(60, 200, (len(self.vertices), 3)).astype(np.uint8)
        self.photo = rng.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
        facing = sphere.vertices[:, 2] > 0
        self.shown = {
            "nothing": np.zeros(len(facing), bool),
            "everything": np.ones(len(facing), bool),
            "one half": facing & (sphere.vertices[:, 0] > -20),
            "specks": facing & (rng.random(len(facing)) < 0.97),
        }

    def host(self, shown: NDArray[np.bool_], mirror: NDArray[np.int32]) -> NDArray[np.uint8]:
        return vertex_colors(
            self.photo, self.vertices, self.faces, shown, mirror, CAMERA, self.fallback
        )


def device_colors(
    device: Device, head: Head, shown: NDArray[np.bool_], mirror: NDArray[np.int32]
) -> NDArray[np.uint8]:
    skin = device.ops.VertexColors(head.faces, mirror, head.fallback)
    out = device.empty((len(mirror), 3), "uint8")
    arrays = map(device.put, (head.vertices, shown, head.photo, PINHOLE))
    skin.colors(*arrays, out, device.stream)
    return device.get(out, np.uint8)


@pytest.fixture
def head(sphere: Mesh, rng: np.random.Generator) -> Head:
    return Head(sphere, rng)


@pytest.mark.parametrize("what", ["nothing", "everything", "one half", "specks"])
@pytest.mark.parametrize("mirrored", [True, False])
def test_colours_of_a_sphere_are_nearly_the_hosts(
    device: Device, head: Head, what: str, mirrored: bool
) -> None:
    shown = head.shown[what]
    mirror = head.mirror if mirrored else np.full_like(head.mirror, -1)
    # Edges of 8 mm and a photo of noise: harder than any face, whose edges are of 2 mm.
    difference = device_colors(device, head, shown, mirror) - head.host(shown, mirror).astype(int)
    assert np.abs(difference).max() <= 12
    assert np.abs(difference).mean() <= 1


def test_a_smooth_photo_is_carried_round_within_a_grey_level(device: Device, head: Head) -> None:
    at = np.linspace(100, 180, SIZE).astype(np.uint8)
    head.photo = np.stack(np.broadcast_arrays(at, at[:, None], 90), axis=-1).astype(np.uint8)
    head.fallback[:] = (120, 110, 100)
    shown = head.shown["one half"]
    difference = device_colors(device, head, shown, head.mirror) - head.host(
        shown, head.mirror
    ).astype(int)
    assert np.abs(difference).max() <= 2


def test_an_object_without_vertices_has_no_colours(device: Device) -> None:
    none = np.zeros((0, 3), np.uint8)
    skin = device.ops.VertexColors(none.astype(np.int32), np.zeros(0, np.int32), none)
    photo = np.zeros((2, 2, 3), np.uint8)
    seen = np.zeros(0, bool)
    out = device.empty((0, 3), "uint8")
    skin.colors(*map(device.put, (none.astype(np.float32), seen, photo, PINHOLE)), out)


def test_vertices_without_a_mirror_image_are_the_hosts(
    device: Device, head: Head, rng: np.random.Generator
) -> None:
    head.faces = head.faces[(head.vertices[head.faces][:, :, 1] < 30).all(axis=1)]  # and a border
    mirror = np.where(rng.random(len(head.mirror)) < 0.3, -1, head.mirror).astype(np.int32)
    shown = head.shown["one half"]
    difference = device_colors(device, head, shown, mirror) - head.host(shown, mirror).astype(int)
    assert np.abs(difference).mean() <= 1


def test_a_face_that_names_a_vertex_twice_does_no_harm(device: Device, head: Head) -> None:
    head.faces = np.concatenate([head.faces, np.int32([[5, 5, 9], [7, 7, 7]])])
    shown = head.shown["one half"]
    difference = device_colors(device, head, shown, head.mirror) - head.host(
        shown, head.mirror
    ).astype(int)
    assert np.abs(difference).max() <= 12  # as above


def test_a_second_photo_does_not_remember_the_first(device: Device, head: Head) -> None:
    skin = device.ops.VertexColors(head.faces, head.mirror, head.fallback)
    out = device.empty((len(head.mirror), 3), "uint8")
    vertices, photo, pinhole = map(device.put, (head.vertices, head.photo, PINHOLE))
    for what in ("everything", "one half"):
        skin.colors(vertices, device.put(head.shown[what]), photo, pinhole, out, device.stream)
    np.testing.assert_array_equal(
        device.get(out, np.uint8),
        device_colors(device, head, head.shown["one half"], head.mirror),
    )


@pytest.mark.parametrize(
    ("faces", "mirror"), [([[0, 1, 3]], [0, 1, 2]), ([[0, 1, -1]], [0, 1, 2]), ([], [0, 1, 3])]
)
def test_indices_out_of_range_are_refused(
    device: Device, faces: list[list[int]], mirror: list[int]
) -> None:
    with pytest.raises(ValueError, match="index outside"):
        device.ops.VertexColors(
            np.array(faces, np.int32).reshape(-1, 3),
            np.array(mirror, np.int32),
            np.zeros((3, 3), np.uint8),
        )


# === The final mesh ===


class Final:
    """A final mesh of random vertices of a random sparse and a random dense mesh."""

    def __init__(self, rng: np.random.Generator, counts: tuple[int, int, int]) -> None:
        sparse, dense = 500, 700
        self.photo = rng.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
        self.filled = rng.random((SIZE, SIZE)) < 0.3
        self.pixel = np.sort(rng.choice(SIZE**2, dense, replace=False)).astype(np.int32)
        self.faces = rng.integers(0, sparse, (900, 3)).astype(np.int32)
        self.mirror = rng.permutation(sparse).astype(np.int32)
        self.triangle = rng.integers(0, 900, dense).astype(np.int32)
        self.uv = rng.dirichlet((1, 1, 1), dense)[:, :2].astype(np.float32)
        self.colors = rng.integers(0, 256, (sparse, 3)).astype(np.uint8)
        self.observed = rng.random(sparse) < 0.5
        self.recovery = rng.integers(0, 3, sparse).astype(np.uint8)
        self.pixel_of_vertex = rng.integers(-1, SIZE**2, sparse)
        self.source = np.repeat(np.arange(3, dtype=np.uint8), counts)
        vertex = [
            rng.integers(0, n, k) for n, k in zip((sparse, dense, dense), counts, strict=True)
        ]
        self.vertex = np.concatenate(vertex).astype(np.int32)

    def host(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Colours and provenance as `Reconstructor` has them."""
        none = np.zeros((0, 3), np.float32)
        vertex_of_pixel = np.full(SIZE**2, -1, np.int32)
        vertex_of_pixel[self.pixel] = np.arange(len(self.pixel))
        return paint_mesh(
            ZipperedMesh(none, none, self.source, self.vertex, self.source),
            DenseMesh(none, none, vertex_of_pixel.reshape(SIZE, SIZE)),
            Registration(self.triangle, self.uv, none),
            self.faces,
            self.mirror,
            self.colors,
            self.observed,
            self.recovery,
            np.int32(self.pixel_of_vertex),
            self.filled,
            self.photo,
        )

    def on(self, device: Device, beyond: int = 0) -> tuple[Any, Any]:
        """The same on the device, with room for some vertices more."""
        put = device.put
        source, vertex = (
            np.pad(a, (0, beyond), constant_values=9) for a in (self.source, self.vertex)
        )
        arrays = (source, vertex, np.int32([len(self.source)]), self.pixel, self.filled)
        common = [put(a) for a in arrays]
        colors = put(np.full((len(source), 3), 7, np.uint8))
        origin = put(np.full(len(source), 7, np.uint8))
        registered = (self.triangle, self.uv, self.faces, self.mirror, self.colors, self.photo)
        device.ops.mesh_colors(*common, *map(put, registered), colors, device.stream)
        sparse = (self.observed, self.recovery, np.int32(self.pixel_of_vertex))
        device.ops.provenance(*common, *map(put, sparse), origin, device.stream)
        return device.get(colors, np.uint8), device.get(origin, np.uint8)


@pytest.mark.parametrize("counts", [(1000, 600, 300), (0, 0, 1), (0, 0, 0), (257, 0, 255)])
def test_final_colours_and_provenance_are_the_hosts(
    device: Device, rng: np.random.Generator, counts: tuple[int, int, int]
) -> None:
    final = Final(rng, counts)
    colors, origin = final.on(device)
    expected_colors, expected_origin = final.host()
    # Rounding before the cut to a whole grey level; none where there is no arithmetic.
    np.testing.assert_allclose(colors.astype(int), expected_colors, atol=1)
    np.testing.assert_array_equal(origin, expected_origin)


def test_nothing_is_written_beyond_the_count(device: Device, rng: np.random.Generator) -> None:
    final = Final(rng, (30, 20, 10))
    colors, origin = final.on(device, beyond=300)
    np.testing.assert_allclose(colors[:60].astype(int), final.host()[0], atol=1)  # as above
    assert (colors[60:] == 7).all()
    assert (origin[60:] == 7).all()


# === Parts ===


class Parts:
    """Skin and three parts: one in sight, one half hidden, one not to be seen; and an empty one."""

    def __init__(self, rng: np.random.Generator, skin: int = 400) -> None:
        self.begin = np.int32([0, 150, 150, 451, 600]) + np.int32(skin)
        total = int(self.begin[-1])
        self.model = rng.integers(0, 256, (total, 3)).astype(np.uint8)
        self.skin = rng.integers(30, 190, (skin, 3)).astype(np.uint8)
        self.shown = rng.random(skin) < 0.6
        self.photo = rng.integers(0, 230, (SIZE, SIZE, 3)).astype(np.uint8)
        self.pixel = rng.integers(-1, SIZE**2, total - skin)
        self.visible = rng.random(total - skin) < np.repeat([1, 0.5, 0], [150, 301, 149])
        self.visible &= self.pixel >= 0

    def host(self) -> NDArray[np.uint8]:
        skin = len(self.skin)
        brightness = host._brightness(self.skin[self.shown], self.model[:skin][self.shown])
        parts = [
            host._part_colors(
                self.photo,
                self.pixel[begin - skin : end - skin],
                self.visible[begin - skin : end - skin],
                self.model[begin:end],
                brightness,
            )
            for begin, end in zip(self.begin[:-1], self.begin[1:], strict=True)
        ]
        return np.concatenate(parts)

    def on(self, device: Device) -> NDArray[np.uint8]:
        parts = device.ops.PartColors(self.model, self.begin)
        out = device.empty((len(self.pixel), 3), "uint8")
        arrays = (self.skin, self.shown, self.visible, np.int32(self.pixel), self.photo)
        parts.colors(*map(device.put, arrays), out, device.stream)
        return device.get(out, np.uint8)


def test_colours_of_parts_are_the_hosts(device: Device, rng: np.random.Generator) -> None:
    parts = Parts(rng)
    # The host's 90th percentile is rounded to float32 before the cut to a whole grey level.
    np.testing.assert_allclose(parts.on(device).astype(int), parts.host(), atol=1)


@pytest.mark.parametrize("seen", [0, 1, 2])
def test_brightness_of_few_vertices_is_the_hosts(
    device: Device, rng: np.random.Generator, seen: int
) -> None:
    parts = Parts(rng)
    parts.shown[:] = np.arange(len(parts.shown)) < seen
    parts.visible[:] = np.arange(len(parts.visible)) % 301 < seen
    np.testing.assert_allclose(parts.on(device).astype(int), parts.host(), atol=1)  # as above


def test_a_black_model_is_not_divided_by(device: Device, rng: np.random.Generator) -> None:
    parts = Parts(rng)
    parts.model[:] = 0
    np.testing.assert_array_equal(parts.on(device), parts.host())


def test_beginnings_of_parts_that_do_not_rise_are_refused(device: Device) -> None:
    for begin in ([], [4, 2, 9], [0, 4], [-1, 9]):
        with pytest.raises(ValueError, match="begin should rise"):
            device.ops.PartColors(np.zeros((9, 3), np.uint8), np.array(begin, np.int32))


# === A photo ===


@pytest.fixture(scope="module")
def real(portrait: NDArray[np.uint8]) -> dict[str, Any]:
    """What `Reconstructor` works out on the way to a face, by the names it has there."""
    reconstructor = Reconstructor(threads=1)
    found: dict[str, Any] = {"model": reconstructor.head_model}

    def keep(frame: FrameType, event: str, result: object) -> None:
        if event == "return" and frame.f_code is Reconstructor._reconstruct.__code__:
            found.update(frame.f_locals, face=result)

    sys.setprofile(keep)
    try:
        reconstructor.reconstruct(portrait)
    finally:
        sys.setprofile(None)
    return found


def test_skin_of_a_photo_is_nearly_the_hosts(device: Device, real: dict[str, Any]) -> None:
    model, expected = real["model"], real["color_of_sparse"]
    n = len(expected)
    skin = device.ops.VertexColors(
        model.faces, np.ascontiguousarray(model.mirror[:n]), np.ascontiguousarray(model.colors[:n])
    )
    out = device.empty((n, 3), "uint8")
    crop, camera = real["crop"].image, np.float32(real["camera"].pinhole)
    arrays = (real["foundation_in_camera"], real["shown"], crop, camera)
    skin.colors(*map(device.put, arrays), out, device.stream)
    difference = np.abs(device.get(out, np.uint8) - expected.astype(int)).max(axis=1)
    # Ten sweeps against three, forwards and backwards: 1 grey level is not to be seen.
    assert (difference <= 1).mean() > 0.98
    assert (difference <= 4).mean() > 0.999


def test_final_mesh_of_a_photo_has_the_hosts_colours(device: Device, real: dict[str, Any]) -> None:
    final = Final.__new__(Final)
    mesh, registration, model = real["mesh"], real["registration"], real["model"]
    final.photo, final.filled = real["crop"].image, real["filled"]
    final.pixel = np.flatnonzero(real["dense"].vertex_of_pixel >= 0).astype(np.int32)
    skin = model.skin_vertex_count
    final.faces, final.mirror = model.faces.copy(), model.mirror[:skin].copy()
    final.triangle, final.uv = registration.triangle, registration.uv
    final.colors, final.observed = real["color_of_sparse"], real["observed"]
    final.recovery, final.pixel_of_vertex = real["recovery"], real["pixel_of_vertex"]
    final.source, final.vertex = mesh.source, mesh.source_vertex
    colors, origin = final.on(device)
    np.testing.assert_allclose(colors.astype(int), real["face"].colors, atol=1)  # as above
    np.testing.assert_array_equal(origin, real["face"].provenance)


def test_parts_of_a_photo_have_the_hosts_colours(device: Device, real: dict[str, Any]) -> None:
    model, face = real["model"], real["face"]
    skin = model.skin_vertex_count
    head, pose, camera = real["head"], real["camera_from_head"], real["camera"]
    parts = Parts.__new__(Parts)
    parts.begin = np.int32([*model.part_vertex_range[1:, 0], len(head)])
    parts.model, parts.photo = model.colors, real["crop"].image
    parts.skin, parts.shown = real["color_of_sparse"], real["shown"]
    in_camera = transform_points(pose, head[skin:])
    all_faces = np.concatenate([model.part_faces[name] - skin for name in face.parts])
    normals = rotate_vectors(pose, vertex_normals(head[skin:], all_faces))
    parts.pixel = pixels_of_vertices(in_camera, camera)
    parts.visible = vertex_visibility(in_camera, normals, real["raster"].depth, camera)
    parts.visible &= host._at_vertices(real["uncovered"], parts.pixel)
    expected = np.concatenate([part.colors for part in face.parts.values()])
    np.testing.assert_allclose(parts.on(device).astype(int), expected, atol=1)  # as above
