"""The bump-map network sees the right pixels and normals, and its answers land where they belong.

The networks here are single convolutions, whose answers are known.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_networks import (
    BLUE,
    DOUBLE,
    GREEN,
    NX,
    NY,
    RED,
    picks,
    says,
    write_network,
)

from extreme3d_fast import _core
from extreme3d_fast._shading import foundation_normals
from extreme3d_fast.bump_network import (
    MAP_SIZE,
    MAX_BUMP,
    OFFSET,
    BumpNetwork,
    _interval,
)
from extreme3d_fast.camera import Camera
from extreme3d_fast.errors import InvalidModelFile
from extreme3d_fast.reconstructor import Reconstructor
from extreme3d_fast.session import Session

DISTANCE = 600.0  # mm
PIXEL = 0.55  # mm in a 500 px crop
WAVES = 12  # across a crop


def camera(size: int) -> Camera:
    """A pixel of a 500 px crop is 0.55 mm wide at 600 mm, as in crops of faces."""
    focal = DISTANCE / PIXEL * size / 500
    return Camera(focal, focal, size / 2, size / 2, size, size)


def oval(size: int, x: float = 0.5, y: float = 0.52) -> np.ndarray:
    """Weight of a face with two eyes left out: 1 inside, fading over its border."""
    v, u = (np.mgrid[:size, :size] + 0.5) / size
    r = np.hypot((u - x) / 0.24, (v - y) / 0.31)
    weight = np.clip((1 - r) * 10, 0, 1)
    for side in (-0.09, 0.09):
        weight[np.hypot((u - x - side) / 0.03, (v - y + 0.05) / 0.015) < 1] = 0
    return weight.astype(np.float32)


def flat(weight: np.ndarray) -> np.ndarray:
    """Depth of a plane that faces the camera, where there is a weight."""
    return np.where(weight > 0, np.float32(DISTANCE), np.float32(np.inf))


def noise(size: int) -> np.ndarray:
    return np.random.default_rng(size).integers(0, 256, (size, size, 3), dtype=np.uint8)


def waves(size: int, phase: float) -> tuple[np.ndarray, np.ndarray]:
    """(S, S) values along x and along y, in [-1, 1], as functions of the place in the crop."""
    wave = np.sin(2 * np.pi * WAVES * (np.arange(size) + 0.5) / size + phase)
    return np.broadcast_to(wave, (size, size)), np.broadcast_to(wave[:, None], (size, size))


@pytest.fixture
def make(tmp_path: Path):
    """A network written to a file and loaded."""

    def network(*arguments: object, **options: object) -> BumpNetwork:
        return BumpNetwork(write_network(tmp_path / "a.onnx", *arguments, **options))

    return network


@pytest.mark.parametrize("channels", [3, 5])
@pytest.mark.parametrize("channel", [RED, GREEN, BLUE])
def test_answer_lands_on_the_pixel_that_it_was_read_from(make, channel, channels):
    image, weight = noise(500), oval(500)
    bump, _ = make(picks(channel, channels)).estimate(image, weight, flat(weight), camera(500))
    expected = (image[..., channel] / 127.5 - 1) * weight
    np.testing.assert_allclose(bump, expected, atol=1e-6)  # float32


@pytest.mark.parametrize("size", [130, 400, 500, 1000])
@pytest.mark.parametrize("channel", [RED, GREEN])
def test_answer_keeps_its_place_in_crops_of_any_size(make, size, channel):
    weight = oval(size)
    sine, cosine = (np.dstack([*waves(size, phase)]) for phase in (0, np.pi / 2))
    image = np.rint(127.5 * (1 + np.dstack([sine, np.zeros_like(weight)]))).astype(np.uint8)
    bump, _ = make(picks(channel)).estimate(image, weight, flat(weight), camera(size))
    inside = weight == 1
    both = np.stack([wave[inside][:, channel] for wave in (sine, cosine)], axis=1)
    a, b = np.linalg.lstsq(both, bump[inside], rcond=None)[0]
    assert abs(np.arctan2(b, a)) / (2 * np.pi) * 500 / WAVES < 0.02  # px of a 500 px crop
    assert np.hypot(a, b) > 0.94  # resampling takes little from waves of 40 px


def test_millimetres_do_not_depend_on_the_crop(make):
    network = make(says(), bump_bias=1.25)
    for size in (130, 400, 500, 1000):
        weight = oval(size)
        bump, _ = network.estimate(noise(size), weight, flat(weight), camera(size))
        np.testing.assert_allclose(bump, 1.25 * weight, rtol=1e-5)


@pytest.mark.parametrize("size", [400, 500, 1000])
@pytest.mark.parametrize(("channel", "slope"), [(NX, (0.5, 0)), (NY, (0, -0.3))])
def test_normals_lean_towards_what_is_deeper(make, channel, slope, size):
    weight = oval(size)
    mm = PIXEL * 500 / size
    y, x = (np.mgrid[:size, :size] + 0.5 - size / 2) * mm
    plane = DISTANCE + slope[0] * x + slope[1] * y
    depth = np.where(weight > 0, plane, np.inf).astype(np.float32)
    bump, _ = make(picks(channel)).estimate(noise(size), weight, depth, camera(size))
    # normal of z(x, y) towards the camera: (dz/dx, dz/dy, -1)
    expected = (slope[0] + slope[1]) / np.hypot(1, slope[0] + slope[1])
    assert bump[size // 2, size // 2] == pytest.approx(expected, rel=0.01)  # of the median depth


def test_normals_are_those_of_the_foundation(make):
    weight = oval(500)
    y, x = (np.mgrid[:500, :500] - 250) * PIXEL
    bulge = DISTANCE + 0.004 * (x**2 + y**2) + 2 * np.sin(x / 9)
    depth = np.where(weight > 0, bulge, np.inf).astype(np.float32)
    bump, _ = make(picks(NX)).estimate(noise(500), weight, depth, camera(500))
    mm = float(np.median(depth[weight > 0])) / camera(500).fx
    nx, _, _ = foundation_normals(depth, mm)
    np.testing.assert_allclose(bump, nx * weight, atol=0.003)  # a median of every seventh pixel


def test_there_are_no_normals_where_there_is_no_foundation(make):
    weight = oval(500)
    depth = flat(weight) + np.arange(500, dtype=np.float32)
    depth[:, 300:] = np.inf
    bump, _ = make(picks(NX, gain=3)).estimate(noise(500), weight, depth, camera(500))
    assert (bump[:, 300:] == 0).all()
    assert (bump[:, :290][weight[:, :290] > 0.5] > 1).all()
    assert np.isfinite(bump).all()


def test_padding_of_the_map_is_grey(make):
    """Zero in the network's units, whichever border the window reaches."""
    spread = np.ones((1, 3, 25, 25), np.float32)  # sums what lies within 12 px
    image = np.full((500, 500, 3), 255, np.uint8)
    weight = np.ones((500, 500), np.float32)
    bump, _ = make(spread / spread.size).estimate(image, weight, flat(weight), camera(500))
    assert bump[250, 250] == pytest.approx(1, abs=1e-5)
    # at the corner 12 + 1 of 25 rows and columns lie in the crop
    assert bump[0, 0] == pytest.approx((13 / 25) ** 2, abs=1e-5)
    assert bump[499, 499] == pytest.approx((13 / 25) ** 2, abs=1e-5)


