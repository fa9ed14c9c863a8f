"""Reference faces whose relief fills what is hidden: file, search, decoding, writing (paper §4.2).

A set is an .npz file of uncompressed members that are mapped into memory, never read as a whole and
never unpickled: `metadata` (JSON), `viewpoints` (N, 4) quaternions w, x, y, z of the rotations
camera_from_head, `descriptors` (N, D) identity features, `faces` (N,) records of everything else,
and `maps`, the bump maps on the unrolled face (`face_chart`) as grey JPEG files one behind the
other. Only viewpoints and their search tree are in memory.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import cv2
import numpy as np
import numpy.typing as npt

from extreme3d_fast._arrays import Float32, UInt8, float_array
from extreme3d_fast.camera import Camera
from extreme3d_fast.errors import InvalidModelFile
from extreme3d_fast.face_chart import CHART_SHAPE

__all__ = ["STORED_RELIEF", "Reference", "ReferenceFace", "ReferenceSet", "ReferenceWriter"]

Float64 = npt.NDArray[np.float64]

_ASSET = Path(__file__).parent / "assets" / "references.npz"
_FORMAT = "extreme3d references 1"
_CROP_SIZE = 500  # px of the crop that references are stored for
_SEEN_BLOCK = 4  # px of the map that are told seen or not together
_SEEN_BYTES = -(-math.prod(CHART_SHAPE) // (8 * _SEEN_BLOCK**2))
_QUALITY = 90  # of JPEG: 4 KB a map, 0.010 mm RMS
_LANDMARK_STEP = 1 / 32  # px
_LEAF = 256  # references that share a ball of viewpoints in the search
_FEW = 8192  # references that are all looked at sooner than balls are chosen
_ROUNDING = 2e-3  # radians that an angle may be off whose cosine is float32

#: Relief, its map decoded: levels, mm of level 0, mm a level, a bit for each block that is seen.
STORED_RELIEF = np.dtype(
    {
        "names": ["level", "zero", "step", "seen"],
        "formats": [("u1", CHART_SHAPE), "<f4", "<f4", ("u1", _SEEN_BYTES)],
        "itemsize": -(-(math.prod(CHART_SHAPE) + 8 + _SEEN_BYTES) // 16) * 16,
    },
    align=True,
)

# What a damaged or hostile file may ask for at most.
_MAX_METADATA = 1 << 16  # bytes
_MAX_HEADER = 1 << 13  # bytes
_MAX_MAP_BYTES = 1 << 20
_MAX_MM = 100.0  # displacement

_MEMBERS = ("metadata", "viewpoints", "descriptors", "faces", "maps")


@dataclass(frozen=True)
class Reference:
    """The answer of a search."""

    index: int  #: in the set
    mirrored: bool  #: its mirror image was taken
    pose_distance: float  #: degrees between the viewpoints
    similarity: float  #: cosine of the identity features, in [-1, 1]


@dataclass(frozen=True, eq=False)
class ReferenceFace:
    """One face of a set. Pixels are those of the 500 px crop, their centres at + 0.5."""

    bump: Float32  #: `CHART_SHAPE` mm, unfaded, of the unrolled face; goes on smoothly where unseen
    seen: npt.NDArray[np.bool_]  #: `CHART_SHAPE`, what its photo shows
    identity: Float32  #: (K,) in standard deviations
    expression: Float32  #: (E,)
    camera: Camera  #: of the crop
    camera_from_head: Float32  #: (4, 4), rigid, mm
    landmarks68: Float32  #: (68, 2) px


class ReferenceSet:
    """Faces to borrow relief from; `load` opens a file of them.

    Attributes:
        path: the file.
        metadata: `head_model` (fingerprint of the model that the coefficients speak of),
            `bump_network` (name and version), `source`, `licence`.
        viewpoints: (N, 4) float32 unit quaternions w, x, y, z of camera_from_head.
        descriptors: (N, D) float16 identity features, mapped.
    """

    def __init__(
        self, path: Path, metadata: Mapping[str, str], arrays: Mapping[str, npt.NDArray[Any]]
    ) -> None:
        self.path = path
        self.metadata = dict(metadata)
        self.viewpoints: Float32 = np.array(arrays["viewpoints"])
        self.descriptors: npt.NDArray[np.float16] = arrays["descriptors"]
        self._faces = arrays["faces"]
        self._maps: UInt8 = arrays["maps"]
        norm = np.einsum("ij,ij->i", self.viewpoints, self.viewpoints)
        if not (np.abs(norm - 1) < 1e-3).all():  # NaN fails too
            raise self._invalid("viewpoints are not unit quaternions")

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None) -> ReferenceSet:
        """Opens a reference set; big sets stay on disk.

        Args:
            path: the .npz file; None for the built-in set.

        Raises:
            FileNotFoundError: there is no such file, or no set is built in.
            InvalidModelFile: the file is damaged, empty, compressed, or no reference set.
        """
        if path is None and not _ASSET.is_file():
            raise FileNotFoundError(
                "no reference set is built in: pass the path of one that "
                "`extreme3d references build` has written"
            )
        file = _ASSET if path is None else Path(path)
        if not file.is_file():
            raise FileNotFoundError(f"path: no reference set at {file}")
        try:
            arrays = _map_members(file)
            metadata = _metadata(arrays["metadata"])
            _check_members(arrays)
        except Exception as error:  # zip, NumPy and JSON errors have no common base
            raise InvalidModelFile(
                f"path: {file} is not a usable reference set: {error}"
            ) from error
        return cls(file, metadata, arrays)

    def __len__(self) -> int:
        return len(self.viewpoints)

    @property
    def head_model(self) -> str:
        """Fingerprint of the head model that `identity` and `expression` speak of."""
        return self.metadata["head_model"]

    @property
    def yaw_pitch(self) -> Float64:
        """(N, 2) degrees; signs as in `camera.angles_from_rotation`."""
        w, x, y, z = self.viewpoints.astype(np.float64).T
        yaw = np.arcsin(np.clip(2 * (x * z - w * y), -1, 1))
        pitch = np.arctan2(2 * (y * z + w * x), 2 * (x * x + y * y) - 1)
        return np.asarray(np.degrees(np.stack([yaw, pitch], 1)))

    def search(
        self,
        camera_from_head: npt.ArrayLike,
        descriptor: npt.ArrayLike,
        *,
        k: int = 100,
        count: int = 1,
        max_pose_distance: float = 180.0,
        min_similarity: float = -1.0,
    ) -> list[Reference]:
        """The most similar persons among the k references of the nearest viewpoints (§4.2).

        References and their mirror images both count. The answer is exact. Of equal distances at
        the end of the short list the smaller index stays, unmirrored first; of equal similarities
        the nearer viewpoint wins, then the same order.

        Args:
            camera_from_head: (3, 3) rotation or (4, 4) transform of the face.
            descriptor: (D,) its identity features, of any length but 0.
            k: length of the short list, at least 1; all references where there are fewer.
            count: how many to return at most, at least 1; the paper takes one.
            max_pose_distance, min_similarity: those of the short list that lie further away, in
                degrees, or are less alike are left out.

        Returns:
            References, the most similar one first.

        Raises:
            TypeError, ValueError: an argument has the wrong shape or values.
            InvalidModelFile: the set's features are damaged.
        """
        for name, number in (("k", k), ("count", count)):
            if number < 1:
                raise ValueError(f"`{name}` should be at least 1, is {number}")
        turn = np.asarray(camera_from_head, np.float64)
        if turn.shape not in ((3, 3), (4, 4)) or not np.isfinite(turn).all():
            raise ValueError(f"`camera_from_head` should be (3, 3) or (4, 4), has {turn.shape}")
        query = float_array("descriptor", descriptor, (self.descriptors.shape[1],)).astype(float)
        length = math.sqrt(float(query @ query))
        if not (math.isfinite(length) and length > 0):
            raise ValueError("`descriptor` should be finite and not 0")
        index, mirrored, cosine_of_half = self._index.nearest(_quaternion(turn[:3, :3]), k)
        features = self.descriptors[index].astype(np.float64)
        with np.errstate(invalid="ignore"):  # of a damaged file
            lengths = np.sqrt((features * features).sum(1))
        if not (np.isfinite(lengths).all() and (lengths > 0).all()):
            raise self._invalid("identity features are not finite, or 0")
        similarity = (features * (query / length)).sum(1) / lengths
        degrees = np.degrees(2 * np.arccos(np.minimum(cosine_of_half, 1)))
        similarity = np.clip(similarity, -1, 1)
        order = np.lexsort((mirrored, index, -cosine_of_half, -similarity))
        alike = (degrees[order] <= max_pose_distance) & (similarity[order] >= min_similarity)
        order = order[alike][:count]
        columns = (values[order].tolist() for values in (index, mirrored, degrees, similarity))
        return [Reference(*row) for row in zip(*columns, strict=True)]

    def face(self, index: int) -> ReferenceFace:
        """One face, decoded.

        Raises:
            IndexError: no such face.
            InvalidModelFile: its entry or its map is damaged.
        """
        index = self._checked(index)
        row = self._faces[index]
        try:
            bump, seen = self._relief(row)
            transform = np.eye(4, dtype=np.float32)
            transform[:3, :3] = _rotation(self.viewpoints[index].astype(np.float64))
            transform[:3, 3] = row["translation"]
            fx, fy, cx, cy = row["camera"].tolist()
            face = ReferenceFace(
                bump=bump,
                seen=seen,
                identity=row["identity"].astype(np.float32),
                expression=row["expression"].astype(np.float32),
                camera=Camera(fx, fy, cx, cy, _CROP_SIZE, _CROP_SIZE),
                camera_from_head=transform,
                landmarks68=row["landmarks68"].astype(np.float32) * np.float32(_LANDMARK_STEP),
            )
            _check_face(face)
        except (ValueError, TypeError) as error:
            raise self._invalid(f"face {index}: {error}") from error
        return face

    def relief(self, index: int) -> tuple[Float32, npt.NDArray[np.bool_]]:
        """`bump` and `seen` of one face alone, in half the time of `face`.

        Raises:
            IndexError: no such face.
            InvalidModelFile: its entry or its map is damaged.
        """
        try:
            return self._relief(self._faces[self._checked(index)])
        except ValueError as error:
            raise self._invalid(f"face {index}: {error}") from error

    def stored_relief(self, index: int) -> npt.NDArray[Any]:
        """`relief` as it is stored, for where many are kept: a record of dtype `STORED_RELIEF`.

        Raises:
            IndexError: no such face.
            InvalidModelFile: its entry or its map is damaged.
        """
        return self.stored_reliefs([index]).reshape(())

    def stored_reliefs(self, indices: Sequence[int], *, threads: int = 1) -> npt.NDArray[Any]:
        """Several `stored_relief`, (N,) records.

        Args:
            indices: of the faces.
            threads: number of threads; the result is the same for any.

        Raises:
            IndexError, InvalidModelFile: as `stored_relief`.
        """
        rows = [self._faces[self._checked(index)] for index in indices]
        records = np.zeros(len(rows), STORED_RELIEF)

        def store(some: range) -> None:
            for k in some:
                record, row = records[k], rows[k]
                try:
                    record["level"], record["zero"], record["step"] = self._levels(row)
                except ValueError as error:
                    raise self._invalid(f"face {indices[k]}: {error}") from error
                record["seen"] = row["seen"]

        _in_parallel(store, len(rows), threads)  # OpenCV decodes without the interpreter's lock
        return records

    def _relief(self, row: Any) -> tuple[Float32, npt.NDArray[np.bool_]]:
        levels, zero, step = self._levels(row)
        bump = levels.astype(np.float32)
        bump *= np.float32(step)
        bump += np.float32(zero)
        return bump, _unpacked(row["seen"])

    def _levels(self, row: Any) -> tuple[UInt8, float, float]:
        zero, step = row["levels"].tolist()
        if not (abs(zero) <= _MAX_MM and 0 < step <= _MAX_MM):  # NaN fails too
            raise ValueError("levels of the bump map")
        return _decode(self._blob(row)), zero, step

    def copy(self, index: int, writer: ReferenceWriter) -> int:
        """Adds a face to a file that is being written, as it is stored here.

        Returns:
            Its index there.

        Raises:
            IndexError: no such face.
            ValueError: the other set speaks of another head model.
            InvalidModelFile: the face is damaged.
        """
        if writer.head_model != self.head_model:
            raise ValueError(f"{writer.path} speaks of another head model than {self.path}")
        i = self._checked(index)
        row = np.array(self._faces[i : i + 1]).reshape(())
        blob = bytes(self._blob(row))
        return writer._append(self.viewpoints[i], self.descriptors[i], row, blob)

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"`index` should be in [0, {len(self)}), is {index}")
        return int(index)

    def _blob(self, row: Any) -> UInt8:
        start, count = int(row["start"]), int(row["bytes"])
        if not (0 <= start <= len(self._maps) - count and 0 < count <= _MAX_MAP_BYTES):
            raise self._invalid("a bump map lies outside the file")
        return self._maps[start : start + count]

    @cached_property
    def _index(self) -> _Viewpoints | _FewViewpoints:
        return (_FewViewpoints if len(self) <= _FEW else _Viewpoints)(self.viewpoints)

    def _invalid(self, what: str) -> InvalidModelFile:
        return InvalidModelFile(f"path: {self.path} is a damaged reference set: {what}")


# === Search ===


class _FewViewpoints:
    """Exact nearest viewpoints of a small set: the same answers without balls."""

    def __init__(self, viewpoints: Float32) -> None:
        self._points = _unit(viewpoints).T.astype(np.float64)

    def nearest(
        self, q: Float64, k: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], Float64]:
        """Index, whether mirrored, and cosine of half the angle of the k nearest, unordered."""
        count = self._points.shape[1]
        found = _cosines(self._points[:, None], q * _SIDES).ravel()
        some = _largest(found, k)
        mirrored = some >= count
        index, found = some - count * mirrored, found[some]
        rank = np.lexsort((mirrored, index, -found))[:k]
        return index[rank], mirrored[rank], found[rank]


class _Viewpoints:
    """Exact nearest viewpoints.

    Half the angle between rotations is the angle between the lines of their quaternions, a metric.
    Neighbours are put into balls of `_LEAF` by halving at the median; balls that cannot hold one of
    the k nearest, by the triangle inequality, are not looked at.
    """

    def __init__(self, viewpoints: Float32) -> None:
        count = len(viewpoints)
        levels = max(0, math.ceil(math.log2(count / _LEAF)))
        size = -(-count // 2**levels)
        # (leaves, size) of indices; the first few come twice, so that all leaves are equally long
        order = (np.arange(size << levels) % count).astype(np.int32)[None]
        points = _unit(viewpoints).T[:, order]  # (4, leaves, size)
        for _ in range(levels):
            axis = np.ptp(points, axis=2).argmax(0)
            value = points[axis, np.arange(len(axis))]
            half = order.shape[1] // 2
            part = np.argpartition(value, half - 1, axis=1)
            order = np.take_along_axis(order, part, 1).reshape(-1, half)
            points = np.take_along_axis(points, part[None], 2).reshape(4, -1, half)
        self._order = order
        self._points = points
        self._copies = 1 if order.size == count else 2  # of a face at most
        mean = points.mean(2, dtype=np.float64)
        self._centre = mean / np.maximum(np.linalg.norm(mean, axis=0), 1e-6)
        cosine = np.abs(np.einsum("ijk,ij->jk", points, self._centre)).min(1)
        self._radius = np.arccos(np.clip(cosine, 0, 1))

    def nearest(
        self, q: Float64, k: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], Float64]:
        """Index, whether mirrored, and cosine of half the angle of the k nearest, unordered."""
        queries = q * _SIDES
        leaf, side = self._candidates(queries, k)
        found = _cosines(self._points[:, leaf].astype(np.float64), queries[side]).ravel()
        index = self._order[leaf].ravel().astype(np.int64)
        mirrored = np.repeat(side.astype(bool), self._order.shape[1])
        some = _largest(found, self._copies * k)
        index, mirrored, found = index[some], mirrored[some], found[some]
        rank = np.lexsort((mirrored, index, -found))
        if self._copies > 1:
            first = np.unique((2 * index + mirrored)[rank], return_index=True)[1]
            rank = rank[np.sort(first)]
        rank = rank[:k]
        return index[rank], mirrored[rank], found[rank]

    def _candidates(
        self, queries: Float64, k: int
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Leaf and side (1 is mirrored) of all balls that may hold one of the k nearest."""
        leaves, size = self._order.shape
        if leaves == 1:
            return np.zeros(2, np.intp), np.arange(2)
        angle = np.arccos(np.minimum(np.abs(queries @ self._centre), 1))  # (2, leaves)
        farthest = np.sort((angle + self._radius).ravel())
        enough = -(-self._copies * k // size)  # so many balls hold k faces for certain
        reach = farthest[min(enough, len(farthest)) - 1] + _ROUNDING
        side, leaf = np.nonzero(angle - self._radius <= reach)
        return leaf, side


# The distance to a mirror image is that of the mirrored query: S R S has (w, x, -y, -z).
_SIDES = np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, -1.0, -1.0]])


