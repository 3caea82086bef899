"""What is public is listed, and on a page."""

from types import ModuleType

import pytest

from compute_orchestrator import client
from tests.docs.pages import DOCS


def test_all_that_the_package_brings_is_listed() -> None:
    brought = {
        name
        for name, value in vars(client).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert brought | {"errors", "models"} == set(client.__all__)


@pytest.mark.parametrize("name", client.__all__)
def test_a_public_name_is_on_a_page(name: str) -> None:
    pages = [DOCS / "client.md", DOCS / "workers-python.md"]
    assert any(name in page.read_text() for page in pages)
