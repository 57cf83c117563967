"""A tokenizer with its chat template, from a folder or around one that is already loaded."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import UsageError
from .rows import Message
from .templates import PASSTHROUGH, ChatTemplate, Rendered
from .turns import TurnFinder

if TYPE_CHECKING:
    import tokenizers

_TOOL_TEMPLATE = "tool_use"
_DAMAGED = "Fetch the tokenizer again, or name another one with tokenizer.name."


class Encoding(NamedTuple):
    """Token ids, and the start and end character of each token in the text."""

    ids: list[int]
    offsets: list[tuple[int, int]]


class ChatTokenizer:
    """Renders conversations and encodes the text, special tokens recognized and none added.

    Args:
        tokenizer: the tokenizer; a copy is kept, without truncation, padding and post-processing.
        templates: Jinja texts by name: `default`, and `tool_use` for rows with tools.
        special_tokens: the named tokens (`bos_token`, `eos_token`, `pad_token`, …).
        chat_template_kwargs: further variables for the template.

    Attributes:
        bos_id: the id of the token a text begins with, if it has one.
        eos_id: the id of the token a text ends with, if it has one.
        pad_id: the id to pad with, that of `eos_token` where there is no `pad_token`.

    Raises:
        UsageError: a template is not valid Jinja.
    """

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        templates: Mapping[str, str],
        *,
        special_tokens: Mapping[str, str],
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        from tokenizers.processors import ByteLevel

        self._tokenizer = copy.deepcopy(tokenizer)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # No special token is ever added here, and post-processors that trim offsets would move a
        # header's line break into the turn that follows it.
        self._tokenizer.post_processor = ByteLevel(trim_offsets=False)
        self.special_tokens = dict(special_tokens)
        self.bos_id = self._id("bos_token")
        self.eos_id = self._id("eos_token")
        pad_id = self._id("pad_token")
        self.pad_id = self.eos_id if pad_id is None else pad_id
        added = self._tokenizer.get_added_tokens_decoder().values()
        specials = {token.content for token in added if token.special}
        specials |= {token for name, token in special_tokens.items() if name == "eos_token"}
        variables = {**special_tokens, **(chat_template_kwargs or {})}
        self._finders = {
            name: TurnFinder(ChatTemplate(source, variables), tuple(specials))
            for name, source in templates.items()
        }

    def _id(self, name: str) -> int | None:
        token = self.special_tokens.get(name)
        return None if token is None else self._tokenizer.token_to_id(token)

    @property
    def chat_template(self) -> str:
        """The default template's Jinja text."""
        return self.finder(None).template.source

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids at which generation ends: `eos_token`, and the token that ends a turn."""
        stop = self.finder(None).shape.stop
        turn = self._tokenizer.token_to_id(stop) if stop else None
        return tuple(dict.fromkeys(id for id in (self.eos_id, turn) if id is not None))

    def finder(self, tools: list[dict[str, Any]] | None) -> TurnFinder:
        """What finds the turns under the template for rows with, or without, tools."""
        name = _TOOL_TEMPLATE if tools and _TOOL_TEMPLATE in self._finders else "default"
        return self._finders[name]

    @property
    def size(self) -> int:
        """How many tokens there are, added ones among them."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        tools: list[dict[str, Any]] | None = None,
    ) -> Rendered:
        """The conversation as text, equal to transformers' `apply_chat_template(tokenize=False)`.

        Raises:
            RowError: the template refuses the conversation.
        """
        return self.finder(tools).template.render(
            messages, add_generation_prompt=add_generation_prompt, tools=tools
        )

    def encode(self, text: str) -> Encoding:
        """Token ids and character offsets of a text."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return Encoding(encoding.ids, encoding.offsets)

    def encode_batch(self, texts: Sequence[str]) -> list[tokenizers.Encoding]:
        """The library's own encodings, made on all cores; offsets are computed only when asked."""
        return self._tokenizer.encode_batch(texts, add_special_tokens=False)

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of token ids."""
        return self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)


def open_chat_tokenizer(
    folder: str | Path,
    *,
    chat_template: str | None = "default",
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> ChatTokenizer:
    """Open the tokenizer of a model folder, without transformers.

    Args:
        folder: holds `tokenizer.json`, `tokenizer_config.json` and, mostly, a chat template.
        chat_template: `default` for the folder's own, None for passthrough (the contents joined),
            the path of a `.jinja` file, or a template inline.
        chat_template_kwargs: variables for the template, as `tokenizer.chat_template_kwargs`.

    Raises:
        UsageError: the folder holds no usable tokenizer or template.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UsageError(
            f"There is no tokenizer folder '{folder}'.",
            fix="Give the folder of a model; a hub id is downloaded first, where the run is.",
        )
    tokenizer = _load(folder / "tokenizer.json")
    config = _settings(folder)
    templates = resolve_templates(chat_template, folder_templates(folder))
    return ChatTokenizer(
        tokenizer,
        templates,
        special_tokens=_special_tokens(config),
        chat_template_kwargs=chat_template_kwargs,
    )


