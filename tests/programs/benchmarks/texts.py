"""JSON to compress: messages that are alike and never the same."""

from __future__ import annotations

import json
import random

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
