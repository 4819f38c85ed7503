"""How much a server takes: load by smtp-source and by ours, what the kernel was asked, what the disk can do."""

import json
import os
import re
import signal
import statistics
import subprocess
import tempfile
import threading
import time

import peers
from peers import LOAD_CORE, MTA_CORE, PORT, RELAY_PORT, pinned, yielding

SESSIONS = 50
MESSAGE_BYTES = 4096
FROM, TO = "a@source.example", "b@sink.example"


class Cores:
    """How busy the two cores are between two readings."""

    def __init__(self):
        self.before = self.read()

    @staticmethod
    def read():
        with open("/proc/stat") as stat:
            rows = {line.split()[0]: [int(word) for word in line.split()[1:9]] for line in stat if line.startswith("cpu")}
        return [rows[f"cpu{core}"] for core in (MTA_CORE, LOAD_CORE)]

    def busy(self, messages=None):
        """Shares of the time; with a number of messages also what each has cost the server's core, in microseconds of the time
        that the host has left it."""
        shares, stolen, worked = [], [], []
        for before, after in zip(self.before, self.read()):
            spent = [b - a for a, b in zip(before, after)]
            whole, idle = max(1, sum(spent)), spent[3] + spent[4]
            shares.append(1 - idle / whole)
            stolen.append(spent[7] / whole)
            worked.append((whole - idle - spent[7]) / os.sysconf("SC_CLK_TCK"))
        each = {"mta_us_each": worked[0] * 1e6 / messages} if messages else {}
        return {"mta_busy": shares[0], "load_busy": shares[1], "stolen": max(stolen), **each}


def others():
    """How busy the two cores are with what is not ours, over a second."""
    cores = Cores()
    threading.Event().wait(1.0)
    busy = cores.busy()
    return (busy["mta_busy"] + busy["load_busy"]) / 2


def smtp_source(count, reuse, sessions=SESSIONS, timeout=60):
    """Messages per second of Postfix's generator, or none when it does not come to an end."""
    command = [peers.PEERS / "postfix/usr/sbin/smtp-source", "-s", sessions, "-l", MESSAGE_BYTES, "-m", count]
    command += ["-d"] if reuse else []
    command += ["-f", FROM, "-t", TO, f"127.0.0.1:{PORT}"]
    cores, start = Cores(), time.monotonic()
    try:
        subprocess.run(
            pinned(LOAD_CORE, yielding(command)), env=peers.postfix_env(), check=True, timeout=timeout, capture_output=True
        )
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        return None
    return {"rate": count / (time.monotonic() - start), **cores.busy(count)}


def saturate_smtp_source(reuse, seconds, sessions=SESSIONS):
    """As many messages as fill about `seconds`, after a short run that finds out how many those are."""
    count, result = 300, None
    for _ in range(3):
        result = smtp_source(count, reuse, sessions)
        if result is None or count / result["rate"] > seconds / 2:
            break
        count = max(count, int(result["rate"] * seconds))
    return result


def our_source(load, seconds, *options, count=None, sessions=SESSIONS):
    """Our generator's summary, with how busy the cores were."""
    command = [load, "source", f"127.0.0.1:{PORT}", "--quiet", "--json", "-c", sessions, "-s", MESSAGE_BYTES, *options]
    command += ["-n", count] if count else ["-t", f"{seconds}s"]
    cores = Cores()
    words = pinned(LOAD_CORE, yielding(command))
    out = subprocess.run(words, capture_output=True, text=True, timeout=seconds * 4 + 60)
    if out.returncode != 0:
        raise RuntimeError(f"source: {out.stderr.strip()}")
    summary = json.loads(out.stdout)
    if summary["refused"] or summary["accepted"] == 0:
        raise RuntimeError(f"refused {summary['refused']} of {summary['accepted']}: {summary['refusals']}")
    return {**summary, **cores.busy(summary["accepted"])}


# MAIL, RCPT and DATA in one write, the body when they are answered: how messages go that come one by one.
IN_TURNS = ("-p", "group")
# A server that makes its files ahead of need has as many as this load wants after so long.
WARM_SECONDS = 5
# The two saturation rates whose halves the latencies are measured at.
HALF_LOADS = {"smtp-source reused": "half of smtp-source's rate", "ours in turns": "half of our source's, in turns"}


def half_load(load, seconds, rate):
    """Our generator at a rate, once the server is in its steady state: files made, caches warm. It does not sleep: on a virtual
    machine it costs the server some 40 microseconds to wake a client whose processor is asleep, and that one as many to come to
    itself; both would be taken for the server's latency. No client on another machine has them. One piece for each second, and
    the disk is asked right before each: from one minute to the next either may be half as fast as it was."""
    our_source(load, WARM_SECONDS)
    pieces = []
    for _ in range(seconds):
        disk = probe(load, "0.5s")["fdatasync"]
        pieces.append({**our_source(load, 1, *IN_TURNS, "--spin", "--rate", f"{rate:.1f}"), "disk_p99_us": disk["p99_us"]})
    rates, costs = ([piece[key] for piece in pieces] for key in ("rate", "mta_us_each"))
    return {"rate": statistics.median(rates), "mta_us_each": statistics.median(costs), "pieces": pieces}


