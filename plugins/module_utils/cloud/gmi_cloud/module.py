# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The account that the GMI modules reach."""

from __future__ import annotations

from ansible.module_utils.basic import env_fallback

from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud import api as gmi_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.module import Cloud

GMI = Cloud(
    client=gmi_api.GmiApi,
    base_url=gmi_api.DEFAULT_BASE_URL,
    key_environment=gmi_api.KEY_ENVIRONMENT,
    url_environment="GMI_API_URL",
    key_page="https://console.gmicloud.ai (organisation settings, scope Cluster Engine)",
    # The vendor publishes no limit.
    request_interval=0.2,
)
# As in the documentation fragments glm.fleet.gmi_auth and cloud_connection.
AUTH_ARGUMENTS = {
    **GMI.arguments(),
    "organization": {"type": "str", "fallback": (env_fallback, ["GMI_ORGANIZATION_ID"])},
}
