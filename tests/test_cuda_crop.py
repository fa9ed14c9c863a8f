"""Squares cut from photos in device memory against those that OpenCV cuts on the host."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from extreme3d_fast.detect import HeadSquare, warp_similarity
from extreme3d_fast.device import Device

UInt8 = NDArray[np.uint8]


def square(x: float, y: float, side: float, roll: float, size: int) -> NDArray[np.float64]:
    return HeadSquare(np.array([x, y]), side, roll).square_from_image(size)


def warped(device: Device, photo: UInt8, matrices: list[NDArray[np.float64]], size: int) -> UInt8:
    warper = device.ops.Warper(size, len(matrices))
    crops = device.empty((len(matrices), size, size, 3), "uint8")
    warper.warp(
        device.put(photo), device.put(np.stack(matrices)), size, crops, stream=device.stream
    )
    return device.get(crops, np.uint8)


def assert_looks_like(ours: UInt8, expected: UInt8) -> None:
    """OpenCV's places of samples are float32, which moves a value at .5 over: one grey level, in
    up to 3 in 10,000 values of a photo."""
    difference = np.abs(ours.astype(int) - expected)
    assert difference.max(initial=0) <= 1
    assert (difference > 0).mean() <= 5e-4


# Of the astronaut: enlarged by cubics; about 1:1; blurred; reduced by 2, 3 and 5 px, and blurred;
# beyond the photo; upside down.
SQUARES = [
    (225.0, 110.0, 60.0, 0.1),
    (225.0, 110.0, 99.0, -0.2),
    (225.5, 110.2, 160.0, 0.7),
    (230.0, 180.0, 205.0, 0.0),
    (230.0, 180.0, 333.0, 0.3),
    (256.0, 256.0, 513.0, 0.0),
    (256.0, 256.0, 590.0, 1.2),
    (20.0, 500.0, 250.0, -0.4),
    (225.0, 110.0, 150.0, 3.0),
]


@pytest.mark.parametrize("where", SQUARES)
def test_square_of_a_portrait_is_the_hosts(
    device: Device, portrait: UInt8, where: tuple[float, float, float, float]
) -> None:
    matrix = square(*where, size=100)
    assert_looks_like(
        warped(device, portrait, [matrix], 100)[0], warp_similarity(portrait, matrix, 100)
    )


def test_several_squares_are_cut_at_once(device: Device, portrait: UInt8) -> None:
    matrices = [square(*where, size=64) for where in SQUARES]
    expected = np.stack([warp_similarity(portrait, matrix, 64) for matrix in matrices])
    assert_looks_like(warped(device, portrait, matrices, 64), expected)


def test_noise_at_any_size_is_cut_as_on_the_host(device: Device, rng: np.random.Generator) -> None:
    for _ in range(20):
        height, width = rng.integers(1, 90, 2)
        photo = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        x, y = rng.uniform(-0.2, 1.2, 2) * (width, height)
        matrix = square(x, y, float(np.exp(rng.uniform(1, 6))), rng.uniform(-3, 3), 33)
        difference = np.abs(
            warped(device, photo, [matrix], 33)[0].astype(int) - warp_similarity(photo, matrix, 33)
        )
        # Noise is as steep as can be: float32 places are off by up to 1e-4 px of 255.
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (700, 2), (3, 5)])
def test_slivers_are_blurred_as_on_the_host(
    device: Device, rng: np.random.Generator, shape: tuple[int, int]
) -> None:
    photo = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    for side in (2.0, 40.0, 800.0):
        matrix = square(shape[1] / 2, shape[0] / 2, side, 0.2, 50)
        assert_looks_like(
            warped(device, photo, [matrix], 50)[0], warp_similarity(photo, matrix, 50)
        )


def test_square_beside_the_photo_is_black(device: Device, portrait: UInt8) -> None:
    far = square(1e6, -1e6, 100.0, 0.3, 40)
    flat = np.zeros((3, 3))  # of landmarks that are all in one place
    lost = np.full((3, 3), np.nan)
    assert not warped(device, portrait, [far, flat, lost], 40).any()


def test_large_reductions_fit_the_scratch(device: Device, rng: np.random.Generator) -> None:
    # Just below a whole number the part is largest; turned by 45 degrees its box is too.
    photo = rng.integers(0, 256, (900, 1100, 3), dtype=np.uint8)
    for side in (2.99 * 150, 3.99 * 150, 5.99 * 150):
        matrix = square(550, 450, side, np.pi / 4, 150)
        assert_looks_like(
            warped(device, photo, [matrix], 150)[0], warp_similarity(photo, matrix, 150)
        )


def test_inputs_are_prepared_for_a_network(device: Device, portrait: UInt8) -> None:
    matrix = square(*SQUARES[2], size=48)
    crop = warped(device, portrait, [matrix], 48)
    warper, photo = device.ops.Warper(48), device.put(portrait)
    inputs = device.empty((1, 48, 48, 3))
    for mean, std in ((0.0, 1.0), (127.5, 127.5), (0.0, 255.0)):
        warper.warp(
            photo,
            device.put(matrix[None]),
            48,
            inputs=inputs,
            mean=mean,
            std=std,
            stream=device.stream,
        )
        expected = (crop.astype(np.float32) - np.float32(mean)) * np.float32(1 / std)
        np.testing.assert_allclose(device.get(inputs), expected, atol=1e-6)


def test_more_than_the_scratch_holds_is_refused(device: Device, portrait: UInt8) -> None:
    warper, photo = device.ops.Warper(64, 1), device.put(portrait)
    for count, size in ((2, 64), (1, 65)):
        crops = device.empty((count, size, size, 3), "uint8")
        with pytest.raises(ValueError, match="should"):
            warper.warp(photo, device.put(np.zeros((count, 3, 3))), size, crops)


def letterbox(image: UInt8) -> UInt8:
    """As FaceDetector looks at a whole photo."""
    scale = 128 / max(image.shape[:2])
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    top, left = (128 - height) // 2, (128 - width) // 2
    out = np.zeros((128, 128, 3), np.uint8)
    out[top : top + height, left : left + width] = cv2.resize(
        image, (width, height), interpolation=cv2.INTER_AREA
    )
    return out


@pytest.mark.parametrize(
    ("height", "width"),
    [(512, 512), (512, 401), (130, 333), (128, 128), (500, 3), (1, 1), (60, 50), (129, 127)],
)
def test_letterbox_is_the_hosts(device: Device, portrait: UInt8, height: int, width: int) -> None:
    photo = portrait[:height, :width]
    out = device.empty((128, 128, 3))
    device.ops.Letterbox(128, 512).fit(
        device.put(photo), out, mean=127.5, std=127.5, stream=device.stream
    )
    difference = np.abs(np.rint(device.get(out) * 127.5 + 127.5) - letterbox(photo))
    # Values at .5 by float sums in another order; enlarged, OpenCV's weights are 1/2048 each.
    assert difference.max() <= 1
    assert (difference > 0).mean() <= (1e-3 if max(height, width) >= 128 else 0.1)


def test_photo_that_the_letterbox_cannot_hold_is_refused(device: Device, portrait: UInt8) -> None:
    with pytest.raises(ValueError, match="photo should have sides"):
        device.ops.Letterbox(128, 500).fit(device.put(portrait), device.empty((128, 128, 3)))
