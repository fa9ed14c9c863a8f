"""The least time that a stage can take: bytes or operations that cannot be spared, over the rates
that this machine was measured to reach.

Bytes are what has to be moved: inputs read once, outputs written once, of maps whose pixels matter
only where the face is (or a hole) those pixels. Operations are those of the algorithm: products of
the networks' layers, of the sparse Cholesky, of the references' Gram matrix. The floor is the
larger of both times, so no stage can be under it but by a better algorithm. It is what a machine
without latency, branches, allocation or start-up would need; nothing real comes close everywhere.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Barrier
from typing import Any, NamedTuple

import numpy as np

from bench.workloads import Capture, Stage, array_bytes, sizes

_MB = 1 << 20
WORKING_SETS = tuple(_MB << n for n in range(9))  # 1 to 256 MB, source and target together
_GEMM = (512, 1024)  # rows of square matrices: at the peak, and over before others interfere
_COPIED = 32 * _MB  # in a try, for the same reason
_TRIES = 20  # the best counts: a floor is what the machine can do
Shapes = tuple[tuple[int, ...], ...]


class Run(NamedTuple):
    """A run of a network."""

    path: Path
    names: tuple[str, ...]  #: of its inputs
    shapes: Shapes
    precision: str  #: of its products


@dataclass(frozen=True)
class Rates:
    """What the machine was measured to do with so many threads."""

    threads: int
    bandwidth: Mapping[int, float]  #: bytes read and written a second, by working set in bytes
    flops: Mapping[str, float]  #: operations a second, by dtype

    def bytes_a_second(self, working_set: int) -> float:
        """Of a copy within a working set of this size, between those measured."""
        at = np.log(list(self.bandwidth))
        return float(np.interp(np.log(max(working_set, 1)), at, list(self.bandwidth.values())))

    def report(self) -> dict[str, Any]:
        """For people and JSON."""
        return {
            "threads": self.threads,
            "copy_gb_s": {f"{n // _MB} MB": round(b / 1e9, 2) for n, b in self.bandwidth.items()},
            "gemm_gflop_s": {name: round(f / 1e9, 1) for name, f in self.flops.items()},
            "how": "bytes: np.copyto, a part of the arrays a thread, read + written; "
            f"operations: product of {' or '.join(map(str, _GEMM))} rows, NumPy's, in bfloat16 "
            f"OpenVINO's; best of {_TRIES}",
        }


@dataclass(frozen=True)
class Count:
    """What a stage cannot spare."""

    bytes: int
    why: str  #: what was counted
    flops: float = 0.0
    dtype: str = "float32"  #: of the operations


@dataclass(frozen=True)
class Floor:
    """The least time of a stage; None where it means nothing."""

    ms: float | None
    bound: str  #: "bytes", "ops", or "-"
    why: str


# === Rates ===


def best_of(first: Rates, second: Rates) -> Rates:
    """The higher of two measurements of each rate."""
    return Rates(
        first.threads,
        {n: max(b, second.bandwidth[n]) for n, b in first.bandwidth.items()},
        {name: max(f, second.flops[name]) for name, f in first.flops.items()},
    )


def measure_rates(
    threads: int, working_sets: tuple[int, ...] = WORKING_SETS, *, bfloat16: bool = False
) -> Rates:
    """Copies and matrix products with so many threads; pin the process before NumPy is imported,
    which takes as many threads for products as it finds cores.

    Args:
        threads: of all that is measured.
        working_sets: bytes.
        bfloat16: measure those products too, which needs OpenVINO.
    """
    flops = {name: max(gemm_flops(name, rows) for rows in _GEMM) for name in ("float32", "float64")}
    if bfloat16:
        flops["bfloat16"] = max(bfloat16_flops(rows, threads) for rows in _GEMM)
    return Rates(threads, {size: copy_bandwidth(size, threads) for size in working_sets}, flops)


def copy_bandwidth(working_set: int, threads: int) -> float:
    """Bytes a second, read and written, of copies between two arrays that take so many bytes."""
    n = working_set // 2
    source, target = np.ones(n, np.uint8), np.zeros(n, np.uint8)
    parts = [slice(n * t // threads, n * (t + 1) // threads) for t in range(threads)]
    loops = max(1, _COPIED // working_set)
    start = Barrier(threads)

    def work(part: slice) -> list[tuple[float, float]]:
        """When each try began and ended here: another thread might come to look too late."""
        a, b = target[part], source[part]
        tries = []
        for _ in range(_TRIES):
            start.wait()
            began = time.perf_counter()
            for _ in range(loops):
                np.copyto(a, b)
            tries.append((began, time.perf_counter()))
        return tries

    with ThreadPoolExecutor(threads) as pool:
        tries = np.array(list(pool.map(work, parts)))  # (threads, tries, 2)
    best = (tries[..., 1].max(0) - tries[..., 0].min(0)).min()
    return float(2 * n * loops / best)


def gemm_flops(dtype: str, rows: int) -> float:
    """Operations a second of a square matrix product."""
    a = np.random.default_rng(0).random((rows, rows)).astype(dtype)
    out = np.empty_like(a)
    best = np.inf
    for _ in range(_TRIES):
        began = time.perf_counter()
        np.matmul(a, a, out=out)
        best = min(best, time.perf_counter() - began)
    return 2 * rows**3 / best


def bfloat16_flops(rows: int, threads: int) -> float:
    """Operations a second of OpenVINO's square matrix product in bfloat16."""
    import openvino
    from openvino import opset13 as ops

    matrix = np.random.default_rng(0).random((rows, rows)).astype(np.float32)
    given = ops.parameter([rows, rows], np.float32)
    model = openvino.Model([ops.matmul(given, ops.constant(matrix), False, False)], [given])
    options = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": threads}
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
    best = np.inf
    for _ in range(_TRIES):
        began = time.perf_counter()
        request.infer({0: matrix}, share_inputs=True)
        best = min(best, time.perf_counter() - began)
    return 2 * rows**3 / best


