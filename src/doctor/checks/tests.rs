use std::path::PathBuf;

use super::*;
use crate::doctor::OwnHost;
use crate::external::host::HostState;
use crate::external::hypervisor::{Acceleration, HostFacts};

fn well() -> Facts {
    Facts {
        host: HostState::default(),
        uri: "qemu:///session".to_owned(),
        home: PathBuf::from("/h"),
        networks: Some(vec!["192.168.122.0/24".to_owned()]),
        hypervisor: Ok(HostFacts {
            arch: kmt_reporters::event::Arch::host(),
            software: String::new(),
            acceleration: Acceleration {
                accelerator: Accelerator::Kvm,
                cpu: "host".to_owned(),
                notice: None,
            },
            cores: 4,
            memory_mib: 8192,
            qemu_user: None,
            most_vcpu: None,
            notices: Vec::new(),
        }),
        images: vec![("debian_12".to_owned(), None)],
        keys: vec![(PathBuf::from("/h/key"), Some(0o100_600))],
        user_key: Some(("/k".to_owned(), true)),
        own_hosts: Vec::new(),
        rentable: None,
        leftovers: Vec::new(),
    }
}

/// The verdicts that are not fine, as `grade check`, after a change of the facts.
fn found(change: impl FnOnce(&mut Facts)) -> Vec<String> {
    let mut facts = well();
    change(&mut facts);
    let verdicts = examine(&facts);
    for verdict in verdicts.iter().filter(|verdict| verdict.grade == Grade::Wrong) {
        assert!(verdict.mend.is_some(), "{verdict:?} does not say what mends it");
    }
    let bad = verdicts.iter().filter(|verdict| verdict.grade != Grade::Fine);
    bad.map(|verdict| format!("{} {}", verdict.grade.as_str(), verdict.check)).collect()
}

fn mend(change: impl FnOnce(&mut Facts)) -> (String, Option<Remedy>) {
    let mut facts = well();
    change(&mut facts);
    let verdict = examine(&facts).into_iter().find(|verdict| verdict.grade == Grade::Wrong).unwrap();
    (verdict.mend.unwrap(), verdict.remedy)
}

/// The verdict on a host of the user's own.
fn of_host(free: Option<u64>, change: impl FnOnce(&mut HostFacts)) -> Verdict {
    let mut facts = well().hypervisor.unwrap();
    change(&mut facts);
    let own = OwnHost {
        name: "lab".to_owned(),
        place: "me@10.0.0.5".to_owned(),
        folder: PathBuf::from("/srv"),
        seen: Ok((facts, free)),
    };
    let verdicts = examine(&Facts { own_hosts: vec![own], ..well() });
    verdicts.into_iter().find(|verdict| verdict.check == "host").unwrap()
}

#[test]
fn a_host_of_ones_own_is_told_with_what_it_lacks() {
    assert_eq!(of_host(Some(50_000), |_| {}).grade, Grade::Fine);
    assert_eq!(of_host(None, |_| {}).grade, Grade::Fine);
    assert_eq!(of_host(Some(5000), |_| {}).grade, Grade::Note);
    let full = of_host(Some(100), |_| {});
    assert!(full.grade == Grade::Wrong && full.says.contains("100 MiB free at /srv"), "{full:?}");
    let slow = of_host(None, |facts| facts.acceleration.accelerator = Accelerator::Tcg);
    assert!(slow.grade == Grade::Note && slow.says.contains("emulated"), "{slow:?}");
}

#[test]
fn a_machine_that_is_well_has_no_finding() {
    assert!(found(|_| {}).is_empty());
}

