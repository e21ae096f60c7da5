"""How many queries are refused for another language than their document's, wrongly? By real ones, all in English.

    python benchmarks/languages.py ../shared/data/squad FOLDER ...     # in BEIR layout, with qrels/train.tsv

refused: of the queries as they are, and as keywords (without English stop words); recognised: queries whose language
is told, so that they would be refused, had they come from a document in another one that has no English sentence.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from pdadapt.corpus import load_dataset
from pdadapt.generation.filters import language, same_language


def main() -> None:
    print("set\tqueries\trefused\tkeywords refused\trecognised")
    for folder in sys.argv[1:]:
        dataset = load_dataset(folder)
        refused = keywords_refused = recognised = 0
        qrels = dataset.read_train_qrels()
        for query_id, grades in qrels.items():
            query = dataset.queries[query_id]
            document = dataset.corpus[next(doc_id for doc_id, grade in grades.items() if grade > 0)].contents
            keywords = " ".join(word for word in query.split() if word.lower() not in ENGLISH_STOP_WORDS)
            refused += not same_language(query, document)
            keywords_refused += not same_language(keywords, document)
            recognised += language(query) == "en"
        shares = f"{refused}\t{keywords_refused}\t{recognised / len(qrels):.2f}"
        print(f"{Path(folder).name}\t{len(qrels)}\t{shares}", flush=True)


if __name__ == "__main__":
    main()
