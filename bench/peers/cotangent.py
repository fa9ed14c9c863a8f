"""The cotangent Laplacian of the completed sparse mesh: ours and libigl's."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.peers.contest import Agreement, Contender, Contest, Missing, gather, load
from bench.peers.settings import Settings, captured

NAME = "cotangent"
HELP = "cotangent matrix of a head: libigl"
THREADS = "both"
PACKAGES = ("libigl",)

PREPARED, COLD = "ours, neighbours prepared", "ours from scratch"
TOLERANCE = 1e-5  # of 1 + a weight: float32 has 7 digits
# Ours are bounded (laplacian.h): the smallest weight, and the largest sum of two halves of
# cotangents that are below the largest for certain.
LEAST, MOST = 1e-3, 10.0


def contest(settings: Settings) -> Contest:
    from extreme3d_fast import _core

    if not hasattr(_core, "EdgeRows"):
        raise Missing("this build of the package does not bind its cotangent weights: rebuild it")
    found, photo = captured(settings, "soft_symmetry")
    vertices = np.ascontiguousarray(found["soft_symmetry"].answer.vertices)
    faces = np.ascontiguousarray(found.face.foundation_faces, np.int32)
    n, threads = len(vertices), settings.threads
    edges = _core.EdgeRows(faces, n)
    offsets, neighbours = edges.csr()

    def prepared() -> np.ndarray:
        return edges.cotangent_weights(vertices, threads)

    def cold() -> tuple[np.ndarray, np.ndarray]:
        weights = _core.EdgeRows(faces, n).cotangent_weights(vertices, threads)
        return weights, np.add.reduceat(weights, offsets[:-1])

    peers, missing = gather(
        {"libigl": lambda: _igl(vertices, faces, (offsets, neighbours, prepared()))}
    )
    return Contest(
        given=f"{photo}: {n:,} vertices, {len(faces):,} faces, {len(neighbours):,} entries beside "
        "the diagonal",
        ours=[
            Contender(
                COLD,
                cold,
                "neighbours of every vertex, both entries of every edge, the diagonal; float32",
            ),
            Contender(
                PREPARED,
                prepared,
                "both entries of every edge, of neighbours that depend on the topology alone. (The "
                "pipeline does so for the hidden vertices, of F and of R, inside of Eq. 9.)",
            ),
        ],
        peers=peers,
        missing=missing,
        least_ms=20.0,
    )


def _igl(
    vertices: np.ndarray, faces: np.ndarray, ours: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> list[Contender]:
    igl = load("igl", "libigl")
    sparse = load("scipy.sparse", "scipy")
    # the types that its functions take, converted beforehand
    v, f = vertices.astype(np.float64), faces.astype(np.int64)
    offsets, neighbours, weights = ours
    matrix = sparse.csr_matrix((weights, neighbours, offsets), shape=(len(v), len(v)))

    def agreement_of_matrix(answer: Any) -> Agreement:
        theirs = sparse.csr_matrix(answer)
        theirs.setdiag(0)
        theirs.eliminate_zeros()
        return compare(matrix, theirs)

    def agreement_of_entries(answer: np.ndarray) -> Agreement:
        # half the cotangent of each corner's angle belongs to the edge across from it
        rows, columns = f[:, [1, 2, 0]].ravel(), f[:, [2, 0, 1]].ravel()
        half = sparse.coo_matrix((answer.ravel(), (rows, columns)), shape=matrix.shape).tocsr()
        return compare(matrix, half + half.T)

    return [
        Contender(
            "igl.cotmatrix",
            lambda: igl.cotmatrix(v, f),
            "the whole matrix from vertices and faces: there is no other way; float64",
            COLD,
            agreement_of_matrix,
        ),
        Contender(
            "igl.cotmatrix_entries",
            lambda: igl.cotmatrix_entries(v, f),
            "half the cotangent of each corner, not yet summed to edges, no matrix; float64",
            PREPARED,
            agreement_of_entries,
        ),
    ]


def compare(ours: Any, theirs: Any) -> Agreement:
    """Largest difference of the weights that our bounds leave alone, relative to 1 + weight."""
    difference = abs(ours - theirs).tocoo()
    theirs = theirs.tocsr()
    values = np.zeros(difference.nnz)
    if difference.nnz:  # an empty index gives another type
        values = np.asarray(theirs[difference.row, difference.col]).ravel()
    free = (values > LEAST) & (values < MOST)
    bounded = int((~free & (difference.data > TOLERANCE)).sum())
    error = (difference.data / (1 + np.abs(values)))[free]
    return Agreement(
        float(error.max(initial=0.0)),
        TOLERANCE,
        "of 1 + a weight, at most",
        f"without {bounded:,} of {ours.nnz:,} entries, which ours keeps within bounds",
    )
