"""Trains a network that tells persons by their bump maps, to measure with (paper §5.2).

    python train/train_recognition.py --maps FOLDER --descriptors FILE --run DIR --out FILE.onnx

The maps come from bump_maps.py: clean ones, as the paper's. Few persons have several photos, so the
embedding mostly learns from dlib's descriptor of the photo (descriptors.py), and tells the training
persons of YouTube Faces apart. Resumes where it was stopped, as train_network.py does.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from descriptors import ranking
from export_network import LICENCE
from onnx_export import OPSET, shrink_weights
from relief_atlas import WIDTH, Atlas
from store import is_held_out
from torch import Tensor, nn
from torch.nn import functional as F
from train_network import fit, prepare

from extreme3d_fast.camera import Camera
from extreme3d_fast.head_model import HeadModel
from extreme3d_fast.mesh import transform_points

CROP = 500  # px
STEP = 4  # atlas texels to one of a map
ROWS, COLUMNS = 120, 112  # of a map: 216 mm from the hairline down, 202 mm round the face
UNIT_MM = 0.4  # of bump maps in the network
CLIP = 4.0  # of them
SIZE = 128  # of an embedding
CHANNELS = (32, 64, 96, 160)
TEMPERATURE, MARGIN = 0.05, 0.15  # of the cosines between embeddings and persons
SHIFT, TURN, ZOOM, GAIN, BLUR = 3.0, 0.05, 0.04, 0.25, 1.2  # texels, radians, shares, texels
INPUT_RULE = (
    "bump: mm, of the 500 px crop, positive is deeper; points: the head model's skin vertices "
    "projected into it, px, pixel centres at + 0.5"
)
SOURCE = (
    "trained on bump maps of YouTube Faces, CelebAMask-HQ and UTKFace, with dlib's face "
    "recognition network (CC0) as its teacher"
)


class Unrolling(nn.Module):
    """Bump maps on the unrolled head, where neither pose nor shape moves a part of the face.

    (N, S, S) bump in mm of crops of CROP px at any resolution, (N, V, 2) vertices in px ->
    (N, 2, ROWS, COLUMNS): bump in UNIT_MM, and 1 where the surface faces the camera.
    """

    def __init__(self, atlas: Atlas) -> None:
        super().__init__()
        left = (WIDTH - STEP * COLUMNS) // 2
        at = (slice(0, STEP * ROWS, STEP), slice(left, left + STEP * COLUMNS, STEP))
        triangle = atlas.raster.triangle[at].ravel()
        uv = atlas.raster.barycentric[at].reshape(-1, 2)
        inside = (triangle >= 0) & (atlas.weight[at].ravel() > 0)
        corners = np.where(inside[:, None], atlas.faces[np.maximum(triangle, 0)], 0)
        weights = np.concatenate([uv, 1 - uv.sum(1, keepdims=True)], 1)
        self.register_buffer("corners", torch.from_numpy(corners.astype(np.int64)))
        self.register_buffer("weights", torch.from_numpy(weights.astype(np.float32)))
        self.register_buffer("inside", torch.from_numpy(inside.astype(np.float32)))

    def forward(self, bump: Tensor, points: Tensor) -> Tensor:
        a, b, c = (points[:, self.corners[:, k]] for k in range(3))
        w = self.weights
        at = a * w[:, :1] + b * w[:, 1:2] + c * w[:, 2:]
        ab, ac = b - a, c - a
        # counter-clockwise seen from outside is clockwise with y down
        turn = ab[..., 0] * ac[..., 1] - ab[..., 1] * ac[..., 0]
        seen = (turn < 0).float() * self.inside
        grid = (at * (2 / CROP) - 1).unflatten(1, (ROWS, COLUMNS))
        value = F.grid_sample(bump[:, None], grid, align_corners=False)[:, 0]
        seen = seen.unflatten(1, (ROWS, COLUMNS))
        return torch.stack([(value / UNIT_MM).clamp(-CLIP, CLIP) * seen, seen], 1)


class Recogniser(nn.Module):
    """(N, 2, ROWS, COLUMNS) -> unit embeddings (N, SIZE), cosines to the training persons."""

    def __init__(self, persons: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 2
        for channels in CHANNELS:
            layers += [unit(before, channels, 2), unit(channels, channels)]
            before = channels
        self.layers = nn.Sequential(*layers)
        height, width = -(-ROWS // 2 ** len(CHANNELS)), -(-COLUMNS // 2 ** len(CHANNELS))
        # where something is matters: a weight of its own for each place
        self.pool = nn.Conv2d(before, before, (height, width), groups=before, bias=False)
        self.norm = nn.BatchNorm1d(before)
        self.last = nn.Linear(before, SIZE)
        self.person = nn.Parameter(torch.randn(persons, SIZE))

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.embed(maps)
        return embedding, embedding @ F.normalize(self.person, dim=1).T

    def embed(self, maps: Tensor) -> Tensor:
        x = self.norm(self.pool(self.layers(maps)).flatten(1))
        return F.normalize(self.last(x).float(), dim=1)


def unit(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride, 1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


class RecognitionLoss(nn.Module):
    """Away from the teacher's descriptor, nearer to another's, taken for another person."""

    def forward(self, out: tuple[Tensor, Tensor], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        embedding, cosine = out[0].float(), out[1].float()
        teacher, person = batch["descriptor"], batch["person"]
        near = embedding @ teacher.T
        same = (person[:, None] == person) & (person[:, None] >= 0)
        others = near.masked_fill(same.fill_diagonal_(False), -1.0)
        which = torch.arange(len(near), device=near.device)
        losses = {
            "distance": 1 - near.diagonal().mean(),
            "contrast": 0.2 * F.cross_entropy(others / TEMPERATURE, which),
        }
        known = person >= 0
        if known.any():
            own = F.one_hot(person[known], cosine.shape[1]) * MARGIN
            scores = (cosine[known] - own) / TEMPERATURE
            losses["person"] = 0.2 * F.cross_entropy(scores, person[known])
        return losses


# === Data ===


class Maps:
    """Unrolled maps of bump_maps.py with their teacher's descriptors.

    Attributes:
        maps: (n, 2, ROWS, COLUMNS) float16.
        descriptor: (n, 128) float32, unit, about their mean; the person's mean where known.
        person: (n,) number of the training persons of YouTube Faces, -1 for others.
        name: (n,) FOLDER/FILE.
        held_out: (n,) bool.
    """

    def __init__(self, folder: Path, descriptors: Path, unrolling: Unrolling) -> None:
        files = sorted(folder.glob("*.npz"))
        if not files:
            raise SystemExit(f"no bump maps in {folder}")
        model = HeadModel.load()
        with np.load(descriptors) as stored:
            described = dict(zip(stored["name"].tolist(), stored["descriptor"], strict=True))
        maps, names, persons = [], [], []
        for file in files:
            with np.load(file) as stored:
                rows = {key: stored[key] for key in stored.files}
            for i, name in enumerate(rows["name"].tolist()):
                if name not in described:
                    continue
                points = projected(model, {key: value[i] for key, value in rows.items()})
                bump = torch.from_numpy(rows["bump"][i].astype(np.float32))
                with torch.no_grad():
                    maps.append(unrolling(bump[None], torch.from_numpy(points)[None])[0].half())
                names.append(name)
                persons.append(str(rows["person"][i]))
        self.maps = torch.stack(maps)
        self.name = np.array(names)
        self.held_out = np.array([is_held_out(p) for p in persons])
        tube = np.char.startswith(self.name, "youtube_faces")
        numbers = {
            p: k for k, p in enumerate(sorted(set(np.array(persons)[tube & ~self.held_out])))
        }
        self.persons = len(numbers)
        number = [numbers.get(p, -1) if t else -1 for p, t in zip(persons, tube, strict=True)]
        self.person = torch.tensor(number)
        rows = np.stack([described[name] for name in names]).astype(np.float32)
        rows -= rows[~self.held_out].mean(0)
        for k in range(self.persons):
            rows[self.person.numpy() == k] = rows[self.person.numpy() == k].mean(0)
        self.descriptor = F.normalize(torch.from_numpy(rows), dim=1)


def projected(model: HeadModel, row: dict[str, np.ndarray]) -> np.ndarray:
    """(V, 2) float32 px of the crop: the skin's vertices of a row of bump_maps.py."""
    head = model.vertices(row["identity"], row["expression"], threads=1)
    camera = Camera(*row["camera"].tolist(), CROP, CROP)
    in_camera = transform_points(row["camera_from_head"], head[: model.skin_vertex_count])
    return np.asarray(camera.project(in_camera), np.float32)


