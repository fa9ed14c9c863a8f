"""Hidden vertices recovered from their mirror images by Poisson blending (section 4.3, Eq. 9)."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Float32, UInt8, float_array, index_array, mask_array

__all__ = ["Recovery", "SoftSymmetry", "SoftSymmetrySolver", "soft_symmetry"]


class Recovery(IntEnum):
    """How a vertex of the completed sparse mesh came about."""

    KEPT = 0
    """Not an unknown: observed, or outside the region."""
    MIRRORED = 1
    """Recovered with the differential of its mirror vertex on the detailed mesh R."""
    FOUNDATION = 2
    """Recovered with its own differential on the foundation F, for its mirror vertex is hidden as
    well."""


class SoftSymmetry(NamedTuple):
    """vertices: (V, 3) float32, mm, head frame; recovery: (V,) uint8, values of `Recovery`."""

    vertices: Float32
    recovery: UInt8


class SoftSymmetrySolver:
    """Eq. 9 for one topology: neighbours and elimination order are prepared once.

    Args:
        faces: (F, 3) int32.
        mirror: (V,) int32, index of each vertex's mirror image over the plane x = 0 of the head
            frame, an involution.
        region: (V,) bool, vertices that may be recovered at all.

    Raises:
        ValueError: shapes that do not fit, an index out of range, a mirror table that is no
            involution, an edge with more than two faces.
    """

    def __init__(self, faces: npt.ArrayLike, mirror: npt.ArrayLike, region: npt.ArrayLike) -> None:
        n = len(np.asarray(region))
        self._region = mask_array("region", region, (n,))
        self._solver = _core.SoftSymmetrySolver(
            index_array("faces", faces, (-1, 3), 0, n),
            index_array("mirror", mirror, (n,), 0, n),
            self._region,
        )

    def solve(
        self,
        foundation: npt.ArrayLike,
        detailed: npt.ArrayLike,
        visible: npt.ArrayLike,
        *,
        threads: int = 1,
    ) -> SoftSymmetry:
        """Recover the vertices of the region that are not visible.

        The unknowns carry the cotangent Laplacian of their mirror vertex on R, reflected, if that
        vertex and its ring are visible, their own on F otherwise. (Eq. 9 reflects F as well; where
        nothing was observed, a lopsided expression had better stay on its side.) All other vertices
        are Dirichlet boundary. Three right-hand sides, one sparse Cholesky factorisation. Unknowns
        with no path to any boundary keep their position.

        Args:
            foundation: F, (V, 3) float32, mm, head frame.
            detailed: R, (V, 3) float32, mm, head frame; equal to F where nothing was observed.
            visible: (V,) bool, where R was observed.
            threads: number of threads; the result is the same for any.

        Returns:
            The completed mesh and how each of its vertices came about.

        Raises:
            ValueError: shapes that do not fit the topology, values that are not finite.
        """
        n = len(self._region)
        vertices, recovery = self._solver.solve(
            float_array("foundation", foundation, (n, 3)),
            float_array("detailed", detailed, (n, 3)),
            mask_array("visible", visible, (n,)),
            threads,
        )
        return SoftSymmetry(vertices, recovery)


def soft_symmetry(
    foundation: npt.ArrayLike,
    detailed: npt.ArrayLike,
    visible: npt.ArrayLike,
    faces: npt.ArrayLike,
    mirror: npt.ArrayLike,
    region: npt.ArrayLike,
    *,
    threads: int = 1,
) -> SoftSymmetry:
    """Solve Eq. 9 once; see `SoftSymmetrySolver` for arguments, result and errors."""
    solver = SoftSymmetrySolver(faces, mirror, region)
    return solver.solve(foundation, detailed, visible, threads=threads)
