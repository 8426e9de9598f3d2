"""WebSocket URIs (RFC 6455, section 3), and those of proxies."""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
import re
import unicodedata
import urllib.parse

from .errors import InvalidProxy, InvalidURI
from .escaping import escape

# RFC 3986, appendix B, for URIs with an authority. Not urllib.parse.urlsplit():
# it drops tabs and line breaks in silence, and its errors show the password.
_match_uri = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*)://"
    r"(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?P<fragment>#.*)?"
).fullmatch

# host [ ":" port ], where an empty port is the default one (RFC 3986, section 3.2)
_match_host_port = re.compile(
    r"(?:\[(?P<ipv6>[^\]]*)\]|(?P<name>[^:\[\]]*))(?::(?P<port>[0-9]*))?"
).fullmatch

# Narrower than reg-name (RFC 3986, section 3.2.2): what names in the DNS and in
# a hosts file look like.
_is_host_name = re.compile(r"[a-z0-9._~\-]+").fullmatch
# RFC 1035, section 2.3.4, as text without the last dot
_MAX_HOST_LENGTH = 253
_MAX_LABEL_LENGTH = 63

# What needs no escaping in a path or a query (RFC 3986, section 3.3): reserved
# characters, and the percent sign of what is escaped already.
_SAFE = ":/?[]@!$&'()*+,;=%"


@dataclasses.dataclass(frozen=True, slots=True)
class WebSocketURI:
    """A WebSocket URI in its parts.

    ``host`` is in lower case (but for an IPv6 zone) and ASCII, an IPv6 address without
    its brackets.
    ``path`` and ``query`` are percent-encoded, ``username`` and ``password``
    decoded: both or neither are None.
    """

    secure: bool
    host: str
    port: int
    path: str
    query: str
    username: str | None = None
    password: str | None = dataclasses.field(default=None, repr=False)

    @property
    def origin(self) -> tuple[bool, str, int]:
        """Scheme, host and port (RFC 6454, section 4)."""
        return self.secure, self.host, self.port

    def __str__(self) -> str:
        """Return it as people may be shown it: what could be secret isn't there."""
        scheme = "wss" if self.secure else "ws"
        host = build_host(self.host, self.port, secure=self.secure)
        return f"{scheme}://{host}{self.path or '/'}"

    @property
    def resource_name(self) -> str:
        """What the request asks for: path and query (RFC 6455, section 3)."""
        path = self.path or "/"
        return f"{path}?{self.query}" if self.query else path


# Each with its port: a SOCKS proxy has that of RFC 1928, section 3.
_PROXY_PORTS = {
    "http": 80,
    "https": 443,
    "socks4": 1080,
    "socks4a": 1080,
    "socks5": 1080,
    "socks5h": 1080,
}


@dataclasses.dataclass(frozen=True, slots=True)
class ProxyURI:
    """The URL of a proxy in its parts, which are as in :class:`WebSocketURI`."""

    scheme: str
    host: str
    port: int
    username: str | None = dataclasses.field(default=None, repr=False)
    password: str | None = dataclasses.field(default=None, repr=False)

    @property
    def is_socks(self) -> bool:
        """Whether it speaks SOCKS, not HTTP."""
        return self.scheme.startswith("socks")

    @property
    def where(self) -> str:
        """Its host and port, as for people."""
        return host_port(self.host, self.port)


def redirected(uri: WebSocketURI, location: str) -> WebSocketURI:
    """Return where a Location header leads from ``uri`` (RFC 9110, section 10.2.2).

    http:// and https:// mean ws:// and wss:// there. User information stays what it
    was within one origin, and is none in another, whatever the Location says; a
    fragment is for nobody here.

    Raises InvalidURI.
    """
    base = "wss" if uri.secure else "ws"
    base += f"://{build_host(uri.host, uri.port, secure=uri.secure)}{uri.resource_name}"
    # Bytes above ASCII are UTF-8, mostly, and were decoded as ISO-8859-1.
    location = "".join(
        char if char.isascii() else f"%{ord(char):02X}" for char in location
    )
    if re.fullmatch(r"[\x21-\x7e]*", location) is None:  # some would just be dropped
        raise InvalidURI(_redact(location), "expected no spaces and no controls")
    try:
        target = urllib.parse.urljoin(base, location).partition("#")[0]
    except ValueError:
        target = location
    found = parse_uri(re.sub(r"^http(s?)://", r"ws\1://", target, flags=re.IGNORECASE))
    here = dataclasses.replace(found, host=uri.host)  # an IPv6 zone is in no Location
    if here.origin == uri.origin and found.host == uri.host.partition("%")[0]:
        return dataclasses.replace(here, username=uri.username, password=uri.password)
    return dataclasses.replace(found, username=None, password=None)


