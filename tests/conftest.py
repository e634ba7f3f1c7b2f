"""What every test can ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may depend on a download
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side, one on a core


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of data sets that are too large, or not ours, to be part of the project; without it the test is skipped."""
    folder = Path(os.environ.get("ALIGN_TEST_DATA") or CHECKOUT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"the test data is not at {folder}: set ALIGN_TEST_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The top folder of the project."""
    return CHECKOUT
