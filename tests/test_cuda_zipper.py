"""Sewing on device arrays against the host's."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from synthetic import CAMERA, Head, camera_from_head, ellipsoid_head, sew

from extreme3d_fast import Reconstructor
from extreme3d_fast._arrays import Int32
from extreme3d_fast.device import Device
from extreme3d_fast.mesh import mesh_report
from extreme3d_fast.zipper import VertexSource, Zipper, ZipperedMesh

PHOTOS = ["02.jpg", "05.jpg", "24.jpg"]

Inputs = dict[str, Any]
"""Arguments of `Zipper.zip` by name, without the camera, and `faces`, `mirror`, `pinhole`."""


@cache
def inputs_of_head(yaw: float, subdivisions: int = 5, eyes_open: bool = False) -> Inputs:
    head = ellipsoid_head(subdivisions)
    if eyes_open:  # two holes
        x, y, z = head.vertices[head.faces].mean(1).T
        eyes = (z > 0) & (np.hypot(np.abs(x) - 30, y - 30) < 12)
        head = Head(head.vertices, head.faces[~eyes], head.mirror, head.region)
    s = sew(head, yaw)
    pose = camera_from_head(yaw)
    seen = s.raster.triangle >= 0
    vertex_of_pixel = np.full(seen.shape, -1, np.int32)
    vertex_of_pixel[seen] = np.arange(seen.sum())
    return {
        "faces": head.faces,
        "mirror": head.mirror,
        "sparse": s.symmetry.vertices,
        "foundation_in_camera": (head.vertices @ pose[:3, :3].T + pose[:3, 3]).astype(np.float32),
        "observed": s.observed,
        "recovered": s.symmetry.recovery > 0,
        "dense": s.dense,
        "reflected": s.reflected.vertices,
        "reflected_defined": s.reflected.defined,
        "triangle": s.raster.triangle,
        "vertex_of_pixel": vertex_of_pixel,
        "camera": CAMERA,
    }


def on_host(inputs: Inputs) -> ZipperedMesh:
    arguments = dict(inputs)
    return Zipper(arguments.pop("faces"), arguments.pop("mirror")).zip(**arguments)


class Sewing:
    """A zipper on the device with its arrays, with room for `spare` more vertices of D."""

    def __init__(self, device: Device, inputs: Inputs, spare: int = 0) -> None:
        self.device = device
        n_dense = len(inputs["dense"]) + spare
        height, width = inputs["triangle"].shape
        self.zipper = device.ops.Zipper(inputs["faces"], inputs["mirror"], width, height, n_dense)
        arrays = {
            name: np.pad(value, [(0, spare)] + [(0, 0)] * (value.ndim - 1))
            if name in ("dense", "reflected", "reflected_defined")
            else value
            for name, value in inputs.items()
            if name not in ("faces", "mirror", "camera")
        }
        capacity = len(inputs["sparse"]) + 2 * n_dense
        self.vertices = device.empty((capacity, 3))
        self.source, self.seam = device.empty(capacity, "uint8"), device.empty(capacity, "uint8")
        self.index, self.counts = device.empty(capacity, "int32"), device.empty(2, "int32")
        self.faces = device.empty((2 * capacity, 3), "int32")
        self.inputs = {name: device.put(value) for name, value in arrays.items()}
        self.zipper.zip(
            **self.inputs,
            pinhole=device.put(np.array(inputs["camera"].pinhole, np.float32)),
            vertices=self.vertices,
            source=self.source,
            index=self.index,
            seam=self.seam,
            faces=self.faces,
            counts=self.counts,
            stream=device.stream,
        )
        device.wait()

    def by_device(self) -> ZipperedMesh | None:
        return self._mesh(self.zipper.counts())

    def by_host_strips(self) -> ZipperedMesh | None:
        sizes = self.zipper.stitch(stream=self.device.stream)
        if sizes is not None:
            pixels = self.inputs["vertex_of_pixel"]
            self.zipper.finish(pixels, self.faces, self.counts, self.device.stream)
        return self._mesh(sizes)

    def _mesh(self, sizes: tuple[int, int] | None) -> ZipperedMesh | None:
        if sizes is None:
            return None
        assert sizes == tuple(self.device.get(self.counts, np.int32))
        n, n_faces = sizes
        return ZipperedMesh(
            self.device.get(self.vertices)[:n],
            self.device.get(self.faces, np.int32)[:n_faces],
            self.device.get(self.source, np.uint8)[:n],
            self.device.get(self.index, np.int32)[:n],
            self.device.get(self.seam, np.uint8)[:n],
        )


def rotated(faces: Int32) -> set[tuple[int, int, int]]:
    """Faces that begin with their lowest vertex."""
    first, rows = np.argmin(faces, 1), np.arange(len(faces))
    return set(zip(*(faces[rows, (first + k) % 3].tolist() for k in range(3)), strict=True))


def circles(inputs: Inputs, mesh: ZipperedMesh, faces: set[tuple[int, int, int]]) -> list[float]:
    """Radii in the image, px, ascending: of either cut of cocircular points they are the same."""
    camera, x = inputs["camera"], inputs["foundation_in_camera"]
    corners = np.stack([camera.fx * x[:, 0], camera.fy * x[:, 1]], 1) / x[:, 2:]
    corners += [camera.cx, camera.cy]
    pixels = np.zeros((len(inputs["dense"]), 2))
    y, column = np.nonzero(inputs["vertex_of_pixel"] >= 0)
    pixels[inputs["vertex_of_pixel"][y, column]] = np.stack([column, y], 1) + 0.5
    radii = []
    for face in faces:
        source, vertex = mesh.source[list(face)], mesh.source_vertex[list(face)]
        if (source == VertexSource.REFLECTED).any():
            image = np.where(source > 0, vertex, inputs["mirror"][vertex * (source == 0)])
        else:
            image = vertex
        a, b, c = (pixels[i] if k > 0 else corners[i] for i, k in zip(image, source, strict=True))
        (ux, uy), (vx, vy) = b - a, c - a
        sides = np.hypot(*(b - a)) * np.hypot(*(c - b)) * np.hypot(*(a - c))
        radii.append(sides / (2 * abs(ux * vy - uy * vx)))
    return sorted(radii)


def assert_same(device: Device, inputs: Inputs, spare: int = 0) -> ZipperedMesh:
    """Vertices are the host's; faces too, but for the diagonals of cocircular points."""
    expected, sewing = on_host(inputs), Sewing(device, inputs, spare)
    result = sewing.by_device()
    assert result is not None
    assert len(result.faces) == len(expected.faces)
    mine, theirs = rotated(result.faces), rotated(expected.faces)
    # 1/256 px of rounding in positions that are not those of pixels
    np.testing.assert_allclose(
        circles(inputs, expected, mine - theirs),
        circles(inputs, expected, theirs - mine),
        rtol=1e-3,
    )
    assert mesh_report(result.vertices, result.faces) == mesh_report(
        expected.vertices, expected.faces
    )
    again = sewing.by_host_strips()
    assert again is not None
    for name in ZipperedMesh._fields:
        if name != "faces":
            np.testing.assert_array_equal(getattr(result, name), getattr(expected, name), name)
        np.testing.assert_array_equal(getattr(again, name), getattr(expected, name), name)
    return result


