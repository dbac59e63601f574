"""Which scope each route asks for. Knows paths; knows nobody who asks.

`read` is what shows lists, options, progress, and one's own jobs and pictures. `generate` is what makes the device
work, and what stops, repeats, tags or removes one's own work. `admin` is what others notice, or what tells of the
machine.
"""

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from darkroom.allowances import Scope

_READ = """
GET    /
*      /ui/{anything:path}
GET    /ui
GET    /ui-assets/{anything:path}
GET    /docs/{anything:path}
GET    /images
GET    /images/{image_id}
GET    /images/{image_id}/file
GET    /images/{image_id}/thumbnail
GET    /internal/pending-tasks
GET    /internal/profile-startup
POST   /internal/progress
GET    /internal/quicksettings-hint
GET    /jobs
GET    /jobs/{job_id}
GET    /jobs/{job_id}/events
GET    /jobs/{job_id}/request
GET    /jobs/{job_id}/result
GET    /jobs/{job_id}/ws
GET    /metrics
GET    /models
GET    /models/metadata
GET    /options
POST   /prompt/tokens
GET    /queue/status
GET    /sd_extra_networks/cover-images
GET    /sd_extra_networks/get-single-card
GET    /sd_extra_networks/metadata
GET    /sd_extra_networks/thumb
GET    /sdapi/v1/cmd-flags
GET    /sdapi/v1/embeddings
GET    /sdapi/v1/extensions
GET    /sdapi/v1/face-restorers
GET    /sdapi/v1/hypernetworks
GET    /sdapi/v1/latent-upscale-modes
GET    /sdapi/v1/loras
GET    /sdapi/v1/memory
GET    /sdapi/v1/options
POST   /sdapi/v1/png-info
GET    /sdapi/v1/progress
GET    /sdapi/v1/prompt-styles
GET    /sdapi/v1/realesrgan-models
GET    /sdapi/v1/samplers
GET    /sdapi/v1/schedulers
GET    /sdapi/v1/script-info
GET    /sdapi/v1/scripts
GET    /sdapi/v1/sd-models
GET    /sdapi/v1/sd-vae
GET    /sdapi/v1/upscalers
GET    /v1/models
GET    /v1/models/{model:path}
GET    /whoami
"""

_GENERATE = """
POST   /generate/
DELETE /images/{image_id}
PUT    /images/{image_id}/tags
DELETE /jobs/{job_id}
POST   /jobs/{job_id}/interrupt
POST   /jobs/{job_id}/rerun
POST   /jobs/{job_id}/skip
POST   /sdapi/v1/extra-batch-images
POST   /sdapi/v1/extra-single-image
POST   /sdapi/v1/img2img
POST   /sdapi/v1/interrogate
POST   /sdapi/v1/interrupt
POST   /sdapi/v1/refresh-checkpoints
POST   /sdapi/v1/refresh-embeddings
POST   /sdapi/v1/refresh-loras
POST   /sdapi/v1/refresh-vae
POST   /sdapi/v1/skip
POST   /sdapi/v1/txt2img
POST   /v1/images/edits
POST   /v1/images/generations
"""

_ADMIN = """
GET    /audit
GET    /internal/sysinfo
GET    /internal/sysinfo-download
POST   /models/merge
PUT    /prompt/styles/{name:path}
DELETE /prompt/styles/{name:path}
POST   /sdapi/v1/create/embedding
POST   /sdapi/v1/create/hypernetwork
POST   /sdapi/v1/options
POST   /sdapi/v1/reload-checkpoint
POST   /sdapi/v1/server-kill
POST   /sdapi/v1/server-restart
POST   /sdapi/v1/server-stop
POST   /sdapi/v1/train/embedding
POST   /sdapi/v1/train/hypernetwork
POST   /sdapi/v1/unload-checkpoint
"""

_PARAMETER = re.compile(r"{\w+(:path)?}")


def _read(table: str, scope: Scope) -> Iterator[tuple[tuple[str, str], Scope]]:
    for line in table.split("\n"):
        if line:
            method, path = line.split()
            yield (method, path), scope


ROUTES: Final[Mapping[tuple[str, str], Scope]] = MappingProxyType(
    {**dict(_read(_READ, "read")), **dict(_read(_GENERATE, "generate")), **dict(_read(_ADMIN, "admin"))}
)
"""The scope by method (`*` is any) and path."""


def _pattern(path: str) -> re.Pattern[str]:
    parts = (re.escape(part) for part in re.split(r"{\w+(?::path)?}", path))
    wild = (".*" if found[1] else "[^/]+" for found in _PARAMETER.finditer(path))
    return re.compile("".join(part + next(wild, "") for part in parts), re.DOTALL)


_WITH_PARAMETERS: Final = tuple(
    (method, _pattern(path), scope) for (method, path), scope in ROUTES.items() if "{" in path
)


def find_scope(method: str, path: str) -> Scope | None:
    """The scope that the table names for a request; None where it names none."""
    exact = ROUTES.get((method, path))
    if exact:
        return exact
    matches = (
        scope for wanted, pattern, scope in _WITH_PARAMETERS if wanted in ("*", method) and pattern.fullmatch(path)
    )
    return next(matches, None)


def scope_of(method: str, path: str) -> Scope:
    """The scope that a request needs. What the table does not name, such as a route of an extension, is reading if it
    only asks, and else the administrator's.
    """
    method = "GET" if method in {"HEAD", "OPTIONS"} else method
    return find_scope(method, path) or ("read" if method == "GET" else "admin")
