"""The request that a browser is composing: it survives a change of room, and can be filled in from a finished picture.

Each setting lives in the session under "wish <name>", which is also the key of the widget that shows it.
"""

import re
import secrets
from typing import Any

import streamlit as st

from app.core.request import (
    MAX_IMAGES,
    MAX_LIVE_CANDIDATES,
    MAX_PROMPT,
    MAX_SEED,
    ORDERS,
    SAMPLERS,
    GenerationRequest,
    random_seed,
)
from app.serving.model_pool import LoadedModel
from app.studio import session, widget_state

STEPS = {2: "2", 4: "4 · fast", 6: "6", 8: "8 · standard", 12: "12", 16: "16 · fine", 24: "24", 32: "32", 64: "64"}
PICTURES = (1, 2, 4, 6, 9)
CANDIDATES = (1, 2, 4, 8)
MODES = {"mar": "MaskGIL", "hybrid": "Autoregressive start, then MaskGIL", "ar": "Autoregressive"}
NEW_SEED = "wish new seed"
NEW_PROMPT = "prompt for the canvas"  # {text, draw, stamp}
MISSED = "what a restored picture could not bring back"
PLAIN = "It was edited: drawn again, it is a plain picture of its words."

DEFAULTS: dict[str, Any] = {
    "negative": "",
    "steps": GenerationRequest.steps,
    "guidance": GenerationRequest.guidance,
    "interval": GenerationRequest.interval,
    "temperature": GenerationRequest.temperature,
    "order": GenerationRequest.order,
    "sampler": GenerationRequest.sampler,
    "refinement_passes": GenerationRequest.refinement_passes,
    "n": GenerationRequest.n,
    "candidates": GenerationRequest.candidates,
    "mode": GenerationRequest.mode,
    "ar_tokens": GenerationRequest.ar_tokens,
}

HELP = {
    "steps": "Number of decoding steps. Fewer is faster, more is finer.",
    "guidance": "How closely to follow the words. 1 leaves the model free; more is stricter and less varied.",
    "refinement_passes": "How often, after the steps, the least likely quarter of the tokens is sampled again.",
    "candidates": "How many candidates are drawn for each picture. The most likely one is shown. It takes as many "
    "times as long.",
    "seed": "The same seed and settings draw the same picture.",
    "negative": "What the picture should not show.",
    "interval": "Guidance is on in this part of the drawing, which runs from 1 down to 0. Steps outside it cost half.",
    "temperature": "How random each choice is. 0 always takes the most likely token.",
    "mode": "MaskGIL decides many tokens at each step. The autoregressive model writes one token after the other, line "
    "by line. It can also begin a picture that MaskGIL completes.",
    "ar_tokens": "How many tokens the autoregressive model writes, from the top left, before MaskGIL takes over.",
    "order": "Which tokens are decided first: the most confident, random ones, spread evenly, or line by line.",
    "sampler": "The default sampler guides every step alike. The reference sampler is that of the released code, whose "
    "guidance grows from none. Each brings its own guidance, temperature and refinement passes.",
}


def key(name: str) -> str:
    return f"wish {name}"


def value(name: str) -> Any:
    """What a setting is set to."""
    return widget_state.value(key(name))


def shown(name: str, *shape: Any) -> dict[str, Any]:
    """Arguments of the widget that shows a setting with these choices."""
    return widget_state.widget(key(name), *shape)


def plain(text: str) -> str:
    """A text as it is where Markdown is read: the words in a picture that somebody made may hold addresses."""
    return re.sub(r"([^\w\s])", r"\\\1", text)


def keep() -> None:
    """Every setting has a value from now on: call it in each run."""
    for name, value in {**DEFAULTS, "size": None, "seed": random_seed()}.items():
        widget_state.keep(key(name), value)
    widget_state.keep(NEW_SEED, True)


