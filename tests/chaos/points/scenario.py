"""
A few predictions that take every way a prediction can take: what a gateway does while it waits to be killed at a point.

Its callers are careful ones: a key for each prediction, and again until there is an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from gateway.contract.key import new_key
from tests.chaos.evidence import opened, read_all
from tests.chaos.gateway import ChaosGateway
from tests.chaos.judge import Asked, Judge, Verdict
from tests.chaos.listener import Listener, Told
from tests.chaos.simulator_process import SimulatorProcess

QUICK = "queue=0.01,median=0.05,sigma=0.1,price=0.01"
PROVIDERS = {
    "calm": "",
    "refusing": "refuse=1",
    "cutting": "cut=1",
    "silent": "cut=1,lost_webhook=1",
    "hanging": "hang=1",
    "mute": "lost_webhook=1",
    "broken": "error=1",
    "spare": "",  # last everywhere: for what nobody knows the outcome of
}
# Model → where it is offered, in order; and what is asked of it.
WAYS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "acme/plain": (("calm", "spare"), {}),
    "acme/refused": (("refusing", "calm", "spare"), {}),
    "acme/cut": (("cutting", "spare"), {}),
    "acme/silent": (("silent", "calm", "spare"), {}),
    "acme/hung": (("hanging", "spare"), {}),
    "acme/picture": (("calm", "spare"), {"scale": 2}),
    "acme/talk": (("calm", "spare"), {"prompt": "one two three"}),
    "acme/mute": (("mute", "spare"), {}),
    "acme/broken": (("broken",), {}),
}
CANCELED = "acme/hung"
_URI = {"type": "string", "format": "uri"}
PICTURE = {
    "Input": {
        "type": "object",
        "properties": {"image": _URI, "scale": {"type": "number"}, "n": {"type": "integer"}},
    },
    "Output": _URI,
}
TIMING = {
    "cancel_grace": 2.0,
    "first_poll": 0.3,
    "longest_poll": 1.0,
    "longest_poll_alone": 0.5,
    "store_pause": 0.1,
}
PATIENCE_SECONDS = 45.0  # what a dead one was delivering comes back after twenty

_HEAD = """
[keys.app]
hash = "{hash}"
[store]
url = "{store}"
[local]
enabled = false
[catalogue]
enabled = false
[webhooks]
allow = ["{place}"]
allow_http = true
timeout_seconds = 2
schedule_seconds = [0, 0.2, 0.5, 1, 2, 4]
[telemetry]
log_level = "warning"
[server]
drain_seconds = 5
# On a shared store a dead one's predictions are adopted when its lease is over.
lease_seconds = 3
[policies]
files = ["policy.toml"]
default = "chaos"
"""
POLICY = """
[[policies]]
name = "chaos"
rank = { by = "ordered", order = ["refusing", "cutting", "silent", "hanging", "mute", "broken", "calm", "spare"] }
limits = { attempts = 4, deadline_seconds = 15, pay_twice_up_to = "0.05" }
fallback = { provider = "" }
"""


def config(*, hash: str, store: str, place: str, urls: dict[str, str]) -> str:
    lines = [_HEAD.format(hash=hash, store=store, place=place)]
    lines += [
        f'[providers.{name}]\nadapter = "replicate"\nbase_url = "{urls[name]}"\n'
        'webhook_secret = "env:SIMULATOR_SECRET"\nhold_seconds = 0.8\n'
        for name in PROVIDERS
    ]
    for model, (offers, _) in WAYS.items():
        lines.append(f'[[models]]\nname = "{model}"')
        if model == "acme/picture":
            lines.append('schema = "picture.json"')
        lines += [
            f'[[models.offers]]\nprovider = "{name}"\nname = "{model}"\nprice = {{ per_prediction = "0.01" }}'
            for name in offers
        ]
    return "\n".join(lines)


class Run:
    """One gateway in a folder of its own, from its start to the verdict; killed at a point or not."""

    def __init__(
        self,
        folder: Path,
        simulator: SimulatorProcess,
        listener: Listener,
        *,
        store: str,
        crash_at: str = "",
        planted: str = "",
    ) -> None:
        self.crash_at = crash_at
        self.was_hit = False
        self._simulator = simulator
        self._listener = listener
        self._name = folder.name
        self._folder = folder
        key = new_key("chaos")
        self._headers = {"authorization": f"Bearer {key.text}"}
        self._environ = {"SIMULATOR_SECRET": simulator.secret}
        self.points = folder / "points"
        plan = {"TIMING": json.dumps(TIMING), "POINTS": str(self.points), "PLANTED": planted}
        text = config(hash=key.hash, store=store, place=listener.place, urls=simulator.urls)
        self._gateway = ChaosGateway(
            folder, text, key=key.text, environ=self._environ, plan=plan | {"CRASH_AT": crash_at}
        )
        (folder / "policy.toml").write_text(POLICY)
        (folder / "picture.json").write_text(json.dumps(PICTURE))
        self._ready = asyncio.Event()

    async def play(self) -> Verdict:
        before = {name: len(self._simulator.books(name)) for name in PROVIDERS}
        keeping = asyncio.create_task(self._keep_up())
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                asked = await asyncio.gather(*(self._ask(number, model) for number, model in enumerate(WAYS)))
            for one in asked:
                await self._hear(one.hook)
        except TimeoutError:
            asked = []
        finally:
            keeping.cancel()
            await asyncio.wait({keeping})
        await asyncio.to_thread(self._stop)
        if not asked:
            verdict = Verdict()
            verdict.break_("every prediction ends", f"not within {PATIENCE_SECONDS} s; {self._gateway.log[-2000:]}")
            return verdict
        async with opened(self._folder, self._environ) as store:
            kept = await read_all(store)
        told = {one.hook: found for one in asked if (found := self._listener.told(one.hook)) is not None}
        books = {name: self._simulator.books(name)[before[name] :] for name in PROVIDERS}
        return self._judge(asked, kept, told, books)

    def _judge(self, asked: list[Asked], kept: Any, told: dict[str, Told], books: Any) -> Verdict:
        judge = Judge(asked, kept, told, books, kills=[found.prediction.created_at for found in kept.values()])
        verdict = judge.judge()
        for one, (model, _) in zip(asked, WAYS.items(), strict=True):
            status = one.shown["status"]
            # A job that nobody knows of cannot be canceled; the spare one serves then.
            canceled = {"canceled", "succeeded"} if self.was_hit else {"canceled"}
            expected = {"acme/broken": {"failed"}, CANCELED: canceled}.get(model, {"succeeded"})
            if status not in expected:
                verdict.break_("every way ends as it must", f"{model} {one.id} {status}: {one.shown['error']}")
        return verdict

    # -- the gateway ------------------------------------------------------------------------------------------------

    async def _keep_up(self) -> None:
        """Start it, and again without its order to die, once it has died."""
        with contextlib.suppress(AssertionError):
            await asyncio.to_thread(self._gateway.start)
            self._ready.set()
        while True:
            if not self._gateway.is_running:
                self._ready.clear()
                self.was_hit = True
                self._gateway.plan.pop("CRASH_AT", None)
                await asyncio.to_thread(self._gateway.start)
                self._ready.set()
            await asyncio.sleep(0.01)

    def _stop(self) -> None:
        """By SIGTERM, which passes points as well."""
        for _ in range(2):
            if not self._gateway.is_running:
                self._gateway.plan.pop("CRASH_AT", None)
                self._gateway.start()
            try:
                self._gateway.stop()
            except AssertionError:
                if self.was_hit or self._gateway.await_end(seconds=1) != -9:
                    raise
                self.was_hit = True
            else:
                return

    # -- its callers ------------------------------------------------------------------------------------------------

    async def _ask(self, number: int, model: str) -> Asked:
        hook = f"/{self._name}/{number}"
        body: dict[str, Any] = {
            "version": model,
            "input": {"n": number, **WAYS[model][1]},
            "webhook": f"{self._listener.url}{hook}",
            "webhook_events_filter": ["start", "completed"],
        }
        if model == "acme/picture":
            body["input"]["image"] = (await self._upload())["urls"]["get"]
        headers = {"idempotency-key": f"{self._name}-{number}"}
        made = (await self._insist("POST", "/v1/predictions", json=body, headers=headers)).json()
        one = Asked(number=number, id=made["id"], hook=hook)
        while True:
            shown = (await self._insist("GET", f"/v1/predictions/{one.id}")).json()
            if shown["status"] not in ("starting", "processing"):
                return replace(one, shown=shown)
            if model == CANCELED and shown["status"] == "processing":
                await self._insist("POST", f"/v1/predictions/{one.id}/cancel")
            await asyncio.sleep(0.05)

    async def _upload(self) -> dict[str, Any]:
        file = io.BytesIO()
        Image.new("RGB", (2, 2)).save(file, "PNG")
        answer = await self._insist("POST", "/v1/files", files={"content": ("dot.png", file.getvalue(), "image/png")})
        return dict(answer.json())

    async def _insist(self, method: str, path: str, **request: Any) -> httpx.Response:
        while True:
            await self._ready.wait()
            try:
                async with httpx.AsyncClient(base_url=self._gateway.url, trust_env=False, timeout=5) as client:
                    request["headers"] = {**request.get("headers", {}), **self._headers}
                    answer = await client.request(method, path, **request)
            except httpx.TransportError:
                pass
            else:
                if answer.status_code < 500:
                    assert answer.status_code in (200, 201), answer.text
                    return answer
            await asyncio.sleep(0.02)

    async def _hear(self, hook: str) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self._listener.told(hook) is None:  # noqa: ASYNC110 - it hears in another thread
                await asyncio.sleep(0.02)
