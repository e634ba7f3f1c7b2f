"""A reward model at work: answers rendered with its own template, tokenized, scored in batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from align.data.chat import Chat
from align.data.columns import BadRow
from align.data.graded import step_tokens
from align.data.turns import answer_text, end_of_turn, tokenize_answers
from align.errors import CheckpointError, RecipeError, first_line
from align.learner.packing import pack_marked
from align.learner.passes import Passes, spread_out
from align.learner.ranks import Ranks
from align.learner.reward_model import CARD, RewardModelCard, last_token, load_reward_model
from align.learner.scores import ScoreModel, score_head
from align.learner.trained import model_folder
from align.types import Rollout

if TYPE_CHECKING:
    from align.rewards.pooling_server import ServedJudge
    from align.rewards.reward_model import RewardModelParams

PLACE = "rewards: reward_model: params.path"
UNLIMITED = 2**31  # tokens
WEIGHTS = ("*.safetensors", "*.bin", "config.json", "adapter_config.json", "reward_model.json", "tokenizer.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What one model says of one answer: numbers for the whole of it, or for each step, whose ends in the text are in `ends`."""

    scores: tuple[tuple[float, ...], ...] = ()
    attributes: tuple[str, ...] = ()  # names of the numbers, where they mean different things
    ends: tuple[int, ...] | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """An answer in tokens, with the places where it is scored."""

    token_ids: tuple[int, ...]
    marks: tuple[int, ...]
    ends: tuple[int, ...] | None = None


