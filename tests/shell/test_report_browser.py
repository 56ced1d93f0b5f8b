"""The report's page in a browser: no request, no overflow, complete without its script, light and dark."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import report_data
from browser import OFFLINE, chromium, dumped, framed, measured, needs_browser

from f3prune.pipelines.video import png_bytes, write_video
from f3prune.report.page import Media, render

pytestmark = needs_browser


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Media:
    folder = tmp_path_factory.mktemp("media")
    frames = np.linspace(0, 1, 6, dtype=np.float32)[:, None, None, None] * np.ones((1, 16, 24, 3), np.float32)
    clips = [write_video(values, folder / name)[0] for values, name in ((frames, "a.mp4"), (1 - frames, "b.mp4"))]
    pruned, dense = (clip.read_bytes() for clip in clips)
    return Media(pruned, dense, png_bytes(np.full((40, 700, 3), 90, np.uint8)))


@pytest.fixture(scope="module")
def text(media: Media) -> str:
    return render(report_data.report(), media)


@pytest.fixture
def page(text: str, tmp_path: Path) -> Path:
    file = tmp_path / "report.html"
    file.write_text(text, encoding="utf-8")
    return file


class Server(http.server.ThreadingHTTPServer):
    asked: list[str]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    """Anything that is asked of it is written down."""
    with Server(("127.0.0.1", 0), Handler) as found:
        found.asked = []
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def test_nothing_is_asked_of_any_network(page: Path, text: str, tmp_path: Path) -> None:
    addresses = re.findall(r'(?:src|href|poster|srcset|action|data)="([^"]*)"', text)
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    done = chromium(tmp_path, page, "--dump-dom", OFFLINE)
    assert "CONSOLE" not in done.stderr
    assert "</html>" in done.stdout


def test_the_policy_stops_what_would_be_asked(text: str, tmp_path: Path, server: Server) -> None:
    address = f"http://127.0.0.1:{server.server_port}"
    intruder = (
        f'<img src="{address}/image"><link rel="stylesheet" href="{address}/style"><script src="{address}/script">'
        f"</script><script>new Image().src = '{address}/inline'</script></main>"
    )
    file = tmp_path / "intruded.html"
    file.write_text(text.replace("</main>", intruder), encoding="utf-8")
    dumped(tmp_path, file)
    assert server.asked == []
    # The same without a policy: the server would have heard of it.
    open_page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", file.read_text(encoding="utf-8"))
    file.write_text(open_page, encoding="utf-8")
    dumped(tmp_path, file)
    assert {"/image", "/style", "/script", "/inline"} <= set(server.asked)


def test_everything_is_there_without_scripts(text: str, tmp_path: Path) -> None:
    tags = ("table", "tr", "td", "th", "svg", "section", "figcaption", "details")
    script = f"""
    const count = (name) => page.getElementsByTagName(name).length;
    done({{counts: {list(tags)}.map(count), controls: [...page.querySelectorAll('video')].map((v) => v.controls),
          player: page.querySelector('.player').hidden, text: page.body.innerText,
          unseen: [...page.querySelectorAll('section')].filter((s) => s.offsetHeight < 40).length}});
    """
    found = measured(tmp_path, text, 1280, script, scripts=False)
    assert found["counts"] == [len(re.findall(rf"<{tag}\b", text)) for tag in tags]
    assert found["controls"] == [True, True]
    assert found["player"] is True
    assert found["unseen"] == 0
    for part in ("21.3 [20.4, 22.1]", "α 0.944", "1.11×, 98 %", "0 of 336", "relative L2"):
        assert part in found["text"]


def test_one_set_of_controls_moves_both_videos(text: str, tmp_path: Path) -> None:
    script = """
    const videos = [...page.querySelectorAll('video')];
    const look = () => {
      for (let k = 0; k < 2; k++) page.querySelector('[data-do=on]').click();
      done({times: videos.map((v) => v.currentTime), controls: videos.map((v) => v.controls),
            hidden: page.querySelector('.player').hidden});
    };
    if (videos[0].readyState && videos[1].readyState) look();
    else videos[0].addEventListener('loadeddata', () => setTimeout(look, 200));
    """
    found = measured(tmp_path, text, 1280, script)
    assert found["controls"] == [False, False]
    assert found["hidden"] is False
    assert found["times"][0] == found["times"][1]
    # Shown is the middle of a frame, at eight frames a second.
    assert found["times"][0] == pytest.approx(2.5 / 8, abs=0.01)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("large", [False, True])
def test_the_page_is_no_wider_than_its_window(media: Media, tmp_path: Path, width: int, large: bool) -> None:
    data = report_data.report(sites=40, heads=16, granularity="frame-pair") if large else report_data.report(stages=2)
    script = """
    for (const folded of page.querySelectorAll('details')) folded.open = true;
    const root = page.documentElement;
    done([root.scrollWidth, root.clientWidth, page.querySelectorAll('section').length]);
    """
    scrolled, shown, sections = measured(tmp_path, render(data, media), width, script)
    assert shown == width
    assert scrolled <= width
    assert sections == 8


def test_light_and_dark_differ(text: str, tmp_path: Path) -> None:
    from PIL import Image

    brightness = {}
    for scheme, setting in (("dark", 0), ("light", 1)):
        picture = tmp_path / f"{scheme}.png"
        file = framed(tmp_path, text, 800, 1200)
        options = (
            f"--screenshot={picture}",
            "--window-size=800,1200",
            f"--blink-settings=preferredColorScheme={setting}",
        )
        chromium(tmp_path, file, *options)
        with Image.open(picture) as image:
            brightness[scheme] = float(np.asarray(image.convert("L")).mean())
    assert brightness["light"] > 180
    assert brightness["dark"] < 80
