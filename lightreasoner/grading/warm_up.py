r"""Importing this makes a process ready to grade: its first algebra takes a second, later ones none
of it.

The server from which worker.py forks its workers imports it, so that a worker that takes
the place of a killed one does not spend its first answer's time on reading grammars.
"""

from lightreasoner.data.problems import Problem
from lightreasoner.grading.strict import verdict
from lightreasoner.qwen_math import toolkit

_GOLD = r"\frac{\sqrt{2}}{2}"

toolkit.is_equal(r"\frac{1}{\sqrt{2}}", _GOLD)
toolkit.is_equal("x+1=2", "y-1=2")
verdict.is_correct(r"\frac{1}{\sqrt{2}}", Problem("", "", _GOLD, ""), "")