@pytest.mark.parametrize("yaw", [0, 12, 30, 55, 80, 90, -40])
def test_head_is_sewn_as_by_the_host(device: Device, yaw: float) -> None:
    mesh = assert_same(device, inputs_of_head(yaw), spare=yaw != 0)
    assert (mesh.source == VertexSource.DENSE).any()


def test_open_mesh_is_sewn_as_by_the_host(device: Device) -> None:
    assert_same(device, inputs_of_head(25, eyes_open=True))


def test_denser_r_is_kept_as_by_the_host(device: Device) -> None:
    assert_same(device, inputs_of_head(0, subdivisions=6))


def test_holes_in_d_are_sewn_as_by_the_host(device: Device, rng: np.random.Generator) -> None:
    inputs = dict(inputs_of_head(30))
    pixels = inputs["vertex_of_pixel"].copy()
    for y, x in rng.integers(20, 230, (60, 2)):
        pixels[y : y + rng.integers(1, 9), x : x + rng.integers(1, 9)] = -1
    defined = np.array(inputs["reflected_defined"], bool)
    defined[rng.integers(0, len(defined), 300)] = False
    inputs |= {"vertex_of_pixel": pixels, "reflected_defined": defined}
    assert_same(device, inputs)


def test_scattered_pixels_are_sewn_as_by_the_host(device: Device, rng: np.random.Generator) -> None:
    """Cells that touch in a corner, points that four loops share."""
    inputs = dict(inputs_of_head(30))
    defined = rng.random(len(inputs["dense"])) < 0.8
    assert_same(device, inputs | {"reflected_defined": defined})


