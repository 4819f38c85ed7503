#!/usr/bin/env python3
"""RCPT against tables of a million entries: latency at a set rate, the most that one client gets, memory.

    perf/compare/tables.py --ringpost BINARY --load BINARY [--rounds 3] [--seconds 5] [--out FILE]
"""

import argparse
import gc
import os
import pathlib
import random
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time

sys.dont_write_bytecode = True

import peers
import section
from peers import LOAD_CORE, MTA_CORE, PORT, RUN

ENTRIES = 1_000_000
RATE = 1_000
CLIENTS = 16
# Recipients of a transaction before the next is begun.
PER_TRANSACTION = 100
# Every tenth recipient is in no table: all keys that are derived from it are asked for.
MISSING = 10
BESIDE = 10_000
DOMAINS = {"static": "file", "sqlite": "sqlite"}


def name_of(number):
    return f"user{number:07}"


class Ringpost(peers.Ringpost):
    """With one table, both, or none."""

    def __init__(self, binary, tables):
        super().__init__(binary)
        self.tables = tables

    def configuration(self, relay):
        data = RUN / "tables"
        lines = [
            "shards 1",
            "smtp limit max-mails 100000000 max-sessions-per-source 10000",
            f"listen on 127.0.0.1 port {PORT}",
            f"http listen on 127.0.0.1 port {PORT + 5}",
        ]
        sources = {"static": f"file:{data}/aliases", "sqlite": f"sqlite:{data}/sqlite.conf"}
        for table in self.tables:
            lines += [
                f"table {table} {sources[table]}",
                f'action "{table}" maildir "{data}/mail/%{{dest.user}}" virtual <{table}>',
                f'match from any for domain "{table}.example" action "{table}"',
            ]
        return "\n".join([*lines, 'action "out" discard', 'match from any for any action "out"']) + "\n"

    def memory(self):
        """Anonymous memory of all its processes, in MiB."""
        total = 0
        for pid in self.pids():
            try:
                status = pathlib.Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            total += sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:"))
        return total / 1024


def make_data():
    data = RUN / "tables"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    with open(data / "aliases", "w") as out:
        out.writelines(f"{name_of(number)}@static.example: box{number % 100}\n" for number in range(ENTRIES))
    database = sqlite3.connect(data / "table.db")
    database.execute("create table aliases(key text primary key, value text) without rowid")
    rows = ((f"{name_of(number)}@sqlite.example", f"box{number % 100}") for number in range(ENTRIES))
    database.executemany("insert into aliases values(?, ?)", rows)
    database.commit()
    database.close()
    text = f"dbpath {data}/table.db\nquery_alias select value from aliases where key=?\n"
    (data / "sqlite.conf").write_text(text)
    return {name: os.path.getsize(data / file) / 2**20 for name, file in (("static", "aliases"), ("sqlite", "table.db"))}


class Client:
    """A connection that has a transaction open."""

    def __init__(self):
        self.socket = socket.create_connection(("127.0.0.1", PORT))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.text = b""
        self.wait_for(1)
        self.socket.sendall(b"EHLO tables\r\n")
        self.wait_for(1)
        self.begin(b"")

    def begin(self, before):
        self.socket.sendall(before + b"MAIL FROM:<>\r\n")
        self.wait_for(2 if before else 1)
        self.sent = 0

    def wait_for(self, count):
        found = []
        while len(found) < count:
            found += self.replies()
        return found

    def replies(self):
        """What has come, as codes; waits for something."""
        piece = self.socket.recv(65536)
        if not piece:
            raise RuntimeError("the server has closed the connection")
        *lines, self.text = (self.text + piece).split(b"\r\n")
        return [int(line[:3]) for line in lines if line[3:4] == b" "]

    def fileno(self):
        return self.socket.fileno()


def command(domain, number):
    missing = number % MISSING == 0
    name = f"nobody{random.randrange(10**9)}" if missing else name_of(random.randrange(ENTRIES))
    return f"RCPT TO:<{name}@{domain}.example>\r\n".encode(), 550 if missing else 250


def at_rate(domain, seconds):
    """Latencies in ms of so many recipients a second, each sent when its time has come, on whatever connection is free."""
    free, busy, latencies = [Client() for _ in range(CLIENTS)], {}, []
    start, number, total, late = time.perf_counter(), 0, int(RATE * seconds), 0.0
    while len(latencies) < total:
        now = time.perf_counter()
        due = start + number / RATE
        if number < total and now >= due and free:
            client = free.pop()
            text, expected = command(domain, number)
            late = max(late, now - due)
            client.socket.sendall(text)
            client.sent += 1
            busy[client] = (due if now - due > 0.01 else now, expected)
            number += 1
            continue
        wait = max(0.0, due - now) if number < total and free else 1.0
        for client in select.select(list(busy), [], [], wait)[0]:
            for code in client.replies():
                began, expected = busy.pop(client)
                if code != expected:
                    raise RuntimeError(f"{domain}: {code} instead of {expected}")
                latencies.append((time.perf_counter() - began) * 1000)
                if client.sent == PER_TRANSACTION:
                    client.begin(b"RSET\r\n")
                free.append(client)
    took = time.perf_counter() - start
    latencies.sort()
    quantile = lambda share: latencies[min(len(latencies) - 1, int(len(latencies) * share))]
    return {"rate": total / took, "p50": quantile(0.5), "p99": quantile(0.99), "p999": quantile(0.999), "late": late * 1000}


