"""Reads head models that users have: Basel 2009, Basel 2017/2019, ICT-FaceKit, FLAME (as .npz).

Each reader turns a file into the arrays of a `HeadModel`: millimetres, x to the subject's left, y
up, z out of the face, triangles counter-clockwise from outside, coefficients of unit variance (Eq.
1-2 of the paper: s = mean + W^S α, e = W^E η with the standard deviations multiplied into W). No
part of a file is ever executed: pickles are refused.
"""

from __future__ import annotations

import importlib
import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extreme3d_fast.errors import InvalidModelFile

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]

FLAME_ARRAYS = ("v_template", "shapedirs", "f")
OWN_ARRAYS = (
    *("mean", "identity", "expression", "faces", "mirror", "part_vertex_range", "face_weight"),
    *("face_region", "uv", "faces_uv", "landmarks68_faces", "landmarks68_bary"),
    *("landmarks478_faces", "landmarks478_bary", "colors", "coarse_quads", "coarse_mirror"),
)

MM_PER_MICROMETRE = 1e-3
MM_PER_CENTIMETRE = 10.0
MM_PER_METRE = 1e3
IDENTITY_COMPONENTS = 99  # what the paper uses of the Basel model's 199
MAX_VALUES = 300_000_000  # per array: five times Basel's basis; a damaged header may ask for more
MODEL_SIZE_MM = (50.0, 1000.0)  # diagonal of a face or head in mm; else the unit was misread
MIRROR_TOLERANCE_MM = 2.0  # about twice Basel's vertex spacing
RIM_MM = 12.0  # the bump weight rises over this distance from the mesh's border

# ICT-FaceKit's released topology: parts as vertex ranges (README of the model). Eyelashes, tear
# film and shadow sheets behind 24591 are shells for game engines, not surface, and are left out.
ICT_VERTICES = 26719
ICT_PARTS = {
    "skin": (0, 14062),  # face, head and neck, mouth and eye sockets
    "tongue": (14062, 17039),  # gums and tongue
    "upper_teeth": (17039, 19247),
    "lower_teeth": (19247, 21451),
    "left_eye": (21451, 23021),
    "right_eye": (23021, 24591),
}
ICT_FACE = (0, 6706)  # the "narrow face area": without scalp, ears and neck
ICT_PART_COLORS = {
    "tongue": (178, 96, 92),
    "upper_teeth": (230, 222, 204),
    "lower_teeth": (226, 218, 200),
    "left_eye": (232, 226, 220),
    "right_eye": (232, 226, 220),
}
# The model's own Multi-PIE 68 landmark vertices (README of the model).
ICT_LANDMARKS68 = np.concatenate(
    [
        [1225, 1888, 1052, 367, 1719, 1722, 2199, 1447, 966, 3661, 4390, 3927, 3924, 2608, 3272],
        [4088, 3443, 268, 493, 1914, 2044, 1401, 3615, 4240, 4114, 2734, 2509, 978, 4527, 4942],
        [4857, 1140, 2075, 1147, 4269, 3360, 1507, 1542, 1537, 1528, 1518, 1511, 3742, 3751, 3756],
        [3721, 3725, 3732, 5708, 5695, 2081, 0, 4275, 6200, 6213, 6346, 6461, 5518, 5957, 5841],
        [5702, 5711, 5533, 6216, 6207, 6470, 5517, 5966],
    ]
)
# ARKit has one coefficient where ICT has one per side.
ARKIT_BOTH_SIDES = ("browInnerUp", "cheekPuff")


@dataclass(frozen=True, eq=False)
class _Linear:
    """A linear model as read, before the checks and tables that all formats share."""

    mean: NDArray[Any]  # (V, 3) mm
    identity: NDArray[Any]  # (K, V, 3) mm per standard deviation
    expression: NDArray[Any]  # (E, V, 3) mm at coefficient 1
    expression_names: Sequence[str]
    faces: NDArray[Any]  # (F, 3)
    parts: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # none: all of it is skin
    face_vertices: tuple[int, int] | None = None  # range that photos show; None: told from normals
    landmarks68: NDArray[Any] | None = None  # (68,) vertices
    colors: NDArray[Any] | None = None  # (V, 3) 0..255


