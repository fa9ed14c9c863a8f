"""The head model: identity and expression coefficients in, a head mesh out (paper §3, Eq. 1–2)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from extreme3d_fast import _core
from extreme3d_fast.errors import InvalidModelFile
from extreme3d_fast.model_readers import read_model

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

_SKIN = "skin"


@dataclass(frozen=True)
class SubdivisionLevel:
    """Sparse rows that average the vertices of one mesh level into those of the next."""

    indptr: I32  # (rows + 1,)
    indices: I32  # (nnz,)
    weights: F32  # (nnz,)


class LandmarkBasis(NamedTuple):
    """The linear model at landmarks only: position = mean + identity·α + expression·η."""

    mean: F32  # (L, 3) mm
    identity: F32  # (K, L, 3) mm per standard deviation
    expression: F32  # (E, L, 3) mm at coefficient 1

    def positions(self, identity: npt.NDArray[Any], expression: npt.NDArray[Any]) -> Any:
        """(L, 3) mm, the landmarks of the head with coefficients (K,) and (E,)."""
        return (
            self.mean
            + np.tensordot(identity, self.identity, 1)
            + np.tensordot(expression, self.expression, 1)
        )


@dataclass(frozen=True, eq=False)
class HeadModel:
    """A linear head: vertices = subdivide(mean + identity·α + expression·η).

    Lengths are millimetres in the head frame: right-handed, x to the subject's left, y up, z out of
    the face, symmetry plane x = 0, origin between the ears. The basis lives on a coarse mesh of
    Vc vertices; `subdivision` carries it to the V vertices of the result (Vc == V where there is no
    subdivision). Skin vertices come first: [0, Ns).

    Array arguments are converted to the dtypes below and checked once.

    Raises:
        ValueError: an array has the wrong shape, a non-finite value or an index out of range.
    """

    mean: F32  #: (Vc, 3)
    identity: F32  #: (K, Vc, 3), coefficients have unit variance
    expression: F32  #: (E, Vc, 3), coefficients are usually in [0, 1]
    expression_names: tuple[str, ...]  #: E names, ARKit's for the built-in model
    faces: I32  #: (F, 3) skin triangles, counter-clockwise seen from outside
    mirror: I32  #: (V,) vertex that is each vertex's left-right image
    subdivision: tuple[SubdivisionLevel, ...] = ()
    part_names: tuple[str, ...] = (_SKIN,)
    part_vertex_range: I32 = field(default_factory=lambda: np.zeros((0, 2), np.int32))  #: (P, 2)
    part_faces: Mapping[str, I32] = field(default_factory=dict)  #: name -> (Fp, 3)
    face_weight: F32 = field(default_factory=lambda: np.zeros(0, np.float32))  #: (Ns,) in [0, 1]
    face_region: npt.NDArray[np.bool_] = field(
        default_factory=lambda: np.zeros(0, np.bool_)
    )  #: (Ns,)
    uv: F32 = field(default_factory=lambda: np.zeros((0, 2), np.float32))  #: (Nuv, 2)
    faces_uv: I32 = field(default_factory=lambda: np.zeros((0, 3), np.int32))  #: (F, 3) into uv
    #: Landmark correspondences: triangle in `all_faces` and barycentric weights; empty if unknown.
    landmarks68_faces: I32 = field(default_factory=lambda: np.zeros(0, np.int32))
    landmarks68_bary: F32 = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    landmarks478_faces: I32 = field(default_factory=lambda: np.zeros(0, np.int32))
    landmarks478_bary: F32 = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    colors: npt.NDArray[np.uint8] = field(
        default_factory=lambda: np.zeros((0, 3), np.uint8)
    )  #: (V, 3)
    coarse_quads: I32 = field(default_factory=lambda: np.zeros((0, 4), np.int32))  #: (Qc, 4)
    coarse_mirror: I32 = field(default_factory=lambda: np.zeros(0, np.int32))  #: (Vc,)

    def __post_init__(self) -> None:
        put = object.__setattr__
        for name, dtype in _ARRAYS.items():
            put(self, name, _readonly(getattr(self, name), name, dtype))
        put(self, "expression_names", tuple(map(str, self.expression_names)))
        put(self, "part_names", tuple(map(str, self.part_names)))
        put(
            self,
            "subdivision",
            tuple(
                SubdivisionLevel(
                    *(
                        _readonly(getattr(s, k), f"subdivision {k}", d)
                        for k, d in (
                            ("indptr", np.int32),
                            ("indices", np.int32),
                            ("weights", np.float32),
                        )
                    )
                )
                for s in self.subdivision
            ),
        )
        _shape("mean", self.mean, (-1, 3))
        vc = len(self.mean)
        _shape("identity", self.identity, (-1, vc, 3))
        _shape("expression", self.expression, (len(self.expression_names), vc, 3))
        for name in ("mean", "identity", "expression"):
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"{name} should be finite")
        levels = [(s.indptr, s.indices, s.weights) for s in self.subdivision]
        evaluator = _core.HeadEvaluator(self.mean, self.identity, self.expression, levels)
        put(self, "_evaluator", evaluator)
        v = len(levels[-1][0]) - 1 if levels else vc
        put(self, "_vertex_count", v)

        if not len(self.part_vertex_range):
            whole = np.array([[0, v]], np.int32)
            put(self, "part_vertex_range", _readonly(whole, "part_vertex_range", np.int32))
        _shape("part_vertex_range", self.part_vertex_range, (len(self.part_names), 2))
        if self.part_names[0] != _SKIN or self.part_vertex_range[0, 0] != 0:
            raise ValueError("the first part should be 'skin' and start at vertex 0")
        _indices("part_vertex_range", self.part_vertex_range, v + 1)
        ns = int(self.part_vertex_range[0, 1])
        _shape("faces", self.faces, (-1, 3))
        _indices("faces", self.faces, ns)
        parts = {_SKIN: self.faces}
        for name in self.part_names[1:]:
            if name not in self.part_faces:
                raise ValueError(f"part_faces should have the triangles of part {name!r}")
            parts[name] = _readonly(self.part_faces[name], f"part_faces[{name!r}]", np.int32)
            _shape(f"part_faces[{name!r}]", parts[name], (-1, 3))
            _indices(f"part_faces[{name!r}]", parts[name], v)
        put(self, "part_faces", parts)
        _shape("mirror", self.mirror, (v,))
        _indices("mirror", self.mirror, v)
        for name, shape in (("face_weight", (ns,)), ("face_region", (ns,)), ("colors", (v, 3))):
            if len(getattr(self, name)):
                _shape(name, getattr(self, name), shape)
        if not len(self.face_weight):
            put(self, "face_weight", _readonly(np.ones(ns), "face_weight", np.float32))
        if not len(self.face_region):
            put(self, "face_region", _readonly(self.face_weight > 0, "face_region", np.bool_))
        if not len(self.colors):
            grey = np.full((v, 3), 200, np.uint8)
            put(self, "colors", _readonly(grey, "colors", np.uint8))
        _shape("uv", self.uv, (-1, 2))
        if len(self.faces_uv):
            _shape("faces_uv", self.faces_uv, (len(self.faces), 3))
            _indices("faces_uv", self.faces_uv, len(self.uv))
        for which in ("68", "478"):
            faces, bary = self._landmarks(which)
            _shape(f"landmarks{which}_faces", faces, (-1,))
            _shape(f"landmarks{which}_bary", bary, (len(faces), 3))
            _indices(f"landmarks{which}_faces", faces, sum(map(len, parts.values())))
        put(self, "_landmark_bases", {})

    # === Reading ===

    @classmethod
    def load(
        cls, path: str | Path | None = None, *, expression: str | Path | None = None
    ) -> HeadModel:
        """Reads a head model; what it is, is told from the content.

        Args:
            path: a file in this package's `.npz` layout, `01_MorphableModel.mat` (Basel 2009), a
                Basel 2017/2019 `.h5`, the `FaceXModel` folder of ICT-FaceKit, or a FLAME `.npz`
                (v_template, shapedirs, f); None gives the built-in head.
            expression: `Model_Expression.mat` of 3DDFA, for Basel 2009 only.

        Returns:
            The model in this package's conventions. Only the built-in one has the 478 landmarks
            that a `Reconstructor` fits.

        Raises:
            FileNotFoundError: there is no such file or folder.
            InvalidModelFile: it is damaged, of an unknown kind, a pickle, or inconsistent.
            ImportError: the package that reads this kind of file is not installed.
            ValueError: `expression` is given for a model that brings its own.
        """
        if path is None:
            with resources.as_file(resources.files("extreme3d_fast") / "assets" / "head.npz") as p:
                return cls.load(p)
        arrays = read_model(path, expression=expression)
        levels = arrays.pop("subdivision", ())
        try:
            return cls(**arrays, subdivision=tuple(SubdivisionLevel(*level) for level in levels))
        except ValueError as error:
            raise InvalidModelFile(f"path: {path} is not a valid head model: {error}") from error

    # === Evaluating ===

    def vertices(
        self,
        identity: npt.ArrayLike | None = None,
        expression: npt.ArrayLike | None = None,
        *,
        threads: int = 2,
    ) -> F32:
        """Mesh vertices (V, 3) in mm for identity α (K,) and expression η (E,); None means zeros.

        Raises:
            ValueError: wrong number of coefficients, or one that is not finite.
        """
        alpha = _coefficients("identity", identity, self.n_identity)
        eta = _coefficients("expression", expression, self.n_expression)
        out: F32 = self._evaluator.evaluate(alpha, eta, int(threads))  # type: ignore[attr-defined]
        return out

    def landmark_basis(self, which: str = "478") -> LandmarkBasis:
        """The model restricted to the "68" (iBUG) or "478" (FaceMesh) landmarks; computed once.

        Raises:
            ValueError: unknown set, or this model has no such landmarks.
        """
        cache: dict[str, LandmarkBasis] = self._landmark_bases  # type: ignore[attr-defined]
        if which not in cache:
            faces, bary = self._landmarks(which)
            if not len(faces):
                raise ValueError(f"this head model has no {which!r} landmarks")
            weights = self._coarse_weights(self.all_faces[faces], bary)
            used = np.flatnonzero(weights.any(0))
            weights = weights[:, used]

            def at(basis: F32) -> F32:
                found = np.einsum(
                    "lv,kvd->kld", weights, basis[:, used].astype(float), optimize=True
                )
                return _readonly(found, "landmark basis", np.float32)  # type: ignore[no-any-return]

            cache[which] = LandmarkBasis(
                at(self.mean[None])[0], at(self.identity), at(self.expression)
            )
        return cache[which]

    # === Sizes ===

    @property
    def n_identity(self) -> int:
        return len(self.identity)

    @property
    def n_expression(self) -> int:
        return len(self.expression)

    @property
    def vertex_count(self) -> int:
        count: int = self._vertex_count  # type: ignore[attr-defined]
        return count

    @property
    def skin_vertex_count(self) -> int:
        return int(self.part_vertex_range[0, 1])

    @cached_property
    def all_faces(self) -> I32:
        """(F + ΣFp, 3) triangles of every part in the order of `part_names`, skin first."""
        return np.concatenate([self.part_faces[n] for n in self.part_names])

    @cached_property
    def fingerprint(self) -> str:
        """Tells this model from others, so that coefficients are not taken for another's."""
        digest = hashlib.sha256()
        for array in (self.mean, self.identity, self.expression):
            digest.update(array.tobytes())
        return digest.hexdigest()[:16]

    # === Details ===

    def _landmarks(self, which: str) -> tuple[I32, F32]:
        if which not in ("68", "478"):
            raise ValueError(f'landmark set should be "68" or "478", is {which!r}')
        faces: I32 = getattr(self, f"landmarks{which}_faces")
        bary: F32 = getattr(self, f"landmarks{which}_bary")
        return faces, bary

    def _coarse_weights(self, corners: I32, bary: F32) -> npt.NDArray[np.float64]:
        """(L, Vc) weights of coarse vertices in points on fine triangles (L, 3)."""
        point = np.repeat(np.arange(len(corners)), 3)
        vertex = corners.ravel().astype(np.int64)
        weight = bary.ravel().astype(float)
        for level in reversed(self.subdivision):
            start = level.indptr[vertex].astype(np.int64)
            count = level.indptr[vertex + 1] - start
            entry = np.repeat(start - np.cumsum(count) + count, count) + np.arange(count.sum())
            point, weight = np.repeat(point, count), np.repeat(weight, count) * level.weights[entry]
            vertex = level.indices[entry].astype(np.int64)
        out = np.zeros((len(corners), len(self.mean)))
        np.add.at(out, (point, vertex), weight)
        return out


