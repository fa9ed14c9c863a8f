"""The face unrolled: pictures of the head's surface that are the same for every head.

A point of the head is where it lies on the mean head: u = RADIUS times its angle about the vertical
axis, v = its height, both mm. Relief (mm along the normal, positive outward) and colour are painted
there and carried to each pixel of a photo.
"""

from __future__ import annotations

import cv2
import numpy as np

from extreme3d_fast.camera import Camera
from extreme3d_fast.head_model import HeadModel
from extreme3d_fast.mesh import vertex_normals
from extreme3d_fast.rasterize import interpolate, rasterize

RADIUS = 95.0  # mm: of the face's front about the axis x = z = 0
TEXEL = 0.45  # mm
U_MAX, V_MIN, V_MAX = 165.0, -120.0, 105.0
WIDTH, HEIGHT = round(2 * U_MAX / TEXEL), round((V_MAX - V_MIN) / TEXEL)

LIPS = [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185]
MOUTH = [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191]
RIGHT_EYE = [33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7]
LEFT_EYE = [263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249]


def blur(a: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur, sigma in pixels; wide ones from fewer pixels."""
    step = int(sigma / 2.5)
    if step < 2:
        return cv2.GaussianBlur(a, (0, 0), sigma)
    height, width = a.shape[:2]
    size = (max(round(width / step), 1), max(round(height / step), 1))
    small = cv2.resize(a, size, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma * size[0] / width)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def atlas_coordinates(points: np.ndarray) -> np.ndarray:
    """(..., 2) u, v of points near the mean head, mm."""
    return np.stack([RADIUS * np.arctan2(points[..., 0], points[..., 2]), points[..., 1]], -1)


def texels(uv: np.ndarray) -> np.ndarray:
    """Array coordinates (column, row) as cv2.remap takes them: texel centres at whole numbers."""
    u, v = uv[..., 0], uv[..., 1]
    return np.stack([(u + U_MAX) / TEXEL - 0.5, (V_MAX - v) / TEXEL - 0.5], -1)


class Atlas:
    """What is where on the unrolled face."""

    def __init__(self, model: HeadModel) -> None:
        mean = model.vertices(threads=1)
        skin = mean[: model.skin_vertex_count]
        self.uv = atlas_coordinates(mean).astype(np.float32)
        self.at = texels(self.uv).astype(np.float32)
        self.landmarks = atlas_coordinates(model.landmark_basis("478").mean)
        # Texels looked up on the mean head: seen from outside, by a far camera that looks inward.
        uv = self.uv[: len(skin)]
        far = 1e5
        depth = far - np.hypot(skin[:, 0], skin[:, 2])
        flat = np.stack([uv[:, 0] * depth / far, -uv[:, 1] * depth / far, depth], 1)
        near = (np.abs(uv[model.faces, 0]) < U_MAX + 20).all(1)
        camera = Camera(far / TEXEL, far / TEXEL, U_MAX / TEXEL, V_MAX / TEXEL, WIDTH, HEIGHT)
        self.raster = rasterize(flat.astype(np.float32), model.faces[near], camera)
        self.faces = model.faces[near]
        at = [interpolate(self.raster, skin[:, i], self.faces) for i in range(3)]
        self.position = np.stack(at, -1)
        normal = vertex_normals(skin, model.faces)
        normal = np.stack(
            [interpolate(self.raster, normal[:, i], self.faces) for i in range(3)], -1
        )
        self.normal = normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-6)
        self.weight = interpolate(self.raster, model.face_weight, self.faces)
        # Texels stretch on sides of the nose and below the chin: no fine relief there.
        dx = np.linalg.norm(cv2.Sobel(self.position, cv2.CV_32F, 1, 0, scale=1 / 8), axis=2)
        dy = np.linalg.norm(cv2.Sobel(self.position, cv2.CV_32F, 0, 1, scale=1 / 8), axis=2)
        stretch = np.maximum(dx, dy) / TEXEL
        even = np.clip((3.2 - stretch) / 1.4, 0, 1) * (self.raster.triangle >= 0)
        self.even = cv2.GaussianBlur(even.astype(np.float32), (0, 0), 2 / TEXEL)
        self.eyes = self.polygon(RIGHT_EYE, 0.8) + self.polygon(LEFT_EYE, 0.8)
        self.mouth = self.polygon(MOUTH, 0.3)
        self.lips = self.polygon(LIPS, 0.6) * (1 - self.mouth)
        grown = cv2.dilate(self.eyes, np.ones((5, 5)))
        self.skin = np.clip(1 - grown, 0, 1) * (1 - self.mouth)

    def polygon(self, landmarks: list[int], blur: float) -> np.ndarray:
        """(H, W) float32 1 inside a ring of landmarks; blur in mm."""
        out = np.zeros((HEIGHT, WIDTH), np.float32)
        cv2.fillPoly(out, [np.rint(texels(self.landmarks[landmarks])).astype(np.int32)], 1.0)
        return cv2.GaussianBlur(out, (0, 0), blur / TEXEL)

    def blob(self, u: float, v: float, su: float, sv: float) -> np.ndarray:
        """(H, W) float32 Gaussian."""
        x = (np.arange(WIDTH) + 0.5) * TEXEL - U_MAX
        y = V_MAX - (np.arange(HEIGHT) + 0.5) * TEXEL
        gx, gy = np.exp(-0.5 * ((x - u) / su) ** 2), np.exp(-0.5 * ((y - v) / sv) ** 2)
        return (gy[:, None] * gx[None]).astype(np.float32)

    def pair(self, u: float, v: float, su: float, sv: float) -> np.ndarray:
        return self.blob(u, v, su, sv) + self.blob(-u, v, su, sv)

    def low(self) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
        """Corners (n, 3), weights (n, 3) and shape of every second texel, for vertex colours."""
        rows = (slice(None, None, 2),) * 2
        triangle = self.raster.triangle[rows]
        uv = self.raster.barycentric[rows].reshape(-1, 2)
        corners = self.faces[np.maximum(triangle.ravel(), 0)]
        weights = np.stack([uv[:, 0], uv[:, 1], 1 - uv.sum(1)], 1)
        weights[triangle.ravel() < 0] = 0
        return corners, weights.astype(np.float32), triangle.shape


class Fields:
    """Noise with unit deviation, (H, W) float32, shifted and mirrored at random at each use."""

    SCALES = (0.35, 0.6, 1.0, 1.7, 3.0, 5.0, 9.0, 16.0)  # mm, standard deviation of the blur

    def __init__(self, seed: int = 21) -> None:
        rng = np.random.default_rng(seed)
        self.even = [self._band(rng, s, s) for s in self.SCALES]
        self.flat = [self._band(rng, 5 * s, s) for s in (0.45, 0.8, 1.4)]
        self.steep = [self._band(rng, s, 5 * s) for s in (0.45, 0.8, 1.4)]

    @staticmethod
    def _band(rng, su: float, sv: float) -> np.ndarray:
        white = rng.standard_normal((HEIGHT, WIDTH), dtype=np.float32)

        def blur(k: float) -> np.ndarray:
            return _wrapped(white, k * su / TEXEL, k * sv / TEXEL)

        out = blur(1.0) - blur(1.8)
        return (out / out.std()).astype(np.float32)

    @staticmethod
    def _moved(rng, a: np.ndarray) -> np.ndarray:
        if rng.random() < 0.5:
            a = a[:, ::-1]
        return np.roll(a, (int(rng.integers(HEIGHT)), int(rng.integers(WIDTH))), (0, 1))

    def draw(self, rng, scale: int) -> np.ndarray:
        return self._moved(rng, self.even[scale])

    def draw_flat(self, rng, scale: int) -> np.ndarray:
        return self._moved(rng, self.flat[scale])

    def draw_steep(self, rng, scale: int) -> np.ndarray:
        return self._moved(rng, self.steep[scale])


def _wrapped(a: np.ndarray, sx: float, sy: float) -> np.ndarray:
    fx = np.fft.rfftfreq(a.shape[1])[None] * 2 * np.pi
    fy = np.fft.fftfreq(a.shape[0])[:, None] * 2 * np.pi
    gain = np.exp(-0.5 * ((sx * fx) ** 2 + (sy * fy) ** 2))
    return np.fft.irfft2(np.fft.rfft2(a) * gain, s=a.shape).astype(np.float32)


class Lines:
    """Grooves of given depth and width along curves of the atlas."""

    SIGMAS = (0.3, 0.45, 0.7, 1.1, 1.7, 2.7, 4.2)  # mm

    def __init__(self) -> None:
        self.points: list[list[np.ndarray]] = [[] for _ in self.SIGMAS]
        self.strengths: list[list[np.ndarray]] = [[] for _ in self.SIGMAS]

    def add(self, rng, curve, depth: float, width: int, *, taper: float = 0.35, shoulders=0.35):
        """curve (n, 2) mm; depth mm at the middle of the groove; width: index of SIGMAS."""
        points, t = smooth_curve(np.asarray(curve, float))
        strength = np.clip(np.minimum(t, 1 - t) / max(taper, 1e-3), 0, 1) ** 0.8
        # grooves come and go along their way
        knots = rng.uniform(0.45, 1.25, 9)
        strength = strength * np.interp(t, np.linspace(0, 1, 9), knots) * depth
        self._put(width, points, -0.62 * strength)
        self._put(max(width - 1, 0), points, -0.38 * strength)
        if shoulders:
            self._put(min(width + 2, len(self.SIGMAS) - 1), points, shoulders * strength)

    def ridge(self, rng, curve, height: float, width: int, *, taper: float = 0.5) -> None:
        points, t = smooth_curve(np.asarray(curve, float))
        strength = np.sin(np.pi * t) ** taper * np.interp(
            t, np.linspace(0, 1, 5), rng.uniform(0.7, 1.2, 5)
        )
        self._put(width, points, height * strength)

    def _put(self, width: int, points: np.ndarray, strength: np.ndarray) -> None:
        self.points[width].append(points)
        self.strengths[width].append(strength)

    def paint(self) -> np.ndarray:
        out = np.zeros((HEIGHT, WIDTH), np.float32)
        for sigma, points, strengths in zip(self.SIGMAS, self.points, self.strengths, strict=True):
            if points:
                layer = splat(np.concatenate(points), np.concatenate(strengths) * STEP / TEXEL)
                s = sigma / TEXEL
                out += blur(layer, s) * np.float32(s * np.sqrt(2 * np.pi))
        return out


STEP = 0.3  # mm between points of a painted curve


def smooth_curve(knots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points STEP apart on a Catmull-Rom spline through (n, 2) knots, and their place in [0, 1]."""
    p = np.concatenate([[2 * knots[0] - knots[1]], knots, [2 * knots[-1] - knots[-2]]])
    t = np.linspace(0, 1, 12, endpoint=False)[:, None]
    pieces = []
    for a, b, c, d in zip(p[:-3], p[1:-2], p[2:-1], p[3:], strict=True):
        pieces.append(
            b
            + 0.5 * t * (c - a)
            + t**2 * (a - 2.5 * b + 2 * c - 0.5 * d)
            + t**3 * (1.5 * (b - c) + 0.5 * (d - a))
        )
    dense = np.concatenate([*pieces, knots[-1:]])
    s = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(dense, axis=0), axis=1))])
    count = max(int(s[-1] / STEP), 3)
    at = np.linspace(0, s[-1], count)
    points = np.stack([np.interp(at, s, dense[:, i]) for i in (0, 1)], 1)
    return points, at / max(s[-1], 1e-9)


