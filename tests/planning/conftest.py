"""Settings for the archive that is planned for."""

from pathlib import Path

import pytest

from configs import Config


@pytest.fixture
def planned(planned_archive: Path) -> Config:
    """Settings that know where it lies."""
    return Config(root=planned_archive, device="cpu")
