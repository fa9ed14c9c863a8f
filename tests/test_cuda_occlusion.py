"""Holes and masks on device arrays against the host's."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from research_data import DATA

from extreme3d_fast import reconstructor
from extreme3d_fast.camera import Camera
from extreme3d_fast.device import Device
from extreme3d_fast.occlusion import Occlusion, find_holes
from extreme3d_fast.rasterize import pixels_of_vertices

Mask = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]


def found(device: Device, face_mask: Mask, weight: Float32) -> tuple[Mask, npt.NDArray[Any]]:
    """Hole and statistics."""
    height, width = weight.shape
    hole, stats = device.empty(weight.shape, "uint8"), device.empty(3, "float64")
    finder = device.ops.HoleFinder(width, height)
    finder.find(device.put(face_mask), device.put(weight), hole, stats, device.stream)
    return device.get(hole, np.bool_), device.get(stats, np.float64)


def assert_same(device: Device, face_mask: Mask, weight: Float32) -> Occlusion:
    hole, (fraction, pixels, covered) = found(device, face_mask, weight)
    expected = find_holes(face_mask, weight)
    np.testing.assert_array_equal(hole, expected.hole)
    assert pixels == hole.sum()
    # NumPy sums up in float32
    assert fraction == pytest.approx(expected.fraction, abs=1e-6)
    assert covered == pytest.approx(weight[hole].sum() / max(weight.sum(), 1), abs=1e-6)
    return expected


def blobs(rng: np.random.Generator, shape: tuple[int, int], size: float, share: float) -> Mask:
    """Random blobs of about `size` px that cover a share of the image."""
    noise = cv2.GaussianBlur(rng.normal(size=shape).astype(np.float32), (0, 0), size)
    return np.asarray(noise < np.quantile(noise, share))


def face(shape: tuple[int, int]) -> Float32:
    """An oval that fades out at its rim."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    radius = np.hypot(x / shape[1] - 0.5, y / shape[0] - 0.5)
    return np.clip((0.45 - radius) / 0.1, 0, 1).astype(np.float32)


@pytest.mark.parametrize("shape", [(500, 500), (301, 257), (120, 400)])
@pytest.mark.parametrize(("size", "share"), [(0.5, 0.1), (2, 0.4), (2, 0.6), (8, 0.2), (8, 0.9)])
def test_holes_of_random_blobs_are_the_hosts(
    device: Device, rng: np.random.Generator, shape: tuple[int, int], size: float, share: float
) -> None:
    assert_same(device, ~blobs(rng, shape, size, share), face(shape))


def test_parts_that_wind_are_one(device: Device) -> None:
    """A spiral and a comb, whose pixels are joined a long way round or at corners alone."""
    shape = (200, 210)
    y, x = np.mgrid[: shape[0], : shape[1]] - 100
    spiral = (np.hypot(x, y) / 6 + np.arctan2(y, x) / 6.2832) % 1 < 0.4
    comb = (x % 2 == 0) | (y == 99)
    corners = (x + y) % 37 == 0
    for hidden in (spiral, comb, comb[::-1], corners, corners[:, ::-1]):
        assert_same(device, ~hidden, np.ones(shape, np.float32))


def test_shards_of_face_between_holes_are_the_hosts(device: Device) -> None:
    hidden = np.ones((500, 500), bool)
    hidden[20:220, 20:480] = False
    # after growing, 31 x 32 and 32 x 32 px
    for column, width in ((40, 45), (240, 46)):
        hidden[300:346, column : column + width] = False
    occlusion = assert_same(device, ~hidden, np.ones((500, 500), np.float32))
    assert occlusion.hole[310:336, 50:70].all()
    assert not occlusion.hole[310:336, 250:270].any()


def test_specks_make_no_hole(device: Device) -> None:
    mask = np.ones((500, 500), bool)
    mask[100:105, 100:105] = False  # 25 px, less than 30
    occlusion = assert_same(device, mask, np.ones((500, 500), np.float32))
    assert occlusion.fraction > 0
    assert not occlusion.hole.any()


@pytest.mark.parametrize("size", [1, 15, 16, 17, 60, 1000])
def test_crops_of_other_sizes_are_the_hosts(
    device: Device, rng: np.random.Generator, size: int
) -> None:
    mask = ~blobs(rng, (size, size), size / 30, 0.3)
    assert_same(device, mask, np.ones((size, size), np.float32))


@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_face_that_is_hidden_or_seen_altogether(device: Device, seen: bool, weight: float) -> None:
    shape = (130, 130)
    occlusion = assert_same(device, np.full(shape, seen), np.full(shape, weight, np.float32))
    assert occlusion.hole.all() == (weight > 0 and not seen)


