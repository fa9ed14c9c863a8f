"""Dense to sparse: visible vertices of the foundation take the detailed depth (paper §4.3)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Float32, float_array, mask_array
from .camera import Camera

__all__ = ["sparse_from_dense"]


def sparse_from_dense(
    vertices_in_camera: npt.ArrayLike,
    visible: npt.ArrayLike,
    bump: npt.ArrayLike,
    valid: npt.ArrayLike,
    camera: Camera,
    *,
    threads: int = 1,
) -> tuple[Float32, npt.NDArray[np.bool_]]:
    """Move the visible vertices of F along their viewing rays by the bump map, giving R.

    Δ is sampled at the vertex's projection, bilinearly between the centres of the valid pixels;
    a vertex with less than half of its bilinear weight on valid pixels stays where it is.

    Args:
        vertices_in_camera: (V, 3) float32, mm, foundation in the camera frame.
        visible: (V,) bool.
        bump: (H, W) float32, mm, positive is deeper.
        valid: (H, W) bool, where the bump is known.
        camera: pinhole camera of the crop.
        threads: number of threads; the result is the same for any.

    Returns:
        Vertices (V, 3) float32 in the camera frame, and which of them moved, (V,) bool.

    Raises:
        ValueError: wrong shape, or bump not finite where valid.
    """
    vertices = float_array("vertices_in_camera", vertices_in_camera, (-1, 3))
    size = (camera.height, camera.width)
    delta, known = float_array("bump", bump, size), mask_array("valid", valid, size)
    if not np.isfinite(delta[known != 0]).all():
        raise ValueError("`bump` should be finite where `valid`, has NaN or infinity")
    moved_vertices, moved = _core.sparse_from_dense(
        vertices,
        mask_array("visible", visible, (len(vertices),)),
        delta,
        known,
        *camera.pinhole,
        camera.width,
        camera.height,
        threads=threads,
    )
    return moved_vertices, moved.view(np.bool_)
