"""Converts the authors' published bump network to ONNX, for those who have its weights.

    python train/convert_authors_bump.py ckpt_109_grad.pth.tar --out bump_authors.onnx

Their licence is academic, so nothing of it ships with the package. The file holds a state dict: a
generator, Table 2 with a second last block for the mask, and the discriminator of an attempt that
the paper does not mention, which is left out. The ONNX file takes RGB alone and gives what the
package's own network does: mm, positive = deeper, and the probability of face.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from bump_network import PAPER, BumpNetwork
from convert_authors import InvalidFile, matched, read_weights
from export_network import OUTPUTS, compare_maps, export_maps
from torch import Tensor, nn

TOLERANCE = 1e-3  # mm; largest allowed difference of ONNX from torch
GENERATOR, DISCRIMINATOR = "Gnet.", "Dnet."
# Their maps are 127.5 (1 + tanh) as 8-bit levels, where 127 is no displacement, 12 levels are
# 1.25 mm and brighter is nearer.
HALF_RANGE, ZERO_LEVEL, MM_PER_LEVEL = 127.5, 127.0, 1.25 / 12
METADATA = {
    "name": "authors_bump",
    "version": "1",
    "input_size": f"multiples of {PAPER.stride}",
    "input_layout": "NCHW",
    "colour_order": "RGB",
    "mean": "127.5",
    "std": "127.5",
    "crop_rule": "the 500 px crop at (6, 6) in 512 px, filled with 0 around it; or a part of it",
    "licence": "academic use only, see the authors' release",
    "channels": str(PAPER.inputs),
    "stride": str(PAPER.stride),
    "max_mm": f"{HALF_RANGE * MM_PER_LEVEL:.2f}",
    "bump": "mm along the viewing direction, positive is deeper",
    "mask": "probability that the pixel shows the face",
}


class AuthorsBump(nn.Module):
    """(1, 3, H, W) RGB as x / 127.5 - 1 -> bump in mm, probability of face, both (1, 1, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.network = BumpNetwork(PAPER)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        bump, mask = (torch.tanh(x) for x in self.network.raw(image))
        above_zero = HALF_RANGE * bump + (HALF_RANGE - ZERO_LEVEL)  # levels
        return -MM_PER_LEVEL * above_zero, mask.clamp(0, 1)


def authors_names() -> dict[str, str]:
    """Layer of BumpNetwork -> the authors', for the paper's topology."""
    names = {"bump_last": "last_alt", "mask_last": "last_alt_mask"}
    before = 1  # they count the input as one channel
    for level, after in enumerate(PAPER.channels):
        theirs = f"conv_block{before}_{after}"
        # the first block has a strided convolution as well, but does not use it
        parts = ("conv_down", "conv", "conv2") if level else ("conv", "conv2")
        names |= {f"encoder.{level}.{i}.0": f"{theirs}.{part}" for i, part in enumerate(parts)}
        before = after
    heads = [("bump", level, "") for level in range(len(PAPER.decoder))] + [("mask", 0, "_mask")]
    for head, level, suffix in heads:
        theirs = f"up_block{PAPER.channels[level + 1]}_{PAPER.channels[level]}{suffix}"
        names[f"{head}.first.{level}.0"] = f"{theirs}.conv0"
        names[f"{head}.rest.{level}.0.0"] = f"{theirs}.conv"
        names[f"{head}.rest.{level}.1.0"] = f"{theirs}.conv2"
    return names


def build(state: dict[str, Tensor], name: str) -> AuthorsBump:
    """The network of a state dict, as read_weights returns it.

    Raises:
        InvalidFile: the tensors are not those of the authors' network.
    """
    if any(key.startswith(GENERATOR) for key in state):
        state = {k: v for k, v in state.items() if not k.startswith(DISCRIMINATOR)}
        state = {k.removeprefix(GENERATOR): v for k, v in state.items()}
    state = {k: v for k, v in state.items() if not k.startswith("conv_block1_16.conv_down.")}
    if not state:
        raise InvalidFile(f"{name}: holds no generator")
    model = AuthorsBump().eval()
    theirs = authors_names()
    wanted = {}
    for key, value in model.network.state_dict().items():
        layer, _, part = key.rpartition(".")
        wanted[key] = (f"{theirs[layer]}.{part}", value.shape)
    model.network.load_state_dict(matched(state, wanted, name))
    return model


def convert(path: Path, out: Path) -> dict[str, float]:
    """Writes the ONNX file; returns its largest differences from torch."""
    model = build(read_weights(path), path.name)
    metadata = METADATA | {"source": f"{path.name}: bump map CNN, Tran et al., CVPR 2018"}
    export_maps(model, out, PAPER.inputs, PAPER.stride, metadata)
    return compare_maps(model, out, OUTPUTS["bump"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, help="the authors' ckpt_109_grad.pth.tar")
    parser.add_argument("--out", type=Path, required=True, help="the .onnx file to write")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    differences = convert(options.weights, options.out)
    print(
        json.dumps({"file": options.out.name, "bytes": options.out.stat().st_size, **differences})
    )
    if max(differences.values()) > TOLERANCE:
        raise SystemExit(f"{options.out.name} differs from torch by more than {TOLERANCE}")


if __name__ == "__main__":
    main()
