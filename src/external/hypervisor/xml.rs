//! The domain XML, written and read back.
//!
//! The card and the console are given to QEMU directly: libvirt 9 cannot forward a port of a user network,
//! and its log daemon would cut a console at 2 MiB.

use std::fmt::Write as _;

use kmt_reporters::event::Arch;

use super::{Accelerator, DirectBoot, Disk, DiskFormat, DomainSpec, GuestNetwork};

/// Namespace of our element in a domain's metadata.
pub(super) const NAMESPACE: &str = "urn:kmt-run:machine:1";

/// Escapes text for XML content and attributes.
fn esc(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// A comma in a QEMU option value is doubled.
fn option(value: &str) -> String {
    value.replace(',', ",,")
}

/// A place on the root bus. Elsewhere libvirt makes a bridge for each device, and a guest that is emulated looks
/// behind each of them as it boots.
fn place(slot: usize) -> String {
    format!("<address type='pci' domain='0x0000' bus='0x00' slot='{slot:#04x}' function='0x0'/>")
}

/// First and last place of the disks; those that are more find one of their own.
const DISK_PLACES: (usize, usize) = (0x02, 0x1a);
/// Place of the port on which a guest is told who it is.
const PORT_PLACE: usize = 0x1b;
/// What the guest sees as the name of that port.
const PORT: &str = "kmt.identity";
/// Place of the source of randomness.
const RNG_PLACE: usize = 0x1c;
/// Place of the card, QEMU's own or one in a network of the host.
const CARD_PLACE: usize = 0x1d;

fn disk(index: usize, disk: &Disk) -> String {
    let target = char::from(b'a' + u8::try_from(index).unwrap_or(25));
    let (driver, read_only) = match disk.format {
        DiskFormat::Qcow2 => ("type='qcow2' cache='unsafe' discard='unmap'", ""),
        DiskFormat::RawReadOnly => ("type='raw' cache='unsafe'", "<readonly/>"),
        DiskFormat::Raw => ("type='raw' cache='unsafe'", ""),
    };
    let (first, last) = DISK_PLACES;
    let place = if first + index <= last { place(first + index) } else { String::new() };
    let serial = disk.serial.as_deref().map(|serial| format!("<serial>{}</serial>", esc(serial)));
    format!(
        "<disk type='file' device='disk'><driver name='qemu' {driver}/><source file='{}'/>\
         <target dev='vd{target}' bus='virtio'/>{read_only}{}{place}</disk>",
        esc(&disk.file.display().to_string()),
        serial.unwrap_or_default()
    )
}

fn cpu(spec: &DomainSpec) -> String {
    let model = spec.acceleration.cpu.as_str();
    match (spec.acceleration.accelerator, model) {
        (_, "host") => "<cpu mode='host-passthrough' check='none'/>".to_owned(),
        (_, "max") => "<cpu mode='maximum' check='none'/>".to_owned(),
        _ => format!(
            "<cpu mode='custom' match='exact' check='none'><model fallback='forbid'>{}</model></cpu>",
            esc(model)
        ),
    }
}

fn qemu_args(spec: &DomainSpec) -> Vec<String> {
    let restrict = match spec.network {
        GuestNetwork::Closed => "restrict=on,",
        GuestNetwork::Outbound | GuestNetwork::Nat => "",
    };
    // Older machine types have no PCI Express.
    let old = spec.machine_type.as_deref().is_some_and(|kind| kind == "pc" || kind.starts_with("pc-i440fx"));
    let bus = if old { "pci.0" } else { "pcie.0" };
    let card = format!("bus={bus},addr={CARD_PLACE:#04x}");
    let mut args = vec![
        "-chardev".to_owned(),
        format!("file,id=kmtcon,path={},append=on", option(&spec.console.display().to_string())),
        "-serial".to_owned(),
        "chardev:kmtcon".to_owned(),
    ];
    if spec.lan.is_none() {
        let forward = match spec.ssh_port {
            0 => String::new(),
            port => format!(",hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:22"),
        };
        args.extend([
            "-netdev".to_owned(),
            format!("user,id=kmt0,{restrict}ipv6=off{forward}"),
            "-device".to_owned(),
            format!("virtio-net-pci,netdev=kmt0,mac={},{card},romfile=", spec.mac),
        ]);
    }
    if let Some(pipes) = &spec.identity {
        args.extend([
            "-device".to_owned(),
            format!("virtio-serial-pci,id=kmtport,max_ports=2,bus={bus},addr={PORT_PLACE:#04x}"),
            "-chardev".to_owned(),
            format!("pipe,id=kmtid,path={}", option(&pipes.display().to_string())),
            "-device".to_owned(),
            format!("virtserialport,bus=kmtport.0,chardev=kmtid,name={PORT}"),
        ]);
    }
    if let Some(port) = spec.gdb {
        args.extend(["-gdb".to_owned(), format!("tcp:127.0.0.1:{port}")]);
    }
    args
}

/// A card in a network of the hypervisor.
fn interface(mac: &str, lan: &str) -> String {
    format!(
        "<interface type='network'><mac address='{}'/><source network='{}'/><model type='virtio'/>\
         <rom enabled='no'/>{}</interface>",
        esc(mac),
        esc(lan),
        place(CARD_PLACE)
    )
}

/// The element `os` as it begins, and the firmware in it. libvirt turns ACPI off where a domain does not ask for it, in a
/// word that QEMU has not understood since its version 9, and on arm64 it grants ACPI only to a domain with UEFI. Which
/// firmware there is, libvirt knows; one that checks signatures would refuse a kernel of one's own.
fn firmware(arch: Arch) -> (&'static str, &'static str) {
    match arch {
        Arch::X86_64 => ("os", ""),
        Arch::Arm64 => (
            "os firmware='efi'",
            "<firmware><feature enabled='no' name='secure-boot'/><feature enabled='no' name='enrolled-keys'/></firmware>",
        ),
    }
}

/// A kernel, and what it is told.
fn direct(boot: &DirectBoot) -> String {
    format!(
        "<kernel>{}</kernel><initrd>{}</initrd><cmdline>{}</cmdline>",
        esc(&boot.kernel.display().to_string()),
        esc(&boot.initrd.display().to_string()),
        esc(&boot.cmdline)
    )
}

/// At each start libvirt asks QEMU for some 460 properties of the processor, one after another, which takes longer than
/// all the rest of it; one that believes QEMU too old for that asks for two. The name is known since libvirt 5.8.
const QUICK_CPU: &str =
    "<qemu:capabilities><qemu:del capability='cpu-unavailable-features'/></qemu:capabilities>";

/// The XML of a domain; `qemu_user` is the user QEMU runs as where that is not us: nothing is relabelled,
/// the files were given to that user before.
pub(super) fn domain(spec: &DomainSpec, qemu_user: Option<(u32, u32)>) -> String {
    let kind = match spec.acceleration.accelerator {
        Accelerator::Kvm => "kvm",
        Accelerator::Hvf => "hvf",
        Accelerator::Tcg => "qemu",
    };
    let (arch, machine, features) = match spec.arch {
        Arch::X86_64 => ("x86_64", "q35", "<acpi/><apic/>"),
        Arch::Arm64 => ("aarch64", "virt", "<acpi/><gic version='3'/>"),
    };
    let (os, firmware) = firmware(spec.arch);
    let machine = esc(spec.machine_type.as_deref().unwrap_or(machine));
    let mut xml = format!("<domain type='{kind}' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>");
    let _ = write!(xml, "<name>{}</name><uuid>{}</uuid>", esc(&spec.name), spec.uuid);
    let _ = write!(
        xml,
        "<metadata><kmt:machine xmlns:kmt='{NAMESPACE}' stack='{}' id='{}'/></metadata>",
        spec.stack,
        esc(&spec.machine)
    );
    let _ = write!(xml, "<memory unit='MiB'>{}</memory><vcpu>{}</vcpu>", spec.memory_mib, spec.vcpu);
    let _ = write!(
        xml,
        "<{os}><type arch='{arch}' machine='{machine}'>hvm</type>{firmware}{}</os>",
        spec.direct.as_ref().map(direct).unwrap_or_default()
    );
    let _ = write!(xml, "<features>{features}</features>{}", cpu(spec));
    xml.push_str("<clock offset='utc'/><on_poweroff>destroy</on_poweroff><on_reboot>destroy</on_reboot>");
    xml.push_str("<on_crash>destroy</on_crash>");
    xml.push_str("<devices>");
    for (index, item) in spec.disks.iter().enumerate() {
        xml.push_str(&disk(index, item));
    }
    if let Some(lan) = &spec.lan {
        xml.push_str(&interface(&spec.mac, lan));
    }
    xml.push_str("<controller type='usb' model='none'/><memballoon model='none'/>");
    let _ = write!(
        xml,
        "<rng model='virtio'><backend model='random'>/dev/urandom</backend>{}</rng></devices>",
        place(RNG_PLACE)
    );
    if let Some((user, group)) = qemu_user {
        let _ = write!(
            xml,
            "<seclabel type='static' model='dac' relabel='no'><label>+{user}:+{group}</label></seclabel>"
        );
    }
    xml.push_str("<qemu:commandline>");
    for arg in qemu_args(spec) {
        let _ = write!(xml, "<qemu:arg value='{}'/>", esc(&arg));
    }
    xml.push_str("</qemu:commandline>");
    if spec.arch == Arch::X86_64 {
        xml.push_str(QUICK_CPU);
    }
    xml.push_str("</domain>");
    xml
}

/// Stack and machine in the metadata of a domain's XML, where it has ours.
pub(super) fn owner(xml: &str) -> Option<(String, String)> {
    let start = xml.find(NAMESPACE)?;
    let open = xml[..start].rfind('<')?;
    let close = xml[start..].find('>')? + start;
    let element = &xml[open..close];
    Some((attribute(element, "stack")?, attribute(element, "id")?))
}

/// An attribute of an element, in either kind of quotes.
pub(super) fn attribute(element: &str, name: &str) -> Option<String> {
    for quote in ['\'', '"'] {
        let key = format!(" {name}={quote}");
        if let Some(at) = element.find(&key) {
            let rest = &element[at + key.len()..];
            return rest.find(quote).map(|end| rest[..end].to_owned());
        }
    }
    None
}

/// User and group of QEMU in the host's capabilities: the `dac` base label of the domain's kind.
pub(super) fn dac_label(capabilities: &str) -> Option<(u32, u32)> {
    let model = capabilities.find("<model>dac</model>")?;
    let rest = &capabilities[model..];
    let label = &rest[rest.find("<baselabel")?..];
    let label = &label[label.find('>')? + 1..label.find("</")?];
    let (user, group) = label.split_once(':')?;
    Some((user.trim_start_matches('+').parse().ok()?, group.trim_start_matches('+').parse().ok()?))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::{Acceleration, GuestNetwork};
    use super::*;

    fn spec() -> DomainSpec {
        DomainSpec {
            name: "kmt-<x>".to_owned(),
            uuid: Uuid::nil(),
            stack: Uuid::from_u128(7),
            machine: "debian_12-6.1-x86_64".to_owned(),
            arch: Arch::X86_64,
            machine_type: None,
            acceleration: Acceleration { accelerator: Accelerator::Tcg, cpu: "max".to_owned(), notice: None },
            vcpu: 2,
            memory_mib: 1024,
            direct: Some(DirectBoot {
                kernel: "/k".into(),
                initrd: "/i".into(),
                cmdline: "a & b".to_owned(),
            }),
            disks: vec![Disk {
                file: "/d,1".into(),
                format: DiskFormat::Qcow2,
                serial: Some("kmt0".to_owned()),
            }],
            console: "/c,1".into(),
            ssh_port: 2222,
            gdb: None,
            mac: "52:54:00:00:00:01".to_owned(),
            network: GuestNetwork::Closed,
            lan: None,
            identity: None,
        }
    }

    #[test]
    fn a_guest_that_is_told_who_it_is_has_a_port_for_it() {
        let told = DomainSpec { identity: Some("/i,d".into()), ssh_port: 0, ..spec() };
        let xml = domain(&told, None);
        assert!(xml.contains("pipe,id=kmtid,path=/i,,d") && xml.contains("name=kmt.identity"), "{xml}");
        assert!(!xml.contains("hostfwd"), "{xml}");
        assert!(!domain(&spec(), None).contains("virtio-serial"));
    }

    #[test]
    fn a_card_is_in_one_network_only() {
        let lan = DomainSpec { network: GuestNetwork::Nat, lan: Some("kmt-1".to_owned()), ..spec() };
        let xml = domain(&lan, None);
        assert!(xml.contains("<source network='kmt-1'/>") && !xml.contains("-netdev"), "{xml}");
        assert!(!domain(&spec(), None).contains("<interface"));
    }

    #[test]
    fn what_is_written_is_escaped_and_read_back() {
        let xml = domain(&spec(), Some((64055, 64055)));
        assert!(xml.contains("<name>kmt-&lt;x&gt;</name>"), "{xml}");
        assert!(xml.contains("a &amp; b"));
        assert!(xml.contains("restrict=on"));
        assert!(xml.contains("<serial>kmt0</serial>") && xml.contains("machine='q35'"));
        assert!(xml.contains("bus=pcie.0") && !xml.contains("-gdb"));
        let other = DomainSpec { machine_type: Some("pc".to_owned()), gdb: Some(4321), ..spec() };
        let other = domain(&other, None);
        assert!(other.contains("machine='pc'") && other.contains("bus=pci.0"), "{other}");
        assert!(other.contains("'-gdb'/><qemu:arg value='tcp:127.0.0.1:4321'"), "{other}");
        assert!(xml.contains("path=/c,,1"));
        assert!(xml.contains("+64055:+64055"));
        let (stack, machine) = owner(&xml).unwrap();
        assert_eq!((stack, machine.as_str()), (Uuid::from_u128(7).to_string(), "debian_12-6.1-x86_64"));
        assert_eq!(owner("<domain><metadata/></domain>"), None);
    }

    #[test]
    fn a_disk_that_boots_by_itself_gets_no_kernel() {
        let xml = domain(&DomainSpec { direct: None, ..spec() }, None);
        assert!(!xml.contains("<kernel>") && !xml.contains("<cmdline>"), "{xml}");
    }

    #[test]
    fn arm64_has_acpi_and_the_firmware_that_brings_it() {
        let xml = domain(&DomainSpec { arch: Arch::Arm64, ..spec() }, None);
        let os = "<os firmware='efi'><type arch='aarch64' machine='virt'>hvm</type><firmware>";
        assert!(
            xml.contains(os) && xml.contains("name='secure-boot'/>") && xml.contains("<acpi/><gic"),
            "{xml}"
        );
        assert!(domain(&spec(), None).contains("<os><type arch='x86_64'"));
        assert!(domain(&spec(), None).ends_with("cpu-unavailable-features'/></qemu:capabilities></domain>"));
        assert!(!xml.contains("qemu:capabilities"), "{xml}");
    }

    #[test]
    fn an_open_network_is_asked_for() {
        let xml = domain(&DomainSpec { network: GuestNetwork::Outbound, ..spec() }, None);
        assert!(!xml.contains("restrict=on"));
        assert!(!xml.contains("seclabel"));
    }

    #[test]
    fn the_user_of_qemu_is_found() {
        let text = "<secmodel><model>none</model></secmodel><secmodel><model>dac</model><doi>0</doi>\
                    <baselabel type='kvm'>+64055:+64056</baselabel></secmodel>";
        assert_eq!(dac_label(text), Some((64055, 64056)));
        assert_eq!(dac_label("<secmodel/>"), None);
    }
}
