"""The core operations on real data: what the pipeline called for a photo, to be called again.

One reconstruction is recorded stage by stage: function, arguments, answer. Micro-benchmarks,
scaling and peers take their inputs from there, so that all work on the same. Nothing here knows the
stages' signatures: of another revision of the package, its own stages are recorded.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from extreme3d_fast import HeadModel, Reconstructor, reconstructor

Sizes = dict[str, int]

#: The core operations by the name of their stage, in the pipeline's order, and what they do.
OPERATIONS = {
    "load": "decode a photo",
    "detect": "find faces in a photo",
    "pose": "viewpoint of a face, two looks of a network",
    "foundation": "identity and expression of a face, a network",
    "crop": "cut the upright square of a face",
    "landmarks": "478 landmarks of a face, a network",
    "fit": "fit identity, expression and camera to landmarks",
    "head_model": "vertices of the head model from its coefficients (Eq. 1-2)",
    "normals": "vertex normals of the foundation",
    "rasterize": "z-buffer, triangle and weights of each pixel",
    "face_weight": "per-vertex weights carried to the pixels",
    "smooth_depth": "depth of the smooth surface behind the triangles",
    "visibility": "which vertices the camera sees",
    "bump_network": "relief and face mask from the crop, a network (section 4.1)",
    "holes": "pixels that are covered (section 4.2)",
    "identity": "descriptor of who it is, a network",
    "search": "the most similar reference faces",
    "unroll": "a bump map brought into the unrolled face",
    "references": "relief expected from the references",
    "transfer": "relief of the unrolled face warped into the crop",
    "fill": "holes of the bump map filled by gradients",
    "dense": "mesh of the detailed depth (Eq. 4)",
    "sparse": "visible vertices moved to the detailed depth (section 4.3)",
    "observed": "erode the mask of moved vertices",
    "soft_symmetry": "hidden vertices by Poisson blending, a sparse Cholesky (Eq. 9)",
    "registration": "dense vertices in terms of the sparse mesh (Eq. 6-7)",
    "completion": "dense vertices reflected into the hidden side (Eq. 10)",
    "zipper": "dense and sparse mesh sewn into one",
    "texture": "a colour for each vertex of the foundation",
    "paint": "colour and provenance of each vertex of the final mesh",
    "parts": "eyeballs, teeth and tongue, in colour",
}


@dataclass(frozen=True, eq=False)
class Stage:
    """A stage as the pipeline called it."""

    function: Callable[..., Any]
    given: Mapping[str, Any]  #: its arguments by the name of their parameter
    answer: Any  #: a copy: the pipeline may go on to change its own
    arguments: tuple[tuple[Any, ...], Mapping[str, Any]] = field(repr=False)

    def __call__(self) -> Any:
        args, kwargs = self.arguments
        return self.function(*args, **kwargs)


@dataclass(frozen=True, eq=False)
class Capture:
    """A reconstruction with what passed between its stages.

    `capture["soft_symmetry"].given["foundation"]` is F (V, 3) in mm, head frame; other names are
    those of the functions' parameters: "detailed" and "visible" of it are R before symmetry and
    what was observed, `capture["rasterize"].answer` the raster, `capture["zipper"].given` all that
    the zipper sews.

    Attributes:
        reconstructor: made it. Another photo would overwrite the raster that the stages work on.
        face: the result.
        stages: by name, in the order of their first call; of a stage that ran twice, the last.
        mirror: (V,) the mirror image of each vertex of the skin; faces are in most stages.
        region: (V,) vertices that soft symmetry may move, or None where the package does not say.
    """

    reconstructor: Reconstructor
    face: Any
    stages: Mapping[str, Stage]
    mirror: np.ndarray
    region: np.ndarray | None

    def __getitem__(self, name: str) -> Stage:
        return self.stages[name]


@dataclass(frozen=True, eq=False)
class Workload:
    """One core operation on real data."""

    name: str  #: of its stage
    does: str  #: in one line
    call: Callable[[], Any]
    work: Sizes  #: pixels, vertices, hidden vertices, bytes, ...; see `sizes`
    stage: Stage  #: inputs, and the answer that the pipeline got


def capture(
    photo: Any,
    *,
    crop_size: int = 500,
    head: HeadModel | None = None,
    threads: int = 2,
    owner: Reconstructor | None = None,
) -> Capture:
    """Reconstruct a photo and keep what its stages were given.

    Args:
        photo: path or array, as for `Reconstructor.reconstruct`.
        crop_size: px.
        head: head model; None is the built-in one, `bench.heads.head_at` makes others.
        threads: threads per stage.
        owner: a warm reconstructor of these settings; the raster of its last capture is lost. None
            makes one.

    Raises:
        NoFaceFound: there is no face in the photo.
        NotImplementedError: this revision of the package does not name its stages.
    """
    if owner is None:
        extra = {} if head is None else {"head_model": head}
        owner = Reconstructor(threads=threads, crop_size=crop_size, **extra)
        owner.reconstruct(photo)  # the raster is written anew into the memory of the last one
    with recorder() as stages:
        face = owner.reconstruct(photo)
    model = owner.head_model
    return Capture(
        owner,
        face,
        stages,
        mirror=model.mirror[: model.skin_vertex_count],
        region=getattr(owner, "_region", None),
    )


def make_workloads(captured: Capture) -> tuple[list[Workload], dict[str, str]]:
    """The core operations of a reconstruction, and why some are missing.

    Each is called once, so that those that cannot be called again are told from the others.
    """
    made, left_out = [], {}
    for name, does in OPERATIONS.items():
        stage = captured.stages.get(name)
        if stage is None:
            left_out[name] = "the pipeline does not run it on this photo"
            continue
        try:
            stage()
        except Exception as error:
            left_out[name] = f"{type(error).__name__}: {error}"
            continue
        made.append(Workload(name, does, stage, sizes(captured, name), stage))
    return made, left_out


_SIZES: dict[str, Callable[[Capture], Any]] = {
    "pixels": lambda c: c.face.depth.size,
    "face_pixels": lambda c: np.isfinite(c.face.depth).sum(),
    "hole_pixels": lambda c: c.face.occlusion.hole.sum(),
    "vertices": lambda c: len(c.face.foundation),
    "faces": lambda c: len(c.face.foundation_faces),
    "dense_vertices": lambda c: len(c["dense"].answer[0]),
    "hidden_vertices": lambda c: np.count_nonzero(c["soft_symmetry"].answer[1]),
}


def sizes(captured: Capture, name: str) -> Sizes:
    """How much a stage works on: bytes of its arrays, and what is counted of the whole face."""
    stage = captured[name]
    # what is written anew is no input; a photo on disk is
    inputs = [v for k, v in stage.given.items() if k != "out"]
    files = [Path(v) for v in inputs if isinstance(v, (str, Path)) and name == "load"]
    counts = {
        "bytes_in": array_bytes(inputs) + sum(file.stat().st_size for file in files),
        "bytes_out": array_bytes(stage.answer),
    }
    for key, size in _SIZES.items():
        with suppress(AttributeError, KeyError):  # another revision may not tell
            counts[key] = int(size(captured))
    return counts


def array_bytes(value: Any) -> int:
    """Bytes of the arrays in a value and in the tuples, lists, tables and dataclasses in it, each
    array once."""
    return sum(a.nbytes for a in {id(a): a for a in arrays_in(value)}.values())


def arrays_in(value: Any) -> Iterator[np.ndarray]:
    """The arrays in a value, in order; objects that are not data (networks, models) are closed."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from arrays_in(item)
    elif isinstance(value, dict):
        yield from arrays_in(list(value.values()))
    elif hasattr(value, "__dataclass_fields__") and not isinstance(value, HeadModel):
        yield from arrays_in([getattr(value, name) for name in value.__dataclass_fields__])


@contextmanager
def recorder() -> Iterator[dict[str, Stage]]:
    """Puts a recorder in the place of the reconstructor's stopwatch, which every stage goes by."""
    stages: dict[str, Stage] = {}
    stopwatch = getattr(reconstructor, "timed_into", None)
    if stopwatch is None:
        raise NotImplementedError("this revision of extreme3d_fast does not name its stages")

    def recording(timings: dict[str, float], name: str, function: Callable[..., Any]) -> Any:
        timed = stopwatch(timings, name, function)

        def run(*args: Any, **kwargs: Any) -> Any:
            answer = timed(*args, **kwargs)
            given = inspect.signature(function).bind(*args, **kwargs).arguments
            stages[name] = Stage(function, given, copy.deepcopy(answer), (args, kwargs))
            return answer

        return run

    reconstructor.timed_into = recording
    try:
        yield stages
    finally:
        reconstructor.timed_into = stopwatch
