# SPDX-License-Identifier: GPL-2.0
"""The bench between two ends: kfabric over tcp, beside a bare module and iperf3. Of scripts/bench.

Two guests measure times. One guest whose time is the number of its instructions, with both ends in
it, counts instructions.
"""

import collections
import math
import re
import statistics

PROVIDER, MODULE, SERVICE, PORT = "tcp", "kfi_tcp", 4791, 4792
CPUS = 1
ROUNDS = 12
WHO = ["kfabric", "bare", "iperf3"]

# Kind, bytes, in flight, and how often it is done in one sample.
CELLS = [("stream", 65536, 32, 1024), ("stream", 1 << 20, 32, 64), ("pingpong", 64, 1, 500), ("load", 64, 256, 20000)]
QUICK = [("stream", 65536, 32, 32), ("stream", 1 << 20, 4, 4), ("pingpong", 64, 1, 20), ("load", 64, 256, 2000)]
COUNTED = [("stream", 65536, 32, 256), ("stream", 1 << 20, 32, 64), ("pingpong", 64, 1, 200), ("load", 64, 256, 4000)]
# The first round of a guest that has just booted is disturbed by what else begins.
COUNTED_ROUNDS = 3

# At least: of what the bare module does in the same time, and of iperf3.
GOALS = {("stream", 65536): 0.95, ("stream", 1 << 20): 0.95, ("pingpong", 64): 0.90}
BARE_GOAL = 0.95
MESSAGES_GOAL = 3

# Student's t for an interval of 95 %, by degrees of freedom.
T = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
     2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042]
MOST_ROUNDS = len(T) + 1
# An interval of too few rounds is cut there: at about a thousand.
BEYOND = 7

# A far end that gave up, as on a host that is very busy, begins anew.
SERVE = f"""
modprobe kfi_bench && modprobe kfi_bare port={PORT} || exit 1
(until [ -e /run/served ]; do echo serve {PROVIDER} {SERVICE} >/dev/kfi_bench; sleep 0.2; done) &
"""

# ask WHO QUESTION. What fails is asked again, of an end that was met anew, and that is told.
ASK = r"""
exec 3<>/dev/kfi_bench 4<>/dev/kfi_bare || exit 1
meet() {
	case $1 in
	kfabric) echo "meet PROVIDER ADDRESS SERVICE" >&3 ;;
	bare) echo "meet ADDRESS PORT" >&4 ;;
	esac
}
segments() {
	awk '/^Tcp:/ { if (!n++) split($0, name); else for (i in name) if (name[i] ~ /^(OutSegs|RetransSegs)$/) sum += $i }
		END { print sum }' /proc/net/snmp
}
iperf() {
	timeout 100 iperf3 -c ADDRESS -l "$1" -t 2 -O 1 -J | awk -v len="$1" -F '[:,]' '
		/"sum_received"/ { here = 1 }
		here && /"seconds"/ { seconds = $2 }
		here && /"bytes"/ { printf "%.0f %.0f %.0f\n", $2 / len, $2, seconds * 1e9; found = 1; exit }
		END { exit !found }'
}
ask() {
	for try in 1 2 3 4; do
		before=$(segments)
		case $1 in
		kfabric) echo "$2" >&3 && read -r answer <&3 ;;
		bare) echo "$2" >&4 && read -r answer <&4 ;;
		iperf3) answer=$(iperf $(echo "$2" | cut -d ' ' -f 2)) ;;
		esac && echo "bench: $1 $2: $answer $(($(segments) - before))" && return
		echo "bench: again: $1 $2"
		for n in 1 2 3 4 5; do sleep 1; meet $1 && break; done
	done
	exit 1
}
for n in 1 2 3 4 5 6 7 8 9 10; do meet kfabric 2>/dev/null && break; sleep 1; done
meet bare || exit 1
"""


def asking(address, questions):
    """A guest's script that asks them all."""
    head = ASK
    for word, value in (("PROVIDER", PROVIDER), ("ADDRESS", address), ("SERVICE", SERVICE), ("PORT", PORT)):
        head = head.replace(word, str(value))
    return head + "\n".join(f'ask {who} "{question}"' for who, question in questions)


def question(kind, length, depth, count):
    return f"{kind} {length} {count}" if kind == "pingpong" else f"{kind} {length} {depth} {count}"


def rounds(cells, count, iperf3):
    """What is asked of whom, round after round. The order turns, so that nobody is always the first."""
    asked = []
    for number in range(count):
        for cell in cells:
            who = [w for w in WHO if w == "kfabric" or w == "bare" and cell[0] != "load" or w == "iperf3" and iperf3 and cell[0] == "stream"]
            turn = number % len(who)
            asked += [(w, question(*cell)) for w in who[turn:] + who[:turn]]
    return asked


