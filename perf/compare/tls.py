#!/usr/bin/env python3
"""Handshakes a second, full and resumed, Ringpost beside Postfix, OpenSMTPD and itself with the key in process; what a flood
of them does to plain sessions; and the relay over TLS.

    perf/compare/tls.py --ringpost BINARY --load BINARY --in-process BINARY [--only ringpost,postfix] [--rounds 3] [--seconds 3]

`load` and `in_process` are examples of ringpost-bench. Needs root, like compare.sh.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True

import measure
import peers
import section
from peers import LOAD_CORE, MTA_CORE, PORT, RELAY_PORT, RUN, pinned

# Beside the port for STARTTLS, one where TLS begins with the first byte.
SECURE_PORT = PORT + 2
KINDS = {"ecdsa": "ECDSA P-256", "rsa": "RSA-2048"}
# What is measured of each server: the certificate's kind, the tool's options.
HANDSHAKES = {
    "full ECDSA": ("ecdsa", []),
    "full RSA": ("rsa", []),
    "full ECDSA, smtps": ("ecdsa", ["--smtps"]),
    "full RSA, smtps": ("rsa", ["--smtps"]),
    "resumed": ("rsa", ["--resume"]),
    "resumed, smtps": ("rsa", ["--resume", "--smtps"]),
    "full RSA, TLS 1.2": ("rsa", ["--versions", "1.2"]),
    "resumed, TLS 1.2": ("rsa", ["--resume", "--versions", "1.2"]),
    "the same session without TLS": ("rsa", ["--plain"]),
}
PLAIN = "the same session without TLS"
CONNECTIONS = 50
# Plain sessions a second beside the flood: a connection and a message each.
PLAIN_RATE = 500
# Handshakes a second beside them: none, more than Postfix makes at most, and as many as 50 clients get.
FLOODS = {"calm": None, "paced": ["--rate", 1000], "full": []}
# A 99th percentile wants more sessions than a rate does.
FLOOD_SECONDS_MIN = 4


def certificate(kind):
    return RUN / "tls" / f"{kind}.crt", RUN / "tls" / f"{kind}.key"


def make_certificates():
    (RUN / "tls").mkdir(parents=True, exist_ok=True)
    for kind, words in (("ecdsa", ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]), ("rsa", ["rsa:2048"])):
        cert, key = certificate(kind)
        command = ["openssl", "req", "-x509", "-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        command += ["-days", "30", "-keyout", key, "-out", cert, "-newkey", *words]
        subprocess.run(command, check=True, capture_output=True)
        key.chmod(0o600)


def inside(path):
    """The same file where a rival runs."""
    return str(path).replace(str(RUN), "/mnt/run")


class Ringpost(peers.Ringpost):
    def __init__(self, binary, kind="ecdsa", channel=None):
        super().__init__(binary)
        self.kind, self.channel = kind, channel

    def configuration(self, relay):
        cert, key = certificate(self.kind)
        lines = [
            "shards 1",
            "smtp limit max-mails 1000000 max-sessions-per-source 10000",
            f'pki "localhost" cert "{cert}" key "{key}"',
            f'listen on 127.0.0.1 port {PORT} tls pki "localhost"',
            f'listen on 127.0.0.1 port {SECURE_PORT} smtps pki "localhost"',
            f"http listen on 127.0.0.1 port {PORT + 5}",
            f'action "out" {self.channel or "discard"}',
            'match from any for any action "out"',
        ]
        return "\n".join(lines) + "\n"


class InProcess(peers.Peer):
    name, label = "in-process", "key in process"

    def __init__(self, binary, kind="ecdsa"):
        super().__init__()
        self.binary, self.kind = pathlib.Path(binary).resolve(), kind

    def version(self):
        return "its example"

    def configuration(self, relay):
        return f"in_process 127.0.0.1:{PORT}\n"

    def command(self, relay):
        return [self.binary, f"127.0.0.1:{PORT}", RUN / self.name / "state", *certificate(self.kind)]


class Postfix(peers.Postfix):
    kind = "ecdsa"

    def main_cf(self, relay):
        cert, key = map(inside, certificate(self.kind))
        lines = ["smtpd_tls_security_level = may", f"smtpd_tls_cert_file = {cert}", f"smtpd_tls_key_file = {key}"]
        return super().main_cf(relay) + "\n".join(lines) + "\n"

    def master_cf(self):
        return super().master_cf() + f"127.0.0.1:{SECURE_PORT} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes\n"


class OpenSmtpd(peers.OpenSmtpd):
    kind = "ecdsa"

    def configuration(self, relay):
        cert, key = map(inside, certificate(self.kind))
        lines = [
            f'pki "localhost" cert "{cert}"',
            f'pki "localhost" key "{key}"',
            f'listen on 127.0.0.1 port {PORT} tls pki "localhost"',
            f'listen on 127.0.0.1 port {SECURE_PORT} smtps pki "localhost"',
            f'action "out" relay host "smtp://127.0.0.1:{RELAY_PORT}"',
            'match from any for any action "out"',
        ]
        return "\n".join(lines) + "\n"


def handshakes(load, seconds, options):
    """The tool's summary, and how busy the cores were; `per_core`: handshakes for each second of the server's core."""
    port = SECURE_PORT if "--smtps" in options else PORT
    command = [load, "handshakes", f"127.0.0.1:{port}", "--json", "-c", CONNECTIONS, "-t", f"{seconds}s", *options]
    cores = measure.Cores()
    out = subprocess.run(pinned(LOAD_CORE, command), capture_output=True, text=True, timeout=seconds * 4 + 60)
    if out.returncode != 0:
        raise RuntimeError(f"handshakes: {out.stderr.strip()}")
    summary = json.loads(out.stdout)
    busy = cores.busy(summary["handshakes"])
    if summary["handshakes"] == 0 or summary["failed"] > summary["handshakes"] / 10:
        raise RuntimeError(f"{summary['failed']} of {summary['handshakes']} failed: {summary['failures']}")
    return {**summary, **busy, "per_core": 1e6 / busy["mta_us_each"]}


def first(command):
    """The same command before all others on its core: the flood's client must not keep the other one from measuring."""
    return ["chrt", "-f", "1", *command]


