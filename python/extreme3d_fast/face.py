"""The result of a reconstruction: a head with its maps, colours and where each vertex came from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from extreme3d_fast._arrays import Float32, Int32, UInt8
from extreme3d_fast.camera import Camera
from extreme3d_fast.mesh_io import Mesh, save_meshes
from extreme3d_fast.occlusion import Occlusion
from extreme3d_fast.references import Reference
from extreme3d_fast.render import SHEET_YAWS, WHITE, Rgb, Shading, render_meshes, turntable_sheet

__all__ = ["Face", "Provenance"]


class Provenance(IntEnum):
    """Where a vertex of the result came from."""

    OBSERVED = 0  #: the photo shows it
    FILLED = 1  #: in a hole of the bump map (something covers the face); see `occlusion`
    MIRRORED = 2  #: on the hidden side, recovered by symmetry
    MODEL = 3  #: the foundation's own shape, no detail of the photo reaches it


@dataclass(frozen=True, eq=False, repr=False)
class Face:
    """A reconstructed head, in mm in its head frame (x to its left, y up, z out of the face).

    N and M count the vertices and faces of the final mesh, V and F those of the foundation; maps
    are those of the crop, (S, S). See docs/conventions.md for frames, signs and pixel positions.
    """

    vertices: Float32  #: (N, 3) float32, mm, head frame
    faces: Int32  #: (M, 3) int32, counter-clockwise seen from outside
    colors: UInt8  #: (N, 3) uint8, sRGB
    provenance: UInt8  #: (N,) uint8, values of `Provenance`

    foundation: Float32  #: (V, 3) float32, mm, head frame: the head model fitted, without detail
    foundation_faces: Int32  #: (F, 3) int32, its skin
    identity: Float32  #: (99,) float32, in standard deviations
    expression: Float32  #: (52,) float32, ARKit blendshapes, 0 rest, 1 full

    #: What identity, expression and viewpoint come from: "networks+landmarks", "networks" or
    #: "landmarks"
    foundation_source: str
    camera: Camera  #: pinhole of the crop
    camera_from_head: Float32  #: (4, 4) float32, rigid, mm
    crop_from_image: npt.NDArray[np.float64]  #: (3, 3) float64, similarity of pixel coordinates

    photo: UInt8  #: (S, S, 3) uint8 RGB, the upright crop
    depth: Float32  #: (S, S) float32, mm along the optical axis with detail, +inf off the face
    bump: Float32  #: (S, S) float32, mm, positive is deeper than the foundation
    face_mask: npt.NDArray[np.bool_]  #: (S, S) bool, where the photo shows the face itself
    face_probability: Float32  #: (S, S) float32 in [0, 1], the mask before it was cut at 0.5
    occlusion: Occlusion  #: which pixels are hidden, and how much of the face
    #: Faces whose mean detail fills them, the most similar first; none where nothing is hidden,
    #: nobody is similar, or it was not asked for
    references: tuple[Reference, ...] = ()

    #: Eyeballs, teeth and tongue: (vertices, faces, colors) like the ones above, by name.
    parts: Mapping[str, Mesh] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()  #: what could not be done as usual, in words
    #: stage to ms, in the order in which they ended; some run beside others
    timings: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        share = float(np.mean(self.provenance == Provenance.OBSERVED)) if len(self.vertices) else 0
        count = len(self.warnings)
        noted = f", {count} warning{'s' * (count > 1)}" if count else ""
        return (
            f"Face({len(self.vertices)} vertices, {len(self.faces)} faces, "
            f"{share:.0%} observed{noted})"
        )

    @property
    def reference(self) -> Reference | None:
        """The most similar of `references`."""
        return self.references[0] if self.references else None

    @property
    def meshes(self) -> dict[str, Mesh]:
        """The skin and the other parts, as they are drawn and saved."""
        skin = Mesh(self.vertices, self.faces, self.colors)
        return {"skin": skin, **{name: Mesh(*part) for name, part in self.parts.items()}}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the head with its parts and colours to a .glb, .obj, .ply or .stl file.

        GLB is in metres, as glTF asks for, the others are in mm; PLY also holds `provenance`.

        Args:
            path: The file to write; its folder must exist.

        Raises:
            ValueError: Unknown suffix.
            OSError: The file cannot be written.
        """
        others = sum(len(part[0]) for part in self.parts.values())
        origin = np.concatenate([self.provenance, np.full(others, Provenance.MODEL, np.uint8)])
        save_meshes(path, self.meshes, vertex_data={"provenance": origin})

    def render(
        self,
        *,
        yaw: float = 0.0,
        pitch: float = 0.0,
        size: int = 512,
        shading: Shading = "color",
        background: Rgb = WHITE,
        threads: int = 2,
    ) -> UInt8:
        """Draw the head in software; no display is needed.

        Args:
            yaw: Degrees; positive turns the head to its own left, which is the picture's right.
            pitch: Degrees; positive turns the head to look up.
            size: Width and height of the picture, px.
            shading: "color" shows the vertex colours, "clay" the shape alone under studio lights.
            background: sRGB colour, 0 to 255.
            threads: Number of threads; the picture is the same for any.

        Returns:
            (size, size, 3) uint8 RGB.

        Raises:
            ValueError: Wrong size, shading or background.
        """
        return render_meshes(
            self.meshes,
            yaw=yaw,
            pitch=pitch,
            size=size,
            shading=shading,
            background=background,
            threads=threads,
        )

    def turntable(
        self, count: int = 36, *, size: int = 512, shading: Shading = "color", threads: int = 2
    ) -> UInt8:
        """One full turn of the head, starting from the front: (count, size, size, 3) uint8 RGB."""
        if count < 1:
            raise ValueError(f"count should be at least 1, is {count}")
        frames = [
            self.render(yaw=360.0 * i / count, size=size, shading=shading, threads=threads)
            for i in range(count)
        ]
        return np.stack(frames)

    def turntable_sheet(
        self, *, yaws: tuple[float, ...] = SHEET_YAWS, size: int = 320, threads: int = 2
    ) -> UInt8:
        """The photo, and views from several sides in colour and in clay: (H, W, 3) uint8 RGB."""
        return turntable_sheet(self.meshes, self.photo, yaws=yaws, size=size, threads=threads)
