"""Starts the replicas of `maskgil serve` on this machine, or finds those of a cluster that runs.

The replicas are two Ray Serve applications, `maskgil-draw` and `maskgil-transcribe` (app/serving/cluster_replica.py).
Serve's own HTTP proxy stays off: the page and the API are this program's.
"""

import logging
import os
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.core import model_names, paths
from app.serving.cluster_options import ClusterOptions
from app.serving.services import ComputeBackend

DRAW, TRANSCRIBE = "maskgil-draw", "maskgil-transcribe"
CONNECT_SECONDS = 10.0
WAIT_SECONDS = 0.5  # between two questions whether an application is deployed
PORTS_NOTE = "docs/serving.md says how to start a cluster"
LOG_TO_FILES: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
# Ray asks the network whether usage may be reported, and starts a second cluster when it is called after its end.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # replicas see the GPU where they ask for no share of it
}
# Ray listens only on 127.0.0.1 where this is set before it is imported. A replica's own port listens on all networks,
# and asks for the token, as all of Ray's ports do. A mode that is set after the import of Ray would break that.
# Ray's processes start within half a minute or end; on a busy machine they take longer.
ONE_MACHINE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_agent_register_timeout_ms": "180000"}
STARTS = 2  # of Ray on this machine: a second one finds its files in memory


def connect(options: ClusterOptions) -> ComputeBackend:
    """Connects to the replicas, which are started where they do not run. It returns when they are ready.

    Raises ValueError when Ray is missing, and for a cluster that does not answer.
    """
    ray, serve = _start_ray(options)
    from app.serving.cluster_engine import ClusterEngine, ClusterRecognizer

    serve.start(proxy_location="Disabled")
    running = serve.status().applications
    shared = 1 if options.cluster else max(1, (os.cpu_count() or 1) // options.replicas)
    threads = options.threads or shared
    drawing = {"num_cpus": threads if options.cluster else 0.1, "num_gpus": options.gpus}
    process = {"environment": _environment(), "threads": threads}
    if DRAW not in running:
        deployment = {"num_replicas": options.replicas, "ray_actor_options": drawing}
        deploy_drawing(process | {"models": [model_names.place_of(paths.default_model())], "deployment": deployment})
    if TRANSCRIBE not in running:
        listening = {"num_cpus": 1 if options.cluster else 0.1}
        deployment = {"num_replicas": options.recognizers, "ray_actor_options": listening}
        deploy_recognition(process | {"recognizers": [paths.default_recognizer()], "deployment": deployment})
    draw, transcribe = handle_when_deployed(DRAW), handle_when_deployed(TRANSCRIBE)

    def stop() -> None:
        """A cluster that other servers use goes on; one that only this server uses ends."""
        ray.shutdown()

    return ComputeBackend(
        lambda: ClusterEngine(draw, waiting=options.waiting, stop=stop),
        lambda name: ClusterRecognizer(name, transcribe),
    )


def deploy_drawing(options: dict[str, Any]) -> None:
    """Start the replicas that draw, or replace them one by one where they run with other options.

    Raises ValueError when they cannot start.
    """
    from app.serving.cluster_replica import drawing_app

    _deploy(drawing_app(options), DRAW)


def deploy_recognition(options: dict[str, Any]) -> None:
    """The same of the replicas that transcribe."""
    from app.serving.cluster_replica import recognition_app

    _deploy(recognition_app(options), TRANSCRIBE)


def handle_when_deployed(name: str) -> Any:
    """The handle of an application, once it is deployed: `serve deploy` returns before that.

    Raises ValueError for one that is not there, and for one that cannot be deployed.
    """
    from ray import serve
    from ray.serve.exceptions import RayServeException

    while True:
        try:
            return serve.get_app_handle(name)
        except RayServeException:
            found = serve.status().applications.get(name)
            if found is None or found.status in ("DEPLOY_FAILED", "DELETING"):
                raise ValueError(f"the replicas of {name} do not start: {_why(found)}") from None
        time.sleep(WAIT_SECONDS)


def _why(application: Any) -> str:
    """What Serve says of an application that does not start."""
    return "there are none" if application is None else " ".join(application.message.split())[-600:]


def _deploy(application: Any, name: str) -> None:
    from ray import serve

    try:
        serve.run(application, name=name, route_prefix=None)
    except RuntimeError as error:
        found = serve.status().applications.get(name)
        raise ValueError(f"the replicas of {name} do not start: {_why(found) if found else error}") from None


def _start_ray(options: ClusterOptions) -> tuple[Any, Any]:
    """(ray, ray.serve), connected. Raises ValueError."""
    for name, value in (QUIET if options.cluster else QUIET | ONE_MACHINE).items():
        os.environ.setdefault(name, value)
    try:
        import ray
        from ray import serve
    except ImportError as error:
        raise ValueError(f"Ray Serve is missing ({error}): pip install 'maskgil[serve]'") from None
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Replicas import the same code as this process, wherever it was started.
    root = str(Path(__file__).parents[2])
    environment = {"PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}
    if options.cluster is not None:
        _check_address(options.cluster)
        try:
            ray.init(options.cluster, **LOG_TO_FILES)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"no Ray cluster at {options.cluster} ({reason}): {PORTS_NOTE}") from None
    else:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # Ray would write one into the home folder
        os.environ.update(environment)
        start_here(lambda: ray.init(num_cpus=max(os.cpu_count() or 1, 2), include_dashboard=False, **LOG_TO_FILES))
    return ray, serve


def start_here(init: Callable[[], object]) -> None:
    """Starts Ray on this machine by `init`, again where that fails. Raises ValueError when it does not start."""
    import ray

    reason = ""
    for _ in range(STARTS):
        try:
            init()
            return
        except Exception as error:  # for processes that are too slow, Ray raises an Exception of no class of its own
            reason = " ".join(str(error).split())[:200]
            ray.shutdown()
    raise ValueError(
        f"Ray does not start on this machine ({reason}): try again when the machine is less busy, or read Ray's log in "
        "/tmp/ray/session_latest/logs"
    )


def _check_address(address: str) -> None:
    """Raises ValueError when nothing listens at HOST:PORT, which Ray would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():  # auto, or a form of Ray's own
        return
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ValueError(f"no Ray cluster at {address} ({error}): {PORTS_NOTE}") from None


def _environment() -> dict[str, str]:
    """The settings of this process that replicas need."""
    names = (paths.MODEL, paths.RECOGNIZER, paths.LEGACY_RECOGNIZER, paths.WEIGHTS, paths.TEXT_ENCODER)
    return {name: os.environ[name] for name in names if os.environ.get(name)}
