"""What a finished head must be, counted with NumPy and SciPy: a second opinion on the core."""

from __future__ import annotations

import numpy as np

# What a mesh must have none of, and one of.
FAULTS = (
    "not finite",
    "faces of 2 vertices",
    "faces without area",
    "unreferenced vertices",
    "edges of 3 faces or more",
    "edges run twice one way",
    "bow ties",
    "border off the neck",
    "far off",
    "inside out",
)
ONES = ("pieces", "borders")
# Of its longest edge squared: a triangle of less has no area (the core's rule).
NO_AREA = 1e-12
FAR = 400.0  # mm from the middle of the head


def mesh_counts(vertices: np.ndarray, faces: np.ndarray, neck: float) -> dict[str, int]:
    """Counts of FAULTS and ONES.

    Args:
        vertices: (V, 3) mm, head frame (y up).
        faces: (F, 3), counter-clockwise seen from outside.
        neck: mm; the border belongs to the neck where y is below.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(vertices)
    v, faces = np.asarray(vertices, np.float64), np.asarray(faces, np.int64)
    twice = (faces == np.roll(faces, 1, axis=1)).any(axis=1)
    f = faces[~twice]
    half = np.concatenate([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]])  # as the faces run
    _, of_edge, size = np.unique(
        half.min(1) * n + half.max(1), return_inverse=True, return_counts=True
    )
    _, times = np.unique(half[:, 0] * n + half[:, 1], return_counts=True)
    border = half[size[of_edge] == 1]
    used = np.unique(faces)

    def parts(rows: np.ndarray, columns: np.ndarray, count: int) -> np.ndarray:
        links = coo_matrix((np.ones(len(rows), bool), (rows, columns)), (count, count))
        return connected_components(links, directed=False)[1]

    label = parts(half[:, 0], half[:, 1], n)
    # a corner of a face is a node; the corners of two faces at either end of their shared edge are
    # linked: a vertex has as many fans as its corners have parts
    corner = np.arange(3 * len(f)).reshape(-1, 3)
    start = np.concatenate([corner[:, 0], corner[:, 1], corner[:, 2]])
    end = np.concatenate([corner[:, 1], corner[:, 2], corner[:, 0]])
    order = np.argsort(of_edge, kind="stable")
    linked = of_edge[order][1:] == of_edge[order][:-1]
    a, b = order[:-1][linked], order[1:][linked]
    same_way = half[a, 0] == half[b, 0]
    first = np.concatenate([start[a], end[a]])
    second = np.concatenate(
        [np.where(same_way, start[b], end[b]), np.where(same_way, end[b], start[b])]
    )
    fan = parts(first, second, corner.size)
    fans_of_vertex = np.unique(f.ravel() * (corner.size + 1) + fan)
    fans = np.bincount(fans_of_vertex // (corner.size + 1), minlength=n)
    edges = v[f] - v[np.roll(f, 1, axis=1)]
    longest = (edges**2).sum(2).max(1)
    double_area = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1)
    on_border = np.unique(border)
    ring = parts(border[:, 0], border[:, 1], n)
    return {
        "not finite": int((~np.isfinite(v).all(axis=1)).sum()),
        "faces of 2 vertices": int(twice.sum()),
        "faces without area": int((double_area <= NO_AREA * longest).sum()),
        "unreferenced vertices": n - len(used),
        "edges of 3 faces or more": int((size > 2).sum()),
        "edges run twice one way": int((times > 1).sum()),
        "bow ties": int((fans > 1).sum()),
        "border off the neck": int((v[on_border, 1] >= neck).sum()),
        "far off": int((np.abs(v) > FAR).any(axis=1).sum()),
        # the volume that the faces enclose with the origin, which is in the head
        "inside out": int(np.einsum("ij,ij", v[f[:, 0]], np.cross(v[f[:, 1]], v[f[:, 2]])) <= 0),
        "pieces": len(np.unique(label[f])),
        "borders": len(np.unique(ring[on_border])),
    }


def faults_of(counts: dict[str, int]) -> list[str]:
    """What is wrong, in words; nothing where the head is as it must be."""
    wrong = [f"{counts[name]} {name}" for name in FAULTS if counts[name]]
    return wrong + [f"{counts[name]} {name}" for name in ONES if counts[name] != 1]
