"""Pictures by address, from a stand-in host on this machine: what is fetched, and what must never be."""

import asyncio
import contextlib
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient

from darkroom.api.fetch import BadAddress, Rules, fetch
from darkroom.guarded_network import is_public
from darkroom.options.store import Options
from tests.unit.api.conftest import Serve, noise
from tests.unit.api.fake_engine import FakeEngine

PICTURE = noise(64, 64)


def as_png() -> bytes:
    buffer = io.BytesIO()
    PICTURE.save(buffer, "PNG")
    return buffer.getvalue()


DATA = as_png()


@dataclass
class Host:
    """A host that remembers what it was asked."""

    port: int = 0
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def url(self, path: str, name: str = "127.0.0.1") -> str:
        return f"http://{name}:{self.port}{path}"


class Handler(BaseHTTPRequestHandler):
    host: Host

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        self.host.seen.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
        kind, _, rest = self.path[1:].partition("/")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            getattr(self, f"answer_{kind}")(rest)

    def send(self, data: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Type": "image/png", "Content_Length": str(len(data)), **headers}.items():
            if value:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def answer_picture(self, _: str) -> None:
        self.send(DATA)

    def answer_untyped(self, _: str) -> None:
        self.send(DATA, Content_Type="")

    def answer_page(self, _: str) -> None:
        self.send(b"<html>secret</html>", Content_Type="text/html")

    def answer_packed(self, _: str) -> None:
        self.send(DATA, Content_Encoding="gzip")

    def answer_missing(self, _: str) -> None:
        self.send(DATA, 404)

    def answer_to(self, rest: str) -> None:
        self.send(b"", 302, Location=rest.replace("~", ":"))

    def answer_round(self, _: str) -> None:
        self.send(b"", 302, Location="/round/")

    def answer_announced(self, _: str) -> None:
        self.send(DATA, Content_Length="99999999")

    def answer_endless(self, _: str) -> None:
        self.send(b"", Content_Length="")
        for _step in range(2000):
            self.wfile.write(bytes(10_000))

    def answer_slow(self, _: str) -> None:
        self.send(b"", Content_Length="")
        for _step in range(50):
            self.wfile.write(b"x")
            self.wfile.flush()
            time.sleep(0.05)


@pytest.fixture
def host() -> Iterator[Host]:
    known = Host()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"host": known}))
    server.daemon_threads = True
    known.port = server.server_port
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    yield known
    server.shutdown()
    server.server_close()
    thread.join()


def resolver(*answers: Sequence[str]) -> Callable[[str, int], Any]:
    """Gives one answer after another, as a name server under somebody's control could."""
    left = list(answers)

    async def resolve(_: str, __: int) -> Sequence[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return resolve


def get(url: str, resolve: Callable[[str, int], Any] | None = None, **rules: Any) -> bytes:
    chosen = Rules(**{"public_only": False, "limit_s": 5.0, **rules})
    return asyncio.run(fetch(url, "image", chosen, **({"resolve": resolve} if resolve else {})))


def refusal(url: str, resolve: Callable[[str, int], Any] | None = None, **rules: Any) -> str:
    with pytest.raises(BadAddress) as caught:
        get(url, resolve, **rules)
    return str(caught.value)


@pytest.mark.parametrize(
    "path", ["/picture/", "/untyped/", "/to//picture/", "/picture/a b?c=ä&d=%20", "/to/../picture/x"]
)
def test_a_picture_is_fetched(host: Host, path: str) -> None:
    assert get(host.url(path)) == DATA


def test_nothing_but_the_necessary_is_sent(host: Host) -> None:
    get(host.url("/picture/"), agent="mine")
    assert host.seen[0][1] == {
        "host": f"127.0.0.1:{host.port}",
        "accept": "image/*",
        "accept-encoding": "identity",
        "user-agent": "mine",
    }


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/page/", "text/html"),
        ("/packed/", "compressed"),
        ("/missing/", "404"),
        ("/round/", "redirects"),
        ("/announced/", "at most"),
        ("/endless/", "at most"),
        ("/slow/", "within 0.5 s"),
        ("/to/ftp~//example.org/", "http://"),
        ("/to/http~//me~secret@example.org/", "user name"),
    ],
)
def test_what_is_no_picture_is_refused(host: Host, path: str, words: str) -> None:
    found = refusal(host.url(path), max_bytes=100_000, limit_s=0.5)
    assert found.startswith("Invalid image url: image: ")
    assert words in found


