"""Checks shared by the stages: each turns what a caller gave into the array that `_core` takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]

_ANY = -1


def _check_shape(name: str, array: npt.NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.ndim == len(shape) and all(
        want in (_ANY, have) for want, have in zip(shape, array.shape, strict=True)
    ):
        return
    want = "(" + ", ".join("*" if n == _ANY else str(n) for n in shape) + ")"
    raise ValueError(f"`{name}` should have shape {want}, has {array.shape}")


def float_array(name: str, array: npt.ArrayLike, shape: tuple[int, ...]) -> Float32:
    """`array` as C-contiguous float32 of the given shape, where -1 stands for any length."""
    values = np.asarray(array)
    if values.dtype.kind not in "fiu":
        raise TypeError(f"`{name}` should hold real numbers, has dtype {values.dtype}")
    _check_shape(name, values, shape)
    return np.ascontiguousarray(values, dtype=np.float32)


def int_array(name: str, array: npt.ArrayLike, shape: tuple[int, ...]) -> Int32:
    """`array` as C-contiguous int32 of the given shape, for indices whose range `_core` checks."""
    values = np.asarray(array)
    if values.dtype.kind not in "iu" and values.size:
        raise TypeError(f"`{name}` should hold integers, has dtype {values.dtype}")
    _check_shape(name, values, shape)
    if values.dtype != np.int32 and values.size:
        limits = np.iinfo(np.int32)
        if values.min() < limits.min or values.max() > limits.max:
            raise ValueError(f"`{name}` should hold indices, has {values.min()}..{values.max()}")
    return np.ascontiguousarray(values, dtype=np.int32)


def index_array(
    name: str, array: npt.ArrayLike, shape: tuple[int, ...], low: int, end: int
) -> Int32:
    """`array` as C-contiguous int32 with every entry in [low, end)."""
    values = int_array(name, array, shape)
    if values.size and (values.min() < low or values.max() >= end):
        raise ValueError(
            f"`{name}` should hold indices in [{low}, {end}), has {values.min()}..{values.max()}"
        )
    return values


def mask_array(name: str, array: npt.ArrayLike, shape: tuple[int, ...]) -> UInt8:
    """`array` (bool, or integers of which any but 0 means yes) as C-contiguous 0/1 uint8."""
    values = np.asarray(array)
    if values.dtype.kind not in "biu":
        raise TypeError(f"`{name}` should be a mask (bool or integers), has dtype {values.dtype}")
    _check_shape(name, values, shape)
    if values.dtype == np.bool_:
        return np.ascontiguousarray(values).view(np.uint8)
    return np.ascontiguousarray(values != 0).view(np.uint8)


def bounding_box(mask: npt.NDArray[np.bool_]) -> tuple[slice, slice]:
    """Rows and columns of the smallest box that holds a mask, which is not empty."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
