"""The bump-map network: relief of the face in a crop, and which pixels show it (paper §4.1-4.2).

The network knows faces at one scale: a crop of 500 px, padded to a map of 512 px as the paper's,
so that image pixel (x, y) is map pixel (x + 6, y + 6). Only a window of the map is run, round the
face. Besides the photo the network may see the foundation's normals, which tell it which way the
surface faces where the photo's shading is ambiguous.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from extreme3d_fast import _core
from extreme3d_fast._arrays import Float32, UInt8
from extreme3d_fast._shading import check_photo, f32, face_window
from extreme3d_fast.camera import Camera
from extreme3d_fast.errors import InvalidModelFile
from extreme3d_fast.photo_network import ASSETS, OpenNetwork, PhotoNetwork, PhotoSession
from extreme3d_fast.session import Network

__all__ = [
    "CROP_SIZE",
    "FACE_SHOWN",
    "MAX_BUMP",
    "BumpContract",
    "BumpEstimate",
    "BumpNetwork",
    "MapWindow",
]

#: mm: relief beyond this belongs to the foundation, and no network learned it.
MAX_BUMP = 6.0
#: Probability from which on a pixel counts as showing the face.
FACE_SHOWN = 0.5

CROP_SIZE = 500  # px of the crop that the network knows
MAP_SIZE = 512  # px of its map
OFFSET = 6  # image pixel (x, y) is map pixel (x + OFFSET, y + OFFSET)
_CONTEXT = 24  # px of the map shown round the face
_STRIDE = 64  # of a network whose file does not say: six halvings

_RGB, _RGB_AND_NORMALS = 3, 5
_PREPARATION = {"mean": 127.5, "std": 127.5}


class BumpEstimate(NamedTuple):
    """What the network says of a crop."""

    bump: Float32  #: (S, S) mm, positive is deeper, 0 where the face weight is 0
    face_probability: Float32  #: (S, S) in [0, 1]: the pixel shows the face; 0 off the face


class MapWindow(NamedTuple):
    """A part of the map, which may reach beyond the crop."""

    shape: tuple[int, int]  #: height and width
    in_crop: tuple[slice, slice]  #: its pixels that the 500 px crop has
    inside: tuple[slice, slice]  #: where they lie in the window

    @property
    def corner(self) -> tuple[int, int]:
        """Row and column of its first pixel in the crop; may be negative."""
        row, column = (c.start - i.start for c, i in zip(self.in_crop, self.inside, strict=True))
        return row, column


class BumpContract:
    """What the file of a bump network has to say, checked.

    Args:
        network: the network.

    Raises:
        InvalidModelFile: it is another network.

    Attributes:
        channels: that the network sees: 3 is RGB, 5 is RGB and normals.
        name: name and version, as its file says.
        stride: windows are multiples of this, px.
    """

    def __init__(self, network: Network | PhotoNetwork) -> None:
        self._network = network
        self.channels = self._integer("channels", None)
        self.name = "{name} {version}".format(**network.metadata)
        self.stride = self._integer("stride", _STRIDE)
        self._check_preparation()
        network.expect(
            inputs={"image": (1, self.channels, None, None)},
            outputs={"bump": (1, 1, None, None), "mask": (1, 1, None, None)},
        )

    def window(self, rows: slice, columns: slice) -> MapWindow:
        """Part of the map that holds a box of the 500 px crop with context."""
        (height, crop_rows, inside_rows), (width, crop_columns, inside_columns) = (
            _interval(box.start, box.stop, self.stride) for box in (rows, columns)
        )
        return MapWindow((height, width), (crop_rows, crop_columns), (inside_rows, inside_columns))

    def _integer(self, key: str, default: int | None) -> int:
        text = self._network.metadata.get(key, "" if default is None else str(default))
        allowed = (
            (_RGB, _RGB_AND_NORMALS)
            if key == "channels"
            else tuple(n for n in range(1, MAP_SIZE + 1) if MAP_SIZE % n == 0)
        )
        if not (text.isascii() and text.isdigit() and int(text) in allowed):
            raise InvalidModelFile(
                f"path: {self._network.path}: expected metadata {key} in {allowed}, "
                f"it has {text or 'none'}"
            )
        return int(text)

    def _check_preparation(self) -> None:
        have = {key: self._network.metadata[key] for key in ("colour_order", *_PREPARATION)}
        try:
            fits = have["colour_order"] == "RGB" and all(
                float(have[key]) == value for key, value in _PREPARATION.items()
            )
        except ValueError:
            fits = False
        if not fits:
            raise InvalidModelFile(
                f"path: {self._network.path}: expected metadata "
                f"{ {'colour_order': 'RGB', **_PREPARATION} }, it has {have}"
            )


class BumpNetwork:
    """Reads relief and the face mask from a crop; keeps the network loaded.

    Args:
        path: ONNX file; None is the built-in network. It takes `image` (1, C, H, W) float32, H and
            W multiples of its metadata's `stride` (64 where it has none), C its `channels`:
            R, G, B as x / 127.5 - 1 with 0 beyond the crop, and for C = 5 the foundation's unit
            normals nx, ny (camera frame, towards the camera), 0 where there is no foundation.
            It gives `bump` (1, 1, H, W) mm, positive is deeper, and `mask` (1, 1, H, W), the
            probability that a pixel shows the face.
        threads: at least 1; the result is the same for any number.
        open_network: opens the file; None is `PhotoSession` with these threads.

    Raises:
        FileNotFoundError: there is no such file.
        InvalidModelFile: the file is damaged or another network.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        threads: int = 1,
        open_network: OpenNetwork | None = None,
    ) -> None:
        self._threads = threads
        open_network = open_network or partial(PhotoSession, threads=threads)
        self._session = open_network(ASSETS / "bump.onnx" if path is None else os.fspath(path))
        #: What its file says.
        self.contract = BumpContract(self._session)
        #: Name and version, as its file says.
        self.name = self.contract.name
        #: What runs it, for reports.
        self.runtime = self._session.runtime

    def estimate(
        self, image: npt.ArrayLike, weight: npt.ArrayLike, depth: npt.ArrayLike, camera: Camera
    ) -> BumpEstimate:
        """Bump map and face mask of a crop.

        Args:
            image: (S, S, 3) uint8 RGB, upright crop as `crop_face` cuts it.
            weight: (S, S) in [0, 1], how much of the bump map applies: 1 on the face, fading to 0
                at its border, 0 on eyes, inner mouth and outside.
            depth: (S, S) mm, depth of the foundation, +inf where no face.
            camera: camera of the crop; only its focal length is used, for the size of a pixel.

        Returns:
            The bump map, within ±`MAX_BUMP` and times the weight, and the probability that a pixel
            shows the face, eyes and inner mouth included; all zeros where there is no face.

        Raises:
            TypeError, ValueError: a map has the wrong dtype, shape or values.
            InvalidModelFile: the network fails, or answers with NaN or infinity.
        """
        rgb, w, z = check_photo(image, weight, depth)
        size = len(w)
        if w.shape != (size, size):
            raise ValueError(f"`image` should be square, has shape {rgb.shape}")
        rgb, small_w, z = _resized_crop(rgb, w, z)
        face = face_window(small_w, z, replace(camera, fx=camera.fx * CROP_SIZE / size), 0.0)
        if face is None:
            return BumpEstimate(*np.zeros((2, size, size), np.float32))
        window = self.contract.window(face.rows, face.columns)
        out = self._session.run({"image": self._input(rgb, z, face.mm_per_pixel, window)})
        shape = (1, 1, *window.shape)
        shown = _without_openings(w > 0)
        # what is resized afterwards is weighted then
        known_size = size == CROP_SIZE
        counted = w if known_size else np.ones((CROP_SIZE, CROP_SIZE), np.float32)
        asked = shown if known_size else counted > 0
        finite = False
        if all(answer.shape == shape for answer in out.values()):
            relief, mask = (np.ascontiguousarray(out[name][0, 0]) for name in ("bump", "mask"))
            row, column = window.corner
            bump, probability, finite = _core.bump_output(
                relief, mask, column, row, counted, asked.view(np.uint8), self._threads
            )
        if not finite:
            raise InvalidModelFile(
                f"path: {self._session.path}: expected finite bump and mask of shape {shape}, it "
                f"answers with {[answer.shape for answer in out.values()]}, NaN or infinity"
            )
        if not known_size:
            bump, probability = _resized_answer(bump, size), _resized_answer(probability, size)
            bump *= w
            probability[~shown] = 0
        return BumpEstimate(bump, probability)

    def _input(
        self, image: UInt8, depth: Float32, mm_per_pixel: float, window: MapWindow
    ) -> Float32:
        """(1, C, h, w): what the network sees of a 500 px crop."""
        (row, column), (height, width) = window.corner, window.shape
        channels, threads = self.contract.channels, self._threads
        return _core.bump_input(
            image, depth, mm_per_pixel, column, row, width, height, channels, threads
        )


