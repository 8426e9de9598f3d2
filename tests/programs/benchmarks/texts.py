"""Texts to compress: messages that are alike and never the same."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache

ROW = 104  # bytes, about


def json_texts(count: int, rows: int) -> list[str]:
    rng = random.Random(6455)
    return [
        json.dumps(
            [
                {
                    "symbol": "".join(rng.choices("ABCDEFGHIJ", k=4)),
                    "price": round(rng.uniform(1, 500), 2),
                    "volume": rng.randrange(10**6),
                    "open": rng.random() < 0.9,
                    "updated": f"2026-01-01T12:{number % 60:02}:00Z",
                }
                for _ in range(rows)
            ]
        )
        for number in range(count)
    ]


@cache
def lexicon() -> list[str]:
    """Make words of syllables."""
    syllables = [
        a + b for a in "bdfgklmnprstvw" for b in ("a", "e", "i", "o", "u", "er")
    ]
    known = random.Random(7692)
    return [
        "".join(known.choices(syllables, k=1 + int(known.expovariate(0.8))))
        for _ in range(5000)
    ]


def words(rng: random.Random, count: int) -> list[str]:
    """Choose words, of which few are frequent, as in a language."""
    return rng.choices(lexicon(), [1 / rank for rank in range(1, 5001)], k=count)


def sentence(rng: random.Random, shortest: int, longest: int) -> str:
    return " ".join(words(rng, rng.randint(shortest, longest))).capitalize() + "."


def html_texts(count: int) -> list[str]:
    """Parts of a page, as a server sends them that renders it."""
    rng = random.Random(6455)

    def row() -> str:
        number = rng.randrange(10**6)
        return (
            f'<li id="item-{number}" class="list-item {rng.choice(("", "is-new"))}">\n'
            f'  <a href="/items/{number}" data-turbo-frame="detail">'
            f"{sentence(rng, 2, 5)}</a>\n"
            f'  <p class="list-item__text">{sentence(rng, 8, 30)}</p>\n'
            f'  <span class="badge">{rng.randrange(100)}</span>\n</li>\n'
        )

    return [
        f'<turbo-stream action="append" target="list-{number}"><template>\n'
        f"{''.join(row() for _ in range(15))}</template></turbo-stream>"
        for number in range(count)
    ]


def log_texts(count: int) -> list[str]:
    """Lines of a server's log, some at a time."""
    rng = random.Random(6455)

    def line(second: int) -> str:
        return (
            f"2026-01-01T12:{second // 60 % 60:02}:{second % 60:02}."
            f"{rng.randrange(1000):03}Z "
            f"{rng.choice(('INFO', 'INFO', 'INFO', 'WARNING'))} "
            f"app.{rng.choice(('views', 'tasks', 'auth.session'))} "
            f"10.0.{rng.randrange(4)}.{rng.randrange(256)} "
            f'"{rng.choice(("GET", "POST"))} /api/v1/{words(rng, 1)[0]}/'
            f'{rng.randrange(10**5)}" {rng.choice((200, 200, 200, 304, 404))} '
            f"{rng.randrange(200, 9000)} request_id={rng.getrandbits(64):016x}\n"
        )

    return ["".join(line(number) for _ in range(20)) for number in range(count)]


def chat_texts(count: int) -> list[str]:
    """What somebody has written, and who, as JSON."""
    rng = random.Random(6455)
    return [
        json.dumps(
            {
                "type": "message",
                "id": f"{rng.getrandbits(64):016x}",
                "room": rng.choice(("general", "random", "help")),
                "from": words(random.Random(rng.randrange(40)), 1)[0],
                "text": sentence(rng, 3, 40),
            }
        )
        for _ in range(count)
    ]


#: By what they are: each makes so many.
TEXTS: dict[str, Callable[[int], list[str]]] = {
    "JSON": lambda count: json_texts(count, 40),
    "HTML": html_texts,
    "logs": log_texts,
    "chat": chat_texts,
}
