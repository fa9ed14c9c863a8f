"""Converts MediaPipe's face detector and 468-point face mesh from TFLite to ONNX, once.

The two networks ship inside the PyPI wheel `mediapipe==0.10.21` (Apache-2.0). Run this in an
environment of its own, because the wheel and the converter pull in TensorFlow:

    pip install mediapipe==0.10.21 tf2onnx tensorflow-cpu onnxruntime
    python train/convert_mediapipe.py --photos FOLDER --out python/extreme3d_fast/assets

The converter makes the batch dynamic, gives inputs and outputs plain names, spells out the PRelu
activations, and stores a weight as float16 where that is exact (the originals are float16). It
writes the contract into the metadata that `extreme3d_fast.session.Session` checks, and compares
both files with their originals on the photos.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import tensorflow as tf
import tf2onnx
from onnx import numpy_helper

WHEEL = "mediapipe==0.10.21"
TOLERANCE = 1e-3  # largest allowed difference from the TFLite outputs, see compare
OPSET = 17
PLAIN_KERNELS = tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


@dataclass(frozen=True)
class Network:
    """What to convert, the new names, and the contract that users of the file rely on."""

    tflite: str  # path inside site-packages/mediapipe/modules
    onnx: str
    size: int  # square input, px
    inputs: dict[str, str]  # old name -> new name
    outputs: dict[str, tuple[str, tuple[int, ...]]]  # old name -> new name, shape after the batch
    metadata: dict[str, str]


COMMON = {
    "version": "1",
    "input_layout": "NHWC",
    "colour_order": "RGB",
    "source": WHEEL,
    "licence": "Apache-2.0",
    "copyright": "The MediaPipe Authors",
    "training_data": "not published by MediaPipe; see the model cards of BlazeFace and Face Mesh",
}

DETECTION = Network(
    tflite="face_detection/face_detection_short_range.tflite",
    onnx="face_detection.onnx",
    size=128,
    inputs={"input": "image"},
    outputs={"regressors": ("boxes", (896, 16)), "classificators": ("scores", (896, 1))},
    metadata=COMMON
    | {
        "name": "face_detection",
        "input_size": "128x128",
        "mean": "127.5",
        "std": "127.5",
        "crop_rule": "the whole picture, letterboxed to a square with black",
        "outputs": "boxes (N,896,16): x, y, width, height, then 6 keypoints x, y (right eye, left "
        "eye, nose tip, mouth, right ear, left ear), in input px relative to the anchor centres; "
        "scores (N,896,1): logits; anchors: 16x16 cells x 2, then 8x8 cells x 6, at cell centres",
    },
)

LANDMARKS = Network(
    tflite="face_landmark/face_landmark.tflite",
    onnx="face_landmarks.onnx",
    size=192,
    inputs={"input_1": "image"},
    outputs={"conv2d_21": ("points", (468, 3)), "conv2d_31": ("face_flag", (1,))},
    metadata=COMMON
    | {
        "name": "face_landmarks",
        "input_size": "192x192",
        "mean": "0",
        "std": "255",
        "crop_rule": "square of 1.5x the larger side of the face box, rotated so that the line "
        "from the right to the left eye is horizontal",
        "outputs": "points (N,468,3): x, y in input px, z relative depth in the same unit, smaller "
        "is nearer; face_flag (N,1): logit that a face is there",
    },
)


def modules_folder() -> Path:
    """`mediapipe/modules`, found without importing mediapipe (its import needs other packages)."""
    found = importlib.util.find_spec("mediapipe")
    if found is None or found.origin is None:
        raise SystemExit(f"mediapipe is not installed; pip install {WHEEL}")
    version = importlib.metadata.version("mediapipe")
    if f"mediapipe=={version}" != WHEEL:
        raise SystemExit(f"expected {WHEEL}, found mediapipe=={version}")
    return Path(found.origin).parent / "modules"


def convert(network: Network, modules: Path, out: Path) -> Path:
    """Writes `out/<network.onnx>` and returns its path."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.onnx"
        tf2onnx.convert.from_tflite(
            str(modules / network.tflite), opset=OPSET, output_path=str(raw)
        )
        model = onnx.load(raw)
    rename(model.graph, network)
    set_batch(model.graph, network)
    split_prelu(model.graph)
    store_exact_halves(model.graph)
    del model.metadata_props[:]
    for key, value in network.metadata.items():
        model.metadata_props.add(key=key, value=value)
    model.doc_string = f"Converted from {network.tflite} of {WHEEL} by train/convert_mediapipe.py"
    onnx.checker.check_model(model, full_check=True)
    path = out / network.onnx
    onnx.save(model, path)
    return path


def rename(graph: onnx.GraphProto, network: Network) -> None:
    """Gives the graph's inputs and outputs their new names."""
    new = network.inputs | {old: name for old, (name, _) in network.outputs.items()}
    for node in graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
    for value in [*graph.input, *graph.output]:
        value.name = new[value.name]
    del graph.value_info[:]  # holds old names and fixed batches; runtimes infer it again


