#!/bin/sh
# The engine against moto, an S3 server that others wrote. Needs python3 with `pip install 'moto[s3,server]'`; PYTHON names
# another interpreter. Skipped, and says so, where moto is not there.
#
# moto answers on one thread here: on several its If-None-Match is not atomic, which the engine's probe finds out.
set -eu
cd "$(dirname "$0")"
python="${PYTHON:-python3}"
"$python" -c 'import moto.server, boto3' 2>/dev/null || { echo "skipped: moto is not installed"; exit 0; }

port="${PORT:-5123}"
"$python" - "$port" >/dev/null 2>&1 <<'PYTHON' &
import sys
from werkzeug.serving import run_simple
from moto.server import DomainDispatcherApplication, create_backend_app
run_simple("127.0.0.1", int(sys.argv[1]), DomainDispatcherApplication(create_backend_app), threaded=False)
PYTHON
moto=$!
trap 'kill $moto' EXIT

export AWS_ENDPOINT_URL="http://127.0.0.1:$port" AWS_ALLOW_HTTP=true AWS_REGION=us-east-1
export AWS_ACCESS_KEY_ID=key AWS_SECRET_ACCESS_KEY=secret
"$python" - <<'PYTHON'
import os, time, urllib.request
url = os.environ["AWS_ENDPOINT_URL"] + "/bucket"
for _ in range(100):
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="PUT"))
        break
    except OSError:
        time.sleep(0.1)
PYTHON
TENSORKEEP_JUDGE_URL=s3://bucket/judge cargo test --test judge -- --nocapture --test-threads=1
