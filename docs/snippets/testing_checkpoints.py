# shown:
from trio.testing import assert_checkpoints

from trio_ws.testing import full_checkpoints, open_pair


async def test_checkpoints() -> None:
    async with open_pair() as (client, _server):
        with full_checkpoints():
            for _ in range(10):
                with assert_checkpoints():
                    await client.send("hello")


# end

if __name__ == "__main__":
    import trio

    trio.run(test_checkpoints)
