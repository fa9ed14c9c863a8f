"""From a photo to foundations (paper §3): the face found, its pose and coefficients, refined.

    photo ─► detections, else a search with the pose network ─► square of the head
    square ─► pose network, twice ─► viewpoint v and a better square
    square ─► foundation network ─► α, η
    landmarks where they agree with that ─► α, η, v refined

Landmarks are exact on clear faces and wild on covered or turned ones; the networks are the other
way round. So each point is trusted as far as it agrees with the networks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from extreme3d_fast.aside import Aside
from extreme3d_fast.camera import Camera, angles_from_rotation
from extreme3d_fast.crop import (
    Crop,
    HeadSquare,
    magnification,
    rotation_2d,
    transform_points,
    warp_similarity,
)
from extreme3d_fast.detect import FaceDetection, FaceDetector, FaceLandmarks, crop_square
from extreme3d_fast.errors import InvalidModelFile
from extreme3d_fast.foundation import Coefficients, FoundationNetwork
from extreme3d_fast.head_model import HeadModel
from extreme3d_fast.landmark_fit import N_LANDMARKS, FitPrior, LandmarkFit, LandmarkFitter
from extreme3d_fast.localize import MIN_CONFIDENCE, follow, localize, standing
from extreme3d_fast.photo_network import OpenNetwork
from extreme3d_fast.pose import SIDE_MM, PoseEstimate, PoseNetwork

__all__ = ["Foundation", "FoundationEstimator", "FoundationMode", "Source"]

Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]
Timed = Callable[..., Any]

FoundationMode = Literal["auto", "networks", "landmarks"]
"""Networks refined by landmarks, networks alone, or landmarks alone."""
Source = Literal["networks+landmarks", "networks", "landmarks"]
"""What a foundation was made from."""

# Looks of the pose network: the first from the detector's square, the last from its own.
_LOOKS = 2
# A detection that the pose network is not surer of sends the search over the whole photo: on clear
# faces it is, on half-covered ones the detector can take a hand for a head, or turn it round.
_SURE = 0.93
_DENIED = 0.25  # no face at all
_MAX_ROLL = np.radians(60.0)  # of faces in training
_LEANING_SCORE = 0.78  # hands reach 0.75
# mm: how far a landmark may lie from where the networks put it before it is doubted, and the share
# of trust that must be left for the landmarks to count at all.
_AGREEMENT = 3.0
_MIN_TRUST = 0.5
# Face Mesh reads yaw too small on turned heads: its points count less from here to there, degrees.
_TURNED = (35.0, 60.0)
# What the networks leave open: deviations of the refinement's priors round their answer.
_IDENTITY_SIGMA = 0.1
_EXPRESSION_SIGMA = 0.12
_ROTATION_SIGMA = 0.15  # degrees
_FOCAL_LOG_SIGMA = 0.1
# Below this Face Mesh itself says that it sees no face.
_MIN_LANDMARK_CONFIDENCE = 0.5
# A fit this far from its points (in fractions of the crop) is probably none.
_MAX_LANDMARK_RMS = 0.02
# The square reaches this far beyond a detector's box; measured on labelled photos.
_SQUARE_FROM_BOX = (0.0, -0.02, 1.26)


@dataclass(frozen=True, eq=False)
class Foundation:
    """What explains a face at the coarse level (paper §3).

    Attributes:
        identity: (K,) float32 α in standard deviations of the head model.
        expression: (E,) float32 η in [0, 1].
        camera: pinhole camera of the crop.
        camera_from_head: (4, 4) float32 rigid transform, mm.
        crop_from_image: (3, 3) float64, px of the photo to px of the crop.
        source: what it was made from.
        confidence: in [0, 1], that this is a face, as the pose network (without the networks: Face
            Mesh) sees it.
        warnings: what was in doubt, in words.
    """

    identity: Float32
    expression: Float32
    camera: Camera
    camera_from_head: Float32
    crop_from_image: npt.NDArray[np.float64]
    source: Source
    confidence: float
    warnings: tuple[str, ...] = ()

    def landmarks(self, model: HeadModel, which: str = "68") -> npt.NDArray[np.float64]:
        """(L, 2) px of the crop: landmarks of its head, the "68" or the "478"."""
        head = model.landmark_basis(which).positions(self.identity, self.expression)
        pose = self.camera_from_head.astype(np.float64)
        return np.asarray(self.camera.project(head @ pose[:3, :3].T + pose[:3, 3]))

    @property
    def yaw_pitch_roll(self) -> tuple[float, float, float]:
        """Degrees; see `camera.angles_from_rotation` for the signs."""
        return angles_from_rotation(self.camera_from_head)


class Found(NamedTuple):
    """A face in a photo: what the detector, the pose network, or both say of it."""

    detection: FaceDetection | None
    pose: PoseEstimate | None


class FoundationEstimator:
    """Finds faces and estimates their foundations; keeps the networks loaded.

    Args:
        model: head model.
        mode: what to estimate from. "auto" takes the networks where they speak of this head model.
        threads: threads inside a network run, and whether stages may run side by side.
        open_network: opens a network's file; None is `PhotoSession` with these threads.
        cut: cuts the crop, as `warp_similarity` does; what it returns is the crop's image.

    Raises:
        InvalidModelFile: a network file is damaged, or belies the head model that it names.
        ValueError: "networks" with another head model than they were trained for.
    """

    def __init__(
        self,
        model: HeadModel,
        *,
        mode: FoundationMode = "auto",
        threads: int = 1,
        open_network: OpenNetwork | None = None,
        cut: Callable[[UInt8, npt.NDArray[np.float64], int], Any] = warp_similarity,
    ) -> None:
        self._model, self._cut, self._threads = model, cut, threads
        self._detector = FaceDetector(threads=threads, open_network=open_network)
        self._foundation: FoundationNetwork | None = None
        self._pose: PoseNetwork | None = None
        self._fitter: LandmarkFitter | None = None
        if mode != "landmarks":
            foundation = FoundationNetwork(threads=threads, open_network=open_network)
            counts = (foundation.n_identity, foundation.n_expression)
            if foundation.head_model == model.fingerprint:
                if counts != (model.n_identity, model.n_expression):
                    raise InvalidModelFile(
                        f"the foundation network has {counts} coefficients, the head model that it "
                        f"names has {(model.n_identity, model.n_expression)}"
                    )
                self._foundation = foundation
                self._pose = PoseNetwork(threads=threads, open_network=open_network)
            elif mode == "networks":
                raise ValueError(
                    "the networks know the built-in head model only; use foundation='landmarks'"
                )
        if mode != "networks":
            self._fitter = LandmarkFitter(model)

    def find(self, photo: UInt8, timed: Timed, *, every: bool = False) -> list[Found]:
        """Faces of a photo, the main one first.

        Args:
            photo: (H, W, 3) uint8 RGB.
            timed: wraps a stage to note its time.
            every: also those that do not stand out.

        Returns:
            Detector's and pose network's word on each face; empty if neither finds one.
        """
        detect = self._detector.detect_all if every else self._detector.detect
        detections = timed("detect", detect)(photo)
        if self._pose is None:
            return [Found(detection, None) for detection in detections]
        found = []
        for detection in detections if every else detections[:1]:
            square = _square_of(detection)
            pose = timed("pose", follow)(photo, self._pose, square, _LOOKS)
            found.append(Found(detection, pose))
        least = _DENIED if every else _SURE
        if not any(_is_believed(f, least) for f in found):
            pose = timed("localize", localize)(photo, self._pose)
            if pose is not None and all(_outranks(pose, f) for f in found):
                found = [Found(None, pose), *(f for f in found if _beside(f, pose.square))]
        return found

    def estimate(
        self, photo: UInt8, found: Found, crop_size: int, timed: Timed
    ) -> tuple[Foundation, Crop]:
        """The foundation of a face, and the upright crop that the pipeline works on.

        Args:
            photo: (H, W, 3) uint8 RGB.
            found: a face of `find` in the same photo.
            crop_size: side of the crop, px.
            timed: wraps a stage to note its time.
        """
        if found.pose is None or self._foundation is None:
            assert found.detection is not None
            points = timed("landmarks", self._detector.landmarks)(photo, found.detection)
            return self._from_landmarks(photo, points, crop_size, timed)
        coefficients = timed("foundation", self._foundation.estimate)(photo, found.pose.square)
        landmarks68 = self._projected(found.pose, coefficients, "68")
        square = crop_square(landmarks68, roll=found.pose.square.roll)
        with Aside(self._threads) as aside:
            image = aside.start(timed("crop", self._crop), photo, square, crop_size)
            foundation = self._in_crop(photo, found, coefficients, square, crop_size, timed)
        return foundation, image.result()

    # === Details ===

    def _in_crop(
        self,
        photo: UInt8,
        found: Found,
        coefficients: Coefficients,
        square: HeadSquare,
        crop_size: int,
        timed: Timed,
    ) -> Foundation:
        """The networks' foundation in a crop, refined by landmarks that agree with it."""
        assert found.pose is not None
        crop_from_image = square.square_from_image(crop_size)
        camera, camera_from_head = found.pose.camera_in(crop_from_image, crop_size)
        foundation = Foundation(
            coefficients.identity,
            coefficients.expression,
            camera,
            camera_from_head.astype(np.float32),
            crop_from_image,
            "networks",
            found.pose.confidence,
            _doubts(found),
        )
        if self._fitter is not None:
            expected = self._projected(found.pose, coefficients, "478")[:N_LANDMARKS]
            points = timed("landmarks", self._detector.landmarks_at)(photo, expected)
            px_per_mm = found.pose.square.side / SIDE_MM
            trust = _trust(points, expected, px_per_mm, foundation.yaw_pitch_roll[0])
            if trust.mean() > _MIN_TRUST:
                foundation = timed("fit", self._refined)(foundation, points, crop_size, trust)
        return foundation

    def _from_landmarks(
        self, photo: UInt8, landmarks: FaceLandmarks, crop_size: int, timed: Timed
    ) -> tuple[Foundation, Crop]:
        assert self._fitter is not None
        crop = timed("crop", self._crop)(photo, crop_square(landmarks.points), crop_size)
        points = points_in_crop(landmarks.points, crop.crop_from_image)
        fit: LandmarkFit = timed("fit", self._fitter.fit)(points, crop_size, deviations=False)
        warnings = []
        if landmarks.confidence < _MIN_LANDMARK_CONFIDENCE:
            warnings.append(f"face landmarks are not confident ({landmarks.confidence:.2f})")
        if fit.landmark_rms > _MAX_LANDMARK_RMS * crop_size:
            warnings.append(f"landmarks fit badly ({fit.landmark_rms:.1f} px)")
        return (
            Foundation(
                fit.identity,
                fit.expression,
                fit.camera,
                fit.camera_from_head,
                crop.crop_from_image,
                "landmarks",
                landmarks.confidence,
                tuple(warnings),
            ),
            crop,
        )

    def _refined(
        self,
        foundation: Foundation,
        landmarks: FaceLandmarks,
        crop_size: int,
        trust: npt.NDArray[np.float64],
    ) -> Foundation:
        """The foundation moved towards the landmarks that agree with it."""
        assert self._fitter is not None
        prior = FitPrior(
            identity=foundation.identity,
            identity_sigma=_IDENTITY_SIGMA,
            expression=foundation.expression,
            expression_sigma=_EXPRESSION_SIGMA,
            camera_from_head=foundation.camera_from_head,
            rotation_sigma=_ROTATION_SIGMA,
            camera=foundation.camera,
            focal_log_sigma=_FOCAL_LOG_SIGMA,
        )
        points = points_in_crop(landmarks.points, foundation.crop_from_image)
        fit = self._fitter.fit(points, crop_size, prior=prior, trust=trust, deviations=False)
        return replace(
            foundation,
            identity=fit.identity,
            expression=fit.expression,
            camera=fit.camera,
            camera_from_head=fit.camera_from_head,
            source="networks+landmarks",
        )

    def _crop(self, photo: UInt8, square: HeadSquare, size: int) -> Crop:
        crop_from_image = square.square_from_image(size)
        return Crop(self._cut(photo, crop_from_image, size), crop_from_image)

    def _projected(
        self, pose: PoseEstimate, coefficients: Coefficients, which: str
    ) -> npt.NDArray[np.float64]:
        """(L, 2) landmarks of the model in px of the photo."""
        head = self._model.landmark_basis(which).positions(*coefficients)
        camera, camera_from_head = pose.camera_in(np.eye(3), 1)
        return np.asarray(
            camera.project(head @ camera_from_head[:3, :3].T + camera_from_head[:3, 3])
        )


