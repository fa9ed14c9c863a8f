"""mesh_io: files read back by another library are the meshes that were written."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray

from extreme3d_fast.mesh import vertex_normals
from extreme3d_fast.mesh_io import Mesh, merged, save_meshes, srgb_decoded

EYE = Mesh(
    np.array([[0, 0, 120], [10, 0, 120], [0, 10, 120], [0, 0, 130]], np.float32),
    np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]], np.int32),
    np.array([[255, 255, 255], [0, 0, 0], [128, 10, 3], [90, 60, 30]], np.uint8),
)


@pytest.fixture
def head(sphere: Mesh) -> dict[str, Mesh]:
    return {"skin": sphere, "left_eye": EYE}


def read(path: Path) -> trimesh.Trimesh:
    mesh = trimesh.load(path, process=False, force="mesh")
    assert isinstance(mesh, trimesh.Trimesh)
    return mesh


@pytest.mark.parametrize("suffix", ["obj", "ply"])
def test_read_back_is_what_was_written(tmp_path: Path, head: dict[str, Mesh], suffix: str) -> None:
    save_meshes(tmp_path / f"head.{suffix}", head)
    want, got = merged(head), read(tmp_path / f"head.{suffix}")
    np.testing.assert_allclose(got.vertices, want.vertices, atol=1e-4)  # OBJ has four decimals
    np.testing.assert_array_equal(got.faces, want.faces)
    np.testing.assert_array_equal(got.visual.vertex_colors[:, :3], want.colors)


def test_glb_is_in_metres_with_a_node_a_part(tmp_path: Path, head: dict[str, Mesh]) -> None:
    save_meshes(tmp_path / "head.glb", head)
    scene = trimesh.load(tmp_path / "head.glb", process=False)
    assert set(scene.geometry) == {"skin", "left_eye"}
    np.testing.assert_allclose(scene.bounds, [[-0.1, -0.1, -0.1], [0.1, 0.1, 0.13]], atol=1e-6)
    for name, mesh in head.items():
        np.testing.assert_allclose(scene.geometry[name].vertices * 1000, mesh.vertices, atol=1e-4)
        np.testing.assert_array_equal(scene.geometry[name].faces, mesh.faces)


def glb_accessor(data: bytes, mesh: int, attribute: str) -> NDArray[np.generic]:
    """Naive reader, straight from the glTF 2.0 specification."""
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    json_length, json_kind = struct.unpack_from("<I4s", data, 12)
    assert json_kind == b"JSON"
    document = json.loads(data[20 : 20 + json_length])
    start = 20 + json_length + 8
    primitive = document["meshes"][mesh]["primitives"][0]
    accessor = document["accessors"][primitive["attributes"][attribute]]
    view = document["bufferViews"][accessor["bufferView"]]
    dtype = {5126: "<f4", 5123: "<u2"}[accessor["componentType"]]
    width = {"VEC3": 3, "VEC4": 4}[accessor["type"]]
    assert view["byteOffset"] % 4 == 0
    values = np.frombuffer(data, dtype, accessor["count"] * width, start + view["byteOffset"])
    return values.reshape(-1, width)


def test_glb_colors_are_linear_and_lose_nothing(tmp_path: Path) -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    points = np.random.default_rng(0).normal(size=(256, 3)).astype(np.float32)
    save_meshes(tmp_path / "a.glb", {"skin": Mesh(points, np.array([[0, 1, 2]], np.int32), ramp)})
    rgba = glb_accessor((tmp_path / "a.glb").read_bytes(), 0, "COLOR_0")
    linear = rgba[:, :3].astype(float) / 65535
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    np.testing.assert_array_equal(np.rint(srgb * 255), ramp)
    assert (rgba[:, 3] == 65535).all()


def test_glb_normals_point_out_of_the_sphere(tmp_path: Path, sphere: Mesh) -> None:
    save_meshes(tmp_path / "a.glb", {"skin": sphere})
    normals = glb_accessor((tmp_path / "a.glb").read_bytes(), 0, "NORMAL")
    # Flat triangles of 642 vertices: their mean is within one degree of the radius.
    np.testing.assert_allclose(normals, sphere.vertices / 100, atol=0.0175)


def test_stl_keeps_the_surface(tmp_path: Path, head: dict[str, Mesh]) -> None:
    save_meshes(tmp_path / "head.stl", head)
    want, got = merged(head), read(tmp_path / "head.stl")
    np.testing.assert_allclose(got.triangles, want.vertices[want.faces])
    np.testing.assert_allclose(
        got.face_normals, trimesh.Trimesh(*want[:2], process=False).face_normals, atol=1e-5
    )


def test_ply_holds_vertex_data_and_normals(tmp_path: Path, sphere: Mesh) -> None:
    origin = (np.arange(len(sphere.vertices)) % 4).astype(np.uint8)
    save_meshes(tmp_path / "a.ply", {"skin": sphere}, vertex_data={"provenance": origin})
    rows = read(tmp_path / "a.ply").metadata["_ply_raw"]["vertex"]["data"]
    np.testing.assert_array_equal(rows["provenance"].ravel(), origin)
    np.testing.assert_allclose(
        np.c_[rows["nx"], rows["ny"], rows["nz"]], vertex_normals(*sphere[:2]), atol=1e-6
    )


def test_upper_case_suffix_is_known(tmp_path: Path, sphere: Mesh) -> None:
    save_meshes(tmp_path / "HEAD.PLY", {"skin": sphere})
    assert (tmp_path / "HEAD.PLY").read_bytes().startswith(b"ply\n")


@pytest.mark.parametrize("name", ["head", "head.fbx", "head.glb.zip"])
def test_unknown_suffix_is_refused(tmp_path: Path, sphere: Mesh, name: str) -> None:
    with pytest.raises(ValueError, match=r"should end in one of \.glb, \.obj, \.ply, \.stl"):
        save_meshes(tmp_path / name, {"skin": sphere})
    assert not list(tmp_path.iterdir())


def test_missing_folder_is_an_os_error(tmp_path: Path, sphere: Mesh) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere/head\.glb"):
        save_meshes(tmp_path / "nowhere/head.glb", {"skin": sphere})


def test_color_of_the_wrong_kind_is_named(tmp_path: Path, sphere: Mesh) -> None:
    wrong = sphere._replace(colors=sphere.colors / 255.0)
    with pytest.raises(ValueError, match="`skin colors` should be uint8"):
        save_meshes(tmp_path / "a.ply", {"skin": wrong})


def test_face_index_out_of_range_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`skin faces` should hold indices in"):
        save_meshes(tmp_path / "a.ply", {"skin": EYE._replace(faces=EYE.faces + 1)})


def test_srgb_curve_has_its_known_values() -> None:
    # IEC 61966-2-1: black, mid grey (0.2158605), white.
    np.testing.assert_allclose(
        srgb_decoded(np.array([0, 128, 255], np.uint8)), [0.0, 0.2158605, 1.0], atol=1e-7
    )
