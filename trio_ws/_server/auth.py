"""basic_auth(): user names and passwords by HTTP Basic (RFC 7617)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, NoReturn

from .._connection.opener import await_user
from .._connection.sides import ServerConnection
from .._endpoint.options import check_function
from .._protocol.http.messages import Request, Response

Credentials = tuple[str, str]
CheckCredentials = Callable[[str, str], Awaitable[bool] | bool]

# What a quoted-string can carry (RFC 9110, section 5.6.4), quoted where need be.
_find_control = re.compile(r"[\x00-\x1f\x7f]").search  # CTL (RFC 5234, appendix B.1)
_is_realm = re.compile(r"[\t\x20-\x7e]*").fullmatch


def basic_auth(
    realm: str = "",
    credentials: Credentials | Iterable[Credentials] | None = None,
    check_credentials: CheckCredentials | None = None,
) -> Callable[[ServerConnection, Request], Awaitable[Response | None]]:
    """Make a ``process_request`` that asks for a user name and a password (RFC 7617).

    ``realm`` says what they are for. ``credentials`` is a pair of them, or several,
    which are compared in constant time; or ``check_credentials`` is a function, or
    coroutine function, of the two that returns whether they are right. The user's name
    is in ``ws.username`` then. Requests without them, or with wrong ones, are answered
    with HTTP 401.

    Raises TypeError or ValueError for wrong arguments. What ``check_credentials``
    raises is logged and answered with HTTP 500. **Cancellation**: as of
    ``check_credentials``.
    """
    if not isinstance(realm, str):
        raise TypeError(f"realm: expected a str; got {realm!r}")
    if not _is_realm(realm):
        raise ValueError(f"realm: expected ASCII without control codes; got {realm!r}")
    if (credentials is None) == (check_credentials is None):
        given = "neither" if credentials is None else "both"
        raise ValueError(
            f"credentials: expected these or check_credentials; got {given}"
        )
    if credentials is not None:
        check: Callable[[str, str], object] = _checker(credentials)
    else:
        check_function("check_credentials", check_credentials, "a function")
        assert check_credentials is not None
        check = check_credentials
    quoted = re.sub(r'([\\"])', r"\\\1", realm)
    challenge = f'Basic realm="{quoted}", charset="UTF-8"'

    return partial(_process_request, check, challenge)


async def _process_request(
    check: Callable[[str, str], object],
    challenge: str,
    connection: ServerConnection,
    request: Request,
) -> Response | None:
    given = _credentials_of(request)
    if given is None:
        problem = "Missing credentials"
    else:
        username, password = given
        right = await await_user(check, username, password)
        if not isinstance(right, bool):
            raise TypeError(
                f"check_credentials: expected it to return a bool; got {right!r}"
            )
        if right:
            connection.username = username
            return None
        problem = "Invalid credentials"
    response = connection.respond(401, f"{problem}\n")
    response.headers["WWW-Authenticate"] = challenge
    return response


def _checker(credentials: object) -> Callable[[str, str], bool]:
    """Make the function that compares with pairs of user name and password."""
    if isinstance(credentials, str | Mapping) or not isinstance(credentials, Iterable):
        _refuse(credentials)
    pairs: Iterable[Any] = [credentials] if _is_pair(credentials) else credentials
    table: dict[str, bytes] = {}  # digests
    nobodys = _digest("")
    for pair in pairs:
        if not _is_pair(pair):
            _refuse(pair)
        username, password = pair
        if ":" in username:
            raise ValueError(
                "credentials: expected no colon in a user name (RFC 7617, section 2); "
                f"got {username!r}"
            )
        if _find_control(username):
            raise ValueError(
                "credentials: expected no control characters in a user name (RFC "
                f"7617, section 2); got {username!r}"
            )
        if username in table:
            raise ValueError(
                f"credentials: expected each user name once; got {username!r} again"
            )
        table[username] = _digest(password)

    def check(username: str, password: str) -> bool:
        # A name that isn't known takes as long as a wrong password, whatever its
        # length.
        same = hmac.compare_digest(_digest(password), table.get(username, nobodys))
        return same and username in table

    return check


def _digest(password: str) -> bytes:
    return hashlib.sha256(password.encode()).digest()


def _is_pair(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(isinstance(part, str) for part in value)
    )


def _refuse(got: object) -> NoReturn:
    # Not its value, which may be a password.
    raise TypeError(
        "credentials: expected a tuple of two str, user name and password, or several "
        f"such; got {type(got).__name__}"
    )


def _credentials_of(request: Request) -> Credentials | None:
    """Return what the header Authorization says; None if that is something else."""
    values = request.headers.get_all("Authorization")
    if len(values) != 1:
        return None
    scheme, _, encoded = values[0].partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(encoded.strip(" "), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    # "The user-id and password MUST NOT contain any control characters" (RFC 7617,
    # section 2).
    if _find_control(decoded):
        return None
    username, colon, password = decoded.partition(":")
    return (username, password) if colon else None
