#!/usr/bin/env python3
"""Delivery to 10,000 Maildirs of virtual users who share one uid, Ringpost beside OpenSMTPD.

    perf/compare/maildir.py --ringpost BINARY [--only ringpost,opensmtpd] [--rounds 3] [--more] [--users 10000] [--out FILE]

Needs root, like compare.sh.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import socket
import sys
import time

sys.dont_write_bytecode = True

import peers
import section
from peers import LOAD_CORE, MTA_CORE, PORT, RUN

# Whose all Maildirs are, and who Ringpost runs as: nobody.
UID = 65534
MESSAGE_BYTES = 4096
# Recipients of one message.
TOGETHER = 10
DOMAIN = "users.example"
# A peer that delivers nothing for so long is given up.
PATIENCE_S = 120


class Ringpost(peers.Ringpost):
    def configuration(self, relay):
        return self.lines(
            f'table users "{RUN}/ringpost/users"',
            f'action "in" maildir "{RUN}/ringpost/mail/%{{rcpt.user}}" userbase <users>',
            'match from any for any action "in"',
        )

    def command(self, relay):
        directory = RUN / self.name
        (directory / "users").write_text(users(f"{directory}/mail"))
        (directory / "mail").mkdir()
        for path in (directory, directory / "mail"):
            os.chown(path, UID, UID)
        return ["setpriv", "--reuid", UID, "--regid", UID, "--clear-groups", *super().command(relay)]

    def delivered(self):
        return int(self.metric("ringpost_envelopes_delivered_total") or 0)

    def is_idle(self, sent):
        return self.delivered() >= sent


class OpenSmtpd(peers.OpenSmtpd):
    def configuration(self, relay):
        lines = [
            f"listen on 127.0.0.1 port {PORT}",
            "smtp limit max-mails 1000000000",
            "table users file:/mnt/run/opensmtpd/users",
            'action "in" maildir "/mnt/run/opensmtpd/mail/%{rcpt.user}" userbase <users>',
            'match from any for any action "in"',
        ]
        return "\n".join(lines) + "\n"

    def command(self, relay):
        directory = RUN / self.name
        (directory / "users").write_text(users("/mnt/run/opensmtpd/home"))
        for name in ("mail", "home"):
            (directory / name).mkdir()
            os.chown(directory / name, UID, UID)
        return super().command(relay)

    def prepare(self):
        """Nothing is paused: deliveries are what is measured."""

    def is_idle(self, sent):
        queue = RUN / self.name / "spool" / "queue"
        return not any(True for bucket in os.scandir(queue) for _ in os.scandir(bucket))


def users(home):
    return "".join(f"u{number} {UID}:{UID}:{home}\n" for number in range(asked.users))


def text_of(number):
    head = f"From: a@source.example\r\nSubject: number {number}\r\n\r\n"
    line = "x" * 70 + "\r\n"
    body = head + line * ((MESSAGE_BYTES - len(head)) // len(line))
    return body.encode() + b".\r\n"


class Client:
    """A connection; commands go ahead of their replies where the server offers that."""

    def __init__(self):
        self.socket = socket.create_connection(("127.0.0.1", PORT))
        self.socket.settimeout(PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.input = self.socket.makefile("rb")
        self.reply(220)
        self.socket.sendall(b"EHLO maildir\r\n")
        self.pipelining = any(b"PIPELINING" in line for line in self.reply(250))

    def reply(self, code):
        lines = []
        while not lines or lines[-1][3:4] == b"-":
            lines.append(self.input.readline())
            if lines[-1][:3] != str(code).encode():
                raise RuntimeError(f"{lines[-1]} instead of {code}")
        return lines

    def steps(self, recipients, number):
        """What is sent, and the replies that must come before the next is."""
        commands = [b"MAIL FROM:<a@source.example>\r\n"]
        commands += [f"RCPT TO:<u{user}@{DOMAIN}>\r\n".encode() for user in recipients]
        codes = [250] * len(commands) + [354]
        commands.append(b"DATA\r\n")
        if self.pipelining:
            commands, codes = [b"".join(commands)], [codes]
        else:
            codes = [[code] for code in codes]
        return [*zip(commands, codes), (text_of(number), [250])]


def deliver(peer, already):
    """Deliveries a second: a message to every user, from the first command until the last is in its Maildir."""
    clients = [Client() for _ in range(10)]
    groups = [range(at, min(at + TOGETHER, asked.users)) for at in range(0, asked.users, TOGETHER)]
    start = time.monotonic()
    for at in range(0, len(groups), len(clients)):
        now = [(client, client.steps(group, at + number)) for number, (client, group) in enumerate(zip(clients, groups[at:]))]
        for step in range(max(len(steps) for _, steps in now)):
            for client, steps in now:
                client.socket.sendall(steps[step][0])
            for client, steps in now:
                for code in steps[step][1]:
                    client.reply(code)
    accepted = time.monotonic()
    while not peer.is_idle(already + asked.users):
        if time.monotonic() - accepted > PATIENCE_S:
            raise RuntimeError(f"{peer.name} does not come to an end")
        time.sleep(0.02)
    took = time.monotonic() - start
    for client in clients:
        client.socket.close()
    found = sum(len(os.listdir(entry.path + "/new")) for entry in os.scandir(RUN / peer.name / "mail"))
    if found != already + asked.users:
        raise RuntimeError(f"{peer.name}: {found} messages in the Maildirs instead of {already + asked.users}")
    return {"rate": asked.users / took, "accepted": asked.users / (accepted - start)}


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ringpost", required=True, type=pathlib.Path)
    parser.add_argument("--only", default="ringpost,opensmtpd")
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--more", action="store_true", help="count the rounds of the run before, which was cut off or short, too")
    parser.add_argument("--users", default=10_000, type=int)
    parser.add_argument("--out", default=section.PAGE, type=pathlib.Path)
    return parser.parse_args()


def main():
    os.sched_setaffinity(0, {int(LOAD_CORE)})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    RUN.mkdir(parents=True, exist_ok=True)
    peers.fetch_packages()
    known = [Ringpost(asked.ringpost), OpenSmtpd()]
    chosen = [peer for peer in known if peer.name in asked.only.split(",")]
    kept = peers.PEERS / "maildir.json"
    results = {peer.name: {"new": [], "existing": []} for peer in chosen}
    if asked.more:
        results = json.loads(kept.read_text())
    try:
        for number in range(asked.rounds):
            for peer in chosen:
                # What an earlier round has left is thrown away before, not while the next one runs.
                for other in known:
                    shutil.rmtree(RUN / other.name, ignore_errors=True)
                os.sync()
                time.sleep(2)
                peer.start(relay=False)
                for turn, kind in enumerate(("new", "existing")):
                    found = deliver(peer, turn * asked.users)
                    results[peer.name][kind].append(found)
                    print(f"round {number + 1}: {peer.name}, {kind}: {found['rate']:.0f}/s, accepted {found['accepted']:.0f}/s", flush=True)
                    os.sync()
                peer.stop()
            kept.write_text(json.dumps(results, indent=1))
    finally:
        for peer in known:
            peer.stop()
            shutil.rmtree(RUN / peer.name, ignore_errors=True)
    section.write("maildir", "maildir.py", lines(chosen, results), asked.out)


def lines(chosen, results):
    versions = [f"{peer.label} {peer.version()}" for peer in chosen]
    rounds = len(results[chosen[0].name]["new"])
    out = [f"## Delivery to {asked.users:,} Maildirs", "", section.measured("maildir.py", *versions), ""]
    out += [
        f"Deliveries a second to {asked.users:,} virtual users of one uid, a message of 4 KiB to each, {TOGETHER} recipients a message, from the first",
        f"command until the last is in its Maildir. Each server on core {MTA_CORE}. Medians of {rounds} rounds (lowest to highest). *New*: no Maildir is",
        "there before. Ringpost makes file and directories durable before it says that a message is delivered; OpenSMTPD the file alone.",
        "",
        section.row(["", *[peer.label for peer in chosen], *(["Ringpost : OpenSMTPD"] if len(chosen) == 2 else [])]),
        section.row(["---"] + ["---:"] * (len(chosen) + (len(chosen) == 2))),
    ]
    for kind, title in (("new", "new users"), ("existing", "users who have a Maildir")):
        rates = [[run["rate"] for run in results[peer.name][kind]] for peer in chosen]
        cells = [title, *map(section.spread, rates)]
        if len(chosen) == 2:
            cells.append(f"{section.median(rates[0]) / section.median(rates[1]):.1f}")
        out.append(section.row(cells))
    for peer in chosen:
        text = peer.configuration(False).replace(str(RUN), "target/peers/run")
        out += ["", f"{peer.label}:", "```", *text.rstrip().splitlines(), "```"]
    return out


asked = options()

if __name__ == "__main__":
    main()
