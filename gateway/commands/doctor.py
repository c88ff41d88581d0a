"""`turnout doctor`: examines machine and configuration, a line per finding. Changes nothing, asks only the store."""

from __future__ import annotations

import argparse
import ctypes
import enum
import errno
import importlib.metadata
import os
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console
from rich.text import Text

from gateway import __version__
from gateway.commands.folder import unwritable
from gateway.commands.supply import load
from gateway.config.load import Loaded
from gateway.contract.clock import SystemClock
from gateway.contract.errors import ConfigurationError
from gateway.contract.host import host_of, is_loopback
from gateway.contract.key import is_ours
from gateway.store.address import RedisAddress, SqliteAddress
from gateway.store.durability import SQLITE_ACCEPTED, SQLITE_LOSES
from gateway.store.opening import look_at
from gateway.telemetry.export import faults_of

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_NETWORK_FILES = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "fuse.sshfs"})
_LITTLE_SPACE_BYTES = 1 << 30
_PROBE = """
import logging, sys
logging.basicConfig(level=logging.INFO, format="%(message)s")
from local_backend.session import choose_device, runtime_version
device = choose_device(sys.argv[1])
sys.stdout.write(f"{device} {runtime_version()}")
"""


class Level(enum.StrEnum):
    OK = "ok"
    WARN = "warn"  # works, and may hurt later
    FAIL = "fail"  # `turnout serve` would not, or not well


class Finding(msgspec.Struct, frozen=True):
    """One line. `remedy` is empty when all is well."""

    level: Level
    about: str
    text: str
    remedy: str = ""


def run(options: argparse.Namespace) -> int:
    """2 if the configuration is wrong, 1 if anything else fails, else 0."""
    console = Console(highlight=False, soft_wrap=True)
    findings: list[Finding] = []
    loaded, wrong = _load(options.config)
    for finding in (*machine(), *wrong, *(configured(loaded, os.environ) if loaded is not None else ())):
        findings.append(finding)
        _show(console, finding)
    failed = sum(finding.level is Level.FAIL for finding in findings)
    warned = sum(finding.level is Level.WARN for finding in findings)
    console.print(f"\n{len(findings)} looked at: {failed} to mend, {warned} to think about.")
    return 2 if wrong else 1 if failed else 0


def machine() -> Iterator[Finding]:
    """What holds whatever the configuration says."""
    yield Finding(Level.OK, "turnout", f"{__version__}, Python {sys.version.split()[0]}, {sys.platform}")
    yield onnxruntime_wheels(_installed("onnxruntime"), _installed("onnxruntime-gpu"))
    yield stray_test_package()
    yield clock(datetime.now(UTC), synchronised=_is_synchronised())


def configured(loaded: Loaded, environ: Mapping[str, str]) -> Iterator[Finding]:
    """What the configuration asks of this machine."""
    config = loaded.config
    yield Finding(
        Level.OK, "configuration", f"{loaded.place}, models: {len(config.models)}, policies: {_count(loaded)}"
    )
    yield secrets(loaded)
    yield from catalogue(loaded, environ)
    yield from secret_files(loaded)
    yield keys(config.server.host, bool(config.keys))
    yield public_url(config.server.public_url, config.server.host, calls_back=_wants_callbacks(loaded))
    yield port(config.server.host, config.server.port)
    for fault in faults_of(environ, endpoint=config.telemetry.otlp_endpoint):
        text, _, remedy = fault.partition("; ")
        yield Finding(Level.FAIL, "telemetry", text, remedy)
    yield from store(loaded)
    yield from folder("artifacts", loaded.artifacts_path)
    if config.local.enabled:
        yield packages(loaded)
        yield device(config.local.device, environ)
    else:
        yield Finding(Level.WARN, "local backend", "switched off", "without it no fallback is left when providers fail")


