"""What pyproject.toml can't say: the codec is compiled where that is possible."""

import os
import sys
import sysconfig
import tempfile

from setuptools import Extension, setup

MODULES = [
    "_endpoint.counter",
    "_protocol.engine",
    "_protocol.frames.decoder",
    "_protocol.frames.encoder",
    "_protocol.frames.extended",
    "_protocol.frames.header",
    "_protocol.frames.outbox",
    "_protocol.frames.partial",
    "_protocol.frames.shared",
]

# In CI, what can't be compiled is an error.
optional = os.environ.get("TRIO_WS_REQUIRE") != "all"


def no_compiler() -> str | None:
    """Try the C compiler; return what is wrong, or None."""
    # Of setuptools, which stands in for what Python has no more.
    from distutils.ccompiler import new_compiler
    from distutils.errors import CCompilerError, DistutilsError
    from distutils.sysconfig import customize_compiler

    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "try.c")
        with open(source, "w", encoding="ascii") as file:
            file.write("#include <Python.h>\n")
        try:
            compiler = new_compiler()
            customize_compiler(compiler)
            include = [sysconfig.get_path("include")]
            compiler.compile([source], output_dir=folder, include_dirs=include)
        except (CCompilerError, DistutilsError, OSError) as exc:
            return str(exc)
    return None


def why_not() -> str | None:
    """Return why the codec isn't to be compiled, or None."""
    if sys.implementation.name != "cpython":
        # The extension works with the memory of CPython's objects. PyPy, for one, makes
        # copies of them for C, and its own compiler runs the Python as quickly.
        return f"{sys.implementation.name} runs it as Python"
    wrong = no_compiler() if optional else None
    return wrong and f"no C compiler that works ({wrong}); it runs as Python"


compiled = not os.environ.get("TRIO_WS_PURE")
if compiled and (why := why_not()):
    # Without extensions, the wheel is one for all machines.
    print(f"the codec isn't compiled: {why}")  # noqa: T201 - the build's output
    compiled = False

setup(
    ext_modules=[
        Extension(
            f"trio_ws.{name}",
            [f"trio_ws/{name.replace('.', '/')}.py"],
            # MSVC is called with what is best of its own.
            extra_compile_args=["-O3", "-g0"] if os.name == "posix" else [],
            # The same files work as they are where the compiler fails.
            optional=optional,
        )
        for name in MODULES
        if compiled
    ],
    # No generated files beside the sources.
    options={"build_ext": {"cython_c_in_temp": True}},
)
