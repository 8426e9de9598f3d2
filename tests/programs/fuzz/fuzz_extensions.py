"""Fuzz Sec-WebSocket-Extensions and -Protocol, and what is agreed by them.

    python tests/programs/fuzz/fuzz_extensions.py -max_total_time=60

Whatever comes is parsed or an InvalidHandshake; what is parsed and built again is the
same; both sides of what is agreed can talk.
"""

from __future__ import annotations

import sys
from contextlib import suppress

import atheris

with atheris.instrument_imports(include=["trio_ws._protocol"]):
    from trio_ws._protocol.errors import InvalidHandshake, NegotiationError
    from trio_ws._protocol.extensions.base import ExtensionParameter, Frame
    from trio_ws._protocol.extensions.deflate import (
        NAME,
        ClientPerMessageDeflateFactory,
        ServerPerMessageDeflateFactory,
    )
    from trio_ws._protocol.handshake.fields import (
        build_extensions,
        parse_connection,
        parse_extensions,
        parse_subprotocols,
        parse_upgrade,
    )

MESSAGE = b"as long as it takes, " * 20
BITS = [None, 8, 9, 12, 15]


def talk(one: object, other: object) -> None:
    """Send twice, so that the second may refer to the first."""
    for _ in range(2):
        frame = one.encode(Frame(2, MESSAGE))  # type: ignore[attr-defined]
        assert other.decode(frame).data == MESSAGE  # type: ignore[attr-defined]


def client_of(flags: int) -> ClientPerMessageDeflateFactory:
    bits: list[int | bool | None] = [*BITS, True]
    return ClientPerMessageDeflateFactory(
        server_no_context_takeover=flags & 1 == 1,
        client_no_context_takeover=flags & 2 == 2,
        server_max_window_bits=BITS[flags % len(BITS)],
        client_max_window_bits=bits[flags % len(bits)],
    )


def server_of(flags: int) -> ServerPerMessageDeflateFactory:
    return ServerPerMessageDeflateFactory(
        server_no_context_takeover=flags & 1 == 1,
        client_no_context_takeover=flags & 2 == 2,
        server_max_window_bits=BITS[flags % len(BITS)],
        client_max_window_bits=BITS[flags // 2 % len(BITS)],
    )


def negotiate(flags: int, offer: list[ExtensionParameter]) -> None:
    try:
        answer, server = server_of(flags).process_request_params(offer, [])
    except NegotiationError:
        return
    known = {name for name, _ in offer}
    names = {name for name, _ in answer}
    assert "client_max_window_bits" not in names - known  # RFC 7692, section 7.1.2.2
    assert ("server_no_context_takeover" in known) <= (
        "server_no_context_takeover" in names
    )
    for name, value in answer:
        limit = dict(offer).get(name)
        if value is not None and limit is not None:
            assert int(value) <= int(limit)
    # A client that has made this offer.
    made = dict(offer)
    bits = {name: int(value) for name, value in offer if value is not None}
    client = ClientPerMessageDeflateFactory(
        server_no_context_takeover="server_no_context_takeover" in made,
        client_no_context_takeover="client_no_context_takeover" in made,
        server_max_window_bits=bits.get("server_max_window_bits"),
        client_max_window_bits=bits.get(
            "client_max_window_bits", "client_max_window_bits" in made or None
        ),
    )
    assert sorted(client.get_request_params()) == sorted(offer)
    extension = client.process_response_params(answer, [])
    talk(extension, server)
    talk(server, extension)


def test_one_input(data: bytes) -> None:
    if len(data) < 2:
        return
    flags, text = data[0], data[1:].decode("iso-8859-1")
    for parse in parse_connection, parse_upgrade, parse_subprotocols:
        with suppress(InvalidHandshake):
            items = parse(text)
            assert items
            assert parse(", ".join(items)) == items
    try:
        extensions = parse_extensions(text)
    except InvalidHandshake as exc:
        assert str(exc).isprintable()
        return
    assert parse_extensions(build_extensions(extensions)) == extensions
    for name, params in extensions:
        if name == NAME:
            negotiate(flags, params)
            with suppress(NegotiationError):
                agreed = client_of(flags).process_response_params(params, [])
                agreed.encode(Frame(2, MESSAGE))


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
