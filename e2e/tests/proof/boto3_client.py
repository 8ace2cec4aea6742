"""The store against Amazon's own SDK for Python. It knows nothing of Diptych.

Usage: boto3_client.py ENDPOINT, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment.
Each function below is a check; the first one that fails ends the script.
"""

import base64
import hashlib
import io
import os
import socket
import sys
import urllib.error
import urllib.parse
import urllib.request
import zlib

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

BUCKET = "boto3-bucket"
MIB = 1 << 20
# Keys that careless software changes on the way.
ODD_KEYS = [
    "plain",
    "with space",
    "with+plus",
    "percent%20encoded",
    "percent%",
    "quotes'\"and<xml>&amp;",
    "a//b",
    "trailing/",
    "question?mark",
    "hash#tag",
    "semi;colon:at@equals=comma,",
    "tilde~star*paren()",
    "dollar$bracket[]{}|",
    "back\\slash",
    "umlaut-äöü",
    "decomposed-a\u0308",
    "漢字/ファイル",
    "emoji-🦀",
    "long/" + "x" * 1019,
]


def expect(what, got, wanted):
    if got != wanted:
        raise SystemExit(f"FAILED {what}: got {got!r}, wanted {wanted!r}")
    print(f"ok: {what}")


def refused(what, status, code, call):
    try:
        call()
    except ClientError as error:
        got = (error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"])
        expect(what, got, (status, code))
    else:
        raise SystemExit(f"FAILED {what}: was not refused")


def body(size, seed=0):
    block = hashlib.sha256(seed.to_bytes(8, "little")).digest()
    blocks = []
    for number in range(-(-size // 32)):
        block = hashlib.sha256(block + number.to_bytes(8, "little")).digest()
        blocks.append(block)
    return b"".join(blocks)[:size]


def read(s3, key, **more):
    return s3.get_object(Bucket=BUCKET, Key=key, **more)["Body"].read()


def buckets(s3):
    s3.create_bucket(Bucket=BUCKET)
    expect("the bucket is listed", BUCKET in [b["Name"] for b in s3.list_buckets()["Buckets"]], True)
    s3.head_bucket(Bucket=BUCKET)
    expect("its location", s3.get_bucket_location(Bucket=BUCKET).get("LocationConstraint"), None)
    expect("it has no versioning", s3.get_bucket_versioning(Bucket=BUCKET).get("Status"), None)
    refused("a bad bucket name", 400, "InvalidBucketName", lambda: s3.create_bucket(Bucket="UPPER_case"))


def put_get_head(s3):
    for size in (0, 1, 4096, 256 * 1024, 256 * 1024 + 1, 3 * MIB + 17):
        content = body(size, size)
        put = s3.put_object(Bucket=BUCKET, Key=f"size/{size}", Body=content, ContentType="text/x-test",
                            CacheControl="no-store", Metadata={"colour": "blue", "empty": ""})
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        expect(f"{size} bytes: ETag is the MD5", put["ETag"], etag)
        got = s3.get_object(Bucket=BUCKET, Key=f"size/{size}")
        expect(f"{size} bytes: come back", got["Body"].read() == content, True)
        head = s3.head_object(Bucket=BUCKET, Key=f"size/{size}")
        for answer in (got, head):
            expect(f"{size} bytes: headers",
                   (answer["ContentLength"], answer["ETag"], answer["ContentType"], answer["CacheControl"],
                    answer["Metadata"]),
                   (size, etag, "text/x-test", "no-store", {"colour": "blue", "empty": ""}))
    s3.put_object(Bucket=BUCKET, Key="size/1", Body=b"newer")
    expect("overwritten", read(s3, "size/1"), b"newer")
    s3.delete_object(Bucket=BUCKET, Key="size/1")
    refused("a deleted key", 404, "NoSuchKey", lambda: read(s3, "size/1"))
    s3.delete_object(Bucket=BUCKET, Key="size/1")


def checksums(s3):
    content = body(100_000, 5)
    # Those that botocore computes without further packages.
    for algorithm in ("CRC32", "SHA1", "SHA256"):
        put = s3.put_object(Bucket=BUCKET, Key=f"sum/{algorithm}", Body=content, ChecksumAlgorithm=algorithm)
        expect(f"{algorithm}: it is answered", bool(put.get(f"Checksum{algorithm}")), True)
        expect(f"{algorithm}: the bytes", read(s3, f"sum/{algorithm}") == content, True)
    refused("a wrong checksum", 400, "BadDigest",
            lambda: s3.put_object(Bucket=BUCKET, Key="sum/wrong", Body=content, ChecksumSHA256="A" * 43 + "="))
    refused("a wrong MD5", 400, "BadDigest",
            lambda: s3.put_object(Bucket=BUCKET, Key="sum/wrong", Body=content, ContentMD5="A" * 22 + "=="))
    refused("nothing was stored", 404, "404", lambda: s3.head_object(Bucket=BUCKET, Key="sum/wrong"))


def crc64nvme_table():
    for number in range(256):
        for _ in range(8):
            number = number >> 1 ^ (0x9A6C9329AC4BC9B5 if number & 1 else 0)
        yield number


CRC64NVME = list(crc64nvme_table())


def crc64nvme(content):
    crc = (1 << 64) - 1
    for byte in content:
        crc = CRC64NVME[(crc ^ byte) & 0xFF] ^ crc >> 8
    return (crc ^ (1 << 64) - 1).to_bytes(8, "big")


SUMS = {
    "CRC32": lambda content: zlib.crc32(content).to_bytes(4, "big"),
    "CRC64NVME": crc64nvme,
    "SHA256": lambda content: hashlib.sha256(content).digest(),
}


def base64_of(sum):
    return base64.b64encode(sum).decode()


def composite(algorithm, parts):
    sum = SUMS[algorithm]
    return f"{base64_of(sum(b''.join(map(sum, parts))))}-{len(parts)}"


def given(s3, key, algorithm):
    """Checksum and its type, by HEAD and by GET."""
    head = s3.head_object(Bucket=BUCKET, Key=key, ChecksumMode="ENABLED")
    got = s3.get_object(Bucket=BUCKET, Key=key, ChecksumMode="ENABLED")
    got["Body"].read()
    return [(answer.get(f"Checksum{algorithm}"), answer.get("ChecksumType")) for answer in (head, got)]


def part_checksums(s3):
    content = body(8 * MIB + 100, 13)
    parts = [content[: 5 * MIB], content[5 * MIB :]]
    # botocore computes CRC64NVME by a further package only, and takes what it is told.
    assert base64_of(crc64nvme(b"123456789")) == "rosUhgp5mIg="
    for algorithm, kind in (("SHA256", "COMPOSITE"), ("CRC32", "FULL_OBJECT"), ("CRC64NVME", "FULL_OBJECT")):
        field = f"Checksum{algorithm}"
        key = f"sum/parts/{algorithm}"
        created = s3.create_multipart_upload(Bucket=BUCKET, Key=key, ChecksumAlgorithm=algorithm, ChecksumType=kind)
        expect(f"{algorithm} in parts: what it is begun with",
               (created["ChecksumAlgorithm"], created["ChecksumType"]), (algorithm, kind))
        target = {"Bucket": BUCKET, "Key": key, "UploadId": created["UploadId"]}
        sums = [base64_of(SUMS[algorithm](part)) for part in parts]
        refused(f"{algorithm} in parts: a wrong sum", 400, "BadDigest",
                lambda: s3.upload_part(**target, PartNumber=1, Body=parts[0], **{field: sums[1]}))
        done = []
        for number, (part, sum) in enumerate(zip(parts, sums), 1):
            put = s3.upload_part(**target, PartNumber=number, Body=part, **{field: sum})
            expect(f"{algorithm} in parts: part {number} is answered", put[field], sum)
            done.append({"PartNumber": number, "ETag": put["ETag"], field: sum})
        listed = s3.list_parts(**target)
        expect(f"{algorithm} in parts: they are listed",
               (listed["ChecksumAlgorithm"], listed["ChecksumType"], [part[field] for part in listed["Parts"]]),
               (algorithm, kind, sums))
        wrong = [{**done[0], field: sums[1]}, done[1]]
        refused(f"{algorithm} in parts: a completion that names another sum", 400, "InvalidPart",
                lambda: s3.complete_multipart_upload(**target, MultipartUpload={"Parts": wrong}))
        whole = composite(algorithm, parts) if kind == "COMPOSITE" else base64_of(SUMS[algorithm](content))
        if kind == "FULL_OBJECT":
            refused(f"{algorithm} in parts: another sum of the whole", 400, "BadDigest",
                    lambda: s3.complete_multipart_upload(**target, MultipartUpload={"Parts": done}, **{field: sums[0]}))
        completed = s3.complete_multipart_upload(**target, MultipartUpload={"Parts": done})
        expect(f"{algorithm} in parts: it is completed", (completed[field], completed["ChecksumType"]), (whole, kind))
        expect(f"{algorithm} in parts: it is kept", given(s3, key, algorithm), [(whole, kind)] * 2)
    target = {"Bucket": BUCKET, "Key": "sum/copied"}
    target["UploadId"] = s3.create_multipart_upload(**target, ChecksumAlgorithm="SHA256")["UploadId"]
    copied = s3.upload_part_copy(**target, PartNumber=1, CopySource={"Bucket": BUCKET, "Key": "sum/parts/CRC32"})
    expect("a copied part is summed", copied["CopyPartResult"]["ChecksumSHA256"], base64_of(SUMS["SHA256"](content)))
    s3.abort_multipart_upload(**target)
    refused("a hash of the whole", 400, "InvalidRequest",
            lambda: s3.create_multipart_upload(Bucket=BUCKET, Key="x", ChecksumAlgorithm="SHA256", ChecksumType="FULL_OBJECT"))


def ranges(s3):
    content = body(2 * MIB + 100, 7)
    s3.put_object(Bucket=BUCKET, Key="range", Body=content)
    for asked, wanted in (
        ("bytes=0-0", content[:1]),
        ("bytes=100-299", content[100:300]),
        (f"bytes={MIB - 10}-{MIB + 9}", content[MIB - 10 : MIB + 10]),
        ("bytes=2097152-", content[2 * MIB :]),
        ("bytes=-7", content[-7:]),
        ("bytes=-99999999", content),
        ("bytes=2097000-99999999", content[2097000:]),
    ):
        answer = s3.get_object(Bucket=BUCKET, Key="range", Range=asked)
        expect(asked, answer["Body"].read() == wanted, True)
        expect(f"{asked}: status", answer["ResponseMetadata"]["HTTPStatusCode"], 206)
    refused("a range behind the end", 416, "InvalidRange", lambda: read(s3, "range", Range="bytes=99999999-"))


def conditions(s3):
    etag = s3.put_object(Bucket=BUCKET, Key="if", Body=b"one")["ETag"]
    expect("If-Match", read(s3, "if", IfMatch=etag), b"one")
    refused("If-Match of another", 412, "PreconditionFailed", lambda: read(s3, "if", IfMatch='"0"'))
    refused("If-None-Match", 304, "304", lambda: read(s3, "if", IfNoneMatch=etag))
    modified = s3.head_object(Bucket=BUCKET, Key="if")["LastModified"]
    refused("If-Modified-Since", 304, "304", lambda: read(s3, "if", IfModifiedSince=modified))
    refused("put where there must be none", 412, "PreconditionFailed",
            lambda: s3.put_object(Bucket=BUCKET, Key="if", Body=b"two", IfNoneMatch="*"))
    refused("put over another", 412, "PreconditionFailed",
            lambda: s3.put_object(Bucket=BUCKET, Key="if", Body=b"two", IfMatch='"0"'))
    s3.put_object(Bucket=BUCKET, Key="if", Body=b"two", IfMatch=etag)
    expect("put over the one that is meant", read(s3, "if"), b"two")
    s3.put_object(Bucket=BUCKET, Key="if-new", Body=b"new", IfNoneMatch="*")
    expect("put where there is none", read(s3, "if-new"), b"new")


def odd_keys(s3):
    for number, key in enumerate(ODD_KEYS):
        s3.put_object(Bucket=BUCKET, Key="odd/" + key if len(key) < 900 else key, Body=str(number).encode())
    for number, key in enumerate(ODD_KEYS):
        key = "odd/" + key if len(key) < 900 else key
        expect(f"key {key[:40]!r}", read(s3, key), str(number).encode())
    listed = [o["Key"] for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="odd/") for o in page["Contents"]]
    wanted = sorted(("odd/" + key for key in ODD_KEYS if len(key) < 900), key=lambda key: key.encode())
    expect("odd keys are listed as they are, in the order of their bytes", listed, wanted)
    refused("a key of 1,025 bytes", 400, "KeyTooLongError", lambda: s3.put_object(Bucket=BUCKET, Key="k" * 1025, Body=b""))
    deleted = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key} for key in listed]})
    expect("all are deleted at once", sorted(d["Key"] for d in deleted["Deleted"]), sorted(listed))
    expect("without errors", deleted.get("Errors", []), [])
    expect("none is left", s3.list_objects_v2(Bucket=BUCKET, Prefix="odd/")["KeyCount"], 0)
    s3.delete_object(Bucket=BUCKET, Key=ODD_KEYS[-1])