class Batches(torch.utils.data.IterableDataset):
    """Batches of changed maps, the same for a step in every run."""

    def __init__(self, data: Maps, share: float, batch: int, start: int, seed: int) -> None:
        self.data, self.batch, self.start, self.seed = data, batch, start, seed
        known = data.person.numpy() >= 0
        groups = [np.flatnonzero(known), np.flatnonzero(~known & ~data.held_out)]
        rows = [(g, s) for g, s in zip(groups, (share, 1 - share), strict=True) if len(g)]
        if not rows:
            raise SystemExit("every bump map is of a held-out person")
        self.rows = np.concatenate([g for g, _ in rows])
        self.odds = np.concatenate([np.full(len(g), s / len(g)) for g, s in rows])
        self.odds /= self.odds.sum()

    def __iter__(self):
        step = self.start
        while True:
            rng = np.random.default_rng([self.seed, step])
            rows = rng.choice(self.rows, self.batch, p=self.odds)
            at = torch.from_numpy(rows)
            yield {
                "maps": changed(self.data.maps[at].float(), rng),
                "descriptor": self.data.descriptor[at],
                "person": self.data.person[at],
            }
            step += 1


def changed(maps: Tensor, rng: np.random.Generator) -> Tensor:
    """Maps moved, mirrored, of other strength and sharpness."""
    n = len(maps)
    turn, zoom = rng.normal(0, TURN, n), np.exp(rng.normal(0, ZOOM, n))
    shape = np.array([COLUMNS, ROWS])
    shift = rng.uniform(-SHIFT, SHIFT, (n, 2)) * 2 / shape
    cos, sin = zoom * np.cos(turn), zoom * np.sin(turn)
    flip = rng.choice([-1.0, 1.0], n)
    matrix = np.stack(
        [
            np.stack([flip * cos, -sin * ROWS / COLUMNS, shift[:, 0]], 1),
            np.stack([flip * sin * COLUMNS / ROWS, cos, shift[:, 1]], 1),
        ],
        1,
    )
    grid = F.affine_grid(torch.from_numpy(matrix.astype(np.float32)), list(maps.shape), False)
    moved = F.grid_sample(maps, grid, align_corners=False)
    sigma = rng.uniform(0, BLUR, n)
    taps = np.exp(-0.5 * (np.arange(-3, 4) / np.maximum(sigma, 1e-3)[:, None]) ** 2)
    taps = torch.from_numpy((taps / taps.sum(1, keepdims=True)).astype(np.float32))
    bump = moved[None, :, 0]
    bump = F.conv2d(bump, taps[:, None, None], padding=(0, 3), groups=n)
    bump = F.conv2d(bump, taps[:, None, :, None], padding=(3, 0), groups=n)[0]
    gain = torch.from_numpy(np.exp(rng.normal(0, GAIN, n)).astype(np.float32))
    return torch.stack([bump * gain[:, None, None], moved[:, 1]], 1)


