"""Pastes hands, glasses, masks, hats, hair and things over faces; says exactly what they cover.

Colour must not give an occluder away: hands and patches often take the face's own tone. Shapes that
are drawn here make up for the few cut-outs; both get shadows, soft edges and the photo's greyness.
Lengths are mm of a face that is FACE_HEIGHT high.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.floating[Any]]
UInt8 = npt.NDArray[np.uint8]
Rng = np.random.Generator

FACE_HEIGHT = 198.0  # mm, of the region where bump maps apply on the mean head
EYE_LEVEL, MOUTH_LEVEL = -36.0, 32.0  # mm below the middle of that region
EYE_APART = 33.0  # mm from the middle, seen from the front
LARGEST = 320  # px, side of a cut-out
HELD_OUT = 5  # one cut-out in so many is kept for measuring

# How often each kind is drawn.
KINDS = {
    "hands": 0.23,
    "limbs": 0.09,
    "glasses": 0.20,
    "glasses cut out": 0.06,
    "masks": 0.05,
    "cloth": 0.07,
    "objects": 0.08,
    "microphones": 0.06,
    "hats": 0.03,
    "caps": 0.04,
    "hair": 0.06,
    "patches": 0.13,
}
PIECES = (0.6, 0.28, 0.12)  # chance of one, two, three
ENOUGH = 0.6  # of the face covered: no more pieces
OWN_TONE = 0.5  # share of hands and patches in the face's own tone
SHADOWED = 0.4
SOFT = 0.5
USUAL_COLOUR = 0.25  # of skin: range of the three channels over the largest
# Colours of skin, sRGB, from light to dark.
TONES = np.array(
    [[241, 205, 183], [224, 178, 150], [200, 148, 116], [160, 110, 82], [116, 76, 56], [74, 48, 38]]
)


def is_held_out(path: Path) -> bool:
    """Whether a cut-out is kept for measuring, by the name of its file."""
    return zlib.crc32(path.name.encode()) % HELD_OUT == 0


# === Where the face is ===


@dataclass(frozen=True)
class Place:
    """A face in a picture.

    Attributes:
        pixel_from_face: (2, 3) similarity, from mm right and below the middle of the face, as seen;
            pixel centres at whole numbers.
        left, right: mm, its sides.
        eyes: (1 or 2, 2) mm, of eyes that are seen.
    """

    pixel_from_face: Float
    left: float
    right: float
    eyes: Float

    @property
    def scale(self) -> float:
        """px per mm."""
        return math.sqrt(abs(np.linalg.det(self.pixel_from_face[:, :2])))

    @property
    def middle(self) -> float:
        """mm, where the middle of the nose lies across the face: turned heads move it aside."""
        if len(self.eyes) == 2:
            return float(1.3 * self.eyes[:, 0].mean())
        return float(np.clip(1.6 * self.eyes[0, 0], self.left, self.right))

    def points(self, mm: Any) -> Float:
        """(n, 2) px of points (n, 2) on the face."""
        m = self.pixel_from_face
        return np.asarray(np.asarray(mm, np.float64) @ m[:, :2].T + m[:, 2])

    def moved(self, matrix: Float) -> Place:
        """The same face after a similarity (2, 3) of the picture, of its pixel centres."""
        a = np.vstack([self.pixel_from_face, [0, 0, 1]])
        return replace(self, pixel_from_face=np.asarray(matrix, np.float64) @ a)


def place_of(weight: npt.NDArray[Any]) -> Place:
    """Place in a window of the face whose weight map, of half the size, is given.

    Args:
        weight: (h, w) > 0 where bump maps apply; eyes are holes in it.
    """
    face = weight > 0
    rows, columns = np.flatnonzero(face.any(1)), np.flatnonzero(face.any(0))
    if len(rows) < 2 or len(columns) < 2:
        rows, columns = np.array([0, len(weight)]), np.array([0, len(weight[0])])
    scale = 2 * (rows[-1] - rows[0] + 1) / FACE_HEIGHT
    # a pixel of half size covers two from 2 i on
    center = np.array([columns[0] + columns[-1], rows[0] + rows[-1]]) + 0.5
    half = (columns[-1] - columns[0] + 1) / scale
    count, _, stats, at = cv2.connectedComponentsWithStats((weight < 40).astype(np.uint8))
    holes = []
    for k in range(1, count):
        x, y, w, h, area = stats[k]
        inside = x > 0 and y > 0 and x + w < len(weight[0]) and y + h < len(weight)
        where = (2 * at[k] + 0.5 - center) / scale
        if inside and area > 10 and -62 < where[1] < -12:
            holes.append((area, where))
    holes.sort(key=lambda hole: -hole[0])
    eyes = np.array([where for _, where in holes[:2]]).reshape(-1, 2)
    if len(eyes) == 2:
        eyes = eyes[np.argsort(eyes[:, 0])]
        if eyes[1, 0] - eyes[0, 0] < 12:
            eyes = eyes[:1]
    if not len(eyes):
        apart = EYE_APART * min(half / 75, 1)
        eyes = np.array([[-apart, EYE_LEVEL], [apart, EYE_LEVEL]])
    matrix = np.column_stack([scale * np.eye(2), center])
    return Place(matrix, -half, half, eyes)


# === What is pasted ===


class Occluders:
    """Cut-outs to paste, (h, w, 4) uint8 RGBA, and patterns.

    Args:
        folder: one sub-folder a kind.
        held_out: take those kept for measuring, and not those for training.
    """

    def __init__(self, folder: Path, *, held_out: bool = False) -> None:
        self.names: dict[str, list[str]] = {}
        self.images: dict[str, list[list[UInt8]]] = {}
        for kind in ("hands", "glasses", "masks", "objects", "hats"):
            for path in sorted((folder / kind).glob("*.png")):
                if is_held_out(path) != held_out:
                    continue
                use = kind
                if path.stem.startswith("top_face"):
                    use = "hats"
                elif path.stem.startswith("eye_sunglasses"):
                    use = "glasses"
                elif path.stem.startswith(("eye_", "upper_face")):
                    use = "eyewear"
                elif "hand" in path.stem or "glove" in path.stem:
                    use = "hands"
                self.names.setdefault(use, []).append(f"{kind}/{path.name}")
                self.images.setdefault(use, []).append(_read(path))
        if not self.images:
            raise SystemExit(f"no cut-outs in {folder}")
        self.patterns = _patterns(np.random.default_rng(0), 64)

    def draw(self, rng: Rng, kind: str) -> list[UInt8] | None:
        """A cut-out at full and half size; None if there is none of its kind."""
        pool = self.images.get(kind)
        return pool[int(rng.integers(len(pool)))] if pool else None


def _read(path: Path) -> list[UInt8]:
    raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if raw is None or raw.ndim != 3 or raw.shape[2] != 4:
        raise SystemExit(f"{path} is not an RGBA picture")
    rows, columns = (np.flatnonzero((raw[..., 3] > 127).any(axis)) for axis in (1, 0))
    raw = raw[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    cutout = cv2.cvtColor(raw, cv2.COLOR_BGRA2RGBA)
    scale = LARGEST / max(cutout.shape[:2])
    if scale < 1:
        alpha = cutout[..., 3:].astype(np.float32) / 255
        layer = np.dstack([cutout[..., :3] * alpha, alpha])
        layer = cv2.resize(layer, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        rgb = layer[..., :3] / np.maximum(layer[..., 3:], 1e-3)
        cutout = np.rint(np.dstack([rgb, 255 * layer[..., 3]])).clip(0, 255).astype(np.uint8)
    # room for interpolation, and the colours of the rim carried beyond it: what was outside the
    # cut-out must not shine through where it is turned or shrunk
    cutout = cv2.copyMakeBorder(cutout, 3, 3, 3, 3, cv2.BORDER_CONSTANT, value=(0, 0, 0, 0))
    solid = (cutout[..., 3:] > 127).astype(np.float32)
    wide = cv2.GaussianBlur(np.dstack([cutout[..., :3] * solid, solid]), (0, 0), 2.0)
    around = wide[..., :3] / np.maximum(wide[..., 3:], 1e-4)
    cutout[..., :3] = np.where(solid > 0, cutout[..., :3], around.clip(0, 255)).astype(np.uint8)
    cutout = np.ascontiguousarray(cutout)
    half = cv2.resize(cutout, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return [cutout, half]


FORMS = 4  # of patterns, the first of them noise


def _patterns(rng: Rng, count: int, size: int = 256) -> list[UInt8]:
    """(size, size) uint8 patterns that tile: noise, stripes, checks, dots."""
    y, x = np.mgrid[:size, :size] * (2 * np.pi / size)
    out = []
    for k in range(count):
        noise = np.zeros((size, size), np.float32)
        rough = rng.uniform(0.4, 1.1)
        for octave in range(1, 8):
            cells = 2**octave
            grid = rng.normal(size=(cells, cells)).astype(np.float32)
            grid = np.pad(grid, 2, mode="wrap")
            wide = cv2.resize(grid, None, fx=size / cells, fy=size / cells)
            edge = 2 * size // cells
            noise += wide[edge : edge + size, edge : edge + size] * cells**-rough
        n = [int(v) for v in rng.integers(2, 24, 2)]
        form = k % FORMS
        if form == 1:
            pattern = np.sign(np.sin(n[0] * x)) * rng.uniform(0.3, 2)
        elif form == 2:
            pattern = np.sign(np.sin(n[0] * x)) + np.sign(np.sin(n[1] * y))
        elif form == 3:
            pattern = 2.0 * (np.sin(n[0] * x) + np.sin(n[0] * y) > rng.uniform(0.3, 1.5))
        else:
            pattern = np.zeros_like(x)
        mixed = pattern + noise * rng.uniform(0.2, 0.6) if form else noise
        low, high = np.percentile(mixed, [1, 99])
        out.append((255 * np.clip((mixed - low) / (high - low), 0, 1)).astype(np.uint8))
    return out


# === Pasting ===


class Canvas:
    """A picture, what of it is covered, and how things look in it."""

    def __init__(self, rng: Rng, image: UInt8, mask: UInt8, place: Place, things: Occluders):
        self.rng, self.image, self.place, self.things = rng, image, place, things
        self.alpha = np.zeros(image.shape[:2], np.float32)
        few = image[2::7, 2::7]
        face = mask[2::7, 2::7] == 1
        if face.sum() < 40:
            face = np.ones_like(face)
            middle = np.rint(place.points([[place.middle, 0]])[0] / 7).astype(int)
            face[:] = False
            x, y = np.clip(middle, 0, [face.shape[1] - 1, face.shape[0] - 1])
            face[max(y - 5, 0) : y + 6, max(x - 5, 0) : x + 6] = True
        self.tone = np.median(few[face], axis=0)
        # how colourful the face is, over what skin usually is: things share its camera and light
        share = float(np.ptp(self.tone) / max(self.tone.max(), 1.0)) / USUAL_COLOUR
        strict = share < 0.12 or rng.random() < 0.7
        self.colourful = min(share, 1.0) if strict else 1.0

    def colour(self, *, skin: float = 0.0) -> Float:
        """(3,) of a thing; of skin with that chance, the face's own or anyone's."""
        rng = self.rng
        if rng.random() < skin:
            tone = self.tone if rng.random() < OWN_TONE else TONES[rng.integers(len(TONES))]
            tone = tone * math.exp(rng.normal(0, 0.1)) * np.exp(rng.normal(0, 0.02, 3))
        else:
            tone = rng.uniform(0, 255, 3)
            if rng.random() < 0.5:  # most things are not gaudy
                tone = tone.mean() + rng.uniform(0, 0.4) * (tone - tone.mean())
        return np.asarray(np.clip(tone, 0, 255))

    def palette(self, skin: float = 0.0) -> UInt8:
        """(256, 3) colours of a pattern."""
        rng = self.rng
        first = self.colour(skin=skin)
        if rng.random() < skin + 0.4:  # one colour, lighter and darker
            reach = rng.uniform(0.05, 0.35)
            anchors = first * np.linspace(1 - reach, 1 + reach, 4)[:, None]
        else:
            anchors = np.array([first, *(self.colour() for _ in range(rng.integers(1, 4)))])
        t = np.linspace(0, len(anchors) - 1, 256)
        colours = [np.interp(t, np.arange(len(anchors)), anchors[:, k]) for k in range(3)]
        return np.clip(np.stack(colours, -1), 0, 255).astype(np.uint8)

    def pattern(
        self, box: tuple[int, int, int, int], palette: UInt8, *, plain: bool = False
    ) -> UInt8:
        """(h, w, 3) pattern in those colours for a box x0, y0, x1, y1; plain: irregular ones."""
        rng, (x0, y0, x1, y1) = self.rng, box
        k = int(rng.integers(len(self.things.patterns)))
        grey = self.things.patterns[k - k % FORMS if plain else k]
        zoom, angle = math.exp(rng.uniform(-0.7, 1.2)), rng.uniform(-math.pi, math.pi)
        cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
        m = np.array([[cos, -sin, rng.uniform(0, 256)], [sin, cos, rng.uniform(0, 256)]])
        grey = cv2.warpAffine(
            grey, m, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
        )
        return np.asarray(cv2.LUT(cv2.merge([grey] * 3), palette[None]))

    def box(self, points: Float, margin: int = 3) -> tuple[int, int, int, int] | None:
        """Pixels round points (n, 2), inside the picture."""
        height, width = self.alpha.shape
        x0, y0 = np.floor(points.min(0)).astype(int) - margin
        x1, y1 = np.ceil(points.max(0)).astype(int) + margin + 1
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
        return (int(x0), int(y0), int(x1), int(y1)) if x1 > x0 and y1 > y0 else None

    def blend(
        self, colour: UInt8, alpha: UInt8, box: tuple[int, int, int, int], *, shadow: bool = True
    ) -> None:
        """Lays colours (h, w, 3) with opacity (h, w) over a box of the picture."""
        rng, (x0, y0, x1, y1) = self.rng, box
        if self.colourful < 0.9:
            grey = (1 - self.colourful) / 3 * np.ones((3, 3))
            colour = cv2.transform(colour, grey + self.colourful * np.eye(3))
        if shadow and rng.random() < SHADOWED:
            self._shadow(alpha, box)
        if rng.random() < SOFT:
            sigma = rng.uniform(0.5, 1.3) if rng.random() < 0.85 else rng.uniform(1.3, 3.0)
            alpha = cv2.GaussianBlur(alpha, (0, 0), sigma)
            colour = cv2.GaussianBlur(colour, (0, 0), sigma)
        a = alpha.astype(np.float32) * np.float32(1 / 255)
        part = self.image[y0:y1, x0:x1]
        part[:] = cv2.blendLinear(colour, part, a, 1 - a)
        total = self.alpha[y0:y1, x0:x1]
        total += a * (1 - total)

    def _shadow(self, alpha: UInt8, box: tuple[int, int, int, int]) -> None:
        """Darkens what lies beside a thing; that is still seen."""
        rng, (x0, y0, x1, y1) = self.rng, box
        height, width = self.alpha.shape
        reach = int(rng.uniform(2, 14) * self.place.scale)
        x0, y0 = max(x0 - reach, 0), max(y0 - reach, 0)
        x1, y1 = min(x1 + reach, width), min(y1 + reach, height)
        small = ((x1 - x0 + 3) // 4, (y1 - y0 + 3) // 4)
        shift = rng.uniform(-1, 1, 2) * reach / 2
        m = np.array([[0.25, 0, 0.0], [0, 0.25, 0.0]])
        m[:, 2] = (np.array([box[0] - x0, box[1] - y0]) + shift) / 4
        dark = cv2.warpAffine(alpha, m, small)
        side = 2 * max(reach // 8, 1) + 1
        dark = cv2.blur(cv2.blur(dark, (side, side)), (side, side))
        dark = cv2.resize(dark, (x1 - x0, y1 - y0)).astype(np.float32)
        dark *= np.float32(rng.uniform(0.2, 0.6) / 255)
        part = self.image[y0:y1, x0:x1]
        part[:] = cv2.blendLinear(np.zeros_like(part), part, dark, 1 - dark)

    def layer(self, box: tuple[int, int, int, int]) -> UInt8:
        return np.zeros((box[3] - box[1], box[2] - box[0]), np.uint8)

    def paste(
        self,
        cutout: list[UInt8],
        at: Any,
        size: float,
        angle: float,
        tone: Float | None = None,
        *,
        flip: bool | None = None,
    ) -> None:
        """A cut-out of `size` mm (larger side) with its middle at a point of the face."""
        rng = self.rng
        scale = size * self.place.scale / (max(cutout[0].shape[:2]) - 6)
        level = cutout[0]
        if scale < 0.6:
            level, scale = cutout[1], scale * 2
        h, w = level.shape[:2]
        turn = self.place.pixel_from_face[:, :2] / self.place.scale
        if flip is None:
            flip = bool(rng.random() < 0.5)
        cos, sin = scale * math.cos(angle), scale * math.sin(angle)
        m = turn @ np.array([[cos, -sin], [sin, cos]]) @ np.diag([-1.0 if flip else 1.0, 1.0])
        offset = self.place.points([at])[0] - m @ [(w - 1) / 2, (h - 1) / 2]
        corners = np.array([[0, 0], [w - 1, 0], [w - 1, h - 1], [0, h - 1]]) @ m.T + offset
        box = self.box(corners)
        if box is None:
            return
        level = self._toned(level, tone)
        warp = np.column_stack([m, offset - box[:2]])
        shape = (box[2] - box[0], box[3] - box[1])
        colour = cv2.warpAffine(
            level[..., :3], warp, shape, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        alpha = cv2.warpAffine(level[..., 3], warp, shape, flags=cv2.INTER_LINEAR)
        self.blend(colour, alpha, box)

    def _toned(self, cutout: UInt8, tone: Float | None) -> UInt8:
        """The cut-out in another tone; None: in other light."""
        rng, codes = self.rng, np.arange(256)[:, None]
        if tone is None:
            table = codes * rng.uniform(0.5, 1.15) * rng.uniform(0.85, 1.0, 3)
        else:
            few = cutout[::6, ::6]
            solid = few[few[..., 3] > 127][:, :3]
            mean = solid.mean(0) if len(solid) else np.full(3, 128.0)
            # bright ones do not gain contrast, nor burn out
            gain = np.clip(tone / np.maximum(mean, 1), 0.3, 1.1) * rng.uniform(0.7, 1.2)
            gain = np.minimum(gain, np.maximum((265 - tone) / 60, 0.25))
            table = tone + (codes - mean) * gain
        table = np.column_stack([np.clip(table, 0, 255), codes]).astype(np.uint8)
        return np.asarray(cv2.LUT(cutout, table[None]))


def occlude_window(
    rng: Rng, image: UInt8, mask: UInt8, place: Place, occluders: Occluders
) -> npt.NDArray[np.float32]:
    """Covers a face with up to three things, in place.

    Args:
        rng: decides what, and where.
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) uint8 face mask; 0 afterwards where more than half of a pixel is covered.
        place: of the face in the picture.
        occluders: cut-outs and patterns.

    Returns:
        (H, W) float32 in [0, 1], how far each pixel is covered.
    """
    canvas = Canvas(rng, image, mask, place, occluders)
    names, chances = list(KINDS), np.array(list(KINDS.values()))
    count = 1 + rng.choice(len(PIECES), p=PIECES)
    left, right = place.left, place.right
    corners = [[left, -0.4], [right, -0.4], [right, 0.4], [left, 0.4]]
    box = canvas.box(place.points(np.array(corners) * [1, FACE_HEIGHT]), 0)
    if box is None:
        return canvas.alpha
    face = (slice(box[1], box[3], 4), slice(box[0], box[2], 4))
    for _ in range(count):
        kind = names[rng.choice(len(names), p=chances / chances.sum())]
        DRAWN[kind](canvas)
        if float(canvas.alpha[face].mean()) > ENOUGH:
            break
    mask[canvas.alpha > 0.5] = 0
    return canvas.alpha


# === Kinds ===


def _somewhere(c: Canvas) -> Float:
    """A point on the face, or a little beyond it, mm."""
    x = c.rng.uniform(1.1 * c.place.left, 1.1 * c.place.right)
    return np.array([x, c.rng.uniform(-0.5, 0.55) * FACE_HEIGHT])


def _hand(c: Canvas) -> None:
    cutout = c.things.draw(c.rng, "hands")
    if cutout is None:
        return
    upright = c.rng.random() < 0.6
    angle = c.rng.normal(0, 0.7) if upright else c.rng.uniform(-math.pi, math.pi)
    c.paste(cutout, _somewhere(c), c.rng.uniform(110, 260), angle, c.colour(skin=0.95))


def _glasses_cutout(c: Canvas) -> None:
    kind = "eyewear" if c.rng.random() < 0.12 else "glasses"
    cutout = c.things.draw(c.rng, kind)
    if cutout is None:
        return
    eyes = c.place.eyes
    apart = eyes[1, 0] - eyes[0, 0] if len(eyes) == 2 else 40.0
    at = eyes.mean(0) + c.rng.normal(0, 3, 2)
    size = apart * c.rng.uniform(2.0, 2.5)
    tone = c.colour() if c.rng.random() < 0.2 else None
    c.paste(cutout, at, size, c.rng.normal(0, 0.05), tone)


def _mask_cutout(c: Canvas) -> None:
    cutout = c.things.draw(c.rng, "masks")
    if cutout is None:
        return
    at = np.array([c.place.middle, MOUTH_LEVEL + 6]) + c.rng.normal(0, 6, 2)
    tone = c.colour(skin=0.2) if c.rng.random() < 0.4 else None
    c.paste(cutout, at, c.rng.uniform(120, 190), c.rng.normal(0, 0.1), tone)


def _object(c: Canvas) -> None:
    cutout = c.things.draw(c.rng, "objects")
    if cutout is None:
        return
    at = _somewhere(c)
    if c.rng.random() < 0.6:  # most things are held before the mouth
        at = np.array([c.place.middle, MOUTH_LEVEL + 20]) + c.rng.normal(0, 25, 2)
    tone = c.colour(skin=0.1) if c.rng.random() < 0.3 else None
    c.paste(cutout, at, c.rng.uniform(80, 230), c.rng.normal(0, 0.4), tone)


def _hat(c: Canvas) -> None:
    cutout = c.things.draw(c.rng, "hats")
    if cutout is None:
        return
    at = np.array([0.0, -0.5 * FACE_HEIGHT + c.rng.uniform(-25, 25)])
    tone = c.colour() if c.rng.random() < 0.5 else None
    c.paste(cutout, at, c.rng.uniform(170, 260), c.rng.normal(0, 0.12), tone)


def _smooth(points: Any, rounds: int = 2) -> Float:
    """Closed polygon with its corners cut (Chaikin)."""
    p = np.asarray(points, np.float64)
    for _ in range(rounds):
        after = np.roll(p, -1, 0)
        p = np.stack([0.75 * p + 0.25 * after, 0.25 * p + 0.75 * after], 1).reshape(-1, 2)
    return p


_SHIFT = 4  # fractional bits of OpenCV's drawing


def _fixed(points: Float, box: tuple[int, int, int, int]) -> npt.NDArray[np.int32]:
    return np.rint((points - box[:2]) * 2**_SHIFT).astype(np.int32)


def _fill(alpha: UInt8, points: Float, box: tuple[int, int, int, int], value: int = 255) -> None:
    cv2.fillPoly(alpha, [_fixed(points, box)], value, cv2.LINE_AA, _SHIFT)


def _line(
    alpha: UInt8,
    points: Float,
    box: tuple[int, int, int, int],
    width: float,
    *,
    closed: bool = False,
    value: int = 255,
) -> None:
    thick = max(1, round(width))
    line = [_fixed(points, box)]
    cv2.polylines(alpha, line, closed, value, thick, cv2.LINE_AA, _SHIFT)


def _shaded(colour: UInt8, alpha: UInt8, depth: float, radius: float) -> UInt8:
    """A flat shape made round: darker towards its rim, over `radius` px."""
    inner = cv2.distanceTransform((alpha > 127).astype(np.uint8), cv2.DIST_L2, 3)
    rim = np.clip(1 - inner / max(radius, 1.0), 0, 1)
    table = (255 * (1 - depth * np.linspace(0, 1, 256) ** 2)).astype(np.uint8)
    light = cv2.LUT((255 * rim).astype(np.uint8), table)
    return np.asarray(cv2.multiply(colour, cv2.merge([light] * 3), scale=1 / 255))


def _shape(c: Canvas, outline: Float, palette: UInt8, depth: float, radius: float) -> None:
    """A shape (n, 2) mm in a pattern."""
    points = c.place.points(outline)
    box = c.box(points)
    if box is None:
        return
    alpha = c.layer(box)
    _fill(alpha, points, box)
    colour = c.pattern(box, palette)
    if depth > 0:
        colour = _shaded(colour, alpha, depth, radius * c.place.scale)
    c.blend(colour, alpha, box)


def _patch(c: Canvas) -> None:
    rng = c.rng
    at, size = _somewhere(c), rng.uniform(25, 110)
    form = rng.integers(3)
    if form == 0:  # blob
        angle = np.linspace(0, 2 * math.pi, 28, endpoint=False)
        radius = 1 + sum(
            rng.normal(0, 0.25 / k) * np.cos(k * angle + rng.uniform(0, 6)) for k in range(1, 6)
        )
        outline = np.column_stack([np.cos(angle), np.sin(angle) * rng.uniform(0.4, 1)])
        outline *= np.clip(radius, 0.3, 2)[:, None]
    elif form == 1:  # sheet
        outline = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1.0]]) * [1, rng.uniform(0.3, 1.2)]
        outline += rng.normal(0, 0.1, (4, 2))
    else:  # strip
        width = rng.uniform(0.04, 0.2)
        x = np.linspace(-2.5, 2.5, 8)
        bend = np.cumsum(rng.normal(0, 0.08, 8))
        outline = np.vstack(
            [np.column_stack([x, bend - width]), np.column_stack([x, bend + width])[::-1]]
        )
    turn = rng.uniform(-math.pi, math.pi)
    cos, sin = math.cos(turn), math.sin(turn)
    outline = at + size / 2 * outline @ np.array([[cos, sin], [-sin, cos]])
    flat = rng.random() < 0.3
    palette = c.palette(skin=0.35)
    if flat:
        palette[:] = palette[128]
    depth = 0.0 if flat or form == 1 else rng.uniform(0, 0.5)
    _shape(c, outline, palette, depth, 0.3 * size)


def _limb(c: Canvas) -> None:
    """Fingers, a fist, or an arm, of cylinders in the tone of skin."""
    rng, s = c.rng, c.place.scale
    at, turn = _somewhere(c), rng.uniform(-math.pi, math.pi)
    along = np.array([math.cos(turn), math.sin(turn)])
    across = np.array([-along[1], along[0]])
    pieces = []  # ends and widths, mm
    if rng.random() < 0.3:
        far = at + along * rng.uniform(80, 200)
        pieces.append((at - along * rng.uniform(0, 80), far, rng.uniform(40, 75)))
    else:
        width = rng.uniform(13, 20)
        for k in range(rng.integers(1, 5)):
            start = at + across * (k * width * rng.uniform(0.95, 1.3))
            tip = along + across * rng.normal(0, 0.12)
            pieces.append((start, start + tip * rng.uniform(40, 85), width))
        if rng.random() < 0.6:
            back = at + across * width * len(pieces) / 2
            palm = max(25.0, width * len(pieces))
            pieces.append((back - along * 10, back - along * rng.uniform(40, 120), palm))
    bare = rng.random() < 0.85
    palette = c.palette(skin=1.0 if bare else 0.0)
    ends = c.place.points(np.array([p for a, b, w in pieces for p in (a, b)]))
    box = c.box(ends, int(max(w for *_, w in pieces) * s / 2) + 3)
    if box is None:
        return
    colour, total = c.pattern(box, palette, plain=bare), c.layer(box)
    for k, (_, _, width) in enumerate(pieces):
        alpha = c.layer(box)
        _line(alpha, ends[2 * k : 2 * k + 2], box, width * s)
        if k < 5:  # each is round
            piece = _shaded(colour, alpha, rng.uniform(0.1, 0.45), width * s / 2)
            cv2.copyTo(piece, (alpha > 127).astype(np.uint8), colour)
        total = cv2.max(total, alpha)
    c.blend(colour, total, box)


def _cloth(c: Canvas) -> None:
    """A mask, a scarf or a veil over the lower face."""
    rng, place = c.rng, c.place
    top, bottom = rng.uniform(-22, 18), rng.uniform(70, 112)
    side = rng.uniform(0.8, 1.1)
    left, right, middle = side * place.left, side * place.right, place.middle
    droop = rng.uniform(5, 25)
    outline = [
        [left, top + droop],
        [(left + middle) / 2, top + droop / 2],
        [middle, top - rng.uniform(-5, 8)],
        [(right + middle) / 2, top + droop / 2],
        [right, top + droop],
        [0.9 * right, bottom - rng.uniform(20, 45)],
        [0.55 * right + 0.3 * middle, bottom],
        [0.55 * left + 0.3 * middle, bottom],
        [0.9 * left, bottom - rng.uniform(20, 45)],
    ]
    palette = c.palette(skin=0.15)
    if rng.random() < 0.4:
        palette[:] = (palette[128] * np.linspace(0.9, 1.0, 256)[:, None]).astype(np.uint8)
    points = place.points(_smooth(outline))
    ears = place.points([[1.15 * x, EYE_LEVEL + 30] for x in (place.left, place.right)])
    box = c.box(np.vstack([points, ears]))
    if box is None:
        return
    alpha, colour = c.layer(box), c.pattern(box, palette)
    _fill(alpha, points, box)
    colour = _shaded(colour, alpha, rng.uniform(0.1, 0.5), 40 * place.scale)
    if rng.random() < 0.4:  # pleats
        light = np.full(alpha.shape, 255, np.uint8)
        for y in np.linspace(top + droop, bottom - 20, rng.integers(2, 5)):
            fold = place.points([[left, y], [middle, y + rng.uniform(0, 8)], [right, y]])
            _line(light, fold, box, rng.uniform(1, 3), value=int(rng.integers(140, 220)))
        light = cv2.blur(light, (3, 3))
        colour = cv2.multiply(colour, cv2.merge([light] * 3), scale=1 / 255)
    if rng.random() < 0.5:  # straps to the ears
        for end, other in ((left, 1.15 * place.left), (right, 1.15 * place.right)):
            for y in (top + droop + 4, bottom - 40):
                strap = place.points([[0.9 * end, y], [other, EYE_LEVEL + 30]])
                _line(alpha, strap, box, rng.uniform(1, 3) * place.scale)
    c.blend(colour, alpha, box)


def _microphone(c: Canvas) -> None:
    rng, place = c.rng, c.place
    at = np.array([place.middle, MOUTH_LEVEL + 15]) + rng.normal(0, [22, 18])
    if rng.random() < 0.25:
        at = _somewhere(c)
    radius = rng.uniform(11, 30)
    turn = math.pi / 2 + rng.normal(0, 0.6)
    along = np.array([math.cos(turn), math.sin(turn)])
    across = np.array([-along[1], along[0]])
    w, end = radius * rng.uniform(0.4, 0.75), rng.uniform(60, 180)
    handle = [at - across * w, at + across * w]
    handle += [at + across * 0.7 * w + along * end, at - across * 0.7 * w + along * end]
    palette = c.palette()
    if rng.random() < 0.6:
        palette = (palette * rng.uniform(0.1, 0.5)).astype(np.uint8)
    _shape(c, np.array(handle), palette, rng.uniform(0.3, 0.8), w)
    angle = np.linspace(0, 2 * math.pi, 40, endpoint=False)
    ball = np.column_stack([np.cos(angle), np.sin(angle) * rng.uniform(0.9, 1.3)])
    palette = c.palette() if rng.random() < 0.5 else palette
    _shape(c, at + radius * ball, palette, rng.uniform(0.3, 0.8), radius)


def _cap(c: Canvas) -> None:
    """A band, a cap or a hood over the forehead."""
    rng, place = c.rng, c.place
    low = rng.uniform(-85, -42)
    bow = rng.uniform(-15, 12)
    high = low - rng.uniform(20, 40) if rng.random() < 0.3 else -150.0
    left, right = 1.2 * place.left, 1.2 * place.right
    outline = [[left, low - bow], [0.5 * left, low], [0, low + bow / 2], [0.5 * right, low]]
    outline += [[right, low - bow], [right, high], [0, high - 8], [left, high]]
    _shape(c, _smooth(outline), c.palette(skin=0.05), rng.uniform(0, 0.6), 25)


def _hair(c: Canvas) -> None:
    """Strands from above or from a side."""
    rng, place = c.rng, c.place
    count = int(math.exp(rng.uniform(2.0, 5.3)))
    side = rng.choice([-1.0, 1.0])
    root = np.array([side * rng.uniform(0, 70), -rng.uniform(105, 130)])
    heading = rng.normal(math.pi / 2 - 0.3 * side, 0.5)
    length = rng.uniform(50, 190)
    curl = rng.normal(0, 1.2)
    steps = np.linspace(0, 1, 9)
    width = math.exp(rng.uniform(0.5, 3.6))
    strands = []
    for _ in range(count):
        angle = heading + rng.normal(0, 0.07) + (curl + rng.normal(0, 0.2)) * steps
        step = length * rng.uniform(0.6, 1.05) / 8 * np.column_stack([np.cos(angle), np.sin(angle)])
        strands.append(root + rng.normal(0, [width, 6]) + np.cumsum(step, 0))
    points = place.points(np.concatenate(strands))
    box = c.box(points)
    if box is None:
        return
    lines = list(_fixed(points, box).reshape(count, -1, 2))
    alpha, shine = c.layer(box), c.layer(box)
    shine += 90
    thick = 1 if rng.random() < 0.8 else 2
    cv2.polylines(alpha, lines, False, int(rng.integers(110, 256)), thick, cv2.LINE_AA, _SHIFT)
    for k, value in enumerate((60, 120, 180, 240)):
        cv2.polylines(shine, lines[k::5], False, value, 1, cv2.LINE_AA, _SHIFT)
    brown = np.array([1.0, rng.uniform(0.6, 0.95), rng.uniform(0.3, 0.85)])
    palette = rng.uniform(20, 240) * brown * np.linspace(0.3, 1.4, 256)[:, None]
    palette = np.clip(palette, 0, 255).astype(np.uint8)
    c.blend(cv2.LUT(cv2.merge([shine] * 3), palette[None]), alpha, box)


def _glasses(c: Canvas) -> None:
    """Frames round the eyes, with clear, dark, graded or mirroring lenses."""
    rng, place, s = c.rng, c.place, c.place.scale
    eyes = place.eyes + rng.normal(0, [2, 2.5]) + [0, rng.uniform(0, 6)]
    if rng.random() < 0.05:
        eyes = eyes + [0, rng.uniform(-55, 35)]  # pushed up, or slipped down
    two = len(eyes) == 2
    apart = eyes[1, 0] - eyes[0, 0] if two else 0.0
    wide = apart * rng.uniform(0.68, 0.9) if two else rng.uniform(18, 32)
    high = rng.uniform(26, 50)
    # outline of the right lens as seen: a superellipse, leaning
    power, lean, drop = rng.uniform(1.7, 6), rng.uniform(-0.12, 0.3), rng.uniform(-0.1, 0.25)
    angle = np.linspace(0, 2 * math.pi, 36, endpoint=False)
    cos, sin = np.cos(angle), np.sin(angle)
    x = np.sign(cos) * np.abs(cos) ** (2 / power)
    y = np.sign(sin) * np.abs(sin) ** (2 / power)
    x = x * (1 - lean * y / 2)
    y = y * (1 + drop * x)
    lens = np.column_stack([wide / 2 * x, high / 2 * y])
    flips = [np.array([-1.0, 1.0]), np.array([1.0, 1.0])] if two else [np.array([1.0, 1.0])]
    lenses = [eye + lens * flip for eye, flip in zip(eyes, flips, strict=True)]

    # where the arms go: to the sides of the face, on a profile to its back
    arms = []
    lift = eyes[:, 1].mean() - high * rng.uniform(0.1, 0.4)
    if two:
        ends = [(lenses[0][:, 0].min(), place.left), (lenses[1][:, 0].max(), place.right)]
    else:
        back = place.right if place.right - eyes[0, 0] > eyes[0, 0] - place.left else place.left
        ends = [(eyes[0, 0] + math.copysign(wide / 2, back), back)]
    for start, end in ends:
        beyond = end + math.copysign(rng.uniform(0, 10), end)
        if (beyond - start) * end > 0:
            arms.append(np.array([[start, lift], [beyond, lift + rng.uniform(-4, 6)]]))

    outline = np.concatenate([*lenses, *arms])
    points = place.points(outline)
    box = c.box(points, 8)
    if box is None:
        return
    drawn = [place.points(one) for one in lenses]
    _lenses(c, drawn, box)

    wire = rng.random() < 0.45
    thick = rng.uniform(0.7, 1.5) if wire else rng.uniform(2, 6.5)
    frame = c.layer(box)
    rimless = rng.random()
    for one in drawn:
        if rimless < 0.08:
            break
        if rimless < 0.25:  # upper half alone
            _line(frame, one[len(one) // 2 :], box, thick * s)
        else:
            _line(frame, one, box, thick * s, closed=True)
    for arm in arms:
        _line(frame, place.points(arm), box, max(thick * rng.uniform(0.8, 1.5), 1) * s)
    if two:
        inner = lenses[0][:, 0].max(), lenses[1][:, 0].min()
        level = eyes[:, 1].mean() - high * rng.uniform(0.05, 0.3)
        bridge = [[inner[0], level], [sum(inner) / 2, level - rng.uniform(0, 5)], [inner[1], level]]
        _line(frame, place.points(bridge), box, max(thick, 1) * s)
    palette = c.palette(skin=0.06)
    style = rng.random()
    if style < 0.45:  # black and dark brown
        palette = (palette * rng.uniform(0.03, 0.35)).astype(np.uint8)
    elif style < 0.65:  # gold and silver, with glints
        metal = rng.uniform(0.5, 1) * np.array([1, rng.uniform(0.75, 1), rng.uniform(0.4, 1)])
        palette = np.clip(np.linspace(60, 300, 256)[:, None] * metal, 0, 255).astype(np.uint8)
    elif style < 0.75:  # clear plastic
        frame = (frame * rng.uniform(0.3, 0.8)).astype(np.uint8)
    c.blend(c.pattern(box, palette), frame, box)


def _lenses(c: Canvas, lenses: list[Float], box: tuple[int, int, int, int]) -> None:
    """Glass in outlines (n, 2) px: what shows the face through it stays face."""
    rng = c.rng
    shape = c.layer(box)
    for lens in lenses:
        _fill(shape, lens, box)
    kind = rng.choice(["clear", "dark", "graded", "mirror"], p=[0.5, 0.28, 0.14, 0.08])
    palette = c.palette()
    if kind == "clear":
        alpha = (shape * rng.uniform(0, 0.12)).astype(np.uint8)
        palette[:] = rng.uniform(150, 255, 3)
    elif kind == "mirror":
        alpha = (shape * rng.uniform(0.75, 1)).astype(np.uint8)
    else:
        palette = (palette * rng.uniform(0.02, 0.45)).astype(np.uint8)
        palette[:] = palette[128]
        if kind == "dark":
            alpha = (shape * rng.uniform(0.65, 1)).astype(np.uint8)
        else:
            low, high = (points for points in np.percentile(np.vstack(lenses)[:, 1], [0, 100]))
            rows = (np.arange(box[1], box[3]) - low) / max(high - low, 1)
            dense = np.clip(rng.uniform(0.7, 1) - rows * rng.uniform(0.3, 0.9), 0.02, 1)
            alpha = (shape * dense[:, None]).astype(np.uint8)
    if alpha.any():
        c.blend(c.pattern(box, palette), alpha, box, shadow=False)
    if rng.random() < (0.35 if kind == "clear" else 0.6):
        _reflections(c, lenses, shape, box)


def _reflections(
    c: Canvas, lenses: list[Float], shape: UInt8, box: tuple[int, int, int, int]
) -> None:
    rng = c.rng
    alpha = c.layer(box)
    slant, strength = rng.uniform(-1, 1), int(rng.uniform(60, 255))
    for lens in lenses:
        if rng.random() < 0.2:
            continue
        low, high = lens.min(0), lens.max(0)
        w, h = high - low
        for _ in range(rng.integers(1, 3)):
            x, wide = low[0] + rng.uniform(0, 0.8) * w, rng.uniform(0.05, 0.4) * w
            y0, y1 = low[1] + np.sort(rng.uniform(-0.2, 1.2, 2)) * h
            lean = slant * (y1 - y0)
            streak = [[x, y0], [x + wide, y0], [x + wide + lean, y1], [x + lean, y1]]
            _fill(alpha, np.array(streak), box, strength)
    alpha = cv2.min(cv2.blur(alpha, (3, 3)), shape)
    colour = np.empty((*alpha.shape, 3), np.uint8)
    colour[:] = rng.uniform(170, 255, 3)
    c.blend(colour, alpha, box, shadow=False)


DRAWN: dict[str, Callable[[Canvas], None]] = {
    "hands": _hand,
    "limbs": _limb,
    "glasses": _glasses,
    "glasses cut out": _glasses_cutout,
    "masks": _mask_cutout,
    "cloth": _cloth,
    "objects": _object,
    "microphones": _microphone,
    "hats": _hat,
    "caps": _cap,
    "hair": _hair,
    "patches": _patch,
}
