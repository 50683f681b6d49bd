"""The page of a comparison: its figures, hostile names, what is missing, and what a browser makes of it."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import math
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.comparison import KINDS, comparison, page_of
from support.html_page import Page

from poolzoo.report import compare_page, plots
from poolzoo.report.results import ComparisonResult

HOSTILE = "</script><script>document.title='taken over'</script><img src=x onerror=alert(1)>"
CHARTS = {"cost", "accuracy", "severity", "shift", "curves"}
ROBUSTNESS = ("corruption_accuracy", "crop_consistency", "shift_consistency")


class ComparisonPage(Page):
    """The page of a comparison, and its charts."""

    def __init__(self, source: str) -> None:
        super().__init__(source)
        found = [re.search(r"^const charts = (.*);$", script, re.MULTILINE) for script in self.scripts]
        self.charts = json.loads(found[0][1])

    def leaderboard(self) -> list[dict[str, str]]:
        header, *rows = self.tables["All variants; a click on a heading sorts"]
        titles = [title.strip() for title in header]
        return [dict(zip(titles, (" ".join(cell.split()) for cell in row), strict=True)) for row in rows]


def name(result: dict[str, Any]) -> str:
    return " + ".join(filter(None, [result["pool"], result["local_pool"]]))


def ranked(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The most accurate first, those that failed last."""
    return sorted(found["results"], key=lambda result: -result["accuracy"]["mean"] if result["accuracy"] else 0)


def test_the_leaderboard_tells_what_was_measured():
    found = comparison(16)
    rows = ComparisonPage(page_of(found)).leaderboard()
    assert [row["variant"].split(" the loss")[0] for row in rows] == [name(result) for result in ranked(found)]
    for row, result in zip(rows, ranked(found)[:-1], strict=False):
        mean, sd = result["accuracy"]["mean"], result["accuracy"]["sd"]
        assert row["accuracy, %"] == f"{100 * mean:.2f} ± {100 * sd:.2f}"
        assert row["crop consistency, %"] == f"{100 * result['crop_consistency']['mean']:.2f} ± 1.00"
        assert row["mean corruption accuracy, %"] == f"{100 * result['corruption_accuracy']['mean']:.2f}"
        assert row["parameters"] == f"{result['params'] / 1000:.3g} k"
        assert row["1 image, ms"] == f"{result['latency_ms']:.3f}"
        assert row["ONNX parity"] == "✓ passed"
        if result["pool"] == "pool-00":
            assert (row["vs. baseline"], row["gain, points"]) == ("◆ baseline", "–")
            continue
        delta = result["delta"]
        low, middle, high = (f"{100 * delta[key]:+.2f}".replace("-", "−") for key in ("low", "mean", "high"))
        assert row["gain, points"] == f"{middle} {low} to {high}"
        word = "▲ better" if delta["low"] > 0 else "▼ worse" if delta["high"] < 0 else "≈ not significant"
        assert row["vs. baseline"] == f"{word} {'p < 0.001' if delta['p_adjusted'] < 0.001 else 'p 0.040'}"
    assert {row["vs. baseline"].split()[1] for row in rows} == {"baseline", "better", "worse", "not", "failed"}
    assert rows[-1]["variant"].endswith("the loss became NaN in epoch 2")
    assert rows[-1]["accuracy, %"] == "–"


def test_several_backbones_each_have_a_baseline():
    found = comparison(8, failed=0, baseline="pool-00 + blur")
    for result in found["results"]:
        result["backbone"] = f"nano/{result['rank'] % 2}"
    for result in found["results"][:2]:
        result |= {"pool": "pool-00", "local_pool": "blur", "delta": None}
    found["results"][0]["backbone"], found["results"][1]["backbone"] = "nano/0", "nano/1"
    found["results"][2] |= {"pool": "pool-00", "local_pool": None, "error": "1 of its seeds failed: NaN"}
    found["results"][3]["delta"] |= dict.fromkeys(("mean", "low", "high", "p", "p_adjusted"))
    rows = {row["variant"]: row for row in ComparisonPage(page_of(found)).leaderboard()}
    assert next(iter(rows)).startswith(f"{name(ranked(found)[0])} · nano/")
    baselines = {title for title, row in rows.items() if row["vs. baseline"] == "◆ baseline"}
    assert baselines == {"pool-00 + blur · nano/0", "pool-00 + blur · nano/1"}
    assert [title for title in rows if title.endswith("1 of its seeds failed: NaN")] != []
    unknown = next(row for title, row in rows.items() if title.startswith("pool-03"))
    assert (unknown["vs. baseline"], unknown["gain, points"]) == ("–", "–")


