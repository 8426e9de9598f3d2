from trio_ws.extensions import (
    ClientPerMessageDeflateFactory,
    Frame,
    ServerPerMessageDeflateFactory,
)

TEXT = 1
MENU = '{"menu": ["profile", "billing", "team", "settings", "help", "log out"], '
SECRET = MENU + '"user": "ada", "mail": "ada@example.com", "token": "c83f5e0a91b74d26"}'
REPLY = MENU + '"user": "ada", "mail": "ada@example.com", "you said": "%s"}'


def size(guess: str, *, compress: bool = True, takeover: bool = True) -> int:
    """Return how large a reply is, on the wire, that repeats what somebody said."""
    offer = ClientPerMessageDeflateFactory().get_request_params()
    factory = ServerPerMessageDeflateFactory(server_no_context_takeover=not takeover)
    _, server = factory.process_request_params(offer, [])
    if compress:
        server.encode(Frame(TEXT, SECRET.encode()))
    return len(server.encode(Frame(TEXT, (REPLY % guess).encode())).data)


right, wrong = '"token": "c83f5e0a91b74d26', '"token": "62d47b19a0e5f38c'
for how, sizes in {
    "by default": (size(right), size(wrong)),
    "the secret sent with compress=False": (
        size(right, compress=False),
        size(wrong, compress=False),
    ),
    "server_no_context_takeover": (
        size(right, takeover=False),
        size(wrong, takeover=False),
    ),
}.items():
    verdict = "a guess tells" if sizes[0] < sizes[1] else "nothing to learn"
    print(f"{how}: {sizes[0]} bytes if right, {sizes[1]} if wrong: {verdict}")
