"""Extreme 3D face reconstruction: one photo in, a detailed, complete 3D face out.

>>> import extreme3d_fast as e3d
>>> face = e3d.reconstruct("photo.jpg")      # doctest: +SKIP
>>> face.save("face.glb")                    # doctest: +SKIP
"""

from __future__ import annotations

from functools import cache

from extreme3d_fast.camera import Camera
from extreme3d_fast.errors import (
    DeviceUnavailable,
    Extreme3DError,
    InvalidImage,
    InvalidModelFile,
    NoFaceFound,
)
from extreme3d_fast.estimator import Foundation
from extreme3d_fast.face import Face, Provenance
from extreme3d_fast.head_model import HeadModel
from extreme3d_fast.image_io import ImageSource
from extreme3d_fast.occlusion import Occlusion
from extreme3d_fast.reconstructor import Reconstructor
from extreme3d_fast.references import Reference

__all__ = [
    "Camera",
    "DeviceUnavailable",
    "Extreme3DError",
    "Face",
    "Foundation",
    "HeadModel",
    "InvalidImage",
    "InvalidModelFile",
    "NoFaceFound",
    "Occlusion",
    "Provenance",
    "Reconstructor",
    "Reference",
    "__version__",
    "reconstruct",
    "reconstruct_all",
]

__version__ = "0.1.0"


@cache
def _reconstructor() -> Reconstructor:
    return Reconstructor()


def reconstruct(image: ImageSource) -> Face:
    """Reconstruct the main face of a photo with a shared `Reconstructor` of default settings.

    See `Reconstructor.reconstruct` for arguments, result and errors.
    """
    return _reconstructor().reconstruct(image)


def reconstruct_all(image: ImageSource) -> list[Face]:
    """Reconstruct every face of a photo; see `Reconstructor.reconstruct_all`."""
    return _reconstructor().reconstruct_all(image)
