"""The pipeline, top to bottom: one photo in, a detailed, complete head out (Tran et al. 2018)."""

from __future__ import annotations

import collections
import os
import queue
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple, NoReturn, TypeVar, get_args, overload

import numpy as np
import numpy.typing as npt

from extreme3d_fast.aside import Aside
from extreme3d_fast.bump_network import FACE_SHOWN, BumpNetwork
from extreme3d_fast.camera import Camera
from extreme3d_fast.completion import complete_dense
from extreme3d_fast.crop import Crop
from extreme3d_fast.dense import compose_depth, dense_mesh
from extreme3d_fast.device_pipeline import device_lanes
from extreme3d_fast.errors import NoFaceFound
from extreme3d_fast.estimator import Foundation, FoundationEstimator, FoundationMode
from extreme3d_fast.face import Face
from extreme3d_fast.face_chart import FaceChart
from extreme3d_fast.foundation_view import FoundationView, FoundationViewer
from extreme3d_fast.head_model import HeadModel
from extreme3d_fast.image_io import ImageSource, load_image
from extreme3d_fast.lane import (
    DEPTH_TOLERANCE,
    MIN_COSINE,
    Detail,
    Lane,
    PipelineOptions,
    recoverable_region,
    timed_into,
    warn_of_occlusion,
    warn_of_view,
)
from extreme3d_fast.mesh import (
    Csr,
    erode_mask,
    rotate_vectors,
    transform_points,
    vertex_faces,
    vertex_normals,
)
from extreme3d_fast.mesh_io import Mesh
from extreme3d_fast.occlusion import FillMethod, Occlusion, fill_bump, find_holes, unfade
from extreme3d_fast.paint import paint_mesh
from extreme3d_fast.photo_network import HostNetworks
from extreme3d_fast.rasterize import Raster, pixels_of_vertices, vertex_visibility
from extreme3d_fast.references import Reference
from extreme3d_fast.registration import register_dense
from extreme3d_fast.session import Runtime
from extreme3d_fast.shading import shape_from_shading
from extreme3d_fast.similar_faces import SimilarFaces
from extreme3d_fast.soft_symmetry import SoftSymmetrySolver
from extreme3d_fast.sparse import sparse_from_dense
from extreme3d_fast.texture import VertexColors
from extreme3d_fast.transfer import Borrowed, expected_relief, warp_by_surface
from extreme3d_fast.zipper import Zipper

__all__ = ["Detail", "Reconstructor"]

DeviceName = Literal["cpu", "cuda"]
"""What a reconstructor works on."""

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
T = TypeVar("T")

# More only costs memory; a machine with more cores gains nothing from them on one photo.
_MAX_THREADS = 256
_MAX_LANES = 64
_NO_FACES = np.zeros((0, 3), np.int32)


