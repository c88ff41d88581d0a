"""`package.toml`: what a package says of itself, its version and its schema. Opens no other file and runs nothing."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from gateway.contract.errors import ConfigurationError

MANIFEST = "package.toml"
MAX_MANIFEST_BYTES = 1 << 20

Kind = Literal["image-to-image", "tensor", "embedding"]
FieldType = Literal["string", "integer", "number", "boolean", "file:image", "tensor", "texts"]
Scalar = str | int | float | bool

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}/[a-z0-9][a-z0-9._-]{0,63}")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_DEPTH = 4


class PackageRefused(ConfigurationError):
    """A package is not what it says, or asks for what it must not have: file, place and remedy in one line."""


class _Section(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Unknown keys are errors."""


class Field(_Section, kw_only=True, frozen=True):
    """One input. Without `default` it is required, unless `optional`."""

    type: FieldType
    description: str = ""
    default: Scalar | None = None
    optional: bool = False
    enum: tuple[Scalar, ...] = ()
    minimum: float | None = None
    maximum: float | None = None

    @property
    def is_required(self) -> bool:
        return self.default is None and not self.optional


class Output(_Section, kw_only=True, frozen=True):
    """`file:image` is one data URI, `tensor` an object of named arrays, `vectors` a list of lists of numbers."""

    type: Literal["file:image", "tensor", "vectors"]
    description: str = ""


class File(_Section, kw_only=True, frozen=True):
    """One file of the package, beside the manifest: everything in the folder is listed, or refused."""

    path: str
    sha256: str
    bytes: Annotated[int, msgspec.Meta(ge=0)]


class Scaling(_Section, kw_only=True, frozen=True):
    """One graph of an image package, and how many times wider and higher its output is."""

    file: str
    scale: Annotated[int, msgspec.Meta(ge=1, le=16)]


class ImageParameters(_Section, kw_only=True, frozen=True):
    """Of kind image-to-image: graphs take one tile `[1, 3, h, w]` (nchw) or `[1, h, w, 3]` (nhwc) of any size."""

    graphs: Annotated[tuple[Scaling, ...], msgspec.Meta(min_length=1)]
    layout: Literal["nchw", "nhwc"] = "nchw"
    dtype: Literal["uint8", "float32"] = "float32"
    white: Annotated[float, msgspec.Meta(gt=0)] = 1.0  # what a full channel is, for float32
    tile: Annotated[int, msgspec.Meta(ge=16, le=8192)] = 512  # input pixels a side, without the overlap
    overlap: Annotated[int, msgspec.Meta(ge=0, le=512)] = 16  # input pixels around a tile: the graph's reach
    max_output_pixels: Annotated[int, msgspec.Meta(ge=1, le=500_000_000)] = 50_000_000

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(graph.file for graph in self.graphs)


class TensorParameters(_Section, kw_only=True, frozen=True):
    """Of kind tensor: inputs answer to the graph's by name. `batch`: axis 0 of everything counts independent rows."""

    graph: str
    outputs: tuple[str, ...] = ()  # empty: all of the graph's
    batch: bool = False
    max_rows: Annotated[int, msgspec.Meta(ge=1)] = 64

    @property
    def files(self) -> tuple[str, ...]:
        return (self.graph,)


class EmbeddingParameters(_Section, kw_only=True, frozen=True):
    """Of kind embedding. `pooling = "none"`: the graph's output is already one vector per text."""

    graph: str
    tokenizer: str = "tokenizer.json"
    pooling: Literal["mean", "cls", "last", "none"] = "mean"
    normalize: bool = True
    output: str = ""  # empty: the graph's first
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] = 512  # of one text; the rest is cut off
    max_batch_tokens: Annotated[int, msgspec.Meta(ge=1)] = 8192  # rows x longest row of one run
    max_texts: Annotated[int, msgspec.Meta(ge=1)] = 512  # of one request

    @property
    def files(self) -> tuple[str, ...]:
        return (self.graph, self.tokenizer)


