"""
C++ core of extreme3d_fast
"""

from __future__ import annotations

import collections.abc
import typing

import numpy
import numpy.typing

__all__: list[str] = [
    "ChartTables",
    "EdgeRows",
    "HeadEvaluator",
    "LandmarkFitOptions",
    "LandmarkFitter",
    "SoftSymmetrySolver",
    "VertexColors",
    "Zipper",
    "blend_gradients",
    "boundary_loops",
    "bump_input",
    "bump_output",
    "complete_dense",
    "compose_depth",
    "dense_mesh",
    "erode_mask",
    "expected_relief",
    "face_normals",
    "fill_bump",
    "find_holes",
    "fit_landmarks",
    "interpolate",
    "mesh_report",
    "paint_mesh",
    "pixels_of_vertices",
    "rasterize",
    "recover_dense",
    "register_dense",
    "relief_from_shading",
    "render",
    "rotate_vectors",
    "smooth_depth",
    "solve_albedo",
    "sparse_from_dense",
    "transform_points",
    "triangulate_region",
    "unfade",
    "unique_edges",
    "vertex_faces",
    "vertex_neighbours",
    "vertex_normals",
    "vertex_visibility",
]

class HeadEvaluator:
    """
    Linear head model with fixed subdivision; arrays checked once.
    """
    def __init__(
        self,
        mean: numpy.typing.NDArray[numpy.float32],
        identity: numpy.typing.NDArray[numpy.float32],
        expression: numpy.typing.NDArray[numpy.float32],
        levels: collections.abc.Sequence[
            tuple[
                typing.Annotated[numpy.typing.ArrayLike, numpy.int32],
                typing.Annotated[numpy.typing.ArrayLike, numpy.int32],
                typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
            ]
        ],
    ) -> None: ...
    def evaluate(
        self,
        identity: numpy.typing.NDArray[numpy.float32],
        expression: numpy.typing.NDArray[numpy.float32],
        threads: typing.SupportsInt | typing.SupportsIndex,
    ) -> numpy.typing.NDArray[numpy.float32]:
        """
        (K,) and (E,) float32 coefficients -> (V, 3) float32 mm in the head frame.
        """

class LandmarkFitOptions:
    """
    Priors, bounds and stopping rule of a landmark fit.
    """
    def __init__(
        self,
        *,
        focal: typing.SupportsFloat | typing.SupportsIndex,
        focal_log_sigma: typing.SupportsFloat | typing.SupportsIndex,
        cx: typing.SupportsFloat | typing.SupportsIndex,
        cy: typing.SupportsFloat | typing.SupportsIndex,
        identity_sigma: typing.SupportsFloat | typing.SupportsIndex,
        expression_sigma: typing.SupportsFloat | typing.SupportsIndex,
        expression_min: typing.SupportsFloat | typing.SupportsIndex,
        expression_max: typing.SupportsFloat | typing.SupportsIndex,
        huber: typing.SupportsFloat | typing.SupportsIndex,
        max_iterations: typing.SupportsInt | typing.SupportsIndex,
        tolerance: typing.SupportsFloat | typing.SupportsIndex,
    ) -> None: ...

class LandmarkFitter:
    """
    Gauss-Newton fit of a landmark basis.
    """
    def __init__(
        self,
        mean: numpy.typing.NDArray[numpy.float32],
        identity: numpy.typing.NDArray[numpy.float32],
        expression: numpy.typing.NDArray[numpy.float32],
    ) -> None: ...
    def fit(
        self,
        points: numpy.typing.NDArray[numpy.float32],
        weights: numpy.typing.NDArray[numpy.float32],
        options: LandmarkFitOptions,
        *,
        directions: numpy.typing.NDArray[numpy.float32] | None = None,
        depth: numpy.typing.NDArray[numpy.float32] | None = None,
        depth_weights: numpy.typing.NDArray[numpy.float32] | None = None,
        threads: typing.SupportsInt | typing.SupportsIndex = 1,
        identity: numpy.typing.NDArray[numpy.float32] | None = None,
        identity_sigma: numpy.typing.NDArray[numpy.float32] | None = None,
        expression: numpy.typing.NDArray[numpy.float32] | None = None,
        expression_sigma: numpy.typing.NDArray[numpy.float32] | None = None,
        camera_from_head: numpy.typing.NDArray[numpy.float32] | None = None,
        rotation_sigma: typing.SupportsFloat | typing.SupportsIndex = 0.0,
        deviations: bool = True,
    ) -> dict:
        """
        identity to rotation_sigma: prior means, deviations (rotation in radians) and start.
        Without deviations the *_sigma of the result are empty.
        """
    def linearise(
        self,
        points: numpy.typing.NDArray[numpy.float32],
        weights: numpy.typing.NDArray[numpy.float32],
        options: LandmarkFitOptions,
        *,
        identity: numpy.typing.NDArray[numpy.float32],
        expression: numpy.typing.NDArray[numpy.float32],
        camera_from_head: numpy.typing.NDArray[numpy.float32],
        focal: typing.SupportsFloat | typing.SupportsIndex,
        directions: numpy.typing.NDArray[numpy.float32] | None = None,
        depth: numpy.typing.NDArray[numpy.float32] | None = None,
        depth_weights: numpy.typing.NDArray[numpy.float32] | None = None,
    ) -> tuple: ...

