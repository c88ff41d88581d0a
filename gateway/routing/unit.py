"""How much of each priced unit a prediction takes, and which tier of a price holds: what an input says of money."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from gateway.contract.condition import number_of
from gateway.contract.money import AUDIO, IMAGE_MEGAPIXELS, REPORTED_AS, RESOLUTION, UNIT_FACTS, Price, Units
from gateway.contract.prediction import Request

# What models call the same thing. The first one present is taken.
_IMAGES = ("num_outputs", "num_images", "n", "number_of_images", "image_count", "batch_size")
_STEPS = ("num_inference_steps", "inference_steps", "num_steps", "steps")
_DURATION = ("duration", "duration_seconds", "seconds", "video_length_seconds", "audio_length_seconds")
_FRAMES = ("num_frames", "video_length", "frames")
_RATE = ("fps", "frames_per_second", "frame_rate")
_TEXT = ("prompt", "text", "input", "texts", "messages", "system_prompt")
_MOST_TOKENS = ("max_completion_tokens", "max_output_tokens", "max_new_tokens", "max_tokens")
_SIZE = re.compile(r"\s*(\d{1,6})\s*[xX*×]\s*(\d{1,6})\s*")
_CHARACTERS_PER_TOKEN = 4
# Deeper text is not counted: it is no text that a person wrote, and input may be hostile.
_MAX_DEPTH = 8
MOST_SIZE = 40  # the class of what is beyond all sense

# Whether a film has sound; a sound to begin from may be called so too, and is no answer.
_AUDIO = ("generate_audio", "enable_audio", "with_audio", "audio", "sound")


def price_for(price: Price, input: Mapping[str, Any]) -> Price:
    """What holds of `price` for this input, before an offer's mapping. One door for the estimate and the bill."""
    return price.at(functools.partial(fact_of, input)) if price.tiers else price


def fact_of(input: Mapping[str, Any], name: str) -> Any:
    """
    What `input` says of a fact; None: nothing.

    `resolution` as "720p", `audio` true or false, `image_megapixels` of each image, and every unit that can be expected
    of an input: whatever the model calls them. Any other name is a key of the input.
    """
    if name == RESOLUTION:
        stated, sides = input.get("resolution"), _sides(input)
        return stated if stated is not None or sides is None else f"{min(sides):g}p"
    if name == AUDIO:
        return next((input[key] for key in _AUDIO if isinstance(input.get(key), bool)), None)
    if name == IMAGE_MEGAPIXELS:
        return _megapixels_each(input)
    return getattr(estimated_units(input), name) if name in UNIT_FACTS else input.get(name)


def keys_of(fact: str) -> frozenset[str]:
    """Keys of an input of which one must be there for it to say anything of `fact`; none for what is reckoned."""
    if fact == AUDIO:
        return frozenset(_AUDIO)
    if fact in (RESOLUTION, IMAGE_MEGAPIXELS):
        return frozenset({"resolution" if fact == RESOLUTION else "megapixels", "size", "width"})
    return frozenset() if fact in UNIT_FACTS else frozenset({fact})


def estimated_units(input: Mapping[str, Any], *, run_seconds: float | None = None) -> Units:
    """
    What `input` lets us expect. `run_seconds` is what runs there take. Unknown stays None.

    A model makes one image unless it is told otherwise; output tokens are the most that were allowed.
    """
    images = _named(input, _IMAGES) if any(key in input for key in _IMAGES) else 1.0
    pixels = _megapixels_each(input)
    duration = _duration(input)
    characters = _characters(input)
    return Units(
        seconds=run_seconds,
        images=images,
        megapixels=None if images is None or pixels is None else images * pixels,
        video_seconds=duration,
        audio_seconds=duration,
        characters=characters,
        input_tokens=None if characters is None else float(math.ceil(characters / _CHARACTERS_PER_TOKEN)),
        output_tokens=_named(input, _MOST_TOKENS),
        steps=_named(input, _STEPS),
    )


def facts_of(request: Request) -> Units:
    """What a request asks for; reckoned where an older gateway did not."""
    return estimated_units(request.input) if request.facts is None else request.facts


def size_of(facts: Units) -> int:
    """
    The class of the work that is asked for: its magnitude in powers of two, so that like is compared with like.

    Images x pixels x steps x seconds; where none of the last three is told, the most tokens. What is not told counts
    once.
    """
    work = (facts.megapixels or facts.images or 1.0) * (facts.steps or 1.0) * (facts.video_seconds or 1.0)
    if facts.megapixels is None and facts.steps is None and facts.video_seconds is None:
        work *= facts.output_tokens or 1.0
    return min(max(round(math.log2(work)), -MOST_SIZE), MOST_SIZE) if work > 0 else 0


def measured_units(
    metrics: Mapping[str, Any], run_seconds: float | None, *, input: Mapping[str, Any] | None = None
) -> Units:
    """
    What a finished attempt took, by the provider's own metrics; `run_seconds` is ours, for want of its predict_time.

    With `input`, what the request itself fixed (images, pixels, steps, characters, duration) fills what the provider
    does not report. Tokens and run time are never guessed.
    """
    told = {unit: _named(metrics, names) for unit, names in REPORTED_AS.items()}
    reported = Units(**told | {"seconds": _first(told["seconds"], run_seconds)})
    if input is None:
        return reported
    asked = estimated_units(input)
    pixels = asked.megapixels
    if pixels is not None and asked.images and reported.images is not None:
        pixels *= reported.images / asked.images
    return replace(
        reported,
        images=_first(reported.images, asked.images),
        megapixels=_first(reported.megapixels, pixels),
        video_seconds=_first(reported.video_seconds, asked.video_seconds),
        audio_seconds=_first(reported.audio_seconds, asked.audio_seconds),
        characters=_first(reported.characters, asked.characters),
        steps=asked.steps,
    )


def _first(one: float | None, other: float | None) -> float | None:
    return other if one is None else one


def _named(values: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    for name in names:
        if name in values:
            return number_of(values[name])
    return None


def _megapixels_each(input: Mapping[str, Any]) -> float | None:
    sides = _sides(input)
    return number_of(input.get("megapixels") if sides is None else sides[0] * sides[1] / 1e6)


def _sides(input: Mapping[str, Any]) -> tuple[float, float] | None:
    """Width and height in pixels, as two keys or as one."""
    width, height = number_of(input.get("width")), number_of(input.get("height"))
    if width is not None and height is not None:
        return width, height
    size = input.get("size")
    found = _SIZE.fullmatch(size) if isinstance(size, str) else None
    return (float(found[1]), float(found[2])) if found else None


def _duration(input: Mapping[str, Any]) -> float | None:
    duration = _named(input, _DURATION)
    if duration is not None:
        return duration
    frames, rate = _named(input, _FRAMES), _named(input, _RATE)
    return number_of(frames / rate) if frames is not None and rate else None


def _characters(input: Mapping[str, Any]) -> float | None:
    found = [count for name in _TEXT if name in input and (count := _length(input[name], 0)) is not None]
    return float(sum(found)) if found else None


def _length(value: Any, depth: int) -> int | None:
    """Characters of a text, of a list of texts, or of chat messages; files given as links or data are no text."""
    if isinstance(value, str):
        return None if value.startswith(("data:", "https://", "http://")) else len(value)
    if depth >= _MAX_DEPTH:
        return None
    if isinstance(value, dict):
        return _length(value.get("content", value.get("text")), depth + 1)
    if isinstance(value, list):
        counts = [count for item in value if (count := _length(item, depth + 1)) is not None]
        return sum(counts) if counts else None
    return None
