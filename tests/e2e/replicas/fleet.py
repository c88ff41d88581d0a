"""Several gateways on one Redis, in processes of their own, with one upstream behind them. Judges nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from gateway.contract.key import new_key
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.models import ENVIRON, UPSTREAM, write_schemas
from tests.e2e.receiver import Receiver
from tests.e2e.upstream import Upstream
from tests.redis.server import RedisServer
from tests.waiting import until

START_SECONDS = 40.0  # several at once, on a machine that has other work

CONFIG = """
[server]
public_url = "{public_url}"
lease_seconds = {lease}
{server}

[store]
url = "{store}"

[artifacts]
path = "{artifacts}"

[keys.app]
hash = "{hash}"
scopes = ["predictions", "models", "files", "admin"]

[webhooks]
allow = ["{receiver}"]
allow_http = true

[local]
enabled = false

[telemetry]
log_format = "json"
"""


class Fleet:
    """
    `with Fleet(folder, 3) as fleet:` its gateways are ready inside: `fleet.gateways[0]` …

    The last is everybody's public address: whatever a reply links to, and every callback, goes there.
    """

    def __init__(
        self, folder: Path, count: int, *, lease: float = 30.0, server: str = "", upstream: Upstream | None = None
    ) -> None:
        self.folder = folder
        self.lease = lease
        self.redis = RedisServer(folder / "redis")
        self.upstream = upstream or Upstream()
        self.receiver = Receiver()
        self.key = new_key()
        self._server = server
        self.gateways = [self._gateway(number) for number in range(count)]

    def _gateway(self, number: int) -> GatewayProcess:
        return GatewayProcess(self.folder / f"gateway-{number}", key=self.key.text, environ=ENVIRON)

    def configure(self, gateway: GatewayProcess, *, public_url: str) -> None:
        write_schemas(gateway.folder, "job", "grow")
        gateway.configure(
            (CONFIG + UPSTREAM).format(
                public_url=public_url,
                lease=self.lease,
                server=self._server,
                store=self.redis.url,
                artifacts=self.folder / "artifacts",
                hash=self.key.hash,
                receiver=self.receiver.place,
                upstream=self.upstream.url,
            )
        )

    def __enter__(self) -> Fleet:
        self.redis.start()
        self.upstream.__enter__()
        self.receiver.__enter__()
        try:
            last = self.gateways[-1]
            self.configure(last, public_url="")
            last.start(seconds=START_SECONDS)
            for gateway in self.gateways[:-1]:
                self.configure(gateway, public_url=last.url)
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda gateway: gateway.start(seconds=START_SECONDS), self.gateways[:-1]))
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                running = [gateway for gateway in self.gateways if gateway.is_running]
                for gateway in running:  # all at once, and then they are awaited
                    gateway.ask_to_stop()
                for gateway in running:
                    gateway.wait()
        finally:
            self._kill()

    def _kill(self) -> None:
        for gateway in self.gateways:
            gateway.kill()
        self.receiver.__exit__(None, None, None)
        self.upstream.__exit__(None, None, None)
        self.redis.kill()

    # -- a caller --------------------------------------------------------------------------------------------------

    def post(self, gateway: GatewayProcess, text: str, *, do: str = "hold", model: str = "job", **headers: str) -> Any:
        with gateway.client(key=self.key.text) as client:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            body = {"input": {"do": do, "text": text}}
            answer = client.post(f"/v1/models/acme/{model}/predictions", json=body, headers=sent)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def get(self, gateway: GatewayProcess, id: str) -> Any:
        with gateway.client(key=self.key.text) as client:
            return client.get(f"/v1/predictions/{id}").raise_for_status().json()

    def ended(self, gateway: GatewayProcess, id: str, *, seconds: float = 20.0) -> Any:
        return self.until(
            lambda: found if (found := self.get(gateway, id)).get("completed_at") else None, seconds=seconds
        )

    def until(self, holds: Callable[[], Any], *, seconds: float = 20.0) -> Any:
        """A gateway that does not answer now may do so soon."""

        def found() -> Any:
            with contextlib.suppress(httpx.HTTPError):
                return holds()

        return until(found, seconds=seconds, or_else=lambda: "\n".join(one.log[-1500:] for one in self.gateways))
