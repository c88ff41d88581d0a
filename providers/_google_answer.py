"""What Google's `:predict` and its operations bring: pictures, clips, and why some are missing. Not the asking."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote as quote_path

from gateway.contract.errors import JobCanceled, JobFailed, ModelFailed, OutputModerated, ResultLost
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import HttpResponse
from providers._adapter import ended, malformed_submit
from providers._gemini import objects, read_blob
from providers._reading import quote

# A filter's no is final, so only clear words count.
_MODERATED = re.compile(
    r"usage guidelines|responsible ai|safety filter|violat\w* .{0,60}(?:polic|practice)", re.IGNORECASE
)


def read_predictions(body: dict[str, Any], response: HttpResponse, *, single: bool) -> Fact:
    """Pictures (or sounds) that came; filtered ones are missing among them. Other predictions as they are."""
    predictions = body.get("predictions", [])
    if not isinstance(predictions, list):
        raise malformed_submit(response, "its answer is none of predict")
    files = [file for item in objects(predictions) if (file := read_blob(item, "bytesBase64Encoded"))]
    if files:
        pictures = sum(file.startswith("data:image/") for file in files)
        metrics = {"image_count": pictures} if pictures else {}
        return Fact(phase=Phase.SUCCEEDED, output=files[0] if single else files, metrics=metrics)
    for item in objects(predictions):
        if item.get("raiFilteredReason"):
            return ended(OutputModerated, str(item["raiFilteredReason"]))
        if item.get("gcsUri"):
            return ended(ResultLost, f"its picture lies at {quote(str(item['gcsUri']), 200)}: do not set storageUri")
    if not predictions:
        return ended(ModelFailed, "the answer holds no prediction")
    return Fact(phase=Phase.SUCCEEDED, output=predictions)


def read_operation(
    handle: dict[str, str], body: dict[str, Any], *, single: bool, shelf: tuple[str, str] | None
) -> Fact:
    """
    There is no word for its state: it runs until it is `done`, and then holds an error or a response.

    `shelf`: how what lies in our bucket begins as gs://, and where that may be fetched.
    """
    if body.get("done") is not True:
        return Fact(phase=Phase.RUNNING, handle=handle)
    error, answer = body.get("error"), body.get("response")
    if error:
        told = error if isinstance(error, dict) else {"message": str(error)}
        message = quote(str(told.get("message") or "the operation failed"))
        was_canceled = told.get("code") == 1 or told.get("status") == "CANCELLED"  # google.rpc.Code
        kind = OutputModerated if _MODERATED.search(message) else JobCanceled if was_canceled else JobFailed
        return ended(kind, message, handle=handle)
    clips, reasons, lost = _clips(answer if isinstance(answer, dict) else {}, shelf)
    if clips:
        return Fact(phase=Phase.SUCCEEDED, handle=handle, output=clips[0] if single else clips)
    if lost:
        message = f"its clip lies at {lost}, and no option `bucket` says that we may read there"
        return ended(ResultLost, message, handle=handle)
    if reasons:
        return ended(OutputModerated, reasons, handle=handle)
    return ended(ModelFailed, "the operation is done and holds no clip", handle=handle)


def _clips(answer: dict[str, Any], shelf: tuple[str, str] | None) -> tuple[list[str], str, str]:
    """Clips, why others are missing, and one that lies where we cannot read it."""
    inner = answer.get("generateVideoResponse")
    inner = inner if isinstance(inner, dict) else answer
    samples = [*objects(inner.get("generatedSamples")), *objects(inner.get("videos"))]
    clips, lost = [], ""
    for sample in samples:
        inside = sample.get("video")
        video = inside if isinstance(inside, dict) else sample
        place = video.get("gcsUri") or video.get("uri")
        inline = read_blob(video, "bytesBase64Encoded") or read_blob(video, "encodedVideo")
        if inline:
            clips.append(inline)
        elif isinstance(place, str) and place.startswith("gs://"):
            if shelf is not None and place.startswith(shelf[0]):
                clips.append(f"{shelf[1]}/{quote_path(place.removeprefix(shelf[0]), safe='/')}")
            else:
                lost = quote(place, 200)
        elif isinstance(place, str) and place.startswith(("https://", "http://")):
            clips.append(place)
    count, reasons = inner.get("raiMediaFilteredCount"), inner.get("raiMediaFilteredReasons")
    told = "; ".join(str(reason) for reason in reasons) if isinstance(reasons, list) else ""
    return clips, told or ("its clips were filtered" if type(count) is int and count > 0 else ""), lost
