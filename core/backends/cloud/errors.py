"""What a service's refusal means: the error, its exit code, and what to do."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterator
from typing import Any

from ...errors import AuthenticationError, NotFoundError, ReachError, TunedeckError, UsageError
from ...secrets import mask_text
from ...text import counted, strip_controls

_LONGEST = 400

_WORDS = ("error", "message", "msg", "detail", "details", "reason")
"""Where services put what they have to say of a refusal."""

_PAGE = re.compile(r"\s*<(?:!doctype html|html|head|body)\b", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_MARKUP = re.compile(
    r"<(?:style|script)\b.*?</(?:style|script)>|<[^>]*>", re.IGNORECASE | re.DOTALL
)


class Passing(ReachError):
    """A failure that may pass by itself, such as a cut connection or a service that is too busy.

    Args:
        message, fix: as for every error.
        acted: whether the service may have done what it was asked to.
        after_s: how long the service asks to be left alone.
    """

    def __init__(
        self, message: str, *, acted: bool, after_s: float | None = None, fix: str = ""
    ) -> None:
        super().__init__(message, fix=fix)
        self.acted = acted
        self.after_s = after_s
        self.given_up = False
        """Whether it has been tried until no more was to be hoped for."""


class Taken(UsageError):
    """The name of what was to be made is taken: by someone else, or by an earlier attempt."""


def untrusted(what: str, why: str) -> AuthenticationError:
    """The error for a certificate that no authority known here vouches for."""
    return AuthenticationError(
        f"The certificate of {what} is not trusted: {why}",
        fix="Name its authority's certificate: export SSL_CERT_FILE=…",
    )


def refusal(
    service: str,
    status: int,
    answer: str,
    *,
    sign_in: str,
    after_s: float | None = None,
    asked: str = "",
) -> TunedeckError:
    """The error for an HTTP status of 400 and above.

    Args:
        service: the service's name.
        status: the HTTP status.
        answer: the body of its answer.
        sign_in: what to do about a credential that is refused.
        after_s: its Retry-After, in seconds.
        asked: method and path of the request, which tell the permission that is missing.
    """
    said = f"{service} answered {status}: {said_by(_words_of(answer)) or 'without a reason'}"
    if status == 401:
        return AuthenticationError(said, fix=sign_in)
    if status == 403:
        what = f"a permission, for {asked}" if asked else "a permission"
        return AuthenticationError(said, fix=f"The credential lacks {what}. {sign_in}")
    if status == 402:
        return AuthenticationError(said, fix="The account has no credit or no plan for this.")
    if status in (404, 410) and not _PAGE.match(answer):
        return NotFoundError(said)
    minutes = counted(math.ceil((after_s or 0) / 60), "minute")
    again = f"Try again in {minutes if after_s else 'a few minutes'}."
    if status == 429:
        return Passing(said, acted=False, after_s=after_s, fix=again)
    # A page for people is of what stands before the service: it does not know what there is.
    if status in (404, 408, 410) or status >= 500:
        return Passing(said, acted=True, after_s=after_s, fix=again)
    return Taken(said) if status == 409 else UsageError(said)


def said_by(words: str) -> str:
    """A service's words in one line, cut to a length, without secrets or control characters."""
    line = " ".join(strip_controls(mask_text(words)).split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …"


def _words_of(answer: str) -> str:
    """What an answer says: of JSON its message, of a page its title or else its text."""
    if _PAGE.match(answer):
        title = _TITLE.search(answer)
        return html.unescape(title[1] if title else _MARKUP.sub(" ", answer))
    try:
        said = json.loads(answer)
    except ValueError:
        return answer
    return "; ".join(dict.fromkeys(_told(said)))


def _told(said: Any) -> Iterator[str]:
    """The texts of an answer: those under the names that services have for them, or else all."""
    if isinstance(said, list):
        for item in said:
            yield from _told(item)
    elif isinstance(said, dict):
        parts = said.get("loc")  # FastAPI's place of the field that is wrong
        place = ".".join(map(str, parts)) if isinstance(parts, list) else ""
        for value in [said[key] for key in _WORDS if said.get(key)] or said.values():
            yield from (f"{place}: {text}" if place else text for text in _told(value))
    elif said is not None:
        yield str(said)