def lists(s3):
    keys = [f"list/{folder}/{number:03}" for folder in ("a", "b", "c") for number in range(45)] + ["list/top"]
    for key in keys:
        s3.put_object(Bucket=BUCKET, Key=key, Body=key.encode())
    for version in ("list_objects", "list_objects_v2"):
        paginator = s3.get_paginator(version)
        pages = list(paginator.paginate(Bucket=BUCKET, Prefix="list/", PaginationConfig={"PageSize": 17}))
        expect(f"{version}: pages", len(pages), 8)
        expect(f"{version}: every key once", [o["Key"] for p in pages for o in p["Contents"]], sorted(keys))
        expect(f"{version}: sizes", all(o["Size"] == len(o["Key"]) for p in pages for o in p["Contents"]), True)
        pages = list(paginator.paginate(Bucket=BUCKET, Prefix="list/", Delimiter="/", PaginationConfig={"PageSize": 2}))
        groups = [g["Prefix"] for p in pages for g in p.get("CommonPrefixes", [])]
        expect(f"{version}: groups", groups, ["list/a/", "list/b/", "list/c/"])
        expect(f"{version}: keys beside the groups", [o["Key"] for p in pages for o in p.get("Contents", [])], ["list/top"])
    page = s3.list_objects_v2(Bucket=BUCKET, Prefix="list/", StartAfter="list/c/043")
    expect("start-after", [o["Key"] for o in page["Contents"]], ["list/c/044", "list/top"])
    expect("no keys asked for", s3.list_objects_v2(Bucket=BUCKET, MaxKeys=0).get("Contents", []), [])
    refused("a token that is not ours", 400, "InvalidArgument",
            lambda: s3.list_objects_v2(Bucket=BUCKET, ContinuationToken="not ours"))


