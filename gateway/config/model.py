"""The Structs of `config.toml`, every key with its default. What the keys mean stands in `config.example.toml`."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

Seconds = Annotated[float, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]


class Section(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Unknown keys are errors."""


class Server(Section, kw_only=True, frozen=True):
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8000
    # What callers see in every URL; empty: http://host:port. Outputs are files to Replicate's clients only under https.
    public_url: str = ""
    max_body_bytes: Positive = 10_000_000  # of a JSON body, data URIs included
    max_wait_seconds: Seconds = 58  # Prefer: wait is held no longer: clients give up at 60
    max_in_flight: Positive = 10_000  # open predictions; beyond it new ones get 503
    drain_seconds: Seconds = 25
    workers: Positive = 1  # processes that share the address; more than one needs Redis as the store
    # A process that says nothing for so long is taken for dead, and others go on with its predictions.
    lease_seconds: Annotated[float, msgspec.Meta(ge=1, le=600)] = 30.0


class StoreSection(Section, kw_only=True, frozen=True):
    # sqlite:///path for one process; redis://host:port/n, rediss://… or redis+cluster://host:port for many.
    url: str = "sqlite:///turnout-data/turnout.db"
    max_queue: Positive = 1_000  # writes that wait; beyond it 503
    # The rest is Redis' alone.
    username: str = ""
    password: str = ""  # "env:NAME" or "file:PATH"
    prefix: str = "turnout"  # of every key: several gateways may share a server
    # What a 201 stands for. aof-always: it is on the server's disk. everysec: it will be within two seconds. wait:N: it
    # is in the memory of N replicas too.
    durability: str = "aof-always"
    checks: str = "refuse"  # what to do about a server that would lose what it took: refuse, warn
    timeout_seconds: Annotated[float, msgspec.Meta(gt=0, le=60)] = 2.0  # one exchange with it takes no longer


class Retention(Section, kw_only=True, frozen=True):
    # Seconds after its end at which a prediction's input, output and logs are erased, artifacts too; 0: never.
    data_seconds: Seconds = 0


class Artifacts(Section, kw_only=True, frozen=True):
    path: str = "turnout-data/artifacts"
    max_file_bytes: Positive = 100_000_000
    link_seconds: Seconds = 86_400  # signed links live so long
    file_seconds: Seconds = 86_400  # uploaded files are kept so long
    allow: tuple[
        str, ...
    ] = ()  # private hosts from which input files may be fetched, e.g. "10.0.0.5" or "minio.internal"


class Key(Section, kw_only=True, frozen=True):
    hash: str  # "env:NAME" or "file:PATH" of the key's hash, or the hash itself: sha256:<64 hex>
    scopes: tuple[str, ...] = ("predictions", "models", "files")  # "admin" adds /metrics and foreign predictions
    policy: str = ""  # used where the caller names none


class Webhooks(Section, kw_only=True, frozen=True):
    secret: str = ""  # "env:NAME" or "file:PATH" of a whsec_… secret; empty: made once and kept in the store
    allow: tuple[str, ...] = ()  # private receivers allowed by name: "127.0.0.1:9000", "10.1.2.3", "hooks.internal"
    allow_http: bool = False  # plain http receivers, for development
    timeout_seconds: Seconds = 15
    # Seconds after the event at which a failed terminal delivery is tried again, +-20 %.
    schedule_seconds: tuple[float, ...] = (0, 2, 10, 30, 120, 600, 1800, 7200, 18000, 36000, 50400, 72000, 86400)


class Provider(Section, kw_only=True, frozen=True):
    adapter: str = ""  # which adapter; empty: the section's own name
    base_url: str = ""  # empty: the adapter's own
    sites: dict[str, str] = msgspec.field(default_factory=dict)  # further addresses of its own, by the adapter's words
    token: str = ""  # "env:NAME" or "file:PATH": short for credentials.token
    # "env:NAME" or "file:PATH" by part, for providers that take several: {access_key_id = "env:AWS_ACCESS_KEY_ID", …}
    credentials: dict[str, str] = msgspec.field(default_factory=dict)
    webhook_secret: str = ""  # "env:NAME" or "file:PATH": callbacks signed with it are believed
    callbacks: bool = True  # hand out callback URLs, if public_url can be reached from there
    max_connections: Positive = 1_000
    submit_seconds: Seconds = 15
    poll_seconds: Seconds = 10
    hold_seconds: Seconds = 20  # an outcome nobody knows is waited for so long, and looked for, before another starts
    concurrency: int = 0  # most attempts in flight; 0: no limit
    region: str = ""
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    catalogue: bool = False  # serve the catalogue's models here though base_url is not the adapter's own


