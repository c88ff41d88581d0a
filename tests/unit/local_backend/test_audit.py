"""What a graph may refer to. Each trick is one ONNX Runtime, or an older version of it, would have followed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from local_backend.audit import Unfit, audit
from local_backend.package import load
from local_backend.session import Session
from tests.unit.local_backend.making import FLOAT, graph, package

FILES = {"model.onnx": 1_000, "weights.bin": 16}
ENDS: Any = ({"x": (FLOAT, [4])}, {"y": (FLOAT, [4])})


def _outside(location: str, **more: str) -> Any:
    """A weight of four floats whose data is at `location`."""
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def _adding(tensor: Any) -> Any:
    return graph([helper.make_node("Add", ["x", "w"], ["y"])], *ENDS, [tensor])


def _flag_forgotten() -> Any:
    tensor = _outside("../secret")
    tensor.data_location = TensorProto.DEFAULT
    return _adding(tensor)


def _constant(tensor: Any) -> Any:
    node = helper.make_node("Constant", [], ["w"], value=tensor)
    return graph([node, helper.make_node("Add", ["x", "w"], ["y"])], *ENDS)


def _sparse(tensor: Any) -> Any:
    model = graph([helper.make_node("Add", ["x", "w"], ["y"])], *ENDS)
    indices = helper.make_tensor("i", TensorProto.INT64, [4], [0, 1, 2, 3])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(tensor, indices, [4]))
    return model


def _in_branch(tensor: Any) -> Any:
    """In the branch of a branch."""
    output = [helper.make_tensor_value_info("o", FLOAT, [4])]
    inner = helper.make_graph([helper.make_node("Identity", ["w"], ["o"])], "inner", [], output, [tensor])
    plain = helper.make_graph([helper.make_node("Identity", ["x"], ["o"])], "plain", [], output)
    node = helper.make_node("If", ["c"], ["o"], then_branch=inner, else_branch=plain)
    outer = helper.make_graph([node], "outer", [], output)
    top = helper.make_node("If", ["c"], ["y"], then_branch=outer, else_branch=plain)
    return graph([top], {"x": (FLOAT, [4]), "c": (TensorProto.BOOL, [])}, {"y": (FLOAT, [4])})


def _in_function(tensor: Any) -> Any:
    body = [helper.make_node("Constant", [], ["w"], value=tensor), helper.make_node("Add", ["a", "w"], ["b"])]
    function = helper.make_function("mine", "F", ["a"], ["b"], body, [helper.make_opsetid("", 18)])
    node = helper.make_node("F", ["x"], ["y"], domain="mine")
    return graph([node], *ENDS, functions=[function], opsets=[helper.make_opsetid("mine", 1)])


def _training() -> Any:
    model = graph([helper.make_node("Identity", ["x"], ["y"])], *ENDS)
    model.training_info.add()
    return model


def _foreign(op: str, domain: str) -> Any:
    return graph([helper.make_node(op, ["x"], ["y"], domain=domain)], *ENDS)


HOSTILE: dict[str, tuple[Callable[[], Any], str]] = {
    "absolute data": (lambda: _adding(_outside("/etc/passwd")), "outside the package"),
    "climbing data": (lambda: _adding(_outside("../secret")), "outside the package"),
    "climbing data in the middle": (lambda: _adding(_outside("a/../../secret")), "outside the package"),
    "data at no place": (lambda: _adding(_outside("")), "outside the package"),
    "data at an address in memory": (
        lambda: _adding(_outside("*/_ORT_MEM_ADDR_/*", offset="140000000000")),
        "outside the package",
    ),
    "data in an unlisted file": (lambda: _adding(_outside("other.bin")), "does not list"),
    "data in the manifest": (lambda: _adding(_outside("package.toml")), "outside the package"),
    "data beyond the end": (lambda: _adding(_outside("weights.bin", offset="8", length="16")), "beyond the end"),
    "data before the beginning": (lambda: _adding(_outside("weights.bin", offset="-8")), "beyond the end"),
    "an offset that is no number": (lambda: _adding(_outside("weights.bin", offset="x")), "no number"),
    "an unknown key": (lambda: _adding(_outside("weights.bin", basepath="/")), "unknown external data keys"),
    "data without its flag": (_flag_forgotten, "outside the package"),
    "data of a constant": (lambda: _constant(_outside("../secret")), "outside the package"),
    "data of a sparse tensor": (lambda: _sparse(_outside("../secret")), "outside the package"),
    "data inside branches": (lambda: _in_branch(_outside("../secret")), "outside the package"),
    "data inside a function": (lambda: _in_function(_outside("../secret")), "outside the package"),
    "a custom operator": (lambda: _foreign("Evil", "com.evil"), "com.evil.Evil"),
    "a compiled context": (lambda: _foreign("EPContext", "com.microsoft"), "EPContext"),
    "training graphs": (_training, "training"),
}


@pytest.mark.parametrize("trick", HOSTILE)
def test_a_hostile_graph_is_unfit(trick: str, tmp_path: Path) -> None:
    make, words = HOSTILE[trick]
    (tmp_path / "model.onnx").write_bytes(make().SerializeToString())
    with pytest.raises(Unfit, match=words.replace("(", r"\(")):
        audit(tmp_path / "model.onnx", "model.onnx", FILES)


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x08\x09" * 500, b"\x0a\xff\xff\xff\xff\x0f"])
def test_what_is_no_graph_is_unfit(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(Unfit, match="is no ONNX graph"):
        audit(tmp_path / "model.onnx", "model.onnx", FILES)


def test_listed_external_data_and_functions_of_its_own_are_fine_and_run(tmp_path: Path) -> None:
    weights = np.arange(4, dtype=np.float32)
    manifest = """
        name = "test/external"
        kind = "tensor"
        [input.x]
        type = "tensor"
        [output]
        type = "tensor"
        [parameters]
        graph = "deep/model.onnx"
    """
    model = _adding(_outside("weights.bin", offset="0", length="16"))
    folder = package(
        tmp_path / "pack",
        manifest,
        {"deep/model.onnx": model.SerializeToString(), "deep/weights.bin": weights.tobytes()},
    )
    loaded = load(folder, into=tmp_path)
    session = Session(loaded.path("deep/model.onnx"), device="cpu", threads=1)
    (result,) = session.run({"x": np.ones(4, np.float32)})
    assert result.tolist() == [1, 2, 3, 4]
    plain = onnx.numpy_helper.from_array(weights, "w")
    (tmp_path / "f.onnx").write_bytes(_in_function(plain).SerializeToString())
    audit(tmp_path / "f.onnx", "f.onnx", {})
