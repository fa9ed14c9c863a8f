"""train's converters: read what they should, refuse what they should, and give the same numbers."""

from __future__ import annotations

import importlib
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extreme3d_fast.identity import IdentityNetwork
from extreme3d_fast.session import Session

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

sys.path.append(str(Path(__file__).parents[1] / "train"))
networks = importlib.import_module("networks")
convert_dlib = importlib.import_module("convert_dlib")
convert_authors = importlib.import_module("convert_authors")

functional = torch.nn.functional
BGR_MEAN = np.array([90.0, 100.0, 110.0], np.float32).reshape(3, 1, 1)


# dlib's format: layers from the input on, each its version text, tensors and integers.


def packed(value: int) -> bytes:
    body = abs(value).to_bytes(max(1, (abs(value).bit_length() + 7) // 8), "little")
    return bytes([len(body) | (0x80 if value < 0 else 0)]) + body


def text(value: str) -> bytes:
    return packed(len(value)) + value.encode()


def tensor(values: np.ndarray, *sizes: int) -> bytes:
    sizes = (sizes + (1, 1, 1, 1))[:4]
    return b"".join(packed(n) for n in (2, *sizes)) + values.astype("<f4").tobytes()


def dlib_file(rng: np.random.Generator) -> tuple[bytes, list[dict[str, np.ndarray]], np.ndarray]:
    """A .dat file of random weights; the weights per convolution; those of the last layer."""
    data = packed(1) + packed(1) + text("loss_metric_2") + bytes(20)
    layers = []

    def convolution(before: int, after: int, size: int, stride: int) -> None:
        nonlocal data
        layer = {
            "weight": rng.normal(0, (2 / (before * size**2)) ** 0.5, (after, before, size, size)),
            "bias": rng.normal(0, 0.1, after),
            "gamma": rng.uniform(0.3, 1.0, after),
            "beta": rng.normal(0, 0.1, after),
        }
        layer = {key: value.astype(np.float32) for key, value in layer.items()}
        layers.append(layer | {"stride": np.array(stride)})
        padding = size // 2 if stride == 1 else 0
        values = np.concatenate([layer["weight"].ravel(), layer["bias"]])
        data += text("con_4") + tensor(values, values.size)
        for value in (after, size, size, stride, stride, padding, padding):
            data += packed(value)
        data += b"filters and biases" + text("affine_")
        data += tensor(np.concatenate([layer["gamma"], layer["beta"]]), 2 * after)
        data += text("relu_") + b"111"

    convolution(3, 32, 7, 2)
    before = 32
    for after, blocks, down in ((32, 3, 0), (64, 4, 1), (128, 3, 1), (256, 3, 1), (256, 1, 1)):
        for block in range(blocks):
            convolution(before, after, 3, 2 if down and block == 0 else 1)
            convolution(after, after, 3, 1)
            before = after
    last = rng.normal(0, 0.06, (256, 128)).astype(np.float32)
    data += text("fc_2") + packed(128) + packed(256) + tensor(last, 256, 128) + bytes(50)
    return data, layers, last


def dlib_forward(layers: list[dict[str, np.ndarray]], last: np.ndarray, image: Any) -> Any:
    """dlib's network written down again, from its definition (dnn_face_recognition_ex.cpp)."""
    rest = iter(layers)

    def convolution(x: Any) -> tuple[Any, int]:
        layer = next(rest)
        w, bias, gamma, beta = (
            torch.from_numpy(layer[k]) for k in ("weight", "bias", "gamma", "beta")
        )
        stride = int(layer["stride"])
        y = functional.conv2d(x, w, bias, stride, w.shape[-1] // 2 if stride == 1 else 0)
        return gamma.view(-1, 1, 1) * y + beta.view(-1, 1, 1), stride

    x, _ = convolution(image)
    x = functional.max_pool2d(torch.relu(x), 3, 2)
    for _ in range(14):
        y, stride = convolution(x)
        y, _ = convolution(torch.relu(y))
        if stride == 2:
            x = functional.avg_pool2d(x, 2, 2)
        total = torch.zeros(torch.maximum(torch.tensor(x.shape), torch.tensor(y.shape)).tolist())
        for part in (x, y):
            _, channels, rows, columns = part.shape
            total[:, :channels, :rows, :columns] += part
        x = torch.relu(total)
    return x.mean((2, 3)) @ torch.from_numpy(last)


def test_dlib_weights_give_the_network_that_dlib_defines(rng: np.random.Generator) -> None:
    data, layers, last = dlib_file(rng)
    model = networks.FaceDescriptor().eval()
    convert_dlib.read(data, model)
    images = rng.normal(0, 0.3, (2, 150, 150, 3)).astype(np.float32)
    nchw = torch.from_numpy(images).permute(0, 3, 1, 2)
    with torch.no_grad():
        want = dlib_forward(layers, last, nchw).numpy()
        np.testing.assert_allclose(model(nchw).numpy(), want, atol=1e-4 * np.abs(want).max())


def test_identity_file_is_what_the_package_loads_and_gives_the_same_numbers(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    model = networks.FaceDescriptor().eval()
    convert_dlib.read(dlib_file(rng)[0], model)
    path = convert_dlib.write(model, tmp_path)
    chips = rng.integers(0, 256, (2, 150, 150, 3)).astype(np.float32)
    images = (chips - np.array(networks.DLIB_MEAN, np.float32)) / networks.DLIB_STD
    with torch.no_grad():
        want = model(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    got = Session(path, threads=1).run({"image": chips})["descriptor"]
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())
    assert path.stat().st_size < 11.5e6
    assert IdentityNetwork(path).size == 150


def test_dlib_weights_are_loaded_again_without_the_last_stage(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    model = networks.FaceDescriptor().eval()
    convert_dlib.read(dlib_file(rng)[0], model)
    torch.save(model.state_dict(), tmp_path / "dlib.pt")
    part = networks.load_dlib(tmp_path / "dlib.pt", stages=4)
    image = torch.from_numpy(rng.normal(0, 0.3, (1, 3, 128, 128)).astype(np.float32))
    with torch.no_grad():
        assert part(image).shape == (1, part.channels, 3, 3)
        whole = model.network.layer5(part(image))
        torch.testing.assert_close(whole, model.network(image))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[: len(data) // 2], "inside a layer"),
        (lambda data: data[:1000], "inside a layer"),
        (lambda _: b"", "expected a layer con_"),
        (
            lambda data: data.replace(text("affine_"), text("affin__"), 1),
            "expected a layer affine_",
        ),
        (lambda data: data.replace(packed(4736), packed(4737), 1), "expected a tensor of 4736"),
        (lambda data: data.replace(packed(4736), b"\xff" * 3, 1), "no integer"),
        (
            lambda data: data.replace(packed(128) + packed(256), packed(99) + packed(256)),
            "fc layer",
        ),
        (lambda data: data + text("con_4"), "more layers"),
        (lambda data: data[:200] + b"\xff" * 16 + data[216:], "NaN"),
        (
            lambda data: data.replace(
                b"".join(map(packed, (32, 7, 7, 2, 2))), b"".join(map(packed, (32, 7, 7, 1, 1))), 1
            ),
            "channels, size, stride and padding",
        ),
    ],
)
def test_broken_dlib_files_are_refused(rng: np.random.Generator, change: Any, message: str) -> None:
    with pytest.raises(convert_dlib.InvalidFile, match=message):
        convert_dlib.read(change(dlib_file(rng)[0]), networks.FaceDescriptor())


# The authors' files.


def caffe_state(rng: np.random.Generator, width: int) -> dict[str, Any]:
    """A state dict with random weights in the layout of Caffe's ResNet-101."""
    state: dict[str, Any] = {}

    def put(name: str, *shape: int, mean: float = 0.0, sigma: float = 0.1) -> None:
        state[name] = torch.from_numpy(rng.normal(mean, sigma, shape).astype(np.float32))

    def layer(convolution: str, norm: str, before: int, after: int, size: int, gain: float) -> None:
        put(
            f"{convolution}.weight",
            after,
            before,
            size,
            size,
            sigma=(2 / (before * size**2)) ** 0.5,
        )
        put(f"{norm}.weight", after, mean=gain, sigma=0.1 * gain)
        put(f"{norm}.bias", after)
        put(f"{norm}.running_mean", after)
        state[f"{norm}.running_var"] = torch.from_numpy(rng.uniform(0.8, 1.2, after).astype("f"))

    layer("conv1", "bn_conv1", 3, 64, 7, 0.01)  # its input is 0..255
    before = 64
    for stage, count in ((2, 3), (3, 4), (4, 23), (5, 3)):
        channels = 32 << (stage - 1)
        for block in range(count):
            letters = "abc"[block] if count == 3 else f"b{block}" if block else "a"
            name = f"{stage}{letters}_branch"
            if block == 0:
                layer(f"res{name}1", f"bn{name}1", before, 4 * channels, 1, 0.7)
            layer(f"res{name}2a", f"bn{name}2a", before, channels, 1, 1.0)
            layer(f"res{name}2b", f"bn{name}2b", channels, channels, 3, 1.0)
            layer(f"res{name}2c", f"bn{name}2c", channels, 4 * channels, 1, 0.2)
            before = 4 * channels
    put("fc_ftnew.weight", width, 2048, sigma=0.02)
    put("fc_ftnew.bias", width)
    return state


def caffe_forward(state: dict[str, Any], x: Any) -> Any:
    """Caffe's ResNet-101 written down again, as its prototxt has it."""

    def layer(convolution: str, norm: str, x: Any, stride: int = 1) -> Any:
        w = state[f"{convolution}.weight"]
        y = functional.conv2d(x, w, state.get(f"{convolution}.bias"), stride, w.shape[-1] // 2)
        parts = (state[f"{norm}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(y, *parts, eps=1e-5)

    x = torch.relu(layer("conv1", "bn_conv1", x, 2))
    x = functional.max_pool2d(functional.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2)
    for name in [key[3:-9] for key in state if key.startswith("res") and "2a.weight" in key]:
        # name is like 4b22_branch
        stride = 2 if f"res{name}1.weight" in state and name[0] != "2" else 1
        y = torch.relu(layer(f"res{name}2a", f"bn{name}2a", x, stride))
        y = torch.relu(layer(f"res{name}2b", f"bn{name}2b", y))
        y = layer(f"res{name}2c", f"bn{name}2c", y)
        if f"res{name}1.weight" in state:
            x = layer(f"res{name}1", f"bn{name}1", x, stride)
        x = torch.relu(x + y)
    pooled = functional.avg_pool2d(x, 7)[:, :, 0, 0]
    return pooled @ state["fc_ftnew.weight"].T + state["fc_ftnew.bias"]


@pytest.fixture(scope="module")
def shape_state() -> dict[str, Any]:
    state = caffe_state(np.random.default_rng(0), 198)
    assert {"res2c_branch2c.weight", "res4b22_branch2c.weight"} <= set(state)
    return state


def test_authors_weights_give_the_network_that_their_prototxt_defines(
    shape_state: dict[str, Any], rng: np.random.Generator, tmp_path: Path
) -> None:
    state = dict(shape_state)
    state["conv1.bias"] = torch.full((64,), 3.0)  # some conversions give the stem a bias
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "a.pth")
    np.savez(tmp_path / "mean.npz", BGR_MEAN)
    mean = convert_authors.read_mean(str(tmp_path / "mean.npz"))
    out = tmp_path / "a.onnx"
    assert convert_authors.convert(tmp_path / "a.pth", "shape", mean, out) < 1e-4

    rgb = rng.uniform(0, 255, (2, 224, 224, 3)).astype(np.float32)
    bgr = torch.from_numpy(rgb[..., ::-1].transpose(0, 3, 1, 2) - BGR_MEAN)
    with torch.no_grad():
        want = caffe_forward(state, bgr).numpy()
    session = Session(out, threads=1)
    assert session.metadata["name"] == "authors_shape"
    session.expect(inputs={"image": (None, 224, 224, 3)}, outputs={"coefficients": (None, 198)})
    got = session.run({"image": rgb})["coefficients"]
    assert np.abs(want).max() > 0.1
    np.testing.assert_allclose(got, want, atol=1e-4 * max(1, np.abs(want).max()))


def test_torchvisions_names_are_read_too(rng: np.random.Generator) -> None:
    network = networks.ResidualNetwork("resnet101").eval()
    state = network.state_dict() | {"fc.weight": torch.zeros(29, 2048), "fc.bias": torch.ones(29)}
    state = {k: v for k, v in state.items() if "num_batches" not in k}
    model = convert_authors.build(state, "expression", BGR_MEAN, "b.pth")
    rgb = torch.from_numpy(rng.uniform(0, 255, (1, 3, 224, 224)).astype(np.float32))
    with torch.no_grad():
        got = model.network(rgb - model.mean)
        want = network(rgb.flip(1) - torch.from_numpy(BGR_MEAN))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4 * float(want.abs().max()))


class Marked:
    """Leaves a file behind if it is ever unpickled."""

    path = ""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path(self.path).touch, ())


def test_hostile_and_broken_files_are_refused(tmp_path: Path) -> None:
    path, mark = tmp_path / "x.pth", tmp_path / "mark"
    Marked.path = str(mark)
    for save in (torch.save, lambda x, p: p.write_bytes(pickle.dumps(x))):
        save({"conv1.weight": Marked()}, path)
        with pytest.raises(convert_authors.InvalidFile, match="no readable tensors"):
            convert_authors.read_weights(path)
        assert not mark.exists()

    torch.save(networks.ResidualNetwork("dlib29", width=0.1), path)
    with pytest.raises(
        convert_authors.InvalidFile, match=r"ResidualNetwork\n.*save its state_dict"
    ):
        convert_authors.read_weights(path)

    torch.save({"fc.weight": torch.zeros(198, 2048)}, path)
    whole = path.read_bytes()
    for content in (b"", b"PK", whole[: len(whole) // 2], b"\x80\x02" + bytes(100)):
        path.write_bytes(content)
        with pytest.raises(convert_authors.InvalidFile, match="no readable tensors"):
            convert_authors.read_weights(path)
    for content, message in (
        ([torch.zeros(3)], "expected tensors by name"),
        ({"conv1.weight": "text"}, "expected tensors by name"),
        ({"conv1.weight": torch.zeros(3, dtype=torch.int64)}, "floating-point"),
        ({"conv1.weight": torch.tensor([np.nan])}, "NaN"),
    ):
        torch.save(content, path)
        with pytest.raises(convert_authors.InvalidFile, match=message):
            convert_authors.read_weights(path)


def test_what_does_not_fit_is_named(shape_state: dict[str, Any]) -> None:
    def build(**changes: Any) -> None:
        state = shape_state | changes
        state = {key: value for key, value in state.items() if value is not None}
        convert_authors.build(state, "shape", BGR_MEAN, "x.pth")

    cut = {"res3a_branch1.weight": None, "bn5c_branch2b.running_var": None}
    for changes, message in (
        (cut, r"missing tensors: res3a_branch1\.weight, bn5c_branch2b\.running_var"),
        ({"extra.weight": torch.zeros(3)}, r"unexpected tensors: extra\.weight"),
        ({"bn2a_branch2a.bias": torch.zeros(65)}, r"bn2a_branch2a\.bias \(65,\), expected \(64,\)"),
        ({"fc_ftnew.weight": torch.zeros(29, 2048)}, "198 or 99 outputs for shape, got 29"),
        ({"fc_ftnew.weight": None}, "expected one fully connected layer"),
        ({"other.weight": torch.zeros(3, 3)}, "expected one fully connected layer"),
    ):
        with pytest.raises(convert_authors.InvalidFile, match=message):
            build(**changes)


@pytest.mark.parametrize("value", ["1,2", "a,b,c", "nan,1,1", "missing.npz"])
def test_bad_means_are_refused(value: str) -> None:
    with pytest.raises(convert_authors.InvalidFile, match="--mean"):
        convert_authors.read_mean(value)