def parse_uri(uri: str) -> WebSocketURI:
    """Parse a ws or a wss URI, or an IRI, which is converted to a URI.

    Raises InvalidURI, whose text shows the URI without any user information;
    TypeError for other types than str.
    """
    if not isinstance(uri, str):
        raise TypeError(f"URI: expected a str; got {type(uri).__name__}")
    try:
        # What may be secret isn't kept.
        return _parse(uri) if "@" in uri or "?" in uri else _parse_known(uri)
    except _Invalid as exc:
        msg = str(exc)
    # Raised out here so that no __context__ tells more than the text does.
    raise InvalidURI(_redact(uri), msg)


class _Invalid(ValueError):
    """What was expected; never with a part of the URI that could be secret."""


def parse_proxy(url: str) -> ProxyURI:
    """Parse the URL of a proxy.

    Raises InvalidProxy, whose text shows the URL without any user information;
    TypeError for other types than str.
    """
    if not isinstance(url, str):
        raise TypeError(f"proxy: expected a str; got {type(url).__name__}")
    try:
        return _parse_proxy(url)
    except _Invalid as exc:
        msg = str(exc)
    raise InvalidProxy(_redact(url), msg)  # out here, as above


def _parse_proxy(url: str) -> ProxyURI:
    match = _match(url)
    scheme = "" if match is None else match["scheme"].lower()
    if match is None or scheme not in _PROXY_PORTS:
        known = ", ".join(f"{one}://" for one in _PROXY_PORTS)
        raise _Invalid(f"expected a host, after one of {known}")
    if match["path"] not in ("", "/") or match["query"] or match["fragment"]:
        raise _Invalid("expected nothing after the host and the port")
    authority = match["authority"]
    user, at, rest = authority.rpartition("@")
    if scheme.startswith("socks4") and at and ":" not in user:
        authority = f"{user}:@{rest}"  # it knows no password
    host, port, username, password = _authority(authority)
    if scheme.startswith("socks4") and username is not None:
        if not username.isascii():
            raise _Invalid("expected ASCII in the username")
    elif scheme.startswith("socks5") and username is not None:
        # RFC 1929, section 2, which knows no encoding.
        for one in username, password or "":
            if not one.isascii() or not 1 <= len(one) <= 255:
                raise _Invalid(
                    "expected ASCII in username and password, 1 to 255 characters each"
                )
    return ProxyURI(scheme, host, port or _PROXY_PORTS[scheme], username, password)


def _parse(uri: str) -> WebSocketURI:
    match = _match(uri)
    if match is None or match["scheme"].lower() not in ("ws", "wss"):
        raise _Invalid("scheme isn't ws or wss; expected ws:// or wss:// and a host")
    if match["fragment"] is not None:
        raise _Invalid("fragment identifier is meaningless; expected # to be %23")
    secure = match["scheme"].lower() == "wss"
    host, port, username, password = _authority(match["authority"])
    return WebSocketURI(
        secure,
        host,
        port or (443 if secure else 80),
        urllib.parse.quote(match["path"], safe=_SAFE),
        urllib.parse.quote(match["query"] or "", safe=_SAFE),
        username,
        password,
    )


def _match(uri: str) -> re.Match[str] | None:
    for pos, char in enumerate(uri):
        # Cc: control characters; Cs: lone surrogates; Z*: spaces and separators
        if unicodedata.category(char) in ("Cc", "Cs", "Zs", "Zl", "Zp"):
            raise _Invalid(
                f"expected no spaces and no control characters; "
                f"got U+{ord(char):04X} at {pos}"
            )
    return _match_uri(uri)


def _authority(authority: str) -> tuple[str, int | None, str | None, str | None]:
    """Parse an authority; return host, port, username and password."""
    userinfo, at, host_port = authority.rpartition("@")
    username, password = _user_info(userinfo) if at else (None, None)
    parts = _match_host_port(host_port)
    if parts is None:
        raise _Invalid("expected host, host:port or [IPv6 address]:port")
    host = _name(parts["name"]) if parts["ipv6"] is None else _ipv6(parts["ipv6"])
    return host, _port(parts["port"]), username, password


_parse_known = functools.lru_cache(maxsize=64)(_parse)  # clients come back


