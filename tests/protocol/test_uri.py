"""URIs: what is parsed, what is refused, what a redirect makes of them."""

from __future__ import annotations

import traceback
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.uri import parse_uri as peer_parse_uri

from trio_ws._protocol.errors import InvalidURI
from trio_ws._protocol.uri import (
    WebSocketURI,
    build_host,
    parse_host,
    parse_uri,
    redirected,
    without_secrets,
)


@pytest.mark.parametrize(
    ("uri", "parsed"),
    [
        ("ws://localhost/", WebSocketURI(False, "localhost", 80, "/", "")),
        ("wss://localhost/", WebSocketURI(True, "localhost", 443, "/", "")),
        ("ws://localhost", WebSocketURI(False, "localhost", 80, "", "")),
        ("ws://localhost?a=b", WebSocketURI(False, "localhost", 80, "", "a=b")),
        ("WSS://LocalHost:/p", WebSocketURI(True, "localhost", 443, "/p", "")),
        ("ws://a_b.test:8765/p?q", WebSocketURI(False, "a_b.test", 8765, "/p", "q")),
        (
            "ws://h/%C3%A9%2f?a=%20/?",
            WebSocketURI(False, "h", 80, "/%C3%A9%2f", "a=%20/?"),
        ),
        ("ws://127.0.0.1:1/", WebSocketURI(False, "127.0.0.1", 1, "/", "")),
        ("ws://[::1]:65535/", WebSocketURI(False, "::1", 65535, "/", "")),
        ("wss://[2001:DB8::1]", WebSocketURI(True, "2001:db8::1", 443, "", "")),
        ("ws://[fe80::1%25eth0]/", WebSocketURI(False, "fe80::1%eth0", 80, "/", "")),
        ("ws://u:p@h/", WebSocketURI(False, "h", 80, "/", "", "u", "p")),
        ("ws://:@h/", WebSocketURI(False, "h", 80, "/", "", "", "")),
        ("ws://a%40b:c%3A%2F@h/", WebSocketURI(False, "h", 80, "/", "", "a@b", "c:/")),
        ("ws://u:p:q@h/", WebSocketURI(False, "h", 80, "/", "", "u", "p:q")),
        ("ws://%C3%A9:\xe9@h/", WebSocketURI(False, "h", 80, "/", "", "\xe9", "\xe9")),
    ],
)
def test_valid(uri: str, parsed: WebSocketURI) -> None:
    assert parse_uri(uri) == parsed


def test_iri() -> None:
    assert parse_uri("wss://m\xfcller.example/\xe9{a}%20?\u4f60=|") == WebSocketURI(
        True,
        "xn--mller-kva.example",
        443,
        "/%C3%A9%7Ba%7D%20",
        "%E4%BD%A0=%7C",
    )


@pytest.mark.parametrize(
    ("name", "host"),
    [
        # IDNA 2003 makes strasse.example of it, which is another's
        ("STRA\xdfE.example", "xn--strae-oqa.example"),
        ("\u03b2\u03cc\u03bb\u03bf\u03c2.example", "xn--nxasmm1c.example"),
        ("M\xdcLLER.example.", "xn--mller-kva.example."),
        ("\uff11\uff12\uff17.0\u30020.1", "127.0.0.1"),
        ("a" * 63 + "." + "b" * 63, "a" * 63 + "." + "b" * 63),
        ("a." * 126 + "a.", "a." * 126 + "a."),
        ("[2001:DB8::1]", "2001:db8::1"),
        ("FE80::1%Eth0", "fe80::1%Eth0"),
    ],
)
def test_host_alone(name: str, host: str) -> None:
    assert parse_host(name) == host
    in_uri = f"[{name}]" if name.startswith("FE80") else name
    assert parse_uri(f"wss://{in_uri}:8080/").host == host


@pytest.mark.parametrize(
    ("uri", "resource_name"),
    [
        ("ws://h", "/"),
        ("ws://h?", "/"),
        ("ws://h?a", "/?a"),
        ("ws://h/b/?a", "/b/?a"),
    ],
)
def test_resource_name(uri: str, resource_name: str) -> None:
    assert parse_uri(uri).resource_name == resource_name


