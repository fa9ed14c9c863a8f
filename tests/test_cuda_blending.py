"""Blending on device arrays: closed forms, theorems, and the host's results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from extreme3d_fast import Reconstructor, reconstructor
from extreme3d_fast.blending import blend_gradients as blend_on_host
from extreme3d_fast.device import Device
from extreme3d_fast.image_io import load_image
from extreme3d_fast.occlusion import fill_bump as fill_on_host
from extreme3d_fast.occlusion import unfade as unfade_on_host

Map = NDArray[np.float32]
Mask = NDArray[np.bool_]

SHAPE = (37, 42)
SHARE = 1e-4  # the default tolerance: of the range of values and guidance
EVERYWHERE = np.ones(SHAPE, bool)
NOWHERE = np.zeros(SHAPE, bool)
SLACK = 1e-3  # mm; errors of both solvers are well below


def blend(
    device: Device,
    values: Map,
    known: Mask,
    region: Mask,
    guidance: Map | None = None,
    guided: Mask | None = None,
    *,
    tolerance: float = SHARE,
) -> tuple[Map, float, float]:
    """The blend, iterations and residual; arguments as for the host's."""
    shape = np.shape(values)
    if guidance is None:
        guidance, guided = np.zeros(shape, np.float32), np.zeros(shape, bool)
    elif guided is None:
        guided = np.ones(shape, bool)
    out, status = device.empty(shape), device.empty(2)
    f, g = (device.put(np.asarray(m, np.float32)) for m in (values, guidance))
    known, region, guided = map(device.put, (known, region, guided))
    blender = device.ops.Blender(shape[1], shape[0])
    blender.blend_gradients(f, known, region, g, guided, tolerance, out, status, device.stream)
    return (device.get(out), *device.get(status))


def fill(device: Device, bump: Map, weight: Map, hole: Mask, *borrowed: Any) -> tuple[Map, float]:
    """The filled bump map and iterations; arguments as for the host's."""
    shape = bump.shape
    guidance, valid = borrowed or (np.zeros(shape, np.float32), np.zeros(shape, bool))
    out, status = device.empty(shape), device.empty(2)
    device.ops.Blender(shape[1], shape[0]).fill_bump(
        *map(device.put, (bump, weight, hole, guidance, valid)), out, status, device.stream
    )
    return device.get(out), float(device.get(status)[0])


def blob(
    rng: np.random.Generator, share: float, shape: tuple[int, int] = SHAPE, size: float = 2.0
) -> Mask:
    smooth = cv2.GaussianBlur(rng.normal(size=shape), (0, 0), size)
    return np.asarray(smooth > np.quantile(smooth, 1 - share))


def noise(rng: np.random.Generator, shape: tuple[int, int] = SHAPE) -> Map:
    return rng.normal(size=shape).astype(np.float32)


def ramp(shape: tuple[int, int] = SHAPE) -> Map:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (0.02 * x - 0.05 * y + 0.3).astype(np.float32)


