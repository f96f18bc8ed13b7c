"""The ping that tells a monitor how a scheduled run goes: `URL/start`, `URL`, `URL/fail`, as healthchecks.io reads them."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit, urlunsplit

Moment = Literal["start", "success", "fail"]
_PATHS: dict[Moment, str] = {"start": "/start", "success": "", "fail": "/fail"}


def address(url: str, moment: Moment) -> str:
    """The URL to be asked for at a moment of a run."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + _PATHS[moment]))


def moment_of(word: str) -> Moment:
    """The moment from `start`, systemd's SERVICE_RESULT (`success` or a reason), or an exit code."""
    if word == "start":
        return "start"
    return "success" if word in ("success", "0", "") else "fail"


def ping(url: str, moment: Moment, timeout: float = 10.0) -> str:
    """Ask for the moment's URL. What went wrong, or an empty text: a monitor that is down must not fail a backup."""
    import http.client
    import urllib.request

    try:
        with urllib.request.urlopen(address(url, moment), timeout=timeout):
            return ""
    except (OSError, ValueError, http.client.HTTPException) as error:
        # the URL itself may be a secret
        return f"the heartbeat ({moment}) did not get through: {getattr(error, 'reason', None) or type(error).__name__}"
