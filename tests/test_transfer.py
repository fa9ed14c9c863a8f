"""A reference's bump lands on the same place of another head."""

import dataclasses

import numpy as np
import pytest
from extreme3d_fast.references import ReferenceFace
from hypothesis import given, settings
from hypothesis import strategies as st

from extreme3d_fast.camera import Camera, rotation_from_angles
from extreme3d_fast.head_model import HeadModel
from extreme3d_fast.mesh import transform_points
from extreme3d_fast.rasterize import interpolate, rasterize
from extreme3d_fast.transfer import warp_by_similarity, warp_by_surface

CAMERA = Camera(1300.0, 1300.0, 250.0, 250.0, 500, 500)
STEP = 2  # px of the crop per px of a reference's map
CROP_FROM_BUMP = np.diag([STEP, STEP, 1.0])
# mm: half a px of a reference's map along the steepest of the patterns below
TOLERANCE = 0.03


@pytest.fixture(scope="module")
def model():
    return HeadModel.load()


def pose(yaw, pitch=0.0):
    out = np.eye(4, dtype=np.float32)
    out[:3, :3] = rotation_from_angles(yaw, pitch, 0)
    out[:3, 3] = out[:3, :3] @ [0, -10, -60] + [0, 0, 720]
    return out


def seen(model, identity, camera_from_head, camera=CAMERA):
    """What the pixels of a crop see of a head's skin, and the skin's vertices in the camera."""
    skin = slice(0, model.skin_vertex_count)
    rest = np.zeros(model.n_expression, np.float32)
    in_camera = transform_points(camera_from_head, model.vertices(identity, rest)[skin])
    return rasterize(in_camera, model.faces, camera), in_camera


def reference(model, identity, camera_from_head, pattern):
    """A face with a pattern of its vertices as its bump map."""
    small = dataclasses.replace(
        CAMERA, fx=650.0, fy=650.0, cx=125.0, cy=125.0, width=250, height=250
    )
    raster, _ = seen(model, identity, camera_from_head, small)
    rest = np.zeros(model.n_expression, np.float32)
    landmarks = model.landmark_basis("68").positions(identity, rest)
    return ReferenceFace(
        bump=interpolate(raster, pattern, model.faces),
        crop_from_bump=CROP_FROM_BUMP,
        identity=identity,
        expression=rest,
        camera=CAMERA,
        camera_from_head=camera_from_head,
        landmarks68=CAMERA.project(transform_points(camera_from_head, landmarks)).astype("f4"),
    )


def smooth_pattern(model):
    """(V,) mm: differs from place to place, and between left and right."""
    x, y, _ = model.vertices(*zero(model))[: model.skin_vertex_count].T
    return (0.5 * np.sin(x / 17 + 0.4) + 0.4 * np.cos(y / 21)).astype(np.float32)


def zero(model):
    return np.zeros(model.n_identity, np.float32), np.zeros(model.n_expression, np.float32)


def face_pixels(model, raster):
    weight = interpolate(raster, model.face_weight, model.faces)
    return weight > 0.9


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("yaw", "other_yaw"), [(0, 0), (0, 12), (35, 20)])
def test_pattern_of_the_skin_stays_on_the_skin(model, yaw, other_yaw, mirrored):
    rng = np.random.default_rng(0)
    mine, theirs = (rng.normal(size=model.n_identity).astype(np.float32) for _ in range(2))
    pattern = smooth_pattern(model)
    mirror = model.mirror[: model.skin_vertex_count]
    face = reference(model, theirs, pose(-other_yaw if mirrored else other_yaw), pattern)
    raster, _ = seen(model, mine, pose(yaw))
    want = interpolate(raster, pattern[mirror] if mirrored else pattern, model.faces)
    borrowed = warp_by_surface(face, mirrored, model, raster)
    compared = borrowed.valid & face_pixels(model, raster)
    assert compared.sum() > 0.75 * face_pixels(model, raster).sum()
    assert np.sqrt(np.mean((borrowed.bump - want)[compared] ** 2)) < TOLERANCE


def test_what_the_reference_does_not_show_is_not_valid(model):
    raster, in_camera = seen(model, zero(model)[0], pose(0))
    face = reference(model, zero(model)[0], pose(50), smooth_pattern(model))
    valid = warp_by_surface(face, False, model, raster).valid
    x = CAMERA.project(in_camera)[:, 0].mean()
    columns = np.arange(500)
    left, right = valid[:, columns > x + 40].sum(), valid[:, columns < x - 40].sum()
    assert min(left, right) < 0.3 * max(left, right)
    assert not valid[raster.triangle < 0].any()


@settings(max_examples=15, deadline=None)
@given(st.floats(-0.4, 0.4), st.floats(0.8, 1.3), st.floats(-30, 30), st.booleans())
def test_similar_pictures_are_laid_on_each_other(model, turn, scale, shift, mirrored):
    face = reference(model, zero(model)[0], pose(0), smooth_pattern(model))
    rotation = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])

    def moved(points):
        return (points - 250) @ rotation.T + 250 + [shift, -shift]

    # the head is symmetric, so its mirror image has the same landmarks
    borrowed = warp_by_similarity(face, mirrored, moved(face.landmarks68), 500)
    at = np.stack(np.meshgrid([200.5, 220.5, 280.5], [210.5, 260.5, 300.5]), -1).reshape(-1, 2)
    x, y = np.floor(moved(at)).astype(int).T
    if mirrored:
        at = [500, 0] + at * [-1, 1]
    row, column = np.floor(at[:, ::-1] / STEP).astype(int).T
    assert borrowed.valid[y, x].all()
    np.testing.assert_allclose(borrowed.bump[y, x], face.bump[row, column], atol=0.1)


def test_landmarks_in_one_place_are_refused(model):
    face = reference(model, zero(model)[0], pose(0), smooth_pattern(model))
    face = dataclasses.replace(face, landmarks68=np.full((68, 2), 250, np.float32))
    with pytest.raises(ValueError, match="landmarks68"):
        warp_by_similarity(face, False, np.full((68, 2), 100.0), 500)
