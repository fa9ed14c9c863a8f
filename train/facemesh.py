"""Finds the head's points that MediaPipe FaceMesh's 478 landmarks name.

The canonical FaceMesh model is not in the mediapipe wheel, so its mean shape is recovered from the
labels of near-frontal, neutral photos and laid onto the mean head: feature curves onto feature
curves, the rest onto the surface. Only the resulting correspondences leave this file.
"""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from registration import (
    Surface,
    fractions_of,
    register_template,
    resample,
    similarity,
    uniform_laplacian,
)
from scipy.optimize import linear_sum_assignment

# Feature curves of the subject's left side (or middle), from the smallest to the largest x.
LEFT_LID = (
    [362, 398, 384, 385, 386, 387, 388, 466, 263],
    [362, 382, 381, 380, 374, 373, 390, 249, 263],
)
RIGHT_LID = (
    [33, 246, 161, 160, 159, 158, 157, 173, 133],
    [33, 7, 163, 144, 145, 153, 154, 155, 133],
)
LIP_BORDER = (
    [61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291],
    [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291],
)
LIP_CONTACT = (
    [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308],
    [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308],
)
CURVES = {
    "left_lid_edge": LEFT_LID,
    "right_lid_edge": RIGHT_LID,
    "lip_border": LIP_BORDER,
    "lip_contact": LIP_CONTACT,
}
N_SKIN_POINTS = 468
KNOWN_PAIRS = [(33, 263), (133, 362), (61, 291), (234, 454), (70, 300), (48, 278), (172, 397)]


