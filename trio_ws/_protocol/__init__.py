"""The protocol, without input or output; see the README."""

import os

if os.environ.get("TRIO_WS_PURE"):
    import sys
    from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader

    # Python prefers an extension module to the source beside it. This folder's
    # finder knows of no extension modules.
    sys.path_importer_cache[__path__[0]] = FileFinder(
        __path__[0], (SourceFileLoader, SOURCE_SUFFIXES)
    )
