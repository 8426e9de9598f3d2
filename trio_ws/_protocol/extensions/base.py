"""Extensions: what may change frames on their way (RFC 6455, sections 5.8 and 9).

A *factory* negotiates: the client's makes an offer and reads the answer, the
server's reads an offer and makes the answer. What comes out is an *extension*,
which belongs to one connection and sees each of its frames.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import TypeAlias

from ..closing import CloseCode
from ..errors import PayloadTooBig, ProtocolError


@dataclasses.dataclass(slots=True)
class Frame:
    """A frame as extensions see it: not masked, its payload complete.

    ``opcode`` is a number of RFC 6455 (section 5.2), ``data`` the payload, ``fin`` is
    True in the last frame of a message. ``rsv1``, ``rsv2`` and ``rsv3`` are for
    extensions.
    """

    opcode: int
    data: bytes
    fin: bool = True
    rsv1: bool = False
    rsv2: bool = False
    rsv3: bool = False


class Extension(abc.ABC):
    """An extension that both sides have agreed on, of one connection."""

    __slots__ = ()

    name: str
    """As in Sec-WebSocket-Extensions."""

    @abc.abstractmethod
    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """Undo what the peer's extension did to a frame.

        ``max_size`` is how many bytes the message may still have. Reserved bits
        that the extension uses are cleared.

        Raises ProtocolError for what the peer must not send, PayloadTooBig
        before more than ``max_size`` bytes are made.
        """

    @abc.abstractmethod
    def encode(self, frame: Frame) -> Frame:
        """Do to a frame what the peer's extension will undo."""


class ClientExtensionFactory(abc.ABC):
    """The client's side of the negotiation."""

    name: str
    """As in Sec-WebSocket-Extensions."""

    @abc.abstractmethod
    def get_request_params(self) -> Sequence[ExtensionParameter]:
        """Return the parameters to offer."""

    @abc.abstractmethod
    def process_response_params(
        self,
        params: Sequence[ExtensionParameter],
        accepted_extensions: Sequence[Extension],
    ) -> Extension:
        """Make the extension that the server's answer describes.

        Raises NegotiationError if the answer isn't one to this offer.
        """


class ServerExtensionFactory(abc.ABC):
    """The server's side of the negotiation."""

    name: str
    """As in Sec-WebSocket-Extensions."""

    @abc.abstractmethod
    def process_request_params(
        self,
        params: Sequence[ExtensionParameter],
        accepted_extensions: Sequence[Extension],
    ) -> tuple[Sequence[ExtensionParameter], Extension]:
        """Make the extension that an offer asks for, and the answer to it.

        Raises NegotiationError to decline this offer.
        """


# An extension's name and its parameters, in order; None is a parameter without
# a value.
ExtensionParameter: TypeAlias = tuple[str, str | None]


def decode_frame(
    extensions: Sequence[Extension], frame: Frame, *, max_size: int | None, before: int
) -> bytes:
    """Return the payload that extensions make of a frame.

    ``max_size`` limits its message, of which ``before`` bytes have come. Raises
    ProtocolError, and what an extension of the user's raises.
    """
    left = None if max_size is None else max_size - before
    for extension in reversed(extensions):
        frame = extension.decode(frame, max_size=left)
    if frame.rsv1 or frame.rsv2 or frame.rsv3:
        # RFC 6455, section 5.2
        raise ProtocolError("reserved bits are set that no extension uses")
    if left is not None and len(frame.data) > left:
        # One that doesn't look at max_size, or leaves the frame as it is.
        raise PayloadTooBig(
            f"message of {before + len(frame.data)} bytes or more exceeds "
            f"max_size, {max_size} bytes",
            CloseCode.MESSAGE_TOO_BIG,
        )
    return bytes(frame.data)
