"""Collects what is wrong with values that mean something: names, prices, versions, addresses. Reads no file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from gateway.config.model import OutputSection, PriceTier
from gateway.config.secret import REMEDY
from gateway.config.shape import Problem, did_you_mean
from gateway.contract.money import PRICED_UNITS, parse_dollars, read_when
from gateway.contract.toml import Path as Place
from gateway.contract.wording import printable, read_date

_PRICE_REMEDY = 'write dollars per unit in quotes, as { per_second = "0.000725" }'
_WHEN_REMEDY = "write a value, a list of values, or bounds, as { image_megapixels = { at_least = 1.5 } }"
_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}/[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_HEX = re.compile(r"[0-9a-f]{64}")
_STEPS = r"(?:\[(?:\*|\d{1,4})\])"
_OUTPUT_PATH = re.compile(rf"(?:{_STEPS}+(?:\.(?=.)|$))?(?:[^.\[\]]+{_STEPS}*(?:\.(?=.)|$))*")


def remedy_of(problem: Problem) -> str:
    """What to do about it; the type of a price says too little."""
    return _PRICE_REMEDY if problem.path[-1:] == ("price",) else problem.remedy


class Complaints:
    """What is wrong so far is in `problems`."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def _want_slug(self, place: Place, slug: str, others: Mapping[str, int]) -> None:
        """`others`: the models that are there already, by lower case, with their index."""
        if _SLUG.fullmatch(slug) is None:
            problem = f'"{printable(slug)}" is no name of a model'
            self._note(place, problem, "write owner/name, each of letters, digits, and . _ -")
        elif slug.lower() in others:
            problem = f'"{slug}" is there already, in models[{others[slug.lower()]}]'
            self._note(place, problem, "put all offers of a model under one [[models]]")

    def _want_price(self, place: Place, price: Mapping[str, str]) -> None:
        for unit, amount in price.items():
            if unit not in PRICED_UNITS:
                problem = f'"{printable(unit)}" is no unit of a price'
                self._note((*place, unit), problem, did_you_mean(unit, tuple(PRICED_UNITS)))
                continue
            try:
                parse_dollars(amount)
            except ValueError as error:
                self._note((*place, unit), printable(str(error)), f'write dollars per unit, as {unit} = "0.000725"')

    def _want_tiers(self, place: Place, tiers: Sequence[PriceTier]) -> None:
        for index, tier in enumerate(tiers):
            for key in ("when", "price"):
                if not getattr(tier, key):
                    self._note((*place, index, key), "it is empty", "write when it holds, and what it costs then")
            for fact, said in dict(tier.when).items():
                try:
                    read_when({fact: said})
                except ValueError as error:
                    problem, _, remedy = str(error).partition("; ")
                    self._note((*place, index, "when", fact), printable(problem), remedy or _WHEN_REMEDY)
            self._want_price((*place, index, "price"), dict(tier.price))

    def _want_date(self, place: Place, date: str) -> None:
        try:
            if date:
                read_date(date)
        except ValueError as error:
            self._note(place, printable(str(error)), 'write it as "2026-08-21", or as much of it as is known')

    def _want_output(self, place: Place, output: OutputSection) -> None:
        if _OUTPUT_PATH.fullmatch(output.path) is None:
            remedy = 'write keys and list steps, as "images[*].url", "images[0].url" or "video.url"'
            self._note((*place, "path"), "this is no path into an output", remedy)
        self._want_one_of((*place, "form"), output.form, ("", "list", "one", "text"))

    def _want_version(self, place: Place, version: str) -> None:
        if version and _HEX.fullmatch(version) is None:
            self._note(place, "this is no version (64 hex digits)", "leave it out: it is derived from name and schema")

    def _want_name(self, place: Place, name: str) -> None:
        if _NAME.fullmatch(name) is None:
            self._note(place, f'"{printable(name)}" is no name', "use letters, digits, _ and -, at most 64")

    def _want_one_of(self, place: Place, value: str, known: tuple[str, ...]) -> None:
        if value not in known:
            self._note(place, f'"{printable(value)}" is not known', did_you_mean(value, known))

    def _want_url(self, place: Place, url: str) -> None:
        if not url:
            return
        try:
            parts = urlsplit(url)
            fits = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            fits = False
        # Not quoted: people do paste URLs with a password in them.
        if not fits or parts.query or parts.fragment:
            self._note(place, "this is no address of a server", 'write it as "https://host" or "https://host/path"')
        elif parts.username or parts.password:
            self._note(place, "there is a user or password in this address", REMEDY)

    def _note(self, path: Place, problem: str, remedy: str) -> None:
        self.problems.append(Problem(path=path, problem=problem, remedy=remedy))
