"""Host, Origin, proxies, keys and headers: who may use the server, on every route and socket."""

import asyncio
import ipaddress
import json
from pathlib import Path
from typing import Any

import pytest

from app.cli import main
from app.web import health
from app.web.access import IS_LOCAL, AccessPolicy, is_loopback, parse_origin
from app.web.api_keys import ApiKeys, hash_key, new_key
from app.web.guard import Guard
from app.web.options import ServerOptions

PUBLIC = parse_origin("https://studio.example.com")
PATHS = [
    "/",
    "/v1/models",
    "/v1/images/generations",
    "/_stcore/stream",
    "/_stcore/health",
    "/live",
    "/media/x",
    "/healthz",
]


def policy(**options: Any) -> AccessPolicy:
    return AccessPolicy.of(ServerOptions(**options))


class Inside:
    """The application behind the guard: it notes what reaches it and answers 200."""

    def __init__(self):
        self.scopes: list[dict] = []

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"inside"})


def ask(rules: AccessPolicy, path: str = "/", root_path: str = "", peer: str = "127.0.0.1", **request: Any):
    """(the scope that came through or None, the first message of the answer)."""
    inside, sent = Inside(), []
    headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in request.get("headers", {}).items()]
    scope = {"type": request.get("type", "http"), "method": request.get("method", "GET"), "path": path}
    scope |= {"headers": headers, "client": (peer, 1), "scheme": request.get("scheme", "http"), "query_string": b""}

    async def send(message: dict) -> None:
        sent.append(message)

    async def receive() -> dict:
        return {"type": "http.request", "body": b""}

    asyncio.run(Guard(inside, rules, root_path)(scope, receive, send))
    return (inside.scopes[0] if inside.scopes else None), sent[0]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("type", ["http", "websocket"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": ""},
        {"host": "evil.com"},
        {"host": "evil.com:8501", "origin": "http://evil.com:8501"},
        {"host": "localhost.evil.com"},
        {"host": "127.0.0.1.evil.com:8501"},
        {"host": "evil.com/localhost"},
        {"host": "localhost@evil.com"},
        {"host": "192.168.1.5:8501"},
        {"host": "localhost:8501", "origin": "http://evil.com"},
        {"host": "localhost:8501", "origin": "null"},
        {"host": "localhost:8501", "origin": "http://localhost:9999"},
        {"host": "localhost:8501", "origin": "http://127.0.0.1:8501"},
        {"host": "localhost:8501", "origin": "http://localhost:8501.evil.com"},
        {"host": "localhost:8501", "origin": ""},
    ],
    ids=str,
)
def test_other_names_and_other_pages_are_refused_on_every_route(path: str, type: str, headers: dict):
    scope, answer = ask(policy(), path, type=type, headers=headers)
    assert scope is None
    assert answer["type"] == "websocket.close" if type == "websocket" else answer["status"] == 403


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "host", ["localhost:8501", "127.0.0.1:8501", "[::1]:8501", "LOCALHOST:8501", "studio.localhost"]
)
def test_this_machine_is_let_in(path: str, host: str):
    for headers in ({"host": host}, {"host": host, "origin": f"http://{host}"}):
        scope, answer = ask(policy(), path, headers=headers)
        assert scope is not None and answer["status"] == 200


def test_a_public_url_is_let_in_whether_its_proxy_passes_host_or_not():
    rules = policy(public_url=("https://studio.example.com", "http://other.example:8080"))
    for host in ("studio.example.com", "studio.example.com:443", "127.0.0.1:8501", "other.example:8080"):
        scope, _ = ask(rules, "/live", type="websocket", headers={"host": host, "origin": "https://studio.example.com"})
        assert scope is not None
        passed = dict(scope["headers"])
        assert passed[b"host"] == b"studio.example.com", "a later check compares it with the origin"
    assert ask(rules, headers={"host": "studio.example.com", "origin": "https://studio.example.com:8443"})[0] is None
    assert ask(rules, headers={"host": "third.example"})[0] is None
    _, refusal = ask(policy(), "/v1/models", headers={"host": "localhost", "origin": "https://x.github.dev"})
    assert refusal["status"] == 403


def test_an_address_of_the_network_is_let_in_where_all_are_listened_on():
    for address in ("0.0.0.0", "::"):
        assert policy(address=address).host_allowed("192.168.1.5:8501")
        assert not policy(address=address).host_allowed("printer.lan:8501"), "a name can be rebound"
    assert policy(address="192.168.1.5").host_allowed("192.168.1.5:8501")
    assert not policy(address="192.168.1.5").host_allowed("192.168.1.6:8501")


@pytest.mark.parametrize("type", ["text/plain; charset=punycode", "multipart/form-data; boundary=x; charset=utf-7",
                                  'multipart/form-data; CHARSET="punycode"; boundary=x', "a/b; charset=rot13",
                                  "application/json; charset=utf-16"])  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/images/edits", "/_stcore/upload_file/a/b", "/"])
