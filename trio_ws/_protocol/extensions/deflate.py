"""Compression: the permessage-deflate extension (RFC 7692).

Contexts are made when the first compressed message comes or goes, so that a
connection that negotiates compression and doesn't use it costs nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from ..closing import CloseCode
from ..errors import NegotiationError, PayloadTooBig, ProtocolError
from ..opcodes import CONT
from .base import (
    ClientExtensionFactory,
    Extension,
    ExtensionParameter,
    Frame,
    ServerExtensionFactory,
)
from .parameters import MAX_BITS, Parameters, bits_or_most, check_bits, parse

# ISA-L, the extra ``speed``, where it is installed. On JSON of 1, 4 and 16 KiB it
# compresses in 5.8, 10 and 27 us, where zlib takes 15, 89 and 316 and zlib-ng 11,
# 31 and 198, and decompresses in two thirds of zlib's time. What it makes is a
# third larger (0.20 of the original instead of 0.15), and it allocates about 310
# KiB for the two directions of a connection where zlib takes 50.
_fast: Any = None
_error: Any = zlib.error
with suppress(ImportError):
    from isal import isal_zlib

    _fast, _error = isal_zlib, isal_zlib.error

NAME: Final = "permessage-deflate"

# Section 7.2.1: a message ends with an empty block, which isn't sent.
_TAIL: Final = b"\x00\x00\xff\xff"

# Below this, a message gets smaller by too little for what it costs.
MIN_SIZE: Final = 128

# Each end of a deflate stream in the middle of a message costs a new context; so
# many may come in one message, and what comes behind an end is looked at in
# pieces of so many bytes, so that their number costs no more than time that is
# linear in it.
_MAX_ENDS: Final = 4096
_PIECE: Final = 4096

# 12 bits and memLevel 5 need 30 KiB for each direction in place of 310, and
# compress JSON nearly as well.
WINDOW_BITS: Final = 12
COMPRESS_SETTINGS: Final[Mapping[str, int]] = {"memLevel": 5}

# Section 7.1.2 allows 8 bits; zlib can't compress with these.
_MIN_COMPRESS_BITS: Final = 9


def _checked_settings(settings: Mapping[str, int]) -> dict[str, int]:
    """Return a copy of arguments for zlib.compressobj(), once it has taken them."""
    if "wbits" in settings:
        raise ValueError("compress_settings: expected no wbits, which is negotiated")
    copy: dict[str, Any] = dict(settings)
    try:
        zlib.compressobj(**copy)
    except (TypeError, ValueError) as exc:
        raise type(exc)(f"compress_settings: {exc}") from None
    return copy


class PerMessageDeflate(Extension):
    """Compression on one connection.

    ``remote`` is the peer, ``local`` this side: what each compresses.
    """

    __slots__ = (
        "_deflater",
        "_encoding",
        "_ends",
        "_fed",
        "_inflater",
        "_local_bits",
        "_local_no_takeover",
        "_remote_bits",
        "_remote_no_takeover",
        "_settings",
        "decoding",
    )

    name = NAME

    def __init__(
        self,
        *,
        remote_no_context_takeover: bool,
        local_no_context_takeover: bool,
        remote_max_window_bits: int,
        local_max_window_bits: int,
        compress_settings: Mapping[str, int] = COMPRESS_SETTINGS,
    ) -> None:
        self._remote_no_takeover = remote_no_context_takeover
        self._local_no_takeover = local_no_context_takeover
        self._remote_bits = remote_max_window_bits
        self._local_bits = local_max_window_bits
        self._settings = compress_settings
        self._inflater: Any = None
        self._deflater: Any = None
        self.decoding: bool = False  # in the middle of a compressed message
        self._ends = 0  # of deflate streams in that message
        self._fed = False  # with bytes of it since it began, or since such an end
        self._encoding = False

    # -- Receiving -----------------------------------------------------------

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """Inflate a frame (section 7.2.2)."""
        if frame.opcode & 0x08:
            return frame
        if frame.opcode != CONT:
            self._ends = 0
            self._fed = False
            self.decoding = frame.rsv1
        elif frame.rsv1:
            # Section 6.1: only the first fragment has the bit.
            raise ProtocolError("reserved bit 1 is set in a continuation frame")
        if not self.decoding:
            return frame
        data = frame.data
        if data:
            self._fed = True
        if frame.fin:
            self.decoding = False
            # It ends what has begun. An empty message is one byte (section 7.2.3.6),
            # but some send none, and the tail alone would begin a block.
            if self._fed:
                data = data + _TAIL
        if data:
            data = self._inflate(data, max_size)
        if frame.fin and self._remote_no_takeover:
            self._inflater = None
        return Frame(frame.opcode, data, frame.fin, False, frame.rsv2, frame.rsv3)

    def inflate_message(self, data: bytes, max_size: int | None) -> bytes:
        """Inflate a message of one frame: as decode() does, without its frames."""
        self._ends = 0
        if data:
            data = self._inflate(data + _TAIL, max_size)
        if self._remote_no_takeover:
            self._inflater = None
        return data

    def _inflate(self, data: bytes, max_size: int | None) -> bytes:
        # One byte more than allowed tells a message that is too big from one
        # that just fits; zlib makes no more than it is told to.
        limit = 0 if max_size is None else max_size + 1
        try:
            if self._inflater is None:
                self._inflater = self._new_inflater()
            inflated: bytes = self._inflater.decompress(data, limit)
            if self._inflater.eof:
                # Section 7.2.3.4: the last block of a stream may come anywhere.
                inflated = self._inflate_rest(inflated, limit)
        except (zlib.error, _error) as exc:
            raise ProtocolError(f"message can't be decompressed: {exc}") from exc
        if max_size is not None and len(inflated) > max_size:
            raise PayloadTooBig(
                f"frame of more than {max_size} bytes, decompressed, exceeds what "
                f"max_size leaves for it",
                CloseCode.MESSAGE_TOO_BIG,
            )
        return inflated

    def _inflate_rest(self, inflated: bytes, limit: int) -> bytes:
        """Go on behind the end of a deflate stream, with a new one."""
        parts = [inflated]
        size = len(inflated)
        rest = self._inflater.unused_data
        end = len(rest) if self.decoding else len(rest) - len(_TAIL)
        position = 0
        while self._inflater.eof or position < len(rest):
            if limit and size >= limit:
                break
            if self._inflater.eof:
                self._ends += 1
                if self._ends > _MAX_ENDS:
                    raise PayloadTooBig(
                        f"message in which more than {_MAX_ENDS} deflate streams end",
                        CloseCode.MESSAGE_TOO_BIG,
                    )
                self._inflater = self._new_inflater()
                self._fed = position < end
                if not self._fed:
                    break
            piece = rest[position : position + _PIECE]
            part = self._inflater.decompress(piece, limit - size if limit else 0)
            parts.append(part)
            size += len(part)
            position += len(piece) - len(self._inflater.unused_data)
        return b"".join(parts)

    def _new_inflater(self) -> Any:
        return (_fast or zlib).decompressobj(wbits=-self._remote_bits)

    # -- Sending -------------------------------------------------------------

    def encode(self, frame: Frame) -> Frame:
        """Deflate a frame (section 7.2.1), if its message is large enough."""
        if frame.opcode & 0x08:
            return frame
        first = frame.opcode != CONT
        if first and frame.fin:
            self._encoding = False
            deflated = self.deflate_message(frame.data)
            if deflated is None:
                return frame
            return Frame(frame.opcode, deflated, True, True, frame.rsv2, frame.rsv3)
        if first:
            self._encoding = self.bits_for(frame.data) != 0
        if not self._encoding:
            return frame
        data = self._deflate(frame.data, frame.fin)
        if frame.fin:
            self._encoding = False
        return Frame(frame.opcode, data, frame.fin, first, frame.rsv2, frame.rsv3)

    def deflate_message(self, data: bytes) -> bytes | None:
        """Deflate a message of one frame; return None where it is to stay as it is."""
        if len(data) < MIN_SIZE or self._local_bits < _MIN_COMPRESS_BITS:
            return None
        deflated = self._deflate(data, True)
        if len(deflated) < len(data):
            return deflated
        # It can't be compressed, and would exceed the peer's limit where it just fits.
        self._deflater = None
        return None

    def _deflate(self, data: bytes, fin: bool) -> bytes:
        # What the peer doesn't get isn't referred to: a context that fails at work
        # is forgotten, and what follows begins anew.
        deflater, self._deflater = self._deflater or self._new_deflater(), None
        begun: bytes = deflater.compress(data)
        ended: bytes = deflater.flush(zlib.Z_SYNC_FLUSH)
        if not fin:
            self._deflater = deflater
            return begun + ended
        if not self._local_no_takeover:
            self._deflater = deflater
        return (begun + ended)[: -len(_TAIL)]

    def bits_for(self, data: bytes) -> int:
        """Return the window bits to compress a message with, 0 if it isn't."""
        if len(data) < MIN_SIZE or self._local_bits < _MIN_COMPRESS_BITS:
            return 0
        return self._local_bits

    def compressed_alone(self, data: bytes) -> bytes:
        """Compress a message so that any connection can decompress it."""
        deflater = self._new_deflater()
        compressed: bytes = deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH)
        return compressed[: -len(_TAIL)]

    def forget(self) -> None:
        """Refer to no earlier message from here on."""
        self._deflater = None

    def _new_deflater(self) -> Any:
        settings: dict[str, Any] = dict(self._settings)
        if _fast is None or settings.keys() - {"memLevel"}:
            # Levels and strategies are zlib's own.
            return zlib.compressobj(wbits=-self._local_bits, **settings)
        # Its higher levels cost more memory and make hardly less.
        return _fast.compressobj(level=1, wbits=-self._local_bits, **settings)


