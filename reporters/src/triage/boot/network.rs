//! From a system that runs to one that has an address: kernel autoconfiguration, klibc, dhclient, udhcpc, dhcpcd,
//! systemd-networkd, NetworkManager, ifupdown, RHEL's ifup, wicked, cloud-init.

use super::rule::{Cause, From, Milestone, Rule, rule};
use crate::event::BootPhase;

const NO_CARRIER: Cause = Cause {
    id: "no-carrier",
    phase: BootPhase::Network,
    says: "the network device has no carrier",
    advice: "the virtual cable is out: the link is set down (`virsh domif-setlink`), or the device is on a bridge or network that is down",
};

const NO_LEASE: Cause = Cause {
    id: "no-dhcp-lease",
    phase: BootPhase::Network,
    says: "nobody gave the machine an address",
    advice: "no DHCP server answers on its network: check the libvirt network and its dnsmasq, or give a static address",
};

const WRONG_INTERFACE: Cause = Cause {
    id: "wrong-interface",
    phase: BootPhase::Network,
    says: "the network is set up for a device that does not exist",
    advice: "the image names another device than the machine has: match by `en*`/MAC, or boot with `net.ifnames=0` for eth0; no device at all is a missing driver",
};

const ADDRESS_TAKEN: Cause = Cause {
    id: "address-taken",
    phase: BootPhase::Network,
    says: "its address is used by another machine",
    advice: "two machines have one MAC address, machine-id or static address: give each its own",
};

const NO_ROUTE: Cause = Cause {
    id: "no-route",
    phase: BootPhase::Network,
    says: "it has an address but no way out or in",
    advice: "check the gateway that the lease or the static setup gives, the prefix length, and the host's forwarding and firewall",
};

