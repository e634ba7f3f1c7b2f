"""Pairs of a reference and an answer, decided by mathematics: what is the same, and what only looks like it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from align.rewards.verdict import Verdict
from align.types import Rollout

Judge = Callable[..., list[Verdict]]
Make = Callable[..., Rollout]

SAME: dict[str, list[tuple[str, str]]] = {
    "units": [
        (r"5", r"5\text{ m}"),
        (r"5\text{ kg}", r"5\text{ kilograms}"),
        (r"12\text{ inches}", r"12\text{ in}"),
        (r"10\text{ mph}", r"10\text{ miles per hour}"),
        (r"20\text{ cm}^2", r"20\ \mathrm{cm}^{2}"),
        (r"90^\circ", r"90\text{ degrees}"),
        (r"90^\circ", r"90^{\circ}"),
        (r"\{1,2\}", r"x=1\text{ or }x=2"),
        (r"60\text{ km/h}", r"60\text{ kilometers per hour}"),
        (r"5\text{ feet}", r"5\text{ ft}"),
        (r"12\text{ square units}", r"12\text{ units}^2"),
        (r"12\text{ cubic feet}", r"12\text{ ft}^3"),
        (r"3\text{ lbs}", r"3\text{ pounds}"),
        (r"5\text{ and }7", r"7,5"),
    ],
    "percent": [
        (r"25\%", r"\frac{1}{4}"),
        (r"25\%", r"0.25"),
        (r"12.5\%", r"\frac{1}{8}"),
        (r"33\frac{1}{3}\%", r"\frac{1}{3}"),
        (r"100\%", r"1"),
    ],
    "numbers": [
        (r"7", r"7.0"),
        (r"2^{100}", r"1267650600228229401496703205376"),
        (r"100!", r"100\cdot 99!"),
        (r"\sqrt{2}", r"1.41421356237"),
        (r"\sqrt{8}", r"2\sqrt{2}"),
        (r"\binom{5}{2}", r"10"),
        (r"7:32", r"14:64"),
        (r"10,000", r"10000"),
        (r"1,000,000", r"10^6"),
        ("-5", "\u22125"),
        (r"0", r"-0"),
        (r"0.1+0.2", r"0.3"),
        (r"1,2,2", r"2,1,2"),
    ],
    "currency": [
        (r"\$18", r"18"),
        (r"\$18.00", r"18"),
        (r"\$18.50", r"18.5\text{ dollars}"),
        (r"\$1,234.50", r"1234.5"),
        (r"\text{€}5", r"5"),
        (r"18", r"18\text{ dollars}"),
        (r"£5", r"5\text{ pounds}"),
        (r"\text{£}5", r"£5"),
    ],
    "intervals": [
        (r"(0,1]", r"0<x\le 1"),
        (r"(-\infty,3]", r"x\le 3"),
        (r"(-\infty,0)\cup(0,\infty)", r"x\ne 0"),
        (r"(0,\infty)\cup(-\infty,0)", r"(-\infty,0)\cup(0,\infty)"),
        (r"[1,2]\cup[2,3]", r"[1,3]"),
        (r"(\frac{1}{2},\infty)", r"(0.5,\infty)"),
        (r"]0,1[", r"(0,1)"),
        (r"x>3", r"3<x"),
        (r"(1,2)", r"\left(1,2\right)"),
        (r"\infty", r"\infty"),
        (r"[2,3]", r"2\le x\le 3"),
    ],
    "sets": [
        (r"(-\infty,0)\cup(0,\infty)", r"\mathbb{R}\setminus\{0\}"),
        (r"\{1,2,3\}", r"\{3,2,1\}"),
        (r"\{1,2,3\}", r"1,2,3"),
        (r"\{1,2\}", r"x=1,x=2"),
        (r"\{\frac{1}{2}\}", r"0.5"),
        (r"\{-2,2\}", r"\pm 2"),
        (r"\emptyset", r"\{\}"),
        (r"\emptyset", r"\varnothing"),
        (r"x=\pm 3", r"\{3,-3\}"),
        (r"\{(1,2),(2,1)\}", r"(2,1),(1,2)"),
        (r"\{(1,2)\}", r"(1,2)"),
    ],
    "tuples": [
        (r"(1,2)", r"(1,2)"),
        (r"(1,2)", r"(1.0,\frac{4}{2})"),
        (r"(1,2)", r"x=1,y=2"),
        (r"(x,y)=(1,2)", r"(1,2)"),
        (r"(1,2),(3,4)", r"(3,4),(1,2)"),
        (r"\langle 1,2\rangle", r"(1,2)"),
    ],
    "matrices": [
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix}1\\2\end{bmatrix}"),
        (r"\begin{pmatrix}1/2&0\\0&1\end{pmatrix}", r"\begin{pmatrix}0.5&0\\0&1\end{pmatrix}"),
    ],
    "equations": [
        (r"y=2x+1", r"y=1+2x"),
        (r"y=2x+1", r"2x-y+1=0"),
        (r"y=2x+1", r"2x+1"),
        (r"2x+3y=6", r"4x+6y=12"),
        (r"x^2+y^2=1", r"x^2+y^2-1=0"),
    ],
    "hedging": [
        (r"x=5", r"5"),
        (r"5", r"x=5"),
        (r"5", r"5+0x"),
        (r"+5", r"5"),
    ],
    "bases": [
        (r"1011_2", r"1011_{2}"),
        (r"FF_{16}", r"FF_{16}"),
    ],
    "scientific notation": [
        (r"3\times 10^8", r"3e8"),
        (r"3\times 10^8", r"300000000"),
        (r"6.02\times 10^{23}", r"6.02 \cdot 10^{23}"),
        (r"1.5\times 10^{-3}", r"0.0015"),
    ],
    "logarithms": [
        (r"\ln 2", r"\log 2"),
        (r"\log_2 8", r"3"),
        (r"\log_2 3", r"\frac{\ln 3}{\ln 2}"),
        (r"\ln 4", r"2\ln 2"),
        (r"\ln 6", r"\ln 2+\ln 3"),
    ],
    "complex": [
        (r"3+4i", r"4i+3"),
        (r"e^{i\pi}", r"-1"),
        (r"\frac{1}{i}", r"-i"),
        (r"1+i", r"\sqrt{2}e^{i\pi/4}"),
        (r"\sqrt{-4}", r"2i"),
        (r"x^2+i", r"i+x^2"),
        (r"\{i,-i\}", r"\pm i"),
        (r"\sqrt{-1}", r"i"),
        (r"(1+i)^2", r"2i"),
        (r"\frac{1+i}{1-i}", r"i"),
    ],
    "fractions": [
        (r"\frac{1}{2}", r"\frac{2}{4}"),
        (r"\frac{1}{2}", r"1/2"),
        (r"\frac{1}{3}", r"0.333333333"),
        (r"1\frac{1}{2}", r"\frac{3}{2}"),
        (r"1\frac{1}{2}", r"1.5"),
        (r"-1\frac{1}{2}", r"-\frac{3}{2}"),
        (r"\frac{6}{4}", r"1\frac{1}{2}"),
        (r"\binom{n}{2}", r"\frac{n(n-1)}{2}"),
    ],
    "algebra": [
        (r"x^2-1", r"(x-1)(x+1)"),
        (r"\frac{x^2-1}{x-1}", r"x+1"),
        (r"\sin^2 x+\cos^2 x", r"1"),
        (r"\sin 2x", r"2\sin x\cos x"),
        (r"e^{x+1}", r"e\cdot e^x"),
        (r"2^{n+1}", r"2\cdot 2^n"),
        (r"\text{Monday}", r"Monday"),
    ],
}

DIFFERENT: dict[str, list[tuple[str, str]]] = {
    "units": [
        (r"5\text{ m}", r"5\text{ cm}"),
        (r"5\text{ m}", r"500\text{ cm}"),
        (r"3\text{ hours}", r"3\text{ minutes}"),
        (r"20\text{ cm}^2", r"20\text{ cm}^3"),
        (r"90^\circ", r"80^\circ"),
        (r"\frac{\pi}{2}", r"90^\circ"),
        (r"5", r"5\text{ or }6"),
        (r"5", r"\text{either }5\text{ or }6"),
        (r"5", r"\text{not }5"),
        (r"\text{yes}", r"\text{no}"),
        (r"60\text{ km/h}", r"60\text{ m/s}"),
        (r"12\text{ square feet}", r"12\text{ feet}"),
        (r"5\text{ apples}", r"5\text{ oranges}"),
    ],
    "percent": [
        (r"25\%", r"0.025"),
        (r"25\%", r"2.5"),
    ],
    "numbers": [
        (r"0.25", r"25"),
        (r"7", r"7.0000001"),
        (r"7", r"6.9999999"),
        (r"2^{100}", r"1267650600228229401496703205377"),
        (r"100!", r"99!"),
        (r"\sqrt{2}", r"1.414"),
        (r"\sqrt{2}", r"\sqrt{2}+10^{-12}"),
        (r"\sqrt{2}\cdot 10^{-20}", r"\sqrt{3}\cdot 10^{-20}"),
        (r"\pi", r"\frac{22}{7}"),
        (r"\pi", r"3.14"),
        (r"e^{-100}", r"e^{-101}"),
        (r"e^{-100}", r"0"),
        (r"10^{-30}", r"0"),
        (r"\pi\cdot 10^{-18}", r"0"),
        (r"10^{20}\pi", r"10^{20}\pi+1"),
        (r"12:30", r"12.5"),
        (r"7:32", r"32:7"),
        (r"10,000", r"10"),
        (r"0.3", r"0.30000000000000004"),
        (r"a+bi", r"a-bi"),
    ],
    "currency": [
        (r"\$18", r"\$18.01"),
        (r"\$18", r"18\text{ cents}"),
        (r"\$5", r"€5"),
    ],
    "intervals": [
        (r"(0,1)", r"[0,1]"),
        (r"(0,1]", r"(0,1)"),
        (r"[0,1)", r"0<x\le 1"),
        (r"(-\infty,3)", r"x\le 3"),
        (r"(-\infty,0)\cup(0,\infty)", r"(-\infty,\infty)"),
        (r"[1,2]\cup[3,4]", r"[1,4]"),
        (r"x>3", r"x<3"),
        (r"\infty", r"-\infty"),
        (r"\frac{1}{0}", r"\infty"),
        (r"(2,3)", r"[2,3]"),
    ],
    "sets": [
        (r"\{1,2,3\}", r"\{1,2\}"),
        (r"\{1,2,3\}", r"\{1,2,3,4\}"),
        (r"\{1,2\}", r"(1,2)"),
        (r"\emptyset", r"\{0\}"),
        (r"\emptyset", r"0"),
        (r"5", r"\{5,6\}"),
        (r"x=\pm 3", r"3"),
        (r"(1,2)", r"\{1,2\}"),
        (r"(2,1)", r"\{1,2\}"),
    ],
    "tuples": [
        (r"(1,2)", r"(2,1)"),
        (r"(1,2,3)", r"(1,2)"),
        (r"(1,2)", r"(1,2,3)"),
        (r"(x,y)=(1,2)", r"(2,1)"),
        (r"(1,2),(3,4)", r"(1,3),(2,4)"),
        (r"(1,2),(3,4)", r"(1,2)"),
    ],
    "matrices": [
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1&2\end{pmatrix}"),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&2\\3&5\end{pmatrix}"),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&3\\2&4\end{pmatrix}"),
        (r"\begin{pmatrix}1&0\\0&1\end{pmatrix}", r"1"),
        (r"\begin{pmatrix}\frac{1}{2^{99}}\\0\end{pmatrix}", r"\begin{pmatrix}\frac{1}{2^{98}}\\0\end{pmatrix}"),
    ],
    "equations": [
        (r"y=2x+1", r"y=2x-1"),
        (r"x=5", r"y=5"),
        (r"2x+3y=6", r"4x+6y=13"),
        (r"x^2+y^2=1", r"x^2+y^2=2"),
        (r"x^2+y^2=1", r"1"),
        (r"x=y", r"0"),
    ],
    "hedging": [
        (r"x=5", r"x=6"),
        (r"5", r"5,6"),
        (r"5", r"5?"),
        (r"5", r"\ge 5"),
        (r"5", r"x>5"),
        (r"5", r"\approx 5"),
        (r"5", r"5\pm 1"),
        (r"5", r"5x"),
        (r"-5", r"5"),
    ],
    "bases": [
        (r"1011_2", r"11_{10}"),
        (r"1011_2", r"1101_2"),
        (r"FF_{16}", r"FE_{16}"),
        (r"77_8", r"77"),
    ],
    "scientific notation": [
        (r"3\times 10^8", r"3\times 10^9"),
        (r"1.5\times 10^{-3}", r"0.00015"),
        (r"2.5\times 10^{-20}", r"2.6\times 10^{-20}"),
    ],
    "logarithms": [
        (r"\ln 2", r"\log_{10} 2"),
        (r"\ln 2", r"\log_2 e"),
        (r"\ln 6", r"\ln 5"),
    ],
    "complex": [
        (r"3+4i", r"3-4i"),
        (r"3+4i", r"4+3i"),
        (r"i", r"-i"),
    ],
    "fractions": [
        (r"\frac{1}{2}", r"\frac{1}{3}"),
        (r"\frac{1}{3}", r"0.333"),
        (r"\frac{1}{3}", r"0.333333334"),
        (r"\frac{2}{3}", r"0.67"),
        (r"1\frac{1}{2}", r"\frac{1}{2}"),
        (r"-1\frac{1}{2}", r"-\frac{1}{2}"),
        (r"2\frac{3}{4}", r"\frac{3}{2}"),
        (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}"),
    ],
    "algebra": [
        (r"x^2-1", r"(x-1)^2"),
        (r"\sin 2x", r"2\sin x"),
        (r"|x|", r"x"),
        (r"\sqrt{x^2}", r"x"),
        (r"x+10^{-15}", r"x"),
        (r"10^{-16}x", r"0"),
        (r"2^n", r"n^2"),
        (r"\text{Monday}", r"\text{Tuesday}"),
        (r"\text{June 6}", r"6"),
    ],
}


def test_there_are_many_of_both_directions() -> None:
    assert sum(map(len, SAME.values())) > 100
    assert sum(map(len, DIFFERENT.values())) > 80
    assert len(SAME.keys() & DIFFERENT.keys()) > 12


@pytest.mark.parametrize("topic", SAME)
def test_the_same_in_other_words(judge: Judge, rollout: Make, topic: str) -> None:
    verdicts = judge("math", [rollout(f"so \\boxed{{{answer}}}", gold) for gold, answer in SAME[topic]])
    assert [pair for pair, one in zip(SAME[topic], verdicts, strict=True) if one.status != "pass"] == []


@pytest.mark.parametrize("topic", DIFFERENT)
def test_what_only_looks_the_same(judge: Judge, rollout: Make, topic: str) -> None:
    verdicts = judge("math", [rollout(f"so \\boxed{{{answer}}}", gold) for gold, answer in DIFFERENT[topic]])
    assert [pair for pair, one in zip(DIFFERENT[topic], verdicts, strict=True) if one.value != 0.0] == []
