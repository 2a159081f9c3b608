"""The controller's client of an object store, against a kept S3 server over HTTP, and what it says of troubles."""

from __future__ import annotations

import hashlib
import urllib.parse
import urllib.request

import boto3
import pytest
from moto import mock_aws

from ansible_collections.glm.fleet.plugins.plugin_utils.store import bucket as buckets
from ansible_collections.glm.fleet.plugins.plugin_utils.store.bucket import Bucket, Home, home_of, place
from ansible_collections.glm.fleet.plugins.plugin_utils.store.errors import StoreError
from tests.playbooks.store import s3


@pytest.fixture
def bucket(store: s3.Store) -> Bucket:
    return Bucket(place(f"s3://{s3.BUCKET}/models/", store.url))


@pytest.mark.parametrize(
    ("address", "prefix"), [("s3://weights", ""), ("s3://weights/", ""), ("s3://weights/a/b.c/", "a/b.c")]
)
def test_an_address_is_a_bucket_and_a_prefix(address: str, prefix: str) -> None:
    found = place(address)
    assert (found.bucket, found.prefix) == ("weights", prefix)
    assert found.key("x", "y") == (f"{prefix}/x/y" if prefix else "x/y")


@pytest.mark.parametrize(
    "address",
    ["", "weights/a", "https://weights/a", "s3:///a", "s3://u:p@weights/a", "s3://weights/a//b", "s3://weights/../b",
     "s3://weights/a?b=c", "s3://weights/a#b", "s3://we ights", "s3://weights/\x1b[31m", "s3://x"],
)  # fmt: skip
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(StoreError, match="expected an address like s3://bucket/prefix"):
        place(address)


@pytest.mark.parametrize("endpoint", ["files.example", "ftp://x", "https://key:secret@x", "https://x/?a=b"])
def test_what_is_no_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(StoreError, match="correct glm_store_endpoint"):
        place("s3://weights", endpoint)


def test_objects_are_written_listed_read_and_uploaded_in_parts(bucket: Bucket, store: s3.Store) -> None:
    etag = bucket.write("models/a", b"abc")
    upload = bucket.begin("models/b/c")
    assert [key for key, _upload in bucket.unfinished("models/")] == ["models/b/c"]
    parts = {1: bytearray(b"x" * 5 * 2**20), 2: bytearray(b"end")}
    etags = {number: bucket.part("models/b/c", upload, number, body) for number, body in parts.items()}
    whole = bucket.complete("models/b/c", upload, etags)
    assert bucket.objects("models/") == {
        "models/a": buckets.Stored(3, etag), "models/b/c": buckets.Stored(5 * 2**20 + 3, whole)
    }  # fmt: skip
    assert bucket.unfinished("models/") == []
    assert bucket.read("models/a", 3) == b"abc"
    assert bucket.read("models/none", 3) is None
    with pytest.raises(StoreError, match="at most 2 bytes"):
        bucket.read("models/a", 2)


@pytest.mark.parametrize("found_by_boto3", [False, True])
def test_what_is_sent_is_hashed_a_second_time_only_where_nothing_else_guards_it(
    store: s3.Store, monkeypatch: pytest.MonkeyPatch, found_by_boto3: bool
) -> None:
    if found_by_boto3:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", store.url)
    where = place("s3://weights", "" if found_by_boto3 else store.url)
    Bucket(where).write("a", b"abc")
    monkeypatch.setattr(buckets, "in_clear", lambda address: address == store.url)
    Bucket(where).write("b", b"abc")
    sent = [one.headers["X-Amz-Content-SHA256"] for one in store.asked("PUT /weights/[ab]")]
    assert sent == ["UNSIGNED-PAYLOAD", hashlib.sha256(b"abc").hexdigest()]


def test_an_object_is_replaced_only_while_it_is_the_one_that_was_read(bucket: Bucket, store: s3.Store) -> None:
    assert bucket.write_if("models/a", b"1", None)
    assert not bucket.write_if("models/a", b"2", None)
    found = bucket.content("models/a", 9)
    assert found is not None and found.body == b"1"
    assert bucket.write_if("models/a", b"3", found.etag)
    assert not bucket.write_if("models/a", b"4", found.etag) and bucket.read("models/a", 9) == b"3"
    assert not bucket.write_if("models/none", b"5", found.etag)
    store.fail("PUT *", status=403, code="AccessDenied")
    with pytest.raises(StoreError, match="s3:PutObject"):
        bucket.write_if("models/a", b"6", None)


@pytest.mark.parametrize("status", [200, 404])
@pytest.mark.parametrize("page", [b"", b"-", b"<html><body>log in</body></html>"])
def test_a_server_that_is_no_store_has_no_empty_bucket(
    bucket: Bucket, store: s3.Store, status: int, page: bytes
) -> None:
    store.fail("GET *", status=status, page=page or b" ")
    for ask in (lambda: bucket.objects("models/"), lambda: bucket.read("models/a", 9)):
        with pytest.raises(StoreError):
            ask()


