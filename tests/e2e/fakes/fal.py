"""fal.ai's queue for any model, with callbacks signed by an Ed25519 key whose public half it publishes."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.e2e.fakes.studio import Desk, Job, Mood, Studio

# The paths of a job know the app and not the model: owner/alias of `fal-ai/flux/schnell`.
_JOB = re.compile(r"/(?P<app>[^/]+/[^/]+)/requests/(?P<id>[^/]+)(?P<rest>/status|/cancel)?")
_STATUS = {"waiting": "IN_QUEUE", "running": "IN_PROGRESS", "done": "COMPLETED", "canceled": "COMPLETED"}
_LOCKED = "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."
USER = "user-of-the-fake"


class FalFake(Studio):
    """`with FalFake("a token") as fal:` the queue is at `fal.url`, and so are the published keys."""

    def __init__(self, token: str) -> None:
        super().__init__(_Fal)
        self.token = f"Key {token}"
        self.reports_units = True
        self.key_reads = 0
        self._key = Ed25519PrivateKey.generate()

    def key_set(self) -> dict[str, Any]:
        raw = self._key.public_key().public_bytes_raw()
        x = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        # Two keys, as when they are being changed: the one in use is the second.
        other = base64.urlsafe_b64encode(Ed25519PrivateKey.generate().public_key().public_bytes_raw()).rstrip(b"=")
        return {
            "keys": [{"kty": "OKP", "crv": "Ed25519", "x": other.decode()}, {"kty": "OKP", "crv": "Ed25519", "x": x}]
        }

    def told(self, job: Job) -> dict[str, Any]:
        return {"request_id": job.id, "gateway_request_id": job.id, "status": "OK", "payload": self.result(job)}

    def signed(self, job: Job, body: bytes) -> dict[str, str]:
        at = str(int(time.time()))
        message = "\n".join((job.id, USER, at, hashlib.sha256(body).hexdigest())).encode()
        return {
            "x-fal-webhook-request-id": job.id,
            "x-fal-webhook-user-id": USER,
            "x-fal-webhook-timestamp": at,
            "x-fal-webhook-signature": self._key.sign(message).hex(),
        }

    def urls(self, job: Job) -> dict[str, str]:
        app = "/".join(job.model.split("/")[:2])
        base = f"{self.url}/{app}/requests/{job.id}"
        return {"response_url": base, "status_url": f"{base}/status", "cancel_url": f"{base}/cancel"}

    def result(self, job: Job) -> dict[str, Any]:
        picture = {"url": self.file_url(job), "width": 1024, "height": 1024, "content_type": "image/png"}
        pictures = [picture] * int(job.input.get("num_images", 1))
        return {"images": pictures, "timings": {"inference": 0.5}, "seed": 7, "prompt": job.input.get("prompt")}

    def status(self, job: Job) -> dict[str, Any]:
        shown: dict[str, Any] = {"status": _STATUS[job.state], "request_id": job.id, **self.urls(job)}
        if job.state == "waiting":
            shown["queue_position"] = 0
        else:
            shown["logs"] = [{"timestamp": "2026-01-01T00:00:00.000000", "message": "drawing", "labels": {}}]
        if job.state == "done":
            shown["metrics"] = {"inference_time": 0.5}
        if job.state == "canceled":
            shown |= {"error": "Request was cancelled", "error_type": "client_cancelled"}
        return shown


class _Fal(Desk):
    def is_open(self, path: str) -> bool:
        return path == "/.well-known/jwks.json"

    def speak(self, body: bytes) -> None:
        fal: FalFake = self.studio
        path = urlsplit(self.path).path
        if path == "/.well-known/jwks.json":
            fal.key_reads += 1
            self.answer(200, fal.key_set())
            return
        found = _JOB.fullmatch(path)
        if found is not None:
            self._job(fal, found["id"], found["app"], found["rest"] or "")
        elif self.command == "POST":
            self._submit(fal, path.strip("/"), body)
        else:
            self.strange()

    def _submit(self, fal: FalFake, model: str, body: bytes) -> None:
        if fal.mood is Mood.BROKE:
            self.answer(403, {"detail": _LOCKED})
            return
        if fal.mood is Mood.DOWN:
            self.answer(500, {"detail": "Internal Server Error", "error_type": "internal_error"})
            return
        asked = parse_qs(urlsplit(self.path).query)
        webhook = asked.get("fal_webhook", [None])[0]
        job = fal.begin(model, json.loads(body), headers=self.lower(), webhook=webhook)
        shown = {"status": "IN_QUEUE", "request_id": job.id, **fal.urls(job), "queue_position": 0, "metrics": {}}
        self.answer(200, shown)

    def _job(self, fal: FalFake, id: str, app: str, rest: str) -> None:
        job = fal.find(id)
        if job is None or not job.model.startswith(app):
            self.answer(404, {"detail": "Request not found", "status": "NOT_FOUND"})
        elif rest == "/status" and self.command == "GET":
            fal.look(job)
            self.answer(200 if job.state in ("done", "canceled") else 202, fal.status(job))
        elif rest == "/cancel" and self.command == "PUT":
            is_heard = fal.cancel(job)
            said = "CANCELLATION_REQUESTED" if is_heard else "ALREADY_COMPLETED"
            self.answer(202 if is_heard else 400, {"status": said})
        elif rest == "" and self.command == "GET":
            self._result(fal, job)
        else:
            self.strange()

    def _result(self, fal: FalFake, job: Job) -> None:
        if job.state == "canceled":
            self.answer(499, {"detail": "Request was cancelled", "error_type": "client_cancelled"})
        elif job.state != "done":
            self.answer(400, {"detail": "Request is still in progress"})
        else:
            units = {"x-fal-billable-units": str(len(fal.result(job)["images"]))} if fal.reports_units else {}
            self.send(
                "application/json", json.dumps(fal.result(job)).encode(), headers={"x-fal-request-id": job.id} | units
            )