def test_gains_are_drawn_to_one_scale():
    """Zero, the intervals' ends and the dots, as the page has them, lie on one straight line over the gains."""
    found = comparison(failed=0)
    elements = ComparisonPage(page_of(found)).elements
    marks = [attributes for tag, attributes in elements if tag in ("line", "circle")]
    drawn, gains = [], []
    for result in (result for result in ranked(found) if result["delta"]):
        zero, interval, dot = marks[:3]
        del marks[:3]
        drawn += [zero["x1"], interval["x1"], interval["x2"], dot["cx"]]
        gains += [0.0, result["delta"]["low"], result["delta"]["high"], result["delta"]["mean"]]
    assert marks == []
    at = np.array([float(x.rstrip("%")) for x in drawn])
    slope, origin = np.polyfit(gains, at, 1)
    assert at == pytest.approx(slope * np.array(gains) + origin, abs=0.01)
    assert (at.min(), at.max()) == pytest.approx((3, 97), abs=0.01)


@pytest.mark.parametrize("key", ["latency_ms", "latency_ms_32", "params", "macs"])
def test_the_front_holds_whatever_nothing_else_beats(key):
    found = comparison(30)
    place = ["latency_ms", "latency_ms_32", "params", "macs"].index(key)
    line, every = ComparisonPage(page_of(found)).charts["cost"][place]["data"]
    points = [(result[key], 100 * result["accuracy"]["mean"]) for result in ranked(found)[:-1]]
    assert list(zip(every["x"], every["y"], strict=True)) == [pytest.approx(point, rel=1e-5) for point in points]
    kept = {a for a in points if not any(b != a and b[0] <= a[0] and b[1] >= a[1] for b in points)}
    shown = list(zip(line["x"], line["y"], strict=True))
    assert shown == [pytest.approx(point, rel=1e-5) for point in sorted(kept)]
    assert len(shown) > 1
    accents = [point for point, color in zip(points, every["marker"]["color"], strict=True) if color == "--accent"]
    assert set(accents) == kept


def test_of_equal_points_one_is_on_the_front():
    assert plots.front([(2.0, 5.0), (1.0, 5.0), (1.0, 5.0), (1.0, 4.0), (3.0, 6.0)]) == [1, 4]
    assert plots.front([]) == []


def test_charts_hold_the_figures():
    found = comparison(seeds=4)
    charts = ComparisonPage(page_of(found)).charts
    assert set(charts) == CHARTS
    done = ranked(found)[:-1]

    rings, dots = charts["accuracy"][0]["data"]
    assert dots["x"] == pytest.approx([100 * result["accuracy"]["mean"] for result in done], rel=1e-5)
    reach = [100 * (result["accuracy"]["high"] - result["accuracy"]["mean"]) for result in done]
    assert dots["error_x"]["array"] == pytest.approx(reach, rel=1e-4)
    reach = [100 * (result["accuracy"]["mean"] - result["accuracy"]["low"]) for result in done]
    assert dots["error_x"]["arrayminus"] == pytest.approx(reach, rel=1e-4)
    assert rings["x"] == pytest.approx([100 * run["accuracy"] for result in done for run in result["per_seed"]])

    assert len(charts["severity"]) == 1 + len(KINDS)
    for figure, kind in zip(charts["severity"], ("", *KINDS), strict=True):
        for line, result in zip(figure["data"], done, strict=True):
            corruption = result["corruption_accuracy"]
            shares = corruption["by_kind"][kind] if kind else corruption["by_severity"]
            expected = [100 * share for share in [result["accuracy"]["mean"], *shares]]
            assert line["y"] == pytest.approx(expected, rel=1e-5)

    for figure, key in zip(charts["curves"], ("val_accuracy", "train_accuracy", "loss"), strict=True):
        for band, line, result in zip(figure["data"][::2], figure["data"][1::2], done, strict=True):
            values = np.array([[row[key] for row in run] for run in result["curves"]])
            values *= 1 if key == "loss" else 100
            assert line["x"] == [1, 2, 3, 4, 5, 6]
            assert line["y"] == pytest.approx(values.mean(0), rel=1e-5)
            assert band["y"] == pytest.approx([*values.max(0), *values.min(0)[::-1]], rel=1e-5)


