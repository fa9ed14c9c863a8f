"""Reads the sets that labels.py and synthesis.py write, and serves augmented samples."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import torch
from augment import (
    DETECTED,
    REFINED,
    SEARCHED,
    Backgrounds,
    Occluders,
    degrade,
    jittered,
    occlude,
)
from store import STORE_SIZE

from extreme3d_fast.head_model import HeadModel

FIELDS = ("identity", "expression", "rotation", "translation", "val")
WEIGHTS = ("weight_identity", "weight_expression", "weight_pose")
DESCRIPTOR = 128


@dataclasses.dataclass
class Mirror:
    """What a mirrored photo does to the labels."""

    identity: np.ndarray  # (K, K)
    expression: np.ndarray  # (E,) indices

    @classmethod
    def of(cls, model: HeadModel) -> Mirror:
        basis = model.identity.reshape(model.n_identity, -1).astype(np.float64)
        swapped = model.identity[:, model.coarse_mirror] * [-1.0, 1.0, 1.0]
        # the basis nearly spans its own mirror image: 0.4 mm are lost of a typical head
        turn = np.linalg.lstsq(basis.T, swapped.reshape(len(basis), -1).T, rcond=None)[0]
        names = list(model.expression_names)

        def other(name: str) -> str:
            for a, b in (("Left", "Right"), ("Right", "Left")):
                if name.endswith(a):
                    return name[: -len(a)] + b
            return {"jawLeft": "jawRight", "jawRight": "jawLeft"}.get(name, name)

        return cls(turn.astype(np.float32), np.array([names.index(other(n)) for n in names]))


class Photos:
    """One set on disk; images stay in the page cache."""

    def __init__(self, path: Path) -> None:
        with np.load(path.with_suffix(".npz")) as arrays:
            self.labels = {k: arrays[k] for k in (*FIELDS, *WEIGHTS, "name", "person")}
        self.images = np.load(path.with_suffix(".npy"), mmap_mode="r")
        if len(self.images) != len(self.labels["name"]):
            raise SystemExit(f"{path}: images and labels differ in number")


class Data:
    """All sets of a folder, joined."""

    def __init__(self, folder: Path, *, validation: bool) -> None:
        paths = sorted(p for p in folder.glob("*.npz") if p.with_suffix(".npy").exists())
        if not paths:
            raise SystemExit(f"no training sets in {folder}: run labels.py and synthesis.py")
        self.sets = [Photos(p) for p in paths]
        self.kind = np.concatenate(
            [
                np.full(len(s.images), p.stem.split("_")[0])
                for s, p in zip(self.sets, paths, strict=True)
            ]
        )
        self.place = np.concatenate(
            [
                np.stack([np.full(len(s.images), i), np.arange(len(s.images))], 1)
                for i, s in enumerate(self.sets)
            ]
        )
        mined = folder / "faceless.npy"
        self.faceless = np.load(mined, mmap_mode="r") if mined.exists() else None
        for key in (*FIELDS, *WEIGHTS, "name", "person"):
            setattr(self, key, np.concatenate([s.labels[key] for s in self.sets]))
        self.descriptor = np.full((len(self.name), DESCRIPTOR), np.nan, np.float32)
        known = folder / "descriptors.npz"
        if known.exists():
            with np.load(known) as arrays:
                row = {n: i for i, n in enumerate(arrays["name"].tolist())}
                found = arrays["descriptor"]
            for i, name in enumerate(self.name.tolist()):
                if name in row:
                    self.descriptor[i] = found[row[name]]
        self.rows = np.flatnonzero(self.val == validation)
        self.real = self.kind != "synthetic"

    def image(self, row: int) -> np.ndarray:
        which, index = self.place[row]
        return np.array(self.sets[which].images[index])


def sampling_weights(data: Data, synthetic_share: float) -> np.ndarray:
    """Probability of every row: turned real faces more often, synthetic ones their share."""
    forward = data.rotation[data.rows, :, 2]  # head's z axis in the camera
    turn = np.degrees(np.arccos(np.clip(-forward[:, 2], -1, 1)))
    weight = np.where(turn > 45, 6.0, np.where(turn > 30, 3.0, np.where(turn > 18, 1.5, 1.0)))
    weight *= np.where(data.kind[data.rows] == "profiles", 1.5, 1.0)
    real = data.real[data.rows]
    if not real.any() or real.all():
        return weight / weight.sum()
    weight[~real] = 1.0
    weight[real] *= (1 - synthetic_share) / weight[real].sum()
    weight[~real] *= synthetic_share / weight[~real].sum()
    return weight / weight.sum()


class Samples(torch.utils.data.IterableDataset):
    """An endless stream of batches, the same for the same seed and start on any number of workers.

    Args:
        task: "pose" (wide jitter, negatives) or "foundation" (fine jitter, persons in pairs).
        size: side of the crops, px.
        batch: samples a step.
        start: first step.
    """

    def __init__(
        self, folder: Path, occluders: Path, task: str, size: int, batch: int, start: int, seed: int
    ) -> None:
        self.folder, self.occluders, self.task, self.size = folder, occluders, task, size
        self.batch, self.start, self.seed = batch, start, seed

    def __iter__(self):
        cv2.setNumThreads(1)
        data = Data(self.folder, validation=False)
        maker = SampleMaker(data, self.occluders, self.task, self.size)
        chance = sampling_weights(data, 0.45 if self.task == "pose" else 0.3)
        persons: dict[str, list[int]] = {}
        for i in data.rows[data.real[data.rows]]:
            persons.setdefault(data.person[i], []).append(int(i))
        several = [p for p in persons.values() if len(p) > 2]
        worker = torch.utils.data.get_worker_info()  # the loader takes batches in turn from each
        step = self.start + (worker.id if worker else 0)
        while True:
            rng = np.random.default_rng([self.seed, step])
            rows = data.rows[rng.choice(len(data.rows), self.batch, p=chance)]
            if self.task == "foundation" and several:
                # a quarter of the batch: persons twice, which identity losses need
                n = self.batch // 8
                for j, who in enumerate(rng.choice(len(several), n)):
                    rows[2 * j : 2 * j + 2] = rng.choice(several[who], 2, replace=False)
            yield collate([maker.make(rng, int(row)) for row in rows])
            step += worker.num_workers if worker else 1


class SampleMaker:
    """Makes samples of `size` px from rows of the data."""

    def __init__(self, data: Data, occluders: Path, task: str, size: int) -> None:
        self.data, self.task, self.size = data, task, size
        self.occluders = Occluders(occluders)
        self.mirror = Mirror.of(HeadModel.load())
        real = next((s for s in data.sets if s.labels["name"][0].startswith("celeb")), data.sets[0])
        #: (n, h, w, 3) what an earlier network took for faces; mine_faceless.py
        self.faceless = data.faceless
        self.backgrounds = Backgrounds(real.images)

    def make(self, rng: np.random.Generator, row: int) -> dict[str, np.ndarray]:
        d = self.data
        if self.task == "pose" and rng.random() < 0.12:
            return self._negative(rng, row)
        image = d.image(row)
        rotation, translation = d.rotation[row].astype(float), d.translation[row].astype(float)
        identity, expression = d.identity[row], d.expression[row]
        if rng.random() < 0.5:
            image = np.ascontiguousarray(image[:, ::-1])
            m = np.diag([-1.0, 1.0, 1.0])
            rotation, translation = m @ rotation @ m, m @ translation
            identity = self.mirror.identity @ identity
            expression = expression[self.mirror.expression]
        if rng.random() < 0.6:
            occlude(rng, image, self.occluders, self.backgrounds)
        if self.task == "pose":
            jitter = (REFINED, DETECTED, SEARCHED)[rng.choice(3, p=[0.5, 0.36, 0.14])]
        else:
            jitter = REFINED if rng.random() < 0.85 else DETECTED
        crop, rotation, place = jittered(rng, image, rotation, translation, jitter, self.size)
        return self._sample(row, degrade(rng, crop), rotation, place, identity, expression)

    def make_clean(self, rng: np.random.Generator, row: int) -> dict[str, np.ndarray]:
        """The photo as it is, with the jitter of a second look: to judge by."""
        d = self.data
        rotation, translation = d.rotation[row].astype(float), d.translation[row].astype(float)
        crop, rotation, place = jittered(
            rng, d.image(row), rotation, translation, REFINED, self.size
        )
        return self._sample(row, crop, rotation, place, d.identity[row], d.expression[row])

    def _sample(
        self, row: int, crop, rotation, place, identity, expression
    ) -> dict[str, np.ndarray]:
        d = self.data
        return {
            "image": crop,
            "rotation": rotation.astype(np.float32),
            "place": place.astype(np.float32),
            "identity": identity.astype(np.float32),
            "expression": expression.astype(np.float32),
            "descriptor": d.descriptor[row],
            "weights": np.array([getattr(d, k)[row] for k in WEIGHTS], np.float32),
            "face": np.float32(fitness(place)),
        }

    def _faceless(self, rng: np.random.Generator, row: int) -> np.ndarray:
        """(STORE_SIZE, STORE_SIZE, 3) uint8 without a face that could be placed."""
        side = STORE_SIZE
        if self.faceless is not None and rng.random() < 0.6:
            mined = self.faceless[rng.integers(len(self.faceless))]
            mined = mined[:, ::-1] if rng.random() < 0.5 else mined
            return cv2.resize(np.ascontiguousarray(mined), (side, side))
        kind = rng.choice(["background", "noise", "gradient", "part", "collage"])
        if kind == "noise":
            cells = int(rng.choice([3, 6, 12, 24, 48, 96, 192]))
            channels = int(rng.choice([1, 3]))
            spread = rng.uniform(10, 120)
            noise = rng.normal(rng.uniform(30, 220), spread, (cells, cells, channels))
            image = np.repeat(np.clip(noise, 0, 255).astype(np.uint8), 3 // channels, 2)
            return cv2.resize(image, (side, side), interpolation=int(rng.choice([0, 1, 2])))
        if kind == "gradient":
            corners = rng.integers(0, 256, (2, 2, 3)).astype(np.uint8)
            return cv2.resize(corners, (side, side), interpolation=cv2.INTER_LINEAR)
        if kind == "part":  # so near, or so far aside, that the face cannot be told
            image = self.data.image(row)
            part = int(rng.uniform(14, 34))
            x, y = rng.integers(0, side - part, 2)
            return cv2.resize(image[y : y + part, x : x + part], (side, side))
        if kind == "collage":
            tiles = [[self.backgrounds.draw(rng, side // 2) for _ in range(2)] for _ in range(2)]
            return np.concatenate([np.concatenate(row, 1) for row in tiles], 0)
        return self.backgrounds.draw(rng, side)

    def _negative(self, rng: np.random.Generator, row: int) -> dict[str, np.ndarray]:
        image = self._faceless(rng, row)
        for _ in range(rng.choice(3, p=[0.6, 0.25, 0.15])):
            occlude(rng, image, self.occluders, self.backgrounds)
        d = self.data
        return {
            "image": degrade(rng, cv2.resize(image, (self.size, self.size))),
            "rotation": np.diag([1, -1, -1]).astype(np.float32),
            "place": np.zeros(3, np.float32),
            "identity": np.zeros_like(d.identity[row]),
            "expression": np.zeros_like(d.expression[row]),
            "descriptor": np.full(DESCRIPTOR, np.nan, np.float32),
            "weights": np.zeros(3, np.float32),
            "face": np.float32(0),
        }


def fitness(place: np.ndarray) -> float:
    """How well a crop is placed on its face, in [0, 1]: what the network's confidence learns."""
    return float(np.exp(-0.5 * ((place[0] ** 2 + place[1] ** 2) / 0.2**2 + (place[2] / 0.4) ** 2)))


def collate(samples: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    return {k: torch.from_numpy(np.stack([s[k] for s in samples])) for k in samples[0]}