class EdgeRows:
    """
    Edges of a topology, for the cotangent Laplacian.
    """
    def __init__(
        self,
        faces: numpy.typing.NDArray[numpy.int32],
        n_vertices: typing.SupportsInt | typing.SupportsIndex,
    ) -> None: ...
    def cotangent_weights(
        self,
        vertices: numpy.typing.NDArray[numpy.float32],
        threads: typing.SupportsInt | typing.SupportsIndex = 1,
    ) -> numpy.typing.NDArray[numpy.float32]:
        """
        (E,) float32, in the order of csr().
        """
    def csr(self) -> tuple[numpy.typing.NDArray[numpy.int32], numpy.typing.NDArray[numpy.int32]]:
        """
        (V + 1,) offsets and (E,) neighbours, int32.
        """

class SoftSymmetrySolver:
    def __init__(
        self,
        faces: numpy.typing.NDArray[numpy.int32],
        mirror: numpy.typing.NDArray[numpy.int32],
        region: numpy.typing.NDArray[numpy.uint8],
    ) -> None: ...
    def solve(
        self,
        foundation: numpy.typing.NDArray[numpy.float32],
        detailed: numpy.typing.NDArray[numpy.float32],
        visible: numpy.typing.NDArray[numpy.uint8],
        threads: typing.SupportsInt | typing.SupportsIndex = 1,
    ) -> tuple[numpy.typing.NDArray[numpy.float32], numpy.typing.NDArray[numpy.uint8]]: ...

class Zipper:
    def __init__(
        self, faces: numpy.typing.NDArray[numpy.int32], mirror: numpy.typing.NDArray[numpy.int32]
    ) -> None: ...
    def zip(
        self,
        sparse: numpy.typing.NDArray[numpy.float32],
        foundation_in_camera: numpy.typing.NDArray[numpy.float32],
        observed: numpy.typing.NDArray[numpy.uint8],
        recovered: numpy.typing.NDArray[numpy.uint8],
        dense: numpy.typing.NDArray[numpy.float32],
        reflected: numpy.typing.NDArray[numpy.float32],
        reflected_defined: numpy.typing.NDArray[numpy.uint8],
        triangle: numpy.typing.NDArray[numpy.int32],
        vertex_of_pixel: numpy.typing.NDArray[numpy.int32],
        fx: typing.SupportsFloat | typing.SupportsIndex,
        fy: typing.SupportsFloat | typing.SupportsIndex,
        cx: typing.SupportsFloat | typing.SupportsIndex,
        cy: typing.SupportsFloat | typing.SupportsIndex,
        threads: typing.SupportsInt | typing.SupportsIndex = 1,
    ) -> tuple[
        numpy.typing.NDArray[numpy.float32],
        numpy.typing.NDArray[numpy.int32],
        numpy.typing.NDArray[numpy.uint8],
        numpy.typing.NDArray[numpy.int32],
        numpy.typing.NDArray[numpy.uint8],
    ]: ...

class VertexColors:
    def __init__(
        self,
        faces: numpy.typing.NDArray[numpy.int32],
        mirror_of: numpy.typing.NDArray[numpy.int32],
        fallback: numpy.typing.NDArray[numpy.uint8],
    ) -> None: ...
    def colors(
        self,
        vertices_in_camera: numpy.typing.NDArray[numpy.float32],
        seen: numpy.typing.NDArray[numpy.uint8],
        photo: numpy.typing.NDArray[numpy.uint8],
        fx: typing.SupportsFloat | typing.SupportsIndex,
        fy: typing.SupportsFloat | typing.SupportsIndex,
        cx: typing.SupportsFloat | typing.SupportsIndex,
        cy: typing.SupportsFloat | typing.SupportsIndex,
        threads: typing.SupportsInt | typing.SupportsIndex,
    ) -> numpy.typing.NDArray[numpy.uint8]: ...

