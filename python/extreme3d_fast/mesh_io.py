"""Coloured meshes in memory, and as GLB, OBJ, PLY and STL files."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from extreme3d_fast._arrays import Float32, Int32, UInt8, float_array, index_array
from extreme3d_fast.mesh import vertex_normals

__all__ = ["FORMATS", "Mesh", "merged", "save_meshes"]


class Mesh(NamedTuple):
    """A triangle mesh with a colour a vertex.

    vertices: (V, 3) float32, mm.
    faces: (F, 3) int32, counter-clockwise seen from outside.
    colors: (V, 3) uint8, sRGB.
    """

    vertices: Float32
    faces: Int32
    colors: UInt8


def merged(meshes: Mapping[str, Mesh]) -> Mesh:
    """All meshes as one, in their order."""
    checked = [_checked(name, mesh) for name, mesh in meshes.items()]
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in checked)])[:-1]
    return Mesh(
        np.concatenate([mesh.vertices for mesh in checked]),
        np.concatenate(
            [mesh.faces + np.int32(at) for mesh, at in zip(checked, starts, strict=True)]
        ),
        np.concatenate([mesh.colors for mesh in checked]),
    )


def save_meshes(
    path: str | os.PathLike[str],
    meshes: Mapping[str, Mesh],
    *,
    vertex_data: Mapping[str, npt.NDArray[np.uint8]] | None = None,
) -> None:
    """Write meshes to a file whose format is told by its suffix.

    .glb  glTF 2.0, one node a mesh, in metres (glTF's unit) with y up and the face towards +z;
          colours are stored linear in 16 bits, as glTF asks for, so that viewers show the photo's.
    .obj  one object a mesh, in mm; colours follow each vertex's position, in [0, 1].
    .ply  binary, one mesh, in mm; normals, 8-bit colours and `vertex_data`.
    .stl  binary, one mesh, in mm; shape only.

    Args:
        path: The file to write; an older one is replaced, its folder must exist.
        meshes: Name to mesh.
        vertex_data: PLY only: further properties, each (V,) uint8 over the vertices of all meshes.

    Raises:
        ValueError: Unknown suffix, or arrays that do not make a mesh.
        OSError: The file cannot be written.
    """
    path = Path(path)
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise ValueError(
            f"path should end in one of {', '.join(FORMATS)}, is {path.name!r}: "
            "the format is told by the suffix"
        )
    if not meshes:
        raise ValueError("meshes should hold at least one mesh, is empty")
    checked = {name: _checked(name, mesh) for name, mesh in meshes.items()}
    path.write_bytes(writer(checked, vertex_data or {}))


def _checked(name: str, mesh: Mesh) -> Mesh:
    vertices, faces, colors = mesh
    points = float_array(f"{name} vertices", vertices, (-1, 3))
    triangles = index_array(f"{name} faces", faces, (-1, 3), 0, len(points))
    rgb = np.asarray(colors)
    if rgb.shape != points.shape or rgb.dtype != np.uint8:
        raise ValueError(
            f"`{name} colors` should be uint8 of shape {points.shape}, "
            f"is {rgb.dtype} of shape {rgb.shape}"
        )
    return Mesh(points, triangles, np.ascontiguousarray(rgb))


def srgb_decoded(colors: UInt8) -> npt.NDArray[np.float64]:
    """Linear intensities in [0, 1] of 8-bit sRGB values (IEC 61966-2-1)."""
    s = np.arange(256) / 255.0
    table = np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4)
    return np.asarray(table[colors])


_Writer = Callable[[Mapping[str, Mesh], Mapping[str, npt.NDArray[np.uint8]]], bytes]

_GLB_METERS_PER_MM = np.float32(1e-3)
_GL_FLOAT, _GL_UINT, _GL_USHORT = 5126, 5125, 5123
_GL_ARRAY_BUFFER, _GL_ELEMENT_BUFFER = 34962, 34963


def _glb(meshes: Mapping[str, Mesh], _: Mapping[str, Any]) -> bytes:
    """Section "GLB File Format Specification" of glTF 2.0: a JSON chunk and a binary chunk."""
    views: list[dict[str, int]] = []
    accessors: list[dict[str, Any]] = []
    blob = bytearray()

    def add(array: npt.NDArray[Any], component: int, kind: str, target: int, **more: Any) -> int:
        views.append(
            {
                "buffer": 0,
                "byteOffset": len(blob),
                "byteLength": array.nbytes,
                "target": target,
            }
        )
        blob.extend(array.tobytes())  # every element below has a multiple of 4 bytes
        accessors.append(
            {
                "bufferView": len(views) - 1,
                "componentType": component,
                "count": array.size if kind == "SCALAR" else len(array),
                "type": kind,
                **more,
            }
        )
        return len(accessors) - 1

    glb_meshes = []
    for name, mesh in meshes.items():
        positions = (mesh.vertices * _GLB_METERS_PER_MM).astype("<f4")
        normals = vertex_normals(mesh.vertices, mesh.faces)
        normals[~normals.any(axis=1)] = (0.0, 0.0, 1.0)  # glTF allows unit vectors only
        rgba = np.full((len(positions), 4), 65535, "<u2")
        rgba[:, :3] = np.rint(srgb_decoded(mesh.colors) * 65535.0)
        bounds = {"min": positions.min(axis=0).tolist(), "max": positions.max(axis=0).tolist()}
        attributes = {
            "POSITION": add(positions, _GL_FLOAT, "VEC3", _GL_ARRAY_BUFFER, **bounds),
            "NORMAL": add(normals.astype("<f4"), _GL_FLOAT, "VEC3", _GL_ARRAY_BUFFER),
            "COLOR_0": add(rgba, _GL_USHORT, "VEC4", _GL_ARRAY_BUFFER, normalized=True),
        }
        indices = add(mesh.faces.astype("<u4"), _GL_UINT, "SCALAR", _GL_ELEMENT_BUFFER)
        primitive = {"attributes": attributes, "indices": indices, "material": 0}
        glb_meshes.append({"name": name, "primitives": [primitive]})
    document = {
        "asset": {"version": "2.0", "generator": "extreme3d_fast"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [
            {"name": "head", "children": list(range(1, len(meshes) + 1))},
            *({"name": name, "mesh": i} for i, name in enumerate(meshes)),
        ],
        "meshes": glb_meshes,
        "materials": [
            {
                "name": "photo colours",
                "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.75},
                "doubleSided": True,
            }
        ],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(blob)}],
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    length = 12 + 8 + len(text) + 8 + len(blob)
    return b"".join(
        [
            struct.pack("<4sII", b"glTF", 2, length),
            struct.pack("<I4s", len(text), b"JSON"),
            text,
            struct.pack("<I4s", len(blob), b"BIN\0"),
            bytes(blob),
        ]
    )


def _obj(meshes: Mapping[str, Mesh], _: Mapping[str, Any]) -> bytes:
    lines = ["# extreme3d_fast, millimetres, x to the subject's left, y up, z out of the face\n"]
    first = 1  # OBJ counts vertices from 1, through all objects
    for name, mesh in meshes.items():
        rows = np.hstack([mesh.vertices.astype(np.float64), mesh.colors / 255.0])
        normals = vertex_normals(mesh.vertices, mesh.faces)
        corners = np.repeat(mesh.faces + first, 2, axis=1)
        lines.append(f"o {name}\n")
        lines.append("v %.4f %.4f %.4f %.4f %.4f %.4f\n" * len(rows) % tuple(rows.ravel()))
        lines.append("vn %.4f %.4f %.4f\n" * len(normals) % tuple(normals.ravel().tolist()))
        lines.append("f %d//%d %d//%d %d//%d\n" * len(corners) % tuple(corners.ravel().tolist()))
        first += len(rows)
    return "".join(lines).encode()


def _ply(meshes: Mapping[str, Mesh], vertex_data: Mapping[str, npt.NDArray[np.uint8]]) -> bytes:
    mesh = merged(meshes)
    fields: list[tuple[str, str]] = [(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")]
    fields += [(name, "u1") for name in ("red", "green", "blue", *vertex_data)]
    rows = np.zeros(len(mesh.vertices), fields)
    normals = vertex_normals(mesh.vertices, mesh.faces)
    for i, axis in enumerate("xyz"):
        rows[axis], rows["n" + axis] = mesh.vertices[:, i], normals[:, i]
    for i, channel in enumerate(("red", "green", "blue")):
        rows[channel] = mesh.colors[:, i]
    for name, values in vertex_data.items():
        if values.shape != (len(rows),):
            raise ValueError(f"`{name}` should have shape {(len(rows),)}, has {values.shape}")
        rows[name] = values
    corners = np.zeros(len(mesh.faces), [("count", "u1"), ("corners", "<i4", (3,))])
    corners["count"], corners["corners"] = 3, mesh.faces
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment extreme3d_fast, millimetres, x to the subject's left, y up, z out of the face",
        f"element vertex {len(rows)}",
        *(f"property {'float' if kind == '<f4' else 'uchar'} {name}" for name, kind in fields),
        f"element face {len(corners)}",
        "property list uchar int vertex_indices",
        "end_header\n",
    ]
    return "\n".join(header).encode() + rows.tobytes() + corners.tobytes()


def _stl(meshes: Mapping[str, Mesh], _: Mapping[str, Any]) -> bytes:
    mesh = merged(meshes)
    corners = mesh.vertices[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    rows = np.zeros(
        len(corners),
        [("normal", "<f4", (3,)), ("corners", "<f4", (3, 3)), ("attribute", "<u2")],
    )
    rows["normal"] = np.divide(normals, length, out=np.zeros_like(normals), where=length > 0)
    rows["corners"] = corners
    header = b"extreme3d_fast, millimetres".ljust(80, b" ")
    return header + struct.pack("<I", len(rows)) + rows.tobytes()


_WRITERS: dict[str, _Writer] = {".glb": _glb, ".obj": _obj, ".ply": _ply, ".stl": _stl}

#: Suffixes that `save_meshes` and `Face.save` write.
FORMATS = tuple(_WRITERS)
