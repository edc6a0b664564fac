"""Beside a peer, on one machine, in turn: tokens a second of foredraft and of llama-cpp-python on the same GGUF and prompt,
greedy and plain. A tool, not a test: it needs the peer and a quiet machine.

    pip install llama-cpp-python
    python tests/peers.py --foredraft target/release/foredraft --model smollm2-135m-instruct.gguf
        [--devices cpu,gpu] [--threads 2] [--repeats 5] [--tokens 64]

What counts is decoding alone, as each program times it itself; the prompt and, of the peer, sampling and Python are not in it.
"""

import argparse
import json
import os
import statistics
import subprocess

PROMPT = "Write a short story about a lighthouse keeper who finds a message in a bottle."


def foredraft(program, model, device, threads, tokens):
    command = [program, "generate", PROMPT, "--model", model, "--device", device, "--speculation", "off"]
    command += ["--max-tokens", str(tokens), "--context", "2048", "--json"]
    # lavapipe and the CPU executor take their numbers of threads from these.
    env = dict(os.environ, RAYON_NUM_THREADS=str(threads), LP_NUM_THREADS=str(threads))
    said = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
    return json.loads(said)["timings"]["tokens_per_second"]


class LlamaCpp:
    def __init__(self, model, threads):
        import llama_cpp

        self.api = llama_cpp
        self.llama = llama_cpp.Llama(
            model_path=model, n_ctx=2048, n_threads=threads, n_threads_batch=threads, n_gpu_layers=0, verbose=False
        )
        self.name = f"llama-cpp-python {llama_cpp.__version__}"

    def run(self, tokens):
        context = self.llama.ctx
        self.llama.reset()
        self.api.llama_perf_context_reset(context)
        messages = [{"role": "user", "content": PROMPT}]
        self.llama.create_chat_completion(messages, max_tokens=tokens, temperature=0, repeat_penalty=1)
        times = self.api.llama_perf_context(context)
        return times.n_eval / times.t_eval_ms * 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--foredraft", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--devices", default="cpu,gpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    args = parser.parse_args()
    peer = LlamaCpp(args.model, args.threads)
    runners = {peer.name: lambda: peer.run(args.tokens)}
    for device in args.devices.split(","):
        runners[f"foredraft {device}"] = lambda device=device: foredraft(
            args.foredraft, args.model, device, args.threads, args.tokens
        )
    found = {name: [] for name in runners}
    for turn in range(args.repeats + 1):
        for name, run in runners.items():
            rate = run()
            if turn > 0:  # the first warms up
                found[name].append(rate)
    base = statistics.median(found[peer.name])
    for name, rates in found.items():
        median = statistics.median(rates)
        print(f"{name}: {median:.1f} tokens/s ({min(rates):.1f} to {max(rates):.1f}), {median / base:.2f} of {peer.name}")


if __name__ == "__main__":
    main()
