"""Skins for synthetic photos: colours of the head's vertices, taken from photos or painted.

A photo is fitted with the head model, its colours go to the vertices that it shows, the rest is
mirrored or filled, the scalp takes the colour of the photo's hair.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from store import is_held_out, person_of

from extreme3d_fast.head_model import HeadModel
from extreme3d_fast.landmark_fit import LandmarkFitter
from extreme3d_fast.mesh import transform_points, vertex_faces, vertex_normals
from extreme3d_fast.rasterize import rasterize, vertex_visibility
from extreme3d_fast.texture import vertex_colors

# Where hair begins on the mean head, seen from the side: z and y in mm, over ear and nape.
HAIRLINE_Z = [-110.0, -42.0, -34.0, -24.0, 10.0, 14.0, 26.0, 34.0, 48.0, 70.0, 95.0, 130.0]
HAIRLINE_Y = [-78.0, -66.0, -42.0, 20.0, 20.0, 0.0, 0.0, 30.0, 54.0, 76.0, 86.0, 90.0]
# Classes of the face parsing that show the skin of the head.
SKIN_CLASSES = [1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 17]
HAIR_CLASS, GLASSES_CLASS, HAT_CLASS = 13, 3, 14
MAX_ANGLE = 13.0  # degrees of yaw and pitch of the photos taken
MAX_RMS = 0.012  # landmark error in photo widths; more is a bad fit

LIPS_OUTLINE = [
    *[61, 146, 91, 181, 84, 17, 314, 405, 321, 375],
    *[291, 409, 270, 269, 267, 0, 37, 39, 40, 185],
]
BROW_LOWER, BROW_UPPER = [46, 53, 52, 65, 55], [70, 63, 105, 66, 107]
LEFT_BROW_LOWER, LEFT_BROW_UPPER = [276, 283, 282, 295, 285], [300, 293, 334, 296, 336]

HAIR_COLORS = np.array(
    [
        *[[22, 18, 17], [30, 24, 21], [44, 32, 25], [62, 43, 31], [84, 60, 42], [112, 82, 55]],
        *[[150, 118, 80], [186, 156, 112], [128, 68, 40], [110, 106, 102], [172, 168, 162]],
        [214, 210, 205],
    ],
    float,
)
HAIR_ODDS = np.array([5, 4, 4, 3, 3, 2.5, 2, 1.5, 1, 1.5, 1.5, 1]) / 30.0


def smoothstep(low: float, high: float, x: np.ndarray) -> np.ndarray:
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3 - 2 * t)


def hair_margin(mean: np.ndarray) -> np.ndarray:
    """(V,) about mm inside the hairline of points on the mean head; negative on skin."""
    margin = mean[:, 1] - np.interp(mean[:, 2], HAIRLINE_Z, HAIRLINE_Y)
    return np.where(ears(mean), -10.0, margin)


def ears(mean: np.ndarray) -> np.ndarray:
    """(V,) bool: what sticks out of the sides of the mean head, over a quadric through them."""
    x, y, z = np.abs(mean[:, 0]), mean[:, 1], mean[:, 2]
    near = (x > 50) & (np.abs(y) < 68) & (z > -66) & (z < 46)
    box = near & (np.abs(y) < 42) & (z > -40) & (z < 22)
    terms = np.stack([np.ones_like(y), y, z, y * y, y * z, z * z], 1)
    quadric = np.linalg.lstsq(terms[near & ~box], x[near & ~box], rcond=None)[0]
    ear = near & (z > -20) & (z < 19) & (y > -40) & (y < 34)
    return ear & ((x > terms @ quadric + 1.5) | ((y < 18) & (z < 13)))


def noise_field(
    rng: np.random.Generator, points: np.ndarray, wavelength: tuple[float, float], waves: int = 10
) -> np.ndarray:
    """(N,) smooth noise about N(0, 1) at (N, 3) points; wavelengths in mm."""
    direction = rng.normal(size=(waves, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    k = 2 * np.pi / rng.uniform(*wavelength, (waves, 1)) * direction
    phase = points.astype(np.float32) @ k.T.astype(np.float32)
    phase += rng.uniform(0, 2 * np.pi, waves).astype(np.float32)
    return np.sin(phase).sum(1) * np.sqrt(2.0 / waves)


def sample(picture: np.ndarray, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """(n, 3) float32, bilinear, of a picture at n positions (array indices, edges repeated)."""
    count = len(column)
    folded = np.zeros((2, -(-count // 1024) * 1024), np.float32)  # remap is limited to 32767 a side
    folded[0, :count], folded[1, :count] = column, row
    folded = folded.reshape(2, -1, 1024)
    out = cv2.remap(picture, *folded, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return out.reshape(-1, 3)[:count]


@dataclass
class Skins:
    """A bank of textures: colours (n, V, 3) uint8, hair colour (n, 3), which come from photos."""

    colors: np.ndarray
    hair: np.ndarray
    photo: np.ndarray

    def __len__(self) -> int:
        return len(self.colors)


class SkinMaker:
    def __init__(self, model: HeadModel, data: Path) -> None:
        self.model, self.photos = model, data / "photos"
        self.mean = model.vertices(threads=1)
        self.margin = hair_margin(self.mean)
        self.skin = np.arange(len(self.mean)) < model.skin_vertex_count
        self.table = vertex_faces(model.all_faces, len(self.mean))
        self.fitter = LandmarkFitter(model, bias=np.zeros((468, 2)))
        # Inside of mouth, sockets and nostrils: colours of the model, no photo shows them.
        self.pocket = self.skin & (self.mean[:, 2] < 25) & (np.abs(self.mean[:, 0]) < 45)
        self.pocket &= (self.mean[:, 1] > -70) & (self.mean[:, 1] < 45) & (self.mean[:, 2] > -40)

    def choose(self, count: int, rng: np.random.Generator) -> list[int]:
        labels = np.load(self.photos / "face_labels.npz")
        names, pose = labels["names"], labels["pose_whenet"].astype(float)
        frontal = (np.abs(pose[:, :2]) < MAX_ANGLE).all(1)
        chosen = []
        for prefix, share in (("celebamask", 0.7), ("utkface", 0.3)):
            pool = [
                i
                for i in np.flatnonzero(frontal)
                if names[i].startswith(prefix) and not is_held_out(person_of(str(names[i])))
            ]
            chosen += rng.permutation(pool)[: round(1.4 * count * share)].tolist()
        return [int(i) for i in rng.permutation(chosen)]

    def from_photo(self, name: str, points: np.ndarray, rng: np.random.Generator):
        """Colours (V, 3) and hair colour (3,) of a photo, or None where it will not do."""
        image = cv2.cvtColor(cv2.imread(str(self.photos / name)), cv2.COLOR_BGR2RGB)
        height, width = image.shape[:2]
        fit = self.fitter.fit(points, (width, height))
        if fit.landmark_rms > MAX_RMS * width or np.abs(fit.yaw_pitch_roll[0]) > 20:
            return None
        model = self.model
        vertices = transform_points(
            fit.camera_from_head, model.vertices(fit.identity, fit.expression, threads=1)
        )
        normals = vertex_normals(vertices, model.all_faces, faces_of_vertex=self.table)
        raster = rasterize(vertices, model.all_faces, fit.camera)
        seen = vertex_visibility(
            vertices, normals, raster.depth, fit.camera, min_cosine=0.25, depth_tolerance=1.5
        )
        seen &= self.skin
        at = fit.camera.project(vertices)
        column = np.clip(at[:, 0].astype(int), 0, width - 1)
        row = np.clip(at[:, 1].astype(int), 0, height - 1)
        parsing_file = self.photos / "celebamask_parsing" / (Path(name).stem + ".png")
        hair = None
        hairy = (self.margin > -8) | ((self.mean[:, 1] > 62) & (self.mean[:, 2] > 40))
        if name.startswith("celebamask"):
            parsing = cv2.imread(str(parsing_file), cv2.IMREAD_UNCHANGED)
            if parsing is None:
                return None
            parsing = parsing if parsing.ndim == 2 else parsing[..., 0]
            if np.isin(parsing, [GLASSES_CLASS, HAT_CLASS]).mean() > 0.004:
                return None
            parsing = cv2.resize(parsing, (width, height), interpolation=cv2.INTER_NEAREST)
            strands = cv2.erode((parsing == HAIR_CLASS).astype(np.uint8), np.ones((5, 5))) > 0
            label = parsing[row, column]
            seen &= np.isin(label, SKIN_CLASSES) | ((label == HAIR_CLASS) & hairy)
            face = seen & model_face(model)
            if face.sum() < 0.7 * model.face_region.sum() * 0.7:
                return None
            if strands.mean() > 0.02:
                hair = np.median(image[strands], 0)
        else:
            above = seen & (self.margin > 12) & (self.mean[:, 2] > 20)
            above &= (at > 2).all(1) & (at[:, 0] < width - 2)
            if above.sum() > 50:
                hair = np.median(image[row[above], column[above]], 0)
            elif rng.random() < 0.85:  # the crop ends at the forehead
                old = int(Path(name).name.split("_")[0]) > 58
                hair = HAIR_COLORS[rng.choice([9, 10, 11] if old else 8)]
            seen &= model_face(model)
        colors = vertex_colors(
            image, vertices, model.all_faces, seen, model.mirror, fit.camera, model.colors
        ).astype(np.float32)
        face = colors[: model.skin_vertex_count][model.face_weight > 0.5]
        red, green, blue = np.median(face, 0)
        if not (0.95 < red / green < 1.75 and 0.55 < blue / green < 1.1):
            return None  # coloured light
        if hair is not None:
            weight = smoothstep(-4, 9, self.margin + 4 * noise_field(rng, self.mean, (12, 40)))
            weight[seen | ~self.skin] = 0
            grain = (
                1
                + 0.06 * rng.normal(size=len(colors))
                + 0.1 * noise_field(rng, self.mean, (15, 60))
            )
            colors += weight[:, None] * (hair * np.clip(grain, 0.5, 1.6)[:, None] - colors)
        else:
            hair = np.full(3, np.nan)
        colors[~self.skin | self.pocket] = model.colors[~self.skin | self.pocket]
        return np.clip(colors, 0, 255).astype(np.uint8), hair

    def painted(self, rng: np.random.Generator):
        """Colours (V, 3) and hair colour (3,) of a skin made up."""
        model, mean = self.model, self.mean
        # Melanin darkens along a line in log colour; blood shifts to red.
        melanin, blood = rng.beta(1.1, 1.5), rng.normal()
        tone = np.exp(
            np.log([232, 190, 168]) * (1 - melanin) + np.log([78, 50, 38]) * melanin
        ) * np.exp(0.05 * blood * np.array([0.3, -1, -0.8]))
        base = np.median(model.colors[: model.skin_vertex_count], 0)
        colors = model.colors.astype(float)
        colors[self.skin] *= tone / base
        for wavelength, strength in (((25, 70), 0.035), ((6, 15), 0.025), ((2.5, 5), 0.02)):
            mottle = noise_field(rng, mean, wavelength) * strength * rng.uniform(0.3, 1.6)
            colors *= np.exp(mottle[:, None] * np.array([0.7, 1.0, 1.0]))
        colors *= 1 + rng.uniform(0.005, 0.03) * rng.normal(size=(len(colors), 1))
        x, y, z = mean.T
        red = np.exp(-((np.abs(x) - 42) ** 2 + (y + 8) ** 2) / 450) + np.exp(
            -(x**2 + (y + 10) ** 2) / 180
        )
        red += 0.8 * smoothstep(72, 80, np.abs(x))
        amount = rng.uniform(0, 0.22) * (1 - 0.6 * melanin)
        colors *= np.exp(-(amount * red)[:, None] * np.array([0.1, 1, 0.9]))
        hair = HAIR_COLORS[rng.choice(len(HAIR_COLORS), p=HAIR_ODDS)]
        if melanin > 0.55:
            hair = HAIR_COLORS[rng.choice([0, 1, 2, 9])]
        hair = hair * np.exp(rng.normal(0, 0.15)) * np.exp(rng.normal(0, 0.04, 3))
        picture, scale, corner = self._front(rng, tone, hair)
        front = self.skin & (z > 35) & (y > -110) & ~self.pocket
        column, row = (x - corner[0]) * scale, (corner[1] - y) * scale
        paint = sample(picture, column[front], row[front])
        colors[front] *= paint
        if rng.random() < 0.4:
            self._beard(rng, colors, hair)
        bald = rng.random() < 0.12
        reach = rng.normal(0, 5)
        weight = smoothstep(-4, 9, self.margin + reach + 4 * noise_field(rng, mean, (12, 40)))
        weight *= self.skin * (rng.uniform(0, 0.35) if bald else rng.uniform(0.75, 1))
        grain = np.clip(1 + 0.07 * rng.normal(size=len(colors)), 0.5, 1.6)
        colors += weight[:, None] * (hair * grain[:, None] - colors)
        colors[self.pocket] = model.colors[self.pocket] * (0.5 + 0.5 * tone / base)
        return np.clip(colors, 0, 255).astype(np.uint8), np.full(3, np.nan) if bald else hair

    def _front(self, rng, tone, hair):
        """Factors of the skin's colour as a picture seen from the front: lips, brows, lines."""
        scale, corner = 4.0, (-90.0, 110.0)
        picture = np.ones((int(220 * scale), int(180 * scale), 3), np.float32)
        lm = self.model.landmark_basis("478").mean[:, :2]

        def px(index, shift=(0, 0)):
            p = lm[index] + shift
            return np.stack([(p[:, 0] - corner[0]) * scale, (corner[1] - p[:, 1]) * scale], 1)

        def blend(mask, factor, blur):
            nonlocal picture
            mask = cv2.GaussianBlur(mask, (0, 0), blur * scale)[..., None]
            picture = picture * (1 + mask * (np.asarray(factor, np.float32) - 1))

        lips = np.zeros(picture.shape[:2], np.float32)
        cv2.fillPoly(lips, [px(LIPS_OUTLINE).astype(np.int32)], 1.0)
        lip = np.exp(rng.normal([0.0, -0.12, -0.05], [0.1, 0.15, 0.12]))
        if rng.random() < 0.25:  # lipstick
            lip = np.exp(rng.normal([0.1, -0.6, -0.35], [0.1, 0.3, 0.25]))
        blend(lips, lip, 0.8)
        # Brows: many strokes that sweep outward.
        strokes = np.zeros(picture.shape[:2], np.float32)
        density, thick = rng.integers(60, 260), rng.uniform(0.7, 1.5)
        lift = rng.normal(0, 1.5)
        for lower, upper in ((BROW_LOWER, BROW_UPPER), (LEFT_BROW_LOWER, LEFT_BROW_UPPER)):
            low, up = px(lower, (0, lift)), px(upper, (0, lift))
            along = rng.uniform(0, 1, density)
            across = rng.uniform(0.5 - 0.5 * thick, 0.5 + 0.5 * thick, density)
            grid = np.linspace(0, 1, 5)
            for s, c in zip(along, across, strict=True):
                a, b = (np.array([np.interp(s, grid, q[:, d]) for d in (0, 1)]) for q in (low, up))
                start = a + c * (b - a)
                out = np.array([np.sign(start[0] - picture.shape[1] / 2), -0.5 + 0.8 * (1 - s)])
                end = start + out * rng.uniform(8, 24)
                cv2.line(
                    strokes,
                    start.astype(int).tolist(),
                    end.astype(int).tolist(),
                    float(rng.uniform(0.4, 1)),
                    3,
                    cv2.LINE_AA,
                )
        brow = np.clip(hair * rng.uniform(0.6, 1.0) / tone, 0.12, 0.95)
        blend(np.clip(strokes, 0, 1), brow, 0.4)
        # Lash line and shadow round the eyes.
        eyes = np.zeros_like(lips)
        shade = np.zeros_like(lips)
        for ring in (
            [33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7],
            [263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249],
        ):
            cv2.polylines(eyes, [px(ring).astype(np.int32)], True, 1.0, int(rng.integers(4, 9)))
            cv2.fillPoly(shade, [px(ring).astype(np.int32)], 1.0)
        blend(eyes, [rng.uniform(0.15, 0.6)] * 3, 0.5)
        blend(cv2.dilate(shade, np.ones((25, 25))), np.exp(rng.normal(-0.12, 0.1, 3)), 3)
        # Folds: nasolabial, forehead, below the eyes.
        age = max(0.0, rng.normal(0.1, 0.5))
        lines = np.zeros_like(lips)
        for side in (-1, 1):
            fold = np.array([[16, -8], [24, -20], [30, -33], [31, -44]]) * [side, 1]
            fold = fold + rng.normal(0, 1, fold.shape)
            self._curve(lines, fold, scale, corner, 0.8)
            bag = np.array([[18, 12], [28, 6], [38, 7], [46, 14]]) * [side, 1]
            self._curve(lines, bag + rng.normal(0, 1, bag.shape), scale, corner, 0.6)
            for k in range(3):
                foot = np.array([[50, 22], [62, 28 - 8 * k]]) * [side, 1]
                self._curve(lines, foot + rng.normal(0, 1, foot.shape), scale, corner, 0.5)
        for k in range(4):
            row = np.array([[-34, 55], [-15, 57], [0, 56], [15, 57], [34, 55]]) + [0, 7 * k]
            self._curve(lines, row + rng.normal(0, 0.8, row.shape), scale, corner, 0.5)
        blend(lines, [1 - min(0.45, 0.3 * age)] * 3, 0.5)
        if rng.random() < 0.3:  # freckles and moles
            spots = np.zeros_like(lips)
            for _ in range(int(rng.integers(5, 250))):
                at = rng.normal([0, -5], [32, 22])
                p = ((at[0] - corner[0]) * scale, (corner[1] - at[1]) * scale)
                radius = int(rng.uniform(1, 4.5))
                cv2.circle(spots, (int(p[0]), int(p[1])), radius, float(rng.uniform(0.3, 1)), -1)
            blend(spots, np.exp(-rng.uniform(0.2, 0.7) * np.array([0.5, 1, 1.2])), 0.3)
        return picture, scale, corner

    @staticmethod
    def _curve(mask, points, scale, corner, width):
        t = np.linspace(0, len(points) - 1, 24)
        dense = np.stack([np.interp(t, np.arange(len(points)), points[:, d]) for d in (0, 1)], 1)
        p = np.stack([(dense[:, 0] - corner[0]) * scale, (corner[1] - dense[:, 1]) * scale], 1)
        cv2.polylines(mask, [p.astype(np.int32)], False, 1.0, int(4 * width + 1), cv2.LINE_AA)

    def _beard(self, rng, colors, hair):
        x, y, z = self.mean.T
        top = np.interp(z, [20, 30, 60, 90, 110, 125], [0, -2, -35, -30, -24, -22])
        weight = smoothstep(-3, 8, top - y + 3 * noise_field(rng, self.mean, (10, 30)))
        weight *= smoothstep(8, 26, z) * smoothstep(-118, -92, y + 0.15 * z)
        lm = self.model.landmark_basis("478").mean[LIPS_OUTLINE]
        lip = np.linalg.norm((self.mean[:, None, :2] - lm[None, :, :2]), axis=2).min(1)
        inside = (np.abs(x) < 26) & (y > -56) & (y < -33) & (z > 95)
        weight *= np.where(inside, smoothstep(1, 4, lip) * 0.3, smoothstep(0, 4, lip))
        if rng.random() < 0.3:  # moustache and chin only
            weight *= 1 - smoothstep(24, 36, np.abs(x))
        weight *= self.skin * rng.uniform(0.15, 0.95)
        grain = np.clip(1 + 0.12 * rng.normal(size=len(colors)), 0.4, 1.8)
        speckle = np.clip(weight * np.clip(1 + 0.25 * rng.normal(size=len(colors)), 0, 2), 0, 1)
        colors += speckle[:, None] * (hair * grain[:, None] - colors)


