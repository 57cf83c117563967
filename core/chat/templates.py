"""Chat templates: compiled once, rendered exactly as transformers' `apply_chat_template` does."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .rows import Message, RowError

if TYPE_CHECKING:
    import jinja2

# Written around what `{% generation %}` encloses and taken out again: unlike counting what has been
# output so far, this holds inside macros and set blocks too. The random part keeps rows from
# holding them.
_OPEN = f"\ufdd0{secrets.token_hex(8)}\ufdd1"
_CLOSE = f"\ufdd2{secrets.token_hex(8)}\ufdd3"
_MARKS = re.compile(f"({_OPEN}|{_CLOSE})")

PASSTHROUGH = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""The template of `chat_template: null`: the contents, joined."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as text.

    Attributes:
        text: what is tokenized; special tokens are written out in it.
        generation_spans: start and end character of each `{% generation %}` block, in order;
            None where the template has none.
    """

    text: str
    generation_spans: tuple[tuple[int, int], ...] | None


class ChatTemplate:
    """A template in the sandbox of transformers, with the variables every rendering gets.

    Args:
        source: Jinja text.
        variables: special tokens by name (`bos_token`, …) and the user's template arguments.

    Raises:
        UsageError: the text is not a valid template.
    """

    def __init__(self, source: str, variables: Mapping[str, Any]) -> None:
        self.source = source
        self.variables = dict(variables)
        self._compiled, self.has_marks = _compile(source)

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        tools: list[dict[str, Any]] | None = None,
    ) -> Rendered:
        """Render a conversation.

        Raises:
            RowError: the template refuses the conversation or fails on it.
        """
        import jinja2

        try:
            text = self._compiled.render(
                messages=[_aliased(message) for message in messages],
                tools=tools,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self.variables,
            )
        except jinja2.TemplateError as error:
            raise _refusal(error.message or type(error).__name__, error) from error
        except Exception as error:  # templates are foreign programs
            raise _refusal(f"{type(error).__name__}: {error}", error) from error
        return _without_marks(text) if self.has_marks else Rendered(text, None)


def _aliased(message: Message) -> Mapping[str, Any]:
    """Reasoning also under the name that gpt-oss templates read, as transformers hands it over."""
    reasoning = message.get("reasoning_content")
    return message if reasoning is None else {"thinking": reasoning, **message}


def _without_marks(text: str) -> Rendered:
    plain: list[str] = []
    spans: list[tuple[int, int]] = []
    length, depth, start = 0, 0, 0
    for piece in _MARKS.split(text):
        if piece == _OPEN:
            start = length if depth == 0 else start
            depth += 1
        elif piece == _CLOSE:
            depth -= 1
            if depth == 0:
                spans.append((start, length))
        else:
            plain.append(piece)
            length += len(piece)
    return Rendered("".join(plain), tuple(spans))


def _refusal(why: str, error: BaseException) -> RowError:
    line = _template_line(error)
    where = f" (line {line} of the template)" if line else ""
    return RowError(
        f"The chat template refuses the conversation: {why.rstrip('.')}{where}.",
        "template",
        fix="Leave such rows out, or set tokenizer.chat_template to one that knows such messages.",
    )


def _template_line(error: BaseException) -> int | None:
    """The line of the template that failed: Jinja puts it in the traceback."""
    line, frame = None, error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == "<template>":
            line = frame.tb_lineno
        frame = frame.tb_next
    return line


def _compile(source: str) -> tuple[jinja2.Template, bool]:
    """Compile in the sandbox; the flag says whether the template has generation marks."""
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    marked = False

    class Generation(Extension):
        def __init__(self, environment: jinja2.Environment) -> None:
            super().__init__(environment)
            self.tags = {"generation"}

        def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
            nonlocal marked
            marked = True
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            call = self.call_method("_mark")
            return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

        def _mark(self, caller: Callable[[], str]) -> str:
            return f"{_OPEN}{caller()}{_CLOSE}"

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    try:
        return environment.from_string(source), marked
    except jinja2.TemplateSyntaxError as error:
        raise UsageError(
            f"The chat template has a syntax error in line {error.lineno}: "
            f"{(error.message or '').rstrip('.')}.",
            fix="Mend the template, or set tokenizer.chat_template to 'default' for the "
            "tokenizer's own.",
        ) from error


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON for models: Jinja's own filter escapes HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> None:
    import jinja2

    raise jinja2.TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)
