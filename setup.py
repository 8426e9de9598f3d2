"""What pyproject.toml can't say: the codec is compiled where that is possible."""

import os

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
        if not os.environ.get("TRIO_WS_PURE")
    ],
    # No generated files beside the sources.
    options={"build_ext": {"cython_c_in_temp": True}},
)
