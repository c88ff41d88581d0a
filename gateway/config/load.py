"""Reads `config.toml` into a Loaded: the Config, its secrets, schemas and policies. Builds nothing from it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

import policies
from gateway.config.catalogue import Catalogue, read_catalogue
from gateway.config.complaint import remedy_of
from gateway.config.meaning import Meaning, policy_problems
from gateway.config.model import Config
from gateway.config.secret import Secret
from gateway.config.shape import Problem, Reading, dotted
from gateway.config.watch import PolicyFiles
from gateway.contract.errors import ConfigurationError, refuse
from gateway.contract.toml import Lines, read_toml
from gateway.store.address import SqliteAddress, StoreSettings, read_address
from gateway.store.durability import read_durability
from policies.document import Policy
from policies.reading import read as read_policy

DEFAULT_FILE = "turnout.toml"
BUILT_IN = "built-in defaults"
PRESETS = Path(policies.__file__).parent / "presets"


class Loaded(msgspec.Struct, kw_only=True, frozen=True):
    """A configuration without a fault. Relative paths in it are relative to `folder`."""

    config: Config
    place: str  # the file, for messages; "built-in defaults" without one
    folder: Path
    secrets: dict[str, Secret]  # by dotted place: "providers.replicate.token", "webhooks.secret", "keys.app.hash"
    schemas: dict[str, dict[str, Any]]  # by model name, as the file has it
    policies: PolicyFiles
    lines: Lines
    catalogue: Catalogue = Catalogue()
    # Providers and models that stand in no file: what `gateway.commands.supply` adds.
    supplied_providers: frozenset[str] = frozenset()
    supplied_models: frozenset[str] = frozenset()

    def where(self, *path: str | int) -> str:
        """How a message names a key: `turnout.toml:12: providers.replicate.token`; a default has no line."""
        place = _place(self.place, self.lines, path) if self.lines.has(path) else self.place
        return f"{place}: {dotted(path)}"

    @contextlib.contextmanager
    def blaming(self, *path: str | int) -> Iterator[None]:
        """Within, a ConfigurationError is said of this key, with file and line."""
        try:
            yield
        except ConfigurationError as error:
            place = self.where(*path)
            raise ConfigurationError("\n".join(f"{place}: {line}" for line in str(error).splitlines())) from error

    def path(self, text: str) -> Path:
        """A path as written in the configuration, made absolute."""
        return (self.folder / Path(text).expanduser()).absolute()

    @property
    def store(self) -> StoreSettings:
        """What the store is opened by; a path in it is absolute."""
        section, password = self.config.store, self.secrets.get("store.password")
        address = read_address(section.url)  # load() has refused what it does not understand
        return StoreSettings(
            address=SqliteAddress(str(self.path(address.path))) if isinstance(address, SqliteAddress) else address,
            max_queue=section.max_queue,
            username=section.username,
            password=password.reveal() if password is not None else "",
            prefix=section.prefix,
            durability=read_durability(section.durability),
            refuses=section.checks == "refuse",
            timeout_seconds=section.timeout_seconds,
        )

    @property
    def store_path(self) -> Path | None:
        """The file of a SQLite store; None where a server keeps it."""
        address = self.store.address
        return Path(address.path) if isinstance(address, SqliteAddress) else None

    @property
    def artifacts_path(self) -> Path:
        return self.path(self.config.artifacts.path)

    @property
    def package_paths(self) -> tuple[Path, ...]:
        """Folders of packages, beside the bundled one."""
        return tuple(self.path(text) for text in self.config.local.packages)

    @property
    def secret_values(self) -> tuple[str, ...]:
        """Everything a log must never show. Hashes of keys are not among them: they are no secrets."""
        return tuple(secret.reveal() for place, secret in self.secrets.items() if not place.startswith("keys."))


def load(path: Path | None = None, *, environ: Mapping[str, str]) -> Loaded:
    """
    Read the configuration: `path`, else `turnout.toml` in the working directory, else the built-in defaults.

    Raises ConfigurationError with one line per fault: `file:line: place: what is wrong; what to do`.
    """
    if path is None and Path(DEFAULT_FILE).is_file():
        path = Path(DEFAULT_FILE)
    if path is None:
        return parse("", place=BUILT_IN, folder=Path.cwd(), environ=environ)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise _unreadable(path, error) from None
    except UnicodeDecodeError as error:
        raise refuse(f"not UTF-8 at byte {error.start}", place=str(path), remedy="save it as UTF-8") from None
    return parse(text, place=str(path), folder=path.absolute().parent, environ=environ)


def parse(text: str, *, place: str, folder: Path, environ: Mapping[str, str]) -> Loaded:
    """The configuration in `text`. Raises ConfigurationError as `load` does."""
    document = read_toml(text, place=place)
    reading = Reading()
    config: Config = reading.read(document, Config)
    meaning = Meaning(config, environ=environ, folder=folder)
    found = [*reading.problems, *(problem for problem in meaning.problems if not reading.is_bad(problem.path))]
    lines = Lines(text)
    files, wrong = _read_policies(config, folder=folder, place=place, lines=lines)
    catalogue = Catalogue()
    try:
        paths = [(folder / Path(text).expanduser()).absolute() for text in config.catalogue.files]
        catalogue = read_catalogue(paths if config.catalogue.enabled else (), shipped=config.catalogue.enabled)
    except ConfigurationError as error:
        wrong += str(error).splitlines()
    if files is not None:
        found += [p for p in policy_problems(config, files.current().policies) if not reading.is_bad(p.path)]
    said = sorted((lines.of(problem.path), _say(problem, place, lines)) for problem in found)
    if said or wrong or files is None:
        raise ConfigurationError("\n".join([*dict.fromkeys(line for _, line in said), *wrong]))
    return Loaded(
        config=config,
        place=place,
        folder=folder.absolute(),
        secrets=meaning.secrets,
        schemas=meaning.schemas,
        policies=files,
        lines=lines,
        catalogue=catalogue,
    )


def _read_policies(config: Config, *, folder: Path, place: str, lines: Lines) -> tuple[PolicyFiles | None, list[str]]:
    """The policy files, or what is wrong in them."""

    def accept(found: tuple[Policy, ...]) -> None:
        # While we start, faults of the configuration are collected; later a reload must not take away what it names.
        missing = policy_problems(config, found) if started else []
        if missing:
            raise ConfigurationError("\n".join(_say(problem, place, lines) for problem in missing))

    started = False
    paths = [PRESETS, *((folder / Path(text).expanduser()).absolute() for text in config.policies.files)]
    try:
        files = PolicyFiles(paths, read=read_policy, accept=accept)
    except ConfigurationError as error:
        return None, str(error).splitlines()
    started = True
    return files, []


def _say(problem: Problem, place: str, lines: Lines) -> str:
    where = _place(place, lines, problem.path)
    key = dotted(problem.path)
    said = f"{key}: {problem.problem}" if key else problem.problem
    return str(refuse(said, place=where, remedy=remedy_of(problem)))


def _place(place: str, lines: Lines, path: tuple[str | int, ...]) -> str:
    return place if place == BUILT_IN else f"{place}:{lines.of(path)}"


def _unreadable(path: Path, error: OSError) -> ConfigurationError:
    if isinstance(error, IsADirectoryError):
        remedy = f"name the file in it with --config, such as {path / DEFAULT_FILE}"
        return refuse("it is a directory", place=str(path), remedy=remedy)
    remedy = "name a file that is there with --config" if isinstance(error, FileNotFoundError) else "see its rights"
    return refuse(f"it cannot be read ({error.strerror})", place=str(path), remedy=remedy)
