//! A launch on a disk that is full, and again when there is room.

use crate::harness::{Home, Namespace, fixture, step, text};

#[test]
fn a_launch_on_a_full_disk_leaves_nothing_and_works_when_there_is_room() {
    if !rustix::process::geteuid().is_root() {
        step("only root can make a disk that is full at once");
        return;
    }
    let home = Home::new("full");
    let inside = Namespace::new();
    let fixture = fixture();
    let call = |words: &str| {
        let words: Vec<&str> = ["-C", &fixture, "stack"].into_iter().chain(words.split(' ')).collect();
        home.call(words).limit(300).inside(&inside)
    };
    let stacks = text(home.folder.join("stacks"));
    inside.said(&format!("mkdir -p {stacks} && mount -t tmpfs -o size=1m,mode=755 kmt {stacks}"));
    call("configure --init-stack --stack full --vms debian_12-local-distro --memory 512 --yes")
        .end()
        .expect(0);
    step("what a machine needs does not fit: it is said, and nothing of the machine is left");
    let said = call("launch --stack full").end().expect(102).stderr;
    assert!(said.contains("No space left on device") && said.contains("hint: "), "{said}");
    let left = inside.said(&format!("ls {stacks}/*/machines; virsh -c qemu:///system list --all --name"));
    assert_eq!(left.trim(), "");
    assert!(call("status --stack full").end().expect(0).stdout.contains("1 not launched"));

    step("there is room again");
    inside.said(&format!("mount -o remount,size=2g {stacks}"));
    call("launch --stack full").end().expect(0);
    call("exec --stack full -- true").end().expect(0);
    call("destroy --stack full --yes").end().expect(0);
    assert_eq!(inside.said("virsh -c qemu:///system list --all --name").trim(), "");
    home.nothing_left();
}
