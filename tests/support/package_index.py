"""A package index on this machine: the simple API over files in memory."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import files
from threading import Thread

Files = dict[str, bytes]
"""Name of a file -> its bytes; what is before its first hyphen is the project."""


@contextmanager
def serving(files: Files) -> Iterator[str]:
    """Serve files, which may change meanwhile; gives the address that PIP_INDEX_URL wants."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, _, name = self.path.strip("/").partition("/")
            body = files.get(name) if kind == "files" else _page(files, name)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/simple"
        finally:
            server.shutdown()
            thread.join()


def sdist(project: str, version: str, tree: Mapping[str, str]) -> Files:
    """A source distribution."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for path, text in tree.items():
            member = tarfile.TarInfo(f"{project}-{version}/{path}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return {f"{project}-{version}.tar.gz": content.getvalue()}


def wheel_of_installed(project: str) -> Files:
    """What is installed here by that name, as a wheel."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for file in files(project) or ():
            if file.suffix == ".py" and ".." not in file.parts:
                archive.writestr(file.as_posix(), file.read_binary())
    return {f"{project}-1.0-py3-none-any.whl": content.getvalue()}


def _page(files: Files, project: str) -> bytes | None:
    names = [name for name in files if name.partition("-")[0].lower() == project]
    links = (f'<a href="/files/{name}#sha256={hashlib.sha256(files[name]).hexdigest()}">{name}</a>' for name in names)
    return "\n".join(links).encode() if names else None
