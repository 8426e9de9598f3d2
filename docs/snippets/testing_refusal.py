# shown:
import pytest

from trio_ws import (
    InvalidStatus,
    Request,
    Response,
    ServerConnection,
    connect,
    open_server,
)
from trio_ws.testing import MemoryNetwork


async def tell(ws: ServerConnection) -> None:  # what is tested
    await ws.send("the secret")


async def check(ws: ServerConnection, request: Request) -> Response | None:
    if request.headers.get("Authorization") != "Bearer 123":
        return ws.respond(401, "who are you?\n")
    return None


async def test_strangers_are_told_nothing() -> None:
    with MemoryNetwork():
        async with open_server(tell, 80, process_request=check):
            with pytest.raises(InvalidStatus) as caught:
                async with connect("ws://chat.example/"):
                    raise AssertionError("let in")
            assert caught.value.response.status_code == 401
    with MemoryNetwork():
        with pytest.raises(ConnectionRefusedError):  # nobody listens
            async with connect("ws://chat.example/"):
                raise AssertionError("let in")


# end

if __name__ == "__main__":
    import trio

    trio.run(test_strangers_are_told_nothing)
