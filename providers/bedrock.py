"""
AWS Bedrock: `invoke`, `converse` and `async-invoke`, by a signature of AWS's or by an API key of Bedrock's.

Output: of `converse` the text as a list of chunks; of `invoke` its pictures as a list (option `single`: the first
alone), or else the model's own object; of `async-invoke` the URL of the object in the bucket of the option. Leaves out
streams, which are binary frames and no events, and the listing of jobs.
Thin: how a job that is unknown is answered; which quotas ServiceQuotaExceededException means; the words of filters.
"""

from __future__ import annotations

import re
from typing import Any, Literal
from urllib.parse import quote as quote_path
from urllib.parse import unquote, urlsplit

from gateway.contract.errors import (
    ConfigurationError,
    JobFailed,
    ModelFailed,
    OutputModerated,
    PollFailed,
    ProviderFailure,
    Refused,
    ResultLost,
)
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import Auth, Call, Capabilities, CostForm, HttpRequest, HttpResponse
from providers._adapter import (
    HttpAdapter,
    Options,
    ended,
    malformed_submit,
    phase_of,
)
from providers._auth import SigV4, bearer
from providers._bedrock_answer import FILTERED, read_conversation, read_model, read_token_headers, write_conversation
from providers._bedrock_error import never_begun, read_refusal
from providers._content import bare_files, check_storage

_PHASES = {"InProgress": Phase.RUNNING, "Completed": Phase.SUCCEEDED, "Failed": Phase.FAILED}
# The handle holds it as it stands in a path: an ARN would read as a URL of the scheme "arn".
_ARN = re.compile(r"arn:aws[a-z-]*:bedrock:[a-z0-9-]+:[0-9]{12}:async-invoke/[A-Za-z0-9-]{1,64}")
_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-[0-9]{1,2}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]|")  # a dot in it would not fit S3's certificate


class BedrockOptions(Options, kw_only=True, frozen=True):
    """
    `method`: how the offer is run. `bucket`, `prefix`: of S3, where async-invoke lays results and our key may read
    them; `result`: what it calls the object there; `bucket_url`: where S3 is, if not in its region. `bucket_owner`,
    `kms_key`: as AWS wants them, if at all. `input_buckets`: those that inputs may name (`s3://…`): they are read by
    our account's rights, so that callers can read whatever lies there.
    """

    method: Literal["invoke", "converse", "async-invoke"] = "invoke"
    single: bool = False
    region: str = "us-east-1"
    bucket: str = ""
    bucket_url: str = ""
    prefix: str = ""
    result: str = "output.mp4"
    bucket_owner: str = ""
    kms_key: str = ""
    input_buckets: tuple[str, ...] = ()


