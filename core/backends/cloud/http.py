"""A service of JSON over HTTPS: requests with retries, streams, and errors that say what to do."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from ...errors import AuthenticationError, UsageError
from .errors import Passing, refusal, untrusted
from .retry import persist, retry_after

if TYPE_CHECKING:
    import httpx

CONNECT_S = 15.0
ANSWER_S = 60.0

_SAFE = {"GET", "HEAD", "PUT", "DELETE"}
"""Methods that are as once when done twice (RFC 9110, 9.2.2)."""

Headers = Callable[[], Awaitable[Mapping[str, str]]]


@dataclass(frozen=True, slots=True)
class Service:
    """One service.

    Attributes:
        name: what to call it in messages.
        base_url: what paths are appended to.
        headers: makes the headers of a request, the credential among them.
        sign_in: what a person does about a credential that is refused.
        renew: gets a new credential; called once when one is refused. Without it none can be had.
    """

    name: str
    base_url: str
    headers: Headers
    sign_in: str
    renew: Callable[[], Awaitable[None]] | None = None

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        safe: bool | None = None,
        read: Callable[[Any], Any] | None = None,
    ) -> Any:
        """Send a request, again where that is safe, and return the answer's JSON (None if empty).

        Args:
            method: of HTTP.
            path: what is asked of, below the base address.
            params: the query.
            body: goes as JSON.
            safe: whether it may be sent again when its answer was lost; by default as the method.
            read: what the JSON comes to; raises `Passing` for what makes no sense.

        Raises:
            Passing: if the service cannot be reached, or answers with what is no JSON.
            AuthenticationError: if it refuses the credential.
            NotFoundError, UsageError: if it knows no such thing, or refuses the request.
        """

        async def attempt() -> Any:
            async with self._client() as client:
                response = await client.request(
                    method, path, params=params, json=body, headers=dict(await self.headers())
                )
            if response.is_error:
                raise self._refusal(response)
            told = self._json(response)
            return told if read is None else read(told)

        again = method in _SAFE if safe is None else safe
        return await persist(lambda: self.with_renewal(attempt), safe=again)

    async def stream(
        self, path: str, *, params: Mapping[str, Any] | None = None, quiet_s: float = ANSWER_S
    ) -> AsyncGenerator[bytes]:
        """The lines of a streamed answer without their newlines, as they come.

        A line that is cut off by the end of the stream is given out only where the stream ended as
        it should; of a cut one it is not, since its rest is still to come.

        Args:
            path: what is asked of, below the base address.
            params: the query.
            quiet_s: how long the stream may say nothing, not even that it is alive.

        Raises:
            Passing: if the stream is cut, or silent for too long.
            AuthenticationError, NotFoundError, UsageError: as for `call`.
        """
        async with self._client(quiet_s) as client:
            request = client.build_request(
                "GET", path, params=params, headers=dict(await self.headers())
            )
            response = await client.send(request, stream=True)
            try:
                if response.is_error:
                    await response.aread()
                    raise self._refusal(response)
                pending = b""
                async for chunk in response.aiter_bytes():
                    *lines, pending = (pending + chunk).split(b"\n")
                    for line in lines:
                        yield line
                if pending:
                    yield pending
            finally:
                await response.aclose()

    async def with_renewal(self, attempt: Callable[[], Awaitable[Any]]) -> Any:
        """Try; where the credential is refused and another can be had, once more with that."""
        try:
            return await attempt()
        except AuthenticationError:
            if self.renew is None:
                raise
        await self.renew()
        return await attempt()

    @asynccontextmanager
    async def _client(self, answer_s: float = ANSWER_S) -> AsyncGenerator[httpx.AsyncClient]:
        """A client for one request, whose failures become errors of ours.

        One for each: a backend outlives the event loops that its calls run in.
        """
        import httpx

        try:
            async with client_for(self.base_url, answer_s) as client:
                yield client
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise untrusted(f"{self.name} at {self.base_url}", _why(error)) from error
            raise Passing(
                f"{self.name} at {self.base_url} cannot be reached: {_why(error)}",
                acted=False,
                fix=f"Check the address and the network{_proxies()}.",
            ) from error
        except httpx.TimeoutException as error:
            text = f"{self.name} at {self.base_url} did not answer in {answer_s:.0f} s."
            raise Passing(text, acted=True) from error
        except httpx.TransportError as error:
            text = f"The connection to {self.name} at {self.base_url} was cut: {_why(error)}"
            raise Passing(text, acted=True) from error

    def _refusal(self, response: httpx.Response) -> Exception:
        return refusal(
            self.name,
            response.status_code,
            response.text,
            sign_in=self.sign_in,
            after_s=retry_after(response.headers),
            asked=f"{response.request.method} {response.request.url.path}",
        )

    def _json(self, response: httpx.Response) -> Any:
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError as error:
            text = f"{self.name} answered {response.status_code} with what is no JSON."
            raise Passing(text, acted=True, fix="Check the address of the service.") from error


def client_for(base_url: str, answer_s: float) -> httpx.AsyncClient:
    """A client that minds the environment's proxies and certificates.

    Raises:
        UsageError: if they, or the address, cannot be used.
    """
    import httpx

    if not base_url.startswith(("https://", "http://")):
        text = f"'{base_url}' is not the address of a service."
        raise UsageError(text, fix="Begin it with https://")
    timeout = httpx.Timeout(answer_s, connect=CONNECT_S)
    try:
        return httpx.AsyncClient(base_url=base_url, timeout=timeout, verify=tls())
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        text = f"The address '{base_url}' or a proxy for it cannot be used: {error}"
        fix = (
            f"Check the address{_proxies()}. A proxy is http://HOST:PORT, or socks5://HOST:PORT "
            "once socksio is installed; NO_PROXY=HOST goes without it."
        )
        raise UsageError(text, fix=fix) from error


@cache
def tls() -> ssl.SSLContext:
    """Verified TLS; reading the certificates takes long enough to do it once.

    Raises:
        UsageError: if the environment names certificates that cannot be read.
    """
    import httpx

    try:
        return httpx.create_ssl_context()
    except OSError as error:
        name = "SSL_CERT_FILE" if os.environ.get("SSL_CERT_FILE") else "SSL_CERT_DIR"
        raise UsageError(
            f"The certificates in {name} ({os.environ.get(name)}) cannot be read: {error}",
            fix=f"Let {name} name certificates of authorities in PEM form, or unset it.",
        ) from error


def _proxies() -> str:
    """The variables that name a proxy, to be looked at as well; their values may hold passwords."""
    named = [name for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
             if os.environ.get(name) or os.environ.get(name.lower())]  # fmt: skip
    return f", and the proxy in {' and '.join(named)}" if named else ""


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__
