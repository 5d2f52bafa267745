"""Looks at files and changes them inside of a sandbox: `python3 -I -S -c SOURCE` runs it, with nothing else beside it.

It reads one JSON object with `do` and its arguments from standard input, and writes one with `ok` and `text`, and what
else there is to tell. What it says is for the agent, who may change everything that it rests on: nobody else trusts it.
Python 3.8 runs it.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import stat
import sys
from typing import Any, Callable, Iterator, NoReturn, Sequence  # noqa: UP035  # as Python 3.8 has them

SKIPPED = {".git", ".hg", "__pycache__", "node_modules", ".pytest_cache", ".mypy_cache"}
LARGEST = 8 * 1024 * 1024
"""Bytes of a file that is looked at or changed."""
SEARCHED = 2 * 1024 * 1024
"""Bytes of a file that is searched."""
MOST_HITS = 5000
"""Hits after which a search stops counting."""


class Refused(Exception):
    """The message says why, and what to do instead."""


def main() -> None:
    """Answer the request on standard input."""
    request = json.load(sys.stdin)
    tools: dict[str, Callable[..., dict[str, Any]]] = {"view": view, "search": search, "edit": edit}
    try:
        answer = tools[request.pop("do")](**request)
    except Refused as refusal:
        answer = {"ok": False, "text": str(refusal)}
    except OSError as error:
        answer = {"ok": False, "text": f"{shown(error.filename or '')}: {error.strerror or error}"}
    answer["text"] = answer["text"].encode("utf-8", "replace").decode()
    json.dump(answer, sys.stdout)


def view(path: str, first: int = 1, last: int | None = None, most: int = 8000, width: int = 400) -> dict[str, Any]:
    """A file's lines with their numbers, or what is in a folder, in at most about `most` characters."""
    if stat.S_ISDIR(os.stat(path).st_mode):
        return {"ok": True, "text": listing(path, most)}
    lines = decoded(path, read_bytes(path), "replace").splitlines()
    if not lines:
        return {"ok": True, "text": f"{shown(path)} is empty"}
    if not 1 <= first <= len(lines):
        refuse(f"{shown(path)} has {len(lines)} lines; there is no line {first}")
    last = min(len(lines), last or len(lines))
    if last < first:
        refuse(f"lines {first}-{last}: the last one comes before the first")
    text, until = numbered(lines, first, last, most, width)
    if until < len(lines) or first > 1:
        text += f"\n(lines {first}-{until} of {len(lines)})"
    return {"ok": True, "text": text}


def search(pattern: str, path: str = ".", most: int = 8000, width: int = 200) -> dict[str, Any]:
    """Files whose names, and lines whose text, match a regular expression."""
    note, found = matcher(pattern)
    if not os.path.lexists(path):
        refuse(f"{shown(path)} does not exist")
    names: list[str] = []
    hits: list[str] = []
    files = 0
    for file in walk(path):
        if found(os.path.relpath(file, path) if os.path.isdir(path) else os.path.basename(file)):
            names.append(shown(file))
        new = matches(file, found, width)
        files += bool(new)
        hits += new
        if len(hits) > MOST_HITS:
            break
    text = note + report(names, hits, files, most)
    return {"ok": bool(names or hits), "text": text, "results": len(names) + len(hits)}


def matcher(pattern: str) -> tuple[str, Callable[[str], object]]:
    """What looks for a pattern, and a remark for the agent where that is not as it meant it."""
    try:
        return "", re.compile(pattern).search
    except (re.error, OverflowError, RecursionError) as error:
        return f"(not a regular expression, {error}: searched as plain text)\n", lambda text: pattern in text


def matches(file: str, found: Callable[[str], object], width: int) -> list[str]:
    """The lines of a file that match, with its name and their numbers."""
    try:
        if not os.path.isfile(file) or os.path.getsize(file) > SEARCHED:
            return []
        with open(file, "rb") as stream:
            content = stream.read(SEARCHED)
    except OSError:
        return []
    if b"\0" in content[:8192]:
        return []
    lines = enumerate(content.decode("utf-8", "replace").splitlines(), 1)
    return [f"{shown(file)}:{number}: {cut(line.strip(), width)}" for number, line in lines if found(line)]


