"""The probe's regression against scikit-learn's own, and the choice of its strength."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from catalog.targets import NONE
from training.regression import (
    NEVER_HEARD,
    choose_strength,
    fit,
    fit_each,
    fit_softmax,
    log_softmax,
    turn,
)


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


def test_each_against_all_others_matches_scikit_learn(rng):
    features, targets, _ = clips(rng, n_features=10)
    weight, bias = fit_each(features, targets, 3, 0.1)
    for number in range(3):
        plain = LogisticRegression(C=0.1, max_iter=1000).fit(features, targets == number)
        np.testing.assert_allclose(weight[number], plain.coef_[0], atol=2e-3)
        np.testing.assert_allclose(bias[number], plain.intercept_[0], atol=2e-2)


def test_noise_wants_a_strong_regularisation_and_a_signal_a_weak_one(rng):
    strengths = [1e-4, 1.0]
    noise, targets, groups = clips(rng, signal=0.0)
    assert choose_strength((noise - 5) / 3, targets, groups, strengths) == 1e-4
    clear, targets, groups = clips(rng, n_features=10, signal=4.0)
    assert choose_strength((clear - 5) / 3, targets, groups, strengths) == 1.0


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
