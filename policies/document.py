"""The vocabulary ops write in: the Structs of a policy file, each key with its meaning. No evaluation, no I/O."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

# What is said of a key here is what the README and the JSON Schema say of it.
_DOLLARS = {"pattern": r"^(\$?\d+(\.\d{1,9})?)?$", "examples": ["0.05"]}
_TIME = {"pattern": r"^(([01]\d|2[0-3]):[0-5]\d|24:00)$"}

Share = Annotated[float, Meta(ge=0)]


class Part(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Unknown keys are errors."""


class Bound(Part, kw_only=True, frozen=True):
    """Of one fact, and the same of each: from `at_least` on, up to and without `below`."""

    at_least: Annotated[float, Meta(ge=0, description="this much or more")] | msgspec.UnsetType = msgspec.UNSET
    below: Annotated[float, Meta(ge=0, description="less than this")] | msgspec.UnsetType = msgspec.UNSET


ANY = Bound()


class Inputs(Part, kw_only=True, frozen=True):
    """What the input asks for. Of what it does not tell, no bound is met."""

    images: Annotated[Bound, Meta(description="how many images are to be made; 1 where the input does not say")] = ANY
    megapixels: Annotated[Bound, Meta(description="millions of pixels, over all images")] = ANY
    video_seconds: Annotated[Bound, Meta(description="length of the video to be made")] = ANY
    audio_seconds: Annotated[Bound, Meta(description="length of the audio to be made")] = ANY
    characters: Annotated[Bound, Meta(description="length of the texts that are put in")] = ANY
    input_tokens: Annotated[Bound, Meta(description="tokens put in, reckoned as four characters each")] = ANY
    output_tokens: Annotated[Bound, Meta(description="the most tokens that may come out")] = ANY
    steps: Annotated[Bound, Meta(description="inference steps")] = ANY


class Hours(Part, kw_only=True, frozen=True):
    """A span of the clock on the wall in a zone, in summer and in winter time alike."""

    days: Annotated[
        tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...],
        Meta(description="the days on which it begins; empty: every day"),
    ] = ()
    since: Annotated[str, Meta(description="its first minute, as HH:MM", extra_json_schema=_TIME)] = msgspec.field(
        default="00:00", name="from"
    )
    until: Annotated[
        str,
        Meta(
            description="the minute it ends before, as HH:MM; 24:00 is midnight, before `from` is the next day",
            extra_json_schema=_TIME,
        ),
    ] = msgspec.field(default="24:00", name="to")
    zone: Annotated[
        str,
        Meta(description="the time zone, by its IANA name", extra_json_schema={"examples": ["UTC", "Europe/Berlin"]}),
    ] = "UTC"


class Match(Part, kw_only=True, frozen=True):
    """Which predictions the policy is for, when nothing names one; empty parts match everything."""

    models: Annotated[tuple[str, ...], Meta(description="globs over owner/name; one must fit")] = ()
    keys: Annotated[tuple[str, ...], Meta(description="names of API keys; one must have made it")] = ()
    labels: Annotated[dict[str, str], Meta(description="labels that it must all carry, with these values")] = (
        msgspec.field(default_factory=dict)
    )
    inputs: Annotated[Inputs, Meta(description="bounds of what the input asks for; all must be met")] = Inputs()
    hours: Annotated[tuple[Hours, ...], Meta(description="spans of time; it must be made in one of them")] = ()


class Keep(Part, kw_only=True, frozen=True):
    """Which offers may serve. An offer that misses one of these is dropped, with the reason."""

    providers: Annotated[tuple[str, ...], Meta(description="only these; empty: all")] = ()
    without: Annotated[tuple[str, ...], Meta(description="never these")] = ()
    regions: Annotated[tuple[str, ...], Meta(description="only offers declared for one of these; empty: all")] = ()
    capabilities: Annotated[
        tuple[str, ...],
        Meta(
            description="only offers that can do all of: stream, webhook, cancel, stop (while it runs), or what "
            "offers declare"
        ),
    ] = ()
    quality: Annotated[
        Literal["full", "reduced"],
        Meta(description='the least that may serve: "full" drops offers declared as reduced, the fallback too'),
    ] = "reduced"
    version: Annotated[
        Literal["declared", "equivalent"],
        Meta(
            description="whose offers serve a request that pins no version: only those declared for the model's own, "
            "or equivalent ones of other versions too"
        ),
    ] = "declared"
    max_price: Annotated[
        str,
        Meta(description="the most dollars expected for this prediction; empty: any", extra_json_schema=_DOLLARS),
    ] = ""
    unknown_price: Annotated[
        Literal["keep", "drop"], Meta(description="what max_price does with an offer whose price is unknown")
    ] = "keep"
    min_success: Annotated[
        float, Meta(ge=0, le=1, description="the least share of successes measured lately; no data passes")
    ] = 0.0


class Weights(Part, kw_only=True, frozen=True):
    """Of a blend; only their proportion matters."""

    cost: Annotated[float, Meta(ge=0, description="weight of the expected cost")] = 0.0
    latency: Annotated[float, Meta(ge=0, description="weight of the time to a result")] = 0.0
    health: Annotated[float, Meta(ge=0, description="weight of the tries that a result takes")] = 0.0


class Goal(Part, kw_only=True, frozen=True):
    """What a plan is to reach, as cheaply as it can."""

    success: Annotated[float, Meta(gt=0, lt=1, description="probability of a result in time")]
    within: Annotated[
        str, Meta(description='the time, from when the prediction was made, e.g. "30s", "5m"', examples=["30s"])
    ]