def read_model(path: str | Path, *, expression: str | Path | None = None) -> dict[str, Any]:
    """Reads the arrays of a head model; `HeadModel.load` is the public way to it.

    Args:
        path: `01_MorphableModel.mat` (Basel 2009), a Basel 2017/2019 `.h5`, the `FaceXModel` folder
            of ICT-FaceKit, a FLAME `.npz` (v_template, shapedirs, f), or this package's own `.npz`.
        expression: `Model_Expression.mat` of 3DDFA, for Basel 2009 only. If it covers fewer
            vertices than the model, the `trimIndex` that says which is looked for in the same file,
            then in `model_info.mat` beside it.

    Returns:
        Arguments of `HeadModel`. Basel keeps its first 99 identity components; Basel and FLAME come
        without landmarks. ICT-FaceKit's 157 text files take some 7 s to read.

    Raises:
        FileNotFoundError: there is no such file or folder.
        InvalidModelFile: the file is damaged, of an unknown kind, or a pickle.
        ImportError: the package that reads this kind of file is not installed.
        ValueError: `expression` is given for a model that brings its own.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"path: there is no head model at {path}")
    if path.is_dir():
        _refuse_expression(expression, "an ICT-FaceKit folder")
        return _finish(_read_ict(path), path)
    with path.open("rb") as file:
        start = file.read(16)
    if path.suffix.lower() in (".pkl", ".pickle") or re.match(rb"\x80[\x02-\x05]", start):
        raise InvalidModelFile(
            f"path: {path} is a pickle, which can run any code when it is read. Open it yourself, "
            "where you trust it, save v_template, shapedirs and f (for FLAME) with numpy.savez, "
            "and pass the .npz"
        )
    if start.startswith(b"MATLAB 5.0"):
        return _finish(_read_basel_2009(path, expression), path)
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        _refuse_expression(expression, "a Basel .h5")
        return _finish(_read_basel_h5(path), path)
    if start.startswith(b"PK\x03\x04"):
        _refuse_expression(expression, "an .npz")
        return _read_npz(path)
    raise InvalidModelFile(
        f"path: {path} is not a head model: expected a .mat (version 5), .h5, .npz or ICT-FaceKit "
        f"folder, it starts with {start[:8]!r}"
    )


def _refuse_expression(expression: str | Path | None, kind: str) -> None:
    if expression is not None:
        raise ValueError(f"expression: expected None for {kind}, which brings its own expressions")


# === Basel 2009 and 3DDFA ===


def _read_basel_2009(path: Path, expression: str | Path | None) -> _Linear:
    names = ("shapeMU", "shapePC", "shapeEV", "tl", "texMU")
    data = _read_mat(path, names, optional=("texMU",))
    mean = _vector(data["shapeMU"], "shapeMU", path)
    n = len(mean) // 3
    components = _matrix(data["shapePC"], "shapePC", path, rows=len(mean))
    deviations = _vector(data["shapeEV"], "shapeEV", path)
    if len(mean) % 3 or components.shape[1] != len(deviations):
        raise InvalidModelFile(
            f"path: {path}: expected shapeMU (3V, 1), shapePC (3V, K) and shapeEV (K, 1), got "
            f"{data['shapeMU'].shape}, {data['shapePC'].shape} and {data['shapeEV'].shape}"
        )
    total = mean.astype(np.float64).reshape(n, 3)
    scaled = np.zeros((0, n, 3), np.float32)
    if expression is not None:
        offset, scaled = _read_3ddfa_expression(Path(expression), n)
        total = total + offset
    colors = None
    if "texMU" in data:
        colors = _vector(data["texMU"], "texMU", path)
        colors = colors.reshape(n, 3) if len(colors) == 3 * n else None
    return _Linear(
        mean=total * MM_PER_MICROMETRE,
        identity=_modes(components, deviations * MM_PER_MICROMETRE, IDENTITY_COMPONENTS),
        expression=scaled * np.float32(MM_PER_MICROMETRE),
        expression_names=[f"expression{i:02d}" for i in range(len(scaled))],
        faces=_integers(data["tl"], "tl", path) - 1,  # MATLAB counts from 1
        colors=colors,
    )


def _read_3ddfa_expression(path: Path, n: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """(V, 3) mean offset and (E, V, 3) modes of unit variance, in micrometres."""
    if not path.is_file():
        raise FileNotFoundError(f"expression: no file at {path}")
    names = ("mu_exp", "w_exp", "sigma_exp", "trimIndex")
    data = _read_mat(path, names, optional=("sigma_exp", "trimIndex"))
    offset = _vector(data["mu_exp"], "mu_exp", path)
    components = _matrix(data["w_exp"], "w_exp", path, rows=len(offset))
    deviations = np.ones(components.shape[1])
    if "sigma_exp" in data:
        deviations = _vector(data["sigma_exp"], "sigma_exp", path)
    if len(deviations) != components.shape[1] or len(offset) % 3:
        raise InvalidModelFile(
            f"expression: {path}: expected mu_exp (3V, 1), w_exp (3V, E) and sigma_exp (E, 1), got "
            f"{data['mu_exp'].shape}, {data['w_exp'].shape} and {deviations.shape}"
        )
    rows = len(offset) // 3
    modes = _modes(components, deviations, len(deviations))
    if rows == n:
        return offset.reshape(n, 3), modes
    beside = path.with_name("model_info.mat")
    if "trimIndex" not in data and beside.is_file():
        data.update(_read_mat(beside, ("trimIndex",), optional=("trimIndex",)))
    if "trimIndex" not in data:
        raise InvalidModelFile(
            f"expression: {path} covers {rows} of the model's {n} vertices; trimIndex, which says "
            f"which, is neither in it nor in {beside}"
        )
    kept = _integers(data["trimIndex"], "trimIndex", path).ravel() - 1
    if len(kept) != rows or kept.min() < 0 or kept.max() >= n or len(np.unique(kept)) != rows:
        raise InvalidModelFile(
            f"expression: expected a trimIndex of {rows} different vertices in 1..{n}, got "
            f"{len(kept)} in {kept.min() + 1}..{kept.max() + 1}"
        )
    # The trimmed model lacks the neck and ears, where expressions move nothing.
    full_offset = np.zeros((n, 3))
    full_offset[kept] = offset.reshape(rows, 3)
    full_modes = np.zeros((len(modes), n, 3), np.float32)
    full_modes[:, kept] = modes
    return full_offset, full_modes


def _read_mat(path: Path, names: tuple[str, ...], *, optional: tuple[str, ...]) -> dict[str, Any]:
    """Numeric variables of a version 5 .mat file."""
    scipy_io = _package("scipy.io", path)
    try:
        shapes = {name: shape for name, shape, _ in scipy_io.whosmat(str(path))}
        for name in names:
            _check_size(shapes.get(name, ()), name, path)
        data = scipy_io.loadmat(str(path), variable_names=list(names))
    except InvalidModelFile:
        raise
    except Exception as error:  # scipy raises nearly anything on damaged files
        raise InvalidModelFile(f"path: {path} is not a readable .mat file: {error}") from error
    found = {name: data[name] for name in names if name in data}
    missing = [name for name in names if name not in found and name not in optional]
    if missing:
        raise InvalidModelFile(
            f"path: {path} lacks {', '.join(missing)}; expected Basel's 01_MorphableModel.mat or, "
            "for expression, 3DDFA's Model_Expression.mat"
        )
    return found


# === Basel 2017 and 2019 ===


def _read_basel_h5(path: Path) -> _Linear:
    h5py = _package("h5py", path)
    try:
        with h5py.File(path, "r") as file:
            shape = _read_h5_model(h5py, file, "shape", path)
            # The face-only files without expressions have no such group.
            moved = (
                _read_h5_model(h5py, file, "expression", path)
                if "expression/model" in file
                else None
            )
            faces = _read_h5(h5py, file, "shape/representer/cells", path)
            colors = None
            if "color/model/mean" in file:
                colors = _read_h5(h5py, file, "color/model/mean", path)
    except InvalidModelFile:
        raise
    except Exception as error:  # h5py raises nearly anything on damaged files
        raise InvalidModelFile(f"path: {path} is not a readable Basel file: {error}") from error
    mean, components, variances = shape
    n = len(mean) // 3
    if len(mean) % 3:
        raise InvalidModelFile(f"path: {path}: expected shape/model/mean (3V,), got {mean.shape}")
    total = mean.astype(np.float64).reshape(n, 3)
    expression = np.zeros((0, n, 3), np.float32)
    if moved is not None:
        if len(moved[0]) != 3 * n:
            raise InvalidModelFile(
                f"path: {path}: expected {3 * n} values in expression/model/mean, got "
                f"{len(moved[0])}"
            )
        total = total + moved[0].reshape(n, 3)
        expression = _modes(moved[1], np.sqrt(moved[2]), len(moved[2]))
    faces = _integers(faces, "shape/representer/cells", path)
    if colors is not None:
        colors = np.asarray(colors, np.float64).ravel() * 255
        colors = colors.reshape(n, 3) if len(colors) == 3 * n else None
    return _Linear(
        mean=total,  # these files are in millimetres already
        identity=_modes(components, np.sqrt(variances), IDENTITY_COMPONENTS),
        expression=expression,
        expression_names=[f"expression{i:02d}" for i in range(len(expression))],
        faces=faces.T if faces.shape[0] == 3 and faces.shape[1] != 3 else faces,
        colors=colors,
    )


def _read_h5_model(
    h5py: Any, file: Any, group: str, path: Path
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Mean (3V,), orthonormal components (3V, K) and variances (K,) of one model in the file."""
    mean, components, variances = (
        _read_h5(h5py, file, f"{group}/model/{name}", path)
        for name in ("mean", "pcaBasis", "pcaVariance")
    )
    mean = _vector(mean, f"{group}/model/mean", path)
    variances = _vector(variances, f"{group}/model/pcaVariance", path)
    components = _matrix(components, f"{group}/model/pcaBasis", path, rows=len(mean))
    if components.shape[1] != len(variances) or (variances < 0).any():
        raise InvalidModelFile(
            f"path: {path}: expected {components.shape[1]} values of at least 0 in "
            f"{group}/model/pcaVariance, got {len(variances)}"
        )
    return mean, components, variances


