"""How much of each priced unit a prediction takes: expected from its input, measured from what came back. No prices."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from gateway.contract.money import Units

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
# What is beyond it is a mistake or an attack, and says nothing of what will be made.
_MAX_AMOUNT = 1e9

_PREDICT_TIME = ("predict_time",)
_IMAGE_COUNT = ("image_count", "image_output_count")
_MEGAPIXEL_COUNT = ("image_output_megapixel_count", "megapixel_count")
_VIDEO_SECONDS = ("video_output_duration_seconds", "video_duration_seconds")
_AUDIO_SECONDS = ("audio_output_duration_seconds", "audio_duration_seconds")
_CHARACTER_COUNT = ("character_input_count", "character_count", "characters")
_INPUT_TOKENS = ("input_token_count", "prompt_tokens", "input_tokens")
_BILLED_UNITS = ("billable_units", "credits")
_OUTPUT_TOKENS = ("output_token_count", "completion_tokens", "output_tokens")


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


def measured_units(
    metrics: Mapping[str, Any], run_seconds: float | None, *, input: Mapping[str, Any] | None = None
) -> Units:
    """
    What a finished attempt took, by the provider's own metrics; `run_seconds` is ours, for want of its predict_time.

    With `input`, what the request itself fixed (images, pixels, steps, characters, duration) fills what the provider
    does not report. Tokens and run time are never guessed.
    """
    reported = Units(
        seconds=_first(_named(metrics, _PREDICT_TIME), run_seconds),
        images=_named(metrics, _IMAGE_COUNT),
        megapixels=_named(metrics, _MEGAPIXEL_COUNT),
        video_seconds=_named(metrics, _VIDEO_SECONDS),
        audio_seconds=_named(metrics, _AUDIO_SECONDS),
        characters=_named(metrics, _CHARACTER_COUNT),
        input_tokens=_named(metrics, _INPUT_TOKENS),
        output_tokens=_named(metrics, _OUTPUT_TOKENS),
        units=_named(metrics, _BILLED_UNITS),
    )
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
            return _number(values[name])
    return None


def _number(value: Any) -> float | None:
    """An amount that makes sense; text such as "5" or "5s" counts."""
    if isinstance(value, str) and len(value) <= 20:
        try:
            value = float(value.strip().removesuffix("s"))
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 <= value <= _MAX_AMOUNT else None


def _megapixels_each(input: Mapping[str, Any]) -> float | None:
    width, height = _number(input.get("width")), _number(input.get("height"))
    if width is not None and height is not None:
        return _number(width * height / 1e6)
    size = input.get("size")
    if isinstance(size, str) and (found := _SIZE.fullmatch(size)):
        return _number(int(found[1]) * int(found[2]) / 1e6)
    return _number(input.get("megapixels"))


def _duration(input: Mapping[str, Any]) -> float | None:
    duration = _named(input, _DURATION)
    if duration is not None:
        return duration
    frames, rate = _named(input, _FRAMES), _named(input, _RATE)
    return _number(frames / rate) if frames is not None and rate else None


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
