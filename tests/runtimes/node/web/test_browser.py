"""The page in a real browser: live, escaped, within its policy, usable at every width."""

import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser
LOADED = "[...document.images].every((image) => image.complete)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One Chromium for these tests."""
    spec = spec_from_file_location("chromium", Path(__file__).parent / "chromium.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError("chromium.py")
    module = module_from_spec(spec)
    sys.modules["chromium"] = module
    spec.loader.exec_module(module)
    with module.Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(autouse=True)
def nothing_else_failed(browser: Any) -> Iterator[None]:
    """No script error, no missing file and no breach of the content policy."""
    browser.leave()
    yield
    assert browser.failures == []


def test_the_list_is_live(browser: Any, served: Any, films: dict[str, Path]) -> None:
    browser.open(served.url)
    assert "No image has arrived yet" in browser.run("document.body.innerText")
    served.post(films["hostile"], wait=0)
    browser.until("document.querySelector('.row .pill')?.innerText === 'waiting'")
    served.clinic.screen_next()
    browser.until("document.querySelectorAll('.row .score').length === 2")
    assert browser.run("document.querySelector('.who bdi').innerText") == "<script>alert(1)</script>, Zoë"
    assert browser.run("document.scripts.length") == 1


def test_the_list_says_when_it_is_not_live(browser: Any, served: Any) -> None:
    browser.open(served.url)
    browser.until("document.getElementById('link').hidden && source.readyState === 1")
    served.server.stop()
    browser.until("!document.getElementById('link').hidden")
    browser.failures[:] = [failure for failure in browser.failures if "ERR_CONNECTION_REFUSED" not in failure]


def test_the_heatmap_fades_with_the_slider(browser: Any, served: Any, films: dict[str, Path]) -> None:
    served.post(films["hostile"], wait=0)
    served.clinic.screen_next()
    browser.open(f"{served.url}/results/1")
    browser.until(LOADED)
    assert browser.run("film.naturalWidth") == 300
    assert browser.run("map.naturalWidth") == 300
    same = "JSON.stringify(film.getBoundingClientRect()) === JSON.stringify(map.getBoundingClientRect())"
    assert browser.run(same)
    browser.run("opacity.value = 25; opacity.dispatchEvent(new Event('input'))")
    assert browser.run("getComputedStyle(map).opacity") == "0.25"
    browser.run("document.querySelector('.choice a').click()")
    browser.until("location.search === '?finding=covid' && document.readyState === 'complete'")
    assert browser.run("getComputedStyle(map).opacity") == "0.25"
    assert browser.pdf().startswith(b"%PDF")


def test_a_waiting_result_shows_itself(browser: Any, served: Any, films: dict[str, Path]) -> None:
    served.post(films["plain"], wait=0)
    browser.open(f"{served.url}/results/1")
    assert "There is no result yet" in browser.run("document.body.innerText")
    served.clinic.screen_next()
    browser.until("document.body?.innerText.includes('Secondary Capture')")


@pytest.mark.parametrize("width", [360, 390, 820, 1400])
def test_no_width_scrolls_sideways(browser: Any, served: Any, films: dict[str, Path], width: int) -> None:
    for name in ("hostile", "plain"):
        served.post(films[name], wait=0)
        served.clinic.screen_next()
    browser.size(width, 800)
    for path in ("/", "/results/1", "/health"):
        browser.open(served.url + path)
        browser.until(LOADED)
        assert browser.run("document.documentElement.scrollWidth") == width
        clipped = (
            "[...document.querySelectorAll('.pill, .value')].filter((e) => e.scrollWidth > e.parentElement.clientWidth)"
        )
        assert browser.run(f"{clipped}.length") == 0


def test_the_password_form(browser: Any, serve: Any) -> None:
    served = serve(password="a long one")
    browser.open(served.url)
    browser.until("location.pathname === '/login'")
    browser.run(
        "document.querySelector('[type=password]').value = 'a long one'; document.querySelector('.login').submit()"
    )
    browser.until("location.pathname === '/' && document.readyState === 'complete'")
    browser.until("source !== null && source.readyState === 1")
    browser.run("document.querySelector('.bar form').submit()")
    browser.until("location.pathname === '/login'")
