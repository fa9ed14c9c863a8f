"""Gauss-Newton landmark fit on a synthetic linear model: closed forms, theorems, NumPy twin."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extreme3d_fast import _core
from extreme3d_fast.camera import (
    angles_from_rotation,
    rotation_from_angles,
    rotation_from_vector,
    vector_from_rotation,
)

F32 = npt.NDArray[np.float32]
CENTRE = 250.0


@dataclasses.dataclass(frozen=True)
class Model:
    mean: F32
    identity: F32
    expression: F32

    def points(self, a: npt.ArrayLike, e: npt.ArrayLike) -> npt.NDArray[np.float64]:
        return (
            self.mean.astype(np.float64)
            + np.tensordot(np.asarray(a, np.float64), self.identity, 1)
            + np.tensordot(np.asarray(e, np.float64), self.expression, 1)
        )


def smooth_model(n: int = 120, k: int = 8, e: int = 5, seed: int = 0) -> Model:
    """Front half of an ellipsoid of head size with smooth random modes of a few mm."""
    rng = np.random.default_rng(seed)
    d = rng.normal(size=(n, 3))
    d[:, 2] = np.abs(d[:, 2]) + 0.2
    d /= np.linalg.norm(d, axis=1, keepdims=True)

    def modes(count: int) -> F32:
        frequency = rng.normal(size=(count, 3, 3)) * 2.0
        phase = rng.uniform(0, 6.28, size=(count, 3))
        waves = np.sin(np.einsum("kcj,nj->knc", frequency, d) + phase[:, None])
        return (3.0 * waves).astype(np.float32)

    return Model((d * [75.0, 100.0, 85.0]).astype(np.float32), modes(k), modes(e))


MODEL = smooth_model()
FITTER = _core.LandmarkFitter(MODEL.mean, MODEL.identity, MODEL.expression)


def options(**changes: Any) -> Any:
    values: dict[str, Any] = {
        "focal": 1000.0,
        "focal_log_sigma": 0.3,
        "cx": CENTRE,
        "cy": CENTRE,
        "identity_sigma": 1.0,
        "expression_sigma": 1.0,
        "expression_min": 0.0,
        "expression_max": 1.0,
        "huber": 1e6,
        "max_iterations": 30,
        "tolerance": 1e-7,
    }
    return _core.LandmarkFitOptions(**{**values, **changes})


# A prior so wide that the data decide.
WEAK = {"identity_sigma": 1e3, "expression_sigma": 1e3, "focal_log_sigma": 10.0}


def image(x: npt.ArrayLike, r: npt.ArrayLike, t: npt.ArrayLike, f: float) -> tuple[F32, F32]:
    """Pixels and depth in pixels, as a relative-depth observation sees it."""
    q = np.asarray(x) @ np.asarray(r).T + t
    z = q[:, 2]
    return (f * q[:, :2] / z[:, None] + CENTRE).astype(np.float32), (
        f * (z / z.mean() - 1.0)
    ).astype(np.float32)


def unit_weights(n: int = 120, w: float = 1.0) -> F32:
    return np.full((n, 2), w, np.float32)


def truth(seed: int, yaw: float = 20.0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "identity": rng.normal(size=8),
        "expression": rng.uniform(0.1, 0.9, size=5),
        "R": rotation_from_angles(yaw, rng.uniform(-15, 15), rng.uniform(-10, 10)),
        "t": np.array([10.0, -5.0, 650.0]),
        "focal": 1150.0,
    }


def seen(s: dict[str, Any]) -> tuple[F32, F32]:
    return image(MODEL.points(s["identity"], s["expression"]), s["R"], s["t"], s["focal"])


@pytest.mark.parametrize("yaw", [-80.0, -40.0, 0.0, 35.0, 80.0])
def test_exact_projections_give_back_pose_and_coefficients(yaw: float) -> None:
    s = truth(1, yaw)
    points, _ = seen(s)
    fit = FITTER.fit(points, unit_weights(w=100.0), options(**WEAK))
    assert fit["rms"] < 1e-2
    np.testing.assert_allclose(fit["identity"], s["identity"], atol=0.02)
    np.testing.assert_allclose(fit["expression"], s["expression"], atol=0.02)
    # 0.1 degrees, 1 % of focal length and distance: float32 pixels
    angle = np.linalg.norm(vector_from_rotation(fit["camera_from_head"][:3, :3] @ s["R"].T))
    assert np.degrees(angle) < 0.1
    np.testing.assert_allclose(fit["focal"], s["focal"], rtol=0.01)
    np.testing.assert_allclose(fit["camera_from_head"][2, 3], s["t"][2], rtol=0.01)


def test_fixed_focal_length_stays() -> None:
    points, _ = seen(truth(2))
    fit = FITTER.fit(points, unit_weights(), options(focal=1000.0, focal_log_sigma=0.0))
    assert fit["focal"] == 1000.0
    assert fit["pose_sigma"][6] == 0.0


def test_pose_of_the_mean_shape_is_exact() -> None:
    r, t = rotation_from_angles(25.0, -10.0, 5.0), np.array([3.0, 4.0, 700.0])
    points, _ = image(MODEL.mean, r, t, 1000.0)
    fit = FITTER.fit(points, unit_weights(w=10.0), options(focal_log_sigma=0.0))
    np.testing.assert_allclose(fit["camera_from_head"][:3, :3], r, atol=1e-5)
    np.testing.assert_allclose(fit["camera_from_head"][:3, 3], t, rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(fit["identity"], 0.0, atol=1e-3)


def jacobian_case() -> tuple[dict[str, Any], dict[str, Any], Any]:
    rng = np.random.default_rng(5)
    s = truth(3, 30.0)
    points, depth = seen(truth(4))
    angle = rng.uniform(0, 6.28, 120)
    args = {
        "points": points,
        "weights": rng.uniform(0.2, 2.0, (120, 2)).astype(np.float32),
        "directions": np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32),
        "depth": depth,
        "depth_weights": rng.uniform(0.0, 1.0, 120).astype(np.float32),
    }
    return s, args, options()


def linearise(s: dict[str, Any], args: dict[str, Any], o: Any) -> tuple[Any, Any]:
    m = np.eye(4, dtype=np.float32)
    m[:3, :3], m[:3, 3] = s["R"], s["t"]
    a, e = (np.asarray(s[k], np.float32) for k in ("identity", "expression"))
    observed = {k: v for k, v in args.items() if k not in ("points", "weights")}
    return FITTER.linearise(
        args["points"], args["weights"], o,
        identity=a, expression=e, camera_from_head=m, focal=s["focal"], **observed,
    )  # fmt: skip


def numpy_residuals(s: dict[str, Any], args: dict[str, Any]) -> npt.NDArray[np.float64]:
    """Naive twin of the residual rows, float64."""
    q = MODEL.points(s["identity"], s["expression"]) @ s["R"].T + s["t"]
    e = s["focal"] * q[:, :2] / q[:, 2:] + CENTRE - args["points"]
    d, w = args["directions"].astype(float), args["weights"].astype(float)
    along = w[:, 0] * (d * e).sum(1)
    across = w[:, 1] * (d[:, 0] * e[:, 1] - d[:, 1] * e[:, 0])
    share = args["depth_weights"].astype(float) ** 2
    share /= share.sum()
    z = s["focal"] * (q[:, 2] / (share @ q[:, 2]) - 1.0)
    depth = args["depth_weights"] * (z - (args["depth"] - share @ args["depth"]))
    return np.stack([along, across, depth], 1).ravel()


def numpy_step(s: dict[str, Any], step: npt.NDArray[np.float64]) -> dict[str, Any]:
    zoom = np.exp(step[14])
    return {
        "identity": s["identity"] + step[:8],
        "R": rotation_from_vector(step[8:11]) @ s["R"],
        "t": s["t"] + step[11:14] + [0.0, 0.0, s["t"][2] * (zoom - 1.0)],
        "focal": s["focal"] * zoom,
        "expression": s["expression"] + step[15:],
    }


def numpy_jacobian(s: dict[str, Any], args: dict[str, Any]) -> npt.NDArray[np.float64]:
    """Central differences, float64."""
    columns = []
    for i in range(20):
        step = np.zeros(20)
        step[i] = 1e-5
        plus, minus = (numpy_residuals(numpy_step(s, x), args) for x in (step, -step))
        columns.append((plus - minus) / 2e-5)
    return np.stack(columns, 1)


def test_residuals_equal_numpy_twin() -> None:
    s, args, o = jacobian_case()
    residuals, _ = linearise(s, args, o)
    np.testing.assert_allclose(residuals, numpy_residuals(s, args), atol=2e-3)  # of ~100 px


def test_jacobian_equals_finite_differences() -> None:
    s, args, o = jacobian_case()
    _, jacobian = linearise(s, args, o)
    expected = numpy_jacobian(s, args)
    scale = np.abs(expected).max(0)
    np.testing.assert_allclose(jacobian / scale, expected / scale, atol=2e-5)


def test_fit_equals_numpy_gauss_newton() -> None:
    """The minimum of the same cost, found in float64 with the finite-difference Jacobian."""
    _, args, _ = jacobian_case()
    rng = np.random.default_rng(6)
    args = {**args, "points": args["points"] + rng.normal(0, 2, (120, 2)).astype(np.float32)}
    s = {**truth(4), "identity": np.zeros(8), "expression": np.zeros(5), "focal": 1000.0}
    precision = np.concatenate([np.ones(8), np.zeros(6), [1 / 0.3**2], np.full(5, 4.0)])
    for _ in range(15):
        r, j = numpy_residuals(s, args), numpy_jacobian(s, args)
        prior = np.concatenate(
            [s["identity"], np.zeros(6), [np.log(s["focal"] / 1000.0)], s["expression"]]
        )
        s = numpy_step(s, np.linalg.solve(j.T @ j + np.diag(precision),
                                          -j.T @ r - precision * prior))  # fmt: skip
    observed = {k: v for k, v in args.items() if k not in ("points", "weights")}
    free = options(expression_min=-10.0, expression_max=10.0, expression_sigma=0.5)
    fit = FITTER.fit(args["points"], args["weights"], free, **observed)
    np.testing.assert_allclose(fit["identity"], s["identity"], atol=5e-3)
    np.testing.assert_allclose(fit["expression"], s["expression"], atol=5e-3)
    np.testing.assert_allclose(fit["focal"], s["focal"], rtol=5e-3)
    np.testing.assert_allclose(fit["camera_from_head"][:3, :3], s["R"], atol=1e-3)


def test_bounded_fit_satisfies_the_kkt_conditions() -> None:
    s = {**truth(7), "expression": np.array([-0.5, 1.6, 0.4, -0.2, 0.7])}
    points, _ = seen(s)
    points += np.random.default_rng(8).normal(0, 1, points.shape).astype(np.float32)
    fit = FITTER.fit(points, unit_weights(), options())
    eta = fit["expression"]
    assert eta.min() >= 0.0
    assert eta.max() <= 1.0
    state = {"identity": fit["identity"], "expression": eta, "focal": fit["focal"],
             "R": fit["camera_from_head"][:3, :3], "t": fit["camera_from_head"][:3, 3]}  # fmt: skip
    r, j = linearise(state, {"points": points, "weights": unit_weights()}, options())
    slope = j.T @ r
    slope[:8] += fit["identity"]
    slope[14] += np.log(fit["focal"] / 1000.0) / 0.3**2
    slope[15:] += eta
    # whitened residuals have length ~10; closer, a step changes the cost by less than its rounding
    tolerance = 5e-3 * np.linalg.norm(j, axis=0)
    interior = np.ones(20, bool)
    interior[15:] = (eta > 0.0) & (eta < 1.0)
    assert (np.abs(slope) < tolerance)[interior].all()
    assert (slope[15:] > -tolerance[15:])[eta == 0.0].all()
    assert (slope[15:] < tolerance[15:])[eta == 1.0].all()
    assert not interior.all()  # bounds were active


def test_vanishing_data_weight_leaves_the_mean_head() -> None:
    points, _ = seen(truth(9))
    fit = FITTER.fit(points, unit_weights(w=1e-4), options())
    np.testing.assert_allclose(fit["identity"], 0.0, atol=1e-4)
    np.testing.assert_allclose(fit["expression"], 0.0, atol=1e-4)
    np.testing.assert_allclose(fit["identity_sigma"], 1.0, atol=1e-3)


def test_more_data_weight_means_less_residual() -> None:
    points, _ = seen(truth(10))
    rms = [FITTER.fit(points, unit_weights(w=w), options())["rms"] for w in (0.01, 0.1, 1.0, 10.0)]
    assert rms == sorted(rms, reverse=True)


@settings(max_examples=20)
@given(st.floats(-60, 60))
def test_turned_picture_turns_the_head_only(angle: float) -> None:
    s = truth(11)
    points, _ = seen(s)
    r = rotation_from_vector([0.0, 0.0, np.radians(angle)])  # about the optical axis
    turned = ((points - CENTRE) @ r[:2, :2].T + CENTRE).astype(np.float32)
    a, b = (FITTER.fit(p, unit_weights(), options()) for p in (points, turned))
    np.testing.assert_allclose(b["identity"], a["identity"], atol=5e-3)
    expected = r @ a["camera_from_head"][:3, :3]
    np.testing.assert_allclose(b["camera_from_head"][:3, :3], expected, atol=1e-3)


@settings(max_examples=20)
@given(st.floats(0.2, 4.0))
def test_scaled_picture_scales_the_focal_length_only(scale: float) -> None:
    points, _ = seen(truth(12))
    scaled = (points * np.float32(scale)).astype(np.float32)
    c = float(np.float32(CENTRE * scale))
    a = FITTER.fit(points, unit_weights(), options())
    b = FITTER.fit(scaled, unit_weights(w=1.0 / scale), options(focal=1000.0 * scale, cx=c, cy=c))
    np.testing.assert_allclose(b["focal"], a["focal"] * scale, rtol=1e-3)
    np.testing.assert_allclose(b["identity"], a["identity"], atol=5e-3)
    np.testing.assert_allclose(b["camera_from_head"], a["camera_from_head"], rtol=2e-3, atol=0.1)


@settings(max_examples=20)
@given(st.floats(-300, 300), st.floats(-300, 300))
def test_moved_picture_and_principal_point_change_nothing(dx: float, dy: float) -> None:
    points, _ = seen(truth(13))
    moved = points + np.array([dx, dy], np.float32)
    a = FITTER.fit(points, unit_weights(), options())
    b = FITTER.fit(moved, unit_weights(), options(cx=CENTRE + dx, cy=CENTRE + dy))
    np.testing.assert_allclose(b["camera_from_head"], a["camera_from_head"], rtol=2e-3, atol=0.1)


def test_sliding_points_do_not_hold_across_their_direction() -> None:
    """Points moved along a contour by 20 px do not move the fit when that direction weighs 0."""
    s = truth(14)
    points, _ = seen(s)
    directions = np.tile(np.array([[0.6, 0.8]], np.float32), (120, 1))
    weights = unit_weights()
    weights[:10, 1] = 0.0
    slid = points.copy()
    slid[:10] += 20.0 * np.array([-0.8, 0.6], np.float32)
    a = FITTER.fit(points, weights, options(), directions=directions)
    b = FITTER.fit(slid, weights, options(), directions=directions)
    # the pose-only start sees the slid points isotropically: same minimum, other path
    np.testing.assert_allclose(b["identity"], a["identity"], atol=1e-2)


def test_robust_loss_ignores_gross_outliers() -> None:
    s = truth(15)
    points, _ = seen(s)
    points[:6] += np.float32(80.0)
    robust = FITTER.fit(points, unit_weights(), options(huber=1.0))
    plain = FITTER.fit(points, unit_weights(), options())
    clean = np.arange(6, 120)
    error = [np.abs(f["residuals"][clean]).mean() for f in (robust, plain)]
    assert error[0] < 0.5 * error[1]
    assert robust["robust_weights"][:6].max() < 0.05


def test_relative_depth_decides_where_the_image_cannot() -> None:
    """With a wide shape prior a wrong yaw explains few points; their depth settles it."""
    s = truth(16, 40.0)
    points, depth = seen(s)
    weights = unit_weights(w=0.0)
    weights[:6] = 1.0
    w_depth = weights[:, 0].copy()
    yaw = angles_from_rotation(s["R"])[0]
    wide = options(identity_sigma=3.0, focal_log_sigma=0.0, focal=1150.0)
    flat = FITTER.fit(points, weights, wide)
    deep = FITTER.fit(points, weights, wide, depth=depth, depth_weights=w_depth)
    error = [abs(angles_from_rotation(f["camera_from_head"])[0] - yaw) for f in (flat, deep)]
    assert error[1] < error[0]


def test_depth_offset_changes_nothing() -> None:
    points, depth = seen(truth(17))
    w = np.full(120, 0.3, np.float32)
    a, b = (
        FITTER.fit(points, unit_weights(), options(), depth=d, depth_weights=w)
        for d in (depth, depth + np.float32(50.0))
    )
    np.testing.assert_allclose(b["identity"], a["identity"], atol=1e-3)


def test_costs_never_rise() -> None:
    points, _ = seen(truth(18, 60.0))
    fit = FITTER.fit(points, unit_weights(), options(huber=2.0))
    assert (np.diff(fit["costs"]) <= 0).all()
    assert fit["converged"]


def test_same_bits_on_any_number_of_threads() -> None:
    model = smooth_model(468, 30, 12)
    fitter = _core.LandmarkFitter(model.mean, model.identity, model.expression)
    points, depth = image(model.mean, rotation_from_angles(20.0), [0, 0, 600.0], 1000.0)
    w, wd = unit_weights(468), np.full(468, 0.3, np.float32)
    fits = [
        fitter.fit(points, w, options(), depth=depth, depth_weights=wd, threads=n)
        for n in (1, 2, 3, 1)
    ]
    for key in ("identity", "expression", "camera_from_head", "residuals", "costs"):
        for other in fits[1:]:
            np.testing.assert_array_equal(other[key], fits[0][key])


def test_one_off_equals_the_fitter() -> None:
    points, _ = seen(truth(19))
    a = FITTER.fit(points, unit_weights(), options())
    b = _core.fit_landmarks(
        MODEL.mean, MODEL.identity, MODEL.expression, points, unit_weights(), options()
    )
    np.testing.assert_array_equal(a["identity"], b["identity"])


def test_posterior_is_narrower_than_the_prior() -> None:
    points, _ = seen(truth(20))
    fit = FITTER.fit(points, unit_weights(), options())
    assert (fit["identity_sigma"] < 1.0).all()
    assert (fit["identity_sigma"] > 0.0).all()


def test_fit_without_deviations_is_the_same() -> None:
    points, _ = seen(truth(20))
    fit = FITTER.fit(points, unit_weights(), options())
    bare = FITTER.fit(points, unit_weights(), options(), deviations=False)
    np.testing.assert_array_equal(bare["identity"], fit["identity"])
    assert all(len(bare[f"{name}_sigma"]) == 0 for name in ("identity", "expression", "pose"))


def test_points_without_weight_are_ignored() -> None:
    points, _ = seen(truth(21))
    weights = unit_weights()
    weights[:5] = 0.0
    moved = points.copy()
    moved[:5] = 1e4
    a, b = (FITTER.fit(p, weights, options()) for p in (points, moved))
    np.testing.assert_array_equal(a["identity"], b["identity"])
    assert b["rms"] < 5.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_points_are_refused(bad: float) -> None:
    points, _ = seen(truth(22))
    points[3, 1] = bad
    with pytest.raises(ValueError, match="points should be finite"):
        FITTER.fit(points, unit_weights(), options())


@pytest.mark.parametrize("shape", ["one place", "one line"])
def test_degenerate_points_are_refused(shape: str) -> None:
    x = np.zeros(120) if shape == "one place" else np.linspace(0, 300, 120)
    points = np.stack([x, 2 * x], 1).astype(np.float32)
    with pytest.raises(ValueError, match="spread over an area"):
        FITTER.fit(points, unit_weights(), options())


def test_random_points_give_a_finite_fit() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        points = rng.uniform(0, 500, (120, 2)).astype(np.float32)
        fit = FITTER.fit(points, unit_weights(), options())
        assert all(np.isfinite(v).all() for v in fit.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": unit_weights(7)}, "weights should have 120 landmarks, has 7"),
        ({"weights": unit_weights(w=0.0)}, "weights should not all be zero"),
        ({"weights": unit_weights(w=-1.0)}, "weights should not be negative"),
        ({"points": np.zeros((120, 3), np.float32)}, r"points should have shape \(\*, 2\)"),
        ({"directions": unit_weights(w=2.0)}, "directions should be unit"),
        ({"depth": np.zeros(120, np.float32)}, "given together"),
    ],
)
def test_bad_observations_are_named(change: dict[str, Any], message: str) -> None:
    args: dict[str, Any] = {"points": seen(truth(23))[0], "weights": unit_weights(), **change}
    rest = {k: v for k, v in args.items() if k not in ("points", "weights")}
    with pytest.raises(ValueError, match=message):
        FITTER.fit(args["points"], args["weights"], options(), **rest)


@pytest.mark.parametrize(
    ("name", "value"),
    [("focal", 0.0), ("identity_sigma", -1.0), ("huber", float("nan")), ("focal_log_sigma", -0.1)],
)
def test_bad_options_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        FITTER.fit(seen(truth(24))[0], unit_weights(), options(**{name: value}))
