"""Tiny encoders of the architectures that people bring, with tokenizers like theirs; if any limit, 64 tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from vocabulary import WORDS

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
COUNTED = {**SIZES, "max_position_embeddings": 64, "initializer_range": 0.2}
BEHIND_PADDING = {**COUNTED, "max_position_embeddings": 66, "pad_token_id": 1}  # 66 positions, of which 64 serve
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
DISENTANGLED = {"relative_attention": True, "position_buckets": 16, "position_biased_input": False}
XLNET = {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48}
DISTIL = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 64}
MODERN = {**SIZES, "max_position_embeddings": 64, "pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}

# special tokens as each family's tokenizers have them: (beginning, padding, end, unknown, mask), in the order of ids
FAMILIES = {
    "bert": {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
    "roberta": {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"},
    "t5": {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"},
    "gpt2": {"eos": "<|endoftext|>"},
    "xlnet": {"unk": "<unk>", "cls": "<cls>", "sep": "<sep>", "mask": "<mask>", "pad": "<pad>"},
}
ENCODERS: dict[str, tuple[str, str, dict[str, Any]]] = {  # family, class without its end, configuration
    "bert": ("bert", "Bert", COUNTED),
    "roberta": ("roberta", "Roberta", BEHIND_PADDING),
    "xlm-roberta": ("roberta", "XLMRoberta", BEHIND_PADDING),
    "camembert": ("roberta", "Camembert", BEHIND_PADDING),
    "mpnet": ("roberta", "MPNet", BEHIND_PADDING),
    "longformer": ("roberta", "Longformer", {**BEHIND_PADDING, "attention_window": 8}),
    "distilbert": ("bert", "DistilBert", DISTIL),
    "electra": ("bert", "Electra", {**COUNTED, "embedding_size": 16}),
    "modernbert": ("bert", "ModernBert", MODERN),
    "deberta-v2": ("bert", "DebertaV2", {**COUNTED, **DISENTANGLED, "pos_att_type": ["p2c", "c2p"]}),
    "t5": ("t5", "T5", T5),
    "xlnet": ("xlnet", "XLNet", XLNET),
    "gpt2": ("gpt2", "GPT2", GPT2),
    "fnet": ("bert", "FNet", {key: value for key, value in COUNTED.items() if key != "num_attention_heads"}),
    "convbert": ("bert", "ConvBert", {**COUNTED, "embedding_size": 32}),
}
RELATIVE = ("t5", "xlnet")  # whose positions are relative


def make_encoder(folder: Path, name: str, head: bool = False, **tokenizer: Any) -> Path:
    """tokenizer: of its settings those that differ; a special token that is None is left out."""
    family, stem, config = ENCODERS[name]
    size = make_tokenizer(folder, family, **tokenizer)
    torch.manual_seed(0)
    settings = getattr(transformers, f"{stem}Config")(vocab_size=size, **config)
    settings.num_labels = 1 if head else 2
    end = "ForSequenceClassification" if head else "EncoderModel" if name == "t5" else "Model"
    getattr(transformers, stem + end)(settings).save_pretrained(folder)
    return folder


def make_tokenizer(folder: Path, family: str, **changes: Any) -> int:
    """Of words; returns how many it knows."""
    special = FAMILIES[family]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys([*special.values(), *WORDS, *".,:;?!-()"]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special.get("unk", special.get("eos"))))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    start, end = special.get("cls"), special.get("sep", special.get("eos"))
    forms = {
        "bert": (f"{start} $A {end}", f"{start} $A {end} $B:1 {end}:1"),
        "roberta": (f"{start} $A {end}", f"{start} $A {end} {end} $B {end}"),
        "t5": (f"$A {end}", f"$A {end} $B {end}"),
        "gpt2": ("$A", "$A $B"),
        "xlnet": (f"$A {end} {start}", f"$A {end} $B {end} {start}"),
    }
    tokenizer.post_processor = processors.TemplateProcessing(
        single=forms[family][0],
        pair=forms[family][1],
        special_tokens=[(token, vocabulary[token]) for token in (start, end) if token],
    )
    settings = {f"{name}_token": token for name, token in special.items()}
    settings |= {"padding_side": "left" if family == "xlnet" else "right", **changes}
    given = {key: value for key, value in settings.items() if value is not None}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **given).save_pretrained(folder)
    return len(vocabulary)