def _read_h5(h5py: Any, file: Any, name: str, path: Path) -> NDArray[Any]:
    if name not in file or not isinstance(file[name], h5py.Dataset):
        raise InvalidModelFile(
            f"path: {path} has no dataset {name}; expected a Basel 2017 or 2019 .h5"
        )
    _check_size(file[name].shape, name, path)
    return np.asarray(file[name][()])


# === ICT-FaceKit ===


def _read_ict(folder: Path) -> _Linear:
    neutral_file = folder / "generic_neutral_mesh.obj"
    if not neutral_file.is_file():
        raise InvalidModelFile(
            f"path: {folder} has no generic_neutral_mesh.obj; expected the FaceXModel folder of "
            "ICT-FaceKit"
        )
    neutral = _read_obj_vertices(neutral_file)
    faces = _read_obj_faces(neutral_file, len(neutral))
    released = len(neutral) == ICT_VERTICES
    n = max(stop for _, stop in ICT_PARTS.values()) if released else len(neutral)
    identities = sorted(folder.glob("identity[0-9][0-9][0-9].obj"))
    if not identities:
        raise InvalidModelFile(f"path: {folder} has no identity000.obj")
    others = sorted(set(folder.glob("*.obj")) - {neutral_file, *identities})

    def differences(files: Sequence[Path]) -> Float32:
        out = np.zeros((len(files), n, 3), np.float32)
        for row, file in enumerate(files):
            vertices = _read_obj_vertices(file)
            if vertices.shape != neutral.shape:
                raise InvalidModelFile(
                    f"path: {file}: expected {len(neutral)} vertices as in the neutral mesh, got "
                    f"{len(vertices)}"
                )
            out[row] = (vertices - neutral)[:n] * MM_PER_CENTIMETRE
        return out

    names, expression = _arkit([file.stem for file in others], differences(others))
    return _Linear(
        mean=neutral[:n] * MM_PER_CENTIMETRE,
        identity=differences(identities),
        expression=expression,
        expression_names=names,
        faces=faces[(faces < n).all(1)],
        parts=ICT_PARTS if released else {},
        face_vertices=ICT_FACE if released else None,
        landmarks68=ICT_LANDMARKS68 if released else None,
    )


