"""Floating-point operations of a run: those of convolutions and matrix products, which are nearly all."""

from __future__ import annotations

from torch.utils.flop_counter import FlopCounterMode

from detector.engine.benchmark.stopwatch import Cost, labels_read
from detector.engine.benchmark.timing import Run


def count_flops(run: Run) -> dict[str, int]:
    """Two for each multiplication and addition, by part; "rest" is what no label covers, "total" all.

    Pooling has none by this count: it is no matrix product.
    """
    counter = FlopCounterMode(display=False)
    with counter, labels_read(lambda: Cost(counter.get_total_flops(), 0.0)) as parts:
        run()
    counts = {name: round(cost.wall) for name, cost in parts.items()}
    total = counter.get_total_flops()
    return {**counts, "rest": total - sum(counts.values()), "total": total}
