import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.command import disk_that_fills

from palaestra.errors import PalaestraError
from palaestra.files import GrowingFile, replace_text


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.json"
    replace_text(path, "old")
    with disk_that_fills() as fill:
        fill()
        with pytest.raises(PalaestraError, match=r"cannot write .*file\.json: File too large"):
            replace_text(path, "new" * 100)
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["file.json"]
    replace_text(path, "Häuser")
    assert path.read_text(encoding="utf-8") == "Häuser"


@given(st.lists(st.one_of(st.binary(max_size=30), st.integers(0, 100))))
def test_a_growing_file_is_what_was_appended_and_not_cut(
    tmp_path_factory: pytest.TempPathFactory, steps: list[bytes | int]
) -> None:
    file, content = GrowingFile(tmp_path_factory.mktemp("growing") / "new" / "file"), b""
    for step in steps:
        if isinstance(step, bytes):
            file.append(step)
            content += step
        else:
            file.cut(min(step, len(content)))
            content = content[:step]
        assert (file.size, file.path.read_bytes()) == (len(content), content)
    file.close()


def test_a_full_disk_leaves_a_growing_file_as_it_was(tmp_path: Path) -> None:
    file = GrowingFile(tmp_path / "file")
    file.append(b"before")
    with disk_that_fills() as fill:
        fill()
        with pytest.raises(PalaestraError, match="File too large; what was written before is safe"):
            file.append(bytes(100))
    file.append(b" and after")
    file.sync()
    file.close()
    file.close()
    assert file.path.read_bytes() == b"before and after"


def test_what_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PalaestraError, match="Not a directory"):
        GrowingFile(tmp_path / "file" / "below")
    with pytest.raises(PalaestraError, match="Is a directory"):
        GrowingFile(tmp_path)