def test_classes_are_shaded_by_their_recall():
    found = comparison(classes=60)
    source = page_of(found)
    header, *rows = ComparisonPage(source).tables["Recall of each class, %"]
    done = ranked(found)[:-1]
    recalls = np.array([[row["recall"] for row in result["per_class"]] for result in done])
    hardest = np.argsort(recalls.mean(0))[:20]
    assert [" ".join(cell.split()) for cell in header[1:]] == [f"class {at}" for at in hardest]
    for row, recall in zip(rows, recalls, strict=True):
        assert row[1:] == [f"{100 * recall[at]:.1f}" for at in hardest]
    shades = [float(shade) for shade in re.findall(r"--shade:([0-9.]+)", source)]
    lightest = np.sort(recalls.ravel())[recalls.size // 20]  # one failure does not take all shades
    scaled = (recalls[:, hardest] - lightest).clip(0) / (recalls.max() - lightest)
    assert shades == pytest.approx(scaled.ravel(), abs=6e-4)


def test_of_many_conclusions_the_middle_ones_are_folded():
    sentences = [f"Conclusion {number}." for number in range(12)]
    source = page_of(comparison(conclusions=sentences))
    folded = re.search(r"<details>.*?</details>", source, re.DOTALL)[0]
    assert re.findall(r"Conclusion \d+", folded) == [f"Conclusion {number}" for number in range(4, 11)]
    assert re.findall(r"Conclusion \d+", source) == [one[:-1] for one in sentences]
    assert "<details>" not in page_of(comparison(conclusions=sentences[:7])).split("<dl")[0]


def test_one_failure_does_not_shrink_all_gains():
    found = comparison(9, failed=0)
    found["results"][3]["delta"] |= {"mean": -0.9, "low": -0.95, "high": -0.85}
    drawn = re.findall(r'class="interval" x1="([0-9.]+)%" y1="7" x2="([0-9.]+)%"', page_of(found))
    widths = sorted(float(right) - float(left) for left, right in drawn)
    assert widths[0] == 0  # of the failure, beyond the scale
    assert widths[1] > 10


def test_names_cannot_become_markup():
    found = comparison(3, failed=1, classes=2, conclusions=[HOSTILE], notes=[HOSTILE], command=HOSTILE, started=HOSTILE)
    found["settings"] = found["environment"] = {HOSTILE: HOSTILE}
    found["data"]["name"] = HOSTILE
    for number, result in enumerate(found["results"]):
        result |= {"pool": f"{HOSTILE}{number}", "backbone": f"{HOSTILE}{number}"}
    found["results"][2]["error"] = HOSTILE
    found["results"][0]["per_class"][0]["class"] = HOSTILE
    found["results"][0]["per_seed"][0]["run"] = HOSTILE
    found["results"][0]["corruption_accuracy"]["by_kind"] = {HOSTILE: [0.5] * 5}
    source = page_of(found)
    page = ComparisonPage(source)
    assert source.count("</script") == 1
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 1
    assert "img" not in tags
    for tag, attributes in page.elements:
        assert not any(key.startswith("on") for key in attributes), (tag, attributes)
        assert not {"src", "href"} & {key for key, value in attributes.items() if value != "data:,"}
    assert page.words.count(HOSTILE) > 12
    drawn = json.dumps([figure for figures in page.charts.values() for figure in figures])
    assert "onerror" in drawn
    assert "<img" not in drawn  # Plotly itself reads a little HTML


def test_no_chart_can_end_the_script(monkeypatch):
    """Even where text for Plotly is not escaped."""
    monkeypatch.setattr(plots, "plain", str)
    found = comparison(2, failed=0)
    found["results"][1]["pool"] = HOSTILE
    source = page_of(found)
    assert source.count("</script") == 1
    assert any(HOSTILE[:60] in told for told in ComparisonPage(source).charts["accuracy"][0]["data"][1]["hovertext"])


def test_only_the_pages_own_script_may_run():
    page = ComparisonPage(page_of(comparison(2)))
    (policy,) = [a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256("".join(page.scripts).encode()).digest()).decode()
    given = dict(part.split(" ", 1) for part in policy.split("; "))
    assert given["default-src"] == "'none'"
    assert given["script-src"] == f"'sha256-{digest}'"
    assert set(given) == {"default-src", "script-src", "style-src", "img-src"}


def without(found: dict[str, Any], *keys: str) -> dict[str, Any]:
    for result in found["results"]:
        result.update(dict.fromkeys(keys))
    return found


def unsound() -> dict[str, Any]:
    """A variant whose figures are no numbers."""
    found = comparison(3, failed=0)
    result = found["results"][1]
    result["accuracy"] |= {"low": math.nan, "high": math.inf}
    result["latency_ms"] = math.nan
    result["curves"][0][2]["loss"] = math.nan
    result["corruption_accuracy"]["by_severity"][3] = math.nan
    result["per_class"][0]["recall"] = math.nan
    return found


ODD = {
    "one variant": (comparison(1, failed=0), CHARTS),
    "one seed": (comparison(4, seeds=1), CHARTS),
    "all failed": (comparison(3, failed=3), set()),
    "nothing": ({"results": [], "baseline": "avg"}, set()),
    "no robustness": (without(comparison(), *ROBUSTNESS), CHARTS - {"severity", "shift"}),
    "only accuracy": (
        {"baseline": "avg", "results": [{"pool": "avg", "status": "done", "accuracy": {"mean": 0.5}}]},
        {"accuracy"},
    ),
    "no figure": ({"baseline": "avg", "results": [{"pool": "avg", "status": "done", "rank": 1}]}, set()),
    "not finite": (unsound(), CHARTS),
}


@pytest.mark.parametrize("case", ODD)
def test_what_is_missing_is_left_out(case):
    found, charts = ODD[case]
    page = ComparisonPage(page_of(found))
    assert set(page.charts) == charts
    assert {a["data-chart"] for tag, a in page.elements if tag == "figure"} == charts
    assert not re.search(r"\b(None|nan|inf|undefined)\b", page.words)
    if found["results"]:
        assert len(page.leaderboard()) == len(found["results"])
    else:
        assert page.tables.keys() == {"The comparison"}


def test_sixty_variants_fit_in_eight_megabytes():
    source = page_of(comparison(60, seeds=5, epochs=20, classes=10))
    assert 1_000_000 < len(source.encode()) < 8_000_000
    long = ComparisonPage(page_of(comparison(2, seeds=1, epochs=1001, failed=0)))
    epochs = long.charts["curves"][0]["data"][0]["x"]
    assert len(epochs) <= 201
    assert epochs[-1] == 1001


def test_the_table_of_values_says_the_same():
    found = comparison(6)
    rows = list(csv.DictReader(io.StringIO(compare_page.csv(ComparisonResult.from_json(found)))))
    for row, result in zip(rows, ranked(found), strict=True):
        assert (row["pool"], row["local_pool"]) == (result["pool"], result["local_pool"] or "")
        assert row["error"] == (result["error"] or "")
        if result["status"] == "failed":
            assert not any(value for key, value in row.items() if key not in ("pool", "backbone", "status", "error"))
            continue
        numbers = {f"accuracy_{key}": value for key, value in result["accuracy"].items()}
        numbers |= {f"delta_{key}": (result["delta"] or {}).get(key) for key in ("mean", "low", "high", "p_adjusted")}
        by_severity = result["corruption_accuracy"]["by_severity"]
        numbers |= {f"corruption_accuracy_severity_{s}": by_severity[s - 1] for s in range(1, 6)}
        numbers |= {f"accuracy_seed_{run['seed']}": run["accuracy"] for run in result["per_seed"]}
        numbers |= {key: result[key] for key in ("rank", "params", "macs", "latency_ms", "latency_ms_32")}
        numbers |= {"crop_consistency_mean": result["crop_consistency"]["mean"], "f1_sd": result["f1"]["sd"]}
        assert {key: float(row[key]) if row[key] else None for key in numbers} == numbers
        assert row["delta_better"] == ("" if result["delta"] is None else str(result["delta"]["better"]))
    assert compare_page.csv(ComparisonResult(baseline="avg")) == "rank\n"


# --- In a browser --------------------------------------------------------------------------------------------------


@pytest.fixture
def browse(browser, tmp_path):
    """Opens a page, and sees to it that it neither complains nor asks for anything."""
    complaints, asked, pages = [], [], []

    def opened(source: str, width: int = 1280, scheme: str = "light", at: str = "", **context: Any):
        (tmp_path / "report.html").write_text(source, encoding="utf-8")
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, **context)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((tmp_path / "report.html").as_uri() + at)
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()
    assert complaints == []
    assert [url[:60] for url in asked if not url.startswith(("file:", "data:"))] == []