class CatalogueSection(Section, kw_only=True, frozen=True):
    enabled: bool = True  # know the models of the shipped catalogue
    files: tuple[str, ...] = ()  # further catalogues, files or folders: their models replace shipped ones by name
    providers_from_environment: bool = True  # a provider that is configured nowhere, its credentials in the environment


class InputSection(Section, kw_only=True, frozen=True):
    rename: dict[str, str] = msgspec.field(default_factory=dict)
    set: dict[str, Any] = msgspec.field(default_factory=dict)
    drop: tuple[str, ...] = ()
    values: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    spread: dict[str, dict[str, dict[str, Any]]] = msgspec.field(default_factory=dict)


class OutputSection(Section, kw_only=True, frozen=True):
    path: str = ""  # where in the provider's output lies what callers expect: "images[*].url", "video.url"
    form: str = ""  # "list", "one", "text"; empty: as it is


class PriceTier(Section, kw_only=True, frozen=True):
    """Another price for some inputs; the first that fits holds alone."""

    when: dict[str, Any]  # fact of the input → a value, a list of them, or bounds
    price: dict[str, str]


class OfferSection(Section, kw_only=True, frozen=True):
    provider: str
    name: str
    version: str = ""  # public version (64 hex) it serves; empty: the model's
    price: dict[str, str] = msgspec.field(default_factory=dict)  # {per_second = "0.000725"}
    price_tiers: tuple[PriceTier, ...] = ()  # before it, in this order
    source: str = ""  # of the price
    date: str = ""  # of the source
    region: str = ""
    input: InputSection = InputSection()
    output: OutputSection = OutputSection()
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    capabilities: tuple[str, ...] = ()
    concurrency: int = 0
    fallback: bool = False
    quality: str = "full"  # "reduced": what it makes is less than the model promises
    equivalent: str = ""  # a name: offers that share it may stand in for each other across versions


class ModelSection(Section, kw_only=True, frozen=True):
    name: str  # owner/name
    description: str = ""
    version: str = ""  # 64 hex; derived from name and schema if absent
    schema: str = ""  # path of a JSON file: {"Input": {...}, "Output": {...}} or a whole OpenAPI document
    policy: str = ""
    extend: bool = False  # beside the catalogue's offers of this model, not in their place
    offers: tuple[OfferSection, ...] = ()


class Policies(Section, kw_only=True, frozen=True):
    files: tuple[str, ...] = ()  # TOML files or folders; the presets are always there
    default: str = "balanced"


class Local(Section, kw_only=True, frozen=True):
    enabled: bool = True
    packages: tuple[str, ...] = ()  # folders of packages, beside the bundled one
    listen: str = ""  # empty: a Unix socket of its own; "tcp://127.0.0.1:0" for TCP
    device: str = "auto"  # auto, cuda, cpu
    threads: int = 0  # per model; 0: by the machine
    max_queue: Positive = 64
    memory_bytes: int = 0  # address-space limit of the child; 0: none
    price: dict[str, str] = msgspec.field(default_factory=lambda: {"per_prediction": "0"})


class Telemetry(Section, kw_only=True, frozen=True):
    log_level: str = "info"
    log_format: str = "text"  # text, json
    metrics: bool = True
    metrics_key: bool = False  # /metrics asks for a key with scope admin
    otlp_endpoint: str = ""  # of a collector, without /v1/…; empty: as the OTEL_* environment says


class Dashboard(Section, kw_only=True, frozen=True):
    enabled: bool = True  # /dashboard and /ops/v1, for keys with the scope "admin"
    budget_per_hour: str = ""  # dollars, as "20.00": what is spent is shown against it; empty: against nothing


class Config(Section, kw_only=True, frozen=True):
    """The whole of `config.toml`."""

    server: Server = Server()
    store: StoreSection = StoreSection()
    retention: Retention = Retention()
    artifacts: Artifacts = Artifacts()
    keys: dict[str, Key] = msgspec.field(default_factory=dict)
    webhooks: Webhooks = Webhooks()
    providers: dict[str, Provider] = msgspec.field(default_factory=dict)
    catalogue: CatalogueSection = CatalogueSection()
    models: tuple[ModelSection, ...] = ()
    policies: Policies = Policies()
    local: Local = Local()
    telemetry: Telemetry = Telemetry()
    dashboard: Dashboard = Dashboard()