def onnxruntime_wheels(plain: str | None, gpu: str | None) -> Finding:
    about = "onnxruntime"
    if plain and gpu:
        remedy = f"pip uninstall -y onnxruntime && pip install --force-reinstall --no-deps onnxruntime-gpu=={gpu}"
        text = f"onnxruntime {plain} and onnxruntime-gpu {gpu} are both installed and overwrite each other"
        return Finding(Level.FAIL, about, text, remedy)
    if not plain and not gpu:
        return Finding(Level.FAIL, about, "not installed", "pip install onnxruntime-gpu, or onnxruntime")
    return Finding(Level.OK, about, f"onnxruntime-gpu {gpu}" if gpu else f"onnxruntime {plain}")


def stray_test_package() -> Finding:
    """aiobreaker's wheel brings its tests as a top-level package `test`; Python's own of that name may be hidden."""
    about = "aiobreaker"
    try:
        wheel = importlib.metadata.distribution("aiobreaker")
    except importlib.metadata.PackageNotFoundError:
        return Finding(Level.FAIL, about, "not installed", "pip install aiobreaker==1.2.0")
    stray = [file for file in wheel.files or () if file.parts[:1] == ("test",) and file.suffix == ".py"]
    if wheel.version != "1.2.0":
        return Finding(Level.WARN, about, f"version {wheel.version} is unknown to us", "pip install aiobreaker==1.2.0")
    if any(Path(str(wheel.locate_file(file))).exists() for file in stray):
        text = f"{wheel.version}; it also installs a package called `test`, which nothing of ours imports"
        return Finding(Level.OK, about, text)
    return Finding(Level.OK, about, f"{wheel.version}, without the stray package `test`")


def sqlite_version(version: tuple[int, ...]) -> Finding:
    """Of 3.7.0 to 3.51.2 two connections that write or checkpoint at once can corrupt a WAL (sqlite.org/wal.html)."""
    text = ".".join(map(str, version))
    if (3, 7, 0) <= version < (3, 51, 3):
        text += " has the WAL-reset bug; Turnout writes over one connection and is safe from it"
        return Finding(Level.WARN, "sqlite", text, "let no second process write the store's file, or use SQLite 3.51.3")
    return Finding(Level.OK, "sqlite", text)


def clock(now: datetime, *, synchronised: bool | None) -> Finding:
    """Signed webhooks are good for five minutes, links and leases count in seconds."""
    if now.year < 2026:
        return Finding(Level.FAIL, "clock", f"it is not {now:%Y-%m-%d}", "set the clock, signatures depend on it")
    text = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    if synchronised is False:
        text += ", and the kernel says that nobody keeps it right"
        return Finding(Level.WARN, "clock", text, "run an NTP service: signatures are refused after five minutes")
    return Finding(Level.OK, "clock", text + (", synchronised" if synchronised else ""))


def secrets(loaded: Loaded) -> Finding:
    found = [place for place in loaded.secrets if not place.startswith("keys.")]
    held = {place.split(".")[1] for place in found if ".credentials." in place}
    bare = [name for name in loaded.config.providers if name not in held]
    text = f"{len(found)} found" if found else "none needed"
    return Finding(Level.OK, "secrets", text + (f"; no token for {', '.join(bare)}" if bare else ""))


def catalogue(loaded: Loaded, environ: Mapping[str, str]) -> Iterator[Finding]:
    """What came without a word of configuration, and a key of ours where a provider's would be."""
    if not loaded.config.catalogue.enabled:
        return
    found = ", ".join(sorted(loaded.supplied_providers))
    text = f"{len(loaded.supplied_models)} of {len(loaded.catalogue.models)} models have an offer here"
    yield Finding(Level.OK, "catalogue", text + (f"; providers from the environment: {found}" if found else ""))
    if is_ours(environ.get("REPLICATE_API_TOKEN", "")) and "replicate" not in loaded.config.providers:
        yield Finding(Level.OK, "catalogue", "REPLICATE_API_TOKEN holds a key of Turnout, so Replicate is no provider")


def secret_files(loaded: Loaded) -> Iterator[Finding]:
    """Files with secrets that others on this machine may read."""
    config = loaded.config
    references = [config.webhooks.secret, config.store.password]
    for provider in config.providers.values():
        references += [provider.token, provider.webhook_secret, *provider.credentials.values()]
    for reference in references:
        if reference.startswith("file:"):
            path = loaded.path(reference.removeprefix("file:"))
            if path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
                yield Finding(Level.WARN, "secrets", f"{path} may be read by others", f"chmod 600 {path}")


