"""EffortRoute: how hard one model should think at every step of a task (after Ares, arXiv 2603.07915).

The same kind of task as BudgetRoute, whose dynamics it shares, with levels of reasoning effort of one model in place of
models. Number and names of the levels come from the log. More effort is not always better.

## Actions
`Discrete(L)` for L levels: choose[e], one call at effort e.

| action | masked |
|---|---|
| choose[e] | unrecorded here; a costlier level than the cheapest and no call of `budget_calls` left; reserve not \
covered by what is left of `budget_usd` |

A masked action changes nothing, is rewarded with −1 and counts only towards the time limit.

## Observation
That of BudgetRoute: a flat float32 Box, the context first and then one block per level; `env.unwrapped.layout` names
the slices. With `mask_in_obs=True` a Dict of `observation` and `action_mask`; with `obs="index"` the row of the state
and only what the row does not tell: weights, budgets left, legality and cached prefix. All levels share one prompt
cache, so changing the effort keeps the cached prefix. `info` holds `action_mask`, `reward_vector` (quality, cost_usd,
latency_s, format), `totals`, and `completion_tokens` and `reasoning_tokens` of the episode so far.

## Reward
`linear`: success − w_c · cost / c_ref − w_l · latency / l_ref, costs when they arise. `ares` [ours, reconstructed]:
at the end 1[success] · (5 − the mean over steps of 0.2 / 0.5 / 1.0 at low / mid / high); its known faults stand
at `rlroute.rewards.ares`. What is badly formatted concerns text alone.

## Episode end
Terminated: a terminal state, a response that leads nowhere (a failure), or nothing legal is left (a failure).
Truncated: `max_episode_steps`.

## Arguments
See `EffortRouteArguments`: log, split, reward, preference, budget_usd, budget_calls, prompt_cache …

## Version history
v0: first version.
"""
