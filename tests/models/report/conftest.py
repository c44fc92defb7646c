"""One small network and its bundle a session."""

from __future__ import annotations

import pytest

from models.bundle.read import Bundle
from tests.models.reasons.small_network import SmallNetwork, shared, shared_equipped


@pytest.fixture(scope="session")
def network() -> SmallNetwork:
    return shared()[0]


@pytest.fixture(scope="session")
def small_bundle() -> Bundle:
    return shared()[1]


@pytest.fixture(scope="session")
def full_bundle() -> Bundle:
    """With pairs, judges and trust cards."""
    return shared_equipped()[1]
