"""Hosts on one machine, on a network of their own: 10.77.0.0/24 behind a switch.

A host is a process that sleeps, the first one of namespaces of its own: it has its address, host
name and processes, its /dev/shm and its disk, a tmpfs that all hosts see under one path and none
shares. What it writes to /tmp goes there too, and the rest of the file system can be read and not
written, so that nothing passes from host to host but through the network.

When that process ends, the kernel ends all others of the host, unmounts its disk and takes its
cable away. It ends with this process, however this one ends: after a SIGKILL a folder in
/run with a list of names is left behind, and nothing else.
"""

import contextlib
import ctypes
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import psutil

ADDRESSES = {name: f"10.77.0.{n}" for n, name in enumerate(("head", "one", "two", "three"), 1)}
ADDRESSES["services"] = "10.77.0.100"
_GATEWAY = "10.77.0.254"
_NAMESPACES = ("--net", "--mount", "--pid", "--uts")
_UNSHARE = ["setpriv", "--pdeathsig=KILL", "unshare"]
_ALONE = [*_UNSHARE, *_NAMESPACES, "--fork", "--kill-child", "--mount-proc"]
# SIGCHLD is ignored, so that the kernel buries what loses its parent.
_FIRST = "echo ready && exec env --ignore-signal=CHLD sleep infinity"
_NEWNET = 0x4000_0000
_PROBE = (
    "mount -o remount,ro,bind / && ip link add probe-a type veth peer name probe-b && "
    "ip link add probe-c type bridge && tc qdisc add dev probe-a root htb && iptables -w -L"
)
_TOOLS = ("ip", "tc", "iptables", "mount", "nsenter", "setpriv", "unshare")


def why_not():
    """Why there can be no such hosts here, or None."""
    missing = [tool for tool in _TOOLS if not shutil.which(tool)]
    if os.geteuid() or missing:
        return f"hosts are namespaces, which need root and {', '.join(missing or _TOOLS)}"
    tried = subprocess.run([*_ALONE, "sh", "-c", _PROBE], capture_output=True, text=True)
    return f"namespaces are not permitted here: {tried.stderr}" if tried.returncode else None


class Network:
    """The switch and the hosts on it."""

    def __init__(self):
        self.disk = Path(tempfile.mkdtemp(prefix="vo-", dir="/run"))  # below it are sockets: short
        (self.disk / "hosts").write_text(
            "127.0.0.1 localhost\n" + "".join(f"{a} {n}\n" for n, a in ADDRESSES.items())
        )
        self.hosts = {}
        self._switch = _started([*_UNSHARE, "--net", "sh", "-c", _FIRST])
        self._ip("link", "set", "lo", "up")
        self._ip("link", "add", "switch", "type", "bridge")
        self._ip("addr", "add", f"{_GATEWAY}/24", "dev", "switch")
        self._ip("link", "set", "switch", "up")

    def joined(self):
        """This thread, and what it starts, are on the network: the user's own machine."""
        return on_network_of(self._switch.pid)

    def add(self, name, *, disk_mib=4096, cache_mib=1024):
        """A new machine under a name of ADDRESSES, with an empty disk."""
        made = Host(self, name, disk_mib=disk_mib, cache_mib=cache_mib)
        self.hosts[name] = made
        self.plug(made)
        return made

    def plug(self, host):
        """A cable from the switch to the host, whose port's name is the host's."""
        number = int(host.address.rpartition(".")[2])
        # The address of the card is that of the host before it: nobody has to learn a new one.
        card = ["name", "eth0", "address", f"02:00:0a:4d:00:{number:02x}", "netns", str(host.pid)]
        self._ip("link", "add", host.name, "type", "veth", "peer", *card)
        self._ip("link", "set", host.name, "master", "switch", "up")
        host.ip("link", "set", "lo", "up")
        host.ip("addr", "add", f"{host.address}/24", "dev", "eth0")
        host.ip("link", "set", "eth0", "up")

    def cut(self, name):
        """From now on not a bit gets to the host, nor from it; nobody is told."""
        self._ip("link", "set", name, "down")

    def mend(self, name):
        """Undoes `cut`."""
        self._ip("link", "set", name, "up")

    def slow(self, name, *, source, mbit, loss):
        """What comes to the host from `source` comes at this rate, and a share of it is lost."""
        tc = [*_entering(self._switch.pid, "--net"), "tc"]
        match = ["match", "ip", "src", ADDRESSES[source], "flowid", "1:20"]
        limits = [
            ["qdisc", "add", "dev", name, "root", "handle", "1:", "htb", "default", "10"],
            ["class", "add", "dev", name, "parent", "1:", "classid", "1:10", *_rate(10_000)],
            ["class", "add", "dev", name, "parent", "1:", "classid", "1:20", *_rate(mbit)],
            ["filter", "add", "dev", name, "parent", "1:", "protocol", "ip", "u32", *match],
        ]
        for each in limits:
            subprocess.run([*tc, *each], check=True)
        losing = ["-m", "statistic", "--mode", "random", "--probability", str(loss), "-j", "DROP"]
        command = ["iptables", "-w", "-A", "INPUT", "-s", ADDRESSES[source], *losing]
        subprocess.run([*_entering(self.hosts[name].pid, "--net"), *command], check=True)

    def remove(self, name):
        """The host's power goes, and its disk with it."""
        self.hosts.pop(name).end()
        # The kernel takes namespaces down in its own time; the next of the name needs the port.
        subprocess.run(
            [*_entering(self._switch.pid, "--net"), "ip", "link", "delete", name],
            stderr=subprocess.DEVNULL,
        )

    def close(self):
        for name in list(self.hosts):
            self.remove(name)
        _end(self._switch)
        shutil.rmtree(self.disk)

    def _ip(self, *arguments):
        subprocess.run([*_entering(self._switch.pid, "--net"), "ip", *arguments], check=True)


