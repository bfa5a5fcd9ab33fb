"""Widgets of the sampling options: label, help and range come from maskgil/params.py."""

import types
from typing import Any, get_args

import streamlit as st

from app.studio import widget_state
from maskgil.option_checks import Option

# Upper ends of sliders. A larger value, filled in from a picture, extends the slider.
USUAL_RANGE = {
    "guidance_scale": (1.0, 10.0),
    "guidance_power": (0.5, 8.0),
    "temperature": (0.0, 2.0),
    "choice_temperature": (0.0, 10.0),
    "refinement_passes": (0, 4),
    "ar_guidance_scale": (1.0, 10.0),
    "ar_temperature": (0.0, 2.0),
}
MOST_SLIDER_VALUES = 64


def option_widget(key: str, name: str, about: Option, kind: Any, disabled: bool = False) -> None:
    """The widget of one option under a key of the page: a select box, a slider or a number field, by its type.

    key      the key that the value is kept under (app/studio/widget_state.py)
    kind     the option's type, as annotated
    """
    now = widget_state.value(key)
    optional = isinstance(kind, types.UnionType)
    if optional:
        kind = next(part for part in get_args(kind) if part is not type(None))
    common: dict[str, Any] = {"help": about.help, "disabled": disabled}
    if about.choices is not None:
        choices = list(dict.fromkeys([*about.choices, now]))
        st.selectbox(about.label, choices, choices.index(now), **widget_state.widget(key, choices), **common)
    elif kind is bool:
        st.toggle(about.label, now, **widget_state.widget(key), **common)
    elif kind is str:
        st.text_input(about.label, now, **widget_state.widget(key), **common)
    elif kind not in (int, float):
        st.slider(about.label, about.low, about.high, now, 0.05, **widget_state.widget(key), **common)
    elif (
        optional
        or name not in USUAL_RANGE
        and (about.high is None or about.high - (about.low or 0) > MOST_SLIDER_VALUES)
    ):
        _number_field(key, about, kind, now, common)
    else:
        assert about.low is not None and about.high is not None
        usual_low, usual_high = USUAL_RANGE.get(name, (about.low, about.high))
        low, high = kind(min(usual_low, now)), kind(max(usual_high, now))
        step = 1 if kind is int else 0.5 if high - low > 4 else 0.05
        st.slider(about.label, low, high, now, step, **widget_state.widget(key, low, high), **common)


def _is_wide(about: Option) -> bool:
    """Whether a range has too many values for a slider."""
    return about.low is None or about.high is None or about.high - about.low > MOST_SLIDER_VALUES


def _number_field(key: str, about: Option, kind: type, now: Any, common: dict[str, Any]) -> None:
    low, high = (None if end is None else kind(end) for end in (about.low, about.high))
    step = 1 if kind is int else 0.05
    st.number_input(
        about.label, low, high, now, step, **widget_state.widget(key), **common, placeholder="as usual", width=220
    )
