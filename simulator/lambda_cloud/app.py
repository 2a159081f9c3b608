"""The routing table and what every request passes through: faults, rate limit, key, body rules, operation, answer."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import logging
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from simulator.lambda_cloud import account, control, firewall, instances, launching, tickets, validation
from simulator.lambda_cloud.errors import ApiError, invalid
from simulator.lambda_cloud.faults import BEFORE
from simulator.lambda_cloud.types import Call, Json, Page, Request, Response
from simulator.lambda_cloud.validation import Rule
from simulator.lambda_cloud.world import World

LOG = logging.getLogger("simulator.lambda_cloud")
BASE = "/api/v1"
LAUNCH = "launchInstance"

Operation = Callable[[World, Call], Any]


@dataclass(frozen=True)
class Route:
    """One line of the API: method, path template, operation id, function, body rule and success status."""

    method: str
    template: str
    name: str
    operation: Operation
    body: Rule | None = None
    status: int = 200


# Literal paths stand before templates that would match them too.
ROUTES = (
    Route("GET", "/instances", "listInstances", instances.list_instances),
    Route("GET", "/instances/{id}", "getInstance", instances.get_instance),
    Route("POST", "/instances/{id}", "postInstance", instances.rename, validation.RENAME),
    Route("POST", "/instance-operations/launch", LAUNCH, launching.launch, validation.LAUNCH),
    Route("POST", "/instance-operations/restart", "restartInstance", instances.restart, validation.INSTANCE_IDS),
    Route("POST", "/instance-operations/terminate", "terminateInstance", instances.terminate, validation.INSTANCE_IDS),
    Route("GET", "/instance-types", "listInstanceTypes", account.list_instance_types),
    Route("GET", "/images", "listImages", account.list_images),
    Route("GET", "/regions", "listRegions", account.list_regions),
    Route("GET", "/ssh-keys", "listSSHKeys", account.list_ssh_keys),
    Route("POST", "/ssh-keys", "addSSHKey", account.add_ssh_key, validation.SSH_KEY),
    Route("DELETE", "/ssh-keys/{id}", "deleteSSHKey", account.delete_ssh_key),
    Route("GET", "/file-systems", "listFilesystems", account.list_file_systems),
    Route("POST", "/filesystems", "createFilesystem", account.create_file_system, validation.FILE_SYSTEM),
    Route("DELETE", "/filesystems/{id}", "deleteFilesystem", account.delete_file_system),
    Route("GET", "/firewall-rules", "firewallRulesList", firewall.list_rules),
    Route("PUT", "/firewall-rules", "firewallRulesSet", firewall.replace_rules, validation.FIREWALL_RULES),
    Route("GET", "/firewall-rulesets", "firewallRulesetsList", firewall.list_rulesets),
    Route("POST", "/firewall-rulesets", "firewallRulesetsCreate", firewall.create_ruleset, validation.RULESET),
    Route("GET", "/firewall-rulesets/global", "globalFirewallRulesetGet", firewall.get_global),
    Route(
        "PATCH",
        "/firewall-rulesets/global",
        "globalFirewallRulesetUpdate",
        firewall.change_global,
        validation.GLOBAL_RULESET_CHANGE,
    ),
    Route("GET", "/firewall-rulesets/{id}", "firewallRulesetGet", firewall.get_ruleset),
    Route(
        "PATCH",
        "/firewall-rulesets/{id}",
        "firewallRulesetUpdate",
        firewall.change_ruleset,
        validation.RULESET_CHANGE,
    ),
    Route("DELETE", "/firewall-rulesets/{id}", "firewallRulesetDelete", firewall.delete_ruleset),
    Route("POST", "/fabric", "createFabricPartition", account.create_fabric, validation.FABRIC),
    Route("POST", "/fabric/{id}", "updateFabricPartition", account.rename_fabric, validation.FABRIC_CHANGE),
    Route("DELETE", "/fabric/{id}", "deleteFabricPartition", account.delete_fabric),
    Route("GET", "/audit-events", "getAuditEvents", account.list_audit_events),
    Route("GET", "/tickets", "listTickets", tickets.list_tickets),
    Route("POST", "/tickets", "createTicket", tickets.create_ticket, validation.TICKET),
    Route("GET", "/tickets/{ticket_id}", "getTicket", tickets.get_ticket),
    Route("PATCH", "/tickets/{ticket_id}", "updateTicket", tickets.change_ticket, validation.TICKET_CHANGE, 202),
    Route("GET", "/tickets/{ticket_id}/attachments", "listAttachments", tickets.list_attachments),
    Route(
        "POST",
        "/tickets/{ticket_id}/attachments",
        "startAttachment",
        tickets.start_attachment,
        validation.ATTACHMENT,
    ),
    Route("DELETE", "/tickets/{ticket_id}/attachments/{attachment_id}", "deleteAttachment", tickets.delete_attachment),
    Route(
        "POST",
        "/tickets/{ticket_id}/attachments/{attachment_id}/complete",
        "completeAttachment",
        tickets.complete_attachment,
    ),
    Route(
        "GET",
        "/tickets/{ticket_id}/attachments/{attachment_id}/download",
        "downloadAttachment",
        tickets.download_attachment,
    ),
)


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", BASE + template))


_TABLE = tuple((_pattern(route.template), route) for route in ROUTES)


def find_route(method: str, path: str) -> tuple[Route, dict[str, str]]:
    """The route of a request and its path parameters; raises ApiError 404, or 405 with the allowed methods."""
    template: str | None = None
    allowed: list[str] = []
    for pattern, route in _TABLE:
        match = pattern.fullmatch(path)
        if match is None or template not in (None, route.template):
            continue
        if route.method == method:
            return route, match.groupdict()
        template = route.template
        allowed.append(route.method)
    if allowed:
        raise ApiError("global/method-not-allowed", "Method Not Allowed", headers={"Allow": ", ".join(sorted(allowed))})
    raise ApiError("global/not-found", f"There is nothing at {path}.")


class App:
    """Answers requests. Thread-safe; every answer comes from ``respond``."""

    def __init__(self, world: World) -> None:
        self.world = world

    def respond(self, request: Request) -> Response:
        """Answer one request; never raises."""
        try:
            if request.path.startswith(control.BASE):
                return control.respond(self.world, request)
            if request.path.startswith("/_storage/"):
                return self._storage(request)
            return self._api(request)
        except ApiError as error:
            return error.response()
        except Exception:
            return _failure(request)

    def _api(self, request: Request) -> Response:
        name = _operation_name(request)
        fault = self.world.faults.strike(request)
        early = self._pace(name)
        if fault is not None and fault.kind in BEFORE:
            response = fault.before()
        else:
            response = self._answer(request, early)
            if fault is not None:
                response = fault.after_effect(response)
        sent = 0 if response.delivery in ("dropped", "hung") else response.status
        self.world.pacing.record(request, name, sent)
        return response

    def _pace(self, name: str) -> float:
        settings = self.world.settings
        intervals = {
            "request": settings.request_interval - settings.rate_tolerance,
            "launch": settings.launch_interval - settings.rate_tolerance,
        }
        kinds = ("request", "launch") if name == LAUNCH else ("request",)
        return self.world.pacing.arrive(kinds, intervals, settings.rate_limit)

    def _answer(self, request: Request, early: float) -> Response:
        try:
            if early > 0:
                headers = {"Retry-After": str(math.ceil(early))} if self.world.settings.retry_after else {}
                raise ApiError("global/too-many-requests", "Too many requests.", headers=headers)
            self._authenticate(request)
            route, params = find_route(request.method, request.path)
            body = _body(route, request)
            result = route.operation(self.world, Call(params, request.query, body, request.base_url))
        except ApiError as error:
            return error.response()
        except Exception:
            return _failure(request)
        finally:
            self.world.save()
        return Response(route.status, json.dumps(_envelope(result)).encode())

    def _authenticate(self, request: Request) -> None:
        """Bearer KEY, Basic base64(KEY:) or Basic KEY; one code with two messages, as seen in use."""
        given = request.headers.get("authorization")
        if not given:
            raise ApiError("global/invalid-api-key", "No API key was provided.")
        scheme, _, value = given.partition(" ")
        known = self.world.config.api_key.encode()
        if not any(hmac.compare_digest(key, known) for key in _keys(scheme.lower(), value.strip())):
            raise ApiError("global/invalid-api-key", "API key was invalid, expired, or deleted.")
        if self.world.settings.account == "inactive":
            raise ApiError("global/account-inactive", "Your account is inactive.")

    def _storage(self, request: Request) -> Response:
        """Uploads and downloads of ticket attachments, whose addresses need no key, like pre-signed ones."""
        identifier = request.path.rpartition("/")[2]
        if request.method == "PUT" and tickets.is_announced(self.world, identifier):
            self.world.uploads[identifier] = request.body
            return Response(200, b"", "text/plain")
        if request.method == "GET" and identifier in self.world.uploads:
            return Response(200, self.world.uploads[identifier], "application/octet-stream")
        raise ApiError("global/not-found", "There is no such attachment.")


def _failure(request: Request) -> Response:
    """The answer to a request on which the simulator itself failed; the log has the reason."""
    LOG.exception("%s %s failed", request.method, request.path)
    return ApiError("global/internal-error", "The simulator failed; see its log.").response()


def _operation_name(request: Request) -> str:
    try:
        return find_route(request.method, request.path)[0].name
    except ApiError as error:
        return error.code


def _keys(scheme: str, value: str) -> list[bytes]:
    if scheme == "bearer":
        return [value.encode()]
    if scheme != "basic":
        return []
    candidates = [value.encode()]
    try:
        user, _, _ = base64.b64decode(value, validate=True).partition(b":")
        candidates.append(user)
    except (binascii.Error, ValueError):
        pass
    return candidates


def _body(route: Route, request: Request) -> Json:
    """The checked request body; routes without a body rule ignore what is sent."""
    if route.body is None:
        return {}
    try:
        content = json.loads(request.body or b"null")
    except ValueError:
        raise invalid("body: Input should be valid JSON") from None
    return validation.check(route.body, content)


def _envelope(result: Any) -> Json:
    if isinstance(result, Page):
        return {"data": result.data, "page_token": result.page_token}
    return {"data": result}