def multipart(s3):
    content = body(13 * MIB + 5, 11)
    parts = [content[:5 * MIB], content[5 * MIB : 10 * MIB], content[10 * MIB :]]
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="multi", ContentType="text/x-parts", Metadata={"a": "b"})["UploadId"]
    target = {"Bucket": BUCKET, "Key": "multi", "UploadId": upload}
    done = []
    for number in (3, 1, 2):
        etag = s3.upload_part(**target, PartNumber=number, Body=parts[number - 1])["ETag"]
        done.append({"PartNumber": number, "ETag": etag})
    listed = s3.list_parts(**target)["Parts"]
    expect("parts are listed", [(p["PartNumber"], p["Size"]) for p in listed], [(n + 1, len(p)) for n, p in enumerate(parts)])
    expect("the upload is listed", [u["UploadId"] for u in s3.list_multipart_uploads(Bucket=BUCKET)["Uploads"]], [upload])
    refused("parts out of order", 400, "InvalidPartOrder",
            lambda: s3.complete_multipart_upload(**target, MultipartUpload={"Parts": done}))
    refused("a part that was never sent", 400, "InvalidPart",
            lambda: s3.complete_multipart_upload(**target, MultipartUpload={"Parts": [{"PartNumber": 9, "ETag": '"0"'}]}))
    done.sort(key=lambda part: part["PartNumber"])
    etag = s3.complete_multipart_upload(**target, MultipartUpload={"Parts": done})["ETag"]
    md5 = hashlib.md5(b"".join(hashlib.md5(part).digest() for part in parts)).hexdigest()
    expect("ETag of parts", etag, f'"{md5}-3"')
    expect("it comes back", read(s3, "multi") == content, True)
    head = s3.head_object(Bucket=BUCKET, Key="multi")
    expect("headers of the upload", (head["ContentType"], head["Metadata"]), ("text/x-parts", {"a": "b"}))
    refused("a completed upload", 404, "NoSuchUpload", lambda: s3.list_parts(**target))
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="aborted")["UploadId"]
    s3.upload_part(Bucket=BUCKET, Key="aborted", UploadId=upload, PartNumber=1, Body=b"x" * 100)
    s3.abort_multipart_upload(Bucket=BUCKET, Key="aborted", UploadId=upload)
    refused("an aborted upload takes no part", 404, "NoSuchUpload",
            lambda: s3.upload_part(Bucket=BUCKET, Key="aborted", UploadId=upload, PartNumber=2, Body=b"x"))
    expect("no upload is left", s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []), [])
    config = TransferConfig(multipart_threshold=8 * MIB, multipart_chunksize=8 * MIB, max_concurrency=4)
    s3.upload_fileobj(io.BytesIO(content), BUCKET, "transfer", Config=config)
    back = io.BytesIO()
    s3.download_fileobj(BUCKET, "transfer", back, Config=config)
    expect("the transfer manager's way up and down", back.getvalue() == content, True)
    pieces = [content[: 8 * MIB], content[8 * MIB :]]
    expect("its checksum", given(s3, "transfer", "CRC32"), [(composite("CRC32", pieces), "COMPOSITE")] * 2)


