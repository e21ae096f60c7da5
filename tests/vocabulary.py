"""The words that the tiny corpus and the tiny tokenizers are made of."""

TOPICS = {
    "wheels": "rim spoke hub nipple tension true wobble dish axle",
    "brakes": "pad rotor lever caliper bleed squeal piston fluid hose",
    "tires": "tube valve bead puncture patch pressure sealant casing tread",
    "gears": "chain cassette derailleur shifter cable indexing hanger cog pulley",
}
WORDS = sorted(set(" ".join(TOPICS.values()).split()))
PROMPT_TEXT = (
    "Is the document relevant to query Yes or No Which more Answer only A B Query Document Passage Please write a "
    "question based on this passage user assistant true false ( ) ? : . , '"
)
PROMPT_WORDS = list(dict.fromkeys(PROMPT_TEXT.split()))
