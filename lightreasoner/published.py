"""Accuracies that others published, to stand beside measured ones: their numbers, none of ours.

In percent, each set of rows with its source. Their prompts, limits of tokens and graders differ, so
a difference to a measured number is no result. The paper's own are in paper.py.
"""

from lightreasoner import paper

LIU = "Liu et al. 2025 (arXiv 2503.20783), not ours"
LIU_SETS = ("math500", "minerva_math", "olympiadbench")
LIU_TABLE_1 = {
    "qwen2.5-math-1.5b": {
        "4-shot": (50.4, 12.1, 15.9),
        "R1 template": (21.2, 6.6, 2.2),
        "Qwen template": (33.0, 12.5, 22.8),
        "no template": (61.8, 15.1, 28.4),
    },
    "qwen2.5-math-7b": {
        "4-shot": (61.6, 10.7, 20.9),
        "R1 template": (0.0, 0.0, 0.1),
        "Qwen template": (50.6, 9.9, 16.6),
        "no template": (69.0, 21.3, 34.7),
    },
}
"""An untuned base's preset, then how it was asked: percent on each of LIU_SETS.

"Understanding R1-Zero-Like Training", Table 1: pass@1, greedy, at most 3,000 new tokens; no
interval. Checked against a transcription of the paper in a public repository, whose row means add
up but for the one of the last row, where AIME24 (not taken over) is misprinted.
"""


def rows(expert: str | None) -> dict[str, dict[str, float]]:
    """Title of a row, percent by set; empty unless `expert` names a preset that others measured."""
    ours = paper.TABLE_1.get(expert or "", {}).items()
    theirs = LIU_TABLE_1.get(expert or "", {}).items()
    return {
        f"{paper.LABEL}: {row}": dict(zip(paper.BENCHMARKS, values, strict=True))
        for row, values in ours
    } | {
        f"{LIU}: base, {asked}": dict(zip(LIU_SETS, values, strict=True))
        for asked, values in theirs
    }
