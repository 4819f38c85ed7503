"""A section of docs/performance.md between marks of its own; what people wrote around it stays."""

import datetime
import os
import pathlib
import statistics

import peers

PAGE = peers.ROOT / "docs" / "performance.md"


def write(name, script, lines, page=PAGE):
    """Replaces what stands between the marks of `name`; a new section goes to the end."""
    page = pathlib.Path(page)
    begin, end = f"<!-- {name}: begin (perf/compare/{script} writes this part) -->", f"<!-- {name}: end -->"
    old = page.read_text() if page.exists() else "# Performance\n"
    if begin not in old or end not in old:
        old = f"{old.rstrip()}\n\n{begin}\n{end}\n"
    head, rest = old.split(begin, 1)
    tail = rest.split(end, 1)[1]
    page.write_text(f"{head}{begin}\n" + "\n".join(lines) + f"\n{end}{tail}")


def measured(script, *versions):
    """When, by what, where."""
    cores = os.cpu_count()
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    return f"Measured {datetime.date.today().isoformat()} by `perf/compare/{script}` with {', '.join(versions)}; {cores} cores: {cpu}."


def median(values):
    return statistics.median(values)


def spread(values, digits=0, form=None, to="–"):
    """`**median** (lowest–highest)`, as `form` writes them, or as numbers with so many digits."""
    form = form or f"{{:,.{digits}f}}".format
    return f"**{form(median(values))}** ({form(min(values))}{to}{form(max(values))})"


def row(cells):
    return "| " + " | ".join(str(cell) for cell in cells) + " |"
