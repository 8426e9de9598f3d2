"""A folder's files over HTTP, beside the WebSockets of a server."""

from __future__ import annotations

import dataclasses
import mimetypes
import os
import stat
import urllib.parse
from http import HTTPStatus
from pathlib import Path

import trio

from .. import Request, Response, ServerConnection
from .notes import UsageError

# A file is in memory while it is sent.
_MAX_FILE = 16 * 2**20

# No waiting for the writer of a FIFO, and no link that has come since it was looked at.
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_BINARY", 0)
)


@dataclasses.dataclass(frozen=True, slots=True)
class _Answer:
    status: HTTPStatus
    body: bytes = b""
    kind: str = "text/plain; charset=utf-8"
    location: str = ""


class _RefusedError(Exception):
    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


_NOT_FOUND = HTTPStatus.NOT_FOUND, "There is no such file."
_FORBIDDEN = HTTPStatus.FORBIDDEN, "This file can't be read."


class Folder:
    """Answers GET and HEAD with the files of a folder.

    A folder's own page is its index.html; there are no lists. What begins with a dot
    isn't there, and what a link leads to outside is refused. Raises UsageError if
    ``path`` is no folder.
    """

    def __init__(self, path: str) -> None:
        try:
            self._root = Path(path).resolve(strict=True)
        except OSError as exc:
            raise UsageError(f"--directory: {exc.strerror}: {path}") from None
        if not self._root.is_dir():
            raise UsageError(f"--directory: expected a folder: {path}")

    async def process_request(
        self, ws: ServerConnection, request: Request
    ) -> Response | None:
        """Answer a request, unless it asks for a WebSocket.

        **Cancellation**: a thread may read on.
        """
        if asks_for_websocket(request):
            return None
        if request.method not in ("GET", "HEAD"):
            return not_allowed(ws)
        answer = await trio.to_thread.run_sync(
            self.look, request.path, abandon_on_cancel=True
        )
        response = _response(ws, answer)
        if request.method == "HEAD":
            response.body = b""  # its length stays
        return response

    def look(self, target: str) -> _Answer:
        """Find what a request asks for; reads the disk."""
        try:
            return self._look(target)
        except _RefusedError as exc:
            return _Answer(exc.status, f"{exc}\n".encode())

    def _look(self, target: str) -> _Answer:
        raw, mark, query = target.partition("?")
        names = _names(raw)
        path = self._resolved(names)
        if path.is_dir():
            if names and names[-1]:  # or links from the page lead to beside it
                place = f"{raw}/{mark}{query}"
                return _Answer(HTTPStatus.MOVED_PERMANENTLY, location=place)
            path = self._resolved([*names, "index.html"])
        elif names and not names[-1]:
            raise _RefusedError(*_NOT_FOUND)
        return _Answer(HTTPStatus.OK, _read(path), _kind(path.name))

    def _resolved(self, names: list[str]) -> Path:
        try:
            path = self._root.joinpath(*names).resolve(strict=True)
        except PermissionError:
            raise _RefusedError(*_FORBIDDEN) from None
        except (OSError, RuntimeError):  # RuntimeError: links in a circle
            raise _RefusedError(*_NOT_FOUND) from None
        if not path.is_relative_to(self._root):
            raise _RefusedError(*_FORBIDDEN)
        return path


def asks_for_websocket(request: Request) -> bool:
    """Whether a request asks for a WebSocket, well or not."""
    upgrade = ",".join(request.headers.get_all("Upgrade")).lower()
    return "websocket" in (one.strip() for one in upgrade.split(","))


def not_allowed(ws: ServerConnection) -> Response:
    """Answer a request of another method than GET and HEAD."""
    text = b"Here are GET, HEAD and WebSockets.\n"
    response = _response(ws, _Answer(HTTPStatus.METHOD_NOT_ALLOWED, text))
    response.headers["Allow"] = "GET, HEAD"
    return response


def _names(raw: str) -> list[str]:
    """Return the names in a path, the last of which is empty after a slash.

    Whatever a name holds, it is one name: what would be several to the system, or more
    than a name, is refused.
    """
    names = []
    first, *parts = raw.split("/")
    for number, part in enumerate(parts, 1):
        try:
            name = urllib.parse.unquote(part, errors="strict")
        except UnicodeDecodeError:
            raise _RefusedError(*_NOT_FOUND) from None
        empty = not name and number < len(parts)
        if empty or name.startswith(".") or not {*"/\\:\0"}.isdisjoint(name):
            raise _RefusedError(*_NOT_FOUND)
        names.append(name)
    if first:
        raise _RefusedError(*_NOT_FOUND)
    return names


def _read(path: Path) -> bytes:
    try:
        descriptor = os.open(path, _FLAGS)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _RefusedError(*_FORBIDDEN)
            body = file.read(_MAX_FILE + 1)
    except FileNotFoundError:
        raise _RefusedError(*_NOT_FOUND) from None
    except OSError:
        raise _RefusedError(*_FORBIDDEN) from None
    if len(body) > _MAX_FILE:
        raise _RefusedError(
            HTTPStatus.FORBIDDEN, f"This file is larger than {_MAX_FILE >> 20} MiB."
        )
    return body


def _kind(name: str) -> str:
    """Return the content type for a file's name."""
    kind, encoding = mimetypes.guess_type(name)
    if kind is None or encoding is not None:  # what is compressed stays a file
        return "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


def _response(ws: ServerConnection, answer: _Answer) -> Response:
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
    if answer.location:
        headers["Location"] = answer.location
    return ws.respond(
        answer.status, answer.body, content_type=answer.kind, headers=headers
    )