class ClientPerMessageDeflateFactory(ClientExtensionFactory):
    """Offers compression; the parameters are those of section 7.1."""

    name = NAME

    def __init__(
        self,
        *,
        server_no_context_takeover: bool = False,
        client_no_context_takeover: bool = False,
        server_max_window_bits: int | None = None,
        client_max_window_bits: int | bool | None = True,
        compress_settings: Mapping[str, int] = COMPRESS_SETTINGS,
    ) -> None:
        if server_max_window_bits is not None:
            check_bits("server_max_window_bits", server_max_window_bits)
        if client_max_window_bits is not None and client_max_window_bits is not True:
            check_bits("client_max_window_bits", client_max_window_bits)
        self._offer = Parameters(
            server_no_context_takeover,
            client_no_context_takeover,
            server_max_window_bits,
            client_max_window_bits,
        )
        self._settings = _checked_settings(compress_settings)

    def get_request_params(self) -> Sequence[ExtensionParameter]:
        """Return the parameters to offer."""
        return self._offer.as_list()

    def process_response_params(
        self,
        params: Sequence[ExtensionParameter],
        accepted_extensions: Sequence[Extension],
    ) -> Extension:
        """Make the extension that the server's answer describes (section 7.1)."""
        if any(other.name == NAME for other in accepted_extensions):
            raise NegotiationError(f"duplicate extension: {NAME}")
        answer = parse(params, response=True)
        offer = self._offer
        if offer.server_no_context_takeover and not answer.server_no_context_takeover:
            raise NegotiationError("expected server_no_context_takeover")
        # Some servers leave out what they don't know: theirs is the largest window.
        bits, limit = answer.server_max_window_bits, offer.server_max_window_bits
        if bits is not None and bits > bits_or_most(limit):
            raise NegotiationError(f"expected server_max_window_bits up to {limit}")
        if answer.client_max_window_bits is not None:
            limit = offer.client_max_window_bits
            if limit is None:
                raise NegotiationError("unexpected client_max_window_bits")
            if limit is not True and answer.client_max_window_bits > limit:
                raise NegotiationError(f"expected client_max_window_bits up to {limit}")
        return PerMessageDeflate(
            remote_no_context_takeover=answer.server_no_context_takeover,
            local_no_context_takeover=answer.client_no_context_takeover
            or offer.client_no_context_takeover,
            remote_max_window_bits=bits_or_most(bits),
            local_max_window_bits=min(
                bits_or_most(answer.client_max_window_bits),
                _own_bits(offer.client_max_window_bits),
            ),
            compress_settings=self._settings,
        )


