"""Our stages on the inputs of the authors' run: same results, or a difference that is explained.

The numbers and their reasons are in docs/reference_comparison.md.
"""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from research_data import DATA

from extreme3d_fast.camera import Camera
from extreme3d_fast.completion import complete_dense
from extreme3d_fast.dense import compose_depth, dense_mesh
from extreme3d_fast.mesh import mesh_report, unique_edges, vertex_normals
from extreme3d_fast.rasterize import rasterize, vertex_visibility
from extreme3d_fast.registration import recover_dense, register_dense
from extreme3d_fast.soft_symmetry import SoftSymmetrySolver
from extreme3d_fast.sparse import sparse_from_dense
from extreme3d_fast.zipper import Zipper

RUN = DATA / "reference_run" / "paper_photo_07.npz"

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not RUN.exists(), reason=f"no reference run in {DATA} (EXTREME3D_DATA)"),
]

CAMERA = Camera(1000.0, 1000.0, 250.0, 250.0, 500, 500)
# The authors sample and unproject pixel i at i instead of i + 0.5: the same as moving the camera.
THEIR_CAMERA = Camera(1000.0, 1000.0, 250.5, 250.5, 500, 500)
OPENCV_FROM_OPENGL = np.float32([1, -1, -1])


def rms(x):
    return float(np.sqrt(np.mean(np.square(x))))


def bilinear(image, at):
    """`image` at positions (N, 2) counted in pixels, pixel i at i."""
    i = np.floor(at).astype(int)
    t = at - i
    return sum(
        image[i[:, 1] + b, i[:, 0] + a]
        * (t[:, 0] if a else 1 - t[:, 0])
        * (t[:, 1] if b else 1 - t[:, 1])
        for a in (0, 1)
        for b in (0, 1)
    )


@pytest.fixture(scope="module")
def run():
    """Theirs in our camera frame (depth positive), and our stages on the same inputs."""
    stored = np.load(RUN, allow_pickle=False)
    level = cv2.imread(str(DATA / "paper_photos" / "07_bump_filled.png"), cv2.IMREAD_UNCHANGED)
    assert level is not None
    pose = stored["pose_axis_angle_translation"]
    rotation = cv2.Rodrigues(pose[:3])[0]
    r = SimpleNamespace()
    r.vertices = stored["foundation_aligned_v"] * OPENCV_FROM_OPENGL
    r.faces = stored["foundation_aligned_f"]
    r.z = -stored["z_foundation"]
    r.z_detail = -stored["z_detail"]
    r.face = np.isfinite(r.z)
    # Image pixel (x, y) is bump pixel (x + 6, y + 6). Their code adds the decoded level to OpenGL's
    # z, which grows towards the camera: levels above 127 are nearer, so Δ is negative there.
    r.bump = -(level[6:506, 6:506].astype(np.float32) - 127) / 12 * 1.25
    r.dense_vertices = stored["withBump_aligned_v"] * OPENCV_FROM_OPENGL
    r.dense_faces = stored["withBump_aligned_f"]
    moved = (stored["sparse_R_before"] @ rotation.T + pose[3:]) * OPENCV_FROM_OPENGL
    r.shift = moved - r.vertices  # of each sparse vertex by their dense-to-sparse conversion
    r.visible = stored["visible_weight"] >= 0.75
    r.moved = np.abs(r.shift).max(1) > 2e-3  # the rest only went through their pose and back

    r.raster = rasterize(r.vertices, r.faces, CAMERA)
    depth = np.where(r.face, r.raster.depth, np.inf)
    r.dense = dense_mesh(compose_depth(depth, r.bump), CAMERA)
    return r


def test_foundation_depth_equals_theirs(run):
    seen = run.face & (run.raster.triangle >= 0)
    error = np.abs(run.raster.depth - run.z)[seen]
    # Their 24-bit z-buffer from 50 to 10,000 mm steps by 5e-4 mm at 550 mm.
    assert np.median(error) < 6e-4
    assert np.percentile(error, 99) < 0.005
    # Pixels only they cover: a strip along the upper rim, where they render 639 more triangles.
    assert (run.face & ~seen).sum() < 0.005 * run.face.sum()


