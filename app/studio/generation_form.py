"""The request that a browser is composing: it survives a change of room, and can be filled in from a finished picture.

Each setting lives in the session under "form <name>", which is also the key of the widget that shows it.
"""

import secrets
from contextlib import suppress
from typing import Any

import streamlit as st

from app.core import registry
from app.core.request import (
    MAX_IMAGES,
    MAX_LIVE_CANDIDATES,
    MAX_PROMPT,
    MAX_SEED,
    GenerationRequest,
    random_seed,
)
from app.serving.model_pool import LoadedModel
from app.studio import session, styles, widget_state
from app.studio.option_widgets import option_widget
from maskgil.adapter_folder import adapter_names
from maskgil.option_checks import validate_option
from maskgil.params import SAMPLER_HELP, SAMPLERS, SamplingParams, defaults, option_types, options, read_params
from maskgil.sampler_presets import DEFAULT, GUIDED, preset_for

STEPS = {2: "2", 4: "4 · fast", 6: "6", 8: "8 · standard", 12: "12", 16: "16 · fine", 24: "24", 32: "32", 64: "64"}
PICTURES = (1, 2, 4, 6, 9)
CANDIDATES = (1, 2, 4, 8)
MODES = {"masked": "MaskGIL", "hybrid": "Autoregressive start, then MaskGIL", "ar": "Autoregressive"}
NEW_SEED = "form new seed"
EXPERT = "form all settings"
NEW_PROMPT = "prompt for the canvas"  # {text, draw, stamp}
MISSED = "what a restored picture could not bring back"
PLAIN = "It was edited: drawn again, it is a plain picture of its words."

OWN: dict[str, Any] = {"negative_prompt": "", "adapters": "", "n": GenerationRequest.n}
SAMPLER = "form sampler"
HELP = {
    "seed": "The same seed and settings draw the same picture.",
    "negative_prompt": "What to leave out of the picture.",
    "adapters": "Names, each with its weight where that is not 1: ink:0.8, holiday.",
}
# Options with a widget of their own; every other option is drawn by its type, in the order of `SamplingParams`.
PLACED = {"steps", "candidates", "mode", "ar_tokens"}
AR_MODES = {"hybrid", "ar"}


def key(name: str) -> str:
    return f"form {name}"


def setting(name: str) -> Any:
    """What a setting is set to."""
    return widget_state.value(key(name))


def shown(name: str, *shape: Any) -> dict[str, Any]:
    """Arguments of the widget that shows a setting with these choices."""
    return widget_state.widget(key(name), *shape)


def keep_defaults(remembered: dict[str, Any] | None = None, kind: type[SamplingParams] = SamplingParams) -> None:
    """Every setting has a value from now on: call it in each run. `remembered`: those of an earlier session."""
    sampler = registry.sampler_of(session.chosen())
    usual = {name: getattr(SAMPLERS[sampler], name, default) for name, default in defaults(kind).items()}
    for name, value in {**OWN, **usual, "size": None, "style": "", "seed": random_seed()}.items():
        widget_state.keep(key(name), value)
    widget_state.keep(SAMPLER, sampler)
    widget_state.keep(NEW_SEED, True)
    widget_state.keep(EXPERT, False)
    if remembered:
        put_settings(remembered)


def to_dict() -> dict[str, Any]:
    """All settings but the seed, as JSON has them."""
    values = {name: setting(name) for name in (*OWN, "style", *options())}
    size = setting("size")
    values["size"] = None if size is None else list(size)
    return {name: list(each) if isinstance(each, tuple) else each for name, each in values.items()}


def put_settings(values: dict[str, Any]) -> None:
    """Set what `to_dict` gave, of this version or another: what is unknown or out of bounds is left as it is."""
    kinds = option_types()
    for name, about in options().items():
        if name in values:
            with suppress(ValueError):
                widget_state.put(key(name), validate_option(name, values[name], kinds[name], about))
    for name, given in OWN.items():
        if type(values.get(name)) is type(given):
            widget_state.put(key(name), min(values[name], MAX_IMAGES) if name == "n" else values[name])
    size, style = values.get("size"), values.get("style")
    if isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) for side in size):
        widget_state.put(key("size"), tuple(size))
    if isinstance(style, str):
        widget_state.put(key("style"), style)


def fill(request: GenerationRequest) -> None:
    """Show a picture's request again, its very seed and its model included; what does not come back is said."""
    missed = [PLAIN] if request.edit else []
    if session.at_hand(request.model):
        session.board()[session.MODEL] = request.model
    elif request.model != session.chosen():
        missed.insert(0, f"{request.model}, which drew it, is not here: {session.chosen()} draws now.")
    st.session_state[MISSED] = " ".join(missed)
    put_prompt(request.prompt)
    for name in (*OWN, "seed"):
        widget_state.put(key(name), getattr(request, name))
    for name in options():
        widget_state.put(key(name), getattr(request.params, name))
    if request.size is not None:
        widget_state.put(key("size"), request.size)
    widget_state.put(NEW_SEED, False)