def _cosines(points: Float64, queries: Float64) -> Float64:
    """(L, N) cosines of half the angles between (4, L or 1, N) points and (L, 4) unit queries."""
    # products one by one: sums of a BLAS differ between machines, and ties with them
    p, t = points, queries.T[:, :, None]
    length = np.sqrt(p[0] * p[0] + p[1] * p[1] + p[2] * p[2] + p[3] * p[3])
    cosines: Float64 = np.abs(p[0] * t[0] + p[1] * t[1] + p[2] * t[2] + p[3] * t[3]) / length
    return cosines


def _largest(values: Float64, k: int) -> npt.NDArray[np.intp]:
    """Indices of the k largest values, and of all that equal the last of these."""
    if k >= len(values):
        return np.arange(len(values))
    kth = np.partition(values, len(values) - k)[len(values) - k]
    return np.flatnonzero(values >= kth)


def _unit(quaternions: Float32) -> Float32:
    q = quaternions.astype(np.float64)
    q /= np.sqrt((q * q).sum(1))[:, None]
    # q and -q are one rotation: the side of a head upright in front of the camera, (0, 1, 0, 0)
    q[q[:, 1] < 0] *= -1
    return q.astype(np.float32)


def _quaternion(rotation: Float64) -> Float64:
    """(4,) unit quaternion w, x, y, z of a (3, 3) rotation, x >= 0."""
    r = rotation
    # 4 q qᵀ; its longest column is the best determined
    k = np.empty((4, 4))
    trace = np.trace(r)
    k[1:, 1:] = r + r.T + (1 - trace) * np.eye(3)
    k[0, 1:] = k[1:, 0] = [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]]
    k[0, 0] = 1 + trace
    q = k[int(np.argmax(np.diag(k)))]
    return np.asarray(q / np.linalg.norm(q) * (-1.0 if q[1] < 0 else 1.0))


