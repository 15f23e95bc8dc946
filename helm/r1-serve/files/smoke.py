"""Asks a deployment what `helm test` wants to know; ends with 1 at the first wrong answer."""

import json
import os
import sys
import urllib.error
import urllib.request

URL, KEY = os.environ["URL"], os.environ.get("KEY", "")
OPEN = os.environ["OPEN"] == "true"


def ask(path, body=None, key=KEY):
    """The status and the text of an answer."""
    headers = {"Content-Type": "application/json"} | (
        {"Authorization": f"Bearer {key}"} if key else {}
    )
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def check(what, good, said):
    """Prints one line; ends if it is bad."""
    print(f"{'ok' if good else 'BAD'}: {what}" + ("" if good else f": {said[:500]}"), flush=True)
    if not good:
        sys.exit(1)


status, text = ask("/health")
check("every pool has a rank that is ready", status == 200, text)
status, text = ask("/metrics")
check("the gateway has metrics", status == 200 and "r1_" in text, text)
if not OPEN:
    status, text = ask("/models", key="")
    check("who has no key is refused", status == 401, text)
    if not KEY:
        print("skipped: models and a completion, since keys.testSecret names no key")
        sys.exit(0)
status, text = ask("/models")
check("models are listed", status == 200 and json.loads(text)["data"], text)
model = json.loads(text)["data"][0]["id"]
question = {
    "model": model,
    "messages": [{"role": "user", "content": "What is 2 + 3?"}],
    "max_tokens": 64,
}
status, text = ask("/chat/completions", question)
check(
    f"{model} answers", status == 200 and json.loads(text)["usage"]["completion_tokens"] > 0, text
)