class Bedrock(HttpAdapter[BedrockOptions]):
    """Region and bucket are the provider's, the method is each offer's. Only async-invoke repeats a submit safely."""

    adapter = "bedrock"
    base_url = "https://bedrock-runtime.us-east-1.amazonaws.com"
    auth: tuple[Auth, ...] = (bearer("AWS_BEARER_TOKEN_BEDROCK"), SigV4(service="bedrock", region="us-east-1"))
    options_type = BedrockOptions
    provider_options = frozenset({"region", "bucket", "bucket_url"})

    def __init__(self, name: str = "", options: Any = None) -> None:
        super().__init__(name, options)
        chosen = self._chosen = self.check(self._options)
        self.base_url = f"https://bedrock-runtime.{chosen.region}.amazonaws.com"
        place = chosen.bucket_url or f"https://{chosen.bucket}.s3.{chosen.region}.amazonaws.com"
        signed = SigV4(service="bedrock", region=chosen.region, s3=(urlsplit(place).netloc,))
        self.auth = (bearer("AWS_BEARER_TOKEN_BEDROCK"), signed)
        if chosen.bucket:
            self.sites = {"bucket": place.rstrip("/")}
            self.auth = (signed,)  # a key of Bedrock's opens no bucket, and has no business there

    def check(self, options: Any) -> BedrockOptions:
        chosen = super().check(options)
        if _REGION.fullmatch(chosen.region) is None:
            raise ConfigurationError(f"options of adapter bedrock: no region: {chosen.region!r}; write us-east-1")
        if _BUCKET.fullmatch(chosen.bucket) is None:
            raise ConfigurationError(f"options of adapter bedrock: no bucket without dots: {chosen.bucket!r}")
        return chosen

    def describe(self, options: BedrockOptions) -> Capabilities:
        return Capabilities(
            modes=frozenset({"sync", "queue"}),
            idempotent_submit=options.method == "async-invoke",  # by its clientRequestToken
            cost=CostForm.UNITS,
            result_forms=frozenset({"data", "url", "json"}),
            result_needs_credentials=bool(options.bucket),
            min_poll_seconds=5,
            input_forms=frozenset({"data"}),
            max_inline_bytes=20_000_000,
        )

    # -- submit ------------------------------------------------------------------------------------------------------

    def submit(self, call: Call) -> HttpRequest:
        """Raises InputRefused, and Refused for async-invoke without a bucket."""
        options = self.options_for(call)
        check_storage(call.input, "s3://", options.input_buckets)
        if options.method == "async-invoke":
            return HttpRequest(method="POST", url="/async-invoke", json=self._job(call, options))
        body = write_conversation(call.input) if options.method == "converse" else bare_files(call.input)
        url = f"/model/{quote_path(call.name, safe='')}/{options.method}"
        return HttpRequest(
            method="POST", url=url, headers={"accept": "application/json"}, json=body, holds_until_end=True
        )

    def _job(self, call: Call, options: BedrockOptions) -> dict[str, Any]:
        if not options.bucket:
            raise Refused("async-invoke lays its results in a bucket of ours: the option `bucket` has to name it")
        place = {"s3Uri": f"s3://{options.bucket}/{options.prefix.strip('/')}".rstrip("/")}
        place |= {"bucketOwner": options.bucket_owner} if options.bucket_owner else {}
        place |= {"kmsKeyId": options.kms_key} if options.kms_key else {}
        return {
            "modelId": call.name,
            "modelInput": bare_files(call.input),
            "outputDataConfig": {"s3OutputDataConfig": place},
            "clientRequestToken": call.idempotency_id,
        }

    def read_submit(self, call: Call, response: HttpResponse) -> Fact:
        options = self.options_for(call)
        if options.method == "async-invoke":
            if not 200 <= response.status < 300:
                raise never_begun(response)
            arn = self.accepted(response).get("invocationArn")
            if not isinstance(arn, str) or _ARN.fullmatch(arn) is None:
                raise malformed_submit(response, "its answer names no invocation")
            return Fact(phase=Phase.QUEUED, handle={"id": quote_path(arn, safe=""), "result": options.result})
        metrics = read_token_headers(response.headers)
        if not 200 <= response.status < 300:
            failure = self.refusal(response)
            if isinstance(failure, JobFailed):
                return Fact(phase=Phase.FAILED, failure=failure.failure, metrics=metrics)
            raise failure
        body = self.accepted(response)
        if options.method == "invoke":
            return read_model(body, metrics, single=options.single)
        fact = read_conversation(body, metrics)
        if fact is None:
            raise malformed_submit(response, "its answer is none of converse")
        return fact

    def refusal(self, response: HttpResponse) -> ProviderFailure:
        return read_refusal(response)

    # -- jobs --------------------------------------------------------------------------------------------------------

    def poll(self, handle: dict[str, str]) -> HttpRequest | None:
        id = handle.get("id", "")
        is_job = _ARN.fullmatch(unquote(id)) is not None and quote_path(unquote(id), safe="") == id
        return HttpRequest(method="GET", url=f"/async-invoke/{id}") if is_job else None

    def read_poll(self, handle: dict[str, str], response: HttpResponse) -> Fact:
        body = self.polled(response)
        arn = body.get("invocationArn")
        if not isinstance(arn, str) or not isinstance(body.get("status"), str):
            raise PollFailed("the provider answered the poll with something else", status=response.status)
        handle = {**handle, "id": quote_path(arn, safe="")}
        phase = phase_of(body["status"], _PHASES)
        if phase is Phase.FAILED:
            message = str(body.get("failureMessage") or "the invocation failed")
            return ended(OutputModerated if FILTERED.search(message) else ModelFailed, message, handle=handle)
        if phase is not Phase.SUCCEEDED:
            return Fact(phase=phase, handle=handle)
        url = self._result_url(body, handle.get("result", "output.mp4"))
        if url is None:
            return ended(ResultLost, "its result does not lie in the bucket of the option", handle=handle)
        return Fact(phase=Phase.SUCCEEDED, handle=handle, output=url)

    def _result_url(self, body: dict[str, Any], result: str) -> str | None:
        place: Any = body.get("outputDataConfig")
        for key in ("s3OutputDataConfig", "s3Uri"):
            place = place.get(key) if isinstance(place, dict) else None
        mine = f"s3://{self._chosen.bucket}/"
        if not self._chosen.bucket or not isinstance(place, str) or not place.startswith(mine):
            return None
        folder = place.removeprefix(mine).strip("/")
        if ".." in folder.split("/"):
            return None
        return f"{self.sites['bucket']}/{quote_path(folder, safe='/-_.~')}/{quote_path(result, safe='/-_.~')}"
