"""The tables of docs/performance.md, between two marks; what people wrote around them stays."""

import datetime
import platform
import statistics
import subprocess

import measure
import peers

BEGIN, END = "<!-- measured: begin (perf/compare/compare.sh writes this part) -->", "<!-- measured: end -->"
RIVALS = ("postfix", "opensmtpd", "smtp-sink")


def write(asked, chosen, results):
    text = "\n".join(sections(asked, chosen, results))
    old = asked.out.read_text() if asked.out.exists() else f"# Performance\n\n{BEGIN}\n{END}\n"
    if BEGIN not in old or END not in old:
        old = old.rstrip() + f"\n\n{BEGIN}\n{END}\n"
    head, rest = old.split(BEGIN, 1)
    tail = rest.split(END, 1)[1]
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}")


def shown(text):
    """A configuration as it is shown: without where this machine keeps its files."""
    return text.rstrip().replace(str(peers.RUN), "target/peers/run").splitlines()


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def number(value, digits=0):
    if value is None:
        return "–"
    return f"{value:,.{digits}f}"


def sections(asked, chosen, results):
    by_name = results["peers"]
    out = machine(asked, chosen, results)
    out += ["", "## Inbound: messages of 4 KiB, durable at the 250", ""]
    out += [
        f"Messages per second, medians of {asked.rounds} rounds of {asked.seconds} s (lowest to highest), {measure.SESSIONS} sessions. "
        f"The server has core {peers.MTA_CORE}, which is the one that takes the disk's interrupts, the load core {peers.LOAD_CORE}. In brackets how busy the server's core was: below 95 % the load, or the disk, was the limit.",
        "",
    ]
    loads = [
        ("smtp-source reused", "smtp-source, reused connections"),
        ("smtp-source single", "smtp-source, a connection each"),
        ("ours reused", "ringpost bench, reused, pipelined"),
        ("ours in turns", "ringpost bench, reused, each body after its 354"),
        ("ours single", "ringpost bench, a connection each"),
    ]
    out += rates(chosen, by_name, loads)
    out += [
        "",
        f"Time of core {peers.MTA_CORE} for each message, in µs: the server, the kernel's work for its sockets and its disk. What the host gave to other",
        "machines meanwhile is left out, so that this is steadier than the rates.",
        "",
    ]
    out += costs(chosen, by_name, [*loads, *((f"half of {name}", title) for name, title in measure.HALF_LOADS.items())])
    out += ["", "## Relay through a smart host, end to end", ""]
    out += [f"Source and sink on core {peers.LOAD_CORE}, the server on core {peers.MTA_CORE}; until the last message is at the sink.", ""]
    out += relays(chosen, by_name)
    out += ["", "## Latency of the reply to the end of the message, at half of the saturation rate", ""]
    out += [
        f"MAIL, RCPT and DATA in one write, the body in another, on reused connections; each server has run at full speed for {measure.WARM_SECONDS} s before. The client",
        "asks for answers without a pause (`--spin`): here a sleeping one costs the server 40 µs to wake and needs as long to come to",
        "itself, and none on another machine does.",
        f"Medians of {asked.rounds * asked.seconds} pieces of a second; the last ratio is taken within each of them (lowest to highest): the disk is asked right before.",
        "",
    ]
    out += latency(chosen, results)
    out += ["", "## System calls for each message, reused pipelined connections", ""]
    out += counts(chosen, by_name)
    out += ["", "## Configurations", ""]
    for peer in chosen:
        inbound, relay = (shown(peer.configuration(relay)) for relay in (False, True))
        out += [f"{peer.label} {peer.version()}, inbound:", "```", *inbound, "```"]
        if peer.relays:
            lost = [line for line in inbound if line not in relay and not line.startswith("#")]
            new = [line for line in relay if line not in inbound]
            out += ["For the relay run:", "```diff", *[f"-{line}" for line in lost], *[f"+{line}" for line in new], "```"]
    return out