def disc(radius: float = 11, shape: tuple[int, int] = SHAPE) -> Mask:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.asarray(np.hypot(x - shape[1] // 2, y - shape[0] // 2) < radius)


# === Closed forms ===


def test_membrane_continues_a_ramp(device: Device) -> None:
    got, iterations, residual = blend(
        device, np.where(disc(), np.float32(9), ramp()), ~disc(), EVERYWHERE
    )
    np.testing.assert_allclose(got, ramp(), atol=SHARE * np.ptp(ramp()))
    assert 0 < iterations < 12
    assert residual < SHARE


def test_harmonic_function_is_reproduced(device: Device) -> None:
    """x² - y² is harmonic on the grid too; a hole of more than one tile and a rough edge."""
    y, x = (np.mgrid[:150, :170] / 50).astype(np.float32)
    saddle = x**2 - y**2
    hole = blob(np.random.default_rng(0), 0.5, saddle.shape, 15)
    hole[[0, -1]] = hole[:, [0, -1]] = False  # free borders are level, which the saddle is not
    got, *_ = blend(device, np.where(hole, 0, saddle), ~hole, np.ones_like(hole))
    np.testing.assert_allclose(got, saddle, atol=SHARE * np.ptp(saddle))


def test_guidance_that_agrees_with_the_known_pixels_is_reproduced(
    device: Device, rng: np.random.Generator
) -> None:
    truth, hole = noise(rng), blob(rng, 0.5)
    got, *_ = blend(device, np.where(hole, 5, truth), ~hole, EVERYWHERE, truth + np.float32(2))
    np.testing.assert_allclose(got, truth, atol=2 * SHARE * np.ptp(truth))


def test_an_offset_between_guidance_and_values_is_spread_as_a_membrane(
    device: Device, rng: np.random.Generator
) -> None:
    guidance, offset = noise(rng), ramp() * 4
    got, *_ = blend(device, guidance + offset, ~disc(), EVERYWHERE, guidance)
    limit = SHARE * (np.ptp(guidance) + np.ptp(offset))
    np.testing.assert_allclose(got - guidance, offset, atol=limit)  # a ramp's membrane is the ramp


def test_a_step_of_the_guidance_counts_only_between_guided_pixels(device: Device) -> None:
    values, hole = np.zeros((1, 12), np.float32), np.arange(12)[None] >= 2  # free at the right end
    guidance = np.arange(12, dtype=np.float32)[None]
    got, *_ = blend(device, values, ~hole, np.ones_like(hole), guidance, guidance >= 5)
    np.testing.assert_allclose(got[0], [0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6], atol=12 * SHARE)


def test_a_hole_at_the_border_of_the_region_ends_level(device: Device) -> None:
    """In a strip that is known at one end only, the membrane is constant."""
    region = np.zeros((9, 140), bool)
    region[3:6, 5:130] = True
    known = np.zeros_like(region)
    known[:, :8] = True
    values = np.where(known & region, np.float32(3), 0)
    got, *_ = blend(device, values, known, region)
    np.testing.assert_allclose(got[region], 3, atol=1e-5)
    assert not got[~region].any()


def test_what_meets_nothing_known_is_the_guidance_itself(
    device: Device, rng: np.random.Generator
) -> None:
    guidance, seven = noise(rng), np.full(SHAPE, 7, np.float32)
    got, *_ = blend(device, seven, NOWHERE, EVERYWHERE, guidance)
    np.testing.assert_array_equal(got, guidance)
    assert not blend(device, seven, NOWHERE, EVERYWHERE)[0].any()


def test_islands_that_meet_nothing_known_keep_the_mean_of_their_guidance(
    device: Device, rng: np.random.Generator
) -> None:
    """Two islands, partly guided, beside a hole that meets known pixels."""
    region = np.zeros(SHAPE, bool)
    region[3:15, 3:20], region[20:22, 5:7], region[5:35, 25:40] = True, True, True
    known = np.zeros(SHAPE, bool)
    known[5:35, 25:28] = True
    values, guidance, guided = noise(rng), noise(rng) + np.float32(3), blob(rng, 0.6)
    got, *_ = blend(device, values, known, region, guidance, guided)
    want = blend_on_host(values, known, region, guidance, guided)
    np.testing.assert_allclose(got, want, atol=2 * SHARE * 6)
    target = np.where(guided, guidance, 0)
    for island in (np.s_[3:15, 3:20], np.s_[20:22, 5:7]):
        assert got[island].mean() == pytest.approx(target[island].mean(), abs=2e-6)  # rounding


def test_single_pixels_are_blended(device: Device) -> None:
    one, no = np.ones((1, 1), bool), np.zeros((1, 1), bool)
    ones, fours = np.ones((1, 1), np.float32), np.full((1, 1), 4, np.float32)
    assert blend(device, ones, no, one)[0] == 0
    assert blend(device, ones, no, one, fours)[0] == 4
    assert blend(device, ones, no, no)[0] == 1
    hole = np.zeros(SHAPE, bool)
    hole[36, 41] = True
    got, *_ = blend(device, np.where(hole, 0, ramp()), ~hole, EVERYWHERE)
    beside = (ramp()[35, 41] + ramp()[36, 40]) / 2  # of the corner's two neighbours
    assert got[36, 41] == pytest.approx(beside, abs=1e-6)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 300), (300, 1), (2, 2)])
def test_images_of_any_shape_are_blended(
    device: Device, rng: np.random.Generator, shape: tuple[int, int]
) -> None:
    values, known = noise(rng, shape), rng.random(shape) < 0.2
    region = np.ones(shape, bool)
    got, *_ = blend(device, values, known, region, values)
    np.testing.assert_allclose(got, blend_on_host(values, known, region, values), atol=1e-3)


# === Theorems ===


@pytest.mark.parametrize("seed", range(4))
def test_membrane_has_no_extremes_of_its_own(device: Device, seed: int) -> None:
    rng = np.random.default_rng(seed)
    hole, values = blob(rng, 0.5), noise(rng)
    got, *_ = blend(device, values, ~hole, EVERYWHERE)
    slack = SHARE * np.ptp(values)
    assert got[hole].max() <= values[~hole].max() + slack
    assert got[hole].min() >= values[~hole].min() - slack


def test_same_input_gives_the_same_bits(device: Device, rng: np.random.Generator) -> None:
    maps = noise(rng), ~blob(rng, 0.4), blob(rng, 0.8), noise(rng)
    assert np.array_equal(blend(device, *maps)[0], blend(device, *maps)[0])


