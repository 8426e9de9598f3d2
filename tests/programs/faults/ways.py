"""A connection made in one of the ways that a row has: library, TLS, compression."""

from __future__ import annotations

import importlib
import ssl
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any

import trio

from tests.peers.certificates import contexts
from tests.programs.faults.harness import OURS


@cache
def trusting() -> ssl.SSLContext:
    """Return a context that trusts whoever is at the other end."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@dataclass(frozen=True)
class Way:
    """What doesn't differ between libraries is passed on to them."""

    library: str
    secured: bool = False
    compression: str | None = None

    @property
    def closed(self) -> type[Exception]:
        """What calls raise once the connection is gone."""
        raised: type[Exception] = self._module("exceptions").ConnectionClosed
        return raised

    def connect(
        self, host: str, port: int, path: str = "", **given: Any
    ) -> AbstractAsyncContextManager[Any]:
        made: AbstractAsyncContextManager[Any] = self._module("trio.client").connect(
            f"{'wss' if self.secured else 'ws'}://{host}:{port}/{path}",
            ssl=trusting() if self.secured else None,
            compression=self.compression,
            proxy=None,
            **given,
        )
        return made

    async def serve(
        self, handler: Any, listeners: list[trio.SocketListener], **given: Any
    ) -> None:
        """Serve until cancelled."""
        await self._module("trio.server").serve(
            handler,
            listeners=listeners,
            ssl=contexts()[1] if self.secured else None,
            compression=self.compression,
            **given,
        )

    def _module(self, part: str) -> Any:
        if self.library == OURS:
            return importlib.import_module("trio_ws")
        return importlib.import_module(f"websockets.{part}")
