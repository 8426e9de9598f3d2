"""main(): what the command trio-ws runs."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import TextIO, cast

import trio

from .arguments import parse
from .client import run_connect
from .demo.command import run_demo
from .notes import Status, UsageError
from .server import run_serve
from .sinks import Bytes, Lines, Printable, Screen, Sink
from .source import Source


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code.

    Raises SystemExit for wrong usage, --help and --version.
    """
    arguments = parse(sys.argv[1:] if argv is None else argv)
    sink = _sink(arguments)
    try:
        return _run(arguments, sink)
    except UsageError as exc:
        sink.note(str(exc))
        return Status.USAGE
    finally:
        sink.end()


def _run(arguments: argparse.Namespace, sink: Sink) -> Status:
    status = Status.INTERRUPTED
    try:
        if arguments.command != "connect":
            run = {"serve": run_serve, "demo": run_demo}[arguments.command]
            return trio.run(run, arguments, sink.note)
        if arguments.binary and _is_terminal(sys.stdout):
            raise UsageError(
                "--binary writes what a peer sends as it is, which isn't for a "
                "terminal: send stdout to a file or a program"
            )
        source = Source(_raw(sys.stdin), binary=arguments.binary)
        status = trio.run(run_connect, arguments, source, sink)
    except* KeyboardInterrupt:  # in a group, if it met a task
        pass
    if status is Status.INTERRUPTED:
        sink.end()
        sink.note("interrupted")
    return status


def _sink(arguments: argparse.Namespace) -> Sink:
    """Choose how messages are shown."""
    out, err = _raw(sys.stdout), _raw(sys.stderr)
    if arguments.command == "connect" and arguments.binary:
        return Bytes(out, err)
    if not _is_terminal(sys.stdout):
        return Lines(out, err)
    encoding = sys.stdout.encoding
    if arguments.command != "connect" or not _is_terminal(sys.stdin):
        return Printable(out, err, encoding)
    # The console of Windows knows these sequences only if asked to.
    ansi = sys.platform != "win32" and os.environ.get("TERM", "dumb") != "dumb"
    return Screen(out, err, encoding, ansi=ansi)


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def _raw(stream: TextIO | None) -> io.RawIOBase | None:
    """Return the file without a buffer below one of Python's; None if it is closed."""
    if stream is None:
        return None
    # A FileIO, or on Windows what stands for a console. PYTHONUNBUFFERED leaves no
    # buffer around that of stdout.
    return cast(io.RawIOBase, getattr(stream.buffer, "raw", stream.buffer))
