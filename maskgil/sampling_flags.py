"""The sampling options as flags of a command line: one optional flag for each field of `SamplingParams`."""

from dataclasses import field, make_dataclass
from typing import Annotated, Any

from tyro.conf import arg

from maskgil.option_checks import Option, bounds
from maskgil.params import SAMPLER_HELP, SAMPLERS, SamplingParams, defaults, option_types, options

# What these flags were called before: {option: flags}.
FORMER_FLAGS = {
    "guidance_scale": ("--guidance",),
    "guidance_shape": ("--shape",),
    "guidance_interval": ("--interval",),
    "choice_temperature": ("--choice",),
    "schedule": ("--curve",),
    "refinement_passes": ("--revisions",),
    "remask_fraction": ("--doubt",),
}


def sampling_flags(kind: type[SamplingParams] = SamplingParams, without: tuple[str, ...] = ()) -> type:
    """A frozen dataclass that tyro reads: `sampler`, and every option but those of `without`, None where left out."""
    kinds, usual = option_types(kind), defaults(kind)
    flags: list[tuple[str, Any, Any]] = [
        (
            "sampler",
            Annotated[
                str | None, arg(help=SAMPLER_HELP, metavar="{" + ",".join(SAMPLERS) + "}", help_behavior_hint="")
            ],
            field(default=None, kw_only=True),
        )
    ]
    for name, about in options(kind).items():
        if name in without:
            continue
        aliases = FORMER_FLAGS.get(name, ())
        described = arg(
            help=_help(about, usual[name]),
            metavar=_metavar(kinds[name], about),
            aliases=aliases,
            help_behavior_hint="",  # the default is in the help: None only means that the flag was left out
        )
        read_as = str if about.choices is not None else kinds[name]  # read_params refuses a wrong choice, in its words
        flags.append((name, Annotated[read_as | None, described], field(default=None, kw_only=True)))
    return make_dataclass("SamplingFlags", flags, frozen=True)


def given_options(command: Any, kind: type[SamplingParams] = SamplingParams) -> dict[str, Any]:
    """The sampling options that a command line gave, by name: what `read_params` takes."""
    values = {name: getattr(command, name, None) for name in ("sampler", *options(kind))}
    return {name: value for name, value in values.items() if value is not None}


def _help(about: Option, usual: Any) -> str:
    text = about.help + (f" Range{bounds(about)}." if about.low is not None else "")
    if usual is None:
        return text
    shown = " ".join(f"{end:g}" for end in usual) if isinstance(usual, tuple) else usual
    return f"{text} Default: {shown}, unless the sampler sets another."


def _metavar(kind: Any, about: Option) -> str:
    if about.choices is not None:
        return "{" + ",".join(about.choices) + "}"
    text = str(kind)
    if "tuple" in text:
        return "LOW HIGH"
    return "INT" if "int" in text else "FLOAT" if "float" in text else "TEXT"
