"""Draws a result of a scenario beside it, as SVG: `plot.py RESULT.json`."""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402


def steady(result: dict, axes) -> None:
    series: dict[str, list] = {}
    for connections, each in result["connections"].items():
        for name, median in each["medians"].items():
            series.setdefault(name, []).append((int(connections), median))
    for name, points in series.items():
        at = [connections for connections, _ in points]
        axes[0].plot(at, [m["requests_per_second"] for _, m in points], marker="o", label=name)
        axes[1].plot(at, [m["p99_us"] / 1000 for _, m in points], marker="o", label=name)
    for each, label in zip(axes, ["requests a second", "latency, 99th percentile, ms"]):
        each.set(xscale="log", yscale="log", xlabel="connections", ylabel=label)
        each.set_xticks(at, labels=map(str, at))
        each.legend()


def open_loop(result: dict, axes) -> None:
    points = result["points"]
    share = [point["share"] for point in points]
    for quantile in ("p50", "p99"):
        axes[0].plot(share, [point["latency_us"][quantile] / 1000 for point in points], marker="o",
                     label=quantile)
    axes[0].axhline(result["deadline_ms"], color="gray", linestyle=":", label="deadline")
    axes[0].set(yscale="log", ylabel="latency of answers, ms")
    goodput = [point["requests_per_second"] / result["capacity"] for point in points]
    axes[1].plot(share, goodput, marker="o", label="answered")
    axes[1].plot(share, share, color="gray", linestyle=":", label="due")
    axes[1].set(ylabel="requests a second, of the capacity", ylim=(0, 1.3))
    for each in axes:
        each.set(xlabel="requests due, of the capacity")
        each.legend()


def car_loan(result: dict, axes) -> None:
    """Evidence over the rows: features that raised an alarm on the left, the others on the right."""
    alarms = result["first_alarms"]
    for name, points in sorted(result["histories"].items()):
        rows, at = [], 0
        for point in points:
            at += point["rows"]
            rows.append(at)
        evidence = [max(point["evidence"], -5) for point in points]
        each = axes[0] if name in alarms else axes[1]
        [line] = each.plot(rows, evidence, label=name, linewidth=1)
        if name in alarms:
            each.plot(alarms[name], result["threshold"], marker="v", color=line.get_color())
    for each, title in zip(axes, ["alarm", "no alarm"]):
        each.axhline(result["threshold"], color="gray", linestyle=":")
        each.axvline(result["change"], color="gray", linestyle=":")
        each.set(title=title, xlabel="row", ylabel="evidence, nats", yscale="symlog")
        each.legend(fontsize=6, ncols=2)


DRAW = {"steady": steady, "open_loop": open_loop, "car_loan": car_loan}


def main() -> None:
    file = Path(sys.argv[1])
    result = json.loads(file.read_text())
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    DRAW[result["scenario"]](result, axes)
    figure.suptitle(f"{result['scenario']}, {result['cores']} cores")
    figure.savefig(file.with_suffix(".svg"))
    print(f"drawn in {file.with_suffix('.svg').name}")


main()
