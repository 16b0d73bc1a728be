"""Everything about a log that observations need and that is learned once: text features, prior, units, typical costs.

All of it is fitted on the train split of one salt and cached beside the dense arrays of the log, so that making an
environment a second time reads a few files and imports neither pyarrow nor scipy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from rlroute.arrays import LogArrays
from rlroute.cache import atomic_folder, cache_root
from rlroute.graph import always, prospects, reach
from rlroute.graph import reference as best_single_on_train
from rlroute.log import Log
from rlroute.prior import QualityPrior, fit_prior
from rlroute.rewards import Reference
from rlroute.splits import SPLITS
from rlroute.text import Featuriser, featuriser

NUM_TEXT_COMPONENTS = 32
EXTRA_CLIP = 3.0
TRAIN, VAL, TEST = range(len(SPLITS))
FEATURES_VERSION = 5  # bumped when the features of the same log would come out differently


@dataclass(frozen=True)
class TextModel:
    """Turns a text, and the extra numbers of a state, into the features of an observation; saved in the policy."""

    featuriser: str
    components: np.ndarray  # (num_text_features, NUM_TEXT_COMPONENTS), principal directions of the train texts
    centre: np.ndarray  # (num_text_features,)
    scale: np.ndarray  # (NUM_TEXT_COMPONENTS,), makes a component's 95 % range about [−1, 1]
    prior: QualityPrior  # of text and extra features; its targets are quality and prospect, num_choices each
    extra_mean: np.ndarray  # (num_extra,)
    extra_scale: np.ndarray  # (num_extra,)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Full text features of shape (N, num_text_features)."""
        return featuriser(self.featuriser)(texts)

    def project(self, full: np.ndarray) -> np.ndarray:
        """Full features to the components an observation carries, in [−1, 1]; (N, NUM_TEXT_COMPONENTS)."""
        return np.clip(self.unclipped(full), -1.0, 1.0).astype(np.float32)

    def unclipped(self, full: np.ndarray) -> np.ndarray:
        """The same components as a linear function of the full features, float64."""
        # In float64, so that the float32 result is the same for one text as for a batch of them.
        shifted = full.astype(np.float64) - self.centre
        return np.asarray(shifted @ self.components.astype(np.float64) / self.scale)

    def standardise(self, extra: np.ndarray) -> np.ndarray:
        """Extra numbers to [−1, 1]: three standard deviations of the train split either way; (N, num_extra)."""
        return standardise(extra, self.extra_mean, self.extra_scale)

    def estimates(self, full: np.ndarray, extra: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Prior and prospect of every choice from full text features and standardised extra ones, (N, C) each."""
        quality, prospect = np.split(self.prior(np.concatenate([full, extra], axis=1)), 2, axis=1)
        return quality, prospect

    def tensors(self) -> dict[str, np.ndarray]:
        """For a policy file; `from_tensors` is the inverse."""
        return {
            "text/components": self.components,
            "text/centre": self.centre,
            "text/scale": self.scale,
            "text/prior_weights": self.prior.weights,
            "text/prior_bias": self.prior.bias,
            "text/extra_mean": self.extra_mean,
            "text/extra_scale": self.extra_scale,
        }

    @classmethod
    def from_tensors(cls, featuriser: str, tensors: dict[str, np.ndarray]) -> TextModel:
        part = {name.removeprefix("text/"): value for name, value in tensors.items() if name.startswith("text/")}
        prior = QualityPrior(part.pop("prior_weights"), part.pop("prior_bias"))
        return cls(featuriser=featuriser, prior=prior, **part)


@dataclass(frozen=True)
class LogFeatures:
    """What the states of a log look like to a policy, for one featuriser and one split salt."""

    text: np.ndarray  # (num_states, NUM_TEXT_COMPONENTS) float32 in [−1, 1]
    prior: np.ndarray  # (num_states, num_choices) float32 in [0, 1]: expected quality, cross-fitted within train
    prospect: np.ndarray  # (num_states, num_choices) float32 in [0, 1]: expected quality of the end, likewise
    extra: np.ndarray  # (num_states, num_extra) float32 in [−1, 1]
    mean_cost_usd: np.ndarray  # (num_choices,) of one call on train
    mean_completion_tokens: np.ndarray  # (num_choices,) on train, NaN where unknown
    mean_latency_s: np.ndarray  # (num_choices,) of one call on train
    reference: Reference
    model: TextModel


def log_features(log: Log, name: str = "hashed", salt: int = 0) -> LogFeatures:
    """The features of `log`, from the cache where they have been computed before."""
    kind = featuriser(name)
    return cached_features(f"{log.content_hash}-{kind.name}-salt{salt}", kind, lambda: _compute(log, kind, salt))


def cached_features(key: str, kind: Featuriser, compute: Callable[[], LogFeatures]) -> LogFeatures:
    """The features stored in the cache under `key`, computed first where there are none."""
    folder = cache_root() / "features" / f"{key}-v{FEATURES_VERSION}"
    if not (folder / "reference.json").exists():
        with atomic_folder(folder) as temporary:
            _store(compute(), temporary)
    return _load(folder, kind.name)


def full_text_features(log: Log, name: str = "hashed") -> np.ndarray:
    """Unreduced text features of every state, (num_states, num_text_features) float32."""
    distinct, index = distinct_text_features(log, featuriser(name))
    return distinct[index]


def distinct_text_features(log: Log, kind: Featuriser) -> tuple[np.ndarray, np.ndarray]:
    """Features of the distinct texts of a log, and for each state which of them is its own; cached."""
    folder = cache_root() / "text" / f"{log.content_hash}-{kind.name}"
    if not folder.is_dir():
        texts = np.array([text or "" for text in log.states["text"].to_pylist()], dtype=object)
        distinct, index = np.unique(texts, return_inverse=True)
        with atomic_folder(folder) as partial:
            np.save(partial / "distinct.npy", kind(list(distinct)))
            np.save(partial / "index.npy", index)
    return tuple(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("distinct", "index"))


def _compute(log: Log, kind: Featuriser, salt: int) -> LogFeatures:
    arrays, split = log.arrays, log.splits(salt)
    train = split == TRAIN
    fitted, weight = fitted_states(arrays, split)
    distinct, index = distinct_text_features(log, kind)
    fitted_text = distinct[index[fitted]]
    centre, components, scale = _principal_components(fitted_text, weight)
    extra = arrays.extra.astype(np.float64)
    known = extra[fitted] if len(fitted) else np.zeros((1, extra.shape[1]))
    extra_mean, extra_scale = known.mean(axis=0), known.std(axis=0)
    extra_scale = np.where(extra_scale > 0, extra_scale, 1.0)
    standardised = standardise(extra, extra_mean, extra_scale)
    prior, cross_fitted = fit_prior(
        np.concatenate([fitted_text, standardised[fitted]], axis=1),
        np.concatenate([mean_quality(arrays), prospects(arrays)], axis=1)[fitted],
        weight,
        arrays.group[fitted],
    )
    model = TextModel(kind.name, components, centre, scale, prior, extra_mean, extra_scale)
    estimates = np.empty((arrays.num_states, 2 * arrays.num_choices), np.float32)
    for rows in np.array_split(np.arange(arrays.num_states), 1 + arrays.num_states // 4096):
        estimates[rows] = np.concatenate(model.estimates(distinct[index[rows]], standardised[rows]), axis=1)
    estimates[fitted] = cross_fitted
    quality, prospect = np.split(estimates, 2, axis=1)
    cost, tokens, latency = _typical_calls(arrays, train)
    return LogFeatures(
        text=model.project(distinct)[index],
        prior=quality,
        prospect=prospect,
        extra=standardised,
        mean_cost_usd=cost,
        mean_completion_tokens=tokens,
        mean_latency_s=latency,
        reference=reference(arrays, split),
        model=model,
    )


def fitted_states(arrays: LogArrays, split: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Train states that uniform routing reaches and that are no ends, and how much each matters, (n,) each."""
    weight = reach(arrays)
    fitted = np.flatnonzero((split == TRAIN) & (weight > 0) & ~arrays.terminal)
    return fitted, weight[fitted]


def standardise(extra: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Numbers to [−1, 1], `EXTRA_CLIP` standard deviations either way, float32."""
    return np.clip(np.nan_to_num((extra - mean) / scale) / EXTRA_CLIP, -1.0, 1.0).astype(np.float32)


def mean_quality(arrays: LogArrays) -> np.ndarray:
    """Mean recorded quality over the attempts, (num_states, num_choices); NaN where none is recorded."""
    known = ~np.isnan(arrays.quality)
    cell = arrays.row_cell
    size = arrays.num_attempts.size
    total = np.bincount(cell[known], weights=arrays.quality[known], minlength=size)
    count = np.bincount(cell[known], minlength=size)
    with np.errstate(invalid="ignore"):
        return (total / np.where(count > 0, count, np.nan)).reshape(arrays.num_attempts.shape)


def reference(arrays: LogArrays, split: np.ndarray) -> Reference:
    """c_ref, l_ref and the percentiles of `router_r1` from the train states of a split, (num_states,) codes."""
    best = best_single_on_train(arrays, split)
    tokens = arrays.completion_tokens
    output_cost = np.where(
        tokens >= 0, tokens * arrays.output_usd[arrays.row_cell % arrays.num_choices], arrays.cost_usd
    )
    low, high = root_cost_percentiles(arrays, split, output_cost)
    return Reference(
        choice=best["choice"],
        cost_usd=max(best["cost_usd"], 1e-12),
        latency_s=best["latency_s"],
        root_cost_p5=low,
        root_cost_p95=high,
    )


def root_cost_percentiles(arrays: LogArrays, split: np.ndarray, cost_usd: np.ndarray) -> tuple[float, float]:
    """5th and 95th percentile of √cost of train episodes under uniform routing; `cost_usd` of each response."""
    # Every choice alike, kept up to the end of the episode.
    _, spent_usd, _ = always(replace(arrays, cost_usd=cost_usd))
    roots = np.flatnonzero(arrays.root & (split == TRAIN))
    spent = spent_usd[roots if len(roots) else arrays.root]
    low, high = np.percentile(np.sqrt(spent[np.isfinite(spent)]), [5, 95])
    return float(low), float(high)


def _principal_components(x: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre, leading directions and their scales, signs fixed so that the largest entry is positive."""
    width = x.shape[1]
    components = np.zeros((width, NUM_TEXT_COMPONENTS), np.float32)
    scale = np.ones(NUM_TEXT_COMPONENTS, np.float32)
    if len(x) < 2:
        return np.zeros(width, np.float32), components, scale
    share = weight / weight.sum()
    centre = share @ x
    centred = (x - centre) * np.sqrt(share)[:, None]
    from scipy.linalg import eigh

    found = min(NUM_TEXT_COMPONENTS, width)
    covariance = (centred.T @ centred).astype(np.float64)
    values, vectors = eigh(covariance, subset_by_index=(width - found, width - 1), driver="evr")
    values, vectors = values[::-1], vectors[:, ::-1]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(found)])
    components[:, :found] = vectors
    scale[:found] = 2.0 * np.sqrt(np.maximum(values, 1e-12))
    return centre.astype(np.float32), components, scale


