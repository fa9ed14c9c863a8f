"""Converts the authors' published ResNet-101 weights (PyTorch) to ONNX, for those who have them.

    python train/convert_authors.py shape_state.pth --kind shape --mean shape_mean.npz --out X.onnx

Their licence is academic, so nothing here ships with the package. The file must hold a state dict,
with Caffe's layer names or torchvision's. A whole module (pickled with `torch.save(module)`) would
run code when loaded, so it is refused; where you trust it, with the authors' `shape_model.py`
imported as MainModel, turn it into a state dict:

    torch.save(torch.load("shape_model.pth", weights_only=False).state_dict(), "shape_state.pth")

The networks see the authors' 224 px crop as BGR minus a mean. Both go into the ONNX file, which
takes RGB pixels as they are.
"""

import argparse
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from convert_dlib import InvalidFile
from networks import SETTINGS, ResidualNetwork
from onnx_export import export
from torch import Tensor, nn

SIZE = 224  # px
TOLERANCE = 1e-4  # largest allowed difference of ONNX from torch, relative to max(1, |output|)
CAFFE, TORCHVISION = "resnet101_caffe", "resnet101"


@dataclass(frozen=True)
class Kind:
    """What a network regresses."""

    widths: tuple[int, ...]  # allowed numbers of outputs
    outputs: str
    source: str


KINDS = {
    "shape": Kind(
        (198, 99),
        "99 shape, then (where there are 198) 99 texture coefficients of the Basel Face Model 2009",
        "3DMM-CNN, Tran et al., CVPR 2017",
    ),
    "expression": Kind((29,), "29 expression coefficients of 3DDFA", "ExpNet, Chang et al., 2018"),
    "pose": Kind(
        (6,),
        "rotation vector in radians, then translation, as the network was trained with",
        "FacePoseNet, Chang et al., 2017",
    ),
}
COMMON = {
    "version": "1",
    "input_layout": "NHWC",
    "input_size": f"{SIZE}x{SIZE}",
    "colour_order": "RGB",
    "mean": "0",  # the network's own is in the graph
    "std": "1",
    "crop_rule": "square that reaches 1.9255, 2.2591, 1.9423, 1.6087 half boxes left, up, right "
    "and down of the middle of the 68 points' box, not rotated (the shape network's)",
    "licence": "academic use only, see the authors' release",
}


