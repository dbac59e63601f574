"""A public link: its login, its name, and words where there is none. The tunnel is a stand-in."""

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from darkroom.public_link import USER, NoLinkError, Share, with_login
from darkroom.settings import Settings


class Said:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, text: str) -> None:
        self.lines.append(text)


def opened(settings: Settings, tunnel: object) -> tuple[list[str], list[str]]:
    """What is told and what is warned of."""
    told, warned = Said(), Said()
    share = Share(settings=settings, tell=told, warn=warned, tunnel=tunnel, close_tunnels=lambda: None)  # type: ignore[arg-type]
    share.open(7860)
    if share._thread is not None:
        share._thread.join()
    return told.lines, warned.lines


def test_a_shared_server_without_users_gets_one_with_a_password_of_its_own() -> None:
    said = Said()
    first, second = (with_login(Settings(share=True), said) for _ in range(2))
    assert list(first.credentials) == [USER]
    assert first.credentials != second.credentials
    assert first.is_guarded
    assert first.credentials[USER] in said.lines[0]
    assert len(first.credentials[USER]) >= 16


def test_a_shared_server_without_passwords_on_purpose_gets_one_all_the_same() -> None:
    assert with_login(Settings(share=True, insecure_no_auth=True), Said()).is_guarded


@pytest.mark.parametrize("auth", [{"api_auth": SecretStr("me:secret")}, {"gradio_auth": SecretStr("me:secret")}])
def test_a_shared_server_with_users_keeps_them_and_tells_no_password(auth: dict[str, SecretStr]) -> None:
    said = Said()
    assert with_login(Settings(share=True, **auth), said).credentials == {"me": "secret"}  # type: ignore[arg-type]
    assert said.lines == []


def test_a_server_that_is_not_shared_stays_as_it_is() -> None:
    settings = Settings()
    assert with_login(settings, Said()) is settings
    assert opened(settings, lambda host, port: "never") == ([], [])


def test_the_links_name_is_one_of_the_servers_where_names_are_listed() -> None:
    settings = with_login(Settings(share=True, allowed_hosts="draw.example.org"), Said())
    assert settings.host_names == ["draw.example.org", "*.gradio.live"]


@pytest.mark.parametrize(
    ("host", "reached"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1"), ("10.0.0.5", "10.0.0.5")],
)
def test_the_tunnel_leads_to_an_address_that_the_server_binds(host: str, reached: str) -> None:
    settings = Settings(share=True, host=host)
    told, warned = opened(settings, lambda host, port: f"https://{host}-{port}.gradio.live")
    assert told == [f"Public link: https://{reached}-7860.gradio.live"]
    assert warned == []


def test_without_a_tunnel_it_says_why_in_words() -> None:
    def closed(host: str, port: int) -> str:
        raise NoLinkError("it rains")

    told, warned = opened(Settings(share=True), closed)
    assert told == []
    assert warned == ["Public link: none, because it rains. The server is there all the same."]


def test_a_server_that_speaks_https_itself_is_not_shared(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="share and tls_certfile exclude each other"):
        Settings(share=True, tls_certfile=tmp_path / "cert.pem", tls_keyfile=tmp_path / "key.pem")
