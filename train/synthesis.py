"""Synthetic photos with exact labels for training the foundation and pose networks (paper §3).

The head model with a random identity, expression, pose, skin, hair and light is drawn before part
of a photo, in the square that the networks' training data are stored in: 320 mm wide round
FACE_CENTER, upright, 192 px. The rotation, identity and expression are those that were drawn; the
translation is that of a camera of nominal focal length, however far away the picture was taken.

    python train/synthesis.py --data ../shared/data --out ../train-data --sets 4
    python train/synthesis.py --data ../shared/data --out ../train-data --sheet sheet.png
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from preview import sheet
from store import DISTANCE, STORE_CAMERA, STORE_MM, STORE_SIZE
from synthetic_scene import (
    Piece,
    Strands,
    Wardrobe,
    background,
    load_backgrounds,
    random_cloth,
    random_hair_color,
)
from synthetic_skin import Skins, load_skins, smoothstep

from extreme3d_fast.camera import Camera, rotation_from_angles
from extreme3d_fast.head_model import HeadModel
from extreme3d_fast.mesh import vertex_faces, vertex_normals
from extreme3d_fast.pose import FACE_CENTER
from extreme3d_fast.rasterize import rasterize, vertex_visibility

SUPERSAMPLE = 2
MAX_YAW, MAX_PITCH = 100.0, 45.0  # degrees
N_PHOTO_SKINS, N_PAINTED_SKINS, N_BACKGROUNDS = 500, 120, 600

LINEAR = ((np.arange(256) / 255.0) ** 2.2).astype(np.float32)
# Linear light to sRGB, with a soft shoulder instead of clipped highlights.
_BRIGHT = np.arange(4096) / 2048.0
ENCODE = (
    255 * np.where(_BRIGHT > 0.7, 0.7 + 0.3 * np.tanh((_BRIGHT - 0.7) / 0.3), _BRIGHT) ** (1 / 2.2)
).astype(np.float32)


def encode(linear: np.ndarray) -> np.ndarray:
    return ENCODE[np.minimum(linear * 2048, 4095).astype(np.int32)]


def decode(srgb: np.ndarray) -> np.ndarray:
    return LINEAR[np.clip(srgb, 0, 255).astype(np.uint8)]


def view_rotation(yaw: float, pitch: float) -> np.ndarray:
    """camera_from_head with the head's up axis up in the image; degrees, pitch > 0 looks up."""
    return rotation_from_angles(0.0, pitch) @ np.diag([1.0, -1.0, -1.0]) @ rotation_from_angles(yaw)


@dataclass
class Sample:
    image: np.ndarray  # (STORE_SIZE, STORE_SIZE, 3) uint8
    identity: np.ndarray
    expression: np.ndarray
    rotation: np.ndarray  # (3, 3) camera_from_head
    distance: float  # mm from the camera that drew it to FACE_CENTER
    depth: np.ndarray  # (STORE_SIZE * SUPERSAMPLE)² mm from that camera, +inf where background

    @property
    def translation(self) -> np.ndarray:
        """Of the label's camera, mm."""
        return np.array([0, 0, DISTANCE]) - self.rotation @ FACE_CENTER


class Expressions:
    """Draws coefficients like those of photos, and extreme ones."""

    def __init__(self, model: HeadModel, data: Path) -> None:
        labels = np.load(data / "photos" / "face_labels.npz")
        names = labels["blendshape_names"].tolist()
        scores = labels["blendshapes"].astype(np.float32)
        scores = scores[np.isfinite(scores).all(1)]
        self.names = list(model.expression_names)
        self.scores = np.zeros((len(scores), len(self.names)), np.float32)
        for i, name in enumerate(self.names):
            if name in names:
                self.scores[:, i] = scores[:, names.index(name)]

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        eta = self.scores[rng.integers(len(self.scores))] * rng.uniform(0.6, 1.3)
        eta = eta + (rng.random(len(eta)) < 0.15) * np.abs(rng.normal(0, 0.15, len(eta)))

        def put(value: float, *names: str) -> None:
            for name in names:
                eta[self.names.index(name)] = value

        def pair(value: float, name: str) -> None:
            put(value, name + "Left", name + "Right")

        extreme = rng.random()
        if extreme < 0.08:
            put(rng.uniform(0.45, 1.0), "jawOpen")
            put(0.0, "mouthClose")
        elif extreme < 0.16:
            pair(rng.uniform(0.75, 1.0), "eyeBlink")
            pair(0.0, "eyeWide")
        elif extreme < 0.19:
            put(rng.uniform(0.6, 1), rng.choice(["mouthPucker", "mouthFunnel", "cheekPuff"]))
        elif extreme < 0.22:
            pair(rng.uniform(0.5, 1), rng.choice(["mouthFrown", "mouthStretch", "noseSneer"]))
        elif extreme < 0.26:
            pair(rng.uniform(0.6, 1), "mouthSmile")
            pair(rng.uniform(0, 0.5), "mouthUpperUp")
            put(rng.uniform(0, 0.5), "jawOpen")
            pair(rng.uniform(0, 0.8), "cheekSquint")
        elif extreme < 0.29:
            put(rng.uniform(0.5, 1), rng.choice(["jawLeft", "jawRight", "mouthLeft", "mouthRight"]))
        elif extreme < 0.32:
            put(rng.uniform(0.6, 1), rng.choice(["eyeBlinkLeft", "eyeBlinkRight"]))
        elif extreme < 0.36:
            several = rng.choice(len(eta), 4, replace=False)
            eta[several] = rng.uniform(0.2, 0.9, 4)
        elif extreme < 0.42:
            eta *= 0.15
        return np.clip(eta, 0, 1).astype(np.float32)


