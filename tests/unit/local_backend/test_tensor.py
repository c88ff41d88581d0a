"""Any graph: arrays read strictly, rows shared between callers, a bad row alone in its failure."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from gateway.contract.errors import InputInvalid
from local_backend.kinds.array import ArrayRefused, read_array, write_array
from local_backend.kinds.tensor import TensorModel
from local_backend.package import load
from local_backend.session import Tensor
from tests.unit.local_backend.conftest import RunHere
from tests.unit.local_backend.making import FLOAT, INT64, TENSOR, graph, package, tensor_package


def _wanted(dtype: str = "float32", *shape: int | None) -> Tensor:
    return Tensor(name="x", dtype=dtype, shape=shape)


def _bytes(array: Any, **changed: Any) -> dict[str, Any]:
    value = np.asarray(array)
    said = {"dtype": value.dtype.name, "shape": list(value.shape), "base64": base64.b64encode(value.tobytes()).decode()}
    return said | changed


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ([[1, 2], [3]], _wanted("float32", None, None)),
        ([["a"]], _wanted("float32", None, None)),
        ([[None]], _wanted("float32", None, None)),
        ([{"a": 1}], _wanted("float32", None)),
        ([True], _wanted("float32", None)),
        ([1.5], _wanted("int64", None)),
        ([300], _wanted("uint8", None)),
        ([-1], _wanted("uint8", None)),
        ([2**70], _wanted("int64", None)),
        ([1], _wanted("bool", None)),
        ([1.0], _wanted("float32", None, None)),
        ([[1.0, 2.0]], _wanted("float32", None, 3)),
        ({}, _wanted("float32", None)),
        (_bytes(np.zeros(3, np.float32), extra=1), _wanted("float32", None)),
        (_bytes(np.zeros(3, np.float64)), _wanted("float32", None)),
        (_bytes(np.zeros(3, np.float32), dtype="object"), _wanted("object", None)),
        (_bytes(np.zeros(3, np.float32), shape=[4]), _wanted("float32", None)),
        (_bytes(np.zeros(3, np.float32), shape=[-3]), _wanted("float32", None)),
        (_bytes(np.zeros(3, np.float32), shape=[3.0]), _wanted("float32", None)),
        (_bytes(np.zeros(3, np.float32), shape=[True, 3]), _wanted("float32", None, None)),
        (_bytes(np.zeros(3, np.float32), shape="3"), _wanted("float32", None)),
        (_bytes(np.zeros(0, np.float32), shape=[0, 2**40]), _wanted("float32", None, None)),
        (_bytes(np.zeros(0, np.float32), shape=[1] * 60), _wanted("float32", None, None)),
        (_bytes(np.zeros(3, np.float32), base64="!!!!"), _wanted("float32", None)),
        (_bytes(np.zeros(3, np.float32), base64=None), _wanted("float32", None)),
    ],
)
def test_what_is_not_the_array_asked_for_is_refused(value: Any, wanted: Tensor) -> None:
    with pytest.raises(ArrayRefused):
        read_array(value, wanted)


def test_a_deep_list_is_refused_and_does_not_crash() -> None:
    value: Any = 1.0
    for _ in range(500):
        value = [value]
    with pytest.raises(ArrayRefused):
        read_array(value, _wanted("float32", None))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bool", "int8", "uint16", "int64", "uint64"])
def test_arrays_survive_both_encodings(dtype: str) -> None:
    array = np.array([[0, 1], [1, 0]], dtype)
    wanted = _wanted(dtype, None, 2)
    for as_bytes in (False, True):
        again = read_array(write_array(array, as_bytes=as_bytes), wanted)
        assert again.dtype == array.dtype
        assert (again == array).all()


async def test_rows_of_several_callers_share_one_run(
    tmp_path: Path, run_here: RunHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = TensorModel(load(tensor_package(tmp_path / "pack"), into=tmp_path), device="cpu", threads=1)
    sizes: list[int] = []
    real = kind._session.run
    monkeypatch.setattr(
        kind._session, "run", lambda feeds, **more: sizes.append(len(feeds["x"])) or real(feeds, **more)
    )
    jobs = run_here(kind, {"x": [[1, 2, 3]]}, {"x": [[4, 5, 6], [7, 8, 9]]}, {"x": _bytes(np.ones((1, 3), "f4"))})
    assert [job.output for job in jobs] == [{"y": [[2, 4, 6]]}, {"y": [[8, 10, 12], [14, 16, 18]]}, {"y": [[2, 2, 2]]}]
    assert sizes == [4]


async def test_a_bad_row_fails_alone(tmp_path: Path, run_here: RunHere) -> None:
    # A Gather fails for an index out of range, and only when it runs.
    table = helper.make_tensor("t", FLOAT, [3], [10.0, 20.0, 30.0])
    model = graph(
        [helper.make_node("Gather", ["t", "x"], ["y"])], {"x": (INT64, ["n"])}, {"y": (FLOAT, ["n"])}, [table]
    )
    folder = package(tmp_path / "pack", TENSOR, {"model.onnx": model.SerializeToString()})
    kind = TensorModel(load(folder, into=tmp_path), device="cpu", threads=1)
    good, bad, other = run_here(kind, {"x": [0]}, {"x": [7]}, {"x": [2, 1]})
    assert (good.output, other.output) == ({"y": [10]}, {"y": [30, 20]})
    assert bad.status == "failed"
    assert bad.error is not None
    assert "\n" not in bad.error


async def test_a_graph_that_mixes_rows_is_noticed_and_run_singly(tmp_path: Path, run_here: RunHere) -> None:
    model = graph(
        [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=1)], {"x": (FLOAT, ["n", 3])}, {"y": (FLOAT, [1, 1])}
    )
    folder = package(tmp_path / "pack", TENSOR, {"model.onnx": model.SerializeToString()})
    kind = TensorModel(load(folder, into=tmp_path), device="cpu", threads=1)
    jobs = run_here(kind, {"x": [[1, 1, 1]]}, {"x": [[2, 2, 2]]})
    assert [job.output for job in jobs] == [{"y": [[3]]}, {"y": [[6]]}]


def test_input_is_checked_before_it_is_queued(tmp_path: Path) -> None:
    kind = TensorModel(load(tensor_package(tmp_path / "pack"), into=tmp_path), device="cpu", threads=1)
    for value in ([[1, 2]], [1, 2, 3], [], "x"):
        with pytest.raises(InputInvalid, match=r"input\.x"):
            kind.prepare({"x": value} if isinstance(value, list) else {"x": [[value] * 3]})


def test_manifest_and_graph_must_agree(tmp_path: Path) -> None:
    folder = tensor_package(tmp_path / "pack")
    manifest = folder / "package.toml"
    manifest.write_text(manifest.read_text().replace("[input.x]", "[input.z]"))
    with pytest.raises(ValueError, match="disagree about 'x', 'z'"):
        TensorModel(load(folder, into=tmp_path), device="cpu", threads=1)