def put_prompt(text: str, draw: bool = False) -> None:
    """Write a prompt into the line of the next canvas that is shown; `draw`: and draw it."""
    st.session_state[NEW_PROMPT] = {"text": text, "draw": draw, "stamp": secrets.token_hex(4)}


def take_seed(seed: int) -> None:
    """Draw with this seed from now on."""
    widget_state.put(key("seed"), seed)
    widget_state.put(NEW_SEED, False)


def take_new_seeds() -> None:
    """Draw each picture with a new seed from now on."""
    widget_state.put(NEW_SEED, True)


def canvas_settings(model: str, several: bool = True) -> dict[str, Any]:
    """The settings for a component that draws over a socket, as JSON; `seed` is None where each drawing has a new one.
    `several` as for `read_request`."""
    return {
        **params().to_dict(),
        "negative_prompt": setting("negative_prompt").strip(),
        "adapters": setting("adapters").strip(),
        "n": setting("n") if several else 1,
        "size": list(setting("size")),
        "seed": None if widget_state.value(NEW_SEED) else setting("seed"),
        "model": model,
    }


def read_request(model: str, prompt: str, several: bool = True) -> GenerationRequest:
    """The request as it stands, with a new seed where one is wanted; not `several`: of one picture, whatever number is
    chosen elsewhere. Raises ValueError for an impossible one.

    To be called in a callback: a seed cannot change once its widget is drawn.
    """
    if widget_state.value(NEW_SEED):
        widget_state.put(key("seed"), random_seed())
    return GenerationRequest(
        prompt.strip(),
        setting("seed"),
        model,
        setting("size"),
        setting("negative_prompt").strip(),
        setting("n") if several else 1,
        adapters=setting("adapters").strip(),
        params=params(),
    )


def params(kind: type[SamplingParams] = SamplingParams) -> SamplingParams:
    """The sampling options as they stand. Raises ValueError for an impossible one."""
    values = {name: setting(name) for name in options(kind)}
    if values["mode"] != "hybrid":
        values["ar_tokens"] = None
    return read_params(values, kind)


