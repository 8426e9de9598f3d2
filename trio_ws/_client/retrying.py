"""When to try again: after which errors, after how long, and what the log says."""

from __future__ import annotations

import math
import random
import re
import ssl
import time
from collections.abc import Iterable, Iterator
from typing import Any

import trio

from .._endpoint.identity import AnyLogger
from .._protocol.errors import InvalidProxyStatus
from .._protocol.escaping import escape, shortened
from .._protocol.uri import without_secrets

# Of a proxy that will be back, or that may let the same request pass later.
_PROXY_PASSING = frozenset({408, 429, 500, 502, 503, 504})

# Of a server, or of what is before it. 425 is Too Early (RFC 8470); 520 to 526 and 530
# are Cloudflare's, for a server that it doesn't reach.
_PASSING = _PROXY_PASSING | {425, *range(520, 527), 530}

# In seconds: a server that asks for more isn't left alone for longer.
_LONGEST_RETRY_AFTER = 300.0

# In seconds: when an outage is first warned of, and the longest until it is again.
_FIRST_WARNING = 60.0
_LONGEST_SILENCE = 3600.0


def backoff(
    first: float = 5.0, factor: float = 1.1, longest: float = 30.0
) -> Iterator[float]:
    """Return delays without end: exponential backoff with full jitter, in seconds.

    Any moment between 0 and a limit is as likely as any other, from the first delay on:
    clients that lost their server together don't come back together. The limit is
    ``first`` seconds, then each time ``factor`` times as much, up to ``longest``.

    The default for ``reconnect_delays`` of :class:`reconnect`, which takes
    ``functools.partial(backoff, longest=300)``, too.

    Raises ValueError or TypeError for numbers that aren't finite, ``first`` and
    ``longest`` that aren't above 0, a ``factor`` below 1.
    """
    _check_number("first", first)
    _check_number("factor", factor, least=1)
    _check_number("longest", longest)
    return _jittered(first, factor, longest)


def _check_number(name: str, value: object, least: float = 0) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a number; got {value!r}")
    # Which also refuses NaN.
    if not (least <= value < math.inf) or value == 0:
        expected = f"at least {least}" if least else "more than 0"
        raise ValueError(f"{name}: expected {expected}, and finite; got {value!r}")


# With full jitter, the default factor makes the limit grow by a fifth of the time that
# the server is away. Doubling would make the first seconds, in which all clients try at
# once, a peak far above what comes later.
def _jittered(limit: float, factor: float, longest: float) -> Iterator[float]:
    while True:
        limit = min(limit, longest)
        yield random.uniform(0, limit)
        limit *= factor


def delays_of(value: object) -> Iterator[float]:
    """Return an iterator of what ``reconnect_delays`` has returned: a list, say."""
    if not isinstance(value, Iterable):
        raise TypeError(
            f"reconnect_delays: expected it to return an iterable of seconds; "
            f"got {value!r}"
        )
    return iter(value)


