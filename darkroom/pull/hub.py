"""What a repository of a hub holds, and which of its files make up a model. Speaks with the hub by `huggingface_hub`.

`HF_ENDPOINT` and `HF_TOKEN` count as they do there.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote

from darkroom.pull.errors import PullError
from darkroom.pull.transfer import Remote

_WEIGHTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
_NETWORKS = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
_SETTINGS = ("config.json", "scheduler_config.json")
_INDEX = "model_index.json"
_MAX_LISTED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoFile:
    """One file of a repository. `path` has been checked: it leads nowhere else."""

    path: str
    size: int | None
    sha256: str | None
    blob: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Repo:
    """A repository at one commit."""

    name: str
    commit: str
    files: Sequence[RepoFile]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The files of one model: one or several, or with `folder` all those of one in diffusers' layout."""

    files: Sequence[RepoFile]
    folder: bool = False


def is_repo_name(text: str) -> bool:
    """Whether a text names a repository: owner/name, and perhaps @revision behind it."""
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", text))


def find_in_address(address: str) -> tuple[str, str, str] | None:
    """Repository, revision and file of an address of the hub's own site."""
    from huggingface_hub import constants

    pattern = rf"{re.escape(constants.ENDPOINT)}/([\w.-]+/[\w.-]+)/(?:resolve|blob)/([\w.-]+)/([^?#]+)(?:[?#].*)?"
    found = re.fullmatch(pattern, address)
    return (found[1], found[2], found[3]) if found else None


def read_repo(name: str, revision: str | None, token: str | None) -> Repo:
    """What a repository holds. Raises PullError."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,  # of whichever library it speaks HTTP with
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        info = HfApi(token=token).model_info(name, revision=revision, files_metadata=True)
    except GatedRepoError as error:
        raise PullError(f"{name}: its owner must let you in first; then set HF_TOKEN or --token") from error
    except RevisionNotFoundError as error:
        raise PullError(f"{name}: has no revision {revision!r}") from error
    except RepositoryNotFoundError as error:
        raise PullError(f"{name}: no such repository, or it is not for you (HF_TOKEN, --token)") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        hint = " (HF_TOKEN, --token)" if status in {401, 403} else ""
        raise PullError(f"{name}: the hub answered {status}{hint}") from error
    except (HTTPError, OSError, ValueError) as error:
        raise PullError(f"{name}: the hub cannot be asked: {str(error).splitlines()[0][:200]}") from error
    files = [
        RepoFile(
            path=found.rfilename,
            size=found.size,
            sha256=found.lfs.sha256 if found.lfs else None,
            blob=None if found.lfs else found.blob_id,
        )
        for found in info.siblings or ()
        if is_inside(found.rfilename)
    ]
    return Repo(name=name, commit=info.sha or revision or "main", files=files)


def remote(repo: Repo, file: RepoFile, token: str | None) -> Remote:
    """Where a file is."""
    from huggingface_hub import constants, get_token

    secret = token or get_token()
    return Remote(
        address=f"{constants.ENDPOINT}/{repo.name}/resolve/{quote(repo.commit, safe='')}/{quote(file.path)}",
        size=file.size,
        sha256=file.sha256,
        blob=file.blob,
        headers={"authorization": f"Bearer {secret}"} if secret else {},
    )


def is_inside(path: str) -> bool:
    """Whether a path of a repository stays inside the folder that it is put into."""
    parts = PurePosixPath(path).parts
    plain = re.fullmatch(r"[\w.+()\[\] /,=-]+", path) is not None
    return plain and not path.startswith("/") and not any(part.startswith("..") for part in parts)


def choose(repo: Repo, wanted: Sequence[str], *, variant: str = "", diffusers: bool = False) -> Choice:
    """The files that make up the model: those that are wanted, the only one there is, or a folder's. Raises PullError,
    which lists what there is.
    """
    by_path = {file.path: file for file in repo.files}
    if wanted:
        missing = [path for path in wanted if path not in by_path]
        if missing:
            raise PullError(f"{repo.name}: has no {missing[0]}; {_listed(repo.files)}")
        return Choice(files=[by_path[path] for path in wanted])
    whole = [file for file in repo.files if "/" not in file.path and file.path.endswith(_WEIGHTS)]
    safe = [file for file in whole if file.path.endswith(".safetensors")] or whole
    if len(safe) == 1 and not diffusers:
        return Choice(files=safe)
    if _INDEX in by_path and (diffusers or not safe):
        return Choice(files=_folder(repo, variant), folder=True)
    raise PullError(f"{repo.name}: which file? Say --file; {_listed(repo.files)}")


def _folder(repo: Repo, variant: str) -> list[RepoFile]:
    """What of a folder in diffusers' layout is of use here."""
    chosen = [file for file in repo.files if file.path == _INDEX or file.path.rsplit("/", 1)[-1] in _SETTINGS]
    networks = {file.path.split("/")[0] for file in repo.files if "/" in file.path} & {*_NETWORKS}
    for network in sorted(networks):
        found = _weights(repo, network, variant) or _weights(repo, network, "") or _weights(repo, network, "fp16")
        if not found:
            raise PullError(f"{repo.name}: {network} has no .safetensors file; {_listed(repo.files)}")
        chosen += found
    return chosen


def _weights(repo: Repo, network: str, variant: str) -> list[RepoFile]:
    """The files of one network in one variant: a whole one, or shards with their index."""
    dotted = rf"\.{re.escape(variant)}" if variant else ""
    stem = rf"{network}/(diffusion_pytorch_model|model)"
    pattern = rf"{stem}{dotted}(-\d+-of-\d+)?\.safetensors|{stem}\.safetensors\.index{dotted}\.json"
    found = [file for file in repo.files if re.fullmatch(pattern, file.path)]
    whole = [file for file in found if re.fullmatch(rf"{stem}{dotted}\.safetensors", file.path)]
    return whole[:1] or found


def _listed(files: Sequence[RepoFile]) -> str:
    weights = sorted((file for file in files if file.path.endswith(_WEIGHTS)), key=lambda file: file.path)
    shown = [f"{file.path} ({(file.size or 0) / 1e9:.1f} GB)" for file in weights[:_MAX_LISTED]]
    return "it has " + (", ".join(shown) + (", ..." if len(weights) > _MAX_LISTED else "") or "no weights")
