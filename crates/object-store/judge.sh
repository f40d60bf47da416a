#!/usr/bin/env bash
# The engine against servers that others wrote, each started on loopback and stopped again:
#   moto     (PyPI)  S3's wire format: the contract and the store's promises, unchanged
#   azurite  (npm)   Azure's
#   s3rver   (npm)   an S3 server that ignores If-None-Match: the probe must refuse it
# None for Google's: gcp-storage-emulator (PyPI) has neither conditional writes nor the XML interface that the client
# speaks, and fake-gcs-server is in no registry of packages.
# Missing servers are installed into a temporary folder, or skipped with a message. JUDGES names some of
# them; PYTHON and AZURITE_BIN, S3RVER_BIN name what is installed already.
#
# moto answers on one thread here: on several its If-None-Match is not atomic, which the engine's probe finds out.
set -euo pipefail
cd "$(dirname "$0")"
judges=${JUDGES:-moto azurite s3rver}
bound="timeout ${JUDGE_SECONDS:-600}"
work=$(mktemp -d)
servers=()
stop() {
  for pid in "${servers[@]}"; do kill "$pid" 2> /dev/null || true; done
  rm -rf "$work"
}
trap stop EXIT

skipped() { echo "$1: skipped: $2"; }

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Waits until something listens.
listening() {
  for _ in $(seq 150); do
    (exec 3<> "/dev/tcp/127.0.0.1/$1") 2> /dev/null && return 0
    sleep 0.2
  done
  return 1
}

# judge NAME TEST...: the tests of tests/judge.rs that fit this server.
judge() {
  echo "$1:"
  shift
  # Chosen as all members' tests are, so that nothing is built again behind them.
  $bound cargo test --quiet --workspace --exclude tensorkeep --all-features --test judge -- \
    --nocapture --test-threads=1 "$@"
}

# A command of an npm package, installed if need be.
npm_bin() {
  local name=$1 given=$2
  if [ -n "$given" ]; then echo "$given"; return; fi
  command -v npm > /dev/null || return 1
  timeout 240 npm install --silent --no-audit --no-fund --prefix "$work/$name" "$name" > /dev/null 2>&1 || return 1
  echo "$work/$name/node_modules/.bin/$name"
}

s3_environment() {
  export AWS_ENDPOINT_URL="http://127.0.0.1:$1" AWS_ALLOW_HTTP=true AWS_REGION=us-east-1
  export AWS_ACCESS_KEY_ID=$2 AWS_SECRET_ACCESS_KEY=$3 TENSORKEEP_JUDGE_URL=s3://bucket/judge
}

moto() {
  local python=${PYTHON:-python3} port
  if ! "$python" -c 'import moto.server, flask' 2> /dev/null; then
    python="$work/venv/bin/python"
    { python3 -m venv "$work/venv" && timeout 300 "$python" -m pip install --quiet 'moto[s3,server]'; } > /dev/null 2>&1 ||
      { skipped moto "it cannot be installed"; return; }
  fi
  port=$(free_port)
  "$python" - "$port" > /dev/null 2>&1 << 'PYTHON' &
import sys
from werkzeug.serving import run_simple
from moto.server import DomainDispatcherApplication, create_backend_app
run_simple("127.0.0.1", int(sys.argv[1]), DomainDispatcherApplication(create_backend_app), threaded=False)
PYTHON
  servers+=($!)
  listening "$port" || { skipped moto "its server does not start"; return; }
  python3 -c "import urllib.request as r; r.urlopen(r.Request('http://127.0.0.1:$port/bucket', method='PUT'))"
  s3_environment "$port" key secret
  judge moto contract promises
}

azurite() {
  local bin port
  bin=$(npm_bin azurite "${AZURITE_BIN:-}") || { skipped azurite "it cannot be installed"; return; }
  port=$(free_port)
  "${bin%azurite}azurite-blob" --inMemoryPersistence --disableTelemetry --silent --skipApiVersionCheck \
    --blobHost 127.0.0.1 --blobPort "$port" > /dev/null 2>&1 &
  servers+=($!)
  listening "$port" || { skipped azurite "its server does not start"; return; }
  # The well-known account of the emulator; its key is public.
  export AZURE_STORAGE_ACCOUNT_NAME=devstoreaccount1 AZURE_ALLOW_HTTP=true
  export AZURE_STORAGE_ACCOUNT_KEY=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==
  export AZURE_ENDPOINT="http://127.0.0.1:$port/devstoreaccount1" TENSORKEEP_JUDGE_URL=az://judge
  python3 - "$AZURE_ENDPOINT" "$AZURE_STORAGE_ACCOUNT_KEY" << 'PYTHON'
import base64, email.utils, hashlib, hmac, sys, urllib.request
url, key = sys.argv[1] + "/judge?restype=container", base64.b64decode(sys.argv[2])
headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
canonical = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
resource = "/devstoreaccount1/devstoreaccount1/judge\nrestype:container"
to_sign = "PUT" + "\n" * 12 + canonical + resource
signature = base64.b64encode(hmac.new(key, to_sign.encode(), hashlib.sha256).digest()).decode()
headers["Authorization"] = f"SharedKey devstoreaccount1:{signature}"
headers["Content-Length"] = "0"
# Without data, so that no content type is added that was not signed.
urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers))
PYTHON
  judge azurite contract promises
}

s3rver() {
  local bin port
  bin=$(npm_bin s3rver "${S3RVER_BIN:-}") || { skipped s3rver "it cannot be installed"; return; }
  port=$(free_port)
  "$bin" --directory "$work/s3rver-data" --address 127.0.0.1 --port "$port" --configure-bucket bucket > /dev/null 2>&1 &
  servers+=($!)
  listening "$port" || { skipped s3rver "its server does not start"; return; }
  s3_environment "$port" S3RVER S3RVER
  judge s3rver --ignored refused
}

for name in $judges; do
  "$name"
done
