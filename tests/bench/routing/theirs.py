"""
LiteLLM's Router from PyPI beside ours, where it can be given the same task: its latency strategy in virtual time, and
its whole Router over real sockets with a dead host. Needs `pip install litellm==1.106.2`; else nothing is compared.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import json
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from gateway.rehearsal.play import Ended
from tests.bench.routing.strategy import Simple
from tests.bench.routing.truth import Weather

GROUP = "model"
DEAD_HOST_COUNT = 120


def is_here() -> bool:
    return importlib.util.find_spec("litellm") is not None


def version() -> str:
    return importlib.metadata.version("litellm")


class LatencyBased(Simple):
    """
    `latency-based-routing`: its own handler, told of every end as the Router tells it.

    A failure that takes long is a timeout to it. What its Router does beside (cooldowns, retries) is not in it.
    """

    TIMEOUT_SECONDS = 10.0

    def __init__(self, weather: Weather, *, by: str = "latency", seed: int = 0) -> None:
        super().__init__(weather, by=by, seed=seed)
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # it would be fetched at the import
        import litellm  # type: ignore[import-not-found]
        from litellm.caching.caching import DualCache
        from litellm.router_strategy.lowest_latency import LowestLatencyLoggingHandler

        self._timeout = litellm.Timeout
        self._handler: Any = LowestLatencyLoggingHandler(router_cache=DualCache(), routing_args={})
        self._loop = asyncio.new_event_loop()

    def pick(self, left: Sequence[str], now: float) -> str:
        deployments = [
            {"model_name": GROUP, "litellm_params": {"model": "openai/x"}, "model_info": {"id": offer}}
            for offer in left
        ]
        found = self._handler.get_available_deployments(GROUP, deployments, request_kwargs={})
        return str(found["model_info"]["id"]) if found is not None else self.drawn.choice(left)

    def ended(self, ended: Ended) -> None:
        super().ended(ended)
        told: dict[str, Any] = {
            "call_type": "completion",
            "litellm_params": {"metadata": {"model_group": GROUP}, "model_info": {"id": ended.offer}},
        }
        if ended.is_good:
            self._handler.log_success_event(told, None, ended.begun, ended.now)
        elif ended.seconds >= self.TIMEOUT_SECONDS:
            told["exception"] = self._timeout("timed out", model="x", llm_provider="openai")
            failed = self._handler.async_log_failure_event(told, None, ended.begun, ended.now)
            self._loop.run_until_complete(failed)


def dead_host() -> tuple[int, int]:
    """How many of DEAD_HOST_COUNT fail with a dead host beside a healthy one, over real sockets."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    litellm.suppress_debug_info = True
    with _healthy() as well, _dead() as dead:
        router = litellm.Router(
            model_list=[
                {
                    "model_name": GROUP,
                    "litellm_params": {"model": "openai/x", "api_base": base, "api_key": "none", "max_retries": 0},
                }
                for base in (well, dead)
            ]
        )
        return asyncio.run(_asked(router)), DEAD_HOST_COUNT


async def _asked(router: Any) -> int:
    failed = 0
    for _ in range(DEAD_HOST_COUNT):
        try:
            await router.acompletion(model=GROUP, messages=[{"role": "user", "content": "hello"}])
        except Exception:
            failed += 1
    return failed


class _Answer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", "0")))
        message = {"role": "assistant", "content": "hello"}
        body = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "x",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
        sent = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@contextmanager
def _healthy() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def _dead() -> Iterator[str]:
    """A port that is taken and not listened at: every connection is refused."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