def keys(host: str, configured: bool) -> Finding:
    if configured:
        return Finding(Level.OK, "keys", "configured")
    if is_loopback(host):
        return Finding(Level.OK, "keys", "none: one is made at start and printed, good on this machine only")
    remedy = '`turnout keys new` makes one; or set host = "127.0.0.1"'
    return Finding(Level.FAIL, "keys", f"none, and [server] host {host} can be reached from elsewhere", remedy)


def public_url(url: str, host: str, *, calls_back: bool) -> Finding:
    about = "public_url"
    if not url:
        if not calls_back and is_loopback(host):
            return Finding(Level.OK, about, "none: this machine only")
        text = "none: providers cannot call back and are polled; clients see outputs as links, not files"
        return Finding(Level.WARN, about, text, 'set public_url = "https://…" in [server]')
    name = host_of(url)
    if url.startswith("https://"):
        return Finding(Level.OK, about, url)
    if is_loopback(name):
        return Finding(Level.OK, about, f"{url}, for this machine")
    return Finding(Level.WARN, about, f"{url} sends keys and predictions unencrypted", "put TLS in front, use https://")


def port(host: str, number: int) -> Finding:
    text = f"{host}:{number}"
    if number == 0:
        return Finding(Level.OK, "port", f"{text}: any free one")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            remedy = "if that is not Turnout itself, stop it or choose another [server] port"
            return Finding(Level.WARN, "port", f"{text} is in use", remedy)
        return Finding(Level.FAIL, "port", f"{text} cannot be had ({error.strerror})", "correct [server] host and port")
    return Finding(Level.OK, "port", f"{text} is free")


def store(loaded: Loaded) -> Iterator[Finding]:
    """Whether it can be had, whether it keeps what it takes, and what a 201 stands for there."""
    settings = loaded.store
    if isinstance(settings.address, SqliteAddress):
        path = Path(settings.address.path)
        yield sqlite_version(sqlite3.sqlite_version_info[:3])
        yield from folder("store", path.parent)
        yield store_file(path)
        yield accepted(SQLITE_ACCEPTED, SQLITE_LOSES)
        return
    yield from servers(loaded, settings.address)
    yield accepted(settings.durability.accepted, settings.durability.loses, name=settings.durability.name)


def servers(loaded: Loaded, address: RedisAddress) -> Iterator[Finding]:
    """What Redis' servers say of themselves. Over a network without TLS everything can be read on its way."""
    try:
        found = look_at(loaded.store, clock=SystemClock())
    except ConfigurationError as error:
        for line in str(error).splitlines():
            problem, _, remedy = line.partition("; ")
            yield Finding(Level.FAIL, "store", problem, remedy or "see [store]")
        return
    for server in found:
        replicas = f", {server.replicas} replica{'s' * (server.replicas != 1)}" if server.replicas else ", no replica"
        yield Finding(Level.OK, "store", f"{server.server} at {server.place}{replicas}")
        for problem, remedy, is_certain in server.complaints:
            level = Level.FAIL if is_certain and loaded.store.refuses else Level.WARN
            yield Finding(level, "store", f"{server.place}: {problem}", remedy)
    if not address.is_encrypted and not all(is_loopback(host) for host, _ in address.nodes):
        text = "inputs, outputs and the password go to it unencrypted"
        yield Finding(Level.WARN, "store", text, "use rediss://, unless the network is yours alone")


def accepted(stands_for: str, loses: str, *, name: str = "") -> Finding:
    setting = f'durability = "{name}": ' if name else ""
    return Finding(Level.OK, "accepted", f"{setting}at a 201 {stands_for}. What can be lost: {loses}")


