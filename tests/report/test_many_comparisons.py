"""The page of many comparisons: each shows its own, alone in a browser, all without a script and on paper."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import test_compare_page as single
from support.comparison import comparison, page_of
from test_compare_page import CHARTS, HOSTILE, PAINTED, ComparisonPage, name, ranked

from poolzoo.report import comparisons_page
from poolzoo.report.results import ComparisonResult

browse = single.browse  # its fixture
LEAD = ["Nothing beats `avg`, which is <b>.", "Blur keeps 4 points more."]
# A heading may repeat, have no letter of the alphabet, look like an id of a part, or be a name that scripts look for.
HEADINGS = ("Digits, frozen", "Digits frozen", "池化", "Digits frozen leaderboard", "Global", "module", HOSTILE)
SLUGS = ("digits-frozen", "digits-frozen-2", "comparison", "digits-frozen-leaderboard", "global", "module")


def several(count: int = 3, **shape: int) -> list[tuple[str, dict[str, Any]]]:
    """Comparisons of different sizes, whose poolings have names of their own."""
    found = [comparison(**{"variants": 5 + number, **shape}) for number in range(count)]
    for number, one in enumerate(found):
        one["baseline"] = f"p{number}-00"
        for result in one["results"]:
            result["pool"] = result["pool"].replace("pool", f"p{number}")
    return list(zip(HEADINGS, found, strict=False))


def pages_of(title: str, lead: list[str], comparisons: list[tuple[str, dict[str, Any]]]) -> str:
    """The page of the contents of several `compare.json`."""
    return comparisons_page.html(title, lead, [(name, ComparisonResult.from_json(one)) for name, one in comparisons])


def made(comparisons: list[tuple[str, dict[str, Any]]]) -> str:
    return pages_of("Which pooling?", LEAD, comparisons)


def articles(source: str) -> list[str]:
    return re.findall(r"<article.*?</article>", source, re.DOTALL)


def names(found: dict[str, Any]) -> list[str]:
    return [name(result) for result in ranked(found)]


def test_no_id_occurs_twice_and_every_reference_is_to_one():
    page = ComparisonPage(made(several(len(HEADINGS))))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) >= 10 * len(HEADINGS)
    told = [a.get(key) for _, a in page.elements for key in ("for", "aria-labelledby") if key in a]
    told += [a["href"].removeprefix("#") for tag, a in page.elements if tag == "a"]
    assert len(told) >= 10 * len(HEADINGS)
    assert set(told) <= set(ids)
    assert [id_ for id_ in ids if "_" not in id_][:-1] == list(SLUGS)


def test_a_link_can_be_typed():
    assert comparisons_page.slugs(HEADINGS[:-1]) == list(SLUGS)
    assert comparisons_page.slugs(["A", "a", "A 2", "É!", "a", ""]) == ["a", "a-2", "a-2-2", "e", "a-3", "comparison"]


def test_everything_of_a_comparison_is_its_own():
    """Its tables and figures name its poolings and no other's."""
    comparisons = several()
    source = made(comparisons)
    charts = ComparisonPage(source).charts
    for number, (part, (heading, found)) in enumerate(zip(articles(source), comparisons, strict=True)):
        slug = SLUGS[number]
        placed = re.findall(r'data-chart="([^"]+)"', part)
        assert set(placed) == {f"{slug}_{chart}" for chart in CHARTS}
        shown = part + json.dumps([charts.pop(place) for place in placed])
        assert set(re.findall(r"\bp\d-\d\d", shown)) == {result["pool"] for result in found["results"]}
        assert f">{heading}</h2>" in part
    assert charts == {}


def test_what_was_found_comes_first():
    source = made(several())
    (told,) = re.findall(r'<ol class="findings">(.*?)</ol>', source, re.DOTALL)
    first, second = re.findall(r"<li>(.*?)</li>", told, re.DOTALL)
    assert first == "Nothing beats <code>avg</code>, which is &lt;b&gt;."
    assert second == LEAD[1]
    long = "A sentence of `many` words. " * 40
    assert pages_of("t", [long], []).count("<code>many</code> words.") == 40
    assert "<ol" not in pages_of("t", [], several(1))


