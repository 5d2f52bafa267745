"""The report in a real browser: what is rendered, not what was written."""

import json
import math
import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from palaestra.trajectories.report import write_report
from palaestra.trajectories.report.run import Run
from palaestra.trajectories.report.samples import samples

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"),
]

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1200,1000",
)
ITERATIONS = 30
EVIL = "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    write_run = runpy.run_path(str(Path(__file__).parents[1] / "trajectories" / "synthetic_run.py"))["write_run"]
    folder = tmp_path_factory.mktemp("run")
    grpo = write_run(folder / "grpo", iterations=4, algorithm="grpo", seed=1)
    run: Path = write_run(folder / "demo", iterations=ITERATIONS)
    (run / "recipe.yaml").write_text(f"note: {EVIL}\n")
    write_report(run, compare={"GRPO": grpo})
    return run


@pytest.fixture(scope="module")
def browser(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        driver.get((run / "report.html").as_uri())
        yield driver
    finally:
        driver.quit()


def find(browser: Any, css: str) -> list[Any]:
    return list(browser.find_elements("css selector", css))


def hover(browser: Any, element: Any) -> str:
    """The tooltip that appears."""
    from selenium.webdriver.common.action_chains import ActionChains

    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    ActionChains(browser).move_to_element(element).perform()
    tip = browser.find_element("id", "tip")
    assert tip.is_displayed()
    return str(tip.text)


def choose(browser: Any, select: str, value: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(browser.find_element("id", select)).select_by_value(value)


def visible_episode(browser: Any) -> Any:
    (article,) = [article for article in find(browser, ".episode") if article.is_displayed()]
    return article


def test_no_errors_and_no_requests(browser: Any, run: Path) -> None:
    assert [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"] == []
    page = (run / "report.html").as_uri()
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    requests = [params["request"]["url"] for params in sent if params["documentURL"] == page]
    assert requests == [page]
    assert browser.title == "demo · Palaestra", "nothing in the run could run a script"


def test_the_headline_is_the_result(browser: Any) -> None:
    assert browser.find_element("tag name", "h1").text == "EPO on alfworld/small:test"
    rates = [element.text.replace("\u202f", " ") for element in find(browser, ".rate strong")]
    assert rates == ["48 %", "86 %"]


def test_the_learning_curve_has_a_point_for_each_iteration(browser: Any) -> None:
    (raw,) = find(browser, "#what-was-learned path.line.raw.train")
    (smooth,) = find(browser, "#what-was-learned path.line.train.strong")
    for path in (raw, smooth):
        length = "return [...arguments[0].getAttribute('d').matchAll(/[ML]/g)].length"
        assert browser.execute_script(length, path) == ITERATIONS
        assert browser.execute_script("return arguments[0].getTotalLength()", path) > 400
    whiskers = find(browser, "#what-was-learned .whisker.eval")
    assert len(whiskers) == 6
    assert "validation at iteration 4" in hover(browser, whiskers[0])
    assert "n=96" in browser.find_element("id", "tip").text


def test_hovering_over_the_curve_tells_the_figures(browser: Any) -> None:
    columns = find(browser, "#what-was-learned .hover .hit")
    assert len(columns) == ITERATIONS
    assert "iteration 3" in hover(browser, columns[3])


def test_bars_are_as_long_as_their_values(browser: Any) -> None:
    bars = find(browser, ".bar")
    names = [bar.find_element("css selector", ".bar-name").text for bar in bars]
    assert names == ["Random", "Base model", "EPO", "GRPO", "Oracle"]
    values = [bar.find_element("css selector", ".bar-value").text.replace("\u202f", " ") for bar in bars]
    assert values == ["6 %", "48 %", "86 %", "80 %", "100 %"]
    widths = [float(bar.find_element("css selector", "rect").get_attribute("width")) for bar in bars]
    assert [width / widths[-1] for width in widths] == pytest.approx([0.06, 0.485, 0.86, 0.795, 1.0], abs=0.01)
    assert "95" not in hover(browser, bars[2])
    assert "81\u202f%–90\u202f%, n=200" in browser.find_element("id", "tip").text


def test_the_table_has_a_row_for_each_kind(browser: Any) -> None:
    rows = [row.text for row in find(browser, ".kinds tbody tr th")]
    assert len(rows) == 7
    assert rows[-1] == "all"


def test_the_heat_map_has_a_coloured_cell_for_each_turn(browser: Any, run: Path) -> None:
    cells = find(browser, ".cells rect")
    rows = Run.read(run).train
    assert len(cells) == sum(len(row["entropy_by_turn"]) for row in rows)
    fills = browser.execute_script("return [...arguments].map(c => getComputedStyle(c).fill)", *cells)
    assert len(set(fills)) > 50
    first = rows[0]["entropy_by_turn"][0]
    assert hover(browser, cells[0]) == f"iteration 0, turn 1\n{first:.3f} nats"


def test_the_corridor_encloses_the_reference(browser: Any) -> None:
    section = "#the-entropy-corridor "
    (band,) = find(browser, section + ".band.corridor")
    (reference,) = find(browser, section + "path.reference")
    outer, inner = band.rect, reference.rect
    assert outer["y"] < inner["y"]
    assert outer["y"] + outer["height"] > inner["y"] + inner["height"]
    assert len(find(browser, section + "svg")) == 5


def test_tokens_are_coloured_by_their_entropy(browser: Any, run: Path) -> None:
    trajectory = samples(Run.read(run))[0].trajectory
    expected = [(e, p) for node in trajectory.nodes for e, p in zip(node.entropies, node.logprobs, strict=True)]
    tokens = visible_episode(browser).find_elements("css selector", ".token")
    assert len(tokens) == len(expected) == trajectory.sampled_tokens
    alpha = """return [...arguments].map(t => {
        const colour = getComputedStyle(t).backgroundColor;
        return Number((colour.match(/[/,] *([0-9.e-]+)\\)$/) || [0, colour.startsWith('rgb(') ? 1 : 0])[1]);
    })"""
    alphas = browser.execute_script(alpha, *tokens)
    ranks = [sorted(range(len(tokens)), key=key) for key in (lambda i: expected[i][0], lambda i: alphas[i])]
    assert alphas[ranks[0][-1]] == max(alphas) > 0.1
    assert all(a <= b + 1e-3 for a, b in zip(*[[alphas[i] for i in rank] for rank in ranks], strict=True))
    tip = hover(browser, tokens[0])
    entropy, logprob = expected[0]
    assert tip.startswith("“go to”\n")
    assert f"log-prob {logprob:.3f} (p = {math.exp(logprob):.3g})" in tip
    assert f"entropy {entropy:.3f} nats" in tip
    assert "tokens were allowed" in tip


def test_the_selector_changes_the_episode(browser: Any) -> None:
    buttons = find(browser, "#entries button")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", buttons[1])
    buttons[1].click()
    assert visible_episode(browser).get_attribute("id") == "episode-1"
    assert [b.get_attribute("aria-pressed") for b in buttons[:3]] == ["false", "true", "false"]


def test_the_filters_keep_what_was_asked_for(browser: Any) -> None:
    choose(browser, "by-source", "last iteration")
    choose(browser, "by-outcome", "failed")
    try:
        shown = [entry for entry in find(browser, "#entries li") if entry.is_displayed()]
        assert shown
        assert {entry.get_attribute("data-source") for entry in shown} == {"last iteration"}
        article = visible_episode(browser)
        assert "✗ failed" in article.text
        credit = article.find_element("css selector", ".credit.minus")
        assert credit.text.startswith("−0.")
        assert hover(browser, credit).startswith("advantage −0.")
    finally:
        choose(browser, "by-source", "")
        choose(browser, "by-outcome", "")


@pytest.mark.parametrize("width", [1200, 700, 420])
def test_nothing_is_cut_off_at_the_side(browser: Any, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        assert browser.execute_script("return innerWidth") == width
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_schemes(browser: Any, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    style = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
    ink, paper = (luminance(colour) for colour in browser.execute_script(style))
    assert (paper > ink) == (scheme == "light")
    assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 10


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)`, as WCAG defines it."""
    channels = [int(part) / 255 for part in colour[4:-1].split(",")]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
