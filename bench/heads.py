"""The built-in head's skin at any level of its subdivision: one head in 4k to 278k vertices."""

from __future__ import annotations

from typing import Any

import numpy as np

from extreme3d_fast.head_model import HeadModel, SubdivisionLevel

BUILT_IN_LEVEL = 2
LEVELS = (0, 1, 2, 3)  # 4k, 17k, 70k, 278k vertices


def head_at(level: int) -> HeadModel:
    """The skin of the built-in head after `level` Catmull-Clark subdivisions; needs scipy.

    The basis, and with it fits and reference faces, are the built-in model's at every level.
    """
    import scipy.sparse as sp

    from train.subdivision import catmull_clark, linear, refine_mirror, refine_quads, triangulate

    base = HeadModel.load()
    quads = base.coarse_quads[: len(base.faces) // (2 * 4**BUILT_IN_LEVEL)]  # skin comes first
    n = int(quads.max()) + 1
    mirror = base.coarse_mirror[:n]
    # without subdivision the skin has still to be cut out of the basis
    operators = [] if level else [sp.identity(n, format="csr")]
    finer = []  # operators beyond the built-in level, which only split
    for done in range(level):
        operators.append(catmull_clark(quads, n))
        if done >= BUILT_IN_LEVEL:
            finer.append(linear(quads, n))
        mirror, quads = refine_mirror(quads, mirror), refine_quads(quads, n)
        n = operators[-1].shape[0]

    def carried(values: np.ndarray) -> Any:
        """What the built-in model says of its vertices; a mesh begins with the coarser one's."""
        out = values[: finer[0].shape[1] if finer else n].astype(np.float64)
        for operator in finer:
            out = operator @ out
        return out

    mean = base.mean[: operators[0].shape[1]]
    for operator in operators:
        mean = operator @ mean
    model = HeadModel(
        mean=base.mean,
        identity=base.identity,
        expression=base.expression,
        expression_names=base.expression_names,
        faces=triangulate(quads, mirror, mean[:, 0]).astype(np.int32),
        mirror=mirror.astype(np.int32),
        subdivision=tuple(
            SubdivisionLevel(o.indptr, o.indices, o.data.astype(np.float32)) for o in operators
        ),
        face_weight=carried(base.face_weight),
        face_region=carried(base.face_region) > 0.5,
        colors=np.rint(carried(base.colors)).astype(np.uint8),
    )
    # landmarks are points of the basis: the same ones at every level, so fits do not differ
    object.__setattr__(
        model, "_landmark_bases", {which: base.landmark_basis(which) for which in ("68", "478")}
    )
    return model
