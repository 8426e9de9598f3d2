"""trio-ws demo: serves the page until a signal ends it."""

from __future__ import annotations

import argparse
from functools import partial

from ... import serve
from ..notes import Note, Status
from ..server import serve_until_signal
from .page import Pages
from .site import Site

# Of what a page says.
_MAX_SIZE = 2**10


async def run_demo(arguments: argparse.Namespace, note: Note) -> Status:
    """Run ``trio-ws demo``; return its exit code.

    **Cancellation** as of serve().
    """
    start = partial(
        serve,
        Pages().handle,
        arguments.port,
        host=arguments.host,
        process_request=Site(arguments.host).process_request,
        max_size=_MAX_SIZE,
    )
    return await serve_until_signal(start, arguments, note, "the demo is at http")
