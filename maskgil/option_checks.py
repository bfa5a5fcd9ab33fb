"""What an option declares, and the check of a value against it. No torch, so that `--help` is quick."""

import difflib
import math
import types
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, get_args


@dataclass(frozen=True)
class Option:
    """What is said of an option beside its type and default.

    low, high  bounds of a number, inclusive; of each number of an interval
    choices    the values that a text may have
    label      its name on the page
    basic      shown among the page's simple settings
    """

    help: str
    label: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] | None = None
    basic: bool = False


def validate_option(name: str, value: Any, kind: Any, about: Option) -> Any:
    """The value, whole numbers as floats where the type is float. ValueError, with the bounds, for another."""
    optional = type(None) in get_args(kind)
    if value is None and optional:
        return None
    if optional and isinstance(kind, types.UnionType):
        kind = next(part for part in get_args(kind) if part is not type(None))
    if about.choices is not None:
        return _validate_choice(name, value, about.choices)
    if kind is int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{name} is {brief(value)}: give a whole number{bounds(about)}")
        return _within(name, value, about)
    if kind is float:
        return _within(name, _number(name, value, about), about)
    if kind is bool:
        if not isinstance(value, bool):
            raise ValueError(f"{name} is {brief(value)}: give true or false")
        return value
    if kind is str:
        if not isinstance(value, str):
            raise ValueError(f"{name} is {brief(value)}: give a text")
        return value
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(f"{name} is {brief(value)}: give two numbers{bounds(about)}, the lower one first")
    low, high = (_within(name, _number(name, each, about), about) for each in value)
    if low > high:
        raise ValueError(f"{name} is {low:g} to {high:g}: give two numbers{bounds(about)}, the lower one first")
    return low, high


def bounds(about: Option) -> str:
    """The bounds of an option in words: " from 1 to 256"."""
    return "" if about.low is None or about.high is None else f" from {_digits(about.low)} to {_digits(about.high)}"


def _digits(bound: float) -> str:
    return f"{bound:.0f}" if float(bound).is_integer() else f"{bound:g}"


def brief(value: Any) -> str:
    """A value as a message shows it: at most 40 characters."""
    text = "far too large" if isinstance(value, int) and abs(value) > 10**18 else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _number(name: str, value: Any, about: Option) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {brief(value)}: give a number{bounds(about)}")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _within(name: str, value: Any, about: Option) -> Any:
    if about.low is not None and about.high is not None and not about.low <= value <= about.high:  # NaN is outside
        raise ValueError(f"{name} is {brief(value)}: give a number{bounds(about)}")
    return value


def _validate_choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    if isinstance(value, str):
        if value in choices:
            return str(value)
        if name == "schedule" and value.startswith("poly-"):
            with_exponent = value.removeprefix("poly-")
            try:
                if float(with_exponent) > 0:
                    return value
            except ValueError:
                pass
            raise ValueError(f"schedule is {brief(value)}: give poly- and an exponent above 0, such as poly-0.7")
    raise ValueError(f"{name} is {brief(value)}: {nearest_choice(value, choices)}")


def nearest_choice(value: Any, choices: Iterable[str]) -> str:
    """What to choose in place of a value that is none of the choices."""
    choices = list(choices)
    nearest = difflib.get_close_matches(value, choices, 1, 0.6) if isinstance(value, str) else []
    return (f"did you mean {nearest[0]!r}? " if nearest else "") + f"choose one of {', '.join(choices)}"
