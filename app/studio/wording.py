"""Texts for the page."""

import re


def sentence(text: object) -> str:
    """A message as a sentence: 'no dog' -> 'No dog.'"""
    text = str(text)
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '?', '!')) else '.'}"


def escape_markdown(text: str) -> str:
    """A text with Markdown characters escaped: the prompt in a picture from elsewhere may contain links."""
    return re.sub(r"([^\w\s])", r"\\\1", text)
