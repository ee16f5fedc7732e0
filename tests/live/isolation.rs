//! What a guest reaches, and who is taken for a guest.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, UdpSocket};
use std::thread;

use crate::harness::{Home, cell, fixture, step, text};

/// Whether a program in the guest can open a connection and is greeted.
fn reaches(home: &Home, address: &str, port: u16) -> bool {
    let machine = cell("debian_12/6.1").replace('/', "-");
    let script = format!("exec 3<>/dev/tcp/{address}/{port} && head -c 4 <&3");
    let output =
        home.ssh(&machine).args(["timeout", "10", "bash", "-c"]).arg(format!("'{script}'")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("           {address}:{port}: {said:?} {}", String::from_utf8_lossy(&output.stderr).trim());
    !said.is_empty()
}

/// A listener on this host that greets everybody.
fn greeter(address: &str) -> u16 {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(b"host"));
        }
    });
    port
}

/// An address of this host that is not loopback, if it has one; no packet is sent to find it.
fn own_address() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}

fn run(home: &Home, matrix: &str) {
    home.call(["run", matrix]).limit(240).end().expect(0);
}

#[test]
fn guests_are_closed_and_only_they_are_believed() {
    let home = Home::new("isolation");
    let matrix = |name: &str, more: &str| {
        let file = home.folder.join(name);
        let vms = "vms = [\"debian_12-local-distro\"]\npackages = [\"./pkg/util/kernel\"]\n";
        fs::write(&file, format!("root = {:?}\n{vms}{more}", fixture())).unwrap();
        text(file)
    };
    let (loopback, everywhere) = (greeter("127.0.0.1"), greeter("0.0.0.0"));

    step("a closed guest reaches itself, not this host's loopback, nor the world");
    run(&home, &matrix("closed.toml", ""));
    assert!(reaches(&home, "127.0.0.1", 22), "the guest cannot even reach itself");
    assert!(!reaches(&home, "10.0.2.2", loopback));
    assert!(!reaches(&home, "127.0.0.1", loopback));
    if let Some(address) = own_address() {
        assert!(!reaches(&home, &address, everywhere));
    }

    step("whoever answers with another key is not believed");
    wrong_host_key(&home);

    step("the same question from a guest that was opened: it can tell");
    run(&home, &matrix("open.toml", "network = \"outbound\"\n"));
    assert_eq!(home.machines().len(), 1, "the closed machine was not replaced");
    assert!(reaches(&home, "10.0.2.2", loopback));
    if let Some(address) = own_address() {
        assert!(reaches(&home, &address, everywhere));
    }
    home.destroy();
}

fn wrong_host_key(home: &Home) {
    let machine = cell("debian_12/6.1").replace('/', "-");
    let known = fs::read_to_string(home.stack().join("known_hosts")).unwrap();
    let line = known.lines().find(|line| line.starts_with(&format!("{machine} "))).unwrap();
    let other = fs::read_to_string(home.stack().join("keys/id_ed25519.pub")).unwrap();
    let key = other.split(' ').nth(1).unwrap();
    let wrong = home.folder.join("wrong");
    fs::write(&wrong, format!("{machine} ssh-ed25519 {key}\n")).unwrap();
    assert!(!line.contains(key));
    let option = format!("UserKnownHostsFile={}", wrong.display());
    let mut command = home.ssh(&machine);
    let output = command.args(["-o", &option, "true"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(255), "{said}");
    assert!(said.contains("Host key verification failed"), "{said}");
}
