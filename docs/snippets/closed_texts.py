from trio_ws import Close, ConnectionClosedError, ConnectionClosedOK

for exc in (
    ConnectionClosedError(None, None),
    ConnectionClosedError(None, Close(1011, "keepalive ping timeout")),
    ConnectionClosedError(Close(1011), Close(1011), True),
    ConnectionClosedOK(Close(1001), Close(1001), True),
    ConnectionClosedOK(Close(1000), Close(1000), False),
):
    print(f"{type(exc).__name__}: {exc}")
