"""The harness of the tests does what the tests rely on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest_plugins = ["pytester"]


@pytest.fixture
def inner(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.Pytester]:
    """A folder of tests with our conftest.py and nothing else."""
    profile = settings.get_current_profile_name()
    for name in ("TRIO_WS_REQUIRE", "CI", "HYPOTHESIS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    pytester.makeconftest(Path(__file__).with_name("conftest.py").read_text())
    pytester.makeini(
        "[pytest]\nmarkers = realtime(seconds): waits\naddopts = -p no:cacheprovider\n"
    )
    yield pytester
    settings.load_profile(profile)  # our conftest.py, loaded anew, chose another


async def test_autojump_clock_makes_an_hour_pass_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    start = trio.current_time()
    with trio.move_on_after(3600) as scope:
        await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() - start == 3600


SKIPS = """
    import pytest

    def test_passes(): pass

    def test_skips(): pytest.skip("no such thing here")

    @pytest.mark.skip(reason="not now")
    def test_marked(): pass

    @pytest.mark.xfail
    def test_xfails(): assert False

    @pytest.fixture
    def absent(): pytest.skip("nothing to set up")

    def test_fixture_skips(absent): pass
"""


def test_skips_are_skips(inner: pytest.Pytester) -> None:
    inner.makepyfile(SKIPS)
    inner.runpytest_inprocess().assert_outcomes(passed=1, skipped=3, xfailed=1)


def test_skips_fail_where_all_is_required(
    inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIO_WS_REQUIRE", "all")
    inner.makepyfile(SKIPS)
    result = inner.runpytest_inprocess()
    # A failure in a fixture is counted as an error.
    result.assert_outcomes(passed=1, failed=1, errors=2, xfailed=1)
    result.stdout.fnmatch_lines_random(
        [
            "*test_skips_fail_where_all_is_required.py:*: Skipped: no such thing here",
            "*TRIO_WS_REQUIRE=all: a skip is a failure",
        ]
    )


def test_skipped_modules_fail_where_all_is_required(
    inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner.makepyfile("import pytest; pytest.importorskip('no_such_module')")
    inner.runpytest_inprocess().assert_outcomes(skipped=1)
    monkeypatch.setenv("TRIO_WS_REQUIRE", "all")
    inner.runpytest_inprocess().assert_outcomes(errors=1)


def test_realtime_within_budget(inner: pytest.Pytester) -> None:
    inner.makepyfile(
        """
        import pytest

        @pytest.mark.realtime(seconds=1.5)
        @pytest.mark.parametrize("x", range(4))
        def test_it(x): pass
        """
    )
    result = inner.runpytest_inprocess("-k", "no_such_test")
    result.stdout.fnmatch_lines(["realtime tests: 6 s of 30 s declared"])


def test_realtime_over_budget(inner: pytest.Pytester) -> None:
    inner.makepyfile(
        """
        import pytest

        @pytest.mark.realtime(seconds=16)
        @pytest.mark.parametrize("x", range(2))
        def test_it(x): pass
        """
    )
    result = inner.runpytest_inprocess("-m", "not realtime")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*declare 32 s in all; they may declare 30 s*"])


@pytest.mark.parametrize("arguments", ["", "()", "(2)", "(seconds=0)", "(minutes=1)"])
def test_realtime_says_how_long(inner: pytest.Pytester, arguments: str) -> None:
    inner.makepyfile(
        f"""
        import pytest

        @pytest.mark.realtime{arguments}
        def test_it(): pass
        """
    )
    result = inner.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_it: write @pytest.mark.realtime(seconds=...)*"])