def floor(count: Count | str, rates: Rates) -> Floor:
    """The larger of the times that bytes and operations take."""
    if isinstance(count, str):
        return Floor(None, "-", count)
    moving = count.bytes / rates.bytes_a_second(count.bytes)
    computing = count.flops / rates.flops[count.dtype]
    bound = "ops" if computing > moving else "bytes"
    return Floor(1e3 * max(moving, computing), bound, count.why)


# === Counts ===


def counts(captured: Capture) -> dict[str, Count | str]:
    """What each stage of a reconstruction cannot spare, or why that is not known."""
    out: dict[str, Count | str] = {}
    for name in captured.stages:
        try:
            out[name] = count_of(captured, name)
        except ModuleNotFoundError as error:
            out[name] = f"not counted: needs {error.name}, pip install .[bench]"
        except Exception as error:  # another revision, whose stages are given something else
            out[name] = f"not counted: {type(error).__name__}: {error}"
    return out


def count_of(captured: Capture, name: str) -> Count | str:
    """What a stage cannot spare, or why that cannot be said."""
    if name in _NO_FLOOR:
        return _NO_FLOOR[name]
    if name in _NETWORKS:
        return _network(captured[name], _NETWORKS[name])
    if name in _COUNTS:
        return _COUNTS[name](captured)
    work = sizes(captured, name)
    return Count(work["bytes_in"] + work["bytes_out"], "inputs read once, outputs written once")


_NO_FLOOR = {
    "fit": "iterations on a few KB: as many as the landmarks ask for",
    "localize": "a search, as long as the photo asks for",
}

# Which of its inputs a network's stage reads whole; of the others only what is under its squares,
# which the networks' own inputs count for.
_NETWORKS = {
    "detect": ("image",),
    "pose": (),
    "foundation": (),
    "landmarks": (),
    "identity": (),
    "bump_network": ("image", "weight", "depth"),
}


def _network(stage: Stage, whole: tuple[str, ...]) -> Count:
    """Products of the layers at the sizes that are really run; weights, inputs, outputs once."""
    with recorded_runs() as runs:
        stage()
    flops = moved = 0
    for run in runs:
        operations, weights = network_work(run.path, run.names, run.shapes)
        flops += operations
        moved += weights // (2 if run.precision == "bfloat16" else 1)
        moved += 4 * sum(int(np.prod(shape)) for shape in run.shapes)
    moved += sum(array_bytes(stage.given[name]) for name in whole) + array_bytes(stage.answer)
    precision = runs[0].precision if runs else "float32"
    why = f"products of the layers, {len(runs)} runs, {precision}"
    return Count(moved, why, flops, precision)


