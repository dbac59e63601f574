"""`/whoami`: who asks, as this server knows them, and what they may do."""

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from darkroom.allowances import SCOPES, Scope
from darkroom.api.owners import allowance_of, owner_of

router = APIRouter(tags=["server"])


class Viewer(BaseModel):
    """Who asks."""

    name: str = Field(description="The user or key; empty where nobody is asked who they are.")
    scopes: list[Scope] = Field(description="What may be done: generate, read, admin.")
    sees_all: bool = Field(description="Whether the jobs and pictures of others may be seen.")
    rate: str | None = Field(description="The most requests for work, as in 60/min.")
    jobs: int | None = Field(description="The most jobs at once.")
    work: float | None = Field(description="The most megapixels times steps in an hour.")
    priority: int = Field(description="The highest priority that may be asked for.")


@router.get("/whoami", operation_id="whoami")
def whoami(request: Request) -> Viewer:
    """Who asks, and what they may do. Limits that are null do not exist."""
    allowance, name = allowance_of(request.scope), owner_of(request.scope)
    return Viewer(
        name=name,
        scopes=[scope for scope in SCOPES if allowance.allows(scope)],
        sees_all=allowance.sees_all or not name,
        rate=str(allowance.rate) if allowance.rate else None,
        jobs=allowance.jobs,
        work=allowance.work,
        priority=allowance.priority,
    )
