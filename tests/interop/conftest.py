"""What holds for all tests with other implementations."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Generator

import pytest
import trustme

from tests.interop import chromium_peer
from tests.interop.faults import fault
from tests.interop.peer import HOST, TLS
from tests.interop.proxy import required


@pytest.fixture(autouse=True)
def nothing_to_warn_of(caplog: pytest.LogCaptureFixture) -> Generator[None, None, None]:
    """No side logs a warning: neither trio_ws nor its peer found anything wrong."""
    yield
    records = [*caplog.get_records("setup"), *caplog.get_records("call")]
    assert [r.getMessage() for r in records if r.levelno >= logging.WARNING] == []


@pytest.fixture(autouse=True)
def expected(request: pytest.FixtureRequest) -> None:
    """What another is known to do wrong it does, or the test says so."""
    params = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    for kind in {"library", "name", "proxy", "way"} & set(params):
        if reason := fault(params[kind], request.node.name):
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))


@pytest.fixture(scope="session")
def tls() -> TLS:
    ca = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(HOST).configure_cert(server)
    client = ssl.create_default_context()
    ca.configure_trust(client)
    return TLS(server, client)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Generator[str, None, None]:
    """A browser; the URI of its DevTools."""
    folder = tmp_path_factory.mktemp("chromium")
    with chromium_peer.chromium(required("chromium"), folder) as uri:
        yield uri
