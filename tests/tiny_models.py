"""Tiny real models, built from configs with fixed random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BertTokenizerFast,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)
from vocabulary import PROMPT_WORDS, WORDS

CHAT = (
    "{% for m in messages %}user : {{ m['content'] }} {% endfor %}{% if add_generation_prompt %}assistant :{% endif %}"
)


def word_tokenizer(folder: Path, end: bool, chat: bool = False) -> int:
    """A whitespace tokenizer with offsets over the words of the prompts and the corpus; returns its size."""
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(["<pad>", "</s>", "<unk>", *PROMPT_WORDS, *WORDS]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    if end:
        tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=2048
    )
    if chat:
        fast.chat_template = CHAT
    fast.save_pretrained(folder)
    return len(vocabulary)


def byte_tokenizer(folder: Path, end: bool, chat: bool = False) -> int:
    """A tokenizer that knows every text, byte by byte, and the label words; returns its size."""
    merges = [("Y", "e"), ("Ye", "s"), ("N", "o")]
    tokens = ["<pad>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if end:
        tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", model_max_length=2048
    )
    if chat:
        fast.chat_template = CHAT
    fast.save_pretrained(folder)
    return len(tokens)


def make_t5(folder: Path, tied: bool, tokenizer: Callable[..., int] = word_tokenizer) -> Path:
    size = tokenizer(folder, end=True)
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=size,
            d_model=32,
            d_kv=8,
            d_ff=48,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="relu" if tied else "gated-gelu",
            tie_word_embeddings=tied,
            decoder_start_token_id=0,
        )
    )
    if not tied:
        model.lm_head.weight = torch.nn.Parameter(torch.randn(size, 32))
    model.save_pretrained(folder)
    return folder


def make_llama(folder: Path, tokenizer: Callable[..., int] = word_tokenizer) -> Path:
    size = tokenizer(folder, end=False, chat=True)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def bert_tokenizer(folder: Path) -> int:
    special = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys([*special, *".,:;?!-()", *WORDS, *"abcdefgh"]))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    BertTokenizerFast(tokenizer_object=tokenizer, model_max_length=512).save_pretrained(folder)
    return len(vocabulary)


def bert_config(size: int) -> BertConfig:
    return BertConfig(
        vocab_size=size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=512,
        initializer_range=0.3,
    )


def make_encoder(folder: Path) -> Path:
    """A plain BERT, as `bert-base-uncased` is one."""
    torch.manual_seed(0)
    BertModel(bert_config(bert_tokenizer(folder)), add_pooling_layer=False).save_pretrained(folder)
    return folder


def make_cross_encoder(folder: Path) -> Path:
    """A BERT with one output, as `cross-encoder/ms-marco-MiniLM-L-6-v2` is one."""
    torch.manual_seed(1)
    config = bert_config(bert_tokenizer(folder))
    config.num_labels = 1
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def make_stanford(folder: Path) -> Path:
    """A ColBERT checkpoint in Stanford's format: `colbert-ir/colbertv2.0` in small."""
    torch.manual_seed(0)
    model = BertModel(bert_config(bert_tokenizer(folder)), add_pooling_layer=False)
    weights = {f"bert.{name}": tensor for name, tensor in model.state_dict().items()}
    save_file({**weights, "linear.weight": torch.randn(16, 32) * 0.2}, folder / "model.safetensors")
    config = model.config.to_dict() | {"architectures": ["HF_ColBERT"]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    metadata = {
        "query_token_id": "[unused0]",
        "doc_token_id": "[unused1]",
        "query_maxlen": 32,
        "doc_maxlen": 180,
        "mask_punctuation": True,
        "attend_to_mask_tokens": False,
    }
    (folder / "artifact.metadata").write_text(json.dumps(metadata), encoding="utf-8")
    return folder
