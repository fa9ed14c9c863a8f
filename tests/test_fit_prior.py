"""Landmark fit with a prior: ends there without points, gives way to points."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from test_landmark_fitter import FITTER, MODEL, face

from extreme3d_fast.camera import Camera, angles_from_rotation, rotation_from_angles
from extreme3d_fast.landmark_fit import N_LANDMARKS, FitPrior, FitSettings, LandmarkFitter

NO_TRUST = np.zeros(N_LANDMARKS)


def pose(yaw: float, pitch: float = 5.0, roll: float = 2.0) -> npt.NDArray[np.float64]:
    t = np.eye(4)
    t[:3, :3] = rotation_from_angles(yaw, pitch, roll)
    t[2, 3] = 550.0
    return t


def angle_between(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Degrees."""
    r = np.asarray(a)[:3, :3] @ np.asarray(b)[:3, :3].T
    return float(np.degrees(np.arccos(np.clip((np.trace(r) - 1) / 2, -1, 1))))


@pytest.mark.parametrize("trust", [0.0, 1e-6])
def test_without_points_the_prior_comes_back(trust: float) -> None:
    points, _ = face(12.0)
    rng = np.random.default_rng(0)
    prior = FitPrior(
        identity=rng.normal(size=8),
        identity_sigma=0.5,
        expression=rng.uniform(0, 1, 4),
        expression_sigma=np.full(4, 0.2),
        camera_from_head=pose(-20.0),
        rotation_sigma=3.0,
        camera=Camera(900.0, 900.0, 200.0, 300.0, 500, 500),
    )
    fit = FITTER.fit(points, 500, prior=prior, trust=np.full(N_LANDMARKS, trust))
    np.testing.assert_allclose(fit.identity, prior.identity, atol=1e-3)
    np.testing.assert_allclose(fit.expression, prior.expression, atol=1e-3)
    np.testing.assert_allclose(fit.camera_from_head[:3, :3], pose(-20.0)[:3, :3], atol=1e-3)
    np.testing.assert_allclose(fit.camera.fx, 900.0, rtol=1e-4)
    assert (fit.camera.cx, fit.camera.cy) == (200.0, 300.0)
    np.testing.assert_allclose(fit.identity_sigma, 0.5, rtol=1e-3)


def test_tight_rotation_is_kept_and_a_wide_one_gives_way() -> None:
    points, s = face(12.0)
    start = pose(25.0, 0.0)
    near = FITTER.fit(points, 500, prior=FitPrior(camera_from_head=start, rotation_sigma=1e-3))
    assert angle_between(near.camera_from_head, start) < 0.1
    far = FITTER.fit(points, 500, prior=FitPrior(camera_from_head=start, rotation_sigma=90.0))
    assert angle_between(far.camera_from_head, s["R"]) < 1.5


def test_between_points_and_prior_the_precisions_decide() -> None:
    """The tighter the rotation prior, the farther it turns the head that the points show."""
    points, _ = face(12.0)
    tight = FitSettings(
        identity_sigma=1e-3,
        expression_sigma=1e-3,
        focal_log_sigma=0.0,
        huber=1e6,
        max_iterations=50,
        tolerance=1e-8,
    )
    fitter = LandmarkFitter(MODEL, bias=np.zeros((468, 2)), settings=tight)
    turned = fitter.fit(points, 500).camera_from_head.copy()
    turned[:3, :3] = rotation_from_angles(0, 0, 1.0) @ rotation_from_angles(0).T @ turned[:3, :3]
    # Which points are hidden is the start's to say, so the free fit starts there too.
    free = fitter.fit(points, 500, prior=FitPrior(camera_from_head=turned))
    away = [
        angle_between(
            fitter.fit(
                points, 500, prior=FitPrior(camera_from_head=turned, rotation_sigma=sigma)
            ).camera_from_head,
            free.camera_from_head,
        )
        for sigma in (0.01, 0.2, 10.0)
    ]
    assert away[0] > 0.95
    assert away[0] > away[1] > away[2]
    assert away[2] < 0.05


def test_mean_at_the_truth_recovers_it() -> None:
    points, s = face(30.0, seed=5)
    prior = FitPrior(identity=s["identity"], expression=s["expression"])
    fit = FITTER.fit(points, 500, prior=prior)
    np.testing.assert_allclose(fit.identity, s["identity"], atol=0.2)
    np.testing.assert_allclose(fit.expression, s["expression"], atol=0.2)
    blind = FITTER.fit(points, 500)
    error = [np.linalg.norm(f.identity - s["identity"]) for f in (fit, blind)]
    assert error[0] < 0.5 * error[1]


