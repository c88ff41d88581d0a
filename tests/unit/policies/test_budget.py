"""Budgets as they stand in a policy file, and what they come to for one prediction."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.contract.budget import DROPPED
from gateway.contract.errors import ConfigurationError
from policies.budget import holds, rules
from policies.document import Policy
from policies.keep import Code
from policies.reading import read

NOW = datetime(2026, 11, 24, 13, tzinfo=UTC)
TEXT = """
name = "thrifty"

[[budgets]]
limit = "20"
per = "day"
by = "key"
when_spent = "local"

[[budgets]]
name = "all of us"
limit = "$100.50"
per = "month"
unknown_price = "0.05"

[[budgets]]
limit = "1"
per = "hour"
by = "label:team"
when_spent = "cheapest"
"""


def policy(text: str = TEXT) -> Policy:
    [found] = read(text, place="thrifty.toml")
    return found


def test_what_is_written_is_what_holds() -> None:
    found = holds(policy(), key="alice", labels={"team": "red"}, now=NOW)
    assert [(hold.counter, hold.limit_nanos, hold.when_spent, hold.unknown_nanos) for hold in found] == [
        ("thrifty|key|alice|day|2026-11-24", 20_000_000_000, "local", None),
        ("all%20of%20us|policy||month|2026-11", 100_500_000_000, "refuse", 50_000_000),
        ("thrifty|label:team|red|hour|2026-11-24T13", 1_000_000_000, "cheapest", None),
    ]
    assert [rule.policy for rule in rules(policy())] == ["thrifty"] * 3
    assert holds(Policy(name="none"), key="alice", labels={}, now=NOW) == ()


def test_budgets_of_one_name_count_together_whatever_policy_they_stand_in() -> None:
    text = "\n".join(
        f'[[policies]]\nname = "{name}"\n[[policies.budgets]]\nname = "us"\nlimit = "{limit}"\nper = "day"'
        for name, limit in (("one", 5), ("other", 3))
    )
    found = [holds(each, key="alice", labels={}, now=NOW)[0] for each in read(text, place="both.toml")]
    assert len({hold.counter for hold in found}) == 1
    assert [hold.limit_nanos for hold in found] == [5_000_000_000, 3_000_000_000], "each keeps to its own limit"


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ('limt = "3"', 'thrifty.toml:5: budgets[0].limt: unknown key "limt"; did you mean "limit"?'),
        ('by = "team"', 'budgets[0].by: "team" is nothing to count by; write "policy", "key" or "label:NAME"'),
        ('by = "label: "', 'budgets[0].by: the label has no name; write by = "label:NAME"'),
        ('when_spent = "refus"', '"refus" is not known; did you mean "refuse"?'),
        ('unknown_price = "dear"', "is no amount of dollars"),
        ('unknown_price = "1000001"', "budgets[0].unknown_price: 1000001 is too much; write at most $1000000.00"),
        (
            '[[budgets]]\nlimit = "1"\nper = "day"',
            "thrifty.toml:5: budgets[1]: it counts what budgets[0] counts already",
        ),
        ('[[budgets]]\nlimit = "9000001"\nper = "hour"', "budgets[1].limit: 9000001 is too much; write at most"),
        ('[[budgets]]\nlimit = "-1"\nper = "hour"', "thrifty.toml:6: budgets[1].limit: '-1' is no amount of dollars"),
        ('[[budgets]]\nlimit = ""\nper = "hour"', "is no amount of dollars"),
        ('[[budgets]]\nlimit = "1"\nper = "week"', '"week" is not known; write one of hour, day, month'),
        ('[[budgets]]\nper = "hour"', "budgets[1]: there is no limit; add limit = …"),
        ('[[budgets]]\nlimit = "1"', "budgets[1]: there is no per; add per = …"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_to_do(added: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        policy(f'name = "thrifty"\n[[budgets]]\nlimit = "1"\nper = "day"\n{added}\n')
    assert said in str(refused.value)


def test_what_a_budget_did_not_let_through_has_a_reason_of_the_vocabulary() -> None:
    assert DROPPED == Code.BUDGET
