"""Options go out and come back; what one request overrides, no other request sees."""

import json

from tests.e2e.serving import Server

SMALL = {"prompt": "apple", "steps": 2, "width": 64, "height": 64, "seed": 7}


def test_the_whole_object_can_be_sent_back_with_one_key_changed(server: Server) -> None:
    options = server.get("/sdapi/v1/options")
    answer = server.client.post("/sdapi/v1/options", json=options | {"CLIP_stop_at_last_layers": 2})
    assert answer.status_code == 200, answer.text
    assert answer.json() is None
    assert server.get("/sdapi/v1/options")["CLIP_stop_at_last_layers"] == 2
    server.client.post("/sdapi/v1/options", json=options)
    assert server.get("/sdapi/v1/options") == options


def test_the_selected_checkpoint_reads_back_as_a_listed_title_however_it_was_named(server: Server) -> None:
    listed = server.get("/sdapi/v1/sd-models")
    model = listed[0]
    names = [model["title"], model["model_name"], model["hash"], model["title"].split(" [")[0]]
    for name in names:
        assert server.client.post("/sdapi/v1/options", json={"sd_model_checkpoint": name}).status_code == 200, name
        assert server.get("/sdapi/v1/options")["sd_model_checkpoint"] == model["title"]


def test_an_override_counts_for_one_request_only(server: Server) -> None:
    before = server.get("/sdapi/v1/options")
    answer = server.post("/sdapi/v1/txt2img", SMALL | {"override_settings": {"CLIP_stop_at_last_layers": 2}})
    assert json.loads(answer["info"])["clip_skip"] == 2
    assert server.get("/sdapi/v1/options") == before
    assert json.loads(server.post("/sdapi/v1/txt2img", SMALL)["info"])["clip_skip"] == 1


def test_an_unknown_checkpoint_in_an_override_is_passed_over(server: Server) -> None:
    for name in ("galaxytimemachinesGTM_photoV20", ""):
        answer = server.client.post(
            "/sdapi/v1/txt2img", json=SMALL | {"override_settings": {"sd_model_checkpoint": name}}
        )
        assert answer.status_code == 200, answer.text


def test_an_unknown_checkpoint_in_options_is_refused_and_changes_nothing(server: Server) -> None:
    before = server.get("/sdapi/v1/options")
    answer = server.client.post("/sdapi/v1/options", json={"sd_model_checkpoint": "nope"})
    assert 400 <= answer.status_code < 500
    assert "nope" in answer.text
    assert server.get("/sdapi/v1/options") == before


def test_refreshing_the_checkpoints_keeps_the_list(server: Server) -> None:
    before = server.get("/sdapi/v1/sd-models")
    assert server.client.post("/sdapi/v1/refresh-checkpoints").json() is None
    assert server.get("/sdapi/v1/sd-models") == before
