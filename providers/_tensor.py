"""Tensors of the open inference protocol, as JSON and as raw bytes. Not the messages they travel in."""

from __future__ import annotations

import base64
import math
import struct
from typing import Any, Literal, NamedTuple

import msgspec

from gateway.contract import data_uri
from gateway.contract.errors import InputRefused
from providers._content import UNTYPED, is_file, part_of, sniff

# Little-endian, as the binary extension has them. BF16 has no code of its own: it is the upper half of a float.
_CODES = {
    "BOOL": "?",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
    "BF16": "H",
}
_FLOATS = ("FP16", "FP32", "FP64", "BF16")
_WITHOUT_JSON = ("FP16", "BF16")  # the protocol gives them no form in JSON
MAX_DIMENSIONS = 32
MAX_VALUES = 8_000_000  # of one output: each becomes a number in JSON, twenty times as large as its byte

Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BF16",
    "BYTES",
]  # fmt: skip


class TensorSpec(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """
    How a key of the input becomes a tensor. `name`: the tensor's, if not the key's own; -1 in `shape`: as many as
    there are; `files`: whether a file goes as its bytes or as base64 text.
    """

    datatype: Datatype
    shape: tuple[int, ...] = (-1,)
    name: str = ""
    files: Literal["bytes", "base64"] = "bytes"


class Tensor(NamedTuple):
    name: str
    datatype: str
    shape: list[int]
    values: list[Any]  # flat, row by row; BYTES are bytes


class Unreadable(ValueError):
    """What is no tensor, or does not hold what its shape says."""


# -- out of an input -------------------------------------------------------------------------------------------------


def make_tensor(key: str, value: Any, spec: TensorSpec) -> Tensor:
    """Raises InputRefused for values that the tensor cannot hold."""
    if is_file(value):
        value = _file_value(key, value, spec)
    flat = _flatten(value)
    values = [_value(key, item, spec.datatype) for item in flat]
    return Tensor(spec.name or key, spec.datatype, _shape(key, value, len(values), spec.shape), values)


def _file_value(key: str, text: str, spec: TensorSpec) -> Any:
    _, _, content = part_of(text, name=key)
    if spec.files == "base64":
        return base64.b64encode(content).decode()
    return content if spec.datatype == "BYTES" else list(content)


def _flatten(value: Any) -> list[Any]:
    if not isinstance(value, list):
        return [value]
    flat: list[Any] = []
    for item in value:
        if isinstance(item, list):
            flat.extend(_flatten(item))
        else:
            flat.append(item)
    return flat


def _value(key: str, item: Any, datatype: str) -> Any:
    if datatype == "BYTES":
        if isinstance(item, (str, bytes)):
            return item.encode("utf-8", "replace") if isinstance(item, str) else item
        raise InputRefused(f"`{key}` must be text or a file")
    if datatype == "BOOL":
        if isinstance(item, bool):
            return item
        raise InputRefused(f"`{key}` must be true or false")
    if isinstance(item, bool) or not isinstance(item, (int, float)):
        raise InputRefused(f"`{key}` must be a number")
    try:
        number = float(item) if datatype in _FLOATS else int(item)
        struct.pack("<f" if datatype == "BF16" else f"<{_CODES[datatype]}", number)
    except (struct.error, OverflowError, ValueError):
        raise InputRefused(f"`{key}` is no {datatype}: it is too large or too small") from None
    if number != item:
        raise InputRefused(f"`{key}` must be a whole number")
    return number


def _shape(key: str, value: Any, count: int, wanted: tuple[int, ...]) -> list[int]:
    """The spec's shape with what it leaves open filled in: by the count, or by how the lists are nested."""
    open_places = [place for place, size in enumerate(wanted) if size < 0]
    shape = list(wanted)
    if len(open_places) == 1:
        rest = math.prod(size for size in wanted if size >= 0)
        shape[open_places[0]] = count // rest if rest else 0
    elif open_places:
        own: list[int] = []
        inner = value
        while isinstance(inner, list) and len(own) < MAX_DIMENSIONS:
            own.append(len(inner))
            inner = inner[0] if inner else None
        shape = own if len(own) == len(wanted) else shape
    if any(size < 0 for size in shape) or math.prod(shape) != count:
        raise InputRefused(f"`{key}` holds {count} values, which do not fit the shape {list(wanted)}")
    return shape


def write_json(tensor: Tensor) -> dict[str, Any]:
    """Raises InputRefused for what JSON cannot carry: it needs the binary extension."""
    if tensor.datatype in _WITHOUT_JSON:
        raise InputRefused(f"{tensor.datatype} cannot be sent as JSON: the option `binary` sends it")
    data = tensor.values
    if tensor.datatype == "BYTES":
        try:
            data = [value.decode() for value in tensor.values]
        except UnicodeDecodeError:
            raise InputRefused(f"`{tensor.name}` is a file: send it with `binary`, or as base64") from None
    return {"name": tensor.name, "shape": tensor.shape, "datatype": tensor.datatype, "data": data}


def write_bytes(tensor: Tensor) -> bytes:
    if tensor.datatype == "BYTES":
        return b"".join(struct.pack("<I", len(value)) + value for value in tensor.values)
    if tensor.datatype == "BF16":
        return b"".join(struct.pack("<f", value)[2:] for value in tensor.values)
    return struct.pack(f"<{len(tensor.values)}{_CODES[tensor.datatype]}", *tensor.values)


# -- out of an answer ------------------------------------------------------------------------------------------------


def read_tensor(head: Any, raw: bytes | None) -> Tensor:
    """Of the JSON that describes it, and its raw bytes where they came apart. Raises Unreadable."""
    if not isinstance(head, dict) or not isinstance(head.get("name"), str):
        raise Unreadable("an output has no name")
    name, datatype, shape = head["name"], head.get("datatype"), head.get("shape")
    if not isinstance(datatype, str) or (datatype != "BYTES" and datatype not in _CODES):
        raise Unreadable("an output is of no datatype")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS:
        raise Unreadable("an output has no shape")
    if any(type(size) is not int or not 0 <= size < 2**40 for size in shape):
        raise Unreadable("an output has no shape")
    count = math.prod(shape)
    if count > MAX_VALUES:
        raise Unreadable(f"an output holds more than {MAX_VALUES} values")
    if raw is None:
        values = _flatten(head["data"]) if isinstance(head.get("data"), list) else []
    else:
        values = _read_bytes(datatype, raw, count)
    if count != len(values):
        raise Unreadable("an output does not hold what its shape says")
    return Tensor(name, datatype, shape, values)


def _read_bytes(datatype: str, raw: bytes, count: int) -> list[Any]:
    """Looks whether there are `count` values before it makes one of each."""
    if datatype == "BYTES":
        return _read_elements(raw, count)
    code = _CODES[datatype]
    size = struct.calcsize(f"<{code}")
    if len(raw) != count * size:
        raise Unreadable("an output does not hold what its shape says")
    if datatype == "BF16":
        return [struct.unpack("<f", b"\0\0" + raw[at : at + 2])[0] for at in range(0, len(raw), 2)]
    return list(struct.unpack(f"<{count}{code}", raw))


def _read_elements(raw: bytes, count: int) -> list[bytes]:
    values: list[bytes] = []
    at = 0
    while at < len(raw) and len(values) <= count:
        if at + 4 > len(raw):
            raise Unreadable("an output breaks off")
        (size,) = struct.unpack_from("<I", raw, at)
        if at + 4 + size > len(raw):
            raise Unreadable("an output breaks off")
        values.append(raw[at + 4 : at + 4 + size])
        at += 4 + size
    return values


def show(tensor: Tensor) -> Any:
    """Its values as JSON has them, nested by its shape without the dimensions of one; `[]` if there are none."""
    values = [_shown(value) for value in tensor.values]
    for size in reversed([size for size in tensor.shape if size != 1][1:]):
        values = [values[at : at + size] for at in range(0, len(values), size)] if size else []
    return values[0] if all(size == 1 for size in tensor.shape) else values


def _shown(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if not isinstance(value, bytes):
        return value
    kind = sniff(value)
    if kind == UNTYPED:
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass
    return data_uri.build(value, kind)
