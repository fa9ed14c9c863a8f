"""Cuts head and neck out of the MakeHuman body and prepares what depends on topology only."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from makehuman import BaseMesh
from subdivision import catmull_clark, edges_of, linear, refine_mirror, refine_quads, triangulate

#: Edge loop low on the neck that the cut follows: a vertex on its front and the next one.
NECK_LOOP_START = 1522
PART_GROUPS = {
    "left_eye": "helper-l-eye",
    "right_eye": "helper-r-eye",
    "upper_teeth": "helper-upper-teeth",
    "lower_teeth": "helper-lower-teeth",
    "tongue": "helper-tongue",
}


@dataclass(frozen=True)
class Topology:
    """Coarse quads of skin and parts, two subdivision levels, tables. Skin vertices come first."""

    body_ids: np.ndarray  # (Vc,) vertex of the MakeHuman base mesh of each coarse vertex
    quads: np.ndarray  # (Qc, 4)
    mirror: np.ndarray  # (Vc,)
    part_names: list[str]
    coarse_range: np.ndarray  # (P, 2)
    levels: list[sp.csr_matrix]
    fine_range: np.ndarray  # (P, 2)
    part_faces: dict[str, np.ndarray]  # fine triangles
    fine_quads: dict[str, np.ndarray]
    fine_mirror: np.ndarray
    part_uv: dict[str, tuple[np.ndarray, np.ndarray]]  # uv (N, 2), triangles of uv indices

    @property
    def fine_from_coarse(self) -> sp.csr_matrix:
        return (self.levels[1] @ self.levels[0]).tocsr()

    @property
    def faces(self) -> np.ndarray:
        return self.part_faces["skin"]

    def coarse_part(self, name: str) -> slice:
        return slice(*self.coarse_range[self.part_names.index(name)])

    def fine_part(self, name: str) -> slice:
        return slice(*self.fine_range[self.part_names.index(name)])


class EdgeLoops:
    """Walks edge loops of a quad mesh: straight on through vertices of valence four."""

    def __init__(self, quads: np.ndarray):
        self.quads = quads
        self.quads_of_edge = defaultdict(list)
        self.quads_of_vertex = defaultdict(set)
        self.neighbours = defaultdict(set)
        for f, q in enumerate(quads.tolist()):
            for a, b in zip(q, q[1:] + q[:1], strict=True):
                self.quads_of_edge[min(a, b), max(a, b)].append(f)
                self.neighbours[a].add(b)
                self.neighbours[b].add(a)
            for a in q:
                self.quads_of_vertex[a].add(f)

    def walk(self, a: int, b: int, limit: int = 400) -> list[int] | None:
        """Closed loop that starts along a → b, or None where it ends at an irregular vertex."""
        loop = [a, b]
        while True:
            p, c = loop[-2:]
            if len(self.quads_of_vertex[c]) != 4 or len(loop) > limit:
                return None
            beside = {v for f in self.quads_of_edge[min(p, c), max(p, c)] for v in self.quads[f]}
            (following,) = self.neighbours[c] - beside
            if following == a:
                return loop
            loop.append(following)


def cut_head(base: BaseMesh) -> np.ndarray:
    """Indices into `base.quads` of all that is on the head's side of the neck loop."""
    body = np.flatnonzero(base.group == "body")
    loops = EdgeLoops(base.quads[body])
    candidates = (
        loops.walk(NECK_LOOP_START, b)
        for b in loops.neighbours[NECK_LOOP_START]
        if base.vertices[b, 0] > 0
    )
    loop = next(c for c in candidates if c is not None)
    wall = {tuple(sorted(e)) for e in zip(loop, loop[1:] + loop[:1], strict=True)}
    top = int(np.argmax(base.vertices[base.quads[body]][:, :, 1].mean(1)))
    seen, stack = {top}, [top]
    while stack:
        q = loops.quads[stack.pop()].tolist()
        for a, b in zip(q, q[1:] + q[:1], strict=True):
            edge = (min(a, b), max(a, b))
            if edge in wall:
                continue
            for f in loops.quads_of_edge[edge]:
                if f not in seen:
                    seen.add(f)
                    stack.append(f)
    return body[np.sort(list(seen))]


