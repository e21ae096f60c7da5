"""A small OpenAI-compatible server over a real model: `python chat_server.py FOLDER` prints its URL.

It samples where a request asks for no log-probabilities. What it serves depends on the model that a request names:
`tiny` is the model; `busy` answers every other request with 429 or 503; `silent` never answers, `slow` every other
time; `page` sends HTML; `short` lists only the likeliest token; `plain` lists none; `locked` wants a key; `strict`
refuses documents that say "too long"; `impossible` gives every token OpenAI's -9999, `null` no number; `apart` keeps
the thought that it begins with apart from its answer.
"""

import itertools
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
lock = threading.Lock()
ODD = {"impossible": -9999.0, "null": None}
requests = itertools.count()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with lock:
            number = next(requests)
        name = request["model"]
        if self.path != "/v1/chat/completions":
            return self.send(404, {"error": "no such path"})
        if name == "silent" or (name == "slow" and number % 2):
            time.sleep(60)
        if name == "page":
            return self.send(200, "<html>", raw=True)
        if name == "busy" and number % 2:
            return self.send(429 if number % 4 == 1 else 503, {"error": "busy"}, {"Retry-After": "0.01"})
        if name == "locked" and self.headers["authorization"] != "Bearer sesame":
            return self.send(401, {"error": "no key"})
        if name == "strict" and "too long" in request["messages"][0]["content"]:
            return self.send(400, {"error": "this model's maximum context length is exceeded"})
        text = tokenizer.apply_chat_template(request["messages"], tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        if "top_logprobs" not in request:
            with lock, torch.no_grad():
                torch.manual_seed(request["seed"])
                sampling = {"do_sample": True, "temperature": request["temperature"], "top_p": request["top_p"]}
                output = model.generate(ids, max_new_tokens=request["max_tokens"], pad_token_id=0, **sampling)
            said = output[0, ids.shape[1] :]
            message = {"role": "assistant", "content": tokenizer.decode(said, skip_special_tokens=True)}
            reason = "stop" if tokenizer.eos_token_id in said else "length"
            return self.send(200, {"choices": [{"message": message, "finish_reason": reason}]})
        with lock, torch.no_grad():
            log_p = model(ids).logits[0, -1].log_softmax(-1)
        count = 1 if name == "short" else min(request["top_logprobs"], len(log_p))
        best = log_p.topk(count)
        listed = [
            {"token": tokenizer.convert_ids_to_tokens(token), "logprob": ODD.get(name, value)}
            for value, token in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
        logprobs = None if name == "plain" else {"content": [{**listed[0], "top_logprobs": listed}]}
        message = {"role": "assistant", "content": listed[0]["token"]}
        if name == "apart":
            message = {"role": "assistant", "content": None, "reasoning_content": listed[0]["token"]}
        self.send(200, {"choices": [{"index": 0, "message": message, "logprobs": logprobs, "finish_reason": "length"}]})

    def send(self, status, body, headers=None, raw=False):
        content = body.encode() if raw else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {
            "content-type": "application/json",
            "content-length": len(content),
            **(headers or {}),
        }.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(f"http://127.0.0.1:{server.server_port}/v1", flush=True)
server.serve_forever()