def copies(s3):
    source = {"Bucket": BUCKET, "Key": "multi"}
    s3.copy_object(Bucket=BUCKET, Key="copy of multi", CopySource=source)
    head = s3.head_object(Bucket=BUCKET, Key="copy of multi")
    expect("a copy's headers", (head["ContentType"], head["Metadata"]), ("text/x-parts", {"a": "b"}))
    expect("a copy's bytes", read(s3, "copy of multi") == read(s3, "multi"), True)
    s3.copy_object(Bucket=BUCKET, Key="copy of multi", CopySource={"Bucket": BUCKET, "Key": "copy of multi"},
                   MetadataDirective="REPLACE", Metadata={"c": "d"}, ContentType="text/x-other")
    head = s3.head_object(Bucket=BUCKET, Key="copy of multi")
    expect("headers replaced", (head["ContentType"], head["Metadata"]), ("text/x-other", {"c": "d"}))
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="joined")["UploadId"]
    target = {"Bucket": BUCKET, "Key": "joined", "UploadId": upload}
    one = s3.upload_part_copy(**target, PartNumber=1, CopySource=source, CopySourceRange=f"bytes=0-{6 * MIB - 1}")
    two = s3.upload_part_copy(**target, PartNumber=2, CopySource=source, CopySourceRange=f"bytes={6 * MIB}-{7 * MIB}")
    parts = [{"PartNumber": n, "ETag": p["CopyPartResult"]["ETag"]} for n, p in ((1, one), (2, two))]
    s3.complete_multipart_upload(**target, MultipartUpload={"Parts": parts})
    expect("joined of copied parts", read(s3, "joined") == read(s3, "multi")[: 7 * MIB + 1], True)
    refused("a copy of nothing", 404, "NoSuchKey",
            lambda: s3.copy_object(Bucket=BUCKET, Key="x", CopySource={"Bucket": BUCKET, "Key": "missing"}))