Parameters = ImageParameters | TensorParameters | EmbeddingParameters
_PARAMETERS: dict[str, Any] = {
    "image-to-image": ImageParameters,
    "tensor": TensorParameters,
    "embedding": EmbeddingParameters,
}


class _Document(_Section, kw_only=True, frozen=True):
    name: str
    kind: Kind
    output: Output
    description: str = ""
    license: str = ""
    created_at: datetime | None = None
    input: dict[str, Field]
    files: tuple[File, ...] = ()
    parameters: dict[str, Any]


class Manifest(msgspec.Struct, kw_only=True, frozen=True):
    """A manifest that holds together. `version`: SHA-256 over its values as canonical JSON, file hashes included."""

    name: str
    kind: Kind
    description: str
    license: str
    created_at: datetime | None
    input: dict[str, Field]
    output: Output
    files: tuple[File, ...]
    parameters: Parameters
    version: str

    @property
    def owner_and_name(self) -> tuple[str, str]:
        owner, _, name = self.name.partition("/")
        return owner, name

    def schema(self) -> dict[str, Any]:
        """The OpenAPI document Replicate's clients expect as `openapi_schema`."""
        properties: dict[str, Any] = {}
        enums: dict[str, Any] = {}
        for order, (key, field) in enumerate(self.input.items()):
            properties[key] = _property(key, field, order)
            if field.enum:
                enums[key] = {
                    "enum": list(field.enum),
                    "type": field.type,
                    "title": key,
                    "description": "An enumeration.",
                }
        document: dict[str, Any] = {"type": "object", "title": "Input", "properties": properties}
        required = [key for key, field in self.input.items() if field.is_required]
        if required:
            document["required"] = required
        return {
            "openapi": "3.0.2",
            "info": {"title": "Cog", "version": "0.1.0"},
            "paths": {},
            "components": {"schemas": {"Input": document, "Output": _OUTPUTS[self.output.type], **enums}},
        }


_OUTPUTS: dict[str, dict[str, Any]] = {
    "file:image": {"title": "Output", "type": "string", "format": "uri"},
    "tensor": {"title": "Output", "type": "object"},
    "vectors": {"title": "Output", "type": "array", "items": {"type": "array", "items": {"type": "number"}}},
}
_TYPES: dict[str, dict[str, Any]] = {
    "file:image": {"type": "string", "format": "uri"},
    "tensor": {},  # nested lists, or {"dtype", "shape", "base64"}
    "texts": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
}


def _property(key: str, field: Field, order: int) -> dict[str, Any]:
    shown: dict[str, Any] = {"x-order": order}
    if field.enum:
        shown["allOf"] = [{"$ref": f"#/components/schemas/{key}"}]
    else:
        shown["title"] = key.replace("_", " ").title()
        shown |= _TYPES.get(field.type, {"type": field.type})
    if field.description:
        shown["description"] = field.description
    if field.default is not None:
        shown["default"] = field.default
    if field.optional:
        shown["nullable"] = True
    for bound in ("minimum", "maximum"):
        value = getattr(field, bound)
        if value is not None:
            shown[bound] = int(value) if field.type == "integer" else value
    return shown


def parse(content: bytes, place: str) -> Manifest:
    """Read a manifest. `place` names it in errors. Raises PackageRefused."""
    try:
        written = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise PackageRefused(f"{place}: is no valid TOML: {error}; correct it") from None
    try:
        document = msgspec.convert(written, _Document)
        parameters = msgspec.convert(document.parameters, _PARAMETERS[document.kind])
    except msgspec.ValidationError as error:
        raise PackageRefused(f"{place}: {error}; see the example in local_backend/packages/upscaler") from None
    problem = _problem(document, parameters)
    if problem:
        raise PackageRefused(f"{place}: {problem}")
    return Manifest(
        name=document.name,
        kind=document.kind,
        description=document.description,
        license=document.license,
        created_at=document.created_at,
        input=document.input,
        output=document.output,
        files=document.files,
        parameters=parameters,
        version=_version(written),
    )


