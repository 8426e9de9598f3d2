"""What a server's router has found for a connection."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from werkzeug.routing import MapAdapter


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
    """What a :class:`trio_ws.Router` has found for a connection, as ``ws.route``.

    ``endpoint`` is the handler, ``arguments`` are what the path has for it.
    """

    endpoint: Any
    arguments: Mapping[str, Any]
    _adapter: MapAdapter = dataclasses.field(repr=False)

    def url_for(self, endpoint: Any, /, **arguments: Any) -> str:
        """Make the URI of an endpoint of the same map; query parameters may be among.

        Raises werkzeug.routing.BuildError if there is none.
        """
        return self._adapter.build(endpoint, arguments, force_external=True)
