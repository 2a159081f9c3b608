"""The API's error codes, their usual HTTP status and the one exception that every operation raises.

Source: the error table of the vendor's OpenAPI document 1.10.0; entries marked "not declared" were seen in use or are
this simulator's choice where the document is silent.
"""

from __future__ import annotations

import json

from simulator.lambda_cloud.types import Json, Response

INSUFFICIENT_CAPACITY = "instance-operations/launch/insufficient-capacity"
WRONG_REGION = "instance-operations/launch/file-system-in-wrong-region"

STATUS_OF = {
    "global/invalid-api-key": 401,
    "global/account-inactive": 403,
    "global/invalid-address": 403,
    "global/forbidden": 403,
    "global/invalid-parameters": 400,
    "global/object-does-not-exist": 404,  # 400 too, at launch
    "global/not-found": 404,
    "global/duplicate": 400,
    "global/quota-exceeded": 400,
    "global/conflict": 409,
    "global/internal-error": 500,  # declared only as 409 of the ruleset calls
    "global/unknown": 400,  # not declared; seen on terminating what already terminates
    "global/method-not-allowed": 405,  # not declared; the status was seen, the code is a guess
    "global/too-many-requests": 429,  # not declared; the code is a guess
    INSUFFICIENT_CAPACITY: 400,
    WRONG_REGION: 400,
    "filesystems/filesystem-in-use": 400,
    "firewall-rulesets/firewall-ruleset-in-use": 400,
    "provider/internal-unavailable": 503,  # the prefix is documented, the status is a guess
}

SUGGESTION_OF = {
    "global/invalid-api-key": "Use another API key or make a new one.",
    "global/account-inactive": "Verify the e-mail address and the payment method of the account.",
    "global/invalid-address": "Correct the billing address of the account.",
    "global/quota-exceeded": "Ask support for a higher quota.",
    INSUFFICIENT_CAPACITY: "Try another region or instance type, or try again later.",
    "firewall-rulesets/firewall-ruleset-in-use": "Terminate the instances that use the ruleset first.",
    "global/internal-error": "Try again later.",
    "provider/internal-unavailable": "Try again later.",
}


class ApiError(Exception):
    """An error answer. ``code`` decides the status unless ``status`` is given."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int | None = None,
        suggestion: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = STATUS_OF[code] if status is None else status
        self.suggestion = SUGGESTION_OF.get(code) if suggestion is None else suggestion
        self.headers = headers or {}

    def response(self) -> Response:
        """The error envelope; ``suggestion`` is absent, not null, when there is none."""
        error: Json = {"code": self.code, "message": self.message}
        if self.suggestion:
            error["suggestion"] = self.suggestion
        return Response(self.status, json.dumps({"error": error}).encode(), headers=dict(self.headers))


def invalid(message: str) -> ApiError:
    """A request that breaks a rule of the schema."""
    return ApiError("global/invalid-parameters", message)


def missing(message: str, *, status: int = 404) -> ApiError:
    """A named object that does not exist; launch answers 400 for parts of the catalogue, 404 otherwise."""
    return ApiError("global/object-does-not-exist", message, status=status)
