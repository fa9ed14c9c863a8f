"""train's targets by shape from shading: which photos have one, what it holds, where it counts."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "train"))
shading = importlib.import_module("shading")
store = importlib.import_module("relief_store")

SIZE = store.WINDOW
MM, FOCAL = 0.55, 900.0  # mm per pixel, px
Y, X = np.mgrid[:SIZE, :SIZE].astype(np.float64) - SIZE / 2
BROW = (slice(90, 110), slice(120, 264))  # rows, columns of the window
NAME = "celebamask/1.jpg"


def window(mask: int = 1) -> dict[str, Any]:
    """A ball-like face, lit from the left, with folds 8 mm apart."""
    radius = np.hypot(X, Y)
    folds = 0.15 * np.sin(2 * np.pi * MM * X / 8) * np.exp(-((radius / 70) ** 2))
    depth = MM * FOCAL + 0.001 * radius**2
    zy, zx = np.gradient((depth + folds) / MM)
    light = np.array([-0.8, -0.3, -1.0]) / np.linalg.norm([-0.8, -0.3, -1.0])
    shade = (zx * light[0] + zy * light[1] - light[2]) / np.sqrt(1 + zx**2 + zy**2)
    shade = (0.3 + 0.7 * shade) * np.exp(-0.5 * 2 * np.pi / 8 * folds)  # hollows see less light
    grey = (255 * (0.35 * shade) ** (1 / 2.2)).astype(np.uint8)
    zy, zx = np.gradient(depth / MM)
    normal = np.stack([zx, zy], -1) / np.sqrt(1 + zx**2 + zy**2)[..., None]
    return {
        "image": np.dstack([grey] * 3),
        "normal": normal,
        "weight": (np.clip((150 - radius) / 20, 0, 1)).astype(np.float32),
        "depth": np.where(radius < 170, depth, np.inf).astype(np.float32),
        "mask": np.full((SIZE, SIZE), mask, np.uint8),
    }


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One labelled photo: skin, and a brow."""
    labels = np.ones((store.CROP, store.CROP), np.uint8)
    y, x = (slice(s.start + 58, s.stop + 58) for s in BROW)  # the window's place in the crop
    labels[y, x] = shading.BROWS[0]
    (tmp_path / "photos/celebamask").mkdir(parents=True)
    (tmp_path / "photos/celebamask_parsing").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / NAME), np.zeros((store.CROP, store.CROP, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "photos/celebamask_parsing/1.png"), labels)
    return tmp_path


def write(folder: Path, *windows: dict[str, Any]) -> Path:
    """A set `photos` of these windows."""
    writer = store.SetWriter(folder / "photos", len(windows))
    for i, maps in enumerate(windows):
        writer.write(i, **maps)
    n = len(windows)
    writer.finish(
        name=[NAME, *(f"utkface/{i}.jpg" for i in range(1, n))],
        mm_per_pixel=np.full(n, MM, np.float32),
        origin=np.full((n, 2), 58, np.int32),
        camera=np.full((n, 4), FOCAL),
        crop_from_image=np.repeat(np.eye(3)[None], n, 0),
        fit=np.full(n, 2.0, np.float32),
        sharpness=np.full(n, 0.02, np.float32),
    )
    return folder / "photos"


@pytest.mark.parametrize(
    ("change", "want"),
    [
        ({}, True),
        ({"skin": shading.MIN_SKIN - 0.01}, False),
        ({"roughness": shading.MAX_ROUGHNESS + 0.01}, False),  # noise
        ({"roughness": 0.01}, False),  # nothing was found
        ({"steepness": shading.MAX_STEEPNESS + 0.01}, False),
    ],
)
def test_photos_are_taken_by_their_measures(change, want):
    usual = {"skin": 0.9, "roughness": 0.15, "steepness": 0.1}
    assert shading.accepted(usual | change) is want


def test_steepness_of_a_ramp_is_its_slope():
    ramp = (0.1 * X).astype(np.float32)  # mm per pixel
    seen = np.abs(Y) < 50
    assert shading.steepness(ramp, seen, 0.5) == pytest.approx(0.2, rel=1e-4)
    assert shading.steepness(ramp, np.zeros_like(seen), 0.5) == 0


def test_photos_without_labels_have_no_target_without_a_network(data, tmp_path):
    prefix = write(tmp_path, window(), window(store.UNKNOWN))
    targets = shading.Targets(data, prefix, None)
    assert targets.target(0) is not None
    assert targets.target(1) is None


def test_brows_are_trusted_less_and_what_is_not_face_not_at_all(data, tmp_path):
    maps = window()
    maps["mask"][:, :100] = 0
    _, trust, measures = shading.Targets(data, write(tmp_path, maps), None).target(0)
    inner = np.hypot(X, Y) < 140
    brow = np.zeros_like(inner)
    brow[BROW] = True
    near = cv2.dilate(brow.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    assert (trust[brow & inner] == shading.BROW_TRUST).all()
    assert (trust[inner & ~near & (maps["mask"] == 1)] == 1).all()
    assert not trust[maps["mask"] == 0].any()
    assert not trust[maps["weight"] == 0].any()
    face = maps["weight"] > 0.5
    skin = face & (maps["mask"] == 1) & ~brow
    assert measures["skin"] == pytest.approx(skin.sum() / face.sum(), abs=0.02)


def test_target_holds_the_folds(data, tmp_path):
    bump, trust, measures = shading.Targets(data, write(tmp_path, window()), None).target(0)
    folds = np.sin(2 * np.pi * MM * X / 8)
    inner = np.hypot(X, Y) < 60
    assert (trust[inner] == 1).all()
    assert np.corrcoef(bump[inner], folds[inner])[0, 1] > 0.9
    assert bump[inner].std() == pytest.approx(0.077, rel=0.25)  # mm, as drawn
    assert 0.02 < measures["roughness"] < 0.08


def test_target_leaves_long_waves_to_the_foundation(data, tmp_path, monkeypatch):
    wave, form = 0.2 * np.sin(X / 3), 1.5 + 0.01 * X  # mm

    solved = (wave + form).astype(np.float32)
    monkeypatch.setattr(shading, "shape_from_shading", lambda *_: solved)
    bump, _, _ = shading.Targets(data, write(tmp_path, window()), None).target(0)
    inner = np.hypot(X, Y) < 60
    np.testing.assert_allclose(bump[inner], wave[inner], atol=0.02)


def test_sets_say_which_photos_have_a_target(data, tmp_path, monkeypatch):
    flat = window()
    flat["image"] = np.full_like(flat["image"], 128)
    prefix = write(tmp_path / "sets", window(), flat, window(store.UNKNOWN))
    options = ["--data", str(data), "--sets", str(prefix.parent)]
    monkeypatch.setattr(sys, "argv", ["shading.py", *options, "--sheet", str(tmp_path / "a.png")])
    shading.main()
    maps, entries = store.open_set(prefix)
    assert entries["relief"].tolist() == [True, False, False]
    assert entries["fit"].tolist() == [2, 2, 2]  # other entries stay
    assert maps["trust"][0].max() == 255
    assert not maps["trust"][1:].any()
    assert cv2.imread(str(tmp_path / "a.png")).shape[0] == SIZE // 2
