"""Pinhole camera and head rotations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extreme3d_fast.camera import (
    Camera,
    angles_from_rotation,
    rotation_from_angles,
    rotation_from_vector,
    vector_from_rotation,
)

CAMERA = Camera(1000.0, 1000.0, 250.0, 250.0, 500, 500)


def test_axis_point_projects_to_principal_point() -> None:
    np.testing.assert_array_equal(CAMERA.project([[0.0, 0.0, 700.0]]), [[250.0, 250.0]])


def test_x_goes_right_and_y_goes_down() -> None:
    np.testing.assert_allclose(CAMERA.project([10.0, 20.0, 1000.0]), [260.0, 270.0])


def test_project_equals_matrix_product() -> None:
    p = np.array([[10.0, -30.0, 600.0], [5.0, 7.0, 900.0]])
    h = p @ CAMERA.matrix.T
    np.testing.assert_allclose(CAMERA.project(p), h[:, :2] / h[:, 2:], rtol=1e-14)


@given(st.floats(-400, 400), st.floats(-400, 400), st.floats(50, 5000))
def test_unproject_inverts_project(x: float, y: float, z: float) -> None:
    p = np.array([x, y, z])
    np.testing.assert_allclose(CAMERA.unproject(CAMERA.project(p), z), p, atol=1e-9)


def test_unproject_broadcasts_one_depth() -> None:
    assert CAMERA.unproject(np.zeros((4, 2), np.float32), 600.0).shape == (4, 3)


def test_float32_stays_float32() -> None:
    p = np.ones((2, 3), np.float32)
    assert CAMERA.project(p).dtype == np.float32
    assert CAMERA.unproject(p[:, :2], p[:, 2]).dtype == np.float32


def test_wrong_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"points should have shape \(\.\.\., 3\)"):
        CAMERA.project(np.zeros((5, 2)))


@pytest.mark.parametrize("field", ["fx", "width", "cx"])
def test_impossible_camera_is_refused(field: str) -> None:
    values = {"fx": 1.0, "fy": 1.0, "cx": 0.0, "cy": 0.0, "width": 1, "height": 1}
    with pytest.raises(ValueError, match=field):
        Camera(**{**values, field: float("nan") if field == "cx" else 0})  # type: ignore[arg-type]


def test_frontal_head_is_diag_1_m1_m1() -> None:
    np.testing.assert_array_equal(rotation_from_angles(0.0), np.diag([1.0, -1.0, -1.0]))


def test_positive_yaw_moves_the_nose_to_image_right() -> None:
    nose = rotation_from_angles(30.0) @ [0.0, 0.0, 1.0]
    np.testing.assert_allclose(nose, [0.5, 0.0, -np.sqrt(0.75)], atol=1e-12)


def test_positive_pitch_moves_the_nose_up_in_the_image() -> None:
    nose = rotation_from_angles(0.0, 30.0) @ [0.0, 0.0, 1.0]
    np.testing.assert_allclose(nose, [0.0, -0.5, -np.sqrt(0.75)], atol=1e-12)


def test_positive_roll_moves_the_crown_to_image_left() -> None:
    crown = rotation_from_angles(0.0, 0.0, 30.0) @ [0.0, 1.0, 0.0]
    np.testing.assert_allclose(crown, [-0.5, -np.sqrt(0.75), 0.0], atol=1e-12)


@given(st.floats(-89, 89), st.floats(-179, 179), st.floats(-179, 179))
def test_angles_round_trip(yaw: float, pitch: float, roll: float) -> None:
    back = angles_from_rotation(rotation_from_angles(yaw, pitch, roll))
    np.testing.assert_allclose(back, (yaw, pitch, roll), atol=1e-6)


@pytest.mark.parametrize("yaw", [-90.0, 90.0])
def test_gimbal_lock_keeps_the_rotation(yaw: float) -> None:
    r = rotation_from_angles(yaw, 20.0, 0.0)
    np.testing.assert_allclose(rotation_from_angles(*angles_from_rotation(r)), r, atol=1e-7)


@given(st.tuples(*[st.floats(-1.8, 1.8)] * 3))
def test_rotation_vector_round_trip(v: tuple[float, float, float]) -> None:
    np.testing.assert_allclose(
        vector_from_rotation(rotation_from_vector(v)), v, atol=1e-6
    )  # OpenCV takes turns below 1e-7 for none