@pytest.fixture
def visit(browse):
    """Opens the page of a comparison."""
    return lambda found, *look: browse(page_of(found), *look)


KEYS = {
    "variant": lambda result: name(result),
    "rank": lambda result: result["rank"],
    "accuracy, %": lambda result: result["accuracy"] and result["accuracy"]["mean"],
    "gain, points": lambda result: result["delta"] and result["delta"]["mean"],
    "F1, %": lambda result: result["f1"] and result["f1"]["mean"],
    "crop consistency, %": lambda result: result["crop_consistency"] and result["crop_consistency"]["mean"],
    "shift consistency, %": lambda result: result["shift_consistency"] and result["shift_consistency"]["mean"],
    "mean corruption accuracy, %": lambda result: (
        result["corruption_accuracy"] and result["corruption_accuracy"]["mean"]
    ),
    "parameters": lambda result: result["params"],
    "MACs": lambda result: result["macs"],
    "training, s": lambda result: result["train_seconds"] and result["train_seconds"]["mean"],
    "1 image, ms": lambda result: result["latency_ms"],
    "32 images, ms": lambda result: result["latency_ms_32"],
}
DOWN_FIRST = {
    "accuracy, %",
    "gain, points",
    "F1, %",
    "crop consistency, %",
    "shift consistency, %",
    "mean corruption accuracy, %",
}


