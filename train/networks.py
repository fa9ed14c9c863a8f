"""Residual networks, from which the heads of the trained networks take a feature map."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Settings:
    """Topology of a residual network.

    With `plain_skip` it is dlib's kind: no parameters in the skips (where the size changes, they
    average and pad with zeros, in channels and in space), and stems and strided convolutions do not
    pad. Without, it is the kind trained on ImageNet (He et al., CVPR 2016), with torchvision's
    names and, unless `caffe` is set, its two changes: the 3x3 convolution of a bottleneck has the
    stride instead of the first 1x1, and the pooling after the stem pads on all sides.
    """

    channels: tuple[int, ...]  # inside the blocks, per stage
    blocks: tuple[int, ...]  # blocks per stage
    first_stride: int = 1  # of the first stage; all others have 2
    stem: int = 64  # channels
    expansion: int = 1  # 4: bottleneck blocks, which give 4x their channels
    plain_skip: bool = False
    caffe: bool = False


IMAGENET = (64, 128, 256, 512)
SETTINGS = {
    "dlib29": Settings((32, 64, 128, 256, 256), (3, 4, 3, 3, 1), stem=32, plain_skip=True),
    "resnet18": Settings(IMAGENET, (2, 2, 2, 2)),
    "resnet34": Settings(IMAGENET, (3, 4, 6, 3)),
    "resnet50": Settings(IMAGENET, (3, 4, 6, 3), expansion=4),
    "resnet101": Settings(IMAGENET, (3, 4, 23, 3), expansion=4),
    "resnet101_caffe": Settings(IMAGENET, (3, 4, 23, 3), expansion=4, caffe=True),
}
DLIB_MEAN = (122.782, 117.001, 104.298)  # RGB
DLIB_STD = 256.0


class ResidualNetwork(nn.Module):
    """(B, 3, H, W) float32, normalised -> (B, channels, h, w): the map before any pooling.

    Args:
        settings: a name of SETTINGS, or settings of one's own.
        width: factor on all numbers of channels.
        stages: how many stages to keep, from the input on; all by default.

    `channels` tells how many channels the map has, `stage_channels` those after each stage.
    """

    def __init__(
        self, settings: str | Settings, *, width: float = 1.0, stages: int | None = None
    ) -> None:
        super().__init__()
        if isinstance(settings, str):
            if settings not in SETTINGS:
                raise ValueError(f"settings: expected one of {[*SETTINGS]}, got {settings!r}")
            settings = SETTINGS[settings]
        count = len(settings.channels) if stages is None else stages
        if not 1 <= count <= len(settings.channels):
            raise ValueError(f"stages: expected 1 to {len(settings.channels)}, got {stages}")
        if width <= 0:
            raise ValueError(f"width: expected more than 0, got {width}")
        inside = round(settings.stem * width)
        padding = 0 if settings.plain_skip else 1
        self.conv1 = nn.Conv2d(3, inside, 7, 2, 3 * padding, bias=False)
        self.bn1 = nn.BatchNorm2d(inside)
        self.maxpool = nn.MaxPool2d(
            3, 2, 0 if settings.caffe else padding, ceil_mode=settings.caffe
        )
        self.stages = [f"layer{stage + 1}" for stage in range(count)]
        self.stage_channels = []
        for stage, name in enumerate(self.stages):
            channels = round(settings.channels[stage] * width)
            blocks = []
            for block in range(settings.blocks[stage]):
                stride = 1 if block else (2 if stage else settings.first_stride)
                if settings.plain_skip:
                    blocks.append(PlainBlock(inside, channels, stride))
                elif settings.expansion == 1:
                    blocks.append(BasicBlock(inside, channels, stride))
                else:
                    strides = (stride, 1) if settings.caffe else (1, stride)
                    blocks.append(Bottleneck(inside, channels, strides, settings.expansion))
                inside = channels * settings.expansion
            self.stage_channels.append(inside)
            self.add_module(name, nn.Sequential(*blocks))
        self.channels = inside
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> Tensor:
        return self.maps(image)[-1]

    def maps(self, image: Tensor) -> list[Tensor]:
        """The map after each stage."""
        x = self.maxpool(functional.relu(self.bn1(self.conv1(image))))
        maps = []
        for name in self.stages:
            x = getattr(self, name)(x)
            maps.append(x)
        return maps


class PlainBlock(nn.Module):
    """dlib's residual block: two 3x3 convolutions, no parameters in the skip."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, 1 if stride == 1 else 0, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = functional.avg_pool2d(x, self.stride)
        return functional.relu(add_padded(x, y))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; the skip has a 1x1 convolution where the size changes."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = skip(before, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(self.downsample(x) + y)


class Bottleneck(nn.Module):
    """A 3x3 convolution between two of 1x1; the strides are those of the first two."""

    def __init__(
        self, before: int, channels: int, strides: tuple[int, int], expansion: int
    ) -> None:
        super().__init__()
        after = channels * expansion
        self.conv1 = nn.Conv2d(before, channels, 1, strides[0], bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, strides[1], 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, after, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(after)
        self.downsample = skip(before, after, max(strides))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(functional.relu(self.bn2(self.conv2(y)))))
        return functional.relu(self.downsample(x) + y)


def skip(before: int, after: int, stride: int) -> nn.Module:
    """The identity, or a 1x1 convolution where a block changes the size."""
    if before == after and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))


def add_padded(first: Tensor, second: Tensor) -> Tensor:
    """Sum of two maps; the smaller is padded with zeros after its last channel, row and column."""
    if first.shape == second.shape:
        return first + second
    sizes = [max(a, b) for a, b in zip(first.shape[1:], second.shape[1:], strict=True)]
    total = 0
    for x in (first, second):
        channels, rows, columns = (
            size - have for size, have in zip(sizes, x.shape[1:], strict=True)
        )
        total = total + functional.pad(x, (0, columns, 0, rows, 0, channels))
    return total


class FaceDescriptor(nn.Module):
    """dlib's face recognition network: (B, 3, 150, 150) RGB, (pixel - mean) / 256 -> (B, 128)."""

    def __init__(self) -> None:
        super().__init__()
        self.network = ResidualNetwork("dlib29")
        self.fc = nn.Linear(self.network.channels, 128, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        return self.fc(self.network(image).mean((2, 3)))


def load_dlib(path: str | Path, *, stages: int | None = None) -> ResidualNetwork:
    """ "dlib29" with the weights that convert_dlib.py wrote, in evaluation mode.

    dlib folded its batch statistics into the affine layers, so they are 0 and 1 here: fine-tune
    with the BatchNorm layers kept in evaluation mode, or measure their statistics first.
    """
    network = ResidualNetwork("dlib29", stages=stages)
    prefix = "network."
    state = torch.load(path, map_location="cpu", weights_only=True)
    state = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    wanted = network.state_dict()
    network.load_state_dict({key: value for key, value in state.items() if key in wanted})
    return network.eval()
