"""Foundation fit from Face Mesh points: regions, contour, frames; real photos where present."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from extreme3d_fast import foundation
from extreme3d_fast.camera import rotation_from_angles, transform
from extreme3d_fast.foundation import FitSettings, Foundation, LandmarkFitter
from extreme3d_fast.head_model import LandmarkBasis

F32 = npt.NDArray[np.float32]
DATA = Path(
    os.environ.get("EXTREME3D_DATA", Path(__file__).resolve().parents[1] / ".." / "shared" / "data")
)


class EllipsoidModel:
    """Front of an ellipsoid with the oval on its rim and smooth modes; 478 points."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        d = rng.normal(size=(478, 3)) * [0.5, 0.5, 0.1] + [0, 0, 1.2]
        angle = np.linspace(0, 2 * np.pi, len(foundation.OVAL), endpoint=False)
        rim = np.stack([np.sin(angle), np.cos(angle), np.full_like(angle, 0.15)], 1)
        d[foundation.OVAL] = rim
        d /= np.linalg.norm(d, axis=1, keepdims=True)
        self.mean = (d * [70.0, 95.0, 80.0]).astype(np.float32)
        wave = rng.normal(size=(12, 3, 3)) * 2.0
        modes = np.sin(np.einsum("kcj,nj->knc", wave, d) + rng.uniform(0, 6, (12, 1, 3)))
        self.identity = (2.0 * modes[:8]).astype(np.float32)
        self.expression = (4.0 * modes[8:]).astype(np.float32)

    def landmark_basis(self, which: str = "478") -> LandmarkBasis:
        assert which == "478"
        return LandmarkBasis(self.mean, self.identity, self.expression)


MODEL = EllipsoidModel()
NO_BIAS = np.zeros((468, 2), np.float32)
FITTER = LandmarkFitter(MODEL, bias=NO_BIAS)


def face(yaw: float = 0.0, seed: int = 1, distance: float = 550.0) -> tuple[F32, dict[str, Any]]:
    """Exact points (478, 3) of a random head in a 500 px crop, and what made them."""
    rng = np.random.default_rng(seed)
    a, e = rng.normal(size=8), rng.uniform(0.1, 0.6, 4)
    x = MODEL.mean + np.tensordot(a, MODEL.identity, 1) + np.tensordot(e, MODEL.expression, 1)
    r = rotation_from_angles(yaw, 5.0, 2.0)
    q = x @ r.T + [0.0, 0.0, distance]
    xy = 1000.0 * q[:, :2] / q[:, 2:] + 250.0
    z = 1000.0 * (q[:, 2:] / distance - 1.0)
    points = np.concatenate([xy, z], 1).astype(np.float32)
    return points, {"identity": a, "expression": e, "R": r, "distance": distance}


def test_exact_points_are_explained() -> None:
    points, s = face(12.0)
    fit = FITTER.fit(points, 500)
    assert fit.landmark_rms < 1.0  # px; the priors keep it from 0
    assert abs(fit.yaw_pitch_roll[0] - 12.0) < 1.0
    assert np.corrcoef(fit.identity, s["identity"])[0, 1] > 0.9


@pytest.mark.parametrize("yaw", [-60.0, -30.0, 30.0, 60.0])
def test_yaw_has_the_documented_sign_and_size(yaw: float) -> None:
    points, _ = face(yaw)
    assert abs(FITTER.fit(points, 500).yaw_pitch_roll[0] - yaw) < 3.0


def test_camera_looks_through_the_middle_of_the_crop() -> None:
    fit = FITTER.fit(face()[0], (600, 400))
    assert (fit.camera.cx, fit.camera.cy) == (300.0, 200.0)
    assert (fit.camera.width, fit.camera.height) == (600, 400)


def test_residuals_are_model_minus_points_in_the_crop() -> None:
    points, _ = face(20.0)
    fit = FITTER.fit(points, 500)
    x = (
        MODEL.mean
        + np.tensordot(fit.identity, MODEL.identity, 1)
        + np.tensordot(fit.expression, MODEL.expression, 1)
    )
    projected = fit.camera.project(transform(fit.camera_from_head, x))[:468]
    np.testing.assert_allclose(projected - points[:468, :2], fit.landmark_error, atol=2e-3)


