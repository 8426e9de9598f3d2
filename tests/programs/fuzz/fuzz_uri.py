"""Fuzz URIs, of servers and of proxies, and where a Location leads.

    python tests/programs/fuzz/fuzz_uri.py -max_total_time=60

Whatever is taken can go into a request, parses again as itself, and shows no user
information; whatever isn't is the error that is documented.
"""

from __future__ import annotations

import re
import sys

import atheris

with atheris.instrument_imports(include=["trio_ws._protocol"]):
    from trio_ws._protocol.errors import InvalidProxy, InvalidURI
    from trio_ws._protocol.uri import (
        WebSocketURI,
        build_host,
        parse_proxy,
        parse_uri,
        redirected,
    )

BASES = [
    parse_uri("wss://user:geheim@example.com/a/b?c"),
    parse_uri("ws://[fe80::1%25eth0]:8080"),
]
TEMPLATES = ["{}", "ws://{}", "wss://{}/", "ws://a:b@{}", "ws://a/{}", "http://{}"]

_fits_a_request = re.compile(r"[\x21-\x7e]+").fullmatch


def check(uri: WebSocketURI) -> None:
    assert uri.host
    assert uri.host == uri.host.lower() or "%" in uri.host
    assert 1 <= uri.port <= 65535
    host = build_host(uri.host, uri.port, secure=uri.secure)
    for sent in host, uri.resource_name:
        assert _fits_a_request(sent), sent
    assert uri.resource_name.startswith("/")
    assert "#" not in uri.resource_name
    assert str(uri).isprintable()
    scheme = "wss" if uri.secure else "ws"
    brackets = f"[{uri.host}]" if ":" in uri.host else uri.host
    again = parse_uri(f"{scheme}://{brackets}:{uri.port}{uri.resource_name}")
    assert again.origin == uri.origin
    assert again.resource_name == uri.resource_name


def test_one_input(data: bytes) -> None:
    if len(data) < 2:
        return
    text = data[1:].decode("utf-8", "surrogateescape")
    text = TEMPLATES[data[0] % len(TEMPLATES)].format(text)
    try:
        check(parse_uri(text))
    except InvalidURI as exc:
        assert str(exc).isprintable()
    try:
        proxy = parse_proxy(text.replace("ws://", "http://"))
        assert _fits_a_request(proxy.host)
        assert 1 <= proxy.port <= 65535
    except InvalidProxy as exc:
        assert str(exc).isprintable()
    location = data[1:].decode("iso-8859-1")
    for base in BASES:
        try:
            target = redirected(base, location)
        except InvalidURI as exc:
            assert str(exc).isprintable()
            continue
        check(target)
        if target.origin == base.origin:
            assert (target.username, target.password) == (base.username, base.password)
        else:
            assert target.username is target.password is None


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
