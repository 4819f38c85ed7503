#!/usr/bin/env python3
"""The way out under stress, on this machine alone (names come from a file, receivers have loopback addresses).

    perf/stress/stress.py million --ringpost BINARY [--messages 1000000] [--domains 50000] [--sites 200]
    perf/stress/stress.py hostile --ringpost BINARY [--messages 50000] [--rounds 3]

`million`: messages for many domains on receivers with mixed faults. All must be delivered in the end, none lost, none taken
twice; says how fast, and how much memory the server had. `hostile`: the rate of sites that are as they should be, alone and
while a hundred others stall, drip, hang up and refuse, each with mail waiting for it.
"""

import argparse
import asyncio
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

OFFSET = 10_000
MX_PORT, SMTP_PORT = 25 + OFFSET, 2525 + OFFSET
CONFIGURATION = """shards 2
smtp limit max-mails 1000000 max-sessions-per-source 10000
listen on 127.0.0.1 port 2525
http listen on 127.0.0.1 port 8025
action "out" relay
match from any for any action "out"
"""
# Options of each sink: sites share them in turn.
FAULTS = [
    [],
    ["--reject-rcpt", "450:3%", "--reject-end", "451:2%"],
    ["--drop", "mail:1%", "--drop", "data:1%", "--drop", "end:1%"],
    ["--reject-mail", "421:1%", "--reject-data", "451:2%", "--drop", "greeting:1%"],
]
HOSTILE = 100


class Server:
    """Ringpost, with the names that are given, until it is closed."""

    def __init__(self, binary, directory, zone):
        self.binary, self.dir = binary, pathlib.Path(directory)
        shutil.rmtree(self.dir / "state", ignore_errors=True)
        (self.dir / "zone").write_text(zone)
        (self.dir / "ringpost.conf").write_text(CONFIGURATION)
        words = ["serve", "--quiet", "--config=ringpost.conf", "--state=state", "--dns=zone", f"--port-offset={OFFSET}"]
        self.process = subprocess.Popen([binary, *words], cwd=self.dir)
        for _ in range(600):
            if self.metric("ringpost_connections_accepted_total") is not None:
                return
            time.sleep(0.1)
        raise RuntimeError("the server does not start")

    def metric(self, name):
        import urllib.request

        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{8025 + OFFSET}/metrics", timeout=10) as page:
                lines = page.read().decode().splitlines()
        except OSError:
            return None
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def memory_mib(self):
        """Resident memory of its processes, without what they share with the program file."""
        total = 0
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(entry / "exe") == str(self.binary) and (entry / "cmdline").read_bytes().find(b"bench") < 0:
                    rows = (entry / "status").read_text().splitlines()
                    total += sum(int(row.split()[1]) for row in rows if row.startswith("RssAnon"))
            except OSError:
                continue
        return total / 1024

    def retry(self):
        subprocess.run([self.binary, "queue", "retry", "--state=state"], cwd=self.dir, check=True, stdout=subprocess.DEVNULL)

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def bench(binary, *words):
    return subprocess.Popen([binary, "bench", *map(str, words)], stdout=subprocess.PIPE, text=True)


def said(process, timeout):
    out, _ = process.communicate(timeout=timeout)
    return json.loads(out)


def million(asked, directory):
    sites = range(asked.sites)
    sink_of = lambda site: f"127.20.0.{1 + site % len(FAULTS)}"
    zone = [f"mx{site}.sites.test A {sink_of(site)}" for site in sites]
    zone += [f"d{domain}.many.test MX 10 mx{domain % asked.sites}.sites.test" for domain in range(asked.domains)]
    server = Server(asked.ringpost, directory, "\n".join(zone) + "\n")
    sinks = [
        bench(asked.ringpost, "sink", f"{sink_of(number)}:{MX_PORT}", "--quiet", "--json", "--received", f"{directory}/received{number}", *faults)
        for number, faults in enumerate(FAULTS)
    ]
    try:
        began = time.monotonic()
        words = ["source", f"127.0.0.1:{SMTP_PORT}", "--quiet", "--json", "-c", 50, "-s", asked.size, "-n", asked.messages]
        words += ["--from-domain", "sender.test", "--to-domain", "many.test", "--to-domains", asked.domains, "--acked", f"{directory}/acked"]
        source = bench(asked.ringpost, *words)
        peak, last, moved = 0.0, -1, time.monotonic()
        while True:
            time.sleep(1)
            peak = max(peak, server.memory_mib())
            taken = server.metric("ringpost_envelopes_delivered_total") or 0
            if taken != last:
                last, moved = taken, time.monotonic()
            if source.poll() is not None and taken >= asked.messages:
                break
            if time.monotonic() - moved > 10 and source.poll() is not None:
                print(f"  {taken:.0f} of {asked.messages} delivered after {time.monotonic() - began:.0f} s; what is deferred is tried again", flush=True)
                server.retry()
                moved = time.monotonic()
            if time.monotonic() - began > asked.limit:
                print(f"not done after {asked.limit} s", file=sys.stderr)
                break
        took = time.monotonic() - began
        sent, deferred = said(source, 10), server.metric("ringpost_envelopes_deferred_total")
        accepted = sent["accepted"] / sent["seconds"]
    finally:
        server.close()
        for sink in sinks:
            sink.send_signal(signal.SIGTERM)
    refused = dropped = 0
    for sink in sinks:
        summary = said(sink, 30)
        refused, dropped = refused + summary["refused"], dropped + summary["dropped"]
    with open(f"{directory}/received", "w") as together:
        for number in range(len(FAULTS)):
            together.write(pathlib.Path(f"{directory}/received{number}").read_text())
    verdict = said(bench(asked.ringpost, "verify", "--json", f"{directory}/acked", f"{directory}/received"), 600)
    print(
        f"{asked.messages:,} messages for {asked.domains:,} domains on {asked.sites} sites in {took:.0f} s "
        f"({asked.messages / took:,.0f}/s; taken in at {accepted:,.0f}/s); {refused:,} refusals, {dropped:,} connections dropped, "
        f"{deferred:,.0f} deferrals; {peak:,.0f} MiB at most"
    )
    print(f"lost {verdict['lost']}, taken twice {verdict['duplicates']}, never answered and taken {verdict['unanswered']}")
    sys.exit(1 if verdict["lost"] or verdict["duplicates"] else 0)