@pytest.mark.parametrize(
    ("uri", "msg"),
    [
        ("", "scheme isn't ws or wss"),
        ("localhost", "scheme isn't ws or wss"),
        ("ws:/localhost", "scheme isn't ws or wss"),
        ("http://localhost/", "scheme isn't ws or wss"),
        ("ws:///path", "hostname isn't provided"),
        ("ws://:80/", "hostname isn't provided"),
        ("ws://h/#", "fragment identifier is meaningless"),
        ("ws://h/?a#b", "fragment identifier is meaningless"),
        ("ws://h:x/", "expected host, host:port"),
        ("ws://a:1:2/", "expected host, host:port"),
        ("ws://::1/", "expected host, host:port"),
        ("ws://[::1]x/", "expected host, host:port"),
        ("ws://[::1/", "expected host, host:port"),
        ("ws://[::g]/", "expected an IPv6 address"),
        ("ws://[1.2.3.4]/", "expected an IPv6 address"),
        ("ws://[]/", "expected an IPv6 address"),
        ("ws://[fe80::1%25a/b]/", "expected host, host:port"),
        ("ws://[fe80::1%25a$b]/", "expected an IPv6 address"),
        ("ws://h:0/", "expected a port from 1 to 65535"),
        ("ws://h:65536/", "expected a port from 1 to 65535"),
        ("ws://h:" + "1" * 5000, "expected a port from 1 to 65535"),
        ("ws://a%20b/", "expected a host name"),
        ("ws://a\\b/", "expected a host name"),
        ("ws://a..b/", "expected a host name"),
        ("ws://" + "a" * 64 + "/", "expected a host name"),
        ("ws://" + "a." * 128 + "/", "expected a host name"),
        ("ws://" + "\xe9" * 5000 + "/", "expected a host name"),
        # U+2100 is a/c to IDNA
        ("ws://evil.test\u2100.example/", "expected a host name"),
        ("ws://./", "expected a host name"),
        ("ws://.a/", "expected a host name"),
        ("ws://" + "a." * 126 + "aa/", "expected a host name"),
        ("ws://" + "\xe9" * 60 + "/", "expected a host name that IDNA 2008"),
        ("ws://\u2603.example/", "expected a host name that IDNA 2008"),
        ("ws://-\xe9.example/", "expected a host name that IDNA 2008"),
        ("ws://user@h/", "username provided without password"),
        ("ws://u%3Ax:p@h/", "expected no colon in the username"),
        ("ws://u:%ff@h/", "expected UTF-8"),
        ("ws://u:%0d%0a@h/", "expected no control characters in username"),
        ("ws://%00:p@h/", "expected no control characters in username"),
    ],
)
def test_invalid(uri: str, msg: str) -> None:
    with pytest.raises(InvalidURI) as caught:
        parse_uri(uri)
    assert caught.value.msg.startswith(msg)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "bad", ["\r", "\n", "\0", "\t", " ", "\x7f", "\x85", "\xa0", "\u2028", "\ud800"]
)
@pytest.mark.parametrize(
    "template",
    [
        *["{}ws://u:p@h:80/a?b", "w{}s://u:p@h:80/a?b", "ws://u{}:p@h:80/a?b"],
        *["ws://u:p{}@h:80/a?b", "ws://u:p@h{}h:80/a?b", "ws://u:p@h:8{}0/a?b"],
        *["ws://u:p@h:80/a{}?b", "ws://u:p@h:80/a?b{}", "ws://u:p@h:80/a?b#{}"],
    ],
)
def test_spaces_and_control_characters(template: str, bad: str) -> None:
    with pytest.raises(InvalidURI, match="expected no spaces") as caught:
        parse_uri(template.format(bad))
    text = str(caught.value)
    assert bad == " " or bad not in text
    assert f"U+{ord(bad):04X} at {template.index('{')}" in text


