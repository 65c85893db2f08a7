"""A browser, where one is installed."""

from collections.abc import Iterator

import pytest

from tests.report.browser import NAMES, Browser, executable


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    if executable() is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    with Browser() as page:
        yield page