def test_larger_crop_gives_the_same_head() -> None:
    points, _ = face(20.0)
    a, b = FITTER.fit(points, 500), FITTER.fit(2 * points, 1000)
    np.testing.assert_allclose(b.identity, a.identity, atol=0.01)
    np.testing.assert_allclose(b.camera.fx, 2 * a.camera.fx, rtol=1e-3)


def test_depth_is_optional_and_irises_are_ignored() -> None:
    points, _ = face(10.0)
    flat = FITTER.fit(points[:468, :2], 500)
    assert abs(flat.yaw_pitch_roll[0] - 10.0) < 3.0
    moved = points.copy()
    moved[468:] = 1e3
    np.testing.assert_array_equal(FITTER.fit(moved, 500).identity, FITTER.fit(points, 500).identity)


def test_sliding_along_the_outline_hardly_matters() -> None:
    """Outline points a third of their spacing further along: the head stays, roughly."""
    points, _ = face()
    oval = points[foundation.OVAL, :2]
    along, across = points.copy(), points.copy()
    step = (np.roll(oval, -1, 0) - oval) / 3.0
    along[foundation.OVAL, :2] += step
    normal = foundation._normals(oval)
    across[foundation.OVAL, :2] += np.linalg.norm(step, axis=1, keepdims=True) * normal
    base = FITTER.fit(points, 500).identity
    change = [np.abs(FITTER.fit(p, 500).identity - base).max() for p in (along, across)]
    assert change[0] < 0.7 * change[1]


def test_far_outline_of_a_turned_face_is_not_used() -> None:
    points, _ = face(50.0)
    far = [i for i in foundation.OVAL if MODEL.mean[i, 0] > 50.0]  # yaw > 0 hides the left side
    moved = points.copy()
    moved[far, :2] += np.float32(30.0)
    a, b = FITTER.fit(points, 500), FITTER.fit(moved, 500)
    np.testing.assert_allclose(b.identity, a.identity, atol=0.1)
    assert (b.landmark_confidence[far] == 0).all()


def test_fit_is_deterministic_on_any_number_of_threads() -> None:
    points, _ = face(15.0)
    a = FITTER.fit(points, 500)
    for threads in (1, 2, 4):
        b = LandmarkFitter(MODEL, bias=NO_BIAS, threads=threads).fit(points, 500)
        np.testing.assert_array_equal(a.identity, b.identity)
        np.testing.assert_array_equal(a.camera_from_head, b.camera_from_head)


def test_wide_prior_fits_closer() -> None:
    points, _ = face(5.0, seed=4)
    rng = np.random.default_rng(0)
    points += rng.normal(0, 2, points.shape).astype(np.float32)
    settings = FitSettings(identity_sigma=5.0, expression_sigma=3.0)
    wide = LandmarkFitter(MODEL, bias=NO_BIAS, settings=settings)
    assert wide.fit(points, 500).landmark_rms < FITTER.fit(points, 500).landmark_rms


def test_every_region_index_is_a_landmark_once() -> None:
    for region in (
        foundation.LIPS,
        foundation.EYELIDS,
        foundation.BROWS,
        foundation.NOSE,
        foundation.OVAL,
    ):
        assert len(set(region)) == len(region)
        assert 0 <= min(region) <= max(region) < foundation.N_LANDMARKS
    assert len(foundation.OVAL) == 36


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((68, 3)), r"should have shape \(468, 3\)"),
        (np.zeros((468, 4)), r"should have shape \(468, 3\)"),
        (np.zeros((468, 3)), "spread over an area"),
        (np.full((468, 3), np.nan), "should be finite"),
        (np.linspace(0, 300, 468)[:, None] * [1.0, 1.0, 0.0], "spread over an area"),
    ],
)
def test_bad_points_are_named(points: npt.NDArray[np.float64], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FITTER.fit(points, 500)


def test_bad_size_is_named() -> None:
    with pytest.raises(ValueError, match="size"):
        FITTER.fit(face()[0], 0)


def test_mirrored_points_do_not_crash() -> None:
    points, _ = face(10.0)
    points[:, 0] = 500.0 - points[:, 0]
    fit = FITTER.fit(points, 500)
    assert isinstance(fit, Foundation)
    assert np.isfinite(fit.identity).all()
