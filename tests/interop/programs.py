"""The programs in peers/, what each needs."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

from tests.interop.process_peer import BUILT, FOLDER, Program


def _program(name: str) -> Path:
    return Path(shutil.which(name) or name)


def _node(package: str) -> list[list[Path]]:
    folders = BUILT / "node_modules", Path("/usr/share/nodejs")
    return [[_program("node")], [folder / package for folder in folders]]


# A JVM that starts quickly.
_JAVA = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"]
_JARS = "jctools-core jzlib netty-buffer netty-codec netty-codec-http netty-common"
_JARS += " netty-handler netty-resolver netty-transport"
_CLASSES = [f"/usr/share/java/{name}.jar" for name in _JARS.split()]

_SITE = Path(sysconfig.get_path("purelib")), Path(sysconfig.get_path("platlib"))

#: Where `make test` can have them.
PROGRAMS = {
    "tornado": Program(
        [sys.executable, FOLDER / "tornado_peer.py"],
        [[site / "tornado" for site in _SITE]],
        {"can_fragment": False},
        packages="Tornado by pip",
    ),
    "ws": Program(
        ["node", FOLDER / "ws.js"],
        _node("ws"),
        packages="npm, or Debian's node-ws",
    ),
}

#: For `make interop`.
MORE = {
    "undici": Program(
        ["node", FOLDER / "undici.js"],
        _node("undici"),
        {"can_ping": False, "can_fragment": False},
        packages="npm; make interop does the rest",
    ),
    "bun": Program(
        [BUILT / "node_modules/.bin/bun", FOLDER / "bun.js"],
        [[BUILT / "node_modules/.bin/bun"]],
        {"can_fragment": False},
        packages="npm; make interop does the rest",
    ),
    "gorilla": Program(
        [BUILT / "gorilla"],
        [[BUILT / "gorilla"]],
        {"can_fragment": False},
        packages="golang-go and golang-github-gorilla-websocket-dev",
    ),
    "nhooyr": Program(
        [BUILT / "nhooyr"],
        [[BUILT / "nhooyr"]],
        {"can_fragment": False},
        packages="golang-go and golang-nhooyr-websocket-dev",
    ),
    "mojolicious": Program(
        ["perl", FOLDER / "mojolicious.pl"],
        [[Path("/usr/share/perl5/Mojolicious.pm")]],
        {"can_fragment": False},
        packages="libmojolicious-perl",
    ),
    "beast": Program(
        [BUILT / "beast"],
        [[BUILT / "beast"]],
        packages="g++ and libboost-dev",
    ),
    "libwebsockets": Program(
        [BUILT / "libwebsockets", "plain"],
        [[BUILT / "libwebsockets"]],
        {"sees_the_answer": False},
        packages="gcc and libwebsockets-dev",
    ),
    "netty": Program(
        [*_JAVA, ":".join([str(BUILT / "netty"), *_CLASSES]), "Netty"],
        [[BUILT / "netty"], [_program("java")]],
        packages="openjdk-17-jdk-headless, libnetty-java and libjzlib-java",
    ),
}

#: Those of MORE that offer and accept compression in its tests alone.
DEFLATING = {
    "libwebsockets": Program(
        [BUILT / "libwebsockets", "deflate"],
        [[BUILT / "libwebsockets"]],
        packages="gcc and libwebsockets-dev",
    ),
}