def test_only_utf8_is_decoded(type: str, path: str):
    scope, answer = ask(policy(), path, method="POST", headers={"host": "localhost", "content-type": type})
    assert scope is None and answer["status"] == 400
    for good in ("multipart/form-data; boundary=x", "multipart/form-data; charset=UTF-8; boundary=x"):
        assert ask(policy(), path, method="POST", headers={"host": "localhost", "content-type": good})[0] is not None


@pytest.mark.parametrize("path", ["/v1//models", "/v1/../models", "/v1/images/files/../../etc/passwd", "/v1/a\\b"])
def test_an_odd_path_of_the_api_is_answered_in_its_error_object(path: str):
    scope, answer = ask(policy(), path, headers={"host": "localhost"})
    assert scope is None and answer["status"] == 404
    assert (b"content-type", b"application/json") in answer["headers"]


def test_every_answer_has_the_security_headers_and_an_id():
    for headers in ({"host": "localhost"}, {"host": "evil.com"}):
        _, answer = ask(policy(), "/", headers=headers)
        names = {name.decode().lower(): value.decode() for name, value in answer["headers"]}
        assert "frame-ancestors 'none'" in names["content-security-policy"] and names["x-frame-options"] == "DENY"
        assert names["cross-origin-opener-policy"] == "same-origin"
        assert names["x-content-type-options"] == "nosniff" and names["x-request-id"].startswith("req_")
        assert "http:" not in names["content-security-policy"] and "*" not in names["content-security-policy"]


