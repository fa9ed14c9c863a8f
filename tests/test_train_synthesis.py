"""Synthetic training photos: their labels are where the picture shows the head."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from research_data import DATA, REPOSITORY

from extreme3d_fast.camera import Camera
from extreme3d_fast.head_model import HeadModel
from extreme3d_fast.mesh import vertex_normals
from extreme3d_fast.pose import FACE_CENTER, head_square
from extreme3d_fast.rasterize import rasterize

if not (DATA / "photos" / "face_labels.npz").is_file():
    pytest.skip(f"no research data at {DATA} (set EXTREME3D_DATA)", allow_module_level=True)
sys.path.insert(0, str(REPOSITORY / "train"))
synthesis = pytest.importorskip("synthesis")

STORE = Camera(384.0, 384.0, 96.0, 96.0, 192, 192)


@pytest.fixture(scope="module")
def synthesizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    cache = tmp_path_factory.mktemp("cache")
    return synthesis.Synthesizer(
        HeadModel.load(), Path(DATA), cache, photo_skins=3, painted_skins=1, backgrounds=3
    )


def test_a_sample_is_the_same_again(synthesizer: Any) -> None:
    first, other, again = (synthesizer.sample(5, i) for i in (3, 4, 3))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.rotation, again.rotation)
    assert (first.image != other.image).any()


def test_the_label_is_upright_in_the_middle_of_the_square(synthesizer: Any) -> None:
    for i in range(3):
        sample = synthesizer.sample(5, i)
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = sample.rotation, sample.translation
        square = head_square(STORE, pose)
        np.testing.assert_allclose(square.center, [96, 96], atol=1e-6)
        np.testing.assert_allclose(square.side, 192 * 200 / 320, rtol=1e-9)
        assert abs(square.roll) < 1e-9
        np.testing.assert_allclose(sample.rotation @ sample.rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(sample.rotation) > 0


def test_the_picture_shows_the_labelled_head(synthesizer: Any) -> None:
    """Nothing shows through the labelled head, and much of it is seen just where it is."""
    model = synthesizer.model
    for i in range(3):
        sample = synthesizer.sample(5, i)
        side = len(sample.depth)
        focal = sample.distance / 320 * side
        camera = Camera(focal, focal, side / 2, side / 2, side, side)
        head = model.vertices(sample.identity, sample.expression)
        at = ((head - FACE_CENTER) @ sample.rotation.T + [0, 0, sample.distance]).astype(np.float32)
        alone = rasterize(at, model.all_faces, camera).depth
        inside = np.isfinite(alone)
        # Vertices that round to another 1/256 px change a few pixels at edges of the surface.
        assert (sample.depth[inside] <= alone[inside] + 1e-3).mean() > 0.999
        same = np.abs(sample.depth[inside] - alone[inside]) < 1e-3
        assert same.mean() > 0.3


def test_landmarks_of_a_near_picture_keep_their_place_about_the_middle(synthesizer: Any) -> None:
    """The label's camera and the one that drew the picture agree at the depth of FACE_CENTER."""
    sample = synthesizer.sample(5, 0)
    plane = FACE_CENTER + 40 * np.array([[1, 0], [0, 1], [-1, 0]]) @ sample.rotation[:2]
    focal = sample.distance / 320 * 192
    drawn = Camera(focal, focal, 96.0, 96.0, 192, 192).project(
        (plane - FACE_CENTER) @ sample.rotation.T + [0, 0, sample.distance]
    )
    label = STORE.project(plane @ sample.rotation.T + sample.translation)
    np.testing.assert_allclose(drawn, label, atol=1e-9)


def test_sides_of_shoulders_and_hair_face_outward(synthesizer: Any) -> None:
    rng = np.random.default_rng(0)
    wardrobe, model = synthesizer.wardrobe, synthesizer.model
    head = model.vertices()
    body = wardrobe.shoulders(rng, head, np.full(3, 200.0), 0.0, 0.0)
    outward = (vertex_normals(body.vertices, body.faces)[:, [0, 2]] * body.vertices[:, [0, 2]]).sum(
        1
    )
    assert (outward > 0).mean() > 0.9
    hair, _ = wardrobe.shell(rng, head, np.full(3, 60.0), "full")
    scalp = head[wardrobe.scalp]
    moved = np.linalg.norm(hair.vertices - scalp, axis=1)
    assert moved.max() > 5
    assert moved.min() < 1e-3  # nothing at the hairline
