//! Which modules the initrd loads, and in which order: depmod's indexes, read.

use std::collections::BTreeMap;

/// The modules of a kernel, as depmod listed them.
#[derive(Debug, Default)]
pub(super) struct ModuleIndex {
    /// Name -> file, and the files it needs, each below `lib/modules/<release>`.
    files: BTreeMap<String, (String, Vec<String>)>,
    builtin: Vec<String>,
}

impl ModuleIndex {
    /// Reads `modules.dep` and `modules.builtin`.
    pub(super) fn parse(dep: &str, builtin: &str) -> ModuleIndex {
        let entry = |line: &str| {
            let (file, needs) = line.split_once(':')?;
            Some((name(file), (file.to_owned(), needs.split_whitespace().map(str::to_owned).collect())))
        };
        let files = dep.lines().filter_map(entry).collect();
        ModuleIndex { files, builtin: builtin.lines().map(name).collect() }
    }

    /// The files to load for `wanted`, each after what it needs, none twice. What is built in needs no file; what
    /// is nowhere is left out and returned second.
    pub(super) fn order(&self, wanted: &[&str]) -> (Vec<String>, Vec<String>) {
        let (mut order, mut absent) = (Vec::new(), Vec::new());
        for module in wanted {
            match self.files.get(*module) {
                Some((file, needs)) => {
                    for path in needs.iter().rev().chain([file]) {
                        if !order.contains(path) {
                            order.push(path.clone());
                        }
                    }
                }
                None if self.builtin.iter().any(|known| known == module) => {}
                None => absent.push((*module).to_owned()),
            }
        }
        (order, absent)
    }
}

/// A module's name from its path: `kernel/drivers/block/virtio_blk.ko.xz` is `virtio_blk`.
pub(super) fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_after_what_it_needs_and_once() {
        let dep = "kernel/net/virtio_net.ko.xz: kernel/net/net_failover.ko.xz kernel/core/failover.ko.xz\n\
                   kernel/net/net_failover.ko.xz: kernel/core/failover.ko.xz\n\
                   kernel/core/failover.ko.xz:\n\
                   kernel/block/virtio_blk.ko.xz:\n";
        let index = ModuleIndex::parse(dep, "kernel/fs/ext4/ext4.ko\nkernel/virtio/virtio-pci.ko\n");
        let (order, absent) = index.order(&["virtio_pci", "virtio_blk", "virtio_net", "ext4", "virtio_mmio"]);
        let names: Vec<String> = order.iter().map(|path| name(path)).collect();
        assert_eq!(names, ["virtio_blk", "failover", "net_failover", "virtio_net"]);
        assert_eq!(absent, ["virtio_mmio"]);
    }
}