def by(results: list[dict[str, Any]], title: str, backwards: bool) -> list[dict[str, Any]]:
    """Results in order of a column, equal ones as they were, those without a value last."""
    there = [result for result in results if KEYS[title](result) is not None]
    missing = [result for result in results if KEYS[title](result) is None]
    return sorted(there, key=KEYS[title], reverse=backwards) + missing


def shown(page) -> list[str]:
    rows = page.locator(".leaderboard tbody tr:not([hidden]) th")
    return [text.split("\n")[0] for text in rows.all_inner_texts()]


def test_every_column_sorts_both_ways(visit):
    found = comparison(15, failed=2)
    page = visit(found)
    results = ranked(found)
    assert len({result["rank"] for result in results}) < 12  # some share one
    assert shown(page) == [name(result) for result in results]
    for title in [*KEYS, "accuracy, %"]:
        button = page.get_by_role("button", name=title, exact=True)
        for turn in (0, 1):
            button.click()
            backwards = (title in DOWN_FIRST) != bool(turn)
            results = by(results, title, backwards)
            assert shown(page) == [name(result) for result in results], (title, turn)
            sorts = page.eval_on_selector_all(".leaderboard th[aria-sort]", "all => all.map(th => th.ariaSort)")
            said = "descending" if backwards else "ascending"
            assert [sort for sort in sorts if sort != "none"] == [said]
            assert page.locator(f".leaderboard th[aria-sort={said}]").inner_text().strip() == title
    for title in ("vs. baseline", "ONNX parity"):
        page.get_by_role("button", name=title, exact=True).click()
    assert len(shown(page)) == 15


def test_the_keyboard_sorts_and_the_filter_filters(visit):
    found = comparison(15, failed=2)
    page = visit(found)
    page.locator("#filter").focus()
    page.keyboard.type("POOL-1 blur")
    some = [name(result) for result in ranked(found) if result["pool"].startswith("pool-1") and result["local_pool"]]
    assert shown(page) == some
    assert len(some) == 1
    assert page.locator("#shown").inner_text() == "1 of 15"
    page.locator("#filter").fill("nan")
    assert shown(page) == ["pool-13", "pool-14 + blur"]
    page.locator("#filter").fill("")
    page.locator("#filter").focus()
    for _ in range(5):  # the box that scrolls, then variant, rank, accuracy and gain
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expected = by(ranked(found), "gain, points", True)
    assert shown(page) == [name(result) for result in expected]
    page.keyboard.press("Space")
    assert shown(page) == [name(result) for result in by(expected, "gain, points", False)]