def last(command):
    """After all others: the kernel flushes the disk from a worker on the load's core, and that must not wait for the load."""
    return ["chrt", "-i", "0", *command]


def plain(load, seconds, flood):
    """Plain sessions at their rate, alone or while others make handshakes: `flood` are their options, or none."""
    other = None
    if flood is not None:
        words = [load, "handshakes", f"127.0.0.1:{PORT}", "--json", "-c", CONNECTIONS, "-t", f"{seconds + 2}s", *flood]
        other = subprocess.Popen(last(pinned(LOAD_CORE, words)), stdout=subprocess.PIPE, text=True)
        time.sleep(1)
    try:
        command = [load, "source", f"127.0.0.1:{PORT}", "--quiet", "--json", "-c", 20, "-k", 1, "-p", "group"]
        command += ["--rate", PLAIN_RATE, "-t", f"{seconds}s"]
        out = subprocess.run(first(pinned(LOAD_CORE, command)), capture_output=True, text=True, timeout=seconds * 4 + 60)
        if out.returncode != 0:
            raise RuntimeError(f"source: {out.stderr.strip()}")
        found = json.loads(out.stdout)
        if other:
            found["flood"] = json.loads(other.communicate(timeout=30)[0])["rate"]
    finally:
        if other:
            other.kill()
    if found["refused"] or found["dropped"]:
        raise RuntimeError(f"refused {found['refused']}, dropped {found['dropped']}")
    return found


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    path = lambda text: pathlib.Path(text).resolve()
    parser.add_argument("--ringpost", required=True, type=path)
    parser.add_argument("--load", required=True, type=path, help="the example `load` of ringpost-bench")
    parser.add_argument("--in-process", required=True, type=path, help="its example `in_process`")
    parser.add_argument("--only", default="ringpost,in-process,postfix,opensmtpd")
    parser.add_argument("--parts", default="handshakes,flood,relay", help="what is measured")
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--seconds", default=3, type=int)
    parser.add_argument("--out", default=section.PAGE, type=pathlib.Path)
    return parser.parse_args()


def attempt(name, run):
    """What it gives; a measurement that fails leaves the others."""
    try:
        return run()
    except Exception as error:
        print(f"    {name}: {error}", file=sys.stderr, flush=True)
        return None


