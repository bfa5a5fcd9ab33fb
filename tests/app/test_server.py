"""A real server as a process: it starts with a named reason or not at all, bounds what strangers send, stops within
seconds and tells its clients."""

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from app_fixtures import tiny_ar_model, tiny_model
from test_browser import SECONDS, until
from websockets.sync.client import connect

from app.web import page_uploads, uvicorn_server
from app.web.api_keys import hash_key, new_key
from app.web.options import ServerOptions
from app.web.server import bind, page_url
from app.web.uploads import MAX_FORM

ROOT = Path(__file__).resolve().parents[2]
SLOW = {"prompt": "two cats", "n": 16, "mode": "ar", "size": "96x64", "refinement_passes": 0}


class Server:
    """`maskgil ui --port 0` with other options. `lines`: what it has printed."""

    def __init__(
        self, weights: Path, gallery: Path, *options: str, port: int = 0, command: str = "ui", **environment: str
    ):
        words = [sys.executable, "-m", "app", command, "--port", str(port), "--weights", str(weights), *options]
        words += ["--gallery", str(gallery)]
        everything = {**os.environ, "OMP_NUM_THREADS": "1", "MASKGIL_RECOGNIZER": "none", **environment}
        self.process = subprocess.Popen(
            words, cwd=ROOT, env=everything, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        until(lambda: any("The studio is at" in line for line in self.lines) or self.process.poll() is not None)
        self.url = self.lines[0].split()[4]
        self.port = port or int(self.url.rpartition(":")[2])

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    def ready(self) -> "Server":
        until(lambda: requests.get(f"http://localhost:{self.port}/readyz", timeout=SECONDS).status_code == 200)
        return self

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(tmp_path_factory.mktemp("weights"))
    tiny_ar_model(tiny_model(folder / "scenes"))
    return folder


@pytest.fixture(scope="module")
def server(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(weights, Path(tmp_path_factory.mktemp("gallery"))).ready()
    yield server
    if server.process.poll() is None:
        server.stop()


def generate(server: Server, **fields: object) -> requests.Response:
    return requests.post(f"{server.url}/v1/images/generations", json={"prompt": "a cat", **fields}, timeout=SECONDS)


def test_a_port_of_0_is_printed_and_served(server: Server):
    assert server.port > 0 and requests.get(f"{server.url}/healthz", timeout=SECONDS).json() == {"status": "ok"}


def test_the_page_s_own_files_carry_the_headers(server: Server):
    for path in ("/", "/_stcore/health", "/v1/models", "/nothing"):
        headers = requests.get(f"{server.url}{path}", timeout=SECONDS).headers
        assert headers["x-frame-options"] == "DENY" and "frame-ancestors 'none'" in headers["content-security-policy"]
    hosts = requests.get(f"{server.url}/_stcore/host-config", timeout=SECONDS).json()["allowedOrigins"]
    assert hosts == [], "pages of these sites could send commands to the page"


def test_metrics_count_and_name_nobody(server: Server):
    assert generate(server, seed=1).status_code == 200
    text = requests.get(f"{server.url}/metrics", timeout=SECONDS).text
    assert 'maskgil_jobs_total{status="done"}' in text and "maskgil_nfe_total" in text
    assert 'route="/v1/images/generations"' in text and "a cat" not in text and "127.0.0.1" not in text


def test_a_form_in_another_charset_is_refused_before_it_is_decoded(server: Server):
    for path, method in (("/v1/images/edits", "POST"), ("/_stcore/upload_file/a/b", "PUT")):
        body = b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n-' + b"b" * 1_000_000 + b"\r\n--x--\r\n"
        call = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SECONDS)
        call.request(method, path, body, {"Content-Type": "multipart/form-data; boundary=x; charset=punycode"})
        assert call.getresponse().status == 400
    assert requests.get(f"{server.url}/healthz", timeout=5).status_code == 200


def test_half_a_request_head_is_closed(weights: Path, monkeypatch: pytest.MonkeyPatch):
    """The protocol alone, with a short timeout."""
    monkeypatch.setattr(uvicorn_server, "HEAD_SECONDS", 0.2)

    async def lasted(*pieces: bytes) -> bool:
        import uvicorn

        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})

        listener = bind("127.0.0.1", 0)
        config = uvicorn.Config(app, http=uvicorn_server.HeadTimeoutProtocol, lifespan="off", log_level="critical")
        running = asyncio.ensure_future(uvicorn.Server(config).serve(sockets=[listener]))
        await asyncio.sleep(0.3)
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.getsockname()[1])
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.12)
            async with asyncio.timeout(0.5):
                while await reader.read(1024):
                    pass
            return False
        except TimeoutError:
            return True
        except ConnectionError:
            return False
        finally:
            writer.close()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    assert not asyncio.run(lasted(b"GET / HTTP/1.1\r\nX:"))
    assert not asyncio.run(lasted(b"GET / HTTP/1.1\r\n", b"X: 1\r\n", b"Y: 2\r\n", b"Z: 3\r\n")), "byte by byte"
    assert not asyncio.run(lasted(b""))
    assert not asyncio.run(lasted(b"GET / HTTP/1.1\r\nX: " + b"x" * (uvicorn_server.MAX_HEAD + 1)))
    assert asyncio.run(lasted(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")), "a connection whose head came is kept alive"
    endless = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n"
    assert not asyncio.run(lasted(endless, *[b"x" * 1000] * 4)), "a body that goes on after its answer"


def test_a_body_that_is_refused_unread_does_not_cost_its_answer(server: Server):
    """The client is still sending when the answer comes, and reads it all the same; the connection goes on."""
    call = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SECONDS)
    for path, size, status in (
        ("/v1/images/edits", MAX_FORM + 1, 413),
        ("/v1/audio/transcriptions", MAX_FORM + 1, 413),
    ):
        call.request("POST", path, b"\0" * size, {"Content-Type": "multipart/form-data; boundary=x"})
        answer = call.getresponse()
        assert answer.status == status and "at most" in json.loads(answer.read())["error"]["message"]
    call.request("POST", "/v1/images/generations", b"\0" * 2**20, {"Origin": "http://elsewhere"})
    assert call.getresponse().status == 403


def put_file(server: Server, session: str, owner: str | None, length: int, send: bool = False) -> int:
    """The status of an upload to the page's own route; `send` all of it, or the head alone."""
    call = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SECONDS)
    call.putrequest("PUT", f"/_stcore/upload_file/{session}/f{time.monotonic_ns()}")
    call.putheader("Content-Type", "multipart/form-data; boundary=x")
    call.putheader("Content-Length", str(length))
    if owner:
        call.putheader("Cookie", f"studio={owner}")
    call.endheaders(b"x" * length if send else None)
    status = call.getresponse().status
    call.close()
    return status


