#!/usr/bin/env python3
"""Ringpost beside Postfix, OpenSMTPD and smtp-sink: same core, same load, one after the other. See compare.sh."""

import argparse
import json
import os
import pathlib
import shutil
import signal
import sys
import traceback

sys.dont_write_bytecode = True

import measure
import peers
import table


def options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ringpost", default=peers.ROOT / "target/dist/ringpost", type=pathlib.Path)
    parser.add_argument("--load", required=True, type=pathlib.Path, help="the example `load` of ringpost-bench")
    parser.add_argument("--only", default="ringpost,postfix,opensmtpd,smtp-sink")
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--seconds", default=5, type=int, help="length of each measurement")
    parser.add_argument("--out", default=peers.ROOT / "docs/performance.md", type=pathlib.Path)
    return parser.parse_args()


def inbound(peer, load, seconds):
    """One round of inbound measurements. Each begins with an empty queue."""
    found = {}

    def attempt(name, run):
        try:
            peer.start(relay=False)
            found[name] = run()
        except Exception as error:  # a peer that fails one measurement still has the others
            print(f"    {name}: {error}", file=sys.stderr)
            found[name] = None
        finally:
            peer.stop()
        if found[name]:
            print(f"    {name}: {found[name]['rate']:.0f}/s", flush=True)

    single_sessions = 4 if peer.name == "opensmtpd" else measure.SESSIONS
    attempt("smtp-source reused", lambda: measure.saturate_smtp_source(True, seconds))
    attempt("smtp-source single", lambda: measure.saturate_smtp_source(False, seconds, single_sessions))
    attempt("ours reused", lambda: measure.our_source(load, seconds))
    attempt("ours in turns", lambda: measure.our_source(load, seconds, *measure.IN_TURNS))
    attempt("ours single", lambda: measure.our_source(load, seconds, "-k", 1))
    for name in measure.HALF_LOADS:
        saturation = found[name]
        if saturation:
            attempt(f"half of {name}", lambda: measure.half_load(load, seconds, saturation["rate"] / 2))
    return found


def relayed(peer, load, seconds, guess):
    count = max(500, int(guess * seconds))
    try:
        found = measure.relay(peer, load, count, timeout=seconds * 6 + 30)
        print(f"    relay: {found['rate']:.0f}/s", flush=True)
        return found
    except Exception as error:
        print(f"    relay: {error}", file=sys.stderr)
        return None


def counted(peer, load, seconds):
    try:
        peer.start(relay=False)
        counts = measure.system_calls(peer, load, seconds)
        if peer.name == "ringpost":
            counts["own"] = {}
            for sessions in (measure.SESSIONS, 4 * measure.SESSIONS):
                before = [peer.metric(name) for name in RING_METRICS]
                measure.our_source(load, seconds, sessions=sessions)
                after = [peer.metric(name) for name in RING_METRICS]
                if None not in before + after:
                    counts["own"][sessions] = [after[0] - before[0], after[1] - before[1]]
        return counts
    except Exception as error:
        print(f"    counts: {error}", file=sys.stderr)
        return None
    finally:
        peer.stop()


RING_METRICS = ("ringpost_commits_total", "ringpost_messages_received_total")


def main():
    asked = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    peers.PEERS.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(peers.RUN, ignore_errors=True)
    peers.RUN.mkdir()
    peers.fetch_packages()
    known = [peers.Ringpost(asked.ringpost), peers.Postfix(), peers.OpenSmtpd(), peers.SmtpSink()]
    chosen = [peer for peer in known if peer.name in asked.only.split(",")]
    if chosen and chosen[0].name == "ringpost" and not asked.ringpost.is_file():
        sys.exit(f"compare: no {asked.ringpost}; build it with `cargo build --profile dist`, or name the others with --only")
    results = {"others": [], "probe": [], "peers": {peer.name: {"inbound": [], "relay": [], "counts": None} for peer in chosen}}
    try:
        for number in range(asked.rounds):
            print(f"round {number + 1} of {asked.rounds}", flush=True)
            os.sync()
            results["others"].append(measure.others())
            results["probe"].append(measure.probe(asked.load))
            for peer in chosen:
                print(f"  {peer.name}", flush=True)
                own = results["peers"][peer.name]
                own["inbound"].append(inbound(peer, asked.load, asked.seconds))
                if peer.relays:
                    rates = [run["rate"] for run in own["relay"] if run]
                    saturation = own["inbound"][-1]["ours reused"]
                    guess = rates[-1] if rates else (saturation["rate"] / 4 if saturation else 100)
                    own["relay"].append(relayed(peer, asked.load, asked.seconds, guess))
        for peer in chosen:
            print(f"  system calls of {peer.name}", flush=True)
            results["peers"][peer.name]["counts"] = counted(peer, asked.load, asked.seconds)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    finally:
        for peer in known:
            peer.stop()
        for peer in known:
            shutil.rmtree(peers.RUN / peer.name, ignore_errors=True)
    (peers.PEERS / "results.json").write_text(json.dumps(results, indent=1))
    table.write(asked, chosen, results)
    print(f"written: {os.path.relpath(asked.out)}")


if __name__ == "__main__":
    main()