class Host:
    """A machine of the network; see the module."""

    def __init__(self, network, name, *, disk_mib, cache_mib):
        self.name, self.address = name, ADDRESSES[name]
        self.disk, self.cache = network.disk, network.disk / "cache"
        steps = [
            f"mount --bind {self.disk}/hosts /etc/hosts",
            f"mount -t tmpfs -o size={disk_mib}m disk {self.disk}",
            f"cd {self.disk} && mkdir home cache .tmp .work",
            "mount -t overlay -o lowerdir=/tmp,upperdir=.tmp,workdir=.work tmp /tmp",
            f"mount -t tmpfs -o size={cache_mib}m cache {self.cache}",
            "mount -t tmpfs -o size=320m shm /dev/shm",
            "mount -o remount,ro,bind /",
            f"hostname {name}",
            _FIRST,
        ]
        self._process = _started([*_ALONE, "sh", "-c", " && ".join(steps)])
        (first,) = psutil.Process(self._process.pid).children()
        self.pid = first.pid
        self.inside = _entering(self.pid, *_NAMESPACES)
        places = {"TMPDIR": self.disk, "RAY_TMPDIR": self.disk, "HOME": self.disk / "home"}
        self.environment = {key: str(place) for key, place in places.items()}

    @property
    def root(self):
        """The host's file system, as this process may read and write it."""
        return Path(f"/proc/{self.pid}/root")

    def start(self, command, log, **environment):
        """Starts a command in the host's own folder; its output goes to a file of this machine."""
        with log.open("ab") as file:
            return subprocess.Popen(
                [*self.inside, f"--wd={self.disk}", *command],
                env=os.environ | self.environment | environment,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def run(self, *command):
        """Runs a command to its end."""
        subprocess.run([*self.inside, *command], check=True, capture_output=True)

    def ip(self, *arguments):
        subprocess.run([*_entering(self.pid, "--net"), "ip", *arguments], check=True)

    def fill(self, folder):
        """Writes until there is no room left in a folder of the host's disk; the file."""
        ballast = f"{folder}/ballast"
        subprocess.run(
            [*self.inside, "dd", "if=/dev/zero", f"of={ballast}", "bs=64K"], capture_output=True
        )
        return ballast

    def end(self):
        """The power goes."""
        _end(self._process)


@contextlib.contextmanager
def on_network_of(pid):
    """This thread, and what it starts, are on the network of that process."""
    with Path("/proc/thread-self/ns/net").open() as here:
        _enter(f"/proc/{pid}/ns/net")
        try:
            yield
        finally:
            _enter(f"/proc/self/fd/{here.fileno()}")


def _entering(pid, *namespaces):
    return ["nsenter", f"--target={pid}", *namespaces]


def _started(command):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    told = process.stdout.readline()
    assert told == "ready\n", told + process.stdout.read()
    return process


def _end(process):
    process.kill()
    process.wait()
    process.stdout.close()


def _rate(mbit):
    # As large as what a card without segments of its own hands over at once.
    return [*("htb", "rate", f"{mbit}mbit"), *("burst", "64k", "cburst", "64k", "quantum", "65536")]


def _enter(path):
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(path).open() as namespace:
        if libc.setns(namespace.fileno(), _NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
