"""Networks that look at photos in device memory, against those that look on the host."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from extreme3d_fast.crop import HeadSquare
from extreme3d_fast.device import Device
from extreme3d_fast.device_network import MAX_SQUARES, DeviceNetwork, PhotosOnDevice
from extreme3d_fast.errors import InvalidImage
from extreme3d_fast.photo_network import ASSETS, PhotoSession

UInt8 = NDArray[np.uint8]
# A grey level of an input, which a rounding can move by one, moves answers by about as much, px.
ANSWER = 0.2


@pytest.fixture(scope="module")
def on_host() -> PhotoSession:
    return PhotoSession(ASSETS / "face_detection.onnx", threads=1)


@pytest.fixture
def network(device: Device, on_host: PhotoSession) -> DeviceNetwork:
    warper, letterbox = device.ops.Warper(128, MAX_SQUARES), device.ops.Letterbox(128, 512)
    return DeviceNetwork(device, PhotosOnDevice(device), warper, letterbox, on_host)


def squares(count: int) -> list[NDArray[np.float64]]:
    return [
        HeadSquare(np.array([225.0, 110.0 + 9 * i]), 160.0, 0.1 * i).square_from_image(128)
        for i in range(count)
    ]


@pytest.mark.parametrize("count", [1, 3])
def test_squares_are_seen_as_on_the_host(
    network: DeviceNetwork, on_host: PhotoSession, portrait: UInt8, count: int
) -> None:
    ours = network.look(portrait, squares(count), 128)
    theirs = on_host.look(portrait, squares(count), 128)
    np.testing.assert_allclose(ours["boxes"], theirs["boxes"], atol=ANSWER)


@pytest.mark.parametrize(("height", "width"), [(512, 512), (512, 401), (300, 512)])
def test_whole_photo_is_seen_as_on_the_host(
    network: DeviceNetwork, on_host: PhotoSession, portrait: UInt8, height: int, width: int
) -> None:
    photo = portrait[:height, :width]
    ours, theirs = network.letterboxed(photo, 128), on_host.letterboxed(photo, 128)
    np.testing.assert_allclose(ours["boxes"], theirs["boxes"], atol=ANSWER)


def test_answers_stay_when_the_network_is_asked_again(
    network: DeviceNetwork, portrait: UInt8
) -> None:
    first = network.letterboxed(portrait, 128)["boxes"]
    kept = first.copy()
    network.letterboxed(np.zeros_like(portrait), 128)
    np.testing.assert_array_equal(first, kept)


def test_photos_wider_than_the_device_takes_are_refused(device: Device) -> None:
    photos = PhotosOnDevice(device)
    with pytest.raises(InvalidImage, match="32768"):
        photos.get(np.zeros((1, 32769, 3), np.uint8))
    small = np.full((2, 3, 3), 7, np.uint8)
    np.testing.assert_array_equal(device.get(photos.get(small), np.uint8), small)
