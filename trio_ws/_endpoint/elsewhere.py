"""What other libraries call it, with what to look at here: one table for all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

_STATE = "see state; rather call, and catch ConnectionClosed"

# Keywords of connect(), serve() and their like.
KEYWORDS = {
    "connect_timeout": "see open_timeout",
    "create_protocol": "see create_connection",
    "all_errors": "__cause__ has an error of each address",
    "disconnect_timeout": "see close_timeout",
    "extra_headers": "see additional_headers",
    "family": "see host, which may be an address of the family",
    "happy_eyeballs_delay": "addresses are tried 0.25 s apart (RFC 8305)",
    "headers": "see additional_headers",
    "heartbeat": "see ping_interval",
    "interleave": "families of addresses take turns (RFC 8305)",
    "klass": "see create_connection",
    "local_addr": "see local_address, which has no port",
    "max_message_size": "see max_size",
    "max_msg_size": "see max_size",
    "message_queue_size": "see max_queue",
    "path": "see unix_connect() and unix_serve()",
    "nursery": "see handler_nursery of serve(); a connection has one of its own",
    "ping": "see ping_interval",
    "process_exception": "see reconnect()",
    "proxy_server_hostname": "the name of a proxy is that of its URL",
    "proxy": "see connect() and reconnect(), and proxy_protocol of servers",
    "proxy_ssl": "see connect() and reconnect()",
    "read_limit": "see max_size and max_queue",
    "receive_buffer_size": "a read takes up to 64.5 KiB of what there is",
    "reconnect_delays": "see reconnect()",
    "resource": "see uri",
    "reuse_address": "a server reuses addresses, except on Windows",
    "sock": "see stream of connect() and listeners of serve()",
    "ssl_context": "see ssl",
    "ssl_handshake_timeout": "see open_timeout",
    "ssl_shutdown_timeout": "see close_timeout",
    "start_serving": "a server serves from the beginning",
    "timeout": "see open_timeout, close_timeout, or a cancel scope around the call",
    "url": "see uri",
    "use_ssl": "see ssl; a URI with wss:// asks for TLS",
    "user_agent": "see user_agent_header",
}

# Attributes of ConnectionClosed.
CLOSED = {
    "code": "see rcvd.code and sent.code, or close_code of the connection",
    "reason": "see rcvd.reason and sent.reason, or close_reason of the connection",
}

# Attributes of connections, and of requests that are to be accepted.
CONNECTION = {
    "CONNECTION_ID": "see id",
    "accept": "the handler is given a connection that is open",
    "close": "see aclose()",
    "close_exc": "see close_code and close_reason, or catch ConnectionClosed",
    "closed": _STATE,
    "get_message": "see recv()",
    "handler": "see route.endpoint",
    "handler_kwargs": "see route.arguments",
    "handshake_headers": "see request.headers and response.headers",
    "headers": "see request.headers and response.headers",
    "host": "see remote_address and local_address",
    "is_client": "see isinstance(ws, ClientConnection)",
    "is_closed": _STATE,
    "is_server": "see isinstance(ws, ServerConnection)",
    "local": "see local_address",
    "messages": "see async for message in ws, and recv_nowait()",
    "open": _STATE,
    "path": "see request.path",
    "port": "see remote_address and local_address",
    "proposed_subprotocols": "see select_subprotocol",
    "receive_bytes": "see recv(decode=False)",
    "receive_json": "see json.loads(await ws.recv())",
    "receive_str": "see recv(decode=True)",
    "receive_text": "see recv(decode=True)",
    "reject": "see process_request and respond()",
    "remote": "see remote_address",
    "request_headers": "see request.headers",
    "response_headers": "see response.headers",
    "send_bytes": "see send()",
    "send_json": "see send(json.dumps(...))",
    "send_message": "see send()",
    "send_str": "see send()",
    "send_text": "see send()",
    "stream": "see socket and ssl_object",
    "transport": "see socket, ssl_object, local_address and remote_address",
}

# Attributes of servers.
SERVER = {
    "close": "see aclose()",
    "is_serving": "a server serves until serve() returns",
    "listeners": "see sockets",
    "run": "see serve()",
    "serve_forever": "see serve()",
    "start_serving": "a server serves from the beginning",
    "wait_closed": "see aclose(), or await serve()",
    "websockets": "see connections",
}


class _Elsewhere:
    """An attribute that there isn't, which says what there is instead.

    A ``__getattr__`` would make each look-up of any attribute slower: CPython then
    specialises none of them.
    """

    def __init__(self, name: str, hint: str) -> None:
        self._name = name
        self._hint = hint

    def __get__(self, instance: object, owner: type) -> NoReturn:
        kind = owner if instance is None else type(instance)
        raise AttributeError(
            f"{kind.__name__!r} object has no attribute {self._name!r}; {self._hint}",
            name=self._name,
            obj=instance,
        )


class Hinting:
    """A class whose instances know names of other libraries, but don't list them."""

    __slots__ = ()

    def __init_subclass__(
        cls, elsewhere: Mapping[str, str] | None = None, **kwargs: Any
    ) -> None:
        super().__init_subclass__(**kwargs)
        for name, hint in (elsewhere or {}).items():
            setattr(cls, name, _Elsewhere(name, hint))

    def __dir__(self) -> Iterable[str]:
        # hasattr() is false for those that are elsewhere.
        return [
            name
            for name in super().__dir__()
            if name in vars(self)
            or not isinstance(_in_class(type(self), name), _Elsewhere)
        ]


def _in_class(cls: type, name: str) -> object:
    return next((vars(c)[name] for c in cls.__mro__ if name in vars(c)), None)