def tags(s3):
    s3.put_object(Bucket=BUCKET, Key="tagged", Body=b"x", Tagging="project=diptych&empty=")
    wanted = [{"Key": "empty", "Value": ""}, {"Key": "project", "Value": "diptych"}]
    got = s3.get_object_tagging(Bucket=BUCKET, Key="tagged")["TagSet"]
    expect("tags", sorted(got, key=lambda tag: tag["Key"]), wanted)
    expect("their number", s3.get_object(Bucket=BUCKET, Key="tagged")["TagCount"], 2)
    s3.put_object_tagging(Bucket=BUCKET, Key="tagged", Tagging={"TagSet": [{"Key": "size", "Value": "x l"}]})
    expect("tags that are set anew", s3.get_object_tagging(Bucket=BUCKET, Key="tagged")["TagSet"],
           [{"Key": "size", "Value": "x l"}])
    eleven = [{"Key": f"k{number}", "Value": ""} for number in range(11)]
    refused("eleven tags", 400, "InvalidTag",
            lambda: s3.put_object_tagging(Bucket=BUCKET, Key="tagged", Tagging={"TagSet": eleven}))
    s3.delete_object_tagging(Bucket=BUCKET, Key="tagged")
    expect("no tags", s3.get_object_tagging(Bucket=BUCKET, Key="tagged")["TagSet"], [])