def _load(c: Capture) -> Count | str:
    """File and pixels; what an entropy decoder has to do is not known."""
    if isinstance(c["load"].given["source"], np.ndarray):
        return "the photo is an array already"
    work = sizes(c, "load")
    return Count(work["bytes_in"] + work["bytes_out"], "file read, pixels written; no decoding")


def _crop(c: Capture) -> Count:
    """Photo under the crop read, crop written."""
    crop, photo = c["crop"].answer, c["crop"].given["photo"]
    scale = float(np.hypot(*crop.crop_from_image[:2, 0]))  # px of the crop per px of the photo
    under = min(photo.nbytes, int(3 * (len(crop.image) / scale) ** 2))
    return Count(under + crop.image.nbytes, "photo under the crop, crop")


def _head_model(c: Capture) -> Count:
    """Mean, basis vectors with a coefficient, subdivision rows, vertices."""
    model, given = c.reconstructor.head_model, c["head_model"].given
    terms = sum(int(np.count_nonzero(given[name])) for name in ("identity", "expression"))
    rows = sum(len(level.indices) for level in model.subdivision)
    moved = (1 + terms) * model.mean.nbytes + array_bytes(list(model.subdivision))
    flops = 2 * terms * model.mean.size + 2 * 3 * rows
    return Count(moved + array_bytes(c["head_model"].answer), "basis, subdivision, vertices", flops)


def _seen(c: Capture) -> tuple[int, int, int]:
    """Pixels of the foundation, and faces and vertices of it that they show."""
    triangle = c["rasterize"].answer.triangle
    shown = triangle[triangle >= 0]
    faces = np.unique(shown)
    return len(shown), len(faces), len(np.unique(c["rasterize"].given["faces"][faces]))


def _face_weight(c: Capture) -> Count:
    """Triangle of every pixel; weights (u, v), corners and values of those that show the face."""
    pixels, faces, vertices = _seen(c)
    every = c["rasterize"].answer.triangle.size
    moved = 4 * every + 8 * pixels + 12 * faces + 4 * vertices
    return Count(moved + array_bytes(c["face_weight"].answer), "raster where it shows the face")


def _smooth_depth(c: Capture) -> Count:
    """As face weights, with depth, and position and normal of the vertices."""
    pixels, faces, vertices = _seen(c)
    every = c["rasterize"].answer.triangle.size
    moved = 4 * every + (4 + 8) * pixels + 12 * faces + 24 * vertices
    return Count(moved + array_bytes(c["smooth_depth"].answer), "raster where it shows the face")


def _visibility(c: Capture) -> Count:
    """Position and normal of every vertex, depth of a pixel for each that is seen."""
    visible = c["visibility"].answer
    moved = 24 * len(visible) + 4 * np.count_nonzero(visible) + visible.nbytes
    return Count(int(moved), "vertices, normals, a pixel each")


def _search(c: Capture) -> Count:
    """Descriptors of the nearest viewpoints; how those are found is not counted."""
    given, references = c["search"].given, c["references"].given["references"]
    row = references.descriptors[:1].nbytes
    flops = 2 * given["k"] * references.descriptors.shape[1]
    return Count(given["k"] * row, "descriptors of the short list", flops)


def _unroll(c: Capture) -> Count:
    """Which pixels are known, their values, vertices, two maps."""
    given = c["unroll"].given
    moved = given["known"].nbytes + 4 * np.count_nonzero(given["known"])
    moved += array_bytes((given["vertices_in_camera"], given["visible"]))
    return Count(int(moved) + array_bytes(c["unroll"].answer), "known pixels, vertices, two maps")


def _references(c: Capture) -> Count:
    """Gram matrix of the slopes of k references where the face is seen, at half the resolution
    (across and down: two slopes a place). Decoding is not counted."""
    given = c["references"].given
    k, slopes = len(given["found"]), 2 * int(np.count_nonzero(given["seen"])) / 4
    moved = k * given["seen"].size + array_bytes((given["own"], given["seen"]))
    why = "Gram matrix of the references' slopes; no decoding"
    flops = k * (k + 1) * slopes  # the half of a symmetric matrix
    return Count(moved + array_bytes(c["references"].answer), why, flops)


