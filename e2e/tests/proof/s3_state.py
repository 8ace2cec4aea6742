"""Everything that S3 tells of an installation, as JSON: buckets, objects with their bytes' SHA-256, headers, tags, open uploads and parts.

    s3_state.py ENDPOINT fill | dump | gone
"""

import hashlib
import io
import json
import sys

import boto3
from botocore.config import Config

s3 = boto3.client("s3", endpoint_url=sys.argv[1], region_name="us-east-1", config=Config(retries={"max_attempts": 1}))
DELETED = [f"deleted/{number}" for number in range(8)]


def fill():
    there = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
    for bucket in {"files", "other", "empty", "removed"} - there:
        s3.create_bucket(Bucket=bucket)
    s3.delete_bucket(Bucket="removed")
    for number in range(60):
        s3.put_object(
            Bucket="files",
            Key=f"small/{number:03}",
            Body=f"{number} ".encode() * (number * 50),
            ContentType="text/plain",
            Metadata={"number": str(number)},
            Tagging=f"number={number}&kind=small" if number % 3 == 0 else "",
        )
    for number in range(0, 60, 7):
        s3.put_object(Bucket="files", Key=f"small/{number:03}", Body=b"overwritten " * number)
    for key in DELETED:
        s3.put_object(Bucket="files", Key=key, Body=key.encode() * 100)
    s3.put_object(Bucket="files", Key="empty", Body=b"")
    s3.put_object(Bucket="files", Key="odd/\u00e4 \u2603 +&?%/\x7f", Body=b"odd")
    s3.put_object(Bucket="files", Key="large", Body=bytes(range(256)) * (40 << 10))
    config = boto3.s3.transfer.TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
    body = io.BytesIO(hashlib.sha256(b"seed").digest() * (13 << 15))
    s3.upload_fileobj(body, "other", "parts", Config=config, ExtraArgs={"Metadata": {"made": "of parts"}})
    s3.copy_object(Bucket="other", Key="copy", CopySource={"Bucket": "files", "Key": "large"})
    upload = s3.create_multipart_upload(Bucket="other", Key="open", Metadata={"open": "yes"})
    s3.upload_part(Bucket="other", Key="open", UploadId=upload["UploadId"], PartNumber=2, Body=b"p" * (6 << 20))
    aborted = s3.create_multipart_upload(Bucket="other", Key="aborted")
    s3.upload_part(Bucket="other", Key="aborted", UploadId=aborted["UploadId"], PartNumber=1, Body=b"a" * 9)
    s3.abort_multipart_upload(Bucket="other", Key="aborted", UploadId=aborted["UploadId"])
    s3.delete_object(Bucket="files", Key=DELETED[0])
    s3.delete_objects(Bucket="files", Delete={"Objects": [{"Key": key} for key in DELETED[1:]]})


def state():
    buckets = {}
    for bucket in s3.list_buckets()["Buckets"]:
        name = bucket["Name"]
        objects = {}
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=name):
            for listed in page.get("Contents", []):
                found = s3.get_object(Bucket=name, Key=listed["Key"])
                body = found.pop("Body").read()
                objects[listed["Key"]] = {
                    "listed": [listed["Size"], listed["ETag"], str(listed["LastModified"])],
                    "headers": {word: str(found.get(word)) for word in ["ETag", "ContentType", "LastModified", "Metadata"]},
                    "tags": s3.get_object_tagging(Bucket=name, Key=listed["Key"])["TagSet"],
                    "sha256": hashlib.sha256(body).hexdigest(),
                }
        uploads = {}
        for upload in s3.list_multipart_uploads(Bucket=name).get("Uploads", []):
            parts = s3.list_parts(Bucket=name, Key=upload["Key"], UploadId=upload["UploadId"]).get("Parts", [])
            uploads[upload["UploadId"]] = [upload["Key"], str(parts)]
        buckets[name] = {"created": str(bucket["CreationDate"]), "objects": objects, "uploads": uploads}
    return buckets


def gone():
    for key in DELETED:
        try:
            s3.head_object(Bucket="files", Key=key)
        except s3.exceptions.ClientError as error:
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 404, (key, error)
        else:
            raise AssertionError(f"{key} has come back")


match sys.argv[2]:
    case "fill":
        fill()
    case "dump":
        print(json.dumps(state(), indent=1, sort_keys=True))
    case "gone":
        gone()