class Rank(Part, kw_only=True, frozen=True):
    """How the kept offers are ordered."""

    by: Annotated[
        Literal["cost", "latency", "health", "blend", "goal", "weighted", "ordered"],
        Meta(
            description="the measure: one of three, a blend of them, the cheapest plan for a goal, shares of the "
            "traffic, or a fixed order"
        ),
    ] = "blend"
    weights: Annotated[Weights, Meta(description="of the blend")] = Weights(cost=1, latency=1, health=1)
    quantile: Annotated[
        Literal["mean", "p50", "p75", "p90", "p95", "p99"], Meta(description="of the time to a result, for latency")
    ] = "mean"
    goal: Annotated[Goal | msgspec.UnsetType, Meta(description="for goal: what a plan is to reach")] = msgspec.UNSET
    order: Annotated[tuple[str, ...], Meta(description="names of providers, first to last, for ordered")] = ()
    shares: Annotated[
        dict[str, Share],
        Meta(
            description="for weighted: providers, or single offers as `provider#2`, and their shares; only the "
            "proportion matters, and an offer without one serves when nothing else is left"
        ),
    ] = msgspec.field(default_factory=dict)
    sticky: Annotated[
        str,
        Meta(
            description='for weighted: "key" or "label:NAME", of which each always gets the same offer; empty: by draw',
            extra_json_schema={"pattern": "^(key|label:.+)?$", "examples": ["label:session"]},
        ),
    ] = ""
    explore: Annotated[
        float,
        Meta(
            ge=0,
            le=0.5,
            description="share of predictions that try an offer of which little is known, or nothing since it was bad; "
            "one that nobody has tried yet is tried four times as often",
        ),
    ] = 0.05


class Limits(Part, kw_only=True, frozen=True):
    """How long and how often is tried, and what for."""

    deadline_seconds: Annotated[
        float, Meta(gt=0, le=86_400, description="from its creation, after which nothing is started or waited for")
    ] = 3_600
    attempt_seconds: Annotated[float, Meta(ge=0, description="most one attempt may take; 0: until the deadline")] = 0
    start_seconds: Annotated[
        float, Meta(ge=0, description="most an attempt may wait at the provider until it runs; 0: any")
    ] = 0
    run_seconds: Annotated[
        float, Meta(ge=0, description="most an attempt may run, from when the provider began; 0: any")
    ] = 0
    attempts: Annotated[int, Meta(ge=1, le=20, description="most attempts, the fallback's included")] = 4
    pay_twice_up_to: Annotated[
        str,
        Meta(
            description="dollars: up to what expected price another is started after an unknown outcome; "
            "0: only what is free",
            extra_json_schema=_DOLLARS,
        ),
    ] = "0"


class Fallback(Part, kw_only=True, frozen=True):
    """What is left when nothing is. Exempt from price and rank, from nothing else."""

    provider: Annotated[
        str, Meta(description="whose offers are the last resort, or one offer as `provider#2`; empty: none")
    ] = "local"


class Budget(Part, kw_only=True, frozen=True):
    """What may be spent in a window of time: set aside before an attempt is sent, settled by what it cost."""

    name: Annotated[
        str,
        Meta(description="budgets of one name count together, in whatever policies they stand; empty: the policy's"),
    ] = ""
    limit: Annotated[
        str,
        Meta(
            description="dollars in one window",
            extra_json_schema={"pattern": r"^\$?\d+(\.\d{1,9})?$", "examples": ["20"]},
        ),
    ]
    per: Annotated[Literal["hour", "day", "month"], Meta(description="the window, by the clock in UTC")]
    by: Annotated[
        str,
        Meta(
            description='what has a limit of its own: the whole "policy", each "key", or each value of "label:NAME"',
            extra_json_schema={"pattern": "^(policy|key|label:.+)$", "examples": ["key", "label:team"]},
        ),
    ] = "policy"
    when_spent: Annotated[
        Literal["refuse", "cheapest", "local"],
        Meta(
            description="what may still be tried beyond the limit: nothing, only the cheapest kept offer, "
            "or only the local backend"
        ),
    ] = "refuse"
    unknown_price: Annotated[
        str,
        Meta(
            description='dollars set aside for an offer of unknown price; "drop" leaves such offers out',
            extra_json_schema={"pattern": r"^(drop|\$?\d+(\.\d{1,9})?)$", "examples": ["drop", "0.05"]},
        ),
    ] = "drop"


class Policy(Part, kw_only=True, frozen=True):
    """One policy. A file holds one or, as [[policies]], several."""

    name: Annotated[str, Meta(description="how it is called; no other policy of any file may have the name")]
    description: Annotated[str, Meta(description="what it is for, in a sentence")] = ""
    match: Annotated[Match, Meta(description="which predictions it is for")] = Match()
    keep: Annotated[Keep, Meta(description="which offers may serve")] = Keep()
    rank: Annotated[Rank, Meta(description="how the kept offers are ordered")] = Rank()
    limits: Annotated[Limits, Meta(description="how long, how often, for how much")] = Limits()
    fallback: Annotated[Fallback, Meta(description="what is left when nothing is")] = Fallback()
    budgets: Annotated[tuple[Budget, ...], Meta(description="what may be spent; all must have enough left")] = ()


class File(Part, kw_only=True, frozen=True):
    """A policy file with several policies."""

    policies: Annotated[tuple[Policy, ...], Meta(description="asked in this order")]