def _rotation(q: Float64) -> Float64:
    """(3, 3) rotation of a quaternion w, x, y, z."""
    w, x, y, z = q / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


# === Writing ===


class ReferenceWriter:
    """Writes a reference set face by face; memory does not grow with the set.

    Used as a context: the file appears at its end, whole, or not at all after an exception.

    Args:
        path: the .npz file to write; its folder must exist.
        head_model: `HeadModel.fingerprint` of the model of identity and expression.
        bump_network: name and version of what made the bump maps.
        source: where the photos come from.
        licence: terms of the set.

    Raises:
        OSError: `path` is a folder, or its folder cannot be written to.
        ValueError: metadata are too long or not lines of text; on leaving: no face was added.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        head_model: str,
        bump_network: str = "",
        source: str = "",
        licence: str = "",
    ) -> None:
        self.path = Path(path)
        if self.path.is_dir():  # told before the work, not after it
            raise IsADirectoryError(f"`path` should be a file, {self.path} is a folder")
        metadata = {
            "format": _FORMAT,
            "head_model": head_model,
            "bump_network": bump_network,
            "source": source,
            "licence": licence,
        }
        _check_printable(metadata)
        #: Of the model that identity and expression speak of.
        self.head_model = head_model
        self._text = json.dumps(metadata).encode()
        if len(self._text) > _MAX_METADATA:
            raise ValueError(f"metadata should have at most {_MAX_METADATA} bytes")
        self._resources = contextlib.ExitStack()
        folder = tempfile.TemporaryDirectory(prefix=f".{self.path.name}.", dir=self.path.parent)
        self._folder = Path(self._resources.enter_context(folder))
        self._files: dict[str, IO[bytes]] = {
            name: self._resources.enter_context((self._folder / name).open("w+b"))
            for name in _MEMBERS[1:]
        }
        self._count = 0
        self._bytes = 0  # of maps
        self._sizes: tuple[int, int, int] | None = None  # of identity, expression, descriptor

    def __enter__(self) -> ReferenceWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._resources:
            if kind is None:
                self._assemble()

    def add(self, face: ReferenceFace, descriptor: npt.ArrayLike) -> int:
        """Adds a face.

        Args:
            face: the face; its coefficients are as many as those of the first one.
            descriptor: (D,) identity features; their length does not matter, but not 0.

        Returns:
            Its index in the set.

        Raises:
            TypeError, ValueError: an array has the wrong shape or values.
        """
        _check_face(face)
        features = float_array("descriptor", descriptor, (-1,)).astype(np.float64)
        length = float(np.sqrt((features * features).sum()))
        if not (math.isfinite(length) and length > 0):
            raise ValueError("`descriptor` should be finite and not 0")
        levels, zero, step = _levels(face.bump)
        done, blob = cv2.imencode(
            ".jpg",
            levels,
            [cv2.IMWRITE_JPEG_QUALITY, _QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1],
        )
        if not done or blob.size > _MAX_MAP_BYTES:
            raise ValueError(f"`bump` of shape {face.bump.shape} cannot be encoded")
        row = np.zeros((), _row_dtype(len(face.identity), len(face.expression)))
        row["levels"] = zero, step
        row["seen"] = _packed(face.seen)
        row["translation"] = face.camera_from_head[:3, 3]
        row["camera"] = face.camera.pinhole
        row["identity"], row["expression"] = face.identity, face.expression
        row["landmarks68"] = np.rint(np.asarray(face.landmarks68) / _LANDMARK_STEP)
        view = _quaternion(np.asarray(face.camera_from_head, np.float64)[:3, :3])
        return self._append(view, (features / length).astype(np.float16), row, blob.tobytes())

    def _append(
        self,
        viewpoint: npt.NDArray[Any],
        descriptor: npt.NDArray[np.float16],
        row: npt.NDArray[Any],
        blob: bytes,
    ) -> int:
        sizes = (len(row["identity"]), len(row["expression"]), len(descriptor))
        if self._sizes not in (None, sizes):
            raise ValueError(
                f"identity, expression and descriptor should have the lengths of the first face, "
                f"{self._sizes}, have {sizes}"
            )
        self._sizes = sizes
        row["start"], row["bytes"] = self._bytes, len(blob)
        self._files["viewpoints"].write(viewpoint.astype("<f4").tobytes())
        self._files["descriptors"].write(descriptor.astype("<f2").tobytes())
        self._files["faces"].write(row.tobytes())
        self._files["maps"].write(blob)
        self._bytes += len(blob)
        self._count += 1
        return self._count - 1

    def _assemble(self) -> None:
        if self._sizes is None:
            raise ValueError(f"no face was added to {self.path}")
        n, (identity, expression, descriptor) = self._count, self._sizes
        whole = self._folder / "whole"
        with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED) as archive:
            text = np.frombuffer(self._text, np.uint8)
            with _member(archive, "metadata", text.dtype, text.shape) as out:
                out.write(text.tobytes())
            for name, dtype, shape in (
                ("viewpoints", np.dtype("<f4"), (n, 4)),
                ("descriptors", np.dtype("<f2"), (n, descriptor)),
                ("faces", _row_dtype(identity, expression), (n,)),
                ("maps", np.dtype("u1"), (self._bytes,)),
            ):
                self._files[name].seek(0)
                with _member(archive, name, dtype, shape) as out:
                    shutil.copyfileobj(self._files[name], out, 1 << 20)
        os.replace(whole, self.path)


# === The map ===


def _levels(bump: Float32) -> tuple[UInt8, float, float]:
    """Levels, mm of level 0, mm a level."""
    low, high = float(bump.min()), float(bump.max())
    step = max(high - low, 1e-3) / 255
    return np.rint((np.asarray(bump, np.float64) - low) / step).astype(np.uint8), low, step


def _packed(seen: npt.NDArray[np.bool_]) -> UInt8:
    """A bit a block, 1 where all of it is seen."""
    height, width = CHART_SHAPE
    blocks = seen.reshape(height // _SEEN_BLOCK, _SEEN_BLOCK, width // _SEEN_BLOCK, _SEEN_BLOCK)
    return np.packbits(blocks.all(axis=(1, 3)))


def _unpacked(bits: UInt8) -> npt.NDArray[np.bool_]:
    height, width = (n // _SEEN_BLOCK for n in CHART_SHAPE)
    blocks = np.unpackbits(bits, count=height * width).reshape(height, width)
    return blocks.repeat(_SEEN_BLOCK, axis=0).repeat(_SEEN_BLOCK, axis=1).view(np.bool_)


def _in_parallel(body: Callable[[range], None], count: int, threads: int) -> None:
    """body(range) for parts of range(count), in so many threads."""
    parts = [range(k, count, threads) for k in range(min(threads, count))]
    if len(parts) < 2:
        body(range(count))
        return
    with ThreadPoolExecutor(len(parts) - 1) as others:
        futures = [others.submit(body, part) for part in parts[1:]]
        body(parts[0])
        for future in futures:
            future.result()


def _decode(blob: UInt8) -> UInt8:
    # The size is read from the file's own header first: a few bytes can ask for gigabytes.
    if _jpeg_size(bytes(blob)) != CHART_SHAPE:
        raise ValueError(f"bump map is not a grey JPEG of size {CHART_SHAPE}")
    try:
        image = cv2.imdecode(np.array(blob), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ValueError(f"bump map cannot be decoded: {error}") from error
    if image is None or image.dtype != np.uint8 or image.shape != CHART_SHAPE:
        raise ValueError("bump map cannot be decoded")
    return np.asarray(image, np.uint8)


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) in the frame header of a grey baseline JPEG; None for anything else."""
    at = 2
    if data[:2] != b"\xff\xd8":
        return None
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xC0:  # precision, height, width, components
            if length < 8 or at + 10 > len(data):
                return None
            bits, height, width, components = struct.unpack_from(">BHHB", data, at + 4)
            return (height, width) if (bits, components) == (8, 1) else None
        if not (0xE0 <= marker <= 0xEF or marker in (0xC4, 0xDB, 0xFE)):
            return None
        at += 2 + length
    return None


