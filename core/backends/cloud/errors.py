"""What a service's refusal means: the error, its exit code, and what to do."""

from __future__ import annotations

from ...errors import AuthenticationError, NotFoundError, ReachError, TunedeckError, UsageError
from ...secrets import mask_text
from ...text import strip_controls

_LONGEST = 400


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


def refusal(
    service: str, status: int, words: str, *, sign_in: str, after_s: float | None = None
) -> TunedeckError:
    """The error for an HTTP status of 400 and above.

    Args:
        service: the service's name.
        status: the HTTP status.
        words: what the service said.
        sign_in: what to do about a credential that is refused.
        after_s: its Retry-After, in seconds.
    """
    said = f"{service} answered {status}: {said_by(words) or 'without a reason'}"
    if status == 401:
        return AuthenticationError(said, fix=sign_in)
    if status == 403:
        return AuthenticationError(said, fix=f"The credential lacks a permission. {sign_in}")
    if status == 402:
        return AuthenticationError(said, fix="The account has no credit or no plan for this.")
    if status in (404, 410):
        return NotFoundError(said)
    if status == 429:
        return Passing(said, acted=False, after_s=after_s, fix="Try again in a few minutes.")
    if status == 408 or status >= 500:
        return Passing(said, acted=True, after_s=after_s, fix="Try again in a few minutes.")
    return Taken(said) if status == 409 else UsageError(said)


def said_by(words: str) -> str:
    """A service's words in one line, cut to a length, without secrets or control characters."""
    line = " ".join(strip_controls(mask_text(words)).split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …"