def splat(points: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(H, W) float32: values at (n, 2) atlas points in mm, spread over the four texels round."""
    at = texels(points)
    x0 = np.floor(at).astype(int)
    f = at - x0
    places, shares = [], []
    for dx in (0, 1):
        for dy in (0, 1):
            x, y = x0[:, 0] + dx, x0[:, 1] + dy
            w = (f[:, 0] if dx else 1 - f[:, 0]) * (f[:, 1] if dy else 1 - f[:, 1])
            ok = (x >= 0) & (x < WIDTH) & (y >= 0) & (y < HEIGHT)
            places.append((y * WIDTH + x)[ok])
            shares.append((w * values)[ok])
    out = np.bincount(np.concatenate(places), np.concatenate(shares), HEIGHT * WIDTH)
    return out.reshape(HEIGHT, WIDTH).astype(np.float32)


def spots(points: np.ndarray, heights: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """(H, W) float32 sum of Gaussian spots; few sizes are blurred together."""
    out = np.zeros((HEIGHT, WIDTH), np.float32)
    if not len(points):
        return out
    sizes = np.array([0.3, 0.45, 0.7, 1.0, 1.5, 2.2, 3.3, 5.0])
    nearest = np.abs(np.log(radii[:, None] / sizes)).argmin(1)
    for i in np.unique(nearest):
        chosen = nearest == i
        s = sizes[i] / TEXEL
        layer = splat(points[chosen], heights[chosen])
        out += blur(layer, s) * np.float32(2 * np.pi * s * s)
    return out