def _arkit(names: Sequence[str], modes: Float32) -> tuple[list[str], Float32]:
    """ARKit's names: browDown_L becomes browDownLeft, and both sides of browInnerUp become one."""
    merged: dict[str, Float32] = {}
    for name, mode in zip(names, modes, strict=True):
        stem = re.sub("_[LR]$", "", name)
        if stem == name or stem in ARKIT_BOTH_SIDES:
            new = stem
        else:
            new = stem + {"L": "Left", "R": "Right"}[name[-1]]
        merged[new] = merged[new] + mode if new in merged else mode
    return list(merged), np.array(list(merged.values()), np.float32).reshape(-1, *modes.shape[1:])


def _read_obj_vertices(path: Path) -> NDArray[np.float64]:
    """(V, 3) positions; any further numbers on a line (colours) are dropped."""
    rows = re.findall(rb"^v[ \t]+([^\r\n]*)", _bytes(path), re.MULTILINE)
    if not rows:
        raise InvalidModelFile(f"path: {path}: expected vertices, got none")
    try:
        return np.loadtxt(io.BytesIO(b"\n".join(rows)), usecols=(0, 1, 2), ndmin=2)
    except ValueError as error:
        raise InvalidModelFile(f"path: {path}: a vertex is not three numbers: {error}") from error


