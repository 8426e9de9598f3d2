"""Runs the snippets of the documentation; the build and the tests share it.

A snippet is a script in docs/snippets. It runs in a process of its own, in a
fixed environment, and what it prints is shown with addresses, names of
connections, paths and latencies replaced, so that two builds give the same page.

The part of it that the documentation shows stands between two comments,
``# shown:`` and ``# end``; without them it is the whole script. Where a snippet
names the port 8765, _peer.py listens there while it runs (on a free port, really).
"""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1]
SNIPPETS = DOCS / "snippets"
PORT = "8765"

# A hang fails the build; no snippet needs more than a second.
TIMEOUT = 60


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a snippet ended."""

    code: int
    output: str


@dataclasses.dataclass(frozen=True)
class Use:
    """A ``run`` directive in a page."""

    page: str
    name: str
    expect: tuple[str, ...]
    exit: int


def run(name: str) -> Outcome:
    """Run a snippet; return its exit code and all that it printed, normalised."""
    text = (SNIPPETS / name).read_text(encoding="utf-8")
    if PORT not in text:
        return _run(SNIPPETS / name)
    with tempfile.TemporaryDirectory() as folder, _peer() as port:
        path = Path(folder, name)
        path.write_text(text.replace(PORT, port), encoding="utf-8")
        return _run(path)


def _run(path: Path) -> Outcome:
    done = subprocess.run(
        [sys.executable, "-W", "error", path],
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIMEOUT,
        check=False,
        encoding="utf-8",
    )
    output = done.stdout.replace(f"{path.parent}{os.sep}", "")
    return Outcome(done.returncode, normalised(output))


@contextmanager
def _peer() -> Iterator[str]:
    """Run the server of the snippets; yield its port."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", SNIPPETS / "_peer.py"],
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()  # it may be stopped


def problems(use: Use, outcome: Outcome) -> list[str]:
    """Tell in what the outcome isn't what the text around it relies on."""
    found = []
    if outcome.code != use.exit:
        found.append(f"exit code {outcome.code}, expected {use.exit}")
    missing = [line for line in use.expect if line not in outcome.output]
    found += [f"not in the output: {line!r}" for line in missing]
    if found:
        found = [f"{use.page}, {use.name}: {what}" for what in found]
        found.append(f"its output:\n{outcome.output}")
    return found


def shown(name: str) -> str:
    """Return the part of a snippet that the documentation shows."""
    text = (SNIPPETS / name).read_text(encoding="utf-8")
    part = re.search(r"^# shown:\n+(.*?)\n+^# end$", text, re.MULTILINE | re.DOTALL)
    return (part[1] if part else text.strip()) + "\n"


def uses() -> list[Use]:
    """Return the ``run`` directives of all pages."""
    found = []
    for page in sorted(DOCS.glob("*.rst")):
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(
            r"^( *)\.\. run:: (\S+)\n((?:\1   .*\n)*)", text, re.MULTILINE
        ):
            body = textwrap.dedent(match[3])
            expect = re.search(r"^:expect: (.*(?:\n +.*)*)", body, re.MULTILINE)
            code = re.search(r"^:exit: (\d+)", body, re.MULTILINE)
            found.append(
                Use(
                    page.name,
                    match[2],
                    lines(expect[1]) if expect else (),
                    int(code[1]) if code else 0,
                )
            )
    return found


def lines(text: str) -> tuple[str, ...]:
    """Return the lines of an option that has several, stripped."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _environment() -> dict[str, str]:
    # Not what coverage hands on: with it, they take half as long again.
    passed = ("PATH", "SYSTEMROOT", "TMPDIR")
    kept = {name: os.environ[name] for name in passed if name in os.environ}
    return kept | {
        "PYTHONPATH": str(DOCS.parent),
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
        "TERM": "dumb",
    }


# What differs from run to run, with what stands for the first, the second, ...
_PORTS = ("8765", "50001", "50002", "50003", "50004")
_IDS = ("7d0c23a1", "e95b10f4", "41a8c7d2", "c63f9e05")
_PAYLOADS = ("'k3Xp'", "'T9wa'", "'0mQe'", "'Zr6B'")
_VALUES = {
    r"latency [\d.]+ ms": "latency 0.4 ms",
    # Those of RFC 6455, section 1.3.
    r"(?<=Sec-WebSocket-Key: )\S+": "dGhlIHNhbXBsZSBub25jZQ==",
    r"(?<=Sec-WebSocket-Accept: )\S+": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    r"(?<=Date: ).+ GMT": "Mon, 30 Nov 2026 12:00:00 GMT",
    r"(?<=\")[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}": (
        "7d0c23a1-1c9e-4d0b-9b7e-2f6a5c8e4d10"
    ),
}


def normalised(text: str) -> str:
    """Replace what differs from run to run and from machine to machine."""
    text = re.sub(r'File "[^"]*/(?:site-packages|lib/python[0-9.]+)/', 'File "', text)
    text = text.replace(f"{DOCS.parent}{os.sep}", "")
    text = re.sub(r"(127\.0\.0\.1(?:', |:))(\d+)", _names(_PORTS), text)
    text = re.sub(
        r"()\b([0-9a-f]{8})(?= (?:[<>] |latency |closed |lost:|127\.0\.0\.1:))",
        _names(_IDS),
        text,
    )
    text = re.sub(r"((?:PING|PONG) )('\w{4}')(?= \[4 bytes\])", _names(_PAYLOADS), text)
    for pattern, value in _VALUES.items():
        text = re.sub(pattern, value, text)
    return text


def _names(names: tuple[str, ...]) -> Callable[[re.Match[str]], str]:
    """Name what group 2 holds, in the order in which it comes."""
    known: dict[str, str] = {}

    def name(match: re.Match[str]) -> str:
        thing = match[2]
        if thing not in known:
            known[thing] = names[len(known)]
        return match[1] + known[thing]

    return name
