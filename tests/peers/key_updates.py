"""Records of TLS 1.3 that no function of ssl makes: key updates.

RFC 8446, sections 4.6.3, 5.2, 7.1 to 7.3.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

_HANDSHAKE = 22
_APPLICATION_DATA = 23
_UPDATE_REQUESTED = b"\x18\0\0\1\1"


class KeyUpdater:
    """What a client sends behind its handshake, with TLS_AES_256_GCM_SHA384."""

    def __init__(self, keylog: Path) -> None:
        """Take the client's secret from the file that its context wrote."""
        lines = [line.split() for line in keylog.read_text().splitlines()]
        (secret,) = (line[2] for line in lines if line[0] == "CLIENT_TRAFFIC_SECRET_0")
        self._use(bytes.fromhex(secret))

    def _use(self, secret: bytes) -> None:
        self._secret = secret
        self._key = AESGCM(self._expand(b"key", 32))
        self._iv = int.from_bytes(self._expand(b"iv", 12), "big")
        self._sequence = 0

    def _expand(self, label: bytes, size: int) -> bytes:
        label = b"tls13 " + label
        info = size.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0"
        return HKDFExpand(SHA384(), size, info).derive(self._secret)

    def _record(self, kind: int, content: bytes) -> bytes:
        header = b"\x17\3\3" + (len(content) + 17).to_bytes(2, "big")
        nonce = (self._iv ^ self._sequence).to_bytes(12, "big")
        self._sequence += 1
        return header + self._key.encrypt(nonce, content + bytes([kind]), header)

    def data(self, content: bytes) -> bytes:
        return self._record(_APPLICATION_DATA, content)

    def update(self) -> bytes:
        """Make an update that asks for one."""
        record = self._record(_HANDSHAKE, _UPDATE_REQUESTED)
        self._use(self._expand(b"traffic upd", 48))
        return record
