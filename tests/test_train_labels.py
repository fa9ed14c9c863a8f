"""Geometry of the training labels: a known head in a known camera comes back in the store crop."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bench import photos
from extreme3d_fast.camera import rotation_from_angles, rotation_from_vector
from extreme3d_fast.crop import transform_points
from extreme3d_fast.head_model import HeadModel
from extreme3d_fast.pose import FACE_CENTER

TRAIN = Path(__file__).parents[1] / "train"
if not (TRAIN / "labels.py").exists():
    pytest.skip("the training scripts are not here", allow_module_level=True)
sys.path.insert(0, str(TRAIN))
import labels as lb  # noqa: E402

Float = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def labeller() -> Any:
    return lb.Labeller(HeadModel.load())


def photo_points(labeller: Any, rotation: Float, seed: int = 0) -> tuple[Float, Float]:
    """(478, 3) px in a 400 px photo of a head of which the middle is off the photo's middle."""
    basis = labeller.basis
    a = np.random.default_rng(seed).normal(0, 0.6, len(basis.identity))
    x = basis.mean + np.tensordot(a, basis.identity, 1)
    q = x @ rotation.T + [12.0, -8.0, 800.0]
    z = 900.0 * (q[:, 2:] / q[:, 2].mean() - 1.0)
    return np.hstack([900.0 * q[:, :2] / q[:, 2:] + 200.0, z]), a


def test_canonical_crop_shows_the_same_head() -> None:
    """A store camera rolled and a little off: its points move as the similarity says."""
    pose = np.eye(4)
    pose[:3, :3] = rotation_from_angles(25.0, -8.0, 20.0)
    pose[:3, 3] = [2.0, -1.0, 640.0] - pose[:3, :3] @ FACE_CENTER
    matrix, store = lb.canonical(lb.STORE_CAMERA, pose)
    x = np.random.default_rng(0).normal(0, 50, (100, 3)) + FACE_CENTER
    before = lb.STORE_CAMERA.project(x @ pose[:3, :3].T + pose[:3, 3])
    after = lb.STORE_CAMERA.project(x @ store[:3, :3].T + store[:3, 3])
    np.testing.assert_allclose(transform_points(matrix, before), after, atol=0.3)  # px


@pytest.mark.parametrize(("yaw", "roll"), [(0.0, 0.0), (-15.0, 30.0), (50.0, -20.0)])
def test_label_explains_the_photo(labeller: Any, yaw: float, roll: float) -> None:
    rotation = rotation_from_angles(yaw, 6.0, roll)
    points, _ = photo_points(labeller, rotation)
    matrix, fit = labeller.first(points)
    turned = lb.ramp(abs(yaw), lb.TURNED)
    label = labeller.label(points, matrix, fit, rotation, turned)
    center = label.camera_from_head[:3, :3] @ FACE_CENTER + label.camera_from_head[:3, 3]
    np.testing.assert_allclose(center, [0.0, 0.0, 640.0], atol=1e-6)
    up = label.camera_from_head[:3, 1]
    assert abs(up[0]) < 1e-9
    assert up[1] < 0
    seen = transform_points(label.crop_from_image, points[:468, :2])
    away = np.linalg.norm(labeller.project(label)[:468] - seen, axis=1)
    mm_per_px = 320.0 / lb.STORE_SIZE
    assert np.sqrt((away**2).mean()) * mm_per_px < label.rms + 0.6  # points without weight err more
    assert label.rms < 3.0
    in_crop = np.arctan2(label.crop_from_image[1, 0], label.crop_from_image[0, 0])
    shown = rotation_from_angles(0, 0, np.degrees(-in_crop)) @ rotation_from_angles(0).T @ rotation
    assert lb.angle(label.camera_from_head[:3, :3], shown) < 3.0


@pytest.mark.parametrize("turned", [0.25, 0.5, 1.0])
def test_whenet_counts_by_its_share(labeller: Any, turned: float) -> None:
    points, _ = photo_points(labeller, rotation_from_angles(27.5, 6.0, 10.0))
    matrix, fit = labeller.first(points)
    free, whenet = lb.in_photo(matrix, fit), rotation_from_angles(39.5, 6.0, 10.0)
    label = labeller.label(points, matrix, fit, whenet, turned)
    roll = np.arctan2(label.crop_from_image[1, 0], label.crop_from_image[0, 0])
    got = rotation_from_vector([0, 0, -roll]) @ label.camera_from_head[:3, :3]
    share = lb.angle(free, got) / lb.angle(free, whenet)
    assert share == pytest.approx(turned, abs=0.05)  # 0.44 and 0.75 where the share counts twice


def test_store_camera_sees_320_mm() -> None:
    edge = lb.STORE_CAMERA.project(np.array([[-160.0, -160.0, 640.0], [160.0, 160.0, 640.0]]))
    np.testing.assert_allclose(edge, [[0, 0], [192, 192]])


@pytest.mark.parametrize("angles", [(20.0, 0.0, 0.0), (0.0, 15.0, 0.0), (0.0, 0.0, -10.0)])
def test_signs_of_whenet(angles: tuple[float, float, float]) -> None:
    yaw, pitch, roll = angles
    rotation = lb.whenet_rotation([pitch, -yaw, -roll])
    np.testing.assert_allclose(rotation, rotation_from_angles(yaw, pitch, roll), atol=1e-12)


def test_person_of_a_photo() -> None:
    assert lb.person_of("youtube_faces/Zhong_Nanshan_12.jpg") == "Zhong_Nanshan"
    assert lb.person_of("utkface/1_0_0_2017.jpg") == "utkface/1_0_0_2017.jpg"


@pytest.mark.parametrize(
    "name",
    [
        "celebamask/12.jpg",
        "utkface/1_0_0_2017.jpg",
        "youtube_faces/Zhong_Nanshan_12.jpg",
        "fasseg_profile/personne04S01p1_yaw-90.jpg",
    ],
)
def test_bench_judges_by_the_people_that_training_leaves_out(name: str) -> None:
    person = lb.person_of(name)
    assert photos.person_of(name) == person
    for other in [person, *(f"{person}{i}" for i in range(50))]:
        assert photos.is_held_out(other) == lb.is_held_out(other)


def test_bench_reads_whenet_as_training_does() -> None:
    for angles in np.random.default_rng(0).uniform(-80, 80, (5, 3)):
        np.testing.assert_allclose(
            photos.whenet_rotation(*angles), lb.whenet_rotation(angles), atol=1e-12
        )


def test_pooled_shape_follows_who_knows() -> None:
    def label(value: float, sigma: float) -> Any:
        k = np.full(3, value)
        return lb.Label(k, k, np.eye(4), np.eye(3), np.full(3, sigma), 1.0, 0.0)

    # Twice the same photo says somewhat more than once, against the prior.
    sure, blank = label(0.5, 0.5), label(0.0, 1.0)
    np.testing.assert_allclose(lb.pooled([sure]), 0.5, rtol=1e-9)
    assert 0.5 < lb.pooled([sure, sure])[0] < 0.6
    assert 0.3 < lb.pooled([sure, blank])[0] < 0.5
