"""Which thread this is; compiled code has get_ident() in ``threads.pxd``."""

from __future__ import annotations

from threading import get_ident

__all__ = ["get_ident"]