def _version(written: dict[str, Any]) -> str:
    # Over the values as written, not as understood: a default that we add one day must not rename every package.
    canonical = json.dumps(written, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()


def path_problem(path: str) -> str | None:
    """Why `path` cannot be the name of a file in a package; None if it can."""
    parts = path.split("/")
    if len(parts) > _MAX_DEPTH or not all(_PART.fullmatch(part) for part in parts):
        return (
            f"file {path!r} must be a plain relative path of letters, digits, '.', '_' and '-', "
            f"at most {_MAX_DEPTH} deep; rename it"
        )
    if path == MANIFEST:
        return f"file {path!r} is the manifest itself; do not list it"
    return None


def _problem(document: _Document, parameters: Parameters) -> str | None:
    if not _NAME.fullmatch(document.name):
        return f'name {document.name!r} must be "owner/name" in lower case; rename it'
    for key, field in document.input.items():
        fits = _KEY.fullmatch(key) and key not in ("Input", "Output")  # those two are schemas of their own
        problem = _field_problem(field) if fits else "is no usable name; rename it"
        if problem:
            return f"[input.{key}]: {problem}"
    return _files_problem(document, parameters) or _kind_problem(document, parameters)


def _files_problem(document: _Document, parameters: Parameters) -> str | None:
    seen: set[str] = set()
    for file in document.files:
        problem = path_problem(file.path)
        if problem:
            return problem
        if file.path in seen:
            return f"file {file.path!r} is listed twice; delete one"
        if not _SHA256.fullmatch(file.sha256):
            return f"file {file.path!r}: sha256 must be 64 hex; run `python -m local_backend.package seal`"
        seen.add(file.path)
    for path in parameters.files:
        if path not in seen:
            return f"[parameters] names {path!r}, which [[files]] does not list; list it, or run seal"
    return None


_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


def _field_problem(field: Field) -> str | None:
    if field.type not in ("integer", "number") and (field.minimum is not None or field.maximum is not None):
        return f"type {field.type!r} takes no minimum or maximum; delete them"
    values = [*field.enum, *([] if field.default is None else [field.default])]
    types = _PYTHON_TYPES.get(field.type)
    if types is None:
        return f"type {field.type!r} takes neither default nor enum; delete them" if values else None
    for value in values:
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            return f"{value!r} is no {field.type}; correct default or enum"
    if field.enum and field.default is not None and field.default not in field.enum:
        return f"default {field.default!r} is not in enum; add it"
    return None


def _kind_problem(document: _Document, parameters: Parameters) -> str | None:
    inputs: dict[str, str] = {key: field.type for key, field in document.input.items()}
    if isinstance(parameters, ImageParameters):
        return _image_problem(document, parameters, inputs)
    if isinstance(parameters, EmbeddingParameters):
        if inputs.get("texts") != "texts" or document.output.type != "vectors":
            return 'kind embedding takes [input.texts] type = "texts" and gives [output] type = "vectors"; declare them'
        return None
    if document.output.type != "tensor" or any(kind in ("file:image", "texts") for kind in inputs.values()):
        return 'kind tensor takes inputs of type tensor or scalars and gives [output] type = "tensor"; correct them'
    return None


def _image_problem(document: _Document, parameters: ImageParameters, inputs: dict[str, str]) -> str | None:
    if inputs.get("image") != "file:image" or document.output.type != "file:image":
        return 'kind image-to-image takes [input.image] and gives [output], both type = "file:image"; declare them'
    scales = [graph.scale for graph in parameters.graphs]
    if len(set(scales)) != len(scales):
        return "[parameters] has two graphs of one scale; delete one"
    if len(scales) > 1 and sorted(document.input.get("scale", Field(type="integer")).enum, key=str) != sorted(
        scales, key=str
    ):
        return f"several graphs need [input.scale] with enum = {sorted(scales)}; declare it"
    known = {"image", "scale", "format"}
    unknown = [key for key in inputs if key not in known]
    return (
        f"kind image-to-image knows the inputs image, scale, format, not {unknown[0]!r}; delete it" if unknown else None
    )