@pytest.mark.parametrize("y", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("x", [0.05, 0.5, 0.95])
def test_faces_at_the_border_are_read_like_others(make, x, y):
    image, weight = noise(500), oval(500, x, y)
    bump, face = make(picks(GREEN)).estimate(image, weight, flat(weight), camera(500))
    np.testing.assert_allclose(bump, (image[..., 1] / 127.5 - 1) * weight, atol=1e-6)
    assert (face[weight > 0] == 1).all()


def test_only_a_window_round_the_face_is_run(make, monkeypatch):
    shapes = []
    run = Session.run

    def recorded(self, feeds):
        shapes.append(feeds["image"].shape)
        return run(self, feeds)

    monkeypatch.setattr(Session, "run", recorded)
    weight = oval(500)
    make(says()).estimate(noise(500), weight, flat(weight), camera(500))
    make(says(), metadata={"stride": "512"}).estimate(noise(500), weight, flat(weight), camera(500))
    # the face is 240 x 310 px, with its context 288 x 358
    assert shapes == [(1, 5, 384, 320), (1, 5, 512, 512)]


@given(st.integers(0, 499), st.integers(1, 500), st.sampled_from([1, 16, 64, 128, 512]))
def test_windows_hold_the_face_and_its_context(start, length, stride):
    stop = min(start + length, 500)
    size, crop, inside = _interval(start, stop, stride)
    first = crop.start - inside.start  # of the window, in the crop
    assert size % stride == 0
    assert first >= -OFFSET
    assert first + size <= MAP_SIZE - OFFSET
    assert first <= max(start - 24, -OFFSET)
    assert first + size >= min(stop + 24, MAP_SIZE - OFFSET)
    assert crop.stop - crop.start == inside.stop - inside.start
    assert 0 <= crop.start < crop.stop <= 500
    assert 0 <= inside.start < inside.stop <= size


def test_face_mask_covers_eyes_but_nothing_off_the_face(make):
    weight = oval(500)
    _, face = make(says(), mask_bias=0.8).estimate(noise(500), weight, flat(weight), camera(500))
    v, u = (np.mgrid[:500, :500] + 0.5) / 500
    region = np.hypot((u - 0.5) / 0.24, (v - 0.52) / 0.31) < 1
    assert (weight[region] == 0).any()  # the eyes
    np.testing.assert_array_equal(face, np.where(region, np.float32(0.8), np.float32(0)))


def test_mask_lies_where_it_was_read(make):
    image, weight = noise(500), oval(500)
    _, face = make(says(), picks(BLUE, gain=0.5), mask_bias=0.5).estimate(
        image, weight, flat(weight), camera(500)
    )
    inside = weight > 0
    np.testing.assert_allclose(face[inside], image[..., 2][inside] / 255, atol=1e-6)


@pytest.mark.parametrize("size", [65, 400, 1000])
def test_probabilities_stay_probabilities_when_resized(make, size):
    weight = oval(size)
    _, face = make(says(), picks(RED, gain=50)).estimate(
        noise(size), weight, flat(weight), camera(size)
    )
    assert face.min() >= 0
    assert face.max() <= 1
    assert face.dtype == np.float32


@pytest.mark.parametrize("size", [130, 500, 700])
def test_relief_is_limited(make, size):
    weight = oval(size)
    bump, _ = make(picks(RED, gain=1e6)).estimate(noise(size), weight, flat(weight), camera(size))
    assert np.abs(bump).max() == np.float32(MAX_BUMP)
    assert (np.abs(bump) <= MAX_BUMP * weight).all()


@pytest.mark.parametrize("size", [1, 65, 500, 1000])
def test_no_face_gives_zeros(make, size):
    depth = np.full((size, size), np.inf, np.float32)
    for weight in (np.zeros((size, size)), np.ones((size, size))):
        bump, face = make(says(), bump_bias=1).estimate(noise(size), weight, depth, camera(size))
        assert bump.shape == face.shape == (size, size)
        assert not bump.any()
        assert not face.any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_answers_that_are_no_numbers_are_refused(make, value):
    weight = oval(500)
    network = make(says(), bump_bias=value)
    with pytest.raises(InvalidModelFile, match="finite bump"):
        network.estimate(noise(500), weight, flat(weight), camera(500))


def test_answers_of_another_size_are_refused(make):
    weight = oval(500)
    network = make(says(), stride=2)
    with pytest.raises(InvalidModelFile, match=r"a\.onnx.*expected finite bump and mask of shape"):
        network.estimate(noise(500), weight, flat(weight), camera(500))


def test_networks_that_cannot_be_run_are_refused(make):
    network = make(says())
    weight = oval(500)
    network._session._session = BrokenRuntime()
    with pytest.raises(InvalidModelFile, match=r"a\.onnx fails when it is run: no memory"):
        network.estimate(noise(500), weight, flat(weight), camera(500))


class BrokenRuntime:
    """Stands in for a runtime whose kernels fail."""

    def run(self, *_: object) -> None:
        raise RuntimeError("no memory")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"metadata": {"channels": "4"}}, "channels"),
        ({"metadata": {"channels": "3"}}, "image"),
        ({"metadata": {"channels": ""}}, "channels"),
        ({"metadata": {"channels": "five"}}, "channels"),
        ({"metadata": {"stride": "0"}}, "stride"),
        ({"metadata": {"stride": "48"}}, "stride"),
        ({"metadata": {"stride": "1024"}}, "stride"),
        ({"metadata": {"stride": "-64"}}, "stride"),
        ({"metadata": {"colour_order": "BGR"}}, "colour_order"),
        ({"metadata": {"mean": "0"}}, "mean"),
        ({"metadata": {"std": "one"}}, "std"),
        ({"metadata": {"licence": ""}}, "licence"),
        ({"shape": (1, -1, 512, 512)}, "image"),
        ({"shape": (8, -1, "H", "W")}, "image"),
        ({"outputs": ("bump", "face")}, "mask"),
        ({"elements": DOUBLE}, "onnx"),
    ],
    ids=str,
)
def test_other_networks_are_refused(make, options, match):
    with pytest.raises(InvalidModelFile, match=match):
        make(says(), **options)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_truncated_files_are_refused(tmp_path, share):
    whole = write_network(tmp_path / "a.onnx", says()).read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InvalidModelFile, match=r"cut\.onnx"):
        BumpNetwork(path)


