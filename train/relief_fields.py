"""Relief of faces (wrinkles, folds, pores, scars) and patterns of their colour, on the atlas.

Relief is mm along the normal, positive outward; colour is (H, W, 3) natural log of the factor on
linear light. The two are drawn independently, so that neither tells of the other.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from relief_atlas import HEIGHT, TEXEL, WIDTH, Atlas, Fields, Lines, splat, spots

MELANIN = np.array([0.55, 1.0, 1.25], np.float32)  # of a dark spot, per channel of log light
BLOOD = np.array([0.1, 1.0, 0.85], np.float32)
# Natural mottling of skin: scale of Fields, log contrast.
MOTTLE = ((0, 0.012), (1, 0.018), (2, 0.02), (3, 0.02), (4, 0.022), (5, 0.025), (6, 0.03))
GREY = np.array([1.0, 1.0, 1.0], np.float32)


def jitter(rng, points, sigma: float) -> np.ndarray:
    p = np.asarray(points, float)
    return p + rng.normal(0, sigma, p.shape)


class FaceMap:
    """Where wrinkles run and which part of the face is which; u > 0 is the subject's left."""

    def __init__(self, atlas: Atlas) -> None:
        self.atlas, self.fields = atlas, Fields()
        pair, blob = atlas.pair, atlas.blob
        self.cheeks = np.clip(1.2 * pair(42, -12, 15, 16), 0, 1)
        self.under_eyes = np.clip(1.3 * pair(31, 11, 12, 6), 0, 1)
        self.outer_eyes = np.clip(1.3 * pair(54, 22, 8, 11), 0, 1)
        self.forehead = np.clip(1.3 * blob(0, 64, 36, 11), 0, 1)
        self.nose = np.clip(1.2 * blob(0, -6, 9, 14), 0, 1)
        self.chin = np.clip(1.3 * blob(0, -72, 16, 9), 0, 1)
        self.round_mouth = np.clip(blob(0, -45, 26, 15) * (1 - atlas.lips), 0, 1)
        self.jowls = np.clip(1.2 * pair(45, -62, 16, 13), 0, 1)
        beard = pair(38, -62, 16, 14) + blob(0, -70, 22, 14) + 0.8 * blob(0, -30, 18, 4.5)
        beard += pair(62, -45, 10, 16)
        self.beard = np.clip(1.4 * beard, 0, 1) * (1 - atlas.lips) * (1 - atlas.mouth)
        self.oily = np.clip(self.forehead + self.nose + 0.6 * self.cheeks + 0.7 * self.chin, 0, 1)

    def lm(self, index: int, side: int = 1) -> np.ndarray:
        """u, v of a landmark on the subject's right (u < 0) brought to a side."""
        u, v = self.atlas.landmarks[index]
        return np.array([-side * u, v])

    # === Curves ===

    def forehead_lines(self, rng) -> list[np.ndarray]:
        out = []
        count, low = int(rng.integers(2, 7)), rng.uniform(52, 57)
        gap = rng.uniform(4.5, 8)
        arch, dip, tilt = rng.normal(1, 2), rng.uniform(0, 3.5), rng.normal(0, 0.03)
        reach = rng.uniform(26, 48)
        for i in range(count):
            v0 = low + i * gap * rng.uniform(0.85, 1.15)
            if v0 > 84:
                break
            half = reach * rng.uniform(0.7, 1.1)
            u = np.linspace(-half, half, 9) + rng.normal(0, 4)
            v = v0 + arch * (1 - (u / reach) ** 2) - dip * np.cos(np.pi * u / 26) + tilt * u
            curve = np.stack([u, v + rng.normal(0, 0.5, 9)], 1)
            if rng.random() < 0.4:  # broken in two
                k = int(rng.integers(3, 6))
                out += [curve[: k + 1], curve[k:] + [rng.uniform(0, 3), rng.normal(0, 1.5)]]
            else:
                out.append(curve)
        return out

    def frown_lines(self, rng) -> list[np.ndarray]:
        out = []
        for side in (-1, 1):
            for k in range(int(rng.integers(1, 3))):
                u = side * (rng.uniform(3.5, 8) + 5 * k)
                top = rng.uniform(48, 60)
                lean = side * rng.uniform(-1, 4)
                out.append(jitter(rng, [[u - 0.4 * lean, 37], [u, 43], [u + 0.3 * lean, top]], 0.5))
        if rng.random() < 0.5:
            out = out[int(rng.integers(1, len(out))) :]
        return out

    def root_lines(self, rng) -> list[np.ndarray]:
        v = rng.uniform(25, 33)
        return [
            jitter(rng, [[-8, v - 1], [-4, v], [0, v + 0.5], [4, v], [8, v - 1]], 0.4)
            + [0, rng.uniform(3, 5) * k]
            for k in range(int(rng.integers(1, 3)))
        ]

    def bunny_lines(self, rng, side: int) -> list[np.ndarray]:
        return [
            jitter(
                rng, [[side * 6, 17 - 4 * k], [side * 10, 19 - 4 * k], [side * 14, 18 - 4 * k]], 0.4
            )
            for k in range(int(rng.integers(1, 4)))
        ]

    def crows_feet(self, rng, side: int) -> list[np.ndarray]:
        corner = self.lm(33, side)
        out = []
        count = int(rng.integers(3, 8))
        angles = np.radians(np.linspace(38, -52, count) + rng.normal(0, 5, count))
        for a in angles:
            start, length = rng.uniform(4, 9), rng.uniform(8, 24)
            r = np.linspace(start, start + length, 4)
            bend = np.radians(rng.normal(-8, 12)) * np.linspace(0, 1, 4) ** 2
            direction = a + bend
            step = np.stack([side * np.cos(direction), np.sin(direction)], 1) * r[:, None]
            out.append(jitter(rng, corner + step, 0.4))
        return out

    def under_eye(self, rng, side: int, drop: float) -> np.ndarray:
        """An arc below the lower lid, `drop` mm under it."""
        inner, low, outer = (self.lm(i, side) for i in (133, 145, 33))
        a, c = inner + [side * 1.0, -1.0], outer + [side * 2.0, -1.0]
        b = low - [0, 2.0]
        d = np.array([0.35, 0.75, 1.0, 0.8, 0.45]) * drop
        at = [a, (a + b) / 2 - [0, 0.8], b, (b + c) / 2 - [0, 1.0], c]
        return jitter(rng, np.array(at) - np.stack([np.zeros(5), d], 1), 0.35)

    def tear_trough(self, rng, side: int, reach: float) -> np.ndarray:
        start = self.lm(133, side) + [side * 0.5, -5.0]
        way = np.array([[0, 0], [5, -6], [12, -10.5], [21, -12], [29, -9]])
        return jitter(rng, start + way[: 3 + round(2 * reach)] * [side, 1], 0.5)

    def nasolabial(self, rng, side: int, out: float = 0.0) -> np.ndarray:
        ala, corner = self.lm(129, side), self.lm(61, side)
        shift = rng.normal(0, 1.2, 2)
        knots = np.array(
            [
                ala + [side * (1.5 + 0.6 * out), 1.5 + 0.4 * out],
                ala + [side * (6.5 + out), -6],
                corner + [side * (8.5 + out), 8],
                corner + [side * (9.5 + out), -3],
                corner + [side * (7.5 + 0.7 * out), -12 - 0.3 * out],
            ]
        )
        knots[2:] += shift * [0.8, 1]
        return jitter(rng, knots[: 4 + int(rng.random() < 0.6)], 0.45)

    def marionette(self, rng, side: int) -> np.ndarray:
        corner = self.lm(61, side)
        way = np.array([[2.5, -1], [5, -7], [6.5, -14], [7, rng.uniform(-26, -18)]])
        return jitter(rng, corner + way * [side, 1], 0.5)

    def mental(self, rng) -> np.ndarray:
        u = np.linspace(-1, 1, 5) * rng.uniform(12, 20)
        return jitter(rng, np.stack([u, -61.5 + rng.normal(0, 1) - 2.5 * (u / 16) ** 2], 1), 0.4)

    # === Relief ===

    def relief(self, rng, eta: Mapping[str, float], age: float, scans=None) -> np.ndarray:
        """(H, W) mm outward.

        Args:
            eta: expression coefficients by name; deepens the lines that it draws in the skin.
            age: 0 smooth to 1 deeply lined.
            scans: (n, H, W) relief of real heads, to mix in.
        """
        a, f, lines = self.atlas, self.fields, Lines()

        def both(name: str) -> np.ndarray:
            return np.array([eta[name + "Right"], eta[name + "Left"]])

        deep = float(np.exp(rng.normal(0.1, 0.25)))  # of this skin

        def amount(by_age: float, by_face: float) -> float:
            return float(np.clip((by_age * age + by_face) * rng.uniform(0.55, 1.6) * deep, 0, 1.8))

        raised = max(eta["browInnerUp"], 0.9 * both("browOuterUp").max())
        squeeze = both("browDown").max()
        smile = np.maximum(both("mouthSmile"), 0.8 * both("cheekSquint"))
        squint = np.maximum(both("cheekSquint"), np.maximum(0.5 * both("eyeSquint"), 0.6 * smile))
        sneer = np.maximum(both("noseSneer"), 0.3 * squeeze)

        # forehead
        if (s := amount(0.95, 1.0 * raised)) > 0.12:
            width = int(rng.integers(1, 4)) + int(s > 0.7)
            for curve in self.forehead_lines(rng):
                depth = s * rng.uniform(0.3, 0.8)
                lines.add(rng, curve, depth, width, taper=rng.uniform(0.15, 0.5), shoulders=0.5)
                if rng.random() < 0.3 * age:
                    near = curve + [rng.normal(0, 3), rng.uniform(1.5, 3)]
                    lines.add(rng, near, 0.4 * depth, max(width - 1, 0))
        if (s := amount(0.7, 1.1 * squeeze)) > 0.12:
            width = int(rng.integers(1, 4))
            for curve in self.frown_lines(rng):
                lines.add(rng, curve, s * rng.uniform(0.3, 1.0), width, shoulders=0.6)
        if (s := amount(0.45, 0.5 * squeeze + 0.5 * sneer.max())) > 0.15:
            for curve in self.root_lines(rng):
                lines.add(rng, curve, s * rng.uniform(0.15, 0.5), int(rng.integers(1, 4)))
        for k, side in enumerate((-1, 1)):
            if (s := amount(0.15, 0.9 * sneer[k])) > 0.15:
                for curve in self.bunny_lines(rng, side):
                    lines.add(rng, curve, s * rng.uniform(0.1, 0.4), int(rng.integers(0, 3)))
            # round the eyes
            if (s := amount(0.75, 0.8 * squint[k])) > 0.1:
                width = int(rng.integers(0, 3))
                for curve in self.crows_feet(rng, side):
                    lines.add(rng, curve, s * rng.uniform(0.1, 0.42), width, shoulders=0.45)
            if (s := amount(0.9, 0.5 * squint[k])) > 0.08:
                for drop in np.cumsum(rng.uniform(1.3, 3.0, int(rng.integers(1, 5)))):
                    curve = self.under_eye(rng, side, float(drop))
                    cut = int(rng.integers(0, 2))
                    depth = s * rng.uniform(0.08, 0.35)
                    lines.add(
                        rng,
                        curve[cut : 5 - int(rng.integers(0, 2))],
                        depth,
                        int(rng.integers(0, 3)),
                    )
            if (s := amount(0.9, 0.15)) > 0.15:  # bags
                depth = s * rng.uniform(0.2, 1.0)
                reach = rng.random()
                lines.add(
                    rng,
                    self.tear_trough(rng, side, reach),
                    depth,
                    int(rng.integers(3, 6)),
                    shoulders=0,
                )
                bag = self.under_eye(rng, side, rng.uniform(3.5, 6))
                lines.ridge(rng, bag, s * rng.uniform(0.2, 1.5), int(rng.integers(4, 6)))
                if rng.random() < 0.6:
                    low = self.under_eye(rng, side, rng.uniform(8, 12))
                    lines.add(rng, low, 0.8 * depth, int(rng.integers(2, 5)), shoulders=0.2)
            # round the mouth
            if (s := amount(0.8, 0.9 * smile[k] + 0.3 * sneer[k] + 0.12)) > 0.1:
                fold = self.nasolabial(rng, side)
                depth = s * rng.uniform(0.4, 1.7)
                width = int(rng.integers(2, 6))
                lines.add(rng, fold, depth, width, taper=0.3, shoulders=0)
                if age > 0.3 or rng.random() < 0.3:  # a sharp line at the bottom of the fold
                    lines.add(
                        rng,
                        fold,
                        depth * rng.uniform(0.1, 0.35),
                        int(rng.integers(0, 3)),
                        shoulders=0.1,
                    )
                beside = fold + [side * rng.uniform(5, 8), rng.uniform(0, 2.5)]
                lines.ridge(rng, beside, depth * rng.uniform(0.4, 1.1), 6)
            if (s := amount(0.3, 0.9 * smile[k])) > 0.25:
                for n in range(int(rng.integers(1, 3))):  # brackets round a smile
                    line = self.nasolabial(rng, side, out=rng.uniform(6, 10) + 6 * n)[1:]
                    lines.add(rng, line, s * rng.uniform(0.1, 0.5), int(rng.integers(1, 4)))
            if (s := amount(0.85, 0.4 * both("mouthFrown")[k])) > 0.15:
                line = self.marionette(rng, side)
                lines.add(
                    rng, line, s * rng.uniform(0.3, 1.2), int(rng.integers(1, 5)), shoulders=0.1
                )
                jowl = line[1:] + [side * rng.uniform(5, 9), -2]
                lines.ridge(rng, jowl, s * rng.uniform(0.1, 1.0), 6)
            if rng.random() < 0.1 + 0.1 * smile[k]:  # dimple
                at = self.lm(61, side) + [side * rng.uniform(7, 14), rng.uniform(-2, 6)]
                lines.add(rng, at + [[0, -4], [0.5, 0], [0, 4]], rng.uniform(0.3, 1.2), 4)
            if (s := amount(0.7, 0.3 * smile[k])) > 0.5:  # long lines down the cheek
                for _ in range(int(rng.integers(1, 7))):
                    way = np.array([[47, 6], [53, -6], [54, -20], [50, -36]]) * [side, 1]
                    way = jitter(rng, way, 1.2) + [side * rng.uniform(-12, 8), rng.uniform(-22, 10)]
                    cut = int(rng.integers(0, 2))
                    depth = s * rng.uniform(0.06, 0.3)
                    lines.add(rng, way[cut:], depth, int(rng.integers(0, 4)), shoulders=0.5)
            if rng.random() < 0.7 * age:  # hollow cheek and its upper edge
                way = np.array([[36, -4], [44, -14], [50, -28], [50, -44]]) * [side, 1]
                lines.add(rng, jitter(rng, way, 2), rng.uniform(0.2, 0.9) * age, 6, shoulders=0)
            brow = np.array([self.lm(i, side) for i in (55, 65, 52, 53, 46)]) + [0, 3]
            lines.ridge(rng, jitter(rng, brow, 0.6), rng.normal(0.3, 0.5), 5)
        # lips and chin
        if rng.random() < 0.85:
            lines.add(
                rng, self.mental(rng), rng.uniform(0.1, 1.0), int(rng.integers(3, 7)), shoulders=0.2
            )
        if (s := amount(0.9, 0.25 * eta["mouthPucker"])) > 0.25:  # lines across the lips' border
            self._radial(rng, lines, s)
        self._lip_creases(rng, lines, rng.uniform(0.03, 0.2) * (1 + age))
        if rng.random() < 0.35:
            lines.ridge(rng, [[-2.8, -24], [-3.2, -34]], rng.uniform(0.1, 0.5), 4)
            lines.ridge(rng, [[2.8, -24], [3.2, -34]], rng.uniform(0.1, 0.5), 4)
        out = lines.paint()
        if rng.random() < 0.2:
            out -= rng.uniform(0.2, 1.3) * a.blob(
                rng.normal(0, 1), -76, rng.uniform(1, 2.5), rng.uniform(1.5, 4)
            )
        if rng.random() < 0.2 + 0.3 * eta["mouthShrugLower"]:  # chin like orange peel
            out += self.chin * rng.uniform(0.05, 0.2) * f.draw(rng, int(rng.integers(3, 5)))

        # undulations, more in soft old cheeks
        lumps = (0.03 + 0.13 * age) * rng.uniform(0.3, 1.5)
        where = 0.5 + 0.6 * self.jowls + 0.5 * self.cheeks
        for scale, gain in ((4, 0.35), (5, 0.7), (6, 1.3), (7, 2.2)):
            out += (lumps * gain * rng.uniform(0.3, 1.3)) * where * f.draw(rng, scale)
        # crinkles: networks of creases, along the lid under the eyes
        if age > 0.25 and rng.random() < 0.8:
            crinkle = (age - 0.2) * rng.uniform(0.1, 0.5)
            n = f.draw_flat(rng, int(rng.integers(0, 3)))
            out -= (
                crinkle * 0.5 * _creases(n) * np.clip(self.under_eyes + 0.7 * self.forehead, 0, 1)
            )
            n = f.draw(rng, int(rng.integers(3, 5)))
            out -= (
                crinkle
                * 0.7
                * _creases(n)
                * np.clip(self.cheeks + self.outer_eyes + self.jowls, 0, 1)
            )
            n = f.draw_steep(rng, int(rng.integers(0, 3)))
            out -= crinkle * 0.5 * _creases(n) * np.clip(self.jowls + 0.6 * self.round_mouth, 0, 1)
        # fine texture and pores
        fine = rng.uniform(0.004, 0.03) * (1 + 0.7 * age)
        texture = fine * f.draw(rng, 1) + rng.uniform(0.002, 0.025) * f.draw(rng, 2)
        texture += rng.uniform(0.0, 0.02) * (1 + age) * f.draw(rng, 3)
        pores = np.minimum(f.draw(rng, int(rng.integers(0, 2))) + rng.uniform(0.5, 1.3), 0)
        pored = np.clip(0.35 + self.nose + 0.8 * self.cheeks + 0.4 * self.forehead, 0, 1.3)
        texture += rng.uniform(0.01, 0.06) * pored * pores
        out += texture * a.even * (0.25 + 0.75 * a.skin)
        out += self._marks(rng)
        if scans is not None and len(scans) and rng.random() < 0.5:
            scan = scans[rng.integers(len(scans))]
            scan = scan[:, ::-1] if rng.random() < 0.5 else scan
            out += rng.uniform(0.3, 1.5) * scan
        return out * a.skin

    def _radial(self, rng, lines: Lines, s: float) -> None:
        upper = self.atlas.landmarks[[61, 40, 37, 0, 267, 270, 291]]
        lower = self.atlas.landmarks[[61, 91, 84, 17, 314, 321, 291]]
        for border, way in ((upper, 1), (lower, -1)):
            for _ in range(int(rng.integers(3, 11))):
                p = _along(border, rng.uniform(0.1, 0.9))
                end = p + [0.15 * p[0] * rng.uniform(0, 2), way * rng.uniform(4, 10)]
                middle = (p + end) / 2 + rng.normal(0, 0.4, 2)
                start = p - [0, way * rng.uniform(0, 2)]
                depth = s * rng.uniform(0.05, 0.3) * (1 if way > 0 else 0.5)
                lines.add(rng, [start, middle, end], depth, int(rng.integers(0, 3)))

    def _lip_creases(self, rng, lines: Lines, depth: float) -> None:
        m = self.atlas.landmarks
        upper = [61, 40, 37, 0, 267, 270, 291], [78, 81, 82, 13, 312, 311, 308]
        lower = [61, 91, 84, 17, 314, 321, 291], [78, 178, 87, 14, 317, 402, 308]
        for out, inn in (upper, lower):
            for t in np.sort(rng.uniform(0.12, 0.88, int(rng.integers(8, 26)))):
                a, b = _along(m[out], t), _along(m[inn], t)
                ends = rng.uniform(0, 0.3), rng.uniform(0.7, 1)
                p, q = a + ends[0] * (b - a), a + ends[1] * (b - a)
                middle = (p + q) / 2 + rng.normal(0, 0.25, 2)
                lines.add(
                    rng,
                    [p, middle, q],
                    depth * rng.uniform(0.3, 1.5),
                    int(rng.integers(0, 2)),
                    shoulders=0.2,
                )

    def _marks(self, rng) -> np.ndarray:
        """Raised moles, pimples, pits and scars."""
        at, height, radius = [], [], []

        def put(
            count: int, h: tuple[float, float], r: tuple[float, float], spread=(34, 30)
        ) -> None:
            at.append(rng.normal([0, -8], spread, (count, 2)))
            height.append(rng.uniform(*h, count))
            radius.append(rng.uniform(*r, count))

        if rng.random() < 0.3:
            put(int(rng.integers(1, 5)), (0.2, 1.2), (0.7, 2.0))
        if rng.random() < 0.25:
            put(int(rng.integers(3, 40)), (0.08, 0.5), (0.5, 1.4))
        if rng.random() < 0.12:
            put(int(rng.integers(10, 120)), (-0.4, -0.08), (0.4, 1.1), (42, 18))
        out = np.zeros((HEIGHT, WIDTH), np.float32)
        if at:
            out += spots(np.concatenate(at), np.concatenate(height), np.concatenate(radius))
        if rng.random() < 0.12:
            lines = Lines()
            p, d = rng.normal([0, 0], [35, 35]), rng.normal(0, 9, 2)
            curve = jitter(rng, [p - d, p, p + d], 1.0)
            lines.add(
                rng, curve, rng.choice([-1, 1]) * rng.uniform(0.15, 0.8), int(rng.integers(1, 5))
            )
            out += lines.paint()
        return out

    # === Colour ===

    def brows(self, rng, color: np.ndarray) -> np.ndarray:
        """(H, W, 3) log factor of drawn hairs; color: log factor of a hair per channel."""
        points, values = [], []
        s = np.linspace(0, 1, 18)
        for side in (-1, 1):
            low = np.array([self.lm(i, side) for i in (55, 65, 52, 53, 46)])
            up = np.array([self.lm(i, side) for i in (107, 66, 105, 63, 70)])
            count = int(rng.integers(60, 220))
            t, c = rng.uniform(0, 1, count), rng.uniform(-0.1, 1.05, count)[:, None]
            start = _along(low, t).T * (1 - c) + _along(up, t).T * c
            lean = np.stack([np.full(count, side), 1.6 - 2.2 * t - c[:, 0]], 1)
            lean *= (rng.uniform(3, 7, count) / np.linalg.norm(lean, axis=1))[:, None]
            sag = rng.normal(0, 0.5, (count, 1, 2)) * (4 * s * (1 - s))[:, None]
            points.append((start[:, None] + lean[:, None] * s[:, None] + sag).reshape(-1, 2))
            values.append((rng.uniform(0.15, 0.5, (count, 1)) * (1 - 0.7 * s)).ravel())
        hairs = splat(np.concatenate(points), np.concatenate(values))
        hairs = np.minimum(cv2.GaussianBlur(hairs, (0, 0), 0.28 / TEXEL), 1.0)
        return hairs[..., None] * color.astype(np.float32)

    def lashes(self, rng, strength: float) -> np.ndarray:
        lines = Lines()
        for side in (-1, 1):
            upper = np.array([self.lm(i, side) for i in (133, 157, 159, 161, 33)])
            lower = np.array([self.lm(i, side) for i in (133, 154, 145, 163, 33)])
            lines.ridge(rng, upper + [0, 0.3], -strength, 2, taper=0.3)
            lines.ridge(rng, lower - [0, 0.3], -0.35 * strength, 1, taper=0.5)
        return lines.paint()[..., None] * GREY

    def stubble(self, rng, strength: float) -> np.ndarray:
        dots = np.maximum(self.fields.draw(rng, 0) - rng.uniform(-0.3, 0.8), 0)
        patchy = np.clip(0.8 + 0.3 * self.fields.draw(rng, 6), 0.2, 1.3)
        shade = self.beard * patchy * (0.35 + 0.9 * dots)
        return -strength * shade[..., None] * np.array([1.0, 0.92, 0.82], np.float32)

    def mottle(self, rng) -> np.ndarray:
        """The colour that all skin has: blood and pigment in patches of many sizes."""
        dark, red = (
            sum(
                np.float32(gain * rng.uniform(0.1, 1.1)) * self.fields.draw(rng, scale)
                for scale, gain in MOTTLE
            )
            for _ in range(2)
        )
        red += np.float32(rng.uniform(0, 0.16)) * (self.cheeks + self.nose + 0.5 * self.chin)
        dark += np.float32(rng.uniform(0, 0.18)) * self.under_eyes
        return np.dstack([-(m * dark + b * red) for m, b in zip(MELANIN, BLOOD, strict=True)])

    def pattern(self, rng) -> np.ndarray:
        """(H, W, 3) log factor of flat marks that look like relief or like nothing."""
        out = np.zeros((HEIGHT, WIDTH, 3), np.float32)
        f = self.fields

        def add(field: np.ndarray, tint: np.ndarray) -> None:
            nonlocal out
            out -= field[..., None] * tint

        def dots(count: int, strength, radius, spread=(34, 28)) -> np.ndarray:
            at = rng.normal([0, -3], spread, (count, 2))
            return spots(at, rng.uniform(*strength, count), rng.uniform(*radius, count))

        if rng.random() < 0.3:
            add(
                np.minimum(dots(int(rng.integers(20, 600)), (0.08, 0.5), (0.35, 1.2)), 0.9), MELANIN
            )
        if rng.random() < 0.45:
            add(np.minimum(dots(int(rng.integers(1, 12)), (0.4, 1.6), (0.5, 1.6)), 1.6), MELANIN)
        if rng.random() < 0.3:  # red spots
            add(dots(int(rng.integers(2, 40)), (0.1, 0.5), (0.7, 2.2)), BLOOD)
        if rng.random() < 0.25:  # spots of age, with edges
            n = f.draw(rng, int(rng.integers(3, 6))) + 0.3 * f.draw(rng, 2)
            edge = np.clip((n - rng.uniform(1.5, 2.3)) * rng.uniform(1.5, 6), 0, 1)
            add(rng.uniform(0.1, 0.5) * edge, MELANIN)
        if rng.random() < 0.35:  # blotches
            n = np.clip(f.draw(rng, int(rng.integers(4, 8))), 0, 2.5)
            add(rng.uniform(0.03, 0.15) * n, BLOOD if rng.random() < 0.6 else MELANIN)
        if rng.random() < 0.05:  # pale patches
            edge = np.clip((f.draw(rng, int(rng.integers(4, 8))) - 1.3) * rng.uniform(2, 5), 0, 1)
            add(-rng.uniform(0.05, 0.35) * edge, MELANIN)
        if rng.random() < 0.2:  # lines painted where wrinkles run, or anywhere
            add(self._painted_lines(rng), MELANIN if rng.random() < 0.5 else GREY)
        if rng.random() < 0.12:  # veins
            lines = Lines()
            for _ in range(int(rng.integers(2, 10))):
                p = rng.normal([0, 15], [40, 30])
                curve = p + np.cumsum(rng.normal(0, 4, (5, 2)), 0)
                lines.ridge(rng, curve, rng.uniform(0.03, 0.15), int(rng.integers(1, 4)))
            add(lines.paint(), np.array([1.0, 0.7, 0.3], np.float32))
        if rng.random() < 0.18:  # eye shadow, blush
            lid = np.clip(self.atlas.pair(33, 31, rng.uniform(8, 14), rng.uniform(3, 7)), 0, 1)
            add(rng.uniform(0.1, 0.8) * lid, rng.uniform(0.3, 1.2, 3).astype(np.float32))
            add(rng.uniform(0, 0.3) * self.cheeks, BLOOD)
        if rng.random() < 0.25:  # lipstick
            lips = np.clip(1.2 * self.atlas.lips, 0, 1)
            add(
                rng.uniform(0.1, 0.9) * lips,
                np.array([rng.uniform(-0.2, 0.5), 1.0, 0.75], np.float32),
            )
        if rng.random() < 0.06:  # drawn or tattooed
            lines = Lines()
            for _ in range(int(rng.integers(1, 5))):
                p = rng.normal([0, 0], [38, 40])
                curve = p + np.cumsum(rng.normal(0, 6, (6, 2)), 0)
                lines.ridge(rng, curve, rng.uniform(0.4, 1.6), int(rng.integers(1, 4)), taper=0.1)
            add(lines.paint(), rng.uniform(0.4, 1.2, 3).astype(np.float32))
        if rng.random() < 0.1:  # colour of scars
            lines = Lines()
            p, d = rng.normal([0, 0], [35, 35]), rng.normal(0, 9, 2)
            lines.ridge(
                rng,
                jitter(rng, [p - d, p, p + d], 1),
                rng.uniform(-0.3, 0.3),
                int(rng.integers(2, 5)),
            )
            add(lines.paint(), BLOOD)
        if rng.random() < 0.12:  # dark pores
            dots_ = np.maximum(f.draw(rng, 0) - 1.2, 0) * (self.nose + 0.4 * self.cheeks)
            add(rng.uniform(0.05, 0.25) * dots_, MELANIN)
        keep = 1 - np.clip(self.atlas.mouth + 0.7 * self.atlas.eyes, 0, 1)
        return np.clip(out, -2.5, 0.8) * keep[..., None]

    def _painted_lines(self, rng) -> np.ndarray:
        lines = Lines()
        side = int(rng.choice([-1, 1]))
        curves = [
            *self.forehead_lines(rng),
            *self.crows_feet(rng, side),
            self.nasolabial(rng, side),
            self.marionette(rng, side),
            self.under_eye(rng, side, rng.uniform(3, 9)),
            *self.frown_lines(rng),
        ]
        strength = rng.uniform(0.05, 0.4)
        for i in rng.permutation(len(curves))[: int(rng.integers(1, 8))]:
            curve = curves[i]
            if rng.random() < 0.5:
                curve = curve + rng.normal(0, 9, 2)
            lines.ridge(rng, curve, strength * rng.uniform(0.5, 1.5), int(rng.integers(0, 5)))
        return lines.paint()


def _along(border: np.ndarray, t: float) -> np.ndarray:
    x = np.linspace(0, 1, len(border))
    return np.array([np.interp(t, x, border[:, 0]), np.interp(t, x, border[:, 1])])


def _creases(noise: np.ndarray) -> np.ndarray:
    """1 along the zero lines of noise: a network as of skin that has been folded often."""
    return np.exp(-((noise / 0.35) ** 2)).astype(np.float32)
