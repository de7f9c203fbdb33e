"""Pictures and captions from the npm package emoji-datasource-twitter: ``prepare_emoji.py PACKAGE.tgz FOLDER``.

Writes ``images/*.png`` (64 x 64, RGB, on white: fluvial refuses an alpha channel), ``captions.csv``, ``categories.csv``
and ``LICENSE`` into a new FOLDER. Skin tones are left out: they would be five more of the same under the same name.
"""

import csv
import json
import re
import sys
import tarfile
from pathlib import Path
from typing import IO

from PIL import Image

LICENSE = """\
The images are Twemoji, copyright Twitter, Inc and other contributors, under the Creative Commons Attribution 4.0
International licence (https://creativecommons.org/licenses/by/4.0/), put on a white background. They come from the npm
package emoji-datasource-twitter; its names and categories are copyright Cal Henderson, under the MIT licence.
"""


def main(package: Path, folder: Path) -> None:
    (folder / "images").mkdir(parents=True)
    captions, categories = [("file", "caption")], [("file", "category")]
    with tarfile.open(package) as archive:
        for emoji in json.load(_member(archive, "package/emoji.json")):
            name = emoji["image"]
            if not emoji["has_img_twitter"]:
                continue
            if not re.fullmatch(r"[0-9a-f-]+\.png", name):
                raise ValueError(f"{name!r} is no name of a picture")
            with Image.open(_member(archive, f"package/img/twitter/64/{name}")) as image:
                _on_white(image).save(folder / "images" / name)
            captions.append((name, (emoji["name"] or emoji["short_name"]).lower()))
            categories.append((name, emoji["category"]))
    for table, rows in {"captions.csv": captions, "categories.csv": categories}.items():
        with open(folder / table, "w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
    (folder / "LICENSE").write_text(LICENSE, encoding="utf-8")


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    try:
        member = archive.extractfile(name)
    except KeyError:
        member = None
    if member is None:
        raise ValueError(f"the package lacks {name}")
    return member


def _on_white(image: Image.Image) -> Image.Image:
    picture = image.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture)
    return white.convert("RGB")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except (ValueError, KeyError, TypeError, OSError, tarfile.TarError) as error:
        sys.exit(f"prepare_emoji: {type(error).__name__}: {error}")
