"""BudgetRoute: a cheap or an expensive model at every step of a task (after BoPO, arXiv 2602.21227).

A task is a path through a graph of recorded states. At every step the router picks who acts; the response drawn is
accepted at once and leads to the next state. Mistakes cost steps, or the task. Whether it succeeded is known at the
end only.

## Actions
`Discrete(C)` for a pool of C choices: choose[m], one call of choice m.

| action | masked |
|---|---|
| choose[m] | unrecorded here; expensive and no call of `budget_calls` left; reserve not covered by what is left of \
`budget_usd` |

A masked action changes nothing, is rewarded with −1 and counts only towards the time limit.

## Observation
A flat float32 Box, the context first and then one block per choice; `env.unwrapped.layout` names the slices. With
`mask_in_obs=True` a Dict of `observation` and `action_mask`; with `obs="index"` the row of the state and only what the
row does not tell: weights, both budgets left, and of each choice whether it may be called and its cached prefix.
`info["action_mask"]` is int8, `info["reward_vector"]` is (quality, cost_usd, latency_s, format) of the step and
`info["totals"]` their sums. The context holds text components and extra features of the step, weights, both budgets
left and the step number; a block holds the choice's prior for this step (learned on train), price with its cached
prefix, latency, whether it may be called, and what it did so far.

## Reward
`linear`: success − w_c · cost / c_ref − w_l · latency / l_ref, costs when they arise; with the default
`preference=0.0` success alone counts and the budget is the only limit.

## Budgets
`budget_calls` counts calls of expensive choices (all but the cheapest, or `expensive=`): exact. `budget_usd` masks a
choice unless what is left covers its reserve, input price × prompt tokens + output price × `max_completion_tokens`;
a log in which a call cost more than its reserve is refused.

## Cost
With `prompt_cache` (default where tokens are known) prompt tokens that this choice has processed earlier in the
episode, within its time to live, are charged at the cached price: switching costs what it costs in life. A call that
failed costs what was recorded.

## Episode end
Terminated: a terminal state, a response that leads nowhere (a failure), or nothing legal is left (a failure).
Truncated: `max_episode_steps`.

## Arguments
See `BudgetRouteArguments`: log, split, reward, preference, budget_usd, budget_calls, expensive, prompt_cache …
`repeat` has no effect here: a state is met once an episode, so no choice runs out of attempts.

## Version history
v0: first version.
"""
