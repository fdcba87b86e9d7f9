"""Two hosts on one machine: network namespaces with a link between them, and mpirun across it. Needs root and iproute2.

The link is a pair of TUN devices with this process in the middle, which passes packets on, late, twice out of order or not at
all, as told. (`tc netem` does the same where the kernel has it; many do not.)
"""
import fcntl
import heapq
import os
import random
import select
import signal
import struct
import subprocess
import threading
import time
import uuid

TUNSETIFF = 0x400454CA
IFF_TUN_NO_PI = 0x1001


def sh(*words):
    subprocess.run(list(map(str, words)), check=True, capture_output=True)


class TwoHosts:
    """`with TwoHosts(folder) as hosts: Job(hosts.line(...))`. Hosts "node-a" (where mpirun runs) and "node-b"."""

    def __init__(self, folder, seed=0):
        self.mark = uuid.uuid4().hex[:8]
        self.names = [f"dtrain-{self.mark}-{side}" for side in "ab"]
        number = int(self.mark, 16)
        self.net = f"10.{64 + number % 64}.{number // 64 % 256}"
        self.folder, self.random = folder, random.Random(seed)
        self.delay, self.loss, self.reorder = 0.0, 0.0, 0.0  # seconds, shares
        self.connected = True
        self.devices, self.thread, self.ended = [], None, threading.Event()

    def __enter__(self):
        try:
            for index, name in enumerate(self.names):
                sh("ip", "netns", "add", name)
                sh("ip", "-n", name, "link", "set", "lo", "up")
                self.devices.append(self.tun(index, name))
            self.thread = threading.Thread(target=self.relay, daemon=True)
            self.thread.start()
            agent = self.folder / "agent.sh"
            agent.write_text("#!/bin/sh\n# mpirun starts the daemon of the other host with this: AGENT HOST COMMAND...\nshift\n"
                             f"exec ip netns exec {self.names[1]} unshare -u sh -c 'hostname node-b; exec \"$@\"' sh sh -c \"$*\"\n",
                             encoding="utf-8")
            agent.chmod(0o755)
        except BaseException:
            self.__exit__()
            raise
        return self

    def tun(self, index, name):
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        interface = f"dt{self.mark}{'ab'[index]}"
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", interface.encode(), IFF_TUN_NO_PI))
        sh("ip", "link", "set", interface, "netns", name)
        sh("ip", "-n", name, "addr", "add", f"{self.net}.{index + 1}/24", "dev", interface)
        sh("ip", "-n", name, "link", "set", interface, "up", "mtu", "9000", "txqueuelen", "5000")
        return device

    def relay(self):
        waiting, count = [], 0
        while not self.ended.is_set():
            now = time.monotonic()
            timeout = min(0.05, max(0, waiting[0][0] - now)) if waiting else 0.05
            for device in select.select(self.devices, [], [], timeout)[0]:
                try:
                    packet = os.read(device, 65536)
                except BlockingIOError:
                    continue
                if not self.connected or self.random.random() < self.loss:
                    continue
                late = self.delay + (self.delay or 0.01) * (self.random.random() < self.reorder)
                count += 1
                heapq.heappush(waiting, (time.monotonic() + late, count, self.devices[device == self.devices[0]], packet))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, device, packet = heapq.heappop(waiting)
                try:
                    os.write(device, packet)
                except OSError:
                    pass  # a full queue: lost, as on a wire

    def options(self, per_host=1):
        """What mpirun needs to start `per_host` ranks on each host."""
        hosts = ",".join(f"{self.net}.{index}:{per_host}" for index in (1, 2))
        return ["--oversubscribe", "--host", hosts, "--mca", "plm_rsh_agent", str(self.folder / "agent.sh"), "--mca", "pml", "ob1",
                "--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", f"{self.net}.0/24",
                "--mca", "oob_tcp_if_include", f"{self.net}.0/24", "--mca", "routed", "direct"]

    def line(self, program, per_host=1):
        """The command that runs `program` with `per_host` ranks on each host. A shell beside each rank keeps its exit code."""
        keep = f'"$@"; code=$?; echo $code > {self.folder}/code.$OMPI_COMM_WORLD_RANK; exit $code'
        return self.on_first(["mpirun", "-np", str(2 * per_host), *self.options(per_host), "sh", "-c", keep, "sh", *program])

    def on_first(self, line):
        """The command that runs `line` on node-a."""
        return ["ip", "netns", "exec", self.names[0], "unshare", "-u", "sh", "-c", 'hostname node-a; exec "$@"', "sh", *line]

    def codes(self):
        """{rank: exit code} of the ranks that have ended by themselves."""
        texts = {int(path.suffix[1:]): path.read_text(encoding="utf-8") for path in self.folder.glob("code.*")}
        return {rank: int(text) for rank, text in texts.items() if text.endswith("\n")}

    def kill_all(self):
        """Everything that still runs on the two hosts."""
        for name in self.names:
            found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False)
            for pid in found.stdout.split():
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    pass

    def __exit__(self, *_):
        self.ended.set()
        if self.thread:
            self.thread.join()
        self.kill_all()
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        for device in self.devices:
            os.close(device)
