"""Tensors: what goes out as JSON or as bytes comes back the same, and what does not fit is refused."""

from __future__ import annotations

import io
import json
import math
import tracemalloc
import wave
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract.errors import InputRefused
from providers._pcm import is_pcm, rate_of
from providers._pcm import wave as wave_file
from providers._tensor import TensorSpec, Unreadable, make_tensor, read_tensor, show, write_bytes, write_json

BITS = {"UINT8": 8, "UINT16": 16, "UINT32": 32, "UINT64": 64, "INT8": 8, "INT16": 16, "INT32": 32, "INT64": 64}


def numbers(datatype: str) -> st.SearchStrategy[Any]:
    if datatype == "BOOL":
        return st.booleans()
    if datatype == "BYTES":
        return st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=8)
    if datatype.startswith("FP"):
        return st.floats(width=int(datatype[2:]), allow_nan=False, allow_infinity=False)  # type: ignore[arg-type]
    low = 0 if datatype.startswith("U") else -(2 ** (BITS[datatype] - 1))
    return st.integers(low, low + 2 ** BITS[datatype] - 1)


flat = st.sampled_from(["BOOL", "BYTES", "FP16", "FP32", "FP64", *BITS]).flatmap(
    lambda datatype: st.tuples(st.just(datatype), st.lists(numbers(datatype), max_size=6))
)


@given(flat)
def test_what_goes_out_as_bytes_comes_back_the_same(said: tuple[str, list[Any]]) -> None:
    datatype, values = said
    tensor = make_tensor("t", values, TensorSpec(datatype=datatype))  # type: ignore[arg-type]
    head = {"name": "t", "datatype": datatype, "shape": tensor.shape}
    assert read_tensor(head, write_bytes(tensor)) == tensor


@given(flat)
def test_what_goes_out_as_json_is_shown_the_same(said: tuple[str, list[Any]]) -> None:
    datatype, values = said
    tensor = make_tensor("t", values, TensorSpec(datatype=datatype))  # type: ignore[arg-type]
    if datatype == "FP16":
        with pytest.raises(InputRefused):
            write_json(tensor)
        return
    shown = show(read_tensor(json.loads(json.dumps(write_json(tensor))), None))
    assert shown == (values[0] if len(values) == 1 else values)


@given(st.floats(width=16, allow_nan=False, allow_infinity=False))
def test_a_brain_float_keeps_the_upper_half(value: float) -> None:
    tensor = make_tensor("t", value, TensorSpec(datatype="BF16"))
    (back,) = read_tensor({"name": "t", "datatype": "BF16", "shape": [1]}, write_bytes(tensor)).values
    assert back == 0 or math.isclose(back, value, rel_tol=2**-7)


@given(st.lists(st.integers(0, 4), max_size=5))
def test_values_are_nested_as_their_shape_says(shape: list[int]) -> None:
    count = math.prod(shape)
    head = {"name": "t", "datatype": "INT32", "shape": shape, "data": list(range(count))}
    shown = show(read_tensor(head, None))
    if count == 0:
        assert shown == []
        return
    for size in [size for size in shape if size != 1]:
        assert len(shown) == size
        shown = shown[0]
    assert shown == 0


@pytest.mark.parametrize("value", [10**400, float("inf"), float("nan"), -1, 256, "1", None, {}, [[None]]])
def test_what_no_byte_holds_is_refused(value: Any) -> None:
    with pytest.raises(InputRefused):
        make_tensor("t", value, TensorSpec(datatype="UINT8"))


def test_a_shape_that_promises_more_than_there_is_costs_nothing() -> None:
    with pytest.raises(Unreadable):
        read_tensor({"name": "t", "datatype": "FP32", "shape": [2**39, 2**39], "data": [1]}, None)


def test_samples_become_a_file_that_python_plays() -> None:
    with wave.open(io.BytesIO(wave_file(b"\x01\x00\x02\x00", rate=24_000))) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (24_000, 1, 2)
        assert sound.readframes(2) == b"\x01\x00\x02\x00"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("audio/L16;codec=pcm;rate=24000", (True, 24_000)),
        ("audio/l16; rate=16000", (True, 16_000)),
        ("audio/pcm", (True, 24_000)),
        ("audio/mpeg", (False, 24_000)),
        ("audio/wav", (False, 24_000)),
        ("audio/L16;rate=99999999999", (True, 24_000)),
    ],
)
def test_samples_are_known_by_their_type(kind: str, said: tuple[bool, int]) -> None:
    assert (is_pcm(kind), rate_of(kind)) == said


@pytest.mark.parametrize(
    ("datatype", "shape", "size"),
    [("UINT8", [60_000_000], 60_000_000), ("UINT8", [1], 60_000_000), ("BYTES", [1], 40_000_000)],
)
def test_a_server_that_sends_a_flood_of_values_has_none_of_them_made(
    datatype: str, shape: list[int], size: int
) -> None:
    tracemalloc.start()
    raw = bytes(size)
    with pytest.raises(Unreadable):
        read_tensor({"name": "x", "datatype": datatype, "shape": shape}, raw)
    assert tracemalloc.get_traced_memory()[1] < size + 1_000_000
    tracemalloc.stop()
