"""The network for the viewpoint v (paper §3), and what it is trained for.

Six degrees of freedom without singularity: the rotation as its first two columns (Zhou et al.
2019), the place of the face centre in the crop, and the log of its distance; and how well the crop
is placed on a face. The rotation is that of a camera which looks at the face centre, so that moving
the crop does not change it.
"""

from __future__ import annotations

import torch
from networks import ResidualNetwork
from torch import Tensor, nn
from torch.nn import functional as F

from extreme3d_fast.head_model import HeadModel
from extreme3d_fast.pose import FACE_CENTER, FOCAL_SIDES, SIDE_MM

OUTPUTS = 10  # rotation 6, place 3, face 1


class PoseNetwork(nn.Module):
    """Crop in; rotation columns, place and the logit of a well placed face out."""

    def __init__(self, backbone: ResidualNetwork, *, hidden: int = 192) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Sequential(
            nn.Flatten(), nn.LazyLinear(hidden), nn.ReLU(), nn.Linear(hidden, OUTPUTS)
        )
        # starts at the frontal pose, diag(1, -1, -1)
        self.register_buffer("frontal", torch.tensor([1.0, 0, 0, 0, -1.0, 0, 0, 0, 0, 0]))

    def forward(self, crop: Tensor) -> Tensor:
        return self.head(self.backbone.maps(crop)[-1]).float() + self.frontal


def rotation_of(six: Tensor) -> Tensor:
    """(B, 3, 3) rotations from (B, 6): two columns, made orthonormal, and their product."""
    first = F.normalize(six[:, :3], dim=1)
    second = F.normalize(six[:, 3:6] - (first * six[:, 3:6]).sum(1, keepdim=True) * first, dim=1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], 2)


class PoseLoss(nn.Module):
    """Rotation (chordal), landmarks in hundredths of the crop's side, place, confidence."""

    def __init__(self, model: HeadModel) -> None:
        super().__init__()
        basis = model.landmark_basis("68")
        self.register_buffer("mean", torch.tensor(basis.mean - FACE_CENTER).float())
        self.register_buffer("identity", torch.tensor(basis.identity))
        self.register_buffer("expression", torch.tensor(basis.expression))

    def landmarks(self, batch: dict[str, Tensor]) -> Tensor:
        """(B, 68, 3) mm from the face centre."""
        n = len(batch["identity"])
        moved = batch["identity"] @ self.identity.flatten(1) + batch[
            "expression"
        ] @ self.expression.flatten(1)
        return self.mean + moved.view(n, -1, 3)

    def forward(self, out: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        rotation, place, face = rotation_of(out[:, :6]), out[:, 6:9], out[:, 9]
        # a crop that shows little of the face teaches little
        w = batch["weights"][:, 2] * (batch["face"] > 0.1) * batch["face"].clamp(min=0.3)
        points = self.landmarks(batch)
        gap = project(rotation, place, points) - project(batch["rotation"], batch["place"], points)
        total = w.sum().clamp(min=1.0)
        turned = (rotation - batch["rotation"]).square().sum((1, 2)).add(1e-6).sqrt()
        return {
            "rotation": (turned * w).sum() / total * 8,
            "landmarks": (gap.square().sum(2).add(1e-8).sqrt().mean(1) * w).sum()
            / total
            * 100
            * 0.5,
            "place": ((place - batch["place"]).abs().sum(1) * w).sum() / total * 6,
            "face": F.binary_cross_entropy_with_logits(face, batch["face"]),
        }


def project(rotation: Tensor, place: Tensor, points: Tensor) -> Tensor:
    """(B, L, 2) positions in sides of the crop, of points (B, L, 3) mm from the face centre."""
    distance = FOCAL_SIDES * SIDE_MM * place[:, 2].clamp(-2, 2).exp()
    in_camera = points @ rotation.transpose(1, 2)
    depth = (in_camera[..., 2] + distance[:, None]).clamp(min=50.0)
    return FOCAL_SIDES * in_camera[..., :2] / depth[..., None] + place[:, None, :2]


def angle_between(a: Tensor, b: Tensor) -> Tensor:
    """(B,) degrees."""
    chord = (a - b).square().sum((1, 2)).sqrt() / (2 * 2**0.5)
    return torch.rad2deg(2 * torch.asin(chord.clamp(max=1.0)))
