"""Programs that are run to their end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

# Arguments: warnings are errors.
STRICT = "-W", "error"


def ran(
    *arguments: str | PathLike[str],
    env: Mapping[str, str],
    cwd: Path = ROOT,
    **streams: Any,
) -> subprocess.CompletedProcess[str]:
    """Run Python to its end; return what it has said."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=env,
        cwd=cwd,
        text=True,
        timeout=100,
        check=False,
        **(streams or {"capture_output": True}),
    )
