"""nginx on this machine: files with ranges and ETags, and a folder behind HTTP Basic."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services.local import free_port, is_open, wait_until

LOGIN = "astronomer:swordfish"

CONFIG = """
daemon off;
worker_processes 2;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
{user}
events {{ worker_connections 256; }}
http {{
    access_log {folder}/access.log;
    sendfile on;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {root};
        location /private/ {{
            auth_basic "members";
            auth_basic_user_file {folder}/logins;
        }}
        location /slow/ {{ alias {root}/; limit_rate 4m; }}
        location /elsewhere/ {{ return 302 /; }}
    }}
}}
"""


def is_installed() -> bool:
    return _binary() is not None


def _binary() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


@contextmanager
def nginx(root: Path, folder: Path) -> Iterator[str]:
    """Serve the files below `root`; gives the server's address. folder: for what it writes."""
    folder.mkdir()
    user, _, word = LOGIN.partition(":")
    (folder / "logins").write_text(f"{user}:{{PLAIN}}{word}\n")
    port = free_port()
    as_root = "user root;" if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(CONFIG.format(folder=folder, root=root, port=port, user=as_root))
    server = subprocess.Popen(
        [str(_binary()), "-p", str(folder), "-c", str(config)], stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: is_open(port), server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()
