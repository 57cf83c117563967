"""Completion in bash, whose readline takes `key=value` apart at the `=`."""

from __future__ import annotations

import os

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    split_arg_string,
)

_SOURCE = """\
%(complete_func)s() {
    local IFS=$'\\n' response completion type value
    response=$(env COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete $1)
    for completion in $response; do
        IFS=',' read -r type value <<< "$completion"
        if [[ $type == dir ]]; then
            compopt -o dirnames
        elif [[ $type == file ]]; then
            compopt -o default
        else
            COMPREPLY+=("$value")
        fi
    done
    if [[ ${COMPREPLY[0]} == *= ]]; then
        compopt -o nospace
    fi
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class WholeWords(BashComplete):
    """Reads the words off the line itself, and offers what readline puts behind its last break."""

    source_template = _SOURCE

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the cursor's, and as much of that as stands before the cursor."""
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)[1:]
        if not words or line.endswith((" ", "\t")):
            return words, ""
        return words[:-1], words[-1]

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        """As click's, without what stands before the last `=` or `:` of an unquoted word."""
        offered = super().get_completions(args, incomplete)
        before = os.environ["COMP_LINE"].removesuffix(incomplete)
        if before.endswith(('"', "'")):
            return offered
        breaks = set(os.environ.get("COMP_WORDBREAKS", "")) & {"=", ":"}
        end = max((incomplete.rfind(mark) + 1 for mark in breaks), default=0)
        return [
            CompletionItem(item.value.removeprefix(incomplete[:end]), type=item.type)
            for item in offered
        ]


def install() -> None:
    """Complete in bash by this in place of click's own."""
    add_completion_class(WholeWords, "bash")