def test_deviations_hold_each_number_by_itself() -> None:
    points, s = face(0.0)
    sigma = np.ones(8)
    sigma[2] = 1e-4
    fit = FITTER.fit(points, 500, prior=FitPrior(identity=np.full(8, 0.3), identity_sigma=sigma))
    assert abs(fit.identity[2] - 0.3) < 1e-3
    others = np.delete(np.arange(8), 2)
    assert np.corrcoef(fit.identity[others], s["identity"][others])[0, 1] > 0.8


def test_start_alone_does_not_pull() -> None:
    points, _ = face(12.0)
    a = FITTER.fit(points, 500)
    b = FITTER.fit(points, 500, prior=FitPrior(camera_from_head=a.camera_from_head))
    np.testing.assert_allclose(b.yaw_pitch_roll, a.yaw_pitch_roll, atol=0.5)


def test_kept_focal_length_and_principal_point() -> None:
    camera = Camera(1000.0, 1000.0, 260.0, 240.0, 500, 500)
    fit = FITTER.fit(face()[0], 500, prior=FitPrior(camera=camera, focal_log_sigma=0.0))
    assert fit.camera == camera


def test_points_without_trust_do_not_count() -> None:
    points, _ = face(12.0)
    trust = np.ones(N_LANDMARKS)
    trust[::7] = 0.0
    moved = points.copy()
    moved[:N_LANDMARKS:7] += 40.0
    a, b = (FITTER.fit(p, 500, trust=trust) for p in (points, moved))
    # What remains: the outline's normals come from their neighbours.
    np.testing.assert_allclose(b.identity, a.identity, atol=0.3)
    assert (b.landmark_confidence[::7] == 0).all()
    np.testing.assert_array_equal(
        FITTER.fit(points, 500, trust=np.ones(N_LANDMARKS)).identity,
        FITTER.fit(points, 500).identity,
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"identity": np.zeros(7)}, r"prior identity should have shape \(8,\)"),
        ({"identity": 0.0}, r"prior identity should have shape \(8,\)"),
        ({"identity": np.full(8, np.nan)}, "prior identity should be finite"),
        ({"identity_sigma": 0.0}, "prior identity_sigma should be positive"),
        ({"expression_sigma": np.zeros(4)}, "prior expression_sigma should be positive"),
        ({"expression": np.zeros(5)}, r"prior expression should have shape \(4,\)"),
        ({"rotation_sigma": 3.0}, "needs a camera_from_head"),
        ({"camera_from_head": np.eye(3)}, r"should have shape \(4, 4\)"),
        ({"camera_from_head": np.diag([2.0, -2, -2, 1])}, "before the camera"),
        ({"camera_from_head": 2 * pose(0)}, "rotation and a translation"),
        ({"camera_from_head": pose(0), "rotation_sigma": -1.0}, "should be 0 or positive"),
        ({"camera": Camera(900.0, 950.0, 250.0, 250.0, 500, 500)}, "fx = fy"),
        ({"focal_log_sigma": -1.0}, "focal_log_sigma should be 0 or positive"),
    ],
)
def test_bad_priors_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FITTER.fit(face()[0], 500, prior=FitPrior(**changes))


@pytest.mark.parametrize("trust", [np.ones(478), np.full(468, 1.5), np.full(468, np.nan)])
def test_bad_trust_is_named(trust: npt.NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="trust should be"):
        FITTER.fit(face()[0], 500, trust=trust)


def test_no_trust_at_all_needs_a_pose() -> None:
    with pytest.raises(ValueError, match="should not be 0 for all"):
        FITTER.fit(face()[0], 500, trust=NO_TRUST)


def test_sign_of_the_prior_rotation() -> None:
    fit = FITTER.fit(
        face()[0],
        500,
        prior=FitPrior(camera_from_head=pose(40.0), rotation_sigma=1.0),
        trust=NO_TRUST,
    )
    np.testing.assert_allclose(
        fit.yaw_pitch_roll, angles_from_rotation(rotation_from_angles(40.0, 5.0, 2.0)), atol=0.1
    )
