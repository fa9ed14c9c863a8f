"""What the bump network is trained for: Eq. 5 of the paper, and a mask with sharp borders."""

from __future__ import annotations

import torch
from relief_store import UNKNOWN
from torch import Tensor, nn
from torch.nn import functional as F

OCCLUDED_WEIGHT = 0.05  # of "no relief" on what is not face, beside a trusted target's 1
BORDER = 3  # px of the mask's map on each side of a change
BORDER_WEIGHT = 4.0
# Photos' targets hold no form, waves beyond some 15 mm: shape from shading leaves them to the
# foundation. Synthetic photos tell them; photos' say in them is this much.
FORM_WEIGHT = 0.15
FORM_CELL = 8  # px: the average over three cells each way is form


class BumpLoss(nn.Module):
    """Eq. 5: L1 of Δ and of its differences in x and y; weighted cross-entropy of the mask.

    Args:
        gradient: weight of the two difference terms; the paper's is 1, its ablation 0.
        mask: weight of the cross-entropy.
    """

    def __init__(self, *, gradient: float = 1.0, mask: float = 0.2) -> None:
        super().__init__()
        self.gradient, self.mask = gradient, mask

    def forward(self, out: tuple[Tensor, Tensor], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """
        Args:
            out: bump (B, 1, H, W) mm, mask logits (B, 1, h, w).
            batch: bump (B, H, W) mm, trust (B, H, W) uint8, mask (B, H, W) uint8; detail_only
                (B,) whether the target holds no waves beyond some 15 mm.
        """
        bump, logit = out
        hidden = (batch["mask"] == 0) & (batch["trust"] == 0)
        weight = batch["trust"].float() / 255 + OCCLUDED_WEIGHT * hidden
        error = (bump[:, 0] - torch.where(hidden, 0.0, batch["bump"].float())) * (weight > 0)
        share = (1 - FORM_WEIGHT) * batch["detail_only"].view(-1, 1, 1)
        error = error - share * form(error, weight)
        total = weight.sum().clamp(min=1.0)
        losses = {"bump": (error.abs() * weight).sum() / total}
        if self.gradient:
            losses["gradient"] = self.gradient * sum(
                (d.abs() * w).sum() / total for d, w in differences(error, weight)
            )
        losses["mask"] = self.mask * mask_loss(logit, batch["mask"])
        return losses


def form(values: Tensor, weight: Tensor) -> Tensor:
    """The long waves of (B, H, W) values, averaged by weight."""

    def coarse(a: Tensor) -> Tensor:
        return F.avg_pool2d(F.avg_pool2d(a[:, None], FORM_CELL), 3, 1, 1)

    average = coarse(values * weight) / coarse(weight).clamp(min=1e-3)
    return F.interpolate(average, values.shape[1:], mode="bilinear")[:, 0]


def differences(values: Tensor, weight: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Differences of (B, H, W) values to the next column and row, with the lesser weight."""
    return [
        (torch.diff(values, dim=d), torch.minimum(shortened(weight, d), shortened(weight, d, 1)))
        for d in (2, 1)
    ]


def shortened(values: Tensor, dim: int, start: int = 0) -> Tensor:
    """All but the last, or (start 1) all but the first."""
    return values.narrow(dim, start, values.shape[dim] - 1)


def mask_loss(logit: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy with a (B, H, W) uint8 mask; pixels near a change weigh more."""
    target, known = mask_target(mask, logit.shape[2:])
    side = 2 * BORDER + 1
    high = F.max_pool2d(target * (known > 0), side, 1, BORDER)
    low = -F.max_pool2d(torch.where(known > 0, -target, -1.0), side, 1, BORDER)
    weight = known * (1 + BORDER_WEIGHT * (high - low).clamp(min=0))
    each = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
    return (each * weight).sum() / weight.sum().clamp(min=1.0)


def mask_target(mask: Tensor, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Shares of face and of known pixels, (B, 1, h, w) each, in the cells of a coarser map."""
    mask = mask[:, None]
    known = F.adaptive_avg_pool2d((mask != UNKNOWN).float(), size)
    face = F.adaptive_avg_pool2d((mask == 1).float(), size)
    return face / known.clamp(min=1e-3), known
