"""The scatter within recordings against a loop over them, and what whitening by it does."""

import numpy as np
import pytest

from catalog.targets import NONE
from training.scatter import NOT_WHITENED, scatter_within, whiten


@pytest.fixture
def recordings():
    """Three recordings of 9, 2 and 1 clips, and five clips that do not count."""
    return np.repeat([4, 7, 2, NONE], [9, 2, 1, 5])


@pytest.fixture
def features(rng, recordings):
    """Clips of four numbers, which differ within a recording in the first above all."""
    own = rng.normal(size=(10, 4))[recordings]
    within = rng.normal(size=(len(recordings), 4)) * [3, 1, 0.3, 0.3]
    return (own + within).astype(np.float32)


def test_it_is_the_pooled_covariance_of_recordings(features, recordings):
    squares = np.zeros((4, 4))
    for one in (4, 7):
        apart = features[recordings == one].astype(float)
        apart -= apart.mean(axis=0)
        squares += apart.T @ apart
    np.testing.assert_allclose(
        scatter_within(features, recordings), squares / (8 + 1), rtol=1e-4, atol=1e-5
    )


def test_without_two_clips_of_a_recording_there_is_none(features):
    assert scatter_within(features, np.arange(len(features))) is None
    assert scatter_within(features, np.full(len(features), NONE)) is None
    same = np.ones((6, 3), np.float32)
    assert scatter_within(same, np.zeros(6, int)) is None
    assert whiten(features, np.arange(len(features)), 0.2) is None


def test_whitened_clips_of_a_recording_differ_alike_in_every_direction(features, recordings):
    whitened = features @ whiten(features, recordings, 0.0)
    scatter = scatter_within(whitened, recordings)
    np.testing.assert_allclose(scatter / scatter[0, 0], np.eye(4), atol=1e-3)


@pytest.mark.parametrize("shrinkage", [0.0, 0.2, 0.9])
def test_the_sum_of_variances_stays(features, recordings, shrinkage):
    whitened = features @ whiten(features, recordings, shrinkage)
    assert whitened.var(axis=0).sum() == pytest.approx(features.var(axis=0).sum(), rel=1e-4)


def test_shrunk_wholly_nothing_is_whitened(features, recordings):
    assert whiten(features, recordings, NOT_WHITENED) is None
    np.testing.assert_allclose(
        whiten(features, recordings, 1 - 1e-9), np.eye(4), atol=1e-4
    )  # next to it, too
    little, much = (whiten(features, recordings, one) for one in (0.9, 0.1))
    ratio = [np.linalg.norm(one[:, 3]) / np.linalg.norm(one[:, 0]) for one in (little, much)]
    assert 1 < ratio[0] < ratio[1]


def test_a_feature_that_never_differs_does_no_harm(features, recordings):
    features[:, 2] = 0.5
    assert np.isfinite(whiten(features, recordings, 0.0)).all()