class Reconstructor:
    """Reconstructs faces; owns what is worth keeping between calls.

    Networks, head model, the symbolic half of the sparse solver and the mesh adjacency are loaded
    once. An instance serves as many photos at once as it has lanes; further calls from other
    threads wait.

    Args:
        device: "cpu", or "cuda" for the first NVIDIA GPU that CUDA_VISIBLE_DEVICES leaves. Its
            results are the CPU's up to the rounding of its networks; see docs/gpu.md.
        threads: threads per stage, 1 to 256; the result is the same for any number, with networks
            on OpenVINO in float32 up to rounding.
        runtime: what runs the networks on the CPU: "onnxruntime", or "openvino", an optional
            package, which rounds to bfloat16 where the processor multiplies it. None is OpenVINO
            where it is installed and does so, else ONNX Runtime, which also runs a `bump_network`
            of your own. The attribute tells which it is.
        lanes: photos that are worked on at once by `reconstruct_batch` and `stream`, 1 to 64, each
            with memory of its own. Only on a GPU; elsewhere the stages' threads use all cores.
        head_model: head model to fit; None for the built-in one.
        foundation: where identity, expression and viewpoint come from: "auto" is the networks,
            refined by landmarks that agree with them; "networks" or "landmarks" alone. Another head
            model than the built-in one has landmarks alone.
        crop_size: side of the square crop that is reconstructed, px. More pixels, more vertices.
        detail: source of the bump map; see `Detail`. The face mask is the network's in any case.
        bump_network: ONNX file of another bump-map network, such as converted weights of the
            paper's authors; see `BumpNetwork`. None is the built-in one.
        occlusion: how occluded pixels are filled: "reference" with detail of similar faces,
            "smooth" from around them, "none" not at all.
        references: file of another reference set, as `extreme3d references build` writes it. None
            is the built-in one.
        symmetry: recover the hidden side from the visible one (section 4.3).

    Raises:
        ValueError: an option that does not exist, a number out of range.
        TypeError: an option of another type.
        FileNotFoundError: there is no file `bump_network` or `references`.
        InvalidModelFile: `bump_network` or `references` is damaged, or not such a file.
        DeviceUnavailable: there is no usable GPU, or a package for it is missing.
        ImportError: `runtime` is a package that is not installed.

    Example:
        >>> import extreme3d_fast as e3d
        >>> reconstructor = e3d.Reconstructor(threads=1)
        >>> reconstructor.reconstruct_all(np.zeros((64, 64, 3), np.uint8))
        []
    """

    def __init__(
        self,
        *,
        device: DeviceName = "cpu",
        threads: int = 2,
        runtime: Runtime | None = None,
        lanes: int = 1,
        head_model: HeadModel | None = None,
        foundation: FoundationMode = "auto",
        crop_size: int = 500,
        detail: Detail = "network",
        bump_network: str | os.PathLike[str] | None = None,
        occlusion: FillMethod = "reference",
        references: str | os.PathLike[str] | None = None,
        symmetry: bool = True,
    ) -> None:
        _check_option("device", device, get_args(DeviceName))
        _check_option("foundation", foundation, ("auto", "networks", "landmarks"))
        _check_option("detail", detail, ("network", "shading", "none"))
        _check_option("occlusion", occlusion, ("reference", "smooth", "none"))
        _check_integer("threads", threads, 1, _MAX_THREADS)
        _check_integer("lanes", lanes, 1, _MAX_LANES)
        if runtime is not None:
            _check_option("runtime", runtime, get_args(Runtime))
            if device != "cpu":
                raise ValueError(f"runtime is of device='cpu'; {device!r} finds its own")
        if device == "cpu" and lanes > 1:
            raise ValueError(f"lanes are of device='cuda'; of the CPU there is one, not {lanes}")
        _check_integer("crop_size", crop_size, 64, 4096)
        if not isinstance(symmetry, bool):
            raise TypeError(f"symmetry should be True or False, is {symmetry!r}")
        if head_model is not None and not isinstance(head_model, HeadModel):
            raise TypeError(
                f"head_model should be a HeadModel (HeadModel.load(path)), is {head_model!r}"
            )
        for name, path in (("bump_network", bump_network), ("references", references)):
            if not isinstance(path, (str, os.PathLike, type(None))):
                raise TypeError(f"{name} should be a path, is {path!r}")
        if references is not None and (occlusion != "reference" or detail == "none"):
            raise ValueError(
                f"references are of no use with occlusion={occlusion!r}, detail={detail!r}"
            )
        self.device = device
        self.threads = threads
        self.lanes = lanes
        self.crop_size = crop_size
        self.detail: Detail = detail
        self.occlusion: FillMethod = occlusion
        self.symmetry = symmetry
        self.head_model = model = head_model or HeadModel.load()
        # the lanes that are free; None is the pipeline of this file, which is no object of its own
        # lest it keep this one alive. The last one used is warm.
        self._lanes: queue.LifoQueue[Lane | None] = queue.LifoQueue()
        if device != "cpu":
            options = PipelineOptions(
                foundation, crop_size, detail, occlusion, symmetry, bump_network, references
            )
            for lane in device_lanes(model, options, lanes):
                self._lanes.put(lane)
            return
        self._lanes.put(None)
        self._networks = HostNetworks(threads=threads, runtime=runtime)
        open_network = self._networks.open
        self._estimator = FoundationEstimator(
            model, mode=foundation, threads=threads, open_network=open_network
        )
        self._bump_network = BumpNetwork(bump_network, threads=threads, open_network=open_network)
        self._similar: SimilarFaces | None = None
        if occlusion == "reference" and detail != "none":
            bump_name = self._bump_network.name
            self._similar = SimilarFaces(references, model, bump_name, open_network=open_network)
            self._chart = FaceChart(model)
        skin = slice(0, model.skin_vertex_count)
        self._region = recoverable_region(model)
        self._symmetry = SoftSymmetrySolver(model.faces, model.mirror[skin], self._region)
        self._zipper = Zipper(model.faces, model.mirror[skin])
        self._viewer = FoundationViewer(model, threads=threads)
        self._colors = VertexColors(model.faces, model.mirror[skin], model.colors[skin])
        self._parts = _prepared_parts(model)

    # === Reconstruction ===

    def reconstruct(self, image: ImageSource) -> Face:
        """Reconstruct the main face of a photo.

        Args:
            image: path, (H, W, 3) uint8 RGB, (H, W) grey, or a PIL image; see `load_image`.

        Returns:
            The face; `warnings` names what could not be done as it should.

        Raises:
            NoFaceFound: nothing in the photo looks like a face.
            InvalidImage: not an image, or one that cannot be read.
            FileNotFoundError: there is no such file.
            InvalidModelFile: an entry of the reference set that is needed is damaged.
        """
        timings: dict[str, float] = {}
        photo = timed_into(timings, "load", load_image)(image)
        with self._lane() as lane:
            foundation, crop = self._main_foundation(lane, photo, timings)
            return lane.reconstruct(photo, foundation, crop, timings)

    def reconstruct_all(self, image: ImageSource) -> list[Face]:
        """Reconstruct every face of a photo that the detector finds, the main one first; empty if
        there is none. Only where it finds none the pose network searches too, and for one face.

        Args:
            image: as for `reconstruct`.

        Raises:
            InvalidImage, FileNotFoundError, InvalidModelFile: as for `reconstruct`.
        """
        photo = load_image(image)
        with self._lane() as lane:
            faces = []
            timed = partial(timed_into, {})
            for found in lane.estimator.find(photo, timed, every=True):
                timings: dict[str, float] = {}
                timed = partial(timed_into, timings)
                estimate = lane.estimator.estimate(photo, found, self.crop_size, timed)
                faces.append(lane.reconstruct(photo, *estimate, timings))
            return faces

    def estimate_foundation(self, image: ImageSource) -> Foundation:
        """Identity, expression and viewpoint of the main face of a photo, without its detail.

        Args:
            image: as for `reconstruct`.

        Returns:
            The foundation; head_model.vertices(identity, expression) is its mesh.

        Raises:
            NoFaceFound, InvalidImage, FileNotFoundError: as for `reconstruct`.
        """
        photo = load_image(image)
        with self._lane() as lane:
            return self._main_foundation(lane, photo, {})[0]

    def reconstruct_batch(self, images: Iterable[ImageSource]) -> list[Face]:
        """Reconstruct the main face of each photo, in order; several at once on a GPU.

        Raises:
            NoFaceFound, InvalidImage, FileNotFoundError, InvalidModelFile: as for `reconstruct`, on
                the first photo that has the fault.
        """
        if isinstance(images, (str, bytes)):
            raise TypeError(f"images should be a sequence of photos, is one: {images!r}")
        return list(self._stream(images, self.reconstruct))

    @overload
    def stream(
        self, frames: Iterable[ImageSource], *, missing: Literal["raise"] = "raise"
    ) -> Iterator[Face]: ...

    @overload
    def stream(
        self, frames: Iterable[ImageSource], *, missing: Literal["none"]
    ) -> Iterator[Face | None]: ...

    def stream(
        self, frames: Iterable[ImageSource], *, missing: Literal["raise", "none"] = "raise"
    ) -> Iterator[Face | None]:
        """Reconstruct the main face of each frame while the next ones are on their way.

        Frames are taken as results are asked for, `lanes` + 1 ahead at most, so that memory is
        bounded and a slow reader slows the source. Results come in the order of the frames.

        Args:
            frames: photos as for `reconstruct`, such as the frames of a video. A frame's array must
                stay as it is until its result is out.
            missing: what becomes of a frame without a face: an exception, or None in its place.

        Raises:
            NoFaceFound, InvalidImage, FileNotFoundError, InvalidModelFile: as for `reconstruct`, in
                place of the result of the frame that has the fault; then the stream ends. So does
                whatever `frames` raises.
        """
        _check_option("missing", missing, ("raise", "none"))
        if isinstance(frames, (str, bytes)):
            raise TypeError(f"frames should be a sequence of photos, is one: {frames!r}")

        def one(frame: ImageSource) -> Face | None:
            try:
                return self.reconstruct(frame)
            except NoFaceFound:
                if missing == "raise":
                    raise
                return None

        return self._stream(frames, one)

    def _stream(
        self, frames: Iterable[ImageSource], one: Callable[[ImageSource], T]
    ) -> Iterator[T]:
        if self.lanes == 1 and self.device == "cpu":
            yield from map(one, frames)
            return
        ahead: collections.deque[Future[T]] = collections.deque()
        with ThreadPoolExecutor(self.lanes) as workers:
            try:
                for next_one in _calls(one, frames):
                    ahead.append(workers.submit(next_one))
                    if len(ahead) > self.lanes:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:  # the reader has gone, or a frame has a fault
                for future in ahead:
                    future.cancel()

    @property
    def runtime(self) -> str:
        """What runs the networks, for reports."""
        with self._lane() as lane:
            return lane.runtime

    @contextmanager
    def _lane(self) -> Iterator[Lane]:
        """A lane that nobody else works in."""
        free = self._lanes.get()
        try:
            lane = free or _HostLane(self)
            lane.begin()
            yield lane
        finally:
            self._lanes.put(free)

    def _main_foundation(
        self, lane: Lane, photo: npt.NDArray[np.uint8], timings: dict[str, float]
    ) -> tuple[Foundation, Crop]:
        timed = partial(timed_into, timings)
        found = lane.estimator.find(photo, timed)
        if not found:
            raise NoFaceFound(f"no face found in the photo of {photo.shape[1]}x{photo.shape[0]}")
        return lane.estimator.estimate(photo, found[0], self.crop_size, timed)

    def _reconstruct(
        self,
        photo: npt.NDArray[np.uint8],
        foundation: Foundation,
        crop: Crop,
        timings: dict[str, float],
        aside: Aside,
    ) -> Face:
        model, threads = self.head_model, self.threads
        skin = slice(0, model.skin_vertex_count)
        faces, mirror = model.faces, model.mirror[skin]
        timed = partial(timed_into, timings)

        # foundation (section 3): identity, expression, viewpoint
        camera, camera_from_head = foundation.camera, foundation.camera_from_head
        warnings = list(foundation.warnings)

        # foundation mesh F (Eq. 1-2) and what each pixel sees of it
        view = self._viewer.view(foundation, crop, photo.shape, timed)
        head, raster, weight, depth = view.head, view.raster, view.weight, view.depth
        foundation_in_head, foundation_in_camera = head[skin], view.in_camera
        normals_in_camera, in_photo = view.normals_in_camera, view.in_photo
        warn_of_view(warnings, view.face_px, view.outside)

        visible = timed("visibility", vertex_visibility)(
            foundation_in_camera,
            normals_in_camera,
            raster.depth,
            camera,
            min_cosine=MIN_COSINE,
            depth_tolerance=DEPTH_TOLERANCE,
            threads=threads,
        )

        # pixels that show the face, bump map (section 4.1), occluded pixels filled (section 4.2)
        bump, face_probability = timed("bump_network", self._bump_network.estimate)(
            crop.image, weight, depth, camera
        )
        face_probability[~in_photo] = 0
        face_mask = face_probability > FACE_SHOWN
        occlusion = timed("holes", find_holes)(face_mask, weight, self.occlusion)
        warn_of_occlusion(warnings, occlusion.fraction - view.outside)
        if self.detail == "shading":
            # with nothing to be filled, an occluder's relief is taken as it comes
            trusted = in_photo if self.occlusion == "none" else face_mask
            bump = timed("shading", shape_from_shading)(crop.image, weight, depth, camera, trusted)
        references: tuple[Reference, ...] = ()
        if self.detail == "none":
            bump = np.zeros_like(depth)
        elif occlusion.hole.any():
            references, borrowed = self._borrowed(
                occlusion, crop.image, bump, view, visible, foundation, warnings, timed
            )
            bump = timed("fill", fill_bump)(
                bump, weight, occlusion.hole, *borrowed, threads=threads
            )
        filled = occlusion.hole | (~in_photo & (weight > 0))
        uncovered = in_photo if self.occlusion == "none" else face_mask & ~filled

        # colours of the foundation's skin, beside the meshes: they need one core, and these not all
        pixel_of_vertex = pixels_of_vertices(foundation_in_camera, camera, threads=threads)
        # hair, clothes and what covers the face are better left out than painted on the skin
        shown = visible & model.face_region & _at_vertices(uncovered, pixel_of_vertex)
        colored = aside.start(
            timed("texture", self._colors.colors),
            crop.image,
            foundation_in_camera,
            shown,
            camera,
            threads=threads,
        )

        # dense mesh D (Eq. 4), one vertex a pixel of the face region
        detailed_depth = compose_depth(np.where(weight > 0, depth, np.float32(np.inf)), bump)
        dense = timed("dense", dense_mesh)(detailed_depth, camera, threads=threads)
        head_from_camera = np.linalg.inv(camera_from_head.astype(np.float64))
        dense_in_head = transform_points(head_from_camera, dense.vertices)

        # sparse mesh R: visible vertices of F moved to the detailed depth
        moved_in_camera, moved = timed("sparse", sparse_from_dense)(
            foundation_in_camera, visible, bump, weight > 0, camera, threads=threads
        )
        observed = timed("observed", erode_mask)(visible & moved & self._region, faces)
        moved_in_head = transform_points(head_from_camera, moved_in_camera)
        sparse_in_head = np.where(observed[:, None], moved_in_head, foundation_in_head)

        # soft symmetry on the sparse mesh (Eq. 9)
        recovery = np.zeros(len(sparse_in_head), np.uint8)
        if self.symmetry:
            sparse_in_head, recovery = timed("soft_symmetry", self._symmetry.solve)(
                foundation_in_head, sparse_in_head, observed, threads=threads
            )
        recovered = recovery > 0

        # registration (Eq. 6-8) on R, whose observed corners symmetry left as they were, and the
        # dense mesh reflected into the hidden side (Eq. 10)
        registration = timed("registration", register_dense)(
            raster, dense, dense_in_head, sparse_in_head, faces, threads=threads
        )
        reflected = timed("completion", complete_dense)(
            registration.triangle,
            registration.uv,
            registration.residual,
            sparse_in_head,
            faces,
            mirror,
            recovered,
            threads=threads,
        )

        # final shape S: overlap removed, the meshes sewn together
        mesh = timed("zipper", self._zipper.zip)(
            sparse_in_head,
            foundation_in_camera,
            observed,
            recovered,
            dense_in_head,
            reflected.vertices,
            reflected.defined,
            raster.triangle,
            dense.vertex_of_pixel,
            camera,
            threads=threads,
        )

        # where every vertex came from, and its colour
        color_of_sparse = colored.result()
        colors, provenance = timed("paint", paint_mesh)(
            mesh,
            dense,
            registration,
            faces,
            mirror,
            color_of_sparse,
            observed,
            recovery,
            pixel_of_vertex,
            filled,
            crop.image,
            threads=threads,
        )
        parts = timed("parts", self._part_meshes)(
            head,
            crop.image,
            uncovered,
            raster,
            camera,
            camera_from_head,
            _brightness(color_of_sparse[shown], model.colors[skin][shown]),
        )

        return Face(
            vertices=mesh.vertices,
            faces=mesh.faces,
            colors=colors,
            provenance=provenance,
            warnings=tuple(warnings),
            timings=timings,
            foundation=foundation_in_head,
            foundation_faces=faces,
            identity=foundation.identity,
            expression=foundation.expression,
            foundation_source=foundation.source,
            camera=camera,
            camera_from_head=camera_from_head,
            crop_from_image=crop.crop_from_image,
            depth=detailed_depth,
            bump=bump,
            face_mask=face_mask,
            face_probability=face_probability,
            occlusion=occlusion,
            references=references,
            photo=crop.image,
            parts=parts,
        )

    def _borrowed(
        self,
        occlusion: Occlusion,
        photo: npt.NDArray[np.uint8],
        bump: Float32,
        view: FoundationView,
        visible: Bool,
        foundation: Foundation,
        warnings: list[str],
        timed: Callable[..., Any],
    ) -> tuple[tuple[Reference, ...], Borrowed | tuple[()]]:
        """The most similar reference faces, and their detail in this crop; nothing if none is."""
        if self._similar is None:
            return (), ()
        covered = view.weight[occlusion.hole].sum() / max(view.weight.sum(), 1.0)
        alike = self._similar.find(photo, foundation, float(covered), warnings, timed)
        if not alike:
            return (), ()
        own = timed("unroll", self._chart.unroll)(
            *unfade(bump, view.weight, occlusion.hole, threads=self.threads),
            view.in_camera,
            visible,
            foundation.camera,
            threads=self.threads,
        )
        relief = timed("references", expected_relief)(
            self._similar.references, alike, *own, threads=self.threads
        )
        borrowed = timed("transfer", warp_by_surface)(
            *relief,
            self._chart,
            view.raster,
            where=occlusion.hole,
            threads=self.threads,
        )
        return tuple(alike), borrowed

    def _part_meshes(
        self,
        head: Float32,
        photo: npt.NDArray[np.uint8],
        uncovered: Bool,
        raster: Raster,
        camera: Camera,
        camera_from_head: Float32,
        brightness: float,
    ) -> dict[str, Mesh]:
        """Eyeballs, teeth and tongue, in the photo's colours where it shows them, else in the
        model's, as bright as the skin."""
        of = self._parts
        vertices = head[of.begin :]
        normals = vertex_normals(vertices, of.faces, faces_of_vertex=of.faces_of_vertex)
        in_camera = transform_points(camera_from_head, vertices)
        in_view = rotate_vectors(camera_from_head, normals)
        visible = vertex_visibility(in_camera, in_view, raster.depth, camera)
        pixel_of_vertex = pixels_of_vertices(in_camera, camera)
        visible &= _at_vertices(uncovered, pixel_of_vertex)
        parts = {}
        for name, (own, faces) in of.meshes.items():
            colors = _part_colors(
                photo, pixel_of_vertex[own], visible[own], of.colors[own], brightness
            )
            parts[name] = Mesh(vertices[own], faces, colors)
        return parts