def _transfer(c: Capture) -> Count:
    """Where the holes are, triangle and weights of their pixels, two maps."""
    where = c["transfer"].given["where"]
    moved = where.nbytes + (4 + 8) * int(np.count_nonzero(where))
    return Count(moved + array_bytes(c["transfer"].answer), "raster in the holes, two maps")


def _fill(c: Capture) -> Count:
    """Bump, weight and holes, what is borrowed for those, bump; iterations are not counted."""
    given = c["fill"].given
    moved = array_bytes([given[name] for name in ("bump", "weight", "hole")])
    moved += (4 + 1) * int(np.count_nonzero(given["hole"])) if "borrowed" in given else 0
    return Count(moved + array_bytes(c["fill"].answer), "maps once; no iterations")


def _sparse(c: Capture) -> Count:
    """Vertices and whether they are seen, a pixel for each that moves, vertices."""
    given, (_, moved) = c["sparse"].given, c["sparse"].answer
    read = array_bytes((given["vertices_in_camera"], given["visible"]))
    pixels = (4 + 1) * int(np.count_nonzero(moved))
    return Count(read + pixels + array_bytes(c["sparse"].answer), "vertices, a pixel each")


def _soft_symmetry(c: Capture) -> Count:
    """Factorisation in double precision: the square of each column of the factor."""
    columns = factor_columns(c["soft_symmetry"].answer.recovery > 0, c["rasterize"].given["faces"])
    work = sizes(c, "soft_symmetry")
    # factor written, then read forward and back for the three right-hand sides
    flops = float(np.sum(columns.astype(np.float64) ** 2)) + 3 * 4 * float(columns.sum())
    moved = work["bytes_in"] + work["bytes_out"] + 3 * 8 * int(columns.sum())
    why = f"factor of {len(columns)} unknowns, {columns.sum()} entries in minimum degree order"
    return Count(moved, why, flops, "float64")


def _registration(c: Capture) -> Count:
    """Triangle and dense vertex of every pixel; weights and position of each dense vertex, corners
    of what they see; three arrays."""
    given, (pixels, faces, vertices) = c["registration"].given, _seen(c)
    dense = len(given["dense_vertices"])
    every = given["dense"].vertex_of_pixel.size
    moved = 8 * every + (8 + 12) * min(dense, pixels) + 12 * faces + 12 * vertices
    return Count(moved + array_bytes(c["registration"].answer), "pixels, dense vertices, corners")


def _completion(c: Capture) -> Count:
    """Triangle of every dense vertex, what is recovered, weights and residual of the reflected."""
    given, (_, defined) = c["completion"].given, c["completion"].answer
    read = array_bytes((given["triangle"], given["recovered"]))
    reflected = (8 + 12) * int(np.count_nonzero(defined))
    return Count(read + reflected + array_bytes(c["completion"].answer), "reflected vertices")


def _zipper(c: Capture) -> Count:
    """Everything once, of reflected vertices only the defined."""
    work, defined = sizes(c, "zipper"), c["zipper"].given["reflected_defined"]
    undefined = 12 * int(np.count_nonzero(np.asarray(defined) == 0))
    return Count(work["bytes_in"] + work["bytes_out"] - undefined, "all meshes read, one written")


def _texture(c: Capture) -> Count:
    """The mesh, a pixel for each vertex that is shown, colours of the model, colours."""
    given, colors = c["texture"].given, array_bytes(c["texture"].answer)
    mesh = (given["vertices_in_camera"], given["seen"], c["rasterize"].given["faces"], c.mirror)
    pixels = 3 * int(np.count_nonzero(given["seen"]))
    return Count(array_bytes(mesh) + pixels + 2 * colors, "mesh, a pixel each")


def _parts(c: Capture) -> Count:
    """Vertices, faces, colours of the model, a pixel for each; meshes."""
    meshes = array_bytes(c["parts"].answer)
    n = c.reconstructor.head_model.vertex_count - len(c.mirror)
    return Count(meshes + (12 + 3 + 3) * n, "vertices, a pixel each, meshes")


