"""train's augmentation: labels stay true to the pixels; mirrored photos to mirrored heads."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from perfect_networks import angles, facing, moved

from extreme3d_fast.camera import Camera, rotation_from_angles
from extreme3d_fast.crop import transform_points
from extreme3d_fast.head_model import HeadModel
from extreme3d_fast.pose import HeadSquare, _decoded

sys.path.append(str(Path(__file__).parents[1] / "train"))
augment = importlib.import_module("augment")

STORE = Camera(augment.STORE_FOCAL, augment.STORE_FOCAL, 96.0, 96.0, 192, 192)
MODEL = HeadModel.load()
JITTER = augment.Jitter(0.04, 0.1, 0.3)


# every pixel tells its place in the store crop: red from left to right, green from top to bottom
PLACES = np.zeros((192, 192, 3), np.uint8)
PLACES[..., :2] = np.rint((np.mgrid[:192, :192][::-1] + 0.5) * (255 / 192)).transpose(1, 2, 0)


def looked_at(crop: np.ndarray) -> HeadSquare:
    """The square of the store crop `PLACES` that a sample shows."""
    size = len(crop)
    inner = slice(size // 4, -size // 4)  # the rim may lie beyond the store crop
    store = (crop[inner, inner, :2].astype(float) * (192 / 255)).reshape(-1, 2)
    here = (np.mgrid[:size, :size][::-1, inner, inner] + 0.5).reshape(2, -1).T / size
    affine = np.linalg.lstsq(np.column_stack([here, np.ones(len(here))]), store, rcond=None)[0].T
    roll = np.arctan2(affine[1, 0], affine[0, 0])
    return HeadSquare(affine @ [0.5, 0.5, 1.0], np.hypot(*affine[:, 0]), roll)


@given(angles, st.integers(0, 1000))
def test_label_of_a_sample_decodes_to_the_true_pose(degrees, seed):
    rotation = rotation_from_angles(*degrees)
    pose = facing(rotation)
    crop, in_crop, place = augment.jittered(
        np.random.default_rng(seed), PLACES, rotation, pose[:3, 3], JITTER, 128
    )
    row = np.concatenate([in_crop[:, 0], in_crop[:, 1], place, [0.0]])
    camera, camera_from_head = _decoded(row, looked_at(crop)).camera_in(np.eye(3), 192)
    head = np.random.default_rng(0).uniform(-90, 90, (20, 3))
    want = STORE.project(moved(pose, head))
    got = camera.project(moved(camera_from_head, head))
    np.testing.assert_allclose(got, want, atol=0.5)  # px; colours are steps of 0.75 px


@pytest.mark.parametrize("seed", range(8))
def test_pixels_of_a_sample_lie_where_its_label_says(seed):
    """A bright dot at the face centre is found at `place`, in sides from the middle."""
    rotation = rotation_from_angles(20, 10, 30)
    pose = facing(rotation)
    y, x = np.mgrid[:192, :192] + 0.5
    dot = 255 * np.exp(-((x - 96) ** 2 + (y - 96) ** 2) / (2 * 4.0**2))
    image = np.repeat(np.rint(dot).astype(np.uint8)[..., None], 3, 2)
    jitter = augment.Jitter(0.1, 0.2, 0.5)
    crop, _, place = augment.jittered(
        np.random.default_rng(seed), image, rotation, pose[:3, 3], jitter, 128
    )
    light = np.maximum(crop[..., 0].astype(float) - crop[..., 0].min(), 0)
    light[light < 40] = 0  # borders may be of any one tone
    near = np.hypot(*(np.mgrid[:128, :128] + 0.5 - 64 - 128 * place[1::-1, None, None])) < 24
    v, u = (np.mgrid[:128, :128] + 0.5) * near
    got = [(u * light).sum() / (light * near).sum(), (v * light).sum() / (light * near).sum()]
    np.testing.assert_allclose(got, 64 + 128 * place[:2], atol=0.15)  # px


def test_sample_without_jitter_is_the_canonical_square():
    rotation = rotation_from_angles(0, 0, 0)
    image = np.random.default_rng(0).integers(0, 256, (192, 192, 3)).astype(np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 3)
    crop, in_crop, place = augment.jittered(
        np.random.default_rng(0),
        image,
        rotation,
        facing(rotation)[:3, 3],
        augment.Jitter(0, 0, 0),
        120,
    )
    np.testing.assert_array_equal(in_crop, rotation)
    np.testing.assert_array_equal(place, 0)
    np.testing.assert_allclose(crop, image[36:156, 36:156], atol=1)  # 200 of 320 mm are 120 px


# === Occluders ===


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("angle", [0.0, 0.7, 3.0])
def test_pasted_picture_covers_its_size(angle, flip):
    image = np.full((192, 192, 3), 50, np.uint8)
    cutout = np.full((30, 60, 4), 255, np.uint8)
    alpha = augment.paste(image, cutout, (96, 90), 80.0, angle, flip)
    assert alpha.sum() == pytest.approx(80 * 40, rel=0.03)  # the rim is blended
    center = [(alpha * grid).sum() / alpha.sum() for grid in (np.mgrid[:192, :192] + 0.5)[::-1]]
    np.testing.assert_allclose(center, (96, 90), atol=1.5)  # half a px of each picture
    assert (image[alpha == 1] == 255).all()
    assert (image[alpha == 0] == 50).all()


def test_flipped_picture_is_the_mirror_image():
    cutout = np.full((20, 40, 4), 255, np.uint8)
    cutout[:, :20, :3] = 0  # dark on its left
    images = np.full((2, 192, 192, 3), 50, np.uint8)
    for image, flip in zip(images, (False, True), strict=True):
        augment.paste(image, cutout, (96, 96), 80.0, 0.0, flip)
    assert images[0, 96, 80, 0] == images[1, 96, 112, 0] == 0
    assert images[0, 96, 112, 0] == images[1, 96, 80, 0] == 255


def test_transparent_picture_leaves_no_trace():
    image = np.random.default_rng(0).integers(0, 256, (192, 192, 3)).astype(np.uint8)
    before = image.copy()
    augment.paste(image, np.zeros((9, 9, 4), np.uint8), (96, 96), 80.0, 1.0, False)
    np.testing.assert_array_equal(image, before)


# === Light and noise ===


@pytest.mark.parametrize("size", [64, 128])
def test_degraded_photo_is_still_a_photo_of_that_size(size, rng):
    image = cv2.GaussianBlur(rng.integers(0, 256, (size, size, 3)).astype(np.uint8), (0, 0), 4)
    before = image.copy()
    changed = 0
    for _ in range(200):
        out = augment.degrade(rng, image)
        assert out.shape == image.shape
        assert out.dtype == np.uint8
        changed += not np.array_equal(out, image)
    np.testing.assert_array_equal(image, before)
    assert changed > 150


def test_same_seed_gives_the_same_sample(portrait):
    image = portrait[:192, :192]
    rotation = rotation_from_angles(10)
    made = []
    for _ in range(2):
        rng = np.random.default_rng(3)
        crop, *label = augment.jittered(
            rng, image, rotation, facing(rotation)[:3, 3], augment.DETECTED, 128
        )
        made.append([augment.degrade(rng, crop), *label])
    for first, second in zip(*made, strict=True):
        np.testing.assert_array_equal(first, second)


# === Mirrored photos ===


@pytest.fixture(scope="module")
def mirror():
    pytest.importorskip("torch")
    return importlib.import_module("dataset").Mirror.of(MODEL)


def test_mirroring_expressions_twice_changes_nothing(mirror):
    np.testing.assert_array_equal(mirror.expression[mirror.expression], np.arange(52))


def test_mirrored_expression_gives_the_mirrored_head(mirror, rng):
    expression = rng.uniform(0, 1, 52).astype(np.float32)
    got = MODEL.vertices(None, expression[mirror.expression])
    want = MODEL.vertices(None, expression)[MODEL.mirror] * np.float32([-1, 1, 1])
    np.testing.assert_allclose(got, want, atol=1e-3)  # mm


@pytest.mark.parametrize("times", [1, 2])
def test_mirrored_identity_gives_nearly_the_mirrored_head(mirror, rng, times):
    identity = rng.normal(size=99).astype(np.float32)
    want, mirrored = MODEL.vertices(identity), identity
    for _ in range(times):
        want, mirrored = want[MODEL.mirror] * np.float32([-1, 1, 1]), mirror.identity @ mirrored
    error = np.linalg.norm(MODEL.vertices(mirrored) - want, axis=1)
    assert np.sqrt((error**2).mean()) < 0.6  # mm: the basis does not quite span its mirror image


def test_mirrored_pose_puts_the_mirrored_head_on_the_mirrored_photo(rng):
    flip = np.diag([-1.0, 1.0, 1.0])  # as SampleMaker does
    pose = facing(rotation_from_angles(30, 10, 20))
    points = rng.uniform(-90, 90, (20, 3))
    other = np.eye(4)
    other[:3, :3], other[:3, 3] = flip @ pose[:3, :3] @ flip, flip @ pose[:3, 3]
    got = STORE.project(moved(other, points @ flip))
    want = transform_points(
        np.array([[-1.0, 0, 192], [0, 1, 0], [0, 0, 1]]), STORE.project(moved(pose, points))
    )
    np.testing.assert_allclose(got, want, atol=1e-9)
