"""ToolGraph: a graph of tools that fail in hidden ways, and how to get through it (after Self-Healing Router).

A task is to execute the goal of a tool graph (arXiv 2603.01548 has such graphs as edges between tools; here tools
moreover have `any` or `all` joins, irreversible side effects and degraded goals). Tools fail, or report success and
deliver a bad output; that shows when they are called, through noisy monitors, or by consulting a model. What was
executed stays executed: re-planning goes on from a set of tools, never from the start. Outages are drawn, not
replayed; utility, risk, monitors and generated graphs are [ours].

## Actions
`Discrete(4 + T)` for graphs of up to T tools.

| action | what it does | masked |
|---|---|---|
| consult | a model call: shows the health of all tools, bad outputs, and if there is a risk | no `budget_calls` left |
| demote | from now on the next degraded goal counts | after the last |
| escalate | hand over to a person; the episode ends | never |
| finish | claim the current goal; the episode ends | never |
| call[t] | one call of tool t; costs as much when it fails | join not satisfied, absent, or beyond `budget_usd` |

A masked action changes nothing, is rewarded with −1 and counts only towards the time limit.

## Observation
A flat float32 Box, the context first and then one block per tool; `env.unwrapped.layout` names the slices. The
context holds weights, budget, the price of a consultation, risk, the current goal, how doubtful the outputs are, the
price and the irreversible effects of the cheapest way to the goal and to the degraded one, and the numbers of the fault
regime; a block holds cost, latency, whether the tool is callable, executed, known to be down, its alarm, beliefs about
its health, its side effect, whether it is on the cheapest way, and what a detour through it costs. Ways are priced
under current beliefs: what calls cost until one succeeds, −log P(good output), and the expected harm of effects; of
tools with one side effect at most one is on a way. Graphs smaller than T are padded, with a presence flag, so one
policy serves graphs it has never seen. With `mask_in_obs=True` a Dict of `observation` and
`action_mask`; with `obs="index"` the row of the state and the dynamic features only. `info` holds `action_mask`,
`reward_vector` (quality, cost_usd, latency_s, format), `totals`, `outcome`, `repeated_effects`, `risk_breaches` and
`model_calls`.

## Reward
`utility` [ours]: at the end goal 1, demoted its own value (default 0.5), escalated 0.1, else 0; minus w_c · cost /
cost of the cheapest outage-free completion (w_c = `preference`, 0.1), minus c_model (`model_cost`) for every
consultation, minus 1 for a silent failure (finish without the goal), for every repeated side effect, and for every
irreversible effect under a true risk. See `utility.py`.

## Faults
`faults=` names a regime of `faults.py`: `independent`, `correlated` (by provider), `transient`, `late` (arriving in
mid-task), `wrong` (success reported, output bad), `noisy` (poor monitors), `mixed` (one of these an episode), or
`scenario` (the outages that a task of a hand-made suite names).

## Episode end
Terminated: finish or escalate. Truncated: `max_episode_steps`. `info["outcome"]` tells five ends apart: goal, demoted,
escalated, silent failure, stopped by the time limit; repeated side effects are counted beside them.

## Arguments
See `ToolGraphArguments`: log (a suite: `stochastic-small`, `stochastic`, `healing-19`, `healing-19-paper`, `ultratool`,
or a folder of YAML graphs), split, faults, model_cost, preference, budget_usd, max_choices …

## Version history
v0: first version.
"""
