"""What the budgets of a policy come to for one prediction. Pure; what is spent of them it does not know."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from datetime import datetime

from gateway.contract.budget import MOST_LIMIT_NANOS, MOST_NANOS, Hold, Rule, hold_of
from gateway.contract.money import format_dollars, parse_dollars
from gateway.contract.toml import Path
from gateway.contract.wording import printable
from policies.document import Budget, Policy

_LABEL = "label:"


def holds(policy: Policy, *, key: str, labels: Mapping[str, str], now: datetime) -> tuple[Hold, ...]:
    """One for each budget, in their order, of the windows that run at `now`."""
    return tuple(hold_of(rule, key=key, labels=labels, now=now) for rule in rules(policy))


def rules(policy: Policy) -> tuple[Rule, ...]:
    return tuple(_rule(policy.name, budget) for budget in policy.budgets)


@functools.lru_cache(maxsize=1024)
def _rule(policy: str, budget: Budget) -> Rule:
    return Rule(
        policy=policy,
        budget=budget.name or policy,
        limit_nanos=parse_dollars(budget.limit),
        per=budget.per,
        by=budget.by,
        when_spent=budget.when_spent,
        unknown_nanos=None if budget.unknown_price == "drop" else parse_dollars(budget.unknown_price),
    )


def mistakes(policy: Policy) -> Iterator[tuple[Path, str, str]]:
    """Where, what is wrong, what to do."""
    seen: dict[tuple[str, str, str], int] = {}
    for index, budget in enumerate(policy.budgets):
        path: Path = ("budgets", index)
        for key, text, most in (
            ("limit", budget.limit, MOST_LIMIT_NANOS),
            ("unknown_price", budget.unknown_price, MOST_NANOS),
        ):
            if key == "unknown_price" and text == "drop":
                continue
            other = ', or "drop"' if key == "unknown_price" else ""
            remedy = f'write dollars in quotes, as {key} = "0.05"{other}'
            try:
                nanos = parse_dollars(text)
            except ValueError as error:
                yield (*path, key), printable(str(error)), remedy
            else:
                if nanos > most:
                    yield (*path, key), f"{printable(text)} is too much", f"write at most {format_dollars(most)}"
        if budget.by not in ("policy", "key") and not budget.by.removeprefix(_LABEL).strip():
            yield (*path, "by"), "the label has no name", 'write by = "label:NAME"'
        elif budget.by not in ("policy", "key") and not budget.by.startswith(_LABEL):
            problem = f'"{printable(budget.by)}" is nothing to count by'
            yield (*path, "by"), problem, 'write "policy", "key" or "label:NAME"'
        same = (budget.name or policy.name, budget.by, budget.per)
        if same in seen:
            problem = f"it counts what budgets[{seen[same]}] counts already"
            yield path, problem, "leave one of them out, or give it another name, per or by"
        seen.setdefault(same, index)
