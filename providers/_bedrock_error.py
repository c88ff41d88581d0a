"""The errors of AWS Bedrock, read into failures by their type. Not the failures inside a 200."""

from __future__ import annotations

import re

from gateway.contract.errors import (
    AtCapacity,
    CredentialRefused,
    InputModerated,
    InputRefused,
    JobFailed,
    ModelFailed,
    ModelMissing,
    OutcomeUnknown,
    ProviderFailure,
    RateLimited,
    WalletEmpty,
)
from gateway.contract.provider import HttpResponse
from providers._adapter import failure_of, kind_of
from providers._bedrock_answer import FILTERED
from providers._reading import words_of

_MISSING = re.compile(r"model identifier is invalid|on-demand throughput|model id", re.IGNORECASE)
# docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html and the operations' own
_KINDS: dict[str, type[ProviderFailure]] = {
    "ThrottlingException": RateLimited,
    "ModelNotReadyException": AtCapacity,
    "ServiceQuotaExceededException": AtCapacity,
    "ValidationException": InputRefused,
    "ResourceNotFoundException": ModelMissing,
    "AccessDeniedException": CredentialRefused,
    "UnrecognizedClientException": CredentialRefused,
    "InvalidSignatureException": CredentialRefused,
    "IncompleteSignatureException": CredentialRefused,
    "MissingAuthenticationTokenException": CredentialRefused,
    "ExpiredTokenException": CredentialRefused,
    "ConflictException": OutcomeUnknown,
    "ModelErrorException": ModelFailed,
    "ModelTimeoutException": JobFailed,
    "InternalServerException": JobFailed,
    "ServiceUnavailableException": AtCapacity,
}


def read_refusal(response: HttpResponse) -> ProviderFailure:
    """By the error's type, which stands in a header; a synchronous call is over once the service says error."""
    word = response.headers.get("x-amzn-errortype", "").partition(":")[0].strip()
    message = words_of(response)
    kind = _KINDS.get(word)
    if kind is None:
        kind = kind_of(response.status)
    elif word == "ThrottlingException" and "per day" in message:
        kind = WalletEmpty  # "Too many tokens per day": waiting does not help today
    elif word == "AccessDeniedException" and "PAYMENT" in message:
        kind = WalletEmpty
    elif word == "ValidationException" and FILTERED.search(message):
        kind = InputModerated
    elif word == "ValidationException" and _MISSING.search(message):
        kind = ModelMissing
    return failure_of(kind, response, message=message)


def never_begun(response: HttpResponse) -> ProviderFailure:
    """The same of a job: a 5xx does not say that nothing was begun. The same token again finds out."""
    failure = read_refusal(response)
    is_open = response.status >= 500 or isinstance(failure, JobFailed)
    return failure_of(OutcomeUnknown, response) if is_open else failure