def correct(loaded: LoadedModel, several: bool = True, size: tuple[int, int] | None = None) -> int:
    """Make the settings such as this model can draw, and return the number of tokens of a picture. `several` and `size`
    as for `settings`."""
    if setting("size") not in loaded.sizes:
        widget_state.put(key("size"), _nearest(loaded, setting("size")))
    rows, columns = loaded.model.grid(size or setting("size"))
    if not loaded.model.has_ar_model and setting("mode") != "masked":
        widget_state.put(key("mode"), "masked")
    if setting("candidates") > (most := _most_candidates(several)):
        widget_state.put(key("candidates"), max(few for few in CANDIDATES if few <= most))
    if setting("ar_tokens") is None or not 0 <= setting("ar_tokens") <= rows * columns:
        widget_state.put(key("ar_tokens"), rows * columns // 2)
    return rows * columns


def _most_candidates(several: bool) -> int:
    """Of each picture. Who speaks gets a drawing of every few words, and the others want theirs."""
    return MAX_IMAGES // setting("n") if several else MAX_LIVE_CANDIDATES


def _nearest(loaded: LoadedModel, size: tuple[int, int] | None) -> tuple[int, int]:
    """What the model draws in place of a size, of another model or from a picture that somebody made."""
    try:
        nearest = loaded.model.picture_sizes.rounded(size) if size else None
    except ValueError:
        nearest = None
    return nearest if nearest in loaded.sizes else loaded.sizes[0]


def settings(loaded: LoadedModel, several: bool = True, size: tuple[int, int] | None = None) -> None:
    """The widgets of everything but the prompt, folded under a line that sums them up. `several`: their number too;
    `size`: that of a picture that is drawn on, which is not to be chosen."""
    tokens = correct(loaded, several, size)
    # The key keeps it open while the line changes.
    with st.expander(_summary(tokens, several, size), icon=":material/tune:", key="settings"):
        _widgets(loaded, tokens, several, size is None)


def _summary(tokens: int, several: bool, size: tuple[int, int] | None) -> str:
    now = {name: setting(name) for name in ("size", "n", "candidates", "steps", "mode", "ar_tokens")}
    width, height = size or now["size"]
    how = {
        "masked": f"{now['steps']} steps",
        "hybrid": f"{now['ar_tokens']} tokens, then {now['steps']} steps",
        "ar": f"{tokens} tokens",
    }
    number = f", {now['n']} picture{'s' * (now['n'] > 1)}" if several else ""
    best = f", best of {now['candidates']}" if now["candidates"] > 1 else ""
    return f"{width} × {height}, {how[now['mode']]}{number}{best}"


def _widgets(
    loaded: LoadedModel, tokens: int, several: bool, sized: bool, kind: type[SamplingParams] = SamplingParams
) -> None:
    """Ranges and choices stretch to a value that was filled in from a picture."""
    _basic_widgets(loaded, several, sized)
    if st.toggle("All settings", widget_state.value(EXPERT), **widget_state.widget(EXPERT)):
        _expert_widgets(loaded, tokens, kind)


def _expert_widgets(loaded: LoadedModel, tokens: int, kind: type[SamplingParams]) -> None:
    """Every option but the basic ones, in the order of `SamplingParams`."""
    _steps_widget()
    _mode_widgets(loaded, tokens)
    mode = setting("mode")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.number_input("Seed", 0, MAX_SEED, setting("seed"), 1, **shown("seed"), help=HELP["seed"], width=190)
        st.toggle("New seed for each drawing", widget_state.value(NEW_SEED), **widget_state.widget(NEW_SEED))
    st.text_input(
        "Avoid (negative prompt)",
        setting("negative_prompt"),
        **shown("negative_prompt"),
        max_chars=MAX_PROMPT,
        help=HELP["negative_prompt"],
        on_change=_take_guidance,
    )
    if there := adapter_names():
        st.text_input(
            "LoRA adapters",
            setting("adapters"),
            **shown("adapters"),
            max_chars=MAX_PROMPT,
            placeholder=", ".join(there),
            help=HELP["adapters"],
        )
    samplers, sampler = list(SAMPLERS), widget_state.value(SAMPLER)
    st.selectbox(
        "Sampler",
        samplers,
        samplers.index(sampler),
        **widget_state.widget(SAMPLER),
        help=SAMPLER_HELP,
        on_change=_take_sampler,
    )
    kinds = option_types(kind)
    for name, about in options(kind).items():
        if name not in PLACED and (mode in AR_MODES or not name.startswith("ar_")):
            unused = mode == "ar" and not name.startswith("ar_") and name not in ("guidance_scale", "temperature")
            option_widget(key(name), name, about, kinds[name], disabled=unused)


def _basic_widgets(loaded: LoadedModel, several: bool, sized: bool) -> None:
    """Size, number of pictures, best of n, style."""
    sizes, about = loaded.sizes, options()
    now = {name: setting(name) for name in ("size", "n", "candidates")}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if sized:
            st.selectbox(
                "Size", sizes, sizes.index(now["size"]), **shown("size", sizes), format_func=_size_name, width=170
            )
        if several:
            numbers = sorted({*PICTURES, now["n"]})
            st.selectbox("Pictures", numbers, numbers.index(now["n"]), **shown("n", numbers), width=100)
        most = _most_candidates(several)
        tries = sorted({*(few for few in CANDIDATES if few <= most), now["candidates"]})
        st.selectbox(
            about["candidates"].label,
            tries,
            tries.index(now["candidates"]),
            **shown("candidates", tries),
            help=about["candidates"].help,
            width=120,
        )
    if several:
        styles.style_widgets(key("style"), loaded)


def _steps_widget() -> None:
    about, now = options(), {"steps": setting("steps")}
    steps = sorted({*STEPS, now["steps"]})
    st.select_slider(
        about["steps"].label,
        steps,
        now["steps"],
        **shown("steps", steps),
        format_func=lambda n: STEPS.get(n, str(n)),
        help=about["steps"].help,
        disabled=setting("mode") == "ar",  # it takes one step a token
    )


def _mode_widgets(loaded: LoadedModel, tokens: int) -> None:
    """Who draws, and how many tokens the autoregressive model writes in hybrid mode."""
    about, mode = options(), setting("mode")
    if loaded.model.has_ar_model:
        st.segmented_control(
            about["mode"].label,
            list(MODES),
            default=mode,
            **shown("mode"),
            format_func=lambda mode: MODES[mode],
            required=True,
            help=about["mode"].help,
            on_change=_take_guidance,
        )
    else:
        st.caption("Drawn by MaskGIL: this model has no autoregressive part that could begin the picture.")
    if mode == "hybrid":
        st.slider(
            about["ar_tokens"].label,
            0,
            tokens,
            setting("ar_tokens"),
            **shown("ar_tokens", tokens),
            help=about["ar_tokens"].help,
        )


def use_sampler(name: str) -> None:
    """Take the preset of a model's sampling options."""
    widget_state.put(SAMPLER, name)
    _take_sampler()


def _take_sampler() -> None:
    """Set the options in which the presets differ."""
    preset = SAMPLERS[registry.sampler_of(session.chosen(), widget_state.value(SAMPLER))]
    for name in options():
        if len({getattr(each, name) for each in SAMPLERS.values()}) > 1:
            widget_state.put(key(name), getattr(preset, name))


def _take_guidance() -> None:
    """Guide where a negative prompt or the autoregressive model needs it, and no longer where nothing does. A scale
    that somebody chose stays."""
    now = widget_state.value(SAMPLER)
    if registry.sampler_of(session.chosen()) != DEFAULT or now not in (DEFAULT, GUIDED):
        return
    wanted = preset_for(DEFAULT, setting("mode"), setting("negative_prompt"))
    if wanted != now and setting("guidance_scale") == SAMPLERS[now].guidance_scale:
        widget_state.put(SAMPLER, wanted)
        for name in ("guidance_scale", "guidance_interval"):
            widget_state.put(key(name), getattr(SAMPLERS[wanted], name))


def _size_name(size: tuple[int, int]) -> str:
    width, height = size
    shape = "square" if width == height else "wide" if width > height else "tall"
    return f"{width} × {height} {shape}"
