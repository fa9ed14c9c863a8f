"""Writes a trained network as the ONNX file that the package ships.

    python train/export_network.py RUN/checkpoint.pt --out python/extreme3d_fast/assets

The averaged weights are stored as 8-bit integers with one scale per output channel and turned back
into float32 when the file is loaded: a quarter of the size, and the computation stays float32.
The bump network's are stored as float16: 8 bits would cost its relief a hundredth of a millimetre.
"""

from __future__ import annotations

import argparse
import copy
import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from bump_network import MAX_MM, SETTINGS, BumpNetwork
from onnx_export import OPSET, Shipped, export, shrink_weights
from torch import Tensor, nn
from torch.nn import functional as F
from train_network import untrained

from extreme3d_fast.head_model import HeadModel

OUTPUTS = {
    "pose": ["pose"],
    "foundation": ["identity", "expression"],
    "bump": ["bump", "mask"],
}
CROP_RULE = "square of 200 mm round the face centre, upright with the head; extreme3d_fast.pose"
SOURCES = (
    "trained from dlib's face recognition network (CC0) on CelebAMask-HQ, UTKFace, YouTube Faces, "
    "FASSEG and web photos of masked people, and on renderings of the CC0 head model"
)
BUMP_CROP_RULE = (
    "any part of the 500 px crop, upright with the head, about 1.8 px/mm; sides are multiples of "
    "the stride, filled with 0 beyond the crop; channels: R, G, B, then x and y of the "
    "foundation's unit normals towards the camera (x right, y down, z away), 0 where none"
)
BUMP_SOURCES = (
    "trained on CelebAMask-HQ and UTKFace with relief from their shading, on FASSEG and web photos "
    "of masked people, and on renderings of the CC0 head model with known relief, some of it that "
    "of two scans (a scan published with FLAME's fitting code, MeshMonk's demo face)"
)
LICENCE = "weights under Apache-2.0; the photos they learned from are for non-commercial research"


class ShippedBump(nn.Module):
    """Pixels as x / 127.5 - 1 and normals in, mm and probability out, both of the input's size."""

    def __init__(self, network: BumpNetwork) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        for parameter in self.network.bump_last.parameters():
            parameter.data /= MAX_MM

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        bump, mask = self.network.raw(image)
        mask = torch.sigmoid(mask)
        if not self.network.settings.mask_block:
            mask = F.interpolate(mask, scale_factor=2.0, mode="bilinear", align_corners=False)
        return MAX_MM * torch.tanh(bump), mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--version", default="1")
    options = parser.parse_args()
    saved = torch.load(options.checkpoint, map_location="cpu", weights_only=True)
    settings = {"size": "128", **saved["settings"]}
    task = settings["task"]
    network = make(settings)
    network.load_state_dict(saved["average"])
    names = OUTPUTS[task]
    path = options.out / f"{task}.onnx"
    metadata = {
        "name": task,
        "version": options.version,
        "input_size": settings["size"],
        "colour_order": "RGB",
        "mean": "0",
        "std": "1",
        "crop_rule": CROP_RULE,
        "source": SOURCES,
        "licence": LICENCE,
        "samples": str(saved["state"]["step"] * int(settings["batch"])),
    }
    shipped: nn.Module
    if task == "bump":
        metadata |= bump_metadata(network)
        shipped = ShippedBump(network).eval()
        export_maps(shipped, path, network.settings.inputs, network.settings.stride, metadata)
    else:
        metadata["head_model"] = HeadModel.load().fingerprint
        shipped = Shipped(network, len(names)).eval()
        export(shipped, path, int(settings["size"]), names, metadata)
    shrink_weights(path, "float16" if task == "bump" else "int8")
    compared = compare_maps if task == "bump" else compare
    print(
        json.dumps(
            {"file": path.name, "bytes": path.stat().st_size, **compared(shipped, path, names)}
        )
    )


def bump_metadata(network: BumpNetwork) -> dict[str, str]:
    """What those of a bump network's entries say that differ from the others'."""
    return {
        "input_size": f"multiples of {network.settings.stride}",
        "input_layout": "NCHW",
        "mean": "127.5",
        "std": "127.5",
        "crop_rule": BUMP_CROP_RULE,
        "source": BUMP_SOURCES,
        "channels": str(network.settings.inputs),
        "stride": str(network.settings.stride),
        "max_mm": f"{MAX_MM:g}",
        "bump": "mm along the viewing direction, positive is deeper",
        "mask": "probability that the pixel shows the face",
    }


def export_maps(
    model: nn.Module, path: Path, channels: int, stride: int, metadata: dict[str, str]
) -> None:
    """Writes a model as ONNX: `image` (1, channels, H, W) in, two maps out, any H and W."""
    names = OUTPUTS["bump"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter is the old one
        torch.onnx.export(
            model.eval(),
            (torch.zeros(1, channels, 2 * stride, 2 * stride),),
            str(path),
            input_names=["image"],
            output_names=names,
            dynamic_axes={name: {2: "H", 3: "W"} for name in ["image", *names]},
            opset_version=OPSET,
            dynamo=False,
        )
    written = onnx.load(path)
    for output in written.graph.output:  # the exporter names their sizes by what they come from
        for dim, name in zip(output.type.tensor_type.shape.dim, (1, 1, "H", "W"), strict=True):
            if isinstance(name, str):
                dim.dim_param = name
            else:
                dim.dim_value = name
    for key, value in metadata.items():
        written.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(written, full_check=True)
    onnx.save(written, path)


def make(settings: dict[str, str]) -> nn.Module:
    """The network of a run, with random weights."""
    if settings["task"] == "bump":
        return BumpNetwork(SETTINGS[settings["depth"]]).eval()
    size = int(settings["size"])
    network = untrained(
        settings["task"], settings["depth"], float(settings["width"]), HeadModel.load()
    ).eval()
    with torch.no_grad():
        network(torch.zeros(1, 3, size, size))  # makes the lazy layers
    return network


def compare(network: nn.Module, path: Path, names: list[str]) -> dict[str, float]:
    """Largest difference per output between the file and the network in float32."""
    size = int(onnx.load(path).graph.input[0].type.tensor_type.shape.dim[1].dim_value)
    images = np.random.default_rng(0).uniform(0, 255, (4, size, size, 3))
    images = images.astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    got = session.run(names, {"image": images})
    with torch.no_grad():
        want = network(torch.from_numpy(images).permute(0, 3, 1, 2))
    want = [want] if isinstance(want, Tensor) else want
    return {
        f"max_difference_{n}": round(float(np.abs(g - w.numpy()).max()), 5)
        for n, g, w in zip(names, got, want, strict=True)
    }


def compare_maps(network: nn.Module, path: Path, names: list[str]) -> dict[str, float]:
    """Largest difference per map between the file and the network, on an oblong input."""
    channels = int(onnx.load(path).graph.input[0].type.tensor_type.shape.dim[1].dim_value)
    image = np.random.default_rng(0).uniform(-1, 1, (1, channels, 192, 128)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    got = session.run(names, {"image": image})
    with torch.no_grad():
        want = network(torch.from_numpy(image))
    return {
        f"max_difference_{n}": round(float(np.abs(g - w.numpy()).max()), 5)
        for n, g, w in zip(names, got, want, strict=True)
    }


if __name__ == "__main__":
    main()
