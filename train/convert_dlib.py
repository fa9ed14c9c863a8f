"""Converts dlib's face recognition network to torch, for training, and to ONNX, for the package.

The weights `dlib_face_recognition_resnet_model_v1.dat` (Davis King, CC0) are in the PyPI package
`face_recognition_models==0.3.0`:

    python train/convert_dlib.py PATH.dat --out FOLDER [--assets FOLDER] [--photos FOLDER]

writes FOLDER/dlib.pt (for networks.load_dlib) and, with --assets, identity.onnx: weights as 16-bit
integers with one scale per output channel, half the size of float32. float16 is as small, but seven
times further off. With --photos (at least 20 JPEG files below it) identity.onnx is compared with
the package dlib.
"""

import argparse
import json
import math
import re
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import torch
from networks import FaceDescriptor, PlainBlock
from onnx_export import Shipped, export, shrink_weights
from torch import nn

TOLERANCE = 1e-4  # largest allowed difference from dlib's descriptors, which have length ~1.4
SIDE = 150  # px
# A layer's version text in dlib's format: one byte says that the length takes one byte.
TAG = re.compile(rb"\x01(?:\x05con_[456]|\x07affine_|\x08affine_2|\x04fc_[23])")
METADATA = {
    "name": "identity",
    "version": "1",
    "input_layout": "NHWC",
    "input_size": f"{SIDE}x{SIDE}",
    "colour_order": "RGB",
    "mean": "0",
    "std": "1",
    "crop_rule": "dlib's face chip from 68 points, 150 px, padding 0.25; extreme3d_fast.identity",
    "outputs": "descriptor (N,128): the same person where the distance is below 0.6",
    "source": "face_recognition_models==0.3.0, dlib_face_recognition_resnet_model_v1.dat",
    "licence": "CC0-1.0",
    "copyright": "Davis King",
    "training_data": "about 3 million photos of 7,485 people: FaceScrub, VGG and others, see dlib",
}


class InvalidFile(SystemExit):
    """The file is not what it should be."""