def tessellation(connections: Path) -> np.ndarray:
    """(852, 3) triangles from mediapipe's `face_mesh_connections.py`: its edges come in threes."""
    for node in ast.parse(connections.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "FACEMESH_TESSELATION":
            edges = np.array(ast.literal_eval(node.value.args[0]))
            return edges.reshape(-1, 3, 2)[:, :, 0]
    raise ValueError(f"{connections} does not define FACEMESH_TESSELATION")


def mean_shape(photos: Path) -> np.ndarray:
    """(478, 3) mean label of near-frontal, neutral faces; x to the subject's left, y up, z out."""
    labels, points = np.load(photos / "face_labels.npz"), np.load(photos / "landmarks478.npz")
    score = dict(zip(labels["blendshape_names"].tolist(), labels["blendshapes"].T, strict=True))
    keep = (np.abs(labels["pose_whenet"]) < 10).all(1)
    limits = {
        "jawOpen": 0.04,
        "mouthSmileLeft": 0.3,
        "mouthSmileRight": 0.3,
        "eyeBlinkLeft": 0.3,
        "eyeBlinkRight": 0.3,
        "mouthPucker": 0.3,
        "browInnerUp": 0.4,
    }
    for name, limit in limits.items():
        keep &= score[name] < limit
    xy = points["xy_u16"][keep].astype(float) / 8 - 256
    z = points["z_i16"][keep].astype(float) / 2
    shapes = np.concatenate([xy, z[..., None]], 2) * [1, -1, -1]
    mean = shapes[0]
    for _ in range(6):
        aligned = []
        for shape in shapes:
            s, rotation, shift = similarity(shape, mean)
            aligned.append(s * shape @ rotation.T + shift)
        mean = np.median(aligned, 0)
        mean -= mean.mean(0)
        mean /= np.sqrt((mean**2).sum(1).mean())
    return mean


def mirror_table(mean: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(478,) left-right involution; checked to be an automorphism of the tessellation."""
    mean = _to_plane(mean, np.array(KNOWN_PAIRS).T)
    cost = np.linalg.norm(mean[:, None] - mean[None] * [-1, 1, 1], axis=2)
    _, mirror = linear_sum_assignment(cost[:N_SKIN_POINTS, :N_SKIN_POINTS] ** 2)
    assert (mirror[mirror] == np.arange(N_SKIN_POINTS)).all()
    faces = {tuple(sorted(t)) for t in triangles.tolist()}
    kept = sum(tuple(sorted(t)) in faces for t in mirror[triangles].tolist())
    print(f"  FaceMesh mirror table keeps {kept} of {len(faces)} triangles")
    iris = [473, 476, 475, 474, 477, 468, 471, 470, 469, 472]
    return np.concatenate([mirror, iris])


def symmetrise(mean: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    turned = _to_plane(mean, np.stack([np.arange(len(mean)), mirror]))
    return 0.5 * (turned + turned[mirror] * [-1, 1, 1])


def _to_plane(points: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Turns points so that pairs (2, P) are images of each other in x = 0 as nearly as can be."""
    left, right = points[pairs[0]], points[pairs[1]]
    x = np.linalg.eigh((left - right).T @ (left - right))[1][:, -1]
    x *= np.sign(x[0])
    y = np.array([0, 1.0, 0]) - x * x[1]
    y /= np.linalg.norm(y)
    return (points - 0.5 * (left + right).mean(0)) @ np.stack([x, y, np.cross(x, y)]).T


def register(
    photos: Path,
    connections: Path,
    fine: np.ndarray,
    faces: np.ndarray,
    allowed: np.ndarray,
    loop_halves: dict[str, tuple[np.ndarray, np.ndarray]],
    anchors: dict[int, np.ndarray],
):
    """Positions (468, 3) of the FaceMesh points on the mean head, with the raw shape and mirror.

    allowed: (F,) faces points may lie on; loop_halves: upper and lower vertex ids of each feature
    loop, smallest x first; anchors: positions known otherwise, such as the nose tip.
    """
    triangles = tessellation(connections)
    raw = mean_shape(photos)
    mirror = mirror_table(raw, triangles)
    raw = symmetrise(raw, mirror)
    shape = raw[:N_SKIN_POINTS]

    index, position = [], []
    for name, halves in CURVES.items():
        for points, half in zip(halves, loop_halves[name], strict=True):
            index += points
            position.append(resample(fine[half], fractions_of(shape[points])))
    index += list(anchors)
    position.append(np.array(list(anchors.values())).reshape(-1, 3))
    index, position = np.array(index), np.concatenate(position)

    # FaceMesh's depth has its own scale: find it together with the similarity
    scaled = shape.copy()
    for _ in range(5):
        s, rotation, shift = similarity(scaled[index], position)
        back = (position - shift) @ rotation / s
        spread = scaled[index, 2] - scaled[index, 2].mean()
        scaled[:, 2] *= (spread @ (back[:, 2] - back[:, 2].mean())) / (spread @ spread)
    start = s * scaled @ rotation.T + shift
    start = 0.5 * (start + start[mirror[:N_SKIN_POINTS]] * [-1, 1, 1])
    miss = np.linalg.norm(start[index] - position, axis=1).mean()
    print(f"  FaceMesh mean: scale {s:.1f} mm, residual of curves {miss:.2f} mm")

    edges = np.unique(np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), 1), axis=0)
    laplacian = uniform_laplacian(edges, N_SKIN_POINTS)
    smooth = (laplacian.T @ laplacian).tocsr()
    surface = Surface(fine, faces[allowed])
    rows = sp.csr_matrix(
        (np.ones(len(index)), (np.arange(len(index)), index)), (len(index), N_SKIN_POINTS)
    )
    orientation = triangles if _outward(start, triangles) else triangles[:, ::-1]
    x, _ = register_template(
        start,
        sp.identity(N_SKIN_POINTS, format="csr"),
        orientation,
        np.arange(N_SKIN_POINTS),
        smooth,
        surface,
        [(rows, position, 10.0)],
        mirror[:N_SKIN_POINTS],
        schedule=[(s, 30.0) for s in np.geomspace(20, 0.5, 12)],
    )
    _, _, foot = surface.closest(x, 20)
    gap = np.linalg.norm(foot - x, axis=1).mean()
    moved = np.linalg.norm(x - start, axis=1).mean()
    print(f"  FaceMesh points: moved {moved:.2f} mm from the similarity fit, {gap:.2f} mm to go")
    foot[index[: len(index) - len(anchors)]] = position[: len(index) - len(anchors)]
    return foot, mirror, orientation, raw, start


