"""`mult demo` as a person meets it: the command serves a page on loopback, which is asked over HTTP and clicked in Chromium."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

from mult.demo.view import Model

from .conftest import SIZE, decode, draw_expected_page

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 1200
"""No test waits longer; a machine that is busy takes a part of it."""
Script = Callable[..., Any]


def _take_interrupts() -> None:
    """A shell's job in the background ignores Ctrl-C, and so do the tests that it runs and what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(scope="module")
def address(trained: Path, pushed: Path) -> Iterator[str]:
    """Where the command serves the page of a run and of a folder of `mult push`; Ctrl-C ends it with status 0."""
    pytest.importorskip("gradio")
    command = [sys.executable, "-m", "mult", "demo", "--ckpt", str(trained), "--compare", str(pushed)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_take_interrupts
    )
    watchdog = Timer(LIMIT_S, process.kill)
    watchdog.start()
    assert process.stdout
    found = re.match(r"(http://127\.0\.0\.1:\d+)/ shows ", process.stdout.readline())
    watchdog.cancel()
    if found is None:
        process.kill()
        raise AssertionError(process.communicate()[1])
    yield found[1]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, err
    assert "Traceback" not in err, err


def test_answers_are_the_predictors(address: str, models: list[Model], photograph: Path) -> None:
    """A photograph is sent, then points: the pictures have its size, values and attention are the models' own."""
    client_of = pytest.importorskip("gradio_client")
    client = client_of.Client(address, verbose=False, analytics_enabled=False)
    maps, *middle = client.predict(client_of.handle_file(photograph), api_name="/photograph")
    assert middle == [SIZE[0] // 2, SIZE[1] // 2]
    pictures = re.findall(r'<div class="map"><img src="([^"]*)"', maps)
    assert len(pictures) == 1 + 2 * 6
    assert {decode(picture).shape for picture in pictures} == {(*SIZE[::-1], 3)}

    x, y = 3, 100
    values, attention = client.predict("normal", x, y, api_name="/point")
    depths = [model.predictor(Image.open(photograph))["depth_zbuffer"][0, y, x] for model in models]
    found = re.search(r"depth zbuffer</th><td>([\d.]+)</td><td>([\d.]+)</td><td>[\d.]+</td><td>m</td>", values)
    assert found
    np.testing.assert_allclose([float(found[1]), float(found[2])], depths, rtol=1e-3)
    (page,) = re.findall(r'<img src="([^"]*)"', attention)
    assert np.array_equal(decode(page), draw_expected_page(models[0].predictor, photograph, x, y, "normal", limit=2))
    assert "the model has none (decoder fpn)" in attention

    with pytest.raises(client_of.exceptions.AppError, match="expected x below 70 and y below 110"):
        client.predict("normal", 70, 0, api_name="/point")


@pytest.mark.parametrize("part", [0.5, 0.01])
def test_a_damaged_photograph_is_refused_and_the_one_before_gone(
    address: str, photograph: Path, tmp_path: Path, part: float
) -> None:
    client_of = pytest.importorskip("gradio_client")
    content = photograph.read_bytes()
    (tmp_path / "damaged.jpg").write_bytes(content[: int(part * len(content))])
    client = client_of.Client(address, verbose=False, analytics_enabled=False)
    assert client.predict(client_of.handle_file(photograph), api_name="/photograph")[1] == SIZE[0] // 2
    maps, x, y = client.predict(client_of.handle_file(tmp_path / "damaged.jpg"), api_name="/photograph")
    assert maps.startswith('<p class="hint" role="alert">error: ')
    assert "damaged.jpg" in maps
    assert x is y is None
    assert client.predict("normal", 0, 0, api_name="/point") == ("", "")


def test_the_page_may_load_nothing_from_elsewhere(address: str) -> None:
    with urlopen(address, timeout=LIMIT_S) as answer:
        policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self' ")
    assert not re.search(r"https?:|\*", policy)


def test_cursor_and_click_in_the_browser_show_values_and_attention(address: str, models: list[Model], photograph: Path) -> None:
    browser_of = pytest.importorskip("playwright.sync_api")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium")
    with browser_of.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        page.set_default_timeout(1000 * LIMIT_S)
        requests: list[Any] = []
        page.on("request", lambda request: requests.append(request))
        page.goto(address)
        page.locator("input[type=file]").set_input_files(photograph)
        caption = page.locator(".values caption")
        browser_of.expect(caption).to_have_text("at (35, 55) of 70 x 110", timeout=1000 * LIMIT_S)

        picture = page.locator(".map img[alt=reshading]").last
        box = picture.bounding_box()
        attention = page.locator(".attention img")
        before = attention.get_attribute("src")
        picture.click(position={"x": box["width"] * 20.5 / 70, "y": box["height"] * 90.5 / 110})
        browser_of.expect(caption).to_have_text("at (20, 90) of 70 x 110", timeout=1000 * LIMIT_S)
        browser_of.expect(attention).not_to_have_attribute("src", before, timeout=1000 * LIMIT_S)
        expected = draw_expected_page(models[0].predictor, photograph, 20, 90, "normal", limit=2)
        assert np.array_equal(decode(attention.get_attribute("src")), expected)
        depth = page.locator(".values tr", has_text="depth zbuffer").locator("td").first.inner_text()
        value = models[0].predictor(Image.open(photograph))["depth_zbuffer"][0, 90, 20]
        np.testing.assert_allclose(float(depth), value, rtol=1e-3)

        picture.hover(position={"x": box["width"] * 50.5 / 70, "y": box["height"] * 15.5 / 110})
        browser_of.expect(caption).to_have_text("at (50, 15) of 70 x 110", timeout=1000 * LIMIT_S)
        depth = page.locator(".values tr", has_text="depth zbuffer").locator("td").first.inner_text()
        value = models[0].predictor(Image.open(photograph))["depth_zbuffer"][0, 15, 50]
        np.testing.assert_allclose(float(depth), value, rtol=1e-3)
        assert np.array_equal(decode(attention.get_attribute("src")), expected)  # of the point that was clicked
        page.mouse.move(0, 0)
        browser_of.expect(caption).to_have_text("at (20, 90) of 70 x 110", timeout=1000 * LIMIT_S)
        foreign = {each.url: each.failure for each in requests if not each.url.startswith((address, "data:", "blob:"))}
        assert set(foreign.values()) <= {"csp"}, foreign  # stopped in the browser, by the page's policy
        browser.close()


# --- What is refused ---


def test_the_extra_is_asked_for_before_the_model_is_loaded(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    ended = script("demo", "--ckpt", "nowhere")
    assert ended.status == 2
    assert ended.err == ('error: demo: got no package gradio; expected it installed; pip install "mult-dense[demo]"\n')


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_is_none_is_refused(script: Script, port: int) -> None:
    ended = script("demo", "--ckpt", "nowhere", f"--port={port}")
    assert ended.status == 2
    assert ended.err.startswith(f"error: --port: got {port}; expected a free port from 1 to 65535")


def test_a_port_in_use_is_refused(script: Script) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        ended = script("demo", "--ckpt", "nowhere", "--port", port)
    assert ended.status == 2
    assert ended.err.startswith(f"error: --port: got {port} (")


def test_a_checkpoint_that_is_none_is_refused(script: Script, trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    ended = script("demo", "--ckpt", trained, "--compare", tmp_path)
    assert ended.status == 2
    assert ended.err.startswith(f"error: checkpoint: got {tmp_path}; expected a run's folder")
