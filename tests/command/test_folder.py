from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import pytest
import trio

from tests.platforms import needs_posix
from trio_ws import Headers, Request, Response, ServerConnection
from trio_ws._command import folder as folder_module
from trio_ws._command.folder import Folder
from trio_ws._command.notes import UsageError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder, what is in it, and a secret beside it."""
    (tmp_path / "secret").write_bytes(b"secret")
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "bare").mkdir()
    (root / ".git").mkdir()
    for name, text in {
        "index.html": "the page",
        "sub/index.html": "another",
        "a b.txt": "text",
        "é.json": "{}",
        "code.tar.gz": "packed",
        "what": "no idea",
        ".git/config": "secret",
        ".hidden": "secret",
    }.items():
        (root / name).write_text(text, encoding="utf-8")
    return root


async def get(tree: Path, path: str, method: str = "GET") -> Response:
    request = Request(path, Headers({"Host": "a"}), method)
    ws = ServerConnection.__new__(ServerConnection)  # of which it knows nothing
    response = await Folder(str(tree)).process_request(ws, request)
    assert response is not None
    response.serialize()
    return response


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        ("/", "text/html; charset=utf-8", b"the page"),
        ("/?a=/../b", "text/html; charset=utf-8", b"the page"),
        ("/index.html", "text/html; charset=utf-8", b"the page"),
        ("/sub/", "text/html; charset=utf-8", b"another"),
        ("/a%20b.txt", "text/plain; charset=utf-8", b"text"),
        ("/%C3%A9.json?x", "application/json", b"{}"),
        ("/code.tar.gz", "application/octet-stream", b"packed"),
        ("/what", "application/octet-stream", b"no idea"),
    ],
)
async def test_files(tree: Path, path: str, kind: str, body: bytes) -> None:
    response = await get(tree, path)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == kind
    assert response.headers["Content-Length"] == str(len(body))
    assert response.body == body


@pytest.mark.parametrize(
    "path",
    [
        "/../secret",
        "/sub/../../secret",
        "/..",
        "/.",
        "/./what",
        "/%2e%2e/secret",
        "/%2E%2E%2Fsecret",
        "/..%2fsecret",
        "/sub%2findex.html",
        "/sub%2Findex.html",
        "/..%5csecret",
        "/..\\secret",
        "/sub%5cindex.html",
        "/%00",
        "/what%00",
        "/what%00.txt",
        "/c:/what",
        "/what::$DATA",
        "//what",
        "//",
        "/sub//index.html",
        "/what/",
        "/what/index.html",
        "/bare/",
        "/.git/config",
        "/.hidden",
        "/%2ehidden",
        "/nothing",
        "/%ff",
        "/" + "x" * 300,
        "what",
        "http://a/what",
        "*",
    ],
)
async def test_nothing_else(tree: Path, path: str) -> None:
    response = await get(tree, path)
    assert response.status_code == 404
    assert b"secret" not in response.body


async def test_a_path_that_the_system_has(tree: Path) -> None:
    response = await get(tree, f"/{tree.parent / 'secret'}")
    assert response.status_code == 404


async def test_a_folder_without_its_slash(tree: Path) -> None:
    response = await get(tree, "/sub?a=b")
    assert response.status_code == 301
    assert response.headers["Location"] == "/sub/?a=b"


@needs_posix
async def test_links(tree: Path) -> None:
    (tree / "inside").symlink_to("sub")
    (tree / "out").symlink_to("..")
    (tree / "file").symlink_to(tree.parent / "secret")
    (tree / "circle").symlink_to("circle")
    (tree / "dangling").symlink_to("nowhere")
    assert (await get(tree, "/inside/")).body == b"another"
    for path, status in {
        "/out/secret": 403,
        "/out/": 403,
        "/out": 403,
        "/file": 403,
        "/circle": 404,
        "/dangling": 404,
    }.items():
        response = await get(tree, path)
        assert response.status_code == status, path
        assert b"secret" not in response.body


@needs_posix
async def test_a_folder_that_is_a_link_itself(tree: Path) -> None:
    (tree.parent / "link").symlink_to(tree)
    assert (await get(tree.parent / "link", "/what")).body == b"no idea"


@needs_posix
async def test_what_is_no_file(tree: Path) -> None:
    os.mkfifo(tree / "fifo")
    with trio.fail_after(60):
        assert (await get(tree, "/fifo")).status_code == 403


async def test_what_cannot_be_read(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By any user: root may read all."""

    def denied(*args: object, **kwargs: object) -> int:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", denied)
        assert (await get(tree, "/what")).status_code == 403
    folder = Folder(str(tree))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "resolve", denied)
        assert folder.look("/what").status == 403


async def test_a_file_that_has_gone_since(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*args: object) -> int:
        raise FileNotFoundError

    monkeypatch.setattr(os, "open", gone)
    assert (await get(tree, "/what")).status_code == 404


async def test_size(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "_MAX_FILE", 2**20)
    (tree / "large").write_bytes(b"x" * 2**20)
    assert len((await get(tree, "/large")).body) == 2**20
    (tree / "large").write_bytes(b"x" * (2**20 + 1))
    response = await get(tree, "/large")
    assert response.status_code == 403
    assert response.body == b"This file is larger than 1 MiB.\n"


async def test_methods(tree: Path) -> None:
    response = await get(tree, "/what", "HEAD")
    assert (response.status_code, response.body) == (200, b"")
    assert response.headers["Content-Length"] == "7"
    response = await get(tree, "/what", "POST")
    assert response.status_code == 405
    assert response.headers["Allow"] == "GET, HEAD"


async def test_websockets_pass(tree: Path) -> None:
    request = Request("/what", Headers({"Upgrade": "h2c, WebSocket"}))
    ws = cast(ServerConnection, None)
    assert await Folder(str(tree)).process_request(ws, request) is None


def test_no_folder(tree: Path) -> None:
    for path in tree / "what", tree / "nothing":
        with pytest.raises(UsageError, match="--directory: "):
            Folder(str(path))
