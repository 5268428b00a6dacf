"""The probe's regression against scikit-learn's own, and the choice of its strength."""

from functools import partial

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from catalog.targets import NONE
from training.regression import (
    NEVER_HEARD,
    choose,
    fit,
    fit_beside,
    fit_each,
    fit_softmax,
    log_softmax,
    turn,
)
from training.scatter import whiten


def clips(rng, n=60, n_features=100, n_classes=3, signal=1.0):
    targets = np.arange(n) % n_classes
    features = rng.normal(size=(n, n_features)) + signal * np.eye(n_classes, n_features)[targets]
    return (3 * features + 5).astype(np.float32), targets, np.arange(n) // n_classes % 4


@pytest.mark.parametrize("n_features", [20, 100])  # fewer and more than clips
@pytest.mark.parametrize("n_classes", [2, 3])
def test_it_is_the_regression_of_standardised_features(rng, n_features, n_classes):
    features, targets, groups = clips(rng, n_features=n_features, n_classes=n_classes)
    fitted = fit(features, targets, groups, n_outputs=n_classes, strengths=[0.1])

    standardised = (features - features.mean(0)) / (features.std(0) + 1e-4)
    plain = LogisticRegression(C=0.1, max_iter=1000, tol=1e-6).fit(standardised, targets)
    logits = fitted.logits(features)
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(scores, plain.predict_proba(standardised), atol=3e-3)


def test_turned_features_have_the_same_products(rng):
    features = rng.normal(size=(10, 40)).astype(np.float32)
    turned, back = turn(features)
    np.testing.assert_allclose(turned @ back, features, atol=1e-5)
    np.testing.assert_allclose(back @ back.T, np.eye(len(back)), atol=1e-5)


def test_classes_without_a_clip_are_never_named(rng):
    features, targets, groups = clips(rng)
    fitted = fit(features, targets * 2, groups, n_outputs=6, strengths=[0.1])
    assert (fitted.bias[[1, 3, 5]] == NEVER_HEARD).all()
    assert (fitted.weight[[1, 3, 5]] == 0).all()


def test_nearly_as_many_classes_as_clips_are_fitted_without_a_warning(rng):
    features, targets, groups = clips(rng, n=60, n_classes=40, signal=3.0)
    fitted = fit(features, targets, groups, n_outputs=40, strengths=[1.0])  # a warning is an error
    assert (fitted.logits(features).argmax(axis=1) == targets).mean() > 0.9


def test_each_against_all_others_matches_scikit_learn(rng):
    features, targets, _ = clips(rng, n_features=10)
    weight, bias = fit_each(features, targets, 3, 0.1)
    for number in range(3):
        plain = LogisticRegression(C=0.1, max_iter=1000).fit(features, targets == number)
        np.testing.assert_allclose(weight[number], plain.coef_[0], atol=2e-3)
        np.testing.assert_allclose(bias[number], plain.intercept_[0], atol=2e-2)


def test_noise_wants_a_strong_regularisation_and_a_signal_a_weak_one(rng):
    choices = [1.0], [1e-4, 1.0]  # shrinkages, strengths
    noise, targets, groups = clips(rng, signal=0.0)
    assert choose((noise - 5) / 3, np.arange(60), targets, groups, *choices) == (1.0, 1e-4)
    clear, targets, groups = clips(rng, n_features=10, signal=4.0)
    assert choose((clear - 5) / 3, np.arange(60), targets, groups, *choices) == (1.0, 1.0)


def noisy_copies(rng, n_recordings=24, n_copies=6, n_features=30, n_classes=4):
    """Copies of recordings, whose noise is louder than what tells the classes apart."""
    classes = np.arange(n_recordings) % n_classes
    own = 1.5 * np.eye(n_classes, n_features)[classes] + 0.2 * rng.normal(
        size=(n_recordings, n_features)
    )
    recordings = np.repeat(np.arange(n_recordings), n_copies)
    noise = rng.normal(size=(len(recordings), 3)) @ rng.normal(size=(3, n_features)) * 3
    features = (own[recordings] + noise).astype(np.float32)
    return features, recordings, classes[recordings], recordings // n_classes % 3


def test_heads_on_whitened_features_hold_on_other_recordings(rng):
    features, recordings, targets, groups = noisy_copies(rng)
    held = groups == 2
    fitted = {}
    for shrinkage in (1.0, 0.1):
        fitted[shrinkage] = fit(
            features[~held], targets[~held], groups[~held], n_outputs=4, strengths=[0.01],
            recordings=recordings[~held], shrinkages=[shrinkage],
        )  # fmt: skip
        assert fitted[shrinkage].shrinkage == shrinkage
    right = {
        one: (fitted[one].logits(features[held]).argmax(1) == targets[held]).mean()
        for one in fitted
    }
    assert right[0.1] > right[1.0] + 0.1
    assert right[0.1] > 0.8

    chosen = fit(
        features[~held], targets[~held], groups[~held], n_outputs=4, strengths=[0.01, 0.1],
        recordings=recordings[~held], shrinkages=[1.0, 0.1],
    )  # fmt: skip
    assert chosen.shrinkage == 0.1


