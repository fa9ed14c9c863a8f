"""How much the final mesh folds along its seams, beside how much it folds around them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine
from bench.stages import find_photos

NAME = "seams"
HELP = "normal jump across seams, against their surroundings"

PERCENTILES = (50, 95, 99)
MIN_WEIGHT = 0.5  # of the bump map at a seam vertex
RINGS = 4  # edges this many steps from a seam are its surroundings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="as for stages")


def run(options: argparse.Namespace) -> int:
    """Measure every photo and print percentiles over all of their edges."""
    from extreme3d_fast import NoFaceFound, Reconstructor

    reconstructor = Reconstructor()
    sewn: list[Any] = []
    zipper = reconstructor._zipper
    reconstructor._zipper = _Recorder(zipper, sewn)  # type: ignore[assignment]
    seam, around = [], []
    for photo in find_photos(options.photos):
        try:
            reconstructor.reconstruct(photo or machine.astronaut())
        except NoFaceFound:
            continue
        on_seam, near = fold_angles(sewn[-1], reconstructor.head_model.face_weight)
        seam.append(on_seam)
        around.append(near)
    report = {
        "command": NAME,
        "machine": machine.describe(),
        "photos": len(seam),
        "seam": _percentiles(np.concatenate(seam)),
        "surroundings": _percentiles(np.concatenate(around)),
    }
    print(table(report))
    machine.write(report, options.json)
    return 0


class _Recorder:
    """A zipper that keeps what it sewed."""

    def __init__(self, zipper: Any, sewn: list[Any]) -> None:
        self._zipper, self._sewn = zipper, sewn

    def zip(self, *arguments: Any) -> Any:
        mesh = self._zipper.zip(*arguments)
        self._sewn.append(mesh)
        return mesh


def fold_angles(mesh: Any, face_weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angles between the smooth normals at the two ends of each edge, in degrees.

    Returns those of edges that touch a seam, and those of edges in its surroundings. Seams along
    lids, lips and nostrils are left out: the face itself folds there.
    """
    from extreme3d_fast.mesh import unique_edges, vertex_normals

    edges = unique_edges(mesh.faces, len(mesh.vertices))
    normals = vertex_normals(mesh.vertices, mesh.faces)
    cosine = np.einsum("ij,ij->i", normals[edges[:, 0]], normals[edges[:, 1]])
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    on_r = mesh.source == 0
    open_skin = np.zeros(len(on_r), bool)
    open_skin[on_r] = face_weight[mesh.source_vertex[on_r]] >= MIN_WEIGHT
    seam = mesh.seam.astype(bool) & open_skin
    touching = seam[edges].any(axis=1)
    others = (mesh.seam.astype(bool) & ~open_skin)[edges].any(axis=1)
    near = seam.copy()
    for _ in range(RINGS):
        grown = near.copy()
        grown[edges[near[edges].any(axis=1)]] = True
        near = grown
    return angle[touching], angle[near[edges].all(axis=1) & ~touching & ~others]


def _percentiles(angles: np.ndarray) -> dict[str, float]:
    values = np.percentile(angles, PERCENTILES)
    named = {f"p{p}": round(float(v), 2) for p, v in zip(PERCENTILES, values, strict=True)}
    return {**named, "n": len(angles)}


def table(report: Mapping[str, Any]) -> str:
    """The report for people."""
    names = [f"p{p}" for p in PERCENTILES]
    lines = [f"{'degrees':<16}" + "".join(f"{name:>8}" for name in names) + f"{'n':>10}"]
    for name in ("seam", "surroundings"):
        row = report[name]
        values = "".join(f"{row[p]:>8.2f}" for p in names)
        lines.append(f"{name:<16}{values}{row['n']:>10}")
    return "\n".join([*lines, f"{report['photos']} photos"])
