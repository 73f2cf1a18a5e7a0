"""Records in, figures out: what results.json says of a series."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from statistics import fmean
from typing import Any

from .form import Form, read_form
from .stats import estimate, majority, pass_at_k, quantile, ranks
from .store import Asked, Sample

_Told = list[tuple[Sample, Form]]


def summarise(asked: Sequence[Asked], *, resamples: int, confidence: float) -> dict[str, Any]:
    """Accuracy, parallelism and latency of one series, and accuracy by group.

    Accuracy is over the samples that were answered; failed and missing ones are counted apart.
    An answer that was cut counts as its grade says; one without a final answer is wrong.
    """
    scored = _accuracy(asked, resamples, confidence)
    samples = [sample for one in asked for sample in _answered(one)]
    told = {one.id: _told(one) for one in asked}
    return {
        **_counts(asked),
        **scored,
        **_form(asked, told),
        **_structure(samples),
        **_speed(samples),
        "groups": _groups(asked, told, resamples, confidence),
    }


def accuracies(asked: Sequence[Asked]) -> dict[str, float]:
    """Share of right answers by problem, of the problems that have answers."""
    return {
        one.id: fmean(sample.right for sample in some) for one in asked if (some := _answered(one))
    }


def _answered(one: Asked) -> list[Sample]:
    return [sample for sample in one.samples if sample and sample.status == "answered"]


def _counts(asked: Sequence[Asked]) -> dict[str, Any]:
    every = [sample for one in asked for sample in one.samples]
    there = [sample for sample in every if sample]
    answered = [sample for sample in there if sample.status == "answered"]
    failed = [sample for sample in there if sample.status == "failed"]
    return {
        "problems": len(asked),
        "samples": len(every),
        "answered": len(answered),
        "failed": len(failed),
        "missing": len(every) - len(there),
        "why_failed": _tally(sample.why for sample in failed),
        "right": sum(sample.right for sample in answered),
        "cut": sum(sample.finish == "length" for sample in answered),
        "format_errors": sum(
            sample.extracted is None and sample.finish != "length" for sample in answered
        ),
        "ungraded": sum(bool(sample.note) for sample in answered),
        "reused": sum(bool(sample.reused) for sample in answered),
        "asked_again": sum(max(sample.tries - 1, 0) for sample in there),
    }


def _tally(values: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts


def _accuracy(asked: Sequence[Asked], resamples: int, confidence: float) -> dict[str, Any]:
    def over(values: Iterable[float]) -> dict[str, Any]:
        return asdict(estimate(list(values), resamples=resamples, confidence=confidence))

    per_problem = [_answered(one) for one in asked]
    most = max((len(one.samples) for one in asked), default=0)
    whole = [some for some in per_problem if most and len(some) == most]
    planned = [one.samples for one in asked if one.samples]
    return {
        "pass_at_1": over(accuracies(asked).values()),
        "pass_at_1_if_failed_are_wrong": over(
            sum(bool(s and s.right) for s in some) / len(some) for some in planned
        ),
        "pass_at_k": {
            str(k): over(
                pass_at_k(len(some), sum(s.right for s in some), k)
                for some in per_problem
                if len(some) >= k
            )
            for k in ranks(most)
        },
        "maj_at_k": {
            str(most): over(majority([(s.extracted, s.right) for s in some]) for some in whole)
        }
        if most > 1
        else {},
    }


def _form(asked: Sequence[Asked], told: Mapping[str, _Told]) -> dict[str, Any]:
    """How often the blocks of an answer have the branches that its problem asks for, and how often
    an answer that came to its end is well formed: both of endpoints that tell structure only.
    """
    forms = [(one, sample, form) for one in asked for sample, form in told[one.id]]
    return {
        "branches_as_asked": _share(
            form.branches == one.branches for one, _, form in forms if one.branches is not None
        ),
        "well_formed": _share(
            form.well_formed for _, sample, form in forms if sample.finish != "length"
        ),
    }


def _told(one: Asked) -> _Told:
    """The answers whose structure the endpoint tells, with the form of their texts."""
    return [
        (sample, read_form(text))
        for sample, text in zip(one.samples, one.texts, strict=True)
        if sample and sample.status == "answered" and sample.structure
    ]


def _share(values: Iterable[bool]) -> dict[str, Any] | None:
    listed = list(values)
    return {"share": fmean(listed), "answers": len(listed)} if listed else None


def _structure(samples: Sequence[Sample]) -> dict[str, Any]:
    told = [sample.structure for sample in samples if sample.structure]
    tokens = [sample.tokens for sample in samples if sample.tokens is not None]
    found: dict[str, Any] = {"tokens": spread(tokens), "structure": None}
    if told:
        critical = sum(one["critical_path_tokens"] for one in told)
        found["structure"] = {
            "answers": len(told),
            "critical_path_tokens": spread([one["critical_path_tokens"] for one in told]),
            "degree_of_parallelism": spread([one["degree_of_parallelism"] for one in told]),
            # Of all answers together: long ones weigh more.
            "all_tokens_over_all_critical": (
                sum(one["tokens"] for one in told) / critical if critical else 1.0
            ),
            "share_with_a_block": fmean(one["blocks"] > 0 for one in told),
            **{name: spread([one[name] for one in told]) for name in ("branches", "depth")},
        }
    return found


def _speed(samples: Sequence[Sample]) -> dict[str, Any]:
    asked = [sample for sample in samples if not sample.reused]
    return {
        "seconds": spread([sample.seconds for sample in asked if sample.seconds is not None]),
        "ttft": spread([sample.ttft for sample in asked if sample.ttft is not None]),
    }


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Mean and quantiles; `None` of nothing."""
    if not values:
        return None
    found = {f"p{share}": quantile(values, share / 100) for share in (10, 25, 50, 75, 90, 99)}
    return {"mean": fmean(values), **found}


def _groups(
    asked: Sequence[Asked], told: Mapping[str, _Told], resamples: int, confidence: float
) -> dict[str, dict[str, dict[str, Any]]]:
    names = dict.fromkeys(name for one in asked for name in one.groups)
    return {
        name: {
            value: {
                "problems": len(some),
                **{k: _counts(some)[k] for k in ("answered", "right", "cut", "format_errors")},
                "pass_at_1": _accuracy(some, resamples, confidence)["pass_at_1"],
                **_form(some, told),
            }
            for value, some in sorted(grouped(asked, partial(_group, name)).items())
        }
        for name in names
    }


def _group(name: str, one: Asked) -> str:
    return one.groups.get(name, "")


def grouped(values: Iterable[Any], key: Callable[[Any], str]) -> Mapping[str, list[Any]]:
    """In the order in which the keys come."""
    found: dict[str, list[Any]] = {}
    for value in values:
        found.setdefault(key(value), []).append(value)
    return found
