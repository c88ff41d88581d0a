"""Replicate's predictions for any model, with callbacks signed as Standard Webhooks. No models, no files."""

from __future__ import annotations

import json
import re
import uuid
from datetime import UTC, datetime
from typing import Any

from standardwebhooks import Webhook

from tests.e2e.fakes.studio import Desk, Job, Mood, Studio

_CREATE = re.compile(r"/v1(?:/(?:models|deployments)/(?P<model>[^/]+/[^/]+))?/predictions")
_JOB = re.compile(r"/v1/predictions/(?P<id>[a-z0-9]+)(?P<rest>/cancel)?")
_STATUS = {"waiting": "starting", "running": "processing", "done": "succeeded", "canceled": "canceled"}


class ReplicateFake(Studio):
    """`with ReplicateFake("a token", secret="whsec_…") as replicate:` it speaks at `replicate.url` + "/v1"."""

    def __init__(self, token: str, *, secret: str) -> None:
        super().__init__(_Replicate)
        self.token = f"Bearer {token}"
        self._webhook = Webhook(secret)  # their library: our own signing is not its judge

    def new_id(self) -> str:
        return uuid.uuid4().hex[:26]

    def told(self, job: Job) -> dict[str, Any]:
        return self.shown(job)

    def signed(self, job: Job, body: bytes) -> dict[str, str]:
        id, at = f"msg_{uuid.uuid4().hex}", datetime.now(UTC)
        signature = self._webhook.sign(id, at, body.decode())
        return {"webhook-id": id, "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature}

    def shown(self, job: Job) -> dict[str, Any]:
        url = f"https://api.replicate.com/v1/predictions/{job.id}"  # its public address, which we do not reach it by
        is_done, at = job.state == "done", "2026-03-02T09:00:00.120Z"
        return {
            "id": job.id,
            "model": job.model,
            "version": "hidden",
            "input": job.input,
            "logs": "" if job.state == "waiting" else "drawing\n",
            "output": [self.file_url(job)] * int(job.input.get("num_outputs", 1)) if is_done else None,
            "data_removed": False,
            "error": None,
            "source": "api",
            "status": _STATUS[job.state],
            "created_at": at,
            "started_at": None if job.state == "waiting" else at,
            "completed_at": at if job.state in ("done", "canceled") else None,
            "metrics": {"predict_time": 0.5, "image_count": int(job.input.get("num_outputs", 1))} if is_done else {},
            "urls": {"get": url, "cancel": f"{url}/cancel", "web": f"https://replicate.com/p/{job.id}"},
        }


class _Replicate(Desk):
    def speak(self, body: bytes) -> None:
        replicate: ReplicateFake = self.studio
        create, job = _CREATE.fullmatch(self.path), _JOB.fullmatch(self.path)
        if create is not None and self.command == "POST":
            self._create(replicate, create["model"], json.loads(body))
        elif job is not None and (found := replicate.find(job["id"])) is not None:
            if job["rest"]:
                replicate.cancel(found)
            else:
                replicate.look(found)
            self.answer(200, replicate.shown(found))
        else:
            self.strange()

    def _create(self, replicate: ReplicateFake, model: str | None, body: dict[str, Any]) -> None:
        if replicate.mood is Mood.BROKE:
            said = (
                "You have insufficient credit to run this model. Go to the account's billing page to purchase credit."
            )
            self.answer(402, {"title": "Insufficient credit", "detail": said, "status": 402})
        elif replicate.mood is Mood.DOWN:
            self.answer(500, {"title": "Internal Server Error", "detail": "Internal Server Error", "status": 500})
        else:
            named = model or str(body["version"])
            job = replicate.begin(named, body["input"], headers=self.lower(), webhook=body.get("webhook"))
            # A create's answer says "starting", whatever became of it meanwhile.
            self.answer(201, replicate.shown(job) | {"status": "starting", "output": None, "completed_at": None})
