"""Released models that are being fetched by this process: one thread a model, its state for the page."""

import logging
import threading
from dataclasses import dataclass

from maskgil.released import catalog, download

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FetchState:
    """`running`: it is being fetched now; `error`: why the last try ended, empty where it did not fail."""

    running: bool = False
    error: str = ""


class ModelFetcher:
    """Starts fetches and tells how they stand. Safe to use from several threads."""

    def __init__(self, endpoint: str | None = None):
        """`endpoint`: another address than huggingface.co's."""
        self._endpoint, self._lock = endpoint, threading.Lock()
        self._states: dict[str, FetchState] = {}
        self._threads: dict[str, threading.Thread] = {}

    def start(self, name: str) -> None:
        """Fetch a released model in the background. One that is on its way, or here, is not fetched again."""
        model = catalog.released_model(name)
        with self._lock:
            if self.state(model.name).running or download.is_complete(model):
                return
            self._states[model.name] = FetchState(running=True)
            thread = threading.Thread(target=self._fetch, args=(model.name,), name=f"fetch {model.name}", daemon=True)
            self._threads[model.name] = thread
            thread.start()

    def state(self, name: str) -> FetchState:
        """How the fetch of this model stands."""
        return self._states.get(name, FetchState())

    def wait(self, name: str, timeout: float | None = None) -> FetchState:
        """The state once the fetch is over, or after `timeout` seconds."""
        if (thread := self._threads.get(name)) is not None:
            thread.join(timeout)
        return self.state(name)

    def _fetch(self, name: str) -> None:
        error = ""
        try:
            download.fetch(name, self._endpoint)
        except ValueError as failed:
            error = str(failed)
        except Exception as failed:
            log.exception("%s was not fetched", name)
            error = f"{name} was not fetched ({type(failed).__name__}: {failed}): see the server's log"
        self._states[name] = FetchState(error=error)