async def misbehave(kind, reader, writer):
    """What a hostile receiver does with a connection."""
    try:
        if kind == 0:
            await asyncio.sleep(3600)
        if kind == 1:
            writer.close()
            return
        if kind == 2:
            writer.write(b"421 4.3.2 not now\r\n")
            await writer.drain()
            writer.close()
            return
        writer.write(b"220 hostile\r\n")
        while line := await reader.readline():
            verb = line[:4].upper()
            if kind == 3 and verb == b"EHLO":
                writer.write(b"250-")
                while True:
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(1)
            if kind == 4 and verb == b"RCPT":
                await asyncio.sleep(3600)
            if kind == 5 and verb == b"DATA":
                writer.close()
                return
            if verb == b"MAIL" and kind == 6:
                writer.write(b"451 4.7.1 later\r\n")
            elif verb == b"DATA" and kind == 7:
                writer.write(b"354 go\r\n")
                await asyncio.sleep(3600)
            elif verb == b"DATA":
                writer.write(b"554 no\r\n")
            else:
                writer.write(b"250 ok\r\n")
    except (OSError, asyncio.CancelledError):
        pass


def serve_hostile():
    """A hundred of them, for as long as we live."""

    async def serve():
        for number in range(HOSTILE):
            handle = lambda reader, writer, kind=number % 8: misbehave(kind, reader, writer)
            await asyncio.start_server(handle, f"127.31.0.{1 + number}", MX_PORT, backlog=1024)
        await asyncio.Event().wait()

    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()


def healthy_rate(asked, directory, beside):
    """Messages a second that a hundred good sites get; `beside`: while others have mail waiting, and get more."""
    zone = []
    for number in range(HOSTILE):
        zone += [f"d{number}.good.test MX 10 mx{number}.good.test", f"mx{number}.good.test A 127.30.0.1"]
        zone += [f"d{number}.bad.test MX 10 mx{number}.bad.test", f"mx{number}.bad.test A 127.31.0.{1 + number}"]
    server = Server(asked.ringpost, directory, "\n".join(zone) + "\n")
    words = ["source", f"127.0.0.1:{SMTP_PORT}", "--quiet", "--json", "--to-domains", HOSTILE]
    steady = None
    try:
        if beside:
            said(bench(asked.ringpost, *words, "--to-domain", "bad.test", "-n", asked.hostile), 600)
            steady = bench(asked.ringpost, *words, "--to-domain", "bad.test", "-c", 2, "--rate", 20, "-t", "600s")
            time.sleep(2)
        sink = bench(asked.ringpost, "sink", f"127.30.0.1:{MX_PORT}", "--quiet", "--json", "-n", asked.messages, "-t", "300s")
        time.sleep(0.5)
        source = bench(asked.ringpost, *words, "--to-domain", "good.test", "-c", 50, "-n", asked.messages)
        seen = said(sink, 330)
        said(source, 30)
        if seen["messages"] < asked.messages:
            raise RuntimeError(f"only {seen['messages']} arrived")
        return seen["messages"] / seen["seconds"]
    finally:
        if steady:
            steady.kill()
        server.process.kill()
        server.process.wait()
        time.sleep(1)


def hostile(asked, directory):
    serve_hostile()
    alone, beside = [], []
    for number in range(asked.rounds):
        alone.append(healthy_rate(asked, directory, False))
        beside.append(healthy_rate(asked, directory, True))
        print(f"round {number + 1}: {alone[-1]:,.0f}/s alone, {beside[-1]:,.0f}/s beside {HOSTILE} hostile sites", flush=True)
    share = statistics.median(beside) / statistics.median(alone)
    print(f"healthy sites keep {share:.0%} of their rate (wanted: 95 %)")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    path = lambda text: pathlib.Path(text).resolve()
    for run, messages in ((million, 1_000_000), (hostile, 50_000)):
        command = commands.add_parser(run.__name__)
        command.set_defaults(run=run)
        command.add_argument("--ringpost", required=True, type=path)
        command.add_argument("--messages", default=messages, type=int)
        command.add_argument("--dir", help="where state is written (default: a temporary directory)")
        if run is million:
            command.add_argument("--domains", default=50_000, type=int)
            command.add_argument("--sites", default=200, type=int)
            command.add_argument("--size", default="1k")
            command.add_argument("--limit", default=3600, type=int, help="give up after so many seconds")
        else:
            command.add_argument("--hostile", default=5000, type=int, help="messages that wait for hostile sites")
            command.add_argument("--rounds", default=3, type=int)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.dir) as directory:
        asked.run(asked, directory)


if __name__ == "__main__":
    main()
