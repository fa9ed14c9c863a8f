"""Rewrites an ONNX network so that its inner layers compute in half precision.

TensorRT takes the type of every tensor from the file: there is no switch for half precision any
more. So the file is rewritten before an engine is built from it. Only the fields that matter are
read, in the wire format of onnx.proto, which spares users the onnx package.

Convolutions and matrix products from which another one is reached compute in half precision, with
all that lies between. What prepares the input (pixels up to 255, less a mean) and the last layer of
each output (pixels, coefficients, millimetres) stay in float32: there half precision would cost
digits that are asked for, and next to no time is spent there. Inputs and outputs stay float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from extreme3d_fast.errors import InvalidModelFile

_PRODUCTS = {b"Conv", b"ConvTranspose", b"Gemm", b"MatMul"}
_CONTROL_FLOW = {b"If", b"Loop", b"Scan"}
_HALF = b"_half"
_FLOAT, _FLOAT16 = 1, 10  # TensorProto.DataType
# Numbers of fields in onnx.proto.
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUE_INFO = 1, 5, 11, 12, 13
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR, _NODE_ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_TYPE, _TYPE_INT = 1, 3, 20, 2
_TENSOR_TYPE, _TENSOR_FLOATS, _TENSOR_NAME, _TENSOR_DATA = 2, 4, 8, 9
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR, _TENSOR_ELEMENTS = 1, 2, 1, 1

# Number of the field, wire type, and value: an int for a varint, else the bytes.
_Field = tuple[int, int, "int | bytes"]
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def with_half_precision(model: bytes) -> bytes:
    """The same network, with its inner layers in half precision.

    Args:
        model: ONNX file without control flow, whose weights are float32 initializers with raw data,
            as ONNX Runtime writes them.

    Returns:
        ONNX file with the same inputs and outputs, in float32.

    Raises:
        InvalidModelFile: the file is not such a one, or a weight is too large for half precision.
    """
    try:
        fields: list[_Field] = [
            (
                number,
                wire,
                _Rewriter(_parsed(_raw(value))).graph() if number == _MODEL_GRAPH else value,
            )
            for number, wire, value in _parsed(model)
        ]
    except InvalidModelFile:
        raise
    except (IndexError, KeyError, ValueError) as error:
        raise InvalidModelFile(f"model: not an ONNX file: {error!r}") from error
    return _written(fields)


class _Rewriter:
    """One graph; `name` is a tensor in float32, `name_half` the same one in half precision."""

    def __init__(self, fields: list[_Field]) -> None:
        self._nodes = [_parsed(node) for node in _all(fields, _GRAPH_NODE)]
        self._outputs = [_part(_parsed(v), _VALUE_NAME) for v in _all(fields, _GRAPH_OUTPUT)]
        self._rest = [f for f in fields if f[0] not in (_GRAPH_NODE, _GRAPH_VALUE_INFO)]
        tensors = [_parsed(tensor) for tensor in _all(fields, _GRAPH_INITIALIZER)]
        self._weights = {
            _part(t, _TENSOR_NAME): t for t in tensors if _number(t, _TENSOR_TYPE) == _FLOAT
        }
        inputs = [_parsed(value) for value in _all(fields, _GRAPH_INPUT)]
        # Names of tensors that there are by now in float32, and in half precision.
        self._single = set(self._weights)
        self._single |= {_part(v, _VALUE_NAME) for v in inputs if _elements(v) == _FLOAT}
        self._half: set[bytes] = set()
        self._written: list[list[_Field]] = []

    def graph(self) -> bytes:
        leads = self._leading_to_products()
        for node in self._nodes:
            operator = _part(node, _NODE_OPERATOR)
            if operator in _CONTROL_FLOW:
                raise InvalidModelFile(f"model: control flow ({operator.decode()}) in the network")
            inputs, outputs = _all(node, _NODE_INPUT), _all(node, _NODE_OUTPUT)
            # Operators compute in the type of their first input, but for these two.
            is_float = operator not in (b"Shape", b"Cast") and (
                not self._single.isdisjoint(inputs[:1]) or not self._half.isdisjoint(inputs[:1])
            )
            inner = operator in _PRODUCTS or not self._half.isdisjoint(inputs)
            if is_float and inner and not leads.isdisjoint(outputs):
                kept = 1 if operator == b"Resize" else len(inputs)  # its scales are float32 always
                halves = [self._as_half(name) for name in inputs[:kept]] + inputs[kept:]
                self._half.update(outputs)
                node = _renamed(node, halves, [name + _HALF for name in outputs])
            elif operator == b"Shape" and inputs[0] in self._half:  # either has that shape
                node = _renamed(node, [inputs[0] + _HALF], outputs)
            else:
                for name in inputs:
                    self._as_single(name)
                if is_float or (operator == b"Cast" and _cast_type(node) == _FLOAT):
                    self._single.update(outputs)
            self._written.append(node)
        for name in self._outputs:
            self._as_single(name)
        used = {name for node in self._written for name in _all(node, _NODE_INPUT)}
        kept_rest = [
            (number, wire, value)
            for number, wire, value in self._rest
            if number != _GRAPH_INITIALIZER or _part(_parsed(_raw(value)), _TENSOR_NAME) in used
        ]
        nodes: list[_Field] = [(_GRAPH_NODE, _BYTES, _written(node)) for node in self._written]
        return _written(nodes + kept_rest)

    def _leading_to_products(self) -> set[bytes]:
        leads: set[bytes] = set()
        for node in reversed(self._nodes):
            leading = not leads.isdisjoint(_all(node, _NODE_OUTPUT))
            if leading or _part(node, _NODE_OPERATOR) in _PRODUCTS:
                leads.update(_all(node, _NODE_INPUT))
        return leads

    def _as_half(self, name: bytes) -> bytes:
        """The tensor's name in half precision, made if there is none; its own if it is no float."""
        if name not in self._half:
            if name not in self._single:
                return name
            if name in self._weights:
                tensor = _half_tensor(self._weights[name], name + _HALF)
                self._rest.append((_GRAPH_INITIALIZER, _BYTES, tensor))
            else:
                self._written.append(_cast(name, name + _HALF, _FLOAT16))
            self._half.add(name)
        return name + _HALF

    def _as_single(self, name: bytes) -> None:
        """Makes the tensor in float32 if there is only one in half precision."""
        if name in self._half and name not in self._single:
            self._written.append(_cast(name + _HALF, name, _FLOAT))
            self._single.add(name)


