"""A real PostgreSQL beside the provider, which every host reaches. It is killed and started again."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile

from cluster import soon
from network import HERE
from rig import wait_until

PORT, PASSWORD = 5432, "planted-database-password"
START_SECONDS_MAX = 60
# Of the mapping of a user namespace that is none.
ALL_USERS = ["0", "0", "4294967295"]


class Postgres:
    """One server with its data in a folder of its own."""

    def __init__(self) -> None:
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="postgres-"))
        self.process: subprocess.Popen | None = None
        (self.folder / "password").write_text(PASSWORD)
        if is_root():
            shutil.chown(self.folder, "postgres", "postgres")
            shutil.chown(self.folder / "password", "postgres", "postgres")
        self.finish(
            "initdb", "--no-sync", "--auth=scram-sha-256", "--username=postgres", "--encoding=UTF8", "--locale=C",
            "--pwfile", str(self.folder / "password"), "-D", str(self.folder / "data"),
        )
        with (self.folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all all scram-sha-256\n")

    def command(self, program: str, *arguments: str) -> list[str]:
        """What runs one of its programs: it refuses to be root."""
        path = shutil.which(program) or str(max(pathlib.Path("/usr/lib/postgresql").glob(f"*/bin/{program}")))
        if is_root():
            user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        elif os.geteuid() == 0:
            user = ["unshare", "--user", "--map-user=1000"]
        else:
            user = []
        return [*user, path, *arguments]

    def finish(self, program: str, *arguments: str, text: str | None = None) -> str:
        """Runs one that has to work; what it printed."""
        ran = subprocess.run(
            self.command(program, *arguments),
            cwd=self.folder, input=text, capture_output=True, text=True, timeout=120, check=False,
            env={**os.environ, "PGPASSWORD": PASSWORD},
        )
        assert ran.returncode == 0, f"{program} {arguments}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    def sql(self, text: str, database: str = "postgres") -> str:
        """What a statement answers."""
        return self.finish("psql", "-h", HERE, "-U", "postgres", "-d", database, "-qAt", "-c", text).strip()

    def dump(self, database: str) -> str:
        """Every row, as text."""
        return self.finish("pg_dump", "-h", HERE, "-U", "postgres", "--inserts", database)

    def start(self) -> None:
        """Starts it with the data that is there, and waits until it answers."""
        log = (self.folder / "log").open("ab")
        settings = [f"listen_addresses={HERE}", f"port={PORT}", "max_connections=200"]
        arguments = ["-D", str(self.folder / "data"), "-k", str(self.folder)]
        for setting in settings:
            arguments += ["-c", setting]

        def answers() -> bool:
            # It gives up where what was killed still holds its memory, and is started once more.
            if self.process is None or self.process.poll() is not None:
                command = self.command("postgres", *arguments)
                self.process = subprocess.Popen(
                    command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
            asked = self.command("pg_isready", "-q", "-h", HERE, "-U", "postgres")
            return subprocess.run(asked, cwd=self.folder, timeout=20, check=False).returncode == 0

        wait_until(answers, START_SECONDS_MAX, "PostgreSQL answers")
        log.close()

    def kill(self) -> None:
        """As a loss of power would: all of it at once."""
        if self.process is None:
            return
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in [self.process.pid, *map(int, children)]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # It has ended meanwhile.
        self.process.wait()
        self.process = None
        soon(is_silent, 20, "nobody listens at the port of PostgreSQL any more")

    def end(self) -> None:
        """Nothing of it stays."""
        self.kill()
        shutil.rmtree(self.folder)


def is_silent() -> bool:
    """Whether connections are refused."""
    with socket.socket() as asked:
        return asked.connect_ex((HERE, PORT)) != 0


def is_root() -> bool:
    """Root of the machine, and not only of a user namespace."""
    mapped = pathlib.Path("/proc/self/uid_map").read_text().split()
    return os.geteuid() == 0 and mapped == ALL_USERS