def test_the_page_s_uploads_are_bounded(server: Server):
    assert put_file(server, "s", None, 10, send=True) == 403, "a visitor without a cookie"
    assert put_file(server, "s", "visitor-1234", page_uploads.MAX_BODY + 1) == 413
    assert put_file(server, "s", "visitor-1234", 10, send=True) in (400, 403), "a session that is none"


def test_a_visitor_s_and_everybody_s_uploads_are_bounded(monkeypatch: pytest.MonkeyPatch):
    held = {"mine": page_uploads.MAX_VISITOR_BYTES - 100, "other": 0}
    monkeypatch.setattr(page_uploads, "stored_bytes", lambda: dict(held))
    reached, said = [], []

    async def page(scope, receive, send):
        reached.append(scope["path"])

    async def receive() -> dict:
        raise AssertionError("the limits read nothing themselves")

    async def send(message: dict) -> None:
        said.append(message.get("status"))

    limits = page_uploads.UploadLimits(page)

    def put(session: str, owner: str, length: int) -> bool:
        headers = [(b"content-length", str(length).encode()), (b"cookie", f"studio={owner}".encode())]
        scope = {"type": "http", "method": "PUT", "path": f"/_stcore/upload_file/{session}/f", "headers": headers}
        reached.clear()
        asyncio.run(limits(scope, receive, send))
        return bool(reached)

    assert (
        put("mine", "visitor-1", 100)
        and not put("mine", "visitor-1", 101)
        and said[-2 if said[-1] is None else -1] == 413
    )
    assert not put("another-page", "visitor-1", 200), "all pages of one visitor together"
    assert put("other", "visitor-2", 200)
    held["third"] = page_uploads.MAX_TOTAL_BYTES - sum(held.values())
    assert not put("other", "visitor-2", 200) and 429 in said, "everybody together"


