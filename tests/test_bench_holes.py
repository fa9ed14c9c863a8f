"""bench holes: fills are judged right where the answer is known, and take what they should."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from bench import fills, pasting, photos, sheet, stages
from bench.face_views import FaceView
from bench.tables import holes, timing
from extreme3d_fast.camera import Camera, rotation_from_angles
from extreme3d_fast.head_model import HeadModel

SIZE = 160
MM = 0.5  # per px
CAMERA = Camera(600 / MM, 600 / MM, SIZE / 2, SIZE / 2, SIZE, SIZE)
HOLE = np.zeros((SIZE, SIZE), bool)
HOLE[50:110, 40:120] = True
NOWHERE = np.zeros_like(HOLE)
EVERYWHERE = ~NOWHERE


def flat_view() -> FaceView:
    ones = np.ones((SIZE, SIZE), np.float32)
    image = np.full((SIZE, SIZE, 3), 128, np.uint8)
    return FaceView(image, ones, 600 * ones, CAMERA, np.eye(4), np.eye(3), EVERYWHERE)


def seen(bump: np.ndarray, hole: np.ndarray) -> fills.Seen:
    target = fills.Target(flat_view(), None, None)
    return fills.Seen(target, target.view.image, bump.astype(np.float32), hole, 0.0)


def relief(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(SIZE, SIZE)).astype(np.float32)
    return 3 * cv2.GaussianBlur(noise, (0, 0), 4)


# === Measures ===


def test_the_truth_is_without_fault() -> None:
    clean = seen(relief(), NOWHERE)
    found = holes.scores(relief(), clean, seen(0 * relief(), HOLE), HOLE)
    assert (found["rms"], found["seam"]) == (0, 0)
    assert found["fine"] == found["whole"] == pytest.approx(1, abs=1e-4)
    assert found["strength"] == pytest.approx(1, abs=1e-4)


def test_an_offset_is_an_error_but_no_other_relief() -> None:
    clean = seen(relief(), NOWHERE)
    found = holes.scores(relief() + np.float32(0.25), clean, seen(relief(), HOLE), HOLE)
    assert found["rms"] == pytest.approx(0.25, abs=1e-4)
    assert found["fine"] == pytest.approx(1, abs=1e-3)


def test_relief_the_wrong_way_round_correlates_negatively_and_anothers_hardly() -> None:
    clean, covered = seen(relief(), NOWHERE), seen(relief(), HOLE)
    assert holes.scores(-relief(), clean, covered, HOLE)["fine"] == pytest.approx(-1, abs=1e-3)
    assert abs(holes.scores(relief(1), clean, covered, HOLE)["fine"]) < 0.2


def test_relief_half_as_deep_is_half_as_strong() -> None:
    clean, covered = seen(relief(), NOWHERE), seen(relief(), HOLE)
    found = holes.scores(0.5 * relief(), clean, covered, HOLE)
    assert found["strength"] == pytest.approx(0.5, abs=1e-3)
    assert found["fine"] == pytest.approx(1, abs=1e-3)


def test_what_is_not_judged_has_no_say() -> None:
    clean = seen(relief(), NOWHERE)
    other = np.where(HOLE, relief(), 99)
    assert holes.scores(other, clean, seen(relief(), HOLE), HOLE)["rms"] == 0


def test_a_plane_has_no_fold_and_a_bend_and_a_step_have_theirs() -> None:
    x = np.tile(MM * np.arange(SIZE, dtype=np.float32), (SIZE, 1))
    right = np.zeros_like(HOLE)
    right[:, 80:] = True
    assert holes.folds(0.3 * x, right, EVERYWHERE, MM) == pytest.approx(0, abs=1e-4)
    bend = 0.3 * np.maximum(x - MM * 79, 0)  # at the last known pixel
    # of the two triples across the border one holds the bend
    assert holes.folds(bend, right, EVERYWHERE, MM) == pytest.approx(0.3 / np.sqrt(2), rel=1e-3)
    step = np.where(right, 0.2, 0).astype(np.float32)
    assert holes.folds(step, right, EVERYWHERE, MM) == pytest.approx(0.2 / MM, rel=1e-3)
    assert holes.folds(step.T, right.T, EVERYWHERE, MM) == pytest.approx(0.2 / MM, rel=1e-3)


def test_folds_count_at_borders_that_can_be_judged_alone() -> None:
    spikes = np.random.default_rng(0).normal(size=HOLE.shape)
    assert holes.folds(spikes, NOWHERE, EVERYWHERE, MM) == 0
    assert holes.folds(spikes, EVERYWHERE, EVERYWHERE, MM) == 0
    assert holes.folds(spikes, HOLE, HOLE, MM) == 0  # nothing usable beside the hole


def test_hidden_share_counts_weights() -> None:
    weight = np.array([[1.0, 1.0, 0.5, 0.5]])
    assert holes.hidden_share(np.array([[True, True, False, True]]), weight) == pytest.approx(1 / 6)
    assert holes.hidden_share(np.array([[True]]), np.zeros((1, 1))) == 1


def test_pictures_of_a_photo_count_as_one() -> None:
    def row(photo: str, fill: str, rms: float) -> dict[str, Any]:
        return {"photo": photo, "fill": fill, **dict.fromkeys(holes.MEASURES, 0.0), "rms": rms}

    rows = [row("a", fills.SMOOTH, v) for v in (1.0, 3.0)] + [row("b", fills.SMOOTH, 5.0)]
    rows += [row("a", fills.MEAN, v) for v in (0.5, 2.5)] + [row("b", fills.MEAN, 4.0)]
    found = holes.of_rows(rows, (fills.SMOOTH, fills.MEAN))
    assert (found[fills.SMOOTH]["rms"]["mean"], found[fills.SMOOTH]["rms"]["n"]) == (3.5, 2)
    assert found[fills.MEAN]["rms_gain"]["mean"] == -0.75
    assert found[fills.SMOOTH]["rms_gain"]["mean"] == 0


def test_yaws_take_turns() -> None:
    def photo(i: int, yaw: float) -> photos.Photo:
        r = rotation_from_angles(yaw)
        return photos.Photo(f"celebamask/{i}.jpg", Path(), np.zeros((468, 2)), r, r)

    order = holes.in_turn([photo(0, 1), photo(1, -2), photo(2, 3), photo(3, -25), photo(4, 15)])
    assert [p.name.split("/")[1][0] for p in order] == ["0", "4", "3", "1", "2"]


def test_table_prints_every_fill_and_says_what_is_missing() -> None:
    measures = {key: 0.5 for key in holes.MEASURES}
    rows = [{"photo": "celebamask/1.jpg", "fill": t, **measures} for t in fills.TITLES]
    conditions = {name: holes.of_rows(rows, fills.TITLES) for name in holes.CONDITIONS}
    nothing = {"median": None, "q1": None, "q3": None, "n": 0}
    report = {
        "photos": 1,
        "references": 0,
        "missing": {"references": "no set"},
        "conditions": conditions,
        "splits": {"yaw 0-10": holes.of_rows([], fills.TITLES)},
        "about": dict.fromkeys(holes.ABOUT, nothing),
    }
    text = "\n".join(holes.lines(report))
    for title in fills.TITLES:
        assert text.count(f" {title} ") >= len(conditions)
    assert "yaw" not in text  # of nothing there is nothing to say
    assert "without references: no set" in text


# === Pasting ===


@pytest.fixture(scope="module")
def cutouts(tmp_path_factory: pytest.TempPathFactory) -> pasting.Occluders:
    folder = tmp_path_factory.mktemp("occluders")
    piece = np.full((60, 120, 4), 255, np.uint8)
    piece[..., :3] = (10, 200, 30)
    for kind in pasting.KINDS:
        (folder / kind).mkdir()
        cv2.imwrite(str(folder / kind / "a.png"), piece)
    return pasting.Occluders(folder)


@pytest.mark.parametrize("share", holes.SHARES)
def test_hands_cover_a_share_of_the_face_itself(cutouts: pasting.Occluders, share: int) -> None:
    y, x = np.mgrid[:200, :200]
    face = np.hypot(x - 100, y - 100) < 60
    hands = {kind: float(kind == "hands") for kind in pasting.KINDS}
    image = np.full((200, 200, 3), 128, np.uint8)
    rng = np.random.default_rng(share)
    _, by = cutouts.paste(image, (40, 40, 160, 160), share / 100, rng, kinds=hands, face=face)
    assert np.mean(by[face] > 0) == pytest.approx(share / 100, abs=2 * pasting.TOLERANCE)
    assert set(np.unique(by)) == {0, 1 + list(pasting.KINDS).index("hands")}


@pytest.mark.parametrize("kind", holes.WORN)
def test_worn_things_have_their_own_size_and_place(cutouts: pasting.Occluders, kind: str) -> None:
    image = np.full((200, 200, 3), 128, np.uint8)
    picture, covered = cutouts.wear(image, (50, 20, 150, 180), kind, np.random.default_rng(0))
    rows, columns = (np.flatnonzero(covered.any(axis)) for axis in (1, 0))
    width, at = pasting.WORN[kind]
    assert np.ptp(columns) + 1 == pytest.approx(100 * width, abs=2)
    assert (rows[0] + rows[-1] + 1) / 2 == pytest.approx(20 + 160 * at, abs=1.5)
    assert (picture[~cv2.dilate(covered.view(np.uint8), np.ones((5, 5))).view(bool)] == 128).all()


# === Fills ===

MODEL = HeadModel.load()
POSE = np.eye(4, dtype=np.float32)
POSE[:3, :3], POSE[:3, 3] = rotation_from_angles(0), (0, 0, 900)
NEUTRAL = SimpleNamespace(
    identity=np.zeros(MODEL.n_identity, np.float32),
    expression=np.zeros(MODEL.n_expression, np.float32),
    camera_from_head=POSE,
)
CROP = Camera(1620, 1620, 250, 250, 500, 500)
SKIN = MODEL.vertices()[: MODEL.skin_vertex_count]


@pytest.fixture(scope="module")
def frontal() -> fills.Target:
    view = FaceView(
        np.full((500, 500, 3), 128, np.uint8),
        np.zeros((500, 500), np.float32),
        np.full((500, 500), np.inf, np.float32),
        CROP,
        POSE.astype(np.float64),
        np.eye(3),
        np.ones((500, 500), bool),
    )
    target = fills.Target(view, MODEL, NEUTRAL)
    weight = target.at_pixels(MODEL.face_weight)
    return fills.Target(replace(view, weight=weight, depth=target.raster.depth), MODEL, NEUTRAL)


def test_mirrored_half_lends_the_other_sides_relief(frontal: fills.Target) -> None:
    weight = frontal.view.weight
    waves = np.cos(np.abs(SKIN[:, 0]) / 6) + np.sin(SKIN[:, 1] / 5)  # left as right
    unfaded = frontal.at_pixels(waves)
    hole = np.zeros_like(weight, bool)
    hole[200:300, 150:225] = True  # on one side of the nose
    bump = np.where(hole, 9, unfaded * weight).astype(np.float32)
    bump_there, valid = fills.mirrored_half(
        fills.Seen(frontal, frontal.view.image, bump, hole, 0.1)
    )
    judged = hole & (weight > 0.5)
    assert valid[judged].mean() > 0.8  # not where the nose hides its own other side
    np.testing.assert_allclose(bump_there[judged & valid], unfaded[judged & valid], atol=0.1)
    opposite = np.zeros_like(hole)
    opposite[230:270, 290:340] = True  # its mirror image is in the hole
    assert not valid[opposite].any()


def test_lent_relief_is_blended_into_the_hole_alone() -> None:
    covered = seen(np.where(HOLE, 9, relief()), HOLE)
    found = fills.filled(covered, (relief(), EVERYWHERE))
    np.testing.assert_allclose(found, relief(), atol=5e-3)  # the solver's tolerance
    smooth = fills.filled(covered, None)
    assert np.array_equal(smooth[~HOLE], relief()[~HOLE])
    assert np.abs(smooth[HOLE]).max() <= np.abs(relief()[~HOLE]).max()


# === Times ===


def test_section_4_2_is_that_of_photos_filled_from_a_reference() -> None:
    filling = {"holes": 1.0, "identity": 20.0, "search": 0.5, "transfer": 8.0, "fill": 4.0}
    runs = [
        {"detect": 9.0, "holes": 1.0, "zipper": 1.0, "total": 11.0},
        {"detect": 9.0, "holes": 1.0, "fill": 2.0, "zipper": 1.0, "total": 13.0},
        {"detect": 9.0, **filling, "zipper": 1.0, "total": 43.5},
    ]
    found = stages.summarize(runs)
    assert [found["section 4.2"][key] for key in ("p50", "p95", "n")] == [33.5, 33.5, 1]
    assert (found["fill"]["n"], found["holes"]["n"]) == (2, 3)
    # in the order of the pipeline, whichever photo came first
    assert list(found) == ["detect", *filling, "zipper", "section 4.2", "section 4.3", "total"]
    assert "section 4.2" not in stages.summarize(runs[:2])


def test_every_stage_of_section_4_2_is_timed_by_the_reconstructor() -> None:
    package = stages.machine.REPOSITORY / "python" / "extreme3d_fast"
    source = "".join((package / f).read_text() for f in ("reconstructor.py", "similar_faces.py"))
    for stage in stages.SECTION_4_2:
        assert f'"{stage}"' in source, stage


def test_times_of_covered_photos_leave_out_the_first_run() -> None:
    class Timed:
        calls = 0

        def reconstruct(self, _: np.ndarray) -> Any:
            self.calls += 1
            timings = {"detect": 1.0, "holes": 1.0, "fill": float(self.calls)}
            if self.calls != 2:
                timings |= {"identity": 2.0, "search": 1.0, "transfer": 3.0}
            return SimpleNamespace(timings=timings)

    found = timing.of_occlusion(Timed(), [np.zeros((4, 4, 3), np.uint8)] * 2)
    assert found == [
        {"holes": 1.0, "fill": 2.0},
        {"holes": 1.0, "identity": 2.0, "search": 1.0, "transfer": 3.0, "fill": 3.0, "whole": 10.0},
    ]


# === Sheet ===


def test_tint_is_half_of_the_colour_where_it_is_asked_for() -> None:
    image = np.full((4, 4, 3), 100, np.uint8)
    where = np.eye(4, dtype=bool)
    found = sheet.tinted(image, where, (200, 0, 50))
    assert (found[where] == (150, 50, 75)).all()
    assert (found[~where] == 100).all()
