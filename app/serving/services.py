"""What every page, socket and API call of this process shares: one engine, one recognizer, one gallery."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from app.core import paths, registry
from app.core.gallery_store import Gallery, GalleryEntry
from app.core.prompt_admission import admit
from app.core.request import GenerationRequest
from app.serving.engine import Engine
from app.serving.jobs import Job
from app.serving.local_engine import LocalEngine
from app.serving.recognizer import Recognizer, SpeechRecognizer
from maskgil.inpainting import InpaintingInput

log = logging.getLogger(__name__)


class AppServices:
    """The engine, the speech recognizer and the gallery. `gallery_problem`: why images are not saved, or empty.
    `open_recognizer`: makes another recognizer by its name, where this process transcribes: here or in replicas."""

    def __init__(
        self,
        engine: Engine,
        recognizer: Recognizer,
        gallery: Gallery,
        gallery_problem: str = "",
        open_recognizer: Callable[[str], Recognizer] = SpeechRecognizer,
    ):
        self.engine, self.recognizer, self.gallery, self.gallery_problem = engine, recognizer, gallery, gallery_problem
        self.open_recognizer = open_recognizer
        self._recognizers: dict[str, Recognizer] = {}
        self._lock = threading.Lock()

    def recognizer_named(self, name: str) -> Recognizer | None:
        """The recognizer of this name: the default or a bundled one, which is loaded on first use; None for others."""
        if name == self.recognizer.name:
            return self.recognizer
        if name not in registry.recognizers():
            return None
        with self._lock:
            if name not in self._recognizers:
                self._recognizers[name] = self.open_recognizer(name)
            return self._recognizers[name]

    def close(self, grace: float) -> None:
        """Stop drawing (Engine.close)."""
        self.engine.close(grace)

    def draw(self, request: GenerationRequest, owner: str, start: InpaintingInput | None = None) -> Job:
        """Start drawing; the pictures are kept in the owner's gallery when they are done, watched or not.

        Raises ValueError for a prompt in which nothing can be drawn (app/core/prompt_admission.py).
        """
        request = admit(request, registry.find_local(request.model)).request
        return self.engine.submit(request, owner, start, finished=self.keep)

    def keep(self, job: Job) -> list[GalleryEntry]:
        """Keep a finished job's pictures, once. What goes wrong (a full disk, a folder that is gone) spoils the
        keeping, not the job, and its note says so."""
        with job.keeping:
            if job.kept:
                return []
            job.kept = True
            try:
                for i, image in enumerate(job.pictures()):
                    job.entries.append(self.gallery.add(job.owner, image, job.request.single(i)))
                return list(job.entries)
            except ValueError as error:
                log.warning("job %s is not kept: %s", job.id, error)
                job.note = str(error)
            except Exception as error:
                log.exception("job %s is not kept", job.id)
                job.note = f"the picture cannot be kept ({type(error).__name__}: {error}): see to the gallery's disk"
            return []


@dataclass(frozen=True)
class ComputeBackend:
    """Where drawing and transcribing happen: makes the engine, and a recognizer by its name."""

    open_engine: Callable[[], Engine] = LocalEngine
    open_recognizer: Callable[[str], Recognizer] = SpeechRecognizer


_lock = threading.Lock()
_existing: AppServices | None = None
_backend = ComputeBackend()


def use_backend(backend: ComputeBackend) -> None:
    """Draw and transcribe there. To be called before the first get_services."""
    global _backend
    _backend = backend


def get_services() -> AppServices:
    """Those of this process, made by the first call, which reads the gallery and may take seconds: no event loop may
    wait for it."""
    global _existing
    with _lock:  # a page, a socket and the warm-up may all be first
        if _existing is None:
            gallery, problem = _open_gallery()
            recognizer = _backend.open_recognizer(paths.default_recognizer())
            engine = _backend.open_engine()
            _existing = AppServices(engine, recognizer, gallery, problem, _backend.open_recognizer)
        return _existing


def existing_services() -> AppServices | None:
    """Those of this process if a call has made them; it returns at once."""
    return _existing


def forget_services() -> None:
    """The next call of get_services makes new ones. For tests."""
    global _existing
    with _lock:
        _existing = None


def _open_gallery() -> tuple[Gallery, str]:
    """(the gallery, why images cannot be saved in it). A gallery that cannot be used refuses each call; the API needs
    none."""
    folder = paths.gallery_folder()
    try:
        return Gallery(folder), ""
    except ValueError as error:
        return Gallery(folder, check=False), str(error)
