"""What the bump network sees and says, on device arrays, against the host's."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from portrait_stages import portrait_stages

from extreme3d_fast._shading import face_window
from extreme3d_fast.bump_network import (
    FACE_SHOWN,
    MAX_BUMP,
    BumpNetwork,
    MapWindow,
    _without_openings,
)
from extreme3d_fast.camera import Camera
from extreme3d_fast.device import Device

Bool = NDArray[np.bool_]
# Normals of depth smoothed in float32: at 600 mm and half a mm a pixel a step of float32 is 1e-4 of
# a slope; a few of them add up.
NORMALS = 1e-3


@pytest.fixture(scope="module")
def network() -> BumpNetwork:
    return BumpNetwork()


def found(
    device: Device, weight: NDArray[np.float32], depth: NDArray[np.float32], camera: Camera
) -> list[float]:
    out = device.empty(5)
    device.ops.NetworkMaps(len(weight)).find_face(
        device.put(weight),
        device.put(depth),
        device.put(np.array(camera.pinhole, np.float32)),
        out,
        device.stream,
    )
    return list(device.get(out))


def assert_found_as_on_the_host(
    device: Device, weight: NDArray[np.float32], depth: NDArray[np.float32], camera: Camera
) -> None:
    face = face_window(weight, depth, camera, 0.0)
    *box, mm = found(device, weight, depth, camera)
    if face is None:
        assert [*box, mm] == [0] * 5
        return
    assert box == [face.rows.start, face.rows.stop, face.columns.start, face.columns.stop]
    assert mm == pytest.approx(face.mm_per_pixel, rel=2e-7)  # a rounding of float32


def test_face_of_a_portrait_is_found_where_the_host_finds_it(device: Device) -> None:
    stages = portrait_stages()
    camera = stages.foundation.camera
    assert_found_as_on_the_host(device, stages.view.weight, stages.view.depth, camera)


@pytest.mark.parametrize("size", [1, 9, 16, 41])
@pytest.mark.parametrize("shown", [0.0, 0.05, 0.5, 1.0])
def test_any_face_is_found_where_the_host_finds_it(
    device: Device, rng: np.random.Generator, size: int, shown: float
) -> None:
    camera = Camera(900.0, 910.0, size / 2, size / 2, size, size)
    for _ in range(6):
        weight = (rng.random((size, size)) < shown).astype(np.float32)
        weight[:, rng.integers(0, size) :] = 0
        depth = np.round(rng.normal(600, 20, weight.shape)).astype(np.float32)  # with equal values
        depth[rng.random(depth.shape) < 0.1] = np.inf
        assert_found_as_on_the_host(device, weight, depth, camera)


def window_at(x: int, y: int, height: int, width: int, size: int) -> MapWindow:
    rows = slice(max(y, 0), min(y + height, size))
    columns = slice(max(x, 0), min(x + width, size))
    inside = (
        slice(rows.start - y, rows.stop - y),
        slice(columns.start - x, columns.stop - x),
    )
    return MapWindow((height, width), (rows, columns), inside)


def seen(
    device: Device,
    image: NDArray[np.uint8],
    depth: NDArray[np.float32],
    mm: float,
    window: MapWindow,
    channels: int = 5,
) -> NDArray[np.float32]:
    out = device.empty((1, channels, *window.shape))
    maps = device.ops.NetworkMaps(len(depth))
    x, y = (window.in_crop[k].start - window.inside[k].start for k in (1, 0))
    maps.input(device.put(image), device.put(depth), mm, x, y, out, device.stream)
    return device.get(out)


def test_input_of_a_portrait_is_the_hosts(device: Device, network: BumpNetwork) -> None:
    stages = portrait_stages()
    view = stages.view
    face = face_window(view.weight, view.depth, stages.foundation.camera, 0.0)
    assert face is not None
    window = network.contract.window(face.rows, face.columns)
    image = stages.crop.image
    expected = network._input(image, view.depth, face.mm_per_pixel, window)
    ours = seen(device, image, view.depth, face.mm_per_pixel, window)
    np.testing.assert_allclose(ours[:, :3], expected[:, :3], atol=1e-6)
    np.testing.assert_allclose(ours[:, 3:], expected[:, 3:], atol=NORMALS)


@pytest.mark.parametrize("mm", [0.4, 1.2, 3.0, 6.0])  # blurred by 12, 4 and 2 px, and not at all
@pytest.mark.parametrize("box", [(-6, -6, 64, 64), (10, 20, 17, 9), (30, -3, 40, 64), (0, 5, 1, 1)])
def test_input_of_any_window_is_the_hosts(
    device: Device,
    network: BumpNetwork,
    rng: np.random.Generator,
    mm: float,
    box: tuple[int, int, int, int],
) -> None:
    size = 50
    image = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    depth = (600 + 9 * np.sin(x / 5) + 0.2 * y + rng.normal(0, 1, x.shape)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.1] = np.inf
    depth[:, 40:] = np.inf
    window = window_at(*box, size)
    expected = network._input(image, depth, mm, window)
    np.testing.assert_allclose(seen(device, image, depth, mm, window), expected, atol=NORMALS)


def test_network_without_normals_sees_the_photo_alone(
    device: Device, rng: np.random.Generator
) -> None:
    image = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
    ours = seen(device, image, np.ones((20, 20), np.float32), 0.5, window_at(-6, -6, 32, 32, 20), 3)
    assert not ours[0, :, :6].any()
    assert not ours[0, :, :, 26:].any()
    expected = image.transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(ours[0, :, 6:26, 6:26], expected, atol=1e-6)


def closed(device: Device, mask: Bool) -> Bool:
    face = device.empty(mask.shape, "uint8")
    maps = device.ops.NetworkMaps(len(mask))
    maps.close_openings(device.put(mask.astype(np.float32) * 0.1), face, device.stream)
    return np.asarray(device.get(face, np.bool_))


@pytest.mark.parametrize("density", [0.0, 0.1, 0.4, 0.5, 0.6, 0.9, 1.0])
@pytest.mark.parametrize("size", [1, 2, 16, 41])
def test_openings_of_random_masks_are_closed_as_on_the_host(
    device: Device, rng: np.random.Generator, density: float, size: int
) -> None:
    for _ in range(5):
        mask = rng.random((size, size)) < density
        np.testing.assert_array_equal(closed(device, mask), _without_openings(mask))


def test_a_spiral_that_leads_out_stays_open_and_closes_with_its_end(device: Device) -> None:
    mask = np.zeros((64, 64), bool)
    for ring in range(2, 30, 4):  # walls with a gap each, at opposite ends
        mask[[ring, 63 - ring], ring : 64 - ring] = True
        mask[ring : 64 - ring, [ring, 63 - ring]] = True
        gap = ring if ring % 8 == 2 else 63 - ring
        mask[gap, 32] = False
    assert not (closed(device, mask) & ~mask).any()
    mask[2] = True  # the outermost gap
    expected = np.zeros_like(mask)
    expected[2:62, 2:62] = True
    expected[2] = True
    np.testing.assert_array_equal(closed(device, mask), expected)


def test_eyes_and_mouth_of_a_portrait_are_closed(device: Device) -> None:
    mask = portrait_stages().view.weight > 0
    face = closed(device, mask)
    assert (face & ~mask).sum() > 100
    np.testing.assert_array_equal(face, _without_openings(mask))


def test_answer_of_the_network_is_the_hosts(device: Device, rng: np.random.Generator) -> None:
    size, window = 50, window_at(-6, 4, 64, 32, 50)
    bump = rng.normal(0, 4, (1, 1, *window.shape)).astype(np.float32)
    mask = rng.uniform(-0.2, 1.2, bump.shape).astype(np.float32)
    weight = np.clip(rng.uniform(-1, 1, (size, size)), 0, 1).astype(np.float32)
    face, in_photo = rng.random((2, size, size)) < 0.8
    out = [
        device.empty((size, size)),
        device.empty((size, size)),
        device.empty((size, size), "uint8"),
    ]
    device.ops.NetworkMaps(size).output(
        device.put(bump),
        device.put(mask),
        -6,
        4,
        *map(device.put, (weight, face, in_photo)),
        *out,
        device.stream,
    )
    expected = np.zeros((2, size, size), np.float32)
    expected[0][window.in_crop] = np.clip(bump[0, 0], -MAX_BUMP, MAX_BUMP)[window.inside]
    expected[1][window.in_crop] = np.clip(mask[0, 0], 0, 1)[window.inside]
    np.testing.assert_array_equal(device.get(out[0]), expected[0] * weight)
    expected[1][~(face & in_photo)] = 0
    np.testing.assert_array_equal(device.get(out[1]), expected[1])
    np.testing.assert_array_equal(device.get(out[2], np.bool_), expected[1] > FACE_SHOWN)


def test_answers_that_are_not_finite_show(device: Device) -> None:
    bad = np.array([[np.inf, np.nan], [1, -np.inf]], np.float32)[None, None]
    one = np.ones((2, 2), np.float32)
    out = [device.empty((2, 2)), device.empty((2, 2)), device.empty((2, 2), "uint8")]
    device.ops.NetworkMaps(2).output(
        device.put(bad), device.put(bad), 0, 0, *map(device.put, (one, one > 0, one > 0)), *out
    )
    for k in (0, 1):
        np.testing.assert_array_equal(device.get(out[k]), [[np.nan, np.nan], [1, np.nan]])
    np.testing.assert_array_equal(device.get(out[2], np.bool_), [[False, False], [True, False]])
