"""train's pasting over windows: the mask changes exactly where the opacity says so."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from research_data import DATA

sys.path.append(str(Path(__file__).parents[1] / "train"))
pasting = importlib.import_module("pasting")

SIZE = 384
Y, X = (np.mgrid[:192, :192] - np.array([94, 100])[:, None, None]) / 0.9  # mm


def face_weight(eyes=((-33, -36), (33, -36))) -> np.ndarray:
    """An upright oval of 1.8 px/mm round (200, 188) px, with holes for eyes and mouth."""
    weight = ((X / 70) ** 2 + (Y / 99) ** 2 < 1).astype(np.uint8) * 255
    for x, y in eyes:
        weight[((X - x) / 12) ** 2 + ((Y - y) / 5) ** 2 < 1] = 0
    weight[(X / 25) ** 2 + ((Y - 32) / 3) ** 2 < 1] = 0
    return weight


PLACE = pasting.place_of(face_weight())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Ovals in every colour as cut-outs of every kind."""
    out = tmp_path_factory.mktemp("occluders")
    rng = np.random.default_rng(0)
    for kind in ("hands", "glasses", "masks", "objects", "hats"):
        (out / kind).mkdir()
        for k in range(12):
            cutout = np.zeros((90, 130, 4), np.uint8)
            cutout[..., :3] = rng.integers(0, 256, 3)
            alpha = np.zeros((90, 130), np.uint8)
            cv2.ellipse(alpha, (65, 45), (60, 40), 0, 0, 360, 255, -1)
            cutout[..., 3] = alpha
            cv2.imwrite(str(out / kind / f"{kind}_{k}.png"), cutout)
    return out


@pytest.fixture(scope="module")
def occluders(folder):
    return pasting.Occluders(folder)


