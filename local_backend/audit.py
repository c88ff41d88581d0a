"""What an ONNX graph may refer to: known operators, and weights in files its package lists. Runs nothing."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx

from local_backend.manifest import path_problem

MAX_GRAPH_BYTES = 2**31 - 1  # protobuf's own limit

# Operators that ONNX Runtime carries itself. Anything else would be a library from outside.
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
# A compiled context names a file of its own, beside every check.
_FORBIDDEN = frozenset({"EPContext"})
_EXTERNAL_KEYS = frozenset({"location", "offset", "length", "checksum"})


class Unfit(Exception):
    """A graph may not be loaded. The message says why and what to do, in one line, without the file's name."""


def audit(path: Path, name: str, files: Mapping[str, int]) -> None:
    """
    Check the graph at `path`, which its package calls `name`; `files` are the package's files and their sizes in bytes.

    Raises Unfit. Looks into subgraphs, functions, attributes and sparse tensors: whatever ONNX Runtime would follow.
    """
    if path.stat().st_size > MAX_GRAPH_BYTES:
        raise Unfit("is over 2 GiB; keep its weights in an external data file that the manifest lists")
    try:
        model = onnx.load_model(str(path), load_external_data=False)
    except Exception as error:  # whatever a parser raises on a hostile file is one finding: it is no graph
        raise Unfit(f"is no ONNX graph ({type(error).__name__}); export it again") from None
    if not model.HasField("graph") or not model.opset_import:
        raise Unfit("is no ONNX graph (empty); export it again")
    if model.training_info:
        raise Unfit("carries training graphs; export it for inference")
    local = {(function.domain, function.name) for function in model.functions}
    for message in _walk(model):
        if isinstance(message, onnx.NodeProto):
            _check_operator(message, local)
        else:
            _check_tensor(message, name, files)


def _walk(model: Any) -> Iterator[Any]:
    """Every node and tensor of a model, without recursion: nesting is the file's choice."""
    pending: list[Any] = [model.graph, *model.functions]
    while pending:
        holder = pending.pop()
        if isinstance(holder, onnx.GraphProto):
            yield from holder.initializer
            for sparse in holder.sparse_initializer:
                yield sparse.values
                yield sparse.indices
        for node in holder.node:
            yield node
            for attribute in node.attribute:
                pending.extend(attribute.graphs)
                if attribute.HasField("g"):
                    pending.append(attribute.g)
                yield from _tensors(attribute)
        if isinstance(holder, onnx.FunctionProto):
            for attribute in holder.attribute_proto:
                pending.extend(attribute.graphs)
                if attribute.HasField("g"):
                    pending.append(attribute.g)
                yield from _tensors(attribute)


def _tensors(attribute: Any) -> Iterator[Any]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    sparse = [*attribute.sparse_tensors]
    if attribute.HasField("sparse_tensor"):
        sparse.append(attribute.sparse_tensor)
    for tensor in sparse:
        yield tensor.values
        yield tensor.indices


def _check_operator(node: Any, local: set[tuple[str, str]]) -> None:
    if (node.domain, node.op_type) in local:
        return
    if node.domain not in _DOMAINS or node.op_type in _FORBIDDEN:
        called = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        raise Unfit(
            f"uses the operator {called!r}, which is no part of ONNX Runtime; export it with standard operators"
        )


def _check_tensor(tensor: Any, name: str, files: Mapping[str, int]) -> None:
    if tensor.data_location != onnx.TensorProto.EXTERNAL and not tensor.external_data:
        return
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if len(entries) != len(tensor.external_data) or not entries.keys() <= _EXTERNAL_KEYS:
        raise Unfit(f"tensor {tensor.name!r} has unknown external data keys; export it again")
    location = entries.get("location", "")
    if path_problem(location):
        raise Unfit(f"tensor {tensor.name!r} has its data at {location!r}, outside the package; keep it inside")
    path = posixpath.join(posixpath.dirname(name), location)
    if path not in files:
        raise Unfit(f"tensor {tensor.name!r} has its data in {path!r}, which the manifest does not list; list it")
    try:
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", "0"))
    except ValueError:
        raise Unfit(f"tensor {tensor.name!r} has no number as offset or length; export it again") from None
    if offset < 0 or length < 0 or offset + length > files[path]:
        raise Unfit(f"tensor {tensor.name!r} reaches beyond the end of {path!r}; export it again")