def check_delay(value: object) -> None:
    """Check one of the values of ``reconnect_delays``."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"reconnect_delays: expected numbers of seconds; got {value!r}")
    if not 0 <= value < math.inf:  # which also refuses NaN
        raise ValueError(
            f"reconnect_delays: expected finite numbers, at least 0; got {value!r}"
        )


def process_exception(exc: Exception) -> Exception | None:
    """Decide on an error of opening: None to try again, an exception to raise.

    The default for ``process_exception`` of :class:`reconnect`. Tried again are network
    errors, timeouts, a connection that ends before the response, and of HTTP the
    statuses 408, 425, 429, 500, 502, 503, 504, 520 to 526 and 530; of a proxy the same,
    without 425 and those above 504. Raised are a certificate that is wrong, other
    statuses, and all else.

    An exception counts as what it was raised from (``__cause__``), and as one of HTTP
    if it has a status as those of HTTP clients have it, ``response.status_code`` say.
    """
    causes = _with_causes(exc)
    if any(isinstance(one, ssl.SSLCertVerificationError) for one in causes):
        return exc
    for one in causes:
        status = _status_of(one)
        if status is not None:
            by_proxy = isinstance(one, InvalidProxyStatus)
            return None if status in (_PROXY_PASSING if by_proxy else _PASSING) else exc
        # TimeoutError is an OSError, too.
        if isinstance(one, OSError | EOFError | trio.TooSlowError):
            return None
    return exc


def _with_causes(exc: BaseException) -> list[BaseException]:
    causes = [exc]
    while (cause := causes[-1].__cause__) is not None and cause not in causes:
        causes.append(cause)
    return causes


def _answer_in(exc: BaseException) -> Any:
    """Return what has a status, and may have headers: a response, or the error."""
    response = getattr(exc, "response", None)
    return exc if response is None else response  # which may well be false


def _status_of(exc: BaseException) -> int | None:
    """Return the HTTP status that an error tells of, if it does."""
    answer = _answer_in(exc)
    for name in ("status_code", "status"):
        status = getattr(answer, name, None)
        if isinstance(status, int) and 100 <= status <= 999:
            return status
    return None


def retry_after(exc: BaseException) -> float:
    """Return how long a server asks to be left alone (RFC 9110, section 10.2.3).

    In seconds: 0 if it doesn't, or not in a way that can be understood.
    """
    for one in _with_causes(exc):
        if _status_of(one) is None:
            continue
        headers = getattr(_answer_in(one), "headers", None)
        after = _header(headers, "Retry-After").strip()
        if re.fullmatch(r"[0-9]{1,9}", after):
            seconds = float(after)
        else:
            # By the server's own clock, if it tells the time: ours may be wrong.
            now = _date(_header(headers, "Date")) or time.time()
            seconds = (_date(after) or now) - now
        return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER)
    return 0.0


def _header(headers: Any, name: str) -> str:
    """Return a header; "" if it isn't there, or not once."""
    try:
        value = headers[name]
    except (LookupError, TypeError):
        return ""
    return value if isinstance(value, str) else ""


def _date(text: str) -> float | None:
    """Return an HTTP-date, in each of its forms, in seconds since the epoch."""
    import datetime  # which few need
    import email.utils

    parsed = email.utils.parsedate(text)
    if parsed is None:
        return None
    try:
        # GMT, whatever it says: RFC 9110, section 5.6.7.
        return datetime.datetime(*parsed[:6], tzinfo=datetime.UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def with_retry_after(delay: float, exc: BaseException) -> float:
    """Return how long to wait: as long as the server asks to, or longer.

    What it asks for it asks of all clients alike; half as much again, at random, keeps
    them from coming back together.
    """
    after = retry_after(exc)
    return max(delay, after * random.uniform(1, 1.5)) if after else delay


def told(exc: BaseException) -> str:
    """Say in one line what was raised: by anybody, so that it may have anything.

    Its notes tell of the host and the port, of redirects and of a proxy.
    """
    parts = [f"{type(exc).__name__}: {exc}", *getattr(exc, "__notes__", ())]
    return "; ".join(shortened(escape(without_secrets(str(one)))) for one in parts)


class Outage:
    """The time without a connection, and what the log says of it.

    Each wait is an INFO. One in which the outage comes to last for longer than a minute
    is a WARNING, and again each time that it comes to last twice as long, at least once
    an hour.
    """

    def __init__(self, logger: AnyLogger) -> None:
        self._logger = logger
        self._first = True
        self._begin()

    def _begin(self) -> None:
        self._since: float | None = None
        self._attempts = 0
        self._next_warning = _FIRST_WARNING

    def attempt(self) -> None:
        """Note that an attempt begins."""
        self._since = trio.current_time() if self._since is None else self._since
        self._attempts += 1

    def wait(self, why: str, delay: float, host: str | None) -> None:
        """Log a wait: before the next attempt, or the first after a connection."""
        now = trio.current_time()
        self._since = now if self._since is None else self._since
        lasted = now - self._since
        by_then = lasted + delay
        if by_then <= self._next_warning:
            self._logger.info("%s; next attempt in %.1f s", why, delay)
            return
        while self._next_warning < by_then:
            self._next_warning += min(self._next_warning, _LONGEST_SILENCE)
        self._logger.warning(
            "no connection%s for %.0f s, after %s: %s; next attempt in %.1f s",
            "" if host is None else f" to {host}",
            lasted,
            _attempts(self._attempts),
            why,
            delay,
        )

    def over(self) -> None:
        """Log that there is a connection, unless it is the first of all attempts."""
        assert self._since is not None
        if not self._first or self._attempts > 1:
            self._logger.info(
                "connected%s after %s, %.1f s",
                "" if self._first else " again",
                _attempts(self._attempts),
                trio.current_time() - self._since,
            )
        self._first = False
        self._begin()


def _attempts(number: int) -> str:
    return "1 attempt" if number == 1 else f"{number} attempts"