def test_where_recordings_have_one_clip_each_nothing_is_whitened(rng):
    features, targets, groups = clips(rng)
    by = partial(fit, features, targets, groups, n_outputs=3, strengths=[0.1])
    plain, asked = by(), by(recordings=np.arange(60), shrinkages=[0.2, 1.0])
    assert asked.shrinkage == plain.shrinkage == 1.0
    np.testing.assert_array_equal(asked.weight, plain.weight)


@pytest.mark.parametrize("softmax", [True, False])
def test_weights_are_those_of_features_as_they_are(rng, softmax):
    """They score features as a regression of whitened ones scores those."""
    features, recordings, targets, groups = noisy_copies(rng)
    fitted = fit(
        features, targets, groups, n_outputs=4, strengths=[0.1], softmax=softmax,
        recordings=recordings, shrinkages=[0.3],
    )  # fmt: skip
    standardised = (features - fitted.mean) / fitted.std
    matrix = whiten(standardised, recordings, 0.3)
    seen = standardised @ matrix
    by = LogisticRegression(C=0.1, max_iter=1000, tol=1e-6)
    if softmax:
        theirs = by.fit(seen, targets).predict_proba(seen)
        ours = np.exp(log_softmax(fitted.logits(features)))
    else:
        theirs = by.fit(seen, targets == 2).predict_proba(seen)[:, 1]
        ours = 1 / (1 + np.exp(-fitted.logits(features)[:, 2]))
    np.testing.assert_allclose(ours, theirs, atol=5e-3)


def test_the_row_for_no_bird_is_fitted_beside_the_others_and_not_whitened(rng):
    features, recordings, targets, groups = noisy_copies(rng)
    quiet = np.zeros((20, features.shape[1]), np.float32) + rng.normal(size=(20, 1))
    targets = np.append(targets, np.full(20, 4))
    whole = np.concatenate([features, quiet.astype(np.float32)])
    matrix = whiten(features, recordings, 0.2)
    weight, bias = fit_softmax(whole, targets, 5, 0.1, whitening=matrix, no_bird=4)
    of_birds, their_bias = fit_softmax(features, targets[:-20], 5, 0.1, whitening=matrix)
    np.testing.assert_array_equal(weight[:4], of_birds[:4])
    np.testing.assert_array_equal(bias[:4], their_bias[:4])

    # the gradient of cross-entropy and regularisation by that row is zero
    p = np.exp(log_softmax(whole @ weight.T + bias))[:, 4]
    wrong = p - (targets == 4)
    np.testing.assert_allclose(0.1 * wrong @ whole + weight[4], 0, atol=5e-3)
    assert abs(wrong.sum()) < 5e-2


def test_a_row_beside_no_others_is_a_regression_of_two_classes(rng):
    features = rng.normal(size=(50, 4)).astype(np.float32)
    is_one = features[:, 0] + 0.3 * rng.normal(size=50) > 0
    weights = rng.uniform(0.5, 2, size=50)
    weight, bias = fit_beside(features, is_one, np.zeros((50, 1)), 0.5, weights)
    plain = LogisticRegression(C=0.5, tol=1e-8).fit(features, is_one, weights)
    np.testing.assert_allclose(weight, plain.coef_[0], atol=1e-3)
    assert bias == pytest.approx(plain.intercept_[0], abs=1e-3)


def test_a_clip_of_two_labels_is_fitted_to_both_by_their_weights(rng):
    """The gradient of the weighted cross-entropy, with its regularisation, is zero at the fit."""
    features = rng.standard_normal((30, 4)).astype(np.float32)
    rows = np.repeat(np.arange(30), 2)
    targets = np.tile([0, 1], 30)
    shares = rng.random(30)
    weights = np.column_stack([shares, 1 - shares]).ravel()
    weight, bias = fit_softmax(features[rows], targets, 2, 0.7, weights=weights)

    logits = features @ weight.T + bias
    p = np.exp(log_softmax(logits))[:, 1]
    of_data = 0.7 * ((p - (1 - shares)) @ features)
    difference = weight[1] - weight[0]  # what is regularised: scikit-learn has one row for two
    np.testing.assert_allclose(of_data + difference, 0, atol=5e-3)
    assert abs((p - (1 - shares)).sum()) < 5e-3


def test_no_class_counts_against_each_and_is_never_a_class(rng):
    features = rng.standard_normal((40, 3)).astype(np.float32)
    targets = np.where(features[:, 0] > 0, 0, NONE)
    weight, bias = fit_each(features, targets, 2, 1.0)
    logits = features @ weight.T + bias
    assert ((logits[:, 0] > 0) == (targets == 0)).mean() > 0.9
    assert bias[1] == NEVER_HEARD


def test_rows_choose_features_and_groups_below_zero_choose_no_strength(rng):
    features = rng.standard_normal((20, 5)).astype(np.float32)
    targets, groups = np.arange(20) % 3, np.arange(20) % 2
    once = fit(features, targets, groups, n_outputs=3, strengths=[0.01, 1.0])
    twice = fit(
        features,
        np.concatenate([targets, targets]),
        np.concatenate([groups, np.full(20, NONE)]),
        n_outputs=3,
        strengths=[0.01, 1.0],
        rows=np.tile(np.arange(20), 2),
        weights=np.full(40, 0.5),
    )
    assert once.c == twice.c
    np.testing.assert_allclose(twice.weight, once.weight, atol=1e-3)
