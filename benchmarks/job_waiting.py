"""Waiting for the jobs of a benchmark: one that fails, or does not end, ends the benchmark."""

from app.serving.jobs import Job, Status

PATIENCE_SECONDS = 3600.0


def wait_until_drawn(job: Job) -> None:
    """Return once the job is done. RuntimeError when it fails, is canceled, or does not end within PATIENCE_SECONDS."""
    if not job.wait(PATIENCE_SECONDS) or job.status is not Status.DONE:
        raise RuntimeError(f"a job of the benchmark is {job.status}: {job.error}")
