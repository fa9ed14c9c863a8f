"""What surrounds the head in synthetic photos: hair, hats, shoulders, light and background."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from store import is_held_out
from synthetic_skin import (
    HAIR_COLORS,
    HAIR_ODDS,
    ears,
    hair_margin,
    noise_field,
    smoothstep,
)

from extreme3d_fast.head_model import HeadModel
from extreme3d_fast.mesh import boundary_loops, vertex_faces, vertex_normals

CROWN = np.array([0.0, 20.0, -8.0])  # mm; hair stands away from here
FACE_OVAL_TOP = 79.0  # mm, y of the upper end of the face


@dataclass
class Piece:
    """A mesh beside the head: linear albedo, and the strands' coordinates where it is hair."""

    vertices: np.ndarray  # (N, 3) mm, head frame
    faces: np.ndarray  # (F, 3)
    normals: np.ndarray  # (N, 3)
    albedo: np.ndarray  # (N, 3) sRGB 0 to 255
    hair: bool
    gloss: float = 0.0


@dataclass
class HairStyle:
    """What the pixels of hair look like."""

    along: int  # 0 strands fall from the crown, 1 run from front to back, 2 curls
    phase: float
    contrast: float
    ragged: float  # px of the store crop by which the outline is frayed


def grid_faces(rows: int, columns: int, closed: bool = False) -> np.ndarray:
    """Triangles of a grid of vertices; counter-clockwise for rows going down, columns right."""
    r, c = np.meshgrid(
        np.arange(rows - 1), np.arange(columns if closed else columns - 1), indexing="ij"
    )
    n = (c + 1) % columns
    a, b, d, e = r * columns + c, (r + 1) * columns + c, r * columns + n, (r + 1) * columns + n
    return np.concatenate(
        [np.stack([a, b, e], -1).reshape(-1, 3), np.stack([a, e, d], -1).reshape(-1, 3)]
    ).astype(np.int32)


