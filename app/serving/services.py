"""What every page, socket and API call of this process shares: one engine, one recognizer, one gallery."""

import logging
import threading

from app.core import paths, registry
from app.core.gallery_store import Gallery, GalleryEntry
from app.core.prompt_admission import admit
from app.core.request import GenerationRequest
from app.serving.engine import Engine
from app.serving.jobs import Job
from app.serving.recognizer import SpeechRecognizer
from maskgil.inpainting import InpaintingInput

log = logging.getLogger(__name__)


class AppServices:
    """The engine, the speech recognizer and the gallery. `gallery_problem`: why images are not saved, or empty."""

    def __init__(self, engine: Engine, recognizer: SpeechRecognizer, gallery: Gallery, gallery_problem: str = ""):
        self.engine, self.recognizer, self.gallery, self.gallery_problem = engine, recognizer, gallery, gallery_problem
        self._recognizers: dict[str, SpeechRecognizer] = {}
        self._lock = threading.Lock()

    def recognizer_named(self, name: str) -> SpeechRecognizer | None:
        """The recognizer of this name: the default or a bundled one, which is loaded on first use; None for others."""
        if name == self.recognizer.name:
            return self.recognizer
        if name not in registry.recognizers():
            return None
        with self._lock:
            return self._recognizers.setdefault(name, SpeechRecognizer(name))

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


_lock = threading.Lock()
_existing: AppServices | None = None


def get_services() -> AppServices:
    """Those of this process, made by the first call, which reads the gallery and may take seconds: no event loop may
    wait for it."""
    global _existing
    with _lock:  # a page, a socket and the warm-up may all be first
        if _existing is None:
            gallery, problem = _open_gallery()
            _existing = AppServices(Engine(), SpeechRecognizer(paths.default_recognizer()), gallery, problem)
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