def at_once(domain, seconds):
    """Recipients a second with whole transactions pipelined, one connection after the other."""
    clients = [Client() for _ in range(CLIENTS)]
    groups = [b"".join(command(domain, number)[0] for number in range(PER_TRANSACTION)) for _ in range(400)]
    start, done, turn = time.perf_counter(), 0, 0
    while time.perf_counter() - start < seconds:
        for client in clients:
            client.socket.sendall(groups[turn % len(groups)] + b"RSET\r\nMAIL FROM:<>\r\n")
            turn += 1
        for client in clients:
            client.wait_for(PER_TRANSACTION + 2)
            done += PER_TRANSACTION
    return done / (time.perf_counter() - start)


def beside(load, seconds):
    """Our generator, as other traffic."""
    words = [load, "source", f"127.0.0.1:{PORT}", "--quiet", "--json", "-c", 20, "-p", "group", "--rate", BESIDE, "-t", f"{seconds}s"]
    return subprocess.Popen(peers.pinned(LOAD_CORE, words), stdout=subprocess.DEVNULL)


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ringpost", required=True, type=pathlib.Path)
    parser.add_argument("--load", required=True, type=pathlib.Path, help="the example `load` of ringpost-bench")
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--seconds", default=5, type=int)
    parser.add_argument("--out", default=section.PAGE, type=pathlib.Path)
    return parser.parse_args()


def started(binary, tables):
    peer = Ringpost(binary, tables)
    return peer, peer.start(relay=False)


def main():
    asked = options()
    os.sched_setaffinity(0, {int(LOAD_CORE)})
    # A pause of the client's own is not to be measured.
    gc.disable()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    RUN.mkdir(parents=True, exist_ok=True)
    sizes = make_data()
    peer, _ = started(asked.ringpost, [])
    empty = peer.memory()
    peer.stop()
    results = {name: {"alone": [], "beside": [], "most": [], "start": [], "memory": []} for name in DOMAINS}
    try:
        for number in range(asked.rounds):
            for name, own in results.items():
                peer, took = started(asked.ringpost, [name])
                own["start"].append(took)
                at_rate(name, 1)
                own["alone"].append(at_rate(name, asked.seconds))
                other = beside(asked.load, asked.seconds + 2)
                time.sleep(1)
                own["beside"].append(at_rate(name, asked.seconds))
                other.wait()
                own["most"].append(at_once(name, asked.seconds))
                own["memory"].append(peer.memory() - empty)
                configuration = peer.configuration(False)
                print(f"round {number + 1}: {name}: {own['alone'][-1]} {own['beside'][-1]} {own['most'][-1]:.0f}/s", flush=True)
                peer.stop()
    finally:
        peer.stop()
        shutil.rmtree(RUN / "tables", ignore_errors=True)
    section.write("tables", "tables.py", lines(peer, sizes, empty, results, configuration, asked), asked.out)


def lines(peer, sizes, empty, results, configuration, asked):
    out = ["## RCPT against tables of 1,000,000 entries", "", section.measured("tables.py", f"Ringpost {peer.version()}"), ""]
    out += [
        f"The server has core {MTA_CORE}, the client core {LOAD_CORE}. Latency of RCPT at {RATE:,} a second over {CLIENTS} connections, each sent when its time",
        f"has come; every tenth recipient is in no table and costs all its derived keys. *Beside*: with {BESIDE:,} messages a second",
        f"going through. Medians of {asked.rounds} rounds of {asked.seconds} s (lowest to highest). *Most*: transactions of {PER_TRANSACTION} recipients, pipelined, of one client",
        "in Python, which is the limit on the static table. Recipients are chosen at random, so that next to none is in a cache.",
        "",
        section.row(["ms", "RCPT/s", "p50", "p99", "p99.9", "p99 beside", "p99.9 beside", "most, RCPT/s"]),
        section.row(["---"] + ["---:"] * 7),
    ]
    for name, own in results.items():
        of = lambda runs, key: section.spread([run[key] for run in runs], 2)
        rate = f"{section.median([run['rate'] for run in own['alone']]):,.0f}"
        cells = [name, rate, *(of(own["alone"], key) for key in ("p50", "p99", "p999"))]
        cells += [*(of(own["beside"], key) for key in ("p99", "p999")), section.spread(own["most"])]
        out.append(section.row(cells))
    out += ["", section.row(["", "data", "memory (anonymous, beyond the server's own)", "start until it greets"]), section.row(["---"] + ["---:"] * 3)]
    for name, own in results.items():
        took = section.spread(own["start"], 2)
        out.append(section.row([name, f"{sizes[name]:,.0f} MiB", f"{section.spread(own['memory'])} MiB", f"{took} s"]))
    out += [
        "",
        f"The server without a table: {empty:,.0f} MiB. *static* is read from a file: written into the configuration itself a million",
        "entries would exceed its 16 MiB; in memory both are the same. For *sqlite* (with static instead, the same but for the table):",
        "```",
        *configuration.replace(str(RUN), "target/peers/run").rstrip().splitlines(),
        "```",
    ]
    return out


if __name__ == "__main__":
    main()
