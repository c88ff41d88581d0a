from __future__ import annotations

import re
from collections import Counter

import pytest

from gateway.contract.errors import RateLimited
from gateway.telemetry.instrument import ERROR, INSTRUMENTS, Kind, find, table


def test_every_instrument_is_turnouts_or_opentelemetrys_and_described() -> None:
    for one in INSTRUMENTS:
        assert re.fullmatch(r"(turnout|http\.server|gen_ai\.client)(\.[a-z_]+)+", one.name)
        assert one.about.endswith(".")
        assert one.unit
        for attribute in one.attributes:
            assert re.fullmatch(r"(turnout|http|gen_ai|error)(\.[a-z_]+)+", attribute.name)
            assert attribute.about.endswith(".")
            assert attribute.values is None or attribute.values


def test_no_two_instruments_share_a_name_nor_a_series_nor_two_attributes_of_one_a_label() -> None:
    for names in ([one.name for one in INSTRUMENTS], [one.series for one in INSTRUMENTS]):
        assert [name for name, count in Counter(names).items() if count > 1] == []
    for one in INSTRUMENTS:
        assert len({attribute.label for attribute in one.attributes}) == len(one.attributes)


def test_no_attribute_is_an_id_or_a_callers_word() -> None:
    names = {attribute.name for one in INSTRUMENTS for attribute in one.attributes}
    for forbidden in ("id", "owner", "prediction", "url", "host", "label", "prompt", "message"):
        assert not [name for name in names if forbidden in name.split(".")]


def test_only_histograms_have_buckets_and_theirs_ascend() -> None:
    for one in INSTRUMENTS:
        assert bool(one.bounds) == (one.kind is Kind.HISTOGRAM)
        assert list(one.bounds) == sorted(set(one.bounds))


def test_a_code_of_any_failure_is_one_of_the_errors() -> None:
    assert ERROR.values is not None
    assert {RateLimited.code, "deadline_exceeded", "result_lost"} <= set(ERROR.values)


def test_a_name_that_is_none_is_a_key_error() -> None:
    assert find("turnout.attempts").series == "turnout_attempts_total"
    with pytest.raises(KeyError):
        find("turnout.nothing")
    with pytest.raises(KeyError, match=r"turnout\.attempts has no attribute"):
        find("turnout.attempts").attribute("turnout.phase")


def test_the_table_has_a_row_for_each() -> None:
    rows = table().splitlines()
    assert len(rows) == len(INSTRUMENTS) + 2
    assert all(row.count(" | ") == 4 for row in rows[2:])
