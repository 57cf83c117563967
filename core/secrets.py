"""Which names and values are secret, and how text is shown without them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

MASK = "********"
"""What is shown in the place of a secret."""

WORDS = frozenset({"KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL"})
"""A name with one of these as a whole word is a secret's: HF_TOKEN, not TOKENIZERS_PARALLELISM."""

_BETWEEN_WORDS = re.compile(r"[_\-.\s]+")
_ANY_WORD = "|".join(sorted(WORDS))
_SECRET_NAME = rf"(?:[A-Za-z0-9]+[_-])*(?:{_ANY_WORD})(?:[_-][A-Za-z0-9]+)*(?![A-Za-z0-9_-])"

_TOKEN = re.compile(
    r"\bhf_[A-Za-z0-9]{20,}"  # Hugging Face
    r"|\bnvapi-[\w-]{20,}"  # NVIDIA
    r"|\b(?:sk|pk|rk)-[\w-]{20,}"  # OpenAI and those who took the form over
    r"|\b(?:ghp|gho|ghu|ghs|ghr)_[A-Za-z0-9]{30,}|\bgithub_pat_\w{30,}"  # GitHub
    r"|\bglpat-[\w-]{20,}"  # GitLab
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"  # AWS
    r"|\bxox[abposr]-[\w-]{10,}"  # Slack
    r"|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{5,}"  # a JSON web token
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
_URL_PASSWORD = re.compile(r"(?<=://)[^/\s:@\"']*:[^/\s@\"'$]+(?=@)")
_VALUE = (
    r"(?P<value>\"\"\"(?:[^\"]|\"(?!\"\"))*(?:\"\"\"|$)|'''(?:[^']|'(?!''))*(?:'''|$)"
    r"|\"(?:[^\"\\]|\\.)*(?:\"|$)|'[^']*(?:'|$)|[^\s,;&|\"')}\]]+)"
)
_IN_SHELL = re.compile(rf"(?<![A-Za-z0-9_-])(?P<name>{_SECRET_NAME})(?P<is>=){_VALUE}")
_IN_TOML = re.compile(
    rf"(?<![A-Za-z0-9_-])(?P<name>{_SECRET_NAME})(?P<is>[\"']?\s*=\s*){_VALUE}", re.IGNORECASE
)
_REFERENCE = re.compile(r"[\"']*\\?\$")
_DEFAULT = re.compile(r"\$\{\s*oc\.env\s*:[^,{}]*,\s*(?P<default>[^${}]+)\}")


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether a variable or key of that name holds a secret."""
    return any(word in WORDS for word in _BETWEEN_WORDS.split(name.upper()))


@lru_cache(maxsize=4096)
def holds_secret(text: str) -> bool:
    """Whether text shows a secret: a token's form, `SOME_TOKEN=…`, a password in a URL."""
    if _TOKEN.search(text) or _URL_PASSWORD.search(text):
        return True
    return any(not _is_harmless(match["value"]) for match in _IN_SHELL.finditer(text))


def literal_in(value: Any) -> str | None:
    """What a secret's value says in clear: itself, or the default of its `${oc.env:NAME,…}`.

    None for a reference and for nothing at all.
    """
    text = "" if value is None else str(value)
    if "${" not in text:
        return text if text.strip() else None
    default = _DEFAULT.search(text)
    bare = default["default"].strip().strip("\"'") if default else ""
    return bare if bare and bare != "null" else None


def shows_secret(value: Any) -> bool:
    """Whether a value that is no secret by its own name holds one all the same."""
    if isinstance(value, str):
        return holds_secret(value)
    if isinstance(value, list | Mapping):
        return holds_secret(str(value)) or bool(literals_of({"": value}))
    return False


def secret_texts(env_file: Mapping[str, Any]) -> frozenset[str]:
    """All that an env file holds in clear: under secret names, and under those it calls secrets."""
    called: set[str] = set()
    for profile in env_file.values():
        names = profile.get("secrets", []) if isinstance(profile, Mapping) else []
        listed = names if isinstance(names, list) else [names]
        called.update(name for name in listed if isinstance(name, str))
    return literals_of(env_file, frozenset(called))


def literals_of(
    table: Mapping[str, Any], called_secret: frozenset[str] = frozenset()
) -> frozenset[str]:
    """All that is written in clear under secret names, at any depth; each line apart."""
    found: set[str] = set()
    stack: list[tuple[bool, Any]] = [(False, table)]
    while stack:
        secret, value = stack.pop()
        if isinstance(value, Mapping):
            stack.extend(
                (secret or is_secret_name(key) or key in called_secret, item)
                for key, item in value.items()
            )
        elif isinstance(value, list):
            stack.extend((secret, item) for item in value)
        elif secret and (literal := literal_in(value)):
            found.update(line for line in literal.splitlines() if len(line.strip()) > 3)
    return frozenset(found)


def mask_text(text: str, values: frozenset[str] = frozenset()) -> str:
    """Text with `values`, and everything else that looks like a secret's value, masked.

    References to environment variables stay: they tell where a value comes from.
    """
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, MASK)
    text = _TOKEN.sub(MASK, text)
    text = _URL_PASSWORD.sub(MASK, text)
    return _IN_TOML.sub(_masked_assignment, text)


def _is_harmless(value: str) -> bool:
    bare = value.strip("\"'")
    return bare in ("", "…") or MASK in value or bool(_REFERENCE.match(value))


def _masked_assignment(match: re.Match[str]) -> str:
    if _is_harmless(match["value"]):
        return match[0]
    quote = match["value"][0] if match["value"][0] in "\"'" else ""
    return f"{match['name']}{match['is']}{quote}{MASK}{quote}"
