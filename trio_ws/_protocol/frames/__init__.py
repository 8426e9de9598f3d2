"""Frames: bytes to messages and back."""

from .. import prefer_sources

prefer_sources(__path__[0])