class Wardrobe:
    """Makes hair, hats and shoulders for heads of one model."""

    def __init__(self, model: HeadModel) -> None:
        mean = model.vertices(threads=1)[: model.skin_vertex_count]
        self.margin = hair_margin(mean)
        # Hair and hats grow from these vertices; the forehead is one of them for fringes.
        reach = (self.margin > -16) | ((mean[:, 1] > 38) & (mean[:, 2] > 30))
        region = reach & ~ears(mean) & (mean[:, 1] > -90)
        used = np.flatnonzero(region)
        local = np.full(len(mean), -1)
        local[used] = np.arange(len(used))
        faces = local[model.faces]
        self.scalp, self.scalp_faces = used, faces[(faces >= 0).all(1)].astype(np.int32)
        self.scalp_mean, self.scalp_margin = mean[used], self.margin[used]
        self.scalp_table = vertex_faces(self.scalp_faces, len(used))
        self.neck = max(boundary_loops(model.faces, len(mean)), key=len)

    def shell(self, rng, skin: np.ndarray, color: np.ndarray, kind: str):
        """Hair cut to the head: a piece over the scalp, and its style."""
        p, margin = self.scalp_mean, self.scalp_margin
        x, y, z = p.T
        base = skin[self.scalp].astype(np.float32)
        hairline = rng.normal(0, 5) + 4 * noise_field(rng, p, (14, 50))
        front = smoothstep(45, 75, z)
        if kind == "fringe":
            drop = rng.uniform(14, 38) + rng.uniform(-0.25, 0.25) * x
            hairline = hairline + front * drop
        elif rng.random() < 0.25:  # receding
            hairline = hairline - front * rng.uniform(5, 30)
        inside = margin + hairline
        bulk = {
            "short": rng.uniform(2, 14),
            "fringe": rng.uniform(6, 22),
            "full": rng.uniform(14, 34),
            "long": rng.uniform(8, 24),
            "curly": rng.uniform(15, 48),
        }[kind]
        # More on top or at the sides, a parting, locks.
        lift = smoothstep(30, 110, y) * rng.uniform(-0.3, 0.8)
        field = 1 + lift + 0.28 * noise_field(rng, p, (50, 160))
        if kind != "curly" and rng.random() < 0.5:
            parting = rng.uniform(-35, 35)
            field *= 1 - rng.uniform(0.3, 0.8) * np.exp(-(((x - parting) / 9) ** 2)) * (y > 50)
        rise = 30 if kind != "fringe" else 14
        thickness = bulk * np.clip(field, 0.15, 2.2) * smoothstep(0, rise, inside)
        thickness += 1.2 * smoothstep(0, 6, inside)
        if kind == "curly":
            thickness *= 1 + 0.14 * noise_field(rng, p, (9, 22), 20)
        else:
            thickness *= 1 + rng.uniform(0.03, 0.12) * noise_field(rng, p, (14, 40))
        out = base - CROWN
        out /= np.linalg.norm(out, axis=1, keepdims=True)
        vertices = (base + out * np.maximum(thickness, 0)[:, None]).astype(np.float32)
        if kind == "fringe":  # hair on the forehead hangs down a little
            vertices[:, 1] -= front * rng.uniform(0, 6)
        keep = (inside > 0)[self.scalp_faces].sum(1) >= 2
        normals = vertex_normals(vertices, self.scalp_faces, faces_of_vertex=self.scalp_table)
        albedo = color * (1 + 0.1 * noise_field(rng, p, (30, 90)))[:, None]
        # Roots and the shade under the hair at its edge.
        albedo = albedo * (0.6 + 0.4 * smoothstep(0, 14, inside))[:, None]
        curly = kind == "curly"
        style = HairStyle(
            along=2 if curly else int(rng.random() < (0.5 if kind == "short" else 0.2)),
            phase=rng.uniform(-40, 40),
            contrast=rng.uniform(0.07, 0.2),
            ragged=rng.uniform(0.3, 1.0) + (1.0 if curly else 0.0),
        )
        piece = Piece(
            vertices,
            self.scalp_faces[keep],
            normals,
            albedo.astype(np.float32),
            True,
            float(rng.uniform(0.0, 0.03)),
        )
        return piece, style

    def curtain(self, rng, skin: np.ndarray, color: np.ndarray, cloth: bool = False) -> Piece:
        """Long hair, or a scarf, that hangs down beside and behind the face; seen on both sides."""
        rows, columns = 22, 72
        opening = np.radians(rng.uniform(38, 62) if cloth else rng.uniform(48, 105))
        t = np.linspace(0, 1, rows)[:, None]
        swing = np.radians(rng.normal(0, 5))
        open_at = opening * (1 + rng.uniform(-0.25, 0.15) * t)
        azimuth = swing + open_at + (2 * np.pi - 2 * open_at) * np.linspace(0, 1, columns)
        top = skin[self.scalp][:, 1].max() - rng.uniform(48, 62)
        bottom = rng.uniform(-190, -60)
        y = top + (bottom - top) * t
        half = np.abs(skin[self.scalp][:, 0]).max()
        back = -skin[self.scalp][:, 2].min()
        bulk = rng.uniform(4, 22)
        profile = np.interp(t, [0, 0.18, 0.5, 1], [0.86, 1.0, 1.0, rng.uniform(0.75, 1.25)])
        grid = np.stack(np.broadcast_arrays(np.sin(azimuth), np.cos(azimuth), y / 60), -1)
        wave = noise_field(rng, grid.reshape(-1, 3), (0.5, 1.6), 12).reshape(rows, columns)
        fine = noise_field(rng, grid.reshape(-1, 3), (0.12, 0.4), 12).reshape(rows, columns)
        radius = profile + (0.035 * wave * t + 0.012 * fine) * (0.5 if cloth else 1)
        x = (half + bulk) * radius * np.sin(azimuth)
        front = np.cos(azimuth) > 0
        z = -8 + np.where(front, 72, back + bulk - 2) * radius * np.cos(azimuth)
        # The ends over the cheeks lie close to them.
        x = np.where(front, x * (1 - 0.1 * np.cos(azimuth) ** 2), x)
        vertices = np.stack(np.broadcast_arrays(x, y, z), -1).reshape(-1, 3).astype(np.float32)
        # azimuth grows from the front over the subject's left to the back
        faces = grid_faces(rows, columns)
        normals = vertex_normals(vertices, faces)
        if (normals[:, [0, 2]] * (vertices[:, [0, 2]] - [0, -8])).sum() < 0:
            faces, normals = np.ascontiguousarray(faces[:, ::-1]), -normals
        shade = 1 + 0.12 * wave.reshape(-1, 1) + 0.08 * fine.reshape(-1, 1)
        albedo = np.clip(color * shade, 0, 255).astype(np.float32)
        count = len(vertices)
        return Piece(
            np.concatenate([vertices, vertices]),
            np.concatenate([faces, faces[:, ::-1] + count]).astype(np.int32),
            np.concatenate([normals, -normals]),
            np.concatenate([albedo, 0.45 * albedo]),
            not cloth,
            float(rng.uniform(0.0, 0.03)),
        )

    def hat(self, rng, skin: np.ndarray) -> list[Piece]:
        """A cap or woollen hat, sometimes with a peak."""
        p = self.scalp_mean
        base = skin[self.scalp].astype(np.float32)
        tilt = rng.normal(0.12, 0.18)
        level = rng.uniform(48, 80)
        inside = p[:, 1] + tilt * (p[:, 2] - 60) - level
        inside = inside + rng.normal(0, 0.08) * p[:, 0]
        wool = rng.random() < 0.5
        color = random_cloth(rng)
        thick = rng.uniform(5, 10) + smoothstep(20, 70, inside) * rng.uniform(2, 26)
        thick = thick * (1 + 0.1 * noise_field(rng, p, (30, 90)))
        out = base - CROWN
        out /= np.linalg.norm(out, axis=1, keepdims=True)
        vertices = (base + out * np.maximum(thick, 3)[:, None]).astype(np.float32)
        keep = (inside > 0)[self.scalp_faces].all(1)
        normals = vertex_normals(vertices, self.scalp_faces, faces_of_vertex=self.scalp_table)
        angle = np.arctan2(p[:, 0], p[:, 2] + 8)
        stripes = np.sin(angle * 60) if wool else np.sign(np.sin(angle * 3)) * 0.2
        albedo = color * (1 + (0.12 if wool else 0.1) * stripes)[:, None]
        if wool and rng.random() < 0.6:
            albedo[inside < 26] *= 0.8
        pieces = [Piece(vertices, self.scalp_faces[keep], normals, albedo, False)]
        if not wool:
            rows, columns = 8, 40
            t, s = np.meshgrid(np.linspace(0, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
            width, reach = rng.uniform(58, 70), rng.uniform(45, 75)
            middle = np.argmin(np.abs(inside - 3) + np.abs(p[:, 0]) + 1e3 * (p[:, 2] < 40))
            edge, z0 = vertices[middle, 1], vertices[middle, 2] - 2
            x = width * s
            arc = np.sqrt(np.maximum(1 - (s * 0.98) ** 2, 0))
            z = z0 - 48 * (1 - arc) + t * reach * arc**0.7
            y = edge - 8 * s**2 - t * reach * rng.uniform(0.1, 0.4)
            brim = np.stack([x, y, z], -1).reshape(-1, 3).astype(np.float32)
            faces = grid_faces(rows, columns)
            up = vertex_normals(brim, faces)
            if up[:, 1].sum() < 0:
                faces, up = np.ascontiguousarray(faces[:, ::-1]), -up
            shade = np.repeat(color[None] * rng.uniform(0.6, 1.1), len(brim), 0)
            pieces.append(
                Piece(
                    np.concatenate([brim, brim - [0, 2, 0]]).astype(np.float32),
                    np.concatenate([faces, faces[:, ::-1] + len(brim)]).astype(np.int32),
                    np.concatenate([up, -up]),
                    np.concatenate([shade, 0.4 * shade]),
                    False,
                )
            )
        return pieces

    def shoulders(self, rng, skin: np.ndarray, neck_color: np.ndarray, yaw: float, pitch: float):
        """A body below the neck's border, turned back towards the camera; yaw, pitch in degrees."""
        ring = skin[self.neck].astype(np.float64)
        middle = ring.mean(0)
        turn = np.radians(-yaw * rng.uniform(0, 0.7))
        nod = np.radians(pitch * rng.uniform(0.2, 0.8))
        c, s = np.cos(turn), np.sin(turn)
        cn, sn = np.cos(nod), np.sin(nod)
        body = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ np.array(
            [[1, 0, 0], [0, cn, sn], [0, -sn, cn]]
        )
        angle = np.arctan2(ring[:, 0], ring[:, 2] - middle[2])
        t = np.concatenate([[0.0, 0.06], np.linspace(0.15, 1, 10)])[:, None]
        wide = rng.uniform(165, 215)
        a = np.interp(t, [0, 0.15, 0.6, 0.8, 1], [76, 84, 0.72 * wide, 0.95 * wide, wide])
        b = np.interp(t, [0, 0.15, 0.6, 1], [56, 62, 92, 110])
        slope = rng.uniform(0.7, 1.4)
        drop = np.interp(t, [0, 0.15, 0.6, 0.8, 1], [0, 8, 40 * slope, 75 * slope, 320])
        local = np.stack(
            np.broadcast_arrays(a * np.sin(angle), -drop, b * np.cos(angle) - 0.05 * drop), -1
        )
        rings = middle + local @ body.T
        weight = smoothstep(0, 0.22, t)[..., None]
        below = ring - np.array([0, 1, 0]) * drop[..., None]
        vertices = (ring * (t == 0)[..., None]) + (t > 0)[..., None] * (
            below * (1 - weight) + rings * weight
        )
        vertices = vertices.reshape(-1, 3).astype(np.float32)
        faces = grid_faces(len(t), len(ring), closed=True)
        normals = vertex_normals(vertices, faces)
        if (normals * (vertices - middle - [0, -150, 0])).sum() < 0:
            faces, normals = np.ascontiguousarray(faces[:, ::-1]), -normals
        cloth = random_cloth(rng)
        albedo = np.repeat(cloth[None], len(vertices), 0)
        if rng.random() < 0.4:
            axis = rng.integers(0, 2)
            stripe = np.sin(vertices[:, axis] * 2 * np.pi / rng.uniform(8, 40)) > rng.uniform(-1, 1)
            albedo[stripe] = random_cloth(rng)
        albedo *= 1 + 0.1 * noise_field(rng, vertices, (15, 70))[:, None]
        collar = rng.choice([0.0, 0.1, 0.25, 0.4], p=[0.3, 0.25, 0.3, 0.15])
        v_neck = collar * (1 + rng.uniform(0, 1.2) * np.cos(angle))
        bare = (t < v_neck).reshape(-1)
        albedo[bare] = neck_color
        return Piece(vertices, faces, normals, albedo.astype(np.float32), False)


def random_cloth(rng) -> np.ndarray:
    """sRGB: mostly grey, black, white or blue."""
    value = rng.choice([25, 45, 80, 130, 190, 235]) * rng.uniform(0.8, 1.1)
    tint = np.exp(rng.normal(0, 0.35 if rng.random() < 0.5 else 0.06, 3))
    return np.clip(value * tint / tint.mean(), 5, 250)


def random_hair_color(rng) -> np.ndarray:
    color = HAIR_COLORS[rng.choice(len(HAIR_COLORS), p=HAIR_ODDS)]
    if rng.random() < 0.02:  # dyed
        color = rng.uniform(30, 200, 3)
    return color * np.exp(rng.normal(0, 0.12)) * np.exp(rng.normal(0, 0.04, 3))


class Strands:
    """Brightness of hair at points of the head frame."""

    def __init__(self) -> None:
        rng = np.random.default_rng(11)
        noise = rng.normal(size=(256, 1024)).astype(np.float32)
        streaks = sum(
            weight
            * cv2.GaussianBlur(noise, (0, 0), sigmaX=sigma, sigmaY=length)
            / cv2.GaussianBlur(noise, (0, 0), sigmaX=sigma, sigmaY=length).std()
            for weight, sigma, length in ((0.6, 0.9, 14), (0.7, 2.5, 25), (0.6, 8, 30))
        )
        curls = sum(
            w * cv2.GaussianBlur(noise, (0, 0), s) / cv2.GaussianBlur(noise, (0, 0), s).std()
            for w, s in ((0.6, 1.5), (0.8, 3.5))
        )
        self.streaks = np.stack([streaks, curls]).astype(np.float32)

    def __call__(self, style: HairStyle, x: np.ndarray) -> np.ndarray:
        """(n,) factor for (n, 3) mm."""
        if style.along == 1:
            s = np.arctan2(x[:, 0], x[:, 1] - 5) * (1024 / (2 * np.pi))
            t = x[:, 2] * 0.9
        else:
            s = np.arctan2(x[:, 0] - 0.3 * style.phase, x[:, 2] + 8 + 0.2 * style.phase)
            s = s * (1024 / (2 * np.pi)) * (1 if style.along == 0 else 0.4)
            t = x[:, 1] * (0.9 if style.along == 0 else 1.2)
        table = self.streaks[int(style.along == 2)]
        columns = (s + style.phase * 7).astype(np.int32) % 1024
        rows = (t + 128).astype(np.int32) % 256
        return np.exp(style.contrast * table[rows, columns])


def fill_holes(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Smoothly continues a (H, W, 3) float picture where `known` (H, W) is 0: push and pull."""
    if min(image.shape[:2]) <= 2:
        mean = (image * known[..., None]).sum((0, 1)) / max(float(known.sum()), 1e-6)
        return np.where(known[..., None] > 0.5, image, mean).astype(np.float32)
    weight = cv2.pyrDown(known)
    small = cv2.pyrDown(image * known[..., None]) / np.maximum(weight, 1e-4)[..., None]
    coarse = fill_holes(small, (weight > 0.02).astype(np.float32))
    size = image.shape[1], image.shape[0]
    pulled = cv2.resize(coarse, size, interpolation=cv2.INTER_LINEAR)
    return image * known[..., None] + pulled * (1 - known[..., None])


def make_backgrounds(data: Path, count: int, size: int = 256) -> np.ndarray:
    """(count, size, size, 3) uint8: photos without their faces."""
    rng = np.random.default_rng(5)
    photos = data / "photos"
    marks = np.load(photos / "landmarks478.npz")
    names = marks["names"].tolist()
    allowed = [i for i, n in enumerate(names) if not is_held_out(n)]  # by photo: no face is left
    out: list[np.ndarray] = []
    for i in rng.permutation(allowed):
        name = names[i]
        kind = name.split("/")[0]
        if kind not in ("celebamask", "youtube_faces"):
            continue
        if kind == "celebamask" and rng.random() < 0.2:
            continue
        image = cv2.cvtColor(cv2.imread(str(photos / name)), cv2.COLOR_BGR2RGB)
        height, width = image.shape[:2]
        if kind == "celebamask":
            file = photos / "celebamask_parsing" / (Path(name).stem + ".png")
            parsing = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
            if parsing is None:
                continue
            parsing = parsing if parsing.ndim == 2 else parsing[..., 0]
            hole = (parsing != 0) & (parsing != 18)
            hole = cv2.resize(hole.astype(np.uint8), (size, size), interpolation=0)
        else:
            xy = marks["xy_u16"][i] / 8.0 - 256.0
            middle, extent = xy.mean(0), np.ptp(xy, axis=0).max()
            hole = np.zeros((height, width), np.uint8)
            center = (int(middle[0]), int(middle[1] - 0.15 * extent))
            cv2.ellipse(hole, center, (int(0.75 * extent), int(0.95 * extent)), 0, 0, 360, 1, -1)
            hole = cv2.resize(hole, (size, size), interpolation=0)
        if hole.mean() > 0.75:
            continue
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
        known = 1.0 - cv2.dilate(hole, np.ones((9, 9)))
        filled = fill_holes(image.astype(np.float32), known.astype(np.float32))
        out.append(np.clip(filled, 0, 255).astype(np.uint8))
        if len(out) == count:
            break
    return np.stack(out)


def background(rng, bank: np.ndarray, size: int) -> np.ndarray:
    """(size, size, 3) uint8: part of a photo, or sometimes a plain or graded colour."""
    choice = rng.random()
    if choice < 0.88:
        photo = bank[rng.integers(len(bank))]
        side = int(rng.uniform(0.5, 1.0) * len(photo))
        x, y = rng.integers(0, len(photo) - side + 1, 2)
        photo = np.array(photo[y : y + side, x : x + side])
        if rng.random() < 0.5:
            photo = photo[:, ::-1]
        out = cv2.resize(photo, (size, size), interpolation=cv2.INTER_LINEAR)
        if rng.random() < 0.3:
            out = cv2.blur(out, (int(rng.integers(3, 25)),) * 2)
        return out
    corners = rng.uniform(0, 255, (2, 2, 3)) if choice < 0.96 else rng.uniform(0, 255, (1, 1, 3))
    if rng.random() < 0.8:
        corners = corners.mean(2, keepdims=True) + 0.2 * (corners - corners.mean(2, keepdims=True))
    out = cv2.resize(corners.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.3:
        cells = int(rng.integers(4, 40))
        noise = rng.normal(0, rng.uniform(5, 30), (cells, cells, 1)).repeat(3, 2)
        noise = (noise * rng.uniform(0.7, 1.3, 3)).astype(np.float32)
        out = out + cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(out, 0, 255).astype(np.uint8)


def load_backgrounds(cache: Path, data: Path, count: int) -> np.ndarray:
    file = cache / f"backgrounds_{count}.npy"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        np.save(file, make_backgrounds(data, count))
    return np.load(file, mmap_mode="r")
