"""What replaying a log adds to an episode: recorded responses in an order of their own, prices, priors, reserves."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from rlroute.draws import Stream, permuted_index
from rlroute.envs.arguments import ReplayArguments
from rlroute.envs.episodes import EpisodeDynamics
from rlroute.envs.observing import Frame, make_frame, text_size, with_text_for
from rlroute.envs.recording import Recording, Wanted, recording_of
from rlroute.envs.terms import Range, ends
from rlroute.features import LogFeatures, full_text_features, log_features
from rlroute.layout import Layout
from rlroute.log import load_log
from rlroute.pool import Pool
from rlroute.rewards import RewardRules, reward_rules

# A charge may exceed its reserve by this share: sums and products of prices round. Below what counts as a violation.
RESERVE_ROUNDING = 1e-10


class ReplayDynamics(EpisodeDynamics):
    """N episodes over one log, whose responses are drawn among the recorded ones."""

    arguments_type: ClassVar[type[ReplayArguments]]
    response_fields: ClassVar[tuple[str, ...]]  # what its kernels read of a response, see recording.RESPONSE
    estimates: ClassVar[tuple[str, ...]]  # what its observations tell of each choice in a state
    arguments: ReplayArguments

    def __init__(self, arguments: ReplayArguments, num_envs: int) -> None:
        super().__init__(arguments, num_envs, load_log(arguments.log))
        self.features = self._fitted_features()
        self.pool = Pool.from_log(self.arrays, self.features)
        self.prior, self.text = self.features.prior, self.features.text
        if arguments.budget_usd is not None:
            self._refuse_unusable_budget(arguments.budget_usd)
        self._refuse_unusable_pool_size()
        self.c_ref, self.l_ref = self.features.reference.cost_usd, self.features.reference.latency_s

    def _fitted_features(self) -> LogFeatures:
        arguments = self.arguments
        if not arguments.newcomers:
            return log_features(self.log, arguments.featuriser, arguments.split_salt)
        from rlroute.newcomers import Probing, newcomer_features

        probing = Probing(tuple(sorted(arguments.newcomers)), arguments.probes, arguments.probe_seed)
        return newcomer_features(self.log, probing, arguments.featuriser, arguments.split_salt)

    def as_trained(self, layout: Layout) -> Layout:
        """`layout` with the text components that a policy saw which was trained without the newcomers."""
        return with_text_for(layout, self.pool.size - len(set(self.arguments.newcomers)))

    def recording(self, layout: Layout) -> Recording:
        """The log as kernels read it."""
        a = self.arguments
        fitted = (a.featuriser, a.split_salt, a.newcomers, a.probes, a.probe_seed)
        text = text_size(layout)
        wanted = Wanted(text, self.estimates if text else (), self.response_fields)
        return recording_of(self.log, self.features, fitted, wanted)

    @property
    def pool_size(self) -> tuple[int, int]:
        """How many choices may be called in an episode, at least and at most."""
        low, high = ends(self.arguments.pool_size or self.pool.size)
        return int(low), int(high)

    def frame(self, layout: Layout) -> Frame:
        """The constants of observations in `layout`."""
        return make_frame(layout, self.c_ref, int(self.arrays.step.max(initial=0)))

    def reward_rules(self) -> RewardRules:
        """The reward and its constants."""
        arguments = self.arguments
        return reward_rules(
            arguments.reward,
            self.features.reference,
            metric=arguments.reward_metric,
            window=arguments.reward_window,
        )

    def drawn_rows(self, tasks: np.ndarray, slot: np.ndarray, episode: np.ndarray) -> np.ndarray:
        """What `draw` will give in whole episodes, (num_states, num_choices, max_attempts): for ceilings alone.

        `slot` and `episode` say where each of `tasks` is played, (M,); no state is to be reached from two of them.
        Element (s, c, k) is the response row of the k-th call of choice c in state s; −1 where there is none, or no
        task leads to s.
        """
        arrays, num_choices = self.arrays, self.pool.size
        most = int(arrays.num_attempts.max())
        rows = np.full((arrays.num_states, num_choices, most), -1, np.int64)
        place = self._reached_from(tasks)
        states = np.flatnonzero(place >= 0)
        for choice in range(num_choices):
            first, size = arrays.cell[states * num_choices + choice], arrays.num_attempts[states, choice]
            for k in range(most):
                known = np.flatnonzero(size > k)
                task = place[states[known]]
                rows[states[known], choice, k] = first[known] + permuted_index(
                    self.key,
                    size[known].astype(np.int64),
                    np.full(len(known), k),
                    slot[task],
                    episode[task],
                    states[known],
                    np.full(len(known), choice),
                    np.int64(Stream.ATTEMPT),
                )
        return rows

    def _reached_from(self, tasks: np.ndarray) -> np.ndarray:
        """Position in `tasks` of the one that leads to each state, (num_states,); −1 where none does."""
        arrays = self.arrays
        place = np.full(arrays.num_states, -1)
        place[tasks] = np.arange(len(tasks))
        row_state = arrays.row_cell // arrays.num_choices
        leads = np.flatnonzero(arrays.next_state >= 0)
        thinks = np.flatnonzero(arrays.think_state >= 0)
        before = np.concatenate([row_state[leads], thinks])
        after = np.concatenate([arrays.next_state[leads], arrays.think_state[thinks]])
        for step in np.unique(arrays.step[before]):  # steps rise along both: a state is placed before it passes it on
            edges = np.flatnonzero((arrays.step[before] == step) & (place[before] >= 0))
            place[after[edges]] = place[before[edges]]
        return place

    @property
    def only_cost_counts(self) -> bool:
        """Whether episodes are worth quality − w_c · cost / c_ref and nothing cuts them short, as ceilings assume."""
        arguments = self.arguments
        return (
            arguments.reward == "linear"
            and ends(arguments.latency_preference) == (0.0, 0.0)
            and arguments.budget_usd is None
            and self.max_episode_steps >= self.default_max_episode_steps
        )

    def affordable(self, prompt_tokens: np.ndarray) -> np.ndarray:
        """Choices whose reserve the budget covers, (num_envs, num_choices)."""
        return self.pool.reserve_usd(prompt_tokens) <= self.usd_left[:, None]

    # -- the environment as a policy file and references see it --------------------------------------------------

    def policy_card(self) -> dict[str, Any]:
        """What a policy trained here must remember in order to act elsewhere."""
        return {
            "family": self.family,
            "choices": self.pool.to_dict(),
            "layout": self.layout.to_dict(),
            "featuriser": self.features.model.featuriser,
            "arguments": self.arguments.to_dict(),
            "log": {"name": self.log.name, "content_hash": self.log.content_hash},
            "reference": vars(self.features.reference).copy(),
            "constants": {
                "num_extra": self.arrays.extra.shape[1],
                "max_attempts": int(self.arrays.num_attempts.max()),
                **self.constants(),
            },
            "extra_names": list(self.arrays.extra_names),
        }

    def constants(self) -> dict[str, float]:
        """Numbers of the training environment that an observation depends on, beside those of the pool."""
        return {}

    def policy_tensors(self) -> dict[str, np.ndarray]:
        """Arrays that turn a live text into the features the policy was trained on."""
        return {name: np.asarray(tensor) for name, tensor in self.features.model.tensors().items()}

    def full_text_features(self) -> np.ndarray:
        """Unreduced text features of every state, (num_states, num_text_features), for baselines."""
        return full_text_features(self.log, self.arguments.featuriser)

    def _refuse_unusable_log(self) -> None:
        super()._refuse_unusable_log()
        if not self.arrays.coverage_full and self.arguments.missing == "error":
            raise ValueError(
                f"log {self.log.name!r} is partial: some choices have no recorded response in some states; "
                "expected missing='mask', which masks them"
            )

    def largest_charges(self) -> np.ndarray:
        """The most that an episode may be charged for each response, (num_responses,) USD."""
        return np.asarray(self.arrays.cost_usd)

    def _refuse_unusable_pool_size(self) -> None:
        asked = self.arguments.pool_size
        if asked is not None and ends(asked)[1] > self.pool.size:
            raise ValueError(f"pool_size={asked!r}: expected at most {self.pool.size}, the choices of the log")

    def _refuse_unusable_budget(self, budget_usd: Range) -> None:
        """A cap in USD holds only where every reserve is known and covers whatever may be charged."""
        unknown = self.pool.without_limit()
        if unknown:
            raise ValueError(
                f"budget_usd needs max_completion_tokens and prices of every choice, unknown for: {', '.join(unknown)}"
            )
        arrays = self.arrays
        uncounted = (arrays.prompt_tokens_of < 0) & (arrays.num_attempts > 0) & (self.pool.input_usd > 0)
        if uncounted.any():
            raise ValueError(
                "budget_usd needs prompt tokens where they have a price, unknown for: "
                f"{', '.join(np.array(self.pool.names)[uncounted.any(axis=0)])}"
            )
        reserve = self.pool.reserve_usd(arrays.prompt_tokens_of)
        charge, cell = self.largest_charges(), arrays.row_cell
        excess = charge - reserve.reshape(-1)[cell] * (1 + RESERVE_ROUNDING)
        beyond = np.flatnonzero(excess > 0)
        if len(beyond):
            worst = int(beyond[excess[beyond].argmax()])
            state, choice = divmod(int(cell[worst]), self.pool.size)
            others = f", and {len(beyond) - 1} more" if len(beyond) > 1 else ""
            raise ValueError(
                f"budget_usd={budget_usd!r} could be exceeded: a response of {self.pool.names[choice]!r} in state "
                f"{str(arrays.state_ids[state])!r} costs {charge[worst]:.6g} USD{others}; expected at most its reserve "
                f"of {reserve[state, choice]:.6g} USD, input price × prompt tokens + output price × "
                "max_completion_tokens"
            )
        reserve = np.where(self.arrays.num_attempts[self.roots] > 0, reserve[self.roots], np.inf)
        cheapest = float(reserve.min())
        if ends(budget_usd)[0] < cheapest:
            name = self.pool.names[int(reserve.min(axis=0).argmin())]
            raise ValueError(
                f"budget_usd={budget_usd!r} is below the cheapest step: "
                f"expected at least {cheapest:.3g} USD, the reserve of {name!r}"
            )