def test_an_aborted_upload_is_gone_and_may_be_aborted_again(bucket: Bucket, store: s3.Store) -> None:
    upload = bucket.begin("models/a")
    bucket.abort("models/a", upload)
    bucket.abort("models/a", upload)
    assert bucket.unfinished("models/") == []
    # moto answers 500 here.
    store.fail("PUT *partNumber=1*", status=404, code="NoSuchUpload")
    with pytest.raises(StoreError, match="aborted by somebody else") as caught:
        bucket.part("models/a", upload, 1, bytearray(b"x"))
    assert caught.value.kind == "aborted"


def test_a_signed_address_needs_no_key_and_expires(bucket: Bucket, store: s3.Store) -> None:
    bucket.write("models/a b+c", b"abc")
    signed = bucket.sign(["models/a b+c"], 60)["models/a b+c"]
    with urllib.request.urlopen(signed) as answer:
        assert answer.read() == b"abc"
    assert s3.KEY_PAIR["AWS_SECRET_ACCESS_KEY"] not in signed
    store.ahead = 61
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(signed)


@pytest.mark.parametrize("region", ["eu-west-1", "us-east-1"])
@pytest.mark.parametrize("given", ["", "ap-south-1"])
def test_an_address_is_signed_for_the_region_and_the_host_of_the_bucket(region: str, given: str) -> None:
    """Without an endpoint: the host of all regions redirects to one that the signature is not for."""
    with mock_aws():
        boto3.client("s3", region_name="us-east-1").create_bucket(
            Bucket="weights",
            **({} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}),
        )
        signed = urllib.parse.urlsplit(Bucket(place("s3://weights", region=given)).sign(["a"], 60)["a"])
    assert signed.hostname == f"weights.s3.{region}.amazonaws.com"
    assert f"/{region}/s3/" in urllib.parse.parse_qs(signed.query)["X-Amz-Credential"][0]


@pytest.mark.parametrize(
    ("answer", "region"),
    [
        ({"status": 403, "headers": {"x-amz-bucket-region": "eu-west-1"}}, "eu-west-1"),
        ({"status": 403}, "us-east-3"),
        ({"status": 501}, "us-east-3"),
    ],
)
def test_the_region_of_a_bucket_is_what_the_store_says_else_what_was_given(
    store: s3.Store, answer: dict[str, object], region: str
) -> None:
    store.fail("HEAD /weights*", **answer)
    bucket = Bucket(place("s3://weights", store.url, "us-east-3"))
    for _again in range(2):
        signed = bucket.sign(["a"], 60)["a"]
        assert signed.startswith(f"{store.url}/weights/a?") and f"%2F{region}%2Fs3" in signed
    assert len(store.asked("HEAD *")) == 1


def test_a_store_that_does_not_say_the_region_now_is_asked_again(bucket: Bucket, store: s3.Store) -> None:
    fault = store.fail("HEAD /weights*", status=503)
    with pytest.raises(StoreError, match="to sign addresses") as caught:
        bucket.sign(["a"], 60)
    assert caught.value.kind == "busy"
    store.faults.remove(fault)
    assert bucket.sign(["a"], 60)


@pytest.mark.parametrize("region", ["", "eu-west-3"])
def test_a_bucket_that_is_elsewhere_is_asked_and_signed_for_there(store: s3.Store, region: str) -> None:
    """The host of all regions sends on whoever asks for a young bucket, and a signed address cannot follow."""
    with s3.in_front(store, **({"x-amz-bucket-region": region} if region else {})) as front:
        bucket = Bucket(place(f"s3://{s3.BUCKET}/models", front.url))
        upload = bucket.begin("models/b")
        etags = {1: bucket.part("models/b", upload, 1, bytearray(b"x" * 2**20))}
        bucket.complete("models/b", upload, etags)
        assert bucket.unfinished("models/") == [] and set(bucket.objects("models/")) == {"models/b"}
        # Where it is, the store has no word of its own for the region.
        store.fail("HEAD *", status=403)
        signed = bucket.sign(["models/b"], 60)["models/b"]
        # Once, however many requests there are.
        assert [one.method for one in front.requests] == ["POST"]
        assert signed.startswith(f"{store.url}/weights/models/b?")
        assert f"%2F{region or 'us-east-1'}%2Fs3" in signed
        with urllib.request.urlopen(signed) as answer:
            assert len(answer.read()) == 2**20
        # What asks for nothing but the signature is sent on as well.
        assert Bucket(bucket.place).sign(["models/b"], 60)["models/b"].startswith(f"{store.url}/weights/models/b?")


def test_a_store_that_sends_on_without_an_end_or_a_place_is_refused(store: s3.Store) -> None:
    with s3.in_front(store) as front:
        front.home = front.url
        with pytest.raises(StoreError, match="TemporaryRedirect") as caught:
            Bucket(place("s3://weights", front.url)).objects("")
        assert caught.value.kind == "region" and len(front.requests) == 4
        front.home = "ftp://elsewhere"
        with pytest.raises(StoreError, match="TemporaryRedirect") as caught:
            Bucket(place("s3://weights", front.url)).objects("")
        assert caught.value.kind == "region" and len(front.requests) == 5


