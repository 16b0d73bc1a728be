"""ThinkRoute: think, call models, accept an answer (after Router-R1, arXiv 2506.09033).

A question arrives. The router may think, which splits a multi-hop question into sub-questions, may call any choice of
the pool, several of them if it likes, and must at last accept one response. Accepting the answer to a sub-question
leads to the next one, which is asked about the answer accepted, right or wrong; accepting where no sub-question
follows ends the episode with that answer.

## Actions
`Discrete(1 + 2·C)` for a pool of C choices (one more with `checker="action"`):

| action | meaning | masked |
|---|---|---|
| 0 | think: go from the question to its first sub-question | no sub-question, no round left, price not covered |
| 1 | check the latest response (only with `checker="action"`) | nothing heard, no verdict recorded, checked already, \
no round left, price not covered |
| call[m] | draw and charge one recorded response of choice m | no attempt left, no round left, reserve not covered |
| accept[m] | take m's latest response here | until m has answered here |

Prices (`think_cost_usd`, `check_cost_usd`) and reserves have to be covered by what is left of `budget_usd`, if there is
one. With `repeat="same"` a choice never runs out of attempts: its last one comes again, at full price.

A masked action changes nothing, is rewarded with −1 and counts only towards the time limit.

## Observation
A flat float32 Box, the context first and then one block per choice; `env.unwrapped.layout` names the slices. With
`mask_in_obs=True` a Dict of `observation` and `action_mask`; with `obs="index"` the row of the state and only what the
row does not tell: weights, money and rounds left, whether thinking leads anywhere, how many replies and different
answers were heard, and of each choice whether it may be called, whether it answered, support, verdict and failure;
prices, latencies and priors are the same in every visit of a row. `info["action_mask"]` is int8,
`info["reward_vector"]` is (quality, cost_usd, latency_s, format) of the step and `info["totals"]` their sums. The
context holds text components, weights, money left, rounds left and depth; a block holds the choice's prior for this
text (learned on train), price, latency, whether it may be called, and of its latest response: agreement, length (of the
response's text, else of its answer), failure, and the checker's verdict. Nothing of an unchosen response, and nothing
of the gold answer, reaches an observation.

## Reward
`linear`: quality − w_c · cost / c_ref − w_l · latency / l_ref, costs when they arise. `router_r1`: see
`rlroute.rewards.RouterR1`. c_ref and l_ref are the means of the best single choice on train.

## Episode end
Terminated: an answer is committed, or nothing legal is left (quality 0). Truncated: `max_episode_steps`.

## Arguments
See `ThinkRouteArguments`: log, split, reward, preference, budgets, max_rounds, checker, commit, think_cost_usd …
The reply to a sub-question that is empty leads nowhere: accepting it ends the episode with quality 0.

## Version history
v0: first version.
"""
