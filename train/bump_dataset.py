"""Reads the store's windows (relief_store.py) and serves augmented crops to the bump network."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import torch
from pasting import Occluders, occlude_window, place_of
from relief_store import MAPS, UNKNOWN, WINDOW, open_set

SHARES = {"photos": 0.5, "synthetic": 0.3, "profiles": 0.08, "masked": 0.12}
SIZES = {1.0: 0.85, 1.25: 0.1, 1.5: 0.05}  # of crops, and how often
STRIDE = 64  # px: what the sizes of crops are multiples of
OCCLUDED = 0.5  # of the samples get something pasted
SCALE = 0.16  # largest change of size, in logarithms: 0.85 to 1.17
ROLL = math.radians(15)
VISIBLE = 0.05  # how far a pixel may be covered and still show relief
DROPPED_NORMALS = 0.05  # of the samples
NORMAL_TILT = math.radians(1.5)  # standard deviations of the foundation's made-up errors
NORMAL_SHIFT = 2.0  # px
MAX_MISSES = 10_000  # windows in a batch that teach nothing
# Steeper targets are where two surfaces overlap in depth (beside the nose), not relief.
MAX_STEP = 0.6  # mm per px

Sample = dict[str, np.ndarray]


class Windows:
    """All sets of a folder, joined; maps stay in the page cache."""

    def __init__(self, folder: Path, *, validation: bool) -> None:
        paths = sorted(folder.glob("*.npz"))
        if not paths:
            raise SystemExit(f"no sets in {folder}: run relief_photos.py and relief_synthesis.py")
        self.sets, rows, kinds, sizes = [], [], [], []
        for number, path in enumerate(paths):
            maps, entries = open_set(path.with_suffix(""))
            self.sets.append(maps)
            chosen = np.flatnonzero(entries["val"] == validation)
            rows.append(np.stack([np.full(len(chosen), number), chosen], 1))
            kinds.append(np.full(len(chosen), path.stem.split("_")[0]))
            sizes.append(entries["mm_per_pixel"][chosen])
        self.place = np.concatenate(rows)  # (N, 2) set, row in it
        self.kind = np.concatenate(kinds)  # (N,)
        self.mm_per_pixel = np.concatenate(sizes).astype(np.float32)  # (N,)

    def window(self, index: int) -> Sample:
        """The maps of a window but its depth, as they are stored."""
        number, row = self.place[index]
        maps = {k: np.array(self.sets[number][k][row]) for k in MAPS if k != "depth"}
        return maps | {"detail_only": np.float32(self.kind[index] == "photos")}


def sampling_weights(kind: np.ndarray, shares: dict[str, float]) -> np.ndarray:
    """Probability of every window: each kind gets its share of those there are."""
    weight = np.zeros(len(kind))
    for name, share in shares.items():
        here = kind == name
        weight[here] = share / max(here.sum(), 1)
    if not weight.sum() > 0:
        raise SystemExit(f"no windows of any of the kinds {', '.join(shares)}")
    return weight / weight.sum()


class Crops(torch.utils.data.IterableDataset):
    """An endless stream of batches, the same for the same seed and start on any number of workers.

    Batches of larger crops have fewer of them, about as many pixels.

    Args:
        batch: samples of the usual size a step.
        start: first step.
    """

    def __init__(
        self,
        folder: Path,
        occluders: Path | None,
        shares: dict[str, float],
        size: int,
        batch: int,
        start: int,
        seed: int,
    ) -> None:
        self.folder, self.occluders, self.shares = folder, occluders, shares
        self.size, self.batch, self.start, self.seed = size, batch, start, seed

    def __iter__(self):
        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        windows = Windows(self.folder, validation=False)
        chance = sampling_weights(windows.kind, self.shares)
        occluders = Occluders(self.occluders) if self.occluders else None
        worker = torch.utils.data.get_worker_info()  # the loader takes batches in turn from each
        step = self.start + (worker.id if worker else 0)
        while True:
            rng = np.random.default_rng([self.seed, step])
            size = self.size * rng.choice([*SIZES], p=[*SIZES.values()])
            size = STRIDE * int(size / STRIDE)
            count = max(1, round(self.batch * (self.size / size) ** 2))
            samples, misses = [], 0
            while len(samples) < count:
                if misses > MAX_MISSES:
                    raise RuntimeError("no window has a target or a mask: see shading.py")
                window = windows.window(int(rng.choice(len(chance), p=chance)))
                if (window["trust"] > 0).any() or (window["mask"] == 1).any():
                    samples.append(make(rng, window, size, occluders))
                else:
                    misses += 1
            yield collate(samples)
            step += worker.num_workers if worker else 1


def make(
    rng: np.random.Generator, window: Sample, size: int, occluders: Occluders | None
) -> Sample:
    """An augmented crop of a window (as Windows.window has it), `size` px square.

    Returns:
        image (S, S, 3) uint8, normal (S, S, 2) int8, bump (S, S) float32 mm, trust (S, S) uint8,
        mask (S, S) uint8, detail_only float32 (see BumpLoss).
    """
    m = placement(rng, window["weight"], size)
    drift = rng.normal(0, NORMAL_SHIFT, 2) if rng.random() < 0.5 else np.zeros(2)
    # what lies beyond a photo is black, what lies beyond its crop is grey
    fill = 0 if rng.random() < 0.5 else 127
    out = transformed(window, m, size, drift=drift, fill=fill)
    if occluders and rng.random() < OCCLUDED:
        paste(rng, out, window["weight"], m, occluders)
        if not (window["mask"] == 1).any():
            # with occluders alone labelled, every photo of its kind would be read as occluded
            out["mask"][:] = UNKNOWN
    out["normal"] = disturbed(rng, out["normal"])
    photograph(rng, out)
    return out


def paste(
    rng: np.random.Generator,
    sample: Sample,
    weight: np.ndarray,
    m: np.ndarray,
    occluders: Occluders,
) -> None:
    """Covers the face of a sample that m made of a window with this weight, in place."""
    place = place_of(weight).moved(m)
    covered = occlude_window(rng, sample["image"], sample["mask"], place, occluders)
    sample["trust"][covered > VISIBLE] = 0


def placement(rng: np.random.Generator, weight: np.ndarray, size: int) -> np.ndarray:
    """(2, 3) crop pixel from window pixel: size, turn, mirror, and a place on the face."""
    # small and large crops alike reach beyond the window where the face does
    scale = math.exp(rng.uniform(-SCALE, SCALE))
    roll = float(np.clip(rng.normal(0, ROLL / 2), -ROLL, ROLL))
    cos, sin = scale * math.cos(roll), scale * math.sin(roll)
    m = np.array([[cos, -sin, 0.0], [sin, cos, 0.0]])
    if rng.random() < 0.5:
        m[:, 0] *= -1
    face = np.flatnonzero(weight)
    if len(face):
        at = face[rng.integers(len(face))]
        focus = 2 * np.array([at % weight.shape[1], at // weight.shape[1]]) + 0.5
    else:
        focus = np.full(2, (WINDOW - 1) / 2)
    # the crop stays inside the window, up to its turn
    reach = size / scale / 2
    low, high = min(reach, WINDOW / 2) - 0.5, max(WINDOW - reach, WINDOW / 2) - 0.5
    middle = np.clip(focus + rng.uniform(-0.25, 0.25, 2) * size, low, high)
    m[:, 2] = (size - 1) / 2 - m[:, :2] @ middle
    return m


def transformed(
    window: Sample, m: np.ndarray, size: int, *, drift=(0.0, 0.0), fill: int = 0
) -> Sample:
    """The maps of a window under the similarity m; outside the window nothing is known.

    Args:
        m: (2, 3) crop pixel from window pixel, OpenCV's pixel centres.
        drift: px by which the foundation's normals are off.
        fill: grey of the image outside the window.
    """

    def warp(a: np.ndarray, flags: int = cv2.INTER_LINEAR, border: float = 0) -> np.ndarray:
        fill = (border,) * 4
        return cv2.warpAffine(
            a, m, (size, size), flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=fill
        )

    scale = math.sqrt(abs(np.linalg.det(m[:, :2])))
    half = m.copy()  # from pixels of twice the size
    half[:, 2] += m[:, :2] @ [0.5, 0.5] + drift
    half[:, :2] *= 2
    normal = cv2.warpAffine(window["normal"].astype(np.float32), half, (size, size))
    trust = window["trust"]
    # a bump beside a place without target would be mixed with its 0
    weighted = warp(window["bump"].astype(np.float32) * (trust > 0))
    share = warp((trust > 0).astype(np.float32))
    bump = weighted / np.maximum(share, np.float32(1e-3))
    known = share > 0.5
    known &= ~cliffs(bump, known)
    return {
        "image": warp(window["image"], border=fill),
        # normals turn and mirror with the picture
        "normal": cv2.transform(normal, m[:, :2] / scale),
        # the network takes a pixel for the same length always: a face twice as large is twice as
        # deep, and as steep
        "bump": bump * np.float32(scale),
        "trust": np.where(known, warp(trust), np.uint8(0)),
        "mask": warp(window["mask"], cv2.INTER_NEAREST, UNKNOWN),
        "detail_only": window["detail_only"],
    }


def cliffs(bump: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(S, S) bool, pixels of a bump map (mm) on or next to a step between known ones."""
    square = np.ones((3, 3), np.uint8)
    high = cv2.dilate(np.where(known, bump, np.float32(-1e3)), square)
    low = cv2.erode(np.where(known, bump, np.float32(1e3)), square)
    return cv2.dilate((high - low > 2 * MAX_STEP).view(np.uint8), square) > 0