def model_face(model: HeadModel) -> np.ndarray:
    out = np.zeros(model.vertex_count, bool)
    out[: model.skin_vertex_count] = model.face_region
    return out


def make_skins(model: HeadModel, data: Path, photos: int, painted: int) -> Skins:
    maker = SkinMaker(model, data)
    rng = np.random.default_rng(7)
    labels = np.load(maker.photos / "face_labels.npz")["names"]
    marks = np.load(maker.photos / "landmarks478.npz")
    xy, depth, names = marks["xy_u16"], marks["z_i16"], marks["names"].tolist()
    index = {n: i for i, n in enumerate(names)}
    colors, hair = [], []
    for i in maker.choose(photos, rng):
        name = str(labels[i])
        j = index[name]
        points = np.concatenate([xy[j] / 8.0 - 256.0, depth[j, :, None] / 2.0], 1)[:468]
        found = maker.from_photo(name, points.astype(np.float32), rng)
        if found is not None:
            colors.append(found[0])
            hair.append(found[1])
        if len(colors) == photos:
            break
    n = len(colors)
    for _ in range(painted):
        c, h = maker.painted(rng)
        colors.append(c)
        hair.append(h)
    return Skins(np.stack(colors), np.array(hair, np.float32), np.arange(len(colors)) < n)


def load_skins(cache: Path, model: HeadModel, data: Path, photos: int, painted: int) -> Skins:
    """The bank from `cache`, made first where it is not there."""
    file = cache / f"skins_{photos}_{painted}.npy"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        skins = make_skins(model, data, photos, painted)
        np.savez(file.with_suffix(".npz"), hair=skins.hair, photo=skins.photo)
        np.save(file, skins.colors)
    rest = np.load(file.with_suffix(".npz"))
    return Skins(np.load(file, mmap_mode="r"), rest["hair"], rest["photo"])
