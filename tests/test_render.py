"""render: framing, directions, shading and background of the drawn pictures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from extreme3d_fast.mesh_io import Mesh
from extreme3d_fast.render import WHITE, render_meshes, turntable_sheet, view_of

BLACK = (0, 0, 0)


def drawn(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return (image != 255).any(axis=2)


@given(yaw=st.floats(-180, 180), pitch=st.floats(-90, 90))
@settings(max_examples=50)
def test_every_view_frames_the_head(yaw: float, pitch: float) -> None:
    box = np.array(np.meshgrid([-70, 80], [-120, 140], [-90, 110]), np.float32).reshape(3, 8).T
    camera, camera_from_head = view_of(box, yaw, pitch, 400)
    x, y, z = camera_from_head[:3, :3] @ box.T + camera_from_head[:3, 3:]
    assert (z > 0).all()
    assert (np.abs(camera.fx * x / z) < 200).all()
    assert (np.abs(camera.fy * y / z) < 200).all()


def test_view_rotation_is_a_rotation() -> None:
    _, camera_from_head = view_of(np.eye(3, dtype=np.float32), 33.0, -12.0, 64)
    rotation = camera_from_head[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(rotation) == pytest.approx(1.0, abs=1e-6)


def test_sphere_is_drawn_as_a_centred_disc(sphere: Mesh) -> None:
    image = render_meshes({"skin": sphere}, size=200, shading="clay")
    y, x = np.nonzero(drawn(image))
    # 0.98 of the half width, within the pixel that antialiasing adds.
    for at in (x, y):
        assert at.min() == pytest.approx(2, abs=1)
        assert at.max() == pytest.approx(197, abs=1)
    assert drawn(image).sum() == pytest.approx(np.pi * 98**2, rel=0.02)


def nose_at(yaw: float, pitch: float, sphere: Mesh) -> NDArray[np.float64]:
    """Position of a dark spot at +z, relative to the middle of the picture."""
    colors = np.full_like(sphere.colors, 250)
    colors[sphere.vertices[:, 2] > 92] = 0
    mesh = sphere._replace(colors=colors)
    image = render_meshes({"skin": mesh}, yaw=yaw, pitch=pitch, size=128)
    return np.argwhere(image[:, :, 0] < 60)[:, ::-1].mean(axis=0) - 63.5


def test_positive_yaw_turns_the_nose_to_the_right_of_the_picture(sphere: Mesh) -> None:
    x, y = nose_at(40, 0, sphere)
    assert x > 20
    assert abs(y) < 2


def test_positive_pitch_looks_up(sphere: Mesh) -> None:
    x, y = nose_at(0, 40, sphere)
    assert y < -20
    assert abs(x) < 2


def test_subjects_left_is_at_the_right_of_the_picture(sphere: Mesh) -> None:
    colors = np.full_like(sphere.colors, 250)
    colors[sphere.vertices[:, 0] > 0] = 0  # +x is the subject's left
    image = render_meshes({"skin": sphere._replace(colors=colors)}, size=64)
    assert image[32, 50, 0] < 60 < image[32, 14, 0]


def test_color_shading_keeps_the_hue(sphere: Mesh) -> None:
    colors = np.full_like(sphere.colors, (200, 120, 90))
    image = render_meshes({"skin": sphere._replace(colors=colors)}, size=64)
    np.testing.assert_allclose(image[32, 32], (200, 120, 90), atol=8)


def test_clay_ignores_the_colors(sphere: Mesh) -> None:
    red = sphere._replace(colors=np.full_like(sphere.colors, (255, 0, 0)))
    np.testing.assert_array_equal(
        render_meshes({"a": sphere}, size=64, shading="clay"),
        render_meshes({"a": red}, size=64, shading="clay"),
    )


def test_clay_key_light_comes_from_the_upper_left(sphere: Mesh) -> None:
    image = render_meshes({"a": sphere}, size=128, shading="clay").astype(int).sum(axis=2)
    assert image[40, 40] > image[88, 88] + 100


def test_background_is_exactly_the_colour_asked_for(sphere: Mesh) -> None:
    image = render_meshes({"a": sphere}, size=64, background=(12, 34, 56))
    assert image[0, 0].tolist() == [12, 34, 56]


def test_nearer_part_hides_what_is_behind(sphere: Mesh) -> None:
    blue = np.full_like(sphere.colors, (0, 0, 255))
    eye = Mesh(sphere.vertices * 0.2 + np.float32([0, 0, 90]), sphere.faces, blue)
    inside = eye._replace(vertices=eye.vertices - np.float32([0, 0, 60]))
    plain = render_meshes({"a": sphere, "b": inside}, size=64)
    assert plain[32, 32, 0] > 60
    image = render_meshes({"a": sphere, "b": eye}, size=64)
    assert image[32, 32].tolist()[:2] == [0, 0]


def test_picture_does_not_depend_on_threads(sphere: Mesh) -> None:
    one, four = (
        render_meshes({"a": sphere}, yaw=20, size=96, shading="clay", threads=n) for n in (1, 4)
    )
    np.testing.assert_array_equal(one, four)


def test_crease_is_darker_than_open_surface() -> None:
    # A valley along y: two slopes of 45° that meet at x = 0.
    vertices = np.array([[x, y, abs(x)] for y in (-50, 50) for x in (-50, 0, 50)], np.float32)
    faces = np.array([[0, 1, 4], [0, 4, 3], [1, 2, 5], [1, 5, 4]], np.int32)
    mesh = Mesh(vertices, faces, np.full((6, 3), 200, np.uint8))
    image = render_meshes({"a": mesh}, size=200)
    crease, slope = image[100, 99, 0], image[100, 150, 0]
    assert crease < slope


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size should be from 1 to 8192 pixels, is 0"),
        ({"shading": "toon"}, "shading should be 'color' or 'clay', is 'toon'"),
        ({"background": (0, 0, 256)}, "background should be three numbers"),
    ],
)
def test_wrong_option_is_named(sphere: Mesh, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render_meshes({"a": sphere}, **options)


def test_sheet_holds_the_photo_and_two_rows_of_views(sphere: Mesh) -> None:
    photo = np.full((50, 40, 3), (9, 99, 199), np.uint8)
    sheet = turntable_sheet({"a": sphere}, photo, yaws=(-45, 0, 45), size=100)
    height, width, _ = sheet.shape
    photo_width = round(40 * height / 50)
    assert (sheet[:, :photo_width] == photo[0, 0]).all()
    views = sheet[:, photo_width:].reshape(2, height // 2, 3, (width - photo_width) // 3, 3)
    assert (views != 255).any(axis=(1, 3, 4)).all()


def test_sheet_without_photo_has_views_only(sphere: Mesh) -> None:
    sheet = turntable_sheet({"a": sphere}, yaws=(0,), size=100, background=WHITE)
    assert sheet.shape[0] == 2 * sheet.shape[1]
    assert not np.array_equal(sheet, turntable_sheet({"a": sphere}, yaws=(0,), background=BLACK))


@pytest.mark.parametrize("angles", [{"yaw": np.nan}, {"pitch": np.inf}], ids=str)
def test_angles_that_are_no_numbers_are_errors(sphere, angles):
    with pytest.raises(ValueError, match="yaw and pitch"):
        render_meshes({"a": sphere}, **angles)