def test_scratch_of_another_hole_does_not_matter(device: Device, rng: np.random.Generator) -> None:
    values, region = map(device.put, (noise(rng), EVERYWHERE))
    blender, status = device.ops.Blender(SHAPE[1], SHAPE[0]), device.empty(2)
    again, out = device.empty(SHAPE), device.empty(SHAPE)
    holes = disc(4), NOWHERE, EVERYWHERE, blob(rng, 0.5), disc(4)
    for hole, target in zip(holes, (again, out, out, out, out), strict=True):
        blender.blend_gradients(
            values, device.put(~hole), region, values, device.put(NOWHERE), SHARE, target, status,
            device.stream,
        )  # fmt: skip
    assert np.array_equal(device.get(again), device.get(out))


# === The host's results ===


@pytest.mark.parametrize("size", [0.01, 2.0, 6.0])
@pytest.mark.parametrize("guide", ["membrane", "guided", "partly"])
@pytest.mark.parametrize("seed", range(4))
def test_blend_is_the_hosts(device: Device, seed: int, guide: str, size: float) -> None:
    rng = np.random.default_rng([seed, int(10 * size)])
    shape = tuple(rng.integers(1, 80, 2))
    region = blob(rng, rng.uniform(0.2, 1), shape, 4.0)
    known = ~blob(rng, rng.uniform(0.02, 1), shape, size)
    maps: list[Any] = [noise(rng, shape), known, region]
    if guide != "membrane":
        maps += [noise(rng, shape), blob(rng, 0.6, shape) if guide == "partly" else None]
    got, *_ = blend(device, *maps)
    limit = 2 * SHARE * 16  # two solvers; hardly a number of these maps' range is larger
    np.testing.assert_allclose(got, blend_on_host(*maps), atol=limit)
    same = ~region | known
    assert np.array_equal(got[same], maps[0][same])


@pytest.mark.parametrize("place", ["inside", "band", "corner", "islands", "free"])
def test_large_holes_are_the_hosts(device: Device, place: str) -> None:
    rng, size = np.random.default_rng(5), 200
    y, x = np.mgrid[:size, :size] - size / 2
    region = (x / 80) ** 2 + (y / 95) ** 2 < 1
    wobble = cv2.GaussianBlur(rng.normal(size=(size, size)), (0, 0), 6) * 80
    hole = {
        "inside": np.hypot(x, y) + wobble < 50,
        "band": np.abs(y) + wobble < 30,
        "corner": (x < 0) & (y < 0),
        "islands": (np.hypot(x, y) < 60) & (wobble < 12),
        "free": np.ones_like(region),
    }[place]
    if place == "corner":
        region = np.ones_like(region)
    values, guidance = (
        cv2.GaussianBlur(noise(rng, (size, size)), (0, 0), 10) * 10 + noise(rng, (size, size)) / 9
        for _ in range(2)
    )
    for guide in ((), (guidance + 2,), (guidance, np.abs(x) < 40)):
        maps = values, ~hole, region, *guide
        got, iterations, _ = blend(device, *maps)
        np.testing.assert_allclose(got, blend_on_host(*maps), atol=2 * SHARE * np.ptp(values))
        assert iterations < 15


@pytest.mark.parametrize("open_share", [0.6, 0.8])
def test_mazes_are_the_hosts(device: Device, open_share: float) -> None:
    rng, shape = np.random.default_rng(6), (90, 110)
    region, known = rng.random(shape) < open_share, rng.random(shape) < 0.01
    maps = noise(rng, shape), known, region, noise(rng, shape)
    got, *_ = blend(device, *maps)
    np.testing.assert_allclose(got, blend_on_host(*maps), atol=2 * SHARE * 8)


def test_a_winding_corridor_is_one_component(device: Device) -> None:
    """One pixel wide, 800 long, known at its end: the membrane is constant, not free."""
    region = np.zeros((40, 40), bool)
    region[::2] = True
    region[1::4, -1] = region[3::4, 0] = True
    known = np.zeros_like(region)
    known[0, 0] = True
    got, *_ = blend(device, np.full((40, 40), 5, np.float32), known, region)
    np.testing.assert_array_equal(got[region], 5)


def test_numbers_that_are_not_used_may_be_anything(
    device: Device, rng: np.random.Generator
) -> None:
    values, guidance, hole = noise(rng), noise(rng), disc()
    region, guided = disc(15), disc(8)
    want, *_ = blend(device, values, ~hole, region, guidance, guided)
    values[hole | ~region] = np.nan
    guidance[~guided] = np.inf
    got, *_ = blend(device, values, ~hole, region, guidance, guided)
    assert np.array_equal(got[region], want[region])
    assert np.isnan(got[~region]).all()


