"""`turnout deliveries`: asks a running gateway what became of webhooks, and has them sent again. Reads no store."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from rich.table import Table

from gateway.commands.check import new_table, printer
from gateway.contract.errors import ConfigurationError, TurnoutError, refuse
from gateway.contract.host import host_of
from gateway.contract.wording import printable

TIMEOUT_SECONDS = 60.0
URL_VARIABLES = ("TURNOUT_URL", "REPLICATE_BASE_URL")
KEY_VARIABLES = ("TURNOUT_KEY", "REPLICATE_API_TOKEN")


class GatewayRefused(TurnoutError):
    """The gateway answered, and said no."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="what waits, by receiver; or all webhooks of one prediction")
    only = listing.add_mutually_exclusive_group()
    only.add_argument("--prediction", metavar="ID", help="only this one's, with every try")
    only.add_argument("--host", metavar="HOST", type=_host, help="only this receiver; a port does not matter")
    show = verbs.add_parser("show", help="the webhooks of one prediction, with every try")
    show.add_argument("prediction", metavar="PREDICTION")
    again = verbs.add_parser("retry", help="send again what was not taken: same id, same body")
    what = again.add_mutually_exclusive_group(required=True)
    what.add_argument("--prediction", metavar="ID", help="the webhook of this prediction's end, delivered or not")
    what.add_argument("--host", metavar="HOST", type=_host, help="all that this receiver has not taken")
    again.add_argument("--reason", default="asked for on the command line", help="kept in the audit, with --host")
    for verb in (listing, show, again):
        verb.add_argument("--url", metavar="URL", help=f"the gateway's address (default: {' or '.join(URL_VARIABLES)})")
        verb.add_argument(
            "--key", metavar="REF", help=f"its key, as env:NAME or file:PATH (default: {' or '.join(KEY_VARIABLES)})"
        )
        verb.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run(options: argparse.Namespace) -> int:
    with Gateway(_address(options.url), _key(options.key)) as gateway:
        if options.verb == "retry":
            answer = _retry(gateway, options)
        elif options.verb == "show" or options.prediction:
            answer = gateway.get(f"/turnout/v1/predictions/{quote(options.prediction, safe='')}/deliveries")
        else:
            answer = _only(gateway.get("/ops/v1/deliveries"), options.host)
    if options.json:
        sys.stdout.write(json.dumps(answer, indent=2, ensure_ascii=False) + "\n")
    else:
        _print(answer)
    return 0


class Gateway:
    """A running gateway, as somebody with a key sees it."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._client = httpx.Client(
            headers={"authorization": f"Bearer {key}"}, timeout=TIMEOUT_SECONDS, trust_env=False, follow_redirects=False
        )

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str) -> dict[str, Any]:
        return self._ask("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._ask("POST", path, body)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        try:
            answer = self._client.request(method, self._url + path, json=body)
        except httpx.TimeoutException:
            raise GatewayRefused(f"{self._url} did not answer within {TIMEOUT_SECONDS:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL):
            raise GatewayRefused(
                f"nobody answers at {self._url}; start the gateway, or name its address with --url"
            ) from None
        try:
            said = answer.json()
        except ValueError:
            said = None
        if answer.status_code == 200 and isinstance(said, dict):
            return said
        raise GatewayRefused(self._why(answer, said))

    def _why(self, answer: httpx.Response, said: Any) -> str:
        detail = printable(str(said["detail"])) if isinstance(said, dict) and said.get("detail") else ""
        match answer.status_code:
            case 401:
                return f"{self._url} does not know this key; name another with --key"
            case 403:
                return f"the key may not do this: {detail or 'It lacks a scope'}; name one that has it with --key"
            case 404:
                return f"{self._url} has no such prediction, or not for this key; look at the id"
        return detail or f"{self._url} answered {answer.status_code}, and not as a Turnout does; look at --url"


def _retry(gateway: Gateway, options: argparse.Namespace) -> dict[str, Any]:
    if options.prediction:
        return gateway.post(f"/turnout/v1/predictions/{quote(options.prediction, safe='')}/deliveries/retry", {})
    counts = {"looked_at": 0, "found": 0, "retried": 0}
    position: str | None = None
    while True:
        body = {"host": options.host, "reason": options.reason, "position": position}
        page = gateway.post("/ops/v1/deliveries/retry", body)
        counts = {name: count + page[name] for name, count in counts.items()}
        position = page["next"]
        if position is None:
            break
    if not counts["found"]:
        # A name that was mistyped must not look like a receiver to which nothing is owed.
        raise GatewayRefused(
            f"none of the {counts['looked_at']} predictions that have ended has a webhook to "
            f"{printable(options.host)}; look at its name"
        )
    return {"host": options.host, **counts}


def _only(answer: dict[str, Any], host: str | None) -> dict[str, Any]:
    if host is None:
        return answer
    return {name: [line for line in lines if line["host"] == host] for name, lines in answer.items()}


def _host(given: str) -> str:
    """Of what stands in a webhook's URL as well: receivers are told apart by their names alone."""
    host = host_of(given if "//" in given else f"//{given}")
    if not host:
        raise argparse.ArgumentTypeError(f"{printable(given)!r} is no host")
    return host