class Synthesizer:
    """Draws samples; `sample(seed, index)` is the same in every run.

    Args:
        data: folder with photos/.
        cache: where skins and backgrounds are kept between runs.
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
    ) -> None:
        self.model = model
        self.expressions = Expressions(model, data)
        self.skins: Skins = load_skins(cache, model, data, photo_skins, painted_skins)
        self.backgrounds = load_backgrounds(cache, data, backgrounds)
        self.wardrobe, self.strands = Wardrobe(model), Strands()
        self.table = vertex_faces(model.all_faces, model.vertex_count)
        self.open_sky = self._open_sky()
        self.ragged = self._ragged()
        colors = model.colors.astype(np.float32)
        level = colors.max(1)
        self.eyes = np.zeros(model.vertex_count, bool)
        for name, (start, stop) in zip(model.part_names, model.part_vertex_range, strict=True):
            if name.endswith("eye"):
                self.eyes[start:stop] = True
        self.iris = np.where(self.eyes, 1 - smoothstep(130, 185, level), 0.0).astype(np.float32)
        self.pupil = np.where(self.eyes, 1 - smoothstep(25, 45, level), 0.0).astype(np.float32)
        self.skin = np.arange(model.vertex_count) < model.skin_vertex_count
        # Share of the sky's light; the colours of photos hold their own shade where it was seen.
        inner = np.clip(1.3 * self.open_sky, 0.04, 1)
        self.shelter = [
            np.where(self.skin, s, inner).astype(np.float32)
            for s in (0.25 + 0.75 * self.open_sky, np.clip(1.7 * self.open_sky, 0.05, 1))
        ]
        side = STORE_SIZE * SUPERSAMPLE
        self.pixels = np.stack(np.meshgrid(*2 * [np.arange(side, dtype=np.float32)]))
        # Photos under coloured lamps keep a part of their cast only.
        face = np.flatnonzero(self.skin)[::50]
        face = face[model.face_weight[face] > 0.5]
        median = np.maximum(np.median(self.skins.colors[:, face], axis=1), 4)
        ratio = median / median[:, 1:2]
        usual = np.stack(
            [np.clip(ratio[:, 0], 1.0, 1.5), ratio[:, 1], np.clip(ratio[:, 2], 0.68, 1.0)], 1
        )
        self.balance = np.sqrt(usual / ratio).astype(np.float32)

    def _open_sky(self) -> np.ndarray:
        """(V,) share of the light from all around that reaches a vertex, mouth a little open."""
        model = self.model
        eta = np.zeros(model.n_expression, np.float32)
        eta[model.expression_names.index("jawOpen")] = 0.35
        vertices = model.vertices(None, eta, threads=1)
        normals = vertex_normals(vertices, model.all_faces, faces_of_vertex=self.table)
        size, distance = 256, 3000.0
        camera = Camera(
            distance / STORE_MM * size, distance / STORE_MM * size, size / 2, size / 2, size, size
        )
        light, total = np.zeros(len(vertices)), np.zeros(len(vertices))
        count = 96
        for i in range(count):  # a Fibonacci sphere
            z = 1 - (2 * i + 1) / count
            angle = i * np.pi * (3 - np.sqrt(5))
            view = view_rotation(np.degrees(angle) % 360, np.degrees(np.arcsin(z)))
            at = ((vertices - [0, -10, 10]) @ view.T + [0, 0, distance]).astype(np.float32)
            turned = (normals @ view.T).astype(np.float32)
            cosine = np.maximum(-turned[:, 2], 0)
            raster = rasterize(at, model.all_faces, camera)
            seen = vertex_visibility(
                at, turned, raster.depth, camera, min_cosine=0.02, depth_tolerance=1.5
            )
            light += cosine * seen
            total += cosine
        return (light / np.maximum(total, 1e-6)).astype(np.float32)

    def _ragged(self) -> np.ndarray:
        """(2, 2, 768, 768) unit noise by which the outline of hair is frayed: locks, curls."""
        rng = np.random.default_rng(13)
        noise = rng.normal(size=(2, 768, 768)).astype(np.float32)
        out = []
        for sizes in (((0.9, 5.0), (2.5, 9.0)), ((1.0, 1.0), (2.6, 2.6))):
            fields = [[cv2.GaussianBlur(n, (0, 0), x, sigmaY=y) for n in noise] for x, y in sizes]
            out.append(sum(f / np.std(f) for f in np.array(fields)))
        return (np.stack(out) / np.std(out)).astype(np.float32)

    # === One sample ===

    def sample(self, seed: int, index: int) -> Sample:
        rng = np.random.default_rng([seed, index])
        model = self.model
        spread = 1.0 if rng.random() < 0.6 else rng.uniform(0.5, 1.3)
        identity = (spread * rng.normal(size=model.n_identity)).astype(np.float32)
        expression = self.expressions.draw(rng)
        if rng.random() < 0.65:
            yaw = rng.uniform(-MAX_YAW, MAX_YAW)
        else:
            yaw = np.clip(rng.normal(0, 28), -MAX_YAW, MAX_YAW)
        limit = MAX_PITCH * (1 - 0.35 * abs(yaw) / MAX_YAW)
        pitch = rng.uniform(-limit, limit) if rng.random() < 0.3 else rng.normal(0, 13)
        pitch = float(np.clip(pitch, -limit, limit))
        rotation = view_rotation(yaw, pitch)
        distance = float(np.exp(rng.uniform(np.log(400), np.log(2500))))
        image, depth = self._draw(rng, identity, expression, rotation, distance, yaw, pitch)
        return Sample(image, identity, expression, rotation, distance, depth)

    def _skin(self, rng) -> tuple[np.ndarray, np.ndarray, bool]:
        """sRGB colours (V, 3) float32, hair colour or NaN, whether light is in the colours."""
        skins = self.skins
        photos = int(skins.photo.sum())
        if rng.random() < 0.84:
            i = int(rng.integers(photos))
            colors = skins.colors[i] * self.balance[i]
            if rng.random() < 0.3:
                j = int(rng.integers(photos))
                other = skins.colors[j] * self.balance[j]
                colors += rng.uniform(0.2, 0.6) * (other - colors)
            return colors, skins.hair[i], True
        i = photos + int(rng.integers(len(skins) - photos))
        return skins.colors[i].astype(np.float32), skins.hair[i], False

    def _parts(self, rng, colors: np.ndarray) -> None:
        """Random eyes and teeth, in place."""
        model = self.model.colors
        iris = np.array(
            [[62, 40, 28], [88, 58, 36], [110, 90, 55], [88, 104, 88], [92, 118, 140], [45, 30, 24]]
        )[rng.choice(6, p=[0.34, 0.22, 0.1, 0.07, 0.07, 0.2])] * rng.uniform(0.6, 1.1)
        white = np.array([222, 212, 206]) * rng.uniform(0.72, 1.02) * [1, rng.uniform(0.9, 1), 1]
        eyes = self.eyes
        tone = white + self.iris[eyes, None] * (iris - white)
        colors[eyes] = tone * (1 - 0.85 * self.pupil[eyes, None])
        rest = ~self.skin & ~eyes
        colors[rest] = model[rest] * np.array([1, rng.uniform(0.86, 1), rng.uniform(0.7, 1)])
        colors[rest] *= rng.uniform(0.75, 1.0)

    def _dress(self, rng, head, colors, hair, yaw, pitch):
        """Pieces round the head and the style of its hair."""
        wardrobe, style = self.wardrobe, None
        pieces: list[Piece] = []
        color = hair
        if not np.isfinite(hair).all() or rng.random() < 0.12:
            color = random_hair_color(rng)
        color = np.asarray(color, np.float32) * rng.uniform(0.8, 1.15)
        bald = not np.isfinite(hair).all()
        kinds = ["none", "short", "fringe", "full", "long", "curly", "hat", "scarf"]
        odds = np.array([0.14, 0.27, 0.12, 0.15, 0.19, 0.06, 0.05, 0.02])
        if bald:
            odds = odds * [2.5, 1, 1, 1, 1, 1, 1, 1]
        kind = str(rng.choice(kinds, p=odds / odds.sum()))
        if kind == "hat":
            pieces += wardrobe.hat(rng, head)
            if rng.random() < 0.35:
                pieces.append(wardrobe.curtain(rng, head, color))
        elif kind == "scarf":
            cloth = random_cloth(rng)
            piece, _ = wardrobe.shell(rng, head, cloth, "fringe")
            piece.hair = False
            pieces += [piece, wardrobe.curtain(rng, head, cloth, cloth=True)]
        elif kind != "none":
            piece, style = wardrobe.shell(rng, head, color, kind)
            pieces.append(piece)
            if kind == "long" or (kind == "fringe" and rng.random() < 0.4):
                pieces.append(wardrobe.curtain(rng, head, color))
        neck = np.median(colors[wardrobe.neck], 0)
        pieces.append(wardrobe.shoulders(rng, head, neck, yaw, pitch))
        return pieces, style

    def _draw(self, rng, identity, expression, rotation, distance, yaw, pitch):
        model = self.model
        head = model.vertices(identity, expression, threads=1)
        normals = vertex_normals(head, model.all_faces, faces_of_vertex=self.table)
        colors, hair, lit = self._skin(rng)
        self._parts(rng, colors)
        pieces, style = self._dress(rng, head, colors, hair, yaw, pitch)

        # One mesh: head, then pieces.
        starts = np.cumsum([len(head)] + [len(p.vertices) for p in pieces])
        face_starts = np.cumsum([len(model.all_faces)] + [len(p.faces) for p in pieces])
        points = np.concatenate([head] + [p.vertices for p in pieces])
        faces = np.concatenate(
            [model.all_faces] + [p.faces + s for p, s in zip(pieces, starts, strict=False)]
        ).astype(np.int32)
        turn = rotation.astype(np.float32)
        normals = np.concatenate([normals] + [p.normals for p in pieces]) @ turn.T
        at = (points - FACE_CENTER.astype(np.float32)) @ turn.T
        at[:, 2] += distance
        at = np.ascontiguousarray(at, np.float32)
        side = STORE_SIZE * SUPERSAMPLE
        focal = distance / STORE_MM * side
        raster = rasterize(at, faces, Camera(focal, focal, side / 2, side / 2, side, side))

        behind = background(rng, self.backgrounds, side)
        flat = raster.triangle.ravel()
        covered = np.flatnonzero(flat >= 0)
        triangle = flat[covered]
        corners = faces[triangle]
        uv = raster.barycentric.reshape(-1, 2)[covered]
        weights = (uv[:, 0], uv[:, 1], 1 - uv[:, 0] - uv[:, 1])

        # Light only the vertices that are seen.
        is_used = np.zeros(len(points), bool)
        is_used[corners] = True
        used = np.flatnonzero(is_used)
        local = np.cumsum(is_used, dtype=np.int32) - 1
        albedo = np.concatenate([colors] + [p.albedo for p in pieces])[used]
        irradiance, gloss = self._light(
            rng, behind, lit, at, normals, faces, used, pieces, distance
        )
        picture = encode(decode(albedo) * irradiance + gloss)

        def carried(values, corners, weights):
            return sum(w[:, None] * values[c] for w, c in zip(weights, corners.T, strict=True))

        image = behind.reshape(-1, 3).astype(np.float32)
        shaded = carried(picture, local[corners], weights)
        if style is not None:
            is_hair = np.zeros(len(faces), bool)
            for piece, start in zip(pieces, face_starts, strict=False):
                is_hair[start : start + len(piece.faces)] = piece.hair
            chosen = np.flatnonzero(is_hair[triangle])
            where = carried(points, corners[chosen], [w[chosen] for w in weights])
            shaded[chosen] *= self.strands(style, where)[:, None]
            mask = np.zeros(side * side, np.float32)
            mask[covered[chosen]] = 1
        image[covered] = shaded
        image = image.reshape(side, side, 3)
        if style is not None:
            image = self._fray(rng, image, mask.reshape(side, side), style)
        image = cv2.resize(image, (STORE_SIZE, STORE_SIZE), interpolation=cv2.INTER_AREA)
        return np.clip(image + 0.5, 0, 255).astype(np.uint8), raster.depth

    def _fray(self, rng, image, mask, style):
        side = len(mask)
        near = cv2.blur(mask, (9, 9))
        weight = (4 * style.ragged * SUPERSAMPLE) * near * (1 - near)
        ragged = self.ragged[int(style.along == 2)]
        x, y = rng.integers(0, ragged.shape[1] - side, 2)
        noise = ragged[:, y : y + side, x : x + side] * weight
        at = self.pixels + noise
        return cv2.remap(image, at[0], at[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)

    def _light(self, rng, behind, lit, at, normals, faces, used, pieces, distance):
        """(n, 3) irradiance and (n, 1) gloss of the used vertices; camera frame."""
        n = normals[used]
        head = len(self.open_sky)
        on_head = used[used < head]
        tint = np.clip(behind[::16, ::16].reshape(-1, 3).mean(0) + 20, 30, 255)
        tint = ((tint / tint.mean()) ** rng.uniform(0, 0.12 if lit else 0.3)).astype(np.float32)
        x, y, z = np.ascontiguousarray(n.T)
        # Sky: spherical harmonics to the second order, from above rather than from below.
        strength = rng.uniform(0.3, 0.9) if lit else rng.uniform(0.6, 1.3)
        c = rng.normal(0, [0.16, 0.14, 0.1, 0.06, 0.06, 0.06, 0.06, 0.04])
        c = (strength * (c + [0, 0.16, 0.08, 0, 0, 0, 0, 0])).astype(np.float32)
        sky = 1 + c[0] * x - c[1] * y - c[2] * z + c[3] * x * y + c[4] * x * z + c[5] * y * z
        sky += c[6] * (x * x - y * y) + c[7] * (3 * z * z - 1)
        sky = np.maximum(sky, np.float32(0.12))
        sky[: len(on_head)] *= self.shelter[int(lit)][on_head]
        key_share = rng.uniform(0, 0.4) if lit else rng.uniform(0.1, 0.75)
        if rng.random() < 0.25:
            key_share *= 0.2
        azimuth, elevation = np.radians([rng.normal(0, 50), rng.normal(25, 22)])
        to_light = np.array(
            [
                np.sin(azimuth) * np.cos(elevation),
                -np.sin(elevation),
                -np.cos(azimuth) * np.cos(elevation),
            ],
            np.float32,
        )
        soft = np.float32(rng.uniform(0.0, 0.4))
        direct = np.maximum((n @ to_light + soft) / (1 + soft), 0)
        if key_share > 0.15:
            direct = direct * self._shadow(at, normals, faces, used, to_light, distance)
        key = (1.7 * key_share * tint ** rng.uniform(-0.7, 0.7)).astype(np.float32)
        exposure = np.float32(np.exp(rng.normal(0.0, 0.22)))
        sky *= exposure * np.float32(1 - key_share)
        irradiance = sky[:, None] * tint + (exposure * direct)[:, None] * key
        # Highlights: the half vector of light and eye.
        half = to_light + np.array([0, 0, -1], np.float32)
        lobe = np.maximum(n @ (half / np.linalg.norm(half)), 0)
        amount = np.concatenate(
            [
                np.full(head, rng.uniform(0, 0.05) if lit else rng.uniform(0.0, 0.16), np.float32),
                *[np.full(len(p.vertices), p.gloss, np.float32) for p in pieces],
            ]
        )[used]
        gloss = amount * np.where(used < head, lobe ** np.float32(rng.uniform(12, 40)), lobe**10)
        eyes = np.flatnonzero(self.eyes[on_head])
        gloss[eyes] = 0.35 * lobe[eyes] ** 120
        if key_share > 0.15:
            gloss *= direct > 0
        return irradiance, (gloss * exposure)[:, None]

    def _shadow(self, at, normals, faces, used, to_light, distance):
        """(n,) 1 where the key light reaches a used vertex."""
        size, away, width = 320, 2500.0, 420.0
        forward = -to_light
        right = np.cross([0, 1, 0], forward)
        right /= max(float(np.linalg.norm(right)), 1e-6)
        view = np.stack([right, np.cross(forward, right), forward]).astype(np.float32)
        offset = np.array([0, 0, away], np.float32) - view @ np.array([0, 0, distance], np.float32)
        in_light = at @ view.T
        in_light += offset
        focal = away / width * size
        camera = Camera(focal, focal, size / 2, size / 2, size, size)
        raster = rasterize(in_light, faces, camera)
        points = in_light[used]
        seen = vertex_visibility(
            points,
            normals[used] @ view.T,
            raster.depth,
            camera,
            min_cosine=-1.0,
            depth_tolerance=3.0,
        )
        x, y, _ = np.abs(points.T)
        return (seen | (np.maximum(x, y) > 0.49 * width)).astype(np.float32)


# === Files ===


def write_set(synthesizer: Synthesizer, folder: Path, name: str, seed: int, first: int, count: int):
    """NAME.npy and NAME.npz; a set is complete when NAME.npz is there."""
    model = synthesizer.model
    partial = folder / f"{name}.partial.npy"
    images = np.lib.format.open_memmap(partial, "w+", np.uint8, (count, STORE_SIZE, STORE_SIZE, 3))
    identity = np.zeros((count, model.n_identity), np.float32)
    expression = np.zeros((count, model.n_expression), np.float32)
    rotation = np.zeros((count, 3, 3), np.float32)
    translation = np.zeros((count, 3), np.float32)
    start = time.perf_counter()
    for i in range(count):
        sample = synthesizer.sample(seed, first + i)
        images[i] = sample.image
        identity[i], expression[i] = sample.identity, sample.expression
        rotation[i], translation[i] = sample.rotation, sample.translation
        if (i + 1) % 1000 == 0:
            each = 1e3 * (time.perf_counter() - start) / (i + 1)
            print(f"{name}: {i + 1} samples, {each:.1f} ms each", flush=True)
    images.flush()
    index = np.arange(first, first + count)
    names = np.array([f"synthetic/{seed}_{i:06d}" for i in index])
    labels = folder / f"{name}.partial.npz"
    np.savez(
        labels,
        name=names,
        person=names,
        val=index % 20 == 0,
        identity=identity,
        expression=expression,
        rotation=rotation,
        translation=translation,
        weight_identity=np.ones(count, np.float32),
        weight_expression=np.ones(count, np.float32),
        weight_pose=np.ones(count, np.float32),
        crop_from_image=np.tile(np.eye(3), (count, 1, 1)),
    )
    partial.rename(folder / f"{name}.npy")
    labels.rename(folder / f"{name}.npz")


def label_points(model: HeadModel, sample: Sample) -> np.ndarray:
    """(478, 2) px of a stored crop: the landmarks as the label places them."""
    basis = model.landmark_basis("478")
    points = basis.mean + np.tensordot(sample.identity, basis.identity, 1)
    points = points + np.tensordot(sample.expression, basis.expression, 1)
    return STORE_CAMERA.project(points @ sample.rotation.T + sample.translation)


def draw(synthesizer: Synthesizer, seed: int, first: int, count: int = 60) -> np.ndarray:
    """RGB picture of samples, every other with its landmarks."""
    tiles = []
    for i in range(count):
        sample = synthesizer.sample(seed, first + i)
        tile = sample.image.copy()
        if i % 2:
            for x, y in label_points(synthesizer.model, sample)[::3]:
                cv2.circle(tile, (int(x), int(y)), 0, (0, 255, 0), -1)
        tiles.append(tile)
    return sheet(tiles, 10)


def set_arguments(description: str, *, count: int, shown: int) -> argparse.ArgumentParser:
    """Options of a script that draws sets: of `count` samples, or a picture of `shown`."""
    parser = argparse.ArgumentParser(description=description)
    default = os.environ.get("EXTREME3D_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(default), help="folder with photos/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the training sets")
    parser.add_argument("--count", type=int, default=count, help="samples a set")
    parser.add_argument("--first", type=int, default=0, help="number of the first set")
    parser.add_argument("--sets", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help=f"write a picture of {shown} samples instead")
    return parser


def main() -> None:
    parser = set_arguments(__doc__.split("\n")[0], count=5000, shown=60)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    synthesizer = Synthesizer(HeadModel.load(), options.data, options.out / "synthesis_cache")
    if options.sheet:
        start = time.perf_counter()
        picture = draw(synthesizer, options.seed, options.first * options.count)
        print(f"{1e3 * (time.perf_counter() - start) / 60:.1f} ms a sample")
        cv2.imwrite(str(options.sheet), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        return
    for number in range(options.first, options.first + options.sets):
        first = number * options.count
        write_set(
            synthesizer, options.out, f"synthetic_{number:02d}", options.seed, first, options.count
        )


if __name__ == "__main__":
    main()
