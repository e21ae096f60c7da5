"""How sure must one be of a query's language to refuse it? By real queries, all in English, and their documents.

    python benchmarks/languages.py ../shared/data/squad FOLDER ...     # in BEIR layout, with qrels/train.tsv

refused: queries taken for another language than their document's, wrongly; recognised: those that would be refused, had
they come from a document in another language.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pdadapt.corpus import load_dataset
from pdadapt.generation.filters import languages


def main() -> None:
    print("set\tqueries\tlikely\trefused\trecognised")
    for folder in sys.argv[1:]:
        dataset = load_dataset(folder)
        classify = languages().classify
        found = []
        for query_id, grades in dataset.read_train_qrels().items():
            doc_id = next(doc_id for doc_id, grade in grades.items() if grade > 0)
            found.append((classify(dataset.queries[query_id]), classify(dataset.corpus[doc_id].contents)))
        for likely in (0.5, 0.6, 0.7, 0.8):
            sure = [(query[0], document[0]) for query, document in found if min(query[1], document[1]) >= likely]
            refused = sum(query != document for query, document in sure)
            recognised = sum(query == document for query, document in sure)
            print(f"{Path(folder).name}\t{len(found)}\t{likely}\t{refused}\t{recognised / len(found):.2f}", flush=True)


if __name__ == "__main__":
    main()
