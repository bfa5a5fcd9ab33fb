"""What every page and socket of this process shares: one engine, one ear, one gallery."""

import functools
import logging
import threading

from app.core import paths
from app.core.gallery_store import Gallery, GalleryEntry
from app.core.request import GenerationRequest
from app.serving.engine import Engine
from app.serving.jobs import Job
from app.serving.recognizer import SpeechRecognizer
from maskgil.inpainting import InpaintingInput

log = logging.getLogger(__name__)


class AppServices:
    """The engine that draws, the ear that listens and the gallery that keeps."""

    def __init__(self, engine: Engine, recognizer: SpeechRecognizer, gallery: Gallery):
        self.engine, self.recognizer, self.gallery = engine, recognizer, gallery

    def draw(self, request: GenerationRequest, owner: str, start: InpaintingInput | None = None) -> Job:
        """Start drawing; the pictures are kept in the owner's gallery when they are done, watched or not."""
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


_door = threading.Lock()


def get_services() -> AppServices:
    """The one of this process. Its first call reads the gallery, which may take seconds: no event loop may wait for
    it."""
    with _door:  # a page, a socket and the warm-up may all be first, and there must not be two engines
        return _built()


@functools.cache
def _built() -> AppServices:
    return AppServices(Engine(), SpeechRecognizer(paths.default_recognizer()), Gallery(paths.gallery_folder()))


get_services.cache_clear = _built.cache_clear
