"""What is spent, on what, how sure are we, and what of it was for nothing?"""

from __future__ import annotations

from gateway.telemetry import instrument as of
from gateway.telemetry.panel import Dashboard, Panel, Row, Target, legend
from gateway.telemetry.query import RANGE, Query

_Q = Query(panel=True)


def money() -> Dashboard:
    return Dashboard(
        uid="turnout-money",
        title="Turnout / Money",
        about="What is spent, on what, how sure are we, and what of it was for nothing?",
        rows=(_burn(), _doubt()),
    )


def _burn() -> Row:
    per_prediction = (
        f"{_Q.increase(of.SPEND, of.MODEL, window=RANGE)}"
        f" / ({_Q.increase(of.PREDICTIONS_ENDED, of.MODEL, where={of.STATUS: 'succeeded'}, window=RANGE)} > 0)"
    )
    return Row(
        title="Spend",
        panels=(
            Panel(
                title="Burn per hour, by provider",
                targets=(Target(f"{_Q.rate(of.SPEND, of.PROVIDER)} * 3600", legend(of.PROVIDER)),),
                unit="currencyUSD",
                stacked=True,
            ),
            Panel(
                title="Burn per hour, by model",
                targets=(Target(f"{_Q.rate(of.SPEND, of.MODEL)} * 3600", legend(of.MODEL)),),
                unit="currencyUSD",
                stacked=True,
            ),
            Panel(
                title="Spent, by where the figure comes from",
                targets=(Target(_Q.increase(of.SPEND, of.BASIS, window=RANGE), legend(of.BASIS)),),
                kind="stat",
                unit="currencyUSD",
            ),
            Panel(
                title="For one result",
                about="Whatever was spent on a model, over its successes: failures and losers included.",
                targets=(Target(per_prediction, legend(of.MODEL)),),
                kind="table",
                unit="currencyUSD",
            ),
            Panel(
                title="Reserved",
                about="Expected of the attempts under way.",
                targets=(Target(_Q.now(of.SPEND_RESERVED, of.PROVIDER), legend(of.PROVIDER)),),
                unit="currencyUSD",
                stacked=True,
            ),
            Panel(
                title="Settlements",
                about=of.SETTLEMENT.about,
                targets=(Target(_Q.rate(of.SETTLEMENTS, of.SETTLEMENT), legend(of.SETTLEMENT)),),
                unit="ops",
                stacked=True,
            ),
        ),
    )


def _doubt() -> Row:
    unknown = _Q.share(
        of.SETTLEMENTS,
        of.PROVIDER,
        of={of.SETTLEMENT: "unknown"},
        among={of.SETTLEMENT: ("priced", "unknown")},
        window=RANGE,
    )
    billed, expected = (
        _Q.increase(one, of.OFFER, of.ESTIMATE, window="1h") for one in (of.DRIFT_BILLED, of.DRIFT_EXPECTED)
    )
    drift = f"{billed} / ({expected} > 0)"
    return Row(
        title="Doubt and waste",
        panels=(
            Panel(
                title="Share without a price",
                about="Of the attempts that cost something: nobody knows what.",
                targets=(Target(unknown, legend(of.PROVIDER)),),
                kind="stat",
                unit="percentunit",
                limits=(0.05, 0.2),
            ),
            Panel(
                title="Perhaps billed",
                about="Expected of attempts that may have run unseen.",
                targets=(Target(_Q.increase(of.SPEND_MAYBE, of.PROVIDER, window=RANGE), legend(of.PROVIDER)),),
                kind="stat",
                unit="currencyUSD",
            ),
            Panel(
                title="Billed twice, at most",
                about="Of the last day. Every replica reads it from the store they share: they tell the same.",
                targets=(Target(_Q.now(of.DOUBLE_BILL, how="max"), "upper bound"),),
                kind="stat",
                unit="currencyUSD",
            ),
            Panel(
                title="Drift of the estimates",
                about="Bill over estimate, of attempts with a result whose provider told money or units: 1 is right. "
                "Where tokens are paid, what was expected is the most that they could have cost.",
                targets=(Target(drift, legend(of.OFFER, of.ESTIMATE)),),
            ),
            Panel(
                title="Wasted per hour",
                about=of.WASTE.about,
                targets=(Target(f"{_Q.rate(of.SPEND_WASTED, of.WASTE)} * 3600", legend(of.WASTE)),),
                unit="currencyUSD",
                stacked=True,
            ),
        ),
    )