def calibrate(photos: Path, basis, count: int = 120, seed: int = 0) -> np.ndarray:
    """(468, 3) mean offset, in the head frame, of photo labels from the fitted model's landmarks.

    basis: mean (468, 3), identity (K, 468, 3), expression (E, 468, 3). Each photo is fitted with a
    scaled orthographic camera and the model's prior; what is left on average is not identity,
    expression or pose but a wrong correspondence.
    """
    labels, points = np.load(photos / "face_labels.npz"), np.load(photos / "landmarks478.npz")
    pose = np.abs(labels["pose_whenet"])
    clear = np.array([n.startswith(("celebamask", "utkface")) for n in labels["names"].tolist()])
    pool = np.flatnonzero(clear & (pose[:, 0] < 15) & (pose[:, 1] < 30) & (pose[:, 2] < 25))
    chosen = np.random.default_rng(seed).choice(pool, count, replace=False)
    xy = (points["xy_u16"][chosen, :N_SKIN_POINTS].astype(float) / 8 - 256) * [1, -1]
    normal, right, residuals = 0.3 * np.eye(3)[None] * 0.2 * count, 0.0, []
    for q in xy:
        left, rotation = _fit_orthographic(q, *basis)
        p = rotation[:2]
        normal = normal + p.T @ p
        right = right + left @ p
        residuals.append(np.sqrt((left**2).sum(1).mean()))
    offset = np.linalg.solve(np.broadcast_to(normal, (N_SKIN_POINTS, 3, 3)), right[..., None])[
        ..., 0
    ]
    systematic = np.linalg.norm(offset, axis=1).mean()
    median = np.median(residuals)
    print(f"  photos: residual {median:.2f} mm in the median, systematic part {systematic:.2f} mm")
    return offset


def _fit_orthographic(q, mean, identity, expression, iterations: int = 7, sigma: float = 2.4):
    """Residuals (L, 2) in mm and rotation of a scaled orthographic fit to image points (y up)."""
    k, e, n = len(identity), len(expression), len(q)
    a, eta, rotation = np.zeros(k), np.zeros(e), np.eye(3)
    s = np.ptp(q[:, 0]) / np.ptp(mean[:, 0])
    t = q.mean(0) - s * mean[:, :2].mean(0)
    prior = np.concatenate([np.ones(k), np.full(e, 4.0), np.full(6, 1e-6)]) * sigma**2
    for step in range(iterations + 1):
        y = (mean + np.tensordot(a, identity, 1) + np.tensordot(eta, expression, 1)) @ rotation.T
        left = (q - (s * y[:, :2] + t)) / s
        if step == iterations:
            return left, rotation
        jac = np.zeros((n, 2, k + e + 6))
        if step > 2:
            jac[:, :, :k] = (identity @ rotation.T)[:, :, :2].transpose(1, 2, 0)
            jac[:, :, k : k + e] = (expression @ rotation.T)[:, :, :2].transpose(1, 2, 0)
        for d in range(3):
            jac[:, :, k + e + d] = np.cross(np.eye(3)[d], y)[:, :2]
        jac[:, :, k + e + 3] = y[:, :2]
        jac[:, 0, k + e + 4] = jac[:, 1, k + e + 5] = 1
        jac = jac.reshape(2 * n, -1)
        now = np.concatenate([a, eta, np.zeros(6)])
        x = np.linalg.solve(jac.T @ jac + np.diag(prior), jac.T @ left.ravel() - prior * now)
        if step > 2:
            a, eta = a + x[:k], eta + x[k : k + e]
        w = x[k + e : k + e + 3]
        angle = max(float(np.linalg.norm(w)), 1e-12)
        u = np.cross(np.eye(3), w / angle)
        rotation = (np.eye(3) + np.sin(angle) * u + (1 - np.cos(angle)) * u @ u) @ rotation
        t, s = t + s * x[k + e + 4 :], s * (1 + x[k + e + 3])
    raise AssertionError


def _outward(points: np.ndarray, triangles: np.ndarray) -> bool:
    a, b, c = points[triangles].transpose(1, 0, 2)
    return float(np.cross(b - a, c - a)[:, 2].sum()) > 0
