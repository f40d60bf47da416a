"""ZipNN beside the codec: `peer.py DTYPE FILE PASSES` prints ratio and median GB/s in and out of the file's bytes.

One thread, as the bench it belongs to uses; ZipNN's own chunks (256 KiB) and choices otherwise.
"""

import statistics
import sys
import time
import warnings

warnings.filterwarnings("ignore")  # torch's, about itself

try:
    import zipnn
except ImportError as error:
    sys.exit(f"no ZipNN: {error}")


def seconds(work, argument):
    start = time.perf_counter()
    result = work(argument)
    return time.perf_counter() - start, result


def main(dtype, path, passes):
    with open(path, "rb") as file:
        raw = file.read()
    coder = zipnn.ZipNN(input_format="byte", bytearray_dtype=dtype, threads=1)
    encoding, decoding = [], []
    for _ in range(passes + 1):
        # It may change its input.
        taken, coded = seconds(coder.compress, bytearray(raw))
        encoding.append(taken)
        taken, decoded = seconds(coder.decompress, bytes(coded))
        decoding.append(taken)
        if bytes(decoded) != raw:
            sys.exit("other bytes came back")
    speed = lambda times: len(raw) / statistics.median(times[1:]) / 1e9
    print(len(raw) / len(coded), speed(encoding), speed(decoding))


main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