def test_one_finder_serves_one_crop_after_the_other(
    device: Device, rng: np.random.Generator
) -> None:
    finder, weight = device.ops.HoleFinder(500, 500), face((500, 500))
    hole, stats = device.empty((500, 500), "uint8"), device.empty(3, "float64")
    for share in (0.5, 0.0, 0.2):
        mask = ~blobs(rng, weight.shape, 4, share)
        finder.find(device.put(mask), device.put(weight), hole, stats, device.stream)
        np.testing.assert_array_equal(device.get(hole, np.bool_), find_holes(mask, weight).hole)


@pytest.mark.parametrize("number", ["00", "12", "25"])
def test_holes_of_photos_are_the_hosts(
    device: Device, number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = DATA / "paper_photos" / f"{number}.jpg"
    if not photo.is_file():
        pytest.skip(f"no research data at {DATA} (set EXTREME3D_DATA)")
    assert_same(device, *photographed(str(photo), monkeypatch))


_photographed: dict[str, tuple[Mask, Float32]] = {}


def photographed(photo: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Mask, Float32]:
    """Face mask and weight of a photo."""

    def noting(face_mask: Mask, weight: Float32, method: Any) -> Occlusion:
        _photographed[photo] = face_mask, weight
        return find_holes(face_mask, weight, method)

    if photo not in _photographed:
        monkeypatch.setattr(reconstructor, "find_holes", noting)
        reconstructor.Reconstructor(occlusion="smooth", symmetry=False).reconstruct(photo)
    return _photographed[photo]


# === Masks that follow ===


@pytest.mark.parametrize("count", [1, 3, 17])
def test_box_is_the_smallest(device: Device, rng: np.random.Generator, count: int) -> None:
    mask = np.zeros((70, 90), bool)
    mask[rng.integers(0, 70, count), rng.integers(0, 90, count)] = True
    box = device.empty(4, "int32")
    device.ops.bounding_box(device.put(mask), box, device.stream)
    y, x = np.nonzero(mask)
    assert device.get(box, np.int32).tolist() == [x.min(), y.min(), -x.max(), -y.max()]


def test_box_of_nothing_is_empty(device: Device) -> None:
    box = device.empty(4, "int32")
    device.ops.bounding_box(device.put(np.zeros((70, 90), bool)), box, device.stream)
    x0, y0, minus_x1, minus_y1 = device.get(box, np.int32)
    assert x0 > -minus_x1
    assert y0 > -minus_y1


@pytest.mark.parametrize("ignored", [False, True])
def test_covers_are_the_hosts(device: Device, rng: np.random.Generator, ignored: bool) -> None:
    face_mask, in_photo, hole = rng.random((3, 61, 67)) < 0.5
    weight = np.maximum(rng.normal(size=(61, 67)), 0).astype(np.float32)
    filled, uncovered = (device.empty((61, 67), "uint8") for _ in range(2))
    device.ops.cover_masks(
        *map(device.put, (face_mask, in_photo, weight, hole)),
        ignored,
        filled,
        uncovered,
        device.stream,
    )
    expected = hole | (~in_photo & (weight > 0))
    np.testing.assert_array_equal(device.get(filled, np.bool_), expected)
    np.testing.assert_array_equal(
        device.get(uncovered, np.bool_), in_photo if ignored else face_mask & ~expected
    )


def test_masks_at_vertices_are_the_hosts(device: Device, rng: np.random.Generator) -> None:
    camera = Camera(900.0, 910.0, 30.0, 33.0, 67, 61)
    in_camera = (rng.normal(0, (40, 40, 20), (700, 3)) + [0, 0, 700]).astype(np.float32)
    in_camera[:3, 2] = 0, np.nan, np.inf
    pixel = device.empty(700, "int32")
    device.ops.pixels_of_vertices(
        device.put(in_camera),
        device.put(np.array(camera.pinhole, np.float32)),
        67,
        61,
        pixel,
        device.stream,
    )
    expected = pixels_of_vertices(in_camera[3:], camera)
    # a vertex within rounding of the border of a pixel
    assert (device.get(pixel, np.int32)[3:] != expected).sum() <= 1
    assert 0 < (expected >= 0).sum() < len(expected)
    assert device.get(pixel, np.int32)[:2].tolist() == [-1, -1]

    mask = rng.random((61, 67)) < 0.5
    visible, region = rng.random((2, 700)) < 0.5
    out = device.empty(700, "uint8")
    at = reconstructor._at_vertices(mask, device.get(pixel, np.int32))
    device.ops.shown_vertices(
        device.put(mask), pixel, device.put(visible), device.put(region), out, device.stream
    )
    np.testing.assert_array_equal(device.get(out, np.bool_), visible & region & at)