@pytest.mark.parametrize(
    "url", ["http://", "http://[", "http://a:b/", "http://me:x@127.0.0.1/", "http://a..b/", "https://"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    assert "Invalid image url" in refusal(url)


@given(rest=st.text(max_size=60) | st.from_regex(r"[a-z.@:%\\/\[\]?# \r\n0-9]{0,40}", fullmatch=True))
def test_no_address_whatever_is_a_server_error(rest: str) -> None:
    """Nothing is reached: the name server knows no name, and no number of a machine is taken for one either."""

    async def nobody(_: str, __: int) -> Sequence[str]:
        raise socket.gaierror

    assert "image: " in refusal("http://" + rest, nobody, public_only=True)


@pytest.mark.parametrize(
    "name", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "0", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_this_machine_is_not_public_under_any_of_its_names(host: Host, name: str) -> None:
    assert refusal(host.url("/picture/", name), public_only=True).startswith("Request to local resource not allowed")
    assert host.seen == []


def test_a_host_that_does_not_exist_looks_like_one_that_is_local() -> None:
    async def nobody(_: str, __: int) -> Sequence[str]:
        raise socket.gaierror

    local = refusal("http://inside.example/", resolver(["10.0.0.1"]), public_only=True)
    assert refusal("http://inside.example/", nobody, public_only=True) == local


def test_one_local_address_among_public_ones_is_enough_to_refuse(host: Host) -> None:
    found = refusal(host.url("/picture/", "both.example"), resolver(["93.184.216.34", "127.0.0.1"]), public_only=True)
    assert found.startswith("Request to local resource not allowed")


def test_a_name_is_looked_up_once_and_that_address_is_connected_to(host: Host) -> None:
    """DNS rebinding: the second answer, which a check and a later connection would disagree about, is never asked."""
    asked: list[str] = []

    async def rebind(name: str, _: int) -> Sequence[str]:
        asked.append(name)
        return ["127.0.0.1"] if len(asked) == 1 else ["192.0.2.1"]

    assert get(host.url("/picture/", "rebind.example"), rebind) == DATA
    assert asked == ["rebind.example"]


def test_the_connected_peer_is_looked_at_as_well(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def once(address: str) -> bool:
        seen.append(address)
        return len(seen) == 1

    monkeypatch.setattr("darkroom.guarded_network.is_public", once)
    assert refusal(host.url("/picture/"), public_only=True).startswith("Request to local resource not allowed")
    assert seen == ["127.0.0.1", "127.0.0.1"]
    assert host.seen == []


def test_a_redirect_to_this_machine_is_refused(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first host passes for a public one; where it sends us does not."""
    first = [True, True]
    monkeypatch.setattr("darkroom.guarded_network.is_public", lambda _: first.pop() if first else False)
    url = host.url(f"/to/http~//127.0.0.1~{host.port}/picture/", "first.example")
    assert refusal(url, resolver(["127.0.0.1"]), public_only=True).startswith("Request to local resource not allowed")
    assert [path for path, _ in host.seen] == [f"/to/http~//127.0.0.1~{host.port}/picture/"]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "192.0.2.1", "198.18.0.1", "240.0.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1",
        "fd00:ec2::254", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b:1::1",
        "2002:7f00:1::", "2001:0:7f00:1::", "ff02::1", "::7f00:1", "nonsense", "",
    ],
)  # fmt: skip
def test_addresses_that_only_this_network_can_reach_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_addresses_that_anybody_can_reach_are_public(address: str) -> None:
    assert is_public(address)


@pytest.fixture
def open_client(serve: Serve, tmp_path: Path) -> TestClient:
    """A server whose operator allows everything."""
    (tmp_path / "config.json").write_text('{"api_enable_requests": true, "api_forbid_local_requests": false}')
    assert Options(tmp_path / "config.json").snapshot().api_enable_requests
    return serve()


def test_pictures_of_every_request_may_be_addresses(open_client: TestClient, engine: FakeEngine, host: Host) -> None:
    url = host.url("/picture/")
    body = {
        "init_images": [url],
        "mask": url,
        "width": 64,
        "height": 64,
        "include_init_images": True,
        "inpainting_fill": 1,
    }
    answer = open_client.post("/sdapi/v1/img2img", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["parameters"]["init_images"] == [url]
    init = engine.specs[0].init
    assert init is not None
    assert Image.fromarray(init.pictures[0]).tobytes() == PICTURE.tobytes()
    for path, fields in {
        "/sdapi/v1/png-info": {"image": url},
        "/sdapi/v1/interrogate": {"image": url},
        "/sdapi/v1/extra-single-image": {"image": url},
        "/sdapi/v1/extra-batch-images": {"imageList": [{"data": url, "name": "a"}]},
    }.items():
        assert open_client.post(path, json=fields).status_code == 200


def test_the_same_address_is_fetched_once_for_one_request(open_client: TestClient, host: Host) -> None:
    url = host.url("/picture/")
    body = {"init_images": [url, url], "batch_size": 2, "width": 64, "height": 64}
    assert open_client.post("/sdapi/v1/img2img", json=body).status_code == 200
    assert len(host.seen) == 1


def test_a_client_cannot_flood_others_through_this_server(open_client: TestClient, host: Host) -> None:
    urls = [host.url(f"/picture/{n}") for n in range(500)]
    answer = open_client.post("/sdapi/v1/img2img", json={"init_images": urls})
    assert answer.status_code == 422
    assert host.seen == []


def test_nothing_is_fetched_where_the_operator_did_not_allow_it(client: TestClient, host: Host) -> None:
    """Not by the API either: neither the options of the server nor those of a request open it."""
    opened = {"api_enable_requests": True, "api_forbid_local_requests": False}
    assert client.post("/sdapi/v1/options", json=opened).status_code == 200
    body = {"init_images": [host.url("/picture/")], "override_settings": opened}
    answer = client.post("/sdapi/v1/img2img", json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("Requests not allowed")
    assert answer.json()["code"] == "bad_image_url"
    assert host.seen == []


def test_local_hosts_stay_closed_where_only_fetching_is_allowed(serve: Serve, tmp_path: Path, host: Host) -> None:
    (tmp_path / "config.json").write_text('{"api_enable_requests": true}')
    answer = serve().post("/sdapi/v1/png-info", json={"image": host.url("/picture/")})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("Request to local resource not allowed")
    assert host.seen == []
