"""The 8-bit code of bump maps is exact, in the sign and place of the authors' files."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from research_data import DATA

from extreme3d_fast.bump import (
    authors_map_from_bump,
    bump_from_authors_map,
    decode_bump,
    encode_bump,
)


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
