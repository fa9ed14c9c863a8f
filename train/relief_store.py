"""The store of windows with foundation, face mask and bump map: its layout, and what is cut how.

A window is WINDOW px square, cut out of the pipeline's crop (CROP px, upright, about 1.8 px/mm)
round the face. A set NAME is NAME.npz with one entry a window and NAME_MAP.npy for each map:

    image   (N, 384, 384, 3) uint8    RGB, black where the photo ends
    normal  (N, 192, 192, 2) int8     x, y of the foundation's unit normal times 127, 0 where none
    weight  (N, 192, 192)    uint8    where bump maps apply (face_weight of the pipeline) times 255
    depth   (N, 384, 384)    float16  of the foundation less its median on the face, mm, +inf: none
    mask    (N, 384, 384)    uint8    1 face, 0 hidden or not face, UNKNOWN
    bump    (N, 384, 384)    float16  mm along the viewing direction, positive is deeper
    trust   (N, 384, 384)    uint8    weight of `bump` in the loss times 255, 0 where there is none
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

CROP = 500  # px, side of the pipeline's crop
WINDOW = 384  # px
UNKNOWN = 255  # in masks
BAND_SIGMA = 12.0  # mm: the foundation owns waves longer than about 60 mm
MAX_BUMP = 6.0  # mm

MAPS: dict[str, tuple[tuple[int, ...], Any]] = {
    "image": ((WINDOW, WINDOW, 3), np.uint8),
    "normal": ((WINDOW // 2, WINDOW // 2, 2), np.int8),
    "weight": ((WINDOW // 2, WINDOW // 2), np.uint8),
    "depth": ((WINDOW, WINDOW), np.float16),
    "mask": ((WINDOW, WINDOW), np.uint8),
    "bump": ((WINDOW, WINDOW), np.float16),
    "trust": ((WINDOW, WINDOW), np.uint8),
}


def window_origin(weight: npt.ArrayLike) -> tuple[int, int]:
    """(x, y) of the window round a face in its crop.

    Args:
        weight: (H, W) > 0 where bump maps apply, of a crop no smaller than the window.
    """
    face = np.asarray(weight) > 0
    origin = []
    for axis in (0, 1):
        at = np.flatnonzero(face.any(axis))
        side = face.shape[1 - axis]
        middle = (at[0] + at[-1] + 1) / 2 if len(at) else side / 2
        origin.append(int(np.clip(round(middle - WINDOW / 2), 0, side - WINDOW)))
    return origin[0], origin[1]


def window(a: npt.NDArray[Any], origin: tuple[int, int]) -> npt.NDArray[Any]:
    """The window of a map of the crop."""
    x, y = origin
    return a[y : y + WINDOW, x : x + WINDOW]


def band(
    delta: npt.ArrayLike, weight: npt.ArrayLike, mm_per_pixel: float
) -> npt.NDArray[np.float32]:
    """What a bump map may hold of a displacement: less its average round about, and limited.

    Args:
        delta: (H, W) mm, finite where weight > 0.
        weight: (H, W) > 0 where bump maps apply.
        mm_per_pixel: size of a pixel at the face.

    Returns:
        (H, W) float32 mm, 0 where weight is 0.
    """
    seen = (np.asarray(weight) > 0).astype(np.float32)
    z = np.where(seen > 0, np.asarray(delta, np.float32), np.float32(0))
    sigma = BAND_SIGMA / mm_per_pixel
    # an average that wide is the same from coarser pixels
    height, width = z.shape
    coarse = max(1, int(sigma / 5))
    size = (max(width // coarse, 1), max(height // coarse, 1))

    def average(a: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        small = cv2.resize(a, size, interpolation=cv2.INTER_AREA)
        scale = sigma * np.sqrt(size[0] * size[1] / (width * height))
        small = cv2.GaussianBlur(small, (0, 0), scale, borderType=cv2.BORDER_CONSTANT)
        return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))

    z -= average(z) / np.maximum(average(seen), np.float32(1e-3))
    return np.asarray(np.clip(z, -MAX_BUMP, MAX_BUMP) * seen)


class SetWriter:
    """Writes a set, window by window.

    Args:
        path_prefix: FOLDER/NAME.
        count: windows there may be; `finish` cuts off what was not written.
    """

    def __init__(self, path_prefix: str | Path, count: int) -> None:
        self.prefix = Path(path_prefix)
        self.prefix.parent.mkdir(parents=True, exist_ok=True)
        self.rows = 0
        self.maps = {
            name: np.lib.format.open_memmap(
                map_path(self.prefix, name), "w+", dtype, (count, *shape)
            )
            for name, (shape, dtype) in MAPS.items()
        }

    def write(
        self,
        i: int,
        *,
        image: npt.NDArray[np.uint8],
        normal: npt.NDArray[np.floating[Any]],
        weight: npt.NDArray[np.floating[Any]],
        depth: npt.NDArray[np.floating[Any]],
        mask: npt.NDArray[Any],
        bump: npt.NDArray[np.floating[Any]] | None = None,
        trust: npt.NDArray[np.floating[Any]] | None = None,
    ) -> None:
        """Writes window i; all maps of the window's full size.

        Args:
            i: row.
            image: (384, 384, 3) uint8 RGB.
            normal: (384, 384, 2 or 3) unit normals, OpenCV axes; they count where depth is finite.
            weight: (384, 384) in [0, 1].
            depth: (384, 384) mm, +inf where no foundation; from where it counts does not matter.
            mask: (384, 384) 0, 1 or UNKNOWN.
            bump: (384, 384) mm; None: nowhere.
            trust: (384, 384) in [0, 1]; None: 0.
        """
        maps = self.maps
        there = np.isfinite(depth)
        maps["image"][i] = image
        maps["normal"][i] = _half_normals(normal, there)
        maps["weight"][i] = np.rint(255 * _half(weight))
        face = there & (np.asarray(weight) > 0)
        middle = np.median(depth[face]) if face.any() else 0.0
        maps["depth"][i] = np.where(there, depth - middle, np.inf)
        maps["mask"][i] = mask
        if bump is not None and trust is not None:
            maps["bump"][i] = bump
            maps["trust"][i] = np.rint(255 * np.clip(trust, 0, 1))
        self.rows = max(self.rows, i + 1)

    def finish(self, **arrays: npt.ArrayLike) -> None:
        """Cuts the maps to the rows written and writes the entries that go with them."""
        for name, values in arrays.items():
            if len(np.asarray(values)) != self.rows:
                raise ValueError(
                    f"{name}: expected {self.rows} entries, got {len(np.asarray(values))}"
                )
        for name, m in self.maps.items():
            m.flush()
            _cut(map_path(self.prefix, name), m, self.rows)
        self.maps = {}
        np.savez(self.prefix.with_name(self.prefix.name + ".npz"), **arrays)


def map_path(prefix: str | Path, name: str) -> Path:
    """File of a map of the set FOLDER/NAME."""
    prefix = Path(prefix)
    return prefix.with_name(f"{prefix.name}_{name}.npy")


def open_set(
    prefix: str | Path, mode: str = "r"
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]]]:
    """Maps (memory-mapped) and entries of the set FOLDER/NAME."""
    prefix = Path(prefix)
    maps = {name: np.load(map_path(prefix, name), mmap_mode=mode) for name in MAPS}
    with np.load(prefix.with_name(prefix.name + ".npz")) as entries:
        return maps, dict(entries)


# === Details ===


def _half(a: npt.ArrayLike) -> npt.NDArray[np.float32]:
    full = np.asarray(a, np.float32)
    size = (full.shape[1] // 2, full.shape[0] // 2)
    return np.asarray(cv2.resize(full, size, interpolation=cv2.INTER_AREA))


def _half_normals(
    normal: npt.NDArray[np.floating[Any]], there: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int8]:
    seen = there.astype(np.float32)
    n = _half(np.asarray(normal, np.float32)[..., :2] * seen[..., None])
    share = _half(seen)[..., None]
    n = np.where(share >= 0.5, n / np.maximum(share, np.float32(0.25)), np.float32(0))
    return np.asarray(np.rint(127 * np.clip(n, -1, 1)), np.int8)


def _cut(path: Path, m: npt.NDArray[Any], rows: int) -> None:
    """Shortens the file of an array to its first rows, in place."""
    header = {
        "descr": np.lib.format.dtype_to_descr(m.dtype),
        "fortran_order": False,
        "shape": (rows, *m.shape[1:]),
    }
    start = m.offset  # type: ignore[attr-defined]
    with path.open("r+b") as file:
        # NumPy leaves room in headers for the first axis to change
        np.lib.format.write_array_header_1_0(file, header)
        if file.tell() != start:
            raise OSError(f"{path}: cannot shorten, its header has another size")
        file.truncate(start + rows * int(np.prod(m.shape[1:])) * m.dtype.itemsize)
