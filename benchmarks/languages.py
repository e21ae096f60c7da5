"""How many queries are refused for another language than their document's, wrongly? By real ones, all in English.

    python benchmarks/languages.py ../shared/data/squad FOLDER ...     # in BEIR layout, with qrels/train.tsv

refused: of the queries as they are, and as keywords (without English stop words); recognised: of either, those that
would be refused, had they come from a document in German or French.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from pdadapt.data.load import load_dataset
from pdadapt.generation.filters import same_language

FOREIGN = {
    "German": "Ein Reifen ohne Schlauch hält die Luft, weil Dichtmilch jedes Loch in der Karkasse sofort schließt.",
    "French": "Un pneu sans chambre garde l'air, parce que le liquide ferme aussitôt chaque trou de la carcasse.",
}


def main() -> None:
    print("set", "queries", "refused", *(f"recognised: {name}" for name in FOREIGN), sep="\t")
    for folder in sys.argv[1:]:
        dataset = load_dataset(folder)
        qrels = dataset.read_train_qrels()
        kinds: dict[str, Counter[str]] = {"as they are": Counter(), "as keywords": Counter()}
        for query_id, grades in qrels.items():
            whole = dataset.queries[query_id]
            words = " ".join(word for word in whole.split() if word.lower() not in ENGLISH_STOP_WORDS)
            document = dataset.corpus[next(doc_id for doc_id, grade in grades.items() if grade > 0)].contents
            for count, query in zip(kinds.values(), (whole, words), strict=True):
                count.update(name for name, text in FOREIGN.items() if not same_language(query, text))
                count["refused"] += not same_language(query, document)
        for kind, count in kinds.items():
            recognised = (f"{count[name] / len(qrels):.2f}" for name in FOREIGN)
            print(Path(folder).name, f"{len(qrels):,} {kind}", count["refused"], *recognised, sep="\t", flush=True)


if __name__ == "__main__":
    main()
