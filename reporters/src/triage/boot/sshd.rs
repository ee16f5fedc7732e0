//! From an address to a login: what the SSH server says on the console, and what SSH says on our side.

use super::rule::{Cause, From, Milestone, Rule, rule};
use crate::event::BootPhase;

/// It failed, or was never started.
pub(super) const NOT_STARTED: Cause = Cause {
    id: "sshd-not-started",
    phase: BootPhase::Sshd,
    says: "the SSH server does not run",
    advice: "it is not installed, not enabled (`systemctl enable ssh`), or its configuration is wrong (`sshd -t`)",
};

const HOST_KEYS: Cause = Cause {
    id: "host-keys-missing",
    phase: BootPhase::Sshd,
    says: "the SSH server has no host keys that it can use",
    advice: "make them when the machine boots (`ssh-keygen -A`, cloud-init, sshd-keygen), or put them into its identity; their mode must be 0600",
};

/// Nobody listens, though the console says nothing of a failure.
pub(super) const REFUSED: Cause = Cause {
    id: "ssh-refused",
    phase: BootPhase::Sshd,
    says: "the machine refuses connections to its SSH port",
    advice: "sshd listens elsewhere (port, ListenAddress, socket unit) or a firewall of the guest rejects: `ss -ltn` on its console",
};

const KEY_REJECTED: Cause = Cause {
    id: "key-rejected",
    phase: BootPhase::Sshd,
    says: "the SSH server does not take our key",
    advice: "check authorized_keys of the user, the modes of its folders (0700), PermitRootLogin, and whether the server takes this kind of key",
};

const HOST_KEY_CHANGED: Cause = Cause {
    id: "host-key-changed",
    phase: BootPhase::Sshd,
    says: "the machine that answers has another host key",
    advice: "another machine answers at this address, or the image makes new keys at each boot: destroy the machine and boot a fresh one",
};

const BANNER: Cause = Cause {
    id: "banner-timeout",
    phase: BootPhase::Sshd,
    says: "the connection stands, but the SSH server says nothing",
    advice: "sshd hangs (entropy, DNS with UseDNS, a full disk) or the guest is too slow: look at its load, give it another processor",
};

/// Quiet between the first programs and the SSH server.
pub(super) const ENTROPY: Cause = Cause {
    id: "entropy-starved",
    phase: BootPhase::Sshd,
    says: "programs wait for random numbers",
    advice: "give the machine a virtio-rng device, or the kernel `random.trust_cpu=on`",
};

pub(super) const RULES: &[Rule] = &[
    rule(
        &HOST_KEYS,
        560,
        &[
            "no hostkeys available",
            "No host key is available",
            "sshd: no host keys",
            "Failed to start OpenSSH rsa Server Key Generation",
            "Failed to start OpenSSH ecdsa Server Key Generation",
            "Failed to start OpenSSH ed25519 Server Key Generation",
            "Failed to start OpenSSH Server Key Generation",
            "Failed to start sshd-keygen",
        ],
    )
    .until_exactly(Milestone::Sshd),
    rule(
        &HOST_KEYS,
        555,
        &["Could not load host key", "Unable to load host key", "Permissions 0644 for '/etc/ssh/ssh_host"],
    )
    .times(3)
    .until_exactly(Milestone::Sshd),
    rule(
        &HOST_KEY_CHANGED,
        559,
        &[
            "REMOTE HOST IDENTIFICATION HAS CHANGED",
            "Host key verification failed",
            "host key mismatch",
            "host key has changed",
        ],
    )
    .from(From::Contact),
    rule(
        &KEY_REJECTED,
        558,
        &[
            "Permission denied",
            "Too many authentication failures",
            "no mutual signature algorithm",
            "authentication failed",
            "No more authentication methods",
        ],
    )
    .from(From::Contact),
    rule(
        &KEY_REJECTED,
        550,
        &[
            "Authentication refused: bad ownership or modes",
            "Failed publickey for",
            "ROOT LOGIN REFUSED",
            "not in PubkeyAcceptedKeyTypes",
            "not in PubkeyAcceptedAlgorithms",
            "not allowed because account is locked",
            "not allowed because not listed in AllowUsers",
            "not allowed because listed in DenyUsers",
            "error: Received disconnect from",
            "Connection closed by authenticating user",
            "Disconnected from authenticating user",
            "Connection reset by authenticating user",
            "error: maximum authentication attempts exceeded",
        ],
    ),
    rule(
        &NOT_STARTED,
        548,
        &[
            "Failed to start OpenBSD Secure Shell server",
            "Failed to start OpenSSH server daemon",
            "Failed to start OpenSSH Daemon",
            "Failed to start OpenSSH Server",
            "Failed to start ssh.service",
            "Failed to start sshd.service",
            "Failed to start SSH for kmt-run",
            "Failed to start LSB: OpenBSD Secure Shell server",
            "Failed to listen on OpenBSD Secure Shell server socket",
            "Failed to listen on ssh.socket",
            "Failed to listen on sshd.socket",
            "ssh.service: Start request repeated too quickly",
            "sshd.service: Start request repeated too quickly",
            "ssh.service: Failed with result",
            "sshd.service: Failed with result",
            "ssh.service: start request repeated too quickly",
            "sshd.service: start request repeated too quickly",
            "Unit sshd.service entered failed state",
            "Unit ssh.service entered failed state",
            "Missing privilege separation directory: /run/sshd",
            "Missing privilege separation directory",
            "Privilege separation user sshd does not exist",
            "sshd_config: terminating",
            "Bad configuration option: ",
            "sshd: command not found",
            "Cannot bind any address",
            "Bind to port 22 on 0.0.0.0 failed",
            "Starting sshd: [FAILED]",
            "ssh.service: Failed at step EXEC",
            "sshd.service: Failed at step EXEC",
            "ssh.service: Failed to execute",
            "sshd.service: Failed to execute",
        ],
    )
    .until_exactly(Milestone::Sshd),
    rule(
        &BANNER,
        547,
        &["banner exchange", "during banner", "no banner", "Did not receive identification string"],
    )
    .from(From::Contact)
    .with(&["timed out", "timeout", "no banner", "Timeout", "Did not"]),
    rule(
        &REFUSED,
        546,
        &[
            "onnection refused",
            "onnection reset by peer",
            "Connection closed by remote host",
            "Connection closed by",
        ],
    )
    .from(From::Contact)
    .until(Milestone::Never),
    rule(
        &ENTROPY,
        535,
        &[
            "waiting for entropy",
            "getrandom: ",
            "Not enough entropy",
            "A start job is running for Load/Save Random Seed",
            "A start job is running for Load/Save OS Random Seed",
            "A start job is running for Entropy",
            "crng initialization",
            "blocked on entropy",
            "Waiting for entropy",
        ],
    )
    .without(&["crng init done"]),
    rule(&ENTROPY, 535, &["uninitialized urandom read"])
        // systemd and udev ask before there is any, and do not wait.
        .with(&["sshd:", "ssh-keygen:", "dbus-daemon:", "dbus-uuidgen:", "rngd:", "haveged:"]),
];
