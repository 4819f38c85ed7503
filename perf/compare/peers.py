"""The servers that are compared: how each is configured, started, found again and stopped."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PEERS = pathlib.Path(os.environ.get("RINGPOST_PEERS", ROOT / "target" / "peers"))
RUN = PEERS / "run"
PORT, RELAY_PORT = 2725, 2726
POSTFIX_LIBS = "usr/lib/postfix"
# Writes by which the disk's interrupt is found.
TELLING_WRITES = 200


def interrupts():
    """Interrupts of devices so far, for each line and of its processors 0 and 1."""
    found = {}
    with open("/proc/interrupts") as lines:
        columns = len(next(lines).split())
        for line in lines:
            name, *words = line.split()
            if name[:-1].isdigit() and columns >= 2:
                found[name] = [int(word) for word in words[:2]]
    return found


def cores():
    """Processor for the server, and for the load: the disk works for the server, so that the server's is the one of 0 and 1 that
    hears of it when a write has ended, and the load's is free of that."""
    RUN.mkdir(parents=True, exist_ok=True)
    before = interrupts()
    with tempfile.TemporaryFile(dir=RUN) as file:
        for _ in range(TELLING_WRITES):
            os.pwrite(file.fileno(), bytes(4096), 0)
            os.fdatasync(file.fileno())
    grown = [[b - a for a, b in zip(before.get(name, [0, 0]), now)] for name, now in interrupts().items()]
    most = max(grown, key=sum, default=[0, 0])
    return ("1", "0") if most[1] > most[0] else ("0", "1")


MTA_CORE, LOAD_CORE = cores()


def pinned(core, command):
    """The command on one core, and no longer than we live."""
    return ["setpriv", "--pdeathsig", "KILL", "taskset", "-c", core, *map(str, command)]


def yielding(command):
    """The load gives way to all else on its core. That is the kernel's workers for the disk, which a server cannot place;
    where the load is on another machine, as it is in life, they never wait for its time slice."""
    return ["chrt", "--idle", "0", *map(str, command)]


def wait_until(condition, what, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"{what}: not within {seconds} s")
        time.sleep(0.02)


def answers(port):
    """Whether a server on `port` greets."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as s:
            greeting = s.recv(512)
            s.sendall(b"QUIT\r\n")
            s.recv(512)
            return greeting.startswith(b"220")
    except OSError:
        return False


def postfix_env():
    return {**os.environ, "LD_LIBRARY_PATH": str(PEERS / "postfix" / POSTFIX_LIBS)}


def fetch_packages():
    """Downloads and unpacks the Debian packages, once."""
    subprocess.run([HERE / "unpack.sh", PEERS], check=True, timeout=300)


def version_of(package):
    found = list((PEERS / "debs").glob(f"{package}_*.deb"))
    return found[0].name.split("_")[1] if found else "?"


class Peer:
    """A server under measurement. `start` begins with an empty queue, and says how many seconds it took to answer."""

    name = label = ""
    relays = True

    def __init__(self):
        self.process = None

    def version(self):
        raise NotImplementedError

    def configuration(self, relay):
        """Text for the report: what it was told, for the inbound or the relay run."""
        raise NotImplementedError

    def command(self, relay):
        raise NotImplementedError

    def prepare(self):
        """After it answers, before it is measured."""

    def start(self, relay):
        self.stop()
        if answers(PORT):
            raise RuntimeError(f"port {PORT} is taken")
        shutil.rmtree(RUN / self.name, ignore_errors=True)
        (RUN / self.name).mkdir(parents=True)
        # What an earlier run left to be written must not be paid for by this one, nor its files' room, which a file system
        # that gives it back at once keeps the disk busy with.
        os.sync()
        began = time.monotonic()
        log = open(RUN / f"{self.name}.log", "w")
        self.process = subprocess.Popen(
            pinned(MTA_CORE, self.command(relay)), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env()
        )
        wait_until(lambda: answers(PORT) or self.process.poll() is not None, f"{self.name} does not answer")
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.name} ended at once; see {RUN / self.name}.log")
        took = time.monotonic() - began
        self.prepare()
        return took

    def env(self):
        return dict(os.environ)

    def pids(self):
        """The server's processes."""
        children = {}
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            todo += children.get(pid, [])
        return found

    def stop(self):
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None
        wait_until(lambda: not answers(PORT), f"{self.name} does not end")


