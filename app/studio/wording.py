"""Texts as the page says them."""

import re


def sentence(text: object) -> str:
    """A message as a sentence: 'no dog' -> 'No dog.'"""
    text = str(text)
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '?', '!')) else '.'}"


def escape_markdown(text: str) -> str:
    """A text as it is where Markdown is read: the words in a picture that somebody made may hold addresses."""
    return re.sub(r"([^\w\s])", r"\\\1", text)