def _half_tensor(tensor: list[_Field], name: bytes) -> bytes:
    if any(number == _TENSOR_FLOATS for number, _, _ in tensor):
        raise InvalidModelFile("model: weights that are not raw data")
    values = np.frombuffer(_part(tensor, _TENSOR_DATA), np.float32)
    if np.abs(values).max(initial=0) > np.finfo(np.float16).max:
        raise InvalidModelFile(f"model: a weight in {name.decode()} exceeds half precision")
    new: dict[int, int | bytes] = {
        _TENSOR_TYPE: _FLOAT16,
        _TENSOR_NAME: name,
        _TENSOR_DATA: values.astype(np.float16).tobytes(),
    }
    return _written([(number, wire, new.get(number, value)) for number, wire, value in tensor])


def _cast(source: bytes, target: bytes, elements: int) -> list[_Field]:
    to: list[_Field] = [
        (_ATTRIBUTE_NAME, _BYTES, b"to"),
        (_ATTRIBUTE_INT, _VARINT, elements),
        (_ATTRIBUTE_TYPE, _VARINT, _TYPE_INT),
    ]
    return [
        (_NODE_INPUT, _BYTES, source),
        (_NODE_OUTPUT, _BYTES, target),
        (_NODE_OPERATOR, _BYTES, b"Cast"),
        (_NODE_ATTRIBUTE, _BYTES, _written(to)),
    ]


def _cast_type(node: list[_Field]) -> int:
    return _number(_parsed(_part(node, _NODE_ATTRIBUTE)), _ATTRIBUTE_INT)


def _renamed(node: list[_Field], inputs: Sequence[bytes], outputs: Sequence[bytes]) -> list[_Field]:
    """The node with other inputs and outputs."""
    ends: list[_Field] = [(_NODE_INPUT, _BYTES, name) for name in inputs]
    ends += [(_NODE_OUTPUT, _BYTES, name) for name in outputs]
    return ends + [field for field in node if field[0] not in (_NODE_INPUT, _NODE_OUTPUT)]


def _elements(value: list[_Field]) -> int:
    """Element type of a graph's input."""
    tensor = _part(_parsed(_part(value, _VALUE_TYPE)), _TYPE_TENSOR)
    return _number(_parsed(tensor), _TENSOR_ELEMENTS)


def _all(fields: list[_Field], number: int) -> list[bytes]:
    return [_raw(value) for found, _, value in fields if found == number]


def _part(fields: list[_Field], number: int) -> bytes:
    return next(iter(_all(fields, number)), b"")


def _number(fields: list[_Field], number: int) -> int:
    return next((v for found, _, v in fields if found == number and isinstance(v, int)), 0)


def _raw(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise IndexError("a number where a part should be")
    return value


def _parsed(message: bytes) -> list[_Field]:
    """Fields of a message, in order, repeated ones several times."""
    fields: list[_Field] = []
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        wire = key & 7
        value: int | bytes
        if wire == _VARINT:
            value, at = _varint(message, at)
        else:
            if wire == _BYTES:
                size, at = _varint(message, at)
            else:
                size = {_FIXED64: 8, _FIXED32: 4}[wire]
            value, at = message[at : at + size], at + size
            if at > len(message):
                raise IndexError("it is cut off")
        fields.append((key >> 3, wire, value))
    return fields


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _written(fields: list[_Field]) -> bytes:
    out = bytearray()
    for number, wire, value in fields:
        out += _as_varint(number << 3 | wire)
        if isinstance(value, int):
            out += _as_varint(value)
        else:
            out += (_as_varint(len(value)) if wire == _BYTES else b"") + value
    return bytes(out)


def _as_varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
