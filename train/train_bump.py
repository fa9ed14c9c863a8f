"""Trains the bump network; resumes where it was stopped, as train_network.py does.

    python train/train_bump.py --sets DIR --occluders DIR --run DIR --samples 200000

--preview FILE draws held-out photos, targets and results, with each validation and at the end.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import cv2
import numpy as np
import torch
from bump_dataset import SHARES, STRIDE, Crops, Windows, clean, collate, inputs, paste
from bump_loss import BumpLoss, differences
from bump_network import SETTINGS, BumpNetwork
from pasting import Occluders
from preview import shaded, sheet
from torch import Tensor, nn
from torch.nn import functional as F
from train_network import fit, prepare

COUNTS = {"photos": 80, "synthetic": 64, "profiles": 24, "masked": 32}  # windows to judge by
RELIEF = ("photos", "synthetic")  # kinds with targets
PREVIEWS = {"photos": 6, "synthetic": 4, "profiles": 1, "masked": 3}


def main() -> None:
    options = arguments()
    device = prepare(options)
    network = BumpNetwork(SETTINGS[options.depth]).to(device, memory_format=torch.channels_last)
    judge = Validation(options, device)
    average = fit(
        options,
        network,
        BumpLoss(gradient=options.gradient, mask=options.mask),
        lambda start: Crops(
            options.sets,
            options.occluders,
            {k: getattr(options, k) for k in SHARES},
            options.size,
            options.batch,
            start,
            options.seed,
        ),
        lambda batch: inputs(batch, network.settings.inputs),
        judge,
    )
    if options.preview:
        judge.draw(average, options.preview)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(task="bump")
    parser.add_argument("--sets", type=Path, required=True, help="folder of the store's windows")
    parser.add_argument("--occluders", type=Path, help="cut-outs to paste; default: none")
    parser.add_argument("--run", type=Path, required=True, help="folder for checkpoints and curves")
    parser.add_argument("--samples", type=int, default=200_000, help="in all; sets the schedule")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--depth", default="fast", choices=SETTINGS, help="the network's size")
    parser.add_argument("--size", type=int, default=256, help="usual side of the crops, px")
    parser.add_argument(
        "--gradient", type=float, default=4.0, help="weight of Eq. 5's gradients; the paper's is 1"
    )
    parser.add_argument("--mask", type=float, default=0.2, help="weight of the mask's loss")
    for kind, share in SHARES.items():
        parser.add_argument(f"--{kind}", type=float, default=share, help="share of the samples")
    parser.add_argument("--every", type=int, default=500, help="steps between validations")
    parser.add_argument("--preview", type=Path, help="picture to draw")
    parser.add_argument("--workers", type=int, default=1, help="processes that make samples")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    if options.size % STRIDE:
        parser.error(f"--size: expected a multiple of {STRIDE}, got {options.size}")
    if not options.samples >= options.batch >= 1:
        parser.error("--batch: expected 1 to --samples")
    return options


class Validation:
    """Errors on held-out windows, whole and as they are; masks under held-out occluders as well.

    Figures of relief come with those of no relief at all, masks' IoU clean and occluded.
    """

    def __init__(self, options: argparse.Namespace, device: torch.device) -> None:
        self.device, self.bf16, self.preview = device, options.bf16, options.preview
        windows = Windows(options.sets, validation=True)
        rng = np.random.default_rng(7)
        rows = [
            rng.permutation(np.flatnonzero(windows.kind == kind))[:count]
            for kind, count in COUNTS.items()
        ]
        chosen = np.concatenate(rows)
        if not len(chosen):
            raise SystemExit(f"no held-out windows in {options.sets}: nothing to judge by")
        self.kind = windows.kind[chosen]
        self.mm_per_pixel = torch.from_numpy(windows.mm_per_pixel[chosen])
        stored = [windows.window(int(i)) for i in chosen]
        samples = [clean(w) for w in stored]
        self.batch = collate(samples)
        self.hidden = None
        if options.occluders:
            occluders = Occluders(options.occluders, held_out=True)
            for window, sample in zip(stored, samples, strict=True):
                paste(rng, sample, window["weight"], np.eye(2, 3), occluders)
            self.hidden = collate(samples)

    def __call__(self, network: nn.Module) -> dict[str, list[float]]:
        bump, mask = self.run(network, self.batch)
        result = {}
        for kind in RELIEF:
            here = torch.from_numpy(self.kind == kind)
            if (self.batch["trust"][here] > 0).any():
                result |= {f"{kind}_{k}": v for k, v in self.relief(bump, here).items()}
        overlap = [overlaps(mask, self.batch["mask"])]
        if self.hidden:
            overlap.append(overlaps(self.run(network, self.hidden)[1], self.hidden["mask"]))
        for kind in COUNTS:
            here = torch.from_numpy(self.kind == kind)
            if torch.isfinite(overlap[0][here]).any():
                result[f"{kind}_iou"] = [round(float(x[here].nanmean()), 4) for x in overlap]
        if self.preview:
            self.draw(network, self.preview, (bump, mask))
        return result

    @torch.no_grad()
    def run(self, network: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(N, H, W) bump in mm and probability of face."""
        network.eval()
        outs = []
        for start in range(0, len(self.kind), 8):
            part = {k: batch[k][start : start + 8].to(self.device) for k in ("image", "normal")}
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                bump, logit = network(inputs(part, network.settings.inputs))
            mask = F.interpolate(logit.sigmoid(), bump.shape[2:], mode="bilinear")
            outs.append((bump[:, 0].float().cpu(), mask[:, 0].float().cpu()))
        return tuple(torch.cat(x) for x in zip(*outs, strict=True))

    def relief(self, bump: Tensor, here: Tensor) -> dict[str, list[float]]:
        """Each of the network's, then of no relief: mm, mm per pixel, and degrees of normals."""
        target, weight = self.batch["bump"][here], self.batch["trust"][here].float() / 255
        normal = self.batch["normal"][here].float() / 127
        mm = self.mm_per_pixel[here].view(-1, 1, 1)
        truth = normals(normal, target, mm)
        figures: dict[str, list[float]] = {"mm": [], "mm_per_px": [], "degrees": []}
        for got in (bump[here], torch.zeros_like(target)):
            error = got - target
            slopes = differences(error, weight)
            cosine = (normals(normal, got, mm) * truth).sum(-1).clamp(-1, 1)
            angle = torch.rad2deg(torch.acos(cosine))
            inside = weight[:, :-1, :-1]
            for name, value in (
                ("mm", weighted(error.abs(), weight)),
                ("mm_per_px", sum(weighted(d.abs(), w) for d, w in slopes) / 2),
                ("degrees", weighted(angle, inside)),
            ):
                figures[name].append(round(value, 4))
        return figures

    def draw(self, network: nn.Module, path: Path, results=None) -> None:
        """Photo, target relief, the network's, and the photo where it sees face, row by row."""
        bump, mask = results or self.run(network, self.batch)
        tiles = []
        for kind, count in PREVIEWS.items():
            for i in np.flatnonzero(self.kind == kind)[:count]:
                photo = self.batch["image"][i].numpy()
                normal = self.batch["normal"][i].float() / 127
                mm = self.mm_per_pixel[i]
                face = (self.batch["trust"][i] > 0).numpy()[:-1, :-1, None]
                target = shaded(normals(normal, self.batch["bump"][i], mm).numpy())
                ours = shaded(normals(normal, bump[i] * (normal != 0).any(-1), mm).numpy())
                seen = (0.25 + 0.75 * mask[i].numpy()[..., None]) * photo
                row = [photo[:-1, :-1], np.where(face, target, 60), ours, seen[:-1, :-1]]
                tiles += [np.ascontiguousarray(x.astype(np.uint8)) for x in row]
        if tiles:
            cv2.imwrite(str(path), sheet(tiles, 8)[..., ::-1])


