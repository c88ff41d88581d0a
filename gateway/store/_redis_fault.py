"""What went wrong with a server, in words for whoever runs it. Raises StoreUnavailable at most, decides nothing."""

from __future__ import annotations

import os
import re
import ssl

from redis import exceptions

from gateway.contract.errors import StoreUnavailable
from gateway.contract.wording import printable

# The first words of a server's own refusals. What else stands there is a script's.
_SAID = {
    "BUSY": "is busy with a script that does not end",
    "CLUSTERDOWN": "is part of a cluster that is down: some of its slots have no primary",
    "CROSSSLOT": "was asked for keys of several slots at once",
    "DENIED": "is in protected mode and accepts loopback only",
    "ERR": "refused",
    "EXECABORT": "refused",
    "LOADING": "is still reading its data from its disk",
    "MASTERDOWN": "is a replica that has lost its primary",
    "MISCONF": "cannot write to its disk",
    "NOAUTH": "wants a password",
    "NOPERM": "does not allow this user what is needed (ACL)",
    "NOREPLICAS": "has fewer replicas than it needs to accept a write",
    "NOSCRIPT": "has forgotten a script that was just loaded",
    "OOM": "is out of memory (maxmemory)",
    "READONLY": "is a replica: only its primary can be written",
    "TRYAGAIN": "is moving these keys to another node",
    "UNKILLABLE": "is busy with a script that does not end",
    "WRONGPASS": "does not accept user and password",
    "WRONGTYPE": "holds something else under one of our keys",
}
# What whoever configured us can do about it.
_REMEDIES = {
    "DENIED": "let it listen with a password, and set [store] password",
    "NOAUTH": "set [store] password",
    "NOPERM": "allow it every command on the keys and channels that begin with [store] prefix, and INFO",
    "WRONGPASS": "correct [store] username and password",
    "WRONGTYPE": "choose another [store] prefix",
}
MOVED, ASK, TRYAGAIN, NOSCRIPT = "MOVED", "ASK", "TRYAGAIN", "NOSCRIPT"  # not done, to be asked again
# The connection that brought these is of no use any more: the next one may lead to another server.
FATAL = frozenset({"READONLY", "NOAUTH", "WRONGPASS", "MASTERDOWN", "LOADING"})
HOPELESS = frozenset({"NOAUTH", "WRONGPASS", "NOPERM", "DENIED"})  # until somebody acts

# Before version 7 what a script stumbled over stands in the middle of the text.
_WITHIN = re.compile(rf"-({'|'.join(sorted(_SAID))}|MOVED|ASK) ")
_WORD = re.compile(r"[A-Z][A-Z_]*")


class Unreachable(StoreUnavailable):
    """No connection is to be had, so that nothing was sent. `is_hopeless`: nor will it be before somebody acts."""

    def __init__(self, text: str, *, is_hopeless: bool = False) -> None:
        super().__init__(text)
        self.is_hopeless = is_hopeless


def word_of(error: exceptions.RedisError) -> tuple[str, str]:
    """The first word of an error reply, and the rest; ("", text) if it is none."""
    code, text = error.status_code or "", str(error)
    if not code:
        code, _, text = text.partition(" ")
    if _WORD.fullmatch(code) is None:
        return "", str(error)
    if code == "ERR":
        found = _WITHIN.search(text)
        if found is not None:
            return found[1], text[found.end() :]
        if "script" in text and "NOSCRIPT" in text:
            return NOSCRIPT, text
    return code, text


def is_servers_own(word: str) -> bool:
    return word in _SAID


def describe(place: str, word: str, text: str) -> str:
    """`redis at host:port`, what is the matter with it, and behind a semicolon what to do."""
    said = _SAID.get(word, "refused")
    about = f": {printable(text)}" if word not in ("NOAUTH", "WRONGPASS", "LOADING") and text else ""
    remedy = f"; {_REMEDIES[word]}" if word in _REMEDIES else ""
    return f"redis at {place} {said}{about}{remedy}"


def describe_loss(place: str, error: BaseException) -> str:
    """Why a connection broke, or never came about."""
    if isinstance(error, exceptions.RedisError):
        word, text = word_of(error)
        if word in _SAID:
            return describe(place, word, text)
    if isinstance(error, TimeoutError | exceptions.TimeoutError):
        return f"redis at {place} does not answer"
    if isinstance(error, exceptions.InvalidResponse | ValueError | RecursionError | UnicodeError):
        return f"what is at {place} does not speak Redis' protocol: {printable(str(error))}"
    if isinstance(error, exceptions.ConnectionError) and "closed" in str(error).lower():
        return f"redis at {place} closed the connection"
    return f"redis at {place} cannot be reached: {_reason(error)}"


def _reason(error: BaseException) -> str:
    """What the system said, below what libraries made of it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted ({printable(seen.verify_message)})"
        if isinstance(seen, OSError) and seen.errno is not None:
            said = os.strerror(seen.errno) if seen.errno > 0 else seen.strerror
            return printable(said or str(seen))
        seen = seen.__cause__ or seen.__context__
    return printable(str(error))
