"""huggingface_hub, called so that nothing waits for ever and every failure says what to do.

Its calls block, so each runs in a thread. Version 1 stands on httpx and version 2 on httpx2: their
exceptions are told by name, and neither is imported for it.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .... import __version__
from ...errors import (
    AuthenticationError,
    NotFoundError,
    ReachError,
    TunedeckError,
    UsageError,
)
from ..cloud.errors import Passing, refusal, said_by
from ..cloud.http import ANSWER_S, Service, words_of
from ..cloud.retry import persist, retry_after
from .apart import apart

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SERVICE = "Hugging Face"
SIGN_IN = (
    "Sign in with: hf auth login. Or export HF_TOKEN with a token that may start jobs "
    "(https://huggingface.co/settings/tokens)."
)
_STORAGE = frozenset({"batch_bucket_files", "_batch_bucket_files", "download_bucket_files"})
"""Methods that move files."""

_TRIES_ITSELF = _STORAGE | {"list_jobs", "list_bucket_tree", "get_bucket_paths_info"}
"""Methods that the library tries again by itself, for half a minute: not that long many times."""

UPGRADE = "pip install --upgrade 'huggingface_hub>=1.17,<3'"


class Hub:
    """The client. One endpoint (HF_ENDPOINT) and one credential (HF_TOKEN, or the login)."""

    @cached_property
    def api(self) -> HfApi:
        """The library's client, told to give up on an answer that does not come."""
        from huggingface_hub import HfApi, get_session
        from huggingface_hub.utils import logging

        logging.set_verbosity_error()  # what it tries again it says on stderr
        # The session is the library's own for this process; its default is to wait for ever.
        get_session().timeout = ANSWER_S
        return HfApi(endpoint=self.endpoint, library_name="tunedeck", library_version=__version__)

    @property
    def endpoint(self) -> str:
        """The address of the Hub, without a slash at its end."""
        return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")

    async def call(
        self,
        method: str,
        *args: Any,
        safe: bool = True,
        narrow: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Call a method of the library's client; a list for one that gives its answer by and by.

        Args:
            method: its name.
            args: positional arguments.
            safe: whether it may be called again when its answer was lost.
            narrow: arguments that only narrow an answer. A library that has none of them answers
                with more, which the caller passes over.
            options: keyword arguments; those that are None are left to the library.

        Raises:
            Passing: if the Hub cannot be reached, or what it answers makes no sense.
            AuthenticationError: if the credential is missing or refused.
            NotFoundError, UsageError: if there is no such thing, or the request is refused, or the
                installed library is too old for it.
        """
        function = self._method(method)
        given = {name: value for name, value in options.items() if value is not None}
        _require(method, function, given)
        known = inspect.signature(function).parameters
        given |= {name: value for name, value in (narrow or {}).items() if name in known}

        def work() -> Any:
            from huggingface_hub.utils import disable_progress_bars

            disable_progress_bars()  # each time: some of its methods turn them on as they end
            answer = function(*args, **given)
            return list(answer) if inspect.isgenerator(answer) else answer

        async def attempt() -> Any:
            try:
                return await apart(work)
            except Exception as error:
                if (known := meaning(error, storage=method in _STORAGE)) is None:
                    raise
                raise known from error

        if method in _TRIES_ITSELF:
            return await attempt()
        return await persist(attempt, safe=safe)

    @property
    def version(self) -> str:
        """The library's."""
        from huggingface_hub import __version__ as version

        return version

    def knows(self, method: str, option: str) -> bool:
        """Whether the library's method has an option: features are told by signatures."""
        return option in inspect.signature(self._method(method)).parameters

    def _method(self, name: str) -> Callable[..., Any]:
        method = getattr(self.api, name, None)
        if method is None:
            raise _too_old(f"knows no {name}")
        found: Callable[..., Any] = method
        return found

    @cached_property
    def streams(self) -> Service:
        """The same service for streams: the library's own block a thread and cannot be left."""

        async def headers() -> dict[str, str]:
            from huggingface_hub.utils import build_hf_headers

            built: dict[str, str] = build_hf_headers(
                library_name="tunedeck", library_version=__version__
            )
            return built

        return Service(SERVICE, self.endpoint, headers, SIGN_IN)


def meaning(error: Exception, *, storage: bool = False) -> TunedeckError | None:
    """What an exception of the library means; None for one that is nobody's fault but ours.

    Args:
        error: the exception.
        storage: whether files were being moved, which its storage library (hf_xet) does.
    """
    from huggingface_hub.errors import LocalTokenNotFoundError, OfflineModeIsEnabled

    if isinstance(error, TunedeckError):
        return error
    if isinstance(error, OfflineModeIsEnabled):
        return ReachError(
            "Hugging Face is not asked: HF_HUB_OFFLINE is set.", fix="unset HF_HUB_OFFLINE"
        )
    if isinstance(error, LocalTokenNotFoundError):
        return AuthenticationError("There is no Hugging Face token here.", fix=SIGN_IN)
    kinds = {kind.__name__ for kind in type(error).__mro__}
    response: Any = getattr(error, "response", None)
    # Version 1 lets a few of its methods raise what its HTTP library says of a status.
    if kinds & {"HfHubHTTPError", "HTTPStatusError"} and response is not None:
        return refusal(
            SERVICE,
            response.status_code,
            words_of(str(getattr(error, "server_message", None) or response.text)),
            sign_in=SIGN_IN,
            after_s=retry_after(response.headers),
        )
    if kinds & {"ConnectError", "ConnectTimeout", "PoolTimeout"}:
        return Passing(
            f"Hugging Face cannot be reached: {error}",
            acted=False,
            fix="Check the network, and HF_ENDPOINT if it is set.",
        )
    if kinds & {"TransportError", "TimeoutException"}:
        text = f"The connection to Hugging Face was lost: {error or type(error).__name__}"
        return Passing(text, acted=True)
    if isinstance(error, KeyError) or kinds & {"JSONDecodeError", "DecodingError"}:
        text = f"Hugging Face answered with what makes no sense ({said_by(repr(error))})."
        return Passing(text, acted=True, fix="Check HF_ENDPOINT if it is set.")
    return _of_storage(error) if storage else None


def _of_storage(error: Exception) -> TunedeckError | None:
    """hf_xet raises exceptions of Python's own, or such as are derived from them."""
    said = f"Hugging Face's storage failed: {said_by(str(error))}"
    kind = type(error).__name__
    if kind == "XetAuthenticationError":
        return AuthenticationError(said, fix=SIGN_IN)
    if kind == "XetObjectNotFoundError":
        return NotFoundError(said)
    if isinstance(error, ConnectionError | TimeoutError | RuntimeError):
        return Passing(said, acted=True, fix="Try again: what has been sent or fetched stays.")
    return None


def _require(name: str, function: Callable[..., Any], given: dict[str, Any]) -> None:
    known = inspect.signature(function).parameters
    if missing := [option for option in given if option not in known]:
        raise _too_old(f"has no {', '.join(missing)} in {name}")


def _too_old(what: str) -> UsageError:
    from huggingface_hub import __version__ as version

    return UsageError(f"The installed huggingface_hub {version} {what}.", fix=UPGRADE)
