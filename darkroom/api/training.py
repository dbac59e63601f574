"""`/sdapi/v1/create/*` and `/train/*`: making embeddings and hypernetworks, which this installation cannot.

A1111: what goes wrong in these routes is said in `info` of a successful answer.
"""

from typing import Annotated

from fastapi import APIRouter, Body

from darkroom.coerce import Object

router = APIRouter(prefix="/sdapi/v1", tags=["training"])

_REASON = "training is not part of this installation"

Keywords = Annotated[Object, Body()]


@router.post("/create/embedding", operation_id="create_embedding_sdapi_v1_create_embedding_post")
def create_embedding(given: Keywords) -> dict[str, str]:
    """Make an empty embedding."""
    return _refuse("create embedding", given)


@router.post("/create/hypernetwork", operation_id="create_hypernetwork_sdapi_v1_create_hypernetwork_post")
def create_hypernetwork(given: Keywords) -> dict[str, str]:
    """Make an empty hypernetwork."""
    return _refuse("create hypernetwork", given)


@router.post("/train/embedding", operation_id="train_embedding_sdapi_v1_train_embedding_post")
def train_embedding(given: Keywords) -> dict[str, str]:
    """Train an embedding."""
    return _refuse("train embedding", given)


@router.post("/train/hypernetwork", operation_id="train_hypernetwork_sdapi_v1_train_hypernetwork_post")
def train_hypernetwork(given: Keywords) -> dict[str, str]:
    """Train a hypernetwork. A1111: its answers speak of an embedding."""
    return _refuse("train embedding", given)


def _refuse(what: str, given: object) -> dict[str, str]:
    del given
    return {"info": f"{what} error: {_REASON}"}