def _resized_crop(image: UInt8, weight: Float32, depth: Float32) -> tuple[UInt8, Float32, Float32]:
    """The maps of a crop at the size that the network knows."""
    size = len(image)
    if size == CROP_SIZE:
        return image, weight, depth
    seen = np.isfinite(depth)
    share = _resized(seen.astype(np.float32), CROP_SIZE)
    mean = _resized(np.where(seen, depth, np.float32(0)), CROP_SIZE)
    mean = np.where(share > 0.5, mean / np.maximum(share, np.float32(1e-6)), np.float32(np.inf))
    rgb = cv2.resize(image, (CROP_SIZE, CROP_SIZE), interpolation=_interpolation(size, CROP_SIZE))
    return (
        np.asarray(rgb, dtype=np.uint8),
        np.clip(_resized(weight, CROP_SIZE), 0, 1),
        f32(mean),
    )


def _resized(a: Float32, size: int) -> Float32:
    """A square map at another size; pixel centres stay where they are in the crop."""
    return f32(cv2.resize(a, (size, size), interpolation=_interpolation(len(a), size)))


def _interpolation(size: int, new: int) -> int:
    return int(cv2.INTER_AREA if new < size else cv2.INTER_LINEAR)


def _interval(start: int, stop: int, stride: int) -> tuple[int, slice, slice]:
    """Length of an interval of the map, its pixels that the crop has, and where it has them."""
    low = max(start + OFFSET - _CONTEXT, 0)
    high = min(stop + OFFSET + _CONTEXT, MAP_SIZE)
    length = -(-(high - low) // stride) * stride  # at most MAP_SIZE, which is a multiple too
    first = min(max((low + high - length) // 2, 0), MAP_SIZE - length)
    crop = slice(max(first - OFFSET, 0), min(first + length - OFFSET, CROP_SIZE))
    into = OFFSET - first
    return length, crop, slice(crop.start + into, crop.stop + into)


def _resized_answer(answer: Float32, size: int) -> Float32:
    """A map of the 500 px crop in one of another size."""
    # Bilinear relief would have facets where a larger crop has several pixels to one of these. What
    # a cubic overshoots, it may not.
    way = cv2.INTER_CUBIC if size > CROP_SIZE else cv2.INTER_AREA
    low, high = float(answer.min()), float(answer.max())
    return f32(np.clip(cv2.resize(answer, (size, size), interpolation=way), low, high))


def _without_openings(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The mask with its inner holes (eyes, inner mouth) closed."""
    padded = cv2.copyMakeBorder(mask.view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    cv2.floodFill(padded, None, (0, 0), 2)
    return np.asarray(padded[1:-1, 1:-1] != 2)
