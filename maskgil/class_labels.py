"""Classes by number or by name, as what stands in a text encoder's place: a class label is a text of length one.

    ClassLabels.open(folder, 1000).encode(["207", "golden retriever"])     # Condition (2, 1, 1): the labels

Names come from `class_names.json` in the model folder: a list with an entry for each class, or {"0": entry, ...}; an
entry is a name, several with commas between, or a list of names. Without the file only numbers are understood.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from maskgil.condition import Condition
from maskgil.fileio import parse_json

FILE = "class_names.json"


class ClassLabels:
    """`names[i]` are what class i is called; none for a model whose classes have numbers only."""

    width = 1  # a state holds the label itself

    def __init__(self, classes: int, names: Sequence[Sequence[str]] = ()):
        if names and len(names) != classes:
            raise ValueError(f"{len(names)} class names for a model of {classes} classes: give one entry for each")
        self.classes, self.names = classes, [list(entry) for entry in names]
        self.numbers: dict[str, list[int]] = {}
        for number, entry in enumerate(self.names):
            for name in entry:
                self.numbers.setdefault(_plain(name), []).append(number)

    @staticmethod
    def open(folder: str | Path, classes: int) -> "ClassLabels":
        """The names of a model folder, or numbers only. Raises ValueError for a file that is not as described above."""
        path = Path(folder) / FILE
        return ClassLabels.read(path, classes) if path.is_file() else ClassLabels(classes)

    @staticmethod
    def read(path: Path, classes: int) -> "ClassLabels":
        """The names of a file. Raises ValueError for one that is missing, or not as described above."""
        try:
            entries = parse_json(path.read_text(encoding="utf-8"))
            if isinstance(entries, dict):
                entries = [entries[str(number)] for number in range(len(entries))]
            names = [entry.split(",") if isinstance(entry, str) else [str(name) for name in entry] for entry in entries]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path} is no list of class names: {type(error).__name__} {error}") from None
        return ClassLabels(classes, [[name.strip() for name in entry] for entry in names])

    def number(self, text: str) -> int:
        """The class that a person means. Raises ValueError, with the nearest names, when there is none or several."""
        text = text.strip()
        if text.isdecimal() and text not in self.numbers:  # a folder may be called 10, and be the third of its order
            if int(text) >= self.classes:
                raise ValueError(f"class {text}: this model has classes 0 to {self.classes - 1}")
            return int(text)
        found = self.numbers.get(_plain(text), [])
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(f"class {text!r} is the name of classes {', '.join(map(str, found))}: give the number")
        if not self.names:
            raise ValueError(f"class {text!r}: this model knows numbers from 0 to {self.classes - 1}, it has no {FILE}")
        near = difflib.get_close_matches(_plain(text), self.numbers, n=3, cutoff=0.5)
        meant = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"no class is called {text!r}{meant} (or give a number from 0 to {self.classes - 1})")

    def encode(self, prompts: Sequence[str]) -> Condition:
        """The labels as a condition, a class for each row."""
        return Condition.classes(torch.tensor([self.number(prompt) for prompt in prompts]))

    def identity(self) -> dict[str, Tensor]:
        """Names do not change what a generator has learned, the number of classes would."""
        return {"classes": torch.tensor(self.classes)}


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()
