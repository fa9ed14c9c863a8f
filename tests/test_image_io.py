"""image_io: every kind of input gives a correct picture or an error that names the fault."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from extreme3d_fast import image_io
from extreme3d_fast.errors import InvalidImage
from extreme3d_fast.image_io import load_image

# Four colours in the corners of a 24 x 16 picture: turning it any way is told by its corners.
RED, GREEN, BLUE, WHITE = (220, 30, 30), (30, 200, 30), (30, 30, 210), (240, 240, 240)


def corners_picture() -> NDArray[np.uint8]:
    image = np.zeros((16, 24, 3), np.uint8)
    image[:8, :12], image[:8, 12:], image[8:, :12], image[8:, 12:] = RED, GREEN, BLUE, WHITE
    return image


def corners(image: NDArray[np.uint8]) -> list[str]:
    names = {RED: "red", GREEN: "green", BLUE: "blue", WHITE: "white"}
    found = [image[2, 2], image[2, -3], image[-3, 2], image[-3, -3]]
    colors = np.array(list(names))
    return [list(names.values())[int(np.abs(colors - c).sum(1).argmin())] for c in found]


def encoded(image: NDArray[np.uint8], form: str, **options: object) -> bytes:
    file = BytesIO()
    Image.fromarray(image).save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_file_gives_its_pixels(tmp_path: Path, form: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    (tmp_path / "photo").write_bytes(encoded(corners_picture(), form, **options))
    np.testing.assert_array_equal(load_image(tmp_path / "photo"), corners_picture())


def test_jpeg_gives_rgb_not_bgr(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(encoded(corners_picture(), "JPEG", quality=95))
    image = load_image(str(tmp_path / "photo.jpg"))
    assert corners(image) == ["red", "green", "blue", "white"]


def test_file_bytes_are_taken_too() -> None:
    np.testing.assert_array_equal(load_image(encoded(corners_picture(), "PNG")), corners_picture())


def test_name_outside_ascii_is_read(tmp_path: Path) -> None:
    path = tmp_path / "пример 写真.png"
    path.write_bytes(encoded(corners_picture(), "PNG"))
    np.testing.assert_array_equal(load_image(path), corners_picture())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["file", "pil"])
def test_exif_orientation_is_undone(orientation: int, kind: str) -> None:
    # What a camera stores for an upright scene is the scene turned the other way.
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](corners_picture())
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(np.ascontiguousarray(stored), "JPEG", quality=95, exif=exif)
    image = load_image(data if kind == "file" else Image.open(BytesIO(data)))
    assert image.shape == (16, 24, 3)
    assert corners(image) == ["red", "green", "blue", "white"]


def test_missing_file_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"no image file .*nowhere\.jpg"):
        load_image("nowhere.jpg")


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidImage, match="is a folder"):
        load_image(tmp_path)


def test_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(InvalidImage, match=r"photo\.jpg is empty"):
        load_image(tmp_path / "photo.jpg")


def test_text_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_text("not a picture at all, whatever its name says\n" * 9)
    with pytest.raises(InvalidImage, match="not an image file"):
        load_image(tmp_path / "photo.jpg")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "WEBP", "TIFF"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.99])
def test_truncated_file_is_refused(portrait: NDArray[np.uint8], form: str, kept: float) -> None:
    data = encoded(portrait[100:300, 150:350], form)
    with pytest.raises(InvalidImage, match=r"truncated|damaged|cannot be decoded"):
        load_image(data[: int(kept * len(data))])


def test_truncated_progressive_jpeg_is_refused(portrait: NDArray[np.uint8]) -> None:
    data = encoded(portrait, "JPEG", progressive=True)
    assert load_image(data).shape == portrait.shape
    with pytest.raises(InvalidImage, match="truncated"):
        load_image(data[: len(data) * 2 // 3])


def test_end_mark_of_a_thumbnail_does_not_hide_truncation(portrait: NDArray[np.uint8]) -> None:
    exif = b"Exif\0\0" + encoded(portrait[:60, :80], "JPEG")
    data = encoded(portrait, "JPEG", exif=exif)
    with pytest.raises(InvalidImage, match="truncated"):
        load_image(data[: len(data) // 2])


def test_bytes_after_the_jpeg_end_mark_are_ignored() -> None:
    data = encoded(corners_picture(), "JPEG", quality=95)
    assert corners(load_image(data + b"appended by some phone" * 50))[0] == "red"


def test_one_pixel_is_a_picture() -> None:
    assert load_image(encoded(np.full((1, 1, 3), 7, np.uint8), "PNG")).tolist() == [[[7, 7, 7]]]


def solid_png(width: int, height: int) -> bytes:
    """A grey PNG of any size in little memory, as a hostile upload would be."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)

    packer = zlib.compressobj(9)
    row = b"\0" + b"\x80" * width
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_huge_png_is_refused_before_it_is_decoded() -> None:
    data = solid_png(20_000, 20_000)
    tracemalloc.start()
    with pytest.raises(InvalidImage, match="20000 x 20000 pixels, at most 120 megapixels"):
        load_image(data)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_huge_jpeg_is_read_at_a_reduced_size() -> None:
    data = cv2.imencode(".jpg", np.full((20_000, 20_000), 128, np.uint8))[1].tobytes()
    image = load_image(data)
    assert image.shape == (5000, 5000, 3)
    assert abs(int(image[2500, 2500, 0]) - 128) <= 2


