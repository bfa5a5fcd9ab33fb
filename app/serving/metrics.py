"""Counters of this process in Prometheus' format, for GET /metrics. None holds a prompt, a name or an address."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

registry = CollectorRegistry()

REQUESTS = Counter("maskgil_requests", "HTTP requests and sockets", ["route", "method", "status"], registry=registry)
REQUEST_SECONDS = Histogram(
    "maskgil_request_seconds", "Seconds until a request was answered", ["route"], buckets=SECONDS, registry=registry
)
ERRORS = Counter("maskgil_errors", "Errors by code", ["code"], registry=registry)
JOBS = Counter("maskgil_jobs", "Jobs that ended", ["status"], registry=registry)
REDRAWN = Counter("maskgil_redrawn", "Jobs that were drawn again because their replica died", registry=registry)
STAGE_SECONDS = Histogram(
    "maskgil_stage_seconds", "Seconds of a job's stages: queue, sample", ["stage"], buckets=SECONDS, registry=registry
)
NFE = Counter("maskgil_nfe", "Model evaluations, over all images", registry=registry)
IMAGES = Counter("maskgil_images", "Images that were finished", registry=registry)
BATCH_ROWS = Histogram(
    "maskgil_batch_rows", "Rows of a batch in one step", buckets=(1, 2, 4, 8, 12, 16), registry=registry
)
WORDS = Counter("maskgil_words_heard", "Words that were transcribed", registry=registry)
QUEUE = Gauge("maskgil_queue_jobs", "Jobs that wait", registry=registry)
RUNNING = Gauge("maskgil_running_rows", "Rows that are drawn", registry=registry)

ROUTES = (
    "/v1/images/generations", "/v1/images/edits", "/v1/images/variations", "/v1/images/files",
    "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/models", "/live", "/_stcore/stream",
    "/_stcore/upload_file", "/static", "/media", "/healthz", "/readyz", "/metrics", "/openapi.json",
)  # fmt: skip


def count_request(path: str, method: str, status: int, seconds: float) -> None:
    """Count an answered request. Unknown paths share one label, so that nobody makes new ones."""
    route = next((route for route in ROUTES if path == route or path.startswith(f"{route}/")), "other")
    known = method if method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "WEBSOCKET") else "other"
    REQUESTS.labels(route, known, str(status)).inc()
    if known != "WEBSOCKET":
        REQUEST_SECONDS.labels(route).observe(seconds)


def count_job(status: str, asked: float, began: float, ended: float) -> None:
    """Count a job that ended; times in monotonic seconds, `began` 0 when it never ran."""
    JOBS.labels(status).inc()
    STAGE_SECONDS.labels("queue").observe((began or ended) - asked)
    if began:
        STAGE_SECONDS.labels("sample").observe(ended - began)


def count_images(images: int, nfe: int) -> None:
    """Count finished images and the model evaluations that they cost together."""
    IMAGES.inc(images)
    NFE.inc(nfe)


def render_metrics() -> bytes:
    """All counters as text."""
    return generate_latest(registry)
