"""planning/plan_file.py: YAML that gives back what was decided, a reason at each line."""

from configs import load_config, read_yaml
from planning.decide import config_of, decide
from planning.plan_file import plan_text, summarise, write_plan
from tests.planning.made_up import facts

GIVEN = {"train_audio_dir": "my: birds/ö #1", "folds": [0, 2]}


def test_a_plan_is_read_as_it_was_decided(tmp_path):
    decisions = decide(facts(), GIVEN)
    write_plan(tmp_path / "deep/plan.yaml", decisions)
    read = read_yaml(tmp_path / "deep/plan.yaml")
    assert read == {one.setting: one.value for one in decisions}
    assert load_config(["--config", str(tmp_path / "deep/plan.yaml")]) == config_of(decisions)


def test_every_line_says_why():
    lines = plan_text(decide(facts(), GIVEN), "plan.yaml").splitlines()
    settings = [k for k, line in enumerate(lines) if line and not line.startswith("#")]
    assert len(settings) > 30
    for k in settings:
        known = ("#   evidence: ", "#   no evidence: a rule of thumb")
        by_rule = lines[k - 1].startswith(known) and lines[k - 2].startswith("# ")
        assert by_rule or "  # recipes/" in lines[k] or lines[k].endswith("  # given")


def test_settings_stand_in_their_groups_once():
    lines = plan_text(decide(facts(), {}), "plan.yaml").splitlines()
    heads = [lines[k + 1] for k in range(len(lines) - 1) if not lines[k]]
    assert len(heads) == len(set(heads)) > 8


def test_origins_are_counted():
    counts = summarise(decide(facts(), GIVEN))
    assert counts["given"] == 2 and counts["rules"] > 15 and counts["recipe"] > 10