def machine(asked, chosen, results):
    def said(*command):
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
        except OSError:
            return ""

    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    # Names of devices and mounts are this machine's business; the kind of file system and disk is not.
    disk = said("findmnt", "-no", "FSTYPE,OPTIONS", "-T", str(peers.RUN))
    device = said("findmnt", "-no", "SOURCE", "-T", str(peers.RUN)).split("/")[-1]
    cache = fua = "?"
    try:
        cache = open(f"/sys/block/{device}/queue/write_cache").read().strip()
        fua = open(f"/sys/block/{device}/queue/fua").read().strip()
    except OSError:
        pass
    versions = ", ".join(f"{peer.label} {peer.version()}" for peer in chosen)
    cores = said("nproc")
    return [
        f"Measured {datetime.date.today().isoformat()} by `perf/compare/compare.sh` with: {versions}.",
        "",
        f"- kernel {platform.release()}, {cores} cores: {cpu}",
        f"- disk: {' '.join(disk.split())}; write cache: {cache}, FUA: {fua}",
        f"- before each round the two cores were {', '.join(f'{share:.0%}' for share in results['others'])} busy with other things"
        + (": **not a quiet machine, take the figures as provisional**" if max(results["others"]) > 0.1 else ""),
        "- Each server: one core, empty queue, everything on that disk with the durability it has by default. Rivals do not pay for",
        "  deliveries: Postfix holds its messages, OpenSMTPD's relaying is paused; neither writes a log (no syslog daemon runs).",
        "  Ringpost runs with `--quiet`; its action is `discard`. `smtp-sink` is Postfix's test program that throws away what it gets, without any disk.",
        "- The load runs in the scheduling class `SCHED_IDLE`: the kernel's workers for the disk, some of which land on its core, do not wait",
        "  for its time slice. With clients on other machines they would not either.",
    ]


def rates(chosen, by_name, loads):
    ringpost = by_name.get("ringpost")
    head = ["load", *[peer.label for peer in chosen]]
    head += [f"Ringpost : {name}" for name in RIVALS if ringpost and name in by_name]
    lines = [row(head), row(["---"] + ["---:"] * (len(head) - 1))]
    for key, title in loads:
        cells, medians = [title], {}
        for peer in chosen:
            runs = [run[key] for run in by_name[peer.name]["inbound"] if run.get(key)]
            values = [run["rate"] for run in runs]
            medians[peer.name] = median(values)
            if not values:
                cells.append("–")
                continue
            busy = median([run["mta_busy"] for run in runs])
            cells.append(f"**{number(medians[peer.name])}** ({number(min(values))}–{number(max(values))}) [{busy:.0%}]")
        cells += ratios(medians, by_name)
        lines.append(row(cells))
    return lines


def costs(chosen, by_name, loads):
    lines = [row(["load", *[peer.label for peer in chosen]]), row(["---"] + ["---:"] * len(chosen))]
    for key, title in loads:
        cells = [title]
        for peer in chosen:
            runs = [run[key] for run in by_name[peer.name]["inbound"] if run.get(key)]
            each = [run["mta_us_each"] for run in runs]
            cells.append(f"**{number(median(each))}** ({number(min(each))}–{number(max(each))})" if each else "–")
        lines.append(row(cells))
    return lines


def ratios(medians, by_name):
    if "ringpost" not in by_name:
        return []
    own = medians.get("ringpost")
    rivals = [medians.get(name) for name in RIVALS if name in by_name]
    return [f"{own / rival:.1f}" if own and rival else "–" for rival in rivals]


def relays(chosen, by_name):
    chosen = [peer for peer in chosen if peer.relays]
    medians = {peer.name: median([run["rate"] for run in by_name[peer.name]["relay"] if run]) for peer in chosen}
    head = ["", *[peer.label for peer in chosen]]
    extra = [f"Ringpost : {name}" for name in RIVALS if "ringpost" in medians and name in medians]
    lines = [row(head + extra), row(["---"] + ["---:"] * (len(head + extra) - 1))]
    own = {name: by_name[name] for name in medians}
    lines.append(row(["messages per second", *[f"**{number(medians[peer.name])}**" for peer in chosen], *ratios(medians, own)]))
    shares = []
    for peer in chosen:
        inbound = median([run["ours reused"]["rate"] for run in by_name[peer.name]["inbound"] if run.get("ours reused")])
        shares.append(f"{medians[peer.name] / inbound:.0%}" if inbound and medians[peer.name] else "–")
    lines.append(row(["of its own inbound rate", *shares, *["" for _ in extra]]))
    return lines


