"""python -m train RECIPE [name=value ...] out=FOLDER [stop_at=STEP]

Start a recipe, or go on with it: the same command again continues from the folder's checkpoint.
"""

import inspect
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

from train.recipe import Recipe
from train.recipes import scenes as recipes
from train.recipes.pretrain import PretrainOptions
from train.trainer import shutdown_distributed, train


def available() -> dict:
    own = [f for f in vars(recipes).values() if inspect.isfunction(f) and f.__module__ == recipes.__name__]
    own = [f for f in own if not f.__name__.startswith("_")]
    return {f.__name__.replace("_", "-"): f for f in own if inspect.signature(f).return_annotation is Recipe}


def _value(text: str, parameter: inspect.Parameter):
    kind = str(parameter.annotation)
    if parameter.annotation is bool:
        if text not in ("yes", "no"):
            raise ValueError(f"{parameter.name}={text}: choose yes or no")
        return text == "yes"
    for name, convert in (("int", int), ("float", float)):
        if name in kind:
            try:
                return convert(text)
            except ValueError:
                raise ValueError(f"{parameter.name}={text} is not a number") from None
    return text


def _said(value: object) -> str:
    return {"True": "yes", "False": "no"}.get(str(value), str(value))


def parameters_of(recipe: Callable[..., Recipe]) -> dict[str, inspect.Parameter]:
    """What the command line may give: the parameters, those of a dataclass one by one."""
    found = {}
    for parameter in inspect.signature(recipe).parameters.values():
        if is_dataclass(parameter.annotation):
            for f in fields(parameter.annotation):
                default = getattr(parameter.default, f.name)
                found[f.name] = parameter.replace(name=f.name, annotation=f.type, default=default)
        else:
            found[parameter.name] = parameter
    return found


def made(recipe: Callable[..., Recipe], pairs: dict[str, str]) -> Recipe:
    """The recipe with what was given. Raises ValueError for what is missing."""
    given = {k: _value(v, parameters_of(recipe)[k]) for k, v in pairs.items()}
    arguments = {}
    for parameter in inspect.signature(recipe).parameters.values():
        if is_dataclass(parameter.annotation):
            own = {f.name: given[f.name] for f in fields(parameter.annotation) if f.name in given}
            arguments[parameter.name] = replace(parameter.default, **own)
        elif parameter.name in given:
            arguments[parameter.name] = given[parameter.name]
        elif parameter.default is parameter.empty:
            raise ValueError(f"{recipe.__name__.replace('_', '-')} needs {parameter.name}=")
    return recipe(**arguments)


def main(arguments: list[str]) -> None:
    table = available()
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        for name, f in table.items():
            print(f"  {name:18} {(f.__doc__ or '').splitlines()[0]}")
            own = inspect.signature(f).parameters.values()
            shown = ["Options, below" if is_dataclass(p.annotation) else str(p) for p in own]
            print(f"  {'':18} {', '.join(shown)}")
        names = [f"{f.name}={_said(f.default)}" for f in fields(PretrainOptions)]
        print(f"\nOptions, unless the recipe sets its own: {PretrainOptions.__doc__}\n    {' '.join(names)}")
        return
    if arguments[0] not in table:
        raise ValueError(f"no recipe is called {arguments[0]!r}; there are {', '.join(table)}")
    pairs = dict(a.split("=", 1) for a in arguments[1:] if "=" in a)
    stray = [a for a in arguments[1:] if "=" not in a]
    f = table[arguments[0]]
    parameters = parameters_of(f)
    wrong = stray + [k for k in pairs if k not in parameters and k not in ("out", "stop_at")]
    if wrong:
        takes = ", ".join(["out", "stop_at", *parameters])
        raise ValueError(f"{arguments[0]} does not take {', '.join(wrong)}; it takes {takes}")
    out = Path(pairs.pop("out", f"runs/{arguments[0]}"))
    stop_at = int(pairs.pop("stop_at")) if "stop_at" in pairs else None
    train(made(f, pairs), out, stop_at=stop_at)


def one_line(error: ValueError) -> str:
    """What is wrong. A data worker's error begins with where it was raised, over many lines; the last one says it."""
    text = str(error)
    return text.splitlines()[-1].removeprefix("ValueError: ") if text.startswith("Caught ") else text


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
        shutdown_distributed()
    except ValueError as error:
        print(f"train: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
