"""A trained policy as a folder of two plain files, and acting with it in numpy.

``policy.yaml`` says what the policy is for: the environment family, the choices with their prices, the layout
of an observation, the featuriser, the log it was trained on, the reward and its units, and how well it did.
``weights.safetensors`` holds the network, and whatever arrays the observation is made with (such as the
quality prior). Neither holds code, so a stranger's policy can be loaded without running anything of theirs.
Acting needs numpy, PyYAML and safetensors; no torch and no Ray.

The network scores choices one by one with shared weights, so their number is not baked into it: a policy
trained on four models also acts on six.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlroute.cache import atomic_folder
from rlroute.layout import Layout
from rlroute.policies import dynamics_of

FORMAT = 1
CARD_FILE = "policy.yaml"
WEIGHTS_FILE = "weights.safetensors"
MASKED = -1e9  # the logit of a forbidden action: finite, so that no entropy or gradient turns into nan

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

# Policies whose weights are no network of this module name who loads them: card key `loader` → import path of a
# function (folder, card, sample=, seed=). What loads them may need torch, so it is imported only then.
LOADERS = {"text": "rlroute.agents.trl.policy:load_text_policy"}

_KINDS = {object: "value", dict: "mapping", list: "list", str: "text", Real: "number"}


class PolicyError(ValueError):
    """A policy folder that cannot be used: which file, which key, what was found and what was expected."""

    def __init__(self, file: str | Path, key: str | None, found: str, expected: str) -> None:
        super().__init__(file, key, found, expected)
        self.file, self.key, self.found, self.expected = Path(file), key, found, expected

    def __str__(self) -> str:
        where = f"{self.file}, key {self.key}" if self.key else f"{self.file}"
        return f"{where}: found {self.found}, expected {self.expected}"


def parameter_shapes(layout: Layout, hidden: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter; weights are (outputs, inputs), as in torch.

    The number of choices does not occur. ``trunk`` and ``context_head`` are single linear layers, the others
    are the linear layers 0 and 2 of a perceptron with a ReLU between them.
    """
    h = hidden
    layers = {
        "context_encoder.0": (h, layout.context_size),
        "context_encoder.2": (h, h),
        "choice_encoder.0": (h, layout.block_size + h),
        "choice_encoder.2": (h, h),
        "trunk": (h, 3 * h),
        "choice_head.0": (h, 2 * h),
        "choice_head.2": (len(layout.choice_actions), h),
        "value_head.0": (h, h),
        "value_head.2": (1, h),
    }
    if layout.context_actions:
        layers["context_head"] = (len(layout.context_actions), h)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in layers.items():
        shapes[f"{name}.weight"] = shape
        shapes[f"{name}.bias"] = shape[:1]
    return shapes


def forward(parameters: Mapping[str, FloatArray], layout: Layout, observation: FloatArray) -> FloatArray:
    """Unmasked logits (N, A) of observations (N, D); the number of choices is read off D.

    The context is encoded once, and every choice from its own block and that code. Mean and maximum of the
    choice codes over the pool, with the context code, give a summary of the whole situation; each choice is
    then scored from its own code and that summary.
    """

    def layer(name: str, inputs: FloatArray) -> FloatArray:
        return inputs @ parameters[f"{name}.weight"].T + parameters[f"{name}.bias"]

    def joint_layer(name: str, of_choice: FloatArray, of_all: FloatArray) -> FloatArray:
        # A layer over [own, shared] inputs is a sum of two: the shared part is computed once a row.
        weight, own = parameters[f"{name}.weight"], of_choice.shape[-1]
        shared = of_all @ weight[:, own:].T + parameters[f"{name}.bias"]
        return of_choice @ weight[:, :own].T + shared[:, None]

    rows = len(observation)
    context = observation[:, : layout.context_size]
    blocks = observation[:, layout.context_size :].reshape(rows, -1, layout.block_size)

    code = _relu(layer("context_encoder.2", _relu(layer("context_encoder.0", context))))
    choices = _relu(layer("choice_encoder.2", _relu(joint_layer("choice_encoder.0", blocks, code))))
    pooled = np.concatenate([code, choices.mean(axis=1), choices.max(axis=1)], axis=1)
    summary = _relu(layer("trunk", pooled))
    scores = layer("choice_head.2", _relu(joint_layer("choice_head.0", choices, summary)))
    logits = scores.transpose(0, 2, 1).reshape(rows, -1)  # every choice's first action, then every second
    if layout.context_actions:
        logits = np.concatenate([layer("context_head", summary), logits], axis=1)
    return logits.astype(np.float32, copy=False)


def _relu(inputs: FloatArray) -> FloatArray:
    return np.maximum(inputs, 0.0)


