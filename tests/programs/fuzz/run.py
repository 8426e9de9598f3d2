"""Run the targets in this folder, one after the other.

    python tests/programs/fuzz/run.py [--seconds 60] [TARGET ...]

What libFuzzer says is in build/fuzz/TARGET/log; the corpus, which goes on growing from
run to run, and any input that fails, are beside it. It begins with what seeds.py has.
Exits with 1 if a target failed, whose last words are shown.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

# A script's path starts at its own folder, and a checkout may not be installed.
sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.programs.fuzz.seeds import SEEDS
from tests.programs.progress import Progress

ROOT = Path(__file__).parents[3]
TARGETS = {path.stem: path for path in sorted(Path(__file__).parent.glob("fuzz_*.py"))}
ONE_INPUT = 30  # seconds it may take


def state(log: Path) -> str:
    """Return the newest line of libFuzzer's that counts inputs."""
    counts = re.findall(r"^#\d.*", log.read_text(errors="replace"), re.MULTILINE)
    return " ".join(counts[-1].split()) if counts else ""


def run(name: str, seconds: int, progress: Progress) -> int:
    """Run one target; return its exit code."""
    folder = ROOT / "build" / "fuzz" / name
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[name]):
        (folder / "corpus" / f"seed{number}").write_bytes(seed)
    log = folder / "log"
    before, start = progress.done, time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, TARGETS[name], f"-max_total_time={seconds}"),
                *(f"-timeout={ONE_INPUT}", f"-artifact_prefix={folder}/"),
                folder / "corpus",
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        while True:
            passed = min(time.monotonic() - start, seconds)
            progress.at(before + passed, f"{name} {state(log)}")
            try:
                code = process.wait(1)
                break
            except subprocess.TimeoutExpired:
                pass
    finally:
        process.kill()
        process.wait()
    progress.done = before + seconds
    words = log.read_text(errors="replace").splitlines()[-40:] if code else [state(log)]
    progress.say("\n".join([f"{name}: {'FAILED' if code else 'ok'}", *words]))
    return code


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=60, help="for each")
    given = parser.parse_args()
    names = given.targets or list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        parser.error(f"no target {unknown}; there are {', '.join(TARGETS)}")
    with Progress(len(names) * given.seconds, "seconds") as progress:
        codes = [run(name, given.seconds, progress) for name in names]
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