def samples(text, asked):
    """The answers, in the order of the questions; none if some are missing."""
    found = []
    pattern = r"^bench: (kfabric|bare|iperf3) (stream|load|pingpong) ([\d ]+): (\d+) (\d+) (\d+) (\d+)\r?$"
    counts = collections.Counter()
    for match in re.finditer(pattern, text, re.M):
        who, kind, words = match[1], match[2], [int(word) for word in match[3].split()]
        length, depth = words[0], words[1] if kind != "pingpong" else 1
        operations, total, ns, segments = (int(match[n]) for n in range(4, 8))
        if total != operations * length and who != "iperf3":
            return []
        found.append({"round": counts[who, match[3]], "who": who, "kind": kind, "len": length, "depth": depth,
                      "operations": operations, "bytes": total, "ns": ns, "segments": segments})
        counts[who, match[3]] += 1
    return found if len(found) == len(asked) else []


def times(script, plan):
    """Measures in two guests: the samples, and how many questions were asked again."""
    names = ["bench-near", "bench-far"]
    # They hardly look for commands meanwhile.
    commands = [f"modprobe {MODULE} address=192.0.2.{n} && kf-serve 2" for n in (1, 2)]
    asked = rounds(plan.between, plan.between_rounds, plan.iperf3)
    try:
        for n, (name, command) in enumerate(zip(names, commands)):
            script("vm", "start", name, "--net", f"{n + 1}:{names[1 - n]}", "--cpus", str(CPUS), "--timeout", "3600",
                   "--no-leak-scan", "--", command)
        for name in names:
            script("vm", "wait", name, "--for", "^kf-serve: ready", "--timeout", "300")
        script("vm", "exec", names[1], "--timeout", "120", "--", f"{{ {SERVE} }} >/dev/console 2>&1; iperf3 -s -D >/dev/null 2>&1")
        script("vm", "exec", names[0], "--timeout", "120", "--", "modprobe kfi_bench && modprobe kfi_bare")
        text = script("vm", "exec", names[0], "--timeout", "3400", "--", asking("192.0.2.2", asked))
        for name in names:
            script("vm", "exec", name, "--", "touch /run/served; killall iperf3 2>/dev/null; kf-serve stop")
            script("vm", "wait", name, "--timeout", "120")
    except BaseException:
        for name in names:
            script("vm", "kill", name, may_fail=True)
        raise
    return samples(text, asked), len(re.findall("^bench: again: ", text, re.M))


def alone(asked):
    """The script of a guest that has both ends, and asks all of that."""
    # Who serves ends by a signal, and with it the last who may still write.
    return f"modprobe {MODULE} || exit 1\n{SERVE}\nserved=$!\ntrap 'kill $served' EXIT\n{asking('127.0.0.1', asked)}\nexit 0"


def counting(plan):
    """The script of a guest whose time is the number of its instructions; and what it asks."""
    asked = rounds(plan.between_counted, COUNTED_ROUNDS, False)
    return alone(asked), asked


# --- what follows from them ------------------------------------------------------------------


def interval(values):
    """The geometric mean, and its interval of 95 % by Student's t over the logarithms; of two values or more."""
    logs = [math.log(value) for value in values]
    mean = statistics.fmean(logs)
    half = T[min(len(logs) - 1, len(T)) - 1] * statistics.stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else math.inf
    return {"mean": math.exp(mean), "low": math.exp(mean - half), "high": math.exp(min(mean + half, BEYOND))}


def rate(sample):
    """Bytes in a nanosecond."""
    return sample["bytes"] / max(sample["ns"], 1)


def cells(found):
    """For each cell: what each of them did, by rounds, and the ratios of who is compared."""
    kinds = list(dict.fromkeys((s["kind"], s["len"], s["depth"]) for s in found))
    rows = []
    for kind, length, depth in kinds:
        here = [s for s in found if (s["kind"], s["len"], s["depth"]) == (kind, length, depth)]
        by = {who: [s for s in here if s["who"] == who] for who in WHO}
        row = {"kind": kind, "len": length, "depth": depth, "ns": {}, "ratio": {}}
        for who, group in by.items():
            if group:
                each = [s["ns"] * s["len"] / s["bytes"] for s in group]
                row["ns"][who] = {"median": statistics.median(each), "min": min(each), "max": max(each)}
        for one, other in (("kfabric", "bare"), ("bare", "iperf3")):
            pairs = [rate(a) / rate(b) for a, b in zip(by[one], by[other])]
            if pairs:
                row["ratio"][f"{one}/{other}"] = {**interval(pairs), "rounds": pairs}
        if kind == "load":
            row["messages_a_segment"] = interval([s["operations"] / max(s["segments"], 1) for s in by["kfabric"]])
        rows.append(row)
    return rows


def size(length):
    return f"{length} B" if length < 1024 else f"{length >> 10} KiB" if length < 1 << 20 else f"{length >> 20} MiB"


def goals(between):
    """The goals between two guests: what is wanted, at least how much, and what was measured."""
    found = []

    def goal(text, limit, measured):
        found.append({"goal": text, "limit": limit, "least": True, "measured": measured["mean"],
                      "interval": [measured["low"], measured["high"]], "met": measured["mean"] >= limit})
    for row in between["cells"]:
        name = f"{row['kind']} of {size(row['len'])}, two guests"
        for who, ratio in row["ratio"].items():
            goal(f"{name}: {who}", BARE_GOAL if who == "bare/iperf3" else GOALS[row["kind"], row["len"]], ratio)
        if "messages_a_segment" in row:
            goal(f"{name}: messages a segment", MESSAGES_GOAL, row["messages_a_segment"])
    return found