def test_numbers_that_are_none_show_in_the_status(device: Device) -> None:
    _, _, residual = blend(device, np.full(SHAPE, np.nan, np.float32), ~disc(), EVERYWHERE)
    assert np.isnan(residual)


def test_values_far_from_zero_keep_their_digits(device: Device, rng: np.random.Generator) -> None:
    values = noise(rng)
    near, *_ = blend(device, values, ~disc(), EVERYWHERE)
    far, *_ = blend(device, values + np.float32(1000), ~disc(), EVERYWHERE)
    np.testing.assert_allclose(far - 1000, near, atol=2e-4)  # float32 has 6e-5 there


# === Bump maps ===

SIZE = 120
Y, X = (np.mgrid[:SIZE, :SIZE] + 0.5 - SIZE / 2).astype(np.float32)
RIPPLES = (0.4 * np.sin(X / 3) * np.cos(Y / 4)).astype(np.float32)
RADIUS = np.hypot(X, Y)
FACE = RADIUS < 50
FADING = np.clip((50 - RADIUS) / 12, 0, 1).astype(np.float32)  # as a face weight does
HOLES = {
    "nothing": np.zeros_like(FACE),
    "middle": RADIUS < 20,
    "band to the border": np.abs(Y) < 15,
    "faded pixels": (FADING < 0.2) & (X > 0),
    "speckles": np.random.default_rng(0).random(FACE.shape) < 0.4,
    "all": np.ones_like(FACE),
}


@pytest.mark.parametrize("hole", HOLES.values(), ids=HOLES)
def test_filled_bump_is_the_hosts(device: Device, hole: Mask) -> None:
    bump, other = RIPPLES * FADING, RIPPLES[:, ::-1].copy()
    half = X > 3
    for borrowed in ((), (RIPPLES, np.ones_like(FACE)), (other, half)):
        got, _ = fill(device, bump, FADING, hole, *borrowed)
        np.testing.assert_allclose(got, fill_on_host(bump, FADING, hole, *borrowed), atol=SLACK)
        kept = ~hole | (FADING == 0)
        assert np.array_equal(got[kept], bump[kept])


def test_nothing_to_fill_takes_no_iteration(device: Device) -> None:
    for hole in (np.zeros_like(FACE), FADING == 0):
        got, iterations = fill(device, RIPPLES, FADING, hole, RIPPLES, FACE)
        assert iterations == 0
        assert np.array_equal(got, RIPPLES)


def test_unfaded_bump_is_the_hosts(device: Device) -> None:
    bump = np.where(FACE, RIPPLES * FADING, np.nan).astype(np.float32)
    out, known = device.empty(bump.shape), device.empty(bump.shape, "uint8")
    device.ops.unfade(*map(device.put, (bump, FADING, HOLES["middle"])), out, known, device.stream)
    want, where = unfade_on_host(bump, FADING, HOLES["middle"])
    np.testing.assert_array_equal(device.get(known, np.bool_), where)
    np.testing.assert_allclose(device.get(out), want, rtol=2e-7)  # of one division


@pytest.fixture(scope="module")
def real_holes(data_dir: Path) -> list[tuple[Any, ...]]:
    """Arguments that `fill_bump` gets for photos of covered faces."""
    seen: list[tuple[Any, ...]] = []

    def spy(*maps: Any, threads: int) -> Map:
        seen.append(maps)
        return fill_on_host(*maps, threads=threads)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reconstructor, "fill_bump", spy)
        reconstruct = Reconstructor(threads=1).reconstruct
        for name in ("00", "10", "22"):
            reconstruct(load_image(data_dir / "paper_photos" / f"{name}.jpg"))
    return seen


def test_real_holes_are_filled_as_on_the_host(
    device: Device, real_holes: list[tuple[Any, ...]]
) -> None:
    assert real_holes
    for maps in real_holes:
        for borrowed in (maps[3:], ()):
            got, iterations = fill(device, *maps[:3], *borrowed)
            np.testing.assert_allclose(got, fill_on_host(*maps[:3], *borrowed), atol=SLACK)
            assert 0 < iterations < 25


def test_maps_of_another_size_are_refused(device: Device) -> None:
    blender = device.ops.Blender(5, 4)
    good, mask = device.put(np.zeros((4, 5), np.float32)), device.put(np.zeros((4, 5), bool))
    wrong, status = device.put(np.zeros((5, 4), np.float32)), device.empty(2)
    with pytest.raises(ValueError, match=r"weight should have shape \(4, 5"):
        blender.fill_bump(good, wrong, mask, good, mask, good, status, device.stream)
    with pytest.raises(ValueError, match="should not be negative"):
        device.ops.Blender(-1, 4)