def _address(given: str | None) -> str:
    url = given or next((os.environ[name] for name in URL_VARIABLES if os.environ.get(name)), "http://127.0.0.1:8000")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise refuse(f"{printable(url)!r} is no address", place="--url", remedy="write http://HOST:PORT")
    return url.rstrip("/").removesuffix("/v1")


def _key(reference: str | None) -> str:
    if reference is None:
        found = next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), "")
        if not found:
            raise ConfigurationError(f"--key: no key is given; set {KEY_VARIABLES[0]}, or write --key env:NAME")
        return found.strip()
    kind, _, rest = reference.partition(":")
    if kind == "env" and rest:
        if not os.environ.get(rest):
            raise refuse(f"the variable {printable(rest)} is not set", place="--key", remedy="set it, or name another")
        return os.environ[rest].strip()
    if kind == "file" and rest:
        try:
            return Path(rest).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise refuse(
                f"{printable(rest)} cannot be read", place="--key", remedy="name a file that holds it"
            ) from None
    # What was written may be the key itself: it is not repeated.
    raise refuse("a key is given by reference only", place="--key", remedy="write env:NAME or file:PATH")


def _print(answer: dict[str, Any]) -> None:
    console = printer()
    if "retried" in answer:
        console.print(
            f"{answer['retried']} webhooks to {printable(answer['host'])} are sent again, "
            f"of {answer['found']} predictions that have ended",
            markup=False,
        )
    elif "deliveries" in answer:
        console.print(_deliveries(answer["deliveries"]))
    elif not answer["waiting"] and not answer["receivers"]:
        console.print("Nothing waits, and no receiver fails.")
    else:
        console.print(_waiting(answer["waiting"]))
        if answer["receivers"]:
            console.print(_receivers(answer["receivers"]))


def _deliveries(rows: list[dict[str, Any]]) -> Table:
    table = new_table("Event", "Id", "Host", "At", "What became of it")
    for row in rows:
        due = f", again at {row['due_at']}" if row["due_at"] else ""
        table.add_row(
            row["event"], row["id"], printable(row["host"]), row["created_at"], (row["ended"] or "waits") + due
        )
        for one in row["history"]:
            table.add_row("", "", "", one["at"], printable(one["error"] or f"HTTP {one['status']}"), style="dim")
    return table


def _waiting(rows: list[dict[str, Any]]) -> Table:
    table = new_table("Host", "Waiting", "Failing", "Oldest", "Last error")
    for row in rows:
        error = printable(row["last_error"] or "")
        table.add_row(printable(row["host"]), str(row["waiting"]), str(row["failing"]), row["oldest_at"], error)
    return table


def _receivers(rows: list[dict[str, Any]]) -> Table:
    table = new_table("Receiver", "Key", "Failing since", "State")
    for row in rows:
        state = "disabled" if row["is_disabled"] else "not tried for a while" if row["is_shut"] else "failing"
        state = "says 410" if row["is_gone"] else state
        table.add_row(printable(row["host"]), printable(row["owner"]), row["failing_since"] or "", state)
    return table