def test_nothing_observed_returns_r(device: Device) -> None:
    inputs = dict(inputs_of_head(0))
    inputs |= {"observed": np.zeros(len(inputs["sparse"]), bool)}
    mesh = assert_same(device, inputs)
    np.testing.assert_array_equal(mesh.faces, inputs["faces"])


def test_empty_d_returns_r(device: Device) -> None:
    none = np.zeros((0, 3), np.float32)
    inputs = dict(inputs_of_head(0))
    inputs |= {
        "dense": none,
        "reflected": none,
        "reflected_defined": np.zeros(0, bool),
        "vertex_of_pixel": np.full(inputs["triangle"].shape, -1, np.int32),
    }
    mesh = assert_same(device, inputs, spare=3)
    np.testing.assert_array_equal(mesh.vertices, inputs["sparse"])


def test_borders_that_cross_are_left_to_the_host(device: Device) -> None:
    """Vertices of R moved across its border in the image alone."""
    inputs = dict(inputs_of_head(0))
    mesh = Sewing(device, inputs).by_device()
    assert mesh is not None
    moved = inputs["foundation_in_camera"].copy()
    moved[mesh.source_vertex[mesh.seam > 0][::3]] += np.float32([6, 0, 0])
    sewing = Sewing(device, inputs | {"foundation_in_camera": moved})
    assert sewing.by_device() is None
    assert tuple(device.get(sewing.counts, np.int32)) == (0, 0)
    assert sewing.by_host_strips() is None


def test_tables_out_of_range_are_refused(device: Device) -> None:
    faces, mirror = np.array([[0, 1, 2]], np.int32), np.array([0, 2, 1], np.int32)
    device.ops.Zipper(faces, mirror, 8, 8, 4)
    with pytest.raises(ValueError, match="names a vertex out of range"):
        device.ops.Zipper(faces + 1, mirror, 8, 8, 4)
    with pytest.raises(ValueError, match="involution"):
        device.ops.Zipper(faces, np.array([1, 2, 0], np.int32), 8, 8, 4)
    with pytest.raises(ValueError, match="out of range"):
        device.ops.Zipper(faces, mirror, 0, 8, 4)


@cache
def inputs_of_photo(path: Path) -> Inputs:
    calls: list[tuple[Any, ...]] = []
    reconstructor = Reconstructor()
    zipper = reconstructor._zipper

    class Recorder:
        def zip(self, *arguments: Any, threads: int) -> ZipperedMesh:
            calls.append(arguments)
            return zipper.zip(*arguments, threads=threads)

    reconstructor._zipper = Recorder()  # type: ignore[assignment]
    image = cv2.imread(str(path))
    assert image is not None
    reconstructor.reconstruct(np.ascontiguousarray(image[..., ::-1]))
    model = reconstructor.head_model
    names = list(Zipper.zip.__annotations__)[:-2]  # without the threads and the result
    return {
        "faces": model.faces,
        "mirror": model.mirror[: model.skin_vertex_count],
        **dict(zip(names, calls[-1], strict=True)),
    }


@pytest.mark.data
@pytest.mark.parametrize("name", PHOTOS)
def test_photo_is_sewn_as_by_the_host(device: Device, data_dir: Path, name: str) -> None:
    inputs = inputs_of_photo(data_dir / "paper_photos" / name)
    mesh = assert_same(device, inputs, spare=1000)
    assert (mesh.source == VertexSource.REFLECTED).any()