class AuthorsNetwork(nn.Module):
    """(B, 3, 224, 224) RGB, 0..255 -> (B, width)."""

    def __init__(self, settings: str, width: int, mean: np.ndarray) -> None:
        super().__init__()
        self.network = ResidualNetwork(settings)
        self.fc = nn.Linear(self.network.channels, width)
        self.register_buffer("mean", torch.from_numpy(mean), persistent=False)  # (3, 1|H, 1|W) RGB

    def forward(self, image: Tensor) -> Tensor:
        return self.fc(self.network(image - self.mean).mean((2, 3)))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pth file by name; no code in it is run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old formats
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # broken files end in all kinds of exceptions
        # torch's own message advises to run the file's code
        reason = str(error).rpartition("WeightsUnpickler error:")[2].strip() or repr(error)
        raise InvalidFile(
            f"{path}: no readable tensors: {reason.splitlines()[0].split(' was not ')[0]}\n"
            "Either the file is damaged or it holds more than tensors, such as a whole module. "
            "Then, where you trust it, load it with its classes and save its state_dict()."
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise InvalidFile(f"{path}: expected tensors by name, got {type(content).__name__}")
    state = {}
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise InvalidFile(
                f"{path}: expected tensors by name, got {key!r}: {type(value).__name__}"
            )
        key = key.removeprefix("module.")  # DataParallel's
        if key.endswith("num_batches_tracked"):
            continue
        if value.layout != torch.strided or not value.is_floating_point():
            raise InvalidFile(f"{path}: {key}: expected floating-point values, got {value.dtype}")
        if not torch.isfinite(value).all():
            raise InvalidFile(f"{path}: {key}: holds NaN or infinity")
        state[key] = value.detach().float()
    return state


def caffe_names() -> dict[str, str]:
    """ResidualNetwork's layer -> Caffe's, for a ResNet-101."""
    names = {"conv1": "conv1", "bn1": "bn_conv1"}
    for stage, count in enumerate(SETTINGS[CAFFE].blocks):
        for block in range(count):
            # res3 and res4 count their blocks a, b1, b2, ...
            letter = f"b{block}" if count > 3 and block else "abc"[block]
            ours, theirs = f"layer{stage + 1}.{block}", f"{stage + 2}{letter}_branch"
            for index in range(3):
                names[f"{ours}.conv{index + 1}"] = f"res{theirs}2{'abc'[index]}"
                names[f"{ours}.bn{index + 1}"] = f"bn{theirs}2{'abc'[index]}"
            if block == 0:
                names[f"{ours}.downsample.0"] = f"res{theirs}1"
                names[f"{ours}.downsample.1"] = f"bn{theirs}1"
    return names


def build(state: dict[str, Tensor], kind: str, mean: np.ndarray, name: str) -> AuthorsNetwork:
    """The network of a state dict.

    Args:
        state: tensors by name, as read_weights returns them.
        kind: one of KINDS.
        mean: (3, 1, 1) or (3, 224, 224) float32, BGR.
        name: of the file, for messages.
    """
    heads = [
        key.removesuffix(".weight")
        for key, value in state.items()
        if value.ndim == 2 and key.endswith(".weight")
    ]
    if len(heads) != 1:
        raise InvalidFile(f"{name}: expected one fully connected layer, got {sorted(heads)}")
    width = len(state[f"{heads[0]}.weight"])
    if width not in KINDS[kind].widths:
        raise InvalidFile(
            f"{name}: expected {' or '.join(map(str, KINDS[kind].widths))} outputs for {kind}, got "
            f"{width}"
        )
    torchvision = "layer1.0.conv1.weight" in state
    model = AuthorsNetwork(TORCHVISION if torchvision else CAFFE, width, mean[::-1].copy())
    theirs = {} if torchvision else caffe_names()
    theirs["fc"] = heads[0]
    rest = fold_biases(state, model.network, theirs)
    wanted = {}
    for key, value in model.state_dict().items():
        layer, _, part = key.removeprefix("network.").rpartition(".")
        if part != "num_batches_tracked":
            wanted[key] = (f"{theirs.get(layer, layer)}.{part}", value.shape)
    weights = matched(rest, wanted, name)
    weights["network.conv1.weight"] = weights["network.conv1.weight"].flip(1)  # BGR -> RGB
    model.load_state_dict(weights, strict=False)  # all but num_batches_tracked
    return model.eval()


def matched(
    state: Mapping[str, Tensor], wanted: Mapping[str, tuple[str, torch.Size]], name: str
) -> dict[str, Tensor]:
    """The tensors of a file by our names, all of them and no others.

    Args:
        wanted: per name of ours theirs, and the shape.
        name: of the file, for messages.
    """
    rest, weights, missing, misshapen = dict(state), {}, [], []
    for key, (source, shape) in wanted.items():
        tensor = rest.pop(source, None)
        if tensor is None:
            missing.append(source)
        elif tensor.shape != shape:
            misshapen.append(f"{source} {tuple(tensor.shape)}, expected {tuple(shape)}")
        else:
            weights[key] = tensor
    for what, keys in (
        ("missing", missing),
        ("unexpected", sorted(rest)),
        ("misshapen", misshapen),
    ):
        if keys:
            more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
            raise InvalidFile(f"{name}: {what} tensors: {', '.join(keys[:5])}{more}")
    return weights


def fold_biases(
    state: dict[str, Tensor], network: ResidualNetwork, theirs: Mapping[str, str]
) -> dict[str, Tensor]:
    """The state without convolutions' biases: each lowers the mean of the BatchNorm layer after."""
    state = dict(state)
    for layer, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            norm = layer.replace("conv", "bn").replace("downsample.0", "downsample.1")
            bias = f"{theirs.get(layer, layer)}.bias"
            mean = f"{theirs.get(norm, norm)}.running_mean"
            if bias in state and mean in state and state[bias].shape == state[mean].shape:
                state[mean] = state[mean] - state.pop(bias)
    return state


def read_mean(text: str) -> np.ndarray:
    """(3, 1, 1) or (3, 224, 224) float32 BGR: three numbers, or the authors' shape_mean.npz."""
    try:
        if text.endswith(".npz"):
            with np.load(text, allow_pickle=False) as arrays:
                mean = arrays["arr_0"].astype(np.float32)
        else:
            mean = np.array(text.split(","), np.float32)
        mean = mean.reshape(3, 1, 1) if mean.size == 3 else mean.reshape(3, SIZE, SIZE)
    except Exception as error:  # broken files end in all kinds of exceptions
        raise InvalidFile(
            f"--mean: expected B,G,R or an .npz with arr_0 of 3 or 3x{SIZE}x{SIZE} values, got "
            f"{text}: {error}"
        ) from error
    if not np.isfinite(mean).all():
        raise InvalidFile(f"--mean: {text} holds NaN or infinity")
    return mean


def convert(path: Path, kind: str, mean: np.ndarray, out: Path) -> float:
    """Writes the ONNX file; returns its largest difference from torch on random pictures."""
    model = build(read_weights(path), kind, mean, path.name)
    metadata = COMMON | {
        "name": f"authors_{kind}",
        "outputs": f"coefficients (N,{model.fc.out_features}): {KINDS[kind].outputs}",
        "source": f"{path.name}: {KINDS[kind].source}",
    }
    export(model, out, SIZE, ["coefficients"], metadata)
    images = np.random.default_rng(0).uniform(0, 255, (2, SIZE, SIZE, 3)).astype(np.float32)
    with torch.no_grad():
        want = model(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"image": images})
    return float((np.abs(got - want) / np.maximum(1, np.abs(want))).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, help="the authors' .pth file")
    parser.add_argument("--kind", choices=[*KINDS], required=True)
    parser.add_argument("--mean", required=True, help="shape_mean.npz, or B,G,R")
    parser.add_argument("--out", type=Path, required=True, help="the .onnx file to write")
    options = parser.parse_args()
    mean = read_mean(options.mean)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    difference = convert(options.weights, options.kind, mean, options.out)
    size = options.out.stat().st_size
    print(json.dumps({"file": options.out.name, "bytes": size, "max_difference": difference}))
    if difference > TOLERANCE:
        raise SystemExit(f"{options.out.name} differs from torch by more than {TOLERANCE}")


if __name__ == "__main__":
    main()
