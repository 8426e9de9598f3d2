"""The protocol, without input or output; see the README."""

import os


def prefer_sources(folder: str) -> None:
    """Import the modules in ``folder`` from their sources if TRIO_WS_PURE is set.

    Python prefers an extension module to the source beside it. From now on, this
    folder's finder knows of no extension modules.
    """
    if not os.environ.get("TRIO_WS_PURE") or not os.path.isdir(folder):
        return  # in a zip file there are sources alone
    import sys
    from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader

    sys.path_importer_cache[folder] = FileFinder(
        folder, (SourceFileLoader, SOURCE_SUFFIXES)
    )


prefer_sources(__path__[0])
