"""What an exception of huggingface_hub means: the error, its exit code, and what to do.

Version 1 stands on httpx and version 2 on httpx2: their exceptions are told by name, and neither is
imported for it.
"""

from __future__ import annotations

from typing import Any

from ...errors import AuthenticationError, NotFoundError, ReachError, TunedeckError
from ..cloud.errors import Passing, refusal, said_by, untrusted
from ..cloud.retry import retry_after

SERVICE = "Hugging Face"
SIGN_IN = (
    "Sign in with: hf auth login. Or export HF_TOKEN with a token that may start jobs "
    "(https://huggingface.co/settings/tokens)."
)


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
            str(getattr(error, "server_message", None) or response.text),
            sign_in=SIGN_IN,
            after_s=retry_after(response.headers),
        )
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return untrusted(SERVICE, said_by(str(error)))
    # All threads share the library's client, which it closes where one of them cannot connect.
    closed = isinstance(error, RuntimeError) and "client has been closed" in str(error)
    if closed or kinds & {"ConnectError", "ConnectTimeout", "PoolTimeout"}:
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