def wrap_tokenizer(
    tokenizer: tokenizers.Tokenizer,
    *,
    special_tokens: Mapping[str, str],
    own_template: str | Mapping[str, str] | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> ChatTokenizer:
    """Build a chat tokenizer around one that is loaded, as from transformers' fast tokenizers.

    Args:
        tokenizer: `backend_tokenizer`; it is copied and left as it is.
        special_tokens: `special_tokens_map`.
        own_template: the tokenizer's `chat_template`, one text or several by name.
        chat_template_kwargs: variables for the template.

    Raises:
        UsageError: there is no usable template.
    """
    own = {"default": own_template} if isinstance(own_template, str) else dict(own_template or {})
    return ChatTokenizer(
        tokenizer,
        resolve_templates("default", own),
        special_tokens=special_tokens,
        chat_template_kwargs=chat_template_kwargs,
    )


def resolve_templates(chat_template: str | None, own: Mapping[str, str]) -> dict[str, str]:
    """The templates that `tokenizer.chat_template` asks for, by name.

    Args:
        chat_template: None, `default`, the path of a `.jinja` file, or inline Jinja.
        own: the tokenizer's own templates by name.

    Raises:
        UsageError: the file is missing, the text is no template, or the tokenizer has none.
    """
    if chat_template is None:
        return {"default": PASSTHROUGH}
    if chat_template == "default":
        if "default" not in own:
            raise UsageError(
                "The tokenizer has no chat template.",
                fix="Set tokenizer.chat_template to a .jinja file, to a template inline, "
                "or to null, which joins the messages' contents as they are.",
            )
        return dict(own)
    if chat_template.endswith(".jinja"):
        return {"default": _read(Path(chat_template).expanduser())}
    if "{{" not in chat_template and "{%" not in chat_template:
        raise UsageError(
            f"tokenizer.chat_template '{chat_template[:60]}' is neither a .jinja file nor Jinja.",
            fix="Set it to 'default', to null, to a .jinja file, or to a template inline.",
        )
    return {"default": chat_template}


def folder_templates(folder: Path) -> dict[str, str]:
    """The templates of a tokenizer's folder by name: files first, then `tokenizer_config.json`.

    Raises:
        UsageError: a template file cannot be read.
    """
    files = {"default": folder / "chat_template.jinja"}
    extra = sorted((folder / "additional_chat_templates").glob("*.jinja"))
    files |= {file.stem: file for file in extra}
    found = {name: _read(file) for name, file in files.items() if file.is_file()}
    if found:
        return found
    settings = _settings(folder) | _json(folder / "chat_template.json")
    entry = settings.get("chat_template")
    if isinstance(entry, str):
        return {"default": entry}
    named = entry if isinstance(entry, list) else []
    return {item["name"]: item["template"] for item in named}


def _settings(folder: Path) -> dict[str, Any]:
    return _json(folder / "special_tokens_map.json") | _json(folder / "tokenizer_config.json")


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Named tokens; each is a text, or an object that holds it as `content`."""
    tokens: dict[str, str] = {}
    for name, value in config.items():
        content = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(content, str):
            tokens[name] = content
    return tokens


def _load(file: Path) -> tokenizers.Tokenizer:
    import tokenizers

    if not file.is_file():
        raise UsageError(
            f"The folder '{file.parent}' has no tokenizer.json.",
            fix="Make one with transformers: "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER).",
        )
    try:
        return tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise UsageError(f"'{file}' is not a tokenizer: {error}.", fix=_DAMAGED) from error


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(_read(file))
    except ValueError as error:
        raise UsageError(f"'{file}' is not valid JSON: {error}.", fix=_DAMAGED) from error
    return content if isinstance(content, dict) else {}


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"'{file}' cannot be read: {error.strerror}.",
            fix="Check tokenizer.chat_template, where that names the file, and tokenizer.name.",
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"'{file}' is not UTF-8 text.", fix=_DAMAGED) from error