def test_headings_go_down_by_one():
    source = made(several())
    levels = [int(level) for level in re.findall(r"<h(\d)", source.split("<script>")[0])]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert levels.count(2) == 3
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert max(levels) == 3


def test_seven_comparisons_fit_in_eight_megabytes_with_plotly_once():
    comparisons = several(7, variants=30, seeds=3, epochs=90, failed=0)
    kinds = {f"kind {place}": [0.5 + place / 1000] * 5 for place in range(15)}
    for _, found in comparisons:
        for result in found["results"]:
            result["corruption_accuracy"]["by_kind"] = kinds
    source = made(comparisons)
    assert 4_000_000 < len(source.encode()) < 8_000_000
    assert source.count("plotly.js v") == page_of(comparisons[0][1]).count("plotly.js v") > 0
    assert source.count("<script") == 1


def test_long_curves_keep_their_last_epoch():
    """And a run that stopped early does not move the others' epochs."""
    content = comparison(2, seeds=2, epochs=1001, failed=0)
    del content["results"][0]["curves"][1][500:]
    found = ComparisonResult.from_json(content)
    for result, whole in zip(comparisons_page.thinned(found).results, found.results, strict=True):
        for run, before in zip(result.curves, whole.curves, strict=True):
            assert len(run) <= 60
            assert all(point in before for point in run)
        epochs = [point.epoch for point in result.curves[0]]
        assert len(epochs) > 50
        assert epochs[-1] == 1001
        assert [point.epoch for point in result.curves[1]] == [e for e in epochs if e <= len(whole.curves[1])]
    short = ComparisonResult.from_json(comparison(2, epochs=60, failed=0))
    assert comparisons_page.thinned(short) == short


def hostile() -> list[tuple[str, dict[str, Any]]]:
    comparisons = [(f'{HOSTILE}"', found) for _, found in several(2)]
    for _, found in comparisons:
        found["results"][1]["pool"] = found["data"]["name"] = f"'\"{HOSTILE}"
        found["conclusions"] = found["notes"] = [HOSTILE]
    return comparisons


def test_names_cannot_become_markup():
    source = pages_of(HOSTILE, [f"`{HOSTILE}`"], hostile())
    page = ComparisonPage(source)
    assert source.count("</script") == 1
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 1
    assert "img" not in tags
    for tag, attributes in page.elements:
        assert not any(key.startswith("on") for key in attributes), (tag, attributes)
        assert all(re.fullmatch("data:,|#[a-z0-9-]+", attributes.get(key, "data:,")) for key in ("href", "src"))
    assert page.words.count(HOSTILE) > 12
    assert page.elements[0][0] == "html"
    (policy,) = [a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256("".join(page.scripts).encode()).digest()).decode()
    script = f"script-src 'sha256-{digest}'"
    assert policy.split("; ") == ["default-src 'none'", script, "style-src 'unsafe-inline'", "img-src data:"]


def test_one_comparison_needs_no_tabs_and_none_needs_no_plotly():
    assert "<nav" not in made(several(1))
    assert len(made([])) < 50_000


# --- In a browser --------------------------------------------------------------------------------------------------


def visible(page) -> list[str]:
    """Which comparisons are shown, by the names of their ids."""
    return page.eval_on_selector_all("article", "all => all.filter(one => one.clientHeight > 0).map(one => one.id)")


def current(page) -> list[str]:
    return page.eval_on_selector_all("nav a[aria-current=true]", "all => all.map(link => link.hash.slice(1))")


def rows(page, slug: str) -> list[str]:
    """The variants of a leaderboard that are shown, in their order."""
    cells = page.locator(f"#{slug} .leaderboard tbody tr:not([hidden]) th")
    return [" ".join(text.split()).split(" the loss")[0] for text in cells.all_text_contents()]


