"""Synthetic photos with exact bump maps, for training the bump-map network (paper §4.1).

A random head is drawn with relief and, independent of it, patterns of colour; its normals are those
of the true depth, pixel by pixel. Our own estimator then looks at the photo; the target is the true
depth less that of the estimated foundation: relief, and form of the middle scales that the estimate
misses. For every second photo it is the true depth less that of the true head: relief alone.

    python train/relief_synthesis.py --data ../shared/data --out ../train-data --sets 7
    python train/relief_synthesis.py --data ../shared/data --out ../train-data --sheet sheet.png
    python train/relief_synthesis.py --data ../shared/data --out ../train-data --bench bench.npz
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from preview import shaded_depth, sheet
from relief_atlas import HEIGHT, TEXEL, WIDTH, Atlas, blur
from relief_fields import FaceMap
from relief_photos import rasterized, warped
from relief_scans import load_scan_relief
from relief_store import CROP, MAX_BUMP, UNKNOWN, SetWriter, band, window, window_origin
from store import is_held_out
from synthesis import (
    N_BACKGROUNDS,
    N_PAINTED_SKINS,
    N_PHOTO_SKINS,
    Synthesizer,
    decode,
    encode,
    set_arguments,
    view_rotation,
)
from synthetic_scene import background, random_hair_color
from synthetic_skin import smoothstep

from extreme3d_fast._shading import foundation_normals
from extreme3d_fast.camera import Camera
from extreme3d_fast.estimator import FoundationEstimator
from extreme3d_fast.head_model import HeadModel
from extreme3d_fast.mesh import transform_points, vertex_faces, vertex_normals
from extreme3d_fast.pose import FACE_CENTER
from extreme3d_fast.rasterize import rasterize
from extreme3d_fast.smooth_depth import smooth_depth

PHOTO = 560  # px
PX_PER_MM = 1.8
MAX_TRIES = 12
EXACT = 2  # one target in so many is against the true head
MAX_OFF = 12.0  # mm: foundations that err more in depth are no use
MAX_SHIFT = 6.5  # mm: nor those that lie further from the face in the picture
# Light scattered below the skin: share and reach in mm, per channel.
SCATTER = ((0.55, 1.3), (0.35, 0.7), (0.2, 0.45))
# Scales in mm over which a hollow loses light from all round, see `hollowness`.
HOLLOW_SCALES = (0.6, 1.2, 2.4, 4.8, 9.6)


@dataclass
class Photo:
    """A drawn photo and what is true of it."""

    image: np.ndarray  # (S, S, 3) uint8
    depth: np.ndarray  # (S', S') float32 mm with relief, +inf where background; S' = supersampled
    smooth: np.ndarray  # (S', S') float32 mm without relief
    skin: np.ndarray  # (S', S') bool: shows skin of the head
    weight: np.ndarray  # (S', S') float32 face_weight
    mask: np.ndarray  # (S, S) uint8 1 face, 0 not, UNKNOWN
    pattern: np.ndarray  # (S', S') float32 log contrast of the pattern
    camera: Camera  # of (S, S)
    camera_from_head: np.ndarray  # (4, 4)
    head: np.ndarray  # (V, 3) vertices, head frame
    identity: np.ndarray
    expression: np.ndarray
    yaw: float


@dataclass
class LightSource:
    """The main lamp."""

    towards: np.ndarray  # (3,) unit, camera frame
    soft: float  # how far its light reaches round edges, as a cosine
    share: float  # of all light
    reaches: np.ndarray  # (N,) 1 where no part of the head shades a vertex


@dataclass
class Target:
    """One row of a training set, in the window."""

    image: np.ndarray
    normal: np.ndarray
    weight: np.ndarray
    depth: np.ndarray
    mask: np.ndarray
    bump: np.ndarray
    trust: np.ndarray
    mm_per_pixel: float
    origin: tuple[int, int]
    camera: np.ndarray
    rotation: np.ndarray
    crop_from_image: np.ndarray


def hollowness(relief: np.ndarray, mm: float) -> np.ndarray:
    """Depth below the surroundings over their width, summed over octaves: |ω| times depth."""
    out = np.zeros_like(relief)
    for scale in HOLLOW_SCALES:
        around = blur(relief, scale / mm)
        out += np.float32(0.55 / scale) * (around - relief)
    return out


class ReliefSynthesizer(Synthesizer):
    """Draws photos; `photo(seed, index)` is the same in every run.

    Args:
        supersample: pixels drawn per pixel of the photo, along each side.
        scans: mix in relief of scans; data then has scans/.
    """

    def __init__(
        self,
        model: HeadModel,
        data: Path,
        cache: Path,
        *,
        photo_skins: int = N_PHOTO_SKINS,
        painted_skins: int = N_PAINTED_SKINS,
        backgrounds: int = N_BACKGROUNDS,
        supersample: float = 1.35,
        scans: bool = True,
    ) -> None:
        super().__init__(
            model,
            data,
            cache,
            photo_skins=photo_skins,
            painted_skins=painted_skins,
            backgrounds=backgrounds,
        )
        self.side = round(PHOTO * supersample)
        self.pixels = np.stack(np.meshgrid(*2 * [np.arange(self.side, dtype=np.float32)]))
        self.map = FaceMap(Atlas(model))
        self.scans = load_scan_relief(cache, model, data, self.map.atlas) if scans else None
        self.low = self.map.atlas.low()
        self.usable = self._usable_skins()
        mean = model.vertices(threads=1)
        self.mean = mean
        self.is_face = self._is_face(mean)
        self.margin = self.wardrobe.margin
        place = self.map.atlas.at[model.all_faces, 0]
        self.seam = place.max(1) - place.min(1) > 200  # triangles at the back, where u jumps
        # What photos show as dark lines for other reasons than relief stays in their skins.
        a = self.map.atlas
        brows = sum(
            a.polygon([46, 53, 52, 65, 55, 107, 66, 105, 63, 70], 1.5)
            if side < 0
            else a.polygon([276, 283, 282, 295, 285, 336, 296, 334, 293, 300], 1.5)
            for side in (-1, 1)
        )
        kept = brows + a.lips + a.mouth + 1.3 * cv2.GaussianBlur(a.eyes, (0, 0), 2.0 / TEXEL)
        kept += 1.5 * a.pair(8, -17, 4, 3)
        self.kept = np.clip(kept, 0, 1)[::2, ::2]

    def _usable_skins(self) -> np.ndarray:
        """(n,) bool: those whose cheeks show no hair."""
        u, v = self.map.atlas.uv[: self.model.skin_vertex_count].T
        cheek = (self.model.face_weight > 0.5) & (np.abs(u) > 45) & (v > -60) & (v < 12)
        colors = self.skins.colors
        side = np.asarray(colors[:, np.flatnonzero(cheek)[::7]], np.float32).mean(2)
        front = self.model.face_weight > 0.9
        level = np.asarray(colors[:, np.flatnonzero(front)[::60]], np.float32).mean(2)
        dark = side < 0.5 * np.median(level, axis=1)[:, None]
        return dark.mean(1) < 0.06

    def _is_face(self, mean: np.ndarray) -> np.ndarray:
        """(V,) float32 1 face, ears, and what lies in eyes and mouth; 0 neck and scalp."""
        _, y, z = mean.T
        # the lower edge of the jaw, seen from the side
        jaw = np.interp(
            z, [-5, 10, 35, 42, 60, 75, 90, 100], [-42, -44, -44, -52, -68, -78, -86, -88]
        )
        out = smoothstep(-9, 0, y - jaw) * smoothstep(-32, -22, z)
        top = smoothstep(-14, 6, -(self.wardrobe.margin))
        out[: len(top)] *= top
        out[self.model.skin_vertex_count :] = 1
        return out.astype(np.float32)

    # === One photo ===

    def photo(
        self,
        seed: int,
        index: int,
        attempt: int = 0,
        *,
        held_out: bool = False,
        relief: float = 1.0,
        pattern: float = 1.0,
        clean: bool = False,
        yaw: float | None = None,
    ) -> Photo:
        """Draws a photo.

        Args:
            seed, index, attempt: which.
            held_out: with a skin kept for validation.
            relief, pattern: factors; what else is drawn does not depend on them.
            clean: nothing before the face, sharp and at full resolution.
            yaw: degrees; None draws one.
        """
        rng = np.random.default_rng([77, seed, index, attempt])
        model = self.model
        spread = 1.0 if rng.random() < 0.6 else rng.uniform(0.5, 1.3)
        identity = (spread * rng.normal(size=model.n_identity)).astype(np.float32)
        expression = self.expressions.draw(rng)
        turned = rng.normal(0, 20) if rng.random() < 0.8 else rng.uniform(-90, 90)
        pitch = float(np.clip(rng.normal(0, 9), -30, 30))
        distance = float(np.exp(rng.uniform(np.log(450), np.log(2500))))
        shift = rng.uniform(-6, 6, 2)
        if yaw is None:
            yaw = float(np.clip(turned, -90, 90))
        else:
            pitch, distance = 0.4 * pitch, max(distance, 900.0)
        rotation = view_rotation(yaw, pitch)
        age = rng.uniform(0, 0.2) if rng.random() < 0.25 else rng.uniform(0.15, 1.1)
        eta = dict(zip(model.expression_names, expression.tolist(), strict=True))
        raised = np.float32(relief) * self.map.relief(rng, eta, age, self.scans)
        marks = np.float32(pattern) * self.map.pattern(rng)
        pose = np.eye(4)
        pose[:3, :3] = rotation
        pose[:3, 3] = -rotation @ FACE_CENTER + [shift[0], shift[1], distance]
        head = model.vertices(identity, expression, threads=1)
        parts = self._render(rng, head, pose, distance, raised, marks, held_out, clean, yaw, pitch)
        focal = distance * PX_PER_MM
        camera = Camera(focal, focal, PHOTO / 2, PHOTO / 2, PHOTO, PHOTO)
        return Photo(*parts, camera, pose, head, identity, expression, yaw)

    def _pick_skin(self, rng, held_out: bool):
        """As `_skin`, from the people of this part; linear-light balance included."""
        skins, photos = self.skins, int(self.skins.photo.sum())

        def pick(start: int, stop: int) -> int:
            pool = np.arange(start, stop)
            if len(pool) > 12:
                pool = pool[((pool % 12 == 0) == held_out) & self.usable[pool]]
            return int(rng.choice(pool))

        if rng.random() < 0.8:
            i = pick(0, photos)
            colors = skins.colors[i] * self.balance[i]
            if rng.random() < 0.3:
                j = pick(0, photos)
                colors += rng.uniform(0.2, 0.6) * (skins.colors[j] * self.balance[j] - colors)
            return colors, skins.hair[i]
        i = pick(photos, len(skins))
        return skins.colors[i].astype(np.float32), skins.hair[i]

    def _flattened(self, rng, colors: np.ndarray) -> np.ndarray:
        """(H, W) log factor that takes a photo's own wrinkles and shade out of its skin."""
        corners, weights, shape = self.low
        light = np.log(decode(colors[: self.model.skin_vertex_count])[:, :2].mean(1) + 0.004)
        low = (light[corners] * weights).sum(1).reshape(shape).astype(np.float32)
        there = weights.sum(1).reshape(shape)
        low = np.where(there > 0, low, np.median(low[there > 0]))
        mm = 2 * TEXEL
        near = blur(low, 5 / mm)
        # robust: an average of skin, not of brows and lips
        plain = np.clip(1 - self.kept, 0.02, 1) * np.exp(-np.maximum(near - low, 0) * 3)
        near = blur(low * plain, 4 / mm) / blur(plain, 4 / mm)
        wide = blur(near * plain, 22 / mm) / blur(plain, 22 / mm)
        fine, broad = rng.uniform(0, 0.15), rng.uniform(0.2, 0.6)
        change = (fine - 1) * (low - near) * (1 - self.kept) + (broad - 1) * (near - wide)
        return cv2.resize(
            change.astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR
        )

    def _render(self, rng, head, pose, distance, raised, marks, held_out, clean, yaw, pitch):
        model, atlas, side = self.model, self.map.atlas, self.side
        normals = vertex_normals(head, model.all_faces, faces_of_vertex=self.table)
        colors, hair = self._pick_skin(rng, held_out)
        self._parts(rng, colors)
        if clean:
            color = hair if np.isfinite(hair).all() else random_hair_color(rng)
            piece, style = self.wardrobe.shell(rng, head, np.asarray(color, np.float32), "short")
            neck = np.median(colors[self.wardrobe.neck], 0)
            pieces = [piece, self.wardrobe.shoulders(rng, head, neck, yaw, pitch)]
        else:
            pieces, style = self._dress(rng, head, colors, hair, yaw, pitch)

        # One mesh: head, then pieces.
        starts = np.cumsum([len(head)] + [len(p.vertices) for p in pieces])
        points = np.concatenate([head] + [p.vertices for p in pieces])
        faces = np.concatenate(
            [model.all_faces] + [p.faces + s for p, s in zip(pieces, starts, strict=False)]
        ).astype(np.int32)
        turn = pose[:3, :3].astype(np.float32)
        normals = (
            np.concatenate([normals] + [p.normals for p in pieces]).astype(np.float32) @ turn.T
        )
        at = np.ascontiguousarray(points @ turn.T + pose[:3, 3], np.float32)
        focal = distance * PX_PER_MM * side / PHOTO
        camera = Camera(focal, focal, side / 2, side / 2, side, side)
        raster = rasterize(at, faces, camera)
        smooth = smooth_depth(raster, at, normals, faces)

        covered = np.flatnonzero(raster.triangle.ravel() >= 0)
        triangle = raster.triangle.ravel()[covered]
        corners = np.take(faces, triangle, 0)
        uv = raster.barycentric.reshape(-1, 2)[covered]
        weights = (uv[:, 0], uv[:, 1], 1 - uv[:, 0] - uv[:, 1])

        def image_of(values, empty=0.0):
            out = np.full((side * side, *values.shape[1:]), empty, np.float32)
            out[covered] = values
            return out.reshape(side, side, *values.shape[1:])

        # All that vertices carry to pixels, in one table.
        count = len(points)
        is_seen = np.zeros(count, bool)
        is_seen[corners] = True
        seen = np.flatnonzero(is_seen)
        light = self._light_source(rng, at, normals, faces, seen, distance)
        table = np.zeros((count, 13), np.float32)
        table[:, :3] = normals
        table[:, 3:6] = decode(np.concatenate([colors] + [p.albedo for p in pieces]))
        table[: len(head), 6:8] = atlas.at
        table[: model.skin_vertex_count, 8] = model.face_weight
        table[: len(head), 9] = self._faceness(colors, hair)
        table[:, 10] = light.reaches
        table[:, 11] = 1
        table[: len(head), 11] = self.shelter[int(rng.random() < 0.5)]
        table[len(head) :, 12] = np.concatenate([np.full(len(p.vertices), p.gloss) for p in pieces])
        carried = np.take(table, corners[:, 0], 0) * weights[0][:, None]
        carried += np.take(table, corners[:, 1], 0) * weights[1][:, None]
        carried += np.take(table, corners[:, 2], 0) * weights[2][:, None]
        on_skin = corners[:, 0] < model.skin_vertex_count
        on_head = corners[:, 0] < len(head)
        spot = carried[:, 6:8]
        seam = np.concatenate([self.seam, np.zeros(len(faces) - len(self.seam), bool)])
        spot[seam[triangle] | ~on_skin] = -1e4
        spot = image_of(spot, -1e4)

        # Relief and colour of each pixel.
        mm = distance / focal
        stack = np.dstack([raised, hollowness(raised, TEXEL)])
        relief = cv2.remap(stack, spot[..., 0], spot[..., 1], cv2.INTER_LINEAR)
        brow = np.log(decode(np.clip(self._hair_tone(rng, hair), 8, 250)) + 0.003) + 1.1
        flat = self._flattened(rng, colors)
        base = self.map.mottle(rng) + flat[..., None]
        base += self.map.brows(rng, np.clip(brow, -3, -0.1)) * rng.uniform(0, 0.9)
        base += self.map.lashes(rng, rng.uniform(0.2, 1.2))
        bearded = rng.random() < 0.3
        stubble = self.map.stubble(rng, rng.uniform(0.1, 1.3))
        if bearded:
            base += stubble
        log_color = cv2.remap(base + marks, spot[..., 0], spot[..., 1], cv2.INTER_LINEAR)
        pattern = cv2.remap(marks.mean(2), spot[..., 0], spot[..., 1], cv2.INTER_LINEAR)
        skin = image_of(on_skin.astype(np.float32)) > 0
        relief[~skin] = 0

        n = np.ascontiguousarray(carried[:, :3])
        n *= (1 / np.maximum(np.sqrt((n * n) @ np.ones(3, np.float32)), 1e-6))[:, None]
        bent = self._bent(n, relief[..., 0], covered, mm)
        # along the viewing ray
        x = (self.pixels[0] + 0.5 - side / 2).ravel()[covered] / focal
        y = (self.pixels[1] + 0.5 - side / 2).ravel()[covered] / focal
        facing = np.maximum(-(n[:, 0] * x + n[:, 1] * y + n[:, 2]), 0.25)
        true = smooth.copy().ravel()
        true[covered] -= relief[..., 0].ravel()[covered] / facing
        true = true.reshape(side, side)

        behind = background(rng, self.backgrounds, side)
        linear = carried[:, 3:6] * np.exp(log_color.reshape(-1, 3)[covered])
        shine = (rng, behind, light, corners, carried, bent, relief, spot, covered, on_skin)
        irradiance, gloss = self._shine(*shine, on_head, image_of, mm, clean)
        shaded = encode(linear * irradiance + gloss)
        weight = image_of(carried[:, 8] * on_skin)
        label = np.where(carried[:, 9] > 0.7, 1, np.where(carried[:, 9] < 0.3, 0, UNKNOWN))
        label[~on_head] = 0

        image = behind.reshape(-1, 3).astype(np.float32)
        if style is not None:
            is_hair = np.zeros(len(faces), bool)
            face_starts = np.cumsum([len(model.all_faces)] + [len(p.faces) for p in pieces])
            for piece, start in zip(pieces, face_starts, strict=False):
                is_hair[start : start + len(piece.faces)] = piece.hair
            chosen = np.flatnonzero(is_hair[triangle])
            where = sum(w[chosen, None] * points[corners[chosen, i]] for i, w in enumerate(weights))
            shaded[chosen] *= self.strands(style, where)[:, None]
            hairs = np.zeros(side * side, np.float32)
            hairs[covered[chosen]] = 1
        image[covered] = shaded
        image = image.reshape(side, side, 3)
        label = image_of(label.astype(np.float32))
        if style is not None:
            hairs = hairs.reshape(side, side)
            image, label = self._fray_both(rng, image, label, hairs, style)
        size = (PHOTO, PHOTO)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        unknown = cv2.resize(
            (label == UNKNOWN).astype(np.float32), size, interpolation=cv2.INTER_AREA
        )
        face = cv2.resize((label == 1).astype(np.float32), size, interpolation=cv2.INTER_AREA)
        mask = np.where(unknown > 0.5, UNKNOWN, face > 0.5).astype(np.uint8)
        image = photographed(rng, image, clean)
        return image, true, smooth, skin & (label == 1), weight, mask, pattern

    def _hair_tone(self, rng, hair):
        other = random_hair_color(rng)
        return np.asarray(hair if np.isfinite(hair).all() else other, np.float32)

    def _fray_both(self, rng, image, label, hairs, style):
        """Frays the outline of hair, in the label as in the image."""
        side = self.side
        near = cv2.blur(hairs, (13, 13))
        weight = (5 * style.ragged) * near * (1 - near) * 2
        ragged = self.ragged[int(style.along == 2)]
        ragged = np.tile(ragged, (1, 2, 2))
        x, y = rng.integers(0, ragged.shape[1] - side, 2)
        at = self.pixels + ragged[:, y : y + side, x : x + side] * weight
        at = np.clip(at, 0, side - 1).astype(np.float32)
        return (
            cv2.remap(image, at[0], at[1], cv2.INTER_LINEAR),
            cv2.remap(label, at[0], at[1], cv2.INTER_NEAREST),
        )

    def _faceness(self, colors, hair):
        """(V,) 1 on the head's face, 0 off it and under hair that is painted on it."""
        face = self.is_face.copy()
        if np.isfinite(hair).all():
            count = len(self.margin)
            skin = np.log(np.median(colors[:count][self.model.face_weight > 0.9], 0) + 4)
            axis = np.log(np.maximum(hair, 0) + 4) - skin
            c = np.log(np.maximum(colors[:count], 0) + 4) - skin
            share = (c @ axis) / max(float(axis @ axis), 0.05)
            y, z = self.mean[:count, 1], self.mean[:count, 2]
            hairy = (self.margin > -12) | ((y > 58) & (z > 40))
            face[:count] *= np.where(hairy, 1 - smoothstep(0.25, 0.6, share), 1)
        return face

    def _bent(self, n, relief, covered, mm):
        """(n, 3) normals of the displaced surface: n less the relief's gradient on the surface."""
        side = self.side
        gx = (cv2.Sobel(relief, cv2.CV_32F, 1, 0, scale=1 / 8)).reshape(side * side)[covered] / mm
        gy = (cv2.Sobel(relief, cv2.CV_32F, 0, 1, scale=1 / 8)).reshape(side * side)[covered] / mm
        nz = np.minimum(n[:, 2], -0.25)
        zx, zy = -n[:, 0] / nz, -n[:, 1] / nz
        norm = 1 / (1 + zx * zx + zy * zy)
        bx = ((1 + zy * zy) * gx - zx * zy * gy) * norm
        by = ((1 + zx * zx) * gy - zx * zy * gx) * norm
        g = np.stack([bx, by, bx * zx + by * zy], 1)
        one = np.ones(3, np.float32)
        g *= (1 / np.maximum(np.sqrt((g * g) @ one) / 1.5, 1))[:, None]
        out = n - g
        return out * (1 / np.sqrt((out * out) @ one))[:, None]

    def _light_source(self, rng, at, normals, faces, used, distance) -> LightSource:
        kinds = [  # azimuth and elevation in degrees, softness, share of the light
            # an open sky, a lamp from the side, a flash, a window, the sun or a ceiling
            (rng.normal(0, 60), rng.normal(35, 20), (0.3, 0.8), (0.05, 0.35)),
            (
                rng.choice([-1, 1]) * rng.uniform(35, 85),
                rng.normal(12, 18),
                (0, 0.15),
                (0.45, 0.85),
            ),
            (rng.normal(0, 9), rng.normal(6, 7), (0, 0.15), (0.5, 0.85)),
            (rng.normal(0, 45), rng.normal(22, 16), (0.2, 0.6), (0.3, 0.7)),
            (rng.normal(0, 30), rng.uniform(35, 75), (0.05, 0.4), (0.35, 0.75)),
        ]
        azimuth, elevation, soft, share = kinds[rng.choice(5, p=[0.2, 0.26, 0.16, 0.25, 0.13])]
        soft, share = rng.uniform(*soft), rng.uniform(*share)
        azimuth, elevation = np.radians([azimuth, elevation])
        across = np.cos(elevation)
        towards = [np.sin(azimuth) * across, -np.sin(elevation), -np.cos(azimuth) * across]
        towards = np.array(towards, np.float32)
        reaches = np.ones(len(at), np.float32)
        reaches[used] = self._shadow(at, normals, faces, used, towards, distance)
        return LightSource(towards, float(soft), float(share), reaches)

    def _shine(
        self, rng, behind, light, corners, carried, bent, relief, spot, covered,
        on_skin, on_head, image_of, mm, clean,
    ):  # fmt: skip
        """(n, 3) irradiance and gloss of the covered pixels; camera frame."""
        to_light, soft, share = light.towards, np.float32(light.soft), light.share
        tint = np.clip(behind[::16, ::16].reshape(-1, 3).mean(0) + 20, 30, 255)
        tint = ((tint / tint.mean()) ** rng.uniform(0, 0.25)).astype(np.float32)
        x, y, z = np.ascontiguousarray(bent.T)
        strength = rng.uniform(0.4, 1.6)
        c = rng.normal(0, [0.2, 0.16, 0.12, 0.07, 0.07, 0.07, 0.07, 0.05])
        c = (strength * (c + [0, 0.2, 0.06, 0, 0, 0, 0, 0])).astype(np.float32)
        sky = 1 + c[0] * x - c[1] * y - c[2] * z + c[3] * x * y + c[4] * x * z + c[5] * y * z
        sky += c[6] * (x * x - y * y) + c[7] * (3 * z * z - 1)
        sky = np.maximum(sky, np.float32(0.1))
        sky *= carried[:, 11]
        hollow = np.clip(relief[..., 1].ravel()[covered], -0.35, 2.5)
        depth_of_shade = np.float32(rng.uniform(0.6, 1.3))
        # light that bounces in a hollow of skin is red
        shade = np.exp(-depth_of_shade * hollow[:, None] * np.array([0.75, 1.0, 1.05], np.float32))
        direct = np.maximum((bent @ to_light + soft) / (1 + soft), 0)
        lit = image_of(carried[:, 10])
        lit = blur(lit, (0.7 + 9 * soft) / mm)
        if rng.random() < 0.1 and not clean:  # the edge of a shadow of something out of the picture
            lit = lit * self._edge(rng)
        direct *= lit.ravel()[covered]
        key = (1.7 * share * tint ** rng.uniform(-0.8, 0.8)).astype(np.float32)
        irradiance = (sky * np.float32(1 - share))[:, None] * tint * shade
        irradiance += (direct[:, None] * shade ** np.float32(0.35)) * key
        if rng.random() < 0.3:  # a weaker lamp from another side
            a = np.arctan2(to_light[0], -to_light[2]) + np.radians(rng.uniform(90, 270))
            rim = np.array([np.sin(a), -0.2, -np.cos(a)], np.float32)
            rim /= np.linalg.norm(rim)
            irradiance += np.maximum(bent @ rim, 0)[:, None] * (
                np.float32(rng.uniform(0.1, 0.6)) * tint
            )
        # Scattering below the skin.
        on = image_of(on_skin.astype(np.float32))
        for i, (part, reach) in enumerate(SCATTER):
            plane = image_of(irradiance[:, i] * on_skin)
            sigma = reach / mm
            blurred = cv2.GaussianBlur(plane, (0, 0), sigma) / np.maximum(
                cv2.GaussianBlur(on, (0, 0), sigma), 0.05
            )
            soft_light = blurred.ravel()[covered]
            irradiance[:, i] += on_skin * np.float32(part) * (soft_light - irradiance[:, i])
        # Exposure for the face.
        level = np.median(irradiance[on_skin].mean(1)[::7]) if on_skin.any() else 1.0
        exposure = np.float32(np.exp(rng.normal(0, 0.2)) / max(float(level), 0.05))
        # Highlights: a broad lobe and a sharp oily one, on the half vector of light and eye.
        half = to_light + np.array([0, 0, -1], np.float32)
        lobe = np.maximum(bent @ (half / np.linalg.norm(half)), 0)
        oily = cv2.remap(self.map.oily, spot[..., 0], spot[..., 1], cv2.INTER_LINEAR).ravel()[
            covered
        ]
        lips = cv2.remap(self.map.atlas.lips, spot[..., 0], spot[..., 1], cv2.INTER_LINEAR).ravel()[
            covered
        ]
        sheen = rng.uniform(0.0, 0.12) * lobe ** np.float32(rng.uniform(6, 14))
        oil = rng.uniform(0, 0.3) if rng.random() < 0.5 else rng.uniform(0, 0.06)
        sharp = lobe ** np.float32(rng.uniform(22, 70))
        gloss = sheen + (oil * (0.25 + oily) + rng.uniform(0, 0.25) * lips) * sharp
        gloss = np.where(on_skin, gloss, carried[:, 12] * lobe**10)
        eyes = np.flatnonzero(self.eyes[np.minimum(corners[:, 0], len(self.eyes) - 1)] & on_head)
        gloss[eyes] = 0.5 * lobe[eyes] ** 120
        gloss *= np.clip(1.5 * direct, 0, 1) * (0.3 + share) * np.minimum(shade[:, 1], 1.1)
        return irradiance * exposure, (gloss * exposure)[:, None]

    def _edge(self, rng) -> np.ndarray:
        """(side, side) light past something out of the picture."""
        side = self.side
        field = cv2.resize(
            rng.normal(0, 1, (5, 5)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC
        )
        a = rng.uniform(0, 2 * np.pi)
        line = (
            (self.pixels[0] - side / 2) * np.cos(a) + (self.pixels[1] - side / 2) * np.sin(a)
        ) / side
        edge = 6 * line + 0.8 * field + rng.normal(0, 0.8)
        return (0.25 + 0.75 * smoothstep(0, rng.uniform(0.05, 0.6), edge)).astype(np.float32)


def photographed(rng, image: np.ndarray, clean: bool) -> np.ndarray:
    """(S, S, 3) uint8: lost resolution, blur, noise, colour, compression."""
    size = image.shape[0]
    small = int(rng.uniform(170, 420)) if rng.random() < 0.45 else size
    defocus = rng.uniform(0.4, 1.1) if rng.random() < 0.3 else 0.0
    noise = rng.uniform(0.3, 2.0) if rng.random() < 0.75 else rng.uniform(2, 9)
    saturation, contrast = rng.uniform(0.6, 1.25), rng.uniform(0.85, 1.15)
    tint = rng.uniform(0.95, 1.05, 3).astype(np.float32)
    grey, quality = rng.random() < 0.07, int(rng.uniform(35, 97))
    sharpen = rng.uniform(0, 0.8) if rng.random() < 0.3 else 0.0
    seed = int(rng.integers(1 << 30))
    x = image
    if clean:
        small, defocus, noise, sharpen, quality, grey = size, 0.0, min(noise, 1.0), 0.0, 97, False
    if defocus:
        x = cv2.GaussianBlur(x, (0, 0), defocus)
    if small < size:
        x = cv2.resize(x, (small, small), interpolation=cv2.INTER_AREA)
    if sharpen:
        x = x + sharpen * (x - cv2.GaussianBlur(x, (0, 0), 1.2))
    gray = x.mean(2, keepdims=True)
    x = gray + (x - gray) * np.float32(0 if grey else saturation)
    x = (x - 118) * np.float32(contrast) + 118
    x = x * tint
    grain = np.random.default_rng(seed).standard_normal(x.shape, dtype=np.float32)
    x = x + noise * grain
    x = np.clip(x + 0.5, 0, 255).astype(np.uint8)
    if quality < 95:
        x = cv2.imdecode(cv2.imencode(".jpg", x, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)
    if small < size:
        x = cv2.resize(x, (size, size), interpolation=cv2.INTER_CUBIC)
    return x


# === Targets ===


class TargetMaker:
    """What our own estimator makes of a drawn photo, and what is left to add to it."""

    def __init__(self, model: HeadModel) -> None:
        self.model = model
        self.estimator = FoundationEstimator(model, threads=1)
        self.table = vertex_faces(model.faces, model.skin_vertex_count)

    def __call__(self, photo: Photo, *, exact: bool = False) -> Target | None:
        """None where the estimator is wrong.

        Args:
            exact: against the head that was drawn, without its relief, instead of the estimate:
                relief alone is left. The crop is the estimator's.
        """

        def timed(_, run):
            return run

        found = self.estimator.find(photo.image, timed)
        if not found:
            return None
        foundation, crop = self.estimator.estimate(photo.image, found[0], CROP, timed)
        if exact:
            camera, pose = camera_in_crop(photo, crop.crop_from_image)
            return self.against(photo, camera, pose, photo.head, crop.crop_from_image, crop.image)
        return self.against(
            photo,
            foundation.camera,
            foundation.camera_from_head.astype(np.float64),
            self.model.vertices(foundation.identity, foundation.expression, threads=1),
            foundation.crop_from_image,
            crop.image,
        )

    def against(self, photo, camera, pose, head, crop_from_image, image) -> Target | None:
        """The target for a foundation: its camera, camera_from_head and (V, 3) vertices."""
        model = self.model
        skin = head[: model.skin_vertex_count]
        # where the estimate puts the face in the photo
        face = model.face_weight > 0.5
        back = np.linalg.inv(crop_from_image)
        guess = camera.project(transform_points(pose, skin[face])) @ back[:2, :2].T + back[:2, 2]
        truth = photo.head[: model.skin_vertex_count][face] @ photo.camera_from_head[:3, :3].T
        truth = truth + photo.camera_from_head[:3, 3]
        off = np.linalg.norm(guess - photo.camera.project(truth), axis=1) / PX_PER_MM
        if off.mean() > MAX_SHIFT:
            return None
        _, weight, depth = rasterized(model, self.table, head, pose, camera)
        region = weight > 0
        if region.sum() < 5000:
            return None
        middle = float(np.median(depth[region]))
        mm = middle / camera.fx
        true, seen, flesh, mask, inside = self._in_crop(photo, crop_from_image)
        both = region & seen
        if both.sum() < 0.6 * region.sum():
            return None
        scale = np.sqrt(np.linalg.det(crop_from_image[:2, :2]))
        true_mm = float(np.median(true[both])) / (photo.camera.fx * scale)
        true = (true - np.median(true[both])) * (mm / true_mm)
        gap = true - (depth - middle)
        # Trust: skin that both show, off the edges of either.
        gentle = slope_weight(depth, mm), slope_weight(np.where(seen, true, np.inf), mm)
        trust = np.where(both & (flesh > 0.99) & inside, np.minimum(*gentle), 0).astype(np.float32)
        sure = trust > 0.5
        if sure.sum() < 3000:
            return None
        # a tilt between the two is of no account: `band` removes it
        y, x = np.mgrid[:CROP, :CROP].astype(np.float32) / CROP
        plane = np.stack([np.ones_like(x), x, y], -1)
        gap -= plane @ np.linalg.lstsq(plane[sure][::20], gap[sure][::20], rcond=None)[0]
        if np.percentile(np.abs(gap[sure]), 99.5) > MAX_OFF:
            return None
        # unknown pixels get what is round them, so that the average is that of what is known
        usable = np.where(trust > 0, 1, 0).astype(np.float32)
        known = np.where(trust > 0, gap, 0).astype(np.float32)
        sigma = 5 / mm
        around = blur(known, sigma) / np.maximum(blur(usable, sigma), 1e-3)
        wide = blur(known, 3 * sigma) / np.maximum(blur(usable, 3 * sigma), 1e-3)
        reach = np.clip(blur(usable, sigma) * 20, 0, 1)
        gap = np.where(trust > 0, gap, reach * around + (1 - reach) * wide)
        bump = band(gap, weight, mm)
        trust *= np.abs(bump) < 0.98 * MAX_BUMP
        origin = window_origin(weight)
        nx, ny, _ = foundation_normals(depth, mm)

        def cut(a):
            return np.ascontiguousarray(window(a, origin))

        # the store's depth and normals are those of the whole foundation in the crop
        return Target(
            cut(image),
            cut(np.dstack([nx, ny])),
            cut(weight),
            cut(depth),
            cut(mask),
            cut(bump),
            cut(trust * region),
            mm,
            origin,
            np.array(camera.pinhole, np.float32),
            pose[:3, :3].astype(np.float32),
            crop_from_image,
        )

    @staticmethod
    def _in_crop(photo: Photo, crop_from_image: np.ndarray):
        """True depth, where there is any, where it is skin, mask, what the photo covers."""
        seen = np.isfinite(photo.depth)
        base = float(np.median(photo.depth[seen]))
        depth = np.where(seen, photo.depth - base, 0).astype(np.float32)
        stack = np.dstack([depth, seen.astype(np.float32), photo.skin.astype(np.float32)])
        stack = cv2.GaussianBlur(stack, (0, 0), 0.35 * len(depth) / PHOTO)
        shape = (PHOTO, PHOTO)
        depth, there, skin = cv2.split(warped(stack, crop_from_image, shape))
        there = there > 0.999
        mask = warped(photo.mask, crop_from_image, shape, cv2.INTER_NEAREST)
        inside = warped(np.ones(shape, np.uint8), crop_from_image, shape, cv2.INTER_NEAREST)
        return np.where(there, depth + base, 0), there, skin, mask, inside > 0


def camera_in_crop(photo: Photo, crop_from_image: np.ndarray) -> tuple[Camera, np.ndarray]:
    """The photo's own camera and camera_from_head in a crop that may be rolled."""
    scale = float(np.sqrt(np.linalg.det(crop_from_image[:2, :2])))
    roll = np.eye(4)
    roll[:2, :2] = crop_from_image[:2, :2] / scale
    fx, fy, cx, cy = photo.camera.pinhole
    center = crop_from_image[:2, :2] @ [cx, cy] + crop_from_image[:2, 2]
    return Camera(fx * scale, fy * scale, *center, CROP, CROP), roll @ photo.camera_from_head


def slope_weight(depth: np.ndarray, mm: float) -> np.ndarray:
    """1 on gentle slopes, 0 on steps, edges and what is nearly seen edge-on; for (H, W) mm."""
    there = np.isfinite(depth)
    z = np.where(there, depth, 0).astype(np.float32)
    smooth = cv2.GaussianBlur(z, (0, 0), 0.8)
    kernel = np.ones((3, 3))
    step = (cv2.dilate(smooth, kernel) - cv2.erode(smooth, kernel)) / (2 * mm)
    good = np.where(
        cv2.erode(there.astype(np.uint8), kernel) > 0, np.clip((4.2 - step) / 1.4, 0, 1), 0
    )
    good = cv2.erode(good.astype(np.float32), np.ones((3, 3)))
    return cv2.blur(good, (5, 5)) * (good > 0)


# === Files ===


def name_of(seed: int, index: int) -> str:
    return f"relief_synthesis/{seed}_{index:06d}"


def make_row(synthesizer: ReliefSynthesizer, maker: TargetMaker, seed: int, index: int):
    held_out = is_held_out(name_of(seed, index))
    for attempt in range(MAX_TRIES):
        photo = synthesizer.photo(seed, index, attempt, held_out=held_out)
        target = maker(photo, exact=index % EXACT == 0)
        if target is not None:
            return target, photo, attempt
    raise RuntimeError(f"the estimator fails on every attempt at {name_of(seed, index)}")


def write_set(
    synthesizer, maker, folder: Path, name: str, seed: int, first: int, count: int
) -> None:
    """A set of the relief store; complete when NAME.npz is there."""
    writer = SetWriter(folder / name, count)
    rows, start, tries = [], time.perf_counter(), 0
    for i in range(count):
        target, _, attempt = make_row(synthesizer, maker, seed, first + i)
        tries += attempt + 1
        writer.write(
            i,
            image=target.image,
            normal=target.normal,
            weight=target.weight,
            depth=target.depth,
            mask=target.mask,
            bump=target.bump,
            trust=target.trust,
        )
        rows.append(target)
        if (i + 1) % 50 == 0:
            each = 1e3 * (time.perf_counter() - start) / (i + 1)
            print(f"{name}: {i + 1} samples, {tries} tries, {each:.0f} ms a sample", flush=True)
    names = np.array([name_of(seed, first + i) for i in range(count)])
    writer.finish(
        name=names,
        person=names,
        val=np.array([is_held_out(str(n)) for n in names]),
        kind=np.full(count, "synthetic"),
        mm_per_pixel=np.array([r.mm_per_pixel for r in rows], np.float32),
        origin=np.array([r.origin for r in rows], np.int32),
        camera=np.array([r.camera for r in rows], np.float32),
        rotation=np.array([r.rotation for r in rows], np.float32),
        crop_from_image=np.array([r.crop_from_image for r in rows]),
    )


def write_bench(synthesizer: ReliefSynthesizer, file: Path, count: int = 12) -> None:
    """Photos with relief and pattern, pattern alone, and neither; light and camera the same."""
    out: dict[str, list] = {}
    rng = np.random.default_rng(4)

    def keep(name: str, value) -> None:
        out.setdefault(name, []).append(value)

    for k, turn in enumerate((0, 30, 60)):
        for i in range(count):
            yaw = float(turn * rng.choice([-1, 1]) + rng.normal(0, 2))
            for attempt in range(MAX_TRIES):  # until there is a pattern to be misled by

                def draw(
                    relief: float, pattern: float, index=100 * k + i, attempt=attempt, yaw=yaw
                ):
                    how = {"held_out": True, "clean": True, "yaw": yaw}
                    return synthesizer.photo(
                        990, index, attempt, relief=relief, pattern=pattern, **how
                    )

                first = draw(1.0, 1.0)
                if first.pattern[first.skin & (first.weight > 0.5)].std() > 0.06:
                    break
            photos = [first, draw(0.0, 1.0), draw(0.0, 0.0)]
            for name, photo in zip(("relief", "pattern", "plain"), photos, strict=True):
                keep(f"photo_{name}", photo.image)
            area = dict(dsize=(PHOTO, PHOTO), interpolation=cv2.INTER_AREA)
            face = first.skin & (first.weight > 0.5)
            face = cv2.resize(face.astype(np.float32), **area) > 0.99
            for name, depth in (("depth", first.depth), ("depth_smooth", first.smooth)):
                z = cv2.resize(np.where(np.isfinite(depth), depth, 0), **area)
                keep(name, np.where(face, z, np.inf).astype(np.float32))
            keep("face", face)
            keep("pattern", np.where(face, cv2.resize(first.pattern, **area), 0))
            keep("camera", np.array(first.camera.pinhole, np.float32))
            keep("camera_from_head", first.camera_from_head)
            keep("yaw", yaw)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, **{name: np.array(values) for name, values in out.items()})


def draw(synthesizer, maker, seed: int, first: int, count: int = 24) -> np.ndarray:
    """RGB picture: photo, foundation + bump, mask (red: no trust) of some samples."""
    tiles = []
    for i in range(count):
        target, _, _ = make_row(synthesizer, maker, seed, first + i)
        depth = np.where(target.weight > 0, target.depth + target.bump, np.inf)
        mask = np.where(target.mask == UNKNOWN, 128, 255 * target.mask)[..., None].repeat(3, 2)
        half = (target.image // 2 + mask // 2).astype(np.uint8)
        half[..., 1:][(target.trust < 0.5) & (target.weight > 0)] //= 2
        tiles.append(np.hstack([target.image, shaded_depth(depth, target.mm_per_pixel), half]))
    return sheet(tiles, 4)


def main() -> None:
    parser = set_arguments(__doc__.split("\n")[0], count=500, shown=24)
    parser.add_argument("--bench", type=Path, help="write the photos of the bench instead")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    model = HeadModel.load()
    synthesizer = ReliefSynthesizer(
        model,
        options.data,
        options.out / "synthesis_cache",
        supersample=2.0 if options.bench else 1.35,
    )
    if options.bench:
        write_bench(synthesizer, options.bench)
        return
    maker = TargetMaker(model)
    if options.sheet:
        start = time.perf_counter()
        picture = draw(synthesizer, maker, options.seed, options.first * options.count)
        print(f"{1e3 * (time.perf_counter() - start) / 24:.0f} ms a sample")
        cv2.imwrite(str(options.sheet), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        return
    for number in range(options.first, options.first + options.sets):
        name, first = f"synthetic_{number:02d}", number * options.count
        write_set(
            synthesizer, maker, options.out / "relief", name, options.seed, first, options.count
        )


if __name__ == "__main__":
    main()