def report(names: list[str], hits: list[str], files: int, most: int) -> str:
    """What a search found, in at most about `most` characters."""
    if not names and not hits:
        return "No file's name and no line matches."
    parts = []
    if names:
        parts.append(f"Files whose names match ({len(names)}):\n{some(names, most // 4, 'names')}")
    if hits:
        count = f"more than {MOST_HITS}" if len(hits) > MOST_HITS else str(len(hits))
        title = f"Lines that match ({count}, in {files} file{'' if files == 1 else 's'}):"
        parts.append(f"{title}\n{some(hits, most * 3 // 4, 'lines')}")
    return "\n\n".join(parts)


def some(lines: list[str], most: int, what: str) -> str:
    """As many lines as fit, and how many more there are."""
    kept: list[str] = []
    size = 0
    for line in lines:
        size += len(line) + 1
        if size > most and kept:
            return "\n".join(kept) + f"\n({len(lines) - len(kept)} more {what}; be more specific)"
        kept.append(line)
    return "\n".join(kept)


def edit(path: str, blocks: Sequence[Sequence[str]], most: int = 3000) -> dict[str, Any]:
    """Replace texts that occur once each, all or none; an empty old text makes a new file."""
    if not os.path.lexists(path):
        if len(blocks) != 1 or blocks[0][0]:
            refuse(f"{shown(path)} does not exist; to make it, leave the old text empty")
        write(path, blocks[0][1])
        return {"ok": True, "text": f"{shown(path)} is made, with {len(blocks[0][1].splitlines())} lines"}
    before = decoded(path, read_bytes(path))
    windows = before.count("\r\n") * 2 > before.count("\n")
    content = before.replace("\r\n", "\n") if windows else before
    for old, new in blocks:
        content = replaced(path, content, old.replace("\r\n", "\n"), new.replace("\r\n", "\n"))
    write(path, content.replace("\n", "\r\n") if windows else content)
    return {"ok": True, "text": f"{shown(path)} is changed:\n{around(content, blocks, most)}"}


def replaced(path: str, content: str, old: str, new: str) -> str:
    """`content` with the only place of `old` replaced."""
    if not old and not content:
        return new
    if not old:
        refuse(f"{shown(path)} exists, so the old text cannot be empty; write the lines to be replaced")
    if old == new:
        refuse("the old text and the new one are the same; nothing was changed")
    count = content.count(old)
    if not count and old.endswith("\n") and content.endswith(old[:-1]):  # the file's last line has no break
        return content[: len(content) - len(old) + 1] + new[: -1 if new.endswith("\n") else None]
    if not count:
        refuse(f"the old text is not in {shown(path)}; nothing was changed. {nearest(content, old)}")
    if count > 1:
        places = ", ".join(str(line) for line in places_of(content, old)[:10])
        more = " ..." if count > 10 else ""
        refuse(
            f"the old text is in {shown(path)} {count} times, at lines {places}{more}; nothing was changed. "
            "Add lines before or after it until it occurs once"
        )
    return content.replace(old, new)


def places_of(content: str, old: str) -> list[int]:
    """Numbers of the lines where `old` begins."""
    found: list[int] = []
    at = content.find(old)
    while at >= 0 and len(found) < 10:
        found.append(content.count("\n", 0, at) + 1)
        at = content.find(old, at + len(old))
    return found


def nearest(content: str, old: str) -> str:
    """What in the file is most like the text that was looked for."""
    lines, wanted = content.splitlines(), old.strip("\n").splitlines()
    bare = [line.strip() for line in wanted]
    stripped = [line.strip() for line in lines]
    for start in range(len(lines) - len(wanted) + 1):
        if stripped[start : start + len(wanted)] == bare:
            text, _ = numbered(lines, start + 1, start + len(wanted), 2000, 400)
            return f"It is there with other blanks at the beginnings or ends of lines; the file has:\n{text}"
    longest = max(bare or [""], key=len)
    like = difflib.get_close_matches(longest, stripped[:20000], n=1, cutoff=0.6) if longest else []
    if not like:
        return "No line is like it: look at the file first"
    at = max(0, stripped.index(like[0]) - bare.index(longest))
    text, _ = numbered(lines, max(1, at), min(len(lines), at + len(wanted) + 2), 2000, 400)
    return f"The nearest lines are:\n{text}"


