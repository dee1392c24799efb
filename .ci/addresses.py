"""Make the addresses of a checkout absolute, for what is built from it and shown by a package index.

    python .ci/addresses.py https://github.com/OWNER/NAME v1.2.3 [FOLDER]

README.md links to files beside it, which an index does not have. Its links become links into the repository
at that tag, its pictures the files themselves, and pyproject.toml gets `[project.urls]`. A second run changes
nothing. Where something is wrong, such as a link that leads nowhere, nothing is written and the status is 1.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

# What Markdown shows as it stands; links in it are none.
CODE = re.compile(
    r"^(```|~~~).*?^\1|(`+)(?!`).*?(?<!`)\2(?!`)|<!--.*?-->", re.MULTILINE | re.DOTALL
)
LINKS = re.compile(
    r"""(?P<bracket>\])\(<?([^\s()<>]+)|\b(?P<attribute>src|srcset|href)=["']([^"']+)"""
)
AFTER = "\n[project.optional-dependencies]\n"


class Wrong(Exception):
    """What has to be mended first."""


def is_picture(text: str, end: int) -> bool:
    """Whether the bracket that closes at `end` belongs to a picture, `![...]`."""
    depth = 0
    for i in range(end, -1, -1):
        depth += (text[i] == "]") - (text[i] == "[")
        if depth == 0:
            return text[i - 1 : i] == "!"
    return False


def absolute(target: str, picture: bool, address: str, tag: str, folder: Path) -> str:
    """Return where a link leads once it stands on another host."""
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:|//|#", target):
        return target
    path = re.split(r"[?#]", target)[0]
    file = folder / path
    if not file.exists() or folder.resolve() not in (file.resolve(), *file.resolve().parents):
        raise Wrong(f"README.md links to {target}, which is not in the checkout")
    kind = "raw" if picture else "tree" if file.is_dir() else "blob"
    return f"{address}/{kind}/{tag}/{target}"


def readme(text: str, address: str, tag: str, folder: Path) -> str:
    """Return README.md with links that lead somewhere from anywhere."""
    prose = CODE.sub(lambda m: " " * len(m[0]), text)  # the same places, without code
    if re.search(r"^\[[^\]]+\]:", prose, re.MULTILINE):
        raise Wrong(
            "README.md has links by reference, which are not followed here: write them in line"
        )
    done, end = [], 0
    for m in LINKS.finditer(prose):
        picture = is_picture(prose, m.start()) if m["bracket"] else m["attribute"] != "href"
        begin = m.start(2 if m["bracket"] else 4)
        done += [text[end:begin], absolute(text[begin : m.end()], picture, address, tag, folder)]
        end = m.end()
    return "".join([*done, text[end:]])


def pyproject(text: str, address: str, tag: str) -> str:
    """Return pyproject.toml with the addresses of the project."""
    urls = {
        "Homepage": address,
        "Documentation": f"{address}/blob/{tag}/docs/guide.md",
        "Source": f"{address}/tree/{tag}",
        "Issues": f"{address}/issues",
        "Changelog": f"{address}/blob/{tag}/CHANGELOG.md",
    }
    table = "\n[project.urls]\n" + "".join(f'{name} = "{url}"\n' for name, url in urls.items())
    if table in text:
        return text
    if "[project.urls]" in text or text.count(AFTER) != 1:
        raise Wrong(f"pyproject.toml has other addresses, or not one {AFTER.strip()}")
    return text.replace(AFTER, table + AFTER)


def main(address: str, tag: str, folder: Path) -> None:
    """Write both files anew, or neither."""
    if not re.fullmatch(r"https://[\w.-]+(/[\w.-]+){2}", address) or not re.fullmatch(
        r"[\w./-]+", tag
    ):
        raise Wrong(f"{address} at {tag} is no address of a repository at a tag")
    texts = {name: (folder / name).read_text("utf-8") for name in ("README.md", "pyproject.toml")}
    texts["README.md"] = readme(texts["README.md"], address, tag, folder)
    texts["pyproject.toml"] = pyproject(texts["pyproject.toml"], address, tag)
    for name, text in texts.items():
        (folder / name).write_bytes(text.encode())


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    try:
        main(sys.argv[1], sys.argv[2], Path(sys.argv[3] if len(sys.argv) == 4 else "."))
    except Wrong as error:
        sys.exit(f"addresses: {error}")
