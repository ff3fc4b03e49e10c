"""Train a classifier of handwritten digits: six settings tried side by side, the best kept if it is good enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from preparation import edges, normalise, shuffled
from scoring import accuracy, confusion

from periplus.sdk import Artifact, each, pipeline, step, when

if TYPE_CHECKING:
    import numpy as np
    from sklearn.svm import SVC


class Images(NamedTuple):
    """Digits of 8 by 8 grey pixels, and the figure that each shows."""

    pixels: np.ndarray
    figures: np.ndarray


class Split(NamedTuple):
    """What a model learns from, what settings are compared on, and what the chosen one is judged by."""

    learn: np.ndarray
    learn_figures: np.ndarray
    compare: np.ndarray
    compare_figures: np.ndarray
    judge: np.ndarray
    judge_figures: np.ndarray


@dataclass(frozen=True)
class Setting:
    """The two settings of a support vector machine."""

    c: float
    gamma: float


@dataclass(frozen=True)
class Score:
    """How well a setting did on the images that it had not learnt from."""

    setting: Setting
    accuracy: float


class Best(NamedTuple):
    """The model with the best setting, and its accuracy on images that nothing had seen before."""

    model: SVC
    accuracy: float
    setting: Setting


@step
def ingest() -> Images:
    """Read the 1,797 images that come with scikit-learn."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return Images(digits.images, digits.target)


@step
def features(pixels: np.ndarray, figures: np.ndarray, seed: int) -> Split:
    """Make each image a row of numbers, and deal the rows out."""
    import numpy as np

    grey = normalise(pixels)
    rows = np.hstack([grey.reshape(len(grey), -1), edges(grey)])
    order = shuffled(len(rows), seed)
    first, second = len(order) * 3 // 5, len(order) * 4 // 5
    learn, compare, judge = order[:first], order[first:second], order[second:]
    return Split(rows[learn], figures[learn], rows[compare], figures[compare], rows[judge], figures[judge])


@step
def settings(c: list[float], gamma: list[float]) -> list[Setting]:
    """Every pair of the two."""
    return [Setting(one, other) for one in c for other in gamma]


@step(retries=1)
def train(
    learn: np.ndarray,
    learn_figures: np.ndarray,
    compare: np.ndarray,
    compare_figures: np.ndarray,
    setting: Setting,
) -> Score:
    """Train with one setting, and return how well it does: a fan-out gathers small values, not models."""
    from sklearn.svm import SVC

    model = SVC(C=setting.c, gamma=setting.gamma).fit(learn, learn_figures)
    return Score(setting, accuracy(compare_figures, model.predict(compare)))


@step
def evaluate(
    learn: np.ndarray,
    learn_figures: np.ndarray,
    judge: np.ndarray,
    judge_figures: np.ndarray,
    scores: list[Score],
) -> Best:
    """Train once more with the best setting, and judge it by images that no choice was made on."""
    from sklearn.svm import SVC

    best = max(scores, key=lambda score: score.accuracy).setting
    model = SVC(C=best.c, gamma=best.gamma).fit(learn, learn_figures)
    return Best(model, accuracy(judge_figures, model.predict(judge)), best)


@step
def register(
    model: SVC, accuracy: float, setting: Setting, judge: np.ndarray, judge_figures: np.ndarray
) -> Artifact[dict[str, Any]]:
    """Write the model's card: what it is, and which figures it takes for which."""
    return {
        "accuracy": accuracy,
        "setting": {"c": setting.c, "gamma": setting.gamma},
        "support_vectors": int(model.n_support_.sum()),
        "confusion": confusion(judge_figures, model.predict(judge)),
    }


@pipeline
def digits(
    seed: int = 0,
    c: list[float] = [1.0, 4.0, 16.0],  # noqa: B006 - a default of a pipeline is text in its manifest
    gamma: list[float] = [0.01, 0.03],  # noqa: B006
) -> float:
    """From images to a registered model."""
    images = ingest()
    split = features(images.pixels, images.figures, seed)
    scores = train.map(
        split.learn,
        split.learn_figures,
        split.compare,
        split.compare_figures,
        each(settings(c, gamma)),
    )
    best = evaluate(split.learn, split.learn_figures, split.judge, split.judge_figures, scores)
    with when(best.accuracy > 0.90):
        register(best.model, best.accuracy, best.setting, split.judge, split.judge_figures)
    return best.accuracy


if __name__ == "__main__":
    print(f"accuracy {digits():.3f}")
