"""Catalogues: TOML files of models with what adapters offer them. Reads them; knows no provider, token or address."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gateway.config.complaint import Complaints, remedy_of
from gateway.config.model import InputSection, OutputSection, PriceTier, Section
from gateway.config.shape import Reading, dotted
from gateway.contract.errors import ConfigurationError, refuse
from gateway.contract.route import QUALITIES
from gateway.contract.toml import Lines, read_toml
from gateway.contract.toml import Path as Place

# Beside us wherever we are installed; importing the package would import every provider's machinery.
SHIPPED = Path(__file__).parents[2] / "providers" / "catalogue"

_FILE: dict[str, Any] = {"type": "string", "format": "uri"}
_NUMBERS: dict[str, Any] = {"type": "array", "items": {"type": "number"}}
# What a prediction's output is, by word. The engine copies files into our keeping where the schema says `format: uri`.
OUTPUTS: dict[str, dict[str, Any]] = {
    "file": {**_FILE},
    "files": {"type": "array", "items": _FILE},
    "text": {"type": "string"},
    # As Cog declares text that comes piece by piece: clients join it.
    "text_stream": {
        "type": "array",
        "items": {"type": "string"},
        "x-cog-array-type": "iterator",
        "x-cog-array-display": "concatenate",
    },
    "vector": _NUMBERS,
    "vectors": {"type": "array", "items": _NUMBERS},
    "json": {},
}
KINDS: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "object": {"type": "object"},
    "file": {**_FILE},
    "files": {"type": "array", "items": _FILE},
    "strings": {"type": "array", "items": {"type": "string"}},
    "objects": {"type": "array", "items": {"type": "object"}},
}
CONFIDENCES = ("high", "medium", "low")


class Property(Section, kw_only=True, frozen=True):
    """One key of a model's input."""

    type: str  # of KINDS
    description: str = ""
    default: Any = msgspec.UNSET
    enum: tuple[Any, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    required: bool = False

    @property
    def schema(self) -> dict[str, Any]:
        said = {
            "title": "",
            "description": self.description,
            "enum": list(self.enum),
            "minimum": self.minimum,
            "maximum": self.maximum,
        }
        schema = {**KINDS[self.type], **{key: value for key, value in said.items() if value not in ("", [], None)}}
        if self.default is not msgspec.UNSET:
            schema["default"] = self.default
        return schema


class CatalogueOffer(Section, kw_only=True, frozen=True):
    """What providers of one adapter offer, whatever they are called in a configuration."""

    adapter: str  # "local" is the local backend
    name: str
    price: dict[str, str] = msgspec.field(default_factory=dict)  # empty: unknown, never 0
    price_tiers: tuple[PriceTier, ...] = ()  # before it, in this order
    source: str = ""  # of the price
    date: str = ""  # of the source
    confidence: str = ""  # high, medium, low
    note: str = ""
    region: str = ""
    version: str = ""
    input: InputSection = InputSection()
    output: OutputSection = OutputSection()
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    capabilities: tuple[str, ...] = ()
    fallback: bool = False
    quality: str = "full"


class CatalogueModel(Section, kw_only=True, frozen=True):
    """A model that is known, whether or not anybody here can serve it."""

    name: str
    task: str
    output: str  # of OUTPUTS
    description: str = ""
    input: dict[str, Property] = msgspec.field(default_factory=dict)
    offers: tuple[CatalogueOffer, ...] = ()

    @property
    def schema(self) -> dict[str, Any]:
        """{"Input": …, "Output": …}, as a model's schema file has it."""
        input: dict[str, Any] = {"properties": {name: field.schema for name, field in self.input.items()}}
        required = [name for name, field in self.input.items() if field.required]
        if required:
            input["required"] = required
        return {"Input": input, "Output": {"title": "Output", **OUTPUTS[self.output]}}


class CatalogueAdapter(Section, kw_only=True, frozen=True):
    """Options of an adapter, each with the environment variable that it is customarily found in."""

    needs: dict[str, str] = msgspec.field(default_factory=dict)  # without them its provider is of no use
    takes: dict[str, str] = msgspec.field(default_factory=dict)


class CatalogueFile(Section, kw_only=True, frozen=True):
    """The whole of a catalogue's file."""

    adapters: dict[str, CatalogueAdapter] = msgspec.field(default_factory=dict)
    models: tuple[CatalogueModel, ...] = ()


class Catalogue(msgspec.Struct, kw_only=True, frozen=True):
    """What all files together say; what is read later wins."""

    models: dict[str, CatalogueModel] = msgspec.field(default_factory=dict)  # by name in lower case
    adapters: dict[str, CatalogueAdapter] = msgspec.field(default_factory=dict)

    def get(self, name: str) -> CatalogueModel | None:
        return self.models.get(name.lower())

    def plus(self, file: CatalogueFile) -> Catalogue:
        models = {model.name.lower(): model for model in file.models}
        return Catalogue(models={**self.models, **models}, adapters={**self.adapters, **file.adapters})


def read_catalogue(files: Sequence[Path], *, shipped: bool = True) -> Catalogue:
    """
    The models of the shipped catalogue and of `files` (TOML files, or folders of them); what is read later wins.

    Raises ConfigurationError with a line for every fault in every file.
    """
    catalogue = _shipped() if shipped else Catalogue()
    wrong: list[str] = []
    for path in _paths(files, wrong):
        try:
            catalogue = catalogue.plus(_read(path))
        except ConfigurationError as error:
            wrong += str(error).splitlines()
    if wrong:
        raise ConfigurationError("\n".join(wrong))
    return catalogue


@functools.cache
def _shipped() -> Catalogue:
    found = Catalogue()
    for path in sorted(SHIPPED.glob("*.toml")):
        found = found.plus(_read(path))
    return found


def _paths(files: Sequence[Path], wrong: list[str]) -> Iterator[Path]:
    for path in files:
        if path.is_dir():
            yield from sorted(path.glob("*.toml"))
        elif path.is_file():
            yield path
        else:
            wrong.append(str(refuse("no such file or folder", place=str(path), remedy="correct [catalogue] files")))


def _read(path: Path) -> CatalogueFile:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise refuse(f"it cannot be read ({reason})", place=str(path), remedy="see its rights and content") from None
    document = read_toml(text, place=str(path))
    reading = Reading()
    try:
        file = msgspec.convert(document, CatalogueFile)  # a hundred times as fast as the reading that explains
    except msgspec.ValidationError:
        file = reading.read(document, CatalogueFile)
    meaning = _Meaning(file)
    found = [*reading.problems, *(problem for problem in meaning.problems if not reading.is_bad(problem.path))]
    if found:
        lines = Lines(text)
        said = sorted(((lines.of(p.path), dotted(p.path), p) for p in found), key=lambda one: one[:2])
        raise ConfigurationError(
            "\n".join(
                str(refuse(f"{where}: {p.problem}", place=f"{path}:{line}", remedy=remedy_of(p)))
                for line, where, p in said
            )
        )
    return file


class _Meaning(Complaints):
    """What the keys of a catalogue's file mean together."""

    def __init__(self, file: CatalogueFile) -> None:
        super().__init__()
        seen: dict[str, int] = {}
        for index, model in enumerate(file.models):
            place = ("models", index)
            self._want_slug((*place, "name"), model.name, seen)
            seen.setdefault(model.name.lower(), index)
            self._want_one_of((*place, "output"), model.output, tuple(OUTPUTS))
            for name, field in model.input.items():
                self._read_property((*place, "input", name), field)
            for number, offer in enumerate(model.offers):
                self._read_offer((*place, "offers", number), offer)

    def _read_property(self, place: Place, field: Property) -> None:
        self._want_one_of((*place, "type"), field.type, tuple(KINDS))
        if field.enum and field.default is not msgspec.UNSET and field.default not in field.enum:
            self._note((*place, "default"), "it is none of `enum`", "write one of them, or leave it out")

    def _read_offer(self, place: Place, offer: CatalogueOffer) -> None:
        for key in ("adapter", "name"):
            if not getattr(offer, key):
                self._note((*place, key), "it is empty", "write what the provider is spoken to with, and asked for")
        self._want_price((*place, "price"), offer.price)
        self._want_tiers((*place, "price_tiers"), offer.price_tiers)
        self._want_date((*place, "date"), offer.date)
        self._want_version((*place, "version"), offer.version)
        self._want_one_of((*place, "quality"), offer.quality, QUALITIES)
        self._want_output((*place, "output"), offer.output)
        if offer.confidence:
            self._want_one_of((*place, "confidence"), offer.confidence, CONFIDENCES)
