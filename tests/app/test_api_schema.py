"""The API's own description (/openapi.json) against the real server: no generated request gets a fault, a status or a
content type that is not described."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import schemathesis
from app_fixtures import tiny_model
from hypothesis import HealthCheck, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from test_browser import SECONDS
from test_server import Server

BUNDLED = Path(__file__).resolve().parents[2] / "weights"
CASES = 25  # of each operation and mode
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
OPERATIONS = [
    ("/v1/models", "GET"),
    ("/v1/models/{name}", "GET"),
    ("/v1/images/generations", "POST"),
    ("/v1/images/edits", "POST"),
    ("/v1/images/variations", "POST"),
    ("/v1/audio/transcriptions", "POST"),
    ("/v1/audio/translations", "POST"),
    ("/v1/images/files/{name}", "GET"),
    ("/healthz", "GET"),
    ("/readyz", "GET"),
    ("/metrics", "GET"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    weights = Path(tmp_path_factory.mktemp("weights"))
    tiny_model(weights / "scenes")
    environment = {}
    if (BUNDLED / "whisper-scenes").is_dir():
        (weights / "whisper-scenes").symlink_to(BUNDLED / "whisper-scenes")
        environment["MASKGIL_RECOGNIZER"] = "whisper-scenes"
    server = Server(weights, Path(tmp_path_factory.mktemp("gallery")), **environment).ready()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def schema(server: Server) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def test_every_operation_is_tested(schema: schemathesis.BaseSchema):
    described = [result.ok() for result in schema.get_all_operations()]
    assert sorted((one.path, one.method.upper()) for one in described) == sorted(OPERATIONS)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["valid", "invalid"])
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_answers_are_as_described(
    server: Server, schema: schemathesis.BaseSchema, path: str, method: str, mode: GenerationMode
):
    operation = schema[path][method]
    if mode is GenerationMode.NEGATIVE and method == "GET":
        pytest.skip("it takes no fields")

    @seed(0)
    @settings(max_examples=CASES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS, timeout=SECONDS)

    check()
    assert requests.get(f"{server.url}/healthz", timeout=5).status_code == 200
