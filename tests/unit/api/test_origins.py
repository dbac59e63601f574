import pytest
from starlette.testclient import TestClient

from darkroom.api.origins import is_own_name
from tests.unit.api.conftest import Serve

LIST = "/sdapi/v1/samplers"
CHANGE = "/sdapi/v1/interrupt"


def post(client: TestClient, **headers: str) -> int:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return int(client.post(CHANGE, headers=named).status_code)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:7860", "localhost:7860", "LOCALHOST", "localhost.", "[::1]:7860", "192.168.1.7", "10.0.0.1:80",
        "my-machine", "darkroom:7860", "sd.localhost", "printer.local", "host.docker.internal:7860", "nas.home.arpa",
    ],
)  # fmt: skip
def test_a_name_that_nobody_can_register_is_served(client: TestClient, host: str) -> None:
    assert client.get(LIST, headers={"Host": host}).status_code == 200
    assert post(client, Host=host) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:7860", "127.0.0.1.evil.example", "localhost.evil.example", "evil.example.",
        "user@evil.example", "127.0.0.1@evil.example", "[evil", "evil.example:port",
        "localhost/.evil.example", "localhost#.evil.example", "localhost?.evil.example", "localhost\\.evil.example",
        "evil.example@localhost", "localhost, evil.example", "a.xn--local-1.com",
    ],
)  # fmt: skip
def test_a_name_that_a_stranger_may_own_is_refused(client: TestClient, host: str) -> None:
    answer = client.get(LIST, headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert client.get("/health", headers={"Host": host}).status_code == 403
    assert post(client, Host=host) == 403


def test_the_operator_can_add_names(serve: Serve) -> None:
    client = serve(allowed_hosts="sd.example.com, *.Studio.example")
    assert client.get(LIST, headers={"Host": "sd.example.com:443"}).status_code == 200
    assert client.get(LIST, headers={"Host": "a.studio.example"}).status_code == 200
    assert client.get(LIST, headers={"Host": "127.0.0.1"}).status_code == 200
    assert client.get(LIST, headers={"Host": "example.com"}).status_code == 403
    assert serve(allowed_hosts="*").get(LIST, headers={"Host": "evil.example"}).status_code == 200


def test_with_passwords_any_name_will_do_unless_names_are_given(serve: Serve) -> None:
    headers = {"Host": "sd.example.com"}
    assert serve(api_auth="me:secret").get(LIST, headers=headers, auth=("me", "secret")).status_code == 200
    named = serve(api_auth="me:secret", allowed_hosts="other.example.com")
    assert named.get(LIST, headers=headers, auth=("me", "secret")).status_code == 403


def test_the_address_that_is_bound_is_a_name_of_the_server() -> None:
    assert is_own_name("sd.example.com:7860", ["sd.example.com"])
    assert not is_own_name("sd.example.com:7860", ["example.com"])


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://127.0.0.1:3000", "http://localhost", "null", "", "x"]
)
def test_pages_of_other_sites_can_change_nothing(client: TestClient, origin: str) -> None:
    assert post(client, Host="127.0.0.1:7860", Origin=origin) == 403
    assert post(client, Host="127.0.0.1:7860", Origin=origin, Sec_Fetch_Site="cross-site") == 403


def test_a_page_with_a_password_can_change_nothing_either(serve: Serve) -> None:
    client = serve(api_auth="me:secret")
    assert client.post(CHANGE, headers={"Origin": "https://evil.example"}, auth=("me", "secret")).status_code == 403


def test_what_only_reads_is_served_but_no_page_can_read_it(client: TestClient) -> None:
    answer = client.get(LIST, headers={"Origin": "https://evil.example"})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:7860", "http://127.0.0.1:7860"),
        ("localhost", "http://localhost"),
        ("localhost:80", "http://LOCALHOST"),
        ("localhost", "https://localhost:443"),
        ("[::1]:7860", "http://[::1]:7860"),
    ],
)
def test_the_servers_own_pages_pass(client: TestClient, host: str, origin: str) -> None:
    assert post(client, Host=host, Origin=origin) == 200


def test_a_browser_that_says_same_origin_is_believed(client: TestClient) -> None:
    """A proxy may have changed Host; a page cannot write that header."""
    assert post(client, Host="127.0.0.1:7860", Origin="https://sd.example.com", Sec_Fetch_Site="same-origin") == 200


def test_programs_send_no_origin_and_pass(client: TestClient) -> None:
    assert post(client) == 200


@pytest.mark.parametrize(
    ("settings", "passes"),
    [
        ({"cors_allow_origins": "https://ui.example"}, True),
        ({"cors_allow_origins": "*"}, True),
        ({"cors_allow_origins_regex": r"https://.*\.example"}, True),
        ({"cors_allow_origins_regex": r"https://ui"}, False),
        ({"cors_allow_origins": "http://ui.example"}, False),
    ],
)
def test_an_origin_passes_where_cors_allows_it(serve: Serve, settings: dict[str, str], passes: bool) -> None:
    client = serve(**settings)
    headers = {"Origin": "https://ui.example"}
    answer = client.post(CHANGE, headers=headers)
    assert answer.status_code == (200 if passes else 403)
    assert answer.headers.get("access-control-allow-origin") == ("https://ui.example" if passes else None)
    preflight = client.options(CHANGE, headers=headers | {"Access-Control-Request-Method": "POST"})
    assert preflight.status_code == (200 if passes else 400)


def test_the_flags_that_a_client_may_read_say_how_the_server_is_reached(serve: Serve) -> None:
    client = serve(
        listen=True, subpath="/studio/", cors_allow_origins="https://ui.example", cors_allow_origins_regex="http://a.*",
        tls_keyfile="/etc/key.pem", tls_certfile="/etc/certificate.pem",
    )  # fmt: skip
    flags = client.get("/sdapi/v1/cmd-flags").json()
    assert (flags["listen"], flags["server_name"], flags["subpath"]) == (True, None, "studio")
    assert (flags["cors_allow_origins"], flags["cors_allow_origins_regex"]) == ("https://ui.example", "http://a.*")
    assert (flags["tls_keyfile"], flags["tls_certfile"]) == ("/etc/key.pem", "/etc/certificate.pem")
    assert len(flags) == 126


def test_a_page_that_is_allowed_may_reach_a_private_address(serve: Serve) -> None:
    client = serve(cors_allow_origins="https://ui.example")
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Private-Network": "true"}
    answer = client.options(CHANGE, headers={"Origin": "https://ui.example", **asks})
    assert (answer.status_code, answer.headers["access-control-allow-private-network"]) == (200, "true")
    assert client.options(CHANGE, headers={"Origin": "https://evil.example", **asks}).status_code == 400
