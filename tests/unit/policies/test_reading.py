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
            'p.toml:3: rank.quantile: "max" is not known; write one of mean, p50, p75, p90, p95, p99',
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
        (
            'name="a"\n[match.inputs]\nimages={at_leest=2}',
            'p.toml:3: match.inputs.images.at_leest: unknown key "at_leest"; did you mean "at_least"?',
        ),
        (
            'name="a"\n[match.inputs]\nimages={at_least="2"}',
            'p.toml:3: match.inputs.images.at_least: this is text in quotes ("…"); write a number',
        ),
        (
            'name="a"\n[match.inputs]\nsteps={at_least=3, below=3}',
            "p.toml:3: match.inputs.steps.below: no number is so; write a number that is more than at_least",
        ),
        (
            'name="a"\n[match.inputs]\nimages={}',
            "p.toml:3: match.inputs.images: it bounds nothing; write at_least, below, or both",
        ),
        (
            'name="a"\n[match.inputs]\nimages={below=inf}',
            "p.toml:3: match.inputs.images.below: inf is no number to reckon with; write a finite one",
        ),
        (
            'name="a"\n[[match.hours]]\ndays=["sat", "sonday"]',
            'p.toml:3: match.hours[0].days[1]: "sonday" is not known; write one of mon, tue, wed, thu, fri, sat, sun',
        ),
        (
            'name="a"\n[[match.hours]]\n[[match.hours]]\nform="08:00"',
            'p.toml:4: match.hours[1].form: unknown key "form"; did you mean "from"?',
        ),
        (
            'name="a"\n[[match.hours]]\nfrom="8:00"',
            'p.toml:3: match.hours[0].from: "8:00" is no time of the day such as "08:30"; '
            'write from = "HH:MM", from "00:00" to "24:00"',
        ),
        (
            'name="a"\n[[match.hours]]\nto="24:01"',
            'p.toml:3: match.hours[0].to: "24:01" is no time of the day such as "08:30"; '
            'write to = "HH:MM", from "00:00" to "24:00"',
        ),
        (
            'name="a"\n[[match.hours]]\nfrom=08:00:00',
            'p.toml:3: match.hours[0].from: this is a time without quotes; write text in quotes ("…")',
        ),
        (
            'name="a"\n[[match.hours]]\nfrom="06:00"\nto="06:00"',
            "p.toml:4: match.hours[0].to: it ends where it begins; leave both out for the whole day",
        ),
        (
            'name="a"\n[[match.hours]]\nfrom="24:00"\nto="06:00"',
            'p.toml:3: match.hours[0].from: no day has a minute that begins there; write from = "00:00"',
        ),
        (
            'name="a"\n[[match.hours]]\nzone="Europe/Berln"',
            'p.toml:3: match.hours[0].zone: no time zone "Europe/Berln" is known here; did you mean "Europe/Berlin"?',
        ),
        (
            'name="a"\n[[match.hours]]\nzone="../../etc/passwd"',
            'p.toml:3: match.hours[0].zone: no time zone "../../etc/passwd" is known here; '
            'write one by its IANA name, such as "Europe/Berlin"',
        ),
        ('name="a"\n[keep]\nquality="ful"', 'p.toml:3: keep.quality: "ful" is not known; did you mean "full"?'),
        (
            'name="a"\n[keep]\nversion="equal"',
            'p.toml:3: keep.version: "equal" is not known; did you mean "equivalent"?',
        ),
        (
            'name="a"\n[keep]\nproviders=["a", "fal#2"]',
            'p.toml:3: keep.providers[1]: "fal#2" is one offer; name whole providers here',
        ),
        (
            'name="a"\n[rank]\nby="weighted"',
            "p.toml:3: rank.by: nobody has a share; add shares = { PROVIDER = 90, … } to [rank]",
        ),
        (
            'name="a"\n[rank]\nby="weighted"\nshares={fal=0}',
            "p.toml:4: rank.shares: nobody has a share; add shares = { PROVIDER = 90, … } to [rank]",
        ),
        (
            'name="a"\n[rank]\nby="weighted"\nshares={fal=1, "fal#02"=1}',
            'p.toml:4: rank.shares.fal#02: "fal#02" names no provider; write PROVIDER, or PROVIDER#2 for its second',
        ),
        (
            'name="a"\n[rank]\nby="weighted"\nshares={fal=nan}',
            "p.toml:4: rank.shares.fal: nan is no number to reckon with; write a finite one",
        ),
        (
            'name="a"\n[rank]\nby="weighted"\nshares={fal=-1}',
            "p.toml:4: rank.shares: the number is out of its range; write a number >= 0.0",
        ),
        (
            'name="a"\n[rank]\nby="cost"\nsticky="key"',
            'p.toml:4: rank.sticky: it says nothing of any other order; write by = "weighted"',
        ),
        (
            'name="a"\n[rank]\nby="weighted"\nshares={fal=1}\nsticky="session"',
            'p.toml:5: rank.sticky: "session" is nothing to hold on to; write "key" or "label:NAME"',
        ),
        (
            'name="a"\n[fallback]\nprovider="fal#0"',
            'p.toml:3: fallback.provider: "fal#0" names no provider; write PROVIDER, or PROVIDER#2 for its second',
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


def test_what_is_written_of_input_hours_and_shares_is_read() -> None:
    (policy,) = read(
        'name = "a"\n[match.inputs]\nimages = { at_least = 2, below = 5 }\n'
        '[[match.hours]]\ndays = ["fri"]\nfrom = "22:00"\nto = "06:00"\nzone = "Europe/Berlin"\n'
        '[keep]\nquality = "full"\nversion = "equivalent"\n'
        '[rank]\nby = "weighted"\nshares = { fal = 90, "fal#2" = 0.5 }\nsticky = "label:session"\n'
        '[fallback]\nprovider = "fal#2"\n',
        place="p.toml",
    )
    (hours,) = policy.match.hours
    assert (policy.match.inputs.images.at_least, policy.match.inputs.images.below) == (2, 5)
    assert (hours.days, hours.since, hours.until, hours.zone) == (("fri",), "22:00", "06:00", "Europe/Berlin")
    assert (policy.keep.quality, policy.keep.version) == ("full", "equivalent")
    assert (policy.rank.shares, policy.rank.sticky) == ({"fal": 90, "fal#2": 0.5}, "label:session")
    assert policy.fallback.provider == "fal#2"