@given(st.data())
def test_files_with_a_wrong_byte_are_refused_or_run(data):
    with tempfile.TemporaryDirectory() as folder:
        path = write_network(Path(folder) / "a.onnx", picks(RED))
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content)
        weight = oval(130)
        with contextlib.suppress(InvalidModelFile):
            bump, face = BumpNetwork(path).estimate(noise(130), weight, flat(weight), camera(130))
            assert np.abs(bump).max() <= MAX_BUMP
            assert 0 <= face.min() <= face.max() <= 1


@pytest.mark.parametrize("name", ["pose.onnx", "face_detection.onnx", "head.npz"])
def test_other_files_of_the_package_are_refused(name):
    import extreme3d_fast

    with pytest.raises(InvalidModelFile, match=name.replace(".", r"\.")):
        BumpNetwork(Path(extreme3d_fast.__file__).parent / "assets" / name)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.onnx"):
        BumpNetwork(tmp_path / "nothing.onnx")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"image": np.zeros((500, 500, 3))}, TypeError),
        ({"image": np.zeros((500, 500), np.uint8)}, ValueError),
        ({"image": np.zeros((500, 400, 3), np.uint8)}, ValueError),
        ({"weight": np.zeros((500, 499))}, ValueError),
        ({"weight": np.full((500, 500), 1.5)}, ValueError),
        ({"weight": np.full((500, 500), np.nan)}, ValueError),
        ({"depth": np.full((500, 500), np.nan)}, ValueError),
        ({"depth": np.zeros((500, 500))}, ValueError),
    ],
)
def test_bad_input_is_refused_by_name(make, change, error):
    weight = oval(500)
    good = {"image": noise(500), "weight": weight, "depth": flat(weight), "camera": camera(500)}
    name = next(iter(change))
    if change[name].shape == (500, 400, 3):
        good |= {"weight": weight[:, :400], "depth": flat(weight)[:, :400]}
    with pytest.raises(error, match=name):
        make(says()).estimate(**{**good, **change})


