"""The encoder-decoder that reads relief and visible face from a photo (paper §4.1, Table 2).

(B, C, H, W) in, H and W multiples of `stride`; bump in mm, positive = deeper, and the logit of
"shows the face" out. Table 2 leaves open how a skip joins: the authors' release concatenates;
addition costs half the time.

ms at 512 x 512, onnxruntime on two cores without spinning, best of 24 runs:

    fast                                     44   3.5 M parameters
    fast, last kernel 3x3                    49
    fast, no 3x3 at full resolution behind   40
    fast, 128 to 320 channels from 64 px on  51   6.2 M
    fast, third convolutions from 64 px on   53   5.2 M
    fast, skips concatenated                 62   4.1 M
    fast, 48 channels at half resolution     66

Space-to-depth instead of the first block is no faster: 4 ms go into moving pixels. The runtime pads
channels to multiples of 16, so fewer at full resolution gain nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MAX_MM = 6.0  # bound of the displacement


@dataclass(frozen=True)
class Settings:
    """Topology.

    With `narrow_first` the first convolution of a decoding block runs before the resizing instead
    of after it, at a quarter of the cost. The mask branches off before the last decoding block, at
    half resolution, or has a last block of its own.
    """

    channels: tuple[int, ...]  # per level, level 0 is full resolution
    encoder: tuple[int, ...]  # convolutions per encoding block
    decoder: tuple[int, ...]  # convolutions per decoding block, level 0 first
    inputs: int = 5  # RGB, and the foundation's normals nx, ny
    skip: str = "add"  # or "concat"
    narrow_first: bool = True
    norm: bool = True  # BatchNorm, folded into the convolutions on export
    strided_keeps: bool = False  # strided convolutions keep the number of channels
    first_relu: bool = True  # after the first convolution of a decoding block
    mask_block: bool = False  # the mask has a last block of its own
    last: int = 1  # side of the last convolution's kernel

    @property
    def stride(self) -> int:
        return 2 ** (len(self.channels) - 1)


# As the authors released it: block 1 has Table 2's [conv3-16] x 2 without the conv3-3 before them.
# They pad their 500 px by 7 and convolve to 512; the same comes of 512 px that hold the photo at
# (6, 6) and zeros around it. So image pixel (x, y) is map pixel (x + 6, y + 6).
PAPER = Settings(
    (16, 32, 64, 128, 256, 512, 1024),
    (2, 3, 3, 3, 3, 3, 3),
    (3,) * 6,
    inputs=3,
    skip="concat",
    narrow_first=False,
    norm=False,
    strided_keeps=True,
    first_relu=False,
    mask_block=True,
    last=3,
)
SETTINGS = {
    "fast": Settings((16, 32, 64, 96, 128, 192, 256), (1, 2, 2, 2, 2, 2, 2), (2,) * 6),
    "paper": PAPER,
    "tiny": Settings((4,) * 7, (1,) * 7, (1,) * 6),  # for tests
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
            inside = [after] * (count + 1)
            inside[0] = before
            if level and s.strided_keeps:
                inside[1] = before
            units = [
                unit(inside[i], inside[i + 1], 2 if level and i == 0 else 1, norm=s.norm)
                for i in range(count)
            ]
            blocks.append(nn.Sequential(*units))
            before = after
        self.encoder = nn.ModuleList(blocks)
        self.bump = Decoder(s, len(s.decoder))
        self.bump_last = nn.Conv2d(s.channels[0], 1, s.last, padding=s.last // 2)
        if s.mask_block:
            self.mask = Decoder(s, 1)
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
        mm, mask = self.raw(x)
        return MAX_MM * torch.tanh(mm.float() / MAX_MM), mask.float()

    def raw(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the last convolutions give: mm before they are limited, and logits."""
        maps = []
        for block in self.encoder:
            x = block(x)
            maps.append(x)
        levels = self.bump(x, maps[:-1])
        mask = self.mask(levels[1], maps[:1])[0] if self.settings.mask_block else levels[1]
        return self.bump_last(levels[0]), self.mask_last(mask)


class Decoder(nn.Module):
    """The decoding blocks of the finest levels."""

    def __init__(self, s: Settings, count: int) -> None:
        super().__init__()
        self.concat, self.narrow_first = s.skip == "concat", s.narrow_first
        first, rest = [], []
        for level in range(count):
            c, more = s.channels[level], s.decoder[level] - 1
            first.append(unit(s.channels[level + 1], c, norm=s.norm, relu=s.first_relu))
            inside = [2 * c if self.concat else c] + [c] * more
            rest.append(nn.Sequential(*[unit(inside[i], c, norm=s.norm) for i in range(more)]))
        self.first, self.rest = nn.ModuleList(first), nn.ModuleList(rest)

    def forward(self, x: Tensor, skips: list[Tensor]) -> list[Tensor]:
        """A map per level, level 0 first, of the map below them and the encoder's beside them."""
        levels = []
        for first, rest, skip in zip(
            reversed(self.first), reversed(self.rest), reversed(skips), strict=True
        ):
            x = doubled(first(x)) if self.narrow_first else first(doubled(x))
            x = rest(torch.cat([x, skip], 1) if self.concat else x + skip)
            levels.append(x)
        return levels[::-1]


def unit(
    before: int, after: int, stride: int = 1, *, norm: bool, relu: bool = True
) -> nn.Sequential:
    """A 3x3 convolution, its normalisation and ReLU."""
    layers: list[nn.Module] = [nn.Conv2d(before, after, 3, stride, 1, bias=not norm)]
    if norm:
        layers.append(nn.BatchNorm2d(after))
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def doubled(x: Tensor) -> Tensor:
    """Resize-and-convolve's resizing (Odena et al. 2016)."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
