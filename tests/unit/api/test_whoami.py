"""Who asks, as the server knows them."""

from pathlib import Path

from starlette.testclient import TestClient

from darkroom.allowances import parse
from darkroom.credentials import Credentials, write
from tests.unit.api.conftest import Serve


def test_where_nobody_is_asked_everything_may_be_done(client: TestClient) -> None:
    found = client.get("/whoami").json()
    assert found == {
        "name": "",
        "scopes": ["generate", "read", "admin"],
        "sees_all": True,
        "rate": None,
        "jobs": None,
        "work": None,
        "priority": 10,
    }


def test_a_user_without_a_password_is_told_nothing(serve: Serve) -> None:
    assert serve(api_auth="me:secret").get("/whoami").status_code == 401


def test_a_user_is_known_by_name_and_sees_only_his_own(serve: Serve) -> None:
    found = serve(api_auth="me:secret").get("/whoami", auth=("me", "secret")).json()
    assert (found["name"], found["sees_all"], found["priority"]) == ("me", False, 0)


def test_a_key_is_told_its_scopes_and_limits(serve: Serve, tmp_path: Path) -> None:
    credentials, key = Credentials().with_key("bot", parse("scope=read+generate rate=60/min jobs=4 work=500/h".split()))
    write(tmp_path / "keys", credentials)
    found = serve(api_auth_file=tmp_path / "keys").get("/whoami", headers={"Authorization": f"Bearer {key}"}).json()
    assert found["name"] == "bot"
    assert found["scopes"] == ["generate", "read"]
    assert (found["rate"], found["jobs"], found["work"]) == ("60/min", 4, 500.0)