def test_weight_of_nearly_nothing_is_a_face_all_the_same(make):
    weight = np.zeros((500, 500), np.float32)
    weight[200:300, 200:300] = 1e-6
    bump, face = make(says(), bump_bias=1).estimate(noise(500), weight, flat(weight), camera(500))
    assert bump.max() == np.float32(1e-6)
    assert (face[200:300, 200:300] == 1).all()


def test_shipped_network_finds_relief_and_face(portrait):
    """On the portrait: its face is shown but for a fringe, and a black bar hides it."""
    reconstructor = Reconstructor(threads=1)
    face = reconstructor.reconstruct(portrait)
    region = face.face_probability > 0
    assert 0.7 < face.face_mask[region].mean() < 0.95
    assert face.bump[face.face_mask].std() > 0.02
    covered = portrait.copy()
    covered[95:125, 160:280] = 0
    hidden = reconstructor.reconstruct(covered)
    assert hidden.face_mask.sum() < 0.85 * face.face_mask.sum()
    assert any("occluded" in warning for warning in hidden.warnings)


# === The maps before and after the network, against a naive twin ===


def crop_maps(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A crop, and the depth of a bowl in it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:500, :500]
    depth = np.where((x - 240) ** 2 + (y - 260) ** 2 < 170**2, 800 + 0.002 * (x - 200) ** 2, np.inf)
    depth += rng.normal(0, 0.2, depth.shape)
    return rng.integers(0, 256, (500, 500, 3), np.uint8), depth.astype(np.float32)


