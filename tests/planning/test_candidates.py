"""planning/candidates.py: who takes part, and what counts as trained."""

import json
from dataclasses import replace

import pytest
import yaml

from configs import Config, UserError
from planning.candidates import find_candidates, is_done


@pytest.fixture
def config(tmp_path):
    return Config(root=tmp_path, exp_id=3, folds=[0, 1], head_lr=3e-4)


def leave(candidate, folds=(0, 1), **changes):
    """What a finished run leaves, as far as is_done looks."""
    for fold in folds:
        folder = candidate.folder / f"fold_{fold}"
        folder.mkdir(parents=True)
        (folder / "valid_predictions.npz").write_bytes(b"")
        stored = candidate.config.to_dict() | changes
        (folder / "config.yaml").write_text(yaml.safe_dump({"config": stored}))
    summary = {"folds": {str(fold): {} for fold in folds}}
    (candidate.folder / "summary.json").write_text(json.dumps(summary))


def test_the_cheapest_comes_first_and_neighbours_have_numbers_of_their_own(config):
    found = find_candidates(config, 2)
    assert [one.name for one in found] == ["probe", "planned", "unmixed", "slower"]
    assert [one.folder.name for one in found] == ["Exp_3_probe", "Exp_3", "Exp_4", "Exp_5"]
    assert [one.script for one in found] == ["probe.py", *["train.py"] * 3]
    assert found[2].config.p_mixup == found[2].config.p_or_mix == 0
    assert found[3].config.lr == pytest.approx(config.lr / 3)
    assert found[3].config.head_lr == pytest.approx(1e-4)
    assert len(find_candidates(config, 0)) == 2


def test_without_mixing_the_next_neighbour_takes_part(config):
    config.p_mixup = config.p_cutmix = 0
    assert [one.name for one in find_candidates(config, 1)] == ["probe", "planned", "slower"]


def test_all_folds_make_a_candidate_done(config):
    probe, planned = find_candidates(config, 0)
    assert not is_done(probe)
    leave(planned, folds=(0,))
    assert not is_done(planned)
    leave(probe)
    assert is_done(probe)
    (probe.folder / "fold_1/valid_predictions.npz").unlink()
    assert not is_done(probe)


@pytest.mark.parametrize("changes", [{"epochs": 2}, {"n_mels": 64}, {"head": "linear"}])
def test_another_training_is_not_taken_for_it(config, changes):
    _, planned = find_candidates(config, 0)
    leave(planned, **changes)
    with pytest.raises(UserError, match=f"another {next(iter(changes))}"):
        is_done(planned)


def test_a_training_from_before_a_setting_was_there_had_its_default(config):
    _, planned = find_candidates(config, 0)
    leave(planned)
    for path in planned.folder.glob("fold_*/config.yaml"):
        stored = yaml.safe_load(path.read_text())
        del stored["config"]["distill_weight"]
        path.write_text(yaml.safe_dump(stored))
    assert is_done(planned)
    _, other = find_candidates(replace(config, distill_weight=0.5), 0)
    with pytest.raises(UserError, match="another distill_weight"):
        is_done(other)


def test_the_probe_has_a_head_of_its_own(config):
    probe, _ = find_candidates(config, 0)
    leave(probe, head="linear", loss_name="cross_entropy")
    assert is_done(probe)
