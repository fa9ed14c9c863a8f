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
from extreme3d_fast.device import Device
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


def on_device(device: Device, inputs: Inputs, spare: int = 0) -> ZipperedMesh | None:
    """Sewn with room for `spare` more vertices of D than there are."""
    n_dense = len(inputs["dense"]) + spare
    height, width = inputs["triangle"].shape
    zipper = device.ops.Zipper(inputs["faces"], inputs["mirror"], width, height, n_dense)
    arrays = {
        name: np.pad(value, [(0, spare)] + [(0, 0)] * (value.ndim - 1))
        if name in ("dense", "reflected", "reflected_defined")
        else value
        for name, value in inputs.items()
        if name not in ("faces", "mirror", "camera")
    }
    capacity = len(inputs["sparse"]) + 2 * n_dense
    vertices, faces = device.empty((capacity, 3)), device.empty((2 * capacity, 3), "int32")
    source, seam = device.empty(capacity, "uint8"), device.empty(capacity, "uint8")
    index, counts = device.empty(capacity, "int32"), device.empty(2, "int32")
    zipper.begin(
        **{name: device.put(value) for name, value in arrays.items()},
        pinhole=device.put(np.array(inputs["camera"].pinhole, np.float32)),
        vertices=vertices,
        source=source,
        index=index,
        seam=seam,
        stream=device.stream,
    )
    device.wait()
    sizes = zipper.stitch()
    if sizes is None:
        return None
    zipper.finish(faces, counts, device.stream)
    assert sizes == tuple(device.get(counts, np.int32))
    n, n_faces = sizes
    return ZipperedMesh(
        device.get(vertices)[:n],
        device.get(faces, np.int32)[:n_faces],
        device.get(source, np.uint8)[:n],
        device.get(index, np.int32)[:n],
        device.get(seam, np.uint8)[:n],
    )


def assert_same(device: Device, inputs: Inputs, spare: int = 0) -> ZipperedMesh:
    expected, result = on_host(inputs), on_device(device, inputs, spare)
    assert result is not None
    for name in ZipperedMesh._fields:
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name), name)
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
    """One vertex of R moved across its border in the image alone."""
    inputs = dict(inputs_of_head(0))
    result = on_device(device, inputs)
    assert result is not None
    moved = inputs["foundation_in_camera"].copy()
    rim = result.source_vertex[result.seam > 0]
    moved[rim[::3]] += np.float32([6, 0, 0])
    assert on_device(device, inputs | {"foundation_in_camera": moved}) is None


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
        def zip(self, *arguments: Any) -> ZipperedMesh:
            calls.append(arguments)
            return zipper.zip(*arguments)

    reconstructor._zipper = Recorder()  # type: ignore[assignment]
    image = cv2.imread(str(path))
    assert image is not None
    reconstructor.reconstruct(np.ascontiguousarray(image[..., ::-1]))
    model = reconstructor.head_model
    names = list(Zipper.zip.__annotations__)[:-1]
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