def normals(foundation: Tensor, bump: Tensor, mm_per_pixel: Tensor) -> Tensor:
    """(..., H-1, W-1, 3) unit normals of a foundation with a bump map, towards the camera.

    Args:
        foundation: (..., H, W, 2) x and y of its unit normals.
        bump: (..., H, W) mm.
    """
    n = foundation[..., :-1, :-1, :]
    nz = (1 - n.square().sum(-1)).clamp(min=0.01).sqrt()
    x = n[..., 0] / nz + torch.diff(bump, dim=-1)[..., :-1, :] / mm_per_pixel
    y = n[..., 1] / nz + torch.diff(bump, dim=-2)[..., :-1] / mm_per_pixel
    return F.normalize(torch.stack([x, y, -torch.ones_like(x)], -1), dim=-1)


def overlaps(probability: Tensor, mask: Tensor) -> Tensor:
    """(N,) intersection over union of the face, among known pixels; NaN where none is face."""
    got, known, face = probability > 0.5, mask < 2, mask == 1
    both = (got & face).flatten(1).sum(1).float()
    either = ((got | face) & known).flatten(1).sum(1)
    return torch.where(face.flatten(1).any(1), both / either, math.nan)


def weighted(values: Tensor, weight: Tensor) -> float:
    return float((values * weight).sum() / weight.sum().clamp(min=1e-6))


if __name__ == "__main__":
    main()