# === The file ===


def _row_dtype(identity: int, expression: int) -> np.dtype[Any]:
    """A record of `faces`."""
    fields: list[Any] = [
        ("start", "<i8"),  # of the map in `maps`
        ("bytes", "<i4"),
        ("levels", "<f4", (2,)),  # mm of level 0, mm a level
        ("seen", "u1", (_SEEN_BYTES,)),  # of the map's blocks, row by row
        ("translation", "<f4", (3,)),  # of camera_from_head, mm
        ("camera", "<f4", (4,)),  # fx, fy, cx, cy of the 500 px crop
        ("identity", "<f2", (identity,)),
        ("expression", "<f2", (expression,)),
        ("landmarks68", "<i2", (68, 2)),  # in 1/32 px of the crop
    ]
    return np.dtype(fields)


def _check_face(face: ReferenceFace) -> None:
    for name, shape in (
        ("bump", CHART_SHAPE),
        ("identity", (-1,)),
        ("expression", (-1,)),
        ("camera_from_head", (4, 4)),
        ("landmarks68", (68, 2)),
    ):
        array = float_array(name, getattr(face, name), shape)
        limit = {"bump": _MAX_MM, "landmarks68": 1000.0, "identity": 1e4, "expression": 1e4}
        if not (array.size and np.abs(array).max() <= limit.get(name, math.inf)):
            raise ValueError(f"`{name}` should be finite and small, has {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"`{name}` should be finite")
    if face.seen.shape != CHART_SHAPE or face.seen.dtype != np.bool_:
        raise ValueError(f"`seen` should be bool of shape {CHART_SHAPE}, has {face.seen.shape}")
    r = np.asarray(face.camera_from_head, np.float64)[:3, :3]
    if np.abs(r @ r.T - np.eye(3)).max() > 1e-3 or np.linalg.det(r) < 0:
        raise ValueError("`camera_from_head` should be rigid")
    if (face.camera.width, face.camera.height) != (_CROP_SIZE, _CROP_SIZE):
        raise ValueError(f"`camera` should be that of the {_CROP_SIZE} px crop")


@contextlib.contextmanager
def _member(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> Any:
    """A member to write an array's bytes into, its header written; the same bytes each time."""
    info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
    with archive.open(info, "w", force_zip64=True) as out:
        descr = np.lib.format.dtype_to_descr(dtype)
        header = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(out, header)
        yield out


def _map_members(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The members of an .npz of stored arrays, mapped."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    end = path.stat().st_size
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if sorted(e.filename for e in entries) != sorted(f"{name}.npy" for name in _MEMBERS):
            raise ValueError(f"expected the members {', '.join(_MEMBERS)}")
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                raise ValueError(f"{entry.filename} is compressed or encrypted")
            file.seek(entry.header_offset)
            local = file.read(30)
            if len(local) < 30 or local[:4] != b"PK\x03\x04":
                raise ValueError(f"{entry.filename} has no header")
            start = entry.header_offset + 30 + sum(struct.unpack("<HH", local[26:]))
            stop = start + entry.file_size
            if stop > end:
                raise ValueError(f"{entry.filename} is cut off")
            file.seek(start)
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError(f"{entry.filename} is of another version")
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(
                file, max_header_size=_MAX_HEADER
            )
            data = file.tell()
            count = math.prod(shape)
            if fortran or dtype.hasobject or min(shape, default=0) < 1:
                raise ValueError(f"{entry.filename} is empty, holds objects or is transposed")
            if data + count * dtype.itemsize != stop:
                raise ValueError(f"{entry.filename} does not have the size that its header says")
            name = entry.filename.removesuffix(".npy")
            arrays[name] = np.memmap(path, dtype, "r", data, shape)
    return arrays


def _metadata(text: npt.NDArray[Any]) -> dict[str, str]:
    if text.dtype != np.uint8 or text.size > _MAX_METADATA:
        raise ValueError("metadata is not text")
    metadata = json.loads(text.tobytes())
    names = ("format", "head_model", "bump_network", "source", "licence")
    if not (
        isinstance(metadata, dict)
        and sorted(metadata) == sorted(names)
        and all(isinstance(value, str) for value in metadata.values())
    ):
        raise ValueError(f"expected metadata {', '.join(names)}")
    _check_printable(metadata)
    if metadata.pop("format") != _FORMAT:
        raise ValueError(f"expected format {_FORMAT!r}")
    return metadata


def _check_printable(metadata: Mapping[str, str]) -> None:
    # `references info` prints them: no control sequences, no lone surrogates
    for name, text in metadata.items():
        if not text.isprintable():
            raise ValueError(f"`{name}` should be a line of text, is {text!a}")


def _check_members(arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    faces = arrays["faces"]
    n = len(faces)
    sizes = [
        math.prod(faces.dtype[name].shape) if name in (faces.dtype.names or ()) else 0
        for name in ("identity", "expression")
    ]
    wanted: dict[str, tuple[Any, Callable[[tuple[int, ...]], bool]]] = {
        "viewpoints": ("<f4", lambda s: s == (n, 4)),
        "descriptors": ("<f2", lambda s: len(s) == 2 and s[0] == n),
        "faces": (_row_dtype(sizes[0], sizes[1]), lambda s: len(s) == 1),
        "maps": ("u1", lambda s: len(s) == 1),
    }
    for name, (dtype, fits) in wanted.items():
        array = arrays[name]
        if array.dtype != np.dtype(dtype) or not fits(array.shape):
            raise ValueError(f"{name} has shape {array.shape} and dtype {array.dtype}")