def points_in_crop(points: Float32, crop_from_image: npt.NDArray[np.float64]) -> Float32:
    """(468, 3) landmarks of the photo in the crop; relative depth scales with the picture."""
    scale = magnification(crop_from_image)
    xy = transform_points(crop_from_image, points[:, :2].astype(np.float64))
    return np.column_stack([xy, scale * points[:, 2]]).astype(np.float32)


def _square_of(detection: FaceDetection) -> HeadSquare:
    """Where to look first for a face that the detector found."""
    box = detection.box.astype(np.float64)
    right_eye, left_eye = detection.keypoints[:2].astype(np.float64)
    # turned heads have their eyes in nearly one place: the line to the mouth tells the roll then
    down = detection.keypoints[3].astype(np.float64) - (right_eye + left_eye) / 2
    across = left_eye - right_eye
    direction = across + np.array([down[1], -down[0]])
    roll = float(np.arctan2(direction[1], direction[0]))
    side = float(max(box[2] - box[0], box[3] - box[1], 1.0))
    right, lower, scale = _SQUARE_FROM_BOX
    shift = side * (rotation_2d(roll) @ [right, lower])
    return HeadSquare((box[:2] + box[2:]) / 2 + shift, scale * side, roll)


def _beside(found: Found, square: HeadSquare) -> bool:
    """Whether a detection is of another face than that in a square."""
    assert found.detection is not None
    center = found.detection.box.reshape(2, 2).mean(0)
    return float(np.linalg.norm(center - square.center)) > square.side / 2


