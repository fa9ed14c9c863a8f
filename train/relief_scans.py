"""Relief of real heads, from scans: what is left of them when the head model is fitted.

The scan `james` is not among them: it is kept for measuring.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from relief_atlas import HEIGHT, TEXEL, U_MAX, WIDTH, Atlas

from extreme3d_fast.head_model import HeadModel

# The scans taken, and how far their triangles are smoothed away.
FACETS_MM = {"flame_fitting_scan": 0.6, "meshmonk_demoface": 1.5}
SIDE_MM = 85.0  # further out there are ears, hair and the edge of the scans
BAND_MM = 12.0  # waves longer than about 60 mm are the head model's
MAX_RELIEF = 3.0  # mm


def scan_relief(model: HeadModel, data: Path, atlas: Atlas) -> np.ndarray:
    """(n, H, W) float32 mm outward on the atlas, 0 where a scan has nothing to say."""
    import scipy.sparse as sp
    from measure import face_basis, fit, load_scans
    from registration import Surface

    operator = sp.identity(len(model.mean), format="csr")
    for level in model.subdivision:
        shape = (len(level.indptr) - 1, operator.shape[0])
        operator = sp.csr_matrix((level.weights, level.indices, level.indptr), shape) @ operator
    operator = operator[: model.skin_vertex_count].astype(np.float64)
    basis = np.concatenate([model.identity, model.expression])
    precision = np.concatenate([np.ones(model.n_identity), np.full(model.n_expression, 16.0)])
    face = face_basis(operator, model.faces, model.mean, basis, precision, model.face_weight)
    landmarks = model.landmark_basis("68").mean
    on_mesh = Surface(face.mean, face.faces)
    at, bary, foot = on_mesh.closest(landmarks)
    corners, weights, shape = atlas.low()
    inside = np.flatnonzero(weights.sum(1) > 0)
    column = np.abs((np.arange(0, WIDTH, 2) + 0.5) * TEXEL - U_MAX)
    side = np.clip((SIDE_MM - column) / 20, 0, 1).astype(np.float32)
    out = []
    for name, (scan, points) in load_scans(data / "scans", landmarks).items():
        if name not in FACETS_MM:
            continue
        given = None
        if points is not None:
            use = np.isfinite(points).all(1) & (np.linalg.norm(foot - landmarks, axis=1) < 3)
            given = (at[use], bary[use], points[use])
        error, alpha, _, (rotation, shift) = fit(face, scan, landmarks=given)
        print(f"{name}: fitted to {error:.2f} mm")
        head = operator @ (model.mean + np.tensordot(alpha, basis, 1)) @ rotation.T + shift
        surface = Surface(head, model.faces)
        w = weights[inside, :, None]
        p = (w * head[corners[inside]]).sum(1)
        n = (w * surface.normals[corners[inside]]).sum(1)
        n /= np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-6)
        height = np.zeros(len(p))
        for _ in range(3):  # along the normal to the scan
            q = p + height[:, None] * n
            triangle, share, near = scan.closest(q)
            height += ((near - q) * n).sum(1)
        q = p + height[:, None] * n
        scan_normal = (share[..., None] * scan.normals[scan.faces[triangle]]).sum(1)
        good = np.linalg.norm(near - q, axis=1) < 0.7
        good &= (np.abs(height) < 6) & ((scan_normal * n).sum(1) > 0.7) & ~scan.rim[triangle]
        maps = np.zeros((2, shape[0] * shape[1]), np.float32)
        maps[:, inside] = np.where(good, height, 0), good
        image, known = maps.reshape(2, *shape)
        known *= (atlas.skin[::2, ::2] > 0.95) & (atlas.weight[::2, ::2] > 0.05)
        sigma = BAND_MM / (2 * TEXEL)
        average = cv2.GaussianBlur(image * known, (0, 0), sigma)
        average /= np.maximum(cv2.GaussianBlur(known, (0, 0), sigma), 1e-3)
        fade = cv2.erode(known, np.ones((3, 3)))
        fade = cv2.GaussianBlur(cv2.erode(fade, np.ones((7, 7))), (0, 0), 2.5)
        fade *= side * np.clip(2 * atlas.even[::2, ::2] - 0.6, 0, 1)
        relief = np.clip(image - average, -MAX_RELIEF, MAX_RELIEF)
        relief = cv2.GaussianBlur(relief, (0, 0), FACETS_MM[name] / (2 * TEXEL)) * fade * known
        out.append(cv2.resize(relief, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC))
    return np.array(out, np.float32)


def load_scan_relief(cache: Path, model: HeadModel, data: Path, atlas: Atlas) -> np.ndarray:
    """The relief from `cache`, made first where it is not there."""
    file = cache / "scan_relief.npy"
    if not file.exists():
        if not (data / "scans").is_dir():
            return np.zeros((0, HEIGHT, WIDTH), np.float32)
        cache.mkdir(parents=True, exist_ok=True)
        np.save(file, scan_relief(model, data, atlas))
    return np.load(file)