#[test]
fn each_fact_is_told_by_its_own_check() {
    assert_eq!(found(|f| f.host.missing = vec!["ssh".to_owned()]), ["wrong programs"]);
    assert_eq!(found(|f| f.host.deaf = vec!["virtlogd".to_owned()]), ["wrong daemons"]);
    assert_eq!(
        found(|f| f.hypervisor = Err(Failure::usage("deaf").hint("start it"))),
        ["wrong hypervisor", "note acceleration"]
    );
    assert_eq!(found(|f| f.networks = None), ["note nat"]);
    assert_eq!(found(|f| f.networks = Some(vec!["192.168.0.0/16".to_owned()])), ["note nat"]);
    assert_eq!(found(|f| f.host.missing = vec!["dnsmasq".to_owned()]), ["note nat"]);
    assert_eq!(found(|f| f.host.kvm = Kvm::Absent), ["note kvm"]);
    assert_eq!(found(|f| f.host.kvm = Kvm::Closed), ["wrong kvm"]);
    assert_eq!(found(|f| f.host.free_mib = Some(100)), ["wrong disk"]);
    assert_eq!(found(|f| f.host.free_mib = Some(5000)), ["note disk"]);
    assert_eq!(found(|f| f.host.free_mib = None), ["note disk"]);
    assert_eq!(found(|f| f.images[0].1 = Some("spoiled".to_owned())), ["wrong images"]);
    assert_eq!(found(|f| f.images.clear()), ["note images"]);
    assert_eq!(found(|f| f.keys[0].1 = None), ["wrong keys"]);
    assert_eq!(found(|f| f.keys[0].1 = Some(0o100_644)), ["wrong keys"]);
    assert_eq!(found(|f| f.user_key = None), ["note ssh-key"]);
    assert_eq!(found(|f| f.user_key = Some(("/k".to_owned(), false))), ["wrong ssh-key"]);
    assert_eq!(found(|f| f.host.go = None), ["note go"]);
    assert_eq!(found(|f| f.host.cloud.clear()), ["note cloud"]);
    assert!(found(|f| f.rentable = Some(Ok("EC2 would rent x".to_owned()))).is_empty());
    let refused = || Failure::new(crate::error::Kind::Remote, "ec2 could not rehearse").hint("aws sso login");
    assert_eq!(found(|f| f.rentable = Some(Err(refused()))), ["wrong cloud"]);
    assert_eq!(found(|f| f.host.gitlab = None), ["note gitlab"]);
    let foreign = Leftover::Foreign { domain: "d".to_owned() };
    assert_eq!(found(|f| f.leftovers = vec![foreign]), ["note leftovers"]);
    let damaged = Leftover::Damaged { folder: PathBuf::from("/h/s") };
    assert_eq!(found(|f| f.leftovers = vec![damaged]), ["wrong leftovers"]);
}

#[test]
fn a_group_is_missed_only_where_it_is_needed() {
    let without = |f: &mut Facts| {
        f.host.kvm = Kvm::Closed;
        f.host.groups.clear();
    };
    assert_eq!(found(without), ["note kvm", "wrong groups"]);
    assert_eq!(mend(without).0, "sudo usermod -aG kvm tester, and a new login");
    assert_eq!(found(|f| f.uri = "qemu:///system".to_owned()), ["wrong groups"]);
    assert!(found(|f| f.host.groups.clear()).is_empty());
}

#[test]
fn what_helped_the_hypervisor_before_is_what_mends_it() {
    let deaf = |hint: Option<&str>| {
        let failure = Failure::usage("deaf");
        let failure = hint.iter().fold(failure, |failure, hint| failure.hint(*hint));
        mend(|f| f.hypervisor = Err(failure)).0
    };
    assert_eq!(deaf(Some("start it")), "start it");
    assert_eq!(deaf(None), "sudo apt-get install libvirt-daemon-system");
}

#[test]
fn commands_are_typed_as_this_user_must() {
    let lacks = |f: &mut Facts| f.host.missing = vec!["ssh".to_owned(), "ssh-keygen".to_owned()];
    assert_eq!(mend(lacks).0, "sudo apt-get install openssh-client");
    let as_root = |f: &mut Facts| {
        f.host.root = true;
        lacks(f);
    };
    assert_eq!(mend(as_root).0, "apt-get install openssh-client");
}

#[test]
fn what_can_be_mended_has_its_remedy() {
    assert_eq!(mend(|f| f.host.deaf = vec!["libvirtd".to_owned()]).1, Some(Remedy::StartDaemons));
    let slow = |root: bool| {
        move |f: &mut Facts| {
            f.host.root = root;
            f.hypervisor.as_mut().unwrap().notices = vec!["/dev/kvm is closed to QEMU's user".to_owned()];
        }
    };
    assert_eq!(mend(slow(true)).1, Some(Remedy::OpenKvm));
    assert_eq!(mend(slow(false)).1, None);
    let leftover = Leftover::Domain { domain: "d".to_owned() };
    let wanted = Some(Remedy::Remove(leftover.clone()));
    assert_eq!(mend(|f| f.leftovers = vec![leftover]).1, wanted);
    let key = Some(Remedy::CloseKey(PathBuf::from("/h/key")));
    assert_eq!(mend(|f| f.keys[0].1 = Some(0o100_644)).1, key);
}

#[test]
fn a_route_that_meets_the_guests_network_is_seen_whatever_its_length() {
    for route in ["10.0.2.0/24", "10.0.0.0/8", "10.0.2.128/25"] {
        assert_eq!(found(|f| f.host.routes = vec![route.to_owned()]), ["note network"], "{route}");
    }
    for route in ["10.0.3.0/24", "172.17.0.0/16", "10.1.0.0/16", "nonsense"] {
        assert!(found(|f| f.host.routes = vec![route.to_owned()]).is_empty(), "{route}");
    }
}