def _is_believed(found: Found, confidence: float) -> bool:
    """Whether the pose network is that sure, and of a face that leans far the detector too.

    Faces on their head can look like faces to the pose network, which saw none in training.
    """
    if found.pose is None or found.pose.confidence <= confidence:
        return False
    detected = found.detection is not None and found.detection.score >= _LEANING_SCORE
    return detected or abs(found.pose.square.roll) < _MAX_ROLL


def _outranks(pose: PoseEstimate, found: Found) -> bool:
    """Whether what the search found takes a detection's place: of a sure one only if surer."""
    if found.pose is None:
        return True
    if found.pose.confidence > max(_SURE, pose.confidence):
        return False
    return standing(pose) > standing(found.pose)


def _trust(
    landmarks: FaceLandmarks, expected: npt.NDArray[np.float64], px_per_mm: float, yaw: float
) -> npt.NDArray[np.float64]:
    """(468,) in [0, 1]: how far each landmark agrees with where the networks put it."""
    gap = np.linalg.norm(landmarks.points[:, :2] - expected, axis=1) / px_per_mm
    start, end = _TURNED
    facing = float(np.clip((end - abs(yaw)) / (end - start), 0, 1))
    sure = float(np.clip(landmarks.confidence / _MIN_LANDMARK_CONFIDENCE, 0, 1))
    return np.asarray(facing * sure * np.exp(-0.5 * (gap / _AGREEMENT) ** 2))


def _doubts(found: Found) -> tuple[str, ...]:
    if found.pose is not None and found.pose.confidence < MIN_CONFIDENCE:
        return (f"this may not be a face (confidence {found.pose.confidence:.2f})",)
    return ()