@pytest.mark.parametrize(("corner", "shape"), [((40, 60), (384, 448)), ((-6, -6), (512, 512))])
def test_input_is_colours_and_normals_of_smoothed_depth(corner, shape):
    image, depth = crop_maps()
    (x, y), (height, width) = corner, shape
    got = _core.bump_input(image, depth, 0.55, x, y, width, height, 5)
    rows, columns = (slice(max(c, 0), min(c + n, 500)) for c, n in ((y, height), (x, width)))
    nx, ny, _ = foundation_normals(np.ascontiguousarray(depth[rows, columns]), 0.55)
    seen = np.isfinite(depth[rows, columns])
    planes = [*np.moveaxis(image[rows, columns] / 127.5 - 1, 2, 0), nx * seen, ny * seen]
    want = np.zeros((5, height, width))
    want[:, rows.start - y : rows.stop - y, columns.start - x : columns.stop - x] = planes
    np.testing.assert_allclose(got[0], want, atol=1e-3)  # slopes of depths of 1,450 px in float32
    np.testing.assert_array_equal(
        _core.bump_input(image, depth, 0.55, x, y, width, height, 3)[0], got[0, :3]
    )


def test_input_does_not_depend_on_threads():
    image, depth = crop_maps()
    one, three = (_core.bump_input(image, depth, 0.55, 30, 20, 448, 448, 5, n) for n in (1, 3))
    np.testing.assert_array_equal(one, three)


@pytest.mark.parametrize(("corner", "shape"), [((40, 60), (384, 448)), ((-6, -6), (512, 512))])
def test_answers_are_limited_weighted_and_put_in_their_place(corner, shape):
    rng = np.random.default_rng(1)
    (x, y), (height, width) = corner, shape
    bump = rng.normal(0, 5, (height, width)).astype(np.float32)
    mask = rng.normal(0.5, 1, (height, width)).astype(np.float32)
    weight = rng.uniform(0, 1, (500, 500)).astype(np.float32)
    face = rng.integers(0, 2, (500, 500), np.uint8)
    got, probability, finite = _core.bump_output(bump, mask, x, y, weight, face)
    rows, columns = (slice(max(c, 0), min(c + n, 500)) for c, n in ((y, height), (x, width)))
    inside = (
        slice(rows.start - y, rows.stop - y),
        slice(columns.start - x, columns.stop - x),
    )
    want = np.zeros((2, 500, 500), np.float32)
    want[0, rows, columns] = np.clip(bump[inside], -6, 6) * weight[rows, columns]
    want[1, rows, columns] = np.clip(mask[inside], 0, 1) * face[rows, columns]
    assert finite
    np.testing.assert_array_equal(got, want[0])
    np.testing.assert_array_equal(probability, want[1])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_one_answer_that_is_no_number_is_noticed(which, value):
    answers = np.zeros((2, 64, 128), np.float32)
    answers[which, 50, 3] = value
    square = np.ones((500, 500), np.float32)
    assert not _core.bump_output(*answers, 0, 0, square, square.astype(np.uint8))[2]
