"""In which order policies are asked, and what in them is allowed and seldom meant. Refuses nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from gateway.commands.survey import Survey
from gateway.config.load import Loaded
from gateway.config.meaning import LOCAL
from gateway.contract.toml import Path
from gateway.contract.wording import nearest, printable
from policies.document import Bound, Hours, Match, Policy
from policies.match import bounds, shadowed
from policies.reading import presets


class Remark(msgspec.Struct, frozen=True):
    """`path` leads to what it is about, within the policy of that name."""

    policy: str
    path: Path
    text: str


def own(policies: Sequence[Policy]) -> tuple[Policy, ...]:
    """Those that ops wrote, in their order. The presets match nothing by themselves: they are used where named."""
    always = {policy.name for policy in presets()}
    return tuple(policy for policy in policies if policy.name not in always)


def offers_had(loaded: Loaded, found: Survey) -> dict[str, int]:
    """What policies may name: each provider, and of how many offers there most are in one model."""
    had = dict.fromkeys((*loaded.config.providers, LOCAL), 0)
    for model in found.catalog.models():
        for provider in {offer.provider for offer in model.offers}:
            count = sum(offer.provider == provider for offer in model.offers)
            had[provider] = max(had.get(provider, 0), count)
    return had


def order_lines(policies: Sequence[Policy], *, default: str) -> list[str]:
    """How a prediction that names no policy comes to one; `default` may be empty. Nothing where there is no choice."""
    asked = own(policies)
    if not asked:
        return []
    width = max(len(policy.name) for policy in asked)
    lines = ["Where nothing names a policy, the first of these that matches holds:"]
    lines += [f"  {n}. {printable(p.name):{width}}  {match_text(p.match)}" for n, p in enumerate(asked, 1)]
    return [*lines, f"  else {default}"] if default else lines


def remarks(policies: Sequence[Policy], had: Mapping[str, int] | None) -> Iterator[Remark]:
    """`had` as by `offers_had`; None where no configuration is at hand."""
    asked = own(policies)
    hiding = shadowed(asked)
    if hiding is not None:
        first, hidden = hiding
        names = [printable(policy.name) for policy in hidden]
        after = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
        text = f"matches everything: {after} after it {'is' if len(names) == 1 else 'are'} never asked"
        yield Remark(first.name, ("match",), f"policy {printable(first.name)} {text}")
    if had is not None:
        for policy in asked:
            yield from _strangers(policy, had)


def _strangers(policy: Policy, had: Mapping[str, int]) -> Iterator[Remark]:
    """No faults: a policy may outlive a provider."""
    seen = set()
    for path, name in _named(policy):
        provider, _, number = name.partition("#")
        if name in seen or (provider in had and int(number or 0) <= had[provider]):
            continue
        seen.add(name)
        says = f'policy {printable(policy.name)} names "{printable(name)}"'
        if provider in had:
            yield Remark(policy.name, path, f"{says}, and no model has so many offers of {provider}")
        else:
            near = nearest(provider, had)
            question = f'; did you mean "{near}"?' if near else ""
            yield Remark(policy.name, path, f"{says}, which is not configured{question}")


def _named(policy: Policy) -> Iterator[tuple[Path, str]]:
    for part, key, names in (
        ("keep", "providers", policy.keep.providers),
        ("keep", "without", policy.keep.without),
        ("rank", "order", policy.rank.order),
    ):
        yield from (((part, key, index), name) for index, name in enumerate(names))
    yield from ((("rank", "shares", name), name) for name in policy.rank.shares)
    if policy.fallback.provider:
        yield ("fallback", "provider"), policy.fallback.provider


def match_text(match: Match) -> str:
    """`models acme/*; label tier=free; images from 2; mon, tue 22:00–06:00 UTC`."""
    words = [f"models {', '.join(match.models)}"] if match.models else []
    words += [f"keys {', '.join(match.keys)}"] if match.keys else []
    words += [f"label {name}={value}" for name, value in match.labels.items()]
    words += [f"{fact.replace('_', ' ')} {_bound_text(bound)}" for fact, bound in bounds(match.inputs)]
    if match.hours:
        words.append(" or ".join(_hours_text(hours) for hours in match.hours))
    return "; ".join(map(printable, words)) or "everything"


def _bound_text(bound: Bound) -> str:
    words = [] if bound.at_least is msgspec.UNSET else [f"from {bound.at_least:g}"]
    words += [] if bound.below is msgspec.UNSET else [f"below {bound.below:g}"]
    return " ".join(words)


def _hours_text(hours: Hours) -> str:
    days = ", ".join(hours.days) or "daily"
    return f"{days} {hours.since}–{hours.until} {hours.zone}"
