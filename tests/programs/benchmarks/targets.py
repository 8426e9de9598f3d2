"""What was aimed at: ratios of what was measured.

A bound that trio itself doesn't get below is none. Those that are met stay: they are
seen when they no longer are.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import inf
from typing import Any

from .open_loop import STRETCHES, carries
from .peers import (
    AIOHTTP,
    BARE_LOOP,
    PICOWS,
    PURE,
    PURE_WEBSOCKETS,
    RAW_SOCKETS,
    RAW_TRIO,
    TRIO_WS,
    UVLOOP,
    WEBSOCKETS,
    WEBSOCKETS_TRIO,
)
from .workloads import LATENCY_ON, MEMORY, PACED_RATES

Results = Mapping[str, Any]


class Missing(Exception):
    """Not measured."""


@dataclass(frozen=True)
class Target:
    text: str
    bound: float
    measured: Callable[[Results], float]
    at_least: bool = False

    def row(self, results: Results) -> list[str]:
        sign = "at least" if self.at_least else "at most"
        bound = f"{sign} {self.bound:g}"
        try:
            value = self.measured(results)
        except Missing:
            return [self.text, bound, "", ""]
        met = value >= self.bound if self.at_least else value <= self.bound
        return [self.text, bound, f"{value:.2f}", "met" if met else "**not met**"]


def cpu(results: Results, group: str, case: str, name: str) -> float:
    try:
        times: list[float] = results["results"][group][case][name]["cpu"]
    except KeyError:
        raise Missing from None
    return statistics.median(times)


def kib(case: str) -> Callable[[Results], float]:
    def measured(results: Results) -> float:
        try:
            return float(results[MEMORY][case][TRIO_WS])
        except KeyError:
            raise Missing from None

    return measured


def ratio(
    group: str, case: str, to: str, of: str = TRIO_WS, *, inverse: bool = False
) -> Callable[[Results], float]:
    def measured(results: Results) -> float:
        one, other = (cpu(results, group, case, name) for name in (of, to))
        return other / one if inverse else one / other

    return measured


def growth(results: Results) -> float:
    """Return how much more a message costs on the most connections than on ten."""
    group = "growth with connections"
    return cpu(results, group, "10,000", TRIO_WS) / cpu(results, group, "10", TRIO_WS)


def tail(group: str, case: str, to: str) -> Callable[[Results], float]:
    """Compare what 99 % of a stretch stay below, at a rate that both carry."""

    def measured(results: Results) -> float:
        try:
            found = results["results"][group][case]
            pair = found[TRIO_WS], found[to]
        except KeyError:
            raise Missing from None
        if not carries(pair[1]):
            raise Missing
        if not carries(pair[0]):
            return inf
        one, other = (float(statistics.median(times[STRETCHES])) for times in pair)
        return one / other

    return measured


def tail_target(group: str, rate: int, to: str, bound: float) -> Target:
    case = f"{rate:,}/s"
    text = f"{group}, {case}: 99 % of a stretch / {to}"
    return Target(text, bound, tail(group, case, to))


def targets() -> Iterator[Target]:
    yield from round_trip_targets()
    yield from one_way_targets()
    yield from server_targets()
    yield from pure_targets()


def round_trip_targets() -> Iterator[Target]:
    group = "round trip"
    for case in "32 B", "1 KiB":
        for to, bound in (
            (RAW_TRIO, 0.8),
            (WEBSOCKETS_TRIO, 0.3),
            (WEBSOCKETS + UVLOOP, 1.0),
        ):
            yield Target(f"{group} {case} / {to}", bound, ratio(group, case, to))
    group = "TLS round trip"
    for case in "32 B", "64 KiB":
        yield Target(
            f"{group} {case} / trio.SSLStream", 0.7, ratio(group, case, RAW_TRIO)
        )
    yield Target(f"{group} 32 B / {AIOHTTP}", 1.0, ratio(group, "32 B", AIOHTTP))


def one_way_targets() -> Iterator[Target]:
    for group in "one way, client to server", "one way, server to client":
        for case, to, bound in (
            ("32 B", AIOHTTP + UVLOOP, 0.35),
            ("64 KiB", PICOWS + UVLOOP, 0.6),
            ("1 MiB", RAW_TRIO, 1.0),
        ):
            yield Target(f"{group}, {case} / {to}", bound, ratio(group, case, to))


def server_targets() -> Iterator[Target]:
    group, case = "saturated server", "32 connections, 64 B"
    for to, bound in (BARE_LOOP, 1.5), (WEBSOCKETS_TRIO, 0.3):
        yield Target(f"{group} / {to}", bound, ratio(group, case, to))
    group, case = "growth with connections", "10,000"
    yield Target(f"{group}: {case} / 10", 1.5, growth)
    for to, bound in (BARE_LOOP, 1.0), (AIOHTTP + UVLOOP, 0.8):
        yield Target(f"{group}: {case} / {to}", bound, ratio(group, case, to))
    for group, rate in product(LATENCY_ON.values(), PACED_RATES):
        yield tail_target(group, rate, BARE_LOOP, 1.5)
        # At higher rates, the bare loop alone is as late as aiohttp.
        if rate == PACED_RATES[0]:
            yield tail_target(group, rate, AIOHTTP, 1.0)
    for case, bound in (
        ("plain", 14),
        ("deflate, unused", 14),
        ("deflate, both contexts used", 60),
    ):
        yield Target(f"idle connection, {case}, KiB", bound, kib(case))
    group = "connect, upgrade, close"
    for to, bound in (WEBSOCKETS_TRIO, 0.6), (WEBSOCKETS, 1.0):
        yield Target(f"{group} / {to}", bound, ratio(group, "once", to))
    yield Target(
        "broadcast to 10,000 / as many calls of send()",
        1.3,
        ratio("broadcast", "10,000 connections, 64 B", RAW_SOCKETS),
    )


def pure_targets() -> Iterator[Target]:
    """Yield those in pure Python, which masks: against who does so in C only if small.

    The one that masks is the client.
    """
    for group, small in (
        ("round trip", ("32 B", "1 KiB")),
        ("one way, client to server", ("32 B",)),
        ("one way, server to client", ("32 B", "64 KiB", "1 MiB")),
    ):
        for case in "32 B", "1 KiB", "64 KiB", "1 MiB":
            if case == "1 KiB" and group != "round trip":
                continue
            for to in WEBSOCKETS_TRIO, PURE_WEBSOCKETS:
                if to == PURE_WEBSOCKETS or case in small:
                    yield Target(
                        f"pure Python, {group}, {case} / {to}",
                        1.0,
                        ratio(group, case, to, PURE),
                    )