def test_each_tab_shows_its_comparison_alone(browse):
    comparisons = several(len(HEADINGS))
    page = browse(made(comparisons))
    assert page.evaluate("document.querySelectorAll('article .js-plotly-plot').length") == len(CHARTS)  # of the first
    assert (visible(page), current(page)) == ([SLUGS[0]], [SLUGS[0]])
    for slug, (heading, found) in zip(SLUGS, comparisons, strict=False):
        page.evaluate("scrollTo(0, document.body.scrollHeight)")  # where only the tabs are still to be seen
        page.get_by_role("link", name=heading, exact=True).click()
        page.wait_for_function("slug => !document.getElementById(slug).hidden", arg=slug)
        assert (visible(page), current(page)) == ([slug], [slug])
        charts = page.locator(f"#{slug} .chart")
        assert charts.count() == len(CHARTS)
        assert min(charts.evaluate_all(PAINTED)) >= 4
        widths = charts.evaluate_all("all => all.map(e => [e.querySelector('.main-svg').clientWidth, e.clientWidth])")
        assert all(drawn == there > 1000 for drawn, there in widths)
        assert rows(page, slug) == names(found)
        under = page.locator("nav").bounding_box()
        title = page.locator(f"#{slug} > h2").bounding_box()
        assert (
            0 <= under["y"] < under["y"] + under["height"] <= title["y"] < 450
        )  # neither under the tabs nor out of sight
    page.go_back()
    page.wait_for_function("!document.getElementById('global').hidden")
    assert (visible(page), current(page)) == (["global"], ["global"])
    for _ in range(len(SLUGS) - 2):
        page.go_back()
    page.go_back()
    assert page.url.endswith("report.html")
    page.wait_for_function("!document.getElementById('digits-frozen').hidden")
    page.go_forward()
    page.go_forward()
    page.wait_for_function("!document.getElementById('digits-frozen-2').hidden")
    assert (visible(page), current(page)) == ([SLUGS[1]], [SLUGS[1]])


def test_the_keyboard_chooses(browse):
    page = browse(made(several()))
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_function("!document.getElementById('comparison').hidden")
    assert (visible(page), current(page)) == (["comparison"], ["comparison"])


@pytest.mark.parametrize(
    ("at", "shown"),
    [("#comparison", 2), ("#digits-frozen-2_curves", 1), ("#nowhere", 0), ("#%zz", 0)],
)
def test_an_address_opens_its_comparison(browse, at, shown):
    page = browse(made(several()), at=at)
    assert (visible(page), current(page)) == ([SLUGS[shown]], [SLUGS[shown]])
    assert min(page.locator(f"#{SLUGS[shown]} .chart").evaluate_all(PAINTED)) >= 4
    if shown:
        page.wait_for_function("scrollY > 0")
        top = page.evaluate("id => document.getElementById(id).getBoundingClientRect().top", at[1:])
        assert page.locator("nav").bounding_box()["height"] - 1 <= top < 450


def test_a_table_sorts_and_filters_alone(browse):
    comparisons = several()
    page = browse(made(comparisons))
    before = {slug: rows(page, slug) for slug in SLUGS[:3]}
    assert list(before.values()) == [names(found) for _, found in comparisons]
    page.get_by_role("link", name=HEADINGS[1], exact=True).click()
    second = page.locator("#digits-frozen-2")
    second.get_by_role("button", name="parameters").click()
    done = [result for result in ranked(comparisons[1][1]) if result["params"]]
    expected = [name(result) for result in sorted(done, key=lambda result: result["params"])]
    assert rows(page, SLUGS[1])[:-1] == expected != before[SLUGS[1]][:-1]
    second.get_by_role("searchbox").fill("p1-02")
    assert rows(page, SLUGS[1]) == ["p1-02"]
    assert {slug: rows(page, slug) for slug in (SLUGS[0], SLUGS[2])} == {
        slug: before[slug] for slug in (SLUGS[0], SLUGS[2])
    }
    counts = page.locator("output").all_text_contents()
    assert counts == ["5 of 5", "1 of 6", "7 of 7"]
    page.get_by_role("link", name=HEADINGS[2], exact=True).click()
    page.locator("#comparison").get_by_label("Filter").fill("no such variant")
    assert [len(rows(page, slug)) for slug in SLUGS[:3]] == [5, 1, 0]
    sorts = page.eval_on_selector_all(
        "article", "all => all.map(a => a.querySelector('[aria-sort$=ending]').textContent)"
    )
    assert [" ".join(text.split()) for text in sorts] == ["accuracy, %", "parameters", "accuracy, %"]


