"""What MAPIE and netcal make of the same scores: small arrays for tests/metrics/test_promises.py, in tests/metrics/conformal_references.npz.

    python benchmarks/conformal_references.py tests/metrics/conformal_references.npz

It runs in an environment of its own with mapie 1.6 and netcal 1.4 (no requirement of ours). Logits are drawn; the true classes are drawn from their softmax at another temperature, so that there is
something to calibrate. Kept are the logits, and what MAPIE makes of them: quantiles and sets of LAC, APS and RAPS for RATES, without random numbers (its own are set to 0) and, for APS, with them.
MAPIE chooses the penalty of RAPS on a fifth of the photos; its choice and the other four fifths are kept too. Of netcal: the temperature, and the ECE before and after.
"""

import sys

import numpy as np
from mapie.classification import SplitConformalClassifier
from mapie.conformity_scores import APSConformityScore, LACConformityScore, RAPSConformityScore
from netcal.metrics import ECE
from netcal.scaling import TemperatureScaling
from sklearn.base import BaseEstimator, ClassifierMixin

CLASSES, CALIBRATED, NEW, BINS = 7, 400, 200, 15
RATES = (0.8, 0.9, 0.95)
SEED = 7


def softmax(logits: np.ndarray) -> np.ndarray:
    "Probabilities in double precision."
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


class Given(ClassifierMixin, BaseEstimator):
    "A classifier whose features are the logits."

    def fit(self, X: np.ndarray, y: np.ndarray) -> "Given":
        self.classes_, self.n_features_in_ = np.arange(CLASSES), CLASSES
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return softmax(np.asarray(X))

    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.predict_proba(X).argmax(1)


class Zeros(np.random.RandomState):
    "A source of random numbers that are all 0, so that MAPIE's sets are deterministic."

    def uniform(self, low: float = 0.0, high: float = 1.0, size: object = None) -> np.ndarray:
        return np.zeros(size)


def of_mapie(score: object, logits: np.ndarray, truth: np.ndarray, new: np.ndarray, state: object) -> dict[str, np.ndarray]:
    "Quantiles and sets, for each of RATES."
    model = Given().fit(logits, truth)
    mapie = SplitConformalClassifier(model, confidence_level=list(RATES), conformity_score=score, random_state=state)
    mapie.conformalize(logits, truth)
    how = {} if isinstance(score, LACConformityScore) else {"include_last_label": "randomized"}
    _, sets = mapie.predict_set(new, conformity_score_params=how)
    return {"quantiles": np.ravel(score.quantiles_), "sets": np.moveaxis(sets, 2, 0)}


def main(path: str) -> None:
    rng = np.random.default_rng(SEED)
    logits = (2.5 * rng.normal(size=(CALIBRATED + NEW, CLASSES))).astype(np.float32)
    truth = (rng.random((len(logits), 1)) > softmax(logits / 1.7).cumsum(1)).sum(1).clip(max=CLASSES - 1)
    old, known, new = logits[:CALIBRATED], truth[:CALIBRATED], logits[CALIBRATED:]
    kept = {"logits": old, "truth": known.astype(np.int8), "new": new, "new_truth": truth[CALIBRATED:].astype(np.int8), "rates": np.array(RATES)}
    for name, score, state in (("lac", LACConformityScore(), None), ("aps", APSConformityScore(), Zeros(SEED)), ("aps_random", APSConformityScore(), SEED)):
        kept |= {f"{name}_{key}": values for key, values in of_mapie(score, old, known, new, state).items()}
    raps = RAPSConformityScore(size_raps=0.2)
    kept |= {f"raps_{key}": values for key, values in of_mapie(raps, old, known, new, Zeros(SEED)).items()}
    aside = {row.tobytes() for row in np.asarray(raps.X_raps)}
    kept |= {"raps_rows": np.array([row.tobytes() not in aside for row in old]), "raps_free": np.ravel(raps.k_star), "raps_penalty": np.ravel(raps.lambda_star)}
    scaling, p = TemperatureScaling(), softmax(old)
    scaling.fit(p, known)
    after = scaling.transform(p)
    kept |= {"temperature": np.ravel(scaling.temperature), "ece": np.array([ECE(BINS).measure(p, known), ECE(BINS).measure(after, known)])}
    np.savez_compressed(path, **kept)
    for key, values in kept.items():
        print(key, values.shape, np.ravel(values)[:3])


if __name__ == "__main__":
    main(sys.argv[1])