def set_batch(graph: onnx.GraphProto, network: Network) -> None:
    """Makes the batch dynamic: in Reshape, 0 as the first size copies the input's."""
    shapes = dict(network.outputs.values())
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for index, node in enumerate(node for node in graph.node if node.op_type == "Reshape"):
        size = numpy_helper.to_array(constants[node.input[1]]).copy()
        if node.output[0] in shapes:
            size = np.array([1, *shapes[node.output[0]]], np.int64)
        if size[0] != 1:
            raise SystemExit(f"unexpected Reshape to {size.tolist()} in {network.tflite}")
        size[0] = 0
        name = f"shape_{index}"  # several nodes may share one constant, so each gets its own
        graph.initializer.append(numpy_helper.from_array(size, name))
        node.input[1] = name
    for value, shape in [(graph.input[0], (network.size, network.size, 3))] + [
        (value, shapes[value.name]) for value in graph.output
    ]:
        tensor = onnx.helper.make_tensor_value_info(
            value.name, onnx.TensorProto.FLOAT, ("N", *shape)
        )
        value.CopyFrom(tensor)
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def split_prelu(graph: onnx.GraphProto) -> None:
    """Writes PRelu as max(x, a x), or as max(x, 0) + a min(x, 0) where a slope exceeds 1.

    The values are the same. ONNX Runtime's PRelu branches per element: on a face, where signs are
    hard to predict, Face Mesh takes 3.3 ms with it and 1.6 ms without, on one core.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    zero = "prelu_zero"
    nodes = []
    for node in graph.node:
        if node.op_type != "PRelu":
            nodes.append(node)
            continue
        (x, slope), out = node.input, node.output[0]
        if constants[slope].max() <= 1:
            nodes.append(onnx.helper.make_node("Mul", [x, slope], [f"{out}_scaled"]))
            nodes.append(onnx.helper.make_node("Max", [x, f"{out}_scaled"], [out]))
            continue
        if zero not in constants:
            constants[zero] = np.zeros((), np.float32)
            graph.initializer.append(numpy_helper.from_array(constants[zero], zero))
        nodes.append(onnx.helper.make_node("Relu", [x], [f"{out}_above"]))
        nodes.append(onnx.helper.make_node("Min", [x, zero], [f"{out}_below"]))
        nodes.append(onnx.helper.make_node("Mul", [f"{out}_below", slope], [f"{out}_scaled"]))
        nodes.append(onnx.helper.make_node("Add", [f"{out}_above", f"{out}_scaled"], [out]))
    del graph.node[:]
    graph.node.extend(nodes)


def store_exact_halves(graph: onnx.GraphProto) -> None:
    """Stores float32 weights as float16 + Cast where nothing is lost; runtimes fold the Cast."""
    casts = []
    for tensor in graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype != np.float32 or value.size < 32:
            continue
        with np.errstate(over="ignore"):
            half = value.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), value):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
        casts.append(
            onnx.helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT)
        )
    for node in reversed(casts):
        graph.node.insert(0, node)


def compare(
    network: Network, modules: Path, path: Path, photos: list[np.ndarray]
) -> dict[str, float]:
    """Largest difference per output over all photos, one at a time and as one batch.

    A difference is taken relative to max(1, |original|): logits and the boxes of anchors without a
    face run to several thousands, where float32 itself is coarser than 1e-3 after 40 layers.
    """
    # Plain kernels are float32 everywhere; the default delegate may choose another precision.
    interpreter = tf.lite.Interpreter(
        str(modules / network.tflite),
        num_threads=1,
        experimental_op_resolver_type=PLAIN_KERNELS,
    )
    interpreter.allocate_tensors()
    image_index = interpreter.get_input_details()[0]["index"]
    output_index = {detail["name"]: detail["index"] for detail in interpreter.get_output_details()}
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    mean, std = float(network.metadata["mean"]), float(network.metadata["std"])
    images = np.stack([(prepare(photo, network.size) - mean) / std for photo in photos])
    images = images.astype(np.float32)
    names = [name for name, _ in network.outputs.values()]
    batch = dict(zip(names, session.run(names, {"image": images}), strict=True))
    worst = dict.fromkeys(names, 0.0)
    for row, image in enumerate(images):
        interpreter.set_tensor(image_index, image[None])
        interpreter.invoke()
        single = dict(zip(names, session.run(names, {"image": image[None]}), strict=True))
        for old, (name, shape) in network.outputs.items():
            want = interpreter.get_tensor(output_index[old]).reshape(shape)
            for got in (single[name][0], batch[name][row]):
                difference = np.abs(got - want) / np.maximum(1, np.abs(want))
                worst[name] = max(worst[name], float(difference.max()))
    return worst


def prepare(photo: np.ndarray, size: int) -> np.ndarray:
    """The centre square of a photo at the network's size (float32, 0..255)."""
    side = min(photo.shape[:2])
    top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
    square = photo[top : top + side, left : left + side]
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)


def middle(photo: np.ndarray) -> np.ndarray:
    """The middle half of a photo, where the face fills the picture as the mesh network wants."""
    cut = min(photo.shape[:2]) // 4
    return photo[cut : photo.shape[0] - cut, cut : photo.shape[1] - cut]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder with at least 20 .jpg")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    files = sorted(options.photos.glob("*.jpg"))[:20]
    if len(files) < 20:
        raise SystemExit(f"--photos: expected at least 20 .jpg, found {len(files)}")
    photos = [cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB) for file in files]
    options.out.mkdir(parents=True, exist_ok=True)
    modules = modules_folder()
    for network in (DETECTION, LANDMARKS):
        path = convert(network, modules, options.out)
        if network is LANDMARKS:
            photos = [middle(photo) for photo in photos]
        worst = compare(network, modules, path, photos)
        print(
            json.dumps({"file": path.name, "bytes": path.stat().st_size, "max_difference": worst})
        )
        if max(worst.values()) > TOLERANCE:
            raise SystemExit(f"{path.name} differs from its original by more than {TOLERANCE}")


if __name__ == "__main__":
    main()