class Validation:
    """How well held-out persons are told apart (ROC-AUC), and nearness to their descriptors."""

    def __init__(self, data: Maps, bf16: bool) -> None:
        here = np.flatnonzero(data.held_out & np.char.startswith(data.name, "youtube_faces"))
        self.maps, self.descriptor = data.maps[here], data.descriptor[here]
        self.bf16 = bf16
        stem = np.array([Path(name).stem for name in data.name[here]], dtype=str)
        first, second = np.triu_indices(len(here), 1)
        # names end in the video and the frame in it
        person = np.array([s.rsplit("_", 1)[0] for s in stem], dtype=str)
        video = np.array([s[:-1] for s in stem], dtype=str)
        self.pairs = first, second
        self.same = person[first] == person[second]
        self.other_video = video[first] != video[second]

    @torch.no_grad()
    def __call__(self, network: Recogniser) -> dict[str, Any]:
        if self.same.all() or not self.same.any():
            return {}
        device = next(network.parameters()).device
        network.eval()
        parts = []
        for part in self.maps.split(128):
            with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
                parts.append(network.embed(part.float().to(device)).float().cpu())
        embedding = torch.cat(parts)
        apart = -(embedding[self.pairs[0]] * embedding[self.pairs[1]]).sum(1).numpy()
        result = {"near": round(float((embedding * self.descriptor).sum(1).mean()), 4)}
        for name, here in (("auc", self.same), ("auc_other_video", self.same & self.other_video)):
            if here.any():
                result[name] = round(ranking(apart[here], apart[~self.same]), 4)
        return result


