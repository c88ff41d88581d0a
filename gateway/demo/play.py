"""The course of the demonstration: sixty predictions, three policies, four deaths. Shows nothing itself: see `show`."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from gateway.demo.picture import data_uri
from gateway.demo.show import Board, tell
from gateway.demo.stage import MODEL, DemoFailed, Stage

POLICIES = ("by-cost", "by-latency", "by-health")
EACH = 20
AT_ONCE = 5
CHEAPEST = "thrifty"
_TERMINAL = ("succeeded", "failed", "canceled", "aborted")
_MOST_SECONDS = 50.0


def run(image: Path | None, *, keep: bool = False) -> int:
    """`turnout demo`: 0 if every prediction ended, and the last one in our own backend's hands."""
    try:
        return uvloop.run(_run(image, keep=keep))
    except asyncio.CancelledError:
        return 1  # told to end before the end


async def _run(image: Path | None, *, keep: bool) -> int:
    _end_in_order()
    picture, what = data_uri(image)
    folder = Path(tempfile.mkdtemp(prefix="turnout-demo-"))
    stage = Stage(folder)
    board = Board(what)
    try:
        with board:
            board.say("starting the gateway, the local backend and three simulated providers")
            await stage.raise_curtain()
            play = Play(stage, board, picture)
            await asyncio.wait_for(play.perform(), _MOST_SECONDS)
        shown = await play.example()
        path = await play.fetch_picture(shown, Path.cwd())
        tell(shown, verified=stage.receiver.verified.get(shown["id"], []), picture=path, board=board)
        _conclude(board, stage)
        if keep:
            await _stay(stage, picture, folder)
    except TimeoutError:
        raise DemoFailed(f"{board.ended} of {board.posted} predictions ended in {_MOST_SECONDS:.0f} s") from None
    finally:
        await stage.lower_curtain()
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if board.ended == board.posted and shown["status"] == "succeeded" else 1


def _end_in_order() -> None:
    """However we are told to go, by `kill` or a terminal that is closed: nobody is left on the stage."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if task is not None and signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            loop.add_signal_handler(number, task.cancel)


class Play:
    def __init__(self, stage: Stage, board: Board, picture: str) -> None:
        self._stage = stage
        self._board = board
        self._picture = picture
        self._ended: list[dict[str, Any]] = []
        self._wanted = asyncio.Semaphore(AT_ONCE)

    async def perform(self) -> None:
        """Post everything, kill the cheapest in mid-run, then all; returns when every prediction has ended."""
        watching = asyncio.create_task(self._watch())
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(EACH * len(POLICIES)):
                    await self._wanted.acquire()
                    await self._direct(number)
                    group.create_task(self._predict(POLICIES[number // EACH]))
            await self._board_breakers()
            await self._await_webhooks()
        finally:
            watching.cancel()

    async def _direct(self, number: int) -> None:
        """What happens before prediction `number` is posted."""
        if number % EACH == 0:
            self._board.act = POLICIES[number // EACH]
            self._board.say(f"policy {POLICIES[number // EACH]}")
        if number == EACH - EACH // 4:
            await self._kill(CHEAPEST)
        if number == len(POLICIES) * EACH - EACH // 2:
            for name in ("swift", "steady"):
                await self._kill(name)

    async def _kill(self, name: str) -> None:
        await self._stage.kill(name)
        self._board.kill(name)

    async def _predict(self, policy: str) -> None:
        begun = time.monotonic()
        try:
            self._board.posted += 1
            answer = await self._stage.client.post(
                f"{self._stage.url}/v1/predictions",
                json={
                    "version": MODEL,
                    "input": {"image": self._picture, "scale": 2},
                    "webhook": f"http://127.0.0.1:{self._stage.receiver.port}/hook",
                    "webhook_events_filter": ["completed"],
                },
                headers={"turnout-policy": policy},
            )
            if answer.status_code != 201:
                raise DemoFailed(f"a prediction was refused: {answer.text[:300]}")
            prediction = answer.json()
            while prediction["status"] not in _TERMINAL:
                await asyncio.sleep(0.1)
                prediction = (await self._stage.client.get(prediction["urls"]["get"])).json()
        finally:
            self._wanted.release()
        self._ended.append(prediction)
        self._board.take(prediction, time.monotonic() - begun)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            await self._board_breakers()

    async def _board_breakers(self) -> None:
        self._board.breakers = await self._stage.breakers()

    async def _await_webhooks(self) -> None:
        """Deliveries follow the end by a moment."""
        for _ in range(50):
            if len(self._stage.receiver.verified) == self._board.posted:
                return
            await asyncio.sleep(0.1)

    async def example(self) -> dict[str, Any]:
        """The most telling prediction: one that our own backend served after others had failed it."""

        def telling(prediction: dict[str, Any]) -> tuple[bool, int]:
            routing = prediction.get("routing", {})
            return routing.get("provider") == "local", len(routing.get("attempts", ()))

        best = max(self._ended, key=telling)
        found: dict[str, Any] = (await self._stage.client.get(best["urls"]["get"])).json()
        return found

    async def fetch_picture(self, prediction: dict[str, Any], folder: Path) -> Path | None:
        """The output, downloaded as a caller would: by its link, without a key."""
        output = prediction.get("output")
        link = output[0] if isinstance(output, list) and output else output
        if not isinstance(link, str):
            return None
        content = (await self._stage.client.get(link, headers={"authorization": ""})).raise_for_status().content
        path = folder / "turnout-demo.png"
        path.write_bytes(content)
        return path


def _conclude(board: Board, stage: Stage) -> None:
    receiver = stage.receiver
    board.print(
        f"\n[bold]Shown:[/] {board.ended} of {board.posted} predictions ended ({board.succeeded} succeeded), routed by "
        f"cost, by latency and by health; {board.rescued} of them were rescued by failover while every provider died, "
        f"{board.served_locally} by the in-house backend; {len(receiver.verified)} webhooks arrived signed."
    )


async def _stay(stage: Stage, picture: str, folder: Path) -> None:
    """`--keep`: everything goes on until it is interrupted; the providers are dead, the local backend serves."""
    body = folder / "body.json"
    body.write_text(json.dumps({"version": MODEL, "input": {"scale": 4, "image": picture}}))
    sys.stdout.write(
        f"\nStill running; Ctrl-C ends it. The dashboard is at {stage.url}/dashboard, its key\n{stage.key}\n\nTry:\n"
        f"curl -s {stage.url}/v1/predictions -H 'Authorization: Bearer {stage.key}' -H 'Prefer: wait' "
        f"-H 'Content-Type: application/json' -d @{body}\n"
    )
    sys.stdout.flush()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return