def _calls(
    one: Callable[[ImageSource], T], frames: Iterable[ImageSource]
) -> Iterator[Callable[[], T]]:
    """`one` of each frame; what goes wrong in their source is a call too, after those before it."""
    try:
        for frame in frames:
            yield partial(one, frame)
    except Exception as error:
        yield partial(_raise, error)


def _raise(error: Exception) -> NoReturn:
    raise error


def _check_option(name: str, value: str, options: tuple[str, ...]) -> None:
    if value not in options:
        raise ValueError(f"{name} should be one of {', '.join(options)}; is {value!r}")


def _check_integer(name: str, value: int, low: int, high: int) -> None:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        raise TypeError(f"{name} should be an integer, is {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} should be in [{low}, {high}], is {value}")


class _HostLane:
    """The pipeline of this file as a lane."""

    def __init__(self, owner: Reconstructor) -> None:
        self._owner = owner

    @property
    def estimator(self) -> FoundationEstimator:
        return self._owner._estimator

    @property
    def runtime(self) -> str:
        return self._owner._networks.runtime

    def begin(self) -> None:
        pass

    def reconstruct(
        self,
        photo: npt.NDArray[np.uint8],
        foundation: Foundation,
        crop: Crop,
        timings: dict[str, float],
    ) -> Face:
        with Aside(self._owner.threads) as aside:
            return self._owner._reconstruct(photo, foundation, crop, timings, aside)


