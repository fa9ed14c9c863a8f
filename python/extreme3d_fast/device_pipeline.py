"""The pipeline on a device, top to bottom: as `Reconstructor._reconstruct`, on arrays that stay there.

The host waits for the device four times a face: for the window of the face, which shapes the bump
network's input; for how much is hidden; for the strips that the zipper sews, which are triangulated
on the host; and for the result. What lies between runs as recorded graphs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from extreme3d_fast._shading import LEAST_MM_PER_PIXEL, MOST_MM_PER_PIXEL
from extreme3d_fast.bump_network import BumpNetwork
from extreme3d_fast.crop import Crop
from extreme3d_fast.crop import transform_points as transform_pixels
from extreme3d_fast.device import Device, DeviceArray, DeviceKind
from extreme3d_fast.device_network import DeviceNetwork, NetworkRunner, PhotosOnDevice
from extreme3d_fast.device_references import DeviceReferences
from extreme3d_fast.device_session import DeviceSession
from extreme3d_fast.estimator import Foundation, FoundationEstimator
from extreme3d_fast.face import Face
from extreme3d_fast.foundation_view import face_height
from extreme3d_fast.head_model import HeadModel
from extreme3d_fast.lane import (
    DEPTH_TOLERANCE,
    MIN_COSINE,
    PipelineOptions,
    recoverable_region,
    timed_into,
    warn_of_occlusion,
    warn_of_view,
)
from extreme3d_fast.mesh import vertex_faces
from extreme3d_fast.mesh_io import Mesh
from extreme3d_fast.occlusion import Occlusion
from extreme3d_fast.references import Reference
from extreme3d_fast.shading import shape_from_shading
from extreme3d_fast.similar_faces import SimilarFaces
from extreme3d_fast.zipper import Zipper

__all__ = ["DevicePipeline", "device_lanes"]

Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]
T = Any

# Depths of a face are told apart to this share, for the size of a pixel: 2^-11.
_DEPTH_BINS = 12288
# Largest slope of the dense mesh, as `dense_mesh` takes it.
_MAX_SLOPE = 8.0


def device_lanes(
    model: HeadModel, options: PipelineOptions, count: int, kind: DeviceKind = "cuda"
) -> list[DevicePipeline]:
    """Pipelines that share what does not change: networks' weights, the head model's basis and
    topology, references.

    Raises:
        DeviceUnavailable: there is no usable GPU, or a package for it is missing.
        ValueError: an option that this pipeline does not have.
    """
    first = DevicePipeline(model, options, Device(kind))
    return [first, *(first.another() for _ in range(count - 1))]


class _Recorded:
    """Work on a stream that is run once, then recorded, then launched as a graph."""

    def __init__(self, device: Device, work: Callable[[], None]) -> None:
        self._device, self._work = device, work
        self._runs = 0
        self._launch: Callable[[], None] = work

    def __call__(self) -> None:
        self._runs += 1
        if self._runs == 2:  # whatever is loaded or compiled on first use is there by now
            self._launch = self._device.record(self._work)
        self._launch()
