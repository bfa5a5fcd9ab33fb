"""Models: the list of models with their size and memory, loading, precision, this browser's choice, and the speech
recognizer."""

import html
from typing import Any

import streamlit as st
import torch

from app.core import model_names, paths, registry
from app.core.memory_need import GIGA, MemoryNeed, memory_need
from app.serving import model_pool
from app.studio import generation_form, session, widget_state
from app.studio.views import released_models_section
from text_encoder.encoder_memory import available_memories

COMPLAINT = "complaint of models"
OTHER = "another model"
OTHER_RECOGNIZER = "another recognizer"
PRECISION = "precision "
ENCODER = "text encoder "
TYPED_KEY = "typed operator key"
ENCODERS = {
    "full": "exact",
    "bf16": "bf16",
    "8bit": "8 bit",
    "4bit": "4 bit",
    "offload": "offloaded",
}
ENCODER_HELP = (
    "How the text encoder is held. bf16, 8 bit and 4 bit take less memory and read a prompt a little less exactly. "
    "Offloaded: it is loaded for each new prompt, exact and slower, and takes no memory in between."
)
PRECISIONS = {torch.float32: "fp32 · exact", torch.bfloat16: "bf16 · half the memory"}


def models_page() -> None:
    st.title("Models", anchor=False)
    chosen = session.chosen()
    models = {model.name: model for model in [*registry.bundled_models(), *registry.fetched()]}
    for name in [chosen, *session.studio().engine.loaded()]:  # including fetched ones
        if name not in models:
            try:
                models[name] = registry.find_local(name)
            except ValueError as error:
                st.error(session.explain(error), icon=":material/image_not_supported:")
    if complaint := session.board().pop(COMPLAINT, ""):
        st.error(complaint, icon=":material/error:")
    for name, model in sorted(models.items(), key=lambda item: item[0] != chosen):  # the chosen one first
        card(model, name == chosen, name in session.studio().engine.loaded())
    for name, reason in registry.broken_folders().items():
        with st.container(border=True):
            st.subheader(name, anchor=False)
            st.caption(f":material/block: Cannot run: {session.explain(reason)}")
    if not session.is_operator():
        operator_key()
        return
    released_models_section.section()
    another()
    recognizer()


def operator_key() -> None:
    """Tell a visitor without an operator's rights what is possible, and show a field for the key."""
    st.caption(
        "Loading other models and changing the precision or the recognizer are the operator's rights: they change what "
        "everybody uses."
    )
    st.text_input("Operator key", key=TYPED_KEY, type="password", max_chars=200, on_change=_take_key)


def card(model: registry.ModelInfo, chosen: bool, loaded: bool) -> None:
    """Show a model: what it draws, its size, and its buttons."""
    name, operator = model.name, session.is_operator()
    dtype, memory = _held(model, loaded)
    sizes = model.parts_sizes
    with st.container(border=True, key=f"model-{len(name)}-{name}"):
        st.subheader(name, anchor=False)
        need = memory_need(sizes, dtype.itemsize, memory)
        facts = [model.reads, model.sizes_summary, f"{model.parameters / 1e6:.1f} M parameters"]
        held = f"{need.resting / 1e6:.1f} MB {_when(loaded, need)}, {model_pool.dtype_name(dtype)}"
        facts += [f"{model.megabytes:.1f} MB on disk", held]
        st.html(f'<div class="facts">{" · ".join(facts)}</div>')
        reason = "" if loaded else model_pool.why_not_loadable(model, dtype, memory)
        if reason:
            st.caption(f":material/block: Cannot run: {session.explain(reason)}")
        elif not loaded and sizes.encoder.adjustable and (free := model_pool.free_memory()) is not None:
            st.caption(f":material/memory: It fits: {need} of the {free / GIGA:.1f} GB that are free here.")
        change: dict[str, Any] = {"on_change": _load_clicked, "args": (name,)} if loaded and operator else {}
        with st.container(horizontal=True, vertical_alignment="center"):
            st.segmented_control(
                "Precision", list(PRECISIONS), default=dtype, **widget_state.widget(PRECISION + name),
                format_func=lambda kind: PRECISIONS[kind], required=True,
                label_visibility="collapsed", disabled=not operator, **change,
            )  # fmt: skip
            st.button(
                "In use" if chosen else "Use this model",
                key=f"choose {name}",
                type="primary" if chosen else "secondary",
                disabled=chosen or bool(reason),
                on_click=_choose,
                args=(name,),
            )
            if loaded and operator:
                st.button("Unload", key=f"unload {name}", on_click=_unload, args=(name,), type="tertiary")
            elif not loaded and not reason:
                st.button("Load", key=f"load {name}", on_click=_load_clicked, args=(name,), type="tertiary")
        if sizes.encoder.adjustable:
            _encoder_control(name, memory, operator, change)
        if model.card:
            with st.expander("Model card"):
                st.markdown(model.card)


