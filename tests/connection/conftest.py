"""Which modules need a newer trio than the oldest that is supported."""

from __future__ import annotations

from tests.connection.blocks import TRIO_GIVES_UP

collect_ignore = [] if TRIO_GIVES_UP else ["test_abandoned.py"]
