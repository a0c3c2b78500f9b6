"""Figures of the paper (Gidaris, Singh and Komodakis, ICLR 2018), to set measured ones beside."""

# Table 1: CIFAR-10 top-1 in percent of the non-linear probe on each block, by number of blocks of the NIN.
TABLE_1 = {
    3: {"conv1": 85.45, "conv2": 88.26, "conv3": 62.09},
    4: {"conv1": 85.07, "conv2": 89.06, "conv3": 86.21, "conv4": 61.73},
    5: {"conv1": 85.04, "conv2": 89.76, "conv3": 86.82, "conv4": 74.50, "conv5": 50.37},
}


def table_1(data: str, blocks: int, head: str, labels_per_class: int | None) -> dict[str, float]:
    """The paper's row to compare a probe with, {tap: percent}; empty where it has none."""
    if data == "cifar10" and head == "mlp" and labels_per_class is None:
        return TABLE_1.get(blocks, {})
    return {}