def latency(chosen, results):
    probes = results["probe"]
    lines = [row(["milliseconds", "rate", "p50", "p90", "p99", "p99.9", "p99 : disk's p99 right before", "stolen"])]
    lines.append(row(["---"] + ["---:"] * 7))
    floor = median([probe["fdatasync"]["p99_us"] for probe in probes])
    for name, key in (("disk: overwrite 4 KiB + fdatasync", "fdatasync"), ("disk: O_DIRECT, O_DSYNC overwrite of 4 KiB", "direct")):
        found = [probe[key] for probe in probes if probe.get(key)]
        stolen = median([probe["stolen"] for probe in probes])
        lines.append(row([name, "", *quantiles(found), ratio(found, floor), f"{stolen:.1%}"]))
    for name, title in measure.HALF_LOADS.items():
        for peer in chosen:
            inbound = results["peers"][peer.name]["inbound"]
            runs = [run[f"half of {name}"] for run in inbound if run.get(f"half of {name}")]
            pieces = [piece for run in runs for piece in run["pieces"]]
            steps = [measure.step(piece, "end-of-data") for piece in pieces]
            of_disk = [step["p99_us"] / piece["disk_p99_us"] for step, piece in zip(steps, pieces)]
            rate = median([run["rate"] for run in runs])
            stolen = median([piece["stolen"] for piece in pieces])
            share = "–" if stolen is None else f"{stolen:.1%}"
            lines.append(row([f"{peer.label}, {title}", number(rate), *quantiles(steps), spread(of_disk), share]))
    lines += ["", "*Stolen*: how much of the time the host took one of the two cores away for other machines. From one percent on the 99th percentile is"]
    lines += ["the length of such an absence, for whoever is asked at a steady rate; the disk is asked again only when it has answered."]
    return lines


def quantiles(rows):
    found = [median([each[key] for each in rows]) for key in ("p50_us", "p90_us", "p99_us", "p999_us")]
    return [number(value / 1000 if value is not None else None, 3) for value in found]


def spread(values):
    return f"**{median(values):.1f}** ({min(values):.1f}–{max(values):.1f})" if values else "–"


def ratio(rows, floor):
    p99 = median([each["p99_us"] for each in rows])
    return f"{p99 / floor:.1f}" if p99 and floor else "–"


def counts(chosen, by_name):
    columns = ["", "system calls", "ring operations", "together", "fsync + fdatasync", "ring writes", "strace: system calls"]
    columns += ["strace: fsync + fdatasync", "strace: the most frequent"]
    lines = [row(columns), row(["---"] + ["---:"] * 7 + ["---"])]
    notes = []
    for peer in chosen:
        found = by_name[peer.name]["counts"] or {}
        perf, strace = found.get("perf") or {}, found.get("strace") or {}
        both = [perf.get("system_calls"), perf.get("ring_operations")]
        together = sum(both) if None not in both else None
        syncs = [perf.get("fsync"), perf.get("fdatasync")]
        traced = strace.get("syncs", {})
        traced = traced.get("fsync", 0) + traced.get("fdatasync", 0) if traced else None
        top = ", ".join(f"{name} {value:.2f}" for name, value in list(strace.get("top", {}).items())[:7])
        cells = [number(value, 2) for value in (*both, together)]
        cells += [number(sum(syncs) if None not in syncs else None, 3), number(perf.get("ring_writes"), 3)]
        lines.append(row([peer.label, *cells, number(strace.get("system_calls"), 2), number(traced, 3), top]))
        for sessions, (commits, received) in (found.get("own") or {}).items():
            notes.append(
                f"By its own counters Ringpost made {commits:,.0f} synchronous writes (batches of messages and of states) "
                f"for {received:,.0f} messages from {sessions} sessions, {commits / max(1, received):.4f} for each."
            )
        quiet = perf.get("fsync") == 0 and perf.get("fdatasync") == 0 and not perf.get("ring_writes")
        if quiet and peer.name != "smtp-sink":
            notes.append(f"{peer.label} asked for no sync at all: what it has answered may be lost when the machine stops.")
    lines += ["", "Counted by tracepoints (`perf stat`) at full speed, and by `strace -f -c`, which slows the server down."]
    lines += ["A *ring operation* is one entry given to io_uring; *ring writes* are those that write or sync a descriptor.", *notes]
    return lines


def row(cells):
    return "| " + " | ".join(cells) + " |"
