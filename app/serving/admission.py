"""Which models are served to visitors and programs.

The prompt is admitted by app/core/prompt_admission.py; the engine checks what needs the model in memory (sizes, tokens,
candidates) when the request is submitted.
"""

from contextlib import suppress

from app.core import paths, registry
from app.core.registry import ModelInfo, UnavailableError
from app.serving.engine import Engine
from maskgil.released import catalog, download


class UnknownModelError(ValueError):
    """No model of this name is served."""


def served_models(engine: Engine) -> list[ModelInfo]:
    """The models that visitors and programs may ask for: the bundled ones, the released ones that were fetched, the
    default one, and those that the operator has loaded."""
    models = {model.name: model for model in [*registry.bundled_models(), *registry.fetched()]}
    for name in (paths.default_model(), *engine.loaded()):
        if name not in models:
            with suppress(ValueError):  # a default model that is not here
                models[name] = registry.find_local(name)
    return list(models.values())


def served_model(engine: Engine, name: str) -> ModelInfo:
    """The model of this name among `served_models`.

    A visitor's name is no path here: it opens no folder and asks no hub. Files are read, of every model where `name` is
    neither the default nor loaded: no event loop may wait for it. Raises UnknownModelError, and UnavailableError for
    a default model that cannot be opened.
    """
    if name == paths.default_model():
        try:
            return registry.find_local(name)
        except ValueError as error:
            raise UnavailableError(str(error)) from error
    if name in engine.loaded():
        with suppress(ValueError):  # its folder is gone
            return registry.find_local(name)
    models = {model.name: model for model in served_models(engine)}
    if name in models:
        return models[name]
    if (released := catalog.find_model(name)) is not None:
        if released.name in models:
            raise UnknownModelError(f"no model {name!r}: did you mean {released.name}?")
        raise UnknownModelError(f"no model {name!r} here: {download.how_to_fetch(released)}")
    raise UnknownModelError(f"no model {name[:80]!r}: there is {', '.join(models) or 'none'}")