def step(summary, name):
    """One step's latency of a summary."""
    return next(row for row in summary["steps"] if row["step"] == name)


def probe(load, time="3s"):
    """What the disk itself needs for 4 KiB."""
    command = [load, "probe", peers.RUN, "--json", "--time", time]
    cores = Cores()
    found = json.loads(subprocess.run(pinned(MTA_CORE, command), capture_output=True, text=True, check=True).stdout)
    return {**found, "stolen": cores.busy()["stolen"]}


def relay(peer, load, count, timeout, sink_options=()):
    """Source, server, sink: end to end rate at the sink, from its first connection to its last message."""
    sink = [load, "sink", f"127.0.0.1:{RELAY_PORT}", "--quiet", "--json", "--verify", "-n", count, "-t", f"{timeout}s", *sink_options]
    sink = subprocess.Popen(pinned(LOAD_CORE, yielding(sink)), stdout=subprocess.PIPE, text=True)
    try:
        peers.wait_until(lambda: peers.answers(RELAY_PORT), "the sink does not answer")
        peer.start(relay=True)
        began = time.monotonic()
        sent = our_source(load, timeout, count=count)
        out, _ = sink.communicate(timeout=timeout + 10)
        took = time.monotonic() - began
    finally:
        sink.kill()
        peer.stop()
    seen = json.loads(out)
    if seen["messages"] < count:
        raise RuntimeError(f"only {seen['messages']} of {count} messages were relayed in {timeout} s")
    if seen["damaged"]:
        raise RuntimeError(f"{seen['damaged']} messages were damaged on the way")
    return {"rate": count / took, "accept_rate": sent["rate"], "count": count, "sink_connections": seen["connections"]}


def system_calls(peer, load, seconds):
    """Counts for each message: by perf while the server runs at full speed, then by strace, which slows it down."""
    counts = {}
    our_source(load, 1)
    for name, watch in (("perf", perf_watch), ("strace", strace_watch)):
        try:
            counts[name] = watch(peer, load, seconds)
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            counts[name] = {"error": str(error)}
    return counts


# Writes and syncs by io_uring: WRITEV, FSYNC, WRITE_FIXED, WRITE (linux/io_uring.h).
RING_WRITES = "opcode == 2 || opcode == 3 || opcode == 5 || opcode == 23"
PERF_EVENTS = [
    ("system_calls", "raw_syscalls:sys_enter", None),
    ("ring_operations", "io_uring:io_uring_submit_req", None),
    ("ring_writes", "io_uring:io_uring_submit_req", RING_WRITES),
    ("fsync", "syscalls:sys_enter_fsync", None),
    ("fdatasync", "syscalls:sys_enter_fdatasync", None),
]


def perf_watch(peer, load, seconds):
    """Counts by tracepoints, one run for all of them."""
    with tempfile.NamedTemporaryFile("r", suffix=".csv") as out:
        command = ["perf", "stat", "-x", ",", "-o", out.name, "-p", ",".join(map(str, peer.pids()))]
        for _, event, only in PERF_EVENTS:
            command += ["-e", event] + (["--filter", only] if only else [])
        summary = watched(command, load, seconds)
        rows = [line for line in out.read().splitlines() if line and not line.startswith("#")]
    messages = summary["accepted"]
    counts = {"rate": summary["rate"]}
    for (name, _, _), row in zip(PERF_EVENTS, rows):
        value = row.split(",")[0]
        counts[name] = int(value) / messages if value.isdigit() else None
    return counts


def strace_watch(peer, load, seconds):
    """Counts of `strace -f -c`."""
    with tempfile.NamedTemporaryFile("r", suffix=".txt") as out:
        command = ["strace", "-f", "-c", "-o", out.name]
        for pid in peer.pids():
            command += ["-p", pid]
        summary = watched(command, load, seconds)
        text = out.read()
    calls = {}
    for line in text.splitlines():
        found = re.match(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", line)
        if found and found.group(2) != "total":
            calls[found.group(2)] = int(found.group(1)) / summary["accepted"]
    if not calls:
        raise RuntimeError("strace counted nothing")
    top = dict(sorted(calls.items(), key=lambda call: -call[1])[:12])
    syncs = {name: calls.get(name, 0.0) for name in ("fsync", "fdatasync", "sync_file_range", "msync")}
    return {"rate": summary["rate"], "system_calls": sum(calls.values()), "syncs": syncs, "top": top}


def watched(command, load, seconds):
    watcher = subprocess.Popen([str(word) for word in command], stderr=subprocess.DEVNULL)
    # Attaching to a dozen processes takes a moment; the load that comes earlier would not be counted.
    threading.Event().wait(1.0)
    try:
        if watcher.poll() is not None:
            raise RuntimeError(f"{command[0]} cannot watch here")
        return our_source(load, seconds)
    finally:
        watcher.send_signal(signal.SIGINT)
        try:
            watcher.wait(10)
        except subprocess.TimeoutExpired:
            watcher.kill()
