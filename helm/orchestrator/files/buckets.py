"""Makes the buckets of the s3:// URLs given, where they are not there yet."""

import sys

import boto3
from botocore.config import Config

s3 = boto3.client("s3", config=Config(retries={"max_attempts": 10, "mode": "standard"}))
there = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
for name in {url.removeprefix("s3://").partition("/")[0] for url in sys.argv[1:]} - there:
    s3.create_bucket(Bucket=name)
    print(f"made s3://{name}")