def build_topology(base: BaseMesh) -> Topology:
    names = ["skin", *PART_GROUPS]
    selection = {"skin": cut_head(base)}
    selection |= {n: np.flatnonzero(base.group == g) for n, g in PART_GROUPS.items()}

    body_ids, quads, ranges = [], [], []
    start = 0
    for name in names:
        ids = np.unique(base.quads[selection[name]])
        local = np.full(len(base.vertices), -1)
        local[ids] = start + np.arange(len(ids))
        quads.append(local[base.quads[selection[name]]])
        body_ids.append(ids)
        ranges.append((start, start + len(ids)))
        start += len(ids)
    ids = np.concatenate(body_ids)
    local = np.full(len(base.vertices), -1)
    local[ids] = np.arange(len(ids))
    mirror = local[base.mirror[ids]]
    assert (mirror >= 0).all()

    # Parts are refined one by one, so that each keeps one contiguous range at every level; mirror
    # tables need left and right eye together, so they are refined as one mesh and re-sorted.
    part_quads, part_n = list(quads), [b - a for a, b in ranges]
    part_quads = [q - a for q, (a, _) in zip(quads, ranges, strict=True)]
    all_quads, all_mirror = np.concatenate(quads), mirror
    levels, part_uv = [], {}
    uv = {n: (base.uv, base.quads_uv[selection[n]]) for n in names}
    for _ in range(2):
        levels.append(
            sp.block_diag(
                [catmull_clark(q, n) for q, n in zip(part_quads, part_n, strict=True)], "csr"
            )
        )
        joint_n = sum(part_n)
        joint_mirror = refine_mirror(all_quads, all_mirror)
        # position in part order of each vertex of the joint refinement: compare operator rows
        joint = catmull_clark(all_quads, joint_n)
        order = _match_refinement(all_quads, part_quads, part_n)
        assert abs(joint - levels[-1][order]).max() < 1e-12
        all_mirror = np.empty_like(joint_mirror)
        all_mirror[order] = order[joint_mirror]
        new_quads = [refine_quads(q, n) for q, n in zip(part_quads, part_n, strict=True)]
        for name in names:
            points, corners = uv[name]
            used, corners = np.unique(corners, return_inverse=True)
            corners = corners.reshape(-1, 4)
            points = points[used]
            uv[name] = (
                linear(corners, len(points)) @ points,
                refine_quads(corners, len(points)),
            )
        part_n = [int(q.max()) + 1 for q in new_quads]
        part_quads = new_quads
        offsets = np.concatenate([[0], np.cumsum(part_n)])
        all_quads = np.concatenate([q + o for q, o in zip(part_quads, offsets[:-1], strict=True)])
    offsets = np.concatenate([[0], np.cumsum(part_n)])
    fine_range = np.stack([offsets[:-1], offsets[1:]], 1)

    fine = (levels[1] @ levels[0]) @ base.vertices[ids]
    triangles = triangulate(all_quads, all_mirror, fine[:, 0])
    uv_offsets = np.cumsum([0] + [len(q) for q in part_quads])
    part_faces, fine_quads = {}, {}
    for p, name in enumerate(names):
        rows = slice(2 * uv_offsets[p], 2 * uv_offsets[p + 1])
        part_faces[name] = triangles[rows]
        fine_quads[name] = all_quads[uv_offsets[p] : uv_offsets[p + 1]]
        points, corners = uv[name]
        # the corner of the quad that each triangle corner came from, to carry its uv index
        quad = np.repeat(fine_quads[name], 2, axis=0)
        slot = (part_faces[name][:, :, None] == quad[:, None, :]).argmax(2)
        part_uv[name] = (points, np.take_along_axis(np.repeat(corners, 2, axis=0), slot, 1))
    return Topology(
        ids,
        np.concatenate(quads),
        mirror,
        names,
        np.array(ranges),
        levels,
        fine_range,
        part_faces,
        fine_quads,
        all_mirror,
        part_uv,
    )


def _match_refinement(all_quads, part_quads, part_n) -> np.ndarray:
    """Id, when parts are refined one by one, of each vertex of the jointly refined mesh."""
    n = sum(part_n)
    edges, _, _ = edges_of(all_quads)
    start = np.concatenate([[0], np.cumsum(part_n)])
    owner_v = np.repeat(np.arange(len(part_n)), part_n)
    part_edges = [len(edges_of(q)[0]) for q in part_quads]
    part_faces = [len(q) for q in part_quads]
    fine_start = np.concatenate(
        [[0], np.cumsum(np.array(part_n) + np.array(part_edges) + np.array(part_faces))]
    )
    order_v = np.arange(n) - start[owner_v] + fine_start[owner_v]
    # np.unique sorts edges, so those of a part are consecutive and in its own order
    owner_e = owner_v[edges[:, 0]]
    first_e = np.concatenate([[0], np.cumsum(part_edges)])
    order_e = (
        np.arange(len(edges)) - first_e[owner_e] + fine_start[owner_e] + np.array(part_n)[owner_e]
    )
    owner_f = np.repeat(np.arange(len(part_n)), part_faces)
    first_f = np.concatenate([[0], np.cumsum(part_faces)])
    shift = fine_start[:-1] + np.array(part_n) + np.array(part_edges)
    order_f = np.arange(len(all_quads)) - first_f[owner_f] + shift[owner_f]
    return np.concatenate([order_v, order_e, order_f])
