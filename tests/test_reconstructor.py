"""The whole pipeline on real photos."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import trimesh
from synthetic_references import reference_face, write_reference_set
from tiny_networks import RED, picks, says, write_network

import extreme3d_fast as e3d
import extreme3d_fast.image_io
from extreme3d_fast.bump_network import MAX_BUMP
from extreme3d_fast.camera import rotation_from_angles
from extreme3d_fast.crop import Crop
from extreme3d_fast.detect import crop_face
from extreme3d_fast.estimator import Found
from extreme3d_fast.mesh import mesh_report, transform_points
from extreme3d_fast.mesh_io import Mesh
from extreme3d_fast.references import ReferenceWriter
from extreme3d_fast.render import render_meshes


@pytest.fixture(scope="module")
def reconstructor():
    return e3d.Reconstructor(threads=2)


@pytest.fixture(scope="module")
def face(reconstructor, portrait):
    return reconstructor.reconstruct(portrait)


def assert_valid(face: e3d.Face, model: e3d.HeadModel) -> None:
    """What a result must always be: design rule 'whatever the photo'."""
    report = mesh_report(face.vertices, face.faces)
    assert report.is_valid, report
    assert report.components == 1
    whole = mesh_report(model.vertices()[: model.skin_vertex_count], model.faces)
    assert report.boundary_loops == whole.boundary_loops
    assert report.boundary_edges == whole.boundary_edges
    n = len(face.vertices)
    assert n > 50_000
    assert np.isfinite(face.vertices).all()
    assert np.abs(face.vertices).max() < 400  # mm
    assert face.colors.shape == (n, 3)
    assert face.provenance.shape == (n,)
    assert set(np.unique(face.provenance)) <= {int(p) for p in e3d.Provenance}
    # outward: the surface encloses volume on its inner side
    corners = face.vertices[face.faces].astype(np.float64)
    assert np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() > 0


def test_portrait_becomes_a_valid_head(face, reconstructor):
    assert_valid(face, reconstructor.head_model)
    assert face.warnings == ()


def test_arrays_have_the_documented_shapes(face):
    size = 500
    assert face.vertices.dtype == np.float32
    assert face.faces.dtype == np.int32
    assert face.colors.dtype == np.uint8
    assert face.identity.shape == (99,)
    assert face.expression.shape == (52,)
    assert face.camera_from_head.shape == (4, 4)
    assert face.crop_from_image.shape == (3, 3)
    assert face.depth.shape == face.bump.shape == face.face_mask.shape == (size, size)
    assert face.photo.shape == (size, size, 3)
    assert set(face.parts) == {"left_eye", "right_eye", "upper_teeth", "lower_teeth", "tongue"}


def test_most_of_a_frontal_face_is_observed(face):
    counts = np.bincount(face.provenance, minlength=4)
    assert counts[e3d.Provenance.OBSERVED] > 25_000


def test_observed_vertices_project_onto_the_depth_map(face):
    """Dense vertices lie on the detailed surface of the pixel that they came from (Eq. 4)."""
    observed = face.vertices[face.provenance == e3d.Provenance.OBSERVED]
    in_camera = observed @ face.camera_from_head[:3, :3].T + face.camera_from_head[:3, 3]
    x, y = np.floor(face.camera.project(in_camera)).astype(int).T
    error = np.abs(in_camera[:, 2] - face.depth[y, x])
    assert np.median(error) < 0.01
    assert np.percentile(error, 95) < 0.5


def test_bump_map_is_limited_and_only_inside_the_face(face):
    assert np.abs(face.bump).max() <= MAX_BUMP
    assert (face.bump[~np.isfinite(face.depth)] == 0).all()
    assert np.abs(face.bump).max() > 0.1


def test_same_photo_gives_the_same_bits(face, reconstructor, portrait):
    again = reconstructor.reconstruct(portrait)
    np.testing.assert_array_equal(face.vertices, again.vertices)
    np.testing.assert_array_equal(face.faces, again.faces)
    np.testing.assert_array_equal(face.colors, again.colors)


@pytest.mark.parametrize("threads", [1, 3])
def test_number_of_threads_does_not_matter(face, portrait, threads):
    other = e3d.Reconstructor(threads=threads).reconstruct(portrait)
    np.testing.assert_array_equal(face.vertices, other.vertices)
    np.testing.assert_array_equal(face.faces, other.faces)
    np.testing.assert_array_equal(face.colors, other.colors)
    np.testing.assert_array_equal(face.provenance, other.provenance)


def test_mirrored_photo_gives_a_mirrored_head(face, reconstructor, portrait):
    mirrored = reconstructor.reconstruct(np.ascontiguousarray(portrait[:, ::-1]))
    foundation = mirrored.foundation * np.float32([-1, 1, 1])
    mirror = reconstructor.head_model.mirror[: len(foundation)]
    # the landmark network is not symmetric itself: 1 mm in 150 is its own difference
    difference = np.linalg.norm(foundation[mirror] - face.foundation, axis=1)
    region = reconstructor.head_model.face_region
    assert np.median(difference[region]) < 2.0


def test_options_take_detail_and_symmetry_away(portrait):
    plain = e3d.Reconstructor(detail="none").reconstruct(portrait)
    assert (plain.bump == 0).all()
    assert plain.face_mask.any()
    one_sided = e3d.Reconstructor(symmetry=False).reconstruct(portrait)
    assert (one_sided.provenance != e3d.Provenance.MIRRORED).all()
    model = e3d.HeadModel.load()
    assert_valid(plain, model)
    assert_valid(one_sided, model)


def test_shading_gives_detail_without_the_network(portrait):
    face = e3d.Reconstructor(detail="shading").reconstruct(portrait)
    assert np.abs(face.bump).max() > 0.1
    assert {"bump_network", "shading", "fill"} <= set(face.timings)


def test_smaller_crop_gives_fewer_vertices(face, portrait):
    small = e3d.Reconstructor(crop_size=256).reconstruct(portrait)
    assert small.depth.shape == (256, 256)
    assert len(small.vertices) < len(face.vertices)
    report = mesh_report(small.vertices, small.faces)
    assert report.is_valid
    assert report.components == 1


class FixedFoundation:
    """Stands in for the front end with a foundation of the test's making."""

    def __init__(self, foundation: e3d.Foundation, crop: Crop) -> None:
        self.foundation, self.crop = foundation, crop

    def find(self, *_: object) -> list[Found]:
        return [Found(None, None)]

    def estimate(self, *_: object) -> tuple[e3d.Foundation, Crop]:
        return self.foundation, self.crop


