"""Photos from files, arrays and PIL images, as upright (H, W, 3) uint8 RGB arrays."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from extreme3d_fast.errors import InvalidImage

#: What `load_image` takes: a path, the bytes of an image file, an array or a PIL image.
ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | npt.NDArray[Any] | Any"

#: Files with more pixels are read at 1/2, 1/4 or 1/8 of their size, the largest that fits: a face
#: is cropped to some 500 pixels anyway, and a decoded picture of this size takes 96 MB.
REDUCE_ABOVE_PIXELS = 32_000_000

#: Files with more pixels are refused, because they must be decoded whole (3 bytes a pixel).
MAX_PIXELS = 120_000_000

#: The same for baseline JPEG, which is decoded at the reduced size, a few lines at a time.
MAX_PIXELS_BASELINE_JPEG = 1_000_000_000

_ORIENTATION_TAG = 0x0112
_JPEG_START_OF_SCAN = 0xDA
_JPEG_STARTS_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})
# In coded data 0xFF is followed by 0x00 (a plain 0xFF), a restart mark or another 0xFF (padding).
_JPEG_MARKER_IN_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")


def load_image(source: ImageSource) -> npt.NDArray[np.uint8]:
    """Read a photo as 8-bit RGB, turned upright.

    Args:
        source: One of
            a path to an image file (JPEG, PNG, WebP, BMP, TIFF and what else OpenCV reads);
            the bytes of such a file;
            an array (H, W, 3) in RGB order, (H, W) or (H, W, 1) grey, or (H, W, 4) RGBA, of dtype
            uint8 in [0, 255], uint16 in [0, 65535] or floating point in [0, 1];
            a PIL image.
            The EXIF orientation of files and PIL images is applied. An alpha channel is dropped:
            the colours are taken as stored. Files of more than `REDUCE_ABOVE_PIXELS` pixels are
            read at 1/2, 1/4 or 1/8 of their size, so that pixel positions in a result count in
            that smaller picture.

    Returns:
        (H, W, 3) uint8 RGB, C-contiguous. A uint8 RGB array that already is comes back itself.

    Raises:
        FileNotFoundError: There is no such file.
        InvalidImage: The file or array is not a readable picture; the message says what is wrong.
        TypeError: `source` is none of the kinds above.

    Example:
        >>> load_image(np.zeros((4, 6), np.uint8)).shape
        (4, 6, 3)
    """
    if isinstance(source, (str, os.PathLike)):
        return _decode(_read_file(Path(source)), str(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(bytes(source), "the image bytes")
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if hasattr(source, "getexif") and hasattr(source, "convert"):
        return _from_pil(source)
    if hasattr(source, "__array__"):
        return _from_array(np.asarray(source))
    raise TypeError(
        "image should be a path, image bytes, a NumPy array or a PIL image, "
        f"got {type(source).__name__}"
    )


def _read_file(path: Path) -> bytes:
    if path.is_dir():
        raise InvalidImage(f"{path} is a folder, expected an image file")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no image file {path}") from None


def _decode(data: bytes, name: str) -> npt.NDArray[np.uint8]:
    if not data:
        raise InvalidImage(f"{name} is empty (0 bytes), expected an image file")
    size, limit = None, MAX_PIXELS
    if data.startswith(b"\xff\xd8\xff"):
        size, baseline, complete = _scan_jpeg(data)
        limit = MAX_PIXELS_BASELINE_JPEG if baseline else MAX_PIXELS
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        size, complete = _scan_png(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        size, complete = _scan_webp(data)
    else:
        size, complete = _scan_other(data)
    if not complete:
        raise InvalidImage(f"{name} is truncated: the file ends before its picture does")
    if size is not None and size[0] * size[1] > limit:
        raise InvalidImage(
            f"{name} has {size[0]} x {size[1]} pixels, at most {limit // 1_000_000} megapixels "
            "are read from a file of this kind; please make it smaller"
        )
    flags = cv2.IMREAD_COLOR
    for reduction, reduced in (
        (2, cv2.IMREAD_REDUCED_COLOR_2),
        (4, cv2.IMREAD_REDUCED_COLOR_4),
        (8, cv2.IMREAD_REDUCED_COLOR_8),
    ):
        previous = reduction // 2
        if size is not None and size[0] * size[1] > REDUCE_ABOVE_PIXELS * previous * previous:
            flags = reduced
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise InvalidImage(f"{name} cannot be decoded: {error.err}") from None
    if bgr is None or bgr.size == 0:
        raise InvalidImage(f"{name} is not an image file that can be read, or it is damaged")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=bgr), np.uint8)


def _scan_jpeg(data: bytes) -> tuple[tuple[int, int] | None, bool, bool]:
    """Walk the segments of a JPEG: ((width, height), is baseline, reaches its end mark).

    libjpeg fills what a truncated file lacks with grey and only warns, so we look ourselves.
    """
    size, baseline, at = None, False, 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:  # stray bytes between segments: readers skip them
            at += 1
            continue
        marker = data[at + 1]
        if marker == 0xFF or marker == 0x00 or marker in _JPEG_WITHOUT_LENGTH:
            at += 1 if marker == 0xFF else 2
            continue
        if marker == 0xD9:
            return size, baseline, True
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in _JPEG_STARTS_OF_FRAME:
            height = int.from_bytes(data[at + 5 : at + 7], "big")
            size = (int.from_bytes(data[at + 7 : at + 9], "big"), height)
            baseline = marker in (0xC0, 0xC1)
        at += 2 + length
        if marker == _JPEG_START_OF_SCAN:
            found = _JPEG_MARKER_IN_SCAN.search(data, at)
            at = found.start() if found else len(data)
    return size, baseline, data[at : at + 2] == b"\xff\xd9"


def _scan_png(data: bytes) -> tuple[tuple[int, int] | None, bool]:
    size = (int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big"))
    at = 8
    while at + 12 <= len(data):
        if data[at + 4 : at + 8] == b"IEND":
            return size, True
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return size, False


def _scan_webp(data: bytes) -> tuple[tuple[int, int] | None, bool]:
    complete = len(data) >= 8 + int.from_bytes(data[4:8], "little")
    size, kind = None, data[12:16]
    if kind == b"VP8X":
        size = (
            1 + int.from_bytes(data[24:27], "little"),
            1 + int.from_bytes(data[27:30], "little"),
        )
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        size = (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    elif kind == b"VP8 ":
        size = (
            int.from_bytes(data[26:28], "little") & 0x3FFF,
            int.from_bytes(data[28:30], "little") & 0x3FFF,
        )
    return size, complete


def _scan_other(data: bytes) -> tuple[tuple[int, int] | None, bool]:
    """BMP and TIFF sizes; other formats are left to OpenCV, which refuses above 2**30 pixels."""
    if data[:2] == b"BM" and len(data) >= 26:
        width = abs(int.from_bytes(data[18:22], "little", signed=True))
        height = abs(int.from_bytes(data[22:26], "little", signed=True))
        return (width, height), len(data) >= int.from_bytes(data[2:6], "little")
    if data[:4] in (b"II*\0", b"MM\0*"):
        order: Any = "little" if data[:2] == b"II" else "big"
        directory = int.from_bytes(data[4:8], order)
        count = int.from_bytes(data[directory : directory + 2], order)
        values = {}
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            if entry + 12 > len(data):
                return None, False
            bytes_each = 2 if int.from_bytes(data[entry + 2 : entry + 4], order) == 3 else 4
            values[int.from_bytes(data[entry : entry + 2], order)] = int.from_bytes(
                data[entry + 8 : entry + 8 + bytes_each], order
            )
        if 0x100 in values and 0x101 in values:
            return (values[0x100], values[0x101]), True
    return None, True


def _from_array(image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    shape_fits = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3, 4))
    if not shape_fits:
        raise InvalidImage(
            "image array should have shape (H, W, 3), (H, W, 4), (H, W, 1) or (H, W), "
            f"has {image.shape}"
        )
    if image.size == 0:
        raise InvalidImage(f"image array is empty: its shape is {image.shape}")
    image = image[:, :, None] if image.ndim == 2 else image[:, :, :3]
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    elif np.issubdtype(image.dtype, np.floating):
        low, high = float(image.min()), float(image.max())
        if not (low >= 0.0 and high <= 1.0):  # also false where a NaN came through
            got = "NaN" if np.isnan(low) else f"values from {low:g} to {high:g}"
            raise InvalidImage(
                f"floating-point image should be finite and within [0, 1], has {got}; "
                "convert 0..255 images with .astype(numpy.uint8)"
            )
        image = (image * 255.0 + 0.5).astype(np.uint8)
    elif image.dtype != np.uint8:
        raise InvalidImage(
            f"image array should be uint8, uint16 or floating point, is {image.dtype}"
        )
    if image.shape[2] == 1:
        image = np.broadcast_to(image, (*image.shape[:2], 3))
    return np.ascontiguousarray(image)


def _from_pil(image: Any) -> npt.NDArray[np.uint8]:
    """A PIL image, known by its methods: Pillow itself is not a requirement."""
    try:
        image.load()
        orientation = int(image.getexif().get(_ORIENTATION_TAG, 1))
        if image.mode == "F":
            array = _from_array(np.asarray(image))
        elif image.mode in ("I;16", "I;16L", "I;16B"):
            array = _from_array(np.asarray(image).astype(np.uint16))
        elif image.mode == "I":  # 32-bit container of 16-bit pictures, as PNG readers give it
            values = np.asarray(image)
            if values.size and (values.min() < 0 or values.max() > 65535):
                raise InvalidImage("PIL image of mode 'I' should have values in [0, 65535]")
            array = _from_array(values.astype(np.uint16))
        else:
            array = _from_array(np.asarray(image.convert("RGB")))
    except OSError as error:
        raise InvalidImage(f"the PIL image cannot be read: {error}") from None
    return _upright(array, orientation)


def _upright(image: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """Undo an EXIF orientation (1 to 8; others count as 1, as everywhere)."""
    quarter_turns, mirrored = {
        2: (0, True),
        3: (2, False),
        4: (2, True),
        5: (3, True),
        6: (3, False),
        7: (1, True),
        8: (1, False),
    }.get(orientation, (0, False))
    turned = np.rot90(image, quarter_turns)
    return np.ascontiguousarray(turned[:, ::-1] if mirrored else turned)