class ChartTables:
    """
    Where the skin lies in the chart; checked once.
    """
    def __init__(
        self,
        triangle: numpy.typing.NDArray[numpy.int32],
        barycentric: numpy.typing.NDArray[numpy.float32],
        place: numpy.typing.NDArray[numpy.float32],
        faces: numpy.typing.NDArray[numpy.int32],
    ) -> None: ...
    def unroll(
        self,
        map: numpy.typing.NDArray[numpy.float32],
        known: numpy.typing.NDArray[numpy.uint8],
        fx: typing.SupportsFloat | typing.SupportsIndex,
        fy: typing.SupportsFloat | typing.SupportsIndex,
        cx: typing.SupportsFloat | typing.SupportsIndex,
        cy: typing.SupportsFloat | typing.SupportsIndex,
        vertices_in_camera: numpy.typing.NDArray[numpy.float32],
        visible: numpy.typing.NDArray[numpy.uint8],
        threads: typing.SupportsInt | typing.SupportsIndex,
    ) -> tuple:
        """
        A map of a crop in the chart -> (H, W) float32 and uint8, seen.
        """
    def warp_by_surface(
        self,
        relief: numpy.typing.NDArray[numpy.float32],
        seen: numpy.typing.NDArray[numpy.uint8],
        triangle: numpy.typing.NDArray[numpy.int32],
        barycentric: numpy.typing.NDArray[numpy.float32],
        where: numpy.typing.NDArray[numpy.uint8],
        threads: typing.SupportsInt | typing.SupportsIndex,
    ) -> tuple:
        """
        Relief of the chart in a crop -> (S, S) float32 and uint8, valid.
        """

