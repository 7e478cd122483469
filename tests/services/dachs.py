"""DaCHS on this machine: the VO's reference server, its SIA2 service, and a database for it.

Nothing of the machine's own PostgreSQL or DaCHS is used but their programs: the database and all
that the server keeps lie in a temporary folder.
"""

import grp
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.services.local import PAUSE_S, free_port, wait_until

RESOURCE = Path(__file__).with_name("tiles.rd")
PROGRAMS = "/usr/bin:/bin"
STOP_S = 30
SERVER_S = 60

SETTINGS = """
[general]
rootDir: {root}
group: {group}
gavoGroup: {group}
[web]
bindAddress: 127.0.0.1
serverPort: {port}
serverURL: http://127.0.0.1:{port}
[ivoa]
authority: org.example.tiles
"""

# A line of the server's log.
REQUEST = re.compile(r"\"'(?P<method>[A-Z]+)' '(?P<path>[^']*)' '[^']*'\" (?P<status>\d+) ")


@dataclass(frozen=True)
class Service:
    """A running server.

    address: of the service of images. tiles: where the images came from. root: the server's own
    folder.
    """

    address: str
    tiles: Path
    root: Path

    def requests(self, path: str = "") -> list[tuple[str, int]]:
        """Method and status of all requests so far for paths that end so."""
        found = self._logged()
        return [(m["method"], int(m["status"])) for m in found if m["path"].endswith(path)]

    def _logged(self) -> list[re.Match[str]]:
        """The log, when it has all that was asked before: the server writes after it answers."""
        mark = f"/mark-{secrets.token_hex(8)}"
        with suppress(urllib.error.HTTPError):
            urllib.request.urlopen(f"{self.address.partition('/__system__')[0]}{mark}").close()
        while True:
            lines = (self.root / "logs" / "web.log").read_text().splitlines()
            found = [match for line in lines if (match := REQUEST.search(line)) is not None]
            if any(match["path"] == mark for match in found):
                return found
            time.sleep(PAUSE_S)

    def file(self, name: str) -> Path:
        """Where the server has an image."""
        (found,) = (self.root / "inputs" / "tiles" / "data").rglob(name)
        return found


def is_installed() -> bool:
    return shutil.which("dachs", path=PROGRAMS) is not None and _postgres() is not None


def _postgres() -> Path | None:
    """Programs of the newest PostgreSQL that has what DaCHS needs of the sky."""
    found = [
        Path("/usr/lib/postgresql", folder.name, "bin")
        for folder in Path("/usr/share/postgresql").glob("[0-9]*")
        if all((folder / f"extension/{name}.control").is_file() for name in ("pg_sphere", "q3c"))
    ]
    usable = [folder for folder in found if (folder / "initdb").is_file()]
    return max(usable, key=lambda folder: int(folder.parent.name), default=None)


@contextmanager
def dachs(tiles: Path) -> Iterator[Service]:
    """Serve the images `tiles`/SURVEY/BAND/*.fits, each survey a collection."""
    with tempfile.TemporaryDirectory(prefix="dachs-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        account = _account()
        if os.geteuid() == 0:
            os.chown(folder, account.pw_uid, account.pw_gid)
        port, database_port = free_port(), free_port()
        group = grp.getgrgid(account.pw_gid).gr_name
        settings = SETTINGS.format(root=folder / "gavo", group=group, port=port)
        (folder / "settings").write_text(settings)
        (folder / "settings").chmod(0o644)
        run = _Runner(folder, account)
        with _database(run, database_port):
            place = f"host=127.0.0.1 port={database_port} user=dachs dbname=gavo"
            run("dachs", "init", "-d", place)
            run("dachs", "imp", "//obscore")
            _put_images(tiles, folder / "gavo" / "inputs" / "tiles")
            run("dachs", "imp", "tiles/q")
            with run.started("dachs", "serve", "start", "-f") as server:
                address = f"http://127.0.0.1:{port}/__system__/siap2/sitewide/siap2.xml"
                wait_until(lambda: _is_served(address), server, SERVER_S, run.log)
                yield Service(address, tiles, folder / "gavo")


class _Runner:
    """Runs programs in the folder, under an account that isn't root: PostgreSQL refuses root."""

    def __init__(self, folder: Path, account: pwd.struct_passwd) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.account = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        self.environment = {
            "PATH": f"{_postgres()}:{PROGRAMS}",
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            "GAVOSETTINGS": str(folder / "settings"),
        }

    def __call__(self, *command: str) -> None:
        """Run to the end, which must be a good one."""
        with self.started(*command) as process:
            process.wait()
        assert process.returncode == 0, f"{' '.join(command)}: {self.log.read_text()[-3000:]}"

    @contextmanager
    def started(
        self, *command: str, stop: signal.Signals = signal.SIGTERM
    ) -> Iterator[subprocess.Popen]:
        """Run until the end of the block. stop: what is sent then; one that goes on is killed."""
        with self.log.open("a") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **(self.account if os.geteuid() == 0 else {}),
            )
        try:
            yield process
        finally:
            process.send_signal(stop)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def _database(run: _Runner, port: int) -> Iterator[None]:
    """A PostgreSQL of our own, in which nothing is worth a sync."""
    data = str(run.folder / "database")
    run("initdb", "-D", data, "-U", "dachs", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8",
        "--no-sync")  # fmt: skip
    settings = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off")
    quiet = "log_min_messages=fatal"  # DaCHS looks for tables before it makes them
    options = [text for setting in (*settings, quiet) for text in ("-c", setting)]
    # SIGINT is PostgreSQL's fast way to stop: it doesn't wait for DaCHS's connections.
    command = ("postgres", "-D", data, "-p", str(port), *options)
    with run.started(*command, stop=signal.SIGINT) as server:
        place = ("-h", "127.0.0.1", "-p", str(port))
        ready = [f"{_postgres()}/pg_isready", "-q", *place]
        wait_until(
            lambda: subprocess.run(ready, check=False).returncode == 0, server, SERVER_S, run.log
        )
        run("createdb", *place, "-U", "dachs", "gavo")
        yield


def _account() -> pwd.struct_passwd:
    """Whose name the servers run under: PostgreSQL's own where we are root, else ours."""
    return pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())


def _put_images(tiles: Path, folder: Path) -> None:
    """Copy the images to where the server's resource says, readable for it."""
    shutil.copytree(tiles, folder / "data", ignore=shutil.ignore_patterns("*.ecsv"))
    shutil.copyfile(RESOURCE, folder / "q.rd")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _is_served(address: str) -> bool:
    """Whether the service answers a question."""
    try:
        with urllib.request.urlopen(f"{address}?MAXREC=0", timeout=SERVER_S) as answer:
            return b"QUERY_STATUS" in answer.read()
    except OSError:
        return False
