"""Intermediate results of the reconstruction of a portrait, for tests that need real ones."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from skimage import data

from extreme3d_fast.bump_network import FACE_SHOWN, BumpNetwork
from extreme3d_fast.detect import Crop
from extreme3d_fast.estimator import Foundation
from extreme3d_fast.foundation_view import FoundationView
from extreme3d_fast.rasterize import vertex_visibility
from extreme3d_fast.reconstructor import Reconstructor


class Stages(NamedTuple):
    """Up to the bump map and the visible vertices."""

    reconstructor: Reconstructor
    foundation: Foundation
    crop: Crop
    view: FoundationView
    visible: NDArray[np.bool_]
    bump: NDArray[np.float32]
    face_probability: NDArray[np.float32]
    face_mask: NDArray[np.bool_]


@lru_cache(maxsize=1)
def portrait_stages() -> Stages:
    reconstructor = Reconstructor(threads=1, occlusion="none")
    photo = np.ascontiguousarray(data.astronaut())
    with reconstructor._lane() as lane:
        foundation, crop = reconstructor._main_foundation(lane, photo, {})
    view = reconstructor._viewer.view(foundation, crop, photo.shape, lambda _, stage: stage)
    visible = vertex_visibility(
        view.in_camera, view.normals_in_camera, view.raster.depth, foundation.camera
    )
    bump, probability = BumpNetwork().estimate(
        crop.image, view.weight, view.depth, foundation.camera
    )
    probability[~view.in_photo] = 0
    return Stages(
        reconstructor,
        foundation,
        crop,
        view,
        visible,
        bump,
        probability,
        probability > FACE_SHOWN,
    )
