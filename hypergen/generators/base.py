"""Generator: condition → Weights, with everything that all generators share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from hypergen import pretrained
from hypergen._utils.errors import ConditionError, RunError, RunNotFoundError, did_you_mean
from hypergen._utils.io import load_safetensors, read_json
from hypergen.conditions import Condition, ConditionEncoder
from hypergen.generators.gain import GainHead
from hypergen.generators.provenance import told
from hypergen.generators.storage import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    download,
    load_strict,
    model_card,
    save_generator,
)
from hypergen.specs import PeftSpec, Weights, WeightSpec

if TYPE_CHECKING:
    from hypergen.generators.graph import GraphHypernetwork

FORMAT_VERSION = 1

ObjectiveFn = Callable[[Weights, Mapping[str, Any]], Tensor]


class Generator(nn.Module, ABC):
    """Maps conditions to weights.

    A subclass implements `forward` and passes its own constructor arguments (all but spec and
    encoder) to `super().__init__`, so that it can be saved and rebuilt. Subclasses register
    themselves by class name.

    Args:
        spec: What to emit.
        encoder: Turns raw inputs (text, demos, …) into a `Condition`.
        config: The subclass's own constructor arguments, JSON-serialisable.
    """

    # Beginnings of the names of parameters that are never averaged over training, see `stage`.
    unaveraged: ClassVar[tuple[str, ...]] = ()
    _registry: ClassVar[dict[str, type[Generator]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Generator._registry[cls.__name__] = cls

    def __init__(
        self, spec: WeightSpec, encoder: ConditionEncoder, config: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = encoder
        self.config = dict(config)
        self.provenance: dict[str, Any] = {}
        self.gain: GainHead | None = None
        if isinstance(spec, PeftSpec) and spec.is_additive:
            # PEFT's starting values are random numbers that no JSON holds: saved with the rest.
            self.register_buffer("neutral", spec.initial())

    # -- what a generator does -----------------------------------------------------------------

    @abstractmethod
    def forward(self, condition: Condition) -> Weights:
        """Generates one set of weights for each row of the condition, differentiably."""

    def prepare(self, data: Any) -> None:
        """Takes what only training data can give, such as a zoo's experts; most take nothing.

        Called before training and evaluation, also of a generator that was loaded: what is there
        already must stay.

        Args:
            data: The data module.
        """
        return

    @property
    def first_stage(self) -> int:
        """Batches of a first stage of training, which trains something else; 0 for most.

        Each stage has a learning-rate schedule of its own, and averaging of weights begins with the
        second.
        """
        return 0

    @property
    def stage(self) -> int:
        """Stage that training is in, 1 or 2; without a first stage it is 2."""
        return 2

    def sample(self, condition: Condition, seeds: Sequence[int]) -> Weights:
        """Draws one set of weights for each row; deterministic generators need no draw.

        Args:
            condition: `[B]` conditions.
            seeds: `[B]`, the seed of each row: a row's draw must depend on nothing else.
        """
        return self(condition)

    def loss(self, batch: Mapping[str, Any], objective: ObjectiveFn) -> Tensor:
        """Scalar training loss of a batch.

        Conditions that several samples of the batch share are generated once: the objective sees
        `B` distinct conditions and inputs in blocks of `N / B` rows.

        Args:
            batch: Holds `condition`, what the objective needs, and optionally `gather`, `[B]`,
                the row of `condition` of each network where several share one. With `prefixes`,
                rows are those of `prefix_weights`, the weights after every chunk of a document,
                which generators for documents have.
            objective: Takes the generated weights and the batch, returns a scalar.
        """
        if batch.get("prefixes"):
            own: Any = self
            weights, _ = own.prefix_weights(batch["condition"])
        else:
            weights = self(batch["condition"])
        return objective(weights[batch["gather"]] if "gather" in batch else weights, batch)

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.parameters()).device

    def encode(self, **inputs: Any) -> Condition:
        """Encodes raw inputs given under the encoder's input name.

        Raises:
            ConditionError: Nothing given, or a kind of input that the encoder does not take.
        """
        given = {name: value for name, value in inputs.items() if value is not None}
        name = self.encoder.input_name
        if name == "none":
            if given:
                raise ConditionError(
                    "this generator was trained without a condition: it takes no "
                    f"{', '.join(sorted(given))}"
                )
            condition: Condition = self.encoder(1)
        elif name == "fused":
            condition = self.encoder(given)
        elif set(given) == {name}:
            condition = self.encoder(given[name])
        else:
            what = ", ".join(sorted(given)) or "nothing"
            raise ConditionError(f"this generator is conditioned on {name}, but got {what}")
        return condition.to(self.device)

    @torch.no_grad()
    def generate(
        self,
        text: str | Sequence[str] | None = None,
        *,
        condition: Condition | None = None,
        n: int = 1,
        seed: int = 0,
        abstain_below: float | None = None,
        **inputs: Any,
    ) -> Weights:
        """Generates weights from raw inputs.

        The same inputs and seed give the same bytes in any process, and an input's weights do not
        depend on the other inputs of the batch: each row draws by its own seed.

        Args:
            text: One description or several.
            condition: An encoded condition, instead of raw inputs.
            n: Weights for each input; rows are ordered input by input.
            seed: Seed of the draws; without effect on deterministic generators.
            abstain_below: Return the unchanged base for inputs whose expected gain is lower.
            **inputs: Inputs of other kinds (demos, document, task, …).

        Returns:
            Weights of batch size (number of inputs) · n, with `expected_gain` if it was learnt.

        Raises:
            ConditionError: Bad or missing input.
            WeightsError: The generator produced NaN or infinity; names the slot.
        """
        if n < 1:
            raise ConditionError(f"n must be at least 1, not {n}")
        raw = {name: v for name, v in {"text": text, **inputs}.items() if v is not None}
        if condition is None:
            condition = self.encode(**raw)
        elif raw:
            raise ConditionError("give raw inputs or a condition, not both")
        training = self.training
        self.eval()
        try:
            index = torch.arange(len(condition)).repeat_interleave(n)
            seeds = [seed + draw for draw in range(n)] * len(condition)
            weights = self.sample(condition[index] if n > 1 else condition, seeds)
        finally:
            self.train(training)
        weights = weights.detach().check_finite()
        if self.gain is not None:
            weights.expected_gain = self.gain(condition).repeat_interleave(n)
            if abstain_below is not None:
                weights = self._abstain(weights, abstain_below)
        elif abstain_below is not None:
            raise ConditionError("this generator has learnt no expected gain: it cannot abstain")
        if raw or self.encoder.input_name == "none":
            weights.provenance = {"generator": type(self).__name__, **told(raw), **self.provenance}
        return weights

    def _abstain(self, weights: Weights, threshold: float) -> Weights:
        gain = weights.expected_gain
        assert gain is not None
        keep = (gain >= threshold)[:, None]
        neutral = self.spec.neutral(len(weights)).to(weights.device, weights.dtype)
        out = self.spec.from_flat(torch.where(keep, weights.flat(), neutral.flat()))
        out.expected_gain = torch.where(keep[:, 0], gain, torch.zeros_like(gain))
        return out

    # -- files ---------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Everything but the tensors, JSON-serialisable: class, arguments, encoder and spec."""
        return {
            "format_version": FORMAT_VERSION,
            "class": type(self).__name__,
            "init_args": self.config,
            "encoder": self.encoder.to_dict(),
            "gain": None if self.gain is None else self.gain.config(),
            "provenance": self.provenance,
            "spec": self.spec.to_dict(),
        }

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> Path:
        """Writes `generator.json`, `generator.safetensors` and a model card, atomically.

        Frozen backbones of encoders are named with a fingerprint, not copied.

        Args:
            folder: Where to write; a folder of that name is replaced.
            dtype: Store floating-point tensors rounded to this, such as `torch.bfloat16`, to halve
                the file; each in its own dtype when not given. They are loaded into that again, and
                what was loaded is saved and loaded once more without another change.

        Raises:
            WeightsError: A parameter is NaN or infinite, or becomes infinite in `dtype`; nothing
                is written.
        """
        return save_generator(folder, self, self.to_dict(), self._card(), dtype)

    def _card(self) -> str:
        count = sum(p.numel() for p in self.parameters())
        text = (
            f"Generates {self.spec.numel:,} numbers (`{self.spec.kind}`, {len(self.spec)} "
            f"slots) with {count:,} parameters, conditioned on {self.encoder.input_name}."
        )
        return model_card(self, self.provenance, text, "Load it with `hypergen.load(folder)`.")

    @staticmethod
    def from_pretrained(
        folder: str | Path, *, encoder: ConditionEncoder | None = None
    ) -> Generator:
        """Reads what `save_pretrained` wrote; every tensor must be there and fit.

        Args:
            folder: A folder on this machine, or the name of a hub repository.
            encoder: Use this encoder instead of loading the recorded one (it must be equal).

        Raises:
            RunError: The folder is missing, of another version, or damaged; names the file.
            ConditionError: The recorded encoder cannot be had, or the one given is another.
        """
        folder = Path(download(str(folder)))
        path = folder / CONFIG_FILE
        generator = Generator.from_dict(read_json(path), encoder=encoder, origin=str(path))
        path = folder / WEIGHTS_FILE
        generator.load_tensors(load_safetensors(path), origin=str(path))
        return generator.eval()

    @staticmethod
    def from_dict(
        config: Mapping[str, Any],
        *,
        encoder: ConditionEncoder | None = None,
        origin: str = "the generator's config",
    ) -> Generator:
        """Rebuilds a generator, freshly initialised, from `to_dict`.

        Args:
            config: What `to_dict` returned.
            encoder: Use this encoder instead of the recorded one (it must be equal).
            origin: Where the config comes from, for messages.

        Raises:
            RunError: The config is of another version, damaged, or names an unknown class.
            ConditionError: The recorded encoder cannot be had, or the one given is another.
        """
        try:
            if config["format_version"] != FORMAT_VERSION:
                raise RunError(
                    f"{origin} has format version {config['format_version']}; this hypergen reads "
                    f"{FORMAT_VERSION}"
                )
            name = config["class"]
            cls = Generator._registry.get(name)
            if cls is None:
                raise RunError(
                    f"{origin} names an unknown generator {name!r}."
                    f"{did_you_mean(name, Generator._registry)}"
                )
            if encoder is None:
                encoder = ConditionEncoder.from_dict(config["encoder"])
            elif any(
                encoder.to_dict()[k] != config["encoder"][k] for k in ("class", "fingerprint")
            ):
                raise ConditionError(
                    f"the generator in {origin} was trained with another encoder "
                    f"({config['encoder']['class']}) than the {type(encoder).__name__} given"
                )
            spec = WeightSpec.from_dict(config["spec"])
            generator = cls(spec, encoder, **config["init_args"])
            if config["gain"] is not None:
                generator.gain = GainHead(**config["gain"])
            generator.provenance = dict(config["provenance"])
        except (KeyError, TypeError) as error:
            raise RunError(f"{origin} is damaged: {error!r}") from error
        return generator

    def load_tensors(self, state: Mapping[str, Tensor], origin: str = "the state dict") -> None:
        """Loads every tensor of this generator; none may lack, be left over or have another shape.

        Args:
            state: What `state_dict` returned.
            origin: Where the tensors come from, for messages.

        Raises:
            RunError: Otherwise; names the tensor. Nothing is loaded then.
        """
        load_strict(self, state, origin)
        if isinstance(self.spec, PeftSpec) and self.spec.is_additive:
            neutral: Tensor = self.neutral  # type: ignore[assignment]
            self.spec.exact_initial = neutral.clone()

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Uploads `save_pretrained`'s folder to the Hugging Face hub.

        Returns:
            Address of the commit.
        """
        import tempfile

        from huggingface_hub import HfApi

        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as temporary:
            folder = self.save_pretrained(Path(temporary) / "generator")
            return str(api.upload_folder(repo_id=repo_id, folder_path=folder))


def find_run(run: str | Path) -> Path:
    """The folder of a run: one that is there comes first, else one that ships with the package.

    Raises:
        RunNotFoundError: There is neither; lists what ships.
    """
    path = Path(run)
    shipped = pretrained.names()
    if path.is_dir():
        return path
    if str(run) in shipped:
        return pretrained.FOLDER / str(run)
    listed = f"; the generators that ship are {', '.join(shipped)}" if shipped else ""
    raise RunNotFoundError(f"{path} does not exist{listed}")


def load(run: str | Path) -> Generator | GraphHypernetwork:
    """Loads the generator of a run folder, a generator folder, a hub repository, or a shipped one.

    Args:
        run: A folder, which comes first; else the name of a generator that ships with the package
            (`hypergen.pretrained.names()`); else a hub repository, `owner/name`.

    Returns:
        A `Generator`, which takes conditions, or a `GraphHypernetwork`, which takes architectures.

    Raises:
        RunError: Missing or damaged; names the file, or the shipped generators.
    """
    from hypergen.generators.graph import GraphHypernetwork

    folder = _folder(run)
    config = read_json(folder / CONFIG_FILE)
    if isinstance(config, dict) and config.get("class") == GraphHypernetwork.__name__:
        return GraphHypernetwork.from_pretrained(folder)
    return Generator.from_pretrained(folder)


def load_generator(run: str | Path) -> Generator:
    """As `load`, for what takes conditions alone.

    Raises:
        RunError: Missing or damaged, or a graph hypernetwork.
    """
    found = load(run)
    if not isinstance(found, Generator):
        raise RunError(
            f"{run} holds a {type(found).__name__}, which makes weights of architectures, not of "
            "texts and the like: use `hypergen init MODEL --generator RUN`"
        )
    return found


def _folder(run: str | Path) -> Path:
    """The folder that holds a generator's files."""
    path = Path(run)
    if not path.exists():
        if str(run).count("/") == 1:
            return Path(download(str(run)))
        path = find_run(run)
    if (path / "generator" / CONFIG_FILE).exists():
        return path / "generator"
    if not (path / CONFIG_FILE).exists():
        raise RunError(f"{path} holds no generator: expected {path / 'generator' / CONFIG_FILE}")
    return path
