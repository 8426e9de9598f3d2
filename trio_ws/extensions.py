"""Extensions of RFC 6455: compression and its parameters, and those of your own.

Factories go to the keyword ``extensions`` of connect(), serve() and the like. A
factory is of a server or a client and negotiates each connection; the Extension
that it makes belongs to one connection and sees each of its frames.
"""

from ._names import publish
from ._protocol.extensions.base import (
    ClientExtensionFactory,
    Extension,
    ExtensionParameter,
    Frame,
    ServerExtensionFactory,
)
from ._protocol.extensions.deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)

__all__ = [
    "ClientExtensionFactory",
    "ClientPerMessageDeflateFactory",
    "Extension",
    "ExtensionParameter",
    "Frame",
    "PerMessageDeflate",
    "ServerExtensionFactory",
    "ServerPerMessageDeflateFactory",
]

publish(__name__, __all__)
