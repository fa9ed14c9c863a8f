"""The authors' bump maps of their own photos, in our crops, and how far ours agree with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from bench.bands import band_pass
from bench.face_views import FaceView, into_crop
from bench.photos import read_rgb

# Where the authors filled nothing, their filled map differs from the other by a smooth
# (harmonic) function alone: they blend gradients, so equality says nothing. Within a window of
# this many px that difference then varies by no more than this many levels.
_FILL_WINDOW = 9
_FILL_RANGE = 4
_EROSION = 3  # px of the crop, kept from occluders and the edge of their mask
_LEAST = 500  # pixels


@dataclass(frozen=True, eq=False)
class AuthorsMap:
    """A photo of the authors, seen by our estimator."""

    name: str
    view: FaceView
    theirs: np.ndarray  # (S, S) float32 mm, positive = deeper, 0 where they have none
    filled: np.ndarray  # the same after their hole filling
    valid: np.ndarray  # (S, S) bool: face in both, and nothing filled
    filled_share: float  # of our face, where their filling changed their map


def load(
    data: Path, viewer: Callable[[np.ndarray], FaceView | None], count: int | None = None
) -> Iterator[AuthorsMap]:
    """The photos in order; those without a face for our estimator are left out."""
    from extreme3d_fast.bump import bump_from_authors_map

    for path in sorted((data / "paper_photos").glob("[0-9][0-9].jpg"))[:count]:
        view = viewer(read_rgb(path))
        if view is None:
            continue
        levels, filled, mask = (
            _read_map(path.with_name(f"{path.stem}{suffix}.png"))
            for suffix in ("_bump", "_bump_filled", "_mask")
        )
        theirs, theirs_filled = (
            into_crop(bump_from_authors_map(code), view.crop_from_image, view.size)
            for code in (levels, filled)
        )
        changed = was_filled(levels, filled)
        seen = (mask > 127) & ~changed
        # as their maps: image pixel (x, y) is map pixel (x + 6, y + 6)
        seen_in_crop = into_crop(seen[6:506, 6:506], view.crop_from_image, view.size) > 0.99
        valid = view.face & view.in_photo & np.isfinite(theirs) & seen_in_crop
        side = 2 * _EROSION + 1
        valid = cv2.erode(valid.view(np.uint8), np.ones((side, side), np.uint8)) > 0
        changed = into_crop(changed[6:506, 6:506], view.crop_from_image, view.size) > 0.5
        yield AuthorsMap(
            path.stem,
            view,
            np.nan_to_num(theirs),
            np.nan_to_num(theirs_filled),
            valid,
            float(changed[view.face].mean()) if view.face.any() else 0.0,
        )


def _read_map(path: Path) -> np.ndarray:
    levels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if levels is None:
        raise FileNotFoundError(f"no map of the authors at {path}")
    return np.asarray(levels)


def was_filled(levels: np.ndarray, filled: np.ndarray) -> np.ndarray:
    """(H, W) bool: where the authors' filling changed more than the level of a map."""
    gap = filled.astype(np.int16) - levels
    window = np.ones((_FILL_WINDOW, _FILL_WINDOW), np.uint8)
    return np.asarray(cv2.dilate(gap, window) - cv2.erode(gap, window) > _FILL_RANGE)


def correlation(
    ours: np.ndarray,
    theirs: np.ndarray,
    valid: np.ndarray,
    mm_per_pixel: float,
    low: float = 2.0,
    high: float = 15.0,
) -> float:
    """Pearson's, of waves of `low` to `high` mm inside the valid pixels; NaN if there are few.

    The band is the difference of two Gaussian averages of sigma 0.187 times those lengths, which
    count valid pixels only (normalised convolution); 0 and inf leave out a limit.
    """
    if valid.sum() < _LEAST:
        return float("nan")
    a, b = (band_pass(m, valid, mm_per_pixel, low, high)[valid] for m in (ours, theirs))
    a, b = a - a.mean(dtype=np.float64), b - b.mean(dtype=np.float64)
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm > 0 else 0.0
