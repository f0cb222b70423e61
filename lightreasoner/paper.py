"""The paper's own accuracies, to stand beside measured ones: its numbers, not this project's.

Wang, Chen, Li and Huang 2025, arXiv 2510.07962, Table 1, base and LightReasoner rows, as the
authors' README repeats them (HKUDS/LightReasoner, "Main Results"): zero-shot pass@1 in percent,
mmlu_stem 5-shot, by the Qwen2.5-Math toolkit, each model "under its best-fitting prompt"
(appendix G). The paper gives no interval and no number of runs.
"""

BENCHMARKS = ("gsm8k", "math", "svamp", "asdiv", "minerva_math", "olympiadbench", "mmlu_stem")

PROBLEMS = dict(zip(BENCHMARKS, (1319, 5000, 1000, 2215, 272, 675, 3018), strict=True))
"""Of each test set, in the toolkit's files."""

LABEL = "paper (Wang et al. 2025), not ours"

TABLE_1: dict[str, dict[str, tuple[float, ...]]] = {
    "qwen2.5-math-1.5b": {
        "base": (42.5, 34.2, 68.8, 68.1, 9.9, 23.7, 49.8),
        "LightReasoner": (70.6, 59.3, 76.0, 79.8, 11.4, 27.1, 54.9),
    },
    "qwen2.5-math-1.5b-instruct": {
        "base": (84.8, 75.8, 94.2, 94.7, 29.4, 37.5, 57.4),
        "LightReasoner": (86.7, 75.5, 93.0, 94.1, 32.0, 37.8, 55.2),
    },
    "deepseek-r1-distill-qwen-1.5b": {
        "base": (75.2, 54.2, 79.9, 84.9, 16.2, 19.1, 22.3),
        "LightReasoner": (79.5, 60.2, 83.5, 87.5, 18.0, 36.5, 26.2),
    },
    "qwen2.5-math-7b": {
        "base": (57.5, 51.8, 67.9, 72.7, 14.0, 16.0, 69.8),
        "LightReasoner": (67.9, 57.8, 77.2, 80.6, 12.1, 16.9, 70.5),
    },
    "qwen2.5-math-7b-instruct": {
        "base": (95.2, 83.2, 93.9, 95.3, 33.8, 41.5, 69.3),
        "LightReasoner": (95.8, 83.6, 93.1, 95.2, 34.2, 39.0, 67.8),
    },
}
"""An expert's preset, then a row: percent on each of BENCHMARKS."""

AVERAGES = {
    "qwen2.5-math-1.5b": (42.4, 54.2),
    "qwen2.5-math-1.5b-instruct": (67.7, 67.8),
    "deepseek-r1-distill-qwen-1.5b": (50.3, 55.9),
    "qwen2.5-math-7b": (50.0, 54.7),
    "qwen2.5-math-7b-instruct": (73.2, 72.7),
}
"""The column AVG of the same rows: base, LightReasoner."""
