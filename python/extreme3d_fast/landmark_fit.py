"""Fits identity, expression and a perspective camera to the Face Mesh points of a crop.

Tightens what the foundation and pose networks say where the points are confident, and makes the
labels that those networks learn from.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from extreme3d_fast import _core
from extreme3d_fast.camera import Camera, angles_from_rotation
from extreme3d_fast.head_model import LandmarkBasis

__all__ = ["FitPrior", "FitSettings", "LandmarkFit", "LandmarkFitter", "LandmarkModel"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

BIAS_FILE = Path(__file__).parent / "assets" / "landmark_bias.npy"
N_LANDMARKS = 468  # Face Mesh without the iris points

# Face Mesh indices by region (MediaPipe's face_mesh_connections, with the rows next to them).
LIPS = [
    *[0, 13, 14, 17, 37, 39, 40, 61, 78, 80, 81, 82, 84, 87, 88, 91, 95, 146, 178, 181, 185, 191],
    *[267, 269, 270, 291, 308, 310, 311, 312, 314, 317, 318, 321, 324, 375, 402, 405, 409, 415],
]
EYELIDS = [
    *[7, 33, 133, 144, 145, 153, 154, 155, 157, 158, 159, 160, 161, 163, 173, 246],
    *[249, 263, 362, 373, 374, 380, 381, 382, 384, 385, 386, 387, 388, 390, 398, 466],
]
BROWS = [
    *[46, 52, 53, 55, 63, 65, 66, 70, 105, 107],
    *[276, 282, 283, 285, 293, 295, 296, 300, 334, 336],
]
NOSE = [
    *[1, 2, 4, 5, 6, 19, 45, 48, 64, 94, 97, 98, 115, 168, 195, 197, 220],
    *[275, 278, 294, 326, 327, 344, 440],
]
# In order round the face, from the forehead over the subject's left side.
OVAL = [
    *[10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377],
    *[152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109],
]


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """How far the points of each region are trusted, and the priors; deviations in mm.

    The deviations are those of one point in a sum that takes all 468 as independent. Neighbouring
    points err together, so they are several times a point's own error.
    """

    eyelids: float = 2.0
    lips: float = 2.0
    nose: float = 2.5
    brows: float = 3.5
    elsewhere: float = 4.0
    oval: float = 5.5  #: across the face's outline
    oval_slide: float = 16.0  #: along the outline: where on it a point sits is a convention
    depth: float = 40.0  #: Face Mesh's relative depth, which is mostly its own average face
    hidden_yaw: tuple[float, float] = (15.0, 35.0)  #: far oval points lose their weight, degrees
    #: elsewhere, points beside the face err more: mm from the middle where that starts and is full,
    #: and the factor. They follow a nod only in part.
    lateral: tuple[float, float, float] = (30.0, 45.0, 4.0)
    identity_sigma: float = 1.0
    expression_sigma: float = 0.4
    focal: float = 2.2  #: centre of the focal length's prior in crop widths
    focal_log_sigma: float = 0.15  #: points of a face say little about distance: keep it plausible
    huber: float = 2.0  #: deviations from which on a point is doubted
    max_iterations: int = 10
    tolerance: float = 1e-5  #: relative fall of the cost that ends the fit


@dataclasses.dataclass(frozen=True, eq=False)
class LandmarkFit:
    """Head, pose and camera that explain the points of a face (paper §3).

    Attributes:
        identity: (K,) float32 α in standard deviations of the head model.
        expression: (E,) float32 η in [0, 1].
        camera: pinhole camera of the crop.
        camera_from_head: (4, 4) float32 rigid transform, mm.
        landmark_rms: px, root mean square distance of model landmarks to the points.
        landmark_error: (468, 2) float32 px, model minus point.
        landmark_confidence: (468,) float32 in [0, 1]; 1 where the fit takes a point at its word,
            towards 0 for points that disagree with the rest or that it does not use.
        identity_sigma: (K,) float32 posterior deviation of α; the prior's where the photo says
            nothing. Empty where it was not asked for.
        converged: False where the fit was still improving when its iterations ran out.
    """

    identity: Float32
    expression: Float32
    camera: Camera
    camera_from_head: Float32
    landmark_rms: float
    landmark_error: Float32
    landmark_confidence: Float32
    identity_sigma: Float32
    converged: bool

    @property
    def yaw_pitch_roll(self) -> tuple[float, float, float]:
        """Degrees; see `camera.angles_from_rotation` for the signs."""
        return angles_from_rotation(self.camera_from_head)


@dataclasses.dataclass(frozen=True, eq=False)
class FitPrior:
    """What is known of a head before its points: Gaussians round means, where the fit starts.

    What is None stays as the settings have it.

    Attributes:
        identity: (K,) mean of α.
        identity_sigma: its deviation, one for all or (K,).
        expression: (E,) mean of η.
        expression_sigma: its deviation, one for all or (E,).
        camera_from_head: (4, 4) rigid, mm, at the focal length of `camera`: the start.
        rotation_sigma: degrees about each axis round the rotation of camera_from_head; None or 0
            takes it as a start alone.
        camera: mean of the focal length, and the principal point, which stays.
        focal_log_sigma: deviation of the focal length's logarithm; 0 keeps it.
    """

    identity: npt.ArrayLike | None = None
    identity_sigma: npt.ArrayLike | None = None
    expression: npt.ArrayLike | None = None
    expression_sigma: npt.ArrayLike | None = None
    camera_from_head: npt.ArrayLike | None = None
    rotation_sigma: float | None = None
    camera: Camera | None = None
    focal_log_sigma: float | None = None

    def arguments(self, n_identity: int, n_expression: int) -> dict[str, Any]:
        """What the solver takes, by name; those not given are left out."""
        found: dict[str, Any] = {}
        for name, n in (("identity", n_identity), ("expression", n_expression)):
            for key in (name, f"{name}_sigma"):
                value = getattr(self, key)
                if value is None:
                    continue
                a = np.asarray(value, np.float32)
                if a.ndim == 0 and key != name:
                    a = np.full(n, a, np.float32)
                if a.shape != (n,):
                    raise ValueError(f"prior {key} should have shape ({n},), has {a.shape}")
                if not np.isfinite(a).all():
                    raise ValueError(f"prior {key} should be finite, has NaN or infinity")
                found[key] = np.ascontiguousarray(a)
        if self.camera_from_head is not None:
            pose = np.ascontiguousarray(self.camera_from_head, np.float32)
            if pose.shape != (4, 4):
                raise ValueError(
                    f"prior camera_from_head should have shape (4, 4), has {pose.shape}"
                )
            found["camera_from_head"] = pose
        if self.rotation_sigma is not None:
            found["rotation_sigma"] = math.radians(self.rotation_sigma)
        return found


class LandmarkModel(Protocol):
    """What the fit needs of a head model."""

    def landmark_basis(self, which: str = "478") -> LandmarkBasis:
        """The model at the points of a landmark scheme."""
        ...


class LandmarkFitter:
    """Fits a head model to Face Mesh points; keeps the model's landmark basis.

    Args:
        model: head model with the "478" landmarks.
        settings: trust and priors.
        bias: (468, 2) mm in x, y of the head frame, where the network that made the points places
            them relative to the model's landmarks; None is that of this package's detector
            (train/landmark_bias.py), zeros fit MediaPipe's 478-point attention network.
        threads: at least 1; the result does not depend on it.

    Raises:
        ValueError: the model's landmarks are not 468 or more, or the bias has another shape.
    """

    def __init__(
        self,
        model: LandmarkModel,
        *,
        settings: FitSettings | None = None,
        bias: npt.ArrayLike | None = None,
        threads: int = 1,
    ) -> None:
        basis = model.landmark_basis("478")
        if len(basis.mean) < N_LANDMARKS:
            raise ValueError(
                f"model should have {N_LANDMARKS} or more landmarks, has {len(basis.mean)}"
            )
        self._mean, identity, expression = (
            np.ascontiguousarray(a[..., :N_LANDMARKS, :], np.float32)
            for a in (basis.mean, basis.identity, basis.expression)
        )
        offset = np.asarray(np.load(BIAS_FILE) if bias is None else bias, np.float32)
        if offset.shape != (N_LANDMARKS, 2):
            raise ValueError(f"bias should have shape ({N_LANDMARKS}, 2), has {offset.shape}")
        self._settings = settings or FitSettings()
        self._mean = self._mean + np.pad(offset, ((0, 0), (0, 1)))
        self._identity, self._n_expression = identity, len(expression)
        self._core = _core.LandmarkFitter(self._mean, identity, expression)
        self._threads = threads
        self._sigma, self._slide = _deviations(self._settings, self._mean[:, 0])

    def fit(
        self,
        points_in_crop: npt.ArrayLike,
        size: int | tuple[int, int],
        *,
        prior: FitPrior | None = None,
        trust: npt.ArrayLike | None = None,
        deviations: bool = True,
    ) -> LandmarkFit:
        """Finds the head, its pose and the camera behind the points.

        Args:
            points_in_crop: (468, 3) px: x, y in the crop and relative depth, smaller is nearer;
                further points (irises) are ignored. (468, 2) leaves the depth open.
            size: px, side of the square crop, or its (width, height).
            prior: what is known of the head; None: no more than the settings say.
            trust: (468,) in [0, 1], factor on the weight of each point.
            deviations: whether to find the posterior's, which takes as long as the rest.

        Returns:
            The foundation; its camera looks through the middle of the crop, or has the principal
            point of the prior's camera.

        Raises:
            ValueError: wrong shape, not finite, or all points in one place or on one line (with a
                pose in the prior they may).
        """
        points = np.asarray(points_in_crop, np.float32)
        if points.ndim != 2 or points.shape[0] < N_LANDMARKS or points.shape[1] not in (2, 3):
            raise ValueError(
                f"points_in_crop should have shape ({N_LANDMARKS}, 3), has {points.shape}"
            )
        if not np.isfinite(points).all():
            raise ValueError("points_in_crop should be finite, has NaN or infinity")
        width, height = (size, size) if isinstance(size, int) else size
        if width < 1 or height < 1:
            raise ValueError(f"size should be positive, is {size}")
        points = points[:N_LANDMARKS]
        s, prior = self._settings, prior or FitPrior()
        factor = np.ones(N_LANDMARKS) if trust is None else np.asarray(trust, np.float64)
        if factor.shape != (N_LANDMARKS,) or not ((factor >= 0) & (factor <= 1)).all():
            raise ValueError(f"trust should be ({N_LANDMARKS},) numbers in [0, 1]")
        known = prior.arguments(len(self._identity), self._n_expression)
        camera = prior.camera
        if camera is None:
            focal = s.focal * max(width, height)
            camera = Camera(focal, focal, width / 2, height / 2, width, height)
        elif abs(camera.fx / camera.fy - 1) > 1e-3:
            raise ValueError(f"prior camera should have fx = fy, has {camera.fx}, {camera.fy}")
        xy = np.ascontiguousarray(points[:, :2])
        if "camera_from_head" in known:
            pose = known["camera_from_head"]
            depth_mm = float(pose[2, :3] @ self._mean.mean(0) + pose[2, 3])
            if not depth_mm > 0:
                raise ValueError("prior camera_from_head should place the head before the camera")
            px_per_mm, yaw = camera.fx / depth_mm, angles_from_rotation(pose)[0]
        else:
            px_per_mm, yaw = _scale_and_yaw(self._shape(known.get("identity")), xy, factor)
        weights, directions = self._observation(xy, px_per_mm, yaw)
        weights *= factor[:, None].astype(np.float32)
        depth: dict[str, Any] = {}
        if points.shape[1] == 3:
            confident = (weights[:, 0] > 0) * factor
            depth = {
                "depth": np.ascontiguousarray(points[:, 2]),
                "depth_weights": (confident / (s.depth * px_per_mm)).astype(np.float32),
            }
        options = _core.LandmarkFitOptions(
            focal=camera.fx,
            focal_log_sigma=(
                s.focal_log_sigma if prior.focal_log_sigma is None else prior.focal_log_sigma
            ),
            cx=camera.cx,
            cy=camera.cy,
            identity_sigma=s.identity_sigma,
            expression_sigma=s.expression_sigma,
            expression_min=0.0,
            expression_max=1.0,
            huber=s.huber,
            max_iterations=s.max_iterations,
            tolerance=s.tolerance,
        )
        fit = self._core.fit(
            xy,
            weights,
            options,
            directions=directions,
            threads=self._threads,
            deviations=deviations,
            **depth,
            **known,
        )
        return LandmarkFit(
            identity=fit["identity"],
            expression=fit["expression"],
            camera=Camera(fit["focal"], fit["focal"], camera.cx, camera.cy, width, height),
            camera_from_head=fit["camera_from_head"],
            landmark_rms=fit["rms"],
            landmark_error=fit["residuals"],
            landmark_confidence=fit["robust_weights"],
            identity_sigma=fit["identity_sigma"],
            converged=fit["converged"],
        )

    def _shape(self, identity: Float32 | None) -> Float32:
        """(468, 3) mm, the head without expression."""
        if identity is None:
            return self._mean
        return self._mean + np.tensordot(identity, self._identity, 1)

    def _observation(self, xy: Float32, px_per_mm: float, yaw: float) -> tuple[Float32, Float32]:
        """Weights (468, 2) in 1/px along and across the directions (468, 2)."""
        directions = np.tile(np.array([1.0, 0.0], np.float32), (N_LANDMARKS, 1))
        directions[OVAL] = _normals(xy[OVAL])
        weights = 1.0 / (px_per_mm * np.stack([self._sigma, self._slide], 1))
        # The far side of a turned face ends at a silhouette, not at the points that the model has.
        start, end = self._settings.hidden_yaw
        turned = np.clip((abs(yaw) - start) / (end - start), 0.0, 1.0)
        x = self._mean[OVAL, 0]
        far = np.clip(np.sign(yaw) * x / (0.5 * np.abs(x).max()), 0.0, 1.0)
        weights[OVAL] *= (1.0 - turned * far)[:, None]
        return weights.astype(np.float32), directions


def _deviations(s: FitSettings, x: Float32) -> tuple[Float64, Float64]:
    """(468,) mm along and across the direction of each point; x: (468,) mm from the middle."""
    start, end, factor = s.lateral
    beside = np.clip((np.abs(x).astype(np.float64) - start) / (end - start), 0.0, 1.0)
    sigma = s.elsewhere * (1.0 + (factor - 1.0) * beside)
    for region, value in (
        (OVAL, s.oval),
        (BROWS, s.brows),
        (NOSE, s.nose),
        (EYELIDS, s.eyelids),
        (LIPS, s.lips),
    ):
        sigma[region] = value
    slide = sigma.copy()
    slide[OVAL] = s.oval_slide
    return sigma, slide


def _normals(curve: Float32) -> Float32:
    """(n, 2) unit normals of a closed curve of (n, 2) points, outward or inward alike."""
    tangent = np.roll(curve, -1, 0) - np.roll(curve, 1, 0)
    normal = np.stack([tangent[:, 1], -tangent[:, 0]], 1)
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    # Neighbours in one place leave no tangent; such points are held in x, as any other direction.
    return np.where(length > 0, normal / np.maximum(length, 1e-12), [[1.0, 0.0]]).astype(np.float32)


def _scale_and_yaw(head: Float32, xy: Float32, trust: Float64) -> tuple[float, float]:
    """px per mm and yaw in degrees of the scaled orthographic pose of a head."""
    if not trust.sum() > 0:
        raise ValueError("trust should not be 0 for all points")
    share = (trust / trust.sum())[:, None]
    x, u = head - (share * head).sum(0), xy - (share * xy).sum(0)
    affine = np.linalg.lstsq(trust[:, None] * x, trust[:, None] * u, rcond=None)[0].T
    u, s, vt = np.linalg.svd(affine, full_matrices=False)
    scale = float(s.mean())
    if not scale > 0:
        raise ValueError("points_in_crop should spread over an area, they lie in one place")
    rows = u @ vt
    rotation = np.vstack([rows, np.cross(rows[0], rows[1])])
    return scale, angles_from_rotation(rotation)[0]
