"""
What providers take, as their pages and specifications have it: keys of an input, and the values of some of them.

Written down apart from the catalogue, which is held against it. `*` in a name stands for anything. A key that may hold
an object is written with the object's keys. `None` is any value.
"""

from __future__ import annotations

import fnmatch
import re
from typing import Any

Words = dict[str, Any]  # key → the values it may have: a tuple, a type, a pattern or None

_PIXELS = {"width": int, "height": int}
_FAL_FORMAT = ("jpeg", "png")
_BFL = {"prompt": str, "seed": int, "safety_tolerance": tuple(range(7)), "output_format": _FAL_FORMAT}
_FAL_PICTURE = {"prompt": str, "seed": int, "num_images": (1, 2, 3, 4), "output_format": _FAL_FORMAT}
_FAL_SIZED = {**_FAL_PICTURE, "image_size": _PIXELS, "enable_safety_checker": bool}
_FAL_STEPPED = {**_FAL_SIZED, "num_inference_steps": int, "guidance_scale": None, "negative_prompt": str}
_RATIOS = re.compile(r"\d{1,2}:\d{1,2}")
_FAL_STRICT = {"safety_tolerance": ("1", "2", "3", "4", "5", "6")}
_FAL_VEO = {
    "prompt": str,
    "aspect_ratio": ("16:9", "9:16"),
    "duration": ("4s", "6s", "8s"),
    "resolution": ("720p", "1080p"),
    "generate_audio": bool,
    "negative_prompt": str,
    "seed": int,
}
_FAL_SEEDANCE = {
    "prompt": str,
    "aspect_ratio": ("21:9", "16:9", "4:3", "1:1", "3:4", "9:16"),
    "resolution": ("480p", "720p", "1080p"),
    "duration": tuple(str(seconds) for seconds in range(2, 13)),
    "camera_fixed": bool,
    "seed": int,
}
_OPENAI_CHAT = {
    "prompt": str,
    "system_prompt": str,
    "max_tokens": int,
    "temperature": None,
    "top_p": None,
}
_TOGETHER_PICTURE = {
    "prompt": str,
    "width": int,
    "height": int,
    "steps": int,
    "n": (1, 2, 3, 4),
    "seed": int,
    "image_url": str,
    "output_format": _FAL_FORMAT,
    "negative_prompt": str,
}
_TRANSCRIPTION = {"file": str, "language": str, "prompt": str}
_RUNPOD_SIZE = re.compile(r"\d{3,4}\*\d{3,4}")