def test_files_that_come_slowly_are_given_up_and_take_nobody_s_place(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(page_uploads, "stored_bytes", dict)
    monkeypatch.setattr(page_uploads, "MAX_WAIT", 0.5)

    async def page(scope, receive, send):
        while True:
            await receive()

    limits = page_uploads.UploadLimits(page)

    async def put(owner: str) -> int:
        said: list[int] = []
        headers = [(b"content-length", b"1000"), (b"cookie", f"studio={owner}".encode())]
        scope = {"type": "http", "method": "PUT", "path": "/_stcore/upload_file/s/f", "headers": headers}

        async def receive() -> dict:
            await asyncio.sleep(0.01)
            return {"type": "http.request", "body": b"x", "more_body": True}

        async def send(message: dict) -> None:
            if "status" in message:
                said.append(message["status"])

        await limits(scope, receive, send)
        return said[0]

    async def statuses(owners: list[str]) -> list[int]:
        return await asyncio.gather(*(put(owner) for owner in owners))

    most, of_one = page_uploads.MAX_CONCURRENT, page_uploads.MAX_OF_VISITOR
    assert asyncio.run(statuses(["visitor-1"] * (of_one + 1) + ["visitor-2"])) == [408] * of_one + [429, 408]
    assert asyncio.run(statuses([f"visitor-{i}" for i in range(most + 1)])) == [408] * most + [429]


@pytest.mark.journey
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_it_draws_takes_seconds_and_tells_the_clients(
    weights: Path, tmp_path: Path, how: signal.Signals, stream: bool
):
    server = Server(weights, tmp_path).ready()
    answers: list[requests.Response] = []

    def ask() -> None:
        answers.append(generate(server, **SLOW, stream=stream))

    callers = [threading.Thread(target=ask) for _ in range(4)]
    for caller in callers:
        caller.start()
    until(lambda: "maskgil_queue_jobs 3.0" in requests.get(f"{server.url}/metrics", timeout=SECONDS).text)
    start = time.monotonic()
    server.process.send_signal(how)
    code = server.process.wait(20)
    assert code == 0 and time.monotonic() - start < 8 and server.lines[-1] == "stopped", server.lines[-3:]
    for caller in callers:
        caller.join(SECONDS)
    assert len(answers) == 4
    for answer in answers:
        told = answer.text if stream else json.dumps(answer.json())
        assert answer.status_code in (200, 503) and ("shutting_down" in told or "b64_json" in told)
    assert not any("Traceback" in line for line in server.lines)


def test_an_idle_server_stops_at_once_and_in_words(weights: Path, tmp_path: Path):
    server = Server(weights, tmp_path).ready()
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(10) == 0 and server.lines[-1] == "stopped"
    assert not any("Traceback" in line or "terminate" in line for line in server.lines)


@pytest.mark.journey
def test_a_second_ctrl_c_ends_it_quietly(weights: Path, tmp_path: Path):
    server = Server(weights, tmp_path).ready()

    def call() -> None:  # its connection is cut, or it is answered before that
        with contextlib.suppress(requests.RequestException):
            generate(server, **SLOW)

    caller = threading.Thread(target=call)
    caller.start()
    until(lambda: "maskgil_running_rows 16.0" in requests.get(f"{server.url}/metrics", timeout=SECONDS).text)
    server.process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    server.process.send_signal(signal.SIGINT)
    ended = server.process.wait(5)  # 0 where the drawing was cancelled before the second signal came
    assert (ended, server.lines[-1]) in ((130, "stopped at once"), (0, "stopped"))
    caller.join(SECONDS)


@pytest.mark.journey
def test_refusals_wait_for_no_drawing(server: Server):
    """Wrong calls are answered while one drawing runs and others wait for it."""
    callers = [threading.Thread(target=generate, args=(server,), kwargs=dict(SLOW, seed=seed)) for seed in range(4)]
    for caller in callers:
        caller.start()
    until(lambda: "maskgil_queue_jobs 3.0" in requests.get(f"{server.url}/metrics", timeout=SECONDS).text)
    assert {generate(server, n=99).status_code for _ in range(20)} == {400}
    assert any(caller.is_alive() for caller in callers), "the drawings went on meanwhile"
    for caller in callers:
        caller.join(SECONDS)


def test_keys_are_needed_off_this_machine(weights: Path, tmp_path: Path):
    key = new_key()
    keys = tmp_path / "keys"
    keys.write_text(f"alice {hash_key(key)} 3\n")
    command = [sys.executable, "-m", "app", "ui", "--port", "0", "--address", "0.0.0.0"]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert refused.returncode == 2 and "--api-keys FILE, or --no-auth" in refused.stderr
    server = Server(weights, tmp_path / "gallery", "--address", "0.0.0.0", "--api-keys", str(keys)).ready()
    try:
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            answer = requests.get(f"{server.url}/v1/models", headers=headers, timeout=SECONDS)
            assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_api_key"
        good = {"Authorization": f"Bearer {key}"}
        statuses = [requests.get(f"{server.url}/v1/models", headers=good, timeout=SECONDS) for _ in range(4)]
        assert [answer.status_code for answer in statuses] == [200, 200, 200, 429]
        assert int(statuses[-1].headers["retry-after"]) > 0
        assert requests.get(server.url, timeout=SECONDS).status_code == 200, "the page needs no key"
    finally:
        server.stop()
    log = "\n".join(server.lines)
    assert "key=alice" in log and key not in log


def test_a_log_line_has_no_prompt_unless_asked_for(weights: Path, tmp_path: Path):
    for options, shown in (((), False), (("--log-prompts",), True)):
        server = Server(weights, tmp_path, *options).ready()
        assert generate(server, prompt="a red apple", seed=1).status_code == 200
        server.stop()
        lines = [line for line in server.lines if "/v1/images/generations" in line]
        assert len(lines) == 1 and ("a red apple" in lines[0]) == shown


@pytest.mark.journey
def test_without_a_gallery_the_api_draws(weights: Path, tmp_path: Path):
    """Read-only, a full disk, no HOME: one line names the option."""
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    server = Server(weights, blocked / "gallery", HOME="/nonexistent").ready()
    try:
        assert generate(server, seed=1).status_code == 200
        notes = [line for line in server.lines if line.startswith("note: images are not saved")]
        assert len(notes) == 1 and "--gallery" in notes[0]
        assert not any("Traceback" in line for line in server.lines)
    finally:
        server.stop()


@pytest.mark.parametrize(("address", "port", "option"), [("", 0, "--address"), ("no.such.host.invalid", 0, "--address"),
                                                         ("127.0.0.1", 70000, "--port"), ("192.0.2.1", 0, "--address"),
                                                         ("127.0.0.1", -1, "--port")])  # fmt: skip
def test_a_wrong_address_and_a_wrong_port_are_each_named(address: str, port: int, option: str):
    with pytest.raises(ValueError, match=option):
        bind(address, port)


def test_the_limit_of_open_files_is_raised_to_what_is_allowed():
    """In a process of its own: a limit that is raised cannot be told from one that was never low."""
    code = (
        "import resource as r; hard = r.getrlimit(r.RLIMIT_NOFILE)[1]; r.setrlimit(r.RLIMIT_NOFILE, (256, hard));"
        "from app.web.server import raise_file_limit; raise_file_limit(); now = r.getrlimit(r.RLIMIT_NOFILE);"
        "assert now[1] == hard and now[0] == (65536 if hard < 0 else min(hard, 65536)), now"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)


def test_a_port_in_use_is_named():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ValueError, match="--port"):
            bind("127.0.0.1", other.getsockname()[1])


def test_the_printed_address_is_the_one_to_open():
    assert page_url(ServerOptions(), 8501) == "http://localhost:8501"
    assert page_url(ServerOptions(address="::1"), 1) == "http://localhost:1"
    assert page_url(ServerOptions(address="10.0.0.5", tls_cert=Path("a")), 1) == "https://10.0.0.5:1"
    public = ServerOptions(public_url=("https://studio.example.com/",), root_path="/art")
    assert page_url(public, 1) == "https://studio.example.com/art"


def test_the_live_socket_is_refused_while_it_stops(server: Server):
    """And to other origins, at the handshake."""
    with pytest.raises(Exception, match="403"):
        with connect(f"ws://127.0.0.1:{server.port}/live", origin="http://evil.com", proxy=None):
            pass
