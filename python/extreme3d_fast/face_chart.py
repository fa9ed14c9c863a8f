"""The face unrolled: one picture of the skin, in which every head has its parts in the same place.

A cylinder round the head model's average head, cut open behind: u grows with the azimuth towards
the subject's left, v with the way down; left and right are mirror images. Bump maps of reference
faces (§4.2) are kept in it, so that they can be laid on each other and on any face.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Float32, float_array, mask_array
from .camera import Camera
from .head_model import HeadModel
from .rasterize import rasterize

__all__ = ["CHART_SHAPE", "MM_PER_PX", "FaceChart", "continued"]

#: Height and width, px: the part that has bump maps, with a rim.
CHART_SHAPE = (168, 304)
#: Size of a px, in width where the face is furthest from the axis.
MM_PER_PX = 1.1

_PX_PER_RADIAN = 118.0
_MIDDLE_Y = -4.0  # mm, head frame
_FOCAL = 1000.0  # of the camera that draws the chart; any
_DISTANCE = 1000.0  # mm from that camera to the axis


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
        #: Where the operations find all this.
        self.tables = _core.ChartTables(
            self.raster.triangle, self.raster.barycentric, self.place, self.faces
        )

    def unroll(
        self,
        image: npt.ArrayLike,
        known: npt.ArrayLike,
        vertices_in_camera: npt.ArrayLike,
        visible: npt.ArrayLike,
        camera: Camera,
        *,
        threads: int = 1,
    ) -> tuple[Float32, npt.NDArray[np.bool_]]:
        """A map of a crop brought into the chart.

        Args:
            image: (S, S) float32.
            known: (S, S) bool, pixels that count.
            vertices_in_camera: (V, 3) float32 mm, the skin in the camera frame.
            visible: (V,) bool, vertices that the crop shows.
            camera: of the crop.
            threads: number of threads; the result is the same for any.

        Returns:
            (H, W) float32, and (H, W) bool where the crop shows it; 0 elsewhere.
        """
        shape, count = (camera.height, camera.width), len(self.place)
        values, seen = self.tables.unroll(
            float_array("image", image, shape),
            mask_array("known", known, shape),
            *camera.pinhole,
            float_array("vertices_in_camera", vertices_in_camera, (count, 3)),
            mask_array("visible", visible, (count,)),
            threads,
        )
        return values, seen.view(np.bool_)


def continued(values: Float32, known: npt.NDArray[np.bool_]) -> Float32:
    """A map of the chart that goes on smoothly where it is not known.

    What is not known is taken from the finest octave that knows something there.

    Args:
        values: (H, W) float32.
        known: (H, W) bool.

    Returns:
        (H, W) float32; 0 where nothing is known.
    """
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
