"""Reports: what an examiner writes is read, and what anybody else writes is seen."""

from hypothesis import given
from hypothesis import strategies as st

from palaestra.envs.swe.report import Report, read_report
from palaestra.sandboxes.commands import ExecResult, Output

END = '{"end": 0, "tests": 1}'
ONE = '{"test": "t.py::a", "outcome": "passed", "detail": ""}'


def read(*lines: str, exit_code: int = 0, ending: str = "exit", stderr: bytes = b"") -> Report:
    text = "".join(f"{line}\n" for line in lines).encode()
    return read_report(ExecResult(exit_code, ending, Output(text), Output(stderr), 1.0), "SECRET")  # type: ignore[arg-type]


def test_a_whole_report() -> None:
    report = read(f"SECRET{ONE}", f"SECRET{END}")
    assert report == Report({"t.py::a": "passed"}, {}, True)


def test_a_report_without_its_end() -> None:
    report = read(f"SECRET{ONE}", stderr=b"x\nSegmentation fault\n")
    assert not report.ended
    assert report.problem == "the tests ended before their end, with exit code 0: Segmentation fault"
    assert "longer than" in read(f"SECRET{ONE}", ending="timeout", exit_code=124).problem
    assert "memory" in read(ending="memory").problem


def test_lines_of_others() -> None:
    for lines in (
        (ONE, f"SECRET{END}"),
        (f"SECRET{ONE}", f"SECRET{ONE}", f"SECRET{END}"),
        (f"SECRET{ONE}", f"SECRET{END}", f"SECRET{ONE}"),
        (f"SECRET{ONE}", f"SECRET{END}", f"SECRET{END}"),
        ("SECRET[]", f"SECRET{ONE}", f"SECRET{END}"),
        ("SECRET" + "[" * 9999, f"SECRET{ONE}", f"SECRET{END}"),
        ("100 passed", f"SECRET{ONE}", f"SECRET{END}"),
    ):
        report = read(*lines)
        assert not report.ended
        assert "did not write" in report.odd


def test_an_end_that_is_not_true() -> None:
    assert "how the tests ended" in read(f"SECRET{END}").odd
    assert "how the tests ended" in read(f"SECRET{ONE}", f"SECRET{END}", exit_code=1).odd


@given(st.binary())
def test_any_bytes(printed: bytes) -> None:
    report = read_report(ExecResult(0, "exit", Output(printed), Output(), 1.0), "S")
    assert not report.ended


@given(st.lists(st.binary()))
def test_any_bytes_after_the_secret(parts: list[bytes]) -> None:
    printed = b"".join(b"S" + part + b"\n" for part in parts)
    read_report(ExecResult(0, "exit", Output(printed), Output(), 1.0), "S")
