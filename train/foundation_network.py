"""The network for identity α and expression η (paper §3, Eq. 1-2), and what it is trained for."""

from __future__ import annotations

import numpy as np
import torch
from networks import BasicBlock, ResidualNetwork
from torch import Tensor, nn
from torch.nn import functional as F

from extreme3d_fast.head_model import HeadModel

DESCRIPTOR = 128


class FoundationNetwork(nn.Module):
    """Crop in; α, η and an identity feature out.

    Identity follows the whole backbone, as in the recognition network that it starts from.
    Expression branches off before, where the mouth still has a place.
    """

    def __init__(
        self, backbone: ResidualNetwork, *, n_identity: int, n_expression: int, branch: int = -3
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.branch = branch
        middle, last = backbone.stage_channels[branch], backbone.channels
        self.descriptor = nn.Linear(last, DESCRIPTOR, bias=False)
        self.identity = nn.Linear(DESCRIPTOR, n_identity)
        self.face = nn.Sequential(BasicBlock(middle, middle, 2), BasicBlock(middle, middle, 1))
        self.expression = nn.Sequential(
            nn.Flatten(), nn.LazyLinear(160), nn.ReLU(), nn.Linear(160, n_expression)
        )
        #: second way to α: shape that shows in the picture but says nothing about who it is
        self.shape = nn.Sequential(
            nn.Flatten(), nn.LazyLinear(96), nn.ReLU(), nn.Linear(96, n_identity)
        )

    def forward(self, crop: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps = self.backbone.maps(crop)
        descriptor = self.descriptor(maps[-1].mean((2, 3)))
        face = self.face(maps[self.branch])
        identity = self.identity(4.0 * descriptor) + self.shape(face)
        return identity, torch.sigmoid(self.expression(face) - 2.0), descriptor


class FoundationLoss(nn.Module):
    """Vertices in mm, expression coefficients, and who is who."""

    def __init__(self, model: HeadModel, mean_descriptor: np.ndarray) -> None:
        super().__init__()
        rows = face_rows(model)
        self.register_buffer("identity_mm", torch.tensor(model.identity[:, rows]))
        self.register_buffer("expression_mm", torch.tensor(model.expression[:, rows]))
        self.register_buffer("mean_descriptor", torch.tensor(mean_descriptor))

    def forward(
        self, out: tuple[Tensor, Tensor, Tensor], batch: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        identity, expression, descriptor = (x.float() for x in out)
        w_identity, w_expression = batch["weights"][:, 0], batch["weights"][:, 1]
        shape_error = distance(identity - batch["identity"], self.identity_mm)
        motion_error = distance(expression - batch["expression"], self.expression_mm)
        losses = {
            "identity_mm": weighted(shape_error, w_identity),
            "expression_mm": weighted(motion_error, w_expression),
            "expression": weighted((expression - batch["expression"]).abs().mean(1), w_expression)
            * 10,
            "prior": identity.square().mean() * 0.02,
        }
        known = torch.isfinite(batch["descriptor"][:, 0]) & (w_identity > 0)
        if known.sum() > 4:
            teacher = batch["descriptor"][known]
            student = descriptor[known]
            losses["descriptor"] = (student - teacher).square().sum(1).add(1e-6).sqrt().mean() * 3
            target = cosines(teacher - self.mean_descriptor)
            off = ~torch.eye(len(target), dtype=torch.bool, device=target.device)
            losses["who"] = (cosines(identity[known]) - target)[off].square().mean() * 12
        return losses


def face_rows(model: HeadModel, count: int = 450) -> np.ndarray:
    """Coarse vertices of the face (before the ears, above the throat), evenly chosen."""
    _, y, z = model.mean.T
    face = np.flatnonzero((z > 20) & (y > -100) & (y < 85))
    return np.sort(np.random.default_rng(0).choice(face, min(count, len(face)), replace=False))


def distance(coefficients: Tensor, basis: Tensor) -> Tensor:
    """(B,) mean displacement in mm that coefficients (B, K) make over basis (K, P, 3)."""
    moved = (coefficients @ basis.flatten(1)).view(len(coefficients), -1, 3)
    return moved.square().sum(2).add(1e-4).sqrt().mean(1)


def weighted(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp(min=1.0)


def cosines(rows: Tensor) -> Tensor:
    unit = F.normalize(rows, dim=1)
    return unit @ unit.T
