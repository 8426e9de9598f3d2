"""The keywords that a server alone has."""

from __future__ import annotations

import re
from typing import Any

import pytest

from trio_ws._server.options import ServerOptions


@pytest.mark.parametrize(
    ("keywords", "error", "match"),
    [
        ({"process_request": "x"}, TypeError, "process_request: expected a function"),
        ({"process_response": 1}, TypeError, "process_response: expected a function"),
        ({"select_subprotocol": ()}, TypeError, "select_subprotocol: expected a func"),
        ({"origins": "http://x"}, TypeError, "origins: expected a sequence of origins"),
        ({"origins": {"http://x"}}, TypeError, "origins: expected a sequence"),
        ({"origins": [b"x"]}, TypeError, "origins: expected str, compiled patterns"),
        ({"compression": "gzip"}, ValueError, 'compression: expected "deflate" or'),
        ({"additional_headers": {"Upgrade": "x"}}, ValueError, "additional_headers"),
        ({"server_header": "a\nb"}, ValueError, "header Server: expected no control"),
    ],
)
def test_wrong_options_of_a_server(
    keywords: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        ServerOptions(**keywords)


def test_right_options_of_a_server() -> None:
    pattern = re.compile("https://.*")
    options = ServerOptions(
        origins=["https://x", pattern, None],
        process_request=lambda ws, request: None,
        compression="deflate",
    )
    assert options.origins == ["https://x", pattern, None]