def disturbed(rng: np.random.Generator, normal: np.ndarray) -> np.ndarray:
    """(S, S, 2) int8 × 127: the foundation's normals a little tilted, or none at all."""
    if rng.random() < DROPPED_NORMALS:
        return np.zeros(normal.shape, np.int8)
    if rng.random() < 0.5:
        tilt = 127 * rng.normal(0, NORMAL_TILT, 2).astype(np.float32)
        normal = np.where((normal != 0).any(2, keepdims=True), normal + tilt, normal)
    return np.rint(np.clip(normal, -127, 127)).astype(np.int8)


def photograph(rng: np.random.Generator, out: Sample) -> None:
    """Focus, light, colour, noise and compression, in place; what blurs takes its relief along."""
    image, size = out["image"], len(out["image"])
    blur = 0.0  # px, standard deviation
    if rng.random() < 0.25:
        reduce = rng.uniform(1.1, 3.0)
        small = max(round(size / reduce), 8)
        image = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
        image = cv2.resize(image, (size, size), interpolation=int(rng.choice([1, 2])))
        blur = 0.45 * math.sqrt(reduce**2 - 1)
    elif rng.random() < 0.2:
        blur = rng.uniform(0.4, 1.5)
        image = cv2.GaussianBlur(image, (0, 0), blur)
    if blur > 0.6:
        trust = out["trust"].astype(np.float32)
        share = cv2.GaussianBlur(trust, (0, 0), blur)
        soft = cv2.GaussianBlur(out["bump"] * trust, (0, 0), blur)
        out["bump"] = soft / np.maximum(share, np.float32(1e-3))
    if rng.random() < 0.1:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    elif rng.random() < 0.5:
        grey = np.full((3, 3), 1 / 3)
        colour = grey + rng.uniform(0.5, 1.4) * (np.eye(3) - grey)
        image = cv2.transform(image, colour * rng.uniform(0.9, 1.1, (3, 1)))
    if rng.random() < 0.7:
        image = cv2.LUT(image, tone(rng, float(image[::8, ::8].mean())))
    if rng.random() < 0.25:
        noise = np.empty(image.shape, np.int16)
        cv2.setRNGSeed(int(rng.integers(1 << 30)))
        cv2.randn(noise, (0, 0, 0), (float(rng.uniform(1, 9)),) * 3)
        image = cv2.add(image, noise, dtype=cv2.CV_8U)
    if rng.random() < 0.25:
        quality = int(rng.integers(35, 95))
        _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])
    out["image"] = image


def tone(rng: np.random.Generator, mean: float) -> np.ndarray:
    """(256,) uint8: exposure, contrast about the mean, and gamma."""
    x = np.arange(256) / 255
    x = x ** rng.uniform(0.75, 1.35)
    x = (x - mean / 255) * rng.uniform(0.7, 1.25) + mean / 255 * rng.uniform(0.65, 1.3)
    return np.rint(255 * np.clip(x, 0, 1)).astype(np.uint8)


def clean(window: Sample) -> Sample:
    """The whole window as it is: to judge by."""
    return transformed(window, np.eye(2, 3), WINDOW) | {"image": window["image"].copy()}


def collate(samples: list[Sample]) -> dict[str, torch.Tensor]:
    return {k: torch.from_numpy(np.stack([s[k] for s in samples])) for k in samples[0]}


def inputs(batch: dict[str, torch.Tensor], channels: int = 5) -> torch.Tensor:
    """(B, channels, H, W) of images and, with 5, normals; channels last in memory."""
    x = batch["image"] / 127.5 - 1
    if channels > 3:
        x = torch.cat([x, batch["normal"] / 127], 3)
    return x.permute(0, 3, 1, 2)
