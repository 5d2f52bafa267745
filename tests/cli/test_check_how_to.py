"""What the how-to page on checking shows is what the command prints."""

import re
import sys
from pathlib import Path

import pytest

from palaestra.cli.main import main
from palaestra.envs import registry

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "check-an-environment.md"


def test_the_page_shows_what_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_SPECS", dict(registry._SPECS))
    monkeypatch.setattr(registry, "_MAKERS", dict(registry._MAKERS))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    page = PAGE.read_text(encoding="utf-8")
    [source, *_] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    [shown, *_] = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    (tmp_path / "howto_words.py").write_text(source)
    assert main(["check", "words/Recall-v0", "--import", str(tmp_path / "howto_words.py")]) == 1
    assert capsys.readouterr().out == shown


def test_every_check_is_on_the_page() -> None:
    from palaestra.envs.checks import CHECKS

    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in CHECKS if f"| `{name}`" not in page and f", `{name}`" not in page] == []
