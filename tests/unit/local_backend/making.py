"""Graphs and packages made on the spot, for the tests of the local backend."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper
from PIL import Image

from local_backend.package import seal

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def graph(
    nodes: Sequence[Any],
    inputs: dict[str, tuple[int, list[Any]]],
    outputs: dict[str, tuple[int, list[Any]]],
    initializers: Sequence[Any] = (),
    **more: Any,
) -> Any:
    """A ModelProto of opset 18."""
    made = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, *spec) for name, spec in inputs.items()],
        [helper.make_tensor_value_info(name, *spec) for name, spec in outputs.items()],
        list(initializers),
    )
    imports = [helper.make_opsetid("", 18), *more.pop("opsets", [])]
    return helper.make_model(made, opset_imports=imports, ir_version=9, **more)


def doubling() -> bytes:
    """x [n, 3] float → y = x + x."""
    model = graph([helper.make_node("Add", ["x", "x"], ["y"])], {"x": (FLOAT, ["n", 3])}, {"y": (FLOAT, ["n", 3])})
    return bytes(model.SerializeToString())


def counting() -> bytes:
    """n int64 [] → y: a loop of n turns, which is as long as one likes, and stops between nodes."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["still"]), helper.make_node("Add", ["a", "one"], ["b"])],
        "body",
        [
            helper.make_tensor_value_info("i", INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("a", FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("b", FLOAT, []),
        ],
    )
    constants = [
        helper.make_tensor("one", FLOAT, [], [1.0]),
        helper.make_tensor("zero", FLOAT, [], [0.0]),
        helper.make_tensor("true", TensorProto.BOOL, [], [True]),
    ]
    loop = helper.make_node("Loop", ["n", "true", "zero"], ["y"], body=body)
    model = graph([loop], {"n": (INT64, [])}, {"y": (FLOAT, [])}, constants)
    return bytes(model.SerializeToString())


def filling() -> bytes:
    """shape int64 [k] → y, a tensor of that shape: asks for as much memory as one likes."""
    node = helper.make_node("ConstantOfShape", ["shape"], ["z"], value=helper.make_tensor("value", FLOAT, [1], [1.0]))
    model = graph(
        [node, helper.make_node("ReduceSum", ["z"], ["y"], keepdims=0)],
        {"shape": (INT64, ["k"])},
        {"y": (FLOAT, [])},
    )
    return bytes(model.SerializeToString())


def package(folder: Path, manifest: str, files: dict[str, bytes], *, sealed: bool = True) -> Path:
    """Write a package; `manifest` is TOML without [[files]]."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "package.toml").write_text(textwrap.dedent(manifest))
    if sealed:
        seal(folder)
    return folder


TENSOR = """
    name = "test/double"
    kind = "tensor"
    [input.x]
    type = "tensor"
    [output]
    type = "tensor"
    [parameters]
    graph = "model.onnx"
    batch = true
"""

COUNT = """
    name = "test/count"
    kind = "tensor"
    [input.n]
    type = "integer"
    [output]
    type = "tensor"
    [parameters]
    graph = "model.onnx"
"""

FILL = """
    name = "test/fill"
    kind = "tensor"
    [input.shape]
    type = "tensor"
    [output]
    type = "tensor"
    [parameters]
    graph = "model.onnx"
"""


def tensor_package(folder: Path) -> Path:
    return package(folder, TENSOR, {"model.onnx": doubling()})


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Noise: the hardest case for a resampler's rounding and borders."""
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.frombytes(mode, (width, height), pixels.tobytes())


def encoded(image: Image.Image, name: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def data_uri(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def opened(uri: str) -> Image.Image:
    """The picture in an output."""
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