def test_the_script_draws_what_a_page_of_one_would(browse):
    """Figures that came in short are the same as those that came whole, but for what five digits leave out."""
    comparisons = several(2, epochs=8)
    comparisons[1][1]["results"][0]["corruption_accuracy"]["by_kind"].pop("contrast")  # a figure with fewer lines
    for number, cost in enumerate(("params", "latency_ms")):  # the first axis of a chart is linear, then logarithmic
        comparisons[number][1]["results"][1][cost] = 90_000_000
    charts = browse(made(comparisons)).evaluate("charts")
    for slug, (_, found) in zip(SLUGS, comparisons, strict=False):
        whole = ComparisonPage(page_of(found)).charts
        assert {place.split("_")[1] for place in charts if place.startswith(f"{slug}_")} == set(whole) == CHARTS
        for chart, figures in whole.items():
            same(charts[f"{slug}_{chart}"], figures, chart)


def same(drawn: Any, whole: Any, place: str) -> None:
    """Compares two figures, part by part; what is not there is named."""
    if isinstance(whole, dict):
        assert drawn.keys() == whole.keys(), place
        for key, part in whole.items():
            same(drawn[key], part, f"{place} {key}")
    elif isinstance(whole, list):
        assert len(drawn) == len(whole), place
        for at, part in enumerate(whole):
            same(drawn[at], part, f"{place} {at}")
    elif isinstance(whole, float):
        assert drawn == pytest.approx(whole, rel=5e-5), place
    else:
        assert drawn == whole, place


def test_without_a_script_all_comparisons_are_there(browse):
    page = browse(made(several()), java_script_enabled=False)
    for slug in SLUGS[:3]:
        assert page.locator(f"#{slug} .leaderboard").is_visible()
        assert page.locator(f"nav a[href='#{slug}']").is_visible()
    assert page.locator("input:visible").count() == 0


def test_a_phone_scrolls_down_only(browse):
    page = browse(made(several(len(HEADINGS))), 390, "dark")
    for link in page.locator("nav a").all()[::3]:
        link.click()
        chosen = link.get_attribute("href")[1:]
        page.wait_for_function("slug => !document.getElementById(slug).hidden", arg=chosen)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        box = link.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        assert page.locator("nav").bounding_box()["height"] < 120
        assert min(page.locator(f"#{chosen} .chart").evaluate_all(PAINTED)) >= 4


def test_paper_has_all_comparisons(browse, tmp_path):
    page = browse(made(several()), 1280, "dark")
    page.evaluate("""addEventListener('beforeprint', () => {
        window.onPaper = [...document.querySelectorAll('.chart')].map(place => [
            place.querySelector('.main-svg').clientWidth, place.querySelectorAll('.ytick text').length])
    })""")
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    drawn = page.evaluate("window.onPaper")
    assert [width for width, _ in drawn] == [640] * 3 * len(CHARTS)
    assert min(ticks for _, ticks in drawn) >= 3
    painted = page.locator("#digits-frozen-2 .chart").evaluate_all(
        "all => all.map(e => !!e.querySelector('.scatterlayer path'))"
    )
    assert painted == [True] * len(CHARTS)
    assert (visible(page), current(page)) == ([SLUGS[0]], [SLUGS[0]])
    page.get_by_role("link", name=HEADINGS[1], exact=True).click()
    page.wait_for_function("document.querySelector('#digits-frozen-2 .main-svg').clientWidth > 1000")
    page.emulate_media(media="print")
    assert visible(page) == list(SLUGS[:3])
    assert page.locator("nav").is_hidden()


def test_names_in_a_browser_are_text(browse):
    page = browse(pages_of(HOSTILE, [HOSTILE], hostile()), at="#no")
    page.locator("nav a").last.click()
    page.wait_for_function("document.querySelectorAll('article')[0].hidden")
    assert page.title() == HOSTILE
    assert page.locator("img").count() == 0
    assert len(visible(page)) == 1


def test_the_published_page_may_run_its_script():
    source = (Path(__file__).parents[2] / "docs" / "results" / "leaderboard.html").read_text(encoding="utf-8")
    script = source[source.index("<script>") + len("<script>") : source.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in source
    assert f'<article id="{comparisons_page.OVER_ALL_SLUG}"' in source
