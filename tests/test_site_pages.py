"""The site of docs/: what is made for it, and that it builds without a broken link."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from configs import Config
from docs import site_pages

ROOT = Path(__file__).resolve().parent.parent


def test_the_start_page_links_the_site_alone():
    page = site_pages.start_page(
        "[docs/a.md](docs/a.md) ![x](docs/x.png) [L](LICENSE) [w](https://w)"
    )
    assert page == "[a.md](a.md) ![x](x.png) `L` [w](https://w)"


def test_a_link_to_the_settings_leads_to_their_page():
    below = site_pages.on_page_markdown(
        "[Every setting](../../configs.py), `configs.py`", page=None
    )
    assert below == "[Every setting](../all_settings.md), `configs.py`"
    assert site_pages.on_page_markdown("[a](../configs.py)") == "[a](all_settings.md)"


def test_every_setting_stands_once_with_its_default():
    page = site_pages.all_settings_page()
    names = re.findall(r"^\| `(\w+)` \|", page, re.M)
    assert sorted(names) == sorted(Config.__dataclass_fields__)
    assert "| `sample_rate` | `32000` | sample rate of the prepared recordings (Hz) |" in page


def test_every_page_is_in_the_navigation():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    pages = set(re.findall(r"'([\w./]+\.md)'", str(nav)))
    there = {path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")}
    assert pages == there | {"index.md", "all_settings.md"}


def test_the_site_builds_without_a_broken_link(tmp_path):
    pytest.importorskip("mkdocs", reason="pip install -r requirements-docs.txt")
    command = [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--strict", "--quiet"]
    answer = subprocess.run(
        [*command, "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout + answer.stderr
    page = (tmp_path / "site/all_settings.html").read_text()
    assert "hop_length" in page
    assert "fonts.googleapis" not in page
    assert 'href="../all_settings.html"' in (tmp_path / "site/scripts/train.html").read_text()