@pytest.mark.parametrize("crop_size", [65, 333, 500])
def test_any_pose_and_any_head_give_a_valid_mesh(portrait, crop_size):
    """Poses that hide, fold and cut the head off in every way, caricatures included."""
    reconstructor = e3d.Reconstructor(crop_size=crop_size)
    frontal = reconstructor.reconstruct(portrait)
    foundation = reconstructor.estimate_foundation(portrait)
    rng = np.random.default_rng(crop_size)
    for yaw in (0, 20, -45, 45, 70, -90, 90, 120, 180):
        pose = np.array(frontal.camera_from_head)
        pose[:3, :3] = rotation_from_angles(yaw, rng.uniform(-40, 40), rng.uniform(-30, 30))
        pose[:2, 3] += rng.uniform(-60, 60, 2)
        pose[2, 3] *= rng.uniform(0.5, 1.5)
        identity = rng.normal(0, rng.choice([0.0, 1.0, 3.0]), 99).astype(np.float32)
        reconstructor._estimator = FixedFoundation(
            dataclasses.replace(foundation, camera_from_head=pose, identity=identity),
            Crop(frontal.photo, frontal.crop_from_image),
        )
        face = reconstructor.reconstruct(portrait)
        report = mesh_report(face.vertices, face.faces)
        assert report.is_valid, (yaw, report)
        assert (report.components, report.boundary_loops) == (1, 1), (yaw, report)


def test_foundation_alone_is_that_of_the_face(face, reconstructor, portrait):
    foundation = reconstructor.estimate_foundation(portrait)
    assert foundation.source == face.foundation_source
    np.testing.assert_array_equal(foundation.crop_from_image, face.crop_from_image)
    np.testing.assert_array_equal(foundation.camera_from_head, face.camera_from_head)
    head = reconstructor.head_model.vertices(foundation.identity, foundation.expression)
    np.testing.assert_array_equal(head[: len(face.foundation)], face.foundation)


@pytest.mark.parametrize("mode", ["networks", "landmarks"])
def test_foundation_comes_from_where_it_is_asked_for(portrait, mode):
    reconstructor = e3d.Reconstructor(foundation=mode, crop_size=250)
    face = reconstructor.reconstruct(portrait)
    assert face.foundation_source == mode
    assert np.isfinite(face.depth[int(face.camera.cy), int(face.camera.cx)])  # looks at the face


