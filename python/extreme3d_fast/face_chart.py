"""The face unrolled: one picture of the skin, in which every head has its parts in the same place.

A cylinder round the head model's average head, cut open behind: u grows with the azimuth towards
the subject's left, v with the way down; left and right are mirror images. Bump maps of reference
faces (§4.2) are kept in it, so that they can be laid on each other and on any face.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from ._arrays import Float32, bounding_box
from .camera import Camera
from .head_model import HeadModel
from .rasterize import interpolate, rasterize

__all__ = ["CHART_SHAPE", "MM_PER_PX", "FaceChart"]

#: Height and width, px: the part that has bump maps, with a rim.
CHART_SHAPE = (168, 304)
#: Size of a px, in width where the face is furthest from the axis.
MM_PER_PX = 1.1

_PX_PER_RADIAN = 118.0
_MIDDLE_Y = -4.0  # mm, head frame
_FOCAL = 1000.0  # of the camera that draws the chart; any
_DISTANCE = 1000.0  # mm from that camera to the axis
_PREFILTER = 0.8  # px of the crop: a px of the chart is about two
_SHOWN = 0.99  # all corners of a triangle, or neighbours of a pixel


class FaceChart:
    """Where the skin of a head model lies in the chart.

    Args:
        model: head model, in mm.

    Attributes:
        place: (V, 2) float32, px of the chart of each vertex of the skin, pixel centres at +0.5.
        raster: what the chart's pixels see of the skin.
        faces: (F, 3) int32, the skin's.
    """

    def __init__(self, model: HeadModel) -> None:
        zero = np.zeros(model.n_identity, np.float32), np.zeros(model.n_expression, np.float32)
        x, y, z = model.vertices(*zero)[: model.skin_vertex_count].T
        height, width = CHART_SHAPE
        place = np.column_stack(
            [
                width / 2 + _PX_PER_RADIAN * np.arctan2(x, z),
                height / 2 - (y - _MIDDLE_Y) / MM_PER_PX,
            ]
        )
        self.place: Float32 = place.astype(np.float32)
        self.faces = model.faces
        # Seen by a camera for which each vertex lies at its place, the outermost skin in front.
        camera = Camera(_FOCAL, _FOCAL, width / 2, height / 2, width, height)
        depth = _DISTANCE - np.hypot(x, z)
        ray = (place - [width / 2, height / 2]) / _FOCAL
        in_camera = np.column_stack([ray * depth[:, None], depth])
        # the back of the head would be drawn across the cut
        in_camera[z < 0] = np.nan
        self.raster = rasterize(in_camera.astype(np.float32), model.faces, camera)

    def unroll(
        self,
        image: Float32,
        known: npt.NDArray[np.bool_],
        pixel_of_vertex: npt.NDArray[np.float64] | Float32,
        visible: npt.NDArray[np.bool_],
    ) -> tuple[Float32, npt.NDArray[np.bool_]]:
        """A map of a crop brought into the chart, continued smoothly where it is not known.

        Args:
            image: (S, S) float32.
            known: (S, S) bool, pixels that count.
            pixel_of_vertex: (V, 2) px of the crop that each vertex of the skin projects to.
            visible: (V,) bool, vertices that the crop shows.

        Returns:
            (H, W) float32, and (H, W) bool where the crop shows it; 0 where nothing is known.
        """
        if not known.any():
            return np.zeros(CHART_SHAPE, np.float32), np.zeros(CHART_SHAPE, np.bool_)
        box = bounding_box(known)
        counts = known[box].astype(np.float32)
        share = _blurred(counts)
        mean = _blurred(np.where(known[box], image[box], np.float32(0))) / np.maximum(
            share, np.float32(1e-6)
        )
        corner = np.array([box[1].start, box[0].start])
        place = np.where(visible[:, None], pixel_of_vertex - corner, -9).astype(np.float32)
        # OpenCV counts from pixel centres
        x, y = (self._of_vertices(place[:, axis]) - np.float32(0.5) for axis in (0, 1))
        seen = self._of_vertices(visible.astype(np.float32)) > _SHOWN
        seen &= cv2.remap(counts, x, y, cv2.INTER_LINEAR) > _SHOWN
        values = np.asarray(cv2.remap(mean, x, y, cv2.INTER_LINEAR), np.float32)
        return _continued(values, seen), seen

    def _of_vertices(self, values: Float32) -> Float32:
        return interpolate(self.raster, values, self.faces)


def _blurred(image: Float32) -> Float32:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), _PREFILTER), np.float32)


def _continued(values: Float32, known: npt.NDArray[np.bool_]) -> Float32:
    """`values` with what is not known taken from the finest octave that knows something there."""
    pyramid = [(np.where(known, values, np.float32(0)), known.astype(np.float32))]
    while min(pyramid[-1][0].shape) > 1:
        value, share = pyramid[-1]
        pyramid.append((cv2.pyrDown(value), cv2.pyrDown(share)))  # type: ignore[arg-type]
    value, share = pyramid[-1]
    out = np.full(value.shape, value.sum() / max(float(share.sum()), 1e-6), np.float32)
    for value, share in reversed(pyramid):
        if out.shape != value.shape:
            out = np.asarray(cv2.pyrUp(out, dstsize=value.shape[::-1]), np.float32)
        out = value + out * np.clip(1 - share, 0, 1)  # value is the mean times the share
    return np.where(known, values, out).astype(np.float32)