_ARRAYS: dict[str, Any] = {
    "mean": np.float32,
    "identity": np.float32,
    "expression": np.float32,
    "faces": np.int32,
    "mirror": np.int32,
    "part_vertex_range": np.int32,
    "face_weight": np.float32,
    "face_region": np.bool_,
    "uv": np.float32,
    "faces_uv": np.int32,
    "landmarks68_faces": np.int32,
    "landmarks68_bary": np.float32,
    "landmarks478_faces": np.int32,
    "landmarks478_bary": np.float32,
    "colors": np.uint8,
    "coarse_quads": np.int32,
    "coarse_mirror": np.int32,
}


def _readonly(value: Any, name: str, dtype: Any) -> Any:
    array = np.asarray(value)
    wanted = np.dtype(dtype)
    if array.dtype.kind not in "fiub" or (wanted.kind in "iu" and array.dtype.kind == "f"):
        raise ValueError(f"{name} should be {wanted.name}, is {array.dtype}")
    array = np.array(array, dtype=wanted, order="C")
    array.flags.writeable = False
    return array


def _shape(name: str, array: npt.NDArray[Any], shape: tuple[int, ...]) -> None:
    ok = array.ndim == len(shape) and all(
        s in (-1, n) for s, n in zip(shape, array.shape, strict=True)
    )
    if not ok:
        wanted = ", ".join("*" if s < 0 else str(s) for s in shape)
        raise ValueError(f"{name} should have shape ({wanted}), has {array.shape}")


def _indices(name: str, array: npt.NDArray[Any], stop: int) -> None:
    if array.size and (array.min() < 0 or array.max() >= stop):
        bad = array.min() if array.min() < 0 else array.max()
        raise ValueError(f"{name} has index {bad} outside [0, {stop})")


def _coefficients(name: str, value: npt.ArrayLike | None, count: int) -> F32:
    if value is None:
        return np.zeros(count, np.float32)
    array = np.asarray(value)
    if array.dtype.kind not in "fiu" or array.shape != (count,):
        raise ValueError(f"{name} should have shape ({count},), has {array.shape} of {array.dtype}")
    array = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} should be finite")
    return array