class Reader:
    """Reads dlib's serialization: packed integers, and tensors of little-endian float32."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data, self.name, self.at = data, name, 0

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise InvalidFile(f"{self.name}: ends at byte {len(self.data)}, inside a layer")
        self.at += count
        return self.data[self.at - count : self.at]

    def integer(self) -> int:
        """One byte with the number of bytes (its top bit: negative), then those bytes."""
        head = self.take(1)[0]
        if not 1 <= head & 0x7F <= 8:
            raise InvalidFile(f"{self.name}: no integer at byte {self.at - 1}")
        value = int.from_bytes(self.take(head & 0x7F), "little")
        return -value if head & 0x80 else value

    def tensor(self, size: int) -> np.ndarray:
        """(size,) float32: version 2, four sizes, the values."""
        start = self.at
        version, *sizes = [self.integer() for _ in range(5)]
        if version != 2 or min(sizes) < 1 or math.prod(sizes) != size:
            raise InvalidFile(
                f"{self.name}: expected a tensor of {size} values at byte {start}, got {sizes} in "
                f"version {version}"
            )
        values = np.frombuffer(self.take(4 * size), "<f4")
        if not np.isfinite(values).all():
            raise InvalidFile(f"{self.name}: NaN or infinity in the tensor at byte {start}")
        return values

    def layer(self, kind: str) -> None:
        """Goes to just after the tag of the next layer that has parameters."""
        found = TAG.search(self.data, self.at)
        if found is None or not found.group()[2:].startswith(kind.encode()):
            what = "the end" if found is None else found.group()[2:].decode()
            raise InvalidFile(f"{self.name}: expected a layer {kind}* after {self.at}, got {what}")
        self.at = found.end()


def read(data: bytes, model: FaceDescriptor, name: str = "dlib") -> None:
    """Puts the weights of a .dat file into a model; they are stored from the input to the output.

    dlib's affine layers become BatchNorm layers with mean 0 and variance 1; the convolutions'
    biases, which came before them, go into theirs.
    """
    reader = Reader(data, name)
    network = model.network
    pairs = [(network.conv1, network.bn1)]
    for block in network.modules():
        if isinstance(block, PlainBlock):
            pairs += [(block.conv1, block.bn1), (block.conv2, block.bn2)]
    with torch.no_grad():
        for convolution, norm in pairs:
            read_convolution(reader, convolution, norm)
        reader.layer("fc_")
        outputs, inputs = reader.integer(), reader.integer()
        shape = tuple(model.fc.weight.shape)
        if (outputs, inputs) != shape:
            raise InvalidFile(f"{name}: expected an fc layer {shape}, got {(outputs, inputs)}")
        weight = reader.tensor(outputs * inputs).reshape(inputs, outputs)
        model.fc.weight.copy_(torch.from_numpy(weight.T.copy()))
    if TAG.search(data, reader.at):
        raise InvalidFile(f"{name}: has more layers than the network")


def read_convolution(reader: Reader, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """One convolution and the affine layer after it."""
    channels, *_ = shape = tuple(convolution.weight.shape)
    count = math.prod(shape)
    reader.layer("con_")
    values = reader.tensor(count + channels)
    weight, bias = values[:count].reshape(shape), values[count:]
    want = [channels, *shape[2:], *convolution.stride, *convolution.padding]
    have = [reader.integer() for _ in want]
    if have != want:
        raise InvalidFile(
            f"{reader.name}: expected a convolution with channels, size, stride and padding "
            f"{want}, got {have}"
        )
    reader.layer("affine_")
    gamma, beta = reader.tensor(2 * channels).reshape(2, channels)
    convolution.weight.copy_(torch.from_numpy(weight.copy()))
    norm.running_mean.zero_()
    norm.running_var.fill_(1)
    norm.weight.copy_(torch.from_numpy(gamma * np.float32(math.sqrt(1 + norm.eps))))
    norm.bias.copy_(torch.from_numpy(gamma * bias + beta))


def compare(weights: Path, path: Path, photos: list[Path]) -> float:
    """Largest difference from the package dlib, for photos alone and as a batch."""
    import dlib

    original = dlib.face_recognition_model_v1(str(weights))
    chips = []
    for photo in photos:
        image = cv2.imread(str(photo))[:, :, ::-1]
        chips.append(cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
    want = np.array([original.compute_face_descriptor(chip) for chip in chips])
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images = np.stack(chips).astype(np.float32)
    (batch,) = session.run(None, {"image": images})
    single = np.concatenate([session.run(None, {"image": image[None]})[0] for image in images])
    return float(max(np.abs(batch - want).max(), np.abs(single - want).max()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, help="dlib_face_recognition_resnet_model_v1.dat")
    parser.add_argument("--out", type=Path, required=True, help="folder of dlib.pt")
    parser.add_argument("--assets", type=Path, help="folder of identity.onnx")
    parser.add_argument("--photos", type=Path, help="compare on 20 .jpg of this folder")
    options = parser.parse_args()
    if options.photos and not options.assets:
        parser.error("--photos: needs --assets")
    model = FaceDescriptor().eval()
    read(options.weights.read_bytes(), model, options.weights.name)
    options.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), options.out / "dlib.pt")
    count = sum(parameter.numel() for parameter in model.parameters())
    report: dict[str, int | float | str] = {"parameters": count}
    if options.assets:
        path = write(model, options.assets)
        report |= {"file": path.name, "bytes": path.stat().st_size}
        if options.photos:
            files = sorted(options.photos.rglob("*.jpg"))[:20]
            if len(files) < 20:
                raise SystemExit(f"--photos: expected at least 20 .jpg, found {len(files)}")
            report["max_difference"] = compare(options.weights, path, files)
    print(json.dumps(report))
    if float(report.get("max_difference", 0)) > TOLERANCE:
        raise SystemExit(f"{path.name} differs from its original by more than {TOLERANCE}")


def write(model: FaceDescriptor, folder: Path) -> Path:
    """Writes identity.onnx, which takes pixels from 0 to 255."""
    path = folder / "identity.onnx"
    export(Shipped(model, 1), path, SIDE, ["descriptor"], METADATA)
    shrink_weights(path, "int16")
    return path


if __name__ == "__main__":
    main()