def window(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = rng.integers(60, 200, (12, 12, 3)).astype(np.uint8)
    image = cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    mask = rng.choice([0, 1, 255], (SIZE, SIZE), p=[0.1, 0.7, 0.2]).astype(np.uint8)
    return image, mask


# === Place ===


def test_place_finds_the_eyes_of_the_oval():
    np.testing.assert_allclose(PLACE.eyes, [[-33, -36], [33, -36]], atol=0.7)  # mm
    assert PLACE.scale == pytest.approx(1.8, rel=0.02)
    np.testing.assert_allclose(PLACE.points([[0, 0]]), [[200.5, 188.5]], atol=1.1)
    assert PLACE.right == -PLACE.left == pytest.approx(70, abs=1.5)
    assert PLACE.middle == pytest.approx(0, abs=1)


def test_profile_has_one_eye():
    place = pasting.place_of(face_weight(eyes=((-45, -36),)))
    np.testing.assert_allclose(place.eyes, [[-45, -36]], atol=0.7)
    assert place.left <= place.middle < -45


def test_closed_eyes_are_where_eyes_are():
    place = pasting.place_of(face_weight(eyes=()))
    assert np.abs(place.eyes[:, 1] + 36).max() < 1
    assert place.eyes[0, 0] == -place.eyes[1, 0] < 0


@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_place_moves_with_the_picture(mirror):
    m = np.array([[0.8 * mirror, -0.6, 30], [0.6 * mirror, 0.8, -20]]) * 0.7
    want = PLACE.points(PLACE.eyes) @ m[:, :2].T + m[:, 2]
    moved = PLACE.moved(m)
    np.testing.assert_allclose(moved.points(moved.eyes), want, atol=1e-9)
    assert moved.scale == pytest.approx(0.7 * PLACE.scale)


def test_window_without_face_has_a_place():
    assert np.isfinite(pasting.place_of(np.zeros((192, 192), np.uint8)).eyes).all()


# === Pasting ===


@pytest.mark.parametrize("seed", range(25))
def test_mask_changes_where_more_than_half_is_covered(occluders, seed):
    image, mask = window(seed)
    before, known = image.copy(), mask.copy()
    rng = np.random.default_rng(seed)
    alpha = pasting.occlude_window(rng, image, mask, PLACE, occluders)
    assert alpha.shape == mask.shape
    assert alpha.dtype == np.float32
    assert 0 <= alpha.min() <= alpha.max() <= 1 + 1e-6
    np.testing.assert_array_equal(mask, np.where(alpha > 0.5, 0, known))
    # shadows may fall beside
    assert (image[alpha == 0] <= before[alpha == 0]).all()


@pytest.mark.parametrize("kind", list(pasting.DRAWN))
def test_picture_changes_only_where_something_is(occluders, kind, monkeypatch):
    monkeypatch.setattr(pasting, "SHADOWED", 0.0)
    covered = 0
    for seed in range(12):
        image, mask = window(seed)
        before = image.copy()
        rng = np.random.default_rng(seed)
        canvas = pasting.Canvas(rng, image, mask, PLACE, occluders)
        pasting.DRAWN[kind](canvas)
        np.testing.assert_array_equal(image[canvas.alpha == 0], before[canvas.alpha == 0])
        covered += (canvas.alpha > 0.5).any()
    assert covered >= 9


def test_clear_lenses_leave_the_eyes_in_sight(occluders, monkeypatch):
    """Glasses cover the eyes fully, partly, or not at all, and their frames always something."""
    monkeypatch.setattr(pasting, "KINDS", {"glasses": 1.0})
    monkeypatch.setattr(pasting, "PIECES", (1.0,))
    at = np.rint(PLACE.points(PLACE.eyes)).astype(int)
    seen = []
    for seed in range(60):
        image, mask = window(seed)
        rng = np.random.default_rng(seed)
        alpha = pasting.occlude_window(rng, image, mask, PLACE, occluders)
        assert (alpha > 0.5).sum() < 0.3 * alpha.size
        seen.append(alpha[at[:, 1], at[:, 0]].max() < 0.5)
    assert 0.2 < np.mean(seen) < 0.7


@pytest.mark.parametrize("size", [(256, 256), (192, 320)])
def test_crops_of_any_size_can_be_covered(occluders, size):
    m = np.array([[-0.9, 0, 300], [0, 0.9, -40.0]])
    place = PLACE.moved(m)
    for seed in range(20):
        image, mask = np.full((*size, 3), 120, np.uint8), np.ones(size, np.uint8)
        rng = np.random.default_rng(seed)
        alpha = pasting.occlude_window(rng, image, mask, place, occluders)
        np.testing.assert_array_equal(mask == 0, alpha > 0.5)


def test_face_outside_the_crop_is_left_alone(occluders):
    image, mask = window(0)
    place = PLACE.moved(np.array([[1, 0, 5000], [0, 1, 0.0]]))
    alpha = pasting.occlude_window(np.random.default_rng(0), image, mask, place, occluders)
    assert not alpha.any()


def test_same_seed_covers_the_same(occluders):
    made = []
    for _ in range(2):
        image, mask = window(3)
        rng = np.random.default_rng(7)
        made.append((pasting.occlude_window(rng, image, mask, PLACE, occluders), image, mask))
    for a, b in zip(*made, strict=True):
        np.testing.assert_array_equal(a, b)


def test_things_on_grey_photos_are_grey(occluders):
    for seed in range(20):
        image, mask = np.full((SIZE, SIZE, 3), 120, np.uint8), np.ones((SIZE, SIZE), np.uint8)
        rng = np.random.default_rng(seed)
        pasting.occlude_window(rng, image, mask, PLACE, occluders)
        assert np.ptp(image.astype(int), axis=2).max() <= 2


# === Cut-outs kept for measuring ===


def test_cut_outs_are_for_training_or_for_measuring(folder):
    train, bench = (pasting.Occluders(folder, held_out=held) for held in (False, True))
    names = [{n for v in o.names.values() for n in v} for o in (train, bench)]
    assert not names[0] & names[1]
    assert len(names[0] | names[1]) == 5 * 12
    assert min(map(len, names)) > 0


def test_research_cut_outs_are_split_too():
    folder = DATA / "occluders"
    if not folder.is_dir():
        pytest.skip("needs the research data")
    files = sorted(folder.glob("*/*.png"))
    held = [pasting.is_held_out(p) for p in files]
    assert 0.1 < np.mean(held) < 0.35
    for kind in ("hands", "glasses", "masks", "objects"):
        parts = [h for p, h in zip(files, held, strict=True) if p.parent.name == kind]
        assert any(parts)
        assert not all(parts)
