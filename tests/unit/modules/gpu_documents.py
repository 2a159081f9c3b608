"""What a driver prints of healthy GPUs of any platform, in its own formats, and with anything else in its place."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.platforms import Platform

# As drivers print them: branches 570 and newer, and 535 with its older elements.
NEW = """\
	<gpu id="{bus}">
		<product_name>{name}</product_name>
		<persistence_mode>Enabled</persistence_mode>
		<mig_mode><current_mig>Disabled</current_mig><pending_mig>Disabled</pending_mig></mig_mode>
		<serial>16500000000{index:02d}</serial>
		<uuid>{uuid}</uuid>
		<vbios_version>97.00.9A.00.0F</vbios_version>
		<gpu_reset_status>
			<reset_required>Requested functionality has been deprecated</reset_required>
			<drain_and_reset_recommended>Requested functionality has been deprecated</drain_and_reset_recommended>
		</gpu_reset_status>
		<gpu_recovery_action>None</gpu_recovery_action>
		<pci>
			<pci_gpu_link_info>
				<pcie_gen>
					<max_link_gen>{generation}</max_link_gen>
					<current_link_gen>{generation}</current_link_gen>
					<device_current_link_gen>{generation}</device_current_link_gen>
					<max_host_link_gen>N/A</max_host_link_gen>
				</pcie_gen>
				<link_widths><max_link_width>{width}x</max_link_width><current_link_width>{width}x</current_link_width></link_widths>
			</pci_gpu_link_info>
		</pci>
		<performance_state>P0</performance_state>
		<clocks_event_reasons>
			<clocks_event_reason_gpu_idle>Active</clocks_event_reason_gpu_idle>
			<clocks_event_reason_sw_power_cap>Not Active</clocks_event_reason_sw_power_cap>
			<clocks_event_reason_hw_slowdown>Not Active</clocks_event_reason_hw_slowdown>
			<clocks_event_reason_hw_thermal_slowdown>Not Active</clocks_event_reason_hw_thermal_slowdown>
			<clocks_event_reason_hw_power_brake_slowdown>Not Active</clocks_event_reason_hw_power_brake_slowdown>
			<clocks_event_reason_sw_thermal_slowdown>Not Active</clocks_event_reason_sw_thermal_slowdown>
		</clocks_event_reasons>
		<compute_mode>Default</compute_mode>
		<ecc_errors>
			<volatile><dram_uncorrectable>0</dram_uncorrectable></volatile>
			<aggregate><dram_uncorrectable>0</dram_uncorrectable><sram_threshold_exceeded>No</sram_threshold_exceeded></aggregate>
		</ecc_errors>
		<remapped_rows>
			<remapped_row_pending>No</remapped_row_pending><remapped_row_failure>No</remapped_row_failure>
		</remapped_rows>
		<gpu_power_readings>
			<current_power_limit>700.00 W</current_power_limit>
			<default_power_limit>700.00 W</default_power_limit>
		</gpu_power_readings>
		<module_power_readings><current_power_limit>N/A</current_power_limit></module_power_readings>
		<fabric>
			<state>{state}</state><status>Success</status>
			<health>
				<summary>Healthy</summary>
				<bandwidth>Full</bandwidth>
				<route_recovery_in_progress>False</route_recovery_in_progress>
				<route_unhealthy>False</route_unhealthy>
				<access_timeout_recovery>False</access_timeout_recovery>
				<incorrect_configuration>None</incorrect_configuration>
			</health>
		</fabric>
	</gpu>
"""
OLD = (
    NEW.replace("Requested functionality has been deprecated", "No")
    .replace("\t\t<gpu_recovery_action>None</gpu_recovery_action>\n", "")
    .replace("event_reason", "throttle_reason")
    .replace("gpu_power_readings", "power_readings")
    .replace("current_power_limit", "power_limit")
)


def nvidia(platform: Platform, count: int = 8, form: str = NEW, state: str = "Completed") -> tuple[str, str]:
    """``nvidia-smi -q -x`` and ``nvidia-smi nvlink --status`` of a healthy host."""
    generation, width = platform.pcie or (5, 16)
    gpus, status = "", ""
    for index in range(count):
        uuid = f"GPU-{index:08d}-0000-0000-0000-000000000000"
        gpus += form.format(
            bus=f"00000000:{16 + index:02X}:00.0", name=f"NVIDIA {platform.name}", index=index, uuid=uuid,
            generation=generation, width=width, state=state,
        )  # fmt: skip
        status += f"GPU {index}: NVIDIA {platform.name} (UUID: {uuid})\n"
        up, speed = platform.nvlinks or (0, 0)
        status += "".join(f"\t Link {link}: {speed * 1.0625:.3f} GB/s\n" for link in range(up))
    return f'<?xml version="1.0" ?>\n<nvidia_smi_log>\n{gpus}</nvidia_smi_log>\n', status


def amd(root: Path, device: str, count: int = 8) -> list[str]:
    """The files of amdgpu of a healthy host below ``root``; the places of its GPUs."""
    made = []
    for index in range(count):
        bus = f"0000:{16 * index + 5:02x}:00.0"
        folder = root / "sys/bus/pci/devices" / bus
        (folder / "ras").mkdir(parents=True)
        content = {
            "vendor": "0x1002", "device": f"0x{device}", "class": "0x120000", "current_compute_partition": "SPX",
            "current_memory_partition": "NPS1", "current_link_speed": "32.0 GT/s PCIe", "current_link_width": "16",
            "ras/gpu_vram_bad_pages": "", "unique_id": f"8c2d11a0{index:08d}", "vbios_version": "113-M3000100-103",
        }  # fmt: skip
        for name, text in content.items():
            (folder / name).write_text(text + "\n" if text else "", "ascii")
        made.append(bus)
    return made
