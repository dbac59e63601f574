"""The page that asks for a password: one file without scripts, pictures or fonts. Knows no passwords."""

import base64
import hashlib
import re
from html import escape
from urllib.parse import quote

from starlette.responses import HTMLResponse

_OWN_PATH = re.compile(r"/(?![/\\])[^\\\x00-\x20\x7f]*")
"""A path on this server. Browsers take `//host` and `/\\host` for another one, and skip control characters."""

_LONGEST_PATH = 2000

_STYLE = """
*{box-sizing:border-box}
html{color-scheme:dark;background:#121316;color:#eceef2;font:16px/1.5 system-ui,sans-serif}
body{margin:0;min-height:100vh;display:grid;place-items:center;padding:16px}
main{width:100%;max-width:352px}
h1{margin:0 0 24px;font-size:24px;font-weight:600}
form{background:#1b1d22;border:1px solid #343841;border-radius:8px;padding:24px}
label{display:block;margin:0 0 4px;font-weight:500}
input{width:100%;margin:0 0 16px;padding:8px 12px;min-height:44px;font:inherit;color:inherit;background:#121316;
border:1px solid #7a808c;border-radius:6px}
button{width:100%;min-height:44px;margin:8px 0 0;padding:8px 16px;font:inherit;font-weight:600;color:#1a0f04;
background:#f2a65a;border:0;border-radius:6px;cursor:pointer}
button:hover{background:#f6b878}
:focus-visible{outline:3px solid #f2a65a;outline-offset:2px}
button:focus-visible{outline-color:#eceef2}
[role=alert]{margin:0 0 16px;padding:8px 12px;border-left:4px solid #ff8f85;background:#3a1f1f}
""".strip()

_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
}


def own_path(text: str, home: str) -> str:
    """Where somebody is led who has logged in: the path that was asked for, or `home` for what leads elsewhere."""
    return text if len(text) <= _LONGEST_PATH and _OWN_PATH.fullmatch(text) else home


def login_address(root: str, wanted: str) -> str:
    """Where the password is asked for, and after it a path is shown."""
    return f"{root}/login?next={quote(wanted, safe='/')}"


def login_page(root: str, following: str, *, trouble: str = "", user: str = "", status: int = 200) -> HTMLResponse:
    """The page. `trouble` is why the last attempt was in vain."""
    alert = f'<p role="alert" id="trouble">{escape(trouble)}</p>' if trouble else ""
    told = ' aria-describedby="trouble" aria-invalid="true"' if trouble else ""
    in_user, in_password = ("", " autofocus") if user else (" autofocus", "")
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Log in – Darkroom</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>Log in to Darkroom</h1>
<form method="post" action="{escape(root)}/login">
{alert}
<label for="username">User name</label>
<input id="username" name="username" value="{escape(user)}" autocomplete="username" autocapitalize="none"
 spellcheck="false" required{in_user}{told}>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required{in_password}{told}>
<input name="next" type="hidden" value="{escape(following)}">
<button type="submit">Log in</button>
</form>
</main>
</body>
</html>
"""
    return HTMLResponse(page, status, _HEADERS)
