"""The encoder-decoder that reads relief and visible face from a photo (paper §4.1, Table 2).

(B, C, H, W) in, H and W multiples of `stride`; bump in mm, positive = deeper, and the logit of
"shows the face" out. Table 2 leaves open how a skip joins: concatenation is U-Net's and pix2pix's,
from which the authors started, addition costs half the time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MAX_MM = 6.0  # bound of the displacement


@dataclass(frozen=True)
class Settings:
    """Topology; the paper's own is PAPER.

    With `narrow_first` the first convolution of a decoding block runs before the resizing instead
    of after it, at a quarter of the cost. With one decoder, the mask branches off before the last
    block, at half resolution; with two, it has its own.
    """

    channels: tuple[int, ...]  # per level, level 0 is full resolution
    encoder: tuple[int, ...]  # convolutions per encoding block
    decoder: tuple[int, ...]  # convolutions per decoding block, level 0 first
    inputs: int = 5  # RGB, and the foundation's normals nx, ny
    skip: str = "add"  # or "concat"
    narrow_first: bool = True
    norm: bool = True  # BatchNorm, folded into the convolutions on export
    decoders: int = 1
    padding: int = 1  # of the first convolution
    last: int = 1  # side of the last convolution's kernel

    @property
    def stride(self) -> int:
        return 2 ** (len(self.channels) - 1)


PAPER = Settings(
    (16, 32, 64, 128, 256, 512, 1024),
    (3,) * 7,
    (3,) * 6,
    inputs=3,
    skip="concat",
    narrow_first=False,
    norm=False,
    decoders=2,
    padding=7,  # 500 px become 512; image pixel (x, y) is map pixel (x + 6, y + 6)
    last=3,
)
SETTINGS = {
    "fast": Settings((16, 32, 64, 96, 128, 192, 256), (1, 2, 2, 2, 2, 2, 2), (2,) * 6),
    "paper": PAPER,
    "tiny": Settings((8, 8, 8, 8, 8, 8, 8), (1,) * 7, (1,) * 6),  # for tests
}


class BumpNetwork(nn.Module):
    """(B, inputs, H, W) -> bump (B, 1, H, W) mm, mask logits (B, 1, h, w)."""

    def __init__(self, settings: str | Settings) -> None:
        super().__init__()
        s = SETTINGS[settings] if isinstance(settings, str) else settings
        if not len(s.channels) == len(s.encoder) == len(s.decoder) + 1:
            raise ValueError("settings: expected one encoding block per level, one decoding less")
        if s.skip not in ("add", "concat"):
            raise ValueError(f"settings: expected skips to add or concat, got {s.skip!r}")
        self.settings = s
        blocks, before = [], s.inputs
        for level, (after, count) in enumerate(zip(s.channels, s.encoder, strict=True)):
            first = unit(before, after, 2 if level else 1, 1 if level else s.padding, norm=s.norm)
            rest = [unit(after, after, norm=s.norm) for _ in range(count - 1)]
            blocks.append(nn.Sequential(first, *rest))
            before = after
        self.encoder = nn.ModuleList(blocks)
        self.bump = Decoder(s)
        self.bump_last = nn.Conv2d(s.channels[0], 1, s.last, padding=s.last // 2)
        if s.decoders == 2:
            self.mask = Decoder(s)
            self.mask_last = nn.Conv2d(s.channels[0], 1, s.last, padding=s.last // 2)
        else:
            self.mask_last = nn.Sequential(
                unit(s.channels[1], s.channels[0], norm=s.norm), nn.Conv2d(s.channels[0], 1, 1)
            )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.constant_(module.bias, 0.1)
        # starts near no relief: it is some tenths of a millimetre high
        nn.init.zeros_(self.bump_last.bias)
        self.bump_last.weight.data *= 0.05

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = []
        for block in self.encoder:
            x = block(x)
            maps.append(x)
        levels = self.bump(maps)
        if self.settings.decoders == 2:
            mask = self.mask_last(self.mask(maps)[0])
        else:
            mask = self.mask_last(levels[1])
        mm = self.bump_last(levels[0]).float()
        return MAX_MM * torch.tanh(mm / MAX_MM), mask.float()


class Decoder(nn.Module):
    """The encoder's maps -> a map per level, level 0 first."""

    def __init__(self, s: Settings) -> None:
        super().__init__()
        self.concat, self.narrow_first = s.skip == "concat", s.narrow_first
        first, rest = [], []
        for level, count in enumerate(s.decoder):
            c = s.channels[level]
            first.append(unit(s.channels[level + 1], c, norm=s.norm))
            inside = [2 * c if self.concat else c] + [c] * (count - 2)
            rest.append(nn.Sequential(*[unit(n, c, norm=s.norm) for n in inside[: count - 1]]))
        self.first, self.rest = nn.ModuleList(first), nn.ModuleList(rest)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        x, levels = maps[-1], []
        for first, rest, skip in zip(
            reversed(self.first), reversed(self.rest), reversed(maps[:-1]), strict=True
        ):
            x = doubled(first(x)) if self.narrow_first else first(doubled(x))
            x = rest(torch.cat([x, skip], 1) if self.concat else x + skip)
            levels.append(x)
        return levels[::-1]


def unit(before: int, after: int, stride: int = 1, padding: int = 1, *, norm: bool) -> nn.Module:
    """A 3x3 convolution, its normalisation and ReLU."""
    convolution = nn.Conv2d(before, after, 3, stride, padding, bias=not norm)
    middle = [nn.BatchNorm2d(after)] if norm else []
    return nn.Sequential(convolution, *middle, nn.ReLU(inplace=True))


def doubled(x: Tensor) -> Tensor:
    """Resize-and-convolve's resizing (Odena et al. 2016)."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
