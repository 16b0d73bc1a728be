"""Text features that never change, and a quality prior that has not seen what it estimates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from logs import background, make_log, response, think_env
from numpy.testing import assert_allclose, assert_array_equal

from rlroute.features import TextModel, full_text_features, log_features
from rlroute.log import Log
from rlroute.prior import fit_prior
from rlroute.splits import group_of, split_groups
from rlroute.text import HashedNgrams, featuriser

pytestmark = pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning")

# Buckets and values of three texts. Policies in the field were trained on these: they may never change.
PINNED = {
    "Hello, world 42!": (
        [160, 323, 385, 446, 646, 721, 878, 979, 1022],
        np.array([-1, 1, -1, -1, 1, 1, -1, -1, 1]) / 3,
    ),
    "17 and 42": ([155, 160, 877, 969], np.array([1, -np.sqrt(2), 1, 1]) / np.sqrt(5)),
    "the the the": ([390, 486], np.array([np.sqrt(2), np.sqrt(3)]) / np.sqrt(5)),
}


@pytest.mark.parametrize("text", PINNED)
def test_the_hashed_featuriser_is_fixed_for_ever(text: str) -> None:
    row = HashedNgrams()([text])[0]
    buckets, values = PINNED[text]
    assert np.flatnonzero(row).tolist() == buckets
    assert_allclose(row[buckets], values, rtol=1e-6)


def test_text_features_have_length_one_or_zero() -> None:
    texts = ["", "   ", "a", "What is iron?", "x" * 5000, "naïve façade 漢字", "№ 5 — №"]
    rows = HashedNgrams()(texts)
    assert rows.dtype == np.float32
    assert rows.shape == (len(texts), 1024)
    norms = np.linalg.norm(rows, axis=1)
    assert_allclose(norms[2:], 1.0, rtol=1e-6)
    assert norms[:2].tolist() == [0, 0]


def test_text_features_do_not_depend_on_the_batch_on_case_or_on_digits() -> None:
    texts = ["What is iron?", "Who wrote Emma in 1815?", "who wrote emma in 1966?"]
    rows = HashedNgrams()(texts)
    for row, text in zip(rows, texts, strict=True):
        assert_array_equal(HashedNgrams()([text])[0], row)
    assert_array_equal(rows[1], rows[2])
    assert not np.array_equal(rows[0], rows[1])
    assert not np.array_equal(HashedNgrams()(["dog bites man"]), HashedNgrams()(["man bites dog"]))


def test_featurisers_go_by_short_and_by_versioned_name() -> None:
    assert featuriser("hashed").name == featuriser("hashed-ngrams-v1").name == "hashed-ngrams-v1"
    with pytest.raises(ValueError, match=r"'bert'.*hashed.*minilm"):
        featuriser("bert")


# -- the prior -------------------------------------------------------------------------------------


def population(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features, quality, weight and group of `n` states in groups of three; quality depends on feature 0."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 12)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    quality = np.clip(0.5 + x[:, :1] * [0.8, -0.8] + rng.normal(0, 0.2, (n, 2)), 0, 1)
    return x, quality, np.ones(n), np.arange(n) // 3


def test_the_prior_learns_what_is_to_be_learned() -> None:
    x, quality, weight, group = population()
    prior, crossed = fit_prior(x, quality, weight, group)
    for estimates in (prior(x), crossed):
        assert estimates.dtype == np.float32
        assert estimates.min() >= 0
        assert estimates.max() <= 1
        assert np.corrcoef(estimates[:, 0], quality[:, 0])[0, 1] > 0.6
        assert np.corrcoef(estimates[:, 1], quality[:, 1])[0, 1] > 0.6
    # Estimates of rows that were fitted on are closer than honest ones.
    assert ((prior(x) - quality) ** 2).sum() < ((crossed - quality) ** 2).sum()


def test_no_estimate_of_a_train_row_depends_on_its_own_group() -> None:
    x, quality, weight, group = population()
    _, before = fit_prior(x, quality, weight, group)
    for changed in range(0, 100, 7):
        own = group == changed
        other = quality.copy()
        other[own] = 1 - other[own].round()
        _, after = fit_prior(x, other, weight, group)
        assert_array_equal(after[own], before[own])
        assert not np.array_equal(after[~own], before[~own])


def test_not_even_the_penalty_is_chosen_by_looking_at_the_own_group() -> None:
    # One group so heavy that its quality decides which penalty fits best: random qualities want a large one.
    x, quality, weight, group = population(60, seed=3)
    own = group == 4
    weight = np.where(own, 1e3, 1.0)
    reversed_ = quality.copy()
    reversed_[own] = 1 - reversed_[own].round()
    _, before = fit_prior(x, quality, weight, group)
    _, after = fit_prior(x, reversed_, weight, group)
    assert_array_equal(after[own], before[own])


def test_every_group_is_left_out_with_about_a_fifth_of_the_others() -> None:
    x, quality, weight, group = population(900)
    _, before = fit_prior(x, quality, weight, group)
    shares = []
    for changed in range(0, 300, 30):
        other = quality.copy()
        other[group == changed] = 1 - other[group == changed].round()
        _, after = fit_prior(x, other, weight, group)
        untouched = (after == before).all(axis=1)
        assert len(set(untouched[group == changed])) == 1
        shares.append(untouched.mean())
    assert 0.1 < min(shares) <= max(shares) < 0.35


def test_rows_of_one_choice_only_do_not_spoil_the_others() -> None:
    x, quality, weight, group = population()
    _, full = fit_prior(x, quality, weight, group)
    sparse = np.concatenate([quality, np.full((len(x), 1), np.nan)], axis=1)
    sparse[::2, 1] = np.nan
    prior, crossed = fit_prior(x, sparse, weight, group)
    assert_allclose(crossed[:, 0], full[:, 0], atol=1e-6)
    assert np.isfinite(crossed).all()
    assert np.corrcoef(crossed[:, 1], quality[:, 1])[0, 1] > 0.5
    # Of a choice that is recorded nowhere nothing is known.
    assert (crossed[:, 2] == 0.5).all()
    assert (prior(x)[:, 2] == 0.5).all()


def test_a_row_counts_by_its_weight() -> None:
    x, quality, _, group = population()
    twice = np.concatenate([np.arange(300), np.arange(150)])
    by_rows, _ = fit_prior(x[twice], quality[twice], np.ones(450), group[twice])
    by_weight, _ = fit_prior(x, quality, np.where(np.arange(300) < 150, 2.0, 1.0), group)
    assert_allclose(by_rows.weights, by_weight.weights, atol=1e-5)
    none, _ = fit_prior(x, quality, np.zeros(300), group)
    assert (none(x) == 0.5).all()


# -- the features of a log -------------------------------------------------------------------------


def questions(flip: str | None = None) -> Log:
    """Thirty questions a split; large is good where the text has an e, else small. `flip` inverts some."""
    words = ("iron", "bee", "tin", "sea", "oat", "hen", "boat", "ton", "one", "nib")
    states, responses = background()
    for i in range(90):
        name, split = f"q{i}", ("train", "val", "test")[i % 3]
        text = f"{words[i % 10]} {words[i // 10]} {words[(7 * i) % 10]} {'abot' * (i % 7)}"
        states.append({"state_id": name, "text": text, "split": split, "group_id": name, "hour": float(i)})
        for choice in ("small", "large"):
            good = ("e" in text) == (choice == "large")
            quality = float(good != (flip in (split, name)))
            responses.append(response(name, choice, "x", quality, completion_tokens=1 + i))
    return make_log([{"hour": 0.0} | state for state in states], responses)


@pytest.mark.usefixtures("handmade")
def test_nothing_but_train_shapes_the_features_of_the_test_split() -> None:
    log, flipped = questions(), questions(flip="test")
    before, after = log_features(log, "letters"), log_features(flipped, "letters")
    assert log.content_hash != flipped.content_hash
    assert before.reference == after.reference
    for name in ("text", "prior", "extra", "mean_cost_usd"):
        assert_array_equal(getattr(before, name), getattr(after, name))
    assert not np.array_equal(log_features(questions(flip="train"), "letters").prior, before.prior)


@pytest.mark.usefixtures("handmade")
@pytest.mark.parametrize("name", ["q0", "q33", "q87"])
def test_the_prior_of_a_train_question_has_not_seen_its_own_answers(name: str) -> None:
    log = questions()
    before, after = log_features(log, "letters").prior, log_features(questions(flip=name), "letters").prior
    row = list(log.arrays.state_ids).index(name)
    assert log.splits()[row] == 0
    assert_array_equal(before[row], after[row])
    assert not np.array_equal(before, after)


@pytest.mark.usefixtures("handmade")
def test_features_of_a_log_are_bounded_and_standardised_on_train() -> None:
    log = questions()
    features = log_features(log, "letters")
    train = (log.splits() == 0) & (np.arange(log.arrays.num_states) >= 2)
    assert features.extra.shape == (92, 1)
    assert np.abs(features.extra).max() <= 1
    assert abs(features.extra[log.splits() == 0].mean()) < 0.01
    assert np.abs(features.text).max() <= 1
    assert features.text[train].std(axis=0)[:3].min() > 0.1
    assert np.corrcoef(features.prior[2:, 1], ["e" in t.as_py() for t in log.states["text"][2:]])[0, 1] > 0.5


@pytest.mark.usefixtures("handmade")
def test_a_log_with_nothing_in_train_still_has_finite_features() -> None:
    texts = [t for t in (f"what is {i}?" for i in range(50)) if split_groups([group_of(t)])[0] == 2]
    states = [{"state_id": text, "text": text, "hour": 1.0} for text in texts]
    log = make_log(states, [response(text, c, "x", 1.0) for text in texts for c in ("small", "large")])
    assert (log.splits() == 2).all()
    features = log_features(log, "letters")
    for name in ("text", "prior", "extra", "mean_cost_usd", "mean_completion_tokens", "mean_latency_s"):
        assert np.isfinite(getattr(features, name)).all(), name
    observation, _ = think_env(log).reset(seed=0)
    assert np.isfinite(observation).all()


@pytest.mark.usefixtures("handmade")
def test_features_come_from_the_cache_unchanged() -> None:
    first, second = log_features(questions(), "letters"), log_features(questions(), "letters")
    assert isinstance(second.prior, np.memmap)
    for name in ("text", "prior", "extra"):
        assert_array_equal(getattr(first, name), getattr(second, name))
    assert first.reference == second.reference


@pytest.mark.usefixtures("handmade")
def test_every_state_gets_the_text_features_of_its_text() -> None:
    log = questions()
    full = full_text_features(log, "letters")
    texts = [text.as_py() for text in log.states["text"]]
    assert_array_equal(full, featuriser("letters")(texts))


@pytest.mark.usefixtures("handmade")
def test_the_text_model_survives_a_policy_file(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    log = questions()
    features = log_features(log, "letters")
    save_file({k: np.ascontiguousarray(v) for k, v in features.model.tensors().items()}, tmp_path / "x")
    tensors = load_file(tmp_path / "x") | {"something/else": np.zeros(3)}
    model = TextModel.from_tensors("letters", tensors)
    test = np.flatnonzero(log.splits() == 2)
    texts = [log.state_text(int(row)) for row in test]
    for batch in (range(len(test)), *([i] for i in range(5))):
        full = model.texts([texts[i] for i in batch])
        rows = test[list(batch)]
        assert_array_equal(model.project(full), features.text[rows])
        prior, prospect = model.estimates(full, features.extra[rows])
        assert_array_equal(prior, features.prior[rows])
        assert_array_equal(prospect, features.prospect[rows])
        assert_array_equal(model.standardise(log.arrays.extra[rows].astype(np.float64)), features.extra[rows])