const fn before_ssh(cause: &'static Cause, rank: u16, words: &'static [&'static str]) -> Rule {
    rule(cause, rank, words).until_exactly(Milestone::Network)
}

pub(super) const RULES: &[Rule] = &[
    // dracut with a root on the network: the shell that it opens then is not the cause.
    before_ssh(
        &NO_CARRIER,
        731,
        &["Warning: No carrier detected on interface ", "Warning: Link didn't come up"],
    ),
    before_ssh(
        &NO_LEASE,
        730,
        &["Warning: dhcp for interface ", "Warning: dhcp failed", "DHCPv4 failed for interface"],
    )
    .with(&["failed"]),
    before_ssh(
        &ADDRESS_TAKEN,
        650,
        &[
            "already uses address",
            "DHCPDECLINE",
            "duplicate address detected",
            "IPv4 duplicate address",
            "ddress conflict detected",
            "due to address conflict",
            "conflict detected for IP address",
            "is already in use by",
            "IP address conflict",
            "duplicate address ",
        ],
    )
    .with(&["already", "DHCPDECLINE", "uplicate", "onflict"]),
    before_ssh(
        &WRONG_INTERFACE,
        640,
        &[
            "Cannot find device \"",
            "does not seem to be present, delaying initialization",
            "unknown interface ",
            "error fetching interface information: Device not found",
            "SIOCGIFINDEX: No such device",
            "SIOCSIFADDR: No such device",
            "SIOCGIFFLAGS: No such device",
            "SIOCSIFFLAGS: No such device",
            "can't find device '",
            "Bind socket to interface: No such device",
            "Error getting hardware address for",
            "ipconfig: no devices to configure",
            "IP-Config: No network devices available",
            "IP-Config: Failed to open ",
            "has different MAC address than expected",
            "Failed to bring up eth",
            "Failed to bring up en",
            "Timed out waiting for device sys-subsystem-net-devices-",
            "Timed out waiting for device /sys/subsystem/net/devices/",
            "interface not found",
            "no such interface",
            "Unable to find a device with mac",
            "Not all expected physical devices present",
            "no-device",
            "No suitable device found for this connection",
        ],
    )
    // A failure to bring up may have every reason; it is asked again below.
    .without(&["bring up en ", "Connection timed out"]),
    before_ssh(
        &NO_CARRIER,
        630,
        &[
            "NO-CARRIER",
            "no carrier",
            "Lost carrier",
            "lost carrier",
            "No carrier",
            "carrier lost",
            "NIC Link is Down",
            "Link is Down",
            "no link present.  Check cable?",
            "No link detected",
            "failed; no link present",
            "carrier: link disconnected",
            "setup-in-progress link-down",
            "link-down",
        ],
    )
    .without(&["docker", "virbr", "br-", "veth", "cni", "bond", " lo:"]),
    before_ssh(&NO_CARRIER, 290, &["link is not ready"]).until(Milestone::Sshd),
    before_ssh(
        &NO_LEASE,
        610,
        &[
            "No DHCPOFFERS received",
            "No working leases in persistent database",
            "udhcpc: no lease, failing",
            "No lease, failing",
            "no lease, failing",
            "No lease, forking to background",
            "no response after ",
            "DHCP: timed out",
            "timed out waiting for a valid DHCP",
            "dhcp4 (",
            "DHCP requests ",
            "Auto-configuration of network failed",
            "IP-Config: Retrying forever",
            "Unable to get a lease",
            "Failed to start Wait for Network to be Configured",
            // Newer ones name the unit first.
            ".service - Wait for Network to be Configured",
            // systemd shortens long names in the middle.
            "Failed to start systemd-networkd-wait",
            "Failed to start Network Manager Wait Online",
            "Failed to start NetworkManager-wait",
            "Timeout occurred while waiting for network connectivity",
            "Determining IP information for",
            "DHCPv4 lease lost",
            "DHCPv4 client: timed out",
            "kmt-init: FAILED busybox udhcpc",
            "did not get a lease",
            "no dhclient lease",
            "Failed to obtain a DHCP lease",
            "Request to acquire DHCPv4 lease",
            "timeout 'DHCP",
            "lease acquisition failed",
        ],
    )
    .without(&["Determining IP information for eth0... done"])
    .with(&[
        "No DHCPOFFERS",
        "No working leases",
        "o lease,",
        "no response",
        "timed out",
        "time out",
        "request timed",
        "no lease",
        "failed",
        "Failed",
        "FAILED",
        "Retrying",
        "Timeout",
        "Unable to get",
        "lease lost",
        "timeout",
        "did not get",
        "no dhclient",
    ]),
    before_ssh(
        &NO_LEASE,
        590,
        &[
            "Failed to start Raise network interfaces",
            "Failed to start networking.service",
            "Failed to start LSB: Bring up/down networking",
            "Failed to start Network Service",
            "Failed to start Network Configuration",
            "Failed to start systemd-networkd.service",
            "Failed to start Network Manager.",
            "Failed to start NetworkManager.service",
        ],
    ),
    // The table of cloud-init: a device that is up and has no address.
    before_ssh(&NO_LEASE, 580, &["ci-info: |"])
        .with(&["| True |     .     ", "| True  |     .     ", "|  True  |     .     "])
        .without(&["| lo ", "|   lo  "]),
    before_ssh(
        &NO_LEASE,
        570,
        &[
            "A start job is running for Wait for Network",
            "A start job is running for Raise network",
            "A start job is running for systemd-networkd-wait-online",
            "A start job is running for Network Manager Wait Online",
            "A start job is running for LSB: Bring up/down networking",
            "Job systemd-networkd-wait-online",
            "Job networking.service/start running",
        ],
    )
    .until(Milestone::Up),
    rule(&NO_ROUTE, 560, &["No route to host", "Network is unreachable", "Destination Host Unreachable"])
        .from(From::Contact),
    rule(
        &NO_ROUTE,
        548,
        &[
            "Network is unreachable",
            "network is unreachable",
            "No route to host",
            "no route to host",
            "Nexthop has invalid gateway",
        ],
    )
    .without(&["169.254.169.254", "fe80", "IPv6", "ff02"]),
    rule(&NO_ROUTE, 280, &["Network is unreachable"]).with(&["169.254.169.254"]).until(Milestone::Network),
];