WORDS: dict[str, dict[str, Words]] = {
    "fal": {
        # https://fal.ai/models/<name>/llms.txt
        "fal-ai/flux/*": _FAL_STEPPED,
        "fal-ai/flux-pro/v1.1": {**_FAL_SIZED, **_FAL_STRICT, "enhance_prompt": bool},
        "fal-ai/flux-pro/v1.1-ultra": {**_FAL_PICTURE, **_FAL_STRICT, "aspect_ratio": _RATIOS, "raw": bool},
        "fal-ai/flux-pro/kontext*": {
            **_FAL_PICTURE,
            **_FAL_STRICT,
            "image_url": str,
            "aspect_ratio": ("21:9", "16:9", "4:3", "3:2", "1:1", "2:3", "3:4", "9:16", "9:21"),
            "guidance_scale": None,
            "enhance_prompt": bool,
        },
        "fal-ai/flux-kontext/dev": {
            **_FAL_PICTURE,
            "image_url": str,
            "resolution_mode": re.compile(r"auto|match_input|\d{1,2}:\d{1,2}"),
            "num_inference_steps": int,
            "guidance_scale": None,
            "enable_safety_checker": bool,
        },
        "fal-ai/flux-2-*": {**_FAL_SIZED, "safety_tolerance": ("1", "2", "3", "4", "5")},
        "fal-ai/fast-sdxl": _FAL_STEPPED,
        "fal-ai/stable-diffusion-v35-medium": _FAL_STEPPED,
        "fal-ai/qwen-image": _FAL_STEPPED,
        "fal-ai/z-image/turbo": {**_FAL_STEPPED, "output_format": ("jpeg", "png", "webp")},
        "fal-ai/imagen4/*": {**_FAL_PICTURE, "aspect_ratio": ("1:1", "16:9", "9:16", "4:3", "3:4")},
        "fal-ai/nano-banana": {**_FAL_PICTURE, "aspect_ratio": _RATIOS},
        "fal-ai/bytedance/seedream/v4/*": {"prompt": str, "image_size": _PIXELS, "num_images": int, "seed": int},
        "fal-ai/ideogram/v3": {
            "prompt": str,
            "image_size": _PIXELS,
            "rendering_speed": ("TURBO", "BALANCED", "QUALITY"),
            "expand_prompt": bool,
            "style": ("AUTO", "GENERAL", "REALISTIC", "DESIGN"),
            "seed": int,
        },
        "fal-ai/veo3*": _FAL_VEO,
        "fal-ai/kling-video/*/image-to-video": {
            "prompt": str,
            "image_url": str,
            "duration": ("5", "10"),
            "negative_prompt": str,
        },
        "fal-ai/kling-video/*/text-to-video": {
            "prompt": str,
            "duration": ("5", "10"),
            "aspect_ratio": ("16:9", "9:16", "1:1"),
            "negative_prompt": str,
        },
        "fal-ai/wan-25-preview/image-to-video": {
            "prompt": str,
            "image_url": str,
            "resolution": ("480p", "720p", "1080p"),
            "duration": ("5", "10"),
            "negative_prompt": str,
            "enable_prompt_expansion": bool,
            "seed": int,
        },
        "fal-ai/bytedance/seedance/v1/pro/text-to-video": _FAL_SEEDANCE,
        "fal-ai/bytedance/seedance/v1.5/pro/image-to-video": {
            **_FAL_SEEDANCE,
            "image_url": str,
            "generate_audio": bool,
        },
        "fal-ai/luma-dream-machine/ray-2": {
            "prompt": str,
            "aspect_ratio": ("16:9", "9:16", "4:3", "3:4", "21:9", "9:21"),  # no square
            "loop": bool,
            "resolution": ("540p", "720p", "1080p"),
            "duration": ("5s", "9s"),
        },
        "fal-ai/minimax/speech-02-hd": {
            "text": str,
            "voice_setting": {
                "voice_id": str,
                "speed": None,
                "vol": None,
                "pitch": int,
                "emotion": ("happy", "sad", "angry", "fearful", "disgusted", "surprised", "neutral"),
                "english_normalization": bool,
            },
            "output_format": ("url", "hex"),
        },
        "fal-ai/chatterbox/text-to-speech": {
            "text": str,
            "audio_url": str,
            "exaggeration": None,
            "temperature": None,
            "cfg": None,
            "seed": int,
        },
        "fal-ai/kokoro/american-english": {"prompt": str, "voice": re.compile(r"a[fm]_[a-z]+"), "speed": None},
        "fal-ai/elevenlabs/tts/*": {"text": str, "voice": str, "stability": None},
        "fal-ai/whisper": {
            "audio_url": str,
            "task": ("transcribe", "translate"),
            "language": str,
        },
        "fal-ai/elevenlabs/speech-to-text": {
            "audio_url": str,
            "language_code": str,
            "diarize": bool,
            "tag_audio_events": bool,
        },
        "fal-ai/esrgan": {"image_url": str, "scale": tuple(range(1, 9)), "face": bool},
    },
    "runpod": {
        # https://github.com/runpod/docs, public-endpoints/models
        "seedream-v4-t2i": {"prompt": str, "size": _RUNPOD_SIZE, "seed": int},
        "qwen-image-t2i": {
            "prompt": str,
            "negative_prompt": str,
            "size": _RUNPOD_SIZE,
            "seed": int,
            "enable_safety_checker": bool,
        },
        "z-image-turbo": {
            "prompt": str,
            "size": ("512*512", "768*768", "1024*1024", "1280*1280", "1024*768", "768*1024", "1280*720", "720*1280"),
            "seed": int,
            "output_format": ("png", "jpeg", "webp"),
        },
        "kling-v2-1-i2v-pro": {"prompt": str, "image": str, "negative_prompt": str, "duration": (5, 10)},
        "wan-2-5": {
            "prompt": str,
            "image": str,
            "negative_prompt": str,
            "size": ("832*480", "1280*720", "1920*1080"),
            "duration": (5, 10),
            "seed": int,
            "enable_prompt_expansion": bool,
        },
        "wan-2-6-t2v": {
            "prompt": str,
            "negative_prompt": str,
            "duration": (5, 10, 15),
            "size": ("1280*720", "1920*1080", "720*1280", "1080*1920"),
            "seed": int,
        },
        "seedance-v1-5-pro-i2v": {
            "prompt": str,
            "image": str,
            "duration": tuple(range(4, 13)),
            "resolution": ("480p", "720p"),
            "aspect_ratio": ("21:9", "16:9", "9:16", "1:1", "4:3", "3:4"),
            "camera_fixed": bool,
            "generate_audio": bool,
            "seed": int,
        },
        "vidu-q3-t2v": {
            "prompt": str,
            "style": ("general", "anime"),
            "resolution": ("540p", "720p", "1080p"),
            "duration": int,
            "aspect_ratio": ("16:9", "9:16", "4:3", "3:4", "1:1"),
            "generate_audio": bool,
            "seed": int,
        },
        "minimax-speech-02-hd": {
            "prompt": str,
            "voice_id": str,
            "speed": None,
            "volume": None,
            "pitch": int,
            "emotion": ("happy", "sad", "neutral", "angry", "fearful", "surprised"),
            "english_normalization": bool,
        },
        "chatterbox-turbo": {"prompt": str, "voice": re.compile("[a-z]+"), "format": ("wav", "flac", "ogg")},
        "gpt-oss-120b": {"prompt": str, "max_tokens": int, "temperature": None, "top_p": None},
    },
    "bfl": {
        # https://github.com/black-forest-labs/skills and docs.bfl.ai
        "flux-pro-1.1": {**_BFL, "width": int, "height": int, "prompt_upsampling": bool},
        "flux-pro-1.1-ultra": {**_BFL, "aspect_ratio": _RATIOS, "raw": bool},
        "flux-kontext-*": {**_BFL, "input_image": str, "aspect_ratio": _RATIOS, "prompt_upsampling": bool},
        "flux-2-*": {**_BFL, "width": int, "height": int},
    },
    "together": {
        # https://github.com/togethercomputer/openapi
        "black-forest-labs/*": _TOGETHER_PICTURE,
        "stabilityai/*": _TOGETHER_PICTURE,
        "google/imagen-4*": _TOGETHER_PICTURE,
        "ByteDance-Seed/*": _TOGETHER_PICTURE,
        "Qwen/Qwen-Image": _TOGETHER_PICTURE,
        "hexgrad/Kokoro-82M": {"input": str, "voice": str},
        "openai/whisper-large-v3": _TRANSCRIPTION,
        "meta-llama/*": _OPENAI_CHAT,
    },
    "deepinfra": {
        # https://deepinfra.com/<name>/api
        "black-forest-labs/FLUX-1-schnell": {
            "prompt": str,
            "num_images": (1, 2, 3, 4),
            "num_inference_steps": int,
            "width": int,
            "height": int,
            "seed": int,
        },
        "hexgrad/Kokoro-82M": {"input": str, "voice": str, "speed": None},
        "openai/whisper-large-v3": _TRANSCRIPTION,
        "meta-llama/*": _OPENAI_CHAT,
        "BAAI/bge-m3": {"input": str},
    },
    "fireworks": {
        # https://docs.fireworks.ai/api-reference
        "accounts/fireworks/models/flux-kontext-*": {
            **_BFL,
            "input_image": str,
            "aspect_ratio": _RATIOS,
            "prompt_upsampling": bool,
        },
        "accounts/fireworks/models/*": _OPENAI_CHAT,
    },
    "huggingface": {
        "openai/whisper-large-v3": {"inputs": str},
        "BAAI/bge-m3": {"inputs": str},
        "*:*": _OPENAI_CHAT,
    },
    "stability": {
        "stable-image/generate/sd3": {
            "prompt": str,
            "model": ("sd3.5-large", "sd3.5-large-turbo", "sd3.5-medium"),
            "aspect_ratio": ("16:9", "1:1", "21:9", "2:3", "3:2", "4:5", "5:4", "9:16", "9:21"),
            "cfg_scale": None,
            "seed": int,
            "output_format": _FAL_FORMAT,
        },
    },
    "google": {
        # python-genai's types
        "imagen-4.0-*": {
            "prompt": str,
            "aspectRatio": ("1:1", "3:4", "4:3", "9:16", "16:9"),
            "sampleCount": (1,),
            "outputOptions": {"mimeType": ("image/jpeg", "image/png")},
        },
        "gemini-2.5-flash-image": {
            "prompt": str,
            "generationConfig": {"responseModalities": None, "imageConfig": {"aspectRatio": _RATIOS}},
        },
        "veo-3*": {
            "prompt": str,
            "aspectRatio": ("16:9", "9:16"),
            "durationSeconds": (4, 6, 8),
            "resolution": ("720p", "1080p"),
            "negativePrompt": str,
            "seed": int,
        },
    },
    "runway": {
        # RunwayML's OpenAPI of 2024-11-06
        "gen4_image": {"promptText": str, "ratio": re.compile(r"\d{3,4}:\d{3,4}"), "seed": int},
        "gen4_turbo": {
            "promptText": str,
            "promptImage": str,
            "ratio": ("1280:720", "720:1280", "1104:832", "832:1104", "960:960", "1584:672"),
            "duration": (5, 10),
            "seed": int,
        },
    },
    "luma": {
        # Dream Machine's OpenAPI 1.1.0
        "photon-*": {"prompt": str, "aspect_ratio": _RATIOS},
        "ray-*": {
            "prompt": str,
            "aspect_ratio": ("1:1", "16:9", "9:16", "4:3", "3:4", "21:9", "9:21"),
            "loop": bool,
            "resolution": ("540p", "720p", "1080p", "4k"),
            "duration": ("5s", "9s"),
        },
    },
    "elevenlabs": {
        # elevenlabs-docs openapi.json
        "eleven_*": {"text": str, "voice_id": re.compile("[A-Za-z0-9]{20}"), "voice_settings": {"stability": None}},
        "scribe_v1": {"file": str, "language_code": str, "diarize": bool, "tag_audio_events": bool},
    },
    "openai": {
        # openai-openapi
        "gpt-image-1": {
            "prompt": str,
            "size": ("1024x1024", "1536x1024", "1024x1536"),
            "quality": ("low", "medium", "high", "auto"),
            "background": ("auto", "transparent", "opaque"),
            "output_format": ("png", "jpeg", "webp"),
            "n": int,
        },
        "tts-1*": {
            "input": str,
            "voice": ("alloy", "ash", "coral", "echo", "fable", "onyx", "nova", "sage", "shimmer"),
            "response_format": ("mp3", "opus", "aac", "flac", "wav", "pcm"),
            "speed": None,
        },
        "whisper-1": _TRANSCRIPTION,
        "text-embedding-3-*": {"input": str, "dimensions": int},
    },
    "runware": {
        "bytedance:seedream@5.0-lite": {
            "positivePrompt": str,
            "width": int,
            "height": int,
            "numberResults": int,
            "outputType": ("URL", "base64Data", "dataURI"),
            "outputFormat": ("JPG", "PNG", "WEBP"),
        },
    },
    "bedrock": {
        "amazon.nova-canvas-v1:0": {
            "taskType": ("TEXT_IMAGE",),
            "textToImageParams": {"text": str, "negativeText": str},
            "imageGenerationConfig": {
                "numberOfImages": (1, 2, 3, 4, 5),
                "width": int,
                "height": int,
                "quality": ("standard", "premium"),
                "cfgScale": None,
                "seed": int,
            },
        },
        # The Converse API
        "*": {
            "prompt": str,
            "system_prompt": str,
            "inferenceConfig": {"maxTokens": int, "temperature": None, "topP": None},
        },
    },
    "cloudflare": {
        "@cf/baai/bge-m3": {"text": str},
    },
    "local": {"turnout/upscaler": {"image": str, "scale": (2, 4)}},
}


def words_for(adapter: str, name: str) -> Words:
    """The most exact entry. Raises LookupError."""
    found = [pattern for pattern in WORDS.get(adapter, {}) if fnmatch.fnmatchcase(name, pattern)]
    if not found:
        raise LookupError(f"nothing is written down of what {adapter} takes for {name}")
    return WORDS[adapter][max(found, key=lambda pattern: (pattern == name, len(pattern)))]


def strangers(input: dict[str, Any], words: Words, path: str = "") -> list[str]:
    """Keys and values that the provider does not know."""
    found = []
    for key, value in input.items():
        where = f"{path}{key}"
        if key not in words:
            found.append(f"{where} is unknown")
        elif isinstance(words[key], dict):
            inner = strangers(value, words[key], f"{where}.") if isinstance(value, dict) else [f"{where} is no object"]
            found += inner
        elif not _fits(value, words[key]):
            found.append(f"{where} = {value!r}")
    return found


def _fits(value: Any, allowed: Any) -> bool:
    if allowed is None:
        return True
    if isinstance(allowed, tuple):
        return any(value == one and type(value) is type(one) for one in allowed)
    if isinstance(allowed, re.Pattern):
        return isinstance(value, str) and allowed.fullmatch(value) is not None
    return type(value) is allowed
