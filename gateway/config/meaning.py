"""What the keys of a configuration mean together: names that must exist, prices, secrets, schemas. Not their types."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.config.complaint import Complaints
from gateway.config.model import Config, ModelSection, OfferSection
from gateway.config.secret import Secret, SecretMissing, resolve
from gateway.config.shape import Problem, did_you_mean
from gateway.contract.money import parse_dollars
from gateway.contract.route import QUALITIES
from gateway.contract.toml import Path as Place
from gateway.contract.wording import printable
from gateway.store.address import AddressWrong, SqliteAddress, read_address
from gateway.store.durability import read_durability
from policies.document import Policy

LOCAL = "local"  # the provider that is always there
SCOPES = ("predictions", "models", "files", "admin")
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_LEVELS = ("debug", "info", "warning", "error")


class Meaning(Complaints):
    """One look over a Config. What is wrong is in `problems`, what was found in `secrets` and `schemas`."""

    def __init__(self, config: Config, *, environ: Mapping[str, str], folder: Path) -> None:
        super().__init__()
        self.secrets: dict[str, Secret] = {}  # by dotted place: "providers.replicate.token"
        self.schemas: dict[str, dict[str, Any]] = {}  # by model name
        self._config = config
        self._environ = environ
        self._folder = folder
        self._read_server()
        self._read_store()
        self._read_keys()
        self._read_webhooks()
        self._read_providers()
        self._read_models()
        self._read_local()
        self._read_telemetry()
        self._read_dashboard()

    @property
    def providers(self) -> tuple[str, ...]:
        """Names an offer or a policy may use."""
        return (*self._config.providers, *((LOCAL,) if self._config.local.enabled else ()))

    def _read_server(self) -> None:
        config = self._config
        self._want_url(("server", "public_url"), config.server.public_url)
        for index, seconds in enumerate(config.webhooks.schedule_seconds):
            if not 0 <= seconds <= 30 * 86_400:
                self._note(("webhooks", "schedule_seconds", index), "out of range", "write 0 to 2592000 seconds")

    def _read_store(self) -> None:
        store = self._config.store
        try:
            address = read_address(store.url)
        except AddressWrong as wrong:
            self._note(("store", "url"), wrong.problem, wrong.remedy)
        else:
            if isinstance(address, SqliteAddress) and self._config.server.workers > 1:
                remedy = 'write workers = 1, or use Redis: url = "redis://HOST:PORT/0" in [store]'
                self._note(("server", "workers"), "a SQLite store is for one process", remedy)
        self._read_secret(("store", "password"), store.password)
        if _PREFIX.fullmatch(store.prefix) is None:
            remedy = "use letters, digits and . _ : -, at most 64"
            self._note(("store", "prefix"), f'"{printable(store.prefix)}" cannot begin a key', remedy)
        try:
            read_durability(store.durability)
        except ValueError:
            remedy = 'write "aof-always", "everysec", or "wait:N" with the number of replicas that confirm a write'
            self._note(("store", "durability"), f'"{printable(store.durability)}" is not known', remedy)
        self._want_one_of(("store", "checks"), store.checks, ("refuse", "warn"))

    def _read_keys(self) -> None:
        owners: dict[str, str] = {}
        for name, key in self._config.keys.items():
            place: Place = ("keys", name)
            self._want_name(place, name)
            for index, scope in enumerate(key.scopes):
                if scope not in SCOPES:
                    problem = f'unknown scope "{printable(scope)}"'
                    self._note((*place, "scopes", index), problem, did_you_mean(scope, SCOPES))
            if not key.hash:
                self._note((*place, "hash"), "it is empty", "`turnout keys new` makes a key and the line to paste")
                continue
            is_hash = key.hash.startswith("sha256:")
            secret = Secret(key.hash) if is_hash else self._resolve((*place, "hash"), key.hash)
            if secret is None:
                continue
            if _HASH.fullmatch(secret.reveal()) is None:
                problem = "this is no hash of a key (sha256: and 64 hex digits)"
                self._note((*place, "hash"), problem, "`turnout keys new` makes a key and the line to paste")
            elif secret.reveal() in owners:
                problem = f"the same key as [keys.{owners[secret.reveal()]}]"
                self._note((*place, "hash"), problem, "give each name a key of its own")
            owners.setdefault(secret.reveal(), name)
            self.secrets[f"keys.{name}.hash"] = secret

    def _read_webhooks(self) -> None:
        if not self._config.webhooks.secret:
            return
        secret = self._resolve(("webhooks", "secret"), self._config.webhooks.secret)
        if secret is None:
            return
        # Several, with spaces between, while one replaces another: the newest first.
        words = secret.reveal().split()
        if words and all(_is_webhook_secret(word) for word in words):
            self.secrets["webhooks.secret"] = secret
        else:
            problem = "this is no webhook secret (whsec_ and 24 to 64 bytes in base64)"
            self._note(("webhooks", "secret"), problem, "leave it empty: one is made and kept in the store")

    def _read_providers(self) -> None:
        for name, provider in self._config.providers.items():
            place: Place = ("providers", name)
            self._want_name(place, name)
            if name == LOCAL:
                self._note(place, f'"{LOCAL}" is the local backend', "configure it in [local], or use another name")
            self._want_url((*place, "base_url"), provider.base_url)
            if provider.concurrency < 0:
                self._note((*place, "concurrency"), "it is negative", "write 0 for no limit")
            for site, url in provider.sites.items():
                self._want_url((*place, "sites", site), url)
            if provider.token and "token" in provider.credentials:
                self._note((*place, "token"), "credentials.token says it already", "leave one of the two out")
            self._read_secret((*place, "webhook_secret"), provider.webhook_secret)
            self._read_secret((*place, "token"), provider.token, named=(*place, "credentials", "token"))
            for part, reference in provider.credentials.items():
                self._read_secret((*place, "credentials", part), reference)

    def _read_models(self) -> None:
        seen: dict[str, int] = {}
        for index, model in enumerate(self._config.models):
            place: Place = ("models", index)
            self._want_slug((*place, "name"), model.name, seen)
            seen.setdefault(model.name.lower(), index)
            self._want_version((*place, "version"), model.version)
            self._read_schema(place, model)
            if not model.offers and not model.extend:
                self._note(
                    (*place, "offers"), "the model has no offers", "add [[models.offers]] with provider and name"
                )
            for number, offer in enumerate(model.offers):
                self._read_offer((*place, "offers", number), offer)

    def _read_offer(self, place: Place, offer: OfferSection) -> None:
        if offer.provider not in self.providers:
            problem = f'unknown provider "{printable(offer.provider)}"'
            otherwise = "set enabled = true in [local]" if offer.provider == LOCAL else ""
            remedy = did_you_mean(offer.provider, self.providers, otherwise=otherwise)
            if not otherwise:
                remedy += f" (a new one needs a section [providers.{printable(offer.provider) or 'NAME'}])"
            self._note((*place, "provider"), problem, remedy)
        if not offer.name:
            self._note((*place, "name"), "it is empty", "write what the provider calls the model")
        if offer.concurrency < 0:
            self._note((*place, "concurrency"), "it is negative", "write 0 for no limit")
        self._want_version((*place, "version"), offer.version)
        self._want_one_of((*place, "quality"), offer.quality, QUALITIES)
        self._want_price((*place, "price"), offer.price)
        self._want_tiers((*place, "price_tiers"), offer.price_tiers)
        self._want_date((*place, "date"), offer.date)
        self._want_output((*place, "output"), offer.output)

    def _read_schema(self, place: Place, model: ModelSection) -> None:
        if not model.schema:
            return
        file = self._folder / Path(model.schema).expanduser()
        where = (*place, "schema")
        try:
            document = json.loads(file.read_bytes())
        except OSError as error:
            self._note(where, f"{file} cannot be read ({error.strerror})", "correct the path")
        except (ValueError, RecursionError) as error:
            self._note(where, f"{file} is not JSON ({printable(str(error))})", "correct the file")
        else:
            if not isinstance(document, dict) or not ({"Input", "openapi", "components"} & document.keys()):
                remedy = 'it holds {"Input": {…}, "Output": {…}} or a whole OpenAPI document'
                self._note(where, f"{file} is no schema of a model", remedy)
            else:
                self.schemas[model.name] = document

    def _read_dashboard(self) -> None:
        budget = self._config.dashboard.budget_per_hour
        try:
            if budget:
                parse_dollars(budget)
        except ValueError as error:
            self._note(("dashboard", "budget_per_hour"), printable(str(error)), 'write dollars, as "20.00"')

    def _read_local(self) -> None:
        local = self._config.local
        for index, text in enumerate(local.packages):
            folder = self._folder / Path(text).expanduser()
            if not folder.is_dir():
                self._note(("local", "packages", index), f"{folder} is no folder", "correct the path")
        if local.listen and not re.fullmatch(r"tcp://[^/]+:\d+", local.listen):
            remedy = 'leave it empty for a Unix socket, or write "tcp://127.0.0.1:0"'
            self._note(("local", "listen"), f'"{printable(local.listen)}" is no address', remedy)
        self._want_one_of(("local", "device"), local.device, ("auto", "cuda", "cpu"))
        for key in ("threads", "memory_bytes"):
            if getattr(local, key) < 0:
                self._note(("local", key), "it is negative", "write 0 to leave it open")
        self._want_price(("local", "price"), local.price)

    def _read_telemetry(self) -> None:
        self._want_one_of(("telemetry", "log_level"), self._config.telemetry.log_level, _LEVELS)
        self._want_one_of(("telemetry", "log_format"), self._config.telemetry.log_format, ("text", "json"))

    def _read_secret(self, place: Place, reference: str, *, named: Place | None = None) -> None:
        secret = self._resolve(place, reference) if reference else None
        if secret is not None:
            self.secrets[".".join(map(str, named or place))] = secret

    def _resolve(self, place: Place, reference: str) -> Secret | None:
        try:
            return resolve(reference, environ=self._environ, folder=self._folder)
        except SecretMissing as missing:
            self._note(place, missing.problem, missing.remedy)
            return None


def policy_problems(config: Config, policies: tuple[Policy, ...]) -> list[Problem]:
    """Policies that the configuration names and nobody has written."""
    names = tuple(policy.name for policy in policies)
    wanted: list[tuple[Place, str]] = [(("policies", "default"), config.policies.default)]
    wanted += [(("models", index, "policy"), model.policy) for index, model in enumerate(config.models) if model.policy]
    wanted += [(("keys", name, "policy"), key.policy) for name, key in config.keys.items() if key.policy]
    return [
        Problem(path=place, problem=f'unknown policy "{printable(name)}"', remedy=did_you_mean(name, names))
        for place, name in wanted
        if name not in names
    ]


def _is_webhook_secret(text: str) -> bool:
    try:
        return text.startswith("whsec_") and 24 <= len(base64.b64decode(text[6:], validate=True)) <= 64
    except binascii.Error:
        return False