class Enclosed(Peer):
    """A peer that was unpacked, not installed: it runs in namespaces, and all of it ends with the first process."""

    def enclosed(self, command):
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc"]
        return [*namespaces, "bash", HERE / "enter.sh", PEERS, *command]

    def inner_pid(self):
        return next(pid for pid in self.pids() if pid != self.process.pid)

    def accounts(self):
        passwd = pathlib.Path("/etc/passwd").read_text()
        group = pathlib.Path("/etc/group").read_text()
        for number, user in enumerate(("postfix", "postdrop", "opensmtpd", "opensmtpq"), 64101):
            if f"\n{user}:" not in passwd:
                passwd += f"{user}:x:{number}:{number}::/nonexistent:/usr/sbin/nologin\n"
            if f"\n{user}:" not in group:
                group += f"{user}:x:{number}:\n"
        (RUN / "passwd").write_text(passwd)
        (RUN / "group").write_text(group)
        (RUN / "resolv.conf").write_text("lookup file\n")
        ids = {line.split(":")[0]: int(line.split(":")[2]) for line in passwd.splitlines() if line.count(":") > 3}
        groups = {line.split(":")[0]: int(line.split(":")[2]) for line in group.splitlines() if line.count(":") > 2}
        return ids, groups

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            # Queues are thrown away: no reason to wait for a polite end. The namespace ends with its first process.
            for pid in self.pids()[1:2]:
                os.kill(pid, signal.SIGKILL)
        super().stop()


class Postfix(Enclosed):
    name, label = "postfix", "Postfix"

    def version(self):
        return version_of("postfix")

    def configuration(self, relay):
        return self.main_cf(relay)

    def main_cf(self, relay):
        lines = [
            "compatibility_level = 3.6",
            "queue_directory = /mnt/run/postfix/spool",
            "data_directory = /mnt/run/postfix/data",
            "command_directory = /mnt/postfix/usr/sbin",
            "daemon_directory = /mnt/postfix/usr/lib/postfix/sbin",
            "shlib_directory = /mnt/postfix/usr/lib/postfix",
            "meta_directory = /mnt/run/postfix/etc",
            "import_environment = MAIL_CONFIG LANG=C LD_LIBRARY_PATH=/mnt/postfix/usr/lib/postfix",
            "myhostname = postfix.invalid",
            "mydestination =",
            "mynetworks = 127.0.0.0/8",
            "inet_interfaces = 127.0.0.1",
            "inet_protocols = ipv4",
            "alias_maps =",
            "local_recipient_maps =",
        ]
        if relay:
            lines += [f"relayhost = [127.0.0.1]:{RELAY_PORT}", "disable_dns_lookups = yes"]
        else:
            # Accepted, durable, and no delivery to pay for.
            lines += ["smtpd_data_restrictions = check_client_access static:HOLD"]
        return "\n".join(lines) + "\n"

    def master_cf(self):
        services = [f"127.0.0.1:{PORT} inet n - n - - smtpd"]
        services += ["pickup unix n - n 60 1 pickup", "cleanup unix n - n - 0 cleanup", "qmgr unix n - n 300 1 qmgr"]
        services += ["rewrite unix - - n - - trivial-rewrite", "proxymap unix - - n - - proxymap"]
        services += [f"{name} unix - - n - 0 bounce" for name in ("bounce", "defer", "trace")]
        services += ["verify unix - - n - 1 verify", "flush unix n - n 1000? 0 flush", "showq unix n - n - - showq"]
        services += [f"{name} unix - - n - - {name}" for name in ("smtp", "error", "discard", "local", "virtual", "lmtp")]
        services += ["relay unix - - n - - smtp", "retry unix - - n - - error", "tlsmgr unix - - n 1000? 1 tlsmgr"]
        services += ["anvil unix - - n - 1 anvil", "scache unix - - n - 1 scache"]
        return "\n".join(services) + "\n"

    def command(self, relay):
        ids, groups = self.accounts()
        directory = RUN / "postfix"
        etc, spool, data = directory / "etc", directory / "spool", directory / "data"
        etc.mkdir()
        (etc / "main.cf").write_text(self.main_cf(relay))
        (etc / "master.cf").write_text(self.master_cf())
        spool.mkdir()
        for queue in ("active bounce corrupt defer deferred flush hold incoming private saved trace".split()):
            (spool / queue).mkdir(mode=0o700)
            os.chown(spool / queue, ids["postfix"], -1)
        (spool / "pid").mkdir()
        for queue, mode in (("maildrop", 0o730), ("public", 0o710)):
            (spool / queue).mkdir()
            os.chown(spool / queue, ids["postfix"], groups["postdrop"])
            os.chmod(spool / queue, mode)
        data.mkdir(mode=0o700)
        os.chown(data, ids["postfix"], -1)
        return self.enclosed(["/mnt/postfix/usr/lib/postfix/sbin/master", "-d", "-c", "/mnt/run/postfix/etc"])

    def env(self):
        # Inside the namespaces the same libraries are found at another place; both are named.
        libs = f"{PEERS}/postfix/{POSTFIX_LIBS}:/mnt/postfix/{POSTFIX_LIBS}"
        return {**os.environ, "LD_LIBRARY_PATH": libs}