def test_another_head_model_takes_landmarks(portrait):
    model = e3d.HeadModel.load()
    other = dataclasses.replace(model, mean=model.mean * np.float32([1.02, 1.0, 1.0]))
    face = e3d.Reconstructor(head_model=other, crop_size=250).reconstruct(portrait)
    assert face.foundation_source == "landmarks"
    with pytest.raises(ValueError, match="built-in head model"):
        e3d.Reconstructor(head_model=other, foundation="networks")


def test_another_head_model_takes_detail_of_the_network(portrait, tmp_path):
    model = e3d.HeadModel.load()
    other = dataclasses.replace(model, mean=model.mean * np.float32([1.02, 1.0, 1.0]))
    path = write_network(tmp_path / "a.onnx", picks(RED))
    face = e3d.Reconstructor(head_model=other, bump_network=path).reconstruct(portrait)
    red = portrait_crop_red(face)
    whole = np.isfinite(face.depth) & (np.abs(face.bump - red) < 1e-5)
    assert whole.sum() > 10_000  # face weight 1, nothing to be filled


def portrait_crop_red(face):
    """What a network says of a crop that answers with its red channel, mm."""
    return face.photo[..., 0] / np.float32(127.5) - 1


def test_other_networks_are_loaded_from_files(portrait, tmp_path):
    path = write_network(tmp_path / "a.onnx", says(), bump_bias=1.5, mask_bias=0.75)
    face = e3d.Reconstructor(bump_network=path, occlusion="none").reconstruct(portrait)
    assert face.bump.max() == np.float32(1.5)
    assert set(np.unique(face.face_probability)) == {0.0, 0.75}
    np.testing.assert_array_equal(face.face_mask, face.face_probability > 0.5)
    assert face.face_mask[np.isfinite(face.depth)].all()  # and of the eyes