@dataclass
class TrainedPolicy:
    """A policy read from a folder. Acts greedily, or with `sample` by drawing from its own distribution."""

    card: dict[str, Any]
    parameters: dict[str, FloatArray]
    tensors: dict[str, NDArray[Any]] = field(default_factory=dict)
    name: str = "trained"
    sample: bool = False
    generator: np.random.Generator = field(default_factory=np.random.default_rng)
    folder: Path = Path()  # where it was read from, for messages
    layout: Layout = field(init=False)

    def __post_init__(self) -> None:
        self.layout = Layout.from_dict(self.card["layout"])

    def value(self, *path: str, kind: type = object) -> Any:
        """What the card says at `path`; a `PolicyError` where that is missing or not of this kind."""
        found: Any = self.card
        expected = f"a {_KINDS.get(kind, kind.__name__)}"
        for name in path:
            if not isinstance(found, Mapping) or name not in found:
                raise self.fault(path, "nothing", expected)
            found = found[name]
        if not isinstance(found, kind):
            raise self.fault(path, repr(found), expected)
        return found

    def fault(self, path: tuple[str, ...], found: str, expected: str) -> PolicyError:
        """The error to raise where the card holds something unusable at `path`."""
        return PolicyError(self.folder / CARD_FILE, ".".join(path), found, expected)

    def begin(self, env: Any) -> None:
        """Checks that `env` describes its observations as the one did that this policy was trained in."""
        layout = dynamics_of(env).layout
        for scope in ("context", "choice", "context_actions", "choice_actions"):
            found, expected = _signature(getattr(layout, scope)), _signature(getattr(self.layout, scope))
            if found != expected:
                raise PolicyError(CARD_FILE, f"layout.{scope}", f"an environment with {found}", str(expected))

    def logits(self, observation: FloatArray, action_mask: NDArray[Any]) -> FloatArray:
        """Masked logits, (N, A) or (A,), of observations (N, D) or (D,)."""
        observation, mask = np.asarray(observation, np.float32), np.asarray(action_mask).astype(bool)
        num_choices, rest = divmod(observation.shape[-1] - self.layout.context_size, self.layout.block_size)
        if rest or num_choices < 1:
            expected = f"{self.layout.context_size} + {self.layout.block_size} × choices"
            raise ValueError(f"observation: found {observation.shape[-1]} floats, expected {expected}")
        actions = len(self.layout.context_actions) + num_choices * len(self.layout.choice_actions)
        shape = (*observation.shape[:-1], actions)
        if mask.shape != shape:
            raise ValueError(f"action_mask: found shape {mask.shape}, expected {shape}")
        logits = forward(self.parameters, self.layout, np.atleast_2d(observation))
        return np.where(mask, logits.reshape(mask.shape), np.float32(MASKED))

    def act(self, observation: FloatArray, action_mask: NDArray[Any]) -> IntArray:
        """The actions, (N,) or (), for observations (N, D) or (D,)."""
        logits = self.logits(observation, action_mask)
        if self.sample:  # the largest of logits plus Gumbel noise is a draw from their softmax
            logits = logits + self.generator.gumbel(size=logits.shape).astype(np.float32)
        return np.asarray(logits.argmax(axis=-1))


def save_policy(
    path: str | Path,
    card: Mapping[str, Any],
    parameters: Mapping[str, FloatArray],
    tensors: Mapping[str, NDArray[Any]] | None = None,
) -> Path:
    """Writes a policy folder: in full under a temporary name, then by one rename. Replaces an older policy.

    `card` needs at least `family`, `layout` (`Layout.to_dict`) and `network` with its `hidden` width.
    """
    from safetensors.numpy import save_file

    path = Path(path)
    content = _plain({"format": FORMAT, **card}, path / CARD_FILE)
    _check_card(content, path / CARD_FILE)
    arrays = {f"network.{name}": np.ascontiguousarray(value) for name, value in parameters.items()}
    arrays |= {f"tensors.{name}": np.ascontiguousarray(value) for name, value in (tensors or {}).items()}
    _check_parameters(dict(parameters), content, path / WEIGHTS_FILE)
    if path.exists() and not (path / CARD_FILE).exists() and (not path.is_dir() or any(path.iterdir())):
        raise PolicyError(path, None, "something that is no policy", "a free name or an older policy")

    with atomic_folder(path, replace=True) as fresh:
        save_file(arrays, fresh / WEIGHTS_FILE)
        write_card(fresh / CARD_FILE, content)
    return path


def write_card(file: Path, card: Mapping[str, Any]) -> None:
    """Writes ``policy.yaml``: plain data only, the format first."""
    import yaml

    content = _plain({"format": FORMAT, **card}, file)
    file.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100), encoding="utf-8")


