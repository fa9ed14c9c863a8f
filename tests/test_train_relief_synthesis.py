"""Synthetic photos for the bump-map network: their targets are the relief that was drawn."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from research_data import DATA, REPOSITORY

from extreme3d_fast.camera import Camera
from extreme3d_fast.head_model import HeadModel

if not (DATA / "photos" / "face_labels.npz").is_file():
    pytest.skip(f"no research data at {DATA} (set EXTREME3D_DATA)", allow_module_level=True)
sys.path.insert(0, str(REPOSITORY / "train"))
synthesis = pytest.importorskip("relief_synthesis")


@pytest.fixture(scope="module")
def synthesizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    cache = tmp_path_factory.mktemp("cache")
    few = {"photo_skins": 3, "painted_skins": 1, "backgrounds": 3}
    return synthesis.ReliefSynthesizer(HeadModel.load(), Path(DATA), cache, **few, scans=False)


@pytest.fixture(scope="module")
def maker(synthesizer: Any) -> Any:
    return synthesis.TargetMaker(synthesizer.model)


def perfect_target(maker: Any, photo: Any, scale: float = 0.9) -> Any:
    """The target of an estimator that knows the truth; its crop is centred on the photo."""
    crop_from_image = np.diag([scale, scale, 1.0])
    crop_from_image[:2, 2] = 250 - scale * 280
    c = photo.camera
    centre = (scale * c.cx + crop_from_image[0, 2], scale * c.cy + crop_from_image[1, 2])
    camera = Camera(scale * c.fx, scale * c.fy, *centre, 500, 500)
    image = cv2.warpAffine(photo.image, crop_from_image[:2], (500, 500))
    return maker.against(photo, camera, photo.camera_from_head, photo.head, crop_from_image, image)


def test_a_photo_is_the_same_again(synthesizer: Any) -> None:
    first, other, again = (synthesizer.photo(5, i) for i in (3, 4, 3))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.depth, again.depth)
    assert (first.image != other.image).any()


def test_nothing_is_left_to_add_to_a_perfect_foundation_of_a_smooth_head(
    synthesizer: Any, maker: Any
) -> None:
    for i in range(3):
        photo = synthesizer.photo(5, i, relief=0.0, clean=True, yaw=20.0 * i)
        target = perfect_target(maker, photo)
        sure = target.trust > 0.5
        assert sure.sum() > 10000
        # 1/256 px of the rasterizer and resampling of curved skin
        assert np.abs(target.bump[sure]).mean() < 0.02
        assert np.percentile(np.abs(target.bump[sure]), 99) < 0.15


def test_a_bump_on_the_left_cheek_comes_nearer_there(
    synthesizer: Any, maker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    atlas = synthesizer.map.atlas
    u, v = atlas.landmarks[280]  # the subject's left cheek
    monkeypatch.setattr(synthesizer.map, "relief", lambda *_: atlas.blob(u, v, 2.0, 2.0))
    photo = synthesizer.photo(5, 1, clean=True, yaw=0.0)
    target = perfect_target(maker, photo)
    bump = np.where(target.trust > 0.5, target.bump, 0)
    row, column = np.unravel_index(bump.argmin(), bump.shape)
    basis = synthesizer.model.landmark_basis("478")
    cheek = basis.positions(photo.identity, photo.expression)[280]
    at = photo.camera.project(
        photo.camera_from_head[:3, :3] @ cheek + photo.camera_from_head[:3, 3]
    )
    expected = 0.9 * at + (250 - 0.9 * 280) - target.origin
    # mean heads and this one differ in where a landmark is on the skin by about 2 mm
    np.testing.assert_allclose([column + 0.5, row + 0.5], expected, atol=6)
    # 1 mm along the normal is at least that along the ray, less the average round about
    assert -1.6 < bump.min() < -0.8


def test_patterns_of_colour_leave_the_depth_as_it_is(synthesizer: Any) -> None:
    for i in range(3):
        with_pattern, without = (
            synthesizer.photo(8, i, pattern=p, clean=True, yaw=10.0) for p in (1.0, 0.0)
        )
        np.testing.assert_array_equal(with_pattern.depth, without.depth)
        assert (with_pattern.image != without.image).any()


def test_relief_changes_neither_light_nor_background(synthesizer: Any) -> None:
    rough, smooth = (synthesizer.photo(8, 1, relief=r, clean=True, yaw=0.0) for r in (1.0, 0.0))
    np.testing.assert_array_equal(rough.mask, smooth.mask)
    outside = cv2.erode((rough.mask == 0).astype(np.uint8), np.ones((41, 41))) > 0
    difference = rough.image.astype(int) - smooth.image
    # exposure follows the face's median, which relief moves a little
    assert np.abs(difference[outside]).mean() < 1.5
    assert np.isfinite(rough.depth).sum() == np.isfinite(smooth.depth).sum()


def test_eyes_and_inner_mouth_have_no_relief(synthesizer: Any) -> None:
    face = synthesizer.map
    eta = dict.fromkeys(synthesizer.model.expression_names, 0.5)
    relief = face.relief(np.random.default_rng(0), eta, 1.0)
    assert np.abs(relief).max() > 0.3
    closed = (face.atlas.eyes > 0.999) | (face.atlas.mouth > 0.999)
    np.testing.assert_allclose(relief[closed], 0, atol=1e-3)
