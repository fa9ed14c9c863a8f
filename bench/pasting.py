"""Pastes hands, objects, masks and glasses on faces, by measure and the same in every run."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import cv2
import numpy as np

# How often each kind is drawn.
KINDS = {"hands": 0.5, "objects": 0.25, "masks": 0.15, "glasses": 0.1}
# Longest side of a piece in face sizes (square root of the area of the face's box).
REACH = {"hands": 1.5, "objects": 1.6}
# Masks and glasses sit where they are worn: width in widths of the face, and height of the middle
# on the face, 0 top to 1 bottom of its box.
WORN = {"masks": (1.05, 0.72), "glasses": (1.0, 0.3)}
TOLERANCE = 0.01  # of the box: how close the covered share comes to what is asked for
_MOST_PIECES = 8
HELD_OUT = 5  # one cut-out in so many
# Mean colours of skin, sRGB, from light to dark.
TONES = np.array([[236, 196, 172], [214, 166, 138], [184, 132, 102], [140, 94, 70], [92, 60, 46]])


class Occluders:
    """The cut-outs of a folder with one sub-folder a kind."""

    def __init__(self, folder: Path, *, held_out: bool = False) -> None:
        """`held_out`: only those that the bump-map network did not see in training."""
        self._files = {
            kind: [
                p
                for p in sorted((folder / kind).glob("*.png"))
                if not p.stem.endswith(("_left", "_right"))  # masks of turned faces
                and not p.stem.startswith("top_face")  # hats stay above the face
                and (not held_out or zlib.crc32(p.name.encode()) % HELD_OUT == 0)
            ]
            for kind in KINDS
        }
        if not all(self._files.values()):
            raise SystemExit(f"no cut-outs in {folder}")

    def draw(self, kind: str, rng: np.random.Generator) -> np.ndarray:
        """(h, w, 4) uint8 RGBA, a random one of its kind."""
        return _read_cutout(self._files[kind][int(rng.integers(len(self._files[kind])))])

    def cover(
        self, image: np.ndarray, box: Sequence[float], fraction: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, float]:
        """Cover a share of a face.

        Args:
            image: (H, W, 3) uint8 RGB.
            box: x0, y0, x1, y1 px of the face.
            fraction: share of the box to cover, up to 0.9.
            rng: decides what is pasted, and where.

        Returns:
            The picture, and the share of the box (inside the photo) that it covers.
        """
        picture, kind = self.paste(image, box, fraction, rng)
        return picture, float((kind[_inside(box, kind.shape)] > 0).mean())

    def paste(
        self,
        image: np.ndarray,
        box: Sequence[float],
        fraction: float,
        rng: np.random.Generator,
        *,
        kinds: Mapping[str, float] = KINDS,
        face: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `cover`, with kinds drawn as often as `kinds` says; `face` (H, W) bool tells of which
        pixels a share is covered, None: of the box.

        Returns:
            The picture, and (H, W) uint8: 1 + the place in KINDS of what covers a pixel, 0 where
            nothing does.
        """
        height, width = image.shape[:2]
        x0, y0, x1, y1 = (float(v) for v in box)
        inside = _inside(box, (height, width))
        size = float(np.sqrt((x1 - x0) * (y1 - y0)))
        out = image.astype(np.float32)
        covered = np.zeros((height, width), bool)
        hidden_by = np.zeros((height, width), np.uint8)

        def share(mask: np.ndarray) -> float:
            return float(mask[inside if face is None else face].mean())

        for _ in range(_MOST_PIECES):
            if share(covered) >= fraction - TOLERANCE:
                break
            kind = str(rng.choice(list(kinds), p=list(kinds.values())))
            cutout = self.draw(kind, rng)
            if kind == "hands":
                cutout = _toned(cutout, _tone(image[inside], rng))
            if rng.random() < 0.5:
                cutout = cutout[:, ::-1]
            where = rng.random(2)
            angle = rng.uniform(-np.pi, np.pi)
            if kind in WORN:
                (largest, center), angle = _worn(kind, cutout, box), 0.0
            else:
                largest = REACH[kind] * size / max(cutout.shape[:2])
                # off the rim, where little of the piece would cover the face
                center = np.array([x0, y0]) + (0.1 + 0.8 * where) * [x1 - x0, y1 - y0]
                if kind == "objects":
                    angle /= 6  # cups and books are held upright

            def place(
                scale: float,
                cutout: np.ndarray = cutout,
                angle: float = angle,
                center: np.ndarray = center,
            ) -> np.ndarray:
                return _placed(cutout, scale, angle, center, (height, width))

            piece = place(largest)
            if share(covered | (piece[..., 3] > 0.5)) > fraction + TOLERANCE:
                if kind in WORN:
                    continue  # too large for this share, and its size is given
                low, high = 0.02 * largest, largest
                for _ in range(14):
                    scale = (low + high) / 2
                    piece = place(scale)
                    if share(covered | (piece[..., 3] > 0.5)) > fraction:
                        high = scale
                    else:
                        low = scale
            out = out * (1 - piece[..., 3:]) + piece[..., :3]
            covered |= piece[..., 3] > 0.5
            hidden_by[piece[..., 3] > 0.5] = 1 + list(KINDS).index(kind)
        return np.clip(np.rint(out), 0, 255).astype(np.uint8), hidden_by

    def wear(
        self, image: np.ndarray, box: Sequence[float], kind: str, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """One mask or one pair of glasses where it is worn, at its own size.

        Returns:
            The picture, and (H, W) bool: what covers a pixel.
        """
        cutout = self.draw(kind, rng)
        if rng.random() < 0.5:
            cutout = cutout[:, ::-1]
        scale, center = _worn(kind, cutout, box)
        piece = _placed(cutout, scale, 0.0, center, image.shape[:2])
        out = image * (1 - piece[..., 3:]) + piece[..., :3]
        return np.clip(np.rint(out), 0, 255).astype(np.uint8), piece[..., 3] > 0.5

    def paste_hand(
        self,
        image: np.ndarray,
        center: Sequence[float],
        length: float,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """A hand `length` px long with its middle at `center`."""
        cutout = self.draw("hands", rng)
        x, y = (int(v) for v in center)
        half = max(2, int(length / 2))
        around = image[max(0, y - half) : y + half, max(0, x - half) : x + half]
        cutout = _toned(cutout, _tone(around if around.size else image, rng))
        if rng.random() < 0.5:
            cutout = cutout[:, ::-1]
        angle = rng.uniform(-np.pi, np.pi)
        scale = length / max(cutout.shape[:2])
        piece = _placed(cutout, scale, angle, np.asarray(center, float), image.shape[:2])
        out = image * (1 - piece[..., 3:]) + piece[..., :3]
        return np.clip(np.rint(out), 0, 255).astype(np.uint8)


def _worn(kind: str, cutout: np.ndarray, box: Sequence[float]) -> tuple[float, np.ndarray]:
    """Scale and centre, px, of a cut-out that is worn on the face in a box."""
    x0, y0, x1, y1 = (float(v) for v in box)
    width, at = WORN[kind]
    return width * (x1 - x0) / cutout.shape[1], np.array([(x0 + x1) / 2, y0 + at * (y1 - y0)])


def _inside(box: Sequence[float], shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The pixels of a box that the photo has."""
    x0, y0, x1, y1 = (round(float(v)) for v in box)
    return slice(max(0, y0), min(shape[0], y1)), slice(max(0, x0), min(shape[1], x1))


@cache
def _read_cutout(path: Path) -> np.ndarray:
    raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if raw is None or raw.ndim != 3 or raw.shape[2] != 4:
        raise SystemExit(f"{path} is not an RGBA picture")
    rows, columns = (np.flatnonzero((raw[..., 3] > 127).any(axis)) for axis in (1, 0))
    raw = raw[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    factor = 400 / max(raw.shape[:2])
    cutout = cv2.cvtColor(raw, cv2.COLOR_BGRA2RGBA)
    if factor < 1:
        cutout = cv2.resize(cutout, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return cutout


def _tone(face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Colour of a hand: half of them the face's own, which is hardest to tell from it."""
    own = np.median(face.reshape(-1, 3), axis=0)
    tone = own if rng.random() < 0.5 else TONES[int(rng.integers(len(TONES)))]
    return tone * np.exp(rng.normal(0, 0.12))


def _toned(cutout: np.ndarray, tone: np.ndarray) -> np.ndarray:
    """The cut-out with another mean colour; bright ones do not gain contrast."""
    mean = cutout[cutout[..., 3] > 127][:, :3].mean(0)
    gain = np.clip(tone / np.maximum(mean, 1), 0.3, 1.0)
    rgb = np.clip(tone + (cutout[..., :3] - mean) * gain, 0, 255)
    return np.concatenate([rgb, cutout[..., 3:]], axis=2).astype(np.uint8)


def _placed(
    cutout: np.ndarray, scale: float, angle: float, center: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    """(H, W, 4) float32: colours times opacity, and opacity, of a cut-out on an empty picture."""
    layer = cutout.astype(np.float32)
    layer[..., 3] /= 255
    layer[..., :3] *= layer[..., 3:]
    if scale < 1:  # shrunk by area, so that it does not alias
        height, width = (max(1, round(side * scale)) for side in layer.shape[:2])
        layer = cv2.resize(layer, (width, height), interpolation=cv2.INTER_AREA)
        scale = 1.0
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    middle = np.array([layer.shape[1], layer.shape[0]]) / 2
    # OpenCV puts pixel centres at whole numbers
    matrix = np.column_stack([turn, center - 0.5 - turn @ (middle - 0.5)])
    return np.asarray(cv2.warpAffine(layer, matrix, (shape[1], shape[0]), flags=cv2.INTER_LINEAR))