class ScoreJudge:
    """One reward model, ready to judge. `version` changes with its weights, its tokenizer and its card."""

    def __init__(self, folder: Path, card: RewardModelCard | None, params: RewardModelParams) -> None:
        self._model = load_reward_model(folder, card, dtype=getattr(torch, params.dtype), place=PLACE)
        self._tokenizer = load_judge_tokenizer(folder)
        self._chat = Chat(self._tokenizer)
        self._turn_end = end_of_turn(self._chat)
        self.card, self.version = card, content_hash(folder)
        device = torch.device(params.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        score_head(self._model).float()  # it is applied in float32, whatever the backbone computes in
        self._module = ScoreModel(self._model.to(device), at="token")
        half = params.dtype == "bfloat16"
        ranks = Ranks(device=device)  # whoever judges does so alone
        budget = params.max_batch_tokens
        self._passes = Passes(budget=budget, packed=False, row_model=None, half=half, device=device, ranks=ranks)
        positions = getattr(self._model.config.get_text_config(), "max_position_embeddings", None) or UNLIMITED
        self._longest = min(params.max_length or (card.max_length if card else UNLIMITED), positions)
        labels = card.labels if card else ("reward",) * self._model.config.num_labels
        scale = card if card and params.normalise else None
        self._mean_K = torch.tensor(scale.mean if scale else [0.0] * len(labels), dtype=torch.float64)
        self._std_K = torch.tensor(scale.std if scale else [1.0] * len(labels), dtype=torch.float64)

    @property
    def attributes(self) -> tuple[str, ...]:
        return self.card.labels if self.card and self.card.loss == "regression" else ()

    @property
    def judges_steps(self) -> bool:
        return self.card is not None and self.card.loss == "process"

    def close(self) -> None:
        """Nothing was started."""

    def judge(self, rollouts: Sequence[Rollout]) -> list[Judgement]:
        """A judgement of each rollout, in order, scored together in batches of similar length."""
        asked = [self._asked(rollout) for rollout in rollouts]
        sound = [one for one in asked if isinstance(one, _Asked) and one.marks]
        scored = iter(self._scores(sound)) if sound else iter(())
        judged = []
        for one in asked:
            if isinstance(one, str):
                judged.append(Judgement(error=one))
            else:
                scores = next(scored) if one.marks else ()
                judged.append(Judgement(scores=scores, attributes=self.attributes, ends=one.ends))
        return judged

    def _asked(self, rollout: Rollout) -> _Asked | str:
        """The answer in tokens, or what is wrong with it."""
        text = rollout.completion.text
        try:
            asked = self._steps(rollout, text) if self.judges_steps else self._whole(rollout, text)
        except BadRow as error:
            return str(error)
        if len(asked.token_ids) > self._longest:
            most = f"the reward model takes {self._longest} (params.max_length)"
            return f"prompt and answer have {len(asked.token_ids)} tokens, {most}"
        return asked

    def _whole(self, rollout: Rollout, text: str) -> _Asked:
        rendered = answer_text(self._chat, rollout.prompt.messages, text, self._turn_end)
        ((prompt, completion),) = tokenize_answers(self._chat, [rendered])
        ids = prompt + completion
        return _Asked(token_ids=ids, marks=(last_token(ids, self._model.config.pad_token_id),))

    def _steps(self, rollout: Rollout, text: str) -> _Asked:
        assert self.card is not None
        separator = self.card.step_separator or ""
        steps, ends, end = [], [], 0
        for piece in text.split(separator):
            end += len(piece)
            if piece.strip():
                steps.append(piece)
                ends.append(end)
            end += len(separator)
        prompt = self._chat.text(rollout.prompt.messages, generation_prompt=True)
        ids, tokens = step_tokens(self._chat, prompt, steps, separator)
        marks = []
        for step in tokens:
            ids += step
            marks.append(len(ids) - 1)
        return _Asked(token_ids=ids, marks=tuple(marks), ends=tuple(ends))

    def _scores(self, asked: Sequence[_Asked]) -> list[tuple[tuple[float, ...], ...]]:
        """The numbers at every mark of every answer: normalised, or of a process model the probabilities."""
        batch = pack_marked([one.token_ids for one in asked], [one.marks for one in asked], range(len(asked)))

        def forward(micro: Any) -> tuple[torch.Tensor]:
            with self._passes.autocast():
                return (spread_out(self._module(self._passes.inputs(micro)), micro.mask_N),)

        score_MK = self._passes.gather(batch, forward)[0][batch.mask_N].double()
        score_MK = score_MK.softmax(-1) if self.judges_steps else (score_MK - self._mean_K) / self._std_K
        rows = iter(score_MK.tolist())
        return [tuple(tuple(next(rows)) for _ in one.marks) for one in asked]


def open_judges(paths: Sequence[str], params: RewardModelParams) -> Sequence[ScoreJudge | ServedJudge]:
    """Load every model. Raises CheckpointError where one cannot be loaded, RecipeError where they do not go together."""
    judges: list[ScoreJudge | ServedJudge] = [_open(path, params) for path in paths]
    kinds = {(judge.attributes, judge.card.step_separator if judge.card else None) for judge in judges}
    if len(kinds) > 1:
        fix = (
            "an ensemble is of one kind: models of whole answers, of steps between the same separators, or of the same attributes"
        )
        raise RecipeError("these reward models judge different things", place=PLACE, fix=fix)
    known = judges[0].attributes
    for name in params.weights:
        if name not in known:
            fix = f"its attributes are {', '.join(known)}" if known else "remove weights: this model gives one number"
            raise RecipeError(f"the reward model has no attribute {name!r}", place=PLACE.replace("path", "weights"), fix=fix)
    return judges


def _open(path: str, params: RewardModelParams) -> ScoreJudge | ServedJudge:
    if params.server is not None:
        from align.rewards.pooling_server import ServedJudge

        return ServedJudge(path, params)
    try:
        folder = Path(model_folder(path)).expanduser()
    except CheckpointError as error:
        raise CheckpointError(error.message, place=PLACE, fix=error.fix) from None
    if not folder.is_dir():
        folder = _downloaded(path)
    card = RewardModelCard.read(folder) or _process_card(folder, params)
    if params.step_separator is not None and (card is None or card.loss != "process" or (folder / CARD).is_file()):
        fix = "remove it: only a token-classification model that was not trained here needs it"
        raise RecipeError("this model needs no step_separator", place=PLACE.replace("path", "step_separator"), fix=fix)
    return ScoreJudge(folder, card, params)


def _process_card(folder: Path, params: RewardModelParams) -> RewardModelCard | None:
    """Of a token-classification model of another toolkit, as trl's PRMTrainer saves it: its last label means a good step."""
    config = folder / "config.json"
    try:
        found = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    except ValueError:
        return None  # loading the model will say so
    if not any(str(name).endswith("ForTokenClassification") for name in found.get("architectures") or ()):
        return None
    labels = tuple(map(str, (found.get("id2label") or {"0": "bad", "1": "good"}).values()))
    separator = "\n" if params.step_separator is None else params.step_separator
    zero, one = (0.0,) * len(labels), (1.0,) * len(labels)
    return RewardModelCard(loss="process", labels=labels, mean=zero, std=one, max_length=UNLIMITED, step_separator=separator)


def _downloaded(path: str) -> Path:
    """The folder of a hub id in the cache, fetched where it is not there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(path))
    except (OSError, HFValidationError, LocalEntryNotFoundError, HfHubHTTPError) as error:
        raise CheckpointError(
            f"{path!r} is no local folder, and the hub does not give it: {first_line(error)}",
            place=PLACE,
            fix="give an existing folder or run directory, or check the id and the network",
        ) from None


def load_judge_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        fix = "put the tokenizer that it was trained with into its folder"
        raise CheckpointError(f"the reward model has no tokenizer: {first_line(error)}", place=PLACE, fix=fix) from None
    if not tokenizer.chat_template:
        fix = "put the chat template that it was trained with into its folder, as chat_template.jinja"
        raise CheckpointError("the reward model's tokenizer has no chat template", place=PLACE, fix=fix)
    return tokenizer


def content_hash(folder: Path) -> str:
    """A hash of everything that decides the scores."""
    digest = hashlib.sha256()
    for file in sorted({file for pattern in WEIGHTS for file in folder.glob(pattern)}):
        digest.update(file.name.encode())
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()
