"""Trains the foundation or the pose network; resumes where it was stopped.

    python train/train_network.py pose --sets DIR --occluders DIR --run DIR --samples 500000
    python train/train_network.py foundation ...

The run's folder gets checkpoint.pt (everything needed to go on), log.jsonl and curves.png. On a
GPU, and on CPUs with bfloat16 matrix units, the convolutions run in bfloat16.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dataset import Data, SampleMaker, Samples, collate
from descriptors import ranking
from foundation_network import FoundationLoss, FoundationNetwork, distance
from networks import DLIB_MEAN, DLIB_STD, SETTINGS, ResidualNetwork, load_dlib
from pose_network import PoseLoss, PoseNetwork, angle_between, project, rotation_of
from torch import Tensor, nn

from extreme3d_fast.camera import angles_from_rotation
from extreme3d_fast.head_model import HeadModel


def main() -> None:
    options = arguments()
    device = prepare(options)
    model = HeadModel.load()
    data = Data(options.sets, validation=True)
    network = build(options, model, data).to(device)
    loss = criterion(options.task, model, data).to(device)
    fit(
        options,
        network,
        loss,
        lambda start: Samples(
            options.sets,
            options.occluders,
            options.task,
            options.size,
            options.batch,
            start,
            options.seed,
        ),
        lambda batch: normalised(batch["image"]),
        Validation(options, model, data, device),
        gentle=options.task == "foundation" and options.dlib is not None,
    )


def prepare(options: argparse.Namespace) -> torch.device:
    """Seeds and makes the folder of the run; where it computes."""
    torch.manual_seed(options.seed)
    if options.threads:
        torch.set_num_threads(options.threads)
    options.run.mkdir(parents=True, exist_ok=True)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fit(
    options: argparse.Namespace,
    network: nn.Module,
    loss: nn.Module,
    samples: Callable[[int], torch.utils.data.IterableDataset],
    inputs: Callable[[dict[str, Tensor]], Tensor],
    judge: Callable[[nn.Module], dict[str, Any]],
    *,
    gentle: bool = False,
) -> nn.Module:
    """Trains until `options.samples`, from the run's checkpoint where there is one.

    Args:
        loss: (output, batch) -> losses by name.
        samples: first step -> batches.
        inputs: batch -> what the network takes.
        judge: averaged network -> figures for the log.
        gentle: see parameter_groups.

    Returns:
        The averaged network.
    """
    device = next(network.parameters()).device
    average = copy.deepcopy(network).eval()
    optimizer = torch.optim.AdamW(parameter_groups(network, gentle), lr=options.rate)
    state = {"step": 0, "seconds": 0.0}
    checkpoint = options.run / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        network.load_state_dict(saved["network"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        state = saved["state"]
        print(f"goes on from step {state['step']}", flush=True)
        cut_log(options.run / "log.jsonl", state["step"])
    steps = options.samples // options.batch
    loader = torch.utils.data.DataLoader(
        samples(state["step"]),
        batch_size=None,
        num_workers=options.workers,
        prefetch_factor=4 if options.workers else None,
        # a forked worker would wait for the threads of this process's BLAS
        multiprocessing_context="spawn" if options.workers else None,
    )
    sums: dict[str, list[float]] = defaultdict(list)
    began, saved_at = time.time() - state["seconds"], time.time()
    network.train()
    if gentle:
        network.backbone.eval()  # its statistics stay
    for batch in loader:
        if state["step"] >= steps:
            break
        progress = state["step"] / steps
        rate = (
            options.rate
            * min(1.0, (state["step"] + 1) / 300)
            * (0.5 + 0.5 * math.cos(math.pi * progress))
        )
        for group in optimizer.param_groups:
            group["lr"] = group["share"] * max(rate, 0.01 * options.rate)
        batch = {k: v.to(device) for k, v in batch.items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
            out = network(inputs(batch))
        parts = loss(out, batch)
        total = sum(parts.values())
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        state["step"] += 1
        follow(average, network, min(0.999, (1 + state["step"]) / (10 + state["step"])))
        for name, value in parts.items():
            sums[name].append(float(value.detach()))
        if state["step"] % options.every == 0 or state["step"] == steps:
            state["seconds"] = time.time() - began
            line = {"step": state["step"], "seconds": round(state["seconds"])}
            line |= {k: round(float(np.mean(v)), 4) for k, v in sums.items()}
            line |= judge(average)
            sums.clear()
            print(json.dumps(line), flush=True)
            with (options.run / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            draw_curves(options.run)
        if time.time() - saved_at > 120 or state["step"] == steps:
            state["seconds"] = time.time() - began
            save(checkpoint, network, average, optimizer, state, options)
            saved_at = time.time()
    return average


def cut_log(path: Path, step: int) -> None:
    """Takes out what came after the checkpoint: it comes again."""
    if path.exists():
        lines = [x for x in path.read_text().splitlines() if json.loads(x)["step"] <= step]
        path.write_text("".join(f"{line}\n" for line in lines))


def parameter_groups(network: nn.Module, gentle: bool) -> list[dict[str, Any]]:
    """Weights with decay, the rest without; `share` is the group's part of the learning rate.

    A backbone that knows who is who forgets it at the full rate (ROC-AUC of the descriptors 0.98 at
    the start, 0.76 after 300 steps): gently it goes on with a tenth.
    """
    groups = []
    for start in (True, False):
        for decay in (0.02, 0.0):
            parameters = [
                p
                for name, p in network.named_parameters()
                if name.startswith(("backbone", "descriptor")) == start
                and (p.ndim > 1) == (decay > 0)
            ]
            share = 0.1 if start and gentle else 1.0
            groups.append({"params": parameters, "weight_decay": decay, "share": share})
    return groups


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=("pose", "foundation"))
    parser.add_argument(
        "--sets", type=Path, required=True, help="folder that labels.py and synthesis.py wrote"
    )
    parser.add_argument("--occluders", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True, help="folder for checkpoints and curves")
    parser.add_argument("--samples", type=int, default=600_000, help="in all; sets the schedule")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--depth", default="dlib29", choices=SETTINGS)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--size", type=int, default=128, help="side of the crop, px")
    parser.add_argument("--dlib", type=Path, help="weights of convert_dlib.py to start from")
    parser.add_argument("--every", type=int, default=500, help="steps between validations")
    parser.add_argument("--workers", type=int, default=1, help="processes that make samples")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    if options.dlib and (options.depth, options.width) != ("dlib29", 1.0):
        parser.error("--dlib has weights for --depth dlib29 --width 1 only")
    return options


def build(options: argparse.Namespace, model: HeadModel, data: Data) -> nn.Module:
    """The network with its lazy layers made, ready to train."""
    network = untrained(options.task, options.depth, options.width, model, options.dlib)
    rng = np.random.default_rng(0)
    maker = SampleMaker(data, options.occluders, options.task, options.size)
    chosen = rng.choice(data.rows, 128)
    images = normalised(collate([maker.make(rng, int(row)) for row in chosen])["image"])
    with torch.no_grad():
        if options.dlib:
            measure_statistics(network.backbone, images)
        network.eval()(images[:2])
    if options.dlib and options.task == "foundation":
        fc = torch.load(options.dlib, weights_only=True)["fc.weight"]
        network.descriptor.load_state_dict({"weight": fc})
    return network.to(memory_format=torch.channels_last)


def untrained(
    task: str, depth: str, width: float, model: HeadModel, dlib: Path | None = None
) -> nn.Module:
    """The network for a task, its lazy layers not made yet; dlib: weights of its backbone."""
    stages = 4 if task == "pose" and depth == "dlib29" else None
    if dlib:
        backbone = load_dlib(dlib, stages=stages)
    else:
        backbone = ResidualNetwork(depth, width=width, stages=stages)
    if task == "pose":
        return PoseNetwork(backbone)
    return FoundationNetwork(backbone, n_identity=model.n_identity, n_expression=model.n_expression)


def measure_statistics(network: nn.Module, images: Tensor) -> None:
    """Gives folded BatchNorm layers the statistics of their inputs, without changing the output."""

    def hook(layer: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3), unbiased=False)
        gain = (layer.running_var + layer.eps).rsqrt() * layer.weight
        layer.bias.data += gain * (mean - layer.running_mean)
        layer.weight.data = gain * (variance + layer.eps).sqrt()
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(variance)

    hooks = [
        m.register_forward_pre_hook(hook)
        for m in network.modules()
        if isinstance(m, nn.BatchNorm2d)
    ]
    network.eval()(images)
    for handle in hooks:
        handle.remove()


def criterion(task: str, model: HeadModel, data: Data) -> nn.Module:
    if task == "pose":
        return PoseLoss(model)
    known = np.isfinite(data.descriptor[:, 0])
    mean = data.descriptor[known].mean(0) if known.any() else np.zeros(data.descriptor.shape[1])
    return FoundationLoss(model, mean.astype(np.float32))


def normalised(images: Tensor) -> Tensor:
    """(B, S, S, 3) uint8 RGB to what the networks take."""
    mean = torch.tensor(DLIB_MEAN, device=images.device)
    x = (images.float() - mean) / DLIB_STD
    return x.permute(0, 3, 1, 2)  # in memory still channels last


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    for a, b in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if a.dtype.is_floating_point:
            a.lerp_(b, 1 - decay)
        else:
            a.copy_(b)


def save(path: Path, network, average, optimizer, state, options) -> None:
    new = path.with_suffix(".new")
    settings = {k: str(v) for k, v in vars(options).items()}
    torch.save(
        {
            "network": network.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "state": state,
            "settings": settings,
        },
        new,
    )
    new.replace(path)


class Validation:
    """Errors on held-out photos, with the jitter of a second look, clean."""

    def __init__(
        self,
        options: argparse.Namespace,
        model: HeadModel,
        data: Data,
        device: torch.device,
        count: int = 900,
    ):
        self.task, self.data, self.device, self.bf16 = options.task, data, device, options.bf16
        rng = np.random.default_rng(7)
        maker = SampleMaker(data, options.occluders, "validation", options.size)
        rows = data.rows
        if options.task == "foundation":
            rows = rows[data.kind[rows] != "profiles"]
        turned = np.abs(data.rotation[rows][:, 0, 2]) > 0.5
        chosen = np.concatenate(
            [
                rng.permutation(rows[turned])[: count // 3],
                rng.permutation(rows[~turned])[: count // 3 * 2],
            ]
        )
        if options.task == "foundation":
            persons = rows[np.array([str(n).startswith("youtube") for n in data.name[rows]], bool)]
            chosen = np.unique(np.concatenate([chosen, persons]))
        self.batch = collate([maker.make_clean(rng, int(row)) for row in chosen])
        self.real = torch.tensor(data.real[chosen])
        self.persons = data.person[chosen]
        self.names = data.name[chosen]
        self.loss = criterion(options.task, model, data)

    @torch.no_grad()
    def __call__(self, network: nn.Module) -> dict[str, float]:
        network.eval()
        outs = []
        for part in self.batch["image"].split(64):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                outs.append(network(normalised(part.to(self.device))))
        return self.pose(outs) if self.task == "pose" else self.foundation(outs)

    def pose(self, outs: list[Tensor]) -> dict[str, float]:
        out = torch.cat(outs).float().cpu()
        b = self.batch
        rotation = rotation_of(out[:, :6])
        angle = angle_between(rotation, b["rotation"])
        points = self.loss.landmarks(b)
        gap = project(rotation, out[:, 6:9], points) - project(b["rotation"], b["place"], points)
        gap = gap.square().sum(2).sqrt().mean(1) * 100
        yaw = torch.tensor([abs(turn_of(r)) for r in b["rotation"].numpy()])
        result = {}
        for kind, here in (("real", self.real), ("synthetic", ~self.real)):
            for low, high in ((0, 30), (30, 60), (60, 180)):
                bin_ = here & (yaw >= low) & (yaw < high) & (b["weights"][:, 2] > 0.3)
                if bin_.sum() > 3:
                    result[f"{kind}_{low}"] = [
                        round(float(angle[bin_].mean()), 2),
                        round(float(gap[bin_].mean()), 2),
                    ]
        return result

    def foundation(self, outs: list[tuple[Tensor, ...]]) -> dict[str, float]:
        identity, expression, descriptor = (
            torch.cat(x).float().cpu() for x in zip(*outs, strict=True)
        )
        b, loss = self.batch, self.loss
        result = {}
        for kind, here in (("real", self.real), ("synthetic", ~self.real)):
            for name, got, basis, k in (
                ("identity", identity, loss.identity_mm, 0),
                ("expression", expression, loss.expression_mm, 1),
            ):
                good = here & (b["weights"][:, k] > 0.5)
                if good.any():
                    result[f"{kind}_{name}_mm"] = round(
                        float(distance(got[good] - b[name][good], basis).mean()), 3
                    )
                    if kind == "synthetic" or name == "identity":
                        result[f"{kind}_{name}_zero"] = round(
                            float(distance(b[name][good], basis).mean()), 3
                        )
        video = np.array([str(n).startswith("youtube") for n in self.names])
        if video.sum() > 10:
            for name, rows in (
                ("alpha", identity),
                ("descriptor", descriptor - self.loss.mean_descriptor),
                ("label", b["identity"]),
            ):
                result[f"auc_{name}"] = round(auc(rows.numpy()[video], self.persons[video]), 4)
        return result


def turn_of(rotation: np.ndarray) -> float:
    """Yaw in degrees, up to 180."""
    x, _, z = rotation[:, 2]
    return (
        math.degrees(math.atan2(x, -z))
        if abs(z) + abs(x) > 1e-6
        else angles_from_rotation(rotation)[0]
    )


def auc(rows: np.ndarray, persons: np.ndarray) -> float:
    """ROC-AUC of the cosine of rows (n, K), over all pairs of persons (n,)."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    i, j = np.triu_indices(len(rows), 1)
    score, same = (unit[i] * unit[j]).sum(1), persons[i] == persons[j]
    return ranking(-score[same], -score[~same])


def draw_curves(run: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    names = [k for k in lines[-1] if k not in ("step", "seconds")]
    columns = 4
    figure, axes = pyplot.subplots(
        math.ceil(len(names) / columns),
        columns,
        figsize=(16, 3 * math.ceil(len(names) / columns)),
        squeeze=False,
    )
    for axis, name in zip(axes.flat, names, strict=False):
        axis.plot([x["step"] for x in lines if name in x], [x[name] for x in lines if name in x])
        axis.set_title(name)
    figure.tight_layout()
    figure.savefig(run / "curves.png", dpi=60)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