_COUNTS: dict[str, Callable[[Capture], Count | str]] = {
    "load": _load,
    "crop": _crop,
    "head_model": _head_model,
    "face_weight": _face_weight,
    "smooth_depth": _smooth_depth,
    "visibility": _visibility,
    "search": _search,
    "unroll": _unroll,
    "references": _references,
    "transfer": _transfer,
    "fill": _fill,
    "sparse": _sparse,
    "soft_symmetry": _soft_symmetry,
    "registration": _registration,
    "completion": _completion,
    "zipper": _zipper,
    "texture": _texture,
    "parts": _parts,
}


def factor_columns(unknown: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Entries of each column of the Cholesky factor of the Laplacian of some vertices, by SuperLU's
    minimum degree order, which fills about as much as the solver's own; needs scipy."""
    import scipy.sparse as sp
    from scipy.sparse.linalg import splu

    n = int(np.count_nonzero(unknown))
    if n == 0:
        return np.zeros(0, np.int64)
    row = np.full(len(unknown), -1)
    row[unknown] = np.arange(n)
    edges = row[np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])]
    i, j = edges[(edges >= 0).all(1)].T
    graph = sp.coo_matrix((np.ones(len(i)), (i, j)), (n, n)).tocsr()
    graph = ((graph + graph.T) > 0).astype(np.float64)
    degree = np.asarray(graph.sum(1)).ravel()
    matrix = (sp.diags(degree + 1) - graph).tocsc()  # dominant: no pivot leaves the diagonal
    options = {"SymmetricMode": True}
    lower = splu(matrix, "MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options).L
    return np.diff(lower.tocsc().indptr).astype(np.int64)


# === Networks ===


@contextmanager
def recorded_runs() -> Iterator[list[Run]]:
    """What is run of networks within."""
    from extreme3d_fast.session import Session

    runs: list[Run] = []
    run = Session.run

    def recording(self: Session, feeds: Mapping[str, Any]) -> Any:
        # revisions before OpenVINO have no `runtime`
        bfloat16 = getattr(self, "runtime", "").endswith("bf16")
        shapes = tuple(array.shape for array in feeds.values())
        precision = "bfloat16" if bfloat16 else "float32"
        runs.append(Run(self.path, tuple(feeds), shapes, precision))
        return run(self, feeds)

    Session.run = recording  # type: ignore[method-assign]
    try:
        yield runs
    finally:
        Session.run = run  # type: ignore[method-assign]


@cache
def network_work(path: Path, names: tuple[str, ...], shapes: Shapes) -> tuple[int, int]:
    """Operations of the products of a network's layers, and bytes of their weights in float32.

    The layers' shapes are those that ONNX Runtime's profiler writes when it runs the file's own
    graph, unoptimised, on zeros of the given shapes.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        feeds = {n: np.zeros(s, np.float32) for n, s in zip(names, shapes, strict=True)}
        session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text())
    flops = weights = 0
    for event in events:
        about = event.get("args", {})
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        product = _PRODUCTS.get(about["op_name"])
        if product is None:
            continue
        image, kernel = map(_shape, about["input_type_shape"][:2])
        (out,) = map(_shape, about["output_type_shape"])
        flops += product(image, kernel, out)
        weights += 4 * int(np.prod(kernel))
    return flops, weights


def _shape(typed: Mapping[str, list[int]]) -> tuple[int, ...]:
    (shape,) = typed.values()
    return tuple(shape)


def _conv(_: tuple[int, ...], kernel: tuple[int, ...], out: tuple[int, ...]) -> int:
    """(M, C / group, k, k) products for each value that comes out."""
    return 2 * int(np.prod(out)) * int(np.prod(kernel[1:]))


def _transposed(image: tuple[int, ...], kernel: tuple[int, ...], _: tuple[int, ...]) -> int:
    """(C, M / group, k, k): each value that goes in is spread."""
    return 2 * int(np.prod(image)) * int(np.prod(kernel[1:]))


def _matmul(a: tuple[int, ...], _: tuple[int, ...], out: tuple[int, ...]) -> int:
    return 2 * int(np.prod(out)) * a[-1]


_PRODUCTS = {"Conv": _conv, "ConvTranspose": _transposed, "Gemm": _matmul, "MatMul": _matmul}
