"""ONNX files of one convolution per output, written without the onnx package.

Enough to know in closed form what a network should say; onnx/onnx.proto names the fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

METADATA = {
    "name": "bump",
    "version": "0",
    "input_size": "512",
    "colour_order": "RGB",
    "mean": "127.5",
    "std": "127.5",
    "crop_rule": "as crop_face",
    "source": "made by a test",
    "licence": "none",
}
FLOAT, DOUBLE = 1, 11  # TensorProto.DataType
IR_VERSION, OPSET = 8, 17
RED, GREEN, BLUE, NX, NY = range(5)


def picks(channel: int, channels: int = 5, gain: float = 1.0) -> npt.NDArray[np.float32]:
    """(1, channels, 1, 1) kernel whose answer is one input channel."""
    kernel = np.zeros((1, channels, 1, 1), np.float32)
    kernel[0, channel] = gain
    return kernel


def says(channels: int = 5) -> npt.NDArray[np.float32]:
    """Kernel that looks at nothing: the answer is the bias."""
    return np.zeros((1, channels, 1, 1), np.float32)


def write_network(
    path: Path,
    bump: npt.NDArray[np.float32],
    mask: npt.NDArray[np.float32] | None = None,
    *,
    bump_bias: float = 0.0,
    mask_bias: float = 1.0,
    metadata: Mapping[str, str] | None = None,
    shape: Sequence[int | str] = (1, -1, "H", "W"),
    outputs: Sequence[str] = ("bump", "mask"),
    stride: int = 1,
    elements: int = FLOAT,
) -> Path:
    """Writes a network whose answers are `bump` * image + bias and clip(`mask` * image + bias).

    Args:
        path: where to.
        bump, mask: (1, C, k, k) kernels, k odd; a mask of None is `mask_bias` everywhere.
        metadata: added to what every file has; a value of "" takes the entry away.
        shape: of the input; -1 is C.
        outputs: names of the answers.
        stride: of both convolutions.
        elements: type of the input.
    """
    channels = bump.shape[1]
    kernels = {"bump": bump, "mask": says(channels) if mask is None else mask}
    biases = {"bump": bump_bias, "mask": mask_bias}
    arrays = {"low": np.zeros((), np.float32), "high": np.ones((), np.float32)}
    nodes = []
    for name, kernel in kernels.items():
        arrays[f"{name}_kernel"] = kernel.astype(np.float32)
        arrays[f"{name}_bias"] = np.full(1, biases[name], np.float32)
        pad = kernel.shape[2] // 2
        answer = outputs[0] if name == "bump" else "unclipped"
        nodes.append(
            _node(
                "Conv",
                ["image", f"{name}_kernel", f"{name}_bias"],
                answer,
                _ints("pads", [pad] * 4) + _ints("strides", [stride] * 2),
            )
        )
    nodes.append(_node("Clip", ["unclipped", "low", "high"], outputs[1]))
    axes = [channels if size == -1 else size for size in shape]
    tensors = [_tensor(name, array) for name, array in arrays.items()]
    inputs = [_value("image", axes, elements)]
    answers = [_value(name, [1, 1, "h", "w"], FLOAT) for name in outputs]
    entries = {"channels": str(channels), **(metadata or {})}
    return _write_model(path, nodes, tensors, inputs, answers, entries)


def write_chain(
    path: Path,
    kernels: Sequence[npt.NDArray[np.float32]],
    *,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Writes a network of convolutions without bias, one after the other: `image` to `answer`.

    Args:
        path: where to.
        kernels: (C out, C in, k, k), k odd.
        metadata: added to what every file has; a value of "" takes the entry away.
    """
    names = ["image", *(f"layer{i}" for i in range(1, len(kernels))), "answer"]
    nodes = [
        _node("Conv", [names[i], f"kernel{i}"], names[i + 1], _ints("pads", [k.shape[2] // 2] * 4))
        for i, k in enumerate(kernels)
    ]
    tensors = [_tensor(f"kernel{i}", k.astype(np.float32)) for i, k in enumerate(kernels)]
    ends = [("image", kernels[0].shape[1]), ("answer", kernels[-1].shape[0])]
    values = [_value(name, ["N", channels, "H", "W"], FLOAT) for name, channels in ends]
    return _write_model(path, nodes, tensors, values[:1], values[1:], metadata or {})


def _write_model(
    path: Path,
    nodes: Sequence[bytes],
    tensors: Sequence[bytes],
    inputs: Sequence[bytes],
    outputs: Sequence[bytes],
    metadata: Mapping[str, str],
) -> Path:
    graph = b"".join(_part(1, node) for node in nodes) + _part(2, b"graph")
    for field, values in ((5, tensors), (11, inputs), (12, outputs)):
        graph += b"".join(_part(field, value) for value in values)
    model = _number(1, IR_VERSION) + _part(7, graph) + _part(8, _number(2, OPSET))
    for key, value in {**METADATA, **metadata}.items():
        if value:
            model += _part(14, _part(1, key.encode()) + _part(2, value.encode()))
    path.write_bytes(model)
    return path


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _part(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _node(operator: str, inputs: Sequence[str], output: str, attributes: bytes = b"") -> bytes:
    names = b"".join(_part(1, name.encode()) for name in inputs)
    return names + _part(2, output.encode()) + _part(4, operator.encode()) + attributes


def _ints(name: str, values: Sequence[int]) -> bytes:
    numbers = b"".join(_number(8, value) for value in values)
    return _part(5, _part(1, name.encode()) + numbers + _number(20, 7))


def _tensor(name: str, array: npt.NDArray[np.float32]) -> bytes:
    sizes = b"".join(_number(1, size) for size in array.shape)
    return sizes + _number(2, FLOAT) + _part(8, name.encode()) + _part(9, array.tobytes())


def _value(name: str, axes: Sequence[int | str], elements: int) -> bytes:
    sizes = b"".join(
        _part(1, _part(2, size.encode()) if isinstance(size, str) else _number(1, size))
        for size in axes
    )
    tensor = _number(1, elements) + _part(2, sizes)
    return _part(1, name.encode()) + _part(2, _part(1, tensor))