def blend_gradients(
    values: numpy.typing.NDArray[numpy.float32],
    known: numpy.typing.NDArray[numpy.uint8],
    region: numpy.typing.NDArray[numpy.uint8],
    guidance: numpy.typing.NDArray[numpy.float32],
    guided: numpy.typing.NDArray[numpy.uint8],
    tolerance: typing.SupportsFloat | typing.SupportsIndex,
) -> tuple: ...
def boundary_loops(
    faces: numpy.typing.NDArray[numpy.int32], n_vertices: typing.SupportsInt | typing.SupportsIndex
) -> tuple: ...
def bump_input(
    image: numpy.typing.NDArray[numpy.uint8],
    depth: numpy.typing.NDArray[numpy.float32],
    mm_per_pixel: typing.SupportsFloat | typing.SupportsIndex,
    x: typing.SupportsInt | typing.SupportsIndex,
    y: typing.SupportsInt | typing.SupportsIndex,
    width: typing.SupportsInt | typing.SupportsIndex,
    height: typing.SupportsInt | typing.SupportsIndex,
    channels: typing.SupportsInt | typing.SupportsIndex,
    threads: typing.SupportsInt | typing.SupportsIndex = 1,
) -> numpy.typing.NDArray[numpy.float32]: ...
def bump_output(
    bump: numpy.typing.NDArray[numpy.float32],
    mask: numpy.typing.NDArray[numpy.float32],
    x: typing.SupportsInt | typing.SupportsIndex,
    y: typing.SupportsInt | typing.SupportsIndex,
    weight: numpy.typing.NDArray[numpy.float32],
    face: numpy.typing.NDArray[numpy.uint8],
    threads: typing.SupportsInt | typing.SupportsIndex = 1,
) -> tuple: ...
def complete_dense(
    triangle: numpy.typing.NDArray[numpy.int32],
    uv: numpy.typing.NDArray[numpy.float32],
    residual: numpy.typing.NDArray[numpy.float32],
    sparse: numpy.typing.NDArray[numpy.float32],
    faces: numpy.typing.NDArray[numpy.int32],
    mirror: numpy.typing.NDArray[numpy.int32],
    recovered: numpy.typing.NDArray[numpy.uint8],
    threads: typing.SupportsInt | typing.SupportsIndex = 1,
) -> tuple[numpy.typing.NDArray[numpy.float32], numpy.typing.NDArray[numpy.uint8]]: ...
def compose_depth(
    depth: numpy.typing.NDArray[numpy.float32],
    bump: numpy.typing.NDArray[numpy.float32],
    threads: typing.SupportsInt | typing.SupportsIndex = 1,
) -> numpy.typing.NDArray[numpy.float32]: ...
def dense_mesh(
    depth: numpy.typing.NDArray[numpy.float32],
    fx: typing.SupportsFloat | typing.SupportsIndex,
    fy: typing.SupportsFloat | typing.SupportsIndex,
    cx: typing.SupportsFloat | typing.SupportsIndex,
    cy: typing.SupportsFloat | typing.SupportsIndex,
    width: typing.SupportsInt | typing.SupportsIndex,
    height: typing.SupportsInt | typing.SupportsIndex,
    max_slope: typing.SupportsFloat | typing.SupportsIndex,
    threads: typing.SupportsInt | typing.SupportsIndex = 1,
) -> tuple: ...
def erode_mask(
    mask: numpy.typing.NDArray[numpy.uint8], faces: numpy.typing.NDArray[numpy.int32]
) -> numpy.typing.NDArray[numpy.uint8]: ...
def expected_relief(
    stored: numpy.typing.NDArray[numpy.uint8],
    chosen: numpy.typing.NDArray[numpy.int32],
    own: numpy.typing.NDArray[numpy.float32],
    seen: numpy.typing.NDArray[numpy.uint8],
    threads: typing.SupportsInt | typing.SupportsIndex = 1,
) -> tuple: ...
def face_normals(
    vertices: numpy.typing.NDArray[numpy.float32],
    faces: numpy.typing.NDArray[numpy.int32],
    threads: typing.SupportsInt | typing.SupportsIndex = 1,
) -> numpy.typing.NDArray[numpy.float32]: ...
def fill_bump(
    bump: numpy.typing.NDArray[numpy.float32],
    weight: numpy.typing.NDArray[numpy.float32],
    hole: numpy.typing.NDArray[numpy.uint8],
    borrowed: numpy.typing.NDArray[numpy.float32],
    valid: numpy.typing.NDArray[numpy.uint8],
    threads: typing.SupportsInt | typing.SupportsIndex = 1,
) -> numpy.typing.NDArray[numpy.float32]: ...
def find_holes(
    face_mask: numpy.typing.NDArray[numpy.uint8], weight: numpy.typing.NDArray[numpy.float32]
) -> tuple: ...
def fit_landmarks(
    mean: numpy.typing.NDArray[numpy.float32],
    identity: numpy.typing.NDArray[numpy.float32],
    expression: numpy.typing.NDArray[numpy.float32],
    points: numpy.typing.NDArray[numpy.float32],
    weights: numpy.typing.NDArray[numpy.float32],
    options: LandmarkFitOptions,
    *,
    directions: numpy.typing.NDArray[numpy.float32] | None = None,
    depth: numpy.typing.NDArray[numpy.float32] | None = None,
    depth_weights: numpy.typing.NDArray[numpy.float32] | None = None,
    threads: typing.SupportsInt | typing.SupportsIndex = 1,
) -> dict: ...
def interpolate(
    triangle: numpy.typing.NDArray[numpy.int32],
    barycentric: numpy.typing.NDArray[numpy.float32],
    values: numpy.typing.NDArray[numpy.float32],
    faces: numpy.typing.NDArray[numpy.int32],
    threads: typing.SupportsInt | typing.SupportsIndex = 1,
) -> numpy.typing.NDArray[numpy.float32]: ...
def mesh_report(
    vertices: numpy.typing.NDArray[numpy.float32],
    faces: numpy.typing.NDArray[numpy.int32],
    threads: typing.SupportsInt | typing.SupportsIndex = 1,
) -> dict: ...
def paint_mesh(
    source: numpy.typing.NDArray[numpy.uint8],
    source_vertex: numpy.typing.NDArray[numpy.int32],
    pixel_of_dense: numpy.typing.NDArray[numpy.int32],
    filled: numpy.typing.NDArray[numpy.uint8],
    triangle: numpy.typing.NDArray[numpy.int32],
    uv: numpy.typing.NDArray[numpy.float32],
    faces: numpy.typing.NDArray[numpy.int32],
    mirror: numpy.typing.NDArray[numpy.int32],
    observed: numpy.typing.NDArray[numpy.uint8],
    recovery: numpy.typing.NDArray[numpy.uint8],
    pixel_of_vertex: numpy.typing.NDArray[numpy.int32],
    color_of_sparse: numpy.typing.NDArray[numpy.uint8],
    photo: numpy.typing.NDArray[numpy.uint8],
    threads: typing.SupportsInt | typing.SupportsIndex = 1,
) -> tuple: ...
def pixels_of_vertices(
    vertices_in_camera: numpy.typing.NDArray[numpy.float32],
    fx: typing.SupportsFloat | typing.SupportsIndex,
    fy: typing.SupportsFloat | typing.SupportsIndex,
    cx: typing.SupportsFloat | typing.SupportsIndex,
    cy: typing.SupportsFloat | typing.SupportsIndex,
    width: typing.SupportsInt | typing.SupportsIndex,
    height: typing.SupportsInt | typing.SupportsIndex,
    threads: typing.SupportsInt | typing.SupportsIndex = 1,
) -> numpy.typing.NDArray[numpy.int32]: ...
def rasterize(
    vertices_in_camera: numpy.typing.NDArray[numpy.float32],
    faces: numpy.typing.NDArray[numpy.int32],
    fx: typing.SupportsFloat | typing.SupportsIndex,
    fy: typing.SupportsFloat | typing.SupportsIndex,
    cx: typing.SupportsFloat | typing.SupportsIndex,
    cy: typing.SupportsFloat | typing.SupportsIndex,
    width: typing.SupportsInt | typing.SupportsIndex,
    height: typing.SupportsInt | typing.SupportsIndex,
    cull_back_faces: bool = True,
    threads: typing.SupportsInt | typing.SupportsIndex = 1,
    out: tuple | None = None,
) -> tuple: ...
def recover_dense(
    triangle: numpy.typing.NDArray[numpy.int32],
    uv: numpy.typing.NDArray[numpy.float32],
    residual: numpy.typing.NDArray[numpy.float32],
    sparse_vertices: numpy.typing.NDArray[numpy.float32],
    faces: numpy.typing.NDArray[numpy.int32],
    threads: typing.SupportsInt | typing.SupportsIndex = 1,
) -> numpy.typing.NDArray[numpy.float32]: ...
def register_dense(
    triangle: numpy.typing.NDArray[numpy.int32],
    barycentric: numpy.typing.NDArray[numpy.float32],
    vertex_of_pixel: numpy.typing.NDArray[numpy.int32],
    dense_vertices: numpy.typing.NDArray[numpy.float32],
    sparse_vertices: numpy.typing.NDArray[numpy.float32],
    faces: numpy.typing.NDArray[numpy.int32],
    threads: typing.SupportsInt | typing.SupportsIndex = 1,
) -> tuple: ...
def relief_from_shading(
    detail: numpy.typing.NDArray[numpy.float32],
    confidence: numpy.typing.NDArray[numpy.float32],
    slope_x: numpy.typing.NDArray[numpy.float32],
    slope_y: numpy.typing.NDArray[numpy.float32],
    region: numpy.typing.NDArray[numpy.uint8],
    mm_per_pixel: typing.SupportsFloat | typing.SupportsIndex,
    ambient: typing.SupportsFloat | typing.SupportsIndex,
    ridge: typing.SupportsFloat | typing.SupportsIndex,
    stiffness: typing.SupportsFloat | typing.SupportsIndex,
    tolerance: typing.SupportsFloat | typing.SupportsIndex,
    max_iterations: typing.SupportsInt | typing.SupportsIndex,
) -> tuple: ...
def render(
    vertices_in_camera: numpy.typing.NDArray[numpy.float32],
    faces: numpy.typing.NDArray[numpy.int32],
    colors: numpy.typing.NDArray[numpy.uint8],
    fx: typing.SupportsFloat | typing.SupportsIndex,
    fy: typing.SupportsFloat | typing.SupportsIndex,
    cx: typing.SupportsFloat | typing.SupportsIndex,
    cy: typing.SupportsFloat | typing.SupportsIndex,
    width: typing.SupportsInt | typing.SupportsIndex,
    height: typing.SupportsInt | typing.SupportsIndex,
    clay: bool,
    supersample: typing.SupportsInt | typing.SupportsIndex,
    background: typing.Annotated[
        collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], "FixedSize(3)"
    ],
    threads: typing.SupportsInt | typing.SupportsIndex,
) -> numpy.typing.NDArray[numpy.uint8]: ...
def rotate_vectors(
    b_from_a: numpy.typing.NDArray[numpy.float32],
    vectors: numpy.typing.NDArray[numpy.float32],
    threads: typing.SupportsInt | typing.SupportsIndex = 1,
) -> numpy.typing.NDArray[numpy.float32]: ...
def smooth_depth(
    depth: numpy.typing.NDArray[numpy.float32],
    triangle: numpy.typing.NDArray[numpy.int32],
    barycentric: numpy.typing.NDArray[numpy.float32],
    vertices_in_camera: numpy.typing.NDArray[numpy.float32],
    normals_in_camera: numpy.typing.NDArray[numpy.float32],
    faces: numpy.typing.NDArray[numpy.int32],
    threads: typing.SupportsInt | typing.SupportsIndex = 1,
) -> numpy.typing.NDArray[numpy.float32]: ...
def solve_albedo(
    ratio: numpy.typing.NDArray[numpy.float32],
    confidence: numpy.typing.NDArray[numpy.float32],
    link_x: numpy.typing.NDArray[numpy.float32],
    link_y: numpy.typing.NDArray[numpy.float32],
    tolerance: typing.SupportsFloat | typing.SupportsIndex,
) -> tuple: ...
def sparse_from_dense(
    vertices_in_camera: numpy.typing.NDArray[numpy.float32],
    visible: numpy.typing.NDArray[numpy.uint8],
    bump: numpy.typing.NDArray[numpy.float32],
    valid: numpy.typing.NDArray[numpy.uint8],
    fx: typing.SupportsFloat | typing.SupportsIndex,
    fy: typing.SupportsFloat | typing.SupportsIndex,
    cx: typing.SupportsFloat | typing.SupportsIndex,
    cy: typing.SupportsFloat | typing.SupportsIndex,
    width: typing.SupportsInt | typing.SupportsIndex,
    height: typing.SupportsInt | typing.SupportsIndex,
    threads: typing.SupportsInt | typing.SupportsIndex = 1,
) -> tuple: ...
def transform_points(
    b_from_a: numpy.typing.NDArray[numpy.float32],
    points: numpy.typing.NDArray[numpy.float32],
    threads: typing.SupportsInt | typing.SupportsIndex = 1,
) -> numpy.typing.NDArray[numpy.float32]: ...
def triangulate_region(
    points: numpy.typing.NDArray[numpy.int32], boundary: numpy.typing.NDArray[numpy.int32]
) -> tuple[numpy.typing.NDArray[numpy.int32], numpy.typing.NDArray[numpy.int32]]: ...
def unfade(
    bump: numpy.typing.NDArray[numpy.float32],
    weight: numpy.typing.NDArray[numpy.float32],
    hole: numpy.typing.NDArray[numpy.uint8],
    threads: typing.SupportsInt | typing.SupportsIndex = 1,
) -> tuple: ...
def unique_edges(
    faces: numpy.typing.NDArray[numpy.int32], n_vertices: typing.SupportsInt | typing.SupportsIndex
) -> numpy.typing.NDArray[numpy.int32]: ...
def vertex_faces(
    faces: numpy.typing.NDArray[numpy.int32], n_vertices: typing.SupportsInt | typing.SupportsIndex
) -> tuple: ...
def vertex_neighbours(
    faces: numpy.typing.NDArray[numpy.int32], n_vertices: typing.SupportsInt | typing.SupportsIndex
) -> tuple: ...
def vertex_normals(
    vertices: numpy.typing.NDArray[numpy.float32],
    faces: numpy.typing.NDArray[numpy.int32],
    offsets: numpy.typing.NDArray[numpy.int32],
    vertex_faces: numpy.typing.NDArray[numpy.int32],
    threads: typing.SupportsInt | typing.SupportsIndex = 1,
) -> numpy.typing.NDArray[numpy.float32]: ...
def vertex_visibility(
    vertices_in_camera: numpy.typing.NDArray[numpy.float32],
    normals_in_camera: numpy.typing.NDArray[numpy.float32],
    depth: numpy.typing.NDArray[numpy.float32],
    fx: typing.SupportsFloat | typing.SupportsIndex,
    fy: typing.SupportsFloat | typing.SupportsIndex,
    cx: typing.SupportsFloat | typing.SupportsIndex,
    cy: typing.SupportsFloat | typing.SupportsIndex,
    width: typing.SupportsInt | typing.SupportsIndex,
    height: typing.SupportsInt | typing.SupportsIndex,
    min_cosine: typing.SupportsFloat | typing.SupportsIndex,
    depth_tolerance: typing.SupportsFloat | typing.SupportsIndex,
    threads: typing.SupportsInt | typing.SupportsIndex = 1,
) -> numpy.typing.NDArray[numpy.uint8]: ...
