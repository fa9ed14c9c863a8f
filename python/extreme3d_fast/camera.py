"""Pinhole camera of a crop, OpenCV axes, pixel centres at +0.5."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Camera"]


@dataclass(frozen=True)
class Camera:
    """Intrinsics in pixels: focal lengths, principal point, image size."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
