"""bench quality: intervals, whole meshes, scans of a user's own, and the page."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from bench import (
    columns,
    machine,
    mesh_check,
    page,
    pictures,
    quality,
    scan_files,
    sections,
    stats,
    svg,
)
from bench.scan_views import Scan
from bench.tables import Context, completion, verification
from extreme3d_fast import Face, Reconstructor
from extreme3d_fast.camera import Camera, rotation_from_angles
from extreme3d_fast.mesh import mesh_report
from extreme3d_fast.photo_network import ASSETS

Rng = np.random.Generator

# === Intervals ===


def test_wilson_interval_is_that_of_the_textbook() -> None:
    # 10 of 20 and 0 of 10: solutions of (p - share)² = z² p (1 - p) / n
    assert stats.proportion(10, 20) == {
        "value": 0.5, "low": 0.2993, "high": 0.7007, "count": 10, "n": 20,
    }  # fmt: skip
    none = stats.proportion(0, 10)
    assert (none["low"], none["high"]) == (0, 0.2775)


def test_wilson_ends_are_where_the_share_is_just_plausible() -> None:
    found = stats.proportion(3, 40)
    for p in (found["low"], found["high"]):
        assert p is not None
        z = abs(3 / 40 - p) / np.sqrt(p * (1 - p) / 40)
        assert z == pytest.approx(1.96, abs=5e-3)  # ends are rounded to 1e-4


def test_share_of_nothing_is_unknown() -> None:
    assert stats.proportion(0, 0)["value"] is None


def test_one_value_has_no_interval() -> None:
    found = stats.summary([3.0])
    assert (found["mean"], found["low"], found["high"]) == (3.0, None, None)


def test_interval_over_groups_takes_their_values_for_one(rng: Rng) -> None:
    own = rng.normal(0, 1, 20).repeat(50)  # fifty times the same
    names = [str(i) for i in np.arange(20).repeat(50)]
    alone, grouped = stats.summary(own), stats.summary(own, groups=names)
    assert grouped["mean"] == alone["mean"]
    assert (grouped["n"], grouped["groups"]) == (1000, 20)
    assert grouped["low"] < alone["low"] < alone["high"] < grouped["high"]
    few = stats.summary(own[::50])  # one value of each
    assert grouped["high"] - grouped["low"] == pytest.approx(few["high"] - few["low"], rel=0.15)


def test_one_group_has_no_interval() -> None:
    assert stats.summary([1.0, 2.0], groups=["a", "a"])["low"] is None


def test_ratio_weighs_by_the_wholes() -> None:
    found = stats.ratio([1, 30], [10, 40])
    assert found["value"] == 0.62
    assert (found["low"], found["high"]) == (0.1, 0.75)  # each of the two alone
    assert stats.ratio([0, 0], [0, 0])["value"] is None


def test_curve_of_perfect_scores_is_the_corner() -> None:
    same = np.arange(6) < 3
    assert verification.curve(np.where(same, 1.0, 0.0), same) == [1.0] * verification.ROC_POINTS
    blind = verification.curve(np.zeros(6), same)
    np.testing.assert_allclose(blind, np.linspace(0, 1, verification.ROC_POINTS), atol=1e-4)


# === Whole meshes ===


def bust() -> tuple[np.ndarray, np.ndarray]:
    """A ball of 100 mm, open below -60: one border, at the neck."""
    ball = trimesh.creation.icosphere(subdivisions=3, radius=100.0)
    v, f = np.asarray(ball.vertices), np.asarray(ball.faces)
    f = f[(v[f, 1] > -60).any(axis=1)]
    used, index = np.unique(f, return_inverse=True)
    return v[used], index.reshape(-1, 3)


NECK = -50.0


def faults(v: np.ndarray, f: np.ndarray) -> list[str]:
    return mesh_check.faults_of(mesh_check.mesh_counts(v, f, NECK))


def test_a_whole_bust_has_no_faults() -> None:
    assert faults(*bust()) == []


def test_each_fault_is_seen_and_nothing_else() -> None:
    v, f = bust()
    crown = int(v[:, 1].argmax())
    top = int((f == crown).any(axis=1).argmax())  # without it there is a border off the neck
    assert faults(v, np.delete(f, top, axis=0)) == ["3 border off the neck", "2 borders"]
    assert faults(v, f[:, ::-1]) == ["1 inside out"]
    flipped = f.copy()
    flipped[0] = flipped[0, ::-1]
    assert faults(v, flipped) == ["3 edges run twice one way"]
    assert faults(np.vstack([v, [0, 0, 0]]), f) == ["1 unreferenced vertices"]
    assert faults(v, np.vstack([f, [crown, crown, 0]])) == ["1 faces of 2 vertices"]
    moved = v.copy()
    moved[crown] = np.nan
    assert "1 not finite" in faults(moved, f)
    moved[crown] = [0, 900, 0]
    assert faults(moved, f) == ["1 far off"]
    flat = v.copy()
    a, b, c = f[0]
    flat[a] = (flat[b] + flat[c]) / 2
    assert faults(flat, f) == ["1 faces without area"]


def test_two_pieces_that_touch_in_a_vertex_are_a_bow_tie() -> None:
    v, f = bust()
    crown = int(v[:, 1].argmax())
    above = trimesh.creation.icosphere(subdivisions=1, radius=10.0)
    w, g = np.asarray(above.vertices), np.asarray(above.faces) + len(v)
    foot = int(w[:, 1].argmin())
    w = w - w[foot] + v[crown]
    g[g == foot + len(v)] = crown
    found = mesh_check.mesh_counts(np.vstack([v, w]), np.vstack([f, g]), NECK)
    assert (found["bow ties"], found["pieces"]) == (1, 1)


def test_an_edge_of_three_faces_is_seen() -> None:
    v, f = bust()
    a, b = f[0, 0], f[0, 1]
    fin = np.vstack([v, 1.2 * v[a]])
    found = mesh_check.mesh_counts(fin, np.vstack([f, [a, b, len(v)]]), NECK)
    assert found["edges of 3 faces or more"] == 1


def test_counts_agree_with_the_package(rng: Rng) -> None:
    # random faces have faults of every kind
    v = rng.normal(0, 50, (60, 3)).astype(np.float32)
    f = rng.integers(0, 60, (90, 3)).astype(np.int32)
    found, report = mesh_check.mesh_counts(v, f, -1e9), mesh_report(v, f)
    assert found["faces of 2 vertices"] == report.degenerate_faces > 0
    assert found["edges of 3 faces or more"] == report.non_manifold_edges > 0
    assert found["unreferenced vertices"] == report.unreferenced_vertices > 0
    assert found["bow ties"] == report.non_manifold_vertices > 0
    assert found["pieces"] == report.components


def test_the_package_s_own_head_is_whole(face: Face) -> None:
    chin = Reconstructor(threads=1).head_model.landmark_basis("68").mean[8, 1]
    assert mesh_check.faults_of(mesh_check.mesh_counts(face.vertices, face.faces, chin)) == []


# === Completion ===


@pytest.fixture(scope="module")
def face(portrait: np.ndarray) -> Face:
    return Reconstructor(threads=1).reconstruct(portrait)


def a_record(**more: Any) -> dict[str, Any]:
    shares = {"observed": 0.5, "filled": 0.0, "mirrored": 0.1, "model": 0.4}
    return {
        "group": "g",
        "photo": "g/1.jpg",
        "found": True,
        "elsewhere": False,
        "faults": [],
        "warnings": [],
        "provenance": shares,
        **more,
    }


def test_failures_of_all_kinds_count() -> None:
    rows = [
        a_record(),
        a_record(elsewhere=True),
        a_record(elsewhere=None, faults=["2 bow ties"]),
        a_record(warnings=["31% of the visible face is occluded"]),
        {"group": "g", "photo": "g/2.jpg", "found": False, "error": None},
        {"group": "g", "photo": "g/3.jpg", "found": False, "error": "ValueError: x"},
    ]
    found = completion.of_group(rows)
    assert (found["done"]["count"], found["done"]["n"]) == (3, 6)
    assert (found["valid"]["count"], found["valid"]["n"]) == (3, 4)
    assert (found["no_face"], found["elsewhere"], found["labelled"]) == (1, 1, 3)
    assert found["errors"] == {"ValueError: x": 1}
    assert found["faults"] == {"N bow ties": 1}
    assert found["warnings"] == {"N% of the visible face is occluded": 1}


def test_a_crash_is_a_result() -> None:
    def crash(_: np.ndarray) -> None:
        raise RuntimeError("out of luck")

    context: Any = SimpleNamespace(reconstructor=SimpleNamespace(reconstruct=crash))
    sample = completion.Sample("g", "g/1.jpg", np.zeros((9, 9, 3), np.uint8), None)
    found = completion.record(context, sample)
    assert (found["found"], found["error"]) == (False, "RuntimeError: out of luck")


def test_a_face_counts_where_it_is_meant() -> None:
    pose = np.eye(4)
    pose[2, 3] = 1000
    # the photo shows the crop at half its size, 10 px to the right
    face = SimpleNamespace(
        camera_from_head=pose,
        camera=Camera(1000, 1000, 250, 250, 500, 500),
        crop_from_image=np.array([[2.0, 0, -20], [0, 2, 0], [0, 0, 1]]),
    )
    head = np.zeros((68, 3))  # its middle is at (250, 250) px of the crop, (135, 125) of the photo
    box = np.array([[-30.0, -30], [30, 30]])
    assert not completion.is_elsewhere(face, head, box + [135 + 29, 125])
    assert completion.is_elsewhere(face, head, box + [135 + 31, 125])


# === Scans of a user's own ===


@pytest.mark.parametrize(
    ("size", "unit"), [(1.02, "mm"), (0.9, "mm"), (11.0, "cm"), (990.0, "m"), (27.0, "in")]
)
def test_unit_is_the_one_that_suits_a_head(size: float, unit: str) -> None:
    assert scan_files.guess_unit(size) == (unit, scan_files.UNITS[unit])


def test_a_size_that_no_unit_has_is_taken_as_it_is() -> None:
    assert scan_files.guess_unit(120.0) == ("head", 120.0)


def test_heads_may_look_along_any_axis() -> None:
    assert len({r.tobytes() for r in scan_files.AXIS_ROTATIONS}) == 24
    assert all(np.linalg.det(r) > 0.99 for r in scan_files.AXIS_ROTATIONS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, face: Face) -> Path:
    """The head as saved, turned with z up in inches, and files that are no heads."""
    out = tmp_path_factory.mktemp("scans")
    face.save(out / "head.glb")
    skin = face.meshes["skin"]
    (out / "turned").mkdir()
    z_up = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
    turned = skin.vertices @ rotation_from_angles(20, 10, 5).T @ z_up.T / 25.4 + [30, 0, 7]
    trimesh.Trimesh(turned, skin.faces[:, ::-1], vertex_colors=skin.colors, process=False).export(
        out / "turned" / "head.ply"
    )  # and inside out
    (out / "broken.glb").write_bytes(b"glTF and no more")
    (out / "empty.obj").write_text("v 0 0 0\n")
    return out


def test_heads_are_found_whatever_their_frame_and_others_are_left_out(
    folder: Path, face: Face
) -> None:
    scans, placed, skipped = scan_files.load_folder(folder, Reconstructor(threads=1))
    assert [s.name for s in scans] == ["head.glb", "turned/head.ply"]
    assert [p.unit for p in placed.values()] == ["m", "in"]
    assert {p.colors for p in placed.values()} == {"vertices"}
    assert "cannot be read" in skipped["broken.glb"]
    assert "no triangles" in skipped["empty.obj"]
    # straightened onto the mean face, a head comes to lie a few mm off its own frame at most
    for scan in scans:
        assert len(scan.face) > 10_000
        for axis in range(3):
            ends = [np.percentile(m[:, axis], [5, 50, 95]) for m in (scan.vertices, face.vertices)]
            np.testing.assert_allclose(*ends, atol=8)
    # outside is where it was
    inner = scans[1].normals @ np.array([0, 0, 1.0])
    assert inner[scans[1].vertices[:, 2] > 100].mean() > 0


def test_a_ball_is_no_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_files, "AXIS_ROTATIONS", scan_files.AXIS_ROTATIONS[:1])  # for speed
    trimesh.creation.icosphere(subdivisions=3).export(tmp_path / "ball.ply")
    scans, placed, skipped = scan_files.load_folder(tmp_path, Reconstructor(threads=1))
    assert (scans, placed) == ([], {})
    assert "no face" in skipped["ball.ply"]


def test_a_folder_without_meshes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no \.glb"):
        scan_files.load_folder(tmp_path, None)


def textured_square(path: Path) -> None:
    """Two triangles, left half red, right half blue."""
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[:, :4, 0] = picture[:, 4:, 2] = 255
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1.0]])
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(picture))
    trimesh.Trimesh(
        np.column_stack([uv, np.zeros(4)]),
        [[0, 1, 2], [0, 2, 3]],
        visual=trimesh.visual.TextureVisuals(uv=uv, material=material),
        process=False,
    ).export(path)


def color_at(scan: Scan, x: float, y: float) -> list[int]:
    from bench.scan_views import sample_texture

    assert scan.texture is not None
    assert scan.corner_uv is not None
    corners = scan.vertices[scan.faces][..., :2].reshape(-1, 2)
    nearest = scan.corner_uv.reshape(-1, 2)[((corners - [x, y]) ** 2).sum(1).argmin()]
    # off the corner, towards the middle
    return sample_texture(scan.texture, nearest[None] * 0.8 + 0.1)[0].astype(int).tolist()


def test_textures_are_read_the_right_way_round(tmp_path: Path) -> None:
    textured_square(tmp_path / "a.glb")
    scan = scan_files.read_mesh(tmp_path / "a.glb")
    assert color_at(scan, 0, 0) == color_at(scan, 0, 1) == [255, 0, 0]
    assert color_at(scan, 1, 0) == color_at(scan, 1, 1) == [0, 0, 255]


def test_an_obj_takes_the_picture_beside_it(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text(
        "mtllib missing.mtl\nv 0 0 0\nv 1 0 0\nv 1 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nf 1/1 2/2 3/3\n"
    )
    assert scan_files.read_mesh(tmp_path / "a.obj").texture is None
    Image.new("RGB", (16, 16), (0, 200, 0)).save(tmp_path / "a.png")
    assert color_at(scan_files.read_mesh(tmp_path / "a.obj"), 0, 0) == [0, 200, 0]


def test_colours_of_gltf_are_linear(tmp_path: Path, face: Face) -> None:
    for suffix in ("glb", "ply"):
        face.save(tmp_path / f"a.{suffix}")
    linear, plain = (scan_files.read_mesh(tmp_path / f"a.{s}") for s in ("glb", "ply"))
    assert linear.colors is not None
    assert plain.colors is not None
    # where the corners at one place agree; joined, one file may keep another of the two
    gap = np.abs(linear.colors.astype(int).mean(0) - plain.colors.mean(0))
    assert gap.max() < 1


# === Plots and page ===


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 4.2), (-0.3, 0.1), (85, 100), (3, 3)])
def test_ticks_are_round_and_hold_the_range(low: float, high: float) -> None:
    found = svg.ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert 2 <= len(found) <= 8
    steps = np.diff(found)
    np.testing.assert_allclose(steps, steps[0])


def numbers_of(attribute: str, text: str) -> list[float]:
    return [float(v) for v in re.findall(rf'<circle[^>]* {attribute}="([-\d.]+)"', text)]


def test_lines_rise_with_their_values_and_gaps_stay_gaps() -> None:
    s = svg.Series("a", [1.0, 2.0, None, 4.0], [0.5, 1, None, 3], [1.5, 3, None, 5])
    text = svg.line_chart([0, 1, 2, 3], [s], title="t", x_label="x", y_label="y")
    y = numbers_of("cy", text)
    assert len(y) == 3
    assert y[0] > y[1] > y[2]
    np.testing.assert_allclose((y[0] - y[1]) * 2, y[1] - y[2], atol=0.2)  # to scale
    assert text.count("<polygon") == 1


def test_points_lie_where_their_values_are() -> None:
    s = svg.Series("a", [0.8, 0.9, 1.0], [0.7, 0.85, 0.9], [0.9, 0.95, 1.0])
    text = svg.point_chart(["p", "q", "r"], [s], title="t", x_label="x", high=1.0)
    x = numbers_of("cx", text)
    np.testing.assert_allclose(np.diff(x), x[1] - x[0], atol=0.2)


def test_nothing_to_draw_is_no_plot() -> None:
    empty = svg.Series("a", [None], [None], [None])
    assert svg.line_chart([0], [empty], title="t", x_label="x", y_label="y") == ""
    assert svg.point_chart(["r"], [empty], title="t", x_label="x") == ""


class Strict(HTMLParser):
    """Fails on tags that do not match, and collects what a page would fetch."""

    VOID = frozenset(("meta", "img", "br", "circle", "line", "polyline", "polygon"))

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.sources: list[str] = []
        self.text: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for key, value in attrs:
            if key == "id":
                self.ids.add(value or "")
            if key in ("src", "href", "xlink:href", "data", "action", "srcset"):
                self.sources.append(value or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(text: str) -> Strict:
    parser = Strict()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser


def small_report(**more: Any) -> dict[str, Any]:
    groups = completion.of_group([a_record(), a_record(faults=["1 bow ties"])])
    return {
        "command": "quality",
        "date": "2024-01-01T00:00:00+00:00",
        "machine": {"cpu": "a <b> & c", "cores": 2, "system": "s", "versions": {}, "commit": "x"},
        "threads": 1,
        "seed": 7,
        "quick": False,
        "missing": {"MediaPipe": "<script>alert(1)</script>"},
        "tables": {
            "completion": {"seed": 7, "records": [], "groups": {"g": groups, "all": groups}},
            "relief": {"seed": 7, "why": "needs --synthetic DIR", "missing": {}},
        },
        **more,
    }


def texts_of(report: dict[str, Any]) -> dict[str, list[str]]:
    return {name: quality.TABLES[name].lines(t) for name, t in report["tables"].items()}


def test_page_is_well_formed_fetches_nothing_and_escapes_text() -> None:
    report = small_report()
    shown = [pictures.Picture("completion", 'a "quoted" <photo>', b"\xff\xd8")]
    text = page.page(report, texts_of(report), shown)
    found = parsed(text)
    assert "script" not in found.tags
    assert all(s.startswith(("#", "data:image/jpeg;base64,")) for s in found.sources)
    assert not re.search(r"https?://|url\(|@import", text)
    assert {"completion", "relief"} <= found.ids
    words = " ".join(found.text)
    for said in ("a <b> & c", "<script>alert(1)</script>", "needs --synthetic DIR", "seed 7"):
        assert said in words
    assert "n 2" in words
    assert "missed" in words  # half of the heads are not whole


def test_page_warns_of_quick_and_broken_off_runs() -> None:
    quick = small_report(quick=True)
    text = page.page(quick, texts_of(quick))
    assert "mean nothing" in text
    assert "did not come to its end" in text
    busy = {"others": 0.9}
    timed = {"threads": 1, "columns": {}, "detail": {}, "occlusion": {}, "megabytes": {}}
    for own, said in ((busy, True), ({"others": 0.0}, False)):
        report = small_report(watch={"others": 0.0} if said else busy)
        report["tables"]["time"] = {**timed, "missing": {}, "watch": own}
        assert ("LOADED MACHINE" in page.page(report, texts_of(report))) is said
    whole = small_report(watch={"others": 0.0})
    text = page.page(whole, texts_of(whole))
    assert "mean nothing" not in text
    assert "did not come to its end" not in text


def test_every_table_has_a_section() -> None:
    assert list(sections.SECTIONS) == list(quality.TABLES)


# === Command ===


def quality_options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    quality.add_arguments(parser)
    return parser.parse_args(list(arguments))


def test_a_page_is_made_again_from_json(tmp_path: Path) -> None:
    report = small_report()
    (tmp_path / "a.json").write_text(json.dumps(report))
    options = quality_options(
        "--from-json", str(tmp_path / "a.json"), "--html", str(tmp_path / "a.html")
    )
    assert quality.run(options) == 0
    assert (tmp_path / "a.html").read_text("utf-8") == page.page(report, texts_of(report))


def test_json_that_is_no_report_is_refused(tmp_path: Path) -> None:
    html = ("--html", str(tmp_path / "a.html"))
    for content, said in (("{}", "no report"), ("nonsense", "a.json")):
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(SystemExit, match=said):
            quality.run(quality_options("--from-json", str(tmp_path / "a.json"), *html))
    with pytest.raises(SystemExit, match="--html"):
        quality.run(quality_options("--from-json", str(tmp_path / "a.json")))


def test_folders_that_are_not_there_are_named(tmp_path: Path) -> None:
    for name in ("scans", "lfw"):
        with pytest.raises(SystemExit, match=f"--{name}: no folder"):
            quality.run(quality_options(f"--{name}", str(tmp_path / "x")))
    with pytest.raises(SystemExit, match="no research data"):
        quality.run(quality_options("--data", str(tmp_path)))


def test_run_that_measured_nothing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quality.machine, "pin", lambda threads: list(range(threads)))
    (tmp_path / "broken.glb").write_bytes(b"glTF and no more")
    words = ["--tables", "scans", "--scans", str(tmp_path), "--data", str(tmp_path), "--quick"]
    assert quality.run(quality_options(*words)) == 1
    assert "== scans" in capsys.readouterr().out


def test_networks_are_opened_on_the_runtime_of_the_columns() -> None:
    column = SimpleNamespace(reconstructor=SimpleNamespace(threads=1))
    context = Context(data=Path(), columns={"ours": column}, runtime="onnxruntime")
    session = context.open_network(ASSETS / "bump.onnx")
    assert session.runtime.startswith("onnxruntime")
    assert quality_options("--runtime", "openvino").runtime == "openvino"
    assert quality_options().runtime is None


def test_runtime_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    found, missing = columns.load_columns(1, None, "openvino")
    assert not found
    assert "openvino" in missing["ours"]


def test_own_scans_and_lfw_need_no_research_data(
    tmp_path: Path, portrait: np.ndarray, face: Face
) -> None:
    folder, lfw = tmp_path / "scans", tmp_path / "lfw"
    folder.mkdir()
    trimesh.Trimesh(face.foundation, face.foundation_faces, process=False).export(
        folder / "head.ply"
    )
    (folder / "broken.glb").write_bytes(b"glTF and no more")
    for name, image in (("Ada", portrait), ("Bob", portrait[:, ::-1])):
        (lfw / name).mkdir(parents=True)
        for i in (1, 2):
            Image.fromarray(image).save(lfw / name / f"{name}_{i:04d}.png")
    (lfw / "pairs.txt").write_text("1\nAda\t1\t2\nAda\t1\tBob\t1\n")
    out = tmp_path / "q.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench", "quality", "--quick", "--threads", "1"]
        + ["--data", str(tmp_path / "none"), "--tables", "scans,verification,mask"]
        + ["--scans", str(folder), "--lfw", str(lfw), "-o", str(out)]
        + ["--html", str(tmp_path / "q.html")],
        cwd=machine.REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert set(report["tables"]) == {"scans", "verification"}
    assert "skipped: no research data" in done.stdout
    assert len(report["pinned"]) == 1
    assert "onnxruntime" in report["runtime"]
    assert report["runtime"] in (tmp_path / "q.html").read_text("utf-8")
    table = report["tables"]["scans"]
    assert "others" in table["watch"]
    assert set(table["skipped"]) == {"broken.glb"}
    assert table["placed"]["head.ply"]["colors"] == "none"
    ours = table["columns"]["ours"]["0/0"]
    assert ours["mean"]["n"] == 1
    assert 0 < ours["mean"]["mean"] < table["mean face"]["head.ply"]["mean"]
    assert report["tables"]["verification"]["lfw"]["columns"]["ours"]["clean"]["auc"]["n"] == 1
    found = parsed((tmp_path / "q.html").read_text("utf-8"))
    assert {"scans", "verification"} <= found.ids
