"""A twin of another seed: its scores in our order, and what is no twin."""

import numpy as np
import pandas as pd
import pytest
import yaml

from configs import UserError
from inference.comparable import add_spread, differing_settings, read_twin
from tests.made_up_scores import made_up, write


def write_settings(folder, **settings):
    (folder / "fold_0" / "config.yaml").write_text(yaml.safe_dump({"config": settings}))


def test_a_twin_is_read_in_our_order_and_differs_in_its_seed_alone(tmp_path, rng):
    oof = made_up(rng)
    one, twin = write(tmp_path / "Exp_1", oof), write(tmp_path / "Exp_2", oof)
    write_settings(one, seed=1, lr=0.1, exp_id=1)
    write_settings(twin, seed=2, lr=0.1, exp_id=2)
    assert differing_settings([one, twin]) == {"seed": ["1", "2"]}
    turned = oof.take(rng.permutation(90))
    found = read_twin(one, turned, twin)
    assert np.array_equal(found.filenames, turned.filenames)
    assert np.array_equal(found.scores, turned.scores)

    write_settings(twin, seed=2, lr=0.2, exp_id=2)
    with pytest.raises(UserError, match="differ in more than their seed: lr"):
        read_twin(one, turned, twin)
    other = write(tmp_path / "Exp_3", made_up(rng, n=60))
    with pytest.raises(UserError, match="held back other recordings"):
        read_twin(one, oof, other)


def test_what_auto_became_is_compared_where_it_is_stored(tmp_path, rng):
    oof = made_up(rng)
    probe, first, second = (write(tmp_path / f"Exp_{n}", oof) for n in (1, 2, 3))
    write_settings(probe, frontend="auto", channels_last="auto", train_bs="auto", last_batch="auto")
    write_settings(first, frontend="cpu", channels_last="on", train_bs=16, last_batch="auto")
    write_settings(second, frontend="cpu", channels_last="off", train_bs=16, last_batch="keep")
    assert differing_settings([probe, first]) == {}
    assert differing_settings([first, second]) == {
        "channels_last": ["on", "off"],
        "last_batch": ["auto", "keep"],  # nobody stores what became of it
    }
    assert differing_settings([probe, first, second])["channels_last"] == ["auto", "on", "off"]


def test_the_spread_stands_behind_its_score():
    one = pd.DataFrame({"metric": ["a", "b"], "score": [0.5, np.nan], "low": [0.4, np.nan]})
    twin = one.assign(score=[0.8, 0.1])
    found = add_spread(one, twin, ["score"])
    assert found.columns.tolist() == ["metric", "score", "score_seed_spread", "low"]
    assert found["score_seed_spread"].tolist() == pytest.approx([0.3, np.nan], nan_ok=True)
    assert "score_seed_spread" not in one