def folder(about: str, path: Path) -> Iterator[Finding]:
    """Whether files can be made in `path`, or where it would be made, and how much room is left."""
    problem = unwritable(path)
    if problem is not None:
        yield Finding(Level.FAIL, about, problem, f"let this user write there, or choose another path for [{about}]")
        return
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    text = f"{path}, {free / 1e9:.1f} GB free" + ("" if there == path else "; made at the first start")
    if free < _LITTLE_SPACE_BYTES:
        yield Finding(Level.WARN, about, text, "make room: a full disk stops every prediction")
    else:
        yield Finding(Level.OK, about, text)
    system = _file_system(there)
    if about == "store" and system in _NETWORK_FILES:
        yield Finding(Level.FAIL, about, f"{there} is on {system}", "SQLite needs a disk of this machine")


def store_file(path: Path) -> Finding:
    """Whether an existing store can be locked for writing. Writes nothing."""
    if not path.exists():
        return Finding(Level.OK, "store", f"{path.name} is not there yet")
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=1, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        finally:
            connection.close()
    except sqlite3.Error as error:
        return Finding(
            Level.FAIL, "store", f"{path} cannot be opened for writing ({error})", "see its rights and content"
        )
    return Finding(Level.OK, "store", f"{path.name} can be written, {path.stat().st_size / 1e6:.1f} MB")


def packages(loaded: Loaded) -> Finding:
    from local_backend.package import BUNDLED, describe

    try:
        models = describe([BUNDLED, *loaded.package_paths])
    except ConfigurationError as error:
        return Finding(Level.FAIL, "packages", str(error), "mend the package, or take it out of [local] packages")
    return Finding(Level.OK, "packages", ", ".join(model.slug for model in models))


def device(wanted: str, environ: Mapping[str, str]) -> Finding:
    """Where ONNX Runtime really runs, found out in a process of its own: it may crash, and never gives memory back."""
    kept = {
        name: environ[name] for name in ("PATH", "HOME", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES") if name in environ
    }
    command = [sys.executable, "-c", _PROBE, wanted]
    try:
        told = subprocess.run(command, env=kept, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - ours
    except subprocess.TimeoutExpired:
        return Finding(Level.FAIL, "device", "ONNX Runtime did not start in 60 s", "see the driver: nvidia-smi")
    words = told.stdout.split()
    said = (told.stderr.strip().splitlines() or ["it said nothing"])[-1].removeprefix("running on the CPU: ")
    if told.returncode != 0 or len(words) != 2:
        problem = said.partition("ConfigurationError: ")[2] or said
        return Finding(
            Level.FAIL, "device", f"ONNX Runtime does not run: {problem[:300]}", 'set device = "cpu" in [local]'
        )
    name, version = words
    text = f"ONNX Runtime {version} runs on {'CUDA' if name == 'cuda' else 'the CPU'}"
    return Finding(Level.OK, "device", text if name == "cuda" or wanted == "cpu" else f"{text}: {said[:300]}")


def _load(path: Path | None) -> tuple[Loaded | None, list[Finding]]:
    try:
        return load(path, environ=os.environ), []
    except ConfigurationError as error:
        return None, [Finding(Level.FAIL, "configuration", line) for line in str(error).splitlines()]


def _show(console: Console, finding: Finding) -> None:
    line = Text.assemble(
        (f"{finding.level.value:<5}", _COLOURS[finding.level.value]), f"{finding.about:<15}", finding.text
    )
    if finding.remedy:
        line.append(f" → {finding.remedy}", style="bold")
    console.print(line)


def _count(loaded: Loaded) -> str:
    found = loaded.policies.current()
    return f"{len(found.policies)} (version {found.version})"


def _wants_callbacks(loaded: Loaded) -> bool:
    return any(provider.callbacks for provider in loaded.config.providers.values())


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _is_synchronised() -> bool | None:
    """What Linux says of its own clock (adjtimex(2), read only); None where it cannot be asked."""
    try:
        state: int = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != 5  # TIME_ERROR


def _file_system(path: Path) -> str:
    """The type of the file system `path` lies on; empty where /proc does not tell."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeError):
        return ""
    real = path.resolve()
    over = [(len(where), kind) for _, where, kind, *_ in mounts if real.is_relative_to(where.replace("\\040", " "))]
    return max(over)[1] if over else ""
