"""What Python does with the same bytes: safetensors' serialisation, and boto3's managed transfer (8 MiB parts, 10 threads)
or s3fs's file.

    peer.py boto3|s3fs ENDPOINT BUCKET MEBIBYTES

Says `ready`, or why it cannot be; then reads commands from stdin, one a line, and answers with the seconds each took:
`save` and `load`. Started by wire.rs.
"""
import io
import sys
import time

way, endpoint, bucket, mebibytes = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
try:
    import numpy
    import safetensors.numpy

    if way == "boto3":
        import boto3

        s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="key",
                          aws_secret_access_key="secret")

        def put(data):
            s3.upload_fileobj(io.BytesIO(data), bucket, "python")

        def get():
            body = io.BytesIO()
            s3.download_fileobj(bucket, "python", body)
            return body.getvalue()
    else:
        import s3fs

        fs = s3fs.S3FileSystem(key="key", secret="secret", client_kwargs={"endpoint_url": endpoint,
                                                                          "region_name": "us-east-1"})

        def put(data):
            with fs.open(f"{bucket}/python-s3fs", "wb") as file:
                file.write(data)

        def get():
            return fs.cat_file(f"{bucket}/python-s3fs")
except ImportError as error:
    print(error, flush=True)
    sys.exit()

count = mebibytes * (1 << 20) // 4 // 16
tensors = {f"layer.{i:02}.weight": numpy.arange(i, i + count, dtype=numpy.float32) for i in range(16)}
print("ready", flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    if line.strip() == "save":
        put(safetensors.numpy.save(tensors))
    else:
        assert len(safetensors.numpy.load(get())) == 16
    print(time.perf_counter() - start, flush=True)
