"""Budgets as ops see them: what the policies say, and what has come of it in the windows that run. Reserves nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from gateway.contract.budget import Rule, Spending, hold_of, read_counter
from gateway.dashboard.shape import BudgetLine, BudgetRule, Budgets


def budgets_of(rules: Sequence[Rule], spending: Iterable[Spending], *, now: datetime, is_all: bool) -> Budgets:
    """One for all of a policy has a line from the start, any other from its first reservation."""
    rows = {row.counter: row for row in spending}
    for rule in rules:
        if rule.by == "policy":
            hold = hold_of(rule, key="", labels={}, now=now)
            rows.setdefault(hold.counter, _nothing(hold.counter, hold.ends_at, hold.limit_nanos))
    return Budgets(
        rules=tuple(
            BudgetRule(
                policy=rule.policy,
                budget=rule.budget,
                limit_nanos=rule.limit_nanos,
                per=rule.per,
                by=rule.by,
                when_spent=rule.when_spent,
                unknown_nanos=rule.unknown_nanos,
            )
            for rule in rules
        ),
        lines=tuple(_line(row, rules) for row in sorted(rows.values(), key=lambda row: (row.ends_at, row.counter))),
        is_all=is_all,
    )


def _line(row: Spending, rules: Sequence[Rule]) -> BudgetLine:
    counter = read_counter(row.counter)
    # What stands in the policy now goes before what stood there when somebody reserved last.
    limits = {
        rule.limit_nanos
        for rule in rules
        if (rule.budget, rule.by, rule.per) == (counter.budget, counter.by, counter.per)
    }
    limit = limits.pop() if len(limits) == 1 else row.limit_nanos
    return BudgetLine(
        budget=counter.budget,
        by=counter.by,
        of=counter.of,
        per=counter.per,
        window=counter.window,
        ends_at=row.ends_at,
        limit_nanos=limit,
        spent_nanos=row.settled_nanos,
        reserved_nanos=row.reserved_nanos,
        left_nanos=max(0, limit - row.settled_nanos - row.reserved_nanos),
    )


def _nothing(counter: str, ends_at: datetime, limit_nanos: int) -> Spending:
    return Spending(
        counter=counter, ends_at=ends_at, limit_nanos=limit_nanos, settled_nanos=0, reserved_nanos=0, open=0
    )
