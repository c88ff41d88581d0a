"""Builds the bundled upscaler's graphs from code: `python -m local_backend.graph FOLDER`. Trains and fetches nothing.

Each graph is one Resize that follows Pillow's BICUBIC: a = -0.5, half-pixel centres, weights renormalised at the
border, and the antialiased kernel, which for uint8 works in the same two passes of 22-bit fixed point as Pillow's.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from onnx import TensorProto, checker, helper

SCALES = (2, 4)


def build(scale: int) -> bytes:
    """The graph `x [1, 3, h, w] uint8 → y [1, 3, scale*h, scale*w] uint8`, as ONNX; the same bytes each time."""
    node = helper.make_node(
        "Resize",
        ["x", "", "scales"],
        ["y"],
        name="resample",
        mode="cubic",
        cubic_coeff_a=-0.5,
        antialias=1,
        exclude_outside=1,
        coordinate_transformation_mode="half_pixel",
    )
    graph = helper.make_graph(
        [node],
        f"upscale{scale}x",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, [1, 3, "H", "W"])],
        [helper.make_tensor("scales", TensorProto.FLOAT, [4], [1.0, 1.0, float(scale), float(scale)])],
    )
    return _serialize(graph)


def build_probe() -> bytes:
    """The smallest graph there is, `x [1] → y [1]`: to see whether a device takes one."""
    node = helper.make_node("Identity", ["x"], ["y"])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    return _serialize(helper.make_graph([node], "probe", ends[:1], ends[1:]))


def _serialize(graph: Any) -> bytes:
    model: Any = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9, producer_name="turnout"
    )
    checker.check_model(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m local_backend.graph", description="Build the upscaler's graphs.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(arguments).folder
    folder.mkdir(parents=True, exist_ok=True)
    for scale in SCALES:
        (folder / f"x{scale}.onnx").write_bytes(build(scale))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
