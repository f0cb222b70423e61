r"""The strict verdict: tables by hand, properties, and its agreement with recorded truths.

The records are not part of the repository. They are looked for in `parity/` of
$LIGHTREASONER_SHARED, or of `shared/` beside the checkout; the tests on them skip without.
"""

import json
from fractions import Fraction
from functools import cache
from typing import Any

import pytest
from checkout import SHARED
from hypothesis import given
from hypothesis import strategies as st

from lightreasoner.data import reading
from lightreasoner.data.benchmarks import BENCHMARKS
from lightreasoner.data.problems import Problem
from lightreasoner.grading.strict.verdict import extract, is_correct

PARITY = SHARED / "parity"
AGREEMENT = 0.99
"""Of the synthetic records with a truth; 1,283 of 1,287 agree, docs/grading.md tells the others."""

OPTIONS = (
    "Which one?\nAnswer Choices: (A) 4.9 m/s^2 (B) A dog (C) \\frac{8}{9} (D) It is sent. It is "
    "read."
)

EXTRACTED = [
    # a box, however it is written
    (r"So $\boxed{7}$.", "7"),
    (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
    (r"$\boxed 7$", "7"),
    (r"$\boxed7$", "7"),
    (r"\boxed\frac{2}{9}$", r"\frac{2}{9}"),
    (r"\fbox{7}", "7"),
    ("$$\\boxed{\n7\n}$$", "7"),
    # the first one that is called the answer and not taken back, else the last
    (r"First \boxed{8}, but this misses a case. So the answer is $\boxed{7}$.", "7"),
    (r"The answer is \boxed{8}. Wait, this is wrong. The answer is \boxed{7}.", "7"),
    (r"The answer is $\boxed{7}$. Alternatively, one may get $\boxed{8}$.", "7"),
    (r"The answer is \boxed{7}. Next: the answer is \boxed{8}.", "7"),
    (r"Step 1: \boxed{8}. Step 2: \boxed{7}.", "7"),
    # only complete ones
    (r"\boxed{7}. Thus \boxed{8", "7"),
    (r"The answer is \boxed{7", None),
    (r"\boxed{ so \boxed{7}", "7"),
    # boxes that are listed are one list
    (r"$\boxed{1}$ and $\boxed{2}$", "1, 2"),
    # a box wins over a sentence, in the first part that has an answer
    (r"\boxed{7}. The answer is 8.", "7"),
    ("\\boxed{7}\n\nHuman: And 3+5?\n\nAssistant: \\boxed{8}", "7"),
    ("\\boxed{7}<|im_end|>\n\\boxed{8}", "7"),
    ("The answer is 7.\n\nQuestion: 3+5?\nAnswer: The answer is 8.", "7"),
    ("\nQuestion: 3+4?\nAnswer: 7", "7"),
    # a box that the question holds is quoted
    (r"We want \boxed{quoted}. The answer is 7.", "7"),
    # a sentence, to its end
    ("The answer is 7. This fits, since 3+4 = 7.", "7"),
    ("The final answer is: $7$", "7"),
    ("Final Answer: The final answer is $7$. I hope it is correct.", "7"),
    ("So the answer is 1.5 dollars", "1.5 dollars"),
    ("The answer is 5 apples, because 2+3=5.", "5 apples"),
    ("The answer is **7**.", "7"),
    ("The answer is Mrs. Doyle's class.", "Mrs. Doyle's class"),
    ("The answer is 7.\nWe see that the answer is correct.", "7"),
    ("The answer is 8. No, the answer is 7.", "7"),
    ("所以，答案是 7", "7"),
    # a label
    ("#### 1,234", "1,234"),
    ("**Answer:** 7", "7"),
    ("Answer: 7", "7"),
    ("He runs.\nA: 540", "540"),
    # a conclusion that ends the response
    ("So in total we get 7.", "7"),
    ("Therefore we obtain\n\n$$ = 7$$", "7"),
    ("So she has **7** apples.", "7"),
    # the whole response
    ("7", "7"),
    ("5 apples", "5 apples"),
    (r"\[5\]", "5"),
    ("x = 5", "x = 5"),
    ("(1,2)", "(1,2)"),
    # more ways to name it
    ("**Final Answer**\n\n5", "5"),
    ("### Final Answer\n5", "5"),
    ("Ans: 5", "5"),
    ("My answer: 5", "5"),
    ("Hence the answer will be 5.", "5"),
    ("The answer equals 5.", "5"),
    ("答案：5", "5"),
    # another problem that is made up behind the answer
    ("A: 7\n\nQ: Tom has 3 apples. How many?\nA: 9", "7"),
    ("#### 7\n\nExercise 2: What?\n#### 9", "7"),
    ("#### 7\n\nProblem 2\nWhat?\n#### 9", "7"),
    ("The answer is 7.\n\n## Question 2\nfoo\nThe answer is 9.", "7"),
    ("The answer is 7.\n\nquestion: foo\nThe answer is 9.", "7"),
    ("The answer is 7.\n\nInstruction: foo\n\nResponse: The answer is 9.", "7"),
    ("Q: 3+4?\nA: 7", "7"),
    # what the answer is not, a part's answer, corrections, placeholders
    (r"The answer is not \boxed{3}. The answer is \boxed{5}.", "5"),
    (r"The answer cannot be \boxed{3}. The answer is \boxed{5}.", "5"),
    (r"The answer to part (a) is \boxed{3}. The final answer is \boxed{5}.", "5"),
    (r"The answer is \boxed{3}. Oops. The answer is \boxed{5}", "5"),
    (r"The answer is \boxed{3}. Sorry, the answer is \boxed{5}", "5"),
    (r"The answer is \boxed{3}. I made an error. The answer is \boxed{5}", "5"),
    (r"The answer is \boxed{3}. Let me double check. The answer is \boxed{5}", "5"),
    (r"The answer is \boxed{3}. Actually, a similar problem: the answer is \boxed{5}", "3"),
    (r"We write the final answer as \boxed{answer}. \boxed{5}", "5"),
    (r"The answer should be in the form \boxed{number}: \boxed{5}", "5"),
    # numbers that merely stand somewhere
    ("Adding these we would get 12 and then multiply by", None),
    ("There are 3 pens and 4 more, 7", None),
    ("It is boxed", None),
    ("The answer is 9:7. It is boxed", "9:7"),
    (r"\boxed", None),
    (r"\boxed{}", None),
    ("", None),
]

LETTERS = [
    ("A", "The answer is (A).", True),
    ("A", "The answer is (a).", True),
    ("B", r"The correct answer is \(\boxed{B}\).", True),
    ("B", r"$\boxed{\text{(B)}}$", True),
    ("B", r"$\boxed{\textbf{(B) }\text{A dog}}$", True),
    ("B", r"\boxed{B. A dog}", True),
    ("B", "The answer is (B). Options (A) and (C) are less suitable.", True),
    ("B", "The answer is B because it barks.", True),
    ("B", "We think the answer is clear.\n\nSo the answer is (B).", True),
    ("B", "**Answer: B**", True),
    ("B", "B", True),
    ("B", "the correct option is b", True),
    ("B", "So option B is correct.", True),
    ("B", "Option A is something else. Hence we pick B.", True),
    ("B", "Option (B)", True),
    ("B", "B is correct.", True),
    ("B", 'The answer is "B".', True),
    ("B", "The answer is `B`.", True),
    # the option's text for its letter, several sentences too
    ("C", r"\boxed{\frac{8}{9}}", True),
    ("A", r"The answer is 4.9 m/s^2.", True),
    ("D", "The answer is It is sent. It is read..", True),
    ("B", "The answer is a dog.", True),
    # the article is no letter, and no last letter is looked for
    ("A", "The answer is a dog.", False),
    ("A", "It is a mystery", False),
    ("A", "I like option A and B", False),
    # several letters, another letter, none of them
    ("B", r"\boxed{A, B, C, D}", False),
    ("B", "The answer is D or B.", False),
    ("B", "The answer is (C).", False),
    ("B", "None of these is right, so the answer is (E).", False),
    # a letter counts before the text behind it
    ("C", r"\boxed{A. \frac{8}{9}}", False),
    ("B", "", False),
]

CHARACTERS = "Which?\nAnswer Choices: (A) Error (B) a (C) b (D) c"
SYMBOLS = "Which?\nAnswer Choices: (A) L (B) P (C) 1/C (D) C"
MENTIONS = "Which?\nAnswer Choices: (A) one (B) two (C) (A) and (B) both in the same way. (D) none"
MENTIONING = [
    # a lone capital is a letter, whatever the options say; a small one may be an option's text
    (CHARACTERS, "C", "C", True), (CHARACTERS, "D", "C", False), (CHARACTERS, "D", "c", True),
    (CHARACTERS, "C", "(C)", True), (CHARACTERS, "D", r"\text{C}", False),
    (CHARACTERS, "A", "error", True), (SYMBOLS, "C", r"\text{C}", True),
    (SYMBOLS, "B", "B. P", True), (SYMBOLS, "D", "B. P", False), (SYMBOLS, "D", "C. 1/C", False),
    (MENTIONS, "C", "C. (A) and (B) both in the same way.", True),
    (MENTIONS, "C", "(A) and (B) both in the same way", True),
    (MENTIONS, "D", "(D) none", True), (MENTIONS, "C", "A. (A) and (B)", False),
]  # fmt: skip

RIGHT = {
    "spelling": [
        ("7", r"\text{7}"), ("7", r"\mathbf{7}"), ("7", r"\textbf{7}"), ("7", r"\,7\,"),
        ("7", r"\displaystyle 7"), ("7", "$7$"), ("7", "{7}"), ("7", "(7)"), ("7", "[7]"),
        ("7", "7."), ("7", r"7\ "), ("7", "+7"), ("-5", "−5"), ("-5", "+-5"),
        ("2\\pi", "2π"), (r"\frac{1}{2}", r"\dfrac12"), (r"\text{(C)}", "C"), ("Yes", "yes"),
        ("odd", "Odd"),
        (r"\frac{1}{2}", r"\boxed{\frac{1}{2}}"),
    ],
    "numbers": [
        ("10000", "10{,}000"), ("10,000", r"10\,000"), ("10000", "10 000"), ("7", "7.00"),
        ("7", "14/2"), ("7", r"\frac{14}{2}"), ("7", "seven"), ("123", "one hundred twenty-three"),
        ("4.5e33", r"4.5 \times 10^{33}"), ("25000", r"2.5 \cdot 10^4"), ("18", "1.8e1"),
        (r"\frac{3}{2}", r"1 \frac12"), (r"1\frac{1}{4}", "1 1/4"), (r"\frac{5}{4}", "1.25"),
        (r"\frac{1}{3}", r"0.\overline{3}"), ("1/2", r"50\%"), (r"25\%", "0.25"),
        ("120", "5!"), ("20", r"\sqrt{400}"), ("63", r"2 \times 31 + 1"), ("1024", "2^{10}"),
    ],
    "units": [
        ("7", r"7\,\mathrm{cm}"), ("7", r"7\text{ cm}^2"), ("36", "36 marbles"), ("7", "7 km/h"),
        ("7", "7 square feet"), (r"\$6", "6 dollars"), ("6", r"\$6.00"), (r"120^\circ", "120"),
        (r"10\text{ feet}", "10 ft"), ("10", "ten apples"), ("140", "one hundred forty J"),
        ("4a-2", r"4a-2 \text{ units}"), ("6th", "6"),
    ],
    "announced": [
        ("7", r"\text{Total} = 7"), ("7", "x = 7"), ("7", "AB = 7"), ("1/2", r"P(A) = \frac12"),
        ("x+1", "f(x) = x+1"), ("f(n)=n", "f(x) = x"), ("6", "4 + 2 = 6"), ("8", r"\approx 8"),
        (r"1\frac{1}{4}", r"\text{The answer is } 1\frac{1}{4}"),
        (r"\frac{45}{2}", r"\frac{45}{2} \approx 22.5"),
        ("(1,2)", "(x, y) = (1,2)"),
    ],
    "lists": [
        ("1,2", "2, 1"), (r"\{1,2\}", r"\{2,1\}"), ("1,2", r"2 \text{ and } 1"), ("1,2", "1; 2"),
        (r"\pm 3", "3,-3"), ("3,-3", r"x = \pm 3"), ("3,4", r"x=3 \text{ or } x=4"),
        (r"1\pm\sqrt{2}", r"1-\sqrt2, 1+\sqrt2"), ("(1,2),(3,4)", r"\{(3,4),(1,2)\}"),
        ("-2,-2", r"\{-2, -2\}"), ("x=1,y=2", "y=2, x=1"), ("2,3,5", "2, 3, and 5"),
    ],
    "intervals": [
        (r"(-\infty,2)\cup(3,\infty)", r"(3,\infty)\cup(-\infty,2)"), ("(1,2]", r"x\in(1,2]"),
        ("[-1,1]", r"-1\le x\le1"), (r"(3,\infty)", "x>3"), ("x>3", "3<x"), ("1<x<2", "2>x>1"),
        (r"(-\infty,\infty)", r"\mathbb{R}"),
    ],
    "algebra": [
        ("2(x+1)", "2x+2"), ("x^2-1", "(x-1)(x+1)"), (r"\frac{x}{y}", "x/y"), ("2n", r"n \cdot 2"),
        (r"\frac{\sqrt3}{3}", r"\frac{1}{\sqrt3}"), (r"\ln 8", r"3\ln 2"), ("1+2i", "2i+1"),
        (r"\log_2 3", r"\frac{\ln 3}{\ln 2}"), ("x+y=5", "2x+2y=10"), ("x+y=5", "5 = y+x"),
        (r"\binom{5}{2}", "10"), (r"np.arcsin(10/13)", r"\arcsin\left(\frac{10}{13}\right)"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix}1\\ 2\end{bmatrix}"),
        (r"\dot{x}_{0}+1", r"1+\dot{x}_0"),
        (r"\lambda_{\text {red}} / \sqrt{2}", r"\frac{\lambda_{red}}{\sqrt2}"),
        ("2^{k-n}", r"\frac{2^k}{2^n}"), ("LRMC=SRMC", "SRMC = LRMC"), ("(n-1)!", r"\frac{n!}{n}"),
        (r"x^5 - x^4 + x^3", "x^3(x^2-x+1)"), (r"\frac{270}7", r"\frac{540}{14}"),
        ("2", r"5 \mod 3"), ("2.00", r"5 \mod 3"), (r"x \mod 3", r"x \mod 3"),
        (r"-\frac{3}{4}", "\\frac{-\t3}{4}"), (r"-\frac{3}{4}", "\\frac{-\u00a03}{4}"),
    ],
    "roots": [
        ("2", r"\sqrt[3]{8}"), (r"2\sqrt[3]{2}", r"\sqrt[3]{16}"), (r"5 \sqrt[3]{4}", "7.93701"),
        (r"\frac{8}{\sqrt[3]{7}}", r"\frac{8\sqrt[3]{49}}{7}"), ("5^{1/3}", r"\sqrt[3]5"),
        (r"\frac{1}{\sqrt2}", r"\sqrt\frac12"), (r"2\sqrt{\pi}", r"2\sqrt\pi"),
        (r"\frac{\pi}{2}", r"\dfrac\pi2"), (r"\frac\pi4", r"\frac{\pi}{4}"),
    ],
    "unicode": [
        ("32", "2⁵"), ("10000", "10⁴"), ("x^4", "x⁴"), ("0.001", "10⁻³"), ("x^2+y^3", "x²+y³"),
        (r"\frac{10}{3}", "3⅓"), ("1/3", "⅓"), ("0.5", "½"), ("1/2", "¹⁄₂"), ("101_2", "101₂"),
    ],
    "asides": [
        (r"12\pi", r"12\pi (\approx 37.7)"), ("18", "18 (≈ 18.2)"),
        (r"12\pi", r"12\pi \text{ cm}^2 (≈ 37.7 \text{ cm}^2)"),
    ],
    "scales": [
        ("5000000", "5 million"), ("5000000", r"5\text{ million}"), ("5000", "5 thousand"),
        ("12500000", "$12.5 million"), ("12500000", r"\$12.5 \text{ million}"),
        ("3000", r"3\text{ thousand dollars}"), ("2000000", "2 million people"),
        ("20", r"\text{\$}20"), ("20", r"\text{\$20}"),
    ],
    "named lists": [
        ("2,-3", r"x\in\{2,-3\}"), ("x=2, x=3", "2,3"), (r"\emptyset", r"\{\}"),
    ],
    "products": [
        ("6", "2(3)"), ("60", "2(30)=60"), ("14", "7(2) = 14"), ("24", "2(3)(4)"),
        ("12", "(3)(4)"), (r"\frac83", r"4\left(\frac23\right)"),
        ("30", r"\binom{5}{2}\binom{3}{1}"), ("-6", "2(-3)"),
        ("18", "2(3)^2"), (r"\sin^2 x", r"\sin^2(x)"), (r"\log_2 3", r"\log_{2}(3)"),
        (r"\begin{pmatrix}2\\4\end{pmatrix}", r"2\begin{pmatrix}1\\2\end{pmatrix}"),
    ],
    "branches": [
        (r"\lfloor n/2\rfloor", r"\left\lfloor\frac{n}{2}\right\rfloor"), ("|x-3|", "|3-x|"),
        ("|x-3|<2", "2>|3-x|"), (r"\sqrt{(x-3)^2}", "|x-3|"), (r"\max(x,5)", r"\max(5,x)"),
        (r"\frac{x+y+|x-y|}{2}", r"\max(x,y)"), (r"\ln|x|", r"\frac12\ln x^2"),
        (r"2\ln x", r"\ln x^2"),
    ],
    "times and powers of units": [
        ("3:30 p.m.", "3:30 PM"), ("3:30 p.m.", r"3:30\text{ p.m.}"), ("11:45 p.m.", "11:45 pm"),
        ("9:03:36 a.m.", "9:03:36 AM"), (r"864 \mbox{ inches}^2", "864 square inches"),
        (r"864 \mbox{ inches}^2", "864"), ("4", "√16"), (r"3\sqrt{13}", "3√13"), ("7", "7 teeth"),
        ("1,2", "x=1, y=2"), ("3,4", "x=4, x=3"),
    ],
    "bases": [
        ("52_8", "52_{8}"), ("52_8", r"52_{\text{eight}}"), ("52_8", "(52)_8"), ("52_8", "52"),
        ("2516_8", r"2516_{\text{8}}"), ("52_8", r"52\text{ (base 8)}"), ("52", "52_{10}"),
        ("52_8", "x = 52_8"),
    ],
    "primes": [
        (r"x^{\prime}+\frac{r}{V} x-rc=0", r"x'+\frac{r}{V}x-rc=0"),
        (r"y^{\prime}+r y-r x(t)=0", "y'+r y-r x(t)=0"), ("y''", r"y^{\prime\prime}"),
    ],
    "approximations": [
        (r"\pi", "3.14159"), ("3.14159", r"\pi"), (r"\frac{1}{3}", "0.33333"),
        ("3.333", r"\frac{10}{3}"),
    ],
}  # fmt: skip

WRONG = {
    "unicode": [("25", "2⁵"), ("104", "10⁴"), ("1012", "101₂"), ("31/3", "3⅓")],
    "roots and asides": [
        ("8", r"\sqrt[3]{8}"), ("3", r"\sqrt[3]{8}"), (r"13\pi", r"12\pi (\approx 37.7)"),
        ("2", r"(\approx 1.5, 2)"), ("x=2,y=3", "2,3"),
    ],
    "factor 100": [("1800", "18"), ("18", "1800"), ("20", r"20\%"), ("0.5", "50")],
    "near": [
        ("120000", "120006"), ("7", "7.0001"), ("13.18", "13.1801"), ("2^{1009}", "2^{1009}+1"),
        (r"\frac{1}{4}", "0.250001"), (r"\frac{1}{3}", "0.33"), (r"2\pi", "6.2"),
        ("7", "5 and 7/2"), ("145.0", "435.1/3"), ("145.0", r"\sqrt{21025.1}"), ("145.0", "145.04"),
    ],
    "brackets": [
        ("[1,2)", "(1,2]"), ("(1,2)", "[1,2]"), ("(1,2)", r"\{1,2\}"), ("(1,2)", "(2,1)"),
        ("2(x+1)", "2x+1"), ("x>3", r"x\ge 3"), ("(1,2]", "1<x<2"),
    ],
    "prefix": [
        (r"2\sqrt3", r"2\sqrt3, 5"), ("5", "5-"), ("5", "5x"), ("5", "5!"), ("5", "5 and a half"),
        ("5", "5 million"), ("5", "5 thousand"), ("3", r"3\text{ thousand dollars}"),
        ("3", r"3t\text{ cm}"), ("5", "five six"), ("7", r"7\pi"), ("7", r"7 \text{ or } 8"),
        ("6", "6, 4"), ("5", "5 fourths"), ("7", "7 apples and 3 pears"),
    ],
    "letters": [
        (r"\frac{m}{2}", r"\frac{s}{2}"), ("N", "n"), ("x_1", "x_2"), ("E_{1}", "E_{2}"),
        ("5", "5 m"), (r"\dot{x}", "x"), (r"\Delta", r"\delta"), ("C", "c"),
    ],
    "products": [
        ("5", "2(3)"), ("9", "4(5)"), ("6", "1+2(3)"), (r"\frac{7}{3}", r"\frac{2(5)}{3}"),
        (r"\frac{14}{3}", r"4\left(\frac{2}{3}\right)"), ("8", "2(6)=8"), ("7", "(3)(4)"),
        ("13", r"\binom{5}{2}(3)"),
    ],
    "branches": [
        (r"\lfloor n/2\rfloor", r"\lfloor n/3\rfloor"),
        (r"\lfloor n/2\rfloor", r"\lfloor m/2\rfloor"),
        (r"\lfloor n/2\rfloor", r"\lfloor n/100\rfloor"),
        (r"\lfloor\sqrt n\rfloor", r"\lfloor n^{1/3}\rfloor"),
        (r"\lfloor\sqrt{n-1}\rfloor", r"2(\lfloor\sqrt{n-1}\rfloor)"), ("|x-3|", "3-x"),
        ("|x-3|", "x-3"), (r"\max(x,5)", "5"), (r"\min(n,10)", "n"), ("n+|n-2|", "2"),
        ("y=|x-3|", "y=3-x"), ("|x-3|<2", "3-x<2"), (r"\sqrt{(x-3)^2}", "3-x"),
        (r"y=\lfloor x/2\rfloor", r"y=\lfloor x/3\rfloor"), (r"\ln x", r"\ln|x|"),
    ],
    "factors": [
        ("36", r"36\text{k}"), ("36", r"36\text{M}"), ("36", r"36\mathrm{x}"),
        ("36", r"36\text{ n}"),
        ("36", r"36\text{ wrong}"), ("7", "7 billionths"), ("7", "7 twelfths"), ("7", "7 per cent"),
        ("7", "7 quadrillion"), ("7", "7 gross"), ("6", "√16"),
        (r"864 \mbox{ inches}^2", r"864\text{ ft}^2"), (r"15\mbox{ cm}^2", r"15\text{ m}^2"),
        (r"15\mbox{ cm}^2", r"15\mbox{ cm}^5"), ("3:30 p.m.", "4:30 PM"),
        ("2, 1", "x=1, y=2"), ("x=2,y=1", "1,2"),
    ],
    "bases": [
        ("52_8", "52_7"), ("52_8", "52_{10}"), ("204_5", "204_6"), ("52", "52_7"), ("12", "12_{3}"),
        ("52_8", r"52\text{ (base 7)}"), ("52_8", "42_{10}"),
    ],
    "case": [
        ("ab", "AB"), ("xy", "XY"), ("RC", "rc"), ("nk", "NK"), ("abc", "ABC"), ("6-5i", "6-5I"),
        (r"I(0) e^{-t}", "I(0) e^{t}"),
    ],
    "primes": [("x'", "x"), ("y''", "y'"), ("x'+x=0", "x+x=0")],
    "units": [(r"10\text{ feet}", r"10\text{ meters}"), (r"\$6", "6 cents"), ("3 p.m.", "3 a.m.")],
    "joined": [
        ("23", "2,3"), ("23", "2 and 3"), ("12", "1,2"), ("1,2", "12"), ("12", "1/2"),
        ("33", "3 3"),
        ("9", "3 3"), ("11/2", "1 1/2"), ("1000", "1,00,0"),
    ],
    "lists": [
        ("3", "x=3 or x=4"), ("3", r"\pm 3"), (r"\pm 3", "3"), (r"\{1,2\}", r"\{1,1\}"),
        (r"\{1,2,2\}", r"\{1,2\}"), ("x=1,y=2", "x=2,y=1"), ("2,3,5", "2,3"),
        (r"(-\infty,2)\cup(3,\infty)", r"(-\infty,2)\cup(4,\infty)"),
    ],
    "sign and order": [
        ("5", "-5"), ("3:4", "4:3"), ("9:7", "-9:7"), ("x>3", "x<3"), ("x+y=5", "x-y=5"),
        ("x", "|x|"), (r"\sqrt{x^2}", "x"), (r"\begin{pmatrix}1\\2\end{pmatrix}", "(2,1)"),
    ],
    "words": [
        ("Yes", "No"), ("blue car", "blue house"), ("11:55 p.m.", "11:55 p.w."), ("5", "x+y=5"),
    ],
    "nothing": [("5", ""), ("5", "."), ("", ""), ("5", r"\text{}")],
}  # fmt: skip

MEASURED = [
    # the digits that the gold answer prints, and 1%
    ("0.264", "0.2637", True), ("0.264", "0.2646", False), ("0.264", "0.26", False),
    ("6.63e-34", r"6.626 \times 10^{-34}", True), ("6.63e-34", r"6.64 \times 10^{-34}", False),
    ("6.63e-34", r"6.63 \times 10^{-33}", False), ("4e33", "4.02e33", True),
    ("4e33", "4.4e33", False), ("0.707", r"\frac{\sqrt2}{2}", True), ("-2", "-2.004", False),
    ("361", "361.2", False),
    # quantities are positive
    (r"\sqrt{4 \pi G \rho_{0} r_{0}^{2}}", r"2r_0\sqrt{\pi G\rho_0}", True),
    (r"\sqrt{4 \pi G \rho_{0} r_{0}^{2}}", r"r_0\sqrt{\pi G\rho_0}", False),
]  # fmt: skip

ASKED = [
    # a percent sign is a unit where percent is what the question asks for
    ("What percent is it?", "20", r"20\%", True), ("What percent is it?", r"20\%", "20", True),
    ("How many are it?", r"20\%", "20", False), ("What percent is it?", "20", "2000", False),
    # a ratio is in proportion, a time is not
    ("Find the ratio.", "9:7", "18:14", True), ("Find the ratio.", "9:7", r"\frac{9}{7}", True),
    ("Find the ratio.", "9:7", "9 to 7", True), ("When is it?", "9:15", "3:5", False),
    # a + b = 5 says what a + b is
    ("What is $a + b$?", "5", "a+b=5", True),
    # the side of an equation and a number are not asked for
    ("If $x+y=10$ and $x-y=3$, find $xy$.", "7", "x+y=7", False),
    ("If $x+y=10$ and $x-y=3$, find $xy$.", "7", "10=7", False),
    ("If $x+y=10$ and $x-y=3$, find $x^2y$.", "7", "x^2 y = 7", True),
    ("What is a+b?", "5", "a + b = 5", True), ("Is it rational?", "9:15", "3:5", False),
    # a base that the question names may stand below its number
    ("Write 37 in base 7.", "52", "52_7", True), ("Write it in base 8.", "52", "52_7", False),
]  # fmt: skip


def problem(answer: str, question: str = "") -> Problem:
    return Problem("set/00000", question, answer, "")


def table(families: dict[str, list[tuple[str, str]]]) -> list[tuple[str, str]]:
    return [pair for pairs in families.values() for pair in pairs]


def verdict(response: str, problem: Problem, benchmark: str) -> bool:
    answer = extract(response, problem, benchmark)
    return answer is not None and is_correct(answer, problem, benchmark)


@pytest.mark.parametrize(("response", "answer"), EXTRACTED)
def test_extracts_what_is_stated(response: str, answer: str | None) -> None:
    assert extract(response, problem("7", r"Put it in \boxed{quoted}."), "math") == answer


@pytest.mark.parametrize(("gold", "response", "correct"), LETTERS)
def test_letters(gold: str, response: str, correct: bool) -> None:
    assert verdict(response, problem(gold, OPTIONS), "mmlu_stem") is correct


@pytest.mark.parametrize(("question", "gold", "answer", "correct"), MENTIONING)
def test_options_that_look_like_letters(
    question: str, gold: str, answer: str, correct: bool
) -> None:
    assert is_correct(answer, problem(gold, question), "mmlu_stem") is correct


@pytest.mark.parametrize(("gold", "answer"), table(RIGHT))
def test_right_answers(gold: str, answer: str) -> None:
    assert is_correct(answer, problem(gold), "math")


@pytest.mark.parametrize(("gold", "answer"), table(WRONG))
def test_wrong_answers(gold: str, answer: str) -> None:
    assert not is_correct(answer, problem(gold), "math")


@pytest.mark.parametrize(("gold", "answer", "correct"), MEASURED)
def test_measured_quantities(gold: str, answer: str, correct: bool) -> None:
    assert is_correct(answer, problem(gold), "minerva_math") is correct


@pytest.mark.parametrize(("question", "gold", "answer", "correct"), ASKED)
def test_the_question_says_what_is_asked(
    question: str, gold: str, answer: str, correct: bool
) -> None:
    assert is_correct(answer, problem(gold, question), "math") is correct


HOSTILE = [
    "9^{9^{9}}", "9^9^9^9", "10^{1000000000}", "((2^{1000})^{1000})^{1000}", "(10!)!",
    "1e999999999",
    "(" * 5000 + ")" * 5000, r"\frac{1}{" * 90 + "2" + "}" * 90, "1" * 900, "{" * 300,
    r"\boxed{" * 100, "a," * 400, r"\pm " * 200, "x=" * 300 + "1", "100000000!",
    "__import__('os')",
    r"\begin{pmatrix}" + "1&" * 200 + r"\end{pmatrix}", r"\frac{1}{0}", r"\infty", "1/0",
    r"\prod_{k=1}^{1000000} k", r"\sum_{k=1}^{10^{9}} k", "2^{3^{4^{5}}}", "(9^9)^{9^9}",
]  # fmt: skip


@pytest.mark.timeout(30)
@pytest.mark.parametrize("answer", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("gold", ["12", "x^2+1", "1.5", "(1,2)"])
def test_absurd_answers_are_wrong_without_a_hang(gold: str, answer: str) -> None:
    assert not is_correct(answer, problem(gold), "minerva_math")


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "unit",
    [r"\boxed{", "The answer is ", "\n", "#### ", "So we get ", "{", r"\boxed 1, ", "\nQuestion:",
     "A ", "Thus A. ", "**", "answer is\n\n", r"\boxed{1} and ", "So, ",
     r"The answer is \boxed{1}. ", "\nQ: ", "\n## Answer"],
)  # fmt: skip
def test_extraction_ends_on_long_responses(unit: str) -> None:
    """A pattern that tries again from each character would take hours."""
    response = unit * (200_000 // len(unit))
    for benchmark in "math", "mmlu_stem":
        extract(response, problem("1"), benchmark)


INTEGERS = st.integers(-(10**12), 10**12)


@given(INTEGERS, INTEGERS)
def test_integers_are_exact(gold: int, other: int) -> None:
    for text in str(other), f"{other:,}", f"{other}.0", rf"\boxed{{{other}}}":
        assert is_correct(text, problem(str(gold)), "gsm8k") is (other == gold)


@given(INTEGERS, st.sampled_from([-1, 1, 100, -100]))
def test_no_neighbour_of_an_integer_is_right(gold: int, distance: int) -> None:
    assert not is_correct(str(gold + distance), problem(str(gold)), "gsm8k")
    if gold:
        assert not is_correct(str(gold * 100), problem(str(gold)), "gsm8k")


@given(st.integers(-999, 999), st.integers(1, 999), st.integers(-999, 999), st.integers(1, 999))
def test_fractions_are_exact(a: int, b: int, c: int, d: int) -> None:
    gold = problem(rf"\frac{{{a}}}{{{b}}}")
    assert is_correct(f"{c}/{d}", gold, "math") is (Fraction(a, b) == Fraction(c, d))


@given(st.lists(st.integers(-99, 99), min_size=2, max_size=6), st.randoms())
def test_a_list_has_no_order_but_a_tuple_has(elements: list[int], random: Any) -> None:
    shuffled = random.sample(elements, len(elements))
    gold, answer = (", ".join(map(str, numbers)) for numbers in (elements, shuffled))
    assert is_correct(answer, problem(gold), "olympiadbench")
    assert is_correct(f"({answer})", problem(f"({gold})"), "math") is (elements == shuffled)
    assert not is_correct(answer, problem(f"{gold}, 100"), "olympiadbench")


@given(st.text(max_size=60), st.sampled_from(["7", "x^2+1", "(1,2]", "1.5", "B"]))
def test_any_text_has_a_verdict(text: str, gold: str) -> None:
    for response in text, rf"\boxed{{{text}}}", f"The answer is {text}":
        for benchmark in "minerva_math", "mmlu_stem", "tuned":
            verdict(response, problem(gold, OPTIONS), benchmark)


@given(st.text("0123456789.,+-/^(){}[]=<>x\\ %eabcd", max_size=25))
def test_an_answer_that_is_boxed_is_the_answer_itself(text: str) -> None:
    if text.strip():
        assert is_correct(text, problem(text), "math")


@cache
def records(pattern: str) -> list[dict[str, Any]]:
    files = sorted(PARITY.glob(f"{pattern}.jsonl"))
    lines = [
        line for file in files for line in file.read_text(encoding="utf-8").split("\n") if line
    ]
    return [json.loads(line) for line in lines]


def problem_of(record: dict[str, Any]) -> Problem:
    if record["benchmark"] == "gsm8k":
        return reading.from_row(record["record"], record["id"], "record")
    benchmark = BENCHMARKS[record["benchmark"]]
    return reading.from_benchmark(benchmark, record["record"], record["id"], "record")


def agreement(pattern: str, key: str) -> float:
    known = [record for record in records(pattern) if record[key] is not None]
    agreed = [
        verdict(record["response"], problem_of(record), record["benchmark"]) == record[key]
        for record in known
    ]
    return sum(agreed) / len(agreed)


needs_records = pytest.mark.skipif(not PARITY.exists(), reason=f"no records in {PARITY}")


@needs_records
def test_agrees_with_the_truth_of_synthetic_responses() -> None:
    assert agreement("*_synth", "truth") >= AGREEMENT


@needs_records
def test_agrees_with_the_truth_of_real_responses() -> None:
    """All 2,720 solutions to GSM8K agree; the 424 to MATH agree with the official verdict."""
    assert agreement("gsm8k_model_solutions", "truth") == 1
    assert agreement("math_cot_100", "official_correct") == 1
