"""Which proxy connect() uses: the arguments, the environment, the system."""

from __future__ import annotations

import base64
import os
import sys
import threading
import urllib.request
from typing import Any

import pytest
import trio

from tests.client.test_proxy import HOST, Socks, answering, proxying
from tests.handlers import echo
from trio_ws import InvalidProxy, InvalidProxyStatus, connect, open_server
from trio_ws._client.proxy_choice import ProxyChoice, is_excepted


@pytest.mark.parametrize(
    ("secure", "found", "used"),
    [
        (False, {}, None),
        (True, {"http_proxy": "http"}, None),
        (False, {"http_proxy": "http"}, "http"),
        (False, {"http_proxy": "http", "https_proxy": "https"}, "https"),
        (True, {"HTTPS_PROXY": "https", "all_proxy": "all"}, "https"),
        (False, {"ws_proxy": "ws", "socks_proxy": "s", "wss_proxy": "wss"}, "ws"),
        (True, {"ws_proxy": "ws", "socks_proxy": "s", "wss_proxy": "wss"}, "wss"),
        (True, {"all_proxy": "all", "no_proxy": "other.test"}, "all"),
        (True, {"all_proxy": "all", "no_proxy": ".test"}, None),
        (True, {"all_proxy": "all", "no_proxy": "server.test:443"}, None),
        (True, {"all_proxy": "all", "no_proxy": "*"}, None),
    ],
)
async def test_which_is_used(
    secure: bool,
    found: dict[str, str],
    used: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of these names stands for a proxy of its own, told by its user name."""

    async def refuse(host: str, *_: object, **__: object) -> Any:
        raise ConnectionRefusedError(host)

    monkeypatch.setattr("trio_ws._client.dialer.open_tcp", refuse)
    async with proxying(answering(b"HTTP/1.1 403 No\r\n\r\n")) as proxy:
        for name, user in found.items():
            value = user if name == "no_proxy" else proxy.url(user=f"{user}:x@")
            monkeypatch.setenv(name, user if name == "no_proxy" else value)
        uri = f"{'wss' if secure else 'ws'}://server.test/"
        if used is None:
            with pytest.raises(ConnectionRefusedError, match=r"server\.test"):
                async with connect(uri):
                    pass
            assert proxy.heads == []
        else:
            with pytest.raises(InvalidProxyStatus):
                async with connect(uri):
                    pass
            credentials = base64.b64encode(f"{used}:x".encode())
            assert b"Basic " + credentials + b"\r\n" in proxy.heads[0]


async def test_settings_of_a_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """They say http:// of SOCKS proxies; what is excepted may take time to say."""
    asked: list[threading.Thread] = []

    def bypass(_: str) -> int:
        asked.append(threading.current_thread())
        return 0

    monkeypatch.setattr("trio_ws._client.proxy_choice._SYSTEM_SETTINGS", True)
    async with open_server(echo, 0, host=HOST) as target:
        socks = Socks(target.port)
        async with proxying(socks.play) as proxy:
            settings = {"socks": proxy.url()}
            monkeypatch.setattr(urllib.request, "getproxies", lambda: settings)
            monkeypatch.setattr(urllib.request, "proxy_bypass", bypass)
            async with connect("ws://server.test/") as ws:
                await ws.send("x")
                assert await ws.recv() == "x"
    assert socks.asked == [b"\5\1\0\3\x0bserver.test\0\x50"]
    assert threading.current_thread() not in asked


async def test_settings_of_a_system_that_except_a_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def bypass(host: str) -> int:
        asked.append(host)
        return 1

    monkeypatch.setattr("trio_ws._client.proxy_choice._SYSTEM_SETTINGS", True)
    settings = {"http": "http://nobody.test"}
    monkeypatch.setattr(urllib.request, "getproxies", lambda: settings)
    monkeypatch.setattr(urllib.request, "proxy_bypass", bypass)
    choice = ProxyChoice(True, None)
    assert await choice.proxy_for("::1", 80, secure=False) is None
    assert asked == ["[::1]:80"]


async def test_an_environment_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "user:secret@x:1")
    with pytest.raises(InvalidProxy) as caught:
        async with connect("ws://server.test/"):
            pass
    assert "secret" not in str(caught.value) + repr(caught.value)
    notes = ["all_proxy in the environment", "choosing a proxy"]
    assert caught.value.__notes__ == notes


