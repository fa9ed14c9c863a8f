"""bench quality: relief, normals, maps and masks are judged right where the answer is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from bench import authors_maps, bands, details, face_views, mask_labels, pasting, sheet, stats
from bench import relief as measures
from bench.tables import authors, mask, relief, scan_relief
from extreme3d_fast import Reconstructor
from extreme3d_fast.camera import Camera
from extreme3d_fast.head_model import HeadModel
from extreme3d_fast.photo_network import HostNetworks

Rng = np.random.Generator
SIZE = 160
MM = 0.5  # per px
DISTANCE = 600.0
CAMERA = Camera(DISTANCE / MM, DISTANCE / MM, SIZE / 2, SIZE / 2, SIZE, SIZE)


def plane(slope: float = 0.0) -> np.ndarray:
    """(SIZE, SIZE) depth of a plane that falls away to the right by `slope` mm a mm."""
    x = (np.arange(SIZE) + 0.5 - CAMERA.cx) / CAMERA.fx
    z = DISTANCE / (1 - slope * x)
    return np.tile(z.astype(np.float32), (SIZE, 1))


def view_of(depth: np.ndarray, image: np.ndarray | None = None) -> face_views.FaceView:
    seen = np.isfinite(depth)
    size = len(depth)
    return face_views.FaceView(
        np.full((size, size, 3), 128, np.uint8) if image is None else image,
        seen.astype(np.float32),
        depth.astype(np.float32),
        CAMERA,
        np.eye(4),
        np.eye(3),
        np.ones((size, size), bool),
    )


def wave(length: float, amplitude: float = 0.5) -> np.ndarray:
    """Waves of so many mm across."""
    x = MM * np.arange(SIZE)
    return np.tile(amplitude * np.sin(2 * np.pi * x / length), (SIZE, 1)).astype(np.float32)


EVERYWHERE = np.ones((SIZE, SIZE), bool)
MIDDLE = np.zeros((SIZE, SIZE), bool)
MIDDLE[40:-40, 40:-40] = True


# === Bands ===


@pytest.mark.parametrize("length", [4.0, 10.0, 20.0])
def test_band_halves_waves_at_its_ends(length: float) -> None:
    a = wave(length)
    below = bands.band_pass(a, EVERYWHERE, MM, 0, length)
    np.testing.assert_allclose(below[MIDDLE], 0.5 * a[MIDDLE], atol=0.01)


def test_band_keeps_its_own_waves_and_drops_others() -> None:
    for length, kept in ((6.0, 0.95), (0.5 * MM * SIZE, 0.1)):
        a = wave(length)
        found = bands.band_pass(a, EVERYWHERE, MM, 2.0, 15.0)
        share = np.linalg.norm(found[MIDDLE]) / np.linalg.norm(a[MIDDLE])
        assert (share > kept - 0.1) if kept > 0.5 else (share < kept)


def test_average_knows_only_what_lies_inside(rng: Rng) -> None:
    a = rng.normal(size=(SIZE, SIZE)).astype(np.float32)
    wild = np.where(MIDDLE, a, 1e4)
    for sigma in (0.0, 3.0, float("inf")):
        found = bands.average(wild, MIDDLE, sigma)
        np.testing.assert_array_equal(found, bands.average(a, MIDDLE, sigma))
        assert (found[~MIDDLE] == 0).all()
    assert bands.average(a, MIDDLE, float("inf"))[80, 80] == pytest.approx(a[MIDDLE].mean())
    np.testing.assert_allclose(bands.average(np.full_like(a, 7), MIDDLE, 5.0)[MIDDLE], 7, rtol=1e-5)


def test_relief_of_a_constant_is_none() -> None:
    assert np.abs(bands.relief_band(np.full((SIZE, SIZE), 3.0), MIDDLE, MM)).max() < 1e-5


# === Normals ===


@pytest.mark.parametrize("slope", [-0.5, 0.0, 0.3])
def test_normals_of_a_tilted_plane(slope: float) -> None:
    found = measures.normals_of_depth(plane(slope), CAMERA)[1:-1, 1:-1]
    expected = np.array([slope, 0, -1]) / np.hypot(slope, 1)
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=1e-4)


def test_angle_to_a_tilted_plane_is_its_tilt() -> None:
    tilted = measures.normals_of_depth(plane(np.tan(np.radians(10))), CAMERA)
    error = measures.angle_error(view_of(plane()), np.zeros((SIZE, SIZE)), tilted, MIDDLE)
    assert error == pytest.approx(10, abs=0.01)


def test_angles_are_exact_when_they_are_small() -> None:
    a = np.array([0.0, 0, -1])
    b = np.array([np.sin(1e-4), 0, -np.cos(1e-4)])
    assert measures.angles(a, b) == pytest.approx(np.degrees(1e-4))
    assert measures.angles(a, -a) == pytest.approx(180)


def test_cliffs_are_steps_and_borders() -> None:
    depth = plane()
    depth[:, 80:] += 10
    depth[:, :20] = np.inf
    found = measures.cliffs(depth, MM)
    assert set(np.flatnonzero(found[60])) == {*range(21), 79, 80}


def test_true_relief_leaves_no_error() -> None:
    relief_mm = wave(12.0, 0.4)
    foundation = plane(0.2)
    view = view_of(foundation)
    truth = measures.truth_in_crop(view, foundation + relief_mm, CAMERA)
    apart = truth.gap - relief_mm  # where the face is as a whole has no say
    assert np.ptp(apart[MIDDLE]) < 0.02
    assert measures.angle_error(view, truth.gap, truth.normal, MIDDLE) < 0.1
    assert measures.angle_error(view, 0 * truth.gap, truth.normal, MIDDLE) > 5
    np.testing.assert_allclose(truth.relief()[MIDDLE], relief_mm[MIDDLE], atol=0.02)


def test_truth_of_another_scale_and_place_is_the_same() -> None:
    """A photo of twice the pixels, turned by 90 degrees, from a face half as large again."""
    relief_mm = wave(12.0, 0.4)
    straight = measures.truth_in_crop(view_of(plane()), plane() + relief_mm, CAMERA)
    # image (x, y) -> crop: a quarter turn about the middle
    turn = np.array([[0.0, 1, 0], [-1, 0, SIZE], [0, 0, 1]])
    turned = np.rot90(plane() + relief_mm, -1)
    view = replace(view_of(plane()), crop_from_image=turn)
    for factor in (1.0, 1.5):
        # a larger face further away looks the same
        found = measures.truth_in_crop(view, factor * turned, CAMERA)
        inner = MIDDLE & found.known
        assert np.ptp((found.gap - straight.gap)[inner]) < 0.02
        np.testing.assert_allclose(found.normal[inner], straight.normal[inner], atol=1e-3)
        assert found.own_scale == pytest.approx(1 / factor, rel=1e-3)


def test_given_normals_turn_with_the_photo() -> None:
    turn = np.array([[0.0, 1, 0], [-1, 0, SIZE], [0, 0, 1]])
    view = replace(view_of(plane()), crop_from_image=turn)
    photo_depth = np.rot90(plane(0.3), -1)
    normals = measures.normals_of_depth(photo_depth, CAMERA)
    given = measures.truth_in_crop(view, photo_depth, CAMERA, normals)
    own = measures.truth_in_crop(view, photo_depth, CAMERA)
    both = MIDDLE & given.known & own.known
    assert both.sum() > 1000
    np.testing.assert_allclose(given.normal[both], own.normal[both], atol=1e-3)


def test_maps_come_into_the_crop_in_place() -> None:
    y, x = np.mgrid[:80, :100].astype(np.float32) + 0.5
    values = 2 * x - 3 * y
    values[:, 90:] = np.nan
    crop_from_image = np.array([[2.0, 0, -10], [0, 2, -20], [0, 0, 1]])
    found = face_views.into_crop(values, crop_from_image, 120)
    v, u = np.mgrid[:120, :120] + 0.5
    expected = 2 * (u + 10) / 2 - 3 * (v + 20) / 2
    seen = np.isfinite(found)
    np.testing.assert_allclose(found[seen], expected[seen], atol=0.1)
    assert seen[:, : 2 * 89 - 12].all()
    small = face_views.into_crop(values, np.diag([0.25, 0.25, 1.0]), 20)
    assert small[5, 5] == pytest.approx(2 * 22 - 3 * 22, abs=0.1)


# === Correlation ===


def test_a_map_correlates_with_itself_whatever_its_scale(rng: Rng) -> None:
    a = cv2.GaussianBlur(rng.normal(size=(SIZE, SIZE)).astype(np.float32), (0, 0), 3)
    for other, expected in ((a, 1), (3 * a + 5, 1), (-a, -1)):
        assert authors_maps.correlation(a, other, MIDDLE, MM) == pytest.approx(expected, abs=1e-5)
    other = np.where(MIDDLE, a, 100)  # what is not valid has no say
    assert authors_maps.correlation(a, other, MIDDLE, MM) == pytest.approx(1, abs=1e-5)


def test_correlation_is_of_the_band_alone() -> None:
    short, long = wave(6.0), wave(60.0, 1.0)
    assert authors_maps.correlation(short + long, short, MIDDLE, MM) > 0.9
    assert authors_maps.correlation(short + long, short, MIDDLE, MM, 0, float("inf")) < 0.8


def test_few_pixels_have_no_correlation() -> None:
    few = np.zeros_like(MIDDLE)
    few[:10, :10] = True
    assert np.isnan(authors_maps.correlation(wave(6), wave(6), few, MM))


def test_filled_is_what_no_smooth_change_explains() -> None:
    levels = np.full((100, 100), 140, np.uint8)
    filled = levels + np.linspace(0, 20, 100).astype(np.uint8)[:, None]
    assert not authors_maps.was_filled(levels, filled).any()
    filled[40:60, 40:60] -= 30
    found = authors_maps.was_filled(levels, filled)
    assert found[40, 40:60].all()
    assert not found[:30].any()


# === Sources and tables ===


class Fixed:
    """A source that says the same of every view."""

    def __init__(self, bump: np.ndarray) -> None:
        self.bump = bump

    def __call__(self, view: Any) -> details.Detail:
        del view
        return details.Detail(self.bump, None)


def test_relief_errors_vanish_for_the_truth_and_are_the_amplitude_without() -> None:
    put_on = wave(12.0, 0.4)
    view = view_of(plane())
    truth = measures.truth_in_crop(view, plane() + put_on, CAMERA)
    truth = replace(truth, judged=MIDDLE & truth.judged)
    flat = np.zeros_like(put_on)
    exact = relief.errors(view, put_on, truth, view, put_on, truth)
    none = relief.errors(view, flat, truth, view, flat, truth)
    for key in ("relief put on", "gap in the band"):
        assert exact["rms_mm"][key] < 0.02
        assert none["rms_mm"][key] == pytest.approx(0.4 / np.sqrt(2), rel=0.05)
    for key in relief.TRUTHS:
        assert exact["angle"][key] < 0.3
        assert none["angle"][key] > 5


def test_on_its_own_foundation_a_head_lacks_its_relief() -> None:
    put_on = wave(12.0, 0.4)
    head = relief.Head(
        *[np.zeros((SIZE, SIZE, 3), np.uint8)] * 3,
        plane(0.3) + put_on,
        plane(0.3),
        EVERYWHERE,
        CAMERA,
        0.0,
    )
    view = view_of(plane())  # a foundation in another pose
    own = relief.on_own_foundation(head, view)
    found = measures.truth_in_crop(own, head.depth, CAMERA).relief()
    np.testing.assert_allclose(found[MIDDLE], put_on[MIDDLE], atol=0.02)
    other = measures.truth_in_crop(view, head.depth, CAMERA).relief()
    assert np.abs(other[MIDDLE] - put_on[MIDDLE]).max() > 0.03


def test_leak_is_what_a_pattern_changes() -> None:
    def reads_brightness(view: face_views.FaceView) -> details.Detail:
        return details.Detail(view.image[..., 0].astype(np.float32) / 100, None)

    def head_with(pattern: np.ndarray) -> relief.Head:
        return relief.Head(*[pattern] * 3, plane(), plane(), EVERYWHERE, CAMERA, 0.0)

    pattern = np.full((SIZE, SIZE, 3), 128, np.uint8)
    pattern[:, ::8] = 28
    plain = view_of(plane())
    assert relief.leak(Fixed(wave(5)), plain, head_with(pattern)) == 0
    x = np.arange(SIZE) % 8 == 0
    expected = np.std(x.astype(float))
    assert relief.leak(reads_brightness, plain, head_with(pattern)) == pytest.approx(
        expected, rel=0.02
    )
    assert relief.leak(reads_brightness, plain, head_with(plain.image)) == 0


def test_relief_table_sums_up_by_yaw() -> None:
    def record(yaw: int, angle: float, leak: float) -> dict[str, Any]:
        def column(a: float, leaked: float) -> dict[str, Any]:
            return {
                "rms_mm": {"relief put on": 1.0},
                "angle": {"relief put on": a},
                "leak_mm": leaked,
            }

        return {
            "yaw": yaw,
            "columns": {
                details.FOUNDATION: column(10.0, 0.0),
                details.RULE: column(10.0, 0.4),
                details.NETWORK: column(angle, leak),
            },
        }

    columns = relief.of_columns([record(0, 6.0, 0.1), record(60, 8.0, 0.3)])
    cells = columns[details.NETWORK]
    assert cells["yaw 0"]["angle/relief put on"]["lower"]["mean"] == pytest.approx(40)
    assert cells["all"]["angle/relief put on"]["lower"]["mean"] == pytest.approx(30)
    assert cells["yaw 0"]["leak_of_rule"] == 25
    assert cells["all"]["leak_of_rule"] == 50
    assert columns[details.FOUNDATION]["all"]["leak_of_rule"] == 0
    text = "\n".join(
        relief.lines({"columns": columns, "lost": 0, "missing": {"shading": "not here"}})
    )
    assert "without shading: not here" in text
    assert "40" in text


def test_relief_table_says_what_it_lacks() -> None:
    report = relief.measure(SimpleNamespace(sources=({}, {}), synthetic=None))  # type: ignore[arg-type]
    assert "relief_bench.npz" in relief.lines(report)[0]


def test_heads_are_read_as_they_were_written(tmp_path: Path) -> None:
    size = 32
    shape = (3, size, size)
    np.savez(
        tmp_path / relief.FILE,
        photo_relief=np.full((*shape, 3), 1, np.uint8),
        photo_pattern=np.full((*shape, 3), 2, np.uint8),
        photo_plain=np.full((*shape, 3), 3, np.uint8),
        depth=np.full(shape, 601, np.float32),
        depth_smooth=np.full(shape, 600, np.float32),
        camera=np.tile([900.0, 900, 16, 16], (3, 1)),
        camera_from_head=np.tile(np.eye(4), (3, 1, 1)),
        yaw=np.array([0.0, -30, 60]),
        face=np.ones(shape, bool),
        pattern=np.zeros(shape, np.float32),
    )
    heads = relief.read_heads(tmp_path / relief.FILE, 2)
    assert [h.yaw for h in heads] == [0, -30]
    assert [a[0, 0, 0] for a in (heads[1].relief, heads[1].pattern, heads[1].plain)] == [1, 2, 3]
    assert heads[0].depth[0, 0] - heads[0].depth_smooth[0, 0] == 1
    assert heads[0].camera == Camera(900.0, 900.0, 16.0, 16.0, size, size)


def test_scans_are_summed_up_by_scan_and_by_yaw() -> None:
    records = [
        {
            "scan": s,
            "yaw": y,
            "true_rms_mm": 1.0,
            "angles": {details.FOUNDATION: 10.0, "network": a},
        }
        for s, y, a in (("james", -30, 8.0), ("james", 0, 9.0), ("flame", 30, 7.0))
    ]
    found = scan_relief.of_columns(records)["network"]
    assert found["james"]["lower"]["mean"] == pytest.approx(15)
    assert found["yaw 30"]["angle"]["mean"] == pytest.approx(7.5)
    assert found["all"]["angle"]["n"] == 3
    report = {
        "columns": scan_relief.of_columns(records),
        "records": records,
        "face_weight": 0.5,
        "lost": 0,
        "missing": {},
    }
    assert any("8.50 (15)" in line for line in scan_relief.lines(report))


def test_sources_that_are_missing_say_why() -> None:
    def gone(_: Path) -> Any:
        raise FileNotFoundError("no bump.onnx")

    sources, missing = details.load_sources(gone)
    assert list(sources) == [details.FOUNDATION, details.RULE]
    assert missing[details.NETWORK] == "no bump.onnx"
    masks, missing = details.load_masks(gone)
    assert details.NETWORK in missing
    assert masks["no mask"](view_of(plane())).all()


def test_foundation_has_no_relief_and_tells_no_mask() -> None:
    found = details.load_sources(HostNetworks().open)[0][details.FOUNDATION](view_of(plane()))
    assert not found.bump.any()
    assert found.mask is None


def test_view_is_what_the_pipeline_sees(portrait: np.ndarray) -> None:
    reconstructor = Reconstructor(threads=1, detail="none")
    view = face_views.view_face(reconstructor, portrait)
    assert view is not None
    face = reconstructor.reconstruct(portrait)
    np.testing.assert_array_equal(view.image, face.photo)
    seen = view.weight > 0
    np.testing.assert_array_equal(view.depth[seen], face.depth[seen])
    np.testing.assert_array_equal(seen, np.isfinite(face.depth))
    assert 0.4 < view.mm_per_pixel < 0.7
    assert view.region[seen].all()
    assert view.region.sum() > seen.sum()  # eyes
    again = view.of_photo(portrait)
    np.testing.assert_array_equal(again.image, view.image)


def test_no_face_no_view() -> None:
    viewer = face_views.face_viewer(foundation="landmarks")
    assert viewer(np.zeros((64, 64, 3), np.uint8)) is None


def test_authors_table_prints_every_band() -> None:
    cells = [authors.of_photos([0.5, None, 0.7, float("nan")])] * len(authors.BANDS)
    report = {
        "bands_mm": authors.BANDS,
        "records": [{"share": 0.5}],
        "columns": {"shading rule": cells, "network": [stats.quartiles([])] * 4},
        "missing": {},
    }
    text = "\n".join(authors.lines(report))
    assert text.count("0.60 (0.55-0.65), 0.60 [0.50-0.70]  2") == len(authors.BANDS)
    assert stats.quartiles([])["median"] is None


def test_clay_is_brightest_towards_the_light() -> None:
    left = sheet.clay(view_of(plane(0.5)), np.zeros((SIZE, SIZE)))  # faces right
    right = sheet.clay(view_of(plane(-0.5)), np.zeros((SIZE, SIZE)))
    assert right[80, 80] > left[80, 80] > 0
    row = sheet.relief_row(view_of(plane()), [wave(5)] * 3, 50)
    assert row.shape == (50, 200, 3)


# === Masks ===


def square(x: int) -> np.ndarray:
    out = np.zeros((SIZE, SIZE), bool)
    out[40:80, x : x + 40] = True
    return out


def test_iou_of_shifted_squares() -> None:
    assert mask.iou(square(40), square(40)) == 1
    assert mask.iou(square(40), square(60)) == pytest.approx(1 / 3)
    assert mask.iou(square(0), square(100)) == 0
    nothing = np.zeros((4, 4), bool)
    assert mask.iou(nothing, nothing) == 1


def test_mask_scores_count_inside_the_region_alone() -> None:
    face = square(40) | square(80)
    hidden_by = np.full(face.shape, mask_labels.HIDDEN_BY.index("hair"), np.uint8)
    labels = mask_labels.Labels(square(40), face, hidden_by)
    half = np.zeros_like(face)
    half[60:] = True
    # all of the face, and half of the hair beside it
    found = mask.scores(square(40) | (square(80) & half), labels, EVERYWHERE)
    assert found["iou"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["removed"] == 50
    assert found["face_lost"] == 0
    hair = mask_labels.HIDDEN_BY.index("hair")
    assert (found["hidden_px"][hair], found["removed_px"][hair]) == (1600, 800)
    assert sum(found["hidden_px"]) == 1600
    perfect = mask.scores(square(40), labels, EVERYWHERE)
    assert (perfect["iou"], perfect["removed"]) == (1, 100)
    sums = mask.of_set([found, perfect])
    assert sums["removed_rate"]["value"] == 0.75
    assert sums["removed_by_kind"] == {"hair": 75.0}
    assert mask.of_set([])["removed_rate"]["value"] is None


def labelled_view(colours: np.ndarray) -> face_views.FaceView:
    return view_of(plane(), colours)


def test_celebamask_labels_tell_dark_lenses_from_clear_ones() -> None:
    image = np.full((SIZE, SIZE, 3), (200, 150, 130), np.uint8)
    parsing = np.full((SIZE, SIZE), 1, np.uint8)
    parsing[:20] = 13
    parsing[50:80, 20:60] = parsing[50:80, 100:140] = 3
    image[50:80, 20:60] = 20  # a dark lens, and a clear one in a dark frame
    image[50:80, 100:140] = 20
    image[54:76, 104:136] = (198, 150, 131)
    labels = mask_labels.celebamask_labels(labelled_view(image), parsing, image.shape)
    assert labels.face[120, 80]
    assert not labels.face[10, 80]
    assert labels.hidden_by[10, 80] == mask_labels.HIDDEN_BY.index("hair")
    assert labels.judged[65, 40]
    assert not labels.face[65, 40]
    assert not labels.judged[65, 120]
    assert labels.judged[51, 120]
    assert not labels.face[51, 120]


def test_fasseg_brows_are_face_and_hair_is_not() -> None:
    colours = np.zeros((SIZE, SIZE, 3), np.uint8)
    colours[:] = mask_labels.FASSEG_FACE[0]
    colours[:30] = mask_labels.FASSEG_HAIR
    colours[60:66, 40:70] = mask_labels.FASSEG_HAIR
    colours[:, 150:] = mask_labels.FASSEG_BACKGROUND
    labels = mask_labels.fasseg_labels(labelled_view(colours), colours, colours.shape)
    assert labels.face[63, 55]
    assert not labels.face[10, 55]
    assert not labels.face[100, 155]
    assert labels.hidden_by[10, 55] == mask_labels.HIDDEN_BY.index("hair")


def test_what_is_pasted_is_not_face() -> None:
    view = labelled_view(np.full((SIZE, SIZE, 3), 128, np.uint8))
    labels = mask_labels.Labels(EVERYWHERE, ~MIDDLE, np.zeros((SIZE, SIZE), np.uint8))
    kind = np.where(square(60), 1 + list(pasting.KINDS).index("masks"), 0).astype(np.uint8)
    covered = labels.covered(kind, view)
    np.testing.assert_array_equal(covered.face, ~square(60))
    assert covered.judged[square(60)].all()
    assert mask_labels.HIDDEN_BY[covered.hidden_by[60, 80]] == "pasted masks"


def test_held_out_cutouts_are_a_fifth(data_dir: Path) -> None:
    every = pasting.Occluders(data_dir / "occluders")
    held_out = pasting.Occluders(data_dir / "occluders", held_out=True)
    counts = [{k: len(v) for k, v in o._files.items()} for o in (every, held_out)]
    assert all(0 < counts[1][k] < counts[0][k] for k in counts[0])
    assert 0.1 < sum(counts[1].values()) / sum(counts[0].values()) < 0.35


def test_scan_pictures_have_true_depth_and_normals(data_dir: Path) -> None:
    from bench.scan_views import Light, load_scans, render

    model = HeadModel.load()
    scan = load_scans(data_dir / "scans", model)[0]
    background = np.full((50, 50, 3), 90, np.uint8)
    pictures = [
        render(scan, model, background, yaw=30, size=400, light=Light(0.3, 0.7, (x, 0, -1)))
        for x in (-1.0, 1.0)
    ]
    view = pictures[0]
    seen = np.isfinite(view.depth) & np.isfinite(view.normal).all(axis=2)
    assert 0.1 < seen.mean() < 0.6
    assert 550 < np.nanmedian(view.depth) < 850
    own = measures.normals_of_depth(view.depth, view.camera)
    apart = measures.angles(own, view.normal)[seen]
    assert np.nanmedian(apart) < 5
    # light from the right makes what faces right brighter
    change = pictures[1].image.astype(int).sum(2) - pictures[0].image.astype(int).sum(2)
    lean = view.normal[..., 0]
    assert np.corrcoef(change[seen], lean[seen])[0, 1] > 0.7