def _typical_calls(arrays: LogArrays, train: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean cost, completion tokens and latency of one call of each choice on train, each (num_choices,).

    All states stand in where train holds none.
    """
    num_choices = arrays.num_choices
    cell = arrays.row_cell
    rows = train[cell // num_choices]
    rows |= not rows.any()
    choice = cell[rows] % num_choices

    def mean(values: np.ndarray, known: np.ndarray) -> np.ndarray:
        total = np.bincount(choice[known], weights=values[known], minlength=num_choices)
        count = np.bincount(choice[known], minlength=num_choices)
        return total / np.where(count > 0, count, np.nan)

    tokens = arrays.completion_tokens[rows].astype(np.float64)
    everywhere = np.ones(len(choice), bool)
    cost = mean(arrays.cost_usd[rows], everywhere)
    latency = mean(arrays.latency_s[rows].astype(np.float64), everywhere)
    return np.nan_to_num(cost, nan=np.nanmean(cost)), mean(tokens, tokens >= 0), np.nan_to_num(latency)


_TABLES = ("text", "prior", "prospect", "extra", "mean_cost_usd", "mean_completion_tokens", "mean_latency_s")


def _store(features: LogFeatures, folder: Path) -> None:
    for name in _TABLES:
        np.save(folder / f"{name}.npy", getattr(features, name))
    for name, tensor in features.model.tensors().items():
        np.save(folder / f"{name.replace('/', '.')}.npy", tensor)
    (folder / "reference.json").write_text(json.dumps(asdict(features.reference)))


def _load(folder: Path, kind: str) -> LogFeatures:
    tables = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _TABLES}
    tensors = {
        path.stem.replace("text.", "text/"): np.load(path, mmap_mode="r", allow_pickle=False)
        for path in folder.glob("text.*.npy")
    }
    return LogFeatures(
        **tables,
        reference=Reference(**json.loads((folder / "reference.json").read_text())),
        model=TextModel.from_tensors(kind, tensors),
    )
