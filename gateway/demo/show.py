"""What is seen of the demonstration: the live table, a line for each failover, and one prediction told to its end."""

from __future__ import annotations

import statistics
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gateway.contract.money import format_dollars, parse_dollars
from gateway.demo.stage import PROVIDERS

_LINES = 9


class Row:
    """What the predictions have told of one provider."""

    def __init__(self) -> None:
        self.served = 0
        self.tried = 0
        self.good = 0
        self.seconds: list[float] = []
        self.nanos = 0


class Board:
    """The live picture. On a terminal it is redrawn in place; elsewhere each line is printed once."""

    def __init__(self, what: str) -> None:
        self.console = Console()
        self.act = ""
        self.posted = self.ended = self.succeeded = self.rescued = self.served_locally = 0
        self.breakers: dict[str, str] = {}
        self._what = what
        self._rows = {name: Row() for name in (*(provider.name for provider in PROVIDERS), "local")}
        self._dead: set[str] = set()
        self._said: list[Text] = []
        self._live = Live(get_renderable=self._render, console=self.console, refresh_per_second=8, transient=False)

    def __enter__(self) -> Board:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.console.is_terminal:
            self._live.stop()
        elif error is None:
            self.console.print(self._title(), style="bold")
            self.console.print(self._table())

    def print(self, markup: str) -> None:
        self.console.print(markup)

    def say(self, text: str, style: str = "dim") -> None:
        line = Text(f"  {text}", style=style, overflow="ellipsis", no_wrap=True)
        if self.console.is_terminal:
            self._said = [*self._said, line][-_LINES:]
        else:
            self.console.print(line)

    def kill(self, name: str) -> None:
        self._dead.add(name)
        self.say(f"{name} is killed", "bold red")

    def take(self, prediction: dict[str, Any], seconds: float) -> None:
        """A prediction has ended, `seconds` after it was posted."""
        routing = prediction.get("routing", {})
        attempts = routing.get("attempts", [])
        self.ended += 1
        good = prediction["status"] == "succeeded"
        self.succeeded += good
        self.rescued += good and len(attempts) > 1
        self.served_locally += good and routing.get("provider") == "local"
        for attempt in attempts:
            row = self._rows[attempt["provider"]]
            row.tried += 1
            if attempt["status"] == "succeeded":
                row.good += 1
                row.served += 1
                row.seconds.append(attempt.get("seconds", seconds))
            amount = attempt.get("cost", {}).get("amount")
            row.nanos += parse_dollars(amount) if amount else 0
        for failed, then in pairwise(attempts):
            why = failed.get("code") or failed["status"]
            self.say(f"{prediction['id'][:8]}: {failed['provider']} {why} → {then['provider']}", "yellow")

    def _render(self) -> RenderableType:
        return Group(Text(self._title(), style="bold"), self._table(), *self._said)

    def _title(self) -> str:
        return f"{self._what} · policy {self.act or '-'} · {self.ended} of {self.posted} ended"

    def _table(self) -> Table:
        table = Table()
        table.add_column("provider")
        table.add_column("state")
        for name in ("share", "p50", "success", "spend"):
            table.add_column(name, justify="right")
        total = sum(row.served for row in self._rows.values()) or 1
        for name, row in self._rows.items():
            table.add_row(
                name,
                self._state(name),
                f"{row.served / total:.0%}",
                f"{statistics.median(row.seconds):.2f} s" if row.seconds else "-",
                f"{row.good / row.tried:.0%}" if row.tried else "-",
                format_dollars(row.nanos),
            )
        return table

    def _state(self, name: str) -> Text:
        breaker = self.breakers.get(name, "closed")
        word = "up" if breaker == "closed" else f"breaker {breaker}"
        if name in self._dead:
            return Text(f"dead, {word}" if breaker != "closed" else "dead", style="red")
        return Text(word, style="green" if breaker == "closed" else "yellow")


def tell(prediction: dict[str, Any], *, verified: list[str], picture: Path | None, board: Board) -> None:
    """One prediction from its plan to its picture."""
    console, routing = board.console, prediction.get("routing", {})
    console.print(f"\n[bold]Prediction {prediction['id']}[/], policy {routing.get('policy')}: {prediction['status']}")
    plan = Table(title="the plan: every candidate, and why", title_justify="left")
    for name in ("candidate", "kept", "reason"):
        plan.add_column(name)
    for reason in routing.get("reasons", []):
        plan.add_row(reason["provider"], "yes" if reason["kept"] else "no", f"{reason['code']}: {reason['text']}")
    console.print(plan)
    attempts = Table(title="the attempts", title_justify="left")
    for name in ("#", "provider", "why", "outcome", "seconds", "cost"):
        attempts.add_column(name)
    for attempt in routing.get("attempts", []):
        outcome = attempt["status"] + (f" ({attempt['code']}: {attempt['message']})" if "code" in attempt else "")
        cost = attempt["cost"]
        attempts.add_row(
            str(attempt["number"]),
            attempt["provider"],
            attempt.get("reason", ""),
            outcome,
            f"{attempt.get('seconds', 0):.2f}",
            f"{_dollars(cost)} ({cost['basis']})",
        )
    console.print(attempts)
    console.print(f"cost     {_dollars(routing.get('cost', {'amount': None}))}")
    signed = f"verified, id {verified[0]}" if verified else "[red]none arrived[/]"
    console.print(f"webhook  {signed}")
    console.print(f"picture  {picture or '[red]none[/]'}")


def _dollars(cost: dict[str, Any]) -> str:
    amount = cost.get("amount")
    return format_dollars(parse_dollars(amount) if amount is not None else None)
