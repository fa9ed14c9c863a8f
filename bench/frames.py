"""Real photos in the frames of cameras, and what covers their faces: inputs of timings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bench import machine
from bench.pasting import Occluders
from bench.stats import quartiles

#: Width and height, px.
SIZES = {"VGA": (640, 480), "720p": (1280, 720), "1080p": (1920, 1080), "4K": (3840, 2160)}

JPEG_QUALITY = 95  # about what cameras write
# Standard deviation of the grain, 8-bit levels. An enlarged photo has no detail of a pixel's size,
# and would be decoded faster than what a camera of so many pixels writes. With grain, files have
# 1.5 to 3 bits a pixel: a camera's 12 megapixels in 2 to 4 MB.
GRAIN = 2.0
_BLURRED = 12  # px that the background is reduced to


@dataclass(frozen=True, eq=False)
class Subject:
    """A photo before it is put into frames."""

    name: str
    image: np.ndarray  # (H, W, 3) uint8 RGB
    box: np.ndarray | None  # x0, y0, x1, y1 px of the face


def read(photo: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a path of `stages.find_photos`, where "" is the astronaut."""
    from extreme3d_fast.image_io import load_image

    return load_image(photo) if photo else machine.astronaut()


def face_boxes(photos: Sequence[str], threads: int) -> list[np.ndarray | None]:
    """x0, y0, x1, y1 px of the main face of each photo; None where none is found.

    The tight box of the 468 points, as in `bench.photos`, here of our own foundation: photos need
    no labels.
    """
    from bench.photos import N_LANDMARKS
    from extreme3d_fast import NoFaceFound, Reconstructor

    reconstructor = Reconstructor(threads=threads)
    boxes: list[np.ndarray | None] = []
    for photo in photos:
        try:
            foundation: Any = reconstructor.estimate_foundation(read(photo))
        except NoFaceFound:
            boxes.append(None)
            continue
        points = foundation.landmarks(reconstructor.head_model, "478")[:N_LANDMARKS]
        image_from_crop = np.linalg.inv(foundation.crop_from_image)
        points = points @ image_from_crop[:2, :2].T + image_from_crop[:2, 2]
        boxes.append(np.concatenate([points.min(0), points.max(0)]))
    return boxes


def fit_scale(photo: np.ndarray, size: tuple[int, int]) -> float:
    """px of a frame of (width, height) to a px of the photo that is put into it whole."""
    return min(size[0] / photo.shape[1], size[1] / photo.shape[0])


def framed(photo: np.ndarray, size: tuple[int, int], seed: int) -> np.ndarray:
    """A photo in the frame of a camera: whole, undistorted, as large as it fits.

    The face's share of the picture is as the photographer chose it, and the same for each size, as
    if the same scene had been taken with cameras of more pixels. (One face size in px for all would
    make faces of a large frame too small for the detector's first look, which is another workload.)
    Beside the photo is its own blur, in which no second face can be found.

    Args:
        photo: (h, w, 3) uint8 RGB.
        size: width and height of the frame, px.
        seed: of the grain.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    width, height = size
    scale = fit_scale(photo, size)
    w, h = (max(1, round(scale * side)) for side in photo.shape[1::-1])
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    blurred = cv2.resize(photo, (_BLURRED, _BLURRED), interpolation=cv2.INTER_AREA)
    frame = cv2.resize(blurred, size, interpolation=cv2.INTER_CUBIC).astype(np.int16)
    x, y = (width - w) // 2, (height - h) // 2
    frame[y : y + h, x : x + w] = cv2.resize(photo, (w, h), interpolation=way)
    grain = np.empty((height, width), np.int16)  # of brightness: cameras smooth that of colours
    cv2.setRNGSeed(seed)
    cv2.randn(grain, 0, GRAIN)
    return np.clip(frame + grain[..., None], 0, 255).astype(np.uint8)


def write_jpeg(path: Path, image: np.ndarray) -> float:
    """Writes (H, W, 3) uint8 RGB as a camera would; returns the file's bits per pixel."""
    ok, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert ok
    path.write_bytes(data.tobytes())
    return 8 * len(data) / (image.shape[0] * image.shape[1])


def prepare(
    subjects: Sequence[Subject],
    size: str,
    level: int,
    occluders: Occluders | None,
    folder: Path,
    seed: int,
) -> tuple[dict[str, str], dict[str, Any]]:
    """Writes the photos of a row: their files by name, and what the report says of them.

    Args:
        subjects: the photos.
        size: of `SIZES`.
        level: % of the face's box to cover; 0 needs no occluders.
        occluders: what to cover it with.
        folder: for the files.
        seed: of coverings and grain.
    """
    files, lost, shares, heights, bits = {}, {}, [], [], []
    for i, subject in enumerate(subjects):
        image, box, frame = subject.image, subject.box, SIZES[size]
        if box is not None:
            heights.append((box[3] - box[1]) * fit_scale(image, frame))
        if level and occluders:
            if box is None:
                lost[subject.name] = "no face found even without a covering"
                continue
            rng = np.random.default_rng([seed, i, level])
            image, share = occluders.cover(image, box, level / 100, rng)
            shares.append(share)
        file = folder / f"{size}_{level}_{i}.jpg"
        bits.append(write_jpeg(file, framed(image, frame, seed + i)))
        files[subject.name] = str(file)
    return files, {
        "size": size,
        "frame_px": SIZES[size],
        "covered_percent": level,
        "covered_share": quartiles(shares),
        "photos": len(subjects),
        "lost": lost,
        "face_height_px": quartiles(heights),
        "bits_per_pixel": quartiles(bits),
    }
