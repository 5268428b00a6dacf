"""planning/page.py: what the page shows, without a network."""

import base64
import io
import re

import pytest
from matplotlib import image

from planning.archive import look_at_archive
from planning.decide import config_of, decide
from planning.expected import expect
from planning.facts import collect
from planning.machine import look_at_machine
from planning.page import write_page


@pytest.fixture(scope="module")
def page(planned_archive, tmp_path_factory):
    from configs import Config

    config = Config(root=planned_archive, device="cpu")
    archive = look_at_archive(config)
    facts = collect(archive, look_at_machine(config), config, None)
    decisions = decide(facts, {"train_audio_dir": "<b>&"})
    planned = config_of(decisions)
    path = tmp_path_factory.mktemp("page") / "deep" / "plan.html"
    write_page(
        path, archive, facts, planned, decisions, expect(facts, planned), ["python x.py < y"]
    )
    return path.read_text(encoding="utf-8")


def test_the_page_loads_nothing(page):
    assert not re.search(r"(src|href)=.(?!data:)", page) and "<script" not in page
    assert "@" not in re.sub(r"base64,[^\"]+|@media", "", page)


def test_six_pictures_are_pictures(page):
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(found) == 6
    for one in found:
        pixels = image.imread(io.BytesIO(base64.b64decode(one)))
        assert pixels.shape[1] > 500 and pixels.std() > 0.01


def test_every_rule_stands_with_its_evidence(page):
    assert page.count("<tr><td><code>") > 15
    assert '<td class="none">no evidence' in page
    assert "&lt;b&gt;&amp;" in page and "python x.py &lt; y" in page and "<b>&amp;" not in page
