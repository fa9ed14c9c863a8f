"""What the pipelines on the host and on a device have in common."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Literal, NamedTuple, ParamSpec, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from extreme3d_fast.crop import Crop
from extreme3d_fast.estimator import Foundation, FoundationEstimator, FoundationMode
from extreme3d_fast.face import Face
from extreme3d_fast.head_model import HeadModel
from extreme3d_fast.occlusion import FillMethod

__all__ = ["Detail", "Lane", "PipelineOptions", "recoverable_region", "timed_into"]

Detail = Literal["network", "shading", "none"]
"""Where the bump map comes from: the network, shape from shading (no training), or nowhere."""

P = ParamSpec("P")
T = TypeVar("T")

# A vertex counts as seen if its surface is turned by less than 78 degrees from the viewing ray;
# beyond that a pixel spans five times its size on the surface. What is seen but thinly sampled
# stays at the resolution of R (see the zipper).
MIN_COSINE = 0.2
# A vertex further behind the depth buffer than this is covered by another part of the head, mm.
DEPTH_TOLERANCE = 2.0
# A face more hidden, more cut off, or smaller than this is worth a warning.
_OCCLUDED_WARNING = 0.15  # a fringe hides about as much
_OUTSIDE_WARNING = 0.05
_SMALL_FACE_PX = 100.0
# The bump map fades out at lips and lids, so that little is left to follow further in.
_RINGS_INTO_OPENINGS = 5


class PipelineOptions(NamedTuple):
    """Options of `Reconstructor` that change what a pipeline does; see there."""

    foundation: FoundationMode = "auto"
    crop_size: int = 500
    detail: Detail = "network"
    occlusion: FillMethod = "reference"
    symmetry: bool = True
    bump_network: str | os.PathLike[str] | None = None
    references: str | os.PathLike[str] | None = None


class Lane(Protocol):
    """A pipeline for one photo at a time."""

    @property
    def estimator(self) -> FoundationEstimator:
        """Finds faces and their foundations."""

    @property
    def runtime(self) -> str:
        """What runs its networks, for reports."""

    def begin(self) -> None:
        """Before another photo."""

    def reconstruct(
        self,
        photo: npt.NDArray[np.uint8],
        foundation: Foundation,
        crop: Crop,
        timings: dict[str, float],
    ) -> Face:
        """The face of a foundation that the lane's estimator made.

        Args:
            photo: (H, W, 3) uint8 RGB.
            foundation: of the face in it.
            crop: the crop that it speaks of.
            timings: ms per stage are added.
        """


def timed_into(timings: dict[str, float], name: str, function: Callable[P, T]) -> Callable[P, T]:
    """`function`, its run time in ms written to `timings`."""

    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        start = time.perf_counter()
        result = function(*args, **kwargs)
        timings[name] = 1e3 * (time.perf_counter() - start)
        return result

    return run


def warn_of_view(warnings: list[str], face_px: float, outside: float) -> None:
    """Adds what is wrong with how a photo shows a face.

    Args:
        warnings: is added to.
        face_px: height of the face, px of the photo.
        outside: share of it that the photo does not have.
    """
    if face_px < _SMALL_FACE_PX:
        warnings.append(f"the face is only {face_px:.0f} px large in the photo")
    if outside > _OUTSIDE_WARNING:
        warnings.append(f"{outside:.0%} of the visible face lies outside the photo")


def warn_of_occlusion(warnings: list[str], hidden: float) -> None:
    """Adds how much of the visible face is hidden by something in the photo, a share."""
    if hidden > _OCCLUDED_WARNING:
        warnings.append(f"{hidden:.0%} of the visible face is occluded")


def recoverable_region(model: HeadModel) -> npt.NDArray[np.bool_]:
    """Skin vertices that soft symmetry may move: where bump maps apply, and a few rings into mouth,
    nostrils and eye sockets, which follow the surface that they hang on."""
    region: npt.NDArray[np.bool_] = model.face_weight > 0
    for _ in range(_RINGS_INTO_OPENINGS):
        grown = region.copy()
        grown[model.faces[region[model.faces].any(axis=1)]] = True
        region = grown & model.face_region
    return region
