"""Chat data to tokens and loss masks, without torch: one code for trainer, inspector and wizard."""

from .check import Truncation, check_dataset
from .fingerprint import rows_fingerprint
from .inspector import InspectedRow, InspectedToken, inspect_row, inspect_rows
from .masks import Mask, Notes, TokenizedChat, tokenize_chat, tokenize_rows
from .reading import SourceRow, count_rows, iter_rows, scan_rows
from .report import DataReport, LengthBin, Refused
from .rows import Message, Row, RowError, to_messages, to_tools
from .sources import DataSpec, Source, find_sources
from .splits import Split, parse_split
from .templates import Rendered
from .tokenizer import (
    ChatTokenizer,
    Encoding,
    folder_templates,
    open_chat_tokenizer,
    resolve_templates,
    wrap_tokenizer,
)
from .verdict import data_findings

__all__ = [
    "ChatTokenizer",
    "DataReport",
    "DataSpec",
    "Encoding",
    "InspectedRow",
    "InspectedToken",
    "LengthBin",
    "Mask",
    "Message",
    "Notes",
    "Refused",
    "Rendered",
    "Row",
    "RowError",
    "Source",
    "SourceRow",
    "Split",
    "TokenizedChat",
    "Truncation",
    "check_dataset",
    "count_rows",
    "data_findings",
    "find_sources",
    "folder_templates",
    "inspect_row",
    "inspect_rows",
    "iter_rows",
    "open_chat_tokenizer",
    "parse_split",
    "resolve_templates",
    "rows_fingerprint",
    "scan_rows",
    "to_messages",
    "to_tools",
    "tokenize_chat",
    "tokenize_rows",
    "wrap_tokenizer",
]
