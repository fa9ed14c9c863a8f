"""build_references: which faces of many are chosen, and what makes a part stale."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from synthetic_references import write_reference_set

from extreme3d_fast.camera import rotation_from_angles
from extreme3d_fast.references import ReferenceSet, _quaternion

TRAIN = Path(__file__).parents[1] / "train"
if not (TRAIN / "build_references.py").exists():
    pytest.skip("the training scripts are not here", allow_module_level=True)
sys.path.insert(0, str(TRAIN))
import build_references as br  # noqa: E402


class Faces:
    """Made-up candidates: viewpoints, features and entries."""

    def __init__(self, angles, rng, person=None, age=None, face_px=None, roughness=None) -> None:
        n = len(angles)
        self.yaw_pitch = np.asarray(angles, float)
        self.viewpoints = np.array([_quaternion(rotation_from_angles(*a)) for a in angles])
        self.descriptors = rng.normal(size=(n, 128))
        zero, one = np.zeros(n), np.ones(n)
        self.entries = br.Entries(
            [f"celebamask/{i}.jpg" for i in range(n)],
            person or [str(i) for i in range(n)],
            np.full(n, np.nan) if age is None else np.asarray(age, float),
            {
                "face_px": 300 * one if face_px is None else np.asarray(face_px, float),
                "sharpness": one,
                "hidden": zero,
                "outside": zero,
                "roughness": 0.2 * one if roughness is None else np.asarray(roughness, float),
            },
        )

    def choose(self, count: int) -> list[int]:
        inputs = self.viewpoints, self.yaw_pitch, self.descriptors, self.entries
        return br.choose(*inputs, count).tolist()


def test_rare_views_are_kept_before_common_ones_vary(rng):
    faces = Faces([(0, 0)] * 60 + [(60, 0)] * 2 + [(-40, 20)], rng)
    chosen = faces.choose(20)
    assert len(chosen) == 20
    assert {60, 61, 62} <= set(chosen)


def test_mirrored_views_are_one():
    angles = [(30, 3), (-30, 3)]
    assert len(set(br.view_bins(np.array(angles, float)))) == 1


def test_person_comes_once_a_view(rng):
    faces = Faces([(20, 0), (21, 0), (-20, 0), (70, 0)], rng, person=["a"] * 4)
    assert len(faces.choose(4)) == 2
    assert 3 in faces.choose(4)


def test_unnamed_person_is_known_by_the_descriptor(rng):
    faces = Faces([(20, 0), (20, 1)], rng)
    faces.descriptors[1] = 1.3 * faces.descriptors[0] + 0.01 * rng.normal(size=128)
    assert len(faces.choose(2)) == 1


def test_larger_photo_is_taken_first(rng):
    faces = Faces([(0, 0)] * 3, rng, face_px=[120, 240, 130])
    assert faces.choose(1) == [1]


def test_ages_and_relief_are_spread(rng):
    same = rng.normal(size=128)
    faces = Faces(
        [(0, 0)] * 40, rng, age=[30] * 38 + [85, 5], roughness=[0.2] * 37 + [0.4] + [0.2] * 2
    )
    other = rng.normal(size=(40, 128))
    faces.descriptors = same + 0.6 * other  # all alike, none the same person
    chosen = set(faces.choose(6))
    assert {37, 38, 39} <= chosen


def test_part_is_stale_when_what_made_it_changes(tmp_path):
    assert not br.is_done(tmp_path, 0, ["a"], "x")
    log = {"stamp": "x", "photos": ["a"], "taken": [], "tally": {}}
    (tmp_path / "part_000.json").write_text(json.dumps(log))
    assert br.is_done(tmp_path, 0, ["a"], "x")
    assert not br.is_done(tmp_path, 0, ["a"], "y")
    assert not br.is_done(tmp_path, 0, ["a", "b"], "x")


def test_chosen_faces_come_from_their_parts_as_they_are(tmp_path):
    write_reference_set(tmp_path / "a.npz", 3, seed=1)
    write_reference_set(tmp_path / "b.npz", 2, seed=2)
    parts = [ReferenceSet.load(tmp_path / f"{name}.npz") for name in "ab"]
    faces = [(part, i) for part in parts for i in range(len(part))]
    br.write_chosen(faces, [1, 4], tmp_path / "c.npz")
    chosen = ReferenceSet.load(tmp_path / "c.npz")
    assert len(chosen) == 2
    for k, (part, i) in enumerate((faces[1], faces[4])):
        np.testing.assert_array_equal(chosen.face(k).bump, part.face(i).bump)
        np.testing.assert_array_equal(chosen.descriptors[k], part.descriptors[i])


def test_other_head_models_are_not_mixed(tmp_path):
    write_reference_set(tmp_path / "a.npz", 1)
    write_reference_set(tmp_path / "b.npz", 1, head_model="other")
    faces = [(ReferenceSet.load(tmp_path / f"{name}.npz"), 0) for name in "ab"]
    with pytest.raises(ValueError, match="head model"):
        br.write_chosen(faces, [0, 1], tmp_path / "c.npz")


def test_held_out_persons_are_left_out(data_dir):
    names = br.photos(data_dir / "photos", 0)
    assert {name.split("/")[0] for name in names} == set(br.FOLDERS)
    assert not any(br.is_held_out(br.person_of(name)) for name in names)
    assert br.age_of("utkface/61_0_1_2017.jpg") == 61
    assert np.isnan(br.age_of("celebamask/61.jpg"))


def test_parts_of_another_chart_are_stale(monkeypatch, tmp_path):
    before = br.stamp()
    changed = tmp_path / "face_chart.py"
    changed.write_text("_PX_PER_RADIAN = 120.0")
    monkeypatch.setattr(br.face_chart, "__file__", str(changed))
    assert br.stamp() != before
