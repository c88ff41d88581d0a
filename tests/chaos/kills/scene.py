"""
What every scenario of kills takes place in: simulated providers with faults, gateways, a listener, callers, a store.

The faults are F1 to F14 of the catalogue, each at the same rate; a calm provider that costs nothing comes last.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from gateway.contract.key import new_key
from tests.chaos.callers import Callers
from tests.chaos.evidence import opened, read_all
from tests.chaos.gateway import ChaosGateway
from tests.chaos.judge import Asked, Judge, Verdict
from tests.chaos.listener import Listener
from tests.chaos.simulator_process import SimulatorProcess
from tests.redis.server import RedisServer

FAULTS = (
    "refuse", "throttle", "cut", "cut_before", "garbage", "truncate", "slow", "stumble",
    "error", "hang", "lost_webhook", "duplicate", "late", "forged",
)  # fmt: skip
# Providers, and which faults they are spared: one that is rate limited all the time would be left out of every plan.
FAULTY = {"one": (), "two": ("throttle",), "three": ("throttle", "hang")}
SPARE = "spare"
SQLITE = "sqlite:///turnout-data/turnout.db"

CONFIG = """
[keys.app]
hash = "{hash}"
[store]
url = "{store}"
{more_store}
[server]
lease_seconds = {lease}
[local]
enabled = false
[catalogue]
enabled = false
[webhooks]
allow = ["{place}"]
allow_http = true
timeout_seconds = {webhook_seconds}
schedule_seconds = [0, 0.3, 1, 2, 4, 8, 16, 32, 60, 60]
[telemetry]
log_level = "warning"
[artifacts]
path = "{artifacts}"
[policies]
files = ["policy.toml"]
default = "chaos"
[[models]]
name = "acme/echo"
"""
POLICY = """
[[policies]]
name = "chaos"
rank = {{ by = "blend" }}
limits = {{ attempts = 6, deadline_seconds = {deadline}, attempt_seconds = {attempt}, pay_twice_up_to = "0.02" }}
fallback = {{ provider = "spare" }}
"""
# For the small versions: the same engine, less patient.
HURRIED = {
    "cancel_grace": 4.0,
    "first_poll": 0.5,
    "longest_poll": 2.0,
    "longest_poll_alone": 1.0,
    "store_pause": 0.2,
    "silence": 10.0,
}


DELIVERY_SECONDS = 120.0  # for the last webhooks, after the last end


@dataclass(frozen=True)
class Options:
    predictions: int = 10_000
    seed: int = 7
    store: str = "sqlite"
    faults: float = 0.05
    careless: float = 0.1  # share of callers without a key
    clients: int = 24
    pause_seconds: float = 0.0  # of each client after each create, on average: so that a short run lasts
    gateways: int = 1
    is_hurried: bool = False
    attempt_seconds: float = 20.0
    patience_seconds: float = 300.0
    appendfsync: str = "always"
    median: float = 0.3  # of a job's run time
    lease_seconds: float = 30.0
    deadline_seconds: float = 0.0  # of a prediction; 0: as long as the patience
    is_fresh: bool = False  # interpreters of their own even where it is hurried
    environ: dict[str, str] = field(default_factory=dict)
    plan: dict[str, str] = field(default_factory=dict)
    more_store: str = ""
    redis_options: tuple[str, ...] = ()


class Scene:
    """`with Scene(folder, options) as scene:` providers, listener, store and gateways run inside."""

    def __init__(self, folder: Path, options: Options, *, store_folder: Path | None = None) -> None:
        self.folder = folder
        self.options = options
        self.gateways: list[ChaosGateway] = []
        self.redis: RedisServer | None = None
        self.kills: list[datetime] = []  # when something was killed, frozen, or woken
        self.starts_seconds: list[float] = []
        self._stack = ExitStack()
        self._store_folder = store_folder
        self._callers: Callers | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Scene:
        options, stack = self.options, self._stack
        try:
            self.listener = stack.enter_context(Listener())
            self.simulator = stack.enter_context(SimulatorProcess(self.folder, *_providers(options)))
            if options.store == "redis":
                where = self._store_folder or self.folder / "redis"
                more = ("--appendfsync", options.appendfsync, *options.redis_options)
                self.redis = stack.enter_context(RedisServer(where, *more))
            self.key = new_key("chaos")
            self.environ = {"SIMULATOR_SECRET": self.simulator.secret, **options.environ}
            for number in range(options.gateways):
                self.gateways.append(self._gateway(number))
                stack.callback(self.gateways[-1].kill)
                self.gateways[-1].start()
        except BaseException:
            stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def asked(self) -> list[Asked]:
        return list(self._callers.asked.values()) if self._callers is not None else []

    def caller_statuses(self) -> Counter[str]:
        """What creates were answered until now."""
        return Counter(self._callers.statuses) if self._callers is not None else Counter()

    def callers(self) -> Callers:
        options = self.options
        self._callers = Callers(
            lambda: [gateway.url for gateway in self.gateways if gateway.url],
            self.listener,
            key=self.key.text,
            count=options.predictions,
            careless=options.careless,
            seed=options.seed,
        )
        return self._callers

    def kill(self, gateway: ChaosGateway) -> None:
        """SIGKILL, and started again."""
        self.trouble()
        gateway.kill()
        began = time.monotonic()
        gateway.start(seconds=60)
        self.starts_seconds.append(time.monotonic() - began)

    def trouble(self) -> None:
        """Something happens now that may cost an answer which is on its way."""
        self.kills.append(datetime.now(UTC))

    async def play(self, trouble: Callable[[asyncio.Event], asyncio.Task[None]] | None = None) -> Verdict:
        """All the traffic under `trouble`, which lasts until the last create; then quiet, the ends, and the verdict."""
        options, began = self.options, time.monotonic()
        callers, over = self.callers(), asyncio.Event()
        task = trouble(over) if trouble is not None else None
        posting = asyncio.create_task(callers.post_all(clients=options.clients, pause_seconds=options.pause_seconds))
        # Trouble that fails by itself, such as a gateway that does not start again, ends the whole.
        await asyncio.wait({posting, *([task] if task is not None else [])}, return_when=asyncio.FIRST_COMPLETED)
        if task is not None and task.done():
            posting.cancel()
            await asyncio.wait({posting})
            task.result()
        await posting
        over.set()
        if task is not None:
            await task
        posted = time.monotonic() - began
        left = await callers.read_ends(seconds=options.patience_seconds)
        expected = len(callers.accepted)
        await asyncio.to_thread(self.listener.wait, expected, seconds=DELIVERY_SECONDS)
        ended = time.monotonic() - began
        for gateway in self.gateways:
            if gateway.is_running:
                await asyncio.to_thread(gateway.stop)
        verdict = await self.judge(callers)
        figures = verdict.figures
        figures["seconds"] = f"{ended:.0f}, of them {posted:.0f} posting"
        figures["moments of trouble"] = len(self.kills)
        figures["answers to creates"] = ", ".join(f"{count} {what}" for what, count in callers.statuses.most_common(8))
        if self.starts_seconds:
            figures["restart to ready, p95"] = f"{_quantile(self.starts_seconds, 0.95):.2f} s"
        if left:
            verdict.break_("no accepted prediction is lost", f"{left} had not ended after {options.patience_seconds} s")
        for id in callers.unreadable:
            verdict.break_("a 201 can be read", f"{id} was accepted and was not found")
        for what in callers.statuses:
            if what.startswith("unexpected"):
                verdict.break_("only 201 and 503", what)
        return verdict

    async def judge(self, callers: Callers) -> Verdict:
        async with opened(self.gateways[0].folder, self.environ) as store:
            kept = await read_all(store)
        asked = list(callers.asked.values())
        told = {one.hook: found for one in asked if (found := self.listener.told(one.hook)) is not None}
        books = {name: self.simulator.books(name) for name in (*FAULTY, SPARE)}
        return Judge(asked, kept, told, books, kills=self.kills).judge()

    def _gateway(self, number: int) -> ChaosGateway:
        options, folder = self.options, self.folder / f"gateway-{number}"
        plan = dict(options.plan)
        if options.is_hurried:
            plan["TIMING"] = json.dumps(HURRIED)
        url = self.redis.url if self.redis is not None else SQLITE
        if self.redis is None and self._store_folder is not None:
            url = f"sqlite:///{self._store_folder}/turnout.db"
        text = CONFIG.format(
            hash=self.key.hash,
            store=url,
            lease=options.lease_seconds,
            place=self.listener.place,
            artifacts=self.folder / "artifacts",
            more_store=options.more_store + _durability(options),
            # A delivery that a dead replica was sending comes back after four of these, or twenty seconds.
            webhook_seconds=3 if options.is_hurried else 15,
        )
        text += _offers(self.simulator.urls, hold_seconds=2 if options.is_hurried else 20)
        gateway = ChaosGateway(
            folder,
            text,
            key=self.key.text,
            environ=self.environ,
            plan=plan,
            is_fresh=options.is_fresh or not options.is_hurried,
        )
        policy = POLICY.format(
            deadline=options.deadline_seconds or options.patience_seconds, attempt=options.attempt_seconds
        )
        (folder / "policy.toml").write_text(policy)
        return gateway


def _durability(options: Options) -> str:
    """What Redis is asked for: no more than it is set to keep."""
    return '\ndurability = "everysec"' if options.store == "redis" and options.appendfsync != "always" else ""


def _providers(options: Options) -> Sequence[str]:
    quick = f"queue=0.02,median={options.median},sigma=0.4"
    said = []
    for number, (name, spared) in enumerate(FAULTY.items()):
        faults = ",".join(f"{fault}={options.faults}" for fault in FAULTS if fault not in spared)
        said.append(
            f"{name},price=0.01,seed={options.seed * 10 + number},slow_seconds=1,late_seconds=2,{quick},{faults}"
        )
    said.append(f"{SPARE},seed={options.seed * 10 + 9},{quick}")
    return said


def _offers(urls: dict[str, str], *, hold_seconds: float) -> str:
    lines = []
    for name in (*FAULTY, SPARE):
        price = "0" if name == SPARE else "0.01"
        more = "\nfallback = true" if name == SPARE else ""
        offered = f'[[models.offers]]\nprovider = "{name}"\nname = "acme/echo"'
        lines.append(f'{offered}\nprice = {{ per_prediction = "{price}" }}{more}')
    lines += [
        f'[providers.{name}]\nadapter = "replicate"\nbase_url = "{urls[name]}"\n'
        f'webhook_secret = "env:SIMULATOR_SECRET"\nhold_seconds = {hold_seconds}'
        for name in (*FAULTY, SPARE)
    ]
    return "\n".join(lines) + "\n"


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