def around(content: str, blocks: Sequence[Sequence[str]], most: int) -> str:
    """The lines that were written, with those next to them."""
    lines, parts = content.splitlines(), []
    for _, new in blocks:
        at = content.find(new.replace("\r\n", "\n")) if new else -1
        if at >= 0 and lines:
            line = content.count("\n", 0, at) + 1
            until = min(len(lines), line + new.count("\n") + 3)
            parts.append(numbered(lines, max(1, line - 3), until, most, 400)[0])
    return "\n...\n".join(parts)[:most] or "(lines taken away)"


def listing(path: str, most: int) -> str:
    """Files and folders, two levels deep."""
    found = []
    for top in sorted(os.listdir(path)):
        here = os.path.join(path, top)
        if not os.path.isdir(here) or os.path.islink(here):
            found.append(shown(top))
        elif top in SKIPPED:
            found.append(f"{shown(top)}/ (not shown)")
        else:
            found.append(f"{shown(top)}/")
            found += [f"{shown(top)}/{shown(each)}{_slash(here, each)}" for each in sorted(os.listdir(here))]
    return some(found, most, "entries") if found else f"{shown(path)} is an empty folder"


def _slash(folder: str, name: str) -> str:
    return "/" if os.path.isdir(os.path.join(folder, name)) else ""


def walk(path: str) -> Iterator[str]:
    """Every file below a folder, in order; links to folders are not followed."""
    if not os.path.isdir(path):
        yield path
        return
    for folder, below, files in os.walk(path):
        below[:] = sorted(each for each in below if each not in SKIPPED)
        for file in sorted(files):
            yield os.path.normpath(os.path.join(folder, file))


def numbered(lines: list[str], first: int, last: int, most: int, width: int) -> tuple[str, int]:
    """Lines `first` to `last` with numbers, as many as fit; and the last one that did."""
    kept: list[str] = []
    size, until = 0, first
    for number in range(first, last + 1):
        line = f"{number:6d}\t{cut(lines[number - 1], width)}"
        size += len(line) + 1
        if size > most and kept:
            break
        kept.append(line)
        until = number
    return "\n".join(kept), until


def cut(line: str, width: int) -> str:
    """A line, and how much of it is not shown."""
    return line if len(line) <= width else f"{line[:width]} ... ({len(line) - width} characters more)"


def read_bytes(path: str) -> bytes:
    """A regular file's content."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        refuse(f"{shown(path)} is not a regular file")
    if found.st_size > LARGEST:
        refuse(f"{shown(path)} has {found.st_size} bytes; use the shell for so large a file")
    with open(path, "rb") as stream:
        return stream.read(LARGEST)


def decoded(path: str, content: bytes, errors: str = "strict") -> str:
    """A text file's content as text."""
    if b"\0" in content[:8192]:
        refuse(f"{shown(path)} is a binary file of {len(content)} bytes")
    try:
        return content.decode("utf-8", errors)
    except UnicodeDecodeError:
        refuse(f"{shown(path)} is not UTF-8; use the shell to change it")


def write(path: str, content: str) -> None:
    """Whole or not at all, with the mode that the file has; through links, as editors do."""
    target = os.path.realpath(path)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    fresh = f"{target}.new~"
    try:
        with open(fresh, "wb") as stream:
            stream.write(content.encode("utf-8", "surrogatepass"))
        if os.path.exists(target):
            os.chmod(fresh, stat.S_IMODE(os.stat(target).st_mode))
        os.replace(fresh, target)
    except OSError:
        if os.path.exists(fresh):
            os.unlink(fresh)
        raise


def shown(name: str) -> str:
    """A name on one line."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in name)


def refuse(why: str) -> NoReturn:
    """End the request with a reason."""
    raise Refused(why)


if __name__ == "__main__":
    main()
