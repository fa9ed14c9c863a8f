"""The pipeline on a device, top to bottom: `Reconstructor._reconstruct` on arrays that stay there.

Besides the answers of networks, the host waits for the device four times a face: for the window of
the face, which shapes the bump network's input; for how much is hidden; for the size of the final
mesh; and for the face. What lies between runs as recorded graphs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from extreme3d_fast._shading import LEAST_MM_PER_PIXEL, MOST_MM_PER_PIXEL
from extreme3d_fast.bump_network import (
    CROP_SIZE,
    FACE_SHOWN,
    BumpNetwork,
    MapWindow,
)
from extreme3d_fast.camera import Camera
from extreme3d_fast.crop import Crop
from extreme3d_fast.crop import transform_points as transform_pixels
from extreme3d_fast.detect import DETECTOR_SIDE, MAX_SEARCH_SIDE
from extreme3d_fast.device import Device, DeviceArray, DeviceKind
from extreme3d_fast.device_network import (
    LARGEST_LOOK,
    MAX_SQUARES,
    DeviceNetwork,
    PhotosOnDevice,
)
from extreme3d_fast.device_references import DeviceReferences, chart_on_device
from extreme3d_fast.device_session import DeviceSession
from extreme3d_fast.errors import DeviceUnavailable, InvalidModelFile
from extreme3d_fast.estimator import Foundation, FoundationEstimator
from extreme3d_fast.face import Face
from extreme3d_fast.face_chart import CHART_SHAPE, FaceChart
from extreme3d_fast.foundation_view import face_height
from extreme3d_fast.head_model import HeadModel
from extreme3d_fast.lane import (
    DEPTH_TOLERANCE,
    MIN_COSINE,
    PipelineOptions,
    recoverable_region,
    timed_into,
    warn_of_occlusion,
    warn_of_view,
)
from extreme3d_fast.mesh import vertex_faces
from extreme3d_fast.mesh_io import Mesh
from extreme3d_fast.occlusion import Occlusion
from extreme3d_fast.photo_network import ASSETS
from extreme3d_fast.references import Reference
from extreme3d_fast.session import Session
from extreme3d_fast.shading import shape_from_shading
from extreme3d_fast.similar_faces import SimilarFaces
from extreme3d_fast.zipper import Zipper

__all__ = ["DevicePipeline", "Networks", "device_lanes"]

Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]

# Largest slope of the dense mesh, as `dense_mesh` takes it.
_MAX_SLOPE = 8.0
# Of eyeballs and teeth, as `vertex_visibility` takes them.
_PART_MIN_COSINE, _PART_DEPTH_TOLERANCE = 0.15, 1.0


def device_lanes(
    model: HeadModel, options: PipelineOptions, count: int, kind: DeviceKind = "cuda"
) -> list[DevicePipeline]:
    """Pipelines that share the networks that can be shared.

    Raises:
        DeviceUnavailable: there is no usable GPU, or a package for it is missing.
        ValueError: an option that this pipeline does not have.
    """
    networks = Networks()
    try:
        return [DevicePipeline(model, options, Device(kind), networks) for _ in range(count)]
    except MemoryError as error:
        raise DeviceUnavailable(f"device={kind!r}: {error}; try fewer lanes") from error


class Networks:
    """Networks by their files, loaded once for all lanes."""

    def __init__(self) -> None:
        self._sessions: dict[str, DeviceSession | Session] = {}

    def open(self, path: str | os.PathLike[str], device: Device) -> DeviceSession | Session:
        """A session for a device; for the twin on the host, ONNX Runtime runs it there."""
        name = os.fspath(path)
        session = self._sessions.get(name)
        if isinstance(session, DeviceSession):
            return session.fork(device)
        if session is None:
            on_host = device.kind == "host"
            session = Session(name, threads=1) if on_host else DeviceSession(name, device)
            self._sessions[name] = session
        return session

    @property
    def runtime(self) -> str:
        """What runs them, for reports."""
        return next((session.runtime for session in self._sessions.values()), "nothing")


class _Recorded:
    """Work on a stream that is run once, then recorded, then launched as a graph."""

    def __init__(self, device: Device, work: Callable[[], None]) -> None:
        self._device, self._work = device, work
        self._ran = False
        self._launch: Callable[[], None] | None = None

    def __call__(self) -> None:
        if not self._ran:  # what is loaded or compiled on first use cannot be recorded
            self._work()
            self._ran = True
            return
        if self._launch is None:
            self._launch = self._device.record(self._work)
        self._launch()


class _Buffers(NamedTuple):
    """Device arrays of one face; see docs/conventions.md for frames and maps."""

    parameters: DeviceArray
    identity: DeviceArray
    expression: DeviceArray
    camera_from_head: DeviceArray
    head_from_camera: DeviceArray
    pinhole: DeviceArray
    corners: DeviceArray
    crop: DeviceArray
    crop_image: DeviceArray
    head: DeviceArray
    skin: DeviceArray
    area: DeviceArray
    normals: DeviceArray
    head_in_camera: DeviceArray
    in_camera: DeviceArray
    parts_in_camera: DeviceArray
    normals_in_camera: DeviceArray
    skin_normals: DeviceArray
    part_normals: DeviceArray
    pixel_of_vertex: DeviceArray
    skin_pixels: DeviceArray
    part_pixels: DeviceArray
    raster_depth: DeviceArray
    triangle: DeviceArray
    barycentric: DeviceArray
    weight: DeviceArray
    depth: DeviceArray
    visible: DeviceArray
    part_visible: DeviceArray
    photo_rows: DeviceArray
    in_photo: DeviceArray
    face_box: DeviceArray
    sums: DeviceArray
    closed_face: DeviceArray
    bump: DeviceArray
    face_probability: DeviceArray
    face_mask: DeviceArray
    hole: DeviceArray
    stats: DeviceArray
    unfaded: DeviceArray
    known: DeviceArray
    known_box: DeviceArray
    hole_box: DeviceArray
    own: DeviceArray
    own_seen: DeviceArray
    expected: DeviceArray
    expected_valid: DeviceArray
    borrowed: DeviceArray
    valid: DeviceArray
    filled_bump: DeviceArray
    blend_status: DeviceArray
    filled: DeviceArray
    uncovered: DeviceArray
    detailed_depth: DeviceArray
    dense: DeviceArray
    vertex_of_pixel: DeviceArray
    pixel_of_dense: DeviceArray
    n_dense: DeviceArray
    moved_in_head: DeviceArray
    moved: DeviceArray
    sparse_in_head: DeviceArray
    observed: DeviceArray
    sparse: DeviceArray
    recovery: DeviceArray
    registered: DeviceArray
    uv: DeviceArray
    reflected: DeviceArray
    reflected_defined: DeviceArray
    vertices: DeviceArray
    source: DeviceArray
    source_vertex: DeviceArray
    seam: DeviceArray
    mesh_faces: DeviceArray
    counts: DeviceArray
    n_vertices: DeviceArray
    shown: DeviceArray
    skin_colors: DeviceArray
    part_shown: DeviceArray
    part_colors: DeviceArray
    provenance: DeviceArray
    colors: DeviceArray


# What a face is made of on the host: buffers and their dtypes. Maps and vertices have one size.
_MAPS = (
    ("head", "float32"),
    ("part_colors", "uint8"),
    ("detailed_depth", "float32"),
    ("filled_bump", "float32"),
    ("face_mask", "uint8"),
    ("face_probability", "float32"),
    ("hole", "uint8"),
)
_MESH = (
    ("vertices", "float32"),
    ("mesh_faces", "int32"),
    ("colors", "uint8"),
    ("provenance", "uint8"),
)


def _room(like: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """New arrays in one piece of memory, which is had in large pages: many small ones cost more
    than what is copied to them."""
    align = 64
    ends = np.cumsum([-(-array.nbytes // align) * align for array in like.values()]).tolist()
    memory = np.empty(ends[-1], np.uint8)
    return {
        name: memory[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
        for (name, array), begin in zip(like.items(), [0, *ends[:-1]], strict=True)
    }


class DevicePipeline:
    """A lane on a device: its stream, its buffers, its networks.

    Args:
        model: head model.
        options: see `Reconstructor`.
        device: where it runs.
        networks: shared with other lanes.

    Raises:
        DeviceUnavailable: nothing here runs networks on the device.
        InvalidModelFile: a network or the reference set is damaged, or another.
    """

    def __init__(
        self, model: HeadModel, options: PipelineOptions, device: Device, networks: Networks
    ) -> None:
        self._model, self._options, self._device = model, options, device
        ops = device.ops
        self._networks = networks
        self._photos = PhotosOnDevice(device)
        self._warper = ops.Warper(options.crop_size, 1)
        self._looks = ops.Warper(LARGEST_LOOK, MAX_SQUARES)
        self._letterbox = ops.Letterbox(DETECTOR_SIDE, MAX_SEARCH_SIDE)
        self._crop_matrix = device.empty((1, 3, 3), "float64")
        self.estimator = FoundationEstimator(
            model, mode=options.foundation, open_network=self._open, cut=self._cut
        )
        bump_network = self._open(
            ASSETS / "bump.onnx" if options.bump_network is None else options.bump_network
        )
        self._bump_runner, self._bump_path = bump_network.runner, bump_network.path
        self._bump_network = BumpNetwork(bump_network.path, open_network=lambda _: bump_network)
        self._similar: SimilarFaces | None = None
        if options.occlusion == "reference" and options.detail != "none":
            self._similar = SimilarFaces(
                options.references, model, self._bump_network.name, open_network=self._open
            )
            self._references = DeviceReferences(device, self._similar.references)
            self._chart = chart_on_device(device, FaceChart(model))
        self._allocate()
        self._surface_work = _Recorded(device, self._surface)
        self._relief_work = _Recorded(device, self._relief)
        self._borrow_work = _Recorded(device, self._borrow)
        self._fill_work = _Recorded(device, self._fill)
        self._shape_work = _Recorded(device, self._shape)

    def _open(self, path: str | os.PathLike[str]) -> DeviceNetwork:
        session = self._networks.open(path, self._device)
        return DeviceNetwork(self._device, self._photos, self._looks, self._letterbox, session)

    def _cut(self, photo: UInt8, crop_from_image: npt.NDArray[np.float64], size: int) -> UInt8:
        """The crop, on the device; its picture on the host is there when the face is."""
        ops, stream = self._device.ops, self._device.stream
        ops.upload(np.ascontiguousarray(crop_from_image[None]), self._crop_matrix, stream)
        self._warper.warp(
            self._photos.get(photo), self._crop_matrix, size, crops=self._b.crop, stream=stream
        )
        self._photos.know(self._crop_picture, self._b.crop_image)
        return self._crop_picture

    @property
    def runtime(self) -> str:
        """See `Lane`."""
        return self._networks.runtime

    def begin(self) -> None:
        """Before another photo."""
        self._device.use()
        self._photos.forget()

    # === Memory ===

    def _allocate(self) -> None:
        """Tables of the topology, and buffers of one face."""
        model, device, ops = self._model, self._device, self._device.ops
        skin, size = model.skin_vertex_count, self._options.crop_size
        parts = model.vertex_count - skin
        faces, mirror = model.faces, model.mirror[:skin]
        region = recoverable_region(model)
        n_dense = size * size
        n_mesh = skin + 2 * n_dense

        self._evaluator = ops.HeadEvaluator(
            model.mean,
            model.identity,
            model.expression,
            [(level.indptr, level.indices, level.weights) for level in model.subdivision],
        )
        self._rasterizer = ops.Rasterizer(skin, len(faces), size, size)
        self._weight_sums = ops.WeightSums()
        self._maps = ops.NetworkMaps(size)
        self._holes = ops.HoleFinder(size, size)
        self._blender = ops.Blender(size, size)
        self._mesher = ops.DenseMesher(size, size)
        self._symmetry = ops.SoftSymmetrySolver(faces, mirror, region)
        self._zipper = ops.Zipper(faces, mirror, size, size, n_dense)
        self._host_zipper: Zipper | None = None
        self._colors = ops.VertexColors(faces, mirror, np.ascontiguousarray(model.colors[:skin]))
        begins = [int(begin) for begin, _ in model.part_vertex_range[1:]]
        self._part_colors = ops.PartColors(
            model.colors, np.array([*begins, model.vertex_count], np.int32)
        )

        self._faces = device.put(faces)
        self._all_faces = device.put(model.all_faces)
        self._around = [device.put(t) for t in vertex_faces(model.all_faces, model.vertex_count)]
        self._skin_around = [device.put(table) for table in vertex_faces(faces, skin)]
        self._mirror = device.put(mirror)
        self._region = device.put(region)
        self._face_weight = device.put(model.face_weight)
        self._face_region = device.put(model.face_region)
        self._all_of_parts = device.put(np.ones(parts, np.uint8))

        # what changes from face to face, in one upload
        counts = [model.n_identity, model.n_expression, 16, 16, 4]
        ends = [int(end) for end in np.cumsum(counts)]
        self._parameters = ops.pinned([ends[-1]])
        on_device = device.empty(ends[-1])
        shapes = [[counts[0]], [counts[1]], [4, 4], [4, 4], [4]]
        parameters = [
            ops.slice(on_device, end - count, end, shape)
            for count, end, shape in zip(counts, ends, shapes, strict=True)
        ]
        self._corners = ops.pinned([8], "float64")

        image, vector = (size, size), (skin, 3)
        crop = device.empty((1, size, size, 3), "uint8")
        head, head_in_camera = (
            device.empty((model.vertex_count, 3)),
            device.empty((model.vertex_count, 3)),
        )
        normals_in_camera = device.empty((model.vertex_count, 3))
        counts_of_mesh = device.empty(2, "int32")
        pixel_of_vertex = device.empty(model.vertex_count, "int32")
        self._b = _Buffers(
            parameters=on_device,
            identity=parameters[0],
            expression=parameters[1],
            camera_from_head=parameters[2],
            head_from_camera=parameters[3],
            pinhole=parameters[4],
            corners=device.empty(8, "float64"),
            crop=crop,
            crop_image=ops.slice(crop, 0, 1, [size, size, 3]),
            head=head,
            skin=ops.slice(head, 0, skin),
            area=device.empty(model.all_faces.shape),
            normals=device.empty((model.vertex_count, 3)),
            head_in_camera=head_in_camera,
            in_camera=ops.slice(head_in_camera, 0, skin),
            parts_in_camera=ops.slice(head_in_camera, skin, model.vertex_count),
            normals_in_camera=normals_in_camera,
            skin_normals=ops.slice(normals_in_camera, 0, skin),
            part_normals=ops.slice(normals_in_camera, skin, model.vertex_count),
            pixel_of_vertex=pixel_of_vertex,
            skin_pixels=ops.slice(pixel_of_vertex, 0, skin),
            part_pixels=ops.slice(pixel_of_vertex, skin, model.vertex_count),
            raster_depth=device.empty(image),
            triangle=device.empty(image, "int32"),
            barycentric=device.empty((*image, 2)),
            weight=device.empty(image),
            depth=device.empty(image),
            visible=device.empty(skin, "uint8"),
            part_visible=device.empty(parts, "uint8"),
            photo_rows=device.empty((size, 2), "int32"),
            in_photo=device.empty(image, "uint8"),
            face_box=device.empty(5),
            sums=device.empty(2, "float64"),
            closed_face=device.empty(image, "uint8"),
            bump=device.empty(image),
            face_probability=device.empty(image),
            face_mask=device.empty(image, "uint8"),
            hole=device.empty(image, "uint8"),
            stats=device.empty(3, "float64"),
            unfaded=device.empty(image),
            known=device.empty(image, "uint8"),
            known_box=device.empty(4, "int32"),
            hole_box=device.empty(4, "int32"),
            own=device.empty(CHART_SHAPE),
            own_seen=device.empty(CHART_SHAPE, "uint8"),
            expected=device.empty(CHART_SHAPE),
            expected_valid=device.empty(CHART_SHAPE, "uint8"),
            borrowed=device.empty(image),
            valid=device.empty(image, "uint8"),
            filled_bump=device.empty(image),
            blend_status=device.empty(2),
            filled=device.empty(image, "uint8"),
            uncovered=device.empty(image, "uint8"),
            detailed_depth=device.empty(image),
            dense=device.empty((n_dense, 3)),
            vertex_of_pixel=device.empty(image, "int32"),
            pixel_of_dense=device.empty(n_dense, "int32"),
            n_dense=device.empty(1, "int32"),
            moved_in_head=device.empty(vector),
            moved=device.empty(skin, "uint8"),
            sparse_in_head=device.empty(vector),
            observed=device.empty(skin, "uint8"),
            sparse=device.empty(vector),
            recovery=device.empty(skin, "uint8"),
            registered=device.empty(n_dense, "int32"),
            uv=device.empty((n_dense, 2)),
            reflected=device.empty((n_dense, 3)),
            reflected_defined=device.empty(n_dense, "uint8"),
            vertices=device.empty((n_mesh, 3)),
            source=device.empty(n_mesh, "uint8"),
            source_vertex=device.empty(n_mesh, "int32"),
            seam=device.empty(n_mesh, "uint8"),
            mesh_faces=device.empty((2 * n_mesh, 3), "int32"),
            counts=counts_of_mesh,
            n_vertices=ops.slice(counts_of_mesh, 0, 1),
            shown=device.empty(skin, "uint8"),
            skin_colors=device.empty((skin, 3), "uint8"),
            part_shown=device.empty(parts, "uint8"),
            part_colors=device.empty((parts, 3), "uint8"),
            provenance=device.empty(n_mesh, "uint8"),
            colors=device.empty((n_mesh, 3), "uint8"),
        )
        # what the host reads between the stages
        self._crop_picture: UInt8 = ops.pinned([size, size, 3], "uint8")
        self._face_box: Float32 = ops.pinned([5])
        self._sums: npt.NDArray[np.float64] = ops.pinned([2], "float64")
        self._stats: npt.NDArray[np.float64] = ops.pinned([3], "float64")
        # the face on its way to the host
        self._staged: dict[str, Any] = {
            name: ops.pinned(list(ops.shape(getattr(self._b, name))), dtype)
            for name, dtype in (*_MAPS, *_MESH)
        }
        if self._similar is not None:
            self._references.keep_all()
        device.wait()

    # === Top to bottom ===

    def reconstruct(
        self,
        photo: UInt8,
        foundation: Foundation,
        crop: Crop,
        timings: dict[str, float],
    ) -> Face:
        """See `Lane.reconstruct`."""
        timed = partial(timed_into, timings)
        warnings = list(foundation.warnings)

        # foundation mesh F (Eq. 1-2) and what each pixel sees of it
        timed("surface", self._see)(foundation, crop, photo)
        outside = float(self._sums[1] / max(self._sums[0], 1.0))
        warn_of_view(warnings, face_height(foundation), outside)

        # pixels that show the face, bump map (section 4.1), occluded pixels filled (section 4.2)
        timed("bump_network", self._read_relief)(crop, foundation.camera)
        fraction, hidden_px, covered = (float(value) for value in self._stats)
        warn_of_occlusion(warnings, fraction - outside)
        if self._options.detail == "shading":
            timed("shading", self._shade)(crop, foundation)
        references: tuple[Reference, ...] = ()
        if hidden_px > 0 and self._options.detail != "none" and self._similar is not None:
            references = tuple(self._similar.find(crop.image, foundation, covered, warnings, timed))
        timed("fill", self._fill_holes)(references)

        # dense mesh D (Eq. 4), sparse mesh R, soft symmetry (Eq. 9), registration and completion
        # (Eq. 6-8, 10), final shape S; where every vertex came from, and its colour
        n_vertices, n_faces = timed("shape", self._complete)()
        return timed("download", self._face)(
            n_vertices, n_faces, foundation, crop, fraction, references, warnings, timings
        )

    # === Stages that the host decides between ===

    def _see(self, foundation: Foundation, crop: Crop, photo: UInt8) -> None:
        pose = foundation.camera_from_head
        inverse = np.linalg.inv(pose.astype(np.float64))
        camera = foundation.camera.pinhole
        values = (foundation.identity, foundation.expression, pose.ravel(), inverse.ravel(), camera)
        np.concatenate(values, out=self._parameters, casting="unsafe")
        height, width = photo.shape[:2]
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
        self._corners[:] = transform_pixels(crop.crop_from_image, corners).ravel()
        self._surface_work()
        self._device.wait()

    def _read_relief(self, crop: Crop, camera: Camera) -> None:
        b, ops, stream = self._b, self._device.ops, self._device.stream
        if self._options.crop_size != CROP_SIZE:
            self._read_resized_relief(crop, camera)
        elif (window := self._window()) is None:
            for array in (b.bump, b.face_probability, b.face_mask):
                ops.fill_bytes(array, 0, stream)
        else:
            self._run_bump_network(*window)
        if self._options.detail == "none":
            ops.fill_bytes(b.bump, 0, stream)
        self._relief_work()
        self._device.wait()

    def _run_bump_network(self, window: MapWindow, mm_per_pixel: float) -> None:
        b, ops, stream = self._b, self._device.ops, self._device.stream
        y, x = window.corner
        shape = (1, self._bump_network.contract.channels, *window.shape)
        buffers = self._bump_runner.buffers({"image": shape})
        answers = buffers.outputs
        for name in ("bump", "mask"):
            if (answer := tuple(ops.shape(answers[name]))) != (1, 1, *window.shape):
                raise InvalidModelFile(
                    f"path: {self._bump_path}: expected {name} of shape "
                    f"{(1, 1, *window.shape)}, it answers with {answer}"
                )
        self._maps.input(b.crop_image, b.depth, mm_per_pixel, x, y, buffers.inputs["image"], stream)
        self._bump_runner.run(buffers)
        self._maps.output(
            answers["bump"],
            answers["mask"],
            x,
            y,
            b.weight,
            b.closed_face,
            b.in_photo,
            b.bump,
            b.face_probability,
            b.face_mask,
            stream,
        )

    def _read_resized_relief(self, crop: Crop, camera: Camera) -> None:
        """The maps of a crop of another size than the network's, which the host resizes."""
        b, device = self._b, self._device
        bump, face_probability = self._bump_network.estimate(
            np.array(crop.image), device.get(b.weight), device.get(b.depth), camera
        )
        face_probability[~device.get(b.in_photo, np.bool_)] = 0
        face_mask = (face_probability > FACE_SHOWN).view(np.uint8)
        for values, target in (
            (bump, b.bump),
            (face_probability, b.face_probability),
            (face_mask, b.face_mask),
        ):
            device.ops.upload(values, target, device.stream)

    def _window(self) -> tuple[MapWindow, float] | None:
        """The part of the map that the network looks at, and the size of a pixel in mm; None where
        there is no face."""
        top, bottom, left, right, mm = (float(value) for value in self._face_box)
        if mm == 0:
            return None
        if not LEAST_MM_PER_PIXEL < mm < MOST_MM_PER_PIXEL:
            raise ValueError(f"`depth` should be mm, gives a pixel of {mm:.2g} mm")
        rows, columns = slice(int(top), int(bottom)), slice(int(left), int(right))
        return self._bump_network.contract.window(rows, columns), mm

    def _shade(self, crop: Crop, foundation: Foundation) -> None:
        """Relief by shape from shading, which the host does."""
        b, device = self._b, self._device
        # with nothing to be filled, an occluder's relief is taken as it comes
        trusted = b.in_photo if self._options.occlusion == "none" else b.face_mask
        bump = shape_from_shading(
            np.array(crop.image),
            device.get(b.weight),
            device.get(b.depth),
            foundation.camera,
            device.get(trusted, np.bool_),
        )
        device.ops.upload(bump, b.bump, device.stream)

    def _fill_holes(self, references: tuple[Reference, ...]) -> None:
        b, ops, stream = self._b, self._device.ops, self._device.stream
        if references:
            self._references.choose(references)
            self._borrow_work()
        else:
            ops.fill_bytes(b.valid, 0, stream)
        if self._options.detail == "none":
            ops.copy(b.bump, b.filled_bump, stream)
        else:
            self._fill_work()

    def _complete(self) -> tuple[int, int]:
        """Number of vertices and faces of S."""
        self._shape_work()
        self._device.wait()
        counts = self._zipper.counts()
        if counts is None:  # strips that the device cannot fill
            counts = self._sew_on_host()
            self._paint()
        return int(counts[0]), int(counts[1])

    def _sew_on_host(self) -> tuple[int, int]:
        """Strips, or where borders touch themselves the whole mesh, sewn on the host."""
        b, device, model = self._b, self._device, self._model
        if (counts := self._zipper.stitch(stream=device.stream)) is not None:
            self._zipper.finish(b.vertex_of_pixel, b.mesh_faces, b.counts, device.stream)
            return int(counts[0]), int(counts[1])
        skin = slice(0, model.skin_vertex_count)
        if self._host_zipper is None:
            self._host_zipper = Zipper(model.faces, model.mirror[skin])
        count = int(device.get(b.n_dense, np.int32)[0])
        fx, fy, cx, cy = (float(value) for value in device.get(b.pinhole))
        mesh = self._host_zipper.zip(
            device.get(b.sparse),
            device.get(b.in_camera),
            device.get(b.observed, np.bool_),
            device.get(b.recovery, np.uint8) > 0,
            device.get(b.dense)[:count],
            device.get(b.reflected)[:count],
            device.get(b.reflected_defined, np.bool_)[:count],
            device.get(b.triangle, np.int32),
            device.get(b.vertex_of_pixel, np.int32),
            Camera(fx, fy, cx, cy, *device.ops.shape(b.triangle)),
        )
        totals = np.array([len(mesh.vertices), len(mesh.faces)], np.int32)
        for values, target in (
            (mesh.vertices, b.vertices),
            (mesh.source, b.source),
            (mesh.source_vertex, b.source_vertex),
            (mesh.seam, b.seam),
            (mesh.faces, b.mesh_faces),
            (totals, b.counts),
        ):
            device.ops.upload(np.ascontiguousarray(values), target, device.stream)
        device.wait()
        return len(mesh.vertices), len(mesh.faces)

    def _face(
        self,
        n_vertices: int,
        n_faces: int,
        foundation: Foundation,
        crop: Crop,
        fraction: float,
        references: tuple[Reference, ...],
        warnings: list[str],
        timings: dict[str, float],
    ) -> Face:
        b, device, model, options = self._b, self._device, self._model, self._options
        ops, stream = device.ops, device.stream

        staged = {**self._staged, "photo": crop.image}
        for name, _ in _MESH:
            rows = n_faces if name == "mesh_faces" else n_vertices
            staged[name] = staged[name][:rows]
            ops.download(getattr(b, name), staged[name], stream)
        # the maps are there: they are copied while the mesh is on its way
        found = _room(staged)
        for name in ("photo", *(name for name, _ in _MAPS)):
            np.copyto(found[name], staged[name])
        device.wait()
        for name, _ in _MESH:
            np.copyto(found[name], staged[name])
        head, part_colors, bump = found["head"], found["part_colors"], found["filled_bump"]
        if not (np.isfinite(bump).all() and np.isfinite(found["face_probability"]).all()):
            raise InvalidModelFile(f"path: {self._bump_path} answers with NaN or infinity")
        skin = model.skin_vertex_count
        parts = {}
        for name, (begin, end) in zip(model.part_names, model.part_vertex_range, strict=True):
            if name != "skin":
                own = slice(int(begin) - skin, int(end) - skin)
                parts[name] = Mesh(
                    head[begin:end], model.part_faces[name] - begin, part_colors[own]
                )
        return Face(
            vertices=found["vertices"],
            faces=found["mesh_faces"],
            colors=found["colors"],
            provenance=found["provenance"],
            warnings=tuple(warnings),
            timings=timings,
            foundation=head[:skin],
            foundation_faces=model.faces,
            identity=foundation.identity,
            expression=foundation.expression,
            foundation_source=foundation.source,
            camera=foundation.camera,
            camera_from_head=foundation.camera_from_head,
            crop_from_image=crop.crop_from_image,
            depth=found["detailed_depth"],
            bump=bump,
            face_mask=found["face_mask"].view(np.bool_),
            face_probability=found["face_probability"],
            occlusion=Occlusion(found["hole"].view(np.bool_), fraction, options.occlusion),
            references=references,
            photo=found["photo"],
            parts=parts,
        )

    # === Recorded work ===

    def _surface(self) -> None:
        b, ops, s = self._b, self._device.ops, self._device.stream
        ops.upload(self._parameters, b.parameters, s)
        ops.upload(self._corners, b.corners, s)
        ops.download(b.crop, self._crop_picture, s)
        self._evaluator.evaluate(b.identity, b.expression, b.head, s)
        ops.vertex_normals(b.head, self._all_faces, *self._around, b.area, b.normals, s)
        ops.transform_points(b.camera_from_head, b.head, b.head_in_camera, s)
        ops.rotate_vectors(b.camera_from_head, b.normals, b.normals_in_camera, s)
        self._rasterizer.rasterize(
            b.in_camera,
            self._faces,
            b.pinhole,
            b.raster_depth,
            b.triangle,
            b.barycentric,
            stream=s,
        )
        ops.interpolate(b.triangle, b.barycentric, self._face_weight, self._faces, b.weight, s)
        ops.smooth_depth(
            b.raster_depth,
            b.triangle,
            b.barycentric,
            b.in_camera,
            b.skin_normals,
            self._faces,
            b.depth,
            s,
        )
        ops.photo_mask(b.corners, b.photo_rows, b.in_photo, s)
        self._maps.find_face(b.weight, b.depth, b.pinhole, b.face_box, s)
        self._weight_sums.sum(b.weight, b.in_photo, b.sums, s)
        ops.download(b.face_box, self._face_box, s)
        ops.download(b.sums, self._sums, s)
        ops.vertex_visibility(
            b.in_camera,
            b.skin_normals,
            b.raster_depth,
            b.pinhole,
            MIN_COSINE,
            DEPTH_TOLERANCE,
            b.visible,
            s,
        )
        ops.vertex_visibility(
            b.parts_in_camera,
            b.part_normals,
            b.raster_depth,
            b.pinhole,
            _PART_MIN_COSINE,
            _PART_DEPTH_TOLERANCE,
            b.part_visible,
            s,
        )
        size = self._options.crop_size
        ops.pixels_of_vertices(b.head_in_camera, b.pinhole, size, size, b.pixel_of_vertex, s)
        self._maps.close_openings(b.weight, b.closed_face, s)

    def _relief(self) -> None:
        b, ops, s = self._b, self._device.ops, self._device.stream
        self._holes.find(b.face_mask, b.weight, b.hole, b.stats, s)
        if self._options.occlusion == "none":
            ops.fill_bytes(b.hole, 0, s)
        ops.download(b.stats, self._stats, s)

    def _borrow(self) -> None:
        b, ops, s = self._b, self._device.ops, self._device.stream
        ops.unfade(b.bump, b.weight, b.hole, b.unfaded, b.known, s)
        ops.bounding_box(b.known, b.known_box, s)
        self._chart.unroll(
            b.unfaded,
            b.known,
            b.known_box,
            b.pinhole,
            b.in_camera,
            b.visible,
            b.own,
            b.own_seen,
            s,
        )
        self._references.relief.expected_relief(
            self._references.chosen, b.own, b.own_seen, b.expected, b.expected_valid, s
        )
        ops.bounding_box(b.hole, b.hole_box, s)
        self._chart.warp_by_surface(
            b.expected,
            b.expected_valid,
            b.triangle,
            b.barycentric,
            b.hole_box,
            b.borrowed,
            b.valid,
            s,
        )

    def _fill(self) -> None:
        b = self._b
        self._blender.fill_bump(
            b.bump,
            b.weight,
            b.hole,
            b.borrowed,
            b.valid,
            b.filled_bump,
            b.blend_status,
            self._device.stream,
        )

    def _shape(self) -> None:
        b, ops, s = self._b, self._device.ops, self._device.stream
        ignored = self._options.occlusion == "none"
        ops.cover_masks(
            b.face_mask, b.in_photo, b.weight, b.hole, ignored, b.filled, b.uncovered, s
        )
        ops.compose_depth(b.depth, b.weight, b.filled_bump, b.detailed_depth, s)
        self._mesher.mesh(
            b.detailed_depth,
            b.pinhole,
            _MAX_SLOPE,
            b.dense,
            b.vertex_of_pixel,
            b.pixel_of_dense,
            b.n_dense,
            b.head_from_camera,
            s,
        )
        ops.observe(
            b.in_camera,
            b.skin,
            b.visible,
            self._region,
            self._faces,
            *self._skin_around,
            b.filled_bump,
            b.weight,
            b.pinhole,
            b.head_from_camera,
            b.moved_in_head,
            b.moved,
            b.sparse_in_head,
            b.observed,
            s,
        )
        if self._options.symmetry:
            self._symmetry.solve(b.skin, b.sparse_in_head, b.observed, b.sparse, b.recovery, s)
        else:
            ops.copy(b.sparse_in_head, b.sparse, s)
            ops.fill_bytes(b.recovery, 0, s)
        ops.reflect_dense(
            b.triangle,
            b.barycentric,
            b.pixel_of_dense,
            b.dense,
            b.sparse,
            self._faces,
            self._mirror,
            b.recovery,
            b.n_dense,
            b.registered,
            b.uv,
            b.reflected,
            b.reflected_defined,
            s,
        )
        self._zipper.zip(
            b.sparse,
            b.in_camera,
            b.observed,
            b.recovery,
            b.dense,
            b.reflected,
            b.reflected_defined,
            b.triangle,
            b.vertex_of_pixel,
            b.pinhole,
            b.vertices,
            b.source,
            b.source_vertex,
            b.seam,
            b.mesh_faces,
            b.counts,
            s,
        )
        self._color()
        self._paint()
        for name, _ in _MAPS:
            ops.download(getattr(b, name), self._staged[name], s)

    def _color(self) -> None:
        """Colours of the head model's vertices."""
        b, ops, s = self._b, self._device.ops, self._device.stream
        crop = b.crop_image
        # hair, clothes and what covers the face are better left out than painted on the skin
        ops.shown_vertices(b.uncovered, b.skin_pixels, b.visible, self._face_region, b.shown, s)
        self._colors.colors(b.in_camera, b.shown, crop, b.pinhole, b.skin_colors, s)
        ops.shown_vertices(
            b.uncovered, b.part_pixels, b.part_visible, self._all_of_parts, b.part_shown, s
        )
        self._part_colors.colors(
            b.skin_colors, b.shown, b.part_shown, b.part_pixels, crop, b.part_colors, s
        )

    def _paint(self) -> None:
        """Colours and provenance of S."""
        b, ops, s = self._b, self._device.ops, self._device.stream
        ops.provenance(
            b.source,
            b.source_vertex,
            b.n_vertices,
            b.pixel_of_dense,
            b.filled,
            b.observed,
            b.recovery,
            b.skin_pixels,
            b.provenance,
            s,
        )
        ops.mesh_colors(
            b.source,
            b.source_vertex,
            b.n_vertices,
            b.pixel_of_dense,
            b.filled,
            b.registered,
            b.uv,
            self._faces,
            self._mirror,
            b.skin_colors,
            b.crop_image,
            b.colors,
            s,
        )
