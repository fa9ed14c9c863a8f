"""From photos to reference faces (paper §4.2): which photos will do, and what is kept of them.

A reference lends its relief to faces that are covered, so it must show nearly all of its own: each
photo is taken or refused by measures alone, and every refusal has its reason.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from extreme3d_fast._arrays import Float32, UInt8
from extreme3d_fast.bump_network import CROP_SIZE, FACE_SHOWN, BumpNetwork
from extreme3d_fast.camera import Camera
from extreme3d_fast.estimator import FoundationEstimator
from extreme3d_fast.face_chart import FaceChart, continued
from extreme3d_fast.foundation_view import FoundationView, FoundationViewer, face_height
from extreme3d_fast.head_model import HeadModel
from extreme3d_fast.identity import IdentityNetwork
from extreme3d_fast.image_io import ImageSource, load_image
from extreme3d_fast.occlusion import find_holes, unfade
from extreme3d_fast.rasterize import vertex_visibility
from extreme3d_fast.references import ReferenceFace

__all__ = ["Candidate", "Measures", "ReferenceBuilder", "image_files", "sharpness"]

Bool = npt.NDArray[np.bool_]

#: Suffixes of the files that are looked for in folders.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

MIN_CONFIDENCE = 0.9  # of the pose network, that this is a face
MIN_FACE_PX = 80.0  # hairline to chin: from less, a crop has no relief but noise
MAX_OUTSIDE = 0.04  # of the face, beyond the photo
MAX_HIDDEN = 0.06  # of the face, behind hair, hats, hands: a fringe is more than twice that
# of the bridge of the nose, on a line across it: finds 95 % of the glasses that hide no more than
# that on CelebAMask-HQ's photos, and refuses one bare face in eight
MAX_ON_BRIDGE = 0.04
MIN_SHARPNESS = 0.006
# mm RMS of the relief: less is a face without one, more is stubble, noise, or a foundation that
# lies beside the face
ROUGHNESS = (0.05, 0.45)
MAX_STEEPNESS = 0.30  # RMS slope

_INNER = 0.9  # face weight of pixels whose relief has hardly faded
# Of skin that counts as seen, to the viewing ray: beyond, a pixel spans five times its size.
_MIN_COSINE = 0.2
_MIN_INNER = 1000  # px of the crop that are needed for measuring
_BRIDGE_MM = (20.0, 10.0)  # above and below its root, where the rims of glasses cross it
_NOSE_ROOT, _INNER_CORNERS = 27, (39, 42)  # of the 68 landmarks

_LOG_SIGMA = 1.0  # px of the crop: finest detail that a sharp photo holds
_LASHES = 3  # px


@dataclass(frozen=True)
class Measures:
    """What is measured of a photo's face.

    Attributes:
        face_px: height, hairline to chin, in px of the photo.
        confidence: in [0, 1], that it is a face.
        outside: share of the face beyond the photo.
        hidden: share of the face that something covers.
        on_bridge: share of the bridge of the nose that something covers, where it is most.
        sharpness: finest contrast of its skin; see `sharpness`.
        roughness: RMS of its relief, mm.
        steepness: RMS slope of its relief.
    """

    face_px: float
    confidence: float
    outside: float = 0.0
    hidden: float = 0.0
    on_bridge: float = 0.0
    sharpness: float = 0.0
    roughness: float = 0.0
    steepness: float = 0.0


@dataclass(frozen=True, eq=False)
class Candidate:
    """A photo's main face as a reference, or why it is none.

    Attributes:
        refusal: why the photo is not taken, in a word or two; "" if it is.
        measures: what was measured before it was refused; None where there is no face.
        face: of the set; None if refused.
        descriptor: (128,) float32, its identity feature; None if refused.
        image: (500, 500, 3) uint8, the crop, for a look at it; it enters no set.
    """

    refusal: str
    measures: Measures | None = None
    face: ReferenceFace | None = None
    descriptor: Float32 | None = None
    image: UInt8 | None = None


class ReferenceBuilder:
    """Makes reference faces of photos; keeps the networks loaded. For one thread.

    Args:
        threads: threads per stage; the result is the same for any number.
        head_model: head model that the set will speak of; None for the built-in one.
        bump_network: ONNX file of another bump-map network; None is the built-in one.
        identity_network: ONNX file of another network for identity features; None is the built-in.

    Raises:
        FileNotFoundError, InvalidModelFile: as for `Reconstructor`.
    """

    def __init__(
        self,
        *,
        threads: int = 1,
        head_model: HeadModel | None = None,
        bump_network: str | os.PathLike[str] | None = None,
        identity_network: str | os.PathLike[str] | None = None,
    ) -> None:
        self.head_model = model = head_model or HeadModel.load()
        self._estimator = FoundationEstimator(model, threads=threads)
        self._viewer = FoundationViewer(model, threads=threads)
        self._chart = FaceChart(model)
        self._bump_network = BumpNetwork(bump_network, threads=threads)
        self._identity_network = IdentityNetwork(identity_network, threads=threads)

    @property
    def metadata(self) -> dict[str, str]:
        """What a set has to tell of how it was made, for `ReferenceWriter`."""
        return {
            "head_model": self.head_model.fingerprint,
            "bump_network": self._bump_network.name,
        }

    def examine(self, image: ImageSource) -> Candidate:
        """The main face of a photo, measured, and as a reference if it will do.

        Args:
            image: path, (H, W, 3) uint8 RGB, (H, W) grey, or a PIL image; see `load_image`.

        Raises:
            InvalidImage: not an image, or one that cannot be read.
            FileNotFoundError: there is no such file.
        """
        photo = load_image(image)
        found = self._estimator.find(photo, _untimed)
        if not found:
            return Candidate("no face")
        foundation, crop = self._estimator.estimate(photo, found[0], CROP_SIZE, _untimed)
        known: dict[str, float] = {
            "face_px": face_height(foundation),
            "confidence": foundation.confidence,
        }

        def refused(reason: str) -> Candidate:
            return Candidate(reason, Measures(**known), image=crop.image)

        if foundation.warnings or foundation.confidence < MIN_CONFIDENCE:
            return refused("in doubt")
        if known["face_px"] < MIN_FACE_PX:
            return refused("too small")
        view = self._viewer.view(foundation, crop, photo.shape, _untimed)
        known["outside"] = view.outside
        if view.outside > MAX_OUTSIDE:
            return refused("cut off")
        bump, probability = self._bump_network.estimate(
            crop.image, view.weight, view.depth, foundation.camera
        )
        shown = (probability > FACE_SHOWN) & view.in_photo
        occlusion = find_holes(shown, view.weight)
        known["hidden"] = max(occlusion.fraction - view.outside, 0.0)
        if known["hidden"] > MAX_HIDDEN:
            return refused("covered")
        landmarks68 = foundation.landmarks(self.head_model).astype(np.float32)
        inner = (view.weight > _INNER) & ~occlusion.hole
        if np.count_nonzero(inner) < _MIN_INNER:
            return refused("covered")
        mm_per_px = float(np.median(view.depth[inner])) / foundation.camera.fx
        known["on_bridge"] = _on_bridge(probability, view.weight, landmarks68, mm_per_px)
        if known["on_bridge"] > MAX_ON_BRIDGE:
            return refused("glasses")
        known["sharpness"] = sharpness(crop.image, view.weight, shown)
        if known["sharpness"] < MIN_SHARPNESS:
            return refused("blurred")
        known["roughness"], known["steepness"] = _relief(bump, inner, mm_per_px)
        if known["roughness"] < ROUGHNESS[0]:
            return refused("flat")
        if known["roughness"] > ROUGHNESS[1] or known["steepness"] > MAX_STEEPNESS:
            return refused("rough")
        relief, seen = self._unrolled(bump, view, occlusion.hole, foundation.camera)
        face = ReferenceFace(
            bump=relief,
            seen=seen,
            identity=foundation.identity,
            expression=foundation.expression,
            camera=foundation.camera,
            camera_from_head=foundation.camera_from_head,
            landmarks68=landmarks68,
        )
        descriptor = self._identity_network.describe(crop.image, face.landmarks68)
        return Candidate("", Measures(**known), face, descriptor, crop.image)

    def _unrolled(
        self, bump: Float32, view: FoundationView, hole: Bool, camera: Camera
    ) -> tuple[Float32, Bool]:
        """The bump map as references keep it: unfaded, on the unrolled face."""
        unfaded, known = unfade(bump, view.weight, hole)
        visible = vertex_visibility(
            view.in_camera,
            view.normals_in_camera,
            view.raster.depth,
            camera,
            min_cosine=_MIN_COSINE,
        )
        relief, seen = self._chart.unroll(unfaded, known, view.in_camera, visible, camera)
        return continued(relief, seen), seen


def sharpness(image: UInt8, weight: Float32, skin: npt.NDArray[Any]) -> float:
    """Contrast of skin at its finest: spread of a Laplacian of Gaussian over brightness.

    Args:
        image: (S, S, 3) uint8 RGB crop.
        weight: (S, S) face weight.
        skin: (S, S), 0 where something else is seen.

    Returns:
        About 0.005 for a blurred face and 0.03 for a sharp one; 0 where hardly any skin is seen.
    """
    inner = ((weight > _INNER) & (skin != 0)).astype(np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _LASHES + 1, 2 * _LASHES + 1))
    use = cv2.erode(inner, disc) > 0
    if np.count_nonzero(use) < _MIN_INNER:
        return 0.0
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    fine = cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), _LOG_SIGMA), cv2.CV_32F)[use]
    low, high = np.percentile(fine, [10, 90])  # not lashes and nostrils
    return float((high - low) / 2.56 / max(float(np.median(grey[use])), 20.0))


def image_files(paths: Sequence[str | os.PathLike[str]]) -> Iterator[Path]:
    """The files named, and in each folder named all images below it, by name; none twice."""
    seen: set[Path] = set()
    for path in map(Path, paths):
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        for file in inside if path.is_dir() else [path]:
            if file not in seen:
                seen.add(file)
                yield file


def _relief(bump: Float32, inner: Bool, mm_per_px: float) -> tuple[float, float]:
    """RMS (mm) and RMS slope of a bump map on some pixels."""
    slopes = np.gradient(bump / np.float32(mm_per_px))
    steepness = np.sqrt(sum(np.square(slope[inner]).mean() for slope in slopes))
    return float(np.sqrt(np.square(bump[inner]).mean())), float(steepness)


def _on_bridge(
    probability: Float32, weight: Float32, landmarks68: Float32, mm_per_px: float
) -> float:
    """Share of the bridge of the nose that does not show the face, on the line across it where that
    is most: rims of glasses cross it there, and little else that the face mask knows does.
    """
    left, right = sorted(landmarks68[k, 0] for k in _INNER_CORNERS)
    above, below = (mm / mm_per_px for mm in _BRIDGE_MM)
    root = landmarks68[_NOSE_ROOT, 1]
    rows = slice(max(int(root - above), 0), max(int(root + below), 0))
    columns = slice(max(int(left), 0), max(int(np.ceil(right)), 0))
    seen = weight[rows, columns] > 0
    covered = np.where(seen, 1 - probability[rows, columns], np.float32(0)).sum(1)
    count = seen.sum(1)
    lines = count > seen.shape[1] / 2
    return float((covered[lines] / count[lines]).max()) if lines.any() else 0.0


def _untimed(_: str, function: Any) -> Any:
    return function