@pytest.mark.parametrize(
    ("headers", "said", "home"),
    [
        ({"location": "https://weights.s3-eu-west-1.amazonaws.com/a?b=c", "x-amz-bucket-region": "eu-west-1"}, {},
         Home("https://s3-eu-west-1.amazonaws.com", "eu-west-1", True)),
        ({}, {"Endpoint": "weights.s3.eu-west-1.amazonaws.com", "Region": "eu-west-1"},
         Home("https://s3.eu-west-1.amazonaws.com", "eu-west-1", True)),
        ({"location": "https://b.example:9000/weights/a"}, {}, Home("https://b.example:9000", "", False)),
        ({"location": "http://b.example/weights/a"}, {}, None),
        ({"location": "https://key:secret@b.example/weights/a"}, {}, None),
        ({"location": "/elsewhere"}, {}, None),
        ({}, {}, None),
    ],
)  # fmt: skip
def test_the_home_of_a_bucket_is_read_from_what_stores_say(
    headers: dict[str, str], said: dict[str, str], home: Home | None
) -> None:
    answer = {"Error": said, "ResponseMetadata": {"HTTPHeaders": headers}}
    assert home_of(answer, "weights", "https://s3.amazonaws.com/weights/a") == home


FAULTS = [
    ({"status": 403, "code": "AccessDenied", "text": "Access Denied"}, "forbidden", "s3:ListBucket on s3://weights/models"),
    ({"status": 403, "code": "InvalidAccessKeyId", "text": "no such key"}, "credentials", "set AWS_PROFILE"),
    ({"status": 403, "code": "SignatureDoesNotMatch"}, "credentials", "set AWS_PROFILE"),
    ({"status": 400, "code": "ExpiredToken", "text": "The provided token has expired."}, "credentials", "has expired"),
    ({"status": 403, "code": "RequestTimeTooSkewed"}, "clock", "correct the clock"),
    ({"status": 404, "code": "NoSuchBucket"}, "no_bucket", "make the bucket"),
    ({"status": 400, "code": "AuthorizationHeaderMalformed", "region": "us-east-3"}, "region", "to us-east-3"),
    ({"status": 301, "code": "301", "headers": {"x-amz-bucket-region": "eu-west-1"}}, "region", "to eu-west-1"),
    ({"status": 503, "code": "SlowDown", "text": "Please reduce your request rate."}, "busy", "run again later"),
    ({"status": 429, "code": "TooManyRequests"}, "busy", "run again later"),
    ({"status": 507, "code": "InsufficientStorage"}, "full", "free space"),
    ({"status": 418, "code": "Teapot", "text": "\x1b[31mred"}, "refused", "glm_store_endpoint"),
]  # fmt: skip


def test_troubles_of_a_store_are_named(bucket: Bucket, store: s3.Store) -> None:
    for fault, kind, words in FAULTS:
        store.faults.clear()
        store.fail("* /weights*", **fault)
        with pytest.raises(StoreError) as caught:
            bucket.objects("models/")
        text = str(caught.value)
        assert caught.value.kind == kind and words in text and "Next: " in text, text
        assert text.startswith("expected to list s3://weights/models, found ") and "\x1b" not in text
        assert not any(secret in text for secret in s3.KEY_PAIR.values())


def test_a_store_that_is_busy_for_a_moment_is_asked_again(bucket: Bucket, store: s3.Store) -> None:
    store.fail("GET /weights*", status=503, code="SlowDown", times=1)
    assert bucket.objects("models/") == {}


def test_a_record_that_arrives_in_part_is_read_again(bucket: Bucket, store: s3.Store) -> None:
    bucket.write("models/a", b"abcdef")
    store.fail("GET /weights/models/a*", cut=2, times=1)
    assert bucket.read("models/a", 10) == b"abcdef"
    store.fail("GET /weights/models/a*", cut=2)
    with pytest.raises(StoreError, match="expected 6 bytes of s3://weights/models/a, found 2"):
        bucket.read("models/a", 10)


def test_without_a_key_pair_it_says_how_to_give_one(store: s3.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in s3.KEY_PAIR:
        monkeypatch.delenv(name)
    bucket = Bucket(place("s3://weights", store.url))
    with pytest.raises(StoreError, match="AWS_ACCESS_KEY_ID") as caught:
        bucket.objects("")
    assert caught.value.kind == "credentials"
    with pytest.raises(StoreError, match="to sign addresses of s3://weights, found none"):
        bucket.sign(["a"], 60)
    monkeypatch.setenv("AWS_PROFILE", "not-there")
    with pytest.raises(StoreError, match="not-there"):
        Bucket(place("s3://weights", store.url))


def test_a_store_that_does_not_answer_is_not_an_empty_one() -> None:
    bucket = Bucket(place("s3://weights", "http://127.0.0.1:9"))
    with pytest.raises(StoreError, match=r"127\.0\.0\.1 port 9 refuses connections") as caught:
        bucket.objects("")
    assert caught.value.kind == "unreachable"
