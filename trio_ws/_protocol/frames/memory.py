"""The memory of large messages: which sizes are handled how, and malloc's habits."""

from __future__ import annotations

import functools
from contextlib import suppress

from . import masking

# A payload of at least this size isn't copied behind its header.
SPLIT_SIZE = 16 * 1024

# What is larger is masked as it goes out, in pieces of this size: each is still in the
# processor's cache when the socket takes it, and the same memory serves them all.
PIECE_SIZE = 128 * 1024


@functools.cache
def keep_memory(bits: int) -> None:
    """Have malloc keep what is freed of messages of about so many bits of size.

    The malloc of glibc gives a large block back to the system when it is freed, and
    takes it anew, page by page, for the next message, which costs several times what
    receiving does. It stops doing so once a still larger block, of up to 32 MiB, has
    been freed: so one is allocated and freed here.
    """
    with suppress(MemoryError):
        masking.blank(min(4 << bits, 2**25 - 2**16))
