"""`metrics.json` and a plain ``report.md``: the verdict first, then the tables it rests on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlroute.evaluation import Evaluation, gap_closed
from rlroute.frontier import Frontier
from rlroute.metrics import Comparison
from rlroute.ope import CONFOUNDED

BEST_MIX = "best mix"


def write_metrics(path: str | Path, evaluations: Sequence[Evaluation], extra: Mapping[str, Any] | None = None) -> Path:
    """Write ``{"results": […], …}``, whole or not at all; numbers that are not finite become null."""
    data = {"results": [r.to_dict() for e in evaluations for r in e.results()], **(extra or {})}
    return write_text(path, json.dumps(_finite(data), indent=1, ensure_ascii=False) + "\n")


def write_report(path: str | Path, sections: Sequence[str], title: str = "Report") -> Path:
    """Write sections as one Markdown file, whole or not at all."""
    return write_text(path, f"# {title}\n\n" + "\n\n".join(sections).rstrip() + "\n")


def section(
    evaluation: Evaluation,
    trained: str,
    floor: str = "best single",
    ceiling: str | None = None,
    frontiers: Sequence[Frontier] = (),
    notes: Sequence[str] = (),
) -> str:
    """One family on one log: who beats whom at every setting, then all figures.

    `trained` names the router in question, `floor` the best single choice, `ceiling` the latent-knowing
    optimum.
    """
    rivals = [n for n, kind in evaluation.kinds.items() if kind == "reference" and n != trained]
    weights = evaluation.settings[0].kind == "weight"
    head = f"## {evaluation.family.split('/')[-1]} on `{evaluation.log}`, split `{evaluation.split}`"
    parts = [head]
    if not evaluation.coverage_full:
        return "\n\n".join([head, _off_policy(evaluation), *(f"- {note}" for note in notes)])
    if trained in evaluation.scores:
        verdicts = {rival: _against(evaluation, trained, rival) for rival in rivals}
        parts.append(_headline(evaluation, trained, verdicts))
        if ceiling is not None and ceiling in evaluation.scores and floor in evaluation.scores:
            closed = gap_closed(evaluation, trained, floor, ceiling)
            shares = ", ".join(f"{s.name}: {_percent(x)}" for s, x in zip(evaluation.settings, closed, strict=True))
            parts.append(f"Share of the gap between {floor} and {ceiling} closed: {shares}.")
        parts.append(_verdict_table(evaluation, trained, verdicts))
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    if frontiers:
        parts.append(_frontier_table(frontiers))
    parts.append(_figures(evaluation, weights))
    return "\n\n".join(parts)


def _off_policy(evaluation: Evaluation) -> str:
    """All that may be said of a partial log: estimates that correct for who was asked what, or nothing."""
    estimates = {name: rows for name, rows in evaluation.off_policy.items() if CONFOUNDED not in rows}
    if not estimates:
        return f"**{CONFOUNDED[0].upper()}{CONFOUNDED[1:]}.**"
    rows = [[name, *values] for name, values in estimates.items()]
    text = "The log is partial: value of the first call, estimated from the recorded propensities."
    return f"{text}\n\n{table(['policy', *(s.name for s in evaluation.settings)], rows)}"


def _against(evaluation: Evaluation, trained: str, rival: str) -> list[Comparison]:
    # The best mix is built to cost what the trained router costs, so it is compared in quality.
    return evaluation.compare(trained, rival, by="quality" if rival == BEST_MIX else "reward")


def _headline(evaluation: Evaluation, trained: str, verdicts: Mapping[str, Sequence[Comparison]]) -> str:
    lines = []
    for i, setting in enumerate(evaluation.settings):
        words: dict[str, list[str]] = {"beats": [], "tie": [], "loses": []}
        for rival, comparison in verdicts.items():
            words[comparison[i].verdict].append(rival)
        said = [f"{verb} {', '.join(words[key])}" for key, verb in _VERBS if words[key]]
        lines.append(f"- **{setting.name}**: {trained} " + "; ".join(said) + ".")
    return "\n".join(lines)


_VERBS = (("beats", "beats"), ("tie", "ties with"), ("loses", "**loses to**"))


def _verdict_table(evaluation: Evaluation, trained: str, verdicts: Mapping[str, Sequence[Comparison]]) -> str:
    header = ["against", *(s.name for s in evaluation.settings)]
    rows = [
        [rival + (" (quality at equal cost)" if rival == BEST_MIX else ""), *(_cell(c) for c in comparison)]
        for rival, comparison in verdicts.items()
    ]
    text = (
        f"{trained} minus each reference: mean paired difference in reward over the same groups, with its 95 "
        "% bootstrap interval; a tie where that holds 0."
    )
    return f"{text}\n\n{table(header, rows)}"


def _cell(comparison: Comparison) -> str:
    return f"{comparison.verdict} {comparison.difference:+.3f} [{comparison.low:+.3f}, {comparison.high:+.3f}]"


def _frontier_table(frontiers: Sequence[Frontier]) -> str:
    rows = [
        [
            f.policy,
            _number(f.aiq),
            _number(f.aiq_routerbench_code),
            _number(100 * f.quality_gain, "+.1f"),
            _percent(f.cost_to_match),
        ]
        for f in sorted(frontiers, key=lambda f: -np.nan_to_num(f.aiq, nan=-1.0))
    ]
    header = ["frontier", "AIQ (paper)", "AIQ (RouterBench code)", "ΔQ at c*, points", "cost to reach q*"]
    text = (
        "Frontiers over the weights, vertices chosen on val and scored on test. c*, q*: cost and quality "
        "here of the single choice that is best on val."
    )
    return f"{text}\n\n{table(header, rows)}"


def _figures(evaluation: Evaluation, weights: bool) -> str:
    header = ["policy", "setting", "quality", "USD an episode", "reward", "95 %", "calls"]
    if not weights:
        header += ["success", "violations", "overspend USD", "expensive calls"]
    rows = []
    for result in evaluation.results():
        row = [
            result.policy,
            result.setting,
            _number(result.quality),
            _number(result.cost_usd, ".3g"),
            _number(result.reward),
            f"[{result.ci95[0]:.3f}, {result.ci95[1]:.3f}]",
            _number(result.calls, ".2f"),
        ]
        if not weights:
            row += [
                _number(result.success),
                _percent(result.violation_rate),
                _number(result.overspend_usd, ".3g"),
                _number(result.expensive_calls, ".2f"),
            ]
        rows.append(row)
    return "All figures: means over groups of episodes.\n\n" + table(header, rows)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _number(value: float | None, spec: str = ".3f") -> str:
    return "–" if value is None or not np.isfinite(value) else format(value, spec)


def _percent(value: float | None) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{100 * value:.0f} %"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value


def write_text(path: str | Path, text: str) -> Path:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, target)
    return target