class _Parts(NamedTuple):
    """What the parts of the head model, all but its skin, need in every call."""

    begin: int  # first vertex of them in the head
    faces: npt.NDArray[np.int32]  # of all, into their own vertices
    faces_of_vertex: Csr
    colors: npt.NDArray[np.uint8]
    meshes: dict[str, tuple[slice, npt.NDArray[np.int32]]]  # vertices of a part, faces into them


def _prepared_parts(model: HeadModel) -> _Parts:
    begin = model.skin_vertex_count
    meshes = {}
    for name, (first, end) in zip(model.part_names, model.part_vertex_range, strict=True):
        if name != "skin":
            own = slice(int(first) - begin, int(end) - begin)
            meshes[name] = own, model.part_faces[name] - first
    faces = np.concatenate([mesh + own.start for own, mesh in meshes.values()] or [_NO_FACES])
    n = model.vertex_count - begin
    return _Parts(begin, faces, vertex_faces(faces, n), model.colors[begin:], meshes)


def _at_vertices(image: Bool, pixel_of_vertex: npt.NDArray[np.int32]) -> Bool:
    """The image at the pixels of the vertices; False outside."""
    return np.asarray(image.ravel()[pixel_of_vertex] & (pixel_of_vertex >= 0))


def _part_colors(
    photo: npt.NDArray[np.uint8],
    pixel_of_vertex: npt.NDArray[np.int32],
    visible: Bool,
    model_colors: npt.NDArray[np.uint8],
    brightness: float,
) -> npt.NDArray[np.uint8]:
    """The photo's colours where it shows the part; elsewhere the model's, as bright as those, or
    as the skin where nothing of the part is seen."""
    if not visible.any():
        return np.asarray(brightness * model_colors, np.uint8)
    pixels = photo.reshape(-1, 3)[pixel_of_vertex]
    # the brighter ones tell the part from the lips and lids that cover its rim
    level = _percentile(pixels[visible], 90) / max(_percentile(model_colors[visible], 90), 1.0)
    colors = np.where(visible[:, None], pixels, min(level, 1.0) * model_colors)
    return np.asarray(colors, np.uint8)


def _brightness(colors: npt.NDArray[np.uint8], model_colors: npt.NDArray[np.uint8]) -> float:
    """How bright skin is, of the model's, at most 1; 1 where none is seen."""
    if not len(colors):
        return 1.0
    return min(_percentile(colors, 50) / max(_percentile(model_colors, 50), 1.0), 1.0)


def _percentile(values: npt.NDArray[np.uint8], percent: float) -> float:
    """`np.percentile` of bytes, of which there are some, by counting them."""
    rank = percent / 100 * (values.size - 1)
    up_to = np.cumsum(np.bincount(values.ravel(), minlength=256))
    low, high = np.searchsorted(up_to, [int(rank), min(int(rank) + 1, values.size - 1)], "right")
    return float(low + (rank - int(rank)) * (high - low))
