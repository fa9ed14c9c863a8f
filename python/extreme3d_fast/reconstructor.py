"""The pipeline, top to bottom: one photo in, a detailed, complete head out (Tran et al., CVPR 2018)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Literal, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from extreme3d_fast.bump import estimate_bump
from extreme3d_fast.camera import Camera
from extreme3d_fast.completion import complete_dense
from extreme3d_fast.dense import compose_depth, dense_mesh
from extreme3d_fast.detect import FaceDetector, FaceLandmarks, crop_face, transform_points
from extreme3d_fast.errors import NoFaceFound
from extreme3d_fast.face import Face, Part, Provenance
from extreme3d_fast.foundation import LandmarkFitter
from extreme3d_fast.head_model import HeadModel
from extreme3d_fast.image_io import ImageSource, load_image
from extreme3d_fast.mesh import vertex_normals
from extreme3d_fast.occlusion import complete_bump, estimate_face_mask
from extreme3d_fast.rasterize import Raster, rasterize
from extreme3d_fast.registration import register_dense
from extreme3d_fast.smooth_depth import smooth_depth
from extreme3d_fast.soft_symmetry import Recovery, SoftSymmetrySolver
from extreme3d_fast.sparse import sparse_from_dense, vertex_visibility
from extreme3d_fast.texture import vertex_colors
from extreme3d_fast.zipper import VertexSource, Zipper

__all__ = ["Detail", "Occlusion", "Reconstructor"]

Detail = Literal["shading", "none"]
"""Where the bump map comes from: the shading rule, or nowhere (foundation only)."""
Occlusion = Literal["smooth", "none"]
"""How occluded pixels are filled: smoothly from around them, or not at all."""

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
P = ParamSpec("P")
T = TypeVar("T")

# A vertex counts as seen if its surface is turned by less than 66 degrees from the viewing ray:
# beyond that a pixel spans more than twice its size on the surface, and neither depth nor bump map
# say much.
_MIN_COSINE = 0.4
# A vertex further behind the depth buffer than this is covered by another part of the head, mm.
_DEPTH_TOLERANCE = 2.0
# Below this the network's points say little about the face, and the result warns.
_MIN_LANDMARK_CONFIDENCE = 0.5
# A fit this far from its points (in fractions of the crop) is probably none, and the result warns.
_MAX_LANDMARK_RMS = 0.02
_OCCLUDED_WARNING = 0.3


class Reconstructor:
    """Reconstructs faces; owns what is worth keeping between calls.

    Networks, head model, the symbolic half of the sparse solver and the mesh adjacency are loaded
    once. One instance serves one thread at a time; calls from several threads wait for each other.

    Args:
        device: "cpu".
        threads: threads per stage, at least 1; the result is the same for any number.
        head_model: head model to fit; None for the built-in one.
        crop_size: side of the square crop that is reconstructed, px. More pixels, more vertices.
        detail: source of the bump map; see `Detail`.
        occlusion: filling of occluded pixels; see `Occlusion`.
        symmetry: recover the hidden side from the visible one (section 4.3).

    Raises:
        ValueError: an option that does not exist.

    Example:
        >>> import extreme3d_fast as e3d
        >>> reconstructor = e3d.Reconstructor(threads=1)
        >>> reconstructor.reconstruct_all(np.zeros((64, 64, 3), np.uint8))
        []
    """

    def __init__(
        self,
        *,
        device: Literal["cpu"] = "cpu",
        threads: int = 2,
        head_model: HeadModel | None = None,
        crop_size: int = 500,
        detail: Detail = "shading",
        occlusion: Occlusion = "smooth",
        symmetry: bool = True,
    ) -> None:
        _check_option("device", device, ("cpu",))
        _check_option("detail", detail, ("shading", "none"))
        _check_option("occlusion", occlusion, ("smooth", "none"))
        if threads < 1:
            raise ValueError(f"threads should be at least 1, is {threads}")
        if not 64 <= crop_size <= 4096:
            raise ValueError(f"crop_size should be in [64, 4096], is {crop_size}")
        self.device = device
        self.threads = threads
        self.crop_size = crop_size
        self.detail: Detail = detail
        self.occlusion: Occlusion = occlusion
        self.symmetry = symmetry
        self.head_model = model = head_model or HeadModel.load()
        self._detector = FaceDetector(threads=threads)
        self._fitter = LandmarkFitter(model)
        skin = slice(0, model.skin_vertex_count)
        self._symmetry = SoftSymmetrySolver(model.faces, model.mirror[skin], model.face_region)
        self._zipper = Zipper(model.faces, model.mirror[skin])
        self._lock = threading.Lock()

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
        """
        with self._lock:
            timings: dict[str, float] = {}
            photo = _timed(timings, "load", load_image)(image)
            detections = _timed(timings, "detect", self._detector.detect)(photo)
            if not detections:
                raise NoFaceFound(f"no face found in the photo of {photo.shape[1]}x{photo.shape[0]}")
            points = _timed(timings, "landmarks", self._detector.landmarks)(photo, detections[0])
            return self._reconstruct(photo, points, timings)

    def reconstruct_all(self, image: ImageSource) -> list[Face]:
        """Reconstruct every face of a photo, the main one first; empty if there is none.

        Args:
            image: as for `reconstruct`.

        Raises:
            InvalidImage, FileNotFoundError: as for `reconstruct`.
        """
        with self._lock:
            photo = load_image(image)
            faces = []
            for detection in self._detector.detect_all(photo):
                timings: dict[str, float] = {}
                points = _timed(timings, "landmarks", self._detector.landmarks)(photo, detection)
                faces.append(self._reconstruct(photo, points, timings))
            return faces

    def reconstruct_batch(self, images: Iterable[ImageSource]) -> list[Face]:
        """Reconstruct the main face of each photo, in order.

        Raises:
            NoFaceFound, InvalidImage, FileNotFoundError: as for `reconstruct`, on the first photo
                that has the fault.
        """
        return [self.reconstruct(image) for image in images]

    def _reconstruct(
        self, photo: npt.NDArray[np.uint8], landmarks: FaceLandmarks, timings: dict[str, float]
    ) -> Face:
        model, threads = self.head_model, self.threads
        skin = slice(0, model.skin_vertex_count)
        faces, mirror = model.faces, model.mirror[skin]
        warnings: list[str] = []

        def timed(name: str, function: Callable[P, T]) -> Callable[P, T]:
            return _timed(timings, name, function)

        # crop and foundation (section 3): identity, expression, viewpoint
        crop = timed("crop", crop_face)(photo, landmarks.points, size=self.crop_size)
        points = _points_in_crop(landmarks.points, crop.crop_from_image)
        foundation = timed("fit", self._fitter.fit)(points, self.crop_size)
        camera, camera_from_head = foundation.camera, foundation.camera_from_head
        if landmarks.confidence < _MIN_LANDMARK_CONFIDENCE:
            warnings.append(f"face landmarks are not confident ({landmarks.confidence:.2f})")
        if foundation.landmark_rms > _MAX_LANDMARK_RMS * self.crop_size:
            warnings.append(f"landmarks fit badly ({foundation.landmark_rms:.1f} px)")

        # foundation mesh F (Eq. 1-2) and what each pixel sees of it
        head = timed("head_model", model.vertices)(
            foundation.identity, foundation.expression, threads=threads
        )
        foundation_in_head = head[skin]
        normals = timed("normals", vertex_normals)(foundation_in_head, faces, threads=threads)
        foundation_in_camera = _transform(camera_from_head, foundation_in_head)
        normals_in_camera = _rotate(camera_from_head, normals)
        raster = timed("rasterize", rasterize)(foundation_in_camera, faces, camera, threads=threads)
        weight = _interpolate(raster, model.face_weight, faces, foundation_in_camera)
        depth = timed("smooth_depth", smooth_depth)(
            raster, foundation_in_camera, normals_in_camera, faces, threads=threads
        )

        # bump map (section 4.1), occluded pixels filled (section 4.2)
        bump = np.zeros_like(depth)
        face_mask = weight > 0
        filled = np.zeros_like(face_mask)
        if self.detail == "shading":
            face_mask = timed("face_mask", estimate_face_mask)(crop.image, weight, depth, camera)
            bump = timed("bump", estimate_bump)(crop.image, weight, depth, camera, face_mask)
            bump, occluded = timed("occlusion", complete_bump)(
                bump, face_mask, weight, method=self.occlusion
            )
            filled = occluded.holes
            if occluded.fraction > _OCCLUDED_WARNING:
                warnings.append(f"{occluded.fraction:.0%} of the visible face is occluded")

        # dense mesh D (Eq. 4), one vertex a pixel of the face region
        detailed_depth = compose_depth(np.where(weight > 0, depth, np.float32(np.inf)), bump)
        dense = timed("dense", dense_mesh)(detailed_depth, camera)
        head_from_camera = np.linalg.inv(camera_from_head.astype(np.float64))
        dense_in_head = _transform(head_from_camera, dense.vertices)

        # sparse mesh R: visible vertices of F moved to the detailed depth
        visible = timed("visibility", vertex_visibility)(
            foundation_in_camera,
            normals_in_camera,
            raster.depth,
            camera,
            min_cosine=_MIN_COSINE,
            depth_tolerance=_DEPTH_TOLERANCE,
            threads=threads,
        )
        sparse = timed("sparse", sparse_from_dense)(
            foundation_in_camera, visible, bump, weight > 0, camera, threads=threads
        )
        observed = _eroded((visible > 0) & (sparse.moved > 0) & model.face_region, faces)
        moved_in_head = _transform(head_from_camera, sparse.vertices)
        sparse_in_head = np.where(observed[:, None], moved_in_head, foundation_in_head)

        # soft symmetry on the sparse mesh (Eq. 9)
        recovery = np.zeros(len(sparse_in_head), np.uint8)
        if self.symmetry:
            sparse_in_head, recovery = timed("soft_symmetry", self._symmetry.solve)(
                foundation_in_head, sparse_in_head, observed, threads=threads
            )
        recovered = recovery > 0

        # registration (Eq. 6-8) and the dense mesh reflected into the hidden side (Eq. 10)
        registration = timed("registration", register_dense)(
            raster, dense.vertex_of_pixel, dense_in_head, sparse_in_head, faces, threads=threads
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
        )

        # where every vertex came from, and its colour
        pixel = np.flatnonzero(dense.vertex_of_pixel >= 0)  # of each dense vertex, row-major
        filled_at_vertex = _at_pixel(filled, foundation_in_camera, camera)
        on_sparse = np.select(
            [observed & filled_at_vertex, observed, recovery == Recovery.MIRRORED],
            [Provenance.FILLED, Provenance.OBSERVED, Provenance.MIRRORED],
            Provenance.MODEL,
        ).astype(np.uint8)
        on_dense = np.where(filled.ravel()[pixel], Provenance.FILLED, Provenance.OBSERVED)
        on_reflected = np.full(len(pixel), Provenance.MIRRORED)

        seen = _at_depth(foundation_in_camera, raster, camera) & (
            ~model.face_region | (weight_at_vertex(weight, foundation_in_camera, camera) <= 0)
            | observed
        )
        sparse_colors = timed("texture", vertex_colors)(
            crop.image,
            foundation_in_camera,
            faces,
            seen,
            mirror,
            camera,
            model.colors[skin],
            threads=threads,
        )
        dense_colors = crop.image.reshape(-1, 3)[pixel]

        return Face(
            vertices=mesh.vertices,
            faces=mesh.faces,
            colors=_gather(mesh.source, mesh.index, sparse_colors, dense_colors, dense_colors),
            provenance=_gather(mesh.source, mesh.index, on_sparse, on_dense, on_reflected),
            warnings=tuple(warnings),
            timings=timings,
            foundation=foundation_in_head,
            foundation_faces=faces,
            identity=foundation.identity,
            expression=foundation.expression,
            camera=camera,
            camera_from_head=camera_from_head,
            crop_from_image=crop.crop_from_image,
            depth=detailed_depth,
            bump=bump,
            face_mask=face_mask,
            photo=crop.image,
            parts={},
        )
