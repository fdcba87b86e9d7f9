"""A real Slurm of two nodes on this machine, for one test run: munged, slurmctld and two slurmd in a folder of their own."""
import os
import pathlib
import shutil
import socket
import subprocess

import harness
from jobs import until

NODES = ("n1", "n2")
PAUSE = 0.05  # between questions to Slurm, each a process
CONFIGURATION = """
ClusterName=faults
SlurmctldHost={host}
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
# Both nodes are this machine: PMIx would make the same folder twice in /tmp.
TmpFS={folder}/tmp.%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,requeue_delay=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=30
InactiveLimit=0
MinJobAge=3600
MpiDefault=none
NodeName=n[1-2] NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]}-{ports[2]} CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=low Nodes=n[1-2] Default=YES PriorityTier=1 MaxTime=INFINITE State=UP
PartitionName=high Nodes=n[1-2] PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE State=UP
"""


def free_ports(first):
    """A free port and two that follow each other, as NodeName's range needs them."""
    for port in range(first, 60000, 7):
        sockets = []
        try:
            for number in range(port, port + 3):
                sockets.append(socket.socket())
                sockets[-1].bind(("127.0.0.1", number))
            return (port, port + 1, port + 2)
        except OSError:
            continue
        finally:
            for each in sockets:
                each.close()
    raise AssertionError("no free ports")


class Cluster:
    def __init__(self, folder):
        self.folder = folder
        self.daemons = []
        self.environment = harness.environment(SLURM_CONF=str(folder / "slurm.conf"))

    def start(self):
        for name in ("state", "spool.n1", "spool.n2", "tmp.n1", "tmp.n2"):
            (self.folder / name).mkdir()
        # munged insists on folders that nobody else may write to.
        (self.folder / "munge.key").write_bytes(os.urandom(128))
        (self.folder / "munge.key").chmod(0o400)
        host = socket.gethostname().split(".")[0]
        (self.folder / "slurm.conf").write_text(CONFIGURATION.format(folder=self.folder, host=f"{host}(127.0.0.1)",
                                                                      ports=free_ports(17000 + os.getpid() % 1000 * 7)))
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        self.daemon("munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket", f"--key-file={self.folder}/munge.key",
                    f"--pid-file={self.folder}/munge.pid", f"--seed-file={self.folder}/munge.seed", f"--log-file={self.folder}/munge.log")
        until((self.folder / "munge.socket").exists, 20, "munged")
        self.daemon("slurmctld", "-D")
        for node in NODES:
            self.daemon("slurmd", "-D", "-N", node)
        until(lambda: self.states() == {"n1": "idle", "n2": "idle"}, 60, self.logs, PAUSE)

    def daemon(self, program, *arguments):
        path = shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin")
        with open(self.folder / f"{program}{len(self.daemons)}.out", "wb") as output:
            self.daemons.append(subprocess.Popen([path, *arguments], env=self.environment, stdin=subprocess.DEVNULL,
                                                 stdout=output, stderr=subprocess.STDOUT, cwd=self.folder))

    def stop(self):
        try:
            self.ask("scancel", "--signal=KILL", "--full", "--user=root", check=False)
            self.ask("scancel", "--user=root", check=False)
            until(lambda: not self.ask("squeue", "--noheader", check=False).strip(), 60, self.logs, PAUSE)
        finally:
            for daemon in reversed(self.daemons):
                daemon.terminate()
            for daemon in self.daemons:
                try:
                    daemon.wait(20)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()

    def ask(self, *line, check=True):
        done = subprocess.run(line, env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False, timeout=60)
        assert not check or done.returncode == 0, f"{line}: {done.stdout}{done.stderr}\n{self.logs()}"
        return done.stdout

    def states(self):
        rows = self.ask("sinfo", "--noheader", "--Node", "--partition=low", "--format=%N %T", check=False).split("\n")
        return dict(row.split() for row in rows if row.strip())

    def submit(self, *options):
        return int(self.ask("sbatch", "--parsable", *options).split(";")[0])

    def job(self, number):
        """The fields of scontrol show job."""
        words = self.ask("scontrol", "--oneliner", "show", "job", str(number)).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def logs(self):
        names = sorted([*self.folder.glob("*.log"), *self.folder.glob("*.out")])
        return "\n".join(f"== {name.name}\n{pathlib.Path(name).read_text(errors='replace')[-3000:]}" for name in names)
