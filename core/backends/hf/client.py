"""huggingface_hub, called so that nothing waits for ever and every failure says what to do.

Its calls block, so each runs in a thread.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .... import __version__
from ...errors import UsageError
from ..cloud.http import ANSWER_S, Service, client_for
from ..cloud.retry import persist
from .apart import apart
from .meaning import SERVICE, SIGN_IN, meaning

if TYPE_CHECKING:
    from huggingface_hub import HfApi

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

        client_for(self.endpoint, ANSWER_S)  # the library has no words for a proxy that is none
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


def _require(name: str, function: Callable[..., Any], given: dict[str, Any]) -> None:
    known = inspect.signature(function).parameters
    if missing := [option for option in given if option not in known]:
        raise _too_old(f"has no {', '.join(missing)} in {name}")


def _too_old(what: str) -> UsageError:
    from huggingface_hub import __version__ as version

    return UsageError(f"The installed huggingface_hub {version} {what}.", fix=UPGRADE)
