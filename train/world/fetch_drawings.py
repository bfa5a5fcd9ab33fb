"""Collect the drawings of all things into one file: `maskgil data drawings --out cache/world`.

It downloads the packages of SOURCES through npm (each is checked against its hash), renders the SVG glyphs and the
SVGs of this repository at SIDE pixels, and writes `drawings.zip`: WebP files and `index.json`, which lists the drawings
of each thing with their set ("hand") and emoji. Packages that are already there are not downloaded again.
"""

import base64
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from PIL import Image
from tyro.conf import arg

from maskgil.command_line import Command, run
from maskgil.fileio import atomic_write
from train.world.svg_drawings import SIDE, draw_own, draw_svg
from train.world.thing_table import HANDS, VARIATION, Glyph, WorldThing, all_things, first_things


@dataclass(frozen=True)
class Package:
    """An npm package of one version. `sha512`: in base64, as in npm's `integrity`."""

    name: str
    version: str
    sha512: str

    @property
    def archive(self) -> str:
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


SOURCES = {
    "fluent": Package(
        "@lobehub/fluent-emoji-3d",
        "1.1.0",
        "Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
    ),  # fmt: skip
    "noto": Package(
        "@iconify-json/noto",
        "1.2.9",
        "DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
    ),  # fmt: skip
    "fluent-flat": Package(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
    ),  # fmt: skip
    "twemoji": Package(
        "@iconify-json/twemoji",
        "1.2.5",
        "uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
    ),  # fmt: skip
}


def download(package: Package, folder: Path) -> Path:
    """The package's archive in `folder`, fetched where missing. ValueError when that fails or the hash differs."""
    path = folder / package.archive
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            raise ValueError(f"npm is not installed; install it, or put {package.archive} into {folder}") from None
        except subprocess.CalledProcessError as error:
            raise ValueError(f"{' '.join(command)} failed: {error.stderr.strip()[-200:]}") from None
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    if digest != package.sha512:
        raise ValueError(f"{path} is not {package.name} {package.version} as released: delete it and run again")
    return path


def _names(glyph: Glyph) -> list[str]:
    """The names that a set may have for a glyph: its code points with and without the variation selector."""
    points = [p for p in glyph.codepoints if p != VARIATION]
    return ["-".join(glyph.codepoints), "-".join(points), "-".join([*points, VARIATION])]


def _fluent(path: Path) -> Callable[[Glyph], Image.Image | None]:
    archive = tarfile.open(path)
    members = {Path(m.name).stem: m for m in archive.getmembers() if m.name.endswith(".webp")}

    def read(glyph: Glyph) -> Image.Image | None:
        member = next((members[name] for name in _names(glyph) if name in members), None)
        return None if member is None else Image.open(archive.extractfile(member)).convert("RGBA")

    return read


def _iconify(path: Path) -> Callable[[Glyph], Image.Image | None]:
    with tarfile.open(path) as archive:
        icons, names = (json.load(archive.extractfile(f"package/{part}.json")) for part in ("icons", "chars"))

    def read(glyph: Glyph) -> Image.Image | None:
        name = next((names[name] for name in _names(glyph) if name in names), None)
        if name is None:
            return None
        alias = icons.get("aliases", {}).get(name)
        icon = icons["icons"].get(alias["parent"] if alias else name)
        width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
        return draw_svg(
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {width} {height}" width="{width}" height="{height}">{icon["body"]}</svg>'
        )

    return read


def trimmed(drawing: Image.Image) -> Image.Image:
    """The drawing cropped to its visible pixels and scaled to a longer side of SIDE pixels. ValueError where it is
    empty."""
    box = drawing.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox()
    if box is None:
        raise ValueError("the drawing is empty")
    drawing = drawing.crop(box)
    scale = SIDE / max(drawing.size)
    size = tuple(max(1, round(side * scale)) for side in drawing.size)
    # resized with premultiplied alpha: otherwise the colour of transparent pixels shows at the edges
    return drawing.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")


def drawings_of(thing: WorldThing, readers: dict[str, Callable]) -> list[tuple[str, str, Image.Image]]:
    """(hand, emoji, drawing) of each drawing of a thing that a source has. The emoji of this project's drawings is "".

    ValueError where there is none."""
    found = []
    for glyph in thing.glyphs:
        for letter in glyph.hands:
            if (drawing := readers[HANDS[letter]](glyph)) is not None:
                found.append((HANDS[letter], "".join(chr(int(p, 16)) for p in glyph.codepoints), trimmed(drawing)))
    for name in thing.svgs:
        found.append(("own", "", trimmed(draw_own(name))))
    if not found:
        raise ValueError(f"no source has a drawing of {thing.name}")
    return found


def pack(out: Path, readers: dict[str, Callable], things: int) -> Path:
    """Write out/drawings.zip for the first `things` of the table, whole or not at all, and return its path.

    ValueError when a thing has no drawing."""
    path = out / "drawings.zip"
    index: dict[str, list[dict]] = {}
    with atomic_write(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for thing in first_things(things):
            rows = []
            for number, (hand, emoji, drawing) in enumerate(drawings_of(thing, readers)):
                name = f"{thing.name.replace(' ', '-')}/{number:02d}-{hand}.webp"
                content = io.BytesIO()
                drawing.save(content, "WEBP", quality=92, method=4)
                archive.writestr(zipfile.ZipInfo(name), content.getvalue())
                rows.append({"file": name, "hand": hand, "emoji": emoji, "size": list(drawing.size)})
            index[thing.name] = rows
        archive.writestr(zipfile.ZipInfo("index.json"), json.dumps(index, indent=1))
    return path


def fetch_drawings(
    out: Annotated[Path, arg(help="folder of the downloads and of drawings.zip")] = Path("cache/world"),
    things: Annotated[int, arg(help="pack this many things, in the order of the table; 0: all")] = 0,
) -> None:
    """Download the drawings of the things and pack them into drawings.zip. Needs npm and a network.

    Raises ValueError for a download that fails or differs from its hash, and for a thing without a drawing.
    """
    archives = {hand: download(package, out / "download") for hand, package in SOURCES.items()}
    readers = {hand: (_fluent if hand == "fluent" else _iconify)(path) for hand, path in archives.items()}
    path = pack(out, readers, things or len(all_things()))
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MB")


if __name__ == "__main__":  # the former name of the command
    sys.exit(run(Command("", lambda: fetch_drawings), "maskgil data drawings"))