def load_policy(path: str | Path, *, sample: bool = False, seed: int | None = None) -> Any:
    """Reads a policy folder and checks it; any fault is a `PolicyError`. `seed` is for sampled actions.

    Returns a `TrainedPolicy`, which acts on observations, or what the card's `loader` makes: a text router acts on
    transcripts (`rlroute.agents.trl.policy.TextPolicy`).
    """
    path = Path(path)
    card_file, weights_file = path / CARD_FILE, path / WEIGHTS_FILE
    card = read_card(card_file)
    if "loader" in card:
        return _loader(card, card_file)(path, card, sample=sample, seed=seed)
    if not weights_file.is_file():
        raise PolicyError(weights_file, None, "no such file", f"a folder with {CARD_FILE} and {WEIGHTS_FILE}")
    _check_card(card, card_file)
    arrays = _read_arrays(weights_file)
    parameters, tensors = _with_prefix(arrays, "network."), _with_prefix(arrays, "tensors.")
    _check_parameters(parameters, card, weights_file)
    name = str(card.get("name", "trained"))
    return TrainedPolicy(card, parameters, tensors, name, sample, np.random.default_rng(seed), path)


def read_card(file: Path) -> dict[str, Any]:
    """``policy.yaml`` as plain data, of this format."""
    import yaml

    if not file.is_file():
        raise PolicyError(file, None, "no such file", f"a folder with {CARD_FILE} and {WEIGHTS_FILE}")
    try:
        card = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PolicyError(file, None, f"text that is no plain YAML ({error})", "a mapping") from error
    if not isinstance(card, dict):
        raise PolicyError(file, None, f"a {type(card).__name__}", "a mapping")
    if card.get("format") != FORMAT:
        raise PolicyError(file, "format", repr(card.get("format")), f"{FORMAT}")
    return card


def _loader(card: Mapping[str, Any], file: Path) -> Callable[..., Any]:
    """The function that loads a policy of this card."""
    name = card["loader"]
    if name not in LOADERS:
        raise PolicyError(file, "loader", repr(name), f"none, or one of {', '.join(LOADERS)}")
    module, function = LOADERS[name].split(":")
    try:
        loader: Callable[..., Any] = getattr(import_module(module), function)
    except ImportError as error:
        raise PolicyError(
            file, "loader", f"{name!r}, but {error}", "what it needs: pip install rlroute[trl]"
        ) from error
    return loader


def _with_prefix(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _signature(items: tuple[Any, ...]) -> list[Any]:
    """What must agree between two layouts: names and sizes of features, names of actions."""
    return [item if isinstance(item, str) else (item.name, item.size) for item in items]


def _read_arrays(file: Path) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(file))
    except (SafetensorError, KeyError, ValueError) as error:  # KeyError: a dtype that numpy does not have
        with file.open("rb") as stream:
            start = stream.read(2)
        pickled = start[:1] == b"\x80" or start == b"PK"  # a bare pickle; a torch checkpoint is a zip of one
        found = "a pickle" if pickled else f"no safetensors file ({error})"
        raise PolicyError(file, None, found, "a safetensors file") from error


def _check_card(card: Any, file: Path) -> None:
    for key, kind in (("family", str), ("layout", dict), ("network", dict)):
        if not isinstance(card.get(key), kind):
            raise PolicyError(file, key, repr(card.get(key)), f"a {kind.__name__}")
    hidden = card["network"].get("hidden")
    if not isinstance(hidden, int) or isinstance(hidden, bool) or hidden < 1:
        raise PolicyError(file, "network.hidden", repr(hidden), "a positive whole number")
    try:
        layout = Layout.from_dict(card["layout"])
        usable = layout.num_choices >= 1 and layout.block_size >= 1 and layout.choice_actions
    except (KeyError, TypeError, ValueError) as error:
        raise PolicyError(file, "layout", f"{type(error).__name__}: {error}", "a saved layout") from error
    if not usable:
        raise PolicyError(file, "layout", "no choice, no choice feature or no choice action", "one of each")


def _check_parameters(parameters: dict[str, FloatArray], card: dict[str, Any], file: Path) -> None:
    shapes = parameter_shapes(Layout.from_dict(card["layout"]), card["network"]["hidden"])
    for name in sorted(shapes.keys() | parameters.keys()):
        key = f"network.{name}"
        if name not in parameters:
            raise PolicyError(file, key, "no such tensor", f"float32 of shape {shapes[name]}")
        if name not in shapes:
            raise PolicyError(file, key, "a tensor", "no tensor of this name")
        value, expected = parameters[name], f"float32 of shape {shapes[name]}"
        if value.dtype != np.float32 or value.shape != shapes[name]:
            raise PolicyError(file, key, f"{value.dtype} of shape {value.shape}", expected)
        if not np.isfinite(value).all():
            raise PolicyError(file, key, "nan or inf", "finite numbers")


def _plain(value: Any, file: Path, key: str = "") -> Any:
    """`value` as YAML can hold it safely: numpy numbers and arrays, tuples and paths become plain ones."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item, file, f"{key}.{name}".lstrip(".")) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, file, key) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist(), file, key)
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise PolicyError(file, key, f"a {type(value).__name__}", "plain data")
