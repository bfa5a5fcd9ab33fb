"""The visitor cookie is read correctly among the cookies of other sites."""

import pytest

from app.core.gallery_store import new_owner
from app.web.visitors import COOKIE, known_cookie


@pytest.mark.parametrize(
    "others",
    ['foo={"a":1,"b":2}; %s', "x; %s", "%s; pref=dark mode", "n=é; %s", "a@b=1; %s", "a,b=1; c/d=2; %s", "%s; =;;"],
)
def test_a_visitor_is_known_whatever_other_cookies_stand_beside_theirs(others: str):
    """Every program on localhost sets cookies for all ports of it."""
    owner = new_owner()
    header = (others % f"{COOKIE}={owner}").encode("latin-1")
    assert known_cookie({"type": "http", "headers": [(b"host", b"x"), (b"cookie", header)]}) == owner
    assert known_cookie({"type": "http", "headers": [(b"cookie", header.replace(owner.encode(), b"../else"))]}) is None


def test_nobody_is_known_without_a_cookie():
    assert known_cookie({"type": "http", "headers": []}) is None
    assert known_cookie({"type": "websocket", "headers": [(b"cookie", b"other=1")]}) is None