@pytest.mark.parametrize("stopping", [True, False])
def test_a_request_that_a_stop_cuts_off_is_told_so(monkeypatch: pytest.MonkeyPatch, stopping: bool):
    """uvicorn cancels what is still being answered when the server stops."""
    monkeypatch.setattr(health, "_stopping", stopping)
    sent: list[dict] = []

    async def endless(scope: dict, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    async def send(message: dict) -> None:
        sent.append(message)

    async def cut_off() -> None:
        scope = {"type": "http", "method": "POST", "path": "/v1/images/generations", "client": ("127.0.0.1", 1)}
        scope |= {"headers": [(b"host", b"localhost")], "scheme": "http", "query_string": b""}
        call = asyncio.create_task(Guard(endless, policy())(scope, None, send))
        await asyncio.sleep(0)
        call.cancel()
        await call

    if stopping:
        asyncio.run(cut_off())
        assert sent[0]["status"] == 503 and json.loads(sent[1]["body"])["error"]["code"] == "shutting_down"
    else:
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(cut_off())
        assert not sent


def test_only_a_trusted_proxy_says_who_asks():
    told = {"host": "127.0.0.1:8501", "x-forwarded-for": "6.6.6.6, 203.0.113.7, 10.0.0.9", "x-forwarded-proto": "https",
            "x-forwarded-host": "studio.example.com"}  # fmt: skip
    rules = policy(public_url=("https://studio.example.com",), trusted_proxy=("10.0.0.0/8",))
    scope, _ = ask(rules, peer="10.0.0.5", headers=told)
    assert scope["client"][0] == "203.0.113.7" and scope["scheme"] == "https"
    assert dict(scope["headers"])[b"host"] == b"studio.example.com"
    scope, _ = ask(rules, peer="203.0.113.9", headers=told)
    assert scope["client"][0] == "203.0.113.9" and scope["scheme"] == "http"
    assert ask(rules, peer="10.0.0.5", headers=told | {"x-forwarded-host": "evil.com"})[0] is None


@pytest.mark.parametrize(("asked", "seen"), [("/studio", "/"), ("/studio/", "/"), ("/studio/v1/models", "/v1/models"),
                                             ("/v1/models", "/v1/models"), ("/studios", "/studios")])  # fmt: skip
def test_the_prefix_of_a_proxy_is_removed_where_it_comes(asked: str, seen: str):
    assert ask(policy(), asked, root_path="/studio", headers={"host": "localhost"})[0]["path"] == seen


@pytest.mark.parametrize("char", ["\n", "\r", "\0", "\x7f", "\t"])
def test_a_path_with_control_characters_is_nowhere(char: str):
    """The API answers it in its own error object, as any path that is not there."""
    scope, answer = ask(policy(), f"/v1/models/a{char}b", headers={"host": "localhost:8501"})
    assert scope is None and answer["status"] == 404
    assert dict(answer["headers"])[b"content-type"] == b"application/json"


@pytest.mark.parametrize(
    ("options", "host", "base"),
    [
        ({}, "localhost:8501", "http://localhost:8501"),
        ({"root_path": "/studio"}, "localhost:8501", "http://localhost:8501/studio"),
        ({"public_url": ("https://studio.example.com",)}, "127.0.0.1:8501", "https://studio.example.com"),
        ({"public_url": ("https://a.example", "http://localhost:8702")}, "localhost", "http://localhost:8702"),
    ],
)
def test_links_name_the_address_that_clients_reach(options: dict, host: str, base: str):
    scope, _ = ask(policy(**options), "/v1/models", options.get("root_path", ""), headers={"host": host})
    assert scope is not None and scope["public_base"] == base


def test_who_is_an_operator():
    def local(rules: AccessPolicy, peer: str = "127.0.0.1", **headers: str) -> bool:
        scope, _ = ask(rules, peer=peer, headers={"host": "localhost"} | headers)
        return rules.is_operator({name.decode(): value.decode() for name, value in scope["headers"]})

    assert local(policy()) and local(policy(), "::1")
    assert not local(policy(), "192.168.1.7"), "not on this machine"
    assert not local(policy(), "192.168.1.7", **{IS_LOCAL: "1"}), "nobody says so himself"
    for name in ("x-forwarded-for", "x-real-ip", "forwarded", "via"):
        assert not local(policy(), **{name: "203.0.113.7"}), "a proxy is in front"
    assert not local(policy(root_path="/studio")) and not local(policy(trusted_proxy=("10.0.0.0/8",)))
    secret = policy(operator_key="a long key", root_path="/studio")
    assert secret.is_operator({IS_LOCAL: "0"}, "a long key")
    assert not secret.is_operator({IS_LOCAL: "0"}, "another") and not secret.is_operator({}, "")
    assert "a long key" not in repr(secret)


@pytest.mark.parametrize("options", [{"public_url": ("studio.example.com",)}, {"public_url": ("ftp://x",)},
                                     {"public_url": ("https://",)}, {"trusted_proxy": ("proxy",)},
                                     {"trusted_proxy": ("10.0.0.0/99",)}])  # fmt: skip
def test_options_that_cannot_be_read_are_named(options: dict):
    with pytest.raises(ValueError, match="--(public-url|trusted-proxy)"):
        policy(**options)


def test_which_addresses_are_this_machine():
    assert all(is_loopback(host) for host in ("localhost", "a.localhost", "127.0.0.1", "127.9.9.9", "::1"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "localhost.com", ""))
    assert policy(address="0.0.0.0").is_public and policy(public_url=("https://a.example",)).is_public
    assert not policy().is_public and not policy(public_url=("http://localhost:8080",)).is_public
    assert policy(trusted_proxy=("10.0.0.5",)).trusted_proxies == (ipaddress.ip_network("10.0.0.5/32"),)


def test_keys_are_found_by_their_hash_and_limited(tmp_path, monkeypatch: pytest.MonkeyPatch):
    key, other = new_key(), new_key()
    path = tmp_path / "keys"
    path.write_text(f"# ours\nalice {hash_key(key)} 2\n\nbob {hash_key(other)}\n")
    keys = ApiKeys.read(path)
    found = keys.find(f"Bearer {key}")
    assert found is not None and found.name == "alice" and key not in path.read_text()
    assert keys.find(f"bearer {other}").name == "bob"
    for wrong in (None, "", key, f"Basic {key}", "Bearer", "Bearer x", f"Bearer {hash_key(key)}"):
        assert keys.find(wrong) is None
    now = [100.0]
    monkeypatch.setattr("app.web.api_keys.time.monotonic", lambda: now[0])
    assert [keys.seconds_until_free(found) > 0 for _ in range(3)] == [False, False, True]
    assert keys.seconds_until_free(found) == 60
    now[0] += 61
    assert keys.seconds_until_free(found) == 0


def test_two_servers_of_one_key_file_count_apart(tmp_path):
    """docs/serving.md says so: whoever runs several gives each its share of the limit."""
    key = new_key()
    (tmp_path / "keys").write_text(f"alice {hash_key(key)} 1\n")
    one, other = ApiKeys.read(tmp_path / "keys"), ApiKeys.read(tmp_path / "keys")
    found = one.find(f"Bearer {key}")
    assert found is not None
    assert one.seconds_until_free(found) == 0 and other.seconds_until_free(found) == 0
    assert one.seconds_until_free(found) > 0 and other.seconds_until_free(found) > 0


@pytest.mark.parametrize("text", ["", "# none\n", "alice\n", "alice short\n", f"a {'0' * 64}\na {'1' * 64}\n"])
def test_a_file_without_usable_keys_is_refused(tmp_path, text: str):
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(ValueError):
        ApiKeys.read(path)
    with pytest.raises(ValueError, match="--api-keys"):
        ApiKeys.read(tmp_path / "missing")


def test_the_key_that_the_command_makes_opens_the_server(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main(["key", "alice", "--limit", "30"]) == 0
    key, line = (text.partition(":")[2].strip() for text in capsys.readouterr().out.splitlines())
    (tmp_path / "keys").write_text(f"{line}\n")
    found = ApiKeys.read(tmp_path / "keys").find(f"Bearer {key}")
    assert found is not None and (found.name, found.limit) == ("alice", 30)
    assert main(["key", "two words"]) == 2 and "letters, digits" in capsys.readouterr().err
