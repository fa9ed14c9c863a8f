"""train's store of windows: bands, windows, and what is written is what is read."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "train"))
store = importlib.import_module("relief_store")

MM = 0.55  # per pixel
SIZE = store.WINDOW
Y, X = np.mgrid[:SIZE, :SIZE].astype(np.float64)
EVERYWHERE = np.ones((SIZE, SIZE), np.float32)
INNER = slice(120, -120)  # more than 3 sigma off the border


# === Band ===


def test_plane_vanishes_from_the_band():
    got = store.band(0.05 * X - 0.03 * Y + 7, EVERYWHERE, MM)
    np.testing.assert_allclose(got[INNER, INNER], 0, atol=0.02)


@pytest.mark.parametrize(("length", "left"), [(10.0, 1.0), (60.0, 0.55), (200.0, 0.07)])
def test_wave_keeps_what_a_gaussian_average_leaves_of_it(length, left):
    """A Gaussian of sigma s keeps exp(-(2 pi s / L)^2 / 2) of a wave of length L."""
    wave = np.sin(2 * np.pi * X * MM / length)
    keeps = 1 - np.exp(-0.5 * (2 * np.pi * store.BAND_SIGMA / length) ** 2)
    assert keeps == pytest.approx(left, abs=0.02)
    got = store.band(wave, EVERYWHERE, MM)
    np.testing.assert_allclose(got[INNER, INNER], keeps * wave[INNER, INNER], atol=0.02)


def test_band_knows_nothing_of_what_lies_off_the_face():
    weight = (np.hypot(X - 190, Y - 190) < 100).astype(np.float32)
    wave = np.sin(X / 5)
    want = store.band(wave, weight, MM)
    got = store.band(np.where(weight > 0, wave, np.nan), weight, MM)
    np.testing.assert_array_equal(got, want)
    assert (got[weight == 0] == 0).all()


def test_constant_vanishes_up_to_the_border_of_the_face():
    weight = (np.hypot(X - 190, Y - 190) < 100).astype(np.float32)
    np.testing.assert_allclose(store.band(5 * EVERYWHERE, weight, MM), 0, atol=1e-4)


def test_band_is_limited():
    got = store.band(np.where(np.hypot(X - 190, Y - 190) < 8, 40.0, 0.0), EVERYWHERE, MM)
    assert got.max() == store.MAX_BUMP
    assert got.dtype == np.float32


# === Windows ===


@pytest.mark.parametrize(
    ("center", "want"),
    [((250, 250), (58, 58)), ((0, 0), (0, 0)), ((499, 480), (116, 116)), ((230, 260), (38, 68))],
)
def test_window_lies_round_the_face_and_inside_the_crop(center, want):
    y, x = np.mgrid[: store.CROP, : store.CROP]
    weight = (np.hypot(x - center[0] + 0.5, y - center[1] + 0.5) < 90) * 0.3
    origin = store.window_origin(weight)
    assert origin == want
    assert store.window(weight, origin).shape == (SIZE, SIZE)


def test_window_without_face_is_the_middle():
    assert store.window_origin(np.zeros((store.CROP, store.CROP))) == (58, 58)


# === Files ===


def sample(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    depth = 500 + 40 * np.sin(X / 90) + rng.uniform(0, 1)
    depth[:, :50] = np.inf
    normal = np.stack([0.4 * np.cos(X / 90), 0.1 * np.sin(Y / 40)], -1)
    return {
        "image": rng.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8),
        "normal": normal.astype(np.float32),
        "weight": np.clip(X / 200 - 0.5, 0, 1).astype(np.float32),
        "depth": depth.astype(np.float32),
        "mask": rng.choice([0, 1, 255], (SIZE, SIZE)).astype(np.uint8),
        "bump": rng.normal(size=(SIZE, SIZE)).astype(np.float32),
        "trust": rng.uniform(size=(SIZE, SIZE)).astype(np.float32),
    }


def test_what_is_written_is_read_again_and_cut_to_its_rows(tmp_path):
    samples = [sample(k) for k in range(3)]
    writer = store.SetWriter(tmp_path / "a", 7)
    for i, maps in enumerate(samples):
        writer.write(i, **maps)
    writer.finish(name=["x", "y", "z"], val=[True, False, True])
    maps, entries = store.open_set(tmp_path / "a")
    assert entries["name"].tolist() == ["x", "y", "z"]
    for name, (shape, dtype) in store.MAPS.items():
        assert maps[name].shape == (3, *shape)
        assert maps[name].dtype == dtype
        path = store.map_path(tmp_path / "a", name)
        assert path.stat().st_size < 3 * np.prod(shape) * np.dtype(dtype).itemsize + 4096
    for i, want in enumerate(samples):
        for name in ("image", "mask"):
            np.testing.assert_array_equal(maps[name][i], want[name])
        np.testing.assert_allclose(maps["bump"][i], want["bump"], rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(maps["trust"][i] / 255, want["trust"], atol=0.5 / 255 + 1e-6)
        seen = np.isfinite(want["depth"])
        middle = np.median(want["depth"][seen & (want["weight"] > 0)])
        np.testing.assert_allclose(maps["depth"][i][seen], want["depth"][seen] - middle, atol=0.05)
        assert np.isposinf(maps["depth"][i][~seen]).all()
        quarter = (slice(None), slice(30, None))  # half resolution, inside the foundation
        fine = want["normal"].reshape(192, 2, 192, 2, 2).mean((1, 3))
        np.testing.assert_allclose(maps["normal"][i][quarter] / 127, fine[quarter], atol=0.005)
        assert (maps["normal"][i][:, :25] == 0).all()
        fine = want["weight"].reshape(192, 2, 192, 2).mean((1, 3))
        np.testing.assert_allclose(maps["weight"][i] / 255, fine, atol=0.003)


def test_window_without_bump_has_no_trust(tmp_path):
    maps = sample(0)
    del maps["bump"], maps["trust"]
    writer = store.SetWriter(tmp_path / "a", 1)
    writer.write(0, **maps)
    writer.finish(name=["x"])
    read, _ = store.open_set(tmp_path / "a")
    assert not read["trust"].any()
    assert not read["bump"].any()


def test_entries_of_another_length_are_refused(tmp_path):
    writer = store.SetWriter(tmp_path / "a", 2)
    writer.write(0, **sample(0))
    with pytest.raises(ValueError, match="expected 1 entries, got 2"):
        writer.finish(name=["x", "y"])


def test_sets_can_be_written_to_later(tmp_path):
    writer = store.SetWriter(tmp_path / "a", 3)
    writer.write(0, **sample(0))
    writer.finish(name=["x"])
    maps, _ = store.open_set(tmp_path / "a", "r+")
    maps["trust"][0] = 9
    maps["trust"].flush()
    assert (store.open_set(tmp_path / "a")[0]["trust"] == 9).all()
