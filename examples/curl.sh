#!/usr/bin/env bash
# Two ways to ask for a picture with nothing but curl. Start the server first: make serve
set -euo pipefail
url="${DARKROOM_URL:-http://127.0.0.1:7860}"

# The short way: the answer is the picture. (curl's --json would ask for JSON, and get it.)
curl --fail --silent --show-error "$url/generate/" \
  --header 'Content-Type: application/json' \
  --data '{"prompt": "puppy dog", "steps": 20, "seed": 1}' --output generate.png
echo "generate.png"

# The way of every Stable Diffusion client: the answer is JSON with base64 inside.
curl --fail --silent --show-error "$url/sdapi/v1/txt2img" \
  --header 'Content-Type: application/json' \
  --data '{"prompt": "a red apple", "negative_prompt": "green", "steps": 20, "sampler_name": "Euler a", "width": 128, "height": 128}' \
  | python3 -c 'import base64, json, sys; sys.stdout.buffer.write(base64.b64decode(json.load(sys.stdin)["images"][0]))' \
  > txt2img.png
echo "txt2img.png"