def _user_info(userinfo: str) -> tuple[str, str]:
    username, colon, password = userinfo.partition(":")
    if not colon:
        # RFC 3986 allows it; Basic credentials (RFC 7617) need both.
        raise _Invalid("username provided without password")
    try:
        username = urllib.parse.unquote(username, errors="strict")
        password = urllib.parse.unquote(password, errors="strict")
    except UnicodeDecodeError:
        raise _Invalid("expected UTF-8 in username and password") from None
    if ":" in username:
        raise _Invalid("expected no colon in the username (RFC 7617)")
    if any(unicodedata.category(char) == "Cc" for char in username + password):
        raise _Invalid("expected no control characters in username and password")
    return username, password


def parse_host(host: str) -> str:
    """Parse a host: a name, or an address, if IPv6 with or without its brackets.

    Returns it as in :class:`WebSocketURI`. Raises ValueError.
    """
    if ":" in host:
        return _ipv6(host.removeprefix("[").removesuffix("]"))
    return _name(host)


def _name(name: str) -> str:
    if not name:
        raise _Invalid("hostname isn't provided")
    # Names in ASCII stay as they are, as in trio's look-up: IDNA allows no underscore.
    host = name.lower() if name.isascii() else _idna(name)
    # Over what is refused here, getaddrinfo() would raise an error that is no OSError.
    whole = host.removesuffix(".")
    if (
        _is_host_name(host) is None
        or len(whole) > _MAX_HOST_LENGTH
        or not all(1 <= len(label) <= _MAX_LABEL_LENGTH for label in whole.split("."))
    ):
        raise _Invalid(
            f"expected a host name of letters, digits, '-', '.', '_', or an IRI's; "
            f"at most {_MAX_HOST_LENGTH} characters and {_MAX_LABEL_LENGTH} a label"
        )
    return host


def _idna(name: str) -> str:
    """Convert a name as trio and browsers do: IDNA 2008, mapped by UTS 46."""
    import idna  # which few need: its tables take memory, and trio imports it late

    try:
        # Before idna 3.7, a long name takes quadratic time.
        if len(name) <= _MAX_HOST_LENGTH + 1:
            return idna.encode(name, uts46=True).decode("ascii")
    except UnicodeError:
        pass
    # Not with the name, nor with idna's words for it: it could be a password.
    raise _Invalid(
        f"expected a host name that IDNA 2008 (UTS 46) allows; "
        f"at most {_MAX_HOST_LENGTH} characters and {_MAX_LABEL_LENGTH} a label"
    )


def _ipv6(address: str) -> str:
    # A zone comes behind "%25" (RFC 6874), or "%", as many write it.
    number, percent, zone = address.replace("%25", "%").partition("%")
    number = number.lower()
    try:
        ipaddress.IPv6Address(number)
    except ValueError:
        number = ""
    # Names of interfaces, which zones are, differ in case.
    host = number + percent + zone
    if re.fullmatch(r"[0-9a-f:.]+(?:%[A-Za-z0-9._~\-]+)?", host) is None:
        raise _Invalid("expected an IPv6 address within the brackets")
    return host


def _port(port: str | None) -> int | None:
    if not port:
        return None
    # int() of a very long string would raise a ValueError of its own.
    number = int(port) if len(port) <= 5 else 0
    if not 1 <= number <= 65535:
        raise _Invalid("expected a port from 1 to 65535")
    return number


def _redact(uri: str) -> str:
    """Make a URI fit to be shown, even one that can't be parsed.

    A password with an unescaped slash, say, ends the authority too early; so
    all before the last "@" is left out. So are a query, which may be a signature, and
    a fragment, which may be a token.
    """
    before, at, after = uri.rpartition("@")
    after = re.sub(r"([?#]).+", r"\1***", after, flags=re.DOTALL)
    if not at:
        return escape(after)
    scheme = re.match(r"(?:wss?|https?|socks[45][ah]?)://", before, re.IGNORECASE)
    return escape(f"{scheme.group() if scheme else ''}***@{after}")


def without_secrets(text: str) -> str:
    """Leave out of any text what may be secret in URIs, also in those without a host.

    Which is user information, queries and fragments.
    """
    text = re.sub(r"//[^\s/]*@", "//***@", text)
    return re.sub(r"(/[^\s?#]*[?#])\S+", r"\1***", text)


def host_port(host: str, port: int) -> str:
    """Write a host and a port, as for people."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def build_host(host: str, port: int, *, secure: bool) -> str:
    """Build a Host header: the port only if it isn't the scheme's own.

    RFC 6455, section 4.1; RFC 3986, section 3.2.2, for the brackets. The zone
    of an IPv6 address means nothing to the peer and stays out (RFC 6874).
    """
    if ":" in host:
        host = f"[{host.partition('%')[0]}]"
    return host if port == (443 if secure else 80) else f"{host}:{port}"
