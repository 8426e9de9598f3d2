"""What holds for every test.

Nothing skipped where all is required: with ``TRIO_WS_REQUIRE=all`` in the
environment, a test or module that skips (for want of a library, an interpreter,
a platform) fails, with the reason it gave. An expected failure is no skip. Nor is
a test that carries ``@pytest.mark.cpython("why")`` on another Python: it measures
memory, or counts on an object to be freed with its last reference.

Time: a test that has to wait in real time carries
``@pytest.mark.realtime(seconds=2)``, where seconds is about what it waits. All
tests collected may declare REALTIME_BUDGET in all. What is compared is what
they declare, never what a clock says, so that no machine is too slow for it.

Property tests: hypothesis runs the same examples each time in CI, and wherever
all is required; new ones elsewhere. ``HYPOTHESIS_PROFILE`` names another
profile: ``dev``, ``ci`` or ``thorough``.

Sweeps: a test that runs the same code at each of its moments carries
``@pytest.mark.sweep``. Coverage, which makes it three times as long, doesn't look:
a line that is run nowhere else has no test that says what it does.

Proxies: none of the environment, whose variables tests don't see.

The codec: compiled or not, whichever is imported. Compiled from sources that have
changed since, it isn't tested at all.

examples/cluster: only on CPython and with trio 0.32 or later.
"""

from __future__ import annotations

import gc
import inspect
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import HealthCheck, settings

import trio_ws
from tests.polling import poll_everything
from trio_ws._client import proxy_choice

if TYPE_CHECKING:
    from collections.abc import Generator

REALTIME_BUDGET = 30.0

# coredis stands on an anyio that needs trio 0.32, which trio_ws doesn't.
WITH_COREDIS = sys.implementation.name == "cpython" and (
    tuple(map(int, trio.__version__.split(".")[:2])) >= (0, 32)
)
collect_ignore = [] if WITH_COREDIS else ["test_cluster.py"]

REQUIRE = "TRIO_WS_REQUIRE"

OTHER_PYTHON = sys.implementation.name != "cpython"

# Machines are noisy: how long one example took says nothing.
settings.register_profile(
    "dev",
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "ci", settings.get_profile("dev"), derandomize=True, database=None
)
settings.register_profile("thorough", settings.get_profile("dev"), max_examples=5000)


def _everything_required() -> bool:
    required = os.environ.get(REQUIRE, "")
    if required not in ("", "all"):
        raise pytest.UsageError(f"{REQUIRE} is {required!r}; it can be 'all'")
    return required == "all"


def _check_compiled_code() -> None:
    package = Path(trio_ws.__file__).parent
    types = list(package.rglob("*.pxd"))
    sources = types + [path.with_suffix(".py") for path in types]
    # Those that are imported are all, but for what C alone has in another form.
    used = [
        Path(module.__file__ or "")
        for module in list(sys.modules.values())
        if getattr(module, "__name__", "").startswith("trio_ws._")
    ]
    compiled = [path for path in used if path.suffix != ".py"]
    # Compiling again leaves out what a change doesn't concern.
    if compiled and max(map(_changed, sources)) > max(map(_changed, compiled)):
        raise pytest.UsageError(
            f"{package} has compiled code older than its sources: compile it"
            f" again (make env), or use Python (TRIO_WS_PURE=1)"
        )


def _changed(path: Path) -> float:
    return path.stat().st_mtime


def pytest_configure(config: pytest.Config) -> None:
    _check_compiled_code()
    # Where all goes through a proxy, tests would, too; a test that wants to says so.
    for name in [*os.environ]:
        if name.lower().endswith("_proxy"):
            del os.environ[name]
    # A shell that starts this with & has Control-C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # A thread asks for those of Windows and macOS, and no MockClock knows of it.
    proxy_choice._SYSTEM_SETTINGS = False
    strict = _everything_required() or "CI" in os.environ
    profile = os.environ.get("HYPOTHESIS_PROFILE", "ci" if strict else "dev")
    settings.load_profile(profile)


# Skips


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not report.skipped or hasattr(report, "wasxfail") or not _everything_required():
        return
    if OTHER_PYTHON and "cpython" in getattr(report, "keywords", ()):
        return
    reason = report.longrepr
    if isinstance(reason, tuple):
        path, line, text = reason
        reason = f"{path}:{line}: {text}"
    report.outcome = "failed"
    report.longrepr = f"{reason}\n{REQUIRE}=all: a skip is a failure"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[
    None, pytest.TestReport, pytest.TestReport
]:
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[
    None, pytest.CollectReport, pytest.CollectReport
]:
    report = yield
    _fail_if_skipped(report)
    return report


def pytest_runtest_setup(item: pytest.Item) -> None:
    marker = item.get_closest_marker("cpython")
    if marker is not None and OTHER_PYTHON:
        pytest.skip(f"for CPython: {marker.args[0]}")


# Sweeps


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    if item.get_closest_marker("sweep") is None:
        return (yield)
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracer)


# Who reads


# With the codec in Python, which makes no difference to the poller, it would take long.
POLLED = sys.platform == "linux" and trio_ws.codec() != "python"


@pytest.fixture
def receivers_read_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let receivers read from the second quick message on, and as long as any does."""
    monkeypatch.setattr("trio_ws._endpoint.reader._IN_A_ROW", 1)
    monkeypatch.setattr("trio_ws._endpoint.reader._OFTEN", 1)


@pytest.fixture(params=["", "polled"] if POLLED else [""])
def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test as it is, and once more with a poller for every connection."""
    if request.param:
        poll_everything(monkeypatch)


# Garbage


def pytest_collection_finish() -> None:
    # What pytest has of all tests is by far the most that there is, and isn't garbage:
    # collecting it would take a fifth of a second each time.
    if not OTHER_PYTHON:
        gc.collect()
        gc.freeze()


# Real time

_declared = pytest.StashKey[float]()


def _realtime_seconds(item: pytest.Item) -> float:
    marker = item.get_closest_marker("realtime")
    if marker is None:
        return 0.0
    seconds = marker.kwargs.get("seconds")
    known = not marker.args and set(marker.kwargs) == {"seconds"}
    if not known or not isinstance(seconds, int | float) or seconds <= 0:
        raise pytest.UsageError(
            f"{item.nodeid}: write @pytest.mark.realtime(seconds=...), with about"
            " how many seconds the test waits"
        )
    return float(seconds)


_CLOCKS = {"mock_clock", "autojump_clock"}


def _check_clocks(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and _CLOCKS & set(item.fixturenames):
            if not _CLOCKS & set(inspect.signature(item.function).parameters):
                raise pytest.UsageError(
                    f"{item.nodeid} runs by the real clock: pytest-trio sees the one"
                    f" that a fixture asks for only if the test does so, too"
                )


# First, so that what -k and -m leave out counts too.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    _check_clocks(items)
    by_test = {item.nodeid: s for item in items if (s := _realtime_seconds(item))}
    total = sum(by_test.values())
    config.stash[_declared] = total
    if total > REALTIME_BUDGET:
        longest = sorted(by_test, key=by_test.__getitem__, reverse=True)[:10]
        raise pytest.UsageError(
            f"the realtime tests declare {total:g} s in all; they may declare"
            f" {REALTIME_BUDGET:g} s (REALTIME_BUDGET in tests/conftest.py)",
            *(f"  {by_test[test]:g} s  {test}" for test in longest),
        )


def pytest_report_collectionfinish(config: pytest.Config) -> str:
    total = config.stash.get(_declared, 0.0)
    return f"realtime tests: {total:g} s of {REALTIME_BUDGET:g} s declared"