def measure_handshakes(asked, chosen, number, results):
    """One round. What is compared comes one right after the other, and its ratio is taken for each round: the host's other
    machines make the same work a third slower or faster from one minute to the next."""
    for name, (kind, words) in HANDSHAKES.items():
        for peer in chosen:
            if peer.name == "in-process" and "--smtps" in words:
                continue
            peer.kind = kind
            peer.start(relay=False)
            one = attempt(f"{peer.name}, {name}", lambda: handshakes(asked.load, asked.seconds, words))
            peer.stop()
            if one:
                results[peer.name].setdefault(name, {})[number] = one
                line = f"{one['rate']:.0f}/s, {one['per_core']:.0f} for a whole core, {one['resumed']} of {one['handshakes']} resumed"
                print(f"  {peer.name}, {name}: {line}, load {one['load_busy']:.0%}", flush=True)


def measure_flood(asked, peer, number, found):
    peer.kind = "ecdsa"
    peer.start(relay=False)
    plain(asked.load, 1, None)
    for name, flood in FLOODS.items():
        one = attempt("plain sessions", lambda: plain(asked.load, max(asked.seconds, FLOOD_SECONDS_MIN), flood))
        if one:
            found.setdefault(name, {})[number] = one
            p99 = {step["step"]: step["p99_us"] for step in one["steps"]}
            print(f"  plain sessions beside {one.get('flood', 0):.0f} handshakes/s: p99 {p99} µs", flush=True)
    peer.stop()


CHANNELS = {"plain": "smtp+notls", "tls": "smtp+tls"}


def measure_relay(asked, found):
    for name, scheme in CHANNELS.items():
        peer = Ringpost(asked.ringpost, channel=f'relay host "{scheme}://127.0.0.1:{RELAY_PORT}"' + (" tls no-verify" if name == "tls" else ""))
        cert, key = certificate("ecdsa")
        rates = [run["rate"] for run in found.get(name, [])]
        count = int((rates[-1] if rates else 5000) * asked.seconds)
        timeout = asked.seconds * 6 + 30
        sink = ["--cert", cert, "--key", key]
        one = attempt(f"relay, {name}", lambda: measure.relay(peer, asked.load, count, timeout, sink))
        if one:
            found.setdefault(name, []).append(one)
            print(f"  relay, {name}: {one['rate']:.0f}/s over {one['sink_connections']} connections", flush=True)


def main():
    asked = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    peers.PEERS.mkdir(parents=True, exist_ok=True)
    RUN.mkdir(parents=True, exist_ok=True)
    peers.fetch_packages()
    make_certificates()
    ringpost = Ringpost(asked.ringpost)
    known = [ringpost, InProcess(asked.in_process), Postfix(), OpenSmtpd()]
    chosen = [peer for peer in known if peer.name in asked.only.split(",")]
    results = {"handshakes": {peer.name: {} for peer in chosen}, "flood": {}, "relay": {}}
    parts = asked.parts.split(",")
    try:
        for number in range(asked.rounds):
            print(f"round {number + 1} of {asked.rounds}", flush=True)
            if "handshakes" in parts:
                measure_handshakes(asked, chosen, number, results["handshakes"])
            if "flood" in parts:
                measure_flood(asked, ringpost, number, results["flood"])
            if "relay" in parts:
                measure_relay(asked, results["relay"])
    finally:
        for peer in known:
            peer.stop()
            shutil.rmtree(RUN / peer.name, ignore_errors=True)
    (peers.PEERS / "tls.json").write_text(json.dumps(results, indent=1))
    ringpost.kind = "ecdsa"
    section.write("tls", "tls.py", lines(chosen, ringpost, results, asked), asked.out)


def p99_of(run, step):
    return next(row["p99_us"] for row in run["steps"] if row["step"] == step) / 1000