def _read_obj_faces(path: Path, vertices: int) -> Int32:
    """(F, 3) triangles; quads and larger polygons become fans."""
    triangles = []
    for row in re.findall(rb"^f[ \t]+([^\r\n]*)", _bytes(path), re.MULTILINE):
        try:
            corners = [int(corner.split(b"/")[0]) - 1 for corner in row.split()]
        except ValueError as error:
            raise InvalidModelFile(
                f"path: {path}: a face is not vertex numbers: {error}"
            ) from error
        if len(corners) < 3 or min(corners) < 0 or max(corners) >= vertices:
            raise InvalidModelFile(
                f"path: {path}: expected faces of at least 3 vertices in 1..{vertices}, got "
                f"{row.decode(errors='replace')!r}"
            )
        triangles += [(corners[0], a, b) for a, b in pairwise(corners[1:])]
    if not triangles:
        raise InvalidModelFile(f"path: {path}: expected faces, got none")
    return np.array(triangles, np.int32)


def _bytes(path: Path) -> bytes:
    if path.stat().st_size > MAX_VALUES:
        raise InvalidModelFile(
            f"path: {path} has {path.stat().st_size} bytes, more than {MAX_VALUES}"
        )
    return path.read_bytes()


# === .npz: FLAME, or our own ===