def test_half_a_pixel_of_shift_would_show_in_the_depth(run):
    shifted = rasterize(run.vertices, run.faces, THEIR_CAMERA)
    both = run.face & (run.raster.triangle >= 0) & (shifted.triangle >= 0)
    assert rms((shifted.depth - run.z)[both]) > 50 * rms((run.raster.depth - run.z)[both])


def test_detailed_depth_equals_theirs_with_bright_levels_nearer(run):
    error = np.abs(compose_depth(run.z, run.bump) - run.z_detail)[run.face]
    assert error.max() < 1e-4  # float32 at 600 mm


def test_their_dense_vertices_are_unprojected_half_a_pixel_off(run):
    y, x = np.nonzero(run.face)
    order = np.lexsort((y, x))  # they number by column
    y, x = y[order], x[order]
    z = run.z[y, x]
    at_integers = np.stack([(x - 250) / 1000 * z, (y - 250) / 1000 * z], 1)
    at_centres = np.stack([(x - 249.5) / 1000 * z, (y - 249.5) / 1000 * z], 1)
    assert np.abs(at_integers - run.dense_vertices[:, :2]).max() < 2e-4
    assert np.median(np.abs(at_centres - run.dense_vertices[:, :2])) > 0.25  # 0.5 px of 0.55 mm


def test_dense_mesh_has_their_pixels_without_their_stretched_faces(run):
    assert 0.99 < len(run.dense.vertices) / len(run.dense_vertices) <= 1.0
    ours = np.ptp(run.dense.vertices[run.dense.faces][:, :, 2], axis=1)
    theirs = np.ptp(run.dense_vertices[run.dense_faces][:, :, 2], axis=1)
    assert (theirs > 10).sum() > 100
    assert (ours > 10).sum() == 0
    report = mesh_report(run.dense.vertices, run.dense.faces)
    assert report.is_manifold
    assert report.is_oriented


def test_sparse_vertices_differ_from_theirs_by_their_half_pixel(run):
    everywhere = np.ones(len(run.vertices), bool)
    ours, moved = sparse_from_dense(run.vertices, everywhere, run.bump, run.face, CAMERA)
    like_them, _ = sparse_from_dense(run.vertices, everywhere, run.bump, run.face, THEIR_CAMERA)
    both = moved & run.moved
    at = run.vertices[:, :2] / run.vertices[:, 2:] * 1000 + 250
    at = np.clip(at, 0, 498.999)
    # What their conversion adds to a vertex even where Δ is 0: z sampled half a pixel off.
    bias = bilinear(run.z, at) - run.vertices[:, 2]
    both &= np.isfinite(bias)
    theirs = run.shift[both, 2]
    straight = (ours - run.vertices)[both, 2] - theirs
    explained = (like_them - run.vertices)[both, 2] + bias[both] - theirs
    assert rms(straight) > 0.25
    assert np.abs(explained).max() < 0.01  # float32 through two poses
    assert rms(explained) < 1e-3


def test_visible_vertices_are_theirs_but_for_a_rim(run):
    normals = vertex_normals(run.vertices, run.faces)
    visible = vertex_visibility(run.vertices, normals, run.raster.depth, CAMERA)
    _, moved = sparse_from_dense(run.vertices, visible, run.bump, run.face, CAMERA)
    both = moved & run.moved
    assert both.sum() > 0.9 * run.moved.sum()
    assert both.sum() > 0.9 * moved.sum()


def test_registration_round_trip_is_exact(run):
    sparse, _ = sparse_from_dense(
        run.vertices, np.ones(len(run.vertices), bool), run.bump, run.face, CAMERA
    )
    registration = register_dense(run.raster, run.dense, run.dense.vertices, sparse, run.faces)
    again = recover_dense(registration, sparse, run.faces)
    assert np.abs(again - run.dense.vertices).max() < 2e-4  # float32 at 600 mm
    assert np.median(np.linalg.norm(registration.residual, axis=1)) < 0.05


