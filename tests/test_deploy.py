"""The files of deploy/ agree with the code: versions, packages, weights, commands and the applications of a cluster."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from commands import help_of

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
WHEEL = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]


def test_the_image_holds_what_the_wheel_is_made_of():
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    torch = next(line for line in PYPROJECT["project"]["dependencies"] if line.startswith("torch=="))
    assert f"ARG TORCH={torch.removeprefix('torch==')}" in text, "the torch of the image is that of pyproject.toml"
    copied = set(re.findall(r"^COPY (\w+) \1$", text, re.MULTILINE))
    assert copied == {*WHEEL["packages"], "weights"}
    let_in = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").split() if line[0] == "!"}
    assert let_in == {*WHEEL["packages"], *WHEEL["force-include"], "pyproject.toml", "README.md", "LICENSE", "NOTICE"}
    assert re.search(r"^USER \d+$", text, re.MULTILINE), "it runs as a user without rights"


def test_the_compose_file_gives_options_that_exist():
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))["services"]
    assert set(services) == {"page", "worker"} and all(service["read_only"] for service in services.values())
    known = help_of("serve")
    command = services["page"]["command"][0].partition("maskgil serve")[2]
    assert re.findall(r"--[a-z-]+", command) and all(option in known for option in re.findall(r"--[a-z-]+", command))


def test_the_configuration_of_a_cluster_builds_its_applications():
    schema = pytest.importorskip("ray.serve.schema", reason="Ray Serve is in the extra maskgil[serve]")
    from ray.serve import Application

    from app.serving.cluster import DRAW, TRANSCRIBE

    written = schema.ServeDeploySchema.model_validate(yaml.safe_load((DEPLOY / "serve.yaml").read_text("utf-8")))
    assert [application.name for application in written.applications] == [DRAW, TRANSCRIBE]
    for application in written.applications:
        module, _, function = application.import_path.partition(":")
        built = getattr(importlib.import_module(module), function)(application.args)
        assert isinstance(built, Application)
        assert [deployment.name for deployment in application.deployments] == [built._bound_deployment.name]
