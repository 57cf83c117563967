"""Checks that ask a service, side by side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

from ...errors import AuthenticationError, TunedeckError
from ...findings import Finding, Fix


async def gathered(*checks: AsyncGenerator[Finding], sign_in: str) -> list[Finding]:
    """All findings of all checks; one that fails says so and hides none of the others.

    Args:
        checks: each asks one thing.
        sign_in: what to do about a credential that is refused.
    """
    found = await asyncio.gather(*(_collect(check, sign_in) for check in checks))
    return [finding for findings in found for finding in findings]


async def _collect(findings: AsyncGenerator[Finding], sign_in: str) -> list[Finding]:
    try:
        return [finding async for finding in findings]
    except AuthenticationError as error:
        return [replace(Finding.of(error), fix=Fix(error.fix or sign_in))]
    except TunedeckError as error:
        return [Finding.of(error, "warning")]
