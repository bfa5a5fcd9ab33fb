"""Whether a request can be drawn: its model is served here, and the model knows its words or its class.

The engine checks what needs the model in memory (sizes, tokens, candidates) when the request is submitted.
"""

from app.core import paths, registry
from app.core.registry import ModelInfo
from app.core.request import GenerationRequest
from app.serving.engine import Engine


class UnknownModelError(ValueError):
    """No model of this name is served."""


class UnknownWordsError(ValueError):
    """The model does not know some of the words."""


def served_model(engine: Engine, name: str) -> ModelInfo:
    """The model of this name: a bundled one, the default one, or one that the operator has loaded.

    A visitor's name is no path here: it opens no folder and asks no hub. Raises UnknownModelError.
    """
    bundled = {model.name: model for model in registry.bundled()}
    if name in bundled:
        return bundled[name]
    if name == paths.default_model() or name in engine.loaded():
        return registry.find_local(name)
    raise UnknownModelError(f"no model {name[:80]!r}: there is {', '.join(bundled) or 'none'}")


def check_words(model: ModelInfo, request: GenerationRequest, allow_unknown: bool = False) -> list[str]:
    """Notes on how the model reads the request's texts. Raises UnknownWordsError for words that it does not know,
    unless they are allowed, and ValueError for a text that names no class of a class-driven model."""
    words = model.vocabulary
    complaint = words.unknown_words_message(f"{request.prompt} {request.negative_prompt}")
    if complaint and not allow_unknown:
        raise UnknownWordsError(complaint)
    model.check_classes(request.prompt, request.negative_prompt)
    normalized = words.normalize(request.prompt)
    read_as = f"read as: {normalized}" if normalized != request.prompt else ""
    return [note for note in (read_as, words.color_note(request.prompt), complaint) if note]
