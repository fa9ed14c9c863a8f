"""Colours and provenance of the final mesh, against the same in NumPy."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

from extreme3d_fast.dense import DenseMesh
from extreme3d_fast.face import Provenance
from extreme3d_fast.paint import paint_mesh
from extreme3d_fast.registration import Registration
from extreme3d_fast.soft_symmetry import Recovery
from extreme3d_fast.zipper import VertexSource, ZipperedMesh

SIDE, SPARSE, DENSE, FINAL = 20, 40, 150, 400


class Scene(NamedTuple):
    mesh: ZipperedMesh
    dense: DenseMesh
    registration: Registration
    faces: np.ndarray
    mirror: np.ndarray
    color_of_sparse: np.ndarray
    observed: np.ndarray
    recovery: np.ndarray
    pixel_of_vertex: np.ndarray
    filled: np.ndarray
    photo: np.ndarray


@pytest.fixture
def scene(rng: np.random.Generator) -> Scene:
    pixel = np.sort(rng.choice(SIDE * SIDE, DENSE, replace=False))
    vertex_of_pixel = np.full(SIDE * SIDE, -1, np.int32)
    vertex_of_pixel[pixel] = np.arange(DENSE)
    source = rng.integers(0, 3, FINAL).astype(np.uint8)
    vertex = np.where(source == 0, rng.integers(0, SPARSE, FINAL), rng.integers(0, DENSE, FINAL))
    nowhere = np.zeros((0, 3))
    return Scene(
        ZipperedMesh(nowhere, nowhere, source, vertex.astype(np.int32), source),
        DenseMesh(nowhere, nowhere, vertex_of_pixel.reshape(SIDE, SIDE)),
        Registration(
            rng.integers(0, 60, DENSE).astype(np.int32),
            rng.dirichlet([1, 1, 1], DENSE)[:, :2].astype(np.float32),
            nowhere,
        ),
        rng.integers(0, SPARSE, (60, 3)).astype(np.int32),
        rng.permutation(SPARSE).astype(np.int32),
        rng.integers(0, 256, (SPARSE, 3), np.uint8),
        rng.random(SPARSE) < 0.5,
        rng.integers(0, 3, SPARSE).astype(np.uint8),
        rng.integers(-1, SIDE * SIDE, SPARSE).astype(np.int32),
        rng.random((SIDE, SIDE)) < 0.4,
        rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8),
    )


def twin(s: Scene) -> tuple[np.ndarray, np.ndarray]:
    pixel = np.flatnonzero(s.dense.vertex_of_pixel >= 0)
    hidden = s.filled.ravel()
    u, v = s.registration.uv.T[:, :, None]
    corners = s.faces[s.registration.triangle].T

    def registered(colors: Any) -> Any:
        first, second, third = (colors[c].astype(np.float32) for c in corners)
        return u * first + v * second + (1 - u - v) * third

    own = np.where(
        hidden[pixel][:, None], registered(s.color_of_sparse), s.photo.reshape(-1, 3)[pixel]
    )
    own = own.astype(np.uint8)
    detail = np.clip(own - registered(s.color_of_sparse), -40, 40)
    reflected = np.clip(registered(s.color_of_sparse[s.mirror]) + detail, 0, 255).astype(np.uint8)
    filled = hidden[s.pixel_of_vertex] & (s.pixel_of_vertex >= 0)
    origin = np.select(
        [s.observed & filled, s.observed, s.recovery == Recovery.MIRRORED],
        [Provenance.FILLED, Provenance.OBSERVED, Provenance.MIRRORED],
        Provenance.MODEL,
    )
    of_dense = np.where(hidden[pixel], Provenance.FILLED, Provenance.OBSERVED)
    of_reflected = np.full(DENSE, Provenance.MIRRORED)
    colors, origins = [], []
    for source, vertex in zip(s.mesh.source, s.mesh.source_vertex, strict=True):
        colors.append((s.color_of_sparse, own, reflected)[source][vertex])
        origins.append((origin, of_dense, of_reflected)[source][vertex])
    return np.array(colors), np.array(origins)


@pytest.mark.parametrize("threads", [1, 3])
def test_paint_is_that_of_numpy(scene: Scene, threads: int) -> None:
    colors, provenance = paint_mesh(*scene, threads=threads)
    want, origins = twin(scene)
    assert np.abs(colors.astype(int) - want).max() <= 1  # a sum in another order, cut to bytes
    assert np.mean(colors != want) < 0.02
    np.testing.assert_array_equal(provenance, origins)


def test_dense_vertex_that_is_registered_to_nothing_has_its_pixel(scene: Scene) -> None:
    scene.registration.triangle[:] = -1
    scene.filled[:] = True
    colors, _ = paint_mesh(*scene)
    pixel = np.flatnonzero(scene.dense.vertex_of_pixel >= 0)
    of_dense = scene.mesh.source != VertexSource.SPARSE
    shown = scene.photo.reshape(-1, 3)[pixel[scene.mesh.source_vertex[of_dense]]]
    np.testing.assert_array_equal(colors[of_dense], shown)


@pytest.mark.parametrize("name", ["mesh", "faces", "mirror", "pixel_of_vertex"])
def test_index_out_of_range_is_refused(scene: Scene, name: str) -> None:
    array = scene.mesh.source_vertex if name == "mesh" else getattr(scene, name)
    array[3] = 10_000
    with pytest.raises(ValueError, match="index"):
        paint_mesh(*scene)
