"""The pages about the API work without any other server."""

import re

import pytest

from tests.unit.api.conftest import Serve


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_a_page_about_the_api_loads_from_this_server_alone(serve: Serve, page: str) -> None:
    client = serve()
    html = client.get(page).text
    loaded = re.findall(r'<(?:script|link)[^>]*\s(?:src|href)="([^"]+)"', html)
    assert loaded
    assert [address for address in loaded if "//" in address] == []
    assert {client.get(address).status_code for address in loaded} == {200}