def table(between):
    """What was measured between two ends, as lines."""
    def three(values, key, scale, digits):
        return "{:.{d}f} ({:.{d}f} .. {:.{d}f})".format(*(scale(values[k]) for k in key), d=digits)
    measures, means = ("median", "min", "max"), ("mean", "low", "high")
    yield f"between two guests over {PROVIDER}, {CPUS} CPU each, {between['rounds']} rounds: median (range)"
    yield "ratios of what is done in the same time: geometric mean (its interval of 95 %, Student's t over the rounds' logarithms)"
    if between["again"]:
        yield f"disturbed: {between['again']} questions failed, and were asked again"
    yield ""
    yield f"{'':>8} {'':>7} {'in flight':>9} {'':>8}  {'':>32}  {'kfabric/bare':>21}  {'bare/iperf3':>21}"
    for row in between["cells"]:
        for number, (who, ns) in enumerate(row["ns"].items()):
            if row["kind"] == "stream":
                rates = {"median": row["len"] / ns["median"], "min": row["len"] / ns["max"], "max": row["len"] / ns["min"]}
                text = three(rates, measures, lambda bytes: bytes * 1000, 1) + " MB/s"
            else:
                text = three(ns, measures, lambda ns: ns / 1000, 1) + "   us"
            ratios = [three(row["ratio"][key], means, float, 2) if number == 0 and key in row["ratio"] else ""
                      for key in ("kfabric/bare", "bare/iperf3")]
            head = f"{row['kind']:>8} {size(row['len']):>7} {row['depth']:>9}" if number == 0 else " " * 26
            yield f"{head} {who:>8}  {text:>32}  {ratios[0]:>21}  {ratios[1]:>21}"
        if "messages_a_segment" in row:
            yield f"{'':>26} {'':>8}  {three(row['messages_a_segment'], means, float, 1)} messages a segment"
    yield ""
    yield f"{'thousands of instructions':>36}  {'kfabric':>10} {'bare':>10}  {'bare/kfabric':>12}   of an operation, both ends in one guest"
    for row in between["counted"]:
        both = [row["ns"][who]["min"] / 1000 for who in ("kfabric", "bare") if who in row["ns"]]
        numbers = [f"{number:10.2f}" for number in both] + ([f" {both[1] / both[0]:12.2f}"] if len(both) > 1 else [])
        yield f"{row['kind']:>8} {size(row['len']):>7} {row['depth']:>9} {'':>9}  {' '.join(numbers)}"


def summed(between):
    between["cells"] = cells(between["times"])
    between["counted"] = cells(between["instructions"])


def plot(between, left, top, wide):
    """The ratios of each round, with mean, interval and goal: lines of SVG, and how high they are."""
    rows = [(f"{row['kind']} of {size(row['len'])}, {who}", ratio, BARE_GOAL if who == "bare/iperf3" else GOALS[row["kind"], row["len"]])
            for row in between["cells"] for who, ratio in row["ratio"].items()]
    values = [value for _, ratio, _ in rows for value in (*ratio["rounds"], ratio["low"], ratio["high"])]
    low, high = max(min([*values, 0.5]), 0.1), min(max([*values, 1.5]), 10)

    def x(value):
        return left + 200 + (wide - 200) * math.log(min(max(value, low), high) / low) / math.log(high / low)
    out = [f'<text x="{left}" y="{top + 14}">between two guests over {PROVIDER}: ratios of each round, mean and interval, goal</text>']
    for number, (name, ratio, goal) in enumerate(rows):
        y = top + 40 + 24 * number
        out += [f'<text x="{left}" y="{y + 4}">{name}</text>',
                f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y}" y2="{y}" stroke="#ddd"/>',
                f'<line x1="{x(goal):.1f}" x2="{x(goal):.1f}" y1="{y - 9}" y2="{y + 9}" stroke="#c00"/>',
                f'<line x1="{x(ratio["low"]):.1f}" x2="{x(ratio["high"]):.1f}" y1="{y}" y2="{y}" stroke="#1f6fb4" stroke-width="4"/>',
                f'<line x1="{x(ratio["mean"]):.1f}" x2="{x(ratio["mean"]):.1f}" y1="{y - 7}" y2="{y + 7}" stroke="#1f6fb4" stroke-width="2"/>',
                *(f'<circle cx="{x(value):.1f}" cy="{y}" r="2.5" fill="none" stroke="#333"/>' for value in ratio["rounds"])]
    bottom = top + 40 + 24 * len(rows)
    for value in (0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 4, 10):
        if low <= value <= high:
            out.append(f'<text x="{x(value):.1f}" y="{bottom + 4}" text-anchor="middle" font-size="10">{value}</text>')
    return out, bottom + 20 - top