@pytest.mark.parametrize(
    "uri",
    [
        *["ws://user:s3cret@h:0/", "ws://user:s3/cret@h/", "ws://user:s3#cret@h/"],
        *["ws://user:s3?cret@h/", "ws://user:s3@cret@[/", "http://user:s3cret@h/"],
        *["user:s3cret@h", "ws:user:s3cret@h", "wss://s3cret@h", "ws://u:s3cret%ff@h/"],
        *["ws://user:s3 cret@h/", "ws://user:s3\x00cret@h/", "s3cret://@"],
    ],
)
def test_no_password_in_an_error(uri: str) -> None:
    with pytest.raises(InvalidURI) as caught:
        parse_uri(uri)
    shown = "".join(traceback.format_exception_only(caught.value)) + repr(caught.value)
    assert "s3" not in shown
    assert "cret" not in shown
    assert "***@" in shown
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "uri",
    [
        *["http://h/?s3cret", "//h/a?s3cret", "ws://h:x/?a=s3cret", "ws://h?s3cret#"],
        *["ws://h/#s3cret", "wss://h/a?b#s3cret", "ws://h/#a\ns3cret"],
    ],
)
def test_no_query_or_fragment_in_an_error(uri: str) -> None:
    with pytest.raises(InvalidURI, match=r"[?#]\*\*\*") as caught:
        parse_uri(uri)
    assert "s3cret" not in repr(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("HTTP 503; got /a/b", "HTTP 503; got /a/b"),
        ("what? and why/how? no", "what? and why/how? no"),
        ("https://u:p@h:1/a?b#c: no", "https://***@h:1/a?*** no"),
        ("'wss://h?b=1&c=2' // d?e", "'wss://h?*** // d?e"),
        ("at /a?b=/c?d, at ws://x@h/?", "at /a?*** at ws://***@h/?"),
        ("/a#b", "/a#***"),
    ],
)
def test_without_secrets(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_no_password_in_the_representation() -> None:
    assert "s3cret" not in repr(parse_uri("ws://user:s3cret@h/"))


def test_wrong_type() -> None:
    with pytest.raises(TypeError, match="expected a str; got bytes"):
        parse_uri(cast(str, b"ws://h/"))


@given(st.text())
def test_any_text_raises_nothing_but_invalid_uri(text: str) -> None:
    for uri in (text, f"ws://{text}", f"ws://h/{text}", f"ws://{text}:{text}@h:{text}"):
        try:
            parsed = parse_uri(uri)
        except InvalidURI as exc:
            shown = str(exc)
        else:
            shown = f"{parsed.host}{parsed.resource_name}"
            assert shown.isascii()
            assert 1 <= parsed.port <= 65535
        assert shown.isprintable()


@given(st.characters(max_codepoint=255).map(str) | st.text(max_size=20), st.text())
def test_any_location_raises_nothing_but_invalid_uri(char: str, text: str) -> None:
    text = text.encode("iso-8859-1", "replace").decode("iso-8859-1")
    char = char.encode("iso-8859-1", "replace").decode("iso-8859-1")
    uri = parse_uri("wss://u:secret@example.com:444/a?b")
    for location in (char, text, f"//{text}", f"http://h{char}/{text}", f"//[{text}"):
        try:
            target = redirected(uri, location)
        except InvalidURI as exc:
            shown = str(exc)
        else:
            shown = target.resource_name
            assert shown.isascii()
            assert target.origin == uri.origin or target.username is None
        assert shown.isprintable()
        assert "secret" not in shown


def test_a_redirect_keeps_what_no_location_says() -> None:
    uri = parse_uri("ws://u:p@[fe80::1%25eth0]:81/a/b?c")
    for location in (
        "",
        "?c",
        "b?c",
        "ws://[FE80::1]:81/a/b?c",
        "//[fe80::1]:81/a/b?c#d",
    ):
        assert redirected(uri, location) == uri
    assert redirected(uri, "ws://v:q@[fe80::1]:81/") == WebSocketURI(
        False, "fe80::1%eth0", 81, "/", "", "u", "p"
    )
    assert redirected(uri, "ws://v:q@h/").username is None
    for other in ("ws://[fe80::1]/", "wss://[fe80::1]:81/", "ws://[fe80::2]:81/"):
        target = redirected(uri, other)
        assert "%" not in target.host
        assert target.username is None


LABELS = st.text("abc019-", min_size=1, max_size=5)


@given(
    st.sampled_from(["ws", "wss"]),
    st.sampled_from(["", "u:p@", "u%2F:%C3%A9@"]),
    st.lists(LABELS, min_size=1).map(".".join),
    st.sampled_from(["", ":80", ":443", ":8765"]),
    st.text("a/%.~!$&'()*+,;=:@-_").map("/{}".format) | st.just(""),
    st.just("") | st.text("a/%.?~!$&'()*+,;=:@-_").map("?{}".format),
)
def test_same_as_websockets(
    scheme: str, userinfo: str, host: str, port: str, path: str, query: str
) -> None:
    uri = f"{scheme}://{userinfo}{host}{port}{path}{query}"
    ours, theirs = parse_uri(uri), peer_parse_uri(uri)
    assert ours.resource_name == theirs.resource_name
    for name in ("secure", "host", "port", "path", "query", "username", "password"):
        assert getattr(ours, name) == getattr(theirs, name)


@pytest.mark.parametrize(
    ("host", "port", "secure", "header"),
    [
        ("example.com", 80, False, "example.com"),
        ("example.com", 80, True, "example.com:80"),
        ("example.com", 443, True, "example.com"),
        ("127.0.0.1", 8765, False, "127.0.0.1:8765"),
        ("::1", 80, False, "[::1]"),
        ("fe80::1%eth0", 8765, False, "[fe80::1]:8765"),
    ],
)
def test_host(host: str, port: int, secure: bool, header: str) -> None:
    assert build_host(host, port, secure=secure) == header
