"""Three pieces of a head made one mesh: our zipper, and repair by trimesh and pymeshlab."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from bench.peers.contest import Agreement, Contender, Contest, gather, load
from bench.peers.settings import Settings, captured

NAME = "sewing"
HELP = "pieces of a head made one mesh: trimesh, pymeshlab"
THREADS = "one"  # ours has one thread
PACKAGES = ("trimesh", "pymeshlab", "scipy")

OURS = "ours"
POISSON_DEPTH = 8  # its default: cells of 1.3 mm of a head of 300 mm
NEAR = 95  # percent
MOST_ROUNDS = 5  # peers take seconds
ANY = 1_000_000  # edges of a hole: more than any has


class Pieces(NamedTuple):
    """Meshes laid side by side in one, which share no vertex."""

    vertices: np.ndarray  # (V, 3) float32 mm
    faces: np.ndarray  # (F, 3) int32
    spacing: float  # mm, median edge
    count: int


def contest(settings: Settings) -> Contest:
    found, photo = captured(settings, "zipper")
    zipper = found["zipper"]
    pieces = pieces_of(zipper.answer)
    openings = _loops(found.face.foundation_faces, len(found.face.foundation))
    peers, missing = gather(
        {
            "trimesh": lambda: _trimesh(pieces, openings),
            "pymeshlab": lambda: _pymeshlab(pieces, openings),
        }
    )
    ours = validity(zipper.answer.vertices, zipper.answer.faces, openings)
    return Contest(
        given=f"{photo}: what it shows, the mirror image of that and the head, {pieces.count} "
        f"pieces of {len(pieces.vertices):,} vertices. Ours takes them whole, overlap and all; "
        "peers get them cut to size by ours, with only the gaps between them to be closed",
        ours=[
            Contender(OURS, zipper, "overlap found and cut out, strips triangulated"),
        ],
        peers=peers,
        missing=missing,
        most=MOST_ROUNDS,
        counts={"result of ours": ours.note},
    )


def pieces_of(zipped: Any) -> Pieces:
    """The parts of the result that come from one mesh each: all but the strips between them."""
    from extreme3d_fast.mesh import mesh_report

    source = np.asarray(zipped.source)
    of_corner = source[zipped.faces]
    faces = zipped.faces[(of_corner == of_corner[:, :1]).all(1)]
    used, renumbered = np.unique(faces, return_inverse=True)
    vertices = np.ascontiguousarray(zipped.vertices[used])
    faces = np.ascontiguousarray(renumbered.reshape(-1, 3).astype(np.int32))
    edges = vertices[faces[:, 0]] - vertices[faces[:, 1]]
    spacing = float(np.median(np.linalg.norm(edges, axis=1)))
    return Pieces(vertices, faces, spacing, mesh_report(vertices, faces).components)


def _loops(faces: np.ndarray, n: int) -> int:
    from extreme3d_fast.mesh import boundary_loops

    return len(boundary_loops(faces, n))


def validity(
    vertices: np.ndarray, faces: np.ndarray, openings: int, pieces: Pieces | None = None
) -> Agreement:
    """What is wrong with a mesh, counted: 0 for one manifold, oriented piece with the head's
    openings."""
    from extreme3d_fast.mesh import mesh_report

    r = mesh_report(np.asarray(vertices, np.float32), np.asarray(faces, np.int32))
    wrong = {
        "pieces too many": r.components - 1,
        "edges or vertices not manifold": r.non_manifold_edges + r.non_manifold_vertices,
        "edges not oriented": r.inconsistent_edges,
        "degenerate faces": r.degenerate_faces,
        f"openings off {openings}": abs(r.boundary_loops - openings),
    }
    said = ", ".join(f"{count:,} {what}" for what, count in wrong.items() if count)
    note = f"{r.vertices:,} vertices; {said or 'one manifold, oriented piece'}"
    if pieces is not None:
        note += (
            f"; {NEAR} % of the vertices given have one within {_reach(pieces, vertices):.2f} mm"
        )
    return Agreement(float(sum(wrong.values())), 0.0, "faults of the mesh", note)


def _reach(pieces: Pieces, vertices: np.ndarray) -> float:
    tree = load("scipy.spatial", "scipy").cKDTree(vertices)
    return float(np.percentile(tree.query(pieces.vertices)[0], NEAR))


def _trimesh(pieces: Pieces, openings: int) -> list[Contender]:
    trimesh = load("trimesh", "trimesh")
    repair = load("trimesh.repair", "trimesh")

    def mended(*, fan: bool) -> Any:
        mesh = trimesh.Trimesh(pieces.vertices, pieces.faces, process=False)
        mesh.merge_vertices()
        mesh.update_faces(mesh.nondegenerate_faces() & mesh.unique_faces())
        repair.fill_holes(mesh, use_fan=fan)
        repair.fix_normals(mesh)
        return mesh

    def agreement(mesh: Any) -> Agreement:
        return validity(mesh.vertices, mesh.faces, openings, pieces)

    does = "vertices merged, bad faces removed, holes filled{}, normals made consistent"
    return [
        Contender("trimesh.repair", lambda: mended(fan=False), does.format(""), OURS, agreement),
        Contender(
            "trimesh.repair, fans",
            lambda: mended(fan=True),
            does.format(" by fans of any size"),
            OURS,
            agreement,
        ),
    ]


def _pymeshlab(pieces: Pieces, openings: int) -> list[Contender]:
    meshlab = load("pymeshlab", "pymeshlab")
    vertices, faces = pieces.vertices.astype(np.float64), pieces.faces

    def loaded() -> Any:
        meshes = meshlab.MeshSet()
        meshes.add_mesh(meshlab.Mesh(vertices, faces))
        return meshes

    def mended(weld_mm: float) -> Any:
        meshes = loaded()
        meshes.meshing_merge_close_vertices(threshold=meshlab.PureValue(weld_mm))
        meshes.meshing_remove_duplicate_faces()
        meshes.meshing_repair_non_manifold_edges()
        meshes.meshing_repair_non_manifold_vertices()
        meshes.meshing_close_holes(maxholesize=ANY)
        meshes.meshing_re_orient_faces_coherently()
        return meshes  # owns its meshes

    def poisson() -> Any:
        meshes = loaded()
        meshes.generate_surface_reconstruction_screened_poisson(
            depth=POISSON_DEPTH, preclean=True, threads=1
        )
        return meshes  # owns its meshes

    def agreement(meshes: Any) -> Agreement:
        mesh = meshes.current_mesh()
        return validity(mesh.vertex_matrix(), mesh.face_matrix(), openings, pieces)

    does = "vertices within {:.2f} mm merged, non-manifold parts removed, all holes closed"
    weld = {"pymeshlab repair": pieces.spacing / 100, "pymeshlab repair, welded": pieces.spacing}
    made = [
        Contender(
            name,
            lambda mm=mm: mended(mm),
            does.format(mm),
            OURS,
            agreement,  # type: ignore[misc]
        )
        for name, mm in weld.items()
    ]
    made.append(
        Contender(
            "pymeshlab screened Poisson",
            poisson,
            f"a new surface near all vertices, depth {POISSON_DEPTH}, sampled anew",
            OURS,
            agreement,
        )
    )
    return made
