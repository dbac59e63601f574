"""What is kept of jobs and pictures, as tables. Times are `time.time()` seconds. Knows no HTTP and no engine."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

ID_CHARS = 32
NAME_CHARS = 200


class Base(DeclarativeBase):
    """The tables of the database."""


class Job(Base):
    """A request that was accepted, from then until its record is removed.

    `durable` ones were promised: they are done again after a crash. `claimed_by` is the server that works on it until
    `lease_until`, when another one may take it over. `attempts` counts how often it was begun.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("owner", "idempotency_key"),
        Index("jobs_by_state", "state", "priority", "submitted_at"),
        Index("jobs_by_owner", "owner", "submitted_at"),
        Index("jobs_by_line", "state", "owner", "priority", "submitted_at"),
    )

    id: Mapped[str] = mapped_column(String(ID_CHARS), primary_key=True)
    kind: Mapped[str] = mapped_column(String(NAME_CHARS))
    owner: Mapped[str] = mapped_column(String(NAME_CHARS))
    state: Mapped[str] = mapped_column(String(16))
    durable: Mapped[bool] = mapped_column(Boolean)
    priority: Mapped[int] = mapped_column(Integer, default=0)
    idempotency_key: Mapped[str | None] = mapped_column(String(NAME_CHARS))
    fingerprint: Mapped[str] = mapped_column(String(64), default="")
    submitted_at: Mapped[float] = mapped_column(Float)
    started_at: Mapped[float | None] = mapped_column(Float)
    ended_at: Mapped[float | None] = mapped_column(Float)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    claimed_by: Mapped[str | None] = mapped_column(String(ID_CHARS))
    lease_until: Mapped[float | None] = mapped_column(Float)
    model: Mapped[str | None] = mapped_column(Text)
    version: Mapped[str] = mapped_column(String(NAME_CHARS), default="")
    wish: Mapped[str | None] = mapped_column(String(16))
    http_status: Mapped[int | None] = mapped_column(Integer)
    error_code: Mapped[str | None] = mapped_column(String(NAME_CHARS))
    error: Mapped[str | None] = mapped_column(Text)


class Request(Base):
    """What a job was asked, enough to ask it again: the request as sent, the options that held then, and the seeds that
    were drawn for it. `traceparent` says where it belongs in a trace, in W3C's words.
    """

    __tablename__ = "requests"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    path: Mapped[str] = mapped_column(Text)
    query: Mapped[str] = mapped_column(Text, default="")
    content_type: Mapped[str] = mapped_column(String(NAME_CHARS), default="")
    accept: Mapped[str] = mapped_column(Text, default="")
    body: Mapped[bytes] = mapped_column(LargeBinary)
    options: Mapped[dict[str, object]] = mapped_column(JSON)
    seeds: Mapped[dict[str, object]] = mapped_column(JSON)
    traceparent: Mapped[str] = mapped_column(String(64), default="", server_default="")


class Webhook(Base):
    """Whom to tell of a job, at one moment of it: when it is `started`, or `ended` in a state of `events`.

    `next_at` is when it is tried (again), as long as it is `waiting`.
    """

    __tablename__ = "webhooks"
    __table_args__ = (Index("webhooks_by_time", "state", "next_at"),)

    id: Mapped[str] = mapped_column(String(ID_CHARS), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    moment: Mapped[str] = mapped_column(String(16))
    events: Mapped[list[str]] = mapped_column(JSON)
    url: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16), default="waiting")
    tries: Mapped[int] = mapped_column(Integer, default=0)
    next_at: Mapped[float] = mapped_column(Float)
    delivered_at: Mapped[float | None] = mapped_column(Float)
    error: Mapped[str | None] = mapped_column(Text)


class Answer(Base):
    """What a job was answered. Pictures are taken out of the body: `places` says which string of it each one was."""

    __tablename__ = "answers"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    status: Mapped[int] = mapped_column(Integer)
    headers: Mapped[dict[str, str]] = mapped_column(JSON)
    body: Mapped[bytes] = mapped_column(LargeBinary)


class Picture(Base):
    """A picture that a job made. `id` cannot be guessed; `key` names its file in the store of pictures."""

    __tablename__ = "pictures"
    __table_args__ = (UniqueConstraint("job_id", "place"), Index("pictures_by_owner", "owner", "created_at"))

    id: Mapped[str] = mapped_column(String(ID_CHARS), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    place: Mapped[int] = mapped_column(Integer)
    owner: Mapped[str] = mapped_column(String(NAME_CHARS))
    created_at: Mapped[float] = mapped_column(Float)
    key: Mapped[str] = mapped_column(Text)
    media_type: Mapped[str] = mapped_column(String(NAME_CHARS))
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    width: Mapped[int | None] = mapped_column(Integer)
    height: Mapped[int | None] = mapped_column(Integer)
    seed: Mapped[int | None] = mapped_column(BigInteger)
    model: Mapped[str | None] = mapped_column(Text)
    model_hash: Mapped[str | None] = mapped_column(String(64))
    infotext: Mapped[str] = mapped_column(Text, default="")


class Tag(Base):
    """A word that somebody put to a picture."""

    __tablename__ = "tags"

    picture_id: Mapped[str] = mapped_column(ForeignKey("pictures.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(NAME_CHARS), primary_key=True, index=True)


class Turn(Base):
    """When an owner's job of a priority was begun last."""

    __tablename__ = "turns"

    owner: Mapped[str] = mapped_column(String(NAME_CHARS), primary_key=True)
    priority: Mapped[int] = mapped_column(Integer, primary_key=True)
    begun_at: Mapped[float] = mapped_column(Float)


class Pace(Base):
    """When all the requests that an owner has made would have been made at the regular pace."""

    __tablename__ = "paces"

    owner: Mapped[str] = mapped_column(String(NAME_CHARS), primary_key=True)
    paid_at: Mapped[float] = mapped_column(Float)


class Charge(Base):
    """How much work a job is to its owner; kept as long as it counts. The job may be none that is kept."""

    __tablename__ = "charges"
    __table_args__ = (Index("charges_by_owner", "owner", "at"),)

    job_id: Mapped[str] = mapped_column(String(ID_CHARS), primary_key=True)
    owner: Mapped[str] = mapped_column(String(NAME_CHARS))
    at: Mapped[float] = mapped_column(Float)
    amount: Mapped[float] = mapped_column(Float)


class Entry(Base):
    """Who asked for what and when: kept apart from jobs and pictures, and not removed with them. `id` is the job's."""

    __tablename__ = "audit"
    __table_args__ = (Index("audit_by_time", "at", "id"), Index("audit_by_owner", "owner", "at", "id"))

    id: Mapped[str] = mapped_column(String(ID_CHARS), primary_key=True)
    owner: Mapped[str] = mapped_column(String(NAME_CHARS))
    at: Mapped[float] = mapped_column(Float)
    kind: Mapped[str] = mapped_column(String(NAME_CHARS))
    state: Mapped[str] = mapped_column(String(16))
    ended_at: Mapped[float | None] = mapped_column(Float)
    model: Mapped[str | None] = mapped_column(Text)
    prompt: Mapped[str] = mapped_column(Text, default="")
    seed: Mapped[int | None] = mapped_column(BigInteger)
    width: Mapped[int | None] = mapped_column(Integer)
    height: Mapped[int | None] = mapped_column(Integer)
    steps: Mapped[int | None] = mapped_column(Integer)
    images: Mapped[int | None] = mapped_column(Integer)
    work: Mapped[float | None] = mapped_column(Float)
    priority: Mapped[int] = mapped_column(Integer, default=0)
