"""train's descriptors: distances are ranked right."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "train"))
descriptors = importlib.import_module("descriptors")


def test_ranking_counts_pairs_in_order_and_half_of_the_ties() -> None:
    same, other = np.array([1.0, 3.0]), np.array([2.0, 3.0, 4.0])
    assert descriptors.ranking(same, other) == (3 + 1.5) / 6


def test_same_pairs_within_a_video_are_left_out_of_the_second_number() -> None:
    names = np.array([f"youtube_faces/{n}.jpg" for n in ("A_00", "A_01", "A_10", "B_B_00")])
    values = np.array([[0.0], [0.0], [3.0], [1.0]], np.float32)
    report = descriptors.told_apart(names, values)
    # same: 0 within a video, 3 and 3 between; other: 1, 1 and 2
    expected = {"persons": 2, "photos": 4, "auc": 1 / 3, "auc_other_video": 0.0}
    assert report == pytest.approx(expected)