# === Export ===


class Shipped(nn.Module):
    """Bump map and projected vertices in, embedding out."""

    def __init__(self, unrolling: Unrolling, network: Recogniser) -> None:
        super().__init__()
        self.unrolling, self.network = unrolling, network

    def forward(self, bump: Tensor, points: Tensor) -> Tensor:
        half = F.avg_pool2d(bump[:, None], 2)[:, 0]
        return self.network.embed(self.unrolling(half, points))


def export(unrolling: Unrolling, network: Recogniser, path: Path, samples: int) -> dict[str, Any]:
    """Writes the ONNX file; its size, and how far its answer is from the network's."""
    model = HeadModel.load()
    shipped = Shipped(unrolling, network).eval()
    rng = np.random.default_rng(0)
    count = model.skin_vertex_count
    bump = torch.from_numpy(rng.normal(0, 0.3, (2, CROP, CROP)).astype(np.float32))
    points = torch.from_numpy(rng.uniform(100, 400, (2, count, 2)).astype(np.float32))
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter is the old one
        torch.onnx.export(
            shipped,
            (bump, points),
            str(path),
            input_names=["bump", "points"],
            output_names=["descriptor"],
            dynamic_axes={name: {0: "N"} for name in ("bump", "points", "descriptor")},
            opset_version=OPSET,
            dynamo=False,
        )
    metadata = {
        "name": "bump_recognition",
        "version": "1",
        "input_size": f"{CROP}x{CROP}",
        "colour_order": "none",
        "mean": "0",
        "std": "1",
        "crop_rule": INPUT_RULE,
        "source": SOURCE,
        "licence": LICENCE,
        "samples": str(samples),
        "head_model": model.fingerprint,
    }
    written = onnx.load(path)
    for key, value in metadata.items():
        written.metadata_props.add(key=key, value=value)
    onnx.save(written, path)
    shrink_weights(path, "float16")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"bump": bump.numpy(), "points": points.numpy()})
    with torch.no_grad():
        want = shipped(bump, points).numpy()
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "max_difference": round(float(np.abs(got - want).max()), 5),
    }


def main() -> None:
    options = arguments()
    device = prepare(options)
    unrolling = Unrolling(Atlas(HeadModel.load()))
    data = Maps(options.maps, options.descriptors, unrolling)
    network = Recogniser(data.persons).to(device, memory_format=torch.channels_last)
    average = fit(
        options,
        network,
        RecognitionLoss(),
        lambda start: Batches(data, options.persons, options.batch, start, options.seed),
        lambda batch: batch["maps"].contiguous(memory_format=torch.channels_last),
        Validation(data, options.bf16),
    )
    if options.out:
        samples = options.samples // options.batch * options.batch
        print(json.dumps(export(unrolling, average.cpu().float(), options.out, samples)))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--maps", type=Path, required=True, help="folder of bump_maps.py")
    parser.add_argument("--descriptors", type=Path, required=True, help="file of descriptors.py")
    parser.add_argument("--run", type=Path, required=True, help="folder for checkpoints and curves")
    parser.add_argument("--out", type=Path, help="ONNX file to write")
    parser.add_argument("--samples", type=int, default=150_000, help="in all; sets the schedule")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--persons", type=float, default=0.5, help="share from YouTube Faces")
    parser.add_argument("--every", type=int, default=200, help="steps between validations")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    options.workers = 0
    if not options.samples >= options.batch >= 2:
        parser.error("--batch: expected 2 to --samples")
    return options


if __name__ == "__main__":
    main()
