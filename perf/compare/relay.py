#!/usr/bin/env python3
"""Mail relayed end to end, Ringpost beside Postfix and OpenSMTPD: small and large messages, in clear and over TLS, to 1, 10
and 1,000 sites, each a domain with a mail exchanger at a loopback address of its own, named by a local Knot.

    perf/compare/relay.py --ringpost BINARY --load BINARY [--only ringpost,postfix] [--sites 1,10,1000] [--seconds 5]

`load` is the example of ringpost-bench. Needs root, like compare.sh, port 25 on all of 127.0.0.0/8 and 53 on one address of
it, and Debian's knot.
"""

import argparse
import json
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

sys.dont_write_bytecode = True

import measure
import peers
import section
import tls
from peers import LOAD_CORE, MTA_CORE, PORT, RUN, pinned

NAMES = "127.0.53.53"
DOMAIN = "relay.test"
SIZES = {"4 KiB": 4096, "100 KiB": 100 * 1024}
CHANNELS = ("plain", "TLS")
# Messages a second that a first run begins with, until the server has shown its own rate.
GUESS = {"ringpost": 4000, "postfix": 300, "opensmtpd": 60}
# Fewer would measure the first connection to each site, not the relay; who is too slow for so many gets three times its share.
MESSAGES_MIN = {1: 300, 10: 300, 1000: 2000}
WANTED = 10
# The load, the receivers and the names have no more to give than that part of their core.
LOAD_LIMIT = 0.97


def address_of(site):
    return f"127.{10 + site // 62500}.{site // 250 % 250}.{1 + site % 250}"


class Names:
    """Knot with the sites' zone, until it is closed."""

    def __init__(self, sites):
        self.dir = RUN / "names"
        shutil.rmtree(self.dir, ignore_errors=True)
        (self.dir / "run").mkdir(parents=True)
        zone = ["$TTL 3600", "@ SOA ns.test. admin.test. 1 3600 3600 3600 3600", "@ NS ns", f"ns A {NAMES}"]
        for site in range(sites):
            zone += [f"d{site}.relay MX 10 mx.d{site}.relay", f"mx.d{site}.relay A {address_of(site)}"]
        (self.dir / "test.zone").write_text("\n".join(zone) + "\n")
        (self.dir / "knot.conf").write_text(
            f"server:\n  rundir: {self.dir}/run\n  listen: {NAMES}@53\n  udp-workers: 1\n  tcp-workers: 1\n"
            f"database:\n  storage: {self.dir}\nzone:\n  - domain: test\n    storage: {self.dir}\n    file: test.zone\n"
        )
        log = open(self.dir / "log", "w")
        command = pinned(LOAD_CORE, ["/usr/sbin/knotd", "-c", self.dir / "knot.conf"])
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        peers.wait_until(self.answers, "knotd does not answer")

    def answers(self):
        question = bytes([0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]) + b"\4test\0" + bytes([0, 6, 0, 1])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(0.2)
            try:
                s.sendto(question, (NAMES, 53))
                return s.recv(512)[7] > 0
            except OSError:
                return False

    def close(self):
        self.process.kill()
        self.process.wait()


class Ringpost(peers.Ringpost):
    def configuration(self, relay):
        return self.lines('action "out" relay', 'match from any for any action "out"')

    def command(self, relay):
        names = RUN / self.name / "names"
        names.write_text(f"$SERVER {NAMES}:53\n")
        return [*super().command(relay), f"--dns={names}"]


def with_names(accounts):
    """What a rival resolves names with."""
    (RUN / "resolv.conf").write_text(f"nameserver {NAMES}\nlookup file bind\n")
    return accounts


class Postfix(peers.Postfix):
    def accounts(self):
        return with_names(super().accounts())

    def main_cf(self, relay):
        lines = [line for line in super().main_cf(True).splitlines() if not line.startswith(("relayhost", "disable_dns"))]
        return "\n".join([*lines, "smtp_tls_security_level = may", ""])


class OpenSmtpd(peers.OpenSmtpd):
    def accounts(self):
        return with_names(super().accounts())

    def configuration(self, relay):
        lines = super().configuration(True).splitlines()
        return "\n".join('action "out" relay' if line.startswith("action") else line for line in lines) + "\n"


def relay(peer, load, count, bytes_each, sites, encrypted, timeout):
    """Messages a second from the first one sent to the last one taken, over all sites."""
    sink = [load, "sink", "0.0.0.0:25", "--quiet", "--json", "--verify", "-n", count, "-t", f"{timeout}s"]
    if encrypted:
        cert, key = tls.certificate("ecdsa")
        sink += ["--cert", cert, "--key", key]
    sink, source = subprocess.Popen(pinned(LOAD_CORE, sink), stdout=subprocess.PIPE, text=True), None
    try:
        peers.wait_until(lambda: peers.answers(25), "the sink does not answer")
        peer.start(relay=True)
        words = [load, "source", f"127.0.0.1:{PORT}", "--quiet", "--json", "-c", measure.SESSIONS, "-s", bytes_each, "-n", count]
        words += ["--to-domain", DOMAIN if sites > 1 else f"d0.{DOMAIN}", "--to-domains", sites, "--patience", f"{timeout}s"]
        cores, began = measure.Cores(), time.monotonic()
        source = subprocess.Popen(pinned(LOAD_CORE, words), stdout=subprocess.DEVNULL)
        out, _ = sink.communicate(timeout=timeout + 10)
        took, busy = time.monotonic() - began, cores.busy()
    finally:
        for process in (sink, source):
            if process:
                process.kill()
                process.wait()
        peer.stop()
    seen = json.loads(out)
    if seen["damaged"]:
        raise RuntimeError(f"{seen['damaged']} messages were damaged on the way")
    if seen["messages"] == 0:
        raise RuntimeError(f"nothing was relayed in {timeout} s")
    # What was not done in that time counts as far as it was.
    return {"rate": seen["messages"] / took, "count": seen["messages"], "of": count, "connections": seen["connections"], "took": took, **busy}


