"""The command line: what can be said, and whether it is said well."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from .. import Headers, __version__
from .notes import PROGRAM, Status, masked

DEFAULT_PORT = 8765

_EXIT_CODES = """exit codes:
  0    closed in order; serve, demo: also by Ctrl-C
  1    connect: lost, or closed with a code that is an error
  2    wrong usage; connect: text on stdin that isn't UTF-8
  3    could not connect, or not listen
  130  connect: interrupted by Ctrl-C"""

_CONNECT = """Connect to a WebSocket server, and exchange messages with it.

On a terminal: each line that you type is sent as a message. /ping measures the latency;
a line that is to begin with a slash begins with two. Ctrl-D closes, Ctrl-C at once.

In a pipe: each line of stdin is sent as a text message, each message that comes is a
line on stdout. After the end of stdin the connection is closed once nothing has come
for a second (--wait)."""

_SERVE = """Run a WebSocket server to try things with, which sends each message back.

Ctrl-C or SIGTERM closes all connections and ends it."""

_DEMO = """Serve a page of live connections, with buttons that break them.

Each button does what a network or a peer does, and the page shows what the code on
both sides sees of it. Ctrl-C or SIGTERM ends it."""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, without what could be secret."""

    def error(self, message: str) -> NoReturn:
        self.exit(Status.USAGE, f"{self.prog}: {masked(message)}; see {self.prog} -h\n")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; exit with a message if it is wrong or asks for help."""
    parser = _parser()
    if argv and re.match("wss?://", argv[0]):
        parser.error(f"expected a command before the URI: {PROGRAM} connect URI")
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        # Without their values.
        options = [one.partition("=")[0] for one in unknown if one.startswith("-")]
        what = " ".join(options) or f"{len(unknown)} arguments too many"
        parser.error(f"unknown: {what}")
    return arguments


def _parser() -> _Parser:
    parser = _Parser(
        prog=PROGRAM,
        description="WebSocket client and server for the command line.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_EXIT_CODES,
        allow_abbrev=False,
    )
    # Where somebody asks after a fault, both say something.
    python = ".".join(map(str, sys.version_info[:3]))
    parser.add_argument(
        "--version",
        action="version",
        version=f"{PROGRAM} {__version__}, Python {python}",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, description, add in (
        ("connect", _CONNECT, _add_connect),
        ("serve", _SERVE, _add_serve),
        ("demo", _DEMO, _add_listening),
    ):
        command = commands.add_parser(
            name,
            help=description.partition(".")[0].partition(",")[0],
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=_EXIT_CODES,
            allow_abbrev=False,
        )
        add(command)
        command.add_argument(
            "-v", "--verbose", action="store_true",
            help="show the handshake and each frame on stderr",
        )  # fmt: skip
    return parser


# fmt: off
def _add_connect(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("uri", metavar="URI", help="begins with ws:// or wss://")
    add("-H", "--header", metavar="NAME:VALUE", type=_header, action="append",
        default=[], help="a header of the request; may come several times")
    add("--subprotocol", metavar="NAME", action="append",
        help="to offer, the preferred one first; may come several times")
    add("--origin", help="the Origin header")
    add("--insecure", action="store_true", help="trust any certificate")
    add("--ca", metavar="FILE", help="trust the certificates in this file alone (PEM)")
    add("--cert", metavar="FILE", help="a certificate for this client (PEM)")
    add("--key", metavar="FILE", help="its key, if that isn't in the same file")
    proxies = parser.add_mutually_exclusive_group()
    proxies.add_argument("--proxy", metavar="URL", default=True,
        help="a proxy to go through, in place of the one that the environment names")
    proxies.add_argument("--no-proxy", dest="proxy", action="store_const", const=None,
        help="go through no proxy")
    add("--timeout", metavar="SECONDS", type=_seconds, default=10.0,
        help="for opening; 10 by default, 0: no limit")
    add("--ping-interval", metavar="SECONDS", type=_seconds, default=20.0,
        help="of the keepalive; 20 by default, 0: none")
    add("--max-size", metavar="BYTES", type=_size, default=2**20,
        help="of a message that comes; 1 MiB by default, 0: no limit")
    add("-b", "--binary", action="store_true",
        help="send stdin in chunks, as binary messages, and write the bytes of the "
        "messages that come to stdout, with nothing between them")
    add("-w", "--wait", metavar="SECONDS", type=_wait,
        help="in a pipe, close once nothing has come for so long after the end of "
        "stdin; 1 by default, inf: until the server closes")
    ends = parser.add_mutually_exclusive_group()
    ends.add_argument("-1", "--one-message", action="store_true",
        help="send one message at most, wait for one, however long, and close")
    ends.add_argument("--reconnect", action="store_true",
        help="connect again whenever the connection ends, until stdin does")


def _add_serve(parser: argparse.ArgumentParser) -> None:
    _add_listening(parser)
    add = parser.add_argument
    add("--broadcast", action="store_true",
        help="send each message to all others that are connected, not back")
    add("--directory", metavar="FOLDER",
        help="serve the files of this folder over HTTP, on the same port")
    add("--tls", metavar=("CERT", "KEY"), nargs=2,
        help="serve wss:// with this certificate and its key (PEM)")


def _add_listening(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("port", metavar="PORT", nargs="?", type=_port, default=DEFAULT_PORT,
        help=f"{DEFAULT_PORT} by default, 0: one that is free")
    add("--host", default="127.0.0.1",
        help="the address to listen at; 127.0.0.1 by default, which only this machine "
        "reaches; 0.0.0.0 and :: stand for all")
# fmt: on


# Each says what was expected, and not what came, which could be secret.


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    name, value = name.strip(), value.strip()
    try:
        Headers({name: value})
    except ValueError:
        colon = ""
    if not colon:
        raise argparse.ArgumentTypeError(
            "expected NAME:VALUE, in ASCII, as in 'Accept-Language: en'"
        )
    return name, value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _wait(text: str) -> float:
    seconds = _number(text)
    if not seconds >= 0:  # NaN, too
        raise argparse.ArgumentTypeError("expected a number of seconds, 0 or more")
    return seconds


def _seconds(text: str) -> float | None:
    """Return seconds as trio_ws has them: None for no limit."""
    seconds = _wait(text)
    if seconds == math.inf:
        raise argparse.ArgumentTypeError("expected a number of seconds; 0: no limit")
    return seconds or None


def _size(text: str) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) < 19):  # RFC 6455: 63 bits
        raise argparse.ArgumentTypeError(
            "expected a number of bytes, of up to 18 digits; 0: no limit"
        )
    return int(text) or None


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError("expected a number from 0 to 65535")
    return int(text)
