"""What pyproject.toml can't say: the codec is compiled where that is possible."""

import os

from setuptools import Extension, setup

# The same files work as they are where there is no C compiler, or it fails.
MODULES = [] if os.environ.get("TRIO_WS_PURE") else ["_codec", "_engine", "_outbox"]

setup(
    ext_modules=[
        Extension(
            f"trio_ws._protocol.{name}",
            [f"trio_ws/_protocol/{name}.py"],
            optional=True,
        )
        for name in MODULES
    ]
)
