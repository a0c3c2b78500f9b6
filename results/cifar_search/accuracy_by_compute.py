#!/usr/bin/env python3
"""Draw accuracy on CIFAR-10 by PFLOP of pretraining: accuracy_by_compute.png beside this file.

    python results/cifar_search/accuracy_by_compute.py

The figures come from the events of the runs that are named below; the PFLOP of pretraining are those of the layers,
forward and backward, as in cifar_search.md. The paper's point is that of NIN with four blocks after 100 epochs.
"""

import json
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

RESULTS = Path(__file__).resolve().parents[1]
# Of each line: the folder of a run's results, and its PFLOP.
RUNS = {
    "this package's net and optimizer": [
        ("cifar_search/airbench_0.15", 0.15),
        ("cifar_cpu", 0.59),
        ("cifar_cpu_2h", 3.9),
    ],
    "the released NIN and schedule, compressed": [
        ("cifar_search/nin_0.15", 0.15),
        ("cifar_nin_compressed", 0.64),
        ("cifar_nin_compressed_2h", 3.6),
    ],
}
PROBES = {"mlp": "non-linear probe on conv2", "conv": "conv probe on conv2"}
PAPER_PFLOP, PAPER = 30, {"mlp": 89.06, "conv": 91.16}


def accuracy(folder: str, head: str) -> float:
    """Accuracy in % of the last probe of a kind, which is the one on augmented images."""
    events = map(json.loads, (RESULTS / folder / "events.jsonl").read_text().splitlines())
    found = [
        event["top1"]
        for event in events
        if event["kind"] == "probe"
        and (event["weights"], event["tap"], event["head"]) == ("rotnet", "conv2", head)
        and event["labels_per_class"] is None
    ]
    return 100 * found[-1]


def main() -> None:
    """Draw the figure."""
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none"}):
        figure = Figure(figsize=(8, 3.4), layout="constrained")
        for axes, (head, title) in zip(figure.subplots(1, 2, sharex=True), PROBES.items(), strict=True):
            for marker, (label, runs) in zip("os", RUNS.items(), strict=True):
                axes.plot(
                    [pflop for _, pflop in runs], [accuracy(name, head) for name, _ in runs], f"{marker}-", label=label
                )
            axes.plot([PAPER_PFLOP], [PAPER[head]], "k*", markersize=10, label="the paper")
            axes.set(xscale="log", xlabel="PFLOP of pretraining", ylabel="accuracy, %", title=title)
            axes.set_xticks(ticks := [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 40], [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
            axes.grid(alpha=0.3)
        figure.legend(*axes.get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=3)
        figure.savefig(Path(__file__).with_suffix(".png"), dpi=150)


if __name__ == "__main__":
    main()