PAINTED = """all => all.map(place => [...place.querySelectorAll('.scatterlayer path')].filter(path => {
    const box = path.getBoundingClientRect(), around = place.getBoundingClientRect();
    return box.width + box.height > 3 && box.right > around.left && box.left < around.right;
}).length)"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_every_chart_is_painted(visit, width, scheme):
    found = comparison(9)
    page = visit(found, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width  # only tables and code scroll sideways
    charts = page.locator(".chart")
    assert charts.count() == len(CHARTS)
    assert min(charts.evaluate_all(PAINTED)) >= 6
    for place in charts.all():
        box = place.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        pixels = np.asarray(Image.open(io.BytesIO(place.screenshot())).convert("RGB")).astype(int)
        paper = (255, 255, 255) if scheme == "light" else (18, 21, 26)
        assert (pixels[0, 0] == paper).all()
        different = (abs(pixels - paper).sum(2) > 100).mean()
        assert 0.003 < different < 0.5
    for select in page.locator("select").all():
        for option in range(select.locator("option").count()):
            select.select_option(str(option))
            assert min(charts.evaluate_all(PAINTED)) >= 6


def test_a_choice_of_cost_moves_the_points(visit):
    found = comparison(9)
    page = visit(found)
    chart = page.locator("figure[data-chart=cost]")
    chart.locator("select").select_option(label="parameters")
    drawn = chart.locator(".chart").evaluate("place => place.data[1].x")
    assert drawn == [result["params"] for result in ranked(found)[:-1]]
    assert "parameters" in chart.locator(".chart").inner_text()


@pytest.mark.parametrize("chart", ["severity", "curves"])
def test_lines_are_those_of_the_ticked_variants(visit, chart):
    found = comparison(12)
    page = visit(found)
    figure = page.locator(f"figure[data-chart={chart}]")
    lines = "place => place.data.filter(t => !t.fill).map(t => t.hovertext[0].match(/<b>(.*)<.b>/)[1]).sort()"

    def drawn() -> list[str]:
        names = figure.locator(".chart").evaluate(lines)
        strokes = figure.locator(".chart .trace path.js-line").count()
        assert strokes == len(names) * (1 if chart == "severity" else 2)  # a band has an outline
        return names

    names = [name(result) for result in ranked(found)[:-1]]
    first = ["pool-00", *[one for one in names if one != "pool-00"][:5]]
    assert drawn() == sorted(first)
    figure.get_by_label(first[2], exact=True).uncheck()
    assert drawn() == sorted({*first} - {first[2]})
    figure.get_by_role("button", name="all").click()
    assert drawn() == sorted(names)
    figure.get_by_role("button", name="none").click()
    assert drawn() == []


def test_names_in_charts_are_text(visit):
    found = comparison(3, failed=0, classes=2)
    found["results"][1]["pool"] = "<b>x</b>"
    found["results"][2]["pool"] = HOSTILE
    page = visit(found)
    assert page.title() == "3 variants on digits"
    labels = page.locator("figure[data-chart=accuracy] .ytick text").all_text_contents()
    assert "<b>x</b>" in labels


@pytest.mark.parametrize("case", ODD)
def test_an_odd_page_still_works(visit, case):
    found, charts = ODD[case]
    page = visit(found, 390)
    assert page.locator(".js-plotly-plot").count() == len(charts)
    if page.locator("#filter").count():
        page.locator("#filter").fill("no such variant")
        assert page.locator("#shown").inner_text() == f"0 of {len(found['results'])}"


def test_on_paper_charts_fit_and_are_dark_on_white(visit, tmp_path):
    page = visit(comparison(9), 1280, "dark")
    look = """() => [...document.querySelectorAll('.chart')].map(place => [
        place.querySelector('.main-svg').getBoundingClientRect().width,
        getComputedStyle(place.querySelector('.ytick text')).fill])"""
    page.evaluate(f"addEventListener('beforeprint', () => {{ window.onPaper = ({look})() }})")
    before = page.evaluate(look)
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    for width, fill in page.evaluate("window.onPaper"):
        assert width == 640
        assert max(map(int, re.findall(r"\d+", fill))) <= 0x70
    assert page.evaluate(look) == before
    assert before[0][0] > 1000
    page.emulate_media(media="print")
    assert page.locator(".runs").is_visible()  # what is folded on the screen is not on paper
