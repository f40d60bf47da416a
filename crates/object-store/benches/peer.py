"""What Python does with the same bytes: safetensors' serialisation and boto3's managed transfer (8 MiB parts, 10 threads).

Reads commands from stdin, one a line, and answers with the seconds each took: `save` and `load`. Started by wire.rs.
"""
import io
import sys
import time

import boto3
import numpy
import safetensors.numpy

endpoint, bucket, mebibytes = sys.argv[1], sys.argv[2], int(sys.argv[3])
s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="key",
                  aws_secret_access_key="secret")
count = mebibytes * (1 << 20) // 4 // 16
tensors = {f"layer.{i:02}.weight": numpy.arange(i, i + count, dtype=numpy.float32) for i in range(16)}
print("ready", flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    if line.strip() == "save":
        s3.upload_fileobj(io.BytesIO(safetensors.numpy.save(tensors)), bucket, "python")
    else:
        body = io.BytesIO()
        s3.download_fileobj(bucket, "python", body)
        assert len(safetensors.numpy.load(body.getvalue())) == 16
    print(time.perf_counter() - start, flush=True)
