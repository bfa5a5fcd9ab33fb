"""`maskgil serve`: the studio and the HTTP API, drawn by several processes or machines."""

import sys
from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import arg

from app.commands.ui_command import StudioOptions, set_environment
from app.serving.cluster_options import ClusterOptions
from maskgil.command_line import Command


@dataclass(frozen=True)
class ServeOptions:
    """The replicas, and where the server listens."""

    cluster: Annotated[ClusterOptions, arg(name="")] = field(default_factory=ClusterOptions)
    studio: Annotated[StudioOptions, arg(name="")] = field(default_factory=StudioOptions)


def serve(options: Annotated[ServeOptions, arg(name="")]) -> None:
    """Start the studio and the HTTP API with replicas that draw and transcribe (Ray Serve), and print their address."""
    from app.web import server

    def start_replicas() -> None:
        from app.serving import cluster, services

        where = f"the cluster {options.cluster.cluster}" if options.cluster.cluster else "this machine"
        print(f"starting {options.cluster.replicas} replicas on {where} ...", file=sys.stderr, flush=True)
        services.use_backend(cluster.connect(options.cluster))

    set_environment(options.studio)
    server.run_server(options.studio.server, start_replicas)


def _load():
    return serve


COMMAND = Command("Serve with several replicas, on one machine or many (Ray Serve).", _load)
