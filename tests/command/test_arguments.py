from __future__ import annotations

import pytest

from trio_ws import __version__
from trio_ws._command.arguments import parse


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Parse what is wrong; return what is said of it, which is one line."""
    with pytest.raises(SystemExit) as caught:
        parse(argv)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.endswith(" -h\n")
    return err


def test_connect() -> None:
    arguments = parse(
        [
            *("connect", "ws://a/", "-H", "A: b:c", "--header", "A:", "-b", "-v"),
            *("--subprotocol", "x", "--subprotocol", "y", "--origin", "http://a"),
            *("--ping-interval", "0", "--timeout", "2.5", "--max-size", "7"),
            *("--wait", "inf", "--reconnect", "--no-proxy"),
        ]
    )
    assert arguments.header == [("A", "b:c"), ("A", "")]
    assert arguments.subprotocol == ["x", "y"]
    assert arguments.ping_interval is None
    assert arguments.timeout == 2.5
    assert arguments.max_size == 7
    assert arguments.wait == float("inf")
    assert arguments.proxy is None
    assert parse(["connect", "ws://a/", "--max-size", "0"]).max_size is None
    assert parse(["connect", "ws://a/"]).proxy is True
    assert parse(["connect", "ws://a/", "--proxy", "http://b"]).proxy == "http://b"


def test_serve() -> None:
    arguments = parse(["serve"])
    assert (arguments.port, arguments.host) == (8765, "127.0.0.1")
    arguments = parse(["serve", "0", "--tls", "a", "b", "--host", "::"])
    assert (arguments.port, arguments.tls) == (0, ["a", "b"])


def test_demo() -> None:
    arguments = parse(["demo"])
    assert (arguments.port, arguments.host) == (8765, "127.0.0.1")
    arguments = parse(["demo", "0", "--host", "::1", "-v"])
    assert (arguments.port, arguments.host, arguments.verbose) == (0, "::1", True)


@pytest.mark.parametrize(
    ("argv", "what"),
    [
        ([], "required: COMMAND"),
        (["connect"], "required: URI"),
        (["connect", "ws://a", "--ping-interval=-1"], "0 or more"),
        (["connect", "ws://a", "--timeout", "inf"], "0: no limit"),
        (["connect", "ws://a", "--wait", "nan"], "0 or more"),
        (["connect", "ws://a", "--wait", "soon"], "0 or more"),
        (["connect", "ws://a", "--max-size", "1K"], "0: no limit"),
        (["connect", "ws://a", "--max-size", "9" * 20], "up to 18 digits; 0: no limit"),
        (["connect", "ws://a", "-1", "--reconnect"], "not allowed with"),
        (["serve", "65536"], "from 0 to 65535"),
        (["serve", "-p"], "unknown: -p;"),
        (["serve", "http"], "from 0 to 65535"),
        (["serve", "--tls", "a"], "expected 2 arguments"),
        (["demo", "65536"], "from 0 to 65535"),
        (["demo", "--broadcast"], "unknown: --broadcast;"),
        (["ws://a/"], "trio-ws connect URI"),
    ],
)
def test_wrong_usage(
    capsys: pytest.CaptureFixture[str], argv: list[str], what: str
) -> None:
    assert what in refused(capsys, *argv)


@pytest.mark.parametrize(
    "argv",
    [
        ["connect", "ws://a", "-H", "secret"],
        ["connect", "ws://a", "-H", "A: secret\r\nB: c"],
        ["connect", "ws://a", "-H", "secret\u20ac: b"],
        ["connect", "ws://a", "--haeder", "A: secret"],
        ["connect", "ws://a", "--haeder=A: secret"],
        ["connect", "ws://a", "A: secret"],
        ["connct", "ws://secret@a/?secret#secret"],
        ["ws://secret:secret@a/?secret"],
        ["x+ws://secret:secret@a/?secret"],
    ],
)
def test_what_is_secret_stays_so(
    capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    assert "secret" not in refused(capsys, *argv)


@pytest.mark.parametrize(
    "argv", [["-h"], ["connect", "--help"], ["serve", "-h"], ["demo", "-h"]]
)
def test_help(capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(argv)
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "exit codes:" in out
    assert max(map(len, out.splitlines())) <= 90


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--version"])
    assert capsys.readouterr().out.startswith(f"trio-ws {__version__}, Python 3.")