@pytest.fixture(scope="module")
def symmetry(run):
    """Eq. 9 and everything after it on their R, F, visibility and mirror table."""
    stored = np.load(RUN, allow_pickle=False)
    s = SimpleNamespace()
    s.foundation = stored["foundation_frontal_v"]
    s.before = stored["sparse_R_before"]
    s.after = stored["sparse_full_frontal_v"]
    n = len(s.foundation)
    pair = stored["pair"] - stored["pair"].min()
    involution = pair[pair] == np.arange(n)
    s.mirror = np.where(involution, pair, np.arange(n)).astype(np.int32)
    # their unknowns: whatever has no bump or too little weight
    s.visible = run.visible & run.moved
    solver = SoftSymmetrySolver(run.faces, s.mirror, np.ones(n, bool))
    s.detailed = np.where(s.visible[:, None], s.before, s.foundation)
    s.ours = solver.solve(s.foundation, s.detailed, s.visible)
    return s


def test_mirror_table_is_theirs(symmetry):
    assert (symmetry.mirror != np.arange(len(symmetry.mirror))).mean() > 0.95
    error = np.linalg.norm(
        symmetry.foundation[symmetry.mirror] * [-1, 1, 1] - symmetry.foundation, axis=1
    )
    assert np.median(error) < 2.0


def border_step(faces, visible, foundation, vertices):
    """Change of displacement across edges between visible and hidden vertices, mm."""
    edges = unique_edges(faces, len(foundation))
    a, b = edges[visible[edges[:, 0]] != visible[edges[:, 1]]].T
    moved = vertices - foundation
    return np.linalg.norm(moved[a] - moved[b], axis=1)


def test_hidden_side_joins_the_visible_one_closer_than_theirs(run, symmetry):
    arguments = run.faces, symmetry.visible, symmetry.foundation
    ours = border_step(*arguments, symmetry.ours.vertices)
    theirs = border_step(
        *arguments, np.where(symmetry.visible[:, None], symmetry.before, symmetry.after)
    )
    assert np.median(ours) < 0.6 * np.median(theirs)


def test_recovered_vertices_differ_from_theirs_by_what_their_soft_border_gives_up(symmetry):
    hidden = symmetry.ours.recovery > 0
    assert hidden.sum() > 20_000
    visible_shift = np.linalg.norm(symmetry.before - symmetry.foundation, axis=1)[symmetry.visible]
    difference = np.linalg.norm(symmetry.ours.vertices - symmetry.after, axis=1)[hidden]
    # their solution falls back to the foundation at the border, ours goes on from what was seen
    assert np.median(difference) < 1.5 * np.percentile(visible_shift, 75)


def test_sewn_mesh_is_one_surface_where_theirs_is_many(run, symmetry):
    stored = np.load(RUN, allow_pickle=False)
    theirs = mesh_report(stored["final_frontal_v"], stored["final_frontal_f"])
    before = mesh_report(run.vertices, run.faces)
    rotation, _ = cv2.Rodrigues(stored["pose_axis_angle_translation"][:3])
    translation = stored["pose_axis_angle_translation"][3:]
    in_camera = run.dense.vertices * OPENCV_FROM_OPENGL
    dense = ((in_camera - translation) @ rotation).astype(np.float32)
    registration = register_dense(run.raster, run.dense, dense, symmetry.ours.vertices, run.faces)
    recovered = symmetry.ours.recovery > 0
    reflected = complete_dense(
        *registration, symmetry.ours.vertices, run.faces, symmetry.mirror, recovered
    )
    mesh = Zipper(run.faces, symmetry.mirror).zip(
        symmetry.ours.vertices,
        run.vertices,
        symmetry.visible,
        recovered,
        dense,
        reflected.vertices,
        reflected.defined,
        run.raster.triangle,
        run.dense.vertex_of_pixel,
        CAMERA,
    )
    ours = mesh_report(mesh.vertices, mesh.faces)
    assert theirs.components > 10
    assert ours.components == before.components
    assert ours.boundary_loops == before.boundary_loops
    assert ours.non_manifold_edges == ours.inconsistent_edges == ours.unreferenced_vertices == 0
