"""What pyproject.toml can't say: the codec is compiled where that is possible."""

import os
import sys

from setuptools import Extension, setup

MODULES = [
    "_endpoint.counter",
    "_protocol.engine",
    "_protocol.frames.decoder",
    "_protocol.frames.encoder",
    "_protocol.frames.header",
    "_protocol.frames.outbox",
    "_protocol.frames.partial",
]

compiled = not os.environ.get("TRIO_WS_PURE")
if compiled and sys.implementation.name != "cpython":
    # The extension works with the memory of CPython's objects. PyPy, for one, makes
    # copies of them for C, and its own compiler runs the Python as quickly.
    why = f"the codec isn't compiled: {sys.implementation.name} runs it as Python"
    print(why)  # noqa: T201 - where the build's output is shown
    compiled = False

setup(
    ext_modules=[
        Extension(
            f"trio_ws.{name}",
            [f"trio_ws/{name.replace('.', '/')}.py"],
            extra_compile_args=["-O3", "-g0"],
            # The same files work as they are where there is no C compiler, or it
            # fails. In CI it may not.
            optional=os.environ.get("TRIO_WS_REQUIRE") != "all",
        )
        for name in MODULES
        if compiled
    ],
    # No generated files beside the sources.
    options={"build_ext": {"cython_c_in_temp": True}},
)
