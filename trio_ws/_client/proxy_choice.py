"""Which proxy to use: the one that is given, or that of the environment."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import ssl as ssl_module
import sys
from collections.abc import Mapping
from typing import Literal

import trio

from .._protocol.errors import InvalidProxy
from .._protocol.uri import ProxyURI, host_port, parse_proxy
from .._transports.make import check_context
from .._transports.network import current_network

_ENVIRONMENT = "_proxy"  # what the names of variables end with, in either case

# Whether the system keeps proxies elsewhere than in the environment, too. What is
# excepted from those there may be addresses, so that the DNS is asked.
_SYSTEM_SETTINGS = sys.platform in ("win32", "darwin")


class ProxyChoice:
    """What the arguments of connect() say of proxies.

    Raises InvalidProxy, ValueError and TypeError for wrong ones, ImportError if
    python-socks is needed and isn't there.
    """

    def __init__(
        self, proxy: str | Literal[True] | None, ssl: ssl_module.SSLContext | None
    ) -> None:
        check_context(ssl, server_side=False, name="proxy_ssl")
        self.ssl = ssl
        self._fixed: ProxyURI | None = None
        self._by_environment = proxy is True
        if proxy is None or isinstance(proxy, str):
            if proxy is not None:
                self._fixed = _parsed(proxy)
            if ssl is not None and getattr(self._fixed, "scheme", None) != "https":
                raise ValueError("proxy_ssl: expected an https:// proxy with it")
        elif proxy is not True:
            # Not its value, which may have a password.
            raise TypeError(
                f"proxy: expected a URL, True or None; got {type(proxy).__name__}"
            )

    def refuse(self, name: str) -> None:
        """Raise ValueError if a proxy is named together with the argument ``name``."""
        if self._fixed is not None or self.ssl is not None:
            given = "proxy" if self._fixed is not None else "proxy_ssl"
            raise ValueError(f"{given}: expected no {name} with it")

    async def proxy_for(self, host: str, port: int, *, secure: bool) -> ProxyURI | None:
        """Return the proxy to reach a server through, None for none.

        The environment is looked at each time. Raises InvalidProxy, ImportError.
        **Cancellation**: where the system is asked, a thread goes on.
        """
        if not self._by_environment:
            return self._fixed
        if current_network() is not None:
            return None  # the environment is that of another one
        variables = _variables()
        if variables:
            where = "the environment"
            found = _chosen(variables, secure)
            if found and is_excepted(variables.get("no", ""), host, port):
                return None
        elif _SYSTEM_SETTINGS:
            where = "the settings of the system"
            found = await trio.to_thread.run_sync(
                _system_proxy, host, port, secure, abandon_on_cancel=True
            )
        else:
            return None
        if found is None:
            return None
        name, url = found
        try:
            return _parsed(url)
        except (InvalidProxy, ImportError) as exc:
            exc.add_note(f"{name}{_ENVIRONMENT} in {where}")
            raise


def _parsed(url: str) -> ProxyURI:
    proxy = parse_proxy(url)
    # Only looked for here: to import it takes as long as to connect.
    if proxy.is_socks and importlib.util.find_spec("python_socks") is None:
        raise ImportError(
            'proxy: SOCKS needs python-socks; pip install "trio_ws[socks]"'
        )
    return proxy


def _variables() -> dict[str, str]:
    """Return what the environment says, by what stands before ``_proxy``.

    A variable in lower case goes before the same in upper case, even if it is empty,
    which is as good as none. Not urllib.request.getproxies_environment(), whose import
    stops the loop for longer than it takes to connect.
    """
    names = [name for name in os.environ if name.lower().endswith(_ENVIRONMENT)]
    if "REQUEST_METHOD" in os.environ and "HTTP_PROXY" in names:
        # In a CGI program, that is what the client says in a header "Proxy".
        names.remove("HTTP_PROXY")
    # In the order of ASCII, in which upper case is first: the last one holds.
    found = {
        name.lower().removesuffix(_ENVIRONMENT): os.environ[name]
        for name in sorted(names)
    }
    return {kind: value for kind, value in found.items() if value}


def _chosen(proxies: Mapping[str, str], secure: bool) -> tuple[str, str] | None:
    """Return the kind and the URL of the proxy for wss:// or ws://, or None."""
    # A proxy for WebSockets goes first. Then RFC 6455, section 4.1, has SOCKS, failing
    # that the proxy for HTTPS, and after it that for HTTP.
    names = ["wss"] if secure else ["ws"]
    names += ["socks", "https"] if secure else ["socks", "https", "http"]
    for name in [*names, "all"]:
        if name not in proxies:
            continue
        url = proxies[name]
        # Settings of a system have no scheme of SOCKS' own.
        if name == "socks" and url.startswith("http://"):
            url = "socks5h://" + url.removeprefix("http://")
        return name, url
    return None


def is_excepted(no_proxy: str, host: str, port: int) -> bool:
    """Tell whether ``no_proxy`` has a server: as curl reads it, or by its port, too."""
    host = host.partition("%")[0].removesuffix(".")
    address = _network(host)
    for entry in no_proxy.lower().replace(",", " ").split():
        if entry == "*":
            return True
        name, network = entry, _network(entry)
        before, colon, its_port = entry.rpartition(":")
        if network is None and colon:
            if its_port != str(port):
                continue
            name, network = before, _network(before)
        if address is None:
            name = name.removeprefix("*").strip(".")
            if name and f".{host}".endswith(f".{name}"):
                return True
        elif network is not None and address[0] in network:
            return True
    return False


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Return the addresses that are spelled out, with or without brackets, or None."""
    address, slash, length = text.partition("/")
    address = address.removesuffix(".")
    if address.startswith("["):
        address = address[1:].removesuffix("]")
    try:
        return ipaddress.ip_network(address + slash + length, strict=False)
    except ValueError:
        return None


def _system_proxy(host: str, port: int, secure: bool) -> tuple[str, str] | None:
    """Return the proxy that the system has for a server, and its kind, or None."""
    import urllib.request  # which is slow, and few need

    found = _chosen(urllib.request.getproxies(), secure)
    if found is None or urllib.request.proxy_bypass(host_port(host, port)):
        return None
    return found