def _own_bits(limit: int | bool | None) -> int:
    """Return the window that this side compresses with, where it may choose."""
    return WINDOW_BITS if limit is None or limit is True else limit


class ServerPerMessageDeflateFactory(ServerExtensionFactory):
    """Accepts compression; the parameters are those of section 7.1."""

    name = NAME

    def __init__(
        self,
        *,
        server_no_context_takeover: bool = False,
        client_no_context_takeover: bool = False,
        server_max_window_bits: int | None = WINDOW_BITS,
        client_max_window_bits: int | None = WINDOW_BITS,
        compress_settings: Mapping[str, int] = COMPRESS_SETTINGS,
    ) -> None:
        for name, value in (
            ("server_max_window_bits", server_max_window_bits),
            ("client_max_window_bits", client_max_window_bits),
        ):
            if value is not None:
                check_bits(name, value)
        self._wish = Parameters(
            server_no_context_takeover,
            client_no_context_takeover,
            server_max_window_bits,
            client_max_window_bits,
        )
        self._settings = _checked_settings(compress_settings)

    def process_request_params(
        self,
        params: Sequence[ExtensionParameter],
        accepted_extensions: Sequence[Extension],
    ) -> tuple[Sequence[ExtensionParameter], Extension]:
        """Make the extension that an offer asks for, and the answer to it."""
        if any(other.name == NAME for other in accepted_extensions):
            raise NegotiationError(f"duplicate extension: {NAME}")
        offer = parse(params, response=False)
        wish = self._wish
        server_bits = min(
            bits_or_most(offer.server_max_window_bits),
            bits_or_most(wish.server_max_window_bits),
        )
        client_bits: int | None = None
        if offer.client_max_window_bits is not None:
            # Only a client that knows the parameter may be told it.
            client_bits = bits_or_most(wish.client_max_window_bits)
            if offer.client_max_window_bits is not True:
                client_bits = min(client_bits, offer.client_max_window_bits)
        answer = Parameters(
            offer.server_no_context_takeover or wish.server_no_context_takeover,
            offer.client_no_context_takeover or wish.client_no_context_takeover,
            # An offer with a limit is accepted by naming one (section 7.1.2.1). To
            # name one unasked is allowed there, but some clients refuse it, and all
            # can read what was compressed with less than the largest window.
            None if offer.server_max_window_bits is None else server_bits,
            None if client_bits == MAX_BITS else client_bits,
        )
        extension = PerMessageDeflate(
            remote_no_context_takeover=answer.client_no_context_takeover,
            local_no_context_takeover=answer.server_no_context_takeover,
            remote_max_window_bits=bits_or_most(client_bits),
            local_max_window_bits=server_bits,
            compress_settings=self._settings,
        )
        return answer.as_list(), extension
