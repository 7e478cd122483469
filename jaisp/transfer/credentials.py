"""Who we are to an archive: from variables and files, never from a config, never into a log."""

import base64
import os
from pathlib import Path

from jaisp.config.survey import Credentials
from jaisp.errors import UserError


def authorization(credentials: Credentials, key: str) -> dict[str, str]:
    """The header that says who we are; none where nothing is configured.

    key: where the credentials stand in the config. Raises UserError where the variable or the file
    is empty or lacks.
    """
    if credentials.token_env is not None:
        return {"Authorization": f"Bearer {_variable(credentials.token_env, f'{key}.token_env')}"}
    if credentials.token_file is not None:
        token = _content(credentials.token_file, f"{key}.token_file")
        return {"Authorization": f"Bearer {token}"}
    if credentials.login_env is not None:
        login = _variable(credentials.login_env, f"{key}.login_env")
        if ":" not in login:
            raise UserError(f"{key}.login_env: ${credentials.login_env} must be USER:PASSWORD")
        return {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}
    return {}


def source_of(credentials: Credentials, key: str) -> str:
    """Where a credential comes from, to be named to whoever has to renew it; never what it is."""
    if credentials.token_env is not None:
        return f"{key}.token_env, the variable {credentials.token_env}"
    if credentials.token_file is not None:
        return f"{key}.token_file, {credentials.token_file}"
    return f"{key}.login_env, the variable {credentials.login_env}"


def _variable(name: str, key: str) -> str:
    value = os.environ.get(name, "").strip()
    if not value or not value.isprintable():
        raise UserError(f"{key}: the variable {name} is not set; export it before the run")
    return value


def _content(path: Path, key: str) -> str:
    try:
        value = path.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UserError(f"{key}: {path}: {reason}") from None
    if not value or not value.isprintable():
        raise UserError(f"{key}: {path}: no token in it")
    return value
