"""What every test may use."""

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with the same numbers in every run of the test."""
    return np.random.default_rng(20230526)