def test_large_png_is_reduced_to_the_pixel_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_io, "REDUCE_ABOVE_PIXELS", 100)
    assert load_image(encoded(corners_picture(), "PNG")).shape == (8, 12, 3)


def test_uint8_rgb_array_comes_back_uncopied() -> None:
    image = corners_picture()
    assert load_image(image) is image or np.shares_memory(load_image(image), image)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1)])
def test_grey_array_is_repeated_in_three_channels(shape: tuple[int, ...]) -> None:
    image = load_image(np.arange(35, dtype=np.uint8).reshape(shape))
    assert image.shape == (5, 7, 3)
    assert (image == np.arange(35).reshape(5, 7, 1)).all()


def test_alpha_is_dropped() -> None:
    rgba = np.dstack([corners_picture(), np.zeros((16, 24), np.uint8)])
    np.testing.assert_array_equal(load_image(rgba), corners_picture())
    np.testing.assert_array_equal(load_image(encoded(rgba, "PNG")), corners_picture())
    np.testing.assert_array_equal(load_image(Image.fromarray(rgba)), corners_picture())


def test_sixteen_bits_are_scaled_to_eight() -> None:
    deep = (corners_picture().astype(np.uint16) << 8) + 130
    np.testing.assert_array_equal(load_image(deep), corners_picture())
    data = cv2.imencode(".png", deep[:, :, ::-1])[1].tobytes()
    np.testing.assert_array_equal(load_image(data), corners_picture())


def test_sixteen_bit_grey_pil_image_is_scaled() -> None:
    deep = np.full((3, 4), 0x8012, np.uint16)
    assert (load_image(Image.open(BytesIO(encoded(deep, "PNG")))) == 0x80).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_in_unit_range_are_scaled(dtype: type) -> None:
    np.testing.assert_allclose(
        load_image((corners_picture() / 255).astype(dtype)).astype(int), corners_picture(), atol=1
    )


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((4, 4, 3), np.nan), "has NaN"),
        (np.full((4, 4, 3), np.inf), "from inf to inf"),
        (np.full((4, 4, 3), 200.0), r"within \[0, 1\], has values from 200 to 200"),
        (np.full((4, 4, 3), -0.1), "from -0.1"),
        (np.zeros((3, 40, 50), np.uint8), r"has \(3, 40, 50\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"has \(2, 4, 4, 3\)"),
        (np.zeros((4, 4, 2), np.uint8), r"has \(4, 4, 2\)"),
        (np.zeros(12, np.uint8), r"has \(12,\)"),
        (np.zeros((0, 5, 3), np.uint8), "is empty"),
        (np.zeros((4, 4, 3), np.int64), "is int64"),
        (np.zeros((4, 4, 3), bool), "is bool"),
        (np.full((4, 4, 3), None), "is object"),
        (np.zeros((4, 4, 3), complex), "is complex128"),
    ],
)
def test_wrong_array_is_refused_with_what_came(array: NDArray[np.generic], message: str) -> None:
    with pytest.raises(InvalidImage, match=message):
        load_image(array)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "CMYK", "RGBA", "YCbCr", "HSV"])
def test_pil_image_of_any_mode_is_taken(mode: str) -> None:
    white = Image.new("RGB", (6, 4), (255, 255, 255)).convert(mode)
    image = load_image(white)
    assert image.shape == (4, 6, 3)
    assert image.min() >= 250


def test_truncated_pil_image_is_refused(portrait: NDArray[np.uint8]) -> None:
    data = encoded(portrait, "JPEG")
    with pytest.raises(InvalidImage, match="PIL image cannot be read"):
        load_image(Image.open(BytesIO(data[: len(data) // 2])))


def test_list_is_not_an_image() -> None:
    with pytest.raises(TypeError, match="got list"):
        load_image([[0, 1], [2, 3]])