def versions(s3):
    bucket = "boto3-versions"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="key", Body=b"before")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    expect("versioning", s3.get_bucket_versioning(Bucket=bucket)["Status"], "Enabled")
    first = s3.put_object(Bucket=bucket, Key="key", Body=b"first")["VersionId"]
    upload = s3.create_multipart_upload(Bucket=bucket, Key="key")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="key", UploadId=upload, PartNumber=1, Body=body(6 * MIB))
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    large = s3.complete_multipart_upload(Bucket=bucket, Key="key", UploadId=upload, MultipartUpload=parts)["VersionId"]
    for version, content in (("null", b"before"), (first, b"first"), (large, body(6 * MIB))):
        got = s3.get_object(Bucket=bucket, Key="key", VersionId=version)
        expect(f"version {version[:8]}", (got["VersionId"], got["Body"].read() == content), (version, True))
    marker = s3.delete_object(Bucket=bucket, Key="key")
    expect("a marker", marker["DeleteMarker"], True)
    refused("a key with a marker", 404, "NoSuchKey", lambda: s3.get_object(Bucket=bucket, Key="key"))
    refused("a marker by name", 405, "405",
            lambda: s3.head_object(Bucket=bucket, Key="key", VersionId=marker["VersionId"]))
    for size in (1, 2, 1000):
        pages = s3.get_paginator("list_object_versions").paginate(
            Bucket=bucket, PaginationConfig={"PageSize": size})
        found = [(one["VersionId"], one["IsLatest"]) for page in pages
                 for one in page.get("Versions", []) + page.get("DeleteMarkers", [])]
        wanted = {(marker["VersionId"], True), (large, False), (first, False), ("null", False)}
        expect(f"versions, {size} a page", (len(found), set(found)), (4, wanted))
    s3.copy_object(Bucket=bucket, Key="key",
                   CopySource={"Bucket": bucket, "Key": "key", "VersionId": first})
    expect("an older version is back", s3.get_object(Bucket=bucket, Key="key")["Body"].read(), b"first")
    listed = s3.list_object_versions(Bucket=bucket)
    every = [{"Key": one["Key"], "VersionId": one["VersionId"]}
             for one in listed["Versions"] + listed["DeleteMarkers"]]
    deleted = s3.delete_objects(Bucket=bucket, Delete={"Objects": every})
    expect("each version is deleted", (len(deleted["Deleted"]), deleted.get("Errors")), (5, None))
    s3.delete_bucket(Bucket=bucket)


