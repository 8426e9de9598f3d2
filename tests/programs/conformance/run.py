"""Run the Autobahn test suite against trio_ws, as server and as client.

Results are compared with expected.json, beside this file: every case has to run
and to end as that says. Exits with 0 if all did, 1 if not, 2 if the suite could
not be run. Reports and logs are left in build/conformance.

The suite runs on Python 2.7: $PYTHON27, or python2.7 on PATH, or one of pyenv's.
It is installed once, in .venv-autobahn, with the versions in constraints.txt.
Everything listens on 127.0.0.1 only.
"""

from __future__ import annotations

import argparse
import ast
import collections
import contextlib
import ctypes
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

# A script's path starts at its own folder, and a checkout may not be installed.
sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.programs.progress import Progress

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
CONSTRAINTS = HERE / "constraints.txt"
EXPECTED = HERE / "expected.json"

ROLES = ("server", "client")
AGENT = "trio_ws"
# The last virtualenv that can make an environment for Python 2.7.
VIRTUALENV = "virtualenv==20.21.1"
# Seconds until a process that was started listens, and until one that was told
# to stop has ended (the fuzzing server writes its reports then).
START_TIMEOUT = 30.0
STOP_TIMEOUT = 60.0
PR_SET_PDEATHSIG = 1


class SetupError(Exception):
    """The suite could not be run."""


# The environment of the suite


def find_python27() -> str:
    named = os.environ.get("PYTHON27")
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates = (
        [named]
        if named
        else [
            *filter(None, [shutil.which("python2.7")]),
            *map(str, sorted(pyenv.glob("versions/2.7.*/bin/python"), reverse=True)),
        ]
    )
    code = "import sys; assert sys.version_info[:2] == (2, 7); print(sys.executable)"
    for candidate in candidates:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            # The shim of a version manager can be on PATH and not run.
            return subprocess.run(
                [candidate, "-c", code], check=True, capture_output=True, text=True
            ).stdout.strip()
    raise SetupError(
        f"PYTHON27={named} is no Python 2.7"
        if named
        else "no Python 2.7 found, and the Autobahn suite runs on no other; looked"
        f" at PYTHON27, PATH and {pyenv}"
    )