def _read_npz(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > 8 * MAX_VALUES:  # bytes of float64
            raise ValueError(f"it unpacks to {size} bytes")
        # The file is opened here because NumPy leaves it open when it is damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            flame = set(FLAME_ARRAYS) <= set(data.files)
            arrays = {name: data[name] for name in (FLAME_ARRAYS if flame else data.files)}
    except Exception as error:  # zip, zlib and NumPy errors have no common base
        raise InvalidModelFile(f"path: {path} is not a readable head model: {error}") from error
    return _finish(_flame(arrays, path), path) if flame else _own(arrays, path)


def _own(arrays: Mapping[str, NDArray[Any]], path: Path) -> dict[str, Any]:
    """This package's layout (docs/head_model.md), written by train/head_model.py."""
    try:
        names = tuple(str(name) for name in arrays["part_names"])
        levels: list[tuple[NDArray[Any], ...]] = []
        while f"sub{len(levels)}_indptr" in arrays:
            stem = f"sub{len(levels)}_"
            levels.append(tuple(arrays[stem + part] for part in ("indptr", "indices", "weights")))
        return {
            **{name: arrays[name] for name in OWN_ARRAYS},
            "expression_names": tuple(str(name) for name in arrays["expression_names"]),
            "part_names": names,
            "part_faces": {name: arrays[f"part_faces_{name}"] for name in names},
            "subdivision": tuple(levels),
        }
    except (KeyError, TypeError) as error:
        raise InvalidModelFile(
            f"path: {path} is neither this package's head model nor FLAME (v_template, shapedirs, "
            f"f): it has no array {error}"
        ) from error


def _flame(arrays: Mapping[str, NDArray[Any]], path: Path) -> _Linear:
    template, directions = arrays["v_template"], arrays["shapedirs"]
    _numeric(template, "v_template", path)
    _numeric(directions, "shapedirs", path)
    if template.ndim != 2 or directions.ndim != 3 or directions.shape[:2] != template.shape:
        raise InvalidModelFile(
            f"path: {path}: expected v_template (V, 3) and shapedirs (V, 3, K), got "
            f"{template.shape} and {directions.shape}"
        )
    # FLAME 2019 to 2023: 300 identity directions, then 100 of expression, of unit variance.
    split = 300 if directions.shape[2] > 300 else directions.shape[2]
    modes = np.moveaxis(directions, 2, 0) * MM_PER_METRE
    return _Linear(
        mean=template * MM_PER_METRE,
        identity=modes[: min(split, IDENTITY_COMPONENTS)],
        expression=modes[split:],
        expression_names=[f"expression{i:02d}" for i in range(len(modes) - split)],
        faces=_integers(arrays["f"], "f", path),
    )


# === What all formats share ===


def _finish(linear: _Linear, path: Path) -> dict[str, Any]:
    """Checks the numbers, orients the triangles, finds the mirror table and the face region."""
    mean = np.asarray(linear.mean, np.float32)
    faces = np.asarray(linear.faces)
    for name, array in (
        ("mean", mean),
        ("identity", linear.identity),
        ("expression", linear.expression),
    ):
        if not np.isfinite(array).all():
            raise InvalidModelFile(f"path: {path}: the {name} holds NaN or infinity")
    if len(mean) < 4 or faces.ndim != 2 or faces.shape[1] != 3 or not len(faces):
        raise InvalidModelFile(
            f"path: {path}: expected at least 4 vertices and triangles (F, 3), got {len(mean)} and "
            f"{faces.shape}"
        )
    if faces.min() < 0 or faces.max() >= len(mean):
        raise InvalidModelFile(
            f"path: {path}: triangles name vertices {faces.min()}..{faces.max()} of {len(mean)}"
        )
    low, high = mean.min(0), mean.max(0)
    diagonal = float(np.linalg.norm(high - low))
    if not MODEL_SIZE_MM[0] <= diagonal <= MODEL_SIZE_MM[1]:
        raise InvalidModelFile(
            f"path: {path}: expected a face or head of {MODEL_SIZE_MM[0]:.0f} to "
            f"{MODEL_SIZE_MM[1]:.0f} mm, read as {diagonal:.4g} mm"
        )
    parts = dict(linear.parts) or {"skin": (0, len(mean))}
    triangles = {
        name: _outward(mean, faces[((faces >= start) & (faces < stop)).all(1)])
        for name, (start, stop) in parts.items()
    }
    skin = triangles["skin"]
    weight = _face_weight(mean[: parts["skin"][1]], skin, linear.face_vertices)
    marks = np.zeros(0, np.int64) if linear.landmarks68 is None else linear.landmarks68
    landmark_faces, landmark_bary = _at_vertices(marks, skin)
    mirror = _mirror_table(mean, parts, path)
    colors = linear.colors
    if colors is None:
        colors = np.full((len(mean), 3), (208, 168, 144))  # a plain skin tone
        for name, color in ICT_PART_COLORS.items():
            if name in parts:
                colors[slice(*parts[name])] = color
    return {
        "mean": mean,
        "identity": np.asarray(linear.identity, np.float32),
        "expression": np.asarray(linear.expression, np.float32),
        "expression_names": tuple(linear.expression_names),
        "faces": skin,
        "mirror": mirror,
        "coarse_mirror": mirror,
        "part_names": tuple(parts),
        "part_vertex_range": np.array(list(parts.values()), np.int32),
        "part_faces": triangles,
        "face_weight": weight,
        "face_region": weight > 0,
        "colors": np.clip(np.round(colors), 0, 255).astype(np.uint8),
        "landmarks68_faces": landmark_faces,
        "landmarks68_bary": landmark_bary,
    }


def _outward(mean: Float32, faces: NDArray[Any]) -> Int32:
    """The triangles wound counter-clockwise seen from outside; all of them turn together.

    The sign of the volume decides, with the apex behind the mesh: for a closed part any apex gives
    its volume, for an open face the cone from behind is what the surface closes off.
    """
    if not len(faces):
        return np.zeros((0, 3), np.int32)
    apex = mean[np.unique(faces)].astype(np.float64).mean(0)
    apex[2] = mean[faces, 2].min()
    a, b, c = (mean[faces[:, k]].astype(np.float64) - apex for k in range(3))
    volume = float(np.einsum("ij,ij->", a, np.cross(b, c)))
    oriented = faces if volume >= 0 else faces[:, [0, 2, 1]]
    return np.ascontiguousarray(oriented, np.int32)


def _mirror_table(mean: Float32, parts: Mapping[str, tuple[int, int]], path: Path) -> Int32:
    """(V,) the vertex at each vertex's mirror image in x = 0; itself where there is none.

    Always an involution. Only vertices within `MIRROR_TOLERANCE_MM` that choose each other pair up;
    a left part (`left_eye`) pairs with its right one.
    """
    tree_of = _package("scipy.spatial", path).cKDTree
    table = np.arange(len(mean), dtype=np.int32)
    for name, (start, stop) in parts.items():
        twin = name.replace("left", "RIGHT").replace("right", "left").replace("RIGHT", "right")
        other_start, other_stop = parts.get(twin, (start, stop))
        reflected = mean[start:stop] * np.array([-1, 1, 1], np.float32)
        distance, nearest = tree_of(mean[other_start:other_stop]).query(reflected)
        pair = np.where(
            distance <= MIRROR_TOLERANCE_MM, nearest + other_start, np.arange(start, stop)
        )
        table[start:stop] = pair
    mutual = table[table] == np.arange(len(mean))
    return np.where(mutual, table, np.arange(len(mean), dtype=np.int32)).astype(np.int32)


def _face_weight(skin: Float32, faces: Int32, visible: tuple[int, int] | None) -> Float32:
    """(Ns,) where bump maps apply: 1 on the face, falling to 0 at its border.

    The face is the given vertex range, or else what faces forward in the front half of the mesh.
    """
    if visible is None:
        a, b, c = (skin[faces[:, k]].astype(np.float64) for k in range(3))
        normals = np.zeros((len(skin), 3))
        for k in range(3):
            np.add.at(normals, faces[:, k], np.cross(b - a, c - a))
        length = np.linalg.norm(normals, axis=1)
        forward = normals[:, 2] / np.maximum(length, 1e-12)
        middle = (skin[:, 2].min() + skin[:, 2].max()) / 2
        # 60 to 80 degrees from the viewing direction of a frontal photo.
        base = _smoothstep((forward - 0.17) / 0.33) * (skin[:, 2] > middle)
    else:
        base = np.zeros(len(skin))
        base[visible[0] : visible[1]] = 1
    inside = (base > 0)[faces].all(1)
    rim = _border(faces[inside])
    if not len(rim):
        return np.array(base, np.float32)
    tree_of = importlib.import_module("scipy.spatial").cKDTree
    distance, _ = tree_of(skin[rim]).query(skin)
    weight = base * _smoothstep(distance / RIM_MM)
    return np.array(weight, np.float32)


def _border(faces: Int32) -> NDArray[np.int64]:
    """Vertices of edges that belong to one triangle only."""
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    return np.unique(unique[count == 1]).astype(np.int64)


def _smoothstep(t: NDArray[Any]) -> NDArray[Any]:
    t = np.clip(t, 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def _at_vertices(vertices: NDArray[Any], faces: Int32) -> tuple[Int32, Float32]:
    """For each vertex a triangle that has it, and weights that are 1 there."""
    order = np.argsort(faces.ravel(), kind="stable")
    corner = order[np.searchsorted(faces.ravel()[order], vertices)]
    return (corner // 3).astype(np.int32), np.eye(3, dtype=np.float32)[corner % 3]


def _modes(components: NDArray[Any], deviations: NDArray[Any], most: int) -> Float32:
    """(K, V, 3) components of unit variance from orthonormal columns and standard deviations."""
    used = min(most, len(deviations))
    scaled = components[:, :used].T.astype(np.float32) * deviations[:used, None].astype(np.float32)
    return np.asarray(scaled.reshape(used, -1, 3), np.float32)


def _package(name: str, path: Path) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        raise ImportError(
            f"reading {path} needs the package {package}: pip install {package}"
        ) from error


def _check_size(shape: tuple[int, ...], name: str, path: Path) -> None:
    if np.prod([float(size) for size in shape]) > MAX_VALUES:
        raise InvalidModelFile(
            f"path: {path}: {name} of shape {shape} is larger than any known model"
        )


def _numeric(array: NDArray[Any], name: str, path: Path) -> None:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise InvalidModelFile(f"path: {path}: expected numbers in {name}, got {array.dtype}")


def _vector(array: NDArray[Any], name: str, path: Path) -> NDArray[Any]:
    _numeric(array, name, path)
    if array.size != max(array.shape, default=0) or not array.size:
        raise InvalidModelFile(
            f"path: {path}: expected a vector in {name}, got shape {array.shape}"
        )
    return array.ravel()


def _matrix(array: NDArray[Any], name: str, path: Path, *, rows: int) -> NDArray[Any]:
    _numeric(array, name, path)
    if array.ndim != 2 or array.shape[0] != rows:
        raise InvalidModelFile(
            f"path: {path}: expected {name} of shape ({rows}, K), got {array.shape}"
        )
    return array


def _integers(array: NDArray[Any], name: str, path: Path) -> NDArray[np.int64]:
    """Whole numbers, which MATLAB stores as floats."""
    _numeric(array, name, path)
    whole = np.nan_to_num(np.asarray(array, np.float64), nan=-1, posinf=-1, neginf=-1)
    if (
        array.ndim != 2
        or not array.size
        or (whole != np.floor(whole)).any()
        or abs(whole).max() > 2**31
    ):
        raise InvalidModelFile(f"path: {path}: expected a table of whole numbers in {name}")
    return whole.astype(np.int64)
