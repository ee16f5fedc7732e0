# What a bare Debian or Ubuntu becomes a host by. Runs once, as root, at the end of its first boot.
# What it comes to stands on the console: `kmt-run: host-key …`, `kmt-run: ready`, `kmt-run: failed: …`.
set -u
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

say() {
    echo "kmt-run: $*" >>/var/log/kmt-run-setup.log
    echo "kmt-run: $*" >/dev/console 2>/dev/null || :
}

fail() {
    say "failed: $*"
    exit 1
}

# First of all its end: whatever else fails, it does not live for ever. The time is absolute, so a reboot does not
# give it more; the instance is one that terminates when it shuts down.
arm() {
    end=$(date -u -d "@$(($(date +%s) + ttl))" '+%Y-%m-%d %H:%M:%S UTC') || return 1
    cat >/etc/systemd/system/kmt-run-end.service <<-UNIT
	[Unit]
	Description=The end of this rented host
	DefaultDependencies=no
	[Service]
	Type=oneshot
	ExecStart=/bin/systemctl --no-block poweroff
	UNIT
    cat >/etc/systemd/system/kmt-run-end.timer <<-UNIT
	[Unit]
	Description=When this rented host ends
	[Timer]
	OnCalendar=$end
	AccuracySec=1s
	Persistent=true
	[Install]
	WantedBy=timers.target
	UNIT
    systemctl daemon-reload && systemctl enable --now kmt-run-end.timer
}

tell_key() {
    for file in /etc/ssh/ssh_host_ed25519_key.pub; do
        [ -r "$file" ] && say "host-key $(cut -d' ' -f1,2 "$file")"
    done
}

# Who logs in: there already in images of clouds.
login() {
    id "$user" >/dev/null 2>&1 || {
        useradd -m -s /bin/bash "$user" || return 1
        install -d -m 0750 /etc/sudoers.d
        printf '%s ALL=(ALL) NOPASSWD:ALL\n' "$user" >/etc/sudoers.d/90-kmt-run && chmod 0440 /etc/sudoers.d/90-kmt-run
    }
    home=$(getent passwd "$user" | cut -d: -f6)
    group=$(id -gn "$user")
    install -d -m 0700 -o "$user" -g "$group" "$home/.ssh" || return 1
    touch "$home/.ssh/authorized_keys"
    if [ -n "$key" ] && ! grep -qxF "$key" "$home/.ssh/authorized_keys"; then
        printf '%s\n' "$key" >>"$home/.ssh/authorized_keys"
    fi
    chown "$user:$group" "$home/.ssh/authorized_keys" && chmod 0600 "$home/.ssh/authorized_keys"
}

# One connection carries the sessions of all machines.
many_sessions() {
    install -d /etc/ssh/sshd_config.d
    printf 'MaxSessions 500\nMaxStartups 100:30:500\nClientAliveInterval 15\n' >/etc/ssh/sshd_config.d/10-kmt-run.conf
    systemctl reload ssh 2>/dev/null || systemctl reload sshd 2>/dev/null || :
}

# A whole disk that nobody uses: the fast ones of the instance itself first.
unused() {
    for wanted in 'Instance Storage' ''; do
        for disk in $(lsblk -dnrpo NAME,TYPE | awk '$2 == "disk" && $1 ~ "^/dev/(nvme|sd|xvd|vd)" { print $1 }'); do
            [ "$(lsblk -nro NAME "$disk" | wc -l)" = 1 ] || continue
            [ "$(lsblk -dnro RO "$disk")" = 0 ] || continue
            [ -z "$(lsblk -dnro MOUNTPOINT "$disk")" ] || continue
            blkid -p "$disk" >/dev/null 2>&1 && continue
            lsblk -dno MODEL "$disk" | grep -q "$wanted" || continue
            echo "$disk"
            return
        done
    done
}

room() {
    mkdir -p "$folder" || return 1
    disk=$(unused)
    if [ -n "$disk" ]; then
        mkfs.ext4 -q -L kmt-run -E nodiscard "$disk" || return 1
        mount -o noatime "$disk" "$folder" || return 1
        echo "UUID=$(blkid -s UUID -o value "$disk") $folder ext4 noatime,nofail 0 2" >>/etc/fstab
        say "disk $disk"
    fi
    chown "$user" "$folder" && chmod 0755 "$folder"
}

# Nothing is fetched where an image has it all.
install_what_is_missing() {
    missing=
    for program in "$emulator" qemu-img virsh libvirtd dnsmasq zstd xz; do
        command -v "$program" >/dev/null || missing="$missing $program"
    done
    [ -z "$missing" ] && return 0
    say "installs, for want of$missing"
    systemctl stop apt-daily.timer apt-daily-upgrade.timer apt-daily.service apt-daily-upgrade.service unattended-upgrades.service 2>/dev/null
    for try in 1 2 3 4 5; do
        apt-get -q -o DPkg::Lock::Timeout=300 update &&
            apt-get -qy -o DPkg::Lock::Timeout=300 --no-install-recommends install $packages && return 0
        say "the archive does not answer as it should, try $try"
        sleep 10
    done
    return 1
}

libvirt_answers() {
    usermod -aG libvirt "$user" && { ! getent group kvm >/dev/null || usermod -aG kvm "$user"; } || return 1
    modprobe kvm_intel 2>/dev/null || modprobe kvm_amd 2>/dev/null || :
    systemctl enable --now libvirtd 2>/dev/null || :
    for try in 1 2 3 4 5 6 7 8 9 10; do
        virsh -c qemu:///system version >/dev/null 2>&1 && return 0
        sleep 1
    done
    return 1
}

arm || fail "its end could not be set"
tell_key
login || fail "the user $user could not be made"
many_sessions
room || fail "no room at $folder"
install_what_is_missing || fail "packages could not be installed: see /var/log/cloud-init-output.log"
libvirt_answers || fail "libvirt does not answer"
tell_key
say ready
