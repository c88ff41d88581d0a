"""Arrays inside JSON: nested lists, or {"dtype", "shape", "base64"} in little-endian C order. Runs nothing."""

from __future__ import annotations

import binascii
import math
from typing import Any

import numpy as np

from local_backend.session import Array, Tensor

_DTYPES = frozenset(
    {
        "float16", "float32", "float64", "bool",
        "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    }
)  # fmt: skip
_MAX_DIMENSION = 2**31


class ArrayRefused(Exception):
    """A value is not the array that is asked for. The message completes "<input> …"."""


def read_array(value: Any, wanted: Tensor) -> Array:
    """The array in a JSON value, in the dtype of `wanted` and of a shape that fits it. Raises ArrayRefused."""
    array = _from_bytes(value, wanted) if isinstance(value, dict) else _from_lists(value, wanted)
    # A graph that declares no shape may take any rank.
    if wanted.shape and array.ndim != len(wanted.shape):
        raise ArrayRefused(f"must have rank {len(wanted.shape)}, has {array.ndim}")
    for axis, (size, expected) in enumerate(zip(array.shape, wanted.shape, strict=False)):
        if expected is not None and size != expected:
            raise ArrayRefused(f"must have {expected} along axis {axis}, has {size}")
    return array


def _from_lists(value: Any, wanted: Tensor) -> Array:
    try:
        array = np.array(value)
    except (ValueError, OverflowError, RecursionError):
        raise ArrayRefused("must be a regular nested list") from None
    target = np.dtype(object if wanted.dtype == "str" else wanted.dtype)
    if array.size == 0:
        return array.astype(target)
    allowed = {"b": "b", "i": "iu", "u": "iu", "f": "iuf", "O": "U"}[target.kind]
    if array.dtype.kind not in allowed:
        raise ArrayRefused(f"must hold {wanted.dtype} values")
    if target.kind in "iu":
        limits: Any = np.iinfo(wanted.dtype)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise ArrayRefused(f"holds a value outside {wanted.dtype}")
    return array.astype(target)


def _from_bytes(value: dict[str, Any], wanted: Tensor) -> Array:
    if value.keys() != {"dtype", "shape", "base64"}:
        raise ArrayRefused('must be a nested list, or an object with "dtype", "shape" and "base64"')
    dtype, shape, encoded = value["dtype"], value["shape"], value["base64"]
    if dtype != wanted.dtype or dtype not in _DTYPES:
        raise ArrayRefused(f"must have dtype {wanted.dtype}")
    sizes = shape if isinstance(shape, list) and len(shape) <= 32 else [None]
    if not all(type(size) is int and 0 <= size < _MAX_DIMENSION for size in sizes):
        raise ArrayRefused("must have a shape of whole numbers")
    try:
        content = binascii.a2b_base64(encoded, strict_mode=True) if isinstance(encoded, str) and encoded else b""
    except ValueError:
        raise ArrayRefused("has content that is no base64") from None
    kind = np.dtype(dtype).newbyteorder("<")
    if len(content) != math.prod(sizes) * kind.itemsize:
        raise ArrayRefused(f"has {len(content)} bytes, its shape asks for {math.prod(sizes) * kind.itemsize}")
    return np.frombuffer(content, kind).astype(dtype).reshape(sizes)


def write_array(array: Array, *, as_bytes: bool) -> Any:
    """JSON for an array. As lists, what JSON cannot say (NaN, infinity) becomes null; as bytes nothing is lost."""
    if not as_bytes or array.dtype.kind not in "biuf":
        return array.tolist()
    plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return {
        "dtype": array.dtype.name,
        "shape": list(array.shape),
        "base64": binascii.b2a_base64(plain.tobytes(), newline=False).decode(),
    }