def test_missing_and_damaged_networks_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.onnx"):
        e3d.Reconstructor(bump_network=tmp_path / "nothing.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(e3d.InvalidModelFile, match=r"text\.onnx"):
        e3d.Reconstructor(bump_network=str(tmp_path / "text.onnx"))


def test_doubts_of_the_foundation_are_warnings_of_the_face(portrait, reconstructor):
    foundation = dataclasses.replace(
        reconstructor.estimate_foundation(portrait), warnings=("it is a cat",)
    )
    crop = crop_face(portrait, np.random.default_rng(0).uniform(150, 250, (68, 2)))
    other = e3d.Reconstructor()
    other._estimator = FixedFoundation(foundation, crop)
    assert other.reconstruct(portrait).warnings[0] == "it is a cat"


def test_every_face_of_a_photo(reconstructor, portrait):
    two = np.concatenate([portrait, portrait[:, ::-1]], axis=1)
    faces = reconstructor.reconstruct_all(two)
    assert len(faces) == 2
    columns = [np.linalg.inv(f.crop_from_image)[0, 2] for f in faces]
    assert abs(columns[0] - columns[1]) > 100


def test_batch_keeps_the_order(face, reconstructor, portrait):
    turned = np.ascontiguousarray(portrait[:, ::-1])
    batch = reconstructor.reconstruct_batch([turned, portrait])
    np.testing.assert_array_equal(batch[1].vertices, face.vertices)
    assert len(batch) == 2


def test_photo_without_a_face(reconstructor):
    blank = np.full((300, 400, 3), 127, np.uint8)
    for method in (reconstructor.reconstruct, reconstructor.estimate_foundation):
        with pytest.raises(e3d.NoFaceFound, match="400x300"):
            method(blank)
    assert reconstructor.reconstruct_all(blank) == []


@pytest.mark.parametrize(
    "options",
    [
        {"device": "tpu"},
        {"threads": 0},
        {"threads": 100_000},
        {"crop_size": 10},
        {"detail": "magic"},
        {"foundation": "magic"},
        {"occlusion": "magic"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_unknown_options_are_errors(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        e3d.Reconstructor(**options)


def no_gpu(_: int) -> None:
    raise RuntimeError("no CUDA-capable device is detected")


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (None, "EXTREME3D_CUDA=ON"),
        (SimpleNamespace(set_device=no_gpu), "no CUDA-capable device"),
    ],
    ids=["built without CUDA", "no GPU"],
)
def test_machine_without_a_gpu_says_what_is_missing(monkeypatch, module, said):
    monkeypatch.setitem(sys.modules, "extreme3d_fast._cuda", module)
    with pytest.raises(e3d.DeviceUnavailable, match=f"device='cuda'.*{said}"):
        e3d.Reconstructor(device="cuda")


@pytest.mark.parametrize(
    "options",
    [
        {"threads": 1.5},
        {"threads": "2"},
        {"crop_size": "500"},
        {"symmetry": "no"},
        {"head_model": "x.npz"},
        {"bump_network": 5},
        {"references": 5},
    ],
    ids=str,
)
def test_options_of_another_type_are_errors(options):
    with pytest.raises(TypeError, match=next(iter(options))):
        e3d.Reconstructor(**options)


def test_a_single_photo_is_no_batch(reconstructor):
    with pytest.raises(TypeError, match="sequence"):
        reconstructor.reconstruct_batch("photo.jpg")


def test_references_are_of_no_use_to_other_ways_of_filling():
    with pytest.raises(ValueError, match="references"):
        e3d.Reconstructor(occlusion="smooth", references="references.npz")


def with_sunglasses(portrait):
    """The portrait with a black bar over the eyes."""
    covered = portrait.copy()
    covered[95:135, 165:285] = (12, 12, 14)
    return covered


def test_covered_skin_is_filled_and_not_painted(reconstructor, portrait):
    face = reconstructor.reconstruct(with_sunglasses(portrait))
    filled = face.provenance == e3d.Provenance.FILLED
    assert filled.sum() > 2000
    assert any("occluded" in warning for warning in face.warnings)
    # nothing of the bar's black on the skin that it covers
    assert np.median(face.colors[filled].max(axis=1)) > 90
    assert not face.face_mask[filled_pixels(face)].all()
    assert 0.2 < face.occlusion.fraction < 0.7
    assert face.occlusion.hole[filled_pixels(face)].mean() > 0.9


def test_covered_skin_takes_the_detail_of_a_similar_face(reconstructor, portrait):
    covered = with_sunglasses(portrait)
    borrowed = reconstructor.reconstruct(covered)
    smooth = e3d.Reconstructor(occlusion="smooth").reconstruct(covered)
    assert smooth.reference is None
    assert borrowed.reference is not None
    assert borrowed.reference.pose_distance < 15
    hole = borrowed.occlusion.hole
    assert np.array_equal(borrowed.bump[~hole], smooth.bump[~hole])
    rough = [np.abs(np.diff(face.bump, axis=0))[1:][hole[2:]].mean() for face in (borrowed, smooth)]
    assert rough[0] > 1.5 * rough[1]
    assert np.abs(borrowed.bump).max() <= 6


def reference_set(path, model, faces):
    """Reconstructor with a set of (camera_from_head, descriptor), for which everyone is `LOOKS`."""
    rng = np.random.default_rng(0)
    with ReferenceWriter(path, head_model=model.fingerprint) as writer:
        for rotation, descriptor in faces:
            writer.add(reference_face(rng, rotation), descriptor)
    out = e3d.Reconstructor(references=path)
    out._similar._identity.describe = lambda *_: LOOKS
    return out


LOOKS, OTHERS = np.eye(2, 128, dtype=np.float32)


def test_who_is_alike_but_seen_from_the_side_lends_nothing(reconstructor, portrait, tmp_path):
    covered, model = with_sunglasses(portrait), reconstructor.head_model
    front = reconstructor.estimate_foundation(covered).camera_from_head[:3, :3]
    side = rotation_from_angles(60)
    near = 0.9 * LOOKS + 0.4 * OTHERS
    faces = [(side, LOOKS), *[(front, near)] * 8, (front, OTHERS)]
    both = reference_set(tmp_path / "a.npz", model, faces).reconstruct(covered)
    assert {found.index for found in both.references} == set(range(1, 9))
    # fewer than eight are none: one person's relief is not another's
    few = reference_set(tmp_path / "b.npz", model, faces[:4]).reconstruct(covered)
    assert few.references == ()
    assert any("only 3 reference faces are similar" in warning for warning in few.warnings)


def test_sets_of_other_identity_features_are_refused(tmp_path):
    with ReferenceWriter(tmp_path / "a.npz", head_model="") as writer:
        writer.add(reference_face(np.random.default_rng(0)), np.ones(64))
    with pytest.raises(e3d.InvalidModelFile, match="64 values"):
        e3d.Reconstructor(references=tmp_path / "a.npz")


def test_set_of_another_head_model_lends_nothing(portrait, tmp_path):
    write_reference_set(tmp_path / "a.npz", 2, head_model="another")
    reconstructor = e3d.Reconstructor(references=tmp_path / "a.npz")
    face = reconstructor.reconstruct(with_sunglasses(portrait))
    assert face.references == ()
    assert any("of another head model" in warning for warning in face.warnings)


def test_nothing_is_borrowed_where_nothing_is_covered(portrait, tmp_path):
    path = write_network(tmp_path / "a.onnx", says(), mask_bias=1.0)
    face = e3d.Reconstructor(bump_network=path).reconstruct(portrait)
    assert face.reference is None
    assert face.occlusion.fraction == 0
    assert not {"identity", "search"} & set(face.timings)


def filled_pixels(face):
    """Pixels of the face's region that its mask rejects, as (row, column) indices."""
    return np.nonzero(np.isfinite(face.depth) & ~face.face_mask)


def test_nothing_is_filled_when_not_asked_for(portrait):
    face = e3d.Reconstructor(occlusion="none").reconstruct(with_sunglasses(portrait))
    assert (face.provenance != e3d.Provenance.FILLED).all()


@pytest.mark.parametrize("detail", ["network", "shading", "none"])
def test_skin_beyond_the_photo_is_not_black(portrait, detail):
    face = e3d.Reconstructor(detail=detail).reconstruct(portrait[:150])
    assert any("outside the photo" in warning for warning in face.warnings)
    observed = face.provenance == e3d.Provenance.OBSERVED
    in_camera = transform_points(face.camera_from_head, face.vertices)
    x, y = np.floor(face.camera.project(in_camera)).astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < 500) & (y < 500)
    padding = np.zeros(len(x), bool)
    padding[inside] = (face.photo[y[inside], x[inside]] == 0).all(axis=1)
    assert (observed & padding).mean() < 0.01
    assert (face.colors.max(axis=1) < 20).mean() < 0.02


def test_small_faces_are_warned_of(reconstructor, portrait):
    small = np.ascontiguousarray(portrait[::6, ::6])
    assert any("px large" in warning for warning in reconstructor.reconstruct(small).warnings)


@pytest.mark.parametrize(
    ("image", "error"),
    [
        ("missing.jpg", FileNotFoundError),
        (np.zeros((0, 0, 3), np.uint8), e3d.InvalidImage),
        (np.zeros((5, 5, 2), np.uint8), e3d.InvalidImage),
        (np.full((50, 50, 3), np.nan), e3d.InvalidImage),
        (np.zeros((1, 1, 3), np.uint8), (e3d.NoFaceFound, e3d.InvalidImage)),
        (None, (e3d.InvalidImage, TypeError)),
    ],
    ids=["missing", "empty", "two channels", "nan", "one pixel", "none"],
)
def test_bad_images_are_clear_errors(reconstructor, image, error):
    with pytest.raises(error):
        reconstructor.reconstruct(image)


def test_grey_float_and_rgba_photos_reconstruct(reconstructor, portrait, face):
    grey = portrait.mean(2).astype(np.uint8)
    for image in (
        grey,
        portrait / 255.0,
        np.dstack([portrait, np.full(grey.shape, 255, np.uint8)]),
    ):
        other = reconstructor.reconstruct(image)
        shift = np.linalg.norm(other.foundation - face.foundation, axis=1)
        assert np.median(shift) < 5.0


@pytest.mark.data
def test_photos_of_the_paper_give_valid_heads(reconstructor, data_dir):
    photos = sorted((data_dir / "paper_photos").glob("??.jpg"))
    assert len(photos) == 29
    for photo in photos:
        assert_valid(reconstructor.reconstruct(photo), reconstructor.head_model)


def scan_mesh(path: Path) -> Mesh:
    """A scan, with its photo's colours where it has one; its axes are those of our head frame."""
    loaded = trimesh.load(path, process=False, force="mesh")
    v = np.asarray(loaded.vertices, np.float32)
    if np.ptp(v) < 10:  # metres
        v *= 1000
    colors = np.full(v.shape, 200, np.uint8)
    if path.with_suffix(".jpg").exists():
        texture = e3d.image_io.load_image(path.with_suffix(".jpg"))
        height, width = texture.shape[:2]
        x, y = (loaded.visual.uv * [width - 1, 1 - height] + [0, height - 1]).astype(int).T
        colors = np.ascontiguousarray(texture[y, x])
    return Mesh(v - v.mean(0), np.int32(loaded.faces), colors)


@pytest.mark.data
@pytest.mark.parametrize("yaw", [0, 30])
@pytest.mark.parametrize(
    ("scan", "shading"),
    [
        ("james_menpo_james", "color"),
        ("flame_fitting_scan_scan", "clay"),
        ("meshmonk_demoface_DemoFace_10K", "clay"),
    ],
)
def test_renders_of_scans_give_valid_heads(reconstructor, data_dir, scan, shading, yaw):
    mesh = scan_mesh(data_dir / "scans" / f"{scan}.obj")
    photo = render_meshes({"scan": mesh}, yaw=yaw, size=900, shading=shading)
    assert_valid(reconstructor.reconstruct(photo), reconstructor.head_model)
