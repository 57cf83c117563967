"""A real Slurm cluster of two nodes and a real sshd, on loopback, in a folder of its own.

    python -m tests.system.testbed [FOLDER]

starts one for a person to try things on, prints an env file for it, and stops it on Ctrl-C. Needs
Debian's slurmctld, slurmd, slurm-client, munge and openssh-server; nothing outside FOLDER changes.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.ports import number_among_workers

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "sshd", "ssh-keygen")
SBIN = "/usr/sbin:/usr/bin:/sbin:/bin"
ACCOUNTING = ("slurmdbd", "mariadbd", "mariadb-install-db", "mariadb", "sacctmgr", "sacct")
NODES = ("n1", "n2")
_START_LIMIT_S = 180.0
_WORKER = number_among_workers() % 10
_PORTS = iter(random.sample(range(10_000 + _WORKER, 20_000, 10), 1000))
"""Below those that the kernel hands out and those where runs meet: nobody takes one in between.

Each is given once, and to one of the processes that run tests side by side.
"""


def missing_programs(*, accounting: bool = False) -> list[str]:
    """The programs that this machine lacks for a testbed."""
    wanted = (*PROGRAMS, *ACCOUNTING) if accounting else PROGRAMS
    return [name for name in wanted if shutil.which(name, path=SBIN) is None]


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nothing listens on now, and that no other testbed is given."""
    found: list[int] = []
    for port in _PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            break
    return found


