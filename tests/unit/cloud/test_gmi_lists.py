"""A list of GMI Cloud, whose envelope and paging nobody publishes: found whole, or refused."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.cloud.api import BadAnswer
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud import lists

FOUR = [{"id": str(number)} for number in range(4)]
NEXT = "/api/v1/containers?page=2"


def whole(answer: Any, name: str = "containers", **headers: str) -> lists.Page:
    page = lists.page_of("GET x", answer, name, {key.replace("_", "-"): value for key, value in headers.items()})
    lists.refuse_more("GET x", page, len(page.items), 1)
    return page


@pytest.mark.parametrize(
    "answer",
    [
        FOUR,
        {"containers": FOUR},
        {"warnings": [], "items": FOUR},
        {"errors": [], "warnings": None, "containers": FOUR, "total": 4},
        {"code": 0, "message": "success", "error": {"code": 0, "message": ""}, "data": {"items": FOUR, "total": "4"}},
        {"data": FOUR},
        {"data": {"containers": FOUR}},
        {"result": {"containerList": FOUR}, "requestId": "abc"},
        {"items": [], "containers": FOUR},
        {"containers": FOUR, "hasMore": False, "next": None, "nextPageToken": "", "links": {"next": None}},
        {"containers": FOUR, "page": 1, "page_size": 20, "total": 4, "totalPages": 1},
        {"containers": FOUR, "pagination": {"total": 4, "limit": 4, "offset": 0}},
        {"content": FOUR, "size": 20, "totalElements": 4, "last": True, "number": 0},
        {"containers": FOUR, "meta": {"count": 4, "truncated": "false"}},
    ],
)
def test_the_list_is_found_by_its_name(answer: Any) -> None:
    assert whole(answer).items == FOUR


@pytest.mark.parametrize("answer", [[], {"containers": []}, {"containers": None, "total": 0}, {"data": {"items": []}}])
def test_empty_is_empty(answer: Any) -> None:
    assert whole(answer).items == []


@pytest.mark.parametrize("name", ["elastic-ips", "elasticIps", "elastic_ips"])
def test_a_name_is_the_same_however_it_is_written(name: str) -> None:
    assert whole({name: FOUR}, "elastic-ips").items == FOUR


@pytest.mark.parametrize(
    "more",
    [
        {"total": 25}, {"totalCount": 25}, {"total_count": "25"}, {"totalItems": 5}, {"count": 25}, {"totalPages": 3},
        {"hasMore": True}, {"has_more": "true"}, {"next": NEXT}, {"next": 2}, {"nextPageToken": "abc"}, {"nextPage": 2},
        {"pagination": {"total": 25}}, {"meta": {"totalCount": 25}}, {"links": {"next": "https://x/y?page=2"}},
        {"_links": {"next": {"href": NEXT}}}, {"links": [{"rel": "next", "href": NEXT}]}, {"cursor": "abc"},
        {"pageInfo": {"hasNextPage": True, "endCursor": "abc"}}, {"metadata": {"continue": "abc"}}, {"last": False},
        {"metadata": {"remainingItemCount": 1}}, {"@odata.nextLink": NEXT}, {"page": 1, "pageSize": 4}, {"limit": 4},
        {"page": 2}, {"offset": 10}, {"truncated": True}, {"isTruncated": 1}, {"NextContinuationToken": "x"},
        {"last_page": 2}, {"next_page_url": NEXT}, {"partial": True}, {"complete": False}, {"endCursor": "x"},
        {"paging": {"page": {"totalElements": 25}}}, {"totalNumberOfContainers": 25},
    ],
)  # fmt: skip
@pytest.mark.parametrize("inner", [False, True])
def test_any_sign_of_more_is_refused(more: dict[str, Any], inner: bool) -> None:
    answer = {"data": {"containers": FOUR, **more}} if inner else {"containers": FOUR, **more}
    with pytest.raises(BadAnswer, match=r"may be a part of the list|second list beside containers: links"):
        whole(answer)
    if not inner:
        assert whole({"containers": FOUR}).items == FOUR


@pytest.mark.parametrize(
    "headers",
    [
        {"Link": '<https://x/y?page=2>; rel="next", <https://x/y?page=9>; rel="last"'},
        {"X_Total_Count": "25"}, {"X_Total_Pages": "2"}, {"X_Next_Page": "2"}, {"Content_Range": "containers 0-3/25"},
        {"X_Has_More": "true"}, {"X_Pagination_Total": "25"},
    ],
)  # fmt: skip
def test_headers_may_say_it_too(headers: dict[str, str]) -> None:
    with pytest.raises(BadAnswer, match="may be a part of the list"):
        whole(FOUR, **headers)
    assert whole(FOUR, Link='<https://x/y?page=1>; rel="prev"', X_Total_Count="4", X_Request_Id="7").items == FOUR


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"containers": FOUR, "archived": [{"id": "x"}]}, "a second list beside containers: archived"),
        ({"items": FOUR, "data": FOUR}, "found several: data, items"),
        ({"containers": FOUR, "errors": ["region eu failed"]}, "also errors: ['region eu failed']"),
        ({"containers": [], "error": {"code": 7, "message": "partial"}}, "also error"),
        ({"items": FOUR, "containerErrors": ["x"]}, "also containerErrors"),
        ({"ok": True}, "expected a list, or an object with one under containers, found ok (bool)"),
        ({"ports": []}, "found ports (list)"),
        ({}, "found an empty object"),
    ],
)
def test_what_is_not_clear_is_refused(answer: Any, text: str) -> None:
    with pytest.raises(BadAnswer, match=re.escape(text)):
        whole(answer)


def test_warnings_are_kept_to_be_said() -> None:
    page = whole({"containers": FOUR, "warnings": ["one data centre was slow"], "message": "ok"})
    assert page.notes == ["warnings: ['one data centre was slow']"]
