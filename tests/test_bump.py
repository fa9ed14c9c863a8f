"""The shading rule finds relief of the right sign and nothing else; the 8-bit code is exact."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from research_data import DATA

from extreme3d_fast.bump import (
    MAX_BUMP,
    authors_map_from_bump,
    bump_from_authors_map,
    decode_bump,
    encode_bump,
    estimate_bump,
)
from extreme3d_fast.camera import Camera

SIZE = 320
CAMERA = Camera(1000.0, 1000.0, SIZE / 2, SIZE / 2, SIZE, SIZE)
DEPTH = 600.0
MM = DEPTH / CAMERA.fx  # one pixel on the face, mm
Y, X = (np.mgrid[:SIZE, :SIZE] + 0.5 - SIZE / 2) * MM
RADIUS = 80.0


def srgb(linear):
    code = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.clip(np.rint(code * 255), 0, 255).astype(np.uint8)


def face(displacement=None, light=(0.0, 0.0, -1.0), ambient=0.3, albedo=0.35):
    """Rendered ball-like face of radius 80 mm: image, weight, depth of the foundation."""
    r = np.hypot(X, Y)
    bulge = 0.004 * (X**2 + Y**2)
    depth = np.where(r < RADIUS, DEPTH + bulge, np.inf).astype(np.float32)
    z = bulge + (0 if displacement is None else displacement)
    zy, zx = np.gradient(z, MM)
    n = 1 / np.sqrt(1 + zx**2 + zy**2)
    lx, ly, lz = np.array(light) / np.linalg.norm(light)
    shade = ambient + (1 - ambient) * np.clip((zx * lx + zy * ly - lz) * n, 0, None)
    grey = srgb(albedo * shade)
    t = np.clip((RADIUS - r) / 12, 0, 1)
    weight = (t * t * (3 - 2 * t)).astype(np.float32)
    return np.dstack([grey] * 3), weight, depth


def groove(wavelength=8.0, amplitude=0.3):
    """Ridges along y under a smooth window, mm, positive = deeper."""
    window = np.exp(-(X**2 + Y**2) / (2 * 25.0**2))
    return amplitude * window * np.sin(2 * np.pi * X / wavelength)


def correlation(a, b, weight):
    inside = weight > 0.9
    return np.corrcoef(a[inside], b[inside])[0, 1]


def test_zero_displacement_is_level_127():
    assert encode_bump(np.zeros((2, 3))).tolist() == [[127] * 3] * 2
    assert decode_bump(np.full(2, 127, np.uint8)).tolist() == [0.0, 0.0]


def test_twelve_levels_are_one_and_a_quarter_millimetres_nearer():
    assert encode_bump([-1.25, 1.25]).tolist() == [139, 115]


def test_codes_survive_a_round_trip():
    codes = np.arange(256, dtype=np.uint8)
    assert np.array_equal(encode_bump(decode_bump(codes)), codes)


@given(arrays(np.float32, 9, elements=st.floats(-13.25, 13.125, width=32)))
def test_millimetres_survive_within_half_a_level(mm):
    half = 0.5 * 1.25 / 12
    assert np.abs(decode_bump(encode_bump(mm)) - mm).max() <= half + 1e-5  # float32 rounding


def test_displacements_beyond_the_code_are_clipped():
    assert encode_bump([-np.inf, -50, 50, np.inf]).tolist() == [255, 255, 0, 0]


def test_authors_map_is_offset_by_six_pixels():
    bump = np.zeros((500, 500), np.float32)
    bump[10, 20] = -1.25
    levels = authors_map_from_bump(bump)
    assert levels.shape == (512, 512)
    assert levels[16, 26] == 139
    assert np.array_equal(bump_from_authors_map(levels), bump)


@pytest.mark.data
def test_code_has_the_sign_of_the_authors_release():
    run = DATA / "reference_run" / "paper_photo_07.npz"
    if not run.exists():
        pytest.skip("research data not found: set EXTREME3D_DATA")
    with np.load(run, allow_pickle=False) as stages:
        before, after = stages["z_foundation"], stages["z_detail"]
    levels = cv2.imread(str(DATA / "paper_photos" / "07_bump_filled.png"), cv2.IMREAD_GRAYSCALE)
    moved = np.isfinite(before) & np.isfinite(after) & (before != after)
    # Their z axis points backwards: depth is -z.
    np.testing.assert_allclose(
        bump_from_authors_map(levels)[moved], (before - after)[moved], atol=1e-3
    )


@pytest.mark.parametrize("bad", [[np.nan], ["a"], [1j]])
def test_encoding_refuses_what_is_not_a_number(bad):
    with pytest.raises((TypeError, ValueError), match="bump"):
        encode_bump(bad)


def test_decoding_refuses_other_types_than_uint8():
    with pytest.raises(TypeError, match="uint8"):
        decode_bump(np.zeros(3, np.float32))


def test_evenly_coloured_image_gives_no_bump():
    _, weight, depth = face()
    image = np.full((SIZE, SIZE, 3), 140, np.uint8)
    assert np.abs(estimate_bump(image, weight, depth, CAMERA)).max() < 1e-3


@pytest.mark.parametrize("light", [(0, 0, -1), (-1, -0.5, -1), (1.2, -0.4, -1)])
def test_shading_of_the_foundation_gives_no_bump(light):
    image, weight, depth = face(light=light)
    bump = estimate_bump(image, weight, depth, CAMERA)
    # 8-bit rounding is left: its noise is what the finest band sees.
    assert np.abs(bump[weight > 0.9]).max() < 0.1
    assert bump[weight > 0.9].std() < 0.02


def test_dark_line_is_a_hollow():
    image, weight, depth = face()
    line = np.exp(-(X**2) / (2 * 1.0**2)) * (np.abs(Y) < 30)
    image = np.clip(image * (1 - 0.15 * line[..., None]), 0, 255).astype(np.uint8)
    bump = estimate_bump(image, weight, depth, CAMERA)
    centre = bump[SIZE // 2, SIZE // 2 - 1 : SIZE // 2 + 1].mean()
    assert 0.1 < centre < 1.5
    assert centre == pytest.approx(bump.max(), rel=0.3)


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_shaded_groove_is_found_whichever_side_the_light_is_on(side):
    truth = groove()
    image, weight, depth = face(truth, light=(side, 0, -1))
    bump = estimate_bump(image, weight, depth, CAMERA)
    # Slopes alone leave the ambient term unsatisfied: the filter's phase costs cos = t / √(t²+a²).
    assert correlation(bump, truth, weight) > 0.7
    assert 0.3 < bump[weight > 0.9].std() / truth[weight > 0.9].std() < 2.0


@given(st.floats(0.35, 1.0))
def test_exposure_does_not_matter(exposure):
    truth = groove()
    image, weight, depth = face(truth, light=(1, 0, -1), albedo=0.6)
    darker, _, _ = face(truth, light=(1, 0, -1), albedo=0.6 * exposure)
    a = estimate_bump(image, weight, depth, CAMERA)
    b = estimate_bump(darker, weight, depth, CAMERA)
    # Equal but for 8-bit rounding and the floor under the logarithm.
    assert (a - b).std() < 0.15 * a.std()


def test_mirrored_photo_gives_the_mirrored_bump():
    truth = groove() + 0.2 * np.exp(-((X - 20) ** 2 + (Y + 15) ** 2) / 8)
    image, weight, depth = face(truth, light=(1, -0.5, -1))
    bump = estimate_bump(image, weight, depth, CAMERA)
    mirrored = estimate_bump(
        np.ascontiguousarray(image[:, ::-1]), weight[:, ::-1], depth[:, ::-1], CAMERA
    )
    # The light is fitted on every fourth pixel, which a mirror image shifts.
    assert np.abs(mirrored[:, ::-1] - bump).max() < 0.02


def test_noise_gives_hardly_any_bump():
    image, weight, depth = face(light=(-1, -1, -2))
    noise = np.random.default_rng(1).normal(0, 4, image.shape[:2])
    noisy = np.clip(image + noise[..., None], 0, 255).astype(np.uint8)
    bump = estimate_bump(noisy, weight, depth, CAMERA)
    assert bump[weight > 0.9].std() < 0.05


def test_bump_is_bounded_and_fades_with_the_weight():
    rng = np.random.default_rng(2)
    _, weight, depth = face()
    image = cv2.GaussianBlur(rng.integers(0, 2, (SIZE, SIZE, 3)) * 255.0, (0, 0), 3)
    image = np.clip((image - 128) * 8 + 128, 0, 255).astype(np.uint8)
    bump = estimate_bump(image, weight, depth, CAMERA, strength=50)
    assert bump.dtype == np.float32
    assert np.abs(bump).max() <= MAX_BUMP
    assert (np.abs(bump) <= MAX_BUMP * weight + 1e-6).all()


def test_occluder_leaves_no_trace_where_the_mask_rejects_it():
    truth = groove()
    image, weight, depth = face(truth, light=(1, 0, -1))
    bar = (np.abs(Y + 30) < 6) & (np.abs(X) < 40)
    covered = image.copy()
    covered[bar] = (20, 20, 30)
    grown = cv2.dilate(bar.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    clean = estimate_bump(image, weight, depth, CAMERA, ~grown)
    masked = estimate_bump(covered, weight, depth, CAMERA, ~grown)
    # Brightness is lightly smoothed before the light is fitted: a trace of the bar's edge.
    assert np.abs(masked - clean).max() < 1e-3


def test_padding_outside_the_photo_makes_no_cliff():
    image, weight, depth = face()
    image[:, : SIZE // 3] = 0
    bump = estimate_bump(image, weight, depth, CAMERA)
    assert np.abs(bump).max() < 0.1


def test_resolution_of_the_crop_hardly_matters():
    truth = groove(wavelength=12.0)
    image, weight, depth = face(truth, light=(1, 0, -1))
    half = (SIZE // 2, SIZE // 2)
    bump = estimate_bump(image, weight, depth, CAMERA)
    small = estimate_bump(
        cv2.resize(image, half, interpolation=cv2.INTER_AREA),
        cv2.resize(weight, half, interpolation=cv2.INTER_AREA),
        np.ascontiguousarray(depth[::2, ::2]),
        Camera(500.0, 500.0, SIZE / 4, SIZE / 4, *half),
    )
    inside = cv2.resize(weight, half, interpolation=cv2.INTER_AREA) > 0.9
    large = cv2.resize(bump, half, interpolation=cv2.INTER_AREA)
    assert np.corrcoef(small[inside], large[inside])[0, 1] > 0.97
    assert small[inside].std() == pytest.approx(large[inside].std(), rel=0.25)


def test_no_face_gives_an_empty_map():
    image = np.zeros((40, 50, 3), np.uint8)
    bump = estimate_bump(image, np.zeros((40, 50)), np.full((40, 50), np.inf), CAMERA)
    assert bump.shape == (40, 50)
    assert not bump.any()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"image": np.zeros((SIZE, SIZE, 3))}, TypeError),
        ({"image": np.zeros((SIZE, SIZE), np.uint8)}, ValueError),
        ({"weight": np.zeros((SIZE, SIZE - 1))}, ValueError),
        ({"weight": np.full((SIZE, SIZE), 1.5)}, ValueError),
        ({"weight": np.full((SIZE, SIZE), np.nan)}, ValueError),
        ({"depth": np.full((SIZE, SIZE), np.nan)}, ValueError),
        ({"depth": np.zeros((SIZE, SIZE))}, ValueError),
        ({"face_mask": np.zeros((SIZE, SIZE))}, TypeError),
        ({"face_mask": np.zeros((3, 3), bool)}, ValueError),
        ({"strength": -1.0}, ValueError),
    ],
)
def test_bad_input_is_refused_by_name(change, error):
    image, weight, depth = face()
    good = {"image": image, "weight": weight, "depth": depth, "camera": CAMERA}
    with pytest.raises(error, match=next(iter(change))):
        estimate_bump(**{**good, **change})