def lines(chosen, ringpost, results, asked):
    versions = [f"{peer.label} {peer.version()}" for peer in chosen if peer.name != "in-process"]
    out = ["## TLS", "", section.measured("tls.py", *versions), ""]
    out += [
        f"The server has core {MTA_CORE} with all its processes and threads, the load core {LOAD_CORE}: {CONNECTIONS} connections at a time, each greets, makes a",
        "handshake, says QUIT and counts once that is answered; the client checks neither certificate nor signature. Medians of",
        f"{asked.rounds} rounds of {asked.seconds} s (lowest to highest), of ratios too: each is taken within a round, where what is compared comes",
        f"one right after the other; 99th percentiles are of {max(asked.seconds, FLOOD_SECONDS_MIN)} s. Rates are for a whole core: what was measured, divided by the part of the time",
        f"that core {MTA_CORE} worked for it (what the host gave to other machines is left out). TLS 1.3, X25519. *Key in process*: the same shard, sessions and journal, but",
        "the key in the shard's own process and the signature made on the spot (`perf/bench/examples/in_process.rs`), which the server cannot do.",
        "*Resumed*: with the server's tickets and the RSA certificate. Debian's OpenSMTPD 6.8.0p2 offers TLS, but linked with OpenSSL 3 it has no key",
        "for a handshake (its issue 1171).",
        "",
        *handshake_table(chosen, results["handshakes"]),
        "",
        *wanted_table(results),
    ]
    for peer in chosen:
        if peer.name == "in-process":
            continue
        peer.kind = "ecdsa"
        text = peer.configuration(False).replace(str(RUN), "target/peers/run")
        out += ["", f"{peer.label}, with the ECDSA certificate:", "```", *text.rstrip().splitlines(), "```"]
    return out


def handshake_table(chosen, found):
    out = [section.row(["handshakes/s", *[peer.label for peer in chosen]]), section.row(["---"] + ["---:"] * len(chosen))]
    for name in HANDSHAKES:
        cells = []
        for peer in chosen:
            runs = found[peer.name].get(name)
            if not runs:
                cells.append("fails" if peer.name == "opensmtpd" else "–")
            elif "resumed" in name and all(run["resumed"] == 0 for run in runs.values()):
                cells.append("resumes none")
            else:
                cells.append(section.spread([run["per_core"] for run in runs.values()]))
        out.append(section.row([name, *cells]))
    return out


def wanted_table(results):
    found, flood, relay = results["handshakes"], results["flood"], results["relay"]
    own, beside = found.get("ringpost", {}), found.get("in-process", {})
    middle = lambda runs, key: section.median([run[key] for run in runs])
    rows = []

    def ratio(what, wanted, form, of, *runs):
        """A row: the ratio of these runs of a round, of all rounds that have them all."""
        rounds = [number for number in runs[0] or {} if all(number in (run or {}) for run in runs)]
        ratios = [of(*[run[number] for run in runs]) for number in rounds]
        if ratios:
            rows.append([what, section.spread(ratios, form=form, to=" to "), wanted])

    rates = lambda one, other: one["per_core"] / other["per_core"]
    cost = lambda run, clear: 1 / run["per_core"] - 1 / clear["per_core"]
    rise = lambda one, other: p99_of(one, "message") / p99_of(other, "message") - 1
    alone = lambda resumed, full, clear: cost(full, clear) / cost(resumed, clear)
    share, times, growth = "{:.0%}".format, "{:.1f} ×".format, "{:+.0%}".format
    for name in ("full ECDSA", "full RSA"):
        ratio(f"{name}: isolated keys, of the rate with the key in process", "≥ 80 %", share, rates, own.get(name), beside.get(name))
    for kind in ("", ", smtps", ", TLS 1.2"):
        resumed, full = own.get(f"resumed{kind}"), own.get(f"full RSA{kind}")
        where = kind or ", STARTTLS"
        ratio(f"resumed, of full RSA-2048 ones, the whole sessions{where}", "", times, rates, resumed, full)
        what = f"resumed, of full RSA-2048 ones, the handshakes: without what a session costs in clear{where}"
        ratio(what, "≥ 5 ×", times, alone, resumed, full, own.get(PLAIN))
    for name in ("paced", "full"):
        if flood.get("calm") and flood.get(name):
            calm, busy = (section.median([p99_of(run, "message") for run in flood[which].values()]) for which in ("calm", name))
            rate = middle(flood[name].values(), "flood")
            what = f"p99 of {PLAIN_RATE} plain sessions/s, a message each, beside {rate:,.0f} full handshakes/s: {calm:.2f} ms without, {busy:.2f} ms with"
            ratio(what, "≤ +20 %", growth, rise, flood[name], flood["calm"])
    if relay.get("plain") and relay.get("tls"):
        clear, secure = middle(relay["plain"], "rate"), middle(relay["tls"], "rate")
        what = f"relay over TLS on reused connections, of the plain relay: {secure:,.0f} of {clear:,.0f} messages/s"
        rows.append([what, f"{secure / clear:.0%}", "≥ 60 %"])
    return [section.row(["", "measured", "wanted"]), section.row(["---", "---:", "---:"]), *map(section.row, rows)]


if __name__ == "__main__":
    main()
