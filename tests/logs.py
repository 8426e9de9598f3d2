"""What was logged of connections, without who each is with."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

# An id, and the address of the peer where there is one.
_match_prefix = re.compile(r"[0-9a-f]{8} (?:\S+:[0-9]+ )?").match


def plain(record: logging.LogRecord) -> str:
    """Return a line without its prefix."""
    text = record.getMessage()
    prefix = _match_prefix(text)
    return text[prefix.end() :] if prefix else text


def told(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return the records, but for those of each connection that opens and closes."""
    return [
        record
        for record in caplog.records
        if not plain(record).startswith(("connection open", "connection closed: "))
    ]


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines of these."""
    return [plain(record) for record in told(caplog)]