def measured(peer, asked, own, size, channel, sites):
    """One cell. As many messages as fill the time: a run that was much too short is made again."""
    # The rate of the nearest cell that has one: most often the one with fewer sites.
    rates = [found["rate"] for (of, _, _), found in own.items() if of == size]
    rate = rates[-1] if rates else GUESS[peer.name] / (1 if size == "4 KiB" else 4)
    for _ in range(2):
        count = int(min(max(MESSAGES_MIN.get(sites, 300), rate * asked.seconds), 3 * rate * asked.seconds))
        found = relay(peer, asked.load, count, SIZES[size], sites, channel == "TLS", asked.seconds * 4 + 6)
        rate = found["rate"]
        if found["took"] > asked.seconds / 2:
            break
    return found


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    path = lambda text: pathlib.Path(text).resolve()
    parser.add_argument("--ringpost", required=True, type=path)
    parser.add_argument("--load", required=True, type=path, help="the example `load` of ringpost-bench")
    parser.add_argument("--only", default="ringpost,postfix,opensmtpd")
    parser.add_argument("--sites", default="1,10,1000", type=lambda text: [int(word) for word in text.split(",")])
    parser.add_argument("--sizes", default=",".join(SIZES), type=lambda text: text.split(","))
    parser.add_argument("--seconds", default=3, type=int, help="about so long for each measurement")
    parser.add_argument("--out", default=section.PAGE, type=pathlib.Path)
    return parser.parse_args()


def cells(asked):
    return [(size, channel, sites) for size in asked.sizes for channel in CHANNELS for sites in asked.sites]


def main():
    asked = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    peers.PEERS.mkdir(parents=True, exist_ok=True)
    RUN.mkdir(parents=True, exist_ok=True)
    peers.fetch_packages()
    tls.make_certificates()
    known = [Ringpost(asked.ringpost), Postfix(), OpenSmtpd()]
    chosen = [peer for peer in known if peer.name in asked.only.split(",")]
    results = {peer.name: {} for peer in chosen}
    names = Names(max(asked.sites))
    try:
        for size, channel, sites in cells(asked):
            for peer in chosen:
                own = results[peer.name]
                try:
                    found = measured(peer, asked, own, size, channel, sites)
                    own[size, channel, sites] = found
                    line = f"{found['rate']:.0f}/s, {found['count']} of {found['of']} messages over {found['connections']} connections, core {found['mta_busy']:.0%}, load {found['load_busy']:.0%}"
                except Exception as error:  # a peer that fails one measurement still has the others
                    line = f"fails: {error}"
                print(f"  {size}, {channel}, {sites} sites, {peer.name}: {line}", flush=True)
    finally:
        names.close()
        for peer in known:
            peer.stop()
            shutil.rmtree(RUN / peer.name, ignore_errors=True)
    kept = {name: [[*cell, found] for cell, found in own.items()] for name, own in results.items()}
    (peers.PEERS / "relay.json").write_text(json.dumps(kept, indent=1))
    section.write("relay", "relay.py", lines(asked, chosen, results), asked.out)


def lines(asked, chosen, results):
    versions = [f"{peer.label} {peer.version()}" for peer in chosen]
    out = ["## Relay to many sites", "", section.measured("relay.py", *versions), ""]
    out += [
        f"End to end: from the first message sent to the last one taken by its site. The server has core {MTA_CORE} with all its processes and threads; load,",
        f"receivers and name server share core {LOAD_CORE}. A site is a domain with an exchanger at a loopback address of its own; messages go to the sites in",
        f"turn, 50 sessions send them. One run of about {asked.seconds} s each, every body checked. Over TLS the receivers offer STARTTLS and the servers do what",
        "they do by default. Figures are messages a second, and in brackets Ringpost's rate as a multiple.",
        "",
    ]
    head = ["messages", "sites", *[peer.label for peer in chosen]]
    out += [section.row(head), section.row(["---", "---:"] + ["---:"] * len(chosen))]
    for size, channel, sites in cells(asked):
        cell = [f"{size}, {channel}", f"{sites:,}"]
        own = results.get("ringpost", {}).get((size, channel, sites))
        for peer in chosen:
            found = results[peer.name].get((size, channel, sites))
            if not found:
                cell.append("fails")
            elif peer.name == "ringpost" or not own:
                cell.append(f"**{found['rate']:,.0f}**" + (" †" if found["load_busy"] > LOAD_LIMIT else ""))
            else:
                cell.append(f"{found['rate']:,.0f} (**{own['rate'] / found['rate']:.1f} ×**)")
        out.append(section.row(cell))
    out += ["", f"Wanted: ≥ {WANTED} × in each row. † core {LOAD_CORE} was busy for more than {LOAD_LIMIT:.0%} of the time, and is the limit."]
    for peer in chosen:
        text = peer.configuration(True).replace(str(RUN), "target/peers/run")
        out += ["", f"{peer.label}:", "```", *text.rstrip().splitlines(), "```"]
    return out


if __name__ == "__main__":
    main()