async def test_an_environment_that_wants_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOCKS_PROXY", "http://x:1")
    monkeypatch.setitem(sys.modules, "python_socks", None)
    with pytest.raises(ImportError, match="trio_ws") as caught:
        async with connect("ws://server.test/"):
            pass
    notes = ["socks_proxy in the environment", "choosing a proxy"]
    assert caught.value.__notes__ == notes


@pytest.mark.parametrize(
    ("found", "used"),
    [
        ({"HTTP_PROXY": "http://upper", "http_proxy": "http://lower"}, "lower"),
        ({"HTTP_PROXY": "http://upper", "http_proxy": ""}, None),
        ({"HTTP_PROXY": "http://upper"}, "upper"),
        ({"HTTP_PROXY": "http://upper", "REQUEST_METHOD": "GET"}, None),
        ({"http_proxy": "http://lower", "REQUEST_METHOD": "GET"}, "lower"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="names of variables have no case there")
async def test_variables_in_both_cases(
    found: dict[str, str], used: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_ws._client.proxy_choice._SYSTEM_SETTINGS", False)
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    chosen = await ProxyChoice(True, None).proxy_for("server.test", 80, secure=False)
    assert (chosen and chosen.host) == used


@pytest.mark.parametrize(
    ("entry", "excepted", "not_excepted"),
    [
        ("", [], ["a", "127.0.0.1", "localhost"]),
        ("example.com", ["example.com", "example.com."], ["xample.com"]),
        ("example.com", ["a.example.com"], ["example.com.test"]),
        (".example.com", ["example.com", "a.b.example.com"], ["anexample.com"]),
        ("*.Example.com.", ["example.com", "a.example.com."], ["anexample.com"]),
        ("a.test, b.test", ["a.test", "b.test"], ["c.test"]),
        ("a.test b.test", ["a.test", "b.test"], ["a.test.b"]),
        ("a.test,*", ["anything", "10.0.0.1", "::1"], []),
        (",., *.", [], ["a", "10.0.0.1"]),
        ("a.test:81,b.test:80", ["b.test"], ["a.test"]),
        ("10.0.0.0/8", ["10.255.0.1", "10.0.0.1."], ["11.0.0.1", "10.test", "::1"]),
        ("10.1.2.3/8,", ["10.0.0.1"], ["11.0.0.1"]),
        ("10.0.0.1", ["10.0.0.1"], ["210.0.0.1", "10.0.0.10"]),
        ("0.1", [], ["10.0.0.1"]),
        ("10.0.0.1:80,10.0.0.2:81", ["10.0.0.1"], ["10.0.0.2"]),
        ("fd00::/8", ["fd12::1", "fd12::1%lo"], ["fe80::1", "10.0.0.1"]),
        ("[fd00::]/8", ["fd12::1"], ["fe80::1"]),
        ("::1", ["::1", "0:0::1"], ["::2", "a"]),
        ("[::1]", ["::1"], ["::2"]),
        ("[::1]:80,[::2]:81", ["::1"], ["::2"]),
        ("10.0.0.0/99", [], ["10.0.0.1"]),
    ],
)
def test_no_proxy(entry: str, excepted: list[str], not_excepted: list[str]) -> None:
    assert [host for host in excepted if not is_excepted(entry, host, 80)] == []
    assert [host for host in not_excepted if is_excepted(entry, host, 80)] == []


IMPORTS = """
import sys, trio, trio_ws

async def main():
    loop = []

    class Importing:
        def find_spec(self, name, path=None, target=None):
            if name.startswith(("urllib.request", "python_socks")):
                if threading.get_ident() == here:
                    loop.append(name)

    import threading
    here = threading.get_ident()
    sys.meta_path.insert(0, Importing())
    try:
        async with trio_ws.connect("ws://127.0.0.1:1/"):
            pass
    except OSError:
        pass
    print(loop)

trio.run(main)
"""


@pytest.mark.parametrize(
    "environment", [{"no_proxy": "x"}, {"all_proxy": "socks5h://127.0.0.1:1"}]
)
@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="asks the system")
async def test_nothing_slow_is_imported_on_the_loop(
    environment: dict[str, str],
) -> None:
    ran = await trio.run_process(
        [sys.executable, "-c", IMPORTS],
        env=os.environ | environment,
        capture_stdout=True,
    )
    assert ran.stdout.strip() in (b"[]", b"['python_socks']")


async def test_none_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "http://nobody.test")
    async with open_server(echo, 0, host=HOST) as target:
        uri = f"ws://{HOST}:{target.port}/"
        async with connect(uri, proxy=None):
            pass
        stream = await trio.open_tcp_stream(HOST, target.port)
        async with connect(uri, stream=stream):
            pass