def presigned(s3):
    def fetch(url, method="GET", data=None):
        request = urllib.request.Request(url, data=data, method=method)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    params = {"Bucket": BUCKET, "Key": "presigned ü/+%"}
    url = s3.generate_presigned_url("put_object", Params=params, ExpiresIn=60)
    expect("presigned PUT", fetch(url, "PUT", b"signed before")[0], 200)
    url = s3.generate_presigned_url("get_object", Params=params, ExpiresIn=60)
    expect("presigned GET", fetch(url), (200, b"signed before"))
    status, answer = fetch(url[:-1] + ("1" if url[-1] == "0" else "0"))
    expect("a presigned URL with another signature", (status, b"SignatureDoesNotMatch" in answer), (403, True))
    status, answer = fetch(url.split("?")[0])
    expect("no signature at all", (status, b"AccessDenied" in answer), (403, True))


def short_body(s3):
    url = urllib.parse.urlsplit(s3.generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": "short"}))
    with socket.create_connection((url.hostname, url.port)) as connection:
        head = f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Length: 1000\r\n\r\n"
        connection.sendall(head.encode() + b"x" * 400)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    expect("a body shorter than its length", (answer.split()[1:2], b"IncompleteBody" in answer), ([b"400"], True))
    refused("it stored nothing", 404, "NoSuchKey", lambda: read(s3, "short"))


def errors(s3, client):
    refused("no such bucket", 404, "NoSuchBucket", lambda: s3.list_objects_v2(Bucket="no-such-bucket"))
    refused("a put into no such bucket", 404, "NoSuchBucket", lambda: s3.put_object(Bucket="no-such-bucket", Key="k", Body=b"x"))
    refused("no such key", 404, "NoSuchKey", lambda: read(s3, "missing"))
    refused("head of no such key", 404, "404", lambda: s3.head_object(Bucket=BUCKET, Key="missing"))
    refused("no such upload", 404, "NoSuchUpload",
            lambda: s3.upload_part(Bucket=BUCKET, Key="k", UploadId="00" * 16, PartNumber=1, Body=b"x"))
    refused("a bucket that is not empty", 409, "BucketNotEmpty", lambda: s3.delete_bucket(Bucket=BUCKET))
    refused("the bucket exists", 409, "BucketAlreadyOwnedByYou", lambda: s3.create_bucket(Bucket=BUCKET))
    wrong = client(aws_secret_access_key="wrong")
    refused("a bad signature", 403, "SignatureDoesNotMatch", lambda: wrong.list_buckets())
    refused("a bad signature on a put", 403, "SignatureDoesNotMatch",
            lambda: wrong.put_object(Bucket=BUCKET, Key="bad-signature", Body=b"x"))
    refused("it stored nothing", 404, "NoSuchKey", lambda: read(s3, "bad-signature"))
    unknown = client(aws_access_key_id="NOBODY")
    refused("an unknown access key", 403, "InvalidAccessKeyId", lambda: unknown.list_buckets())
    refused("what is not there yet", 501, "NotImplemented",
            lambda: s3.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration={"Rules": [
                {"ID": "old", "Status": "Enabled", "Filter": {}, "Expiration": {"Days": 1}}]}))


def clean(s3):
    keys = [o["Key"] for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET) for o in page.get("Contents", [])]
    s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True})
    s3.delete_bucket(Bucket=BUCKET)
    refused("the bucket is gone", 404, "404", lambda: s3.head_bucket(Bucket=BUCKET))


def main(endpoint):
    def client(**more):
        keys = {"aws_access_key_id": os.environ["AWS_ACCESS_KEY_ID"],
                "aws_secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"], **more}
        config = Config(s3={"addressing_style": "path"}, signature_version="s3v4", retries={"max_attempts": 1})
        return boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", config=config, **keys)

    s3 = client()
    buckets(s3)
    for check in (put_get_head, checksums, part_checksums, ranges, conditions, odd_keys, lists, multipart, copies, tags, versions, presigned, short_body):
        check(s3)
    errors(s3, client)
    clean(s3)


main(sys.argv[1])
