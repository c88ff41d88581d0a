"""Policy files: what is right is read, what is wrong is named with its line and the word that was meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract.errors import ConfigurationError
from policies.document import Policy
from policies.reading import presets, read


def refused(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read(text, place="p.toml")
    return str(caught.value).splitlines()


def test_one_policy_stands_at_the_top_level() -> None:
    (policy,) = read(
        'name = "eu"\n[match]\nmodels = ["acme/*"]\n[keep]\nregions = ["eu"]\nmax_price = "0.05"\n'
        '[rank]\nby = "latency"\nquantile = "p95"\n[limits]\npay_twice_up_to = "0.02"\n[fallback]\nprovider = ""\n',
        place="p.toml",
    )
    assert policy.name == "eu"
    assert policy.match.models == ("acme/*",)
    assert policy.keep.regions == ("eu",)
    assert policy.rank.quantile == "p95"
    assert policy.limits.pay_twice_up_to == "0.02"
    assert policy.fallback.provider == ""


def test_several_stand_as_an_array_in_their_order() -> None:
    found = read('[[policies]]\nname = "b"\n[policies.rank]\nby = "cost"\n[[policies]]\nname = "a"\n', place="p.toml")
    assert [(policy.name, policy.rank.by) for policy in found] == [("b", "cost"), ("a", "blend")]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 'p.toml:1: there is no policy in it; write at least name = "…"'),
        ("name = 3", 'p.toml:1: name: this is a whole number; write text in quotes ("…")'),
        ("[rank]\nby = 'cost'", 'p.toml:1: name: the policy has no name; add name = "…"'),
        (
            'name="a"\n\n[keep]\nregoins=["eu"]',
            'p.toml:4: keep.regoins: unknown key "regoins"; did you mean "regions"?',
        ),
        ('name="a"\nmax_price="1"', 'p.toml:2: max_price: unknown key "max_price"; it belongs in [keep]'),
        ('name="a"\nkeep = { regoins = [] }', 'p.toml:2: keep.regoins: unknown key "regoins"; did you mean "regions"?'),
        ('name="a"\nrank.bye="cost"', 'p.toml:2: rank.bye: unknown key "bye"; did you mean "by"?'),
        (
            'name="a"\n[rank]\nweights={coast=1}',
            'p.toml:3: rank.weights.coast: unknown key "coast"; did you mean "cost"?',
        ),
        ('name="a"\n[rank]\nby="latencie"', 'p.toml:3: rank.by: "latencie" is not known; did you mean "latency"?'),
        (
            'name="a"\n[rank]\nquantile="max"',
            'p.toml:3: rank.quantile: "max" is not known; write one of p50, p95',
        ),
        (
            'name="a"\n[rank]\nexplore=0.9',
            "p.toml:3: rank.explore: the number is out of its range; write a number <= 0.5",
        ),
        (
            'name="a"\n[rank]\nexplore=nan',
            "p.toml:3: rank.explore: nan is no number to reckon with; write a finite one",
        ),
        (
            'name="a"\n[keep]\nmax_price=0.05',
            'p.toml:3: keep.max_price: this is a number; write text in quotes ("…")',
        ),
        (
            'name="a"\n[keep]\nmax_price="5 cents"',
            "p.toml:3: keep.max_price: '5 cents' is no amount of dollars such as \"0.05\"; "
            'write dollars in quotes, as max_price = "0.05"',
        ),
        (
            'name="a"\n[rank]\nby="ordered"',
            'p.toml:3: rank.by: there is no order to go by; add order = ["PROVIDER", …] to [rank]',
        ),
        (
            'name="a"\n[rank]\nweights={cost=0,latency=0}',
            "p.toml:3: rank.weights: all weights are 0; give one of cost, latency and health a weight",
        ),
        (
            'name="a"\n[keep]\nproviders=["x"]\nwithout=["x"]',
            'p.toml:4: keep.without: "x" is also among providers; take it out of one of them',
        ),
        ('name="a"\nkeep=3', "p.toml:2: keep: this is a whole number; write a table"),
        ("policies=3", "p.toml:1: policies: this is no list of policies; write each as [[policies]]"),
        ('name="a\n', "p.toml:1: not TOML: Illegal character '\\n' (column 8); correct this line"),
        (
            '[[policies]]\nname="a"\n[[policies]]\nname="a"',
            'p.toml:4: policies[1].name: policy "a" is there already, further up; give one of them another name',
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_line_and_remedy(text: str, line: str) -> None:
    assert refused(text) == [line]


def test_every_fault_is_told_at_once_in_the_order_of_the_file() -> None:
    text = '[[policies]]\nname="a"\nbogus=1\n[policies.keep]\nregion=["eu"]\n[[policies]]\nname="b"\nrank={by="prise"}'
    assert [line.split(": ")[0] for line in refused(text)] == ["p.toml:3", "p.toml:5", "p.toml:8"]


def test_windows_line_ends_and_nesting_bombs_are_no_surprise() -> None:
    assert read('name = "a"\r\n[rank]\r\nby = "cost"\r\n', place="p.toml")[0].rank.by == "cost"
    assert len(refused("x = " + "[" * 100_000)) == 1


def test_a_hostile_key_stays_on_its_line() -> None:
    (line,) = refused('name="a"\n"evil\\nkey\\u001b[31m" = 1')
    assert "\x1b" not in line


def test_the_presets_are_there_and_mean_what_they_say() -> None:
    by_name = {policy.name: policy for policy in presets()}
    assert by_name.keys() == {"cheapest", "fastest", "steadiest", "balanced", "local_only"}
    assert {name: policy.rank.by for name, policy in by_name.items() if name != "local_only"} == {
        "cheapest": "cost",
        "fastest": "latency",
        "steadiest": "health",
        "balanced": "blend",
    }
    assert by_name["local_only"].keep.providers == ("local",)
    assert all(policy.description for policy in by_name.values())


_FRAGMENTS = [
    'name = "a"',
    "name = 1",
    "[rank]",
    "[[policies]]",
    "[policies.rank]",
    "[keep]",
    "keep = {}",
    "rank = []",
    'by = "cost"',
    "by = inf",
    "weights = { cost = inf }",
    "weights.cost = nan",
    "explore = -1",
    "max_price = '1e400'",
    "policies = [{}]",
    "policies = [1]",
    "[match.labels]",
    "'' = 1",
    '"a.b" = { c = [{}] }',
    "d = 1979-05-27",
    "[limits]",
    "attempts = 1e3",
    'pay_twice_up_to = "-1"',
    '"""',
    "#",
]


@given(st.one_of(st.text(max_size=200), st.lists(st.sampled_from(_FRAGMENTS), max_size=8).map("\n".join)))
def test_any_text_is_read_or_refused_and_nothing_else(text: str) -> None:
    try:
        found = read(text, place="p.toml")
    except ConfigurationError as error:
        lines = str(error).splitlines()
        found = ()
    else:
        lines = []
    assert all(isinstance(policy, Policy) for policy in found)
    assert all(line.startswith("p.toml:") and "; " in line for line in lines)
