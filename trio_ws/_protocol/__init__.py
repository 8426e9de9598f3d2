"""The protocol, without input or output; see the README."""

import os
import sys


def prefer_sources(folder: str) -> None:
    """Import the modules in ``folder`` from their sources, where that is wanted.

    That is if TRIO_WS_PURE is set; and where Python runs without the GIL. There an
    extension module turns it on for the whole process, with a warning that may be an
    error, unless it declares that it needs none, as ours don't.

    Python prefers an extension module to the source beside it. From now on, this
    folder's finder knows of no extension modules.
    """
    # Python 3.11 and 3.12 can't be asked: they have it.
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    if has_gil and not os.environ.get("TRIO_WS_PURE"):
        return
    try:
        names = os.listdir(folder)
    except OSError:  # in a zip file, there are sources alone
        return
    if not any(name.endswith(".py") for name in names):
        return  # they are elsewhere, or nowhere, as in what PyInstaller makes
    from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader

    sys.path_importer_cache[folder] = FileFinder(
        folder, (SourceFileLoader, SOURCE_SUFFIXES)
    )


prefer_sources(__path__[0])