def fill(request: GenerationRequest) -> None:
    """Show a picture's request again, its very seed and its model included; what does not come back is said."""
    missed = [PLAIN] if request.edit else []
    if session.at_hand(request.model):
        session.board()[session.MODEL] = request.model
    elif request.model != session.chosen():
        missed.insert(0, f"{request.model}, which drew it, is not here: {session.chosen()} draws now.")
    st.session_state[MISSED] = " ".join(missed)
    put_prompt(request.prompt)
    for name in (*DEFAULTS, "seed"):
        widget_state.put(key(name), getattr(request, name))
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
    `several` as for `read`."""
    values = {name: value(name) for name in DEFAULTS}
    values["negative"] = values["negative"].strip()
    values["ar_tokens"] = values["ar_tokens"] if values["mode"] == "hybrid" else None
    values["n"] = values["n"] if several else 1
    seed = None if widget_state.value(NEW_SEED) else value("seed")
    return {**values, "interval": list(values["interval"]), "size": list(value("size")), "seed": seed, "model": model}


def read(model: str, prompt: str, several: bool = True) -> GenerationRequest:
    """The request as it stands, with a new seed where one is wanted; not `several`: of one picture, whatever number is
    chosen elsewhere. Raises ValueError for an impossible one.

    To be called in a callback: a seed cannot change once its widget is drawn.
    """
    values = {name: value(name) for name in DEFAULTS} | {"prompt": prompt.strip(), "model": model}
    if widget_state.value(NEW_SEED):
        widget_state.put(key("seed"), random_seed())
    values["negative"] = values["negative"].strip()
    if not several:
        values["n"] = 1
    if values["mode"] != "hybrid":
        values["ar_tokens"] = None
    return GenerationRequest(**values, seed=value("seed"), size=value("size"))


def correct(loaded: LoadedModel, several: bool = True, size: tuple[int, int] | None = None) -> int:
    """Make the settings such as this model can draw, and return the number of tokens of a picture. `several` and `size`
    as for `settings`."""
    if value("size") not in loaded.sizes:
        widget_state.put(key("size"), _nearest(loaded, value("size")))
    rows, columns = loaded.model.grid(size or value("size"))
    if not loaded.model.has_ar_model and value("mode") != "mar":
        widget_state.put(key("mode"), "mar")
    if value("candidates") > (most := _most_candidates(several)):
        widget_state.put(key("candidates"), max(few for few in CANDIDATES if few <= most))
    if value("ar_tokens") is None or not 0 <= value("ar_tokens") <= rows * columns:
        widget_state.put(key("ar_tokens"), rows * columns // 2)
    return rows * columns


def _most_candidates(several: bool) -> int:
    """Of each picture. Who speaks gets a drawing of every few words, and the others want theirs."""
    return MAX_IMAGES // value("n") if several else MAX_LIVE_CANDIDATES


def _nearest(loaded: LoadedModel, size: tuple[int, int] | None) -> tuple[int, int]:
    """What the model draws in place of a size, of another model or from a picture that somebody made."""
    try:
        nearest = loaded.model.rounded(size) if size else None
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
    now = {name: value(name) for name in ("size", "n", "candidates", "steps", "mode", "ar_tokens")}
    width, height = size or now["size"]
    how = {
        "mar": f"{now['steps']} steps",
        "hybrid": f"{now['ar_tokens']} tokens, then {now['steps']} steps",
        "ar": f"{tokens} tokens",
    }
    number = f", {now['n']} picture{'s' * (now['n'] > 1)}" if several else ""
    best = f", best of {now['candidates']}" if now["candidates"] > 1 else ""
    return f"{width} × {height}, {how[now['mode']]}{number}{best}"


def _widgets(loaded: LoadedModel, tokens: int, several: bool, sized: bool) -> None:
    """Ranges and choices stretch to a value that was filled in from a picture."""
    sizes = loaded.sizes
    now = {name: value(name) for name in (*DEFAULTS, "size", "seed")}
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
            "Best of",
            tries,
            tries.index(now["candidates"]),
            **shown("candidates", tries),
            help=HELP["candidates"],
            width=120,
        )
    if loaded.model.has_ar_model:
        st.segmented_control(
            "Drawn by",
            list(MODES),
            default=now["mode"],
            **shown("mode"),
            format_func=MODES.get,
            required=True,
            help=HELP["mode"],
        )
    else:
        st.caption("Drawn by MaskGIL: this model has no autoregressive part that could begin the picture.")
    alone = now["mode"] == "ar"  # the twin, which takes a step for each token, in their order
    if now["mode"] == "hybrid":
        st.slider(
            "Autoregressive tokens", 0, tokens, now["ar_tokens"], **shown("ar_tokens", tokens), help=HELP["ar_tokens"]
        )
    steps = sorted({*STEPS, now["steps"]})
    st.select_slider(
        "Steps",
        steps,
        now["steps"],
        **shown("steps", steps),
        format_func=lambda n: STEPS.get(n, str(n)),
        help=HELP["steps"],
        disabled=alone,
    )
    most = max(4, now["refinement_passes"])
    st.slider(
        "Refinement passes",
        0,
        most,
        now["refinement_passes"],
        **shown("refinement_passes", most),
        help=HELP["refinement_passes"],
        disabled=alone,
    )
    low, high = min(1.0, now["guidance"]), max(10.0, now["guidance"])
    st.slider("Guidance", low, high, now["guidance"], 0.5, **shown("guidance", low, high), help=HELP["guidance"])
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.number_input("Seed", 0, MAX_SEED, now["seed"], 1, **shown("seed"), help=HELP["seed"], width=190)
        st.toggle("New seed for each drawing", widget_state.value(NEW_SEED), **widget_state.widget(NEW_SEED))
    st.text_input(
        "Avoid (negative prompt)", now["negative"], **shown("negative"), max_chars=MAX_PROMPT, help=HELP["negative"]
    )
    st.slider(
        "Guidance interval",
        0.0,
        1.0,
        now["interval"],
        0.05,
        **shown("interval"),
        help=HELP["interval"],
        disabled=alone,
    )
    hottest = max(2.0, now["temperature"])
    st.slider(
        "Temperature",
        0.0,
        hottest,
        now["temperature"],
        0.05,
        **shown("temperature", hottest),
        help=HELP["temperature"],
    )
    st.selectbox("Order", ORDERS, ORDERS.index(now["order"]), **shown("order"), help=HELP["order"], disabled=alone)
    samplers = list(SAMPLERS)
    st.selectbox(
        "Sampler",
        samplers,
        samplers.index(now["sampler"]),
        **shown("sampler"),
        help=HELP["sampler"],
        disabled=alone,
        on_change=_take_sampler,
    )


def _take_sampler() -> None:
    """A sampler brings what it does when nobody says otherwise."""
    for name, its in SAMPLERS[value("sampler")].items():
        widget_state.put(key(name), its)


def _size_name(size: tuple[int, int]) -> str:
    width, height = size
    shape = "square" if width == height else "wide" if width > height else "tall"
    return f"{width} × {height} {shape}"
