"""What is refused in YAML before anything is built from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import yaml

MAX_DEPTH = 40  # far beyond any real config, far below where OmegaConf's recursion gives up

_CORE = "tag:yaml.org,2002:"
_HARMLESS_TAGS = (None, "!", f"{_CORE}str")


class ShapeError(ValueError):
    """YAML that is well formed and still no config.

    Attributes:
        message, fix: what is wrong, and what to do.
        line, column: where, from 1.
    """

    def __init__(self, message: str, fix: str, event: yaml.Event) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        mark = event.start_mark
        self.line = mark.line + 1 if mark else None
        self.column = mark.column + 1 if mark else None


def loader() -> type[yaml.SafeLoader]:
    """PyYAML's fastest safe loader."""
    import yaml

    return cast("type[yaml.SafeLoader]", getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def check_shape(text: str, depth: int = MAX_DEPTH) -> None:
    """Refuse nesting that exhausts the stack of those who read it, and tags, which may be code.

    Raises:
        ShapeError: if there is a tag, or it is nested deeper than `depth`.
        yaml.YAMLError: if it is no YAML.
    """
    import yaml

    open_ = 0
    for event in yaml.parse(text, Loader=loader()):
        if isinstance(event, yaml.CollectionStartEvent):
            open_ += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            open_ -= 1
        if open_ > depth:
            raise ShapeError(
                f"It is nested deeper than {depth} levels.",
                "Check the brackets and the indentation.",
                event,
            )
        tag = getattr(event, "tag", None)
        if tag not in _HARMLESS_TAGS:
            raise ShapeError(
                f"It has the tag {tag.replace(_CORE, '!!')}, which configs do not use.",
                "Write plain text, numbers, lists and tables, and quotes around text.",
                event,
            )
