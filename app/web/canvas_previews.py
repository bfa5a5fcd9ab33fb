"""Previews of a drawing, and files of pictures for a page."""

import io
import time

from PIL import Image

from app.serving.jobs import Job

PREVIEW_SHARE = 0.12  # of a drawing's time that its previews may take
FIRST_PREVIEW = 0.05  # seconds that the first preview is expected to take


class Previews:
    """Previews of a drawing, as many as its time allows; the pictures take turns."""

    def __init__(self, job: Job):
        self.job, self.spent, self.cost, self.next_row = job, 0.0, FIRST_PREVIEW, 0

    def take(self) -> tuple[list[int], list[bytes]]:
        """(rows, WebP files) of the pictures whose preview can be paid for now: none at most steps."""
        job = self.job
        shown = job.preview_steps
        number = min(job.request.n, int((PREVIEW_SHARE * job.seconds - self.spent) / self.cost))
        if job.is_done or not shown or number < 1 or job.frames[-1].step == job.frames[-1].total:
            return [], []
        rows = sorted((self.next_row + i) % job.request.n for i in range(number))
        began = time.thread_time()
        images = [_webp(job.preview_of_row(shown[-1], row)) for row in rows]
        took = time.thread_time() - began
        self.spent, self.cost = self.spent + took, max(1e-3, took / number)
        self.next_row = (self.next_row + number) % job.request.n
        return rows, images


def encode_fast(image: Image.Image) -> bytes:
    """PNG bytes for a page on the same machine: packed as little as pays."""
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def _webp(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "WEBP", quality=82, method=0)
    return out.getvalue()
