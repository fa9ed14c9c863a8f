"""Detailed depth (Eq. 4) and the dense mesh D, one vertex a pixel (paper §4.1)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Float32, Int32, float_array
from .camera import Camera

__all__ = ["DenseMesh", "compose_depth", "dense_mesh"]


class DenseMesh(NamedTuple):
    """Dense mesh D in the camera frame.

    vertices: (N, 3) float32, mm, camera frame, in row-major order of their pixels.
    faces: (M, 3) int32, counter-clockwise seen from the camera.
    vertex_of_pixel: (H, W) int32, -1 where no vertex.
    """

    vertices: Float32
    faces: Int32
    vertex_of_pixel: Int32


def compose_depth(depth: npt.ArrayLike, bump: npt.ArrayLike, *, threads: int = 1) -> Float32:
    """Detailed depth z' = z + Δ (Eq. 4).

    Args:
        depth: (H, W) float32, mm, +inf where no face; stays so there.
        bump: (H, W) float32, mm, positive is deeper; finite.
        threads: number of threads.

    Returns:
        (H, W) float32, mm.

    Raises:
        ValueError: shapes differ, or bump not finite.
    """
    z = float_array("depth", depth, (-1, -1))
    delta = float_array("bump", bump, z.shape)
    if not np.isfinite(delta).all():
        raise ValueError("`bump` should be finite, has NaN or infinity")
    return _core.compose_depth(z, delta, threads=threads)


def dense_mesh(
    depth: npt.ArrayLike,
    camera: Camera,
    *,
    max_slope: float = 8.0,
    threads: int = 1,
) -> DenseMesh:
    """Mesh a depth map, torn where the depth jumps.

    Each 2x2 block of pixels gives two triangles, cut along the diagonal with the smaller step of
    depth, or one where only three pixels hold surface. An edge between two pixels is a jump when
    the step exceeds `max_slope` times the distance between the pixels on a plane facing the camera
    at that depth, z/f a pixel. So the same surface is torn at the same places whatever the
    resolution of the photo and the distance of the head, which a limit in mm cannot do: 4 mm are a
    cheek seen at a grazing angle in a small crop, and a nose before a cheek in a large one.
    Pixels that no triangle uses get no vertex.

    Args:
        depth: (H, W) float32, mm; +inf (or anything not finite, or <= 1 mm) where no face.
        camera: pinhole camera of the crop.
        max_slope: tangent of the largest angle between surface and image plane; 8 is 83 degrees.
        threads: number of threads; the result is the same for any.

    Returns:
        The mesh and the vertex of each pixel.

    Raises:
        ValueError: depth of another size than the camera's, or max_slope not positive.
    """
    z = float_array("depth", depth, (camera.height, camera.width))
    if not max_slope > 0:
        raise ValueError(f"`max_slope` should be positive, is {max_slope}")
    return DenseMesh(
        *_core.dense_mesh(
            z,
            *camera.pinhole,
            camera.width,
            camera.height,
            max_slope=max_slope,
            threads=threads,
        )
    )