class OpenSmtpd(Enclosed):
    name, label = "opensmtpd", "OpenSMTPD"

    def version(self):
        return version_of("opensmtpd")

    def configuration(self, relay):
        lines = [
            f"listen on 127.0.0.1 port {PORT}",
            "smtp limit max-mails 1000000000",
            f'action "out" relay host "smtp://127.0.0.1:{RELAY_PORT}"',
            'match from any for any action "out"',
        ]
        if relay:
            # Its waits between connections would be measured, not its work; for one smart host they make no sense.
            waits = ["conn-delay-host", "conn-delay-source", "conn-delay-connector", "conn-delay-relay"]
            waits += ["conn-delay-domain", "reconn-delay-route"]
            lines[1:1] = [f"mta limit {wait} 0" for wait in waits] + ["mta limit session-mail-max 1000000"]
        else:
            lines.append("# and `smtpctl pause mta` once it runs: accepted, durable, and no delivery to pay for")
        return "\n".join(lines) + "\n"

    def command(self, relay):
        self.relay = relay
        ids, groups = self.accounts()
        directory = RUN / "opensmtpd"
        (directory / "smtpd.conf").write_text(self.configuration(relay))
        # smtpctl refuses to run otherwise.
        control = PEERS / "opensmtpd/usr/sbin/smtpctl"
        os.chown(control, 0, groups["opensmtpq"])
        control.chmod(0o2555)
        (directory / "spool").mkdir(mode=0o711)
        (directory / "spool").chmod(0o711)
        return self.enclosed(["/mnt/opensmtpd/usr/sbin/smtpd", "-F", "-f", "/mnt/run/opensmtpd/smtpd.conf"])

    def prepare(self):
        if not self.relay:
            inside = ["nsenter", "--mount", "--pid", "-t", self.inner_pid()]
            command = [*map(str, inside), "/mnt/opensmtpd/usr/sbin/smtpctl", "pause", "mta"]
            subprocess.run(command, check=True, timeout=10, stdout=subprocess.DEVNULL)


class SmtpSink(Peer):
    name, label, relays = "smtp-sink", "smtp-sink (keeps nothing)", False

    def version(self):
        return version_of("postfix")

    def configuration(self, relay):
        return f"smtp-sink 127.0.0.1:{PORT} 1000\n"

    def command(self, relay):
        return [PEERS / "postfix/usr/sbin/smtp-sink", "-u", "root", f"127.0.0.1:{PORT}", "1000"]

    def env(self):
        return postfix_env()


class Ringpost(Peer):
    name, label = "ringpost", "Ringpost"

    def __init__(self, binary):
        super().__init__()
        self.binary = pathlib.Path(binary).resolve()

    def version(self):
        out = subprocess.run([self.binary, "--version"], capture_output=True, text=True, timeout=10).stdout
        return out.split()[-1] if out.split() else "?"

    def configuration(self, relay):
        action = f'relay host "smtp://127.0.0.1:{RELAY_PORT}"' if relay else "discard"
        return self.lines(f'action "out" {action}', 'match from any for any action "out"')

    @staticmethod
    def lines(*rules):
        """A configuration: what every measurement has, and these rules."""
        base = [
            "shards 1",
            "smtp limit max-mails 1000000 max-sessions-per-source 10000",
            f"listen on 127.0.0.1 port {PORT}",
            f"http listen on 127.0.0.1 port {PORT + 5}",
        ]
        return "\n".join([*base, *rules]) + "\n"

    def command(self, relay):
        path = RUN / self.name / "ringpost.conf"
        path.write_text(self.configuration(relay))
        # Quiet, since the rivals have no log daemon to write to either.
        return [self.binary, "serve", "--config", path, "--state", RUN / self.name / "state", "--quiet"]

    def metric(self, name):
        """Sum over all shards of a counter of the metrics page; none when it cannot be read."""
        import urllib.request

        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT + 5}/metrics", timeout=5) as page:
                lines = page.read().decode().splitlines()
        except OSError:
            return None
        found = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(found) if found else None
