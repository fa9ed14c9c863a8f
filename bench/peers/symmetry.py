"""The linear system of soft symmetry (Eq. 9): our Cholesky, libigl's, SuperLU, CHOLMOD."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from bench.peers.contest import Agreement, Contender, Contest, Missing, gather, load
from bench.peers.settings import Settings, captured

NAME = "symmetry"
HELP = "soft symmetry, Eq. 9: libigl, SciPy's SuperLU, CHOLMOD"
THREADS = "both"
PACKAGES = ("libigl", "scipy", "scikit-sparse")

OURS = "ours"
TOLERANCE_MM = 1e-3  # ours are float32 vertices of a head of 100 mm: 8e-6 mm each, times the solve
MAX_COTANGENT, MIN_WEIGHT = 20.0, 1e-3  # as in laplacian.h, lest another system be solved
MIRRORED, FOUNDATION = 1, 2  # extreme3d_fast.soft_symmetry.Recovery
FACTOR = "the matrix is given (ours assembles it in its time)"


@dataclass(frozen=True, eq=False)
class System:
    """matrix @ x = rhs, of the N hidden vertices, and what it came from."""

    matrix: Any  # (N, N) CSC, symmetric positive definite
    rhs: np.ndarray  # (N, 3) mm
    unknown: np.ndarray  # (N,) vertices
    energy: Any  # (M, M) CSC, of the unknowns and then the known vertices beside them
    linear: np.ndarray  # (M, 3): minimise tr(x' energy x / 2 + x' linear)
    known: np.ndarray  # (M - N, 3) mm


def contest(settings: Settings) -> Contest:
    found, photo = captured(settings, "soft_symmetry")
    stage = found["soft_symmetry"]
    foundation, detailed, visible = (stage.given[k] for k in ("foundation", "detailed", "visible"))
    answer = stage.answer

    @cache
    def system() -> System:
        faces = np.asarray(found.face.foundation_faces)
        return assemble(foundation, detailed, answer.recovery, found.mirror, faces)

    hidden = np.flatnonzero(answer.recovery)
    truth = answer.vertices[hidden].astype(np.float64)

    def agreement(x: np.ndarray) -> Agreement:
        error = np.linalg.norm(x[: len(truth)] - truth, axis=1)
        return Agreement(float(error.max(initial=0.0)), TOLERANCE_MM, "mm off, at most")

    peers, missing = gather(
        {
            "libigl": lambda: _igl(system(), agreement),
            "SciPy": lambda: _scipy(system(), agreement),
            "CHOLMOD": lambda: _cholmod(system(), agreement),
        }
    )
    return Contest(
        given=f"{photo}: {len(hidden):,} hidden of {len(visible):,} vertices, three right-hand "
        "sides",
        ours=[
            Contender(
                OURS,
                stage,
                "weights, assembly, symbolic and numeric factorisation, solve; the elimination "
                "order of the whole region is prepared once for a topology",
            )
        ],
        peers=peers,
        missing=missing,
        least_ms=20.0,
    )


def assemble(
    foundation: np.ndarray,
    detailed: np.ndarray,
    recovery: np.ndarray,
    mirror: np.ndarray,
    faces: np.ndarray,
) -> System:
    """The system that our solver solves (soft_symmetry.h), in float64."""
    sparse = load("scipy.sparse", "scipy")
    f = np.asarray(foundation, np.float64)
    r = np.asarray(detailed, np.float64)
    mirrored = r[mirror] * [-1.0, 1.0, 1.0]
    unknown = np.flatnonzero(recovery)
    of_r, of_f = cotangent_weights(mirrored, faces), cotangent_weights(f, faces)
    # the entries of the unknowns' rows; both tables have the same pattern
    row = np.repeat(np.arange(len(f)), np.diff(of_f.indptr))
    take = recovery[row] > 0
    i, j = row[take], of_f.indices[take]
    reflected = recovery[i] == MIRRORED
    weight = np.where(reflected & (recovery[j] != FOUNDATION), of_r.data[take], of_f.data[take])
    difference = np.where(reflected[:, None], mirrored[i] - mirrored[j], f[i] - f[j])
    beside = np.unique(j[recovery[j] == 0])
    place = np.full(len(f), -1)
    place[unknown] = np.arange(len(unknown))
    place[beside] = len(unknown) + np.arange(len(beside))
    n, m = len(unknown), len(unknown) + len(beside)
    a, b = place[i], place[j]
    diagonal = np.bincount(a, weight, n)
    wanted = np.stack([np.bincount(a, weight * difference[:, d], n) for d in range(3)], 1)
    inner = b < n
    matrix = sparse.coo_matrix(
        (
            np.r_[-weight[inner], diagonal],
            (np.r_[a[inner], np.arange(n)], np.r_[b[inner], np.arange(n)]),
        ),
        shape=(n, n),
    ).tocsc()
    coupling = sparse.coo_matrix(
        (-weight[~inner], (a[~inner], b[~inner] - n)), shape=(n, m - n)
    ).tocsc()
    empty = sparse.csc_matrix((m - n, m - n))
    return System(
        matrix=matrix,
        rhs=wanted - coupling @ r[beside],
        unknown=unknown,
        energy=sparse.bmat([[matrix, coupling], [coupling.T, empty]], format="csc"),
        linear=np.concatenate([-wanted, np.zeros((m - n, 3))]),
        known=r[beside],
    )


def cotangent_weights(x: np.ndarray, faces: np.ndarray) -> Any:
    """(V, V) CSR of the weight of each edge, bounded as ours are."""
    sparse = load("scipy.sparse", "scipy")
    rows, columns, values = [], [], []
    for k in range(3):
        a, b, c = faces[:, k], faces[:, (k + 1) % 3], faces[:, (k + 2) % 3]
        u, v = x[b] - x[a], x[c] - x[a]
        area = np.linalg.norm(np.cross(u, v), axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            cotangent = np.nan_to_num(np.sum(u * v, 1) / area, nan=MAX_COTANGENT)
        half = np.clip(cotangent, -MAX_COTANGENT, MAX_COTANGENT) / 2
        rows += [b, c]
        columns += [c, b]
        values += [half, half]
    shape = (len(x), len(x))
    summed = sparse.coo_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=shape
    ).tocsr()
    summed.sort_indices()
    summed.data = np.maximum(summed.data, MIN_WEIGHT)
    return summed


def _igl(system: System, agreement: Callable[[np.ndarray], Agreement]) -> list[Contender]:
    igl = load("igl", "libigl")
    n, m = len(system.unknown), system.energy.shape[0]
    known = np.arange(n, m, dtype=np.int64)
    energy = system.energy
    ready = igl.min_quad_with_fixed_data()
    nothing = load("scipy.sparse", "scipy").csc_matrix((0, m))
    igl.min_quad_with_fixed_precompute(energy, known, nothing, True, ready)

    return [
        Contender(
            "igl.min_quad_with_fixed",
            lambda: igl.min_quad_with_fixed(energy, system.linear, known, system.known),
            f"ordering, factorisation, solve; {FACTOR}",
            OURS,
            agreement,
        ),
        Contender(
            "igl.min_quad_with_fixed_solve",
            lambda: igl.min_quad_with_fixed_solve(ready, system.linear, system.known),
            "solve alone, as if the matrix did not change with each photo, which it does",
            OURS,
            agreement,
        ),
    ]


def _scipy(system: System, agreement: Callable[[np.ndarray], Agreement]) -> list[Contender]:
    linalg = load("scipy.sparse.linalg", "scipy")
    # what makes SuperLU fit for a symmetric definite matrix: no pivoting off the diagonal
    definite = {"diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
    # the best ordering that it has, found beforehand, as ours is
    order = np.argsort(linalg.splu(system.matrix, "MMD_AT_PLUS_A", **definite).perm_c)
    ordered = system.matrix[order][:, order].tocsc()
    ordered_rhs = system.rhs[order]

    def prepared() -> np.ndarray:
        x = np.empty_like(system.rhs)
        x[order] = linalg.splu(ordered, "NATURAL", **definite).solve(ordered_rhs)
        return x

    return [
        Contender(
            "scipy spsolve",
            lambda: linalg.spsolve(system.matrix, system.rhs),
            f"as it comes: ordering, LU factorisation, solve; {FACTOR}",
            OURS,
            agreement,
        ),
        Contender(
            "scipy splu, COLAMD",
            lambda: linalg.splu(system.matrix).solve(system.rhs),
            f"as it comes: ordering, LU factorisation, solve; {FACTOR}",
            OURS,
            agreement,
        ),
        Contender(
            "scipy splu, symmetric mode",
            lambda: linalg.splu(system.matrix, "MMD_AT_PLUS_A", **definite).solve(system.rhs),
            f"MMD_AT_PLUS_A ordering, LU factorisation, solve; {FACTOR}",
            OURS,
            agreement,
        ),
        Contender(
            "scipy splu, ordering prepared",
            prepared,
            f"LU factorisation and solve in symmetric mode, of an ordered matrix; {FACTOR}",
            OURS,
            agreement,
        ),
    ]


def _cholmod(system: System, agreement: Callable[[np.ndarray], Agreement]) -> list[Contender]:
    try:
        cholmod = load("sksparse.cholmod", "scikit-sparse")
    except Missing as error:
        raise Missing(
            "scikit-sparse is not there: pip install scikit-sparse, which needs SuiteSparse "
            "(libsuitesparse-dev) and a compiler"
        ) from error
    analysed = cholmod.analyze(system.matrix)

    def numeric() -> np.ndarray:
        return np.asarray(analysed.cholesky(system.matrix)(system.rhs))

    return [
        Contender(
            "CHOLMOD",
            lambda: cholmod.cholesky(system.matrix)(system.rhs),
            f"ordering, factorisation, solve; {FACTOR}",
            OURS,
            agreement,
        ),
        Contender(
            "CHOLMOD, analysis prepared",
            numeric,
            f"factorisation and solve, of a pattern that is known, which ours is not; {FACTOR}",
            OURS,
            agreement,
        ),
    ]
