"""Which models are served to visitors and programs.

The prompt is admitted by app/core/prompt_admission.py; the engine checks what needs the model in memory (sizes, tokens,
candidates) when the request is submitted.
"""

from app.core import paths, registry
from app.core.registry import ModelInfo
from app.serving.engine import Engine


class UnknownModelError(ValueError):
    """No model of this name is served."""


def served_model(engine: Engine, name: str) -> ModelInfo:
    """The model of this name: a bundled one, the default one, or one that the operator has loaded.

    A visitor's name is no path here: it opens no folder and asks no hub. Raises UnknownModelError.
    """
    bundled = {model.name: model for model in registry.bundled_models()}
    if name in bundled:
        return bundled[name]
    if name == paths.default_model() or name in engine.loaded():
        return registry.find_local(name)
    raise UnknownModelError(f"no model {name[:80]!r}: there is {', '.join(bundled) or 'none'}")