def _held(model: registry.ModelInfo, loaded: bool) -> tuple[torch.dtype, str]:
    """(precision, memory of the text encoder) of a model: as loaded, or as chosen on its card."""
    held = session.loaded(model) if loaded else None
    values: list[Any] = []
    for key, usual, now in (
        (PRECISION + model.name, model_pool.default_precision(), held and held.model.dtype),
        (ENCODER + model.name, paths.text_encoder_memory(), held and held.encoder_memory),
    ):
        widget_state.keep(key, None)
        value = now or widget_state.value(key) or usual  # loaded: as anyone on this server has chosen
        if widget_state.value(key) != value:
            widget_state.put(key, value)
        values.append(value)
    return values[0], values[1]


def _when(loaded: bool, need: MemoryNeed) -> str:
    """A note about when the memory is used."""
    between = "" if need.resting == need.peak else " between prompts"
    return ("in memory" if loaded else "when loaded") + between


def _encoder_control(name: str, memory: str, operator: bool, change: dict[str, Any]) -> None:
    """Show how a large text encoder is kept in memory."""
    ways = [way for way in ENCODERS if way == memory or way in available_memories()]
    st.segmented_control(
        "Text encoder", ways, default=memory, **widget_state.widget(ENCODER + name), required=True,
        format_func=lambda way: ENCODERS.get(way, way), help=ENCODER_HELP, disabled=not operator, **change,
    )  # fmt: skip
    if len(available_memories()) < len(ENCODERS):
        st.caption("8 and 4 bit need `pip install 'maskgil[low-memory]'` where the program runs.")


def another() -> None:
    """Show the field that loads a model by its folder."""
    with st.form("another", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input(
            "Another model", key=OTHER, max_chars=300, placeholder="a folder, or a Hugging Face name: owner/model"
        )
        st.form_submit_button("Open", icon=":material/folder_open:", on_click=_open)


def recognizer() -> None:
    """Show the choice of the speech recognizer, which all visitors of this server use."""
    now = session.studio().recognizer.name
    st.subheader("Recognizer", anchor=False)
    st.html(f'<div class="facts">Speech recognizer, for everyone on this server: <b>{html.escape(now)}</b></div>')
    for name in registry.recognizers():
        if name != now:
            st.button(f"Listen with {name}", key=f"listen {name}", on_click=_listen, args=(name,))
    with st.form("another recognizer", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input(
            "Another recognizer", key=OTHER_RECOGNIZER, max_chars=250,
            placeholder="a folder, a .pt file, or a Whisper size: base.en",
        )  # fmt: skip
        st.form_submit_button("Listen with it", icon=":material/hearing:", on_click=_listen_to_other)


def _take_key() -> None:
    st.session_state[session.OPERATOR_KEY] = st.session_state[
        TYPED_KEY
    ]  # the widget's own value is gone with the widget


def _open() -> None:
    if name := st.session_state[OTHER].strip():
        _choose(model_names.name_of(name))


def _unload(name: str) -> None:
    """Unload a model."""
    session.studio().engine.unload(name)


def _load_clicked(name: str) -> None:
    """Load a model, or show why that is impossible."""
    _load(name)


def _load(name: str) -> bool:
    """Load a model as chosen on its card; returns whether that succeeded, else the page shows why."""
    board, chosen = session.board(), [None, None]
    try:
        if session.is_operator():  # precision and memory are shared by all visitors
            for key in (wanted := (PRECISION + name, ENCODER + name)):
                widget_state.keep(key, None)
            chosen = [widget_state.value(key) for key in wanted]
        session.studio().engine.load(name, *chosen)
    except ValueError as error:
        board[COMPLAINT] = session.explain(error)
        return False
    return True


def _choose(name: str) -> None:
    board, before = session.board(), registry.sampler_of(session.chosen())
    if _load(name):
        board[session.MODEL] = name
        if (sampler := registry.sampler_of(name)) != before:  # settings of another kind of model may not fit
            generation_form.use_sampler(sampler)


def _listen(name: str) -> None:
    """Switch to another recognizer after it is loaded; a broken one changes nothing."""
    board, services = session.board(), session.studio()
    try:
        recognizer = services.open_recognizer(name)
        recognizer.load()
        services.recognizer = recognizer
    except (ValueError, OSError) as error:
        board[COMPLAINT] = session.explain(error)


def _listen_to_other() -> None:
    if name := st.session_state[OTHER_RECOGNIZER].strip():
        _listen(name)
