//! Machines with addresses, in a network of their stack's own.

use std::net::Ipv4Addr;

use serde_json::Value;

use crate::harness::{Call, Home, Namespace, fixture, step};

const VMS: &str = "debian_12-local-distro,debian_13-local-distro";

fn call<'h>(home: &'h Home, words: &str) -> Call<'h> {
    let fixture = fixture();
    let words: Vec<&str> = ["-C", &fixture, "stack"].into_iter().chain(words.split(' ')).collect();
    home.call(words).limit(400)
}

/// Addresses of the machines of the only stack, by what `status` says.
fn addresses(home: &Home, inside: &Namespace) -> Vec<(String, Ipv4Addr)> {
    let said = call(home, "status --stack nat --format json").inside(inside).end().expect(0).stdout;
    let status: Value = serde_json::from_str(&said).unwrap();
    let machines = status["stacks"][0]["machines"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    machines.iter().map(|m| (text(&m["id"]), text(&m["address"]).parse().unwrap())).collect()
}

/// Each machine reaches each other one, and the host reaches both.
fn all_reach_each_other(home: &Home, inside: &Namespace, machines: &[(String, Ipv4Addr)]) {
    assert_eq!(machines.len(), 2, "{machines:?}");
    for ((from, own), (_, to)) in [(&machines[0], &machines[1]), (&machines[1], &machines[0])] {
        let fixture = fixture();
        let line = format!("hostname -I; exec 3<>/dev/tcp/{to}/22 && head -c 4 <&3");
        let args = ["-C", &fixture, "stack", "ssh", "--stack", "nat", from, "--", "bash", "-c", &line];
        let said = home.call(args).limit(60).inside(inside).end().expect(0).stdout;
        assert!(said.starts_with(&own.to_string()) && said.ends_with("SSH-"), "{from} to {to}: {said}");
    }
}

#[test]
fn machines_in_a_network_of_their_stack_reach_each_other() {
    let home = Home::new("nat");
    if !rustix::process::geteuid().is_root() {
        step("an ordinary user's own libvirt makes no network, and says so before anything is made");
        call(&home, &format!("configure --init-stack --stack nat --network nat --vms {VMS} --yes"))
            .end()
            .expect(0);
        let words = ["needs libvirt's system daemon", "KMT_LIBVIRT_URI=qemu:///system", "sudo -n chown"];
        call(&home, "launch --stack nat").end().refused(102, &words);
        assert!(home.machines().is_empty());
        return home.destroy();
    }
    let inside = Namespace::new();
    step("half of what networks are made of is taken on this host");
    inside.said("ip link add taken type bridge; ip addr add 192.168.1.1/17 dev taken; ip link set taken up");
    call(&home, &format!("configure --init-stack --stack nat --network nat --vms {VMS} --yes"))
        .inside(&inside)
        .end()
        .expect(0);
    call(&home, "launch --stack nat").inside(&inside).end().expect(0);
    let machines = addresses(&home, &inside);
    println!("           {machines:?}");
    assert!(
        machines.iter().all(|(_, address)| address.is_private() && address.octets()[2] >= 128),
        "{machines:?}"
    );
    all_reach_each_other(&home, &inside, &machines);

    step("saved and resumed, and one made anew, they are where they were");
    call(&home, "pause --stack nat").inside(&inside).end().expect(0);
    call(&home, "resume --stack nat").inside(&inside).end().expect(0);
    call(&home, "reset debian_12 --stack nat").inside(&inside).end().expect(0);
    assert_eq!(addresses(&home, &inside), machines);
    all_reach_each_other(&home, &inside, &machines);

    step("destroyed, its network and bridge are gone");
    call(&home, "destroy --stack nat --yes").inside(&inside).end().expect(0);
    let networks = inside.said("virsh -c qemu:///system net-list --all --name; ip -br link show type bridge | grep -v ^taken || true");
    // Debian's libvirt comes with a network of its own.
    assert_eq!(networks.trim(), "default");
    home.nothing_left();
}
