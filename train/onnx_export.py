"""Writes torch models as ONNX files with a contract, and stores their weights in fewer bytes."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from networks import DLIB_MEAN, DLIB_STD
from onnx import numpy_helper
from torch import Tensor, nn

OPSET = 17
FLOAT = onnx.TensorProto.FLOAT


class Shipped(nn.Module):
    """Takes pixels (0 to 255), leaves out what only training needs."""

    def __init__(self, network: nn.Module, count: int) -> None:
        super().__init__()
        self.network, self.count = network, count
        self.register_buffer("mean", torch.tensor(DLIB_MEAN).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        out = self.network((image - self.mean) / DLIB_STD)
        return out if self.count == 1 else out[: self.count]


class ChannelsLast(nn.Module):
    """Takes (N, H, W, 3) as the package's networks do."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.model(image.permute(0, 3, 1, 2))


def export(
    model: nn.Module, path: Path, size: int, outputs: list[str], metadata: dict[str, str]
) -> None:
    """Writes a model as ONNX: `image` (N, size, size, 3) in, these outputs, dynamic batch.

    BatchNorm layers are folded into the convolutions before them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's: sizes become constants, as they should
        torch.onnx.export(
            ChannelsLast(model).eval(),
            (torch.zeros(2, size, size, 3),),
            str(path),
            input_names=["image"],
            output_names=outputs,
            dynamic_axes={name: {0: "N"} for name in ["image", *outputs]},
            opset_version=OPSET,
            dynamo=False,
        )
    onnx_model = onnx.load(path)
    for key, value in metadata.items():
        onnx_model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(onnx_model, full_check=True)
    onnx.save(onnx_model, path)


def shrink_weights(path: Path, stored: str = "int8", smallest: int = 2048) -> None:
    """Stores large weights in fewer bytes; what turns them into float32 is folded on loading.

    Args:
        path: the ONNX file, rewritten.
        stored: "int8" or "int16" with one scale per output channel, or "float16".
        smallest: arrays of fewer values stay as they are.
    """
    model = onnx.load(path)
    graph, nodes = model.graph, []
    users = {name: node for node in graph.node for name in node.input}
    for tensor in list(graph.initializer):
        weights, name = numpy_helper.to_array(tensor), tensor.name
        if weights.dtype != np.float32 or weights.size < smallest or weights.ndim < 2:
            continue
        graph.initializer.remove(tensor)
        short = f"{name}_{stored}"
        if stored == "float16":
            graph.initializer.append(numpy_helper.from_array(weights.astype(np.float16), short))
            nodes.append(onnx.helper.make_node("Cast", [short], [name], to=FLOAT))
            continue
        node = users[name]
        transposed = any(a.name == "transB" and a.i == 1 for a in node.attribute)
        rows = node.op_type == "Conv" or transposed  # output channels first
        axes = tuple(range(1, weights.ndim)) if rows else tuple(range(weights.ndim - 1))
        largest = np.abs(weights).max(axes, keepdims=True)
        scale = np.maximum(largest / np.iinfo(stored).max, 1e-12).astype(np.float32)
        whole = np.rint(weights / scale).astype(stored)
        graph.initializer.append(numpy_helper.from_array(whole, short))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
        nodes.append(onnx.helper.make_node("Cast", [short], [f"{name}_float"], to=FLOAT))
        nodes.append(onnx.helper.make_node("Mul", [f"{name}_float", f"{name}_scale"], [name]))
    for node in reversed(nodes):
        graph.node.insert(0, node)
    onnx.checker.check_model(model)
    onnx.save(model, path)
