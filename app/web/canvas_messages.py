"""What the canvas's socket says of a drawing: a step, its pictures, and notes."""

from typing import Any

from app.core.prompt_admission import readmit
from app.serving.jobs import Job
from app.web.canvas_edits import as_sentence
from app.web.public_message import public_message


def describe_step(job: Job) -> dict[str, Any]:
    """The message about the last step; `masks` has a 1 for each token that is still to be drawn."""
    frame = job.frames[-1]
    masks = ["".join("1" if cell else "0" for cell in row) for row in frame.grid.mask.tolist()]
    remaining = job.remaining
    return {
        "type": "step",
        "job": job.id,
        "step": frame.step,
        "of": frame.total,
        "remaining": None if remaining is None else round(remaining, 2),
        "masks": masks,
        "grid": list(frame.grid.grid),
        "size": drawn_size(job),
        "prompt": job.request.prompt,
    }


def drawn_size(job: Job) -> list[int]:
    """[width, height] in pixels."""
    return list(job.request.size or (1, 1))


def describe_pictures(job: Job) -> list[dict[str, Any]]:
    """Id in the gallery (empty where it is not kept) and seed of each picture."""
    ids = [entry.id for entry in job.entries]
    ids += [""] * (job.request.n - len(ids))
    return [{"id": id, "seed": seed} for id, seed in zip(ids, job.request.seeds, strict=True)]


def reading_notes(job: Job) -> list[str]:
    """On words that are drawn otherwise than said. It reads files: no event loop may wait for it."""
    return [as_sentence(note) for note in readmit(job.request).notes]


def job_notes(job: Job) -> list[str]:
    """On a size that was changed, and on why the pictures are not kept."""
    notes = [as_sentence(job.size_note)] if job.size_note else []
    return notes + ([f"Not kept in the gallery: {as_sentence(public_message(job.note))}"] if job.note else [])