class Testbed:
    """The cluster and its login. Each daemon can be stopped, killed and started on its own.

    Attributes:
        folder: everything lies in it; the job user's remote folder is `folder / "jobs"`.
        ssh_port, identity, known_hosts: how the login is reached.
        gate_port: of another sshd with a host key of its own, once `start_gate` has started it.
        conf: the `slurm.conf`.
    """

    __test__ = False

    def __init__(
        self,
        folder: Path,
        *,
        min_job_age: int = 300,
        max_minutes: int = 600,
        accounting: bool = False,
    ) -> None:
        self.folder = folder
        self.jobs = folder / "jobs"
        self.conf = folder / "slurm.conf"
        self.identity = folder / "id_ed25519"
        self.known_hosts = folder / "known_hosts"
        self.user = getpass.getuser()
        ports = free_ports(7)
        self.ssh_port, self.gate_port, self._controller_port = ports[:3]
        self._dbd_port, self._sql_port, *self._node_ports = ports[3:]
        self._accounting = accounting
        self._min_job_age, self._max_minutes = min_job_age, max_minutes
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("SLURM_")},
            "SLURM_CONF": str(self.conf),
            "PATH": f"{os.environ.get('PATH', '')}:{SBIN}",
        }

    def start(self) -> None:
        """Write the configuration, start everything, and wait until both nodes are idle."""
        self._write_files()
        self.start_munge()
        if self._accounting:
            self._start_accounting()
        self.start_controller()
        if self._accounting:
            self._wait("the cluster to be known to slurmdbd", self._has_user)
        for node in NODES:
            self.start_node(node)
        self.start_sshd()
        self.wait_until_idle()

    def stop(self) -> None:
        """Stop all daemons, jobs first."""
        with contextlib.suppress(subprocess.SubprocessError, OSError):
            self.run("scancel", "--user", self.user)
        for name in reversed(list(self._daemons)):
            self.stop_daemon(name)

    def run(self, *command: str, timeout: float = 120) -> str:
        """Run a Slurm command as the cluster's user and return what it prints."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout,
            check=True,
        )  # fmt: skip
        return done.stdout.strip()

    def stop_daemon(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop `munged`, `slurmctld`, `n1`, `n2` or `sshd` with a signal."""
        daemon = self._daemons.pop(name, None)
        if daemon is None:
            return
        daemon.send_signal(how)
        try:
            daemon.wait(_START_LIMIT_S)  # a controller that is killed forgets what it has not saved
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def start_munge(self) -> None:
        """Start munged on a socket and a key of its own."""
        part = self.folder / "munge"
        self._spawn(
            "munged", "--foreground", "--force", f"--key-file={part / 'key'}",
            f"--socket={part / 'socket'}", f"--pid-file={part / 'pid'}",
            f"--log-file={part / 'log'}", f"--seed-file={part / 'seed'}",
        )  # fmt: skip
        self._wait("munged", (part / "socket").exists)

    def _start_accounting(self) -> None:
        """MariaDB in a folder of its own, and slurmdbd over it, with one account and one user."""
        data, socket_file = self.folder / "sql", self.folder / "sql.socket"
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", f"--datadir={data}", f"--user={self.user}",
             "--auth-root-authentication-method=normal", "--skip-test-db"],
            env=self.environment, capture_output=True, check=True,
        )  # fmt: skip
        self._spawn(
            "mariadbd", "--no-defaults", f"--datadir={data}", f"--socket={socket_file}",
            f"--pid-file={self.folder / 'sql.pid'}", "--bind-address=127.0.0.1",
            f"--port={self._sql_port}", f"--user={self.user}", "--innodb-buffer-pool-size=64M",
        )  # fmt: skip
        self._wait("mariadbd", lambda: self._listens(self._sql_port))
        self.run(
            "mariadb", "--no-defaults", f"--socket={socket_file}", "-u", "root", "-e",
            "CREATE USER slurm@'127.0.0.1' IDENTIFIED BY 'testbed'; "
            "GRANT ALL ON slurm_acct_db.* TO slurm@'127.0.0.1'",
        )  # fmt: skip
        conf = self.folder / "slurmdbd.conf"
        conf.touch(mode=0o600)
        conf.write_text(self._slurmdbd_conf())
        self._spawn("slurmdbd", "-D")
        self._wait("slurmdbd", lambda: self._listens(self._dbd_port))

    def _has_user(self) -> bool:
        """Whether accounts can be charged. Made here, once the controller has said hello."""
        with contextlib.suppress(subprocess.SubprocessError):
            if "testbed" not in self.run("sacctmgr", "-nP", "show", "cluster", "format=cluster"):
                self.run("sacctmgr", "-i", "add", "cluster", "testbed")
            for words in (("account", "nlp"), ("user", self.user, "account=nlp")):
                subprocess.run(
                    ["sacctmgr", "-i", "add", *words],
                    env=self.environment, capture_output=True, check=False,
                )  # fmt: skip
            listed = self.run("sacctmgr", "-nP", "show", "associations", "format=account,user")
            return f"nlp|{self.user}" in listed
        return False

    def start_controller(self) -> None:
        """Start slurmctld; jobs of an earlier start are recovered."""
        self._spawn("slurmctld", "-D", "-f", str(self.conf))
        self._wait("slurmctld", lambda: self._listens(self._controller_port))

    def start_node(self, node: str) -> None:
        """Start the slurmd of a node."""
        self._spawn("slurmd", "-D", "-N", node, "-f", str(self.conf), name=node)

    def kill_node(self, node: str) -> None:
        """Take a node away without a word, with all that runs on it."""
        there = self._processes_of(node)
        self.stop_daemon(node, signal.SIGKILL)
        for pid in there:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def wait_until_idle(self) -> None:
        """Wait until no node is in use or away."""
        self._wait("both nodes to be idle", lambda: self._idle_nodes() == len(NODES))

    def start_sshd(self) -> None:
        """Start sshd. Sessions find Slurm by the environment that it sets for them."""
        Path("/run/sshd").mkdir(exist_ok=True)
        self._spawn("sshd", "-D", "-e", "-f", str(self.folder / "sshd_config"))
        self._wait("sshd", lambda: self._listens(self.ssh_port))

    def start_gate(self) -> None:
        """Start a second sshd, through which the login can be reached (`ProxyJump`)."""
        self._keygen(self.folder / "gate_key")
        conf = self.folder / "gate_config"
        changed = self._sshd_config().replace(f"Port {self.ssh_port}", f"Port {self.gate_port}")
        changed = changed.replace("/host_key", "/gate_key").replace("sshd.pid", "gate.pid")
        conf.write_text(changed)
        Path("/run/sshd").mkdir(exist_ok=True)
        self._spawn("sshd", "-D", "-e", "-f", str(conf), name="gate")
        self._wait("the gate", lambda: self._listens(self.gate_port))

    def restart_sshd(self) -> None:
        """Stop sshd with every session that it serves, and start it again."""
        self.stop_daemon("sshd")
        sessions = subprocess.run(
            ["pgrep", "-f", "sshd: .*notty"], capture_output=True, text=True, check=False
        ).stdout.split()
        for pid in map(int, sessions):
            if self._is_mine(pid):
                os.kill(pid, signal.SIGKILL)
        self.start_sshd()

    def profile(self, name: str = "slurm_testbed", **extra: str) -> str:
        """A profile that submits to this testbed, as TOML. `extra` values are TOML as written."""
        values = {
            "executor": '"slurm"',
            "host": '"127.0.0.1"',
            "port": str(self.ssh_port),
            "user": f'"{self.user}"',
            "identity": f'"{self.identity}"',
            "known_hosts": f'"{self.known_hosts}"',
            "account": '"testbed"',
            "partition": '"batch"',
            "remote_job_dir": f'"{self.jobs}"',
            "container_runtime": '"none"',
            "nodes": "2",
            "gpus_per_node": "0",
            "nproc_per_node": "1",
            "time": '"00:10:00"',
            **extra,
        }
        return f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())

    def _spawn(self, program: str, *args: str, name: str | None = None) -> None:
        path = shutil.which(program, path=SBIN)
        assert path is not None, f"{program} is not installed"
        with (self.folder / f"{name or program}.out").open("ab") as out:
            self._daemons[name or program] = subprocess.Popen(
                [path, *args], env=self.environment, stdin=subprocess.DEVNULL, stdout=out,
                stderr=out, start_new_session=True,
            )  # fmt: skip

    def _write_files(self) -> None:
        for part in ("munge", "state", "spool", "jobs"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        (self.folder / "munge").chmod(0o755)
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        for name in ("id_ed25519", "host_key"):
            self._keygen(self.folder / name)
        public = (self.folder / "host_key.pub").read_text()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.ssh_port} {public}")
        shutil.copy(self.folder / "id_ed25519.pub", self.folder / "authorized_keys")
        (self.folder / "sshd_config").write_text(self._sshd_config())
        self.conf.write_text(self._slurm_conf())

    def _keygen(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)

    def _sshd_config(self) -> str:
        return "\n".join(
            (
                "ListenAddress 127.0.0.1",
                f"Port {self.ssh_port}",
                f"HostKey {self.folder / 'host_key'}",
                f"AuthorizedKeysFile {self.folder / 'authorized_keys'}",
                f"PidFile {self.folder / 'sshd.pid'}",
                "PermitRootLogin yes",
                "PasswordAuthentication no",
                "KbdInteractiveAuthentication no",
                "StrictModes no",
                "UsePAM no",
                "PrintMotd no",
                "MaxStartups 50",
                f'SetEnv SLURM_CONF={self.conf} PATH="{self.environment["PATH"]}"',
                "Subsystem sftp internal-sftp",
                "",
            )
        )

    def _slurm_conf(self) -> str:
        host = socket.gethostname().partition(".")[0]
        first, second = self._node_ports
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=8 "
            "RealMemory=4000 State=UNKNOWN"
            for name, port in zip(NODES, (first, second), strict=True)
        )
        return f"""\
ClusterName=testbed
FirstJobId={1 + 1000 * _WORKER}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={self._controller_port}
SlurmUser={self.user}
SlurmdUser={self.user}
AuthType=auth/munge
AuthInfo=socket={self.folder}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/spool/%n
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/slurmd.%n.pid
SlurmctldLogFile={self.folder}/slurmctld.log
SlurmdLogFile={self.folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
{self._accounting_conf()}
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
ReturnToService=2
MinJobAge={self._min_job_age}
KillWait=5
OverTimeLimit=0
SlurmdTimeout=15
SlurmctldTimeout=10
InactiveLimit=0
{nodes}
PartitionName=batch Nodes=ALL Default=YES MaxTime={self._max_minutes} OverSubscribe=FORCE:8
PartitionName=short Nodes=ALL MaxTime=1 OverSubscribe=FORCE:8
"""

    def _accounting_conf(self) -> str:
        if not self._accounting:
            return "AccountingStorageType=accounting_storage/none"
        return f"""\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={self._dbd_port}
AccountingStoragePass={self.folder}/munge/socket
AccountingStorageEnforce=associations"""

    def _slurmdbd_conf(self) -> str:
        return f"""\
AuthType=auth/munge
AuthInfo=socket={self.folder}/munge/socket
DbdHost={socket.gethostname().partition(".")[0]}
DbdAddr=127.0.0.1
DbdPort={self._dbd_port}
SlurmUser={self.user}
LogFile={self.folder}/slurmdbd.log
PidFile={self.folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={self._sql_port}
StorageUser=slurm
StoragePass=testbed
StorageLoc=slurm_acct_db
"""

    def _is_mine(self, pid: int) -> bool:
        """Whether a session of sshd came through this testbed's port."""
        listed = subprocess.run(
            ["ss", "-tnpH", "sport", "=", f":{self.ssh_port}"],
            capture_output=True, text=True, check=False,
        ).stdout  # fmt: skip
        return f"pid={pid}," in listed

    def _processes_of(self, node: str) -> list[int]:
        """The tasks on a node and the slurmstepds that look after them, which hold its log open."""
        log = self.folder / f"slurmd.{node}.log"
        marks = {f"SLURMD_NODENAME={node}".encode(), f"SLURM_CONF={self.conf}".encode()}
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                is_task = marks <= set((folder / "environ").read_bytes().split(b"\0"))
                if is_task or any(log.samefile(file) for file in (folder / "fd").iterdir()):
                    found.append(int(folder.name))
        return found

    def _idle_nodes(self) -> int:
        with contextlib.suppress(subprocess.SubprocessError):
            return self.run("sinfo", "-h", "-N", "-p", "batch", "-o", "%t").split().count("idle")
        return 0

    def _listens(self, port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def _wait(self, what: str, ready: object) -> None:
        assert callable(ready)
        deadline = time.monotonic() + _START_LIMIT_S
        while not ready():
            if time.monotonic() > deadline:
                logs = "\n".join(self._tails())
                raise TimeoutError(f"waited {_START_LIMIT_S:.0f} s for {what}\n{logs}")
            time.sleep(0.1)

    def _tails(self) -> Iterator[str]:
        for path in sorted([*self.folder.glob("*.out"), *self.folder.glob("*.log")]):
            yield f"== {path.name}\n" + "\n".join(
                path.read_text(errors="replace").splitlines()[-5:]
            )


def main() -> None:
    """Run a testbed until Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.system.testbed",
        description="A Slurm cluster of two nodes behind an sshd, on this machine, until Ctrl-C.",
    )
    parser.add_argument("folder", nargs="?", help="where everything of it lies; a new one if none")
    folder = parser.parse_args().folder
    if missing := missing_programs():
        sys.exit(
            f"Missing: {', '.join(missing)}. Install them first:\n"
            "  apt-get install slurmctld slurmd slurm-client munge openssh-server"
        )
    testbed = Testbed(Path(folder or tempfile.mkdtemp(prefix="testbed-")).absolute())
    testbed.start()
    env_file = testbed.folder / "env.testbed.toml"
    # The trainer's packages are where the testbed itself runs, if that is no system's Python.
    venv = {"venv": f'"{sys.prefix}"'} if sys.prefix != sys.base_prefix else {}
    env_file.write_text(testbed.profile(**venv))
    print(f"A Slurm cluster of two nodes runs in {testbed.folder}. Try:\n")
    print(
        "  tunedeck steps run peft/automodel -c tiny -r slurm_testbed "
        f"--env-file {env_file}\n\nor, in the wizard:\n\n"
        f"  TUNEDECK_ENV_FILE={env_file} tunedeck\n\nCtrl-C stops it."
    )
    for name in (signal.SIGINT, signal.SIGTERM):  # also where a shell has us ignore the first
        signal.signal(name, signal.default_int_handler)
    try:
        signal.pause()
    except KeyboardInterrupt:
        print("Stopping …")
    finally:
        testbed.stop()


if __name__ == "__main__":
    main()