def checked(*command: str | Path) -> None:
    done = subprocess.run(
        command,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise SetupError(f"{shlex.join(map(str, command))} failed:\n{done.stdout}")


def suite_python(folder: Path) -> Path:
    """Make the suite's environment, if it is not there; return its Python."""
    python = folder / "suite" / "bin" / "python"
    key = hashlib.sha256(CONSTRAINTS.read_bytes()).hexdigest()
    stamp = folder / "made-from"
    if stamp.is_file() and stamp.read_text() == key and python.exists():
        return python
    python27 = find_python27()
    print(f"installing the suite in {folder} with {python27}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    maker = folder / "virtualenv"
    checked(sys.executable, "-m", "venv", maker)
    checked(maker / "bin" / "python", "-m", "pip", "install", VIRTUALENV)
    checked(
        *(maker / "bin" / "python", "-m", "virtualenv", "--no-download"),
        *("--python", python27, folder / "suite"),
    )
    checked(python, "-m", "pip", "install", "-c", CONSTRAINTS, "autobahntestsuite")
    stamp.write_text(key)
    return python


# Processes


def stop_with_parent() -> None:
    """Have the kernel end this process when the one that started it dies."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextlib.contextmanager
def running(
    command: Sequence[str], log: Path, **env: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a process group of its own and end the group on exit."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **env},
            start_new_session=True,
            preexec_fn=stop_with_parent if sys.platform == "linux" else None,
        )
    try:
        yield process
    finally:
        try:
            process.terminate()
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            print(f"{command[0]} did not stop; killed", file=sys.stderr)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def tail(log: Path, lines: int = 30) -> str:
    text = log.read_text(errors="replace").splitlines()
    return "\n".join(f"  | {line}" for line in text[-lines:])


def wait_until_listening(
    process: subprocess.Popen[bytes], port: int, log: Path
) -> None:
    end = time.monotonic() + START_TIMEOUT
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
            break
    raise SetupError(f"nothing listens on port {port}:\n{tail(log)}")


def wait_for(
    process: subprocess.Popen[bytes], name: str, timeout: float, suite_log: Path
) -> list[str]:
    """Wait until the process ends; return what was wrong with that."""
    end = time.monotonic() + timeout
    with Progress(0, "cases") as progress:
        while time.monotonic() < end:
            try:
                code = process.wait(1)
            except subprocess.TimeoutExpired:
                log = suite_log.read_text(errors="replace")
                progress.total = len(planned_cases(log))
                begun = begun_cases(log)
                progress.at(max(len(begun) - 1, 0), begun[-1] if begun else "none yet")
            else:
                return [f"{name} ended with exit code {code}"] if code else []
    return [f"{name} did not end within {timeout:g} s"]


# A run


def spec(role: str, url: str, out: Path, cases: list[str], excluded: list[str]) -> str:
    options: dict[str, float] = {
        "openHandshakeTimeout": 30,
        # The suite's 1 s would make a busy machine's closing handshake UNCLEAN.
        "closeHandshakeTimeout": 3,
    }
    data: dict[str, Any] = {
        "outdir": str(out),
        "cases": cases,
        "exclude-cases": excluded,
        "exclude-agent-cases": {},
        "options": options,
    }
    if role == "server":
        options["serverConnectionDropTimeout"] = 3
        data["servers"] = [{"agent": AGENT, "url": url}]
    else:
        data["url"] = url
    return json.dumps(data, indent=2)


def run_role(
    role: str,
    python: Path,
    out: Path,
    cases: list[str],
    excluded: list[str],
    arguments: argparse.Namespace,
) -> list[str]:
    """Run the cases in this role; return what was wrong with the processes."""
    port = free_port()
    url = f"ws://127.0.0.1:{port}"
    spec_file = out / "spec.json"
    spec_file.write_text(spec(role, url, out, cases, excluded))
    mode = "fuzzingclient" if role == "server" else "fuzzingserver"
    wrapper = str(HERE / "wstest_local.py")
    suite = [str(python), "-u", wrapper, "-m", mode, "-s", str(spec_file), "-u", "0"]
    peer = arguments.server if role == "server" else arguments.client
    words = shlex.split(peer)
    for name, value in (("port", str(port)), ("url", url), ("agent", AGENT)):
        words = [word.replace(f"{{{name}}}", value) for word in words]
    suite_log, peer_log = out / "suite.log", out / "peer.log"
    env = {
        "WSTEST_HTML": "1" if arguments.html else "0",
        "WSTEST_PATIENCE": str(arguments.patience),
    }
    timeout: float = arguments.timeout
    if role == "server":
        with running(words, peer_log) as server:
            wait_until_listening(server, port, peer_log)
            with running(suite, suite_log, **env) as fuzzer:
                problems = wait_for(fuzzer, "the suite", timeout, suite_log)
            if server.poll() is not None:
                problems.append(f"the server ended with exit code {server.returncode}")
    else:
        with running(suite, suite_log, **env) as fuzzer:
            wait_until_listening(fuzzer, port, suite_log)
            with running(words, peer_log) as client:
                problems = wait_for(client, "the client", timeout, suite_log)
            if fuzzer.poll() is not None:
                problems.append(f"the suite ended with exit code {fuzzer.returncode}")
    if problems:
        problems += [f"{log}:\n{tail(log)}" for log in (suite_log, peer_log)]
    return problems


# The comparison


def by_number(case: str) -> list[int]:
    return [int(part) for part in case.split(".")]


def planned_cases(log: str) -> list[str]:
    found = re.search(r"^Cases = (\[.*\])$", log, re.MULTILINE)
    return [str(case) for case in ast.literal_eval(found[1])] if found else []


def begun_cases(log: str) -> list[str]:
    return re.findall(r"^Running test case ID (\S+)", log, re.MULTILINE)


def differences(
    role: str,
    expected: Mapping[str, Any],
    planned: Sequence[str],
    results: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Say how the results differ from what is expected, a line a difference."""
    behavior: dict[str, set[str]] = collections.defaultdict(lambda: {"OK"})
    close: dict[str, set[str]] = collections.defaultdict(lambda: {"OK"})
    for entry in expected["may_differ"][role]:
        for case in entry["cases"]:
            behavior[case] |= set(entry["behavior"])
            close[case] |= set(entry.get("close", []))
    found = [f"{case}: has no result" for case in planned if case not in results]
    for case in sorted(results, key=by_number):
        result = results[case]
        for what, key, allowed in (
            ("behavior", "behavior", behavior[case]),
            ("close", "behaviorClose", close[case]),
        ):
            if result[key] not in allowed:
                wanted = " or ".join(sorted(allowed))
                found.append(f"{case}: {what} is {result[key]}, expected {wanted}")
    return found


def judge(
    role: str, expected: Mapping[str, Any], out: Path, full: bool
) -> tuple[str, list[str]]:
    """Return a summary and the differences of a role's run."""
    planned = planned_cases((out / "suite.log").read_text(errors="replace"))
    index = out / "index.json"
    reports = json.loads(index.read_text()) if index.is_file() else {}
    # The fuzzing client files a server under the name that it sends of itself.
    results: dict[str, dict[str, Any]] = next(iter(reports.values()), {})
    wrong = differences(role, expected, planned, results)
    if not planned:
        wrong.append("no case was planned")
    if full and len(planned) != expected["count"]:
        wrong.append(f"{len(planned)} cases planned, expected {expected['count']}")
    counts = collections.Counter(r["behavior"] for r in results.values())
    text = ", ".join(f"{n} {what}" for what, n in counts.most_common())
    return f"{len(results)} of {len(planned)} cases ran: {text or 'none'}", wrong


def arguments_of(command_line: Sequence[str] | None) -> argparse.Namespace:
    server, client = (
        shlex.join([sys.executable, str(HERE / name)])
        for name in ("echo_server.py", "echo_client.py")
    )
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n\n")[0],
        epilog="The commands may hold {port} (server), {url} and {agent} (client).",
    )
    add = parser.add_argument
    add("--role", choices=ROLES, action="append", help="default: both")
    add("--cases", help="patterns, such as '1.* 7.1.*'; default: those expected")
    add("--html", action="store_true", help="have the suite write its HTML pages")
    add("--out", type=Path, default=ROOT / "build" / "conformance")
    add("--environment", type=Path, default=ROOT / ".venv-autobahn")
    add("--timeout", type=float, default=1800, help="seconds a role may take")
    add(
        "--patience",
        type=float,
        default=5,
        help="multiplies the second that most cases wait for an answer (default 5,"
        " as a busy machine needs; a peer that answers is not waited for)",
    )
    add(
        "--server",
        default=f"{server} {{port}}",
        help="command that echoes on 127.0.0.1:{port} until stopped",
    )
    add(
        "--client",
        default=f"{client} {{url}} {{agent}}",
        help="command that runs all cases of {url}",
    )
    return parser.parse_args(command_line)


def stop_on_signal(number: int, frame: FrameType | None) -> NoReturn:
    """Leave by an exception, so that the processes started are ended."""
    sys.exit(128 + number)


def main(command_line: Sequence[str] | None = None) -> int:
    """Run the suite; return the exit code."""
    arguments = arguments_of(command_line)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop_on_signal)
    expected = json.loads(EXPECTED.read_text())
    cases = arguments.cases.split() if arguments.cases else expected["cases"]
    excluded = [case for entry in expected["excluded"] for case in entry["cases"]]
    failed = False
    try:
        python = suite_python(arguments.environment.resolve())
        for role in arguments.role or ROLES:
            out = (arguments.out / role).resolve()
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(parents=True)
            start = time.monotonic()
            print(f"{role}: running", flush=True)
            problems = run_role(role, python, out, cases, excluded, arguments)
            summary, wrong = judge(role, expected, out, not arguments.cases)
            seconds = time.monotonic() - start
            print(f"{role}: {summary}; {seconds:.0f} s, reports in {out}")
            for line in wrong + problems:
                print(f"{role}: {line}")
            if wrong or problems:
                failed = True
            else:
                print(f"{role}: as expected", flush=True)
    except SetupError as exc:
        print(f"conformance: {exc}", file=sys.stderr)
        return 2
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
