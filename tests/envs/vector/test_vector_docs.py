"""The example of the how-to works."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "vectorise.md"


def test_the_first_example_runs() -> None:
    block = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]
    names: dict[str, object] = {}
    exec(block.replace("1000", "20"), names)
    assert names["envs"].closed  # type: ignore[attr-defined]
    assert names["observations"].shape == (64, 4)  # type: ignore[attr-defined]
